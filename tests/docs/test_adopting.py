"""docs/adopting.md, tried as written: its files, its commands, and what they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.docs.commands import served
from tests.support import PROJECT, free_port
from tests.testing.test_plugin_deployments import ALONE, BLOCK, pattern_of, timeless

PAGE = (PROJECT / "docs" / "adopting.md").read_text()

#: The commands of the page, with the interpreter and the plugin of these tests.
COMMANDS = {
    "tmpguard": [sys.executable, "-m", "tmpguard"],
    "python -m pytest": [sys.executable, "-m", "pytest", *ALONE],
}


@pytest.fixture
def run(tmp_path: Path) -> Callable[[str], str]:
    """Runs a command line of the page and returns what it prints."""

    def run(line: str) -> str:
        variables = dict(re.findall(r"(?:^|\s)([A-Z_]+)=(\S+)", line.partition(" --")[0]))
        command = re.sub(r"\b[A-Z_]+=\S+ ", "", line)
        (known,) = [name for name in COMMANDS if command.startswith(name)]
        alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": "1"}
        environment = {**os.environ, **alone, **variables}
        for name in ("CI", "GITHUB_ACTIONS", "PYTEST_ADDOPTS"):
            environment.pop(name, None)
        arguments = [*COMMANDS[known], *shlex.split(command.removeprefix(known))]
        done = subprocess.run(
            arguments, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def serve_a_week(line: str, directory: Path) -> None:
    """Start the server of the page, and make the requests of a week."""
    port = free_port()
    with served(line, directory, port, GUNICORN_CMD_ARGS=f"--bind 127.0.0.1:{port}") as server:
        for number in (17, 18):
            httpx.post(f"{server.url}/invoices/{number}", timeout=60).raise_for_status()
        httpx.get(f"{server.url}/export", timeout=60).raise_for_status()
        server.stop()


def test_the_page_works_as_written(
    tmp_path: Path, run: Callable[[str], str], request: pytest.FixtureRequest
) -> None:
    exported = Path("/tmp/export.csv")
    request.addfinalizer(lambda: exported.unlink(missing_ok=True))
    (tmp_path / "pytest.ini").touch()
    for step in BLOCK.finditer(PAGE):
        if step["file"]:
            (tmp_path / step["file"]).write_text(step["text"])
            continue
        assert step["language"] == "console", step["text"]
        command, _, shown = step["text"].partition("\n")
        if "gunicorn" in command:
            serve_a_week(command.removeprefix("$ "), tmp_path)
            (tmp_path / "invoices.csv").unlink()  # production's, and the tests run elsewhere
            continue
        printed = timeless(run(command.removeprefix("$ "))).replace(f"{tmp_path}/", ".../")
        if shown:
            assert pattern_of(shown).fullmatch(printed), printed
