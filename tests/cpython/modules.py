"""The test modules of CPython that use files: the names in modules.txt. No version has all of them.

They were found by running every module of the package ``test`` with an audit hook: the ones that create,
change or remove something in their working directory or below ``/tmp``. Modules about other subjects are left
out if they start dozens of processes, threads or servers (``test_concurrent_futures``,
``test_multiprocessing_*``, ``test_venv``), need a screen, the network or gigabytes (``test_tkinter``,
``test_zipfile64``), or test tools (``test_lib2to3``).
"""

from __future__ import annotations

from pathlib import Path

MODULES = Path(__file__).with_name("modules.txt").read_text().split()

#: Modules that a test module gets in place of those that it imports, natively and inside. Some tests of
#: ``os`` and ``io`` import ``posix`` and ``_io``, which tmpguard leaves alone.
STAND_INS = {
    "test_posix": ("posix", "os"),
    "test_fileio": ("_io", "io"),
    # their names since 3.15
    "test_os.test_posix": ("posix", "os"),
    "test_io.test_fileio": ("_io", "io"),
}

#: Patterns (fnmatch) for tests that are not run. On many virtual machines they wait forever, because the
#: kernel supports these sockets but nobody answers.
LEFT_OUT = ("test.test_socket.*VSOCK*",)


def is_of(module: str, test: str) -> bool:
    """True if ``test`` runs with ``module``. Some modules of a package run on their own."""
    parts = [name for name in STAND_INS if name.startswith(f"{module}.")]
    return not any(test.startswith(f"test.{part}.") for part in parts)
