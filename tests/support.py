"""Helpers that more than one directory of tests needs."""

from __future__ import annotations

import errno
import os
import random
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

import tmpguard
from tests.parity.mounting import NOT_PERMITTED

Result = TypeVar("Result")

Run = Callable[..., pytest.RunResult]
"""Runs pytest with these arguments in a project of its own; see tests/testing."""

MB = 1_048_576
PAGE = 4096

PROJECT = Path(__file__).parent.parent
NOBODY = 65534
"""A user without any rights, which a test run by root can become."""


def free_port(count: int = 1) -> str:
    """A port, as text, on which nothing listens; nor on those after it, ``count`` in all.

    It is below the ports that the kernel gives to connections and to tests that ask for any port.
    """
    chance = random.SystemRandom()  # pytest-randomly seeds the other one alike in all workers
    while True:
        port = chance.randrange(16_384, 32_000)
        try:
            for one in range(port, port + count):
                socket.create_server(("127.0.0.1", one)).close()
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
        else:
            return str(port)


@contextmanager
def case(name: object) -> Iterator[None]:
    """One of many cases that one test goes through: an error within says which."""
    try:
        yield
    except BaseException as exc:
        exc.add_note(f"in the case {name}")
        raise


@contextmanager
def full() -> Iterator[None]:
    """The block meets a full disk."""
    with pytest.raises(OSError, match="No space left on device") as caught:
        yield
    assert caught.value.errno == errno.ENOSPC


def fill(path: str, size: int) -> None:
    """Write ``size`` bytes at once, which have to fit."""
    with open(path, "wb", buffering=0) as file:
        assert file.write(bytes(size)) == size


def used() -> int:
    """The bytes in use of 1 MB, which is what every way to ask for them tells (C3.6)."""
    invocation = tmpguard.current()
    assert invocation is not None
    usage = shutil.disk_usage("/tmp")
    status = os.statvfs("/tmp")
    assert usage.total == status.f_blocks * status.f_frsize == MB
    assert usage.free == status.f_bavail * status.f_bsize == status.f_bfree * status.f_bsize
    assert usage.free == status.f_bavail * PAGE
    assert usage.used + usage.free == MB
    assert invocation.report.used_bytes == usage.used
    assert invocation.report.quota_bytes == MB
    assert usage.used <= invocation.report.peak_bytes <= MB
    return usage.used


def eventually(ask: Callable[[], Result], *, seconds: float = 30) -> Result:
    """Ask until the answer is true and return it; the last answer where it never is."""
    deadline = time.monotonic() + seconds
    while True:
        answer = ask()
        if answer or time.monotonic() > deadline:
            return answer
        time.sleep(0.01)


def left_in(scratch_root: Path) -> list[str]:
    """All that lies in the processes' own directories below a scratch root: nothing, when no request runs.

    A process's own directory stays for a moment after its last invocation.
    """
    return [
        os.path.join(directory, name)
        for process in scratch_root.iterdir()
        for directory, directories, files in os.walk(process)
        for name in directories + files
    ]


def python(code: str, *arguments: object) -> list[str]:
    """The command line of a new interpreter that runs ``code`` and can import this project."""
    return [
        sys.executable,
        "-Wignore:This process:DeprecationWarning",  # (pid=...) is multi-threaded: of a fork, from 3.12 on
        "-c",
        f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n{code}",
        *map(str, arguments),
    ]


def grows_by_a_page(directory: Path) -> bool:
    """True if the file system there allocates the page in which a file ended, when the file becomes longer.

    btrfs does, even if that page is a hole.
    """
    probe = directory / "grows-by-a-page"
    with open(probe, "wb") as file:
        os.ftruncate(file.fileno(), 1000)
        os.ftruncate(file.fileno(), 2 * PAGE)
        allocated = os.fstat(file.fileno()).st_blocks
    probe.unlink()
    return allocated > 0


def run_python(code: str, *arguments: object) -> str:
    """Run ``code`` in a new interpreter and return what it printed; it must succeed and print no error."""
    done = subprocess.run(python(code, *arguments), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), f"{done.returncode}: {done.stderr}"
    return done.stdout


def run_with_mounts(code: str, *arguments: object) -> str:
    """The same in a mount namespace of its own, with ``mounting`` to mount things there."""
    enter = f"""
sys.path.insert(0, {str(PROJECT)!r})
from tests.parity import mounting
mounting.enter_namespace()
"""
    done = subprocess.run(python(enter + code, *arguments), capture_output=True, text=True, check=False)
    if done.returncode == NOT_PERMITTED:
        pytest.skip(f"this machine does not permit it: {done.stderr}")
    assert (done.returncode, done.stderr) == (0, ""), f"{done.returncode}: {done.stderr}"
    return done.stdout


def run_unprivileged(code: str, *arguments: object, imported: str = "tmpguard") -> str:
    """The same without root's rights, which see no modes.

    What is ``imported`` is so before they are given up: the environment may be root's alone.
    """
    drop = f"""
import os, pathlib, shutil, socket, tempfile, traceback, {imported}
from tmpguard import *
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid({NOBODY})
    os.setuid({NOBODY})
"""
    return run_python(drop + code, *arguments)


def set_up_django() -> None:
    """Set Django up, with the settings that all tests of one process share."""
    import django
    from django.conf import settings

    if not settings.configured:
        settings.configure(ALLOWED_HOSTS=["*"], SECRET_KEY="of the tests", USE_TZ=True)
        django.setup()


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run ``work`` with 0, 1, ... in as many threads and raise the first error of theirs."""
    errors: list[BaseException] = []

    def job(number: int) -> None:
        try:
            work(number)
        except BaseException as exc:
            errors.append(exc)

    threads = [threading.Thread(target=job, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def listed() -> list[str]:
    """The text files in /tmp. Where the project or its environment lies below the real /tmp, a whole listing
    shows those too (C1.5)."""
    return sorted(name for name in os.listdir("/tmp") if name.endswith(".txt"))
