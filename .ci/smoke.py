"""Checks an installed tmpguard, with nothing but what pip installs for it, from outside of the checkout.

The argument says whether it has its C extension: ``compiled`` or ``pure``.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import subprocess
import sys

import tmpguard
from tmpguard.core import speedups
from tmpguard.wsgi import TmpGuardMiddleware

installed = sorted(one.name.lower() for one in importlib.metadata.distributions())
assert installed == ["pathspec", "pyyaml", "tmpguard"], installed
assert os.path.dirname(tmpguard.__file__).startswith(sys.prefix), tmpguard.__file__
assert importlib.metadata.version("tmpguard") == tmpguard.__version__
assert {None: "pure"}.get(speedups.extension, "compiled") == sys.argv[1], speedups.extension


refusals = []


def application(environ, start_response):
    with open("/tmp/answer", "w") as file:
        file.write("answer")
    try:
        open("outside", "w")
    except OSError as exc:
        refusals.append((exc.errno, exc.__notes__))
    start_response("200 OK", [])
    with open("/tmp/answer", "rb") as file:
        return [file.read()]


reports = []
guarded = TmpGuardMiddleware(application, storage_size=1, on_report=reports.append)
body = guarded({}, lambda status, headers: None)
assert b"".join(body) == b"answer"
body.close()
tmpguard.drain()
assert refusals == [(errno.EROFS, ["tmpguard: only /tmp is writable; write to /tmp/outside"])]
assert not os.path.exists("/tmp/answer")
assert [one.operation for one in reports[0].violations] == ["open"]
assert reports[0].peak_bytes == 4096

command = os.path.join(sys.prefix, "bin", "tmpguard")
done = subprocess.run([command, "check"], capture_output=True, text=True, check=False)
assert done.returncode == 2
assert done.stderr == "tmpguard: the command line needs click and rich: pip install 'tmpguard[cli]'\n", (
    done.stderr
)
print(f"tmpguard {tmpguard.__version__} on {sys.version.split()[0]}: installed and works")
