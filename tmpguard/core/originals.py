"""The untouched functions, taken when tmpguard is first imported.

The wipe, the accounting and every wrapper reach the real file system through this module and through
nothing else, so that no part of tmpguard can be caught in its own patched layer.
"""

from __future__ import annotations

import _thread as _thread_module
import io as _io_module
import mmap as _mmap_module
import os
import pathlib as _pathlib
import pkgutil as _pkgutil
import socket as _socket_module
import sqlite3 as _sqlite3_module
import threading as _threading
from concurrent.futures import ThreadPoolExecutor as _ThreadPoolExecutor
from typing import Any

from . import runtime

try:
    import fcntl as _fcntl
except ImportError:  # the first module that Windows lacks
    runtime.check()
    raise

_os: Any = os  # some of these names exist on Linux only: typed code must not depend on the platform


def _get(name: str) -> Any:
    """The function ``os.<name>``, or None where this platform has none."""
    return getattr(_os, name, None)


open = _io_module.open
open_code = _io_module.open_code
FileIO = _io_module.FileIO
mmap = _mmap_module.mmap
fcntl_ioctl = _fcntl.ioctl
socket_bind = _socket_module.socket.bind
socket_connect = _socket_module.socket.connect
socket_connect_ex = _socket_module.socket.connect_ex
socket_sendto: Any = _socket_module.socket.sendto
socket_sendmsg: Any = _socket_module.socket.sendmsg
socket_accept: Any = _socket_module.socket._accept  # type: ignore[attr-defined]
socket_recvfrom: Any = _socket_module.socket.recvfrom
socket_recvfrom_into: Any = _socket_module.socket.recvfrom_into
socket_recvmsg: Any = _socket_module.socket.recvmsg
socket_recvmsg_into: Any = _socket_module.socket.recvmsg_into
socket_getsockname = _socket_module.socket.getsockname
socket_getpeername = _socket_module.socket.getpeername
pkgutil_get_data = _pkgutil.get_data
sqlite_connect = _sqlite3_module.connect
SqliteConnection = _sqlite3_module.Connection
SqliteError = _sqlite3_module.Error
thread_start = _threading.Thread.start
start_new_thread = _thread_module.start_new_thread
executor_submit = _ThreadPoolExecutor.submit

os_open = os.open
close = os.close
read = os.read
write = os.write
writev = _get("writev")
pwrite = _get("pwrite")
pwritev = _get("pwritev")
lseek = os.lseek
dup = os.dup
dup2 = os.dup2
fstat = os.fstat
stat = os.stat
lstat = os.lstat
access = os.access
statvfs = _get("statvfs")
fstatvfs = _get("fstatvfs")
pathconf = _get("pathconf")
readlink = os.readlink
listdir = os.listdir
scandir = os.scandir
walk = os.walk
getcwd = os.getcwd
ismount = os.path.ismount
path_is_mount = _pathlib.Path.is_mount
getcwdb = os.getcwdb
chdir = os.chdir
fchdir = _get("fchdir")

mkdir = os.mkdir
rmdir = os.rmdir
unlink = os.unlink
remove = os.remove
rename = os.rename
replace = os.replace
link = os.link
symlink = os.symlink
mkfifo = _get("mkfifo")
mknod = _get("mknod")
chmod = os.chmod
lchmod = _get("lchmod")
fchmod = _get("fchmod")
chown = _get("chown")
lchown = _get("lchown")
fchown = _get("fchown")
chflags = _get("chflags")
lchflags = _get("lchflags")
utime = os.utime
setxattr = _get("setxattr")
removexattr = _get("removexattr")
getxattr = _get("getxattr")
listxattr = _get("listxattr")

truncate = os.truncate
ftruncate = os.ftruncate
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
system = os.system
spawnvef = _get("_spawnvef")
execv = os.execv
execve = os.execve
waitpid = os.waitpid
wait = _get("wait")
wait3 = _get("wait3")
wait4 = _get("wait4")
waitid = _get("waitid")
