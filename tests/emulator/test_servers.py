"""Real servers run unchanged: they start, are ready when they say so, and their refusals have their lines."""

from __future__ import annotations

import asyncio
import errno
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.emulator.instances import Running, running
from tmpguard.core.reports.report import Violation

WSGI = """
def app(environ, start_response):
    try:
        if environ["PATH_INFO"] == "/write":
            open("out.txt", "w")  # refused
        answer = environ["PATH_INFO"]
    except OSError as exc:
        answer = exc.strerror
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer.encode()]
"""

FLASK = """
from flask import Flask
app = Flask(__name__)

@app.get("/<path>")
def view(path):
    try:
        if path == "write":
            open("out.txt", "w")  # refused
        return f"/{path}"
    except OSError as exc:
        return exc.strerror
"""

NODE = """
const fs = require("fs"), http = require("http"), { promisify } = require("util"), { open } = fs.promises;
const cases = {
  sync: () => fs.writeFileSync("out.txt", "x"), // sync
  mkdir: () => fs.mkdirSync("/srv/a"), // mkdir
  callback: () => new Promise((ok, no) => fs.writeFile("out.txt", "x", (e) => no(e))), // callback
  promise: () => fs.promises.writeFile("out.txt", "x"), // promise
  promisify: () => promisify(fs.writeFile)("out.txt", "x"), // promisify
  temporary: () => fs.promises.mkdtemp("/srv/x-"), // temporary
  stream: () => new Promise((ok, no) => fs.createWriteStream("out.txt").on("error", no)), // stream
  full: () => fs.writeFileSync("/tmp/x", Buffer.alloc(2000000)), // full
  handle: async () => {
    const handle = await open("/tmp/x", "w");
    try { await handle.writeFile(Buffer.alloc(2000000)); // handle
    } finally { await handle.close(); }
  },
  swallowed: async () => { try { fs.unlinkSync("server.js"); } catch {} return "swallowed"; }, // swallowed
};
http.createServer(async (request, response) => {
  const name = request.url.slice(1);
  try { if (name !== "other") await (cases[name] || cases.sync)(); response.end(request.url);
  } catch (e) { response.end(e.code === "EROFS" ? "Read-only file system" : e.message); }
}).listen(3000);
"""

CLUSTER = """
const cluster = require("cluster");
if (cluster.isPrimary) { cluster.fork(); cluster.fork(); } else require("./server.js");
"""

FILES = {"wsgi.py": WSGI, "site.py": FLASK, "server.js": NODE, "cluster.js": CLUSTER}
PYTHON = (sys.executable, "-m")

#: Those that are no single process; the others are served in test_run.py.
SERVERS = {
    "gunicorn with threads": (*PYTHON, "gunicorn", "wsgi:app", "-k", "gthread", "-w", "2", "-b", ":3000"),
    "Flask with its reloader": (*PYTHON, "flask", "--app", "flasksite", "run", "--debug"),
    "Node's cluster": ("node", "cluster.js"),
}


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    with TemporaryDirectory(prefix="run-", dir="/var/tmp") as directory:
        for name, text in FILES.items():
            (Path(directory) / name.replace("site.py", "flasksite.py")).write_text(text)
        yield Path(directory)


async def get(started: Running, path: str) -> tuple[str, tuple[Violation, ...]]:
    """The answer, and what was found meanwhile."""
    late = started.instance.begin()
    assert late == ()
    reader, writer = await asyncio.open_connection(*started.instance.address)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n".encode())
    answer = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    body = answer.partition("\r\n\r\n")[2]
    if "chunked" in answer.partition("\r\n\r\n")[0].lower():
        body = body.split("\r\n")[1]
    return body, started.instance.finish().violations


def line_of(text: str, comment: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if line.endswith(comment))


@pytest.mark.parametrize("name", SERVERS)
def test_server_runs_unchanged(project: Path, name: str) -> None:
    """C1.1, C2.3."""
    if name.startswith("Node") and shutil.which("node") is None:
        pytest.skip("Node is not installed")

    async def main() -> None:
        async with running(project, command=SERVERS[name]) as started:
            # A newer gunicorn makes a directory for its control socket in the user's home.
            paths = [violation.path for violation in started.started.violations]
            assert [path for path in paths if not path.endswith("/.gunicorn")] == []
            assert await get(started, "/other") == ("/other", ())
            body, found = await get(started, "/write")
            assert body == "Read-only file system"
            (violation,) = found
            assert violation.location is not None
            source = Path(violation.location.file)
            assert source.parent == project
            comment = "// sync" if source.suffix == ".js" else "# refused"
            assert violation.location.line == line_of(source.read_text(), comment)
            assert violation[:3] == ("open", "out.txt", errno.EROFS)
            assert violation.remedy == "only /tmp is writable; write to /tmp/out.txt"

    asyncio.run(main())


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_lines_of_node(project: Path) -> None:
    """C2.3: by every way to the file system."""
    expected = {
        "sync": ("open", "out.txt", errno.EROFS),
        "mkdir": ("mkdir", "/srv/a", errno.EROFS),
        "callback": ("open", "out.txt", errno.EROFS),
        "promise": ("open", "out.txt", errno.EROFS),
        "promisify": ("open", "out.txt", errno.EROFS),
        "stream": ("open", "out.txt", errno.EROFS),
        "full": ("write", "/tmp/x", errno.ENOSPC),
        "handle": ("write", "/tmp/x", errno.ENOSPC),
        "swallowed": ("unlink", "server.js", errno.EROFS),
    }

    async def main() -> None:
        async with running(project, command=("node", "server.js")) as started:
            for name, what in expected.items():
                _, found = await get(started, f"/{name}")
                assert [one[:3] for one in found] == [what], name
                location = found[0].location
                assert location is not None, name
                assert location[:2] == (str(project / "server.js"), line_of(NODE, f"// {name}")), name
            _, (violation,) = await get(started, "/temporary")
            assert violation.path.startswith("/srv/x-")
            assert violation.location is not None
            assert violation.location.line == line_of(NODE, "// temporary")

    asyncio.run(main())
