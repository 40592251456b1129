"""Requests of applications that start children: Flask and Starlette, guarded by one line (C6.3)."""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

import tmpguard
import tmpguard.asgi
import tmpguard.wsgi
from tests.interpose.children.conftest import Build
from tests.support import NOBODY, PROJECT

COMMAND = ["sh", "-c", "cat /tmp/x; echo y > /usr/z; cat /tmp/x > /tmp/y"]


def work(name: str) -> str:
    Path("/tmp/x").write_text(f"of {name}")
    done = subprocess.run(COMMAND, capture_output=True, text=True, check=False)
    assert Path("/tmp/y").read_text() == f"of {name}"
    return f"{done.returncode} {done.stdout} {done.stderr}"


def check(said: str, name: str) -> None:
    assert said.startswith(f"0 of {name} ")
    assert "/usr/z" in said
    assert said.endswith("Read-only file system\n")
    assert not os.path.exists("/usr/z")


def test_a_flask_application_s_children_see_its_request(build_any: Build) -> None:
    app = Flask(__name__)
    app.add_url_rule("/<name>", view_func=work)
    guard = build_any(storage_size=1)
    app.wsgi_app = tmpguard.wsgi.TmpGuardMiddleware(app.wsgi_app, guard=guard)  # type: ignore[method-assign]
    for name in ("one", "two"):
        with app.test_client().get(f"/{name}") as first, app.test_client().get(f"/{name}") as second:
            check(first.text, name)
            check(second.text, name)


def test_a_starlette_application_s_children_see_its_request(build_any: Build) -> None:
    async def asynchronous(request: Request) -> PlainTextResponse:
        name = request.path_params["name"]
        Path("/tmp/x").write_text(f"of {name}")
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(*COMMAND, stdout=pipe, stderr=pipe)
        out, err = await process.communicate()
        return PlainTextResponse(f"{process.returncode} {out.decode()} {err.decode()}")

    def synchronous(request: Request) -> PlainTextResponse:
        return PlainTextResponse(work(request.path_params["name"]))

    routes = [Route("/async/{name}", asynchronous), Route("/sync/{name}", synchronous)]
    app = tmpguard.asgi.TmpGuardMiddleware(Starlette(routes=routes), guard=build_any(storage_size=1))
    with TestClient(app) as client:
        for name in ("one", "two"):
            for way in ("async", "sync"):
                check(client.get(f"/{way}/{name}").text, name)


# --- a user without privileges -------------------------------------------------------------------------

UNPRIVILEGED = """
import os, subprocess, sys
sys.path.insert(0, sys.argv[1])
import tmpguard
from tmpguard.kernel import containment
for way, nsenter in (("bwrap", True), ("python", True), ("python", False)):
    containment.WAYS, containment.NSENTER = (way,), nsenter
    try:
        guard = tmpguard.Guard(children="contain", bundle=None, storage_size=1)
    except tmpguard.ConfigurationError as exc:
        print("refused", exc)
        continue
    means = guard.containment.means
    assert means.own_user and bool(means.nsenter) is nsenter
    with guard.invocation():
        with open("/tmp/x", "w") as file:
            file.write("text")
        script = "id -u; id -g; cat /tmp/x; stat -c %u /tmp/x; echo > /var/tmp/y; echo > /tmp/z; exit 3"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True)
        refused = done.stderr.count("Read-only")
        print(way, done.returncode, done.stdout.split(), refused, os.listdir("/tmp"))
        child = subprocess.Popen(["sleep", "100"])
        child.terminate()
        assert child.wait() == -15
"""


@pytest.fixture
def reachable(public_root: Path) -> Iterator[list[str]]:
    """A command that runs Python as a user without privileges, wherever this interpreter lies."""
    if os.geteuid() != 0:
        yield [sys.executable]
        return
    base: str = sys._base_executable  # type: ignore[attr-defined]
    locked = [path for path in Path(base).parents if not path.stat().st_mode & stat.S_IXOTH]
    script = ["set -e"]
    if locked:
        # In a mount namespace of its own the directory that others may not enter is another one.
        script += [f"mkdir {public_root}/python", f"mount --rbind {sys.base_prefix} {public_root}/python"]
        script += [f"mount -t tmpfs -o mode=755 tmpfs {locked[-1]}", f"mkdir -p {sys.base_prefix}"]
        script += [f"mount --rbind {public_root}/python {sys.base_prefix}"]
    subprocess.run(["cp", "-R", PROJECT / "tmpguard", public_root], check=True)
    script += [f'exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups {base} "$@"']
    command = ["unshare", "--mount", "sh", "-c", "\n".join(script), "sh"]
    tried = subprocess.run([*command, "-c", ""], capture_output=True, text=True, check=False)
    if tried.returncode:
        pytest.skip(f"no user without privileges can run {base} here: {tried.stderr.strip()}")
    subprocess.run(["rmdir", public_root / "python"], check=False)
    yield command


def test_a_user_without_privileges_keeps_its_number_in_contained_children(
    reachable: list[str], public_root: Path
) -> None:
    root = public_root if os.geteuid() == 0 else PROJECT
    done = subprocess.run(
        [*reachable, "-c", UNPRIVILEGED, root], capture_output=True, text=True, cwd="/", check=False
    )
    assert done.returncode == 0, done.stderr
    if "refused" in done.stdout:
        pytest.skip(done.stdout)
    user = NOBODY if os.geteuid() == 0 else os.geteuid()
    group = NOBODY if os.geteuid() == 0 else os.getegid()
    line = f"3 ['{user}', '{group}', 'text{user}'] 1 "
    for said in done.stdout.splitlines():
        way, _, rest = said.partition(" ")
        assert way in ("bwrap", "python")
        assert rest.startswith(line), said
        assert sorted(eval(rest[len(line) :])) == ["x", "z"]
