"""Machines that forbid namespaces: a clear refusal, or the storage that a container has itself."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.emulator.instances import running
from tests.support import MB, PROJECT
from tmpguard.emulator.refusals import start_failed

#: Enters a user namespace in which no further one may be made, with or without a container's storage.
CONFINE = """
import ctypes, os, sys
sys.path.insert(0, {project!r})
from tests.parity import mounting
libc = ctypes.CDLL(None, use_errno=True)
uid, gid = os.getuid(), os.getgid()
mounting._check(libc.unshare(0x10000000 | 0x20000), "unshare")
mounting._give("/proc/self/setgroups", "deny")
mounting._give("/proc/self/uid_map", f"{{uid}} {{uid}} 1")
mounting._give("/proc/self/gid_map", f"{{gid}} {{gid}} 1")
mounting._check(libc.mount(b"none", b"/", None, 1 << 18 | 0x4000, None), "private mounts")
mounting._give("/proc/sys/user/max_user_namespaces", "0")
if {storage}:
    mounting.make_read_only()
    mounting.mount_tmpfs("/tmp", {size}, {files})
mounting._check(libc.prctl(24, 21, 0, 0, 0), "giving up CAP_SYS_ADMIN")
os.execv(sys.executable, [sys.executable, "-c", {code!r}])
"""

RUN = """
import asyncio, json, sys
sys.path.insert(0, {project!r})
from tests.emulator.test_refused import {scenario} as scenario
print(json.dumps(asyncio.run(scenario(*{arguments!r}))))
"""


def confined(scenario: str, *arguments: str, storage: bool, files: int = 0) -> Any:
    """What the scenario of this module returns there."""
    code = RUN.format(project=str(PROJECT), scenario=scenario, arguments=arguments)
    confine = CONFINE.format(project=str(PROJECT), storage=storage, size=MB, files=files, code=code)
    done = subprocess.run([sys.executable, "-c", confine], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip(f"this machine does not permit it: {done.stderr}")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def project() -> Iterator[Path]:
    with TemporaryDirectory(prefix="run-", dir="/var/tmp") as directory:
        yield Path(directory)


async def refused(directory: str) -> Any:
    from tmpguard.emulator.instance import InstanceSettings, KernelInstance
    from tmpguard.emulator.protocols import StartFailed

    try:
        await KernelInstance(InstanceSettings(command=(sys.executable, "-c", ""), project=directory)).start()
    except StartFailed as exc:
        return [exc.step, exc.reason, exc.way_out]


def test_refusal_names_the_step_and_the_way_out(project: Path) -> None:
    step, reason, way_out = confined("refused", str(project), storage=False)
    assert step.startswith("unshare(CLONE_NEWUSER | ")
    assert reason == os.strerror(errno.ENOSPC)
    assert "user.max_user_namespaces" in way_out


async def contained(directory: str, means: str) -> Any:
    os.mkdir("/tmp/before")
    async with running(directory, means=(means,)) as started:
        write = await started.request(
            "import os; open('/tmp/x', 'wb').write(bytes(5000)); result = os.getcwd()"
        )
        refusal = await started.request("import os; result = os.listdir('/tmp'); open('out.txt', 'w')")
        child = await started.request("import subprocess; subprocess.Popen(['sleep', '1000'])")
        family = [started.instance.owns_storage, started.instance.observation[0]]
        full = await started.request("open('/tmp/x', 'wb').write(bytes(2_000_000))")
        second = await refused(directory)
    return [
        family,
        [write.result, write.span.peak_bytes, write.span.files],
        [refusal.result, refusal.findings],
        child.findings,
        [full.result, full.findings],
        os.listdir("/tmp"),
        sleeping(),
        second,
    ]


def sleeping() -> list[str]:
    """The processes of this user namespace that sleep a thousand seconds."""
    own, found = os.readlink("/proc/self/ns/mnt"), []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            command = Path(f"/proc/{name}/cmdline").read_bytes()
            if b"1000" in command.split(b"\0") and os.readlink(f"/proc/{name}/ns/mnt") == own:
                found.append(name)
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("files", "means"), [(0, "ptrace"), (1000, "notify")])
def test_storage_of_a_container_is_used(project: Path, files: int, means: str) -> None:
    """Docker's --read-only --tmpfs: observed and wiped, and what was there before stays."""
    family, write, refusal, child, full, left, processes, second = confined(
        "contained", str(project), means, storage=True, files=files
    )
    assert family == [False, means]
    assert write == [str(project), 8192, 1]
    assert refusal == [[errno.EROFS, "out.txt"], [["open", "out.txt", errno.EROFS]]]
    assert child == []
    assert full[1] == ([["write", "/tmp/x", errno.ENOSPC]] if means == "ptrace" else [])
    assert left == ["before"]
    assert processes == []
    assert second[0] == "flock('/tmp')"
    assert "--instances 1" in second[2]


#: Forbids a system call by a filter, as Docker does: pidfd_getfd(), or the listener for seccomp filters.
FORBID = """
import os, sys
sys.path.insert(0, {project!r})
from tmpguard.emulator.inside import filters
from tmpguard.emulator.inside.calls import SECCOMP
program = filters._start()
if {what!r} == "pidfd_getfd":
    program += [(filters._EQUAL, 0, 1, 438), (filters._RETURN, 0, 0, 0x50001)]
else:
    flags = filters._NEW_LISTENER
    program += [(filters._EQUAL, 0, 3, SECCOMP), (filters._LOAD, 0, 0, filters._ARGUMENTS + 8)]
    program += [(filters._ANY_BIT, 0, 1, flags), (filters._RETURN, 0, 0, 0x50001)]
filters.install(filters._assembled(program), listen=False)
os.execv(sys.executable, [sys.executable, "-c", {code!r}])
"""

BOUND = """
import http.server, socket, sys
class Server(http.server.ThreadingHTTPServer):
    address_family = getattr(socket, sys.argv[1])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        for path in ("out.txt", "/tmp/full"):
            try:
                with open(path, "wb", buffering=0) as file:
                    while file.write(bytes(100_000)): pass
            except OSError as exc: self.wfile.write(b"%d " % exc.errno)
    def log_message(self, *_): pass
Server((sys.argv[2], 0), Handler).serve_forever()
"""


async def ask(directory: str, family: str, host: str) -> Any:
    command = (sys.executable, "-c", BOUND, family, host)
    async with running(directory, command=command) as started:
        started.instance.begin()
        reader, writer = await asyncio.open_connection(*started.instance.address)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        found = [one.errno for one in started.instance.finish().violations]
        return [started.instance.address, answer.decode().rpartition("\r\n")[2], found]


@pytest.mark.parametrize("what", ["pidfd_getfd", "listener"])
@pytest.mark.parametrize(
    ("family", "host", "found"),
    [
        ("AF_INET", "127.0.0.3", "127.0.0.3"),
        ("AF_INET", "", "127.0.0.1"),
        ("AF_INET6", "::1", "::1"),
        ("AF_INET6", "::", "127.0.0.1"),
    ],
)
def test_the_port_is_looked_up_where_calls_cannot_be_answered(
    project: Path, what: str, family: str, host: str, found: str
) -> None:
    """In /proc/net/tcp: the server keeps the address that it asked for. Refusals are found as ever."""
    if family == "AF_INET6" and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this machine has no IPv6")
    code = RUN.format(project=str(PROJECT), scenario="ask", arguments=(str(project), family, host))
    forbid = FORBID.format(project=str(PROJECT), what=what, code=code)
    done = subprocess.run([sys.executable, "-c", forbid], capture_output=True, text=True, check=False)
    if "this machine permits no namespaces" in done.stderr:
        pytest.skip(done.stderr.strip().rpartition("\n")[2])
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    address, answer, errors = json.loads(done.stdout)
    assert address[0] == found
    assert address[1] > 0
    assert (answer, errors) == ("30 28 ", [errno.EROFS, errno.ENOSPC])


@pytest.mark.parametrize(
    ("step", "code", "says"),
    [
        ("mount_setattr('/')", errno.ENOSYS, "Linux 5.12"),
        ("mount(proc)", errno.EPERM, "systempaths=unconfined"),
        ("exec", errno.EACCES, "executable"),
        ("exec", errno.ENOEXEC, "#!"),
        ("move_mount('/tmp/package')", errno.EPERM, "root"),
    ],
)
def test_way_out(step: str, code: int, says: str) -> None:
    failure = start_failed(step, code, "")
    assert says in failure.way_out
    assert str(failure) == f"{step}: {os.strerror(code)}"
