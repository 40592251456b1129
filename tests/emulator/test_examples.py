"""The examples for ``tmpguard run``: five frameworks, the same routes, the same expectations."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest

from tests.emulator.command_line import PATIENCE, run_command
from tests.support import PROJECT, eventually, free_port

MB = 1_048_576

EXAMPLES = {
    "FastAPI": ("python", ("python", "-m", "uvicorn", "fastapi_app:app")),
    "Flask": ("python", ("python", "-m", "gunicorn", "flask_app:app")),
    "Django": ("python", ("python", "django_app.py", "runserver", "--noreload")),
    "Express": ("express", ("node", "server.js")),
    "Fastify": ("fastify", ("node", "server.js")),
}


async def at_once(url: str, paths: list[str]) -> list[httpx.Response]:
    """Forty requests at a time, over as many connections."""
    limits = httpx.Limits(max_connections=40)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE, limits=limits) as client:
        return await asyncio.gather(*map(client.get, paths))


@pytest.fixture
def project(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A copy of an example, outside /tmp; with its packages, if it is one of Node's."""
    with TemporaryDirectory(prefix="example-", dir="/var/tmp") as directory:
        copy = Path(directory) / request.param
        shutil.copytree(PROJECT / "examples" / request.param, copy)
        if (copy / "package.json").exists():
            install(copy)
        yield copy


def install(directory: Path) -> None:
    """Install what ``package.json`` names; skips the test where that is not possible."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        pytest.skip("there is no node, or no npm")
    done = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
        timeout=5 * PATIENCE,
    )
    if done.returncode:
        pytest.skip(f"npm cannot install the packages: {done.stderr.strip()[-200:]}")


@pytest.mark.parametrize(
    ("project", "name"), [(EXAMPLES[name][0], name) for name in EXAMPLES], indirect=["project"]
)
def test_an_example_does_what_its_readme_says(project: Path, name: str) -> None:
    command = EXAMPLES[name][1]
    arguments = ("--storage-size", "1", "--port", free_port())
    with run_command(*arguments, "--", *command, directory=project) as one:
        one.listen()
        assert one.get("/write?text=hi").text == "wrote 2 bytes; /tmp holds note.txt\n"
        note = "a note of another request: false; of this one: written by this request\n"
        assert one.get("/read").text == note
        outside = one.get("/outside")
        assert outside.status_code == 500
        assert "ead-only file system" in outside.text
        overfill = one.get("/overfill").text
        assert overfill.startswith("1048576 bytes fitted, then: ")
        assert "o space left on device" in overfill
        assert one.get("/bundled").text == "Hello from the bundle.\n"
        written, refused = one.get("/native").text.splitlines()
        assert written.startswith("/tmp/native.")
        assert written.endswith(": written")
        assert not refused.endswith(": written")
        assert one.get("/child").text.startswith("hello\n")

        # Forty at once, on up to four instances: no cross-talk.
        paths = []
        for number in range(0, 400, 4):
            paths += [f"/write?text={'x' * (number + 1)}", "/read", "/read", "/outside"]
        responses = asyncio.run(at_once(one.url, paths))
        answers = [response.text for response in responses]
        assert answers[::4] == [
            f"wrote {number + 1} bytes; /tmp holds note.txt\n" for number in range(0, 400, 4)
        ]
        assert set(answers[1::4] + answers[2::4]) == {note}
        assert {response.status_code for response in responses[3::4]} == {500}

        processes = one.processes()
        report = one.end()
        assert eventually(lambda: not any(os.path.exists(f"/proc/{process}") for process in processes))
        assert report["totals"]["requests"] == 407
        assert sum(event["event"] == "request" for event in one.events) == 407
        assert report["run"]["restarts"] == 0
        rows = {row["route"]: row for row in report["routes"]}
        assert rows["GET /read"]["requests"] == 201
        assert rows["GET /read"]["violations"] == 0
        assert (rows["GET /write"]["requests"], rows["GET /write"]["peak_bytes"]) == (101, 4096)
        assert (rows["GET /outside"]["requests"], rows["GET /outside"]["violations"]) == (101, 101)
        assert rows["GET /overfill"]["peak_bytes"] == MB
        found = {
            (route, path): group
            for group in report["violations"]
            for route in group["routes"]
            for path in group["paths"]
        }
        assert found["GET /outside", "file.txt"]["error"] == "EROFS"
        assert found["GET /overfill", "/tmp/big.bin"]["error"] == "ENOSPC"
        assert ("GET /child", "child.txt") in found
        assert [path for route, path in found if route == "GET /native"]
        language = "actions.js" if (project / "package.json").exists() else "actions.py"
        assert found["GET /outside", "file.txt"]["location"]["file"] == language
        assert not [
            path
            for path in ("file.txt", "native.db", "native.json", "child.txt")
            if (project / path).exists()
        ]


def test_the_examples_of_node_do_the_same() -> None:
    """Their actions are one file, copied because each is a project of its own."""
    texts = {(PROJECT / "examples" / name / "actions.js").read_text() for name in ("express", "fastify")}
    assert len(texts) == 1
    for name in ("express", "fastify"):
        assert name in json.loads((PROJECT / "examples" / name / "package.json").read_text())["dependencies"]
