"""Where no guard can work, building one says why and what to do about it."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

import tmpguard
from tests.support import run_python


def refused() -> str:
    """The text of the refusal, which comes before that of any option."""
    with pytest.raises(tmpguard.ConfigurationError) as failed:
        tmpguard.Guard(storage_size=0, no_option=1)  # type: ignore[arg-type]
    return str(failed.value)


@pytest.mark.parametrize("system", ["darwin", "win32", "freebsd14"])
def test_another_system_is_named_with_the_way_out(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", system)
    assert refused() == (
        f"tmpguard needs Linux, and this is {system}: run the application or its tests in a Linux container"
    )


def test_another_interpreter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "implementation", SimpleNamespace(name="pypy"))
    assert refused() == "tmpguard needs CPython, whose functions it replaces, and this is pypy"


def test_without_the_global_lock_there_is_no_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert "needs the global interpreter lock" in refused()
    assert "PYTHON_GIL=1" in refused()


def test_a_free_threaded_build_that_runs_with_the_lock_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert tmpguard.Guard(bundle=None).storage_size == 128


#: The standard library is imported first: it asks for the system, too.
ELSEWHERE = """
import asyncio, concurrent.futures, ctypes, fcntl, multiprocessing.pool, os, posix, pwd, sqlite3, subprocess
import sys, sysconfig, tempfile, termios, uuid
sysconfig.get_config_vars()
sys.platform = {system!r}
for name in {modules}:
    sys.modules[name] = None
for name in [name for name in vars(os) if name.startswith({names})]:
    delattr(os, name)
try:
    from tmpguard.{module} import {name}
    {name}({argument})
except ValueError as exc:
    print(type(exc).__name__, exc)
"""

#: What Linux alone has in ``os``.
LINUX = (
    *("O_PATH", "O_TMPFILE", "O_LARGEFILE", "O_NOATIME", "memfd_create", "MFD_", "splice"),
    *("SPLICE_", "copy_file_range", "posix_fallocate", "posix_fadvise", "POSIX_FADV", "eventfd", "EFD_"),
    *(
        "getxattr",
        "listxattr",
        "setxattr",
        "removexattr",
        "XATTR_",
        "pidfd_open",
        "unshare",
        "setns",
        "CLONE_",
    ),
    *("setresuid", "setresgid", "getresuid", "getresgid", "sched_set", "getrandom", "pipe2"),
)


@pytest.mark.parametrize(
    ("module", "name", "argument"),
    [("guard", "Guard", ""), ("asgi", "TmpGuardMiddleware", "None"), ("wsgi", "TmpGuardMiddleware", "None")],
)
@pytest.mark.parametrize(
    ("system", "modules", "names"),
    [
        ("darwin", (), LINUX),
        ("win32", ("fcntl", "posix", "pwd", "resource", "termios"), (*LINUX, "geteuid", "fork", "statvfs")),
    ],
)
def test_the_sentence_is_also_said_where_linux_is_missed_by_the_imports(
    system: str, modules: tuple[str, ...], names: tuple[str, ...], module: str, name: str, argument: str
) -> None:
    code = ELSEWHERE.format(
        system=system, modules=modules, names=names, module=module, name=name, argument=argument
    )
    assert run_python(code).startswith(f"ConfigurationError tmpguard needs Linux, and this is {system}: ")


#: PyPy lacks modules in C of which tmpguard needs an instance of its own.
PYPY = """
import sys, types
from importlib.machinery import BuiltinImporter, PathFinder
for finder in (BuiltinImporter, PathFinder):
    find = finder.find_spec
    finder.find_spec = lambda name, *rest, find=find: None if name == "_queue" else find(name, *rest)
sys.implementation = types.SimpleNamespace(**{**vars(sys.implementation), "name": "pypy"})
"""

SENTENCE = "tmpguard needs CPython, whose functions it replaces, and this is pypy"


@pytest.mark.parametrize(
    ("module", "name"), [("guard", "Guard"), ("asgi", "TmpGuardMiddleware"), ("wsgi", "TmpGuardMiddleware")]
)
def test_the_sentence_is_also_said_where_the_imports_miss_a_module_of_cpython(module: str, name: str) -> None:
    code = f"""{PYPY}
try:
    from tmpguard.{module} import {name}
except ValueError as exc:
    print(type(exc).__name__, exc)
"""
    assert run_python(code) == f"ConfigurationError {SENTENCE}\n"


def test_the_command_line_says_the_sentence() -> None:
    code = f"""{PYPY}
from tmpguard.__main__ import main
sys.stderr = sys.stdout
try:
    main()
except SystemExit as exc:
    print(exc.code)
"""
    assert run_python(code) == f"tmpguard: {SENTENCE}\n2\n"


def test_a_module_that_cpython_itself_lacks_is_named() -> None:
    code = PYPY.replace('"pypy"', '"cpython"') + "import tmpguard.core.real"
    with pytest.raises(AssertionError, match=r"ModuleNotFoundError: .*'_queue'"):
        run_python(code)
