"""Runs a function on the kernel set-up that the contract takes as its reference.

That is a process in a mount namespace of its own: everything read-only, by ``mount_setattr(2)``, and a tmpfs
of 1 MiB on ``/tmp``. The child is the same interpreter. It imports what it needs before ``/tmp`` is covered,
since the interpreter may lie there, and gets the code to run as text on its standard input.

Linux only. Where namespaces are not permitted the tests that need them are skipped, with the reason.
"""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

TMPFS_BYTES = 1 << 20
NOT_PERMITTED = 77

CHILD = r"""
import ctypes, json, os, struct, sys, types

job = json.load(sys.stdin)
for name, source in job["modules"]:
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(source, name, "exec"), vars(module))
libc = ctypes.CDLL(None, use_errno=True)
NEWNS, NEWUSER, PRIVATE = 0x20000, 0x10000000, 1 << 18 | 0x4000  # MS_PRIVATE | MS_REC
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, RDONLY = 442, -100, 0x8000, 1

def check(result, what):
    if result:
        code = ctypes.get_errno()
        print(f"{what}: {os.strerror(code)}", file=sys.stderr)
        os._exit(77)

def give(path, text):
    with open(path, "w") as file:
        file.write(text)

uid, gid = os.getuid(), os.getgid()
check(libc.unshare(NEWNS if uid == 0 else NEWNS | NEWUSER), "unshare")
if uid:
    give("/proc/self/setgroups", "deny")
    give("/proc/self/uid_map", f"{uid} {uid} 1")
    give("/proc/self/gid_map", f"{gid} {gid} 1")
check(libc.mount(b"none", b"/", None, PRIVATE, None), "private mounts")
# Shared memory and the like need no care: whatever is mounted becomes read-only.
attributes = struct.pack("QQQQ", RDONLY, 0, 0, 0)
check(libc.syscall(MOUNT_SETATTR, AT_FDCWD, b"/", AT_RECURSIVE, attributes, ctypes.c_size_t(32)), "read-only")
bundle = job["bundle"]
handle = os.open(bundle, os.O_PATH) if bundle else -1
check(libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 6, b"size=%d,mode=1777" % job["size"]), "a tmpfs on /tmp")
if bundle:
    os.mkdir("/tmp/package")
    check(libc.mount(b"/proc/self/fd/%d" % handle, b"/tmp/package", None, 4096, None), "the bundle's mount")
    os.close(handle)

print(json.dumps(getattr(module, job["function"])(*job["arguments"])))
"""


def run(modules: Sequence[ModuleType], function: str, *arguments: object, bundle: str = "") -> Any:
    """What ``function(*arguments)`` of the last of ``modules`` returns on the kernel's set-up.

    The modules may import the standard library and those before them; what it returns
    comes as JSON. ``bundle`` is mounted on ``/tmp/package``.
    """
    job = {
        "modules": [(module.__name__, inspect.getsource(module)) for module in modules],
        "function": function,
        "arguments": arguments,
        "size": TMPFS_BYTES,
        "bundle": bundle,
    }
    command = [sys.executable, "-I", "-S", "-B", "-c", CHILD]
    child = subprocess.run(command, input=json.dumps(job), capture_output=True, text=True, check=False)
    if child.returncode == NOT_PERMITTED:
        pytest.skip(f"no read-only root with a tmpfs here: {child.stderr.strip()}")
    assert child.returncode == 0, child.stderr
    return json.loads(child.stdout)
