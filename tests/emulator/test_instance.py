"""An instance: its storage, its life and what is found in it (C1, C2.3, C3, C4)."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.emulator.instances import SERVED, Running, in_instance, interpreter, run_as_user, running
from tests.support import MB, eventually
from tmpguard.emulator.instance import InstanceSettings, KernelInstance
from tmpguard.emulator.protocols import StartFailed

USER = """
from tests.emulator.instances import in_instance
from tests.emulator.test_instance import {} as given
def scenario(project): return in_instance(project, given)
"""


@pytest.fixture
def project() -> Iterator[Path]:
    """Outside /tmp, as usual, and readable for everybody."""
    with TemporaryDirectory(prefix="run-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        (Path(directory) / "data.txt").write_text("data")
        yield Path(directory)


@pytest.fixture(params=["as caller", "as user"])
def run(request: pytest.FixtureRequest, project: Path) -> Any:
    """Runs a scenario of this module, as who runs the tests and as a user without rights."""
    if request.param == "as caller":
        return lambda scenario: json.loads(json.dumps(in_instance(project, scenario)))
    return lambda scenario: run_as_user(USER.format(scenario.__name__), str(project))


# --- storage -------------------------------------------------------------------------------------------


async def look_around(started: Running) -> Any:
    answer = await started.request(
        "import os, shutil\n"
        "result = [os.getcwd(), os.listdir('/tmp'), os.listdir('.'), open('/tmp/package/data.txt').read(),"
        " shutil.disk_usage('/tmp').total, os.access('/', os.W_OK), os.access('data.txt', os.W_OK),"
        " len(os.listdir('/proc/self/task')) > 0, os.statvfs('/').f_flag & os.ST_RDONLY]"
    )
    return answer.result


def test_storage_is_a_small_tmp_and_the_rest_read_only(run: Any) -> None:
    """C1.1, C3.6, C5.1, C5.3."""
    found = run(look_around)
    assert found == ["/tmp/package", ["package"], ["data.txt"], "data", MB, False, False, True, os.ST_RDONLY]


async def refused_and_full(started: Running) -> Any:
    refused = await started.request("open('out.txt', 'w')")
    swallowed = await started.request("import os\ntry: os.mkdir('/srv/a')\nexcept OSError: pass")
    full = await started.request(
        "f = open('/tmp/x', 'wb', buffering=0)\nresult = [f.write(bytes(1_100_000))]\n"
        "try: f.write(b'x')\nexcept OSError as exc: result.append(exc.errno)"
    )
    freed = await started.request(
        "import os\nopen('/tmp/x', 'wb').write(bytes(500_000))\nos.remove('/tmp/x')"
    )
    child = await started.request(
        "import subprocess\nresult = subprocess.run('echo a > /srv/a', shell=True, stderr=-1).returncode"
    )
    return [
        [
            one.result,
            one.findings,
            one.span.peak_bytes,
            one.span.used_bytes,
            one.span.files,
            [violation.program for violation in one.span.violations],
            [violation.location and violation.location[1:] for violation in one.span.violations],
        ]
        for one in (refused, swallowed, full, freed, child)
    ]


def test_refusals_are_found_with_the_application_s_line(run: Any) -> None:
    """C2.1, C2.3, C3.4: the kernel's errno, whatever the application makes of it, in children, too."""
    name = os.path.basename(interpreter())
    line = [1, "<module>"]
    refused, swallowed, full, freed, child = run(refused_and_full)
    assert refused == [[errno.EROFS, "out.txt"], [["open", "out.txt", errno.EROFS]], 0, 0, 0, [name], [line]]
    assert swallowed[:2] == [None, [["mkdir", "/srv/a", errno.EROFS]]]
    assert swallowed[6] == [[2, "<module>"]]
    assert full[:2] == [[MB, errno.ENOSPC], [["write", "/tmp/x", errno.ENOSPC]]]
    assert full[2:5] == [MB, MB, 1]
    assert freed[:5] == [None, [], 503_808, 0, 0]  # the peak, in whole pages
    assert child[:2] == [2, [["open", "/srv/a", errno.EROFS]]]
    assert child[5:] == [["sh"], [None]]


def test_remedies_are_those_of_the_patched_layer(project: Path) -> None:
    """C2.4."""

    async def scenario(started: Running) -> Any:
        return [
            (await started.request(code)).span.violations[0].remedy
            for code in (
                "open('a/../out.txt', 'w')" if (project / "a").mkdir() else "",
                "open('/tmp/package/data.txt', 'a')",
                "import os; os.remove('data.txt')",
                "open('/tmp/x', 'wb', buffering=0).write(bytes(2_000_000)); open('/tmp/y', 'w').write('y')",
            )
            if code
        ]

    bundled, removed, full = in_instance(project, scenario)
    assert bundled == "/tmp/package is the read-only bundle; write to /tmp/data.txt"
    assert removed == "only /tmp is writable; leave data.txt as it is, or leave it out of the deployment"
    assert full.startswith("/tmp is full: all of its 1 MB (storage_size=1) are used")


ESCAPES = """
import ctypes, os, subprocess
libc = ctypes.CDLL(None, use_errno=True)
result = []
for target in (b"/", b"/tmp/package"):
    result.append(libc.mount(None, target, None, 32 | 4096, None))  # remount it writable
result.append(libc.umount2(b"/tmp", 2))
result.append(libc.umount2(b"/tmp/package", 2))
nested = "mount -o remount,rw,bind / && echo a > /srv/a"
result.append(subprocess.run(["unshare", "-Urm", "sh", "-c", nested], capture_output=True).returncode > 0)
try:
    os.kill(1, 9)  # has no effect on process 1 of the same PID namespace
except PermissionError:
    pass
result.append(os.path.exists("/srv/a"))
"""


async def escape(started: Running) -> Any:
    first = (await started.request(ESCAPES)).result
    return [*first, (await started.request("open('/srv/a', 'w')")).result]


def test_process_inside_cannot_undo_it(run: Any) -> None:
    """C1.1."""
    assert run(escape) == [-1, -1, -1, -1, True, False, [errno.EROFS, "/srv/a"]]


def test_writable_directories_are_passed_through(project: Path, tmp_path: Path) -> None:
    """C1.4: below /tmp and in the project, there by both of its paths."""
    inner = project / "volume"
    inner.mkdir()

    async def scenario(started: Running) -> Any:
        code = "open({!r}, 'w').write('x')"
        paths = [str(tmp_path / "a"), str(inner / "b"), "volume/c"]
        return [(await started.request(code.format(path))).result for path in paths]

    found = in_instance(project, scenario, writable=(str(tmp_path), str(inner)))
    assert found == [None, None, None]
    assert [(tmp_path / "a").read_text(), (inner / "b").read_text(), (inner / "c").read_text()] == ["x"] * 3


def test_project_and_program_below_tmp_stay_readable(tmp_path: Path) -> None:
    """C1.5: they are not wiped, and what is beside them is hidden."""
    place = tmp_path / "place"
    for name in ("project", "beside"):
        (place / name).mkdir(parents=True)
    (place / "project" / "served.py").write_text(SERVED.read_text())

    async def scenario(started: Running) -> Any:
        code = "import os\nresult = [os.listdir({!r}), os.listdir('.'), open('/tmp/x', 'w').write('x')]"
        first = await started.request(code.format(str(place)))
        second = await started.request(code.format(str(place)))
        return first.result, second.result, second.span.files

    command = (interpreter(), str(place / "project" / "served.py"), "3000")
    expected = [["project"], ["served.py"], 1]
    assert in_instance(place / "project", scenario, command=command) == (expected, expected, 1)


def test_files_are_limited(project: Path) -> None:
    """C3.6."""

    async def scenario(started: Running) -> Any:
        return await started.request(
            "result = 0\n"
            "try:\n"
            "    for number in range(100): open(f'/tmp/{number}', 'w').close(); result += 1\n"
            "except OSError: pass"
        )

    answer = in_instance(project, scenario, max_files=10)
    assert (answer.result, answer.span.files) == (10, 10)
    assert answer.findings == [("open", "/tmp/10", errno.ENOSPC)]
    assert "limit of 10 files" in answer.span.violations[0].remedy


@pytest.mark.parametrize("shared_memory", [True, False])
def test_shared_memory_is_writable_where_the_platform_has_it(project: Path, shared_memory: bool) -> None:
    """C1.6."""

    async def scenario(started: Running) -> Any:
        answer = await started.request(
            "open('/dev/shm/x', 'w').write('x'); open('/dev/null', 'w').write('x')"
        )
        return answer.result, answer.findings

    found = in_instance(project, scenario, shared_memory=shared_memory)
    refused = [errno.EROFS, "/dev/shm/x"], [("open", "/dev/shm/x", errno.EROFS)]
    assert found == ((None, []) if shared_memory else refused)
    assert not os.path.exists("/dev/shm/x")


def test_storage_is_enforced_without_an_observer(project: Path) -> None:
    async def scenario(started: Running) -> Any:
        answer = await started.request("open('out.txt', 'w')")
        full = await started.request("open('/tmp/x', 'wb').write(bytes(500_000))")
        return answer.result, answer.findings, full.span.peak_bytes, started.instance.observation

    found = in_instance(project, scenario, observer=False)
    assert found == ([errno.EROFS, "out.txt"], [], 503_808, ("", "the observer is switched off"))


def test_mapping_that_does_not_fit_is_found(project: Path) -> None:
    """C3.4: the kernel ends such a process by SIGBUS."""
    code = "import mmap; f = open('/tmp/x', 'w+b'); f.truncate(3_000_000)\n"
    code += "mmap.mmap(f.fileno(), 0)[:] = bytes(3_000_000)"

    async def scenario(started: Running) -> Any:
        command = (
            f"import subprocess, sys; result = subprocess.run([sys.executable, '-c', {code!r}]).returncode"
        )
        answer = await started.request(command)
        return answer.result, answer.findings, answer.span.peak_bytes

    assert in_instance(project, scenario) == (-signal.SIGBUS, [("mmap", "/tmp/x", errno.ENOSPC)], MB)


# --- life ----------------------------------------------------------------------------------------------

MESS = """
import os
os.makedirs("/tmp/a/b/c")
for name in ("x", "a/b/y"): open(f"/tmp/{name}", "w").write("x")
os.symlink("/etc", "/tmp/link")
os.chmod("/tmp/a/b", 0)
os.chmod("/tmp/a", 0)
os.chmod("/tmp", 0o500)
"""


async def wipes(started: Running) -> Any:
    await started.request(MESS)
    answer = await started.request("import os; result = [os.listdir('/tmp'), os.stat('/tmp').st_mode]")
    return answer.result


def test_tmp_is_empty_for_each_request(run: Any) -> None:
    """C4.1, C4.2."""
    assert run(wipes) == [["package"], 0o41777]


def test_lifetime_instance_keeps_the_files(project: Path) -> None:
    async def scenario(started: Running) -> Any:
        await started.request("open('/tmp/x', 'w').write('x')")
        return (await started.request("result = open('/tmp/x').read()")).result

    assert in_instance(project, scenario, lifetime="instance") == "x"


def test_late_writes_are_found_and_wiped(project: Path) -> None:
    """C4.5."""

    async def scenario(started: Running) -> Any:
        await started.request(
            "import threading\nresult = threading.Timer(0.2, lambda: open('/tmp/late', 'w').close()).start()"
        )
        while not started.instance.paths():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # what was found arrives a moment after the file is there
        answer = await started.request("import os; result = os.listdir('/tmp')")
        return [
            (one.path, one.errno, one.location and one.location[1:]) for one in started.late
        ], answer.result

    late, listed = in_instance(project, scenario)
    assert (late, listed) == ([("/tmp/late", errno.ESTALE, (2, "<lambda>"))], ["package"])


def test_removed_files_that_are_open_are_told(run: Any) -> None:
    """C3.2, C4.5: once, as late writes with what they cost the next request; the count of files is right."""
    late, spans = run(hold)
    [[operation, path, code, program, remedy]] = late[0]
    assert (operation, path, code) == ("keep open", "/tmp/held", errno.ESTALE)
    assert program == os.path.basename(interpreter())[:15]
    assert remedy.startswith("close it before the response: until it is closed, it takes 100 KB of the next")
    assert late[1:] == [[], []]
    assert spans == [[102_400, 1], [106_496, 1], [4096, 1], [8192, 2]]


async def hold(started: Running) -> Any:
    late, spans = [], []
    for code in (
        "import builtins; builtins.kept = open('/tmp/held', 'wb', 0); builtins.kept.write(bytes(102_400))",
        "open('/tmp/x', 'w').write('x')",
        "import builtins; builtins.kept.close(); open('/tmp/x', 'w').write('x')",
        "open('/tmp/x', 'w').write('x'); open('/tmp/y', 'w').write('y')",
    ):
        answer = await started.request(code)
        spans.append([answer.span.used_bytes, answer.span.files])
        late.append([[*one[:3], one.program, one.remedy] for one in started.late])
    return late[1:], spans


def test_what_is_told_late_is_no_finding_of_the_request(project: Path) -> None:
    """C4.5: the observer may need a moment until it says that a file was opened after the response."""
    late = ("open", "/tmp/late", errno.ESTALE)

    async def scenario(started: Running) -> Any:
        def told(path: bytes) -> None:
            message = ("finding", "open", errno.ESTALE, [path], 1, "python", "/", [])
            started.instance._on_message(message, -1)

        started.instance.begin()
        told(b"/tmp/late")
        await started.send("open('out.txt', 'w')")
        span = started.instance.finish()
        first = [one[:3] for one in span.violations], [one[:3] for one in span.late_writes]
        await started.send("open('/tmp/late', 'w').write('x')")
        told(b"/tmp/late")
        begun = [one[:3] for one in started.instance.begin()]
        told(b"/tmp/late")  # it has been returned
        return first, begun, started.instance.finish().late_writes

    first, begun, again = in_instance(project, scenario)
    assert first == ([("open", "out.txt", errno.EROFS)], [late])
    assert begun == [late]
    assert again == ()


def test_freeze_stops_the_instance_between_requests(project: Path) -> None:
    """Background work goes on in the next invocation, as on AWS Lambda."""

    async def scenario(started: Running) -> Any:
        await started.request(
            "import threading, time\n"
            "def work():\n"
            "    time.sleep(0.2)\n"
            "    open('/tmp/late', 'w').close()\n"
            "result = threading.Thread(target=work).start()"
        )
        await asyncio.sleep(1)
        look = "import os, time\nwhile not os.path.exists('/tmp/late'): time.sleep(0.01)"
        answer = await started.request(look)
        return started.late, answer.span.files

    assert in_instance(project, scenario, freeze=True) == ((), 1)


def test_crash_completes_ended(project: Path) -> None:
    async def main() -> Any:
        async with running(project) as started:
            started.instance.begin()
            with pytest.raises((ValueError, ConnectionError)):
                await started.send("import os; os._exit(3)")
            return await asyncio.wait_for(started.instance.ended, 30)

    assert asyncio.run(main()) == 3


def processes_of(address: str) -> list[int]:
    """The processes of this machine whose command line has this marker."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/cmdline", "rb") as file:
                if address.encode() in file.read().split(b"\0"):
                    found.append(int(name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("victim", ["launcher", "janitor", "application"])
def test_killing_one_process_ends_all(project: Path, victim: str) -> None:
    """No process is left, and with the last one the mounts are gone."""
    marker = f"marker-{os.getpid()}-{victim}"

    async def main() -> list[int]:
        command = (interpreter(), str(SERVED), "3000", marker)
        async with running(project, command=command) as started:
            await started.request("import subprocess; subprocess.Popen(['sleep', '1000'])")
            (application,) = processes_of(marker)
            janitor = int(Path(f"/proc/{application}/stat").read_text().rpartition(") ")[2].split()[1])
            launcher = int(Path(f"/proc/{janitor}/stat").read_text().rpartition(") ")[2].split()[1])
            os.kill(
                {"launcher": launcher, "janitor": janitor, "application": application}[victim], signal.SIGKILL
            )
            assert await asyncio.wait_for(started.instance.ended, 30) == -signal.SIGKILL
            return [launcher, janitor, application]

    gone = asyncio.run(main())
    assert eventually(lambda: not any(os.path.exists(f"/proc/{process}") for process in gone))
    assert processes_of(marker) == []


def test_killing_the_supervisor_ends_all(project: Path) -> None:
    marker = f"marker-{os.getpid()}-supervisor"
    code = f"""
import asyncio
from tests.emulator.instances import running, SERVED
async def main():
    async with running({str(project)!r}, command=({interpreter()!r}, {str(SERVED)!r}, "3000", {marker!r})):
        print("started", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""

    async def main() -> None:
        from tests.support import python

        supervisor = await asyncio.create_subprocess_exec(*python(code), stdout=asyncio.subprocess.PIPE)
        assert supervisor.stdout is not None
        line = await supervisor.stdout.readline()
        alive = processes_of(marker)
        supervisor.kill()
        await supervisor.wait()
        if line != b"started\n":
            pytest.skip("this machine permits no namespaces")
        assert alive

    asyncio.run(main())
    assert eventually(lambda: not processes_of(marker))


# --- a start that fails --------------------------------------------------------------------------------


def failure(project: Path, *command: str, **options: Any) -> StartFailed:
    async def main() -> StartFailed:
        instance = KernelInstance(InstanceSettings(project=str(project), command=command, **options))
        with pytest.raises(StartFailed) as caught:
            await instance.start()
        return caught.value

    found = asyncio.run(main())
    if found.step.startswith("unshare"):
        pytest.skip(f"this machine permits no namespaces: {found}")
    return found


def test_command_that_is_not_found(project: Path) -> None:
    found = failure(project, "no-such-server")
    assert str(found) == "exec: no-such-server: No such file or directory"
    assert found.way_out


def test_program_that_cannot_be_executed(project: Path) -> None:
    program = project / "program"
    program.write_text("#!/no/such/interpreter\n")
    program.chmod(0o755)
    found = failure(project, str(program))
    assert str(found) == f"exec: No such file or directory: {program}"
    assert "first line" in found.way_out


def test_command_that_ends_at_once_is_quoted(project: Path) -> None:
    found = failure(project, interpreter(), "-c", "import sys; print('what it said'); sys.exit(3)")
    assert str(found) == "listen: the command ended with exit status 3 before it listened on a TCP port"
    assert found.output == "what it said"


def test_server_that_never_listens(project: Path) -> None:
    found = failure(project, interpreter(), "-c", "import time; time.sleep(600)", start_timeout=1)
    assert str(found) == "listen: the command did not listen on a TCP port within 1 s"
    assert "--start-timeout" in found.way_out


@pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")
def test_two_instances_have_the_same_port(project: Path) -> None:
    async def main() -> None:
        async with running(project) as first, running(project, number=1) as second:
            assert first.instance.address[1] == second.instance.address[1] == 3000
            assert first.instance.address[0] != second.instance.address[0]
            await first.send("open('/tmp/first', 'w').close()")
            assert await second.send("import os; result = os.listdir('/tmp')") == ["package"]

    asyncio.run(main())


# --- ports ---------------------------------------------------------------------------------------------

LISTEN = """
import socket, sys
family, host, only, port = sys.argv[1:]
listening = socket.socket(getattr(socket, family))
if family == "AF_INET6":
    listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(only))
listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listening.bind((host, int(port)))
listening.listen()
while True:
    listening.accept()[0].close()
"""


@pytest.mark.parametrize(
    ("bound", "found"),
    [
        (("AF_INET", "127.0.0.1", "0", "3001"), ("own", 3001)),
        (("AF_INET", "", "0", "3001"), ("own", 3001)),
        (("AF_INET6", "::", "0", "3001"), ("own", 3001)),
        (("AF_INET6", "::1", "1", "3001"), ("::1", 3001)),
        (("AF_INET", "", "0", "0"), ("127.0.0.1", None)),
        (("AF_INET6", "::", "1", "0"), ("::1", None)),
    ],
)
def test_address_of_a_server(project: Path, bound: tuple[str, ...], found: tuple[str, int | None]) -> None:
    """Wherever it listens, the instance knows by which address it is reached."""

    async def main() -> tuple[str, int]:
        async with running(project, command=(interpreter(), "-c", LISTEN, *bound)) as started:
            _, writer = await asyncio.open_connection(*started.instance.address)
            writer.close()
            await writer.wait_closed()
            return started.instance.address

    if "AF_INET6" in bound and not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("this machine has no IPv6")
    host, port = asyncio.run(main())
    assert host.startswith("127.") if found[0] == "own" else host == found[0]
    assert host != "127.0.0.1" or found[0] != "own"
    assert port == found[1] or (found[1] is None and port > 0)


# --- exactness -----------------------------------------------------------------------------------------

PEAKS = """
import os, random, signal, tempfile
def used():
    status = os.statvfs("/tmp")
    return (status.f_blocks - status.f_bfree) * status.f_frsize
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)  # without SA_RESTART
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
chosen, held, highest = random.Random({seed}), [], 0
for number in range(150):
    name = f"/tmp/{{chosen.randrange(5)}}"
    do = chosen.randrange(6)
    try:
        if do == 0: open(name, "ab").write(bytes(chosen.randrange(100_000)))
        elif do == 1: open(name, "wb").write(bytes(chosen.randrange(50_000)))
        elif do == 2: os.truncate(name, chosen.randrange(30_000))
        elif do == 3: os.replace(name, f"/tmp/{{chosen.randrange(5)}}")
        elif do == 4: os.unlink(name)
        elif held and chosen.randrange(2): held.pop().close()
        else:
            file = tempfile.TemporaryFile()
            file.write(bytes(chosen.randrange(60_000)))
            file.flush()
            held.append(file)
    except FileNotFoundError: pass
    except OSError as exc:
        if exc.errno != 28: raise
    highest = max(highest, used())
signal.setitimer(signal.ITIMER_REAL, 0)
for file in held: file.close()
result = highest
"""


def test_peak_is_exact(project: Path) -> None:
    """Whatever makes the use fall. With a signal each millisecond, being watched interrupts no call."""

    async def main() -> None:
        program = project / "peaks.py"
        async with running(project, storage_size=2) as started:
            for seed in range(4):
                program.write_text(PEAKS.format(seed=seed) + "\nprint(result)")
                started.instance.begin()
                code = (
                    f"import subprocess, sys; result = int(subprocess.run([sys.executable, {str(program)!r}],"
                )
                highest = await started.send(f"{code} capture_output=True, check=True).stdout)")
                assert started.instance.finish().peak_bytes == highest, seed

    asyncio.run(main())


def test_lines_of_native_code_and_of_threads(project: Path) -> None:
    """C2.3: the application's line, though the call is made below Python, and swallowed."""
    pytest.importorskip("sqlite3")

    async def scenario(started: Running) -> Any:
        native = await started.request(
            "import sqlite3\n\ntry: sqlite3.connect('/srv/a.db').execute('create table t (x)')\n"
            "except sqlite3.OperationalError: pass"
        )
        thread = await started.request(
            "import threading\ndef work():\n    try: open('out.txt', 'w')\n    except OSError: pass\n"
            "one = threading.Thread(target=work)\none.start()\none.join()"
        )
        return [
            [tuple(violation.location or ())[1:] for violation in one.span.violations]
            for one in (native, thread)
        ]

    native, thread = in_instance(project, scenario)
    assert native
    assert set(native) == {(3, "<module>")}
    assert thread == [(3, "work")]
