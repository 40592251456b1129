"""The functions of ``os`` and others, for an invocation that only watches: how each is judged (C2.5)."""

from __future__ import annotations

import operator
import os
import stat as modes
import sys
from collections.abc import Callable, Mapping
from errno import EROFS, EXDEV
from fcntl import F_GETFL
from functools import partial
from typing import Any, Final

from tmpguard.core import originals
from tmpguard.core.mounts.known import forget
from tmpguard.core.presence import is_found
from tmpguard.core.storage.ledger import key_of, status_of
from tmpguard.core.storage.pages import allocated
from tmpguard.core.watching import Watching
from tmpguard.interpose.given import Given, is_descriptor
from tmpguard.interpose.paths import resolve, resolve_entry
from tmpguard.interpose.readonly import O_PATH, rename_error

from . import files
from .databases import database
from .judging import (
    Exists,
    Judging,
    Opening,
    argument,
    changed,
    entry_made,
    entry_removed,
    find_elsewhere,
    find_parent,
    grown,
    is_charged,
    is_late,
    judged,
    looked,
    made,
    quietly,
    real_of,
)

Args = tuple[Any, ...]
Options = Mapping[str, Any]
#: What takes the place of a call: it takes the invocation, the original and the arguments.
Watched = Callable[[Any, Callable[..., Any], Args, Options], Any]
_Judge = Callable[[Watching, str, Args, Options], Judging]


def plainly(_: Watching, original: Callable[..., Any], args: Args, options: Options) -> Any:
    """A call that is not judged, or consists of others that are."""
    return original(*args, **options)


def watched(public: str) -> Watched:
    """What the call with the public dotted name ``public`` is within an invocation that only watches."""
    judge = _JUDGES.get(public)
    if judge is not None:
        return partial(_judged, judge, public.replace("posix.", "os."))
    return _WATCHED.get(public, plainly)


def _judged(
    judge: _Judge,
    operation: str,
    invocation: Watching,
    original: Callable[..., Any],
    args: Args,
    options: Options,
) -> Any:
    return judged(judge(invocation, operation, args, options), original, *args, **options)


def _given(args: Args, options: Options, position: int = 0, name: str = "path", at: str = "dir_fd") -> Given:
    return Given(argument(args, options, position, name), options.get(at), wanted=None)


# --- looking -------------------------------------------------------------------------------------------


def _look(invocation: Watching, operation: str, args: Args, options: Options) -> Judging:
    path = argument(args, options, 0, "path")
    found = yield
    if found is False or is_descriptor(path):  # os.access
        return
    given = Given("." if path is None else path, options.get("dir_fd"), wanted=None)
    looked(invocation, operation, given, follow=options.get("follow_symlinks", True) is not False)


def _look_at_entry(invocation: Watching, operation: str, args: Args, options: Options) -> Judging:
    yield
    looked(invocation, operation, _given(args, options), follow=False)


# --- directory entries -----------------------------------------------------------------------------------


def _make(invocation: Watching, operation: str, args: Args, options: Options) -> Judging:
    given = _given(args, options)
    try:
        yield
    except Exists:  # in production, it might have been made
        status = originals.lstat(resolve_entry(invocation, given).real.rstrip("/"))
        if modes.S_ISDIR(status.st_mode) and operation == "os.mkdir":
            invocation.expect(key_of(status))
        return
    entry_made(invocation, operation, given)


def _symlink(invocation: Watching, operation: str, args: Args, options: Options) -> Judging:
    given = _given(args, options, 1, "dst")
    yield
    forget()
    entry_made(invocation, operation, given)


def _remove(invocation: Watching, operation: str, args: Args, options: Options) -> Judging:
    return entry_removed(invocation, operation, _given(args, options))


def _link(invocation: Watching, operation: str, args: Args, options: Options) -> Judging:
    source = _given(args, options, 0, "src", "src_dir_fd")
    target = _given(args, options, 1, "dst", "dst_dir_fd")
    yield
    forget()
    where = resolve_entry(invocation, target)
    if is_late(invocation, operation, target.name):
        return
    if is_charged(invocation, where.virtual, where.parent):
        real = where.real.rstrip("/")
        looked(invocation, operation, source, follow=False)
        made(invocation, operation, target.name, real, originals.lstat(real))
    elif not where.parent.writable:
        invocation.refuse(operation, EROFS, source.name, target.name, where=where)


def _rename(invocation: Watching, operation: str, args: Args, options: Options) -> Judging:
    source = _given(args, options, 0, "src", "src_dir_fd")
    target = _given(args, options, 1, "dst", "dst_dir_fd")
    if source.odd or target.odd:
        return
    old, new = resolve_entry(invocation, source), resolve_entry(invocation, target)
    status = status_of(old.real.rstrip("/"))
    charged = [is_charged(invocation, where.virtual, where.parent) for where in (old, new)]
    code = 0 if all(charged) else rename_error(old, new)
    yield
    forget()
    if is_late(invocation, operation, target.name):
        return
    if charged[0] and status is not None:
        find_elsewhere(invocation, operation, source.name, old.virtual, status)
    if all(charged):
        _note_rename(invocation, operation, target.name, old.real.rstrip("/"), new.real.rstrip("/"))
    elif code == EROFS:
        invocation.refuse(operation, EROFS, source.name, target.name, where=new)
    elif code == EXDEV and not (old.parent.writable and new.parent.writable):
        given, where = (target, new) if old.parent.writable else (source, old)
        invocation.refuse(operation, EXDEV, source.name, target.name, about=given.name, where=where)


def _note_rename(invocation: Watching, operation: str, name: object, old: str, new: str) -> None:
    ledger = invocation.ledger
    ledger.removing(new)
    ledger.moved(old, new)
    find_parent(invocation, operation, name, new)
    status = originals.lstat(new)
    if not ledger.owns(key_of(status)):
        invocation.made(new, status, allocated(status, new))


# --- metadata and sizes ----------------------------------------------------------------------------------


def _change(invocation: Watching, operation: str, args: Args, options: Options) -> Judging:
    path = argument(args, options, 0, "path")
    if is_descriptor(path):
        yield from _change_by(invocation, operation, args, options)
        return
    yield
    given = Given(path, options.get("dir_fd"), wanted=None)
    follow = bool(options.get("follow_symlinks", True)) and operation not in ("os.lchmod", "os.lchown")
    changed(invocation, operation, given, resolve(invocation, given, follow=follow))


def _change_by(invocation: Watching, operation: str, args: Args, options: Options) -> Judging:
    descriptor = operator.index(argument(args, options, 0, "fd"))
    yield
    real = real_of(descriptor)
    if not real or originals.fcntl(descriptor, F_GETFL) & O_PATH:
        return
    mount = invocation.guard.mounts.mount_of(real)
    if is_charged(invocation, real, mount):
        is_late(invocation, operation, descriptor)
    elif not mount.writable:
        invocation.refuse(operation, EROFS, None, about=descriptor)


def _truncate(invocation: Watching, operation: str, args: Args, options: Options) -> Judging:
    path = argument(args, options, 0, "path")
    if is_descriptor(path):
        yield from _write(0, _nothing, invocation, operation, args, options)
        return
    given = Given(path, wanted=None)
    yield
    where = resolve(invocation, given)
    if not is_charged(invocation, where.virtual, where.mount):
        changed(invocation, operation, given, where)
        return
    if is_late(invocation, operation, given.name):
        return
    status = originals.stat(where.real)
    if invocation.owns_file(key_of(status)):
        invocation.ledger.wrote(status, 0)
    else:
        find_elsewhere(invocation, operation, given.name, where.virtual, status)


def _write(
    position: int,
    size_of: Callable[[Any, Args], int],
    invocation: Watching,
    operation: str,
    args: Args,
    options: Options,
) -> Judging:
    """A call that writes to the file of the descriptor at ``position``."""
    descriptor = operator.index(args[position])
    before = originals.fstat(descriptor)
    if not modes.S_ISREG(before.st_mode):
        return
    if not invocation.owns_file(key_of(before)):
        real = real_of(descriptor)
        if not real or not is_charged(invocation, real, invocation.guard.mounts.mount_of(real)):
            return
        invocation.made(real, before, allocated(before, f"/proc/self/fd/{descriptor}", follow=0))
    result = yield
    written = size_of(result, args)
    grown(invocation, operation, real_of(descriptor) or descriptor, originals.fstat(descriptor), written)


def _nothing(_: object, __: Args) -> int:
    return 0


def _result(result: Any, _: Args) -> int:
    return int(result)


def _length(_: object, args: Args) -> int:
    return int(args[2])


def _anything(_: object, args: Args) -> int:
    """As much as the file is long: a clone."""
    return originals.fstat(operator.index(args[0])).st_size


# --- opening -------------------------------------------------------------------------------------------


def _open(invocation: Watching, operation: str, args: Args, options: Options) -> Judging:
    flags = operator.index(argument(args, options, 1, "flags"))
    opening = Opening(invocation, operation, _given(args, options), flags)
    descriptor = yield
    opening.opened(descriptor)


def _open_code(invocation: Watching, operation: str, args: Args, options: Options) -> Judging:
    yield
    looked(invocation, "open", _given(args, options))


def _get_data(invocation: Watching, original: Callable[..., Any], args: Args, options: Options) -> Any:
    """:func:`pkgutil.get_data`, which imports the package: the application's own code."""
    data = original(*args, **options)
    if data is not None:
        package, resource = argument(args, options, 0, "package"), argument(args, options, 1, "resource")
        quietly(_read_data, invocation, package, resource)
    return data


def _read_data(invocation: Watching, package: str, resource: str) -> None:
    file = getattr(sys.modules.get(package), "__file__", None) or ""
    path = os.path.join(os.path.dirname(file), *resource.split("/"))
    if is_found(path):  # otherwise it is from an archive, or generated by the loader
        looked(invocation, "pkgutil.get_data", Given(path))


#: The calls that are not a function in C, which a judge would look at from outside.
_WATCHED: Final[dict[str, Watched]] = {
    "io.open": files.open,
    "builtins.open": files.open,
    "pkgutil.get_data": _get_data,
}

_JUDGES: Final[dict[str, _Judge]] = {
    "os.open": _open,
    "io.open_code": _open_code,
    **dict.fromkeys(
        (
            *("os.stat", "os.statx", "os.access", "os.statvfs", "os.pathconf", "os.getxattr"),
            *("os.listxattr", "os.listdir", "os.scandir"),
        ),
        _look,
    ),
    **dict.fromkeys(("os.lstat", "os.readlink"), _look_at_entry),
    **dict.fromkeys(("os.mkdir", "os.mkfifo", "os.mknod", "posix.mkfifo", "posix.mknod"), _make),
    "os.symlink": _symlink,
    "os.link": _link,
    **dict.fromkeys(("os.unlink", "os.remove", "os.rmdir"), _remove),
    **dict.fromkeys(("os.rename", "os.replace"), _rename),
    **dict.fromkeys(
        ("os.chmod", "os.lchmod", "os.chown", "os.lchown", "os.utime", "os.setxattr", "os.removexattr"),
        _change,
    ),
    **dict.fromkeys(("os.fchmod", "os.fchown"), _change_by),
    "os.truncate": _truncate,
    "os.ftruncate": partial(_write, 0, _nothing),
    **dict.fromkeys(
        ("os.write", "os.writev", "os.pwrite", "os.pwritev", "os.sendfile"), partial(_write, 0, _result)
    ),
    **dict.fromkeys(("os.copy_file_range", "os.splice"), partial(_write, 1, _result)),
    "os.posix_fallocate": partial(_write, 0, _length),
    "fcntl.ioctl": partial(_write, 0, _anything),
    **dict.fromkeys(("dbm.gnu.open", "dbm.ndbm.open"), database),
}
