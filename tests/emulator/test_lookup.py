"""Without ptrace, another process makes a call again: it has to find what the caller finds (C2.3).

A path may lead through links to ``/proc/self``, which is the process that looks. What the call itself returns
says what has to be found.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.emulator.instances import Running, in_instance, run_as_user
from tmpguard.emulator.inside.lookup import look_up

#: The files that all cases start from. The application has descriptors that the other process has not:
#: 300 for the project, 301 for /tmp, 302 for a file of the project, 303 for one of /tmp.
MAKE = """
import ctypes, os, socket, threading
project = os.getcwd()
libc = ctypes.CDLL(None, use_errno=True)

def have(number, path):
    descriptor = os.open(path, os.O_RDONLY)
    os.dup2(descriptor, number)
    os.close(descriptor)

def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))

FCHMODAT = ctypes.c_long({"x86_64": 268, "aarch64": 53}[os.uname().machine])
os.mkdir("/tmp/dir")
open("/tmp/file", "w").close()
for number, path in ((300, project), (301, "/tmp"), (302, "data.txt"), (303, "/tmp/file")):
    have(number, path)
links = {
    "out": "/proc/self/fd/300", "in": "/proc/self/fd/301", "out-file": "/proc/self/fd/302",
    "in-file": "/proc/self/fd/303", "chain": "other", "other": "../tmp/./out",
    "relative": "../proc/self/fd/300",
    "thread": "/proc/thread-self/fd/300", "self": "/proc/self", "above": "/proc/self/fd/301/../tmp/out",
    "dangling": "/proc/self/fd/300/missing", "slash": "/proc/self/fd/300/missing/",
    "gone": "/proc/self/fd/399",
    "cwd": "/proc/self/cwd", "root": "/proc/self/root", "task": "/proc/self/task", "loop": "loop",
    "0": "/proc/self/fd/300", "dev": "/dev/fd/300", "mounts": "/proc/mounts", "plain": project,
}
for name, target in links.items():
    os.symlink(target, "/tmp/" + name)
for number in range(1, 45):
    os.symlink(str(number - 1), f"/tmp/{number}")
"""

CLEAN = """
for number in (300, 301, 302, 303):
    os.close(number)
os.chdir(project)
"""

#: Calls that another process could judge wrongly, and their errors. None: it depends on the
#: user and the machine.
CASES: dict[str, int | None] = {
    # through links in the middle
    "open('/proc/self/fd/300/new', 'w')": errno.EROFS,
    "open('/tmp/out/new', 'w')": errno.EROFS,
    "open('/tmp/in/new', 'w')": 0,
    "open('/tmp/chain/new', 'w')": errno.EROFS,
    "open('/tmp/relative/new', 'w')": errno.EROFS,
    "open('/tmp/thread/new', 'w')": errno.EROFS,
    "open('/tmp/above/new', 'w')": errno.EROFS,
    "open('/dev/fd/300/new', 'w')": errno.EROFS,
    "open('/tmp/dev/new', 'w')": errno.EROFS,
    "open('/tmp/gone/new', 'w')": errno.ENOENT,
    "open('/tmp/loop/new', 'w')": errno.ELOOP,
    "open('/tmp/self/fd/300/new', 'w')": errno.EROFS,
    "open('/tmp/self/../self/fd/300/new', 'w')": errno.EROFS,
    "open('/tmp/self/cwd/new', 'w')": errno.EROFS,
    "open('/tmp/root/tmp/new', 'w')": 0,
    "open('/tmp/root/tmp/out/new', 'w')": errno.EROFS,
    "open(f'/tmp/task/{threading.get_native_id()}/fd/300/new', 'w')": errno.EROFS,
    "open('/tmp/in/in/in/out/new', 'w')": errno.EROFS,
    "open('/tmp/out/../data.txt/new', 'w')": errno.ENOENT,
    "open('/tmp/out-file/new', 'w')": errno.ENOTDIR,
    "open('/tmp/out/./' + 1000 * './' + 'new', 'w')": errno.EROFS,
    "open('/tmp/out/' + 2050 * './' + 'new', 'w')": errno.ENAMETOOLONG,
    "open('/tmp/out/' + 256 * 'n', 'w')": errno.ENAMETOOLONG,
    "os.unlink('/tmp/out/' + 256 * 'n')": errno.EROFS,
    # where the application is, and the other process is not
    "os.chdir('/tmp'); open('cwd/new', 'w')": 0,
    "os.chdir('/tmp'); open('/tmp/cwd/new', 'w')": 0,
    "os.chdir('/tmp'); open('out/new', 'w')": errno.EROFS,
    "os.chdir('/tmp/dir'); open('../out/new', 'w')": errno.EROFS,
    "os.chdir('/tmp/dir'); os.rmdir('/tmp/dir'); open('/tmp/cwd/new', 'w')": errno.ENOENT,
    "os.chdir('/tmp/dir'); os.rmdir('/tmp/dir'); open('../out/new', 'w')": errno.EROFS,
    "os.mkdir('out/new', dir_fd=301)": errno.EROFS,
    "os.mkdir('in/new', dir_fd=301)": 0,
    "os.mkdir('/tmp/out/new', dir_fd=301)": errno.EROFS,
    "os.mkdir('new', dir_fd=300)": errno.EROFS,
    "os.mkdir('new', dir_fd=302)": errno.ENOTDIR,
    "os.mkdir('new', dir_fd=399)": errno.EBADF,
    # the last component
    "open('/tmp/out-file', 'r+')": errno.EROFS,
    "open('/tmp/in-file', 'r+')": 0,
    "open('/tmp/out-file/', 'r+')": errno.ENOTDIR,
    "open('/tmp/dangling', 'w')": errno.EROFS,
    "open('/tmp/dangling/', 'w')": errno.EISDIR,
    "open('/tmp/slash', 'w')": errno.EISDIR,
    "os.chmod('/tmp/dangling', 0o600)": errno.ENOENT,
    "open('/tmp/gone', 'w')": errno.ENOENT,
    "os.open('/tmp/out-file', os.O_WRONLY | os.O_NOFOLLOW)": errno.ELOOP,
    "os.open('/tmp/out/data.txt', os.O_WRONLY | os.O_NOFOLLOW)": errno.EROFS,
    "os.open('/tmp/dangling', os.O_WRONLY | os.O_CREAT | os.O_EXCL)": errno.EEXIST,
    "os.close(os.open('/tmp/out-file', os.O_WRONLY | os.O_PATH))": 0,
    "os.open('/tmp/out', os.O_WRONLY | os.O_TMPFILE)": errno.EROFS,
    "os.close(os.open('/tmp/in', os.O_WRONLY | os.O_TMPFILE))": 0,
    "os.mkdir('/tmp/mounts/new')": errno.ENOTDIR,
    "os.mkdir('/tmp/mounts')": errno.EEXIST,
    "os.mkdir('/proc/net/new')": errno.ENOENT,
    "os.mkdir('/tmp/out')": errno.EEXIST,
    "os.mkdir('/tmp/out/')": errno.EEXIST,
    "os.mkdir('/tmp/out/new/')": errno.EROFS,
    "os.mkdir('/tmp/out/..')": errno.EEXIST,
    "os.mkdir('/')": errno.EEXIST,
    "os.chmod('/', 0o700)": errno.EROFS,
    "os.rmdir('/tmp/out/.')": errno.EINVAL,
    "os.rmdir('/tmp/out/')": errno.ENOTDIR,
    "os.unlink('/tmp/out/data.txt')": errno.EROFS,
    "os.unlink('/tmp/out')": 0,
    "os.chmod('/tmp/out', 0o700)": errno.EROFS,
    "os.chmod('/tmp/in-file', 0o600)": 0,
    "os.chown('/tmp/out-file', -1, -1)": errno.EROFS,
    "os.lchown('/tmp/out-file', -1, -1)": 0,
    "os.chown('/tmp/out-file', -1, -1, follow_symlinks=False)": 0,
    "os.chown('/tmp/out/data.txt', -1, -1, follow_symlinks=False)": errno.EROFS,
    "os.utime('/tmp/out-file')": errno.EROFS,
    "os.utime('/tmp/out-file', follow_symlinks=False)": 0,
    "os.truncate('/tmp/out-file', 0)": errno.EROFS,
    "os.truncate('/tmp/in-file', 0)": 0,
    "os.lchown('/tmp/out-file', 65534, -1); os.chmod('/tmp/out-file', 0o600)": None,
    "os.setxattr('/tmp/out-file', 'user.a', b'')": errno.EROFS,
    "os.removexattr('/tmp/out-file', 'user.a')": errno.EROFS,
    "os.mkfifo('/tmp/out/new')": errno.EROFS,
    # two paths
    "os.rename('/tmp/out/data.txt', '/tmp/out/new')": errno.EROFS,
    "os.rename('/tmp/out/data.txt', '/tmp/new')": errno.EXDEV,
    "os.rename('/tmp/in/file', '/tmp/out/new')": errno.EXDEV,
    "os.rename('/tmp/in/file', '/tmp/in/new')": 0,
    "os.link('/tmp/out/data.txt', '/tmp/out/new')": errno.EROFS,
    "os.link('/tmp/in/file', '/tmp/out/new')": errno.EROFS,
    "os.link('/tmp/missing', '/tmp/out/new')": errno.ENOENT,
    # os.link() follows a symlink since Python 3.15
    "call('linkat', -100, b'/tmp/gone', -100, b'/tmp/out/new', 0)": errno.EROFS,
    "os.link('/tmp/in/file', '/tmp/out/data.txt')": errno.EEXIST,
    "call('linkat', -100, b'/tmp/gone', -100, b'/tmp/out/new', 0x400)": errno.ENOENT,
    "call('linkat', -100, b'/tmp/in-file', -100, b'/tmp/out/new', 0x400)": errno.EROFS,
    "os.symlink('/proc/self', '/tmp/out/new')": errno.EROFS,
    # what is no argument of fchmodat(), and would be AT_SYMLINK_NOFOLLOW
    "call('syscall', FCHMODAT, 301, b'/proc/self/fd/302', 0o666, ctypes.c_long(0x100))": errno.EROFS,
    # no path at all (AT_EMPTY_PATH)
    "call('fchownat', 302, b'', -1, -1, 0x1000)": errno.EROFS,
    "call('fchownat', 303, b'', -1, -1, 0x1000)": 0,
    "os.chdir('/tmp'); call('fchownat', -100, b'', -1, -1, 0x1000)": 0,
    "call('fchownat', 302, b'', -1, -1, 0)": errno.ENOENT,
    # forty links: from 38 it is 38 to /tmp/0, /proc/self and the one of the descriptor
    "open('/tmp/37/new', 'w')": errno.EROFS,
    "open('/tmp/38/new', 'w')": errno.ELOOP,
    "os.chdir('/tmp'); open('37/new', 'w')": errno.EROFS,
    "os.chdir('/tmp'); open('38/new', 'w')": errno.ELOOP,
    # openat2(), told how to go
    "openat2(300, b'new', 0)": errno.EROFS,
    "openat2(300, b'new', 8)": errno.EROFS,
    "openat2(301, b'out/new', 0)": errno.EROFS,
    "openat2(301, b'plain/new', 4)": errno.ELOOP,
    "openat2(301, b'plain/new', 8)": errno.EXDEV,
    "openat2(301, b'plain/new', 2)": errno.EROFS,
    "openat2(300, b'../new', 8)": errno.EXDEV,
    # sockets
    "socket.socket(socket.AF_UNIX).bind('/tmp/out/socket')": errno.EROFS,
    "socket.socket(socket.AF_UNIX).bind('/tmp/in/socket')": 0,
    "socket.socket(socket.AF_UNIX).bind('/proc/self/fd/300/socket')": errno.EROFS,
    "socket.socket(socket.AF_UNIX).bind('/tmp/out/data.txt')": errno.EADDRINUSE,
}

OPENAT2 = """
def openat2(directory, path, resolve):
    how = (ctypes.c_uint64 * 3)(os.O_WRONLY | os.O_CREAT, 0o600, resolve)
    call("syscall", ctypes.c_long(437), directory, path, how, ctypes.c_long(24))
"""

RUN = """
{make}
{openat2}
result = 0
def body():
    global result
    try:
        {case}
    except OSError as exc:
        result = exc.errno
try:
    {run}
finally:
    {clean}
"""


def _code_of(case: str, run: str) -> str:
    clean = "\n    ".join(CLEAN.strip().splitlines())
    return RUN.format(make=MAKE, openat2=OPENAT2, case=case, run=run, clean=clean)


async def compare(started: Running) -> list[Any]:
    """The cases whose findings are not what the application got, or whose error is not as it is here."""
    different = []
    for run in ("body()", "one = threading.Thread(target=body); one.start(); one.join()"):
        for case, expected in CASES.items():
            answer = await started.request(_code_of(case, run))
            found = [violation.errno for violation in answer.span.violations]
            is_refused = answer.result == errno.EROFS
            if expected not in (answer.result, None) or found != [errno.EROFS] * is_refused:
                different.append([case, expected, answer.result, found])
    return different


@pytest.fixture
def project() -> Iterator[Path]:
    with TemporaryDirectory(prefix="run-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o777)
        data = Path(directory) / "data.txt"
        data.write_text("data")
        data.chmod(0o666)
        yield Path(directory)


@pytest.mark.parametrize("means", ["ptrace", "notify"])
def test_a_path_leads_where_it_leads_the_caller(project: Path, means: str) -> None:
    assert in_instance(project, compare, means=(means,)) == []


AS_USER = """
from tests.emulator.instances import in_instance
from tests.emulator import test_lookup
def scenario(project): return in_instance(project, test_lookup.compare, means=("notify",))
"""


def test_a_path_leads_where_it_leads_the_caller_without_rights(project: Path) -> None:
    assert run_as_user(AS_USER, str(project)) == []


def test_a_place_stays_the_same_when_a_link_is_exchanged(project: Path) -> None:
    """So that no call is made elsewhere than where it was found to do no harm."""
    (project / "other").mkdir()
    link = project / "link"
    link.symlink_to(project)
    path = os.fsencode(link / "new")
    with look_up(threading.get_native_id(), b"/", path, only_parent=True) as place:
        link.unlink()
        link.symlink_to("other")
        os.mkdir(place.whole_path())
    assert (project / "new").is_dir()
    assert os.listdir(project / "other") == []


DESCRIPTORS = "import os; result = len(os.listdir('/proc/1/fd'))"


async def descriptors(started: Running) -> Any:
    before = await started.request(DESCRIPTORS)
    await compare(started)
    return [before.result, (await started.request(DESCRIPTORS)).result]


def test_no_descriptor_stays_open(project: Path) -> None:
    before, after = in_instance(project, descriptors, means=("notify",))
    assert before == after
