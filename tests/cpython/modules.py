"""Which of CPython's test modules touch files: the names in modules.txt, which not every version has all of.

Found by running each one of the ``test`` package under an audit hook: those that make, change or remove
something in their working directory or below ``/tmp``. Left out are those whose subject is another one and
that start processes, threads or servers by the dozen (``test_concurrent_futures``,
``test_multiprocessing_*``, ``test_venv``), want a screen, the network or gigabytes (``test_tkinter``,
``test_zipfile64``), or test tools (``test_lib2to3``).
"""

from __future__ import annotations

from pathlib import Path

MODULES = Path(__file__).with_name("modules.txt").read_text().split()

#: What a test module gets for a module that it imports, natively and inside: the tests of ``os`` and ``io``
#: that are written against those which the two are made of, and which tmpguard leaves alone.
STAND_INS = {
    "test_posix": ("posix", "os"),
    "test_fileio": ("_io", "io"),
}

#: Tests, as patterns of fnmatch, that are not run: they wait for ever where the kernel knows this kind of
#: socket but nobody answers, on many virtual machines.
LEFT_OUT = ("test.test_socket.*VSOCK*",)
