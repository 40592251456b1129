"use strict";
const SHOWN = 60;
const PLOTTED = 200;
const state = { about: null, requests: [], status: null, peak: 0 };
const find = (id) => document.getElementById(id);

// Text only goes in as text: paths and output come from elsewhere.
function element(tag, options = {}, ...children) {
  const one = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) one[name] = value;
  one.append(...children.filter((child) => child !== null));
  return one;
}

function size(count) {
  if (count < 1024) return `${count} B`;
  if (count < 1048576) return `${Math.round(count / 1024)} KB`;
  return `${(count / 1048576).toFixed(1).replace(".0", "")} MB`;
}

function seconds(value) {
  return value < 1 ? `${Math.round(value * 1000)} ms` : `${value.toFixed(1)} s`;
}

function number(count, noun) {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

function quota() {
  return state.about.storage_size * 1048576;
}

function level(share) {
  return share >= 0.95 ? "full" : share >= 0.75 ? "near" : "";
}

function showAbout(about) {
  state.about = about;
  find("name").textContent = about.name;
  document.title = `tmpguard run: ${about.name}`;
  find("about").textContent =
    `/tmp of ${about.storage_size} MB, up to ${number(about.instances, "instance")}, ` +
    `${number(about.concurrency, "request")} at once in each.`;
  find("foot").textContent = `tmpguard ${about.tmpguard}. 1 MB is 1,048,576 bytes.`;
}

function showStatus(status) {
  state.status = status;
  find("requests").textContent = status.requests.toLocaleString("en");
  find("found").textContent = status.findings.toLocaleString("en");
  find("found").className = status.findings ? "bad" : "";
  find("waiting").textContent = status.waiting.toLocaleString("en");
  const cards = status.instances.map((one) =>
    element("li", { className: one.running ? "busy" : "" },
      element("b", { textContent: `Instance ${one.number}` }),
      element("span", { textContent: one.running ? `${one.state}, ${one.running} running` : one.state }),
      element("span", { textContent: `${number(one.served, "request")} served` })));
  find("instances").replaceChildren(...cards);
}

function svg(tag, attributes, text) {
  const one = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) one.setAttribute(name, value);
  if (text !== undefined) one.textContent = text;
  return one;
}

function plot() {
  const picture = find("plot");
  const { width, height } = picture.getBoundingClientRect();
  if (!width || !state.about) return;
  const [left, bottom, top] = [52, 18, 10];
  const shown = state.requests.slice(-PLOTTED);
  const highest = Math.max(...shown.map((one) => one.peak), 0);
  // The scale is the quota's, unless all bars would be too small to see.
  const scale = highest >= quota() / 20 || !highest ? quota() : highest * 1.25;
  const y = (value) => height - bottom - (value / scale) * (height - bottom - top);
  const parts = [0, 0.5, 1].flatMap((share) => [
    svg("line", {
      x1: left, x2: width, y1: y(scale * share), y2: y(scale * share),
      class: share === 1 && scale === quota() ? "quota" : "",
    }),
    svg("text", { x: left - 8, y: y(scale * share) + 4, "text-anchor": "end" }, size(Math.round(scale * share))),
  ]);
  const step = Math.min((width - left) / Math.max(shown.length, 40), 20);
  shown.forEach((one, at) => {
    const x = width - (shown.length - at) * step;
    const drawn = Math.max(height - bottom - y(Math.min(one.peak, scale)), 2);
    const bar = svg("rect", {
      x: x + step * 0.1, y: height - bottom - drawn, width: Math.max(step * 0.8, 1), height: drawn,
      class: one.peak ? level(one.peak / quota()) : "none",
    });
    bar.append(svg("title", {}, `${one.method} ${one.target}: ${size(one.peak)}`));
    parts.push(bar);
  });
  if (shown.length) {
    const clock = (one) => new Date(one.time * 1000).toLocaleTimeString();
    const from = Math.max(left, width - shown.length * step);
    if (width - from > 160) parts.push(svg("text", { x: from, y: height - 2 }, clock(shown[0])));
    parts.push(svg("text", { x: width, y: height - 2, "text-anchor": "end" }, clock(shown[shown.length - 1])));
  }
  picture.replaceChildren(...parts);
}

function row(one) {
  const share = one.peak / quota();
  const bar = element("i", { className: one.peak ? level(share) : "zero" });
  bar.style.width = `${Math.min(share, 1) * 100}%`;
  const facts = [];
  if (one.findings) {
    facts.push(number(one.findings, "finding") + (one.shared ? ", of this or another request that ran" : ""));
  }
  const kind = one.status < 400 ? "ok" : one.status >= 500 ? "bad" : "";
  return element("li", {},
    element("div", {},
      element("div", { className: "name" },
        element("b", { textContent: one.method }), ` ${one.target}`),
      facts.length ? element("div", { className: "facts", textContent: facts.join(" · ") }) : null),
    element("div", { className: `status ${kind}`, textContent: one.status }),
    element("div", { className: "time", textContent: seconds(one.seconds) }),
    element("div", { className: "peak" },
      element("div", { className: "usage" }, size(one.peak)),
      element("div", { className: "bar" }, bar)),
    one.trouble ? element("div", { className: "trouble", textContent: one.trouble }) : null);
}

function addRequests(requests) {
  state.requests.push(...requests);
  state.requests.splice(0, state.requests.length - PLOTTED);
  state.peak = Math.max(state.peak, ...requests.map((one) => one.peak));
  find("peak").replaceChildren(size(state.peak), element("small", { textContent: `of ${size(quota())}` }));
  const list = find("list");
  list.prepend(...requests.slice(-SHOWN).reverse().map(row));
  while (list.children.length > SHOWN) list.lastChild.remove();
  plot();
}

function where(place) {
  return place ? `${place.file}:${place.line} in ${place.function}` : "no line of the application";
}

function finding(group) {
  const tags = element("div", { className: "tags" },
    element("span", { className: "tag bad", textContent: group.error }),
    element("span", { className: "tag", textContent: group.message }),
    group.count > 1 ? element("span", { className: "tag", textContent: `${group.count} times` }) : null,
    group.late ? element("span", { className: "tag warn", textContent: "after the response" }) : null);
  const source = group.source.map((line) =>
    element("li", { className: group.location && line.line === group.location.line ? "here" : "" },
      element("span", { textContent: line.line }),
      element("code", { textContent: line.text })));
  return element("article", { className: "finding" },
    element("div", { className: "head" }, tags,
      element("h3", {}, element("code", { textContent: group.operation }), " of ",
        element("code", { textContent: group.paths[0] || "a file without a name" })),
      element("p", { className: "at" }, element("code", { textContent: where(group.location) }))),
    source.length ? element("ul", { className: "source" }, ...source) : null,
    group.remedy
      ? element("p", { className: "remedy" },
        element("b", { textContent: "Remedy" }), element("span", { textContent: group.remedy }))
      : null,
    element("div", { className: "seen", textContent: group.routes.slice(0, 8).join(" · ") }));
}

function showFindings(groups) {
  const none = element("p", { className: "none", textContent: "None so far: every write went to /tmp and fitted." });
  find("findings").replaceChildren(...(groups.length ? groups.map(finding) : [none]));
}

function show(message) {
  if (message.about) {
    // The run may be another one than before the connection was lost.
    Object.assign(state, { requests: [], peak: 0 });
    find("list").replaceChildren();
    showAbout(message.about);
  }
  if (message.status) showStatus(message.status);
  if (message.findings) showFindings(message.findings);
  if (message.about || message.requests.length) addRequests(message.requests);
}

function connect() {
  const link = find("link");
  const events = new EventSource("events");
  events.onopen = () => Object.assign(link, { className: "live", textContent: "live" });
  events.onerror = () => Object.assign(link, { className: "lost", textContent: "the run has ended, or is out of reach" });
  events.onmessage = (event) => show(JSON.parse(event.data));
}

addEventListener("resize", plot);
connect();
