"""The table of intercepted callables: one row each, with its intent and its path arguments.

The documentation's list is generated from this table, and a test compares them.
"""

from __future__ import annotations

import _socket
import functools
import importlib
import operator
import sqlite3
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto
from types import MethodType
from typing import Any, Final, NamedTuple

from tmpguard.core import originals
from tmpguard.interpose.children import execute, foreign, interpreters, spawn, waiting
from tmpguard.interpose.entries import change, cwd, listing, look, metadata, walk
from tmpguard.interpose.files import builtin_open, copying, descriptors, mapping, raw
from tmpguard.interpose.sqlite import connect as sqlite
from tmpguard.interpose.sqlite import errors as sqlite_errors

from . import carry, importing, native, pickling, sockets, spared, temporary
from .watching.calls import watched
from .wrapper import ForgettingWrapper, NumberWrapper, Wrapper, beside, compiled, unsigned


class Kind(Enum):
    """How ``Call.replacement`` is used."""

    #: It is called within an invocation, with the invocation and the arguments of the call.
    GUARDED = auto()
    #: The same, but its first argument is the callable that it replaces. It also knows what to do for an
    #: invocation that only watches.
    WITH_ORIGINAL = auto()
    #: It takes the callable and returns the object that replaces it.
    MADE = auto()


WITH_ORIGINAL: Final = Kind.WITH_ORIGINAL
MADE: Final = Kind.MADE


class Call(NamedTuple):
    """One intercepted callable.

    ``owner`` is the module, or a class in a module as ``module:Class``. ``intent`` is one of ``read``,
    ``create``, ``modify``, ``metadata``, ``allocate``, ``process``, ``child`` and ``carry``. ``paths`` names
    the path arguments, and ``kind`` says how ``replacement`` is used. The first ``numbers`` arguments may be
    descriptor numbers. ``own``, if given, is the interpreter's own callable, and ``replacement`` is then the
    very object that replaces it. ``forgets`` means that the call may make the guards' caches wrong: it may
    replace a directory with a symlink, or change the process's working directory.
    """

    owner: str
    name: str
    intent: str
    paths: tuple[str, ...]
    replacement: Callable[..., Any]
    kind: Kind = Kind.GUARDED
    numbers: int = 0
    own: Callable[..., Any] | None = None
    forgets: bool = False

    def wrapper(self, original: Callable[..., Any]) -> Any:
        """The object that replaces ``original``, which may be another library's wrapper."""
        replacement = self.replacement
        if self.kind is Kind.MADE:
            return replacement(original)
        if self.kind is Kind.WITH_ORIGINAL:
            guarded = functools.partial(replacement, original)  # which watches by itself
            return Wrapper(
                original, guarded, self.public, lambda one, _, args, more: guarded(one, *args, **more)
            )
        judged = watched(self.public)
        if self.own is not None:
            fits = original is self.own or isinstance(replacement, type)
            method = ":" in self.owner
            return replacement if fits else beside(original, replacement, self.public, judged, method=method)
        if self.forgets:
            return ForgettingWrapper(original, replacement, self.public, judged, self.numbers)
        if self.numbers:
            return NumberWrapper(original, replacement, self.public, judged, self.numbers)
        return Wrapper(original, replacement, self.public, judged)

    @property
    def public(self) -> str:
        """The public dotted name of the callable: ``os.mkdir``."""
        return f"{self.owner.replace(':', '.')}.{self.name}"


_CONNECTION: Final = originals.SqliteConnection
_PATH: Final = ("path",)
_PAIR: Final = ("src", "dst")

TABLE: Final[tuple[Call, ...]] = (
    Call("io", "open", "create", ("file",), builtin_open.open, own=originals.open),
    Call("builtins", "open", "create", ("file",), builtin_open.open, own=originals.open),
    Call("tokenize", "_builtin_open", "read", ("file",), importing.open_source),
    Call("io", "FileIO", "create", ("file",), raw.FileIO, own=originals.FileIO),
    Call("io", "open_code", "read", _PATH, builtin_open.open_code),
    Call("os", "open", "create", _PATH, descriptors.open),
    # looking
    Call("os", "stat", "read", _PATH, look.stat, own=originals.stat),
    Call("os", "lstat", "read", _PATH, look.lstat, own=originals.lstat),
    Call("os", "statx", "read", _PATH, look.statx, numbers=1),
    Call("os", "access", "read", _PATH, look.access),
    Call("os", "statvfs", "read", _PATH, look.statvfs, numbers=1),
    Call("os", "fstatvfs", "read", (), look.fstatvfs, numbers=1),
    Call("os", "pathconf", "read", _PATH, look.pathconf, numbers=1),
    Call("os", "readlink", "read", _PATH, look.readlink),
    Call("os", "getxattr", "read", _PATH, look.getxattr, numbers=1),
    Call("os", "listxattr", "read", _PATH, look.listxattr, numbers=1),
    Call("os", "listdir", "read", _PATH, listing.listdir, numbers=1),
    Call("os", "scandir", "read", _PATH, listing.scandir, numbers=1),
    Call("os", "walk", "read", ("top",), walk.walk, own=originals.walk),
    Call("posixpath", "ismount", "read", _PATH, look.ismount),
    Call("pkgutil", "get_data", "read", ("resource",), look.get_data),
    Call("pathlib:Path", "is_mount", "read", ("self",), look.path_is_mount, own=originals.path_is_mount),
    # the working directory
    Call("os", "getcwd", "process", (), cwd.getcwd),
    Call("os", "getcwdb", "process", (), cwd.getcwdb),
    Call("os", "chdir", "process", _PATH, cwd.chdir, numbers=1, forgets=True),
    Call("os", "fchdir", "process", (), cwd.fchdir, forgets=True),
    Call("posix", "chdir", "process", _PATH, cwd.chdir, numbers=1, forgets=True),
    Call("posix", "fchdir", "process", (), cwd.fchdir, forgets=True),
    # directory entries
    Call("os", "mkdir", "modify", _PATH, change.mkdir),
    Call("os", "mkfifo", "create", _PATH, change.mkfifo),
    Call("os", "mknod", "create", _PATH, change.mknod),
    # There is no audit event for these two, and the importer uses none of the functions replaced in `posix`.
    Call("posix", "mkfifo", "create", _PATH, change.mkfifo),
    Call("posix", "mknod", "create", _PATH, change.mknod),
    Call("os", "symlink", "modify", ("dst",), change.symlink, forgets=True),
    Call("os", "link", "modify", _PAIR, change.link, forgets=True),
    Call("os", "unlink", "modify", _PATH, change.unlink),
    Call("os", "remove", "modify", _PATH, change.remove),
    Call("os", "rmdir", "modify", _PATH, change.rmdir),
    Call("os", "rename", "modify", _PAIR, change.rename, forgets=True),
    Call("os", "replace", "modify", _PAIR, change.replace, forgets=True),
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
    Call("os", "preadv", "read", (), descriptors.preadv, numbers=1),
    Call("os", "posix_fallocate", "allocate", (), descriptors.posix_fallocate, numbers=1),
    Call("os", "sendfile", "allocate", (), copying.sendfile, numbers=2),
    Call("os", "copy_file_range", "allocate", (), copying.copy_file_range, numbers=2),
    Call("os", "splice", "allocate", (), copying.splice, numbers=2),
    Call("fcntl", "ioctl", "allocate", (), copying.ioctl),
    Call("mmap", "mmap", "allocate", (), mapping.mmap, own=originals.mmap),
    # other ways in
    Call("sqlite3", "connect", "create", ("database",), sqlite.connect, WITH_ORIGINAL),
    Call("sqlite3.dbapi2", "connect", "create", ("database",), sqlite.connect, WITH_ORIGINAL),
    Call("_sqlite3", "connect", "create", ("database",), sqlite.connect, WITH_ORIGINAL),
    Call("sqlite3", "Connection", "create", ("database",), sqlite.Connection, own=_CONNECTION),
    Call(
        "sqlite3.dbapi2",
        "Connection",
        "create",
        ("database",),
        sqlite.Connection,
        own=originals.SqliteConnection,
    ),
    Call(
        "_sqlite3", "Connection", "create", ("database",), sqlite.Connection, own=originals.SqliteConnection
    ),
    Call("socket:socket", "bind", "create", ("address",), sockets.bind, MADE),
    Call("socket:socket", "connect", "read", ("address",), sockets.connect, MADE),
    Call("socket:socket", "connect_ex", "read", ("address",), sockets.connect_ex, MADE),
    Call("socket:socket", "sendto", "read", ("address",), sockets.sendto, MADE),
    Call("socket:socket", "sendmsg", "read", ("address",), sockets.sendmsg, MADE),
    Call("socket:socket", "_accept", "read", (), sockets.receiving, MADE),
    Call("socket:socket", "recvfrom", "read", (), sockets.receiving, MADE),
    Call("socket:socket", "recvfrom_into", "read", (), sockets.receiving, MADE),
    Call("socket:socket", "recvmsg", "read", (), sockets.receiving, MADE),
    Call("socket:socket", "recvmsg_into", "read", (), sockets.receiving, MADE),
    Call("socket:socket", "getsockname", "read", (), sockets.naming, MADE),
    Call("socket:socket", "getpeername", "read", (), sockets.naming, MADE),
    # temporary files remove themselves by name
    Call("tempfile", "_gettempdir", "process", (), temporary.default_directory, MADE),
    Call("tempfile:_TemporaryFileCloser", "__init__", "carry", (), temporary.closer_init, MADE),
    Call("tempfile:_TemporaryFileCloser", temporary.CLOSING, "carry", (), temporary.closing, MADE),
    Call("tempfile:TemporaryDirectory", "__init__", "carry", (), temporary.directory_init, MADE),
    # child processes
    Call("_posixsubprocess", "fork_exec", "child", (), spawn.fork_exec, WITH_ORIGINAL),
    Call("os", "posix_spawn", "child", (), spawn.posix_spawn, WITH_ORIGINAL),
    Call("os", "posix_spawnp", "child", (), spawn.posix_spawnp, WITH_ORIGINAL),
    Call("os", "system", "child", (), execute.system, WITH_ORIGINAL),
    Call("os", "_spawnvef", "child", (), execute.spawnvef, WITH_ORIGINAL),
    Call("os", "execv", "child", (), execute.execv, WITH_ORIGINAL),
    Call("os", "execve", "child", (), execute.execve, WITH_ORIGINAL),
    Call("os", "wait", "child", (), waiting.wait, MADE),
    Call("os", "wait3", "child", (), waiting.wait3, MADE),
    Call("os", "wait4", "child", (), waiting.wait4, MADE),
    Call("os", "waitid", "child", (), waiting.waitid, MADE),
    Call("os", "waitpid", "child", (), waiting.waitpid, MADE),
    # threads and executors
    Call("threading:Thread", "start", "carry", (), carry.thread_start, MADE),
    Call("concurrent.futures:ThreadPoolExecutor", "submit", "carry", (), carry.executor_submit, MADE),
)

_FIRST: Final = functools.partial(carry.carrying, position=0)
_SECOND: Final = functools.partial(carry.carrying, position=1)

#: Wrapped as soon as their modules are imported: the owner, the name, and the function that makes the wrapper
#: from the original. If a type is given as the name, the owner is a dict and the type is a key in it.
_LATE: Final[tuple[tuple[str, str | type, Callable[[Any], Any]], ...]] = (
    ("importlib._bootstrap_external", "_os", importing.posix_front),
    ("importlib._bootstrap_external", "_io", importing.io_front),
    ("zipimport", "_io", importing.io_front),
    ("site", "io", importing.site_io),
    ("_thread", "start_new_thread", _FIRST),
    ("ssl:SSLContext", "load_cert_chain", native.load_cert_chain),
    ("ssl:SSLContext", "load_verify_locations", native.load_verify_locations),
    ("ssl:SSLContext", "keylog_filename", native.keylog_filename),
    ("gevent", "spawn", _FIRST),
    ("gevent", "spawn_later", _SECOND),
    ("gevent", "spawn_raw", _FIRST),
    ("gevent.pool:GroupMappingMixin", "spawn", _SECOND),
    ("gevent.pool:Group", "spawn", _SECOND),
    ("gevent.threadpool:ThreadPool", "spawn", _SECOND),
    ("uvloop:Loop", "create_unix_server", sockets.uvloop_unix_server),
    ("uvloop:Loop", "create_unix_connection", sockets.uvloop_unix_connection),
    ("uvloop:Loop", "subprocess_exec", foreign.uvloop_exec),
    ("uvloop:Loop", "subprocess_shell", foreign.uvloop_shell),
    ("asyncio.subprocess:SubprocessStreamProtocol", "process_exited", foreign.process_exited),
    ("pyfakefs.fake_filesystem_unittest:Patcher", "SKIPMODULES", spared.skipped_modules),
    ("pyfakefs.fake_filesystem_unittest:Patcher", "_is_fs_function", spared.is_file_function),
    ("multiprocessing.synchronize:SemLock", "__init__", native.semaphore),
    ("_posixshmem", "shm_open", native.shm_open),
    *(
        (module, name, interpreters.checking)
        for module in ("_interpreters", "_xxsubinterpreters")
        for name in ("create", "exec", "run_string", "run_func", "call")
    ),
    ("copyreg:dispatch_table", MethodType, pickling.method_reducer),
    ("cloudpickle.cloudpickle:Pickler._dispatch_table", MethodType, pickling.method_reducer),
    ("joblib.externals.cloudpickle.cloudpickle:Pickler._dispatch_table", MethodType, pickling.method_reducer),
    ("dill._dill:Pickler.dispatch", MethodType, pickling.dill_saver),
    ("multiprocessing.util", "get_temp_dir", temporary.process_directory),
    ("multiprocessing.forkserver", "ensure_running", foreign.fork_server),
    ("multiprocessing.forkserver", "connect_to_new_process", foreign.fork_server),
)

#: The modules that are patched if and when they are imported.
LATE_MODULES: Final = frozenset(["inspect", *(name.partition(":")[0] for name, _, _ in _LATE)])

#: Wrapped if the interpreter has them: the module, and the one with its exception class.
_DBM: Final = (("dbm.gnu", "_gdbm"), ("dbm.ndbm", "_dbm"))


class Candidate(NamedTuple):
    """A callable to patch: its owner, its name, and what is in place now, even another library's wrapper.

    In that case, the interpreter's own callable is listed as well, with None as the owner, because other
    modules may refer to it.
    """

    owner: Any
    name: str
    original: Any
    #: Makes the replacement from the original. Rows of the same ``kind`` share it.
    replace: Callable[[Any], Any]
    kind: object


Replaced = tuple[Any, str, Any, Any]


def candidates() -> Iterator[Candidate]:
    """The callables to patch on this platform."""
    for call in TABLE:
        for owner in _owners(call.owner):
            original = getattr(owner, call.name, None)
            if original is not None:  # otherwise this platform does not have it
                yield Candidate(owner, call.name, original, call.wrapper, call.replacement)
                own = _interpreters_own(call)
                if own is not None and own is not original:
                    yield Candidate(None, call.name, own, call.wrapper, call.replacement)
    yield Candidate(
        sqlite3.Error, "sqlite_errorcode", None, lambda _: sqlite_errors.ErrorCode(), sqlite_errors.ErrorCode
    )
    yield from _dbm_calls()


def held_originals() -> Iterator[Any]:
    """The originals that the table refers to, once for each reference."""
    yield from (call.own for call in TABLE if call.own is not None)
    yield from (original for _, original in unsigned)
    yield from (wrapper._original for wrapper in compiled)


def calls(candidates: Iterable[Candidate]) -> Iterator[Replaced]:
    """The callables to patch: the owner, the name, the original and its replacement.

    An original that is found in several places gets the same replacement everywhere, that of its first row.
    """
    made: dict[tuple[int, int], Any] = {}
    for one in candidates:
        key = (id(one.original), id(one.kind))
        if key not in made:
            made[key] = one.replace(one.original)
        yield one.owner, one.name, one.original, made[key]


def _interpreters_own(call: Call) -> Any:
    """The interpreter's own callable, which another library may have wrapped."""
    if call.own is not None:
        return call.own
    source = _SOURCES.get(call.owner)
    return None if source is None else getattr(source, call.name, None)


#: The C modules that the public modules import their functions from.
_SOURCES: Final[dict[str, Any]] = {
    "os": importlib.import_module("posix"),
    "sqlite3": importlib.import_module("_sqlite3"),
    "sqlite3.dbapi2": importlib.import_module("_sqlite3"),
}


def _owners(name: str) -> list[Any]:
    """The modules or classes of that name. gevent and eventlet define their own socket classes."""
    if name == "socket:socket":
        return type.__subclasses__(_socket.socket)
    return [_owner(name)]


def _owner(name: str) -> Any:
    module, _, attributes = name.partition(":")
    return functools.reduce(getattr, filter(None, [attributes]), _module(module))


@functools.cache
def _module(name: str) -> types.ModuleType:
    """The module ``name``. Cached, because a library may replace it with a fake one later (pyfakefs)."""
    return importlib.import_module(name)


for _call in TABLE:
    _owner(_call.owner)  # fills the cache before any library can replace a module


Late = tuple[Callable[[Any, Any, Any], None], Any, Any, Callable[[], Any]]


def late_calls() -> Iterator[Late]:
    """The callables to patch in modules that are imported by now.

    Yields the setter, the owner, the name or key, and a function that makes the replacement.
    """
    for place, name, replace in _LATE:
        module, _, attributes = place.partition(":")
        owner: Any = sys.modules.get(module)
        for attribute in filter(None, attributes.split(".")):
            owner = getattr(owner, attribute, None)  # None while the module is being imported
        if owner is None:
            continue
        if isinstance(name, type):
            yield operator.setitem, owner, name, functools.partial(replace, owner.get(name))
        elif (original := getattr(owner, name, None)) is not None:
            yield setattr, owner, name, functools.partial(replace, original)


def _dbm_calls() -> Iterator[Candidate]:
    for name, implementation in _DBM:
        try:
            module: types.ModuleType = importlib.import_module(name)
            failure = importlib.import_module(implementation).error
        except ImportError:
            continue
        replace = functools.partial(_guard_database, f"{name}.open", failure)
        yield Candidate(module, "open", module.open, replace, failure)


def _guard_database(public: str, failure: type[OSError], original: Callable[..., Any]) -> Wrapper:
    guarded = native.open_database(original, public, failure)
    return Wrapper(original, guarded, public, watched(public))
