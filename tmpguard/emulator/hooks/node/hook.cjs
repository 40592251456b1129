// Tells the observer of `tmpguard run` the application's line of a refused change; see emulator/inside/observer.py.
//
// Every Node of an instance loads this first. It changes nothing that the application sees: each function of `fs`
// that can change a file is replaced by one that calls it, and that reports an EROFS or ENOSPC with the stack.
"use strict";

const fs = require("fs");
const { syncBuiltinESMExports } = require("module");
const { errorMonitor } = require("events");

const openSync = fs.openSync;
const REFUSALS = new Set(["EROFS", "ENOSPC"]);
const LONGEST = 3900; // bytes of a path that the kernel looks at, with room for the prefix
const FRAME = /^\s+at (?:(?:async )?(.*?) \()?(?:file:\/\/)?(.+?):(\d+):\d+\)?$/;

const CHANGES = [
  "appendFile", "chmod", "chown", "copyFile", "cp", "lchmod", "lchown", "link", "lutimes", "mkdir", "mkdtemp", "open",
  "rename", "rm", "rmdir", "symlink", "truncate", "unlink", "utimes", "writeFile",
];
// These take a descriptor: the observer knows the path.
const ON_DESCRIPTORS = ["fchmod", "fchown", "ftruncate", "futimes", "write", "writev"];
const OF_HANDLES = ["appendFile", "chmod", "chown", "truncate", "utimes", "write", "writeFile", "writev"];

/** The frames of a stack as [file, line, function], the innermost first, without Node's own. */
function framesOf(stack) {
  const frames = [];
  for (const line of String(stack).split("\n")) {
    const [, name, file, number] = FRAME.exec(line) || [];
    if (file && !file.startsWith("node:") && file !== __filename) frames.push([file, Number(number), name || ""]);
  }
  return frames;
}

/** Opens a file that never exists: the observer reads the name. */
function report(error, path, stack) {
  if (!error || !REFUSALS.has(error.code)) return;
  const frames = framesOf(stack);
  if (frames.length === 0) return;
  let message;
  do {
    message = "/.tmpguard/" + JSON.stringify([error.code, path, frames]);
    frames.pop();
  } while (frames.length && Buffer.byteLength(message) > LONGEST);
  try {
    openSync(message, fs.constants.O_WRONLY);
  } catch {
    // as it should be
  }
}

function pathOf(value) {
  if (typeof value === "string") return value;
  if (Buffer.isBuffer(value)) return value.toString();
  return value instanceof URL ? value.pathname : null;
}

/** Replaces `owner[name]` by what `make` makes of it, which is as the original in everything else. */
function replace(owner, name, make) {
  const original = owner[name];
  if (typeof original !== "function") return;
  const replaced = make(original);
  Object.defineProperties(replaced, Object.getOwnPropertyDescriptors(original));
  owner[name] = replaced;
}

function stackAt(caller) {
  const here = {};
  Error.captureStackTrace(here, caller); // it is made a text only when it is asked for
  return here;
}

function replaceSync(owner, name, hasPath) {
  replace(owner, name, (original) => function replaced(...args) {
    try {
      return original.apply(this, args);
    } catch (error) {
      report(error, hasPath ? pathOf(args[0]) : null, stackAt(replaced).stack);
      throw error;
    }
  });
}

function replaceWithCallback(owner, name, hasPath) {
  replace(owner, name, (original) => function replaced(...args) {
    const callback = args[args.length - 1];
    if (typeof callback === "function") {
      const here = stackAt(replaced);
      args[args.length - 1] = function (error, ...rest) {
        report(error, hasPath ? pathOf(args[0]) : null, here.stack);
        return callback.call(this, error, ...rest);
      };
    }
    return original.apply(this, args);
  });
}

function replaceWithPromise(owner, name, hasPath) {
  replace(owner, name, (original) => function replaced(...args) {
    const here = stackAt(replaced);
    const result = original.apply(this, args);
    result.then(undefined, (error) => report(error, hasPath ? pathOf(args[0]) : null, here.stack));
    return result;
  });
}

for (const name of CHANGES) {
  replaceSync(fs, name + "Sync", true);
  replaceWithCallback(fs, name, true);
  replaceWithPromise(fs.promises, name, true);
}
for (const name of ON_DESCRIPTORS) {
  replaceSync(fs, name + "Sync", false);
  replaceWithCallback(fs, name, false);
}
replace(fs, "createWriteStream", (original) => function replaced(...args) {
  const here = stackAt(replaced);
  const stream = original.apply(this, args);
  stream.on(errorMonitor, (error) => report(error, pathOf(args[0]), here.stack));
  return stream;
});
replace(fs.promises, "open", (original) => async function replaced(...args) {
  const handle = await original.apply(this, args);
  const prototype = Object.getPrototypeOf(handle);
  fs.promises.open = original; // the prototype is all that was missing
  syncBuiltinESMExports();
  for (const name of OF_HANDLES) replaceWithPromise(prototype, name, false);
  return handle;
});
syncBuiltinESMExports();
