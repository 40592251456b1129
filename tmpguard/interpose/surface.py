"""The table of intercepted callables: one row each, with its intent and its path arguments.

The documentation's list is generated from this table, and a test compares them.
"""

from __future__ import annotations

import functools
import importlib
import sqlite3
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from tmpguard.interpose.children import execute, foreign, spawn, waiting
from tmpguard.interpose.entries import change, cwd, listing, look, metadata, walk
from tmpguard.interpose.files import builtin_open, copying, descriptors, mapping, raw
from tmpguard.interpose.sqlite import connect as sqlite
from tmpguard.interpose.sqlite import errors as sqlite_errors

from . import carry, importing, native, sockets, temporary
from .wrapper import NumberWrapper, Wrapper


class Call(NamedTuple):
    """One intercepted callable.

    ``owner`` is the module, or a class in a module as ``module:Class``. ``intent`` is one of ``read``,
    ``create``, ``modify``, ``metadata``, ``allocate``, ``process``, ``child`` and ``carry``. ``paths`` names
    the path arguments. ``replacement`` is a function that takes the invocation and the call's own arguments;
    if ``ready`` is true, it is the object that replaces the callable as it is. The first ``numbers``
    arguments may be descriptor numbers.
    """

    owner: str
    name: str
    intent: str
    paths: tuple[str, ...]
    replacement: Any
    ready: bool = False
    numbers: int = 0

    def wrapper(self, original: Callable[..., Any]) -> Any:
        """The object that replaces ``original``."""
        if self.ready:
            return self.replacement
        if self.numbers:
            return NumberWrapper(original, self.replacement, self.public, self.numbers)
        return Wrapper(original, self.replacement, self.public)

    @property
    def public(self) -> str:
        """The public dotted name of the callable: ``os.mkdir``."""
        return f"{self.owner.replace(':', '.')}.{self.name}"


_PATH: Final = ("path",)
_PAIR: Final = ("src", "dst")

TABLE: Final[tuple[Call, ...]] = (
    Call("builtins", "open", "create", ("file",), builtin_open.open, ready=True),
    Call("io", "open", "create", ("file",), builtin_open.open, ready=True),
    Call("tokenize", "_builtin_open", "read", ("file",), importing.open_source),
    Call("io", "FileIO", "create", ("file",), raw.FileIO, ready=True),
    Call("io", "open_code", "read", _PATH, builtin_open.open_code),
    Call("os", "open", "create", _PATH, descriptors.open),
    # looking
    Call("os", "stat", "read", _PATH, look.stat, ready=True),
    Call("os", "lstat", "read", _PATH, look.lstat, ready=True),
    Call("os", "access", "read", _PATH, look.access),
    Call("os", "statvfs", "read", _PATH, look.statvfs, numbers=1),
    Call("os", "fstatvfs", "read", (), look.fstatvfs, numbers=1),
    Call("os", "pathconf", "read", _PATH, look.pathconf, numbers=1),
    Call("os", "readlink", "read", _PATH, look.readlink),
    Call("os", "getxattr", "read", _PATH, look.getxattr, numbers=1),
    Call("os", "listxattr", "read", _PATH, look.listxattr, numbers=1),
    Call("os", "listdir", "read", _PATH, listing.listdir, numbers=1),
    Call("os", "scandir", "read", _PATH, listing.scandir, numbers=1),
    Call("os", "walk", "read", ("top",), walk.walk, ready=True),
    Call("posixpath", "ismount", "read", _PATH, look.ismount),
    Call("pkgutil", "get_data", "read", ("resource",), look.get_data),
    Call("pathlib:Path", "is_mount", "read", ("self",), look.path_is_mount, ready=True),
    # the working directory
    Call("os", "getcwd", "process", (), cwd.getcwd),
    Call("os", "getcwdb", "process", (), cwd.getcwdb),
    Call("os", "chdir", "process", _PATH, cwd.chdir, numbers=1),
    Call("os", "fchdir", "process", (), cwd.fchdir),
    # directory entries
    Call("os", "mkdir", "modify", _PATH, change.mkdir),
    Call("os", "mkfifo", "create", _PATH, change.mkfifo),
    Call("os", "mknod", "create", _PATH, change.mknod),
    Call("os", "symlink", "modify", ("dst",), change.symlink),
    Call("os", "link", "modify", _PAIR, change.link),
    Call("os", "unlink", "modify", _PATH, change.unlink),
    Call("os", "remove", "modify", _PATH, change.remove),
    Call("os", "rmdir", "modify", _PATH, change.rmdir),
    Call("os", "rename", "modify", _PAIR, change.rename),
    Call("os", "replace", "modify", _PAIR, change.replace),
    # metadata
    Call("os", "chmod", "metadata", _PATH, metadata.chmod, numbers=1),
    Call("os", "lchmod", "metadata", _PATH, metadata.lchmod),
    Call("os", "fchmod", "metadata", (), metadata.fchmod, numbers=1),
    Call("os", "chown", "metadata", _PATH, metadata.chown, numbers=1),
    Call("os", "lchown", "metadata", _PATH, metadata.lchown),
    Call("os", "fchown", "metadata", (), metadata.fchown, numbers=1),
    Call("os", "utime", "metadata", _PATH, metadata.utime, numbers=1),
    Call("os", "setxattr", "metadata", _PATH, metadata.setxattr, numbers=1),
    Call("os", "removexattr", "metadata", _PATH, metadata.removexattr, numbers=1),
    # allocating
    Call("os", "truncate", "allocate", _PATH, descriptors.truncate, numbers=1),
    Call("os", "ftruncate", "allocate", (), descriptors.ftruncate, numbers=1),
    Call("os", "dup", "allocate", (), descriptors.dup, numbers=1),
    Call("os", "dup2", "allocate", (), descriptors.dup2, numbers=2),
    Call("os", "write", "allocate", (), descriptors.write, numbers=1),
    Call("os", "writev", "allocate", (), descriptors.writev, numbers=1),
    Call("os", "pwrite", "allocate", (), descriptors.pwrite, numbers=1),
    Call("os", "pwritev", "allocate", (), descriptors.pwritev, numbers=1),
    Call("os", "posix_fallocate", "allocate", (), descriptors.posix_fallocate, numbers=1),
    Call("os", "sendfile", "allocate", (), copying.sendfile, numbers=2),
    Call("os", "copy_file_range", "allocate", (), copying.copy_file_range, numbers=2),
    Call("os", "splice", "allocate", (), copying.splice, numbers=2),
    Call("fcntl", "ioctl", "allocate", (), copying.ioctl),
    Call("mmap", "mmap", "allocate", (), mapping.mmap, ready=True),
    # other ways in
    Call("sqlite3", "connect", "create", ("database",), sqlite.connect),
    Call("sqlite3.dbapi2", "connect", "create", ("database",), sqlite.connect),
    Call("_sqlite3", "connect", "create", ("database",), sqlite.connect),
    Call("sqlite3", "Connection", "create", ("database",), sqlite.Connection, ready=True),
    Call("sqlite3.dbapi2", "Connection", "create", ("database",), sqlite.Connection, ready=True),
    Call("_sqlite3", "Connection", "create", ("database",), sqlite.Connection, ready=True),
    Call("socket:socket", "bind", "create", ("address",), sockets.bind, ready=True),
    Call("socket:socket", "connect", "read", ("address",), sockets.connect, ready=True),
    Call("socket:socket", "connect_ex", "read", ("address",), sockets.connect_ex, ready=True),
    Call("socket:socket", "sendto", "read", ("address",), sockets.sendto, ready=True),
    Call("socket:socket", "sendmsg", "read", ("address",), sockets.sendmsg, ready=True),
    Call("socket:socket", "_accept", "read", (), sockets.accept, ready=True),
    Call("socket:socket", "recvfrom", "read", (), sockets.recvfrom, ready=True),
    Call("socket:socket", "recvfrom_into", "read", (), sockets.recvfrom_into, ready=True),
    Call("socket:socket", "recvmsg", "read", (), sockets.recvmsg, ready=True),
    Call("socket:socket", "recvmsg_into", "read", (), sockets.recvmsg_into, ready=True),
    Call("socket:socket", "getsockname", "read", (), sockets.getsockname, ready=True),
    Call("socket:socket", "getpeername", "read", (), sockets.getpeername, ready=True),
    # temporary files remove themselves by name
    Call("tempfile", "_gettempdir", "process", (), temporary.gettempdir, ready=True),
    Call("tempfile:_TemporaryFileCloser", "__init__", "carry", (), temporary.closer_init, ready=True),
    Call("tempfile:_TemporaryFileCloser", temporary.CLOSING, "carry", (), temporary.closing, ready=True),
    Call("tempfile:TemporaryDirectory", "__init__", "carry", (), temporary.directory_init, ready=True),
    # child processes
    Call("_posixsubprocess", "fork_exec", "child", (), spawn.fork_exec),
    Call("os", "posix_spawn", "child", (), spawn.posix_spawn),
    Call("os", "posix_spawnp", "child", (), spawn.posix_spawnp),
    Call("os", "system", "child", (), execute.system),
    Call("os", "_spawnvef", "child", (), execute.spawnvef),
    Call("os", "execv", "child", (), execute.execv),
    Call("os", "execve", "child", (), execute.execve),
    Call("os", "wait", "child", (), waiting.wait, ready=True),
    Call("os", "wait3", "child", (), waiting.wait3, ready=True),
    Call("os", "wait4", "child", (), waiting.wait4, ready=True),
    Call("os", "waitid", "child", (), waiting.waitid, ready=True),
    Call("os", "waitpid", "child", (), waiting.waitpid, ready=True),
    # handing on
    Call("threading:Thread", "start", "carry", (), carry.thread_start, ready=True),
    Call("concurrent.futures:ThreadPoolExecutor", "submit", "carry", (), carry.executor_submit, ready=True),
)

_FIRST: Final = functools.partial(carry.carrying, position=0)
_SECOND: Final = functools.partial(carry.carrying, position=1)

#: Wrapped if their modules are imported: the owner, the name, and the function that makes the wrapper from
#: the original.
_LATE: Final[tuple[tuple[str, str, Callable[[Any], Any]], ...]] = (
    ("importlib._bootstrap_external", "_os", importing.posix_front),
    ("importlib._bootstrap_external", "_io", importing.io_front),
    ("zipimport", "_io", importing.io_front),
    ("_thread", "start_new_thread", _FIRST),
    ("ssl:SSLContext", "load_cert_chain", native.load_cert_chain),
    ("ssl:SSLContext", "load_verify_locations", native.load_verify_locations),
    ("gevent", "spawn", _FIRST),
    ("gevent", "spawn_later", _SECOND),
    ("gevent", "spawn_raw", _FIRST),
    ("gevent.pool:GroupMappingMixin", "spawn", _SECOND),
    ("gevent.pool:Group", "spawn", _SECOND),
    ("gevent.threadpool:ThreadPool", "spawn", _SECOND),
    ("uvloop:Loop", "subprocess_exec", foreign.uvloop_exec),
    ("uvloop:Loop", "subprocess_shell", foreign.uvloop_shell),
    ("asyncio.subprocess:SubprocessStreamProtocol", "process_exited", foreign.process_exited),
    ("multiprocessing.util", "get_temp_dir", temporary.process_directory),
    ("multiprocessing.forkserver", "ensure_running", foreign.fork_server),
    ("multiprocessing.forkserver", "connect_to_new_process", foreign.fork_server),
)

#: Modules that may be imported only within a request, and the module that is imported before them.
_WITH: Final = {
    "gevent.pool": "gevent",
    "gevent.threadpool": "gevent",
    "multiprocessing.forkserver": "multiprocessing.context",
    "multiprocessing.util": "multiprocessing.context",
}

#: Wrapped if the interpreter has them: the module, and the one with its exception class.
_DBM: Final = (("dbm.gnu", "_gdbm"), ("dbm.ndbm", "_dbm"))


def calls() -> Iterator[tuple[Any, str, Any, Any]]:
    """The callables to patch on this platform: the owner, the name, the original and its replacement.

    An original that is found in several places gets the same replacement everywhere; its first row wins.
    """
    made: dict[tuple[int, int], Any] = {}
    for call in TABLE:
        owner = _owner(call.owner)
        original = getattr(owner, call.name, None)
        if original is None:
            continue  # not on this platform
        key = (id(original), id(call.replacement))
        if key not in made:
            made[key] = call.wrapper(original)
        yield owner, call.name, original, made[key]
    yield sqlite3.Error, "sqlite_errorcode", None, sqlite_errors.ErrorCode()
    yield from _dbm_calls()


def _owner(name: str) -> Any:
    module, _, attributes = name.partition(":")
    return functools.reduce(getattr, filter(None, [attributes]), importlib.import_module(module))


def late_calls() -> Iterator[tuple[Any, str, Callable[[], Any]]]:
    """The callables to patch in modules that are imported by now.

    Yields the owner, the name, and a function that makes the replacement.
    """
    for name, attribute, replace in _LATE:
        module = name.partition(":")[0]
        if _WITH.get(module, module) in sys.modules:
            owner = _owner(name)
            original = getattr(owner, attribute, None)
            if original is not None:
                yield owner, attribute, functools.partial(replace, original)


def _dbm_calls() -> Iterator[tuple[Any, str, Any, Any]]:
    for name, implementation in _DBM:
        try:
            module: types.ModuleType = importlib.import_module(name)
            failure = importlib.import_module(implementation).error
        except ImportError:
            continue
        original: Callable[..., Any] = module.open
        guarded = native.open_database(original, f"{name}.open", failure)
        yield module, "open", original, Wrapper(original, guarded, f"{name}.open")
