// What each example does, without a word about tmpguard: files in Node, by native code and by a child.
"use strict";
const { execFileSync } = require("node:child_process");
const fs = require("node:fs");

const held = () => fs.readdirSync("/tmp").filter((name) => name !== "package").sort().join(" ");

module.exports = {
  write(text = "hello") {
    fs.writeFileSync("/tmp/note.txt", text);
    return `wrote ${text.length} bytes; /tmp holds ${held()}\n`;
  },

  read() {
    const thereBefore = fs.existsSync("/tmp/note.txt");
    fs.writeFileSync("/tmp/note.txt", "written by this request");
    const text = fs.readFileSync("/tmp/note.txt", "utf8");
    return `a note of another request: ${thereBefore}; of this one: ${text}\n`;
  },

  outside() {
    fs.writeFileSync("file.txt", "this is not /tmp");
    return "wrote file.txt\n";
  },

  overfill() {
    let fitted = 0;
    const file = fs.openSync("/tmp/big.bin", "w");
    try {
      for (;;) fitted += fs.writeSync(file, Buffer.alloc(100_000));
    } catch (error) {
      return `${fitted} bytes fitted, then: ${error.message}\n`;
    } finally {
      fs.closeSync(file);
    }
  },

  bundled() {
    return fs.readFileSync("/tmp/package/greeting.txt", "utf8");
  },

  // Node writes its diagnostic report in C++.
  native() {
    return ["/tmp/native.json", "native.json"].map((path) => {
      process.report.writeReport(path);
      return `${path}: ${fs.existsSync(path) ? "written" : "not written"}\n`;
    }).join("");
  },

  child() {
    const script = "echo hello > /tmp/child.txt && cat /tmp/child.txt; echo hello > child.txt";
    return execFileSync("sh", ["-c", `{ ${script}; } 2>&1 || true`], { encoding: "utf8" });
  },
};
