"""The report of a run as one HTML page. It needs no network, no script and no other file."""

from __future__ import annotations

import html
from datetime import datetime
from importlib import resources
from typing import Any, Final

from .summary import number, percent, seen, size, span, where
from .violations import printable

Data = dict[str, Any]

#: The most rows of a list and the most items of a finding; the JSON has all of them.
PAGE_ROWS: Final = 300
ITEMS: Final = 20

#: Rows of a list that are visible at first; the others can be unfolded.
SHOWN: Final = 20

_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
{style}</style>
</head>
<body>
{header}
<main>
{main}
</main>
<footer>{footer}</footer>
</body>
</html>
"""


#: More lists of findings, each with its title and what it is about.
_MORE: Final = (
    ("missing_files", "Missing files", "made by another request or the start-up, in a /tmp of its own"),
    ("children", "Child processes", "not guarded: they see the real file system"),
)


def page(data: Data) -> str:
    """The page for the report ``data`` (see ``summary.build``). All text from the run is escaped."""
    main = [
        _violations("Violations", data["violations"], "what the real platform would refuse, by line")
        if _is_guarded(data)
        else "",
        _usage("Routes", "route", data["routes"]),
        _violations("Late writes", data["late_writes"], "file operations after the end of the request")
        if data["late_writes"]
        else "",
        *(_violations(title, data[key], about) for key, title, about in _MORE if data[key]),
        _usage("Tests", "test", data["tests"]),
    ]
    return _PAGE.format(
        title=f"tmpguard: {number(data['totals']['violations'], 'violation')}",
        style=resources.files("tmpguard.reporting").joinpath("page.css").read_text(encoding="utf-8"),
        header=_header(data),
        main="\n".join(filter(None, main)),
        footer=f"Written by tmpguard {_text(data['tmpguard'])} on Python {_text(data['python'])}. "
        f"1 MB is 1,048,576 bytes. {_same_data(data)} the same data.",
    )


def _same_data(data: Data) -> str:
    return "tmpguard report --json prints" if "merged" in data else "The JSON file beside this page has"


def _text(value: object) -> str:
    """``value`` for the page: HTML-escaped, with invisible and direction-changing characters spelled out."""
    return html.escape(printable(str(value)))


def _code(value: object) -> str:
    return f"<code>{_path(value)}</code>"


def _path(value: object) -> str:
    """``value`` for the page; a path or the name of a test may break between its parts."""
    return _text(value).replace("/", "/<wbr>").replace("::", "::<wbr>")


# --- the header ----------------------------------------------------------------------------------------


def _header(data: Data) -> str:
    totals = data["totals"]
    files = "file" if totals["files_left"] == 1 else "files"
    peak = f"{size(totals['peak_bytes'])} of {size(totals['quota_bytes'])}"
    return f"""<header>
<div class="brand"><b>tmpguard</b>{_time(data["created"])}</div>
<h1>{_verdict(data)}</h1>
<p class="lead">{_lead(data)}</p>
<dl class="totals">
{_total("Requests", f"{totals['requests']:,}", f"to {number(totals['routes'], 'route')}")}
{_by(data)}
{_total("Peak use of /tmp", _text(percent(totals["peak_share"])), peak)}
{_total("Left behind", f"{totals['files_left']:,}", f"{files}, {size(totals['bytes_left'])}")}
</dl>
</header>"""


def _by(data: Data) -> str:
    """What made the requests, or served them."""
    totals, run = data["totals"], data.get("run")
    if "merged" in data:
        merged = data["merged"]
        return _total("Reports", f"{merged['reports']:,}", _text(span(merged).lstrip(" ,")))
    if run is None:
        return _total("Tests", f"{totals['tests']:,}", _imports(totals))
    return _total("Instances", f"{run['started']:,}", f"of {_text(run['name'])}")


def _verdict(data: Data) -> str:
    totals = data["totals"]
    place = "on the platform" if "merged" in data else "in production"
    if totals["violations"]:
        count = number(totals["violations"], "file operation")
        return f'<span class="verdict-bad">{count}</span> would be refused {place}'
    if not _is_guarded(data):
        return "No request was guarded"
    kind = "Nothing unexpected" if totals["allowed"] else "Nothing"
    return f'<span class="verdict-good">{kind} would be refused {place}</span>'


def _is_guarded(data: Data) -> bool:
    return "run" in data or any(data["totals"][name] for name in ("requests", "tests", "imports"))


def _imports(totals: Data) -> str:
    return f"and {number(totals['imports'], 'import')}" if totals["imports"] else "with guarded requests"


def _time(created: str) -> str:
    return f'<time datetime="{_text(created)}">{datetime.fromisoformat(created):%d %B %Y, %H:%M} UTC</time>'


def _lead(data: Data) -> str:
    totals, lines = data["totals"], [one for one in data["violations"] if not one["allowed"]]
    parts = []
    if lines:
        they = "It comes" if totals["violations"] == 1 else "They come"
        parts.append(f"{they} from {number(len(lines), 'line')} of code.")
    if totals["allowed"]:
        more = " more" if lines else ""
        allowed = number(totals["allowed"], "violation")
        parts.append(f"{allowed}{more} {_is(totals['allowed'])} allowed by the tests.")
    if totals["late_writes"]:
        late = number(totals["late_writes"], "file operation")
        parts.append(f"{late} came after the end of the request.")
    if totals["missing_files"]:
        missing = number(totals["missing_files"], "file")
        parts.append(f"{missing} of other requests or the start-up {_was(totals['missing_files'])} missing.")
    if totals["children"]:
        children = number(totals["children"], "child process", "es")
        parts.append(f"{children} {_was(totals['children'])} not guarded.")
    if not _is_guarded(data):
        parts.append("Run pytest with --tmpguard, or use the tmpguard fixture or marker.")
    return " ".join(parts) or "Every guarded request wrote only to /tmp and stayed within its size."


def _is(count: int) -> str:
    return "is" if count == 1 else "are"


def _was(count: int) -> str:
    return "was" if count == 1 else "were"


def _total(name: str, value: str, more: str) -> str:
    return f"<div><dt>{name}</dt><dd>{value} <small>{more}</small></dd></div>"


# --- violations ----------------------------------------------------------------------------------------


def _violations(title: str, groups: list[Data], about: str) -> str:
    if not groups:
        none = '<p class="none">None: every write went to /tmp and fitted.</p>'
        return f"<section>\n<h2>{title}</h2>\n{none}\n</section>"
    cards = _unfolding([_finding(group) for group in groups[:PAGE_ROWS]], title, "{}")
    return f"<section>\n<h2>{title} <small>{about}</small></h2>\n{cards}\n{_and_more(groups)}</section>"


def _unfolding(items: list[str], title: str, within: str) -> str:
    """``items`` in the element ``within``; those after the first ``SHOWN`` can be unfolded."""
    first, rest = (within.format("\n".join(part)) for part in (items[:SHOWN], items[SHOWN:]))
    if len(items) <= SHOWN:
        return first
    summary = f"{len(items) - SHOWN} more {title.lower()}"
    return f'{first}\n<details class="rest"><summary>{summary}</summary>\n{rest}\n</details>'


def _finding(group: Data) -> str:
    tags = []
    if group["error"]:
        tags.append(f'<span class="tag {"" if group["allowed"] else "bad"}">{_text(group["error"])}</span>')
        tags.append(f'<span class="tag">{_text(group["message"])}</span>')
    if group["count"] > 1:
        tags.append(f'<span class="tag">{group["count"]:,} times</span>')
    if group["allowed"]:
        tags.append('<span class="tag warn">allowed</span>')
    through = f"<br>through {_code(where(group['library']))}" if group["library"] else ""
    return f"""<article class="finding">
<div class="head">
<div class="tags">{"".join(tags)}</div>
<h3>{_code(group["operation"])} of {_code(group["paths"][0] or "a file without a name")}</h3>
<p class="at">{_code(where(group["location"]))}{through}{_period(group)}</p>
</div>
{_source(group)}{_remedy(group)}{_seen(group)}
</article>"""


def _period(group: Data) -> str:
    return f"<br>seen {_text(seen(group))}" if group["first"] else ""


def _source(group: Data) -> str:
    if not group["source"]:
        return ""
    here = group["location"]["line"]
    lines = []
    for one in group["source"]:
        mark = " class=here" if one["line"] == here else ""
        lines.append(f"<li{mark}><span>{one['line']}</span><code>{_text(one['text'])}</code></li>")
    return f'<ul class="source">\n{chr(10).join(lines)}\n</ul>\n'


def _remedy(group: Data) -> str:
    return (
        f'<p class="remedy"><b>Remedy</b><span>{_path(group["remedy"])}</span></p>\n'
        if group["remedy"]
        else ""
    )


def _seen(group: Data) -> str:
    """The routes and tests in which the finding occurred, and its other paths."""
    items = [
        f"<dt>{title}</dt><dd>{_items(group[key])}</dd>"
        for title, key in (("Routes", "routes"), ("Tests", "tests"), ("Paths", "paths"))
        if group[key] and (key != "paths" or len(group["paths"]) > 1)
    ]
    summary = number(len(group["routes"]), "route")
    if group["tests"]:
        summary += f", {number(len(group['tests']), 'test')}"
    return f'<details class="seen"><summary>{summary}</summary><dl>{"".join(items)}</dl></details>'


def _items(values: list[str]) -> str:
    more = f" and {len(values) - ITEMS} more" if len(values) > ITEMS else ""
    return "".join(map(_code, values[:ITEMS])) + more


# --- use -----------------------------------------------------------------------------------------------


def _usage(title: str, key: str, rows: list[Data]) -> str:
    if not rows:
        return ""
    items = _unfolding([_row(key, row) for row in rows[:PAGE_ROWS]], title, '<ul class="rows">\n{}\n</ul>')
    return (
        f"<section>\n<h2>{title} <small>by the peak use of /tmp in one request</small></h2>\n"
        f"{items}\n{_and_more(rows)}</section>"
    )


def _row(key: str, row: Data) -> str:
    share = min(row["peak_share"], 1.0)
    level = "zero" if not row["peak_bytes"] else "full" if share >= 0.95 else "near" if share >= 0.75 else ""
    label = f"{size(row['peak_bytes'])} of {size(row['quota_bytes'])}"
    return f"""<li>
<div><div class="name">{_name(key, row)}</div><div class="facts">{_facts(row)}</div></div>
<div><div class="usage"><b>{_text(percent(row["peak_share"]))}</b><span>{label}</span></div>
<div class="bar" role="img" aria-label="{label}"><i class="{level}" style="width:{share:.2%}"></i></div></div>
</li>"""


def _name(key: str, row: Data) -> str:
    method, _, path = row[key].partition(" ")
    if key == "route" and row["kind"] == "request":
        return f"<b>{_text(method)}</b> {_path(path)}"
    return _path(row[key])


def _facts(row: Data) -> str:
    facts = []
    if row["violations"]:
        facts.append(f"<b>{number(row['violations'], 'violation')}</b>")
    if row["late_writes"]:
        facts.append(f"<i>{number(row['late_writes'], 'late write')}</i>")
    if row["missing_files"]:
        facts.append(f"<i>{number(row['missing_files'], 'missing file')}</i>")
    if row["children"]:
        facts.append(f"<i>{number(row['children'], 'unguarded child', 'ren')}</i>")
    if row["allowed"]:
        facts.append(f"{row['allowed']:,} allowed")
    if row["requests"]:
        facts.append(number(row["requests"], "request"))
    if row["files_left"]:
        facts.append(f"{number(row['files_left'], 'file')} left, {size(row['bytes_left'])}")
    return " · ".join(facts)


def _and_more(rows: list[Data]) -> str:
    return (
        f'<p class="more">and {len(rows) - PAGE_ROWS:,} more, in the JSON file</p>\n'
        if len(rows) > PAGE_ROWS
        else ""
    )
