"""eventlet replaces threads, sockets and parts of ``os``."""

from __future__ import annotations

import pytest

from tests.company import need
from tests.support import run_python

need("eventlet")
PATCH = "import warnings; warnings.simplefilter('ignore'); import eventlet; eventlet.monkey_patch()"
IMPORT = "import tmpguard, tmpguard.guard"
WORK = """
import os, socket
guard = tmpguard.Guard(storage_size=1, bundle=None)

def request():
    with guard.invocation():
        with open("/tmp/file", "w") as file:
            file.write("x" * 200_000)
        with socket.socket(socket.AF_UNIX) as unix:
            unix.bind("/tmp/socket")
            return sorted(os.listdir("/tmp")), unix.getsockname()

for thread in [eventlet.spawn(request) for _ in range(3)]:
    print(thread.wait())
print(os.path.exists("/tmp/socket"), tmpguard.drain(30))
"""


@pytest.mark.parametrize("order", [(PATCH, IMPORT), (IMPORT, PATCH)], ids=["before", "after"])
def test_requests_work_whoever_came_first(order: tuple[str, ...]) -> None:
    printed = run_python("\n".join([*order, WORK]))
    assert printed == "(['file', 'socket'], '/tmp/socket')\n" * 3 + "False True\n"
