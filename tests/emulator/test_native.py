"""Native code and child processes have the same storage, and what is refused to them is found (C6.3)."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.emulator.instances import SERVED, Running, in_instance
from tests.emulator.test_examples import install
from tmpguard.core.reports.report import Violation

#: Each writes the file ``path`` by native code.
LIBRARIES = {
    "pyarrow": """
import pyarrow, pyarrow.parquet
pyarrow.parquet.write_table(pyarrow.table({"a": [1, 2]}), path)""",
    "PIL": """
from PIL import Image
Image.new("RGB", (8, 8)).save(path, "PNG")""",
    "lxml": """
from lxml import etree
etree.ElementTree(etree.fromstring("<a/>")).write(path)""",
    "h5py": """
import h5py
h5py.File(path, "w").close()""",
    "sqlite3": """
import sqlite3
connection = sqlite3.connect(path)
try: connection.execute("create table t (x)")
finally: connection.close()""",
}

#: Each writes the file, or the directory, ``path``. The command is looked up in PATH.
CHILDREN = {
    "sh": ("sh", "-c", 'echo hello > "$0"', "PATH"),
    "git": ("git", "init", "--quiet", "PATH"),
    "convert": ("convert", "-size", "8x8", "xc:red", "png:PATH"),
    "ffmpeg": (
        *("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc=duration=1", "-f", "avi"),
        "PATH",
    ),
    "sharp": (
        *("node", "-e"),
        'require("sharp")({create: {width: 8, height: 8, channels: 3, background: "red"}})'
        ".png().toFile(process.argv[1]).catch((error) => { console.error(error.message); process.exit(1); })",
        "PATH",
    ),
}

CHILD = """
import subprocess
done = subprocess.run({command!r}, capture_output=True, text=True)
if done.returncode: raise RuntimeError(done.stderr)
"""

ASK = """
path = {path!r}
try:
{code}
    result = ""
except Exception as exc: result = str(exc) or repr(exc)
"""


@pytest.fixture
def project() -> Iterator[Path]:
    with TemporaryDirectory(prefix="run-", dir="/var/tmp") as directory:
        yield Path(directory)


def is_imagemagick(program: str) -> bool:
    done = subprocess.run([program, "-version"], capture_output=True, text=True, check=False)
    return "ImageMagick" in done.stdout


def command_of(name: str, project: Path) -> tuple[str, ...]:
    """The command of a child; skips where the program cannot be had."""
    command = CHILDREN[name]
    if name == "sharp":
        (project / "package.json").write_text('{"dependencies": {"sharp": "^0.34"}}')
        install(project)
    program = shutil.which(command[0])
    if program is None and name == "ffmpeg" and find_spec("imageio_ffmpeg"):
        program = __import__("imageio_ffmpeg").get_ffmpeg_exe()
    if program is None or (name == "convert" and not is_imagemagick(program)):
        pytest.skip(f"there is no {name}")
    return (program, *command[1:])


def write(project: Path, code: str) -> list[tuple[str, int, tuple[Violation, ...]]]:
    """The error, the files left, and the findings, when it writes into /tmp and when into the project."""
    indented = "\n".join(f"    {line}" for line in code.splitlines())

    async def scenario(started: Running) -> Any:
        found = []
        for path in ("/tmp/out.x", "out.x"):
            text = ASK.format(path=path, code=indented.replace("PATH", path))
            answer = await started.request(text)
            found.append((answer.result, answer.span.files, answer.span.violations))
        return found

    command = (sys.executable, str(SERVED), "3000")
    return in_instance(project, scenario, storage_size=16, command=command)  # type: ignore[no-any-return]


def assert_refused(
    project: Path, fitting: tuple[str, int, Any], refused: tuple[str, int, Any]
) -> tuple[Violation, ...]:
    """It may write into /tmp only, and the other attempt is found."""
    assert fitting[0] == ""
    assert fitting[1] >= 1
    assert fitting[2] == ()
    error, files, found = refused
    assert error
    assert files == 0
    assert {violation.errno for violation in found} == {errno.EROFS}
    assert {os.path.basename(violation.path) for violation in found} == {"out.x"}
    assert found[0].operation in ("open", "mkdir")
    assert not (project / "out.x").exists()
    return found  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_native_library(name: str, project: Path) -> None:
    """C2.1, C2.3: with the application's line and, where the library's own code was on the way, its name."""
    if find_spec(name) is None:
        pytest.skip(f"there is no {name}")
    found = assert_refused(project, *write(project, LIBRARIES[name]))
    line = 3 + LIBRARIES[name].splitlines().index(
        next(line for line in LIBRARIES[name].splitlines() if "path" in line or "execute" in line)
    )
    locations = {violation.location and violation.location[1:] for violation in found}
    assert locations <= {(line, "<module>"), (line + 1, "<module>")}
    assert all("/tmp" in violation.remedy for violation in found[:1])


@pytest.mark.parametrize("name", CHILDREN)
def test_a_child_process(name: str, project: Path) -> None:
    """C2.3: with the name of its program."""
    command = command_of(name, project)
    found = assert_refused(project, *write(project, CHILD.format(command=list(command))))
    program = os.path.basename(command[0])[:15]
    assert {violation.program for violation in found} == {program}
    assert found[0].remedy == "only /tmp is writable; write to /tmp/out.x"
