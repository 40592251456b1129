"""gevent turns threads into greenlets: tmpguard's own stay threads, whenever the patch is made."""

from __future__ import annotations

import pytest

from tests.company import need
from tests.support import run_python

need("gevent")

pytestmark = pytest.mark.usefixtures("uninstalled")

PATCH = "from gevent import monkey; monkey.patch_all()"
IMPORT = "import tmpguard.wsgi"
APP = """
def app(environ, start_response):
    with open("/tmp/file", "w") as file:
        file.write("x" * 200_000)  # too much to be wiped at once
    return [b"ok"]

told = []
app = tmpguard.wsgi.TmpGuardMiddleware(app, storage_size=1, bundle=None, on_report=told.append)
"""
REQUESTS = """
import gevent, os

def request():
    body = app({}, None)
    assert list(body) == [b"ok"]
    body.close()

for _ in range(3):
    gevent.joinall([gevent.spawn(request) for _ in range(5)], raise_error=True)
    gevent.sleep(0.01)  # the hub is free
print(tmpguard.drain(30), len(told))
"""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "order",
    [(PATCH, IMPORT, APP), (IMPORT, PATCH, APP), (IMPORT, APP, PATCH)],
    ids=["before the import", "before the guard", "after the guard"],
)
def test_the_background_threads_stay_threads(order: tuple[str, ...]) -> None:
    assert run_python("\n".join([*order, REQUESTS])) == "True 15\n"


SOCKETS = """
import gevent, logging, os, socket
logging.disable()
guard = tmpguard.Guard(storage_size=1, bundle=None)

def serve(server):
    connection, _ = server.accept()
    connection.sendall(connection.recv(10))
    connection.close()

with guard.invocation() as invocation:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("/tmp/socket")
        server.listen()
        serving = gevent.spawn(serve, server)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("/tmp/socket")
            client.sendall(b"text")
            print(client.recv(10), client.getpeername(), os.listdir("/tmp"))
        serving.join()
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.bind("/var/tmp/tmpguard-gevent.sock")
        except OSError as exc:
            print(exc.strerror)
print(os.path.exists("/tmp/socket"), len(invocation.report.violations))
"""


@pytest.mark.parametrize("order", [(PATCH, IMPORT), (IMPORT, PATCH)], ids=["before", "after"])
def test_its_sockets_are_the_request_s(order: tuple[str, ...]) -> None:
    printed = run_python("\n".join([*order, SOCKETS]))
    assert printed == "b'text' /tmp/socket ['socket']\nRead-only file system\nFalse 1\n"


CHILD = """
import gevent, logging, os, subprocess
logging.disable()
guard = tmpguard.Guard(storage_size=1, bundle=None)
ticks = []

def tick():
    while True:
        ticks.append(1)
        gevent.sleep(0.005)

with guard.invocation():
    ticking = gevent.spawn(tick)
    assert subprocess.run(["sleep", "0.3"]).returncode == 0
    pid = os.fork()
    if not pid:
        os._exit(3)
    print(os.waitpid(pid, 0)[1] >> 8, len(ticks) > 5)
    ticking.kill()
"""


@pytest.mark.filterwarnings("ignore")
def test_the_hub_runs_on_while_a_request_waits_for_a_child() -> None:
    """Its ``waitpid`` was in place at the install, and is what is called."""
    code = "\n".join(["import warnings; warnings.simplefilter('ignore')", PATCH, IMPORT, CHILD])
    assert run_python(code) == "3 True\n"
