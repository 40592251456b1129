"""The observer sees what the kernel refuses to a process: no more, no less, in the same order (C2.3)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.emulator.instances import Running, in_instance, run_as_user
from tests.parity import generated, operations, places
from tests.parity.scripts import Call
from tests.support import PROJECT

#: The last ones make symlinks to /proc/self, and a chmod of a path in /proc.
SEEDS = (*range(30), 20073, 20106, 20474, 20814, 21021, 22145, 24537)

#: Calls that are one system call each, or that end with the first one that is refused.
SINGLE = frozenset(
    operations.words(
        "bind chdir chmod chown close dup fchdir fchmod fchown ftruncate lchown link lseek mkdir mkfifo "
        "mknod os_open os_write posix_fallocate pwrite remove removexattr rename rmdir setxattr "
        "symlink truncate umask unlink utime writev"
    )
)

REFUSED = re.compile(r"\w+ (EROFS|ENOSPC) ")

RUN = f"""
import sys
sys.path.append({str(PROJECT)!r})
from tests.parity import scripts
scripts.load()
result = [told for told, _ in scripts.run({{!r}}, {{!r}}, False)[:-1]]
"""


def script_of(seed: int) -> list[Call]:
    """A script of single calls; it starts from the files of the parity tests."""
    calls = (call for script in _scripts(seed) for call in script if call[0] in SINGLE)
    return [["make", False], *calls]


def _scripts(seed: int) -> Iterator[list[Call]]:
    random = Random(seed)
    return (generated.script_of(random) for _ in range(20))


async def compare(started: Running) -> list[Any]:
    """Where the outcomes of a script and the findings differ, and how many refusals there were.

    Without ptrace, only refusals by read-only mounts are seen.
    """
    means = started.instance.settings.means[0]
    assert started.instance.observation[0] == means
    seen = ("EROFS", "ENOSPC") if means == "ptrace" else ("EROFS",)
    project = started.instance.settings.project
    await started.request(RUN.format([], project))  # what is imported
    different: list[Any] = []
    count = 0
    for seed in SEEDS:
        answer = await started.request(RUN.format(script_of(seed), project))
        refused = [found[1] for told in answer.result if (found := REFUSED.match(told))]
        expected = [name for name in refused if name in seen]
        found = [{30: "EROFS", 28: "ENOSPC"}[violation.errno] for violation in answer.span.violations]
        count += len(expected)
        if found != expected:
            different.append([seed, expected, found])
    return [different, count]


@pytest.fixture(scope="module")
def project() -> Iterator[Path]:
    with TemporaryDirectory(prefix="run-", dir="/var/tmp") as directory:
        places.make_project(directory)
        os.chmod(directory, 0o755)
        yield Path(directory)


@pytest.mark.parametrize("means", ["ptrace", "notify"])
def test_findings_are_what_a_process_got(project: Path, means: str) -> None:
    different, count = in_instance(project, compare, means=(means,))
    assert different == []
    assert count > 50


AS_USER = """
from tests.emulator.instances import in_instance
from tests.emulator.test_parity import compare
def scenario(project, means):
    return in_instance(project, compare, means=(means,))
"""


@pytest.mark.parametrize("means", ["ptrace", "notify"])
def test_findings_are_what_a_process_of_a_user_got(project: Path, means: str) -> None:
    different, count = run_as_user(AS_USER, str(project), means)
    assert different == []
    assert count > 50
