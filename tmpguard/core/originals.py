"""The interpreter's own file functions, without anybody's wrappers.

The wipe, the accounting and every wrapper access the real file system only through this module, so tmpguard
never runs into its own patched layer, or into another library's. The functions come from the C modules
(``posix``, ``_io``), which other libraries do not patch. The object in ``sys.modules`` is not a module, so
that libraries that patch every module (pyfakefs) leave it alone.
"""

from __future__ import annotations

import mmap as _mmap
import os
import pathlib as _pathlib
import pkgutil as _pkgutil
import sys as _sys
from typing import TYPE_CHECKING, Any

from . import runtime

try:
    import fcntl as _fcntl
except ImportError:  # the first module that Windows lacks
    runtime.check()
    raise

if TYPE_CHECKING:
    import io as _io
    import os as _posix
    import sqlite3 as _sqlite3
else:
    import _io
    import _sqlite3
    import posix as _posix

_os: Any = _posix  # Any: some of these names exist only on Linux, and type checking must not depend on it


def _get(name: str) -> Any:
    """The function ``os.<name>``, or None if this platform does not have it."""
    return getattr(_os, name, None)


open = _io.open
open_code = _io.open_code
FileIO = _io.FileIO
mmap = _mmap.mmap
fcntl = _fcntl.fcntl
fcntl_ioctl = _fcntl.ioctl
flock = _fcntl.flock
pkgutil_get_data = _pkgutil.get_data
sqlite_connect = _sqlite3.connect
SqliteConnection = _sqlite3.Connection
SqliteError = _sqlite3.Error

os_open = _posix.open
close = _posix.close
read = _posix.read
write = _posix.write
writev = _get("writev")
pwrite = _get("pwrite")
preadv = _get("preadv")
pwritev = _get("pwritev")
lseek = _posix.lseek
dup = _posix.dup
dup2 = _posix.dup2
fstat = _posix.fstat
stat = _posix.stat
lstat = _posix.lstat
statx = _get("statx")
access = _posix.access
statvfs = _get("statvfs")
fstatvfs = _get("fstatvfs")
pathconf = _get("pathconf")
readlink = _posix.readlink
listdir = _posix.listdir
scandir = _posix.scandir
walk = os.walk
getcwd = _posix.getcwd
ismount = os.path.ismount
path_is_mount = _pathlib.Path.is_mount
getcwdb = _posix.getcwdb
chdir = _posix.chdir
fchdir = _get("fchdir")

mkdir = _posix.mkdir
rmdir = _posix.rmdir
unlink = _posix.unlink
remove = _posix.remove
rename = _posix.rename
replace = _posix.replace
link = _posix.link
symlink = _posix.symlink
mkfifo = _get("mkfifo")
mknod = _get("mknod")
chmod = _posix.chmod
lchmod = _get("lchmod")
fchmod = _get("fchmod")
chown = _get("chown")
lchown = _get("lchown")
fchown = _get("fchown")
chflags = _get("chflags")
lchflags = _get("lchflags")
utime = _posix.utime
setxattr = _get("setxattr")
removexattr = _get("removexattr")
getxattr = _get("getxattr")
listxattr = _get("listxattr")

truncate = _posix.truncate
ftruncate = _posix.ftruncate
posix_fallocate = _get("posix_fallocate")
sendfile = _get("sendfile")
copy_file_range = _get("copy_file_range")
splice = _get("splice")

try:
    from _posixsubprocess import fork_exec as _fork_exec
except ImportError:
    fork_exec: Any = None
else:
    fork_exec = _fork_exec
posix_spawn = _get("posix_spawn")
posix_spawnp = _get("posix_spawnp")
system = _posix.system
execv = _posix.execv
execve = _posix.execve
waitpid = _posix.waitpid
wait = _get("wait")
wait3 = _get("wait3")
wait4 = _get("wait4")
waitid = _get("waitid")


class _Hidden:
    """Holds the names of this module, and replaces it in ``sys.modules``."""


_found = _Hidden()
vars(_found).update(globals())
_sys.modules[__name__] = _found  # type: ignore[assignment]
