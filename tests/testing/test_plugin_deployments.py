"""docs/testing.md, tried as written: its files, its commands, and what they print."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import fastapi.testclient
import flask
import pytest

from tests.support import PROJECT, Run

pytest_plugins = ["pytester"]

IMPORTED = (fastapi.testclient, flask)

PAGE = (PROJECT / "docs" / "testing.md").read_text()

COMMAND = "python -m pytest "

#: For a process of its own: of all plugins that are installed here just the one.
ALONE = ("-p", "tmpguard.pytest_plugin", "-p", "no:cacheprovider", "-p", "no:warnings")

BLOCK = re.compile(r"(?:`(?P<file>[\w.]+)`[^\n]*:\n\n)?```(?P<language>\w*)\n(?P<text>.*?)^```", re.M | re.S)


def steps(section: str) -> Iterator[re.Match[str]]:
    """The blocks of a section in their order."""
    return BLOCK.finditer(PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0])


def pattern_of(output: str) -> re.Pattern[str]:
    """What matches ``output``, with any lines in place of ``...``."""
    parts = []
    for line in output.splitlines(keepends=True):
        parts.append("(?:.*\n)*?" if line == "...\n" else re.escape(timeless(line)))
    return re.compile("".join(parts))


def timeless(output: str) -> str:
    """``output`` without the time that a run took."""
    return re.sub(r" in \d+\.\d+s$", " in a moment", output, flags=re.M)


def try_section(section: str, directory: Path, pytest_prints: Callable[[list[str]], str]) -> list[str]:
    """Make the files, run the commands and compare what they print; what is in the log at the beginning."""
    log: list[str] = []
    commands = 0
    for step in steps(section):
        if step["file"]:
            assert step["language"] == "python"
            (directory / step["file"]).write_text(step["text"])
        elif step["language"] == "console":
            commands += 1
            command, _, output = step["text"].partition("\n")
            arguments = shlex.split(command.removeprefix("$ ").removeprefix(COMMAND))
            assert command == f"$ {COMMAND}{shlex.join(arguments)}"
            printed = pytest_prints(arguments)
            assert pattern_of(output).fullmatch(timeless(printed)), f"{command}\n{printed}"
        else:
            assert not step["language"]
            log.append(step["text"])
    assert commands == 3
    (told,) = log
    return told.splitlines()


@pytest.mark.parametrize("section", ["FastAPI", "Flask"])
def test_a_deployment_that_fails_and_is_mended(pytester: pytest.Pytester, run: Run, section: str) -> None:
    runs: list[str] = []

    def prints(arguments: list[str]) -> str:
        runs.append(str(run(*arguments).stdout))
        return runs[-1] + "\n"

    first = next(step for step in steps(section) if step["file"])
    frame, source, error = try_section(section, pytester.path, prints)
    # The log is that of the application that is shown, and its error is the one that the test finds.
    told = re.fullmatch(r'  File "/app/([\w.]+)", line (\d+), in (.*)', frame)
    assert told is not None
    file, line, function = told.groups()
    assert file == first["file"]
    assert first["text"].splitlines()[int(line) - 1].strip() == source.strip()
    assert f"{file}:{line} in {function}" in runs[1]
    raised = re.fullmatch(r"OSError: \[Errno 30\] Read-only file system: '(.*)'", error)
    assert raised is not None
    path = raised[1].replace("/app/", f"{pytester.path}/")
    assert f"\nopen {path!r}: [Errno 30] EROFS: Read-only file system\n" in runs[1]


def test_a_deployment_of_django_that_fails_and_is_mended(tmp_path: Path) -> None:
    """In processes of their own: Django is set up once in each."""

    def prints(arguments: list[str]) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *ALONE, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        if done.returncode:
            assert log in done.stdout
        return done.stdout

    (log,) = (step["text"].strip() for step in steps("Django") if not step["language"])
    assert try_section("Django", tmp_path, prints) == [log]


def test_the_ini_file_of_the_page_is_right(pytester: pytest.Pytester, run: Run) -> None:
    (block,) = (step for step in steps("From now on") if step["language"] == "ini")
    pytester.makeini(block["text"])
    pytester.makepyfile(
        """
        import flask

        app = flask.Flask("app")

        @app.get("/")
        def total():
            import shutil
            return str(shutil.disk_usage("/tmp").total)

        def test_requests():
            assert app.test_client().get("/").text == str(64 << 20)
        """
    )
    run().assert_outcomes(passed=1)
    assert (pytester.path / "reports" / "tmpguard.html").exists()


def test_other_pages_lead_to_it() -> None:
    assert "(docs/testing.md)" in (PROJECT / "README.md").read_text()
    assert "(testing.md)" in (PROJECT / "docs" / "pytest.md").read_text()
