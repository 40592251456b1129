"""What programs are started with, and what comes of it: the same cases for plain children and contained ones.

Each case is a function of an empty directory for its files and returns what is to be compared. It knows
nothing of tmpguard.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

CASES: dict[str, Callable[[str], Any]] = {}


def case(function: Callable[[str], Any]) -> Callable[[str], Any]:
    CASES[function.__name__] = function
    return function


def result_of(name: str, here: str) -> str:
    """What the case gives in the directory ``here``, whose name is left out."""
    return ascii(CASES[name](here)).replace(here, "HERE")


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the class, number, text and file names of its error."""
    try:
        return call()
    except OSError as exc:
        return type(exc).__name__, exc.errno, exc.strerror, exc.filename, exc.filename2
    except (ValueError, TypeError, OverflowError, subprocess.SubprocessError) as exc:
        return type(exc).__name__, str(exc)


def run(*args: Any, **options: Any) -> Any:
    done = subprocess.run(*args, capture_output=True, check=False, **options)
    return done.returncode, done.stdout, done.stderr, repr(done.args)


def script(here: str, name: str, text: str, mode: int = 0o755) -> str:
    path = f"{here}/{name}"
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, mode)
    return path


@case
def programs_that_cannot_be_executed(here: str) -> Any:
    os.mkdir(f"{here}/directory")
    os.mkdir(f"{here}/empty")
    paths: list[Any] = [
        "no-such-program",
        "/no/such/program",
        f"{here}/no-such-program",
        "./no-such-program",
        "/etc/passwd",
        "/etc/passwd/program",
        "/etc",
        f"{here}/directory",
        script(here, "plain", "#!/bin/sh\n", 0o644),
        script(here, "no-interpreter", "#!/no/such/interpreter\n"),
        script(here, "no-format", "echo this is no program\n"),
        script(here, "nothing", ""),
        "",
        "x" * 300,
        "with\0nul",
        b"no-such-program",
    ]
    found = [outcome(lambda path=path: run([path])) for path in paths]  # type: ignore[misc]
    found.append(outcome(lambda: run(["program"], env={"PATH": f"{here}/empty:{here}/directory"})))
    found.append(outcome(lambda: run(["plain"], env={"PATH": f"{here}:/bin"})))
    found.append(outcome(lambda: run(["sh"], executable="/no/such/shell")))
    found.append(outcome(lambda: run(["true", "x" * 3_000_000])))
    with open(f"{here}/busy", "w") as file:
        file.write("#!/bin/sh\n")
        file.flush()
        os.chmod(f"{here}/busy", 0o755)
        found.append(outcome(lambda: run([f"{here}/busy"])))
    return found


@case
def directories_to_start_in(here: str) -> Any:
    os.mkdir(f"{here}/locked")
    os.symlink("locked", f"{here}/link")
    directories: list[Any] = [
        here,
        f"{here}/link",
        f"{here}/link/..",
        "/",
        "/usr/lib",
        b"/usr",
        "/nowhere",
        "/etc/passwd",
        "",
    ]
    return [
        outcome(lambda directory=directory: run(["/bin/pwd"], cwd=directory))  # type: ignore[misc]
        for directory in directories
    ]


@case
def programs_of_one_s_own(here: str) -> Any:
    text = '#!/bin/sh\necho "$0 $@" "$(pwd)"\n'
    path = script(here, "own", text)
    os.mkdir(f"{here}/directory")
    python = script(here, "python", f"#!{sys.executable} -IS\nimport sys; print(sys.argv)\n")
    return [
        outcome(lambda: run([path, "a b", "c"])),
        outcome(lambda: run(["./own"], cwd=here)),
        outcome(lambda: run(["../own"], cwd=f"{here}/directory")),
        outcome(lambda: run(["own"], env={"PATH": f"/nowhere:{here}:/usr/bin:/bin"})),
        outcome(lambda: run(["own"], env={"PATH": "/usr/bin:/bin:"}, cwd=here)),
        outcome(lambda: run(["invented", "-c", "echo $0"], executable="/bin/sh")),
        outcome(lambda: run([python, "-x"])),
    ]


@case
def shells(here: str) -> Any:
    script = "echo out; echo err >&2; exit 3"
    found = [
        run(script, shell=True),
        run("echo $0", shell=True),
        run(["echo $0 $1", "name", "argument"], shell=True),
        run("no-such-program-at-all", shell=True),
        subprocess.getstatusoutput("echo text; exit 4"),
        os.system("exit 5"),
        os.system(f"echo 'a  \"b\"' $0 > {here}/system; kill -9 $$"),
    ]
    with open(f"{here}/system") as file:
        found.append(file.read())
    with os.popen("cat; exit 6", "w") as pipe:
        pipe.write("")
    with os.popen(f"cat {here}/system") as pipe:
        found.append(pipe.read())
    if os.path.exists("/bin/bash"):
        found.append(run("echo $0 ${BASH_VERSION:+bash}", shell=True, executable="/bin/bash"))
    return found


@case
def environments(here: str) -> Any:
    show = [sys.executable, "-ISc", "import os; print(sorted(os.environb.items()))"]
    odd = {b"EMPTY": b"", b"BYTES": b"\xff\xfe", b"EQUALS": b"a=b=c", b"LINES": b"a\nb", b"PATH": b"/bin"}
    os.environ["CASE_OWN"] = "own"
    try:
        own = run(show)
    finally:
        del os.environ["CASE_OWN"]
    return [
        run(["/usr/bin/env"], env={}),
        run(["/usr/bin/env"], env=odd),
        run(["env"], env={"PATH": "/usr/bin:/bin", "LANG": "C"}),
        run(["/usr/bin/env"], env={"LD_BIND_NOW": "1", "LC_ALL": "C"}),
        b"CASE_OWN" in own[1],
        b"LC_CTYPE" in own[1],
        outcome(lambda: run(["true"], env={"A=B": "c"})),
        outcome(lambda: run(["true"], env={"A": "nul\0"})),
    ]


@case
def ends(here: str) -> Any:
    found: list[Any] = [run(["sh", "-c", f"exit {status}"])[0] for status in (0, 1, 77, 255)]
    found += [run(["sh", "-c", f"kill -{number} $$"])[0] for number in (1, 2, 9, 10, 15)]
    path = script(here, "killed", "#!/bin/sh\nkill -10 $$\n")
    found.append(run([path])[0])
    try:
        subprocess.run(["sh", "-c", "exit 9"], check=True)
    except subprocess.CalledProcessError as exc:
        found.append(str(exc))
    try:
        subprocess.run(["sleep", "100"], timeout=0.2, check=True)
    except subprocess.TimeoutExpired as exc:
        found.append(str(exc.cmd))
    return found


TRAP = "trap 'echo caught; exit 7' TERM; echo ready; while :; do sleep 0.01; done"


@case
def signals(here: str) -> Any:
    """They reach the program itself."""
    found: list[Any] = []
    for args in (["sh", "-c", TRAP], [script(here, "trap", f"#!/bin/sh\n{TRAP}\n")]):
        with subprocess.Popen(args, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            found.append(process.stdout.readline())
            with open(f"/proc/{process.pid}/cmdline") as file:
                found.append(file.read())
            process.terminate()
            found.append((process.stdout.read(), process.wait(60)))
    with subprocess.Popen(["sleep", "100"]) as process:
        found.append(process.poll())
        process.send_signal(signal.SIGSTOP)
        pid, status = os.waitpid(process.pid, os.WUNTRACED)
        found.append((pid == process.pid, os.WIFSTOPPED(status)))
        process.send_signal(signal.SIGCONT)
        process.kill()
        found.append(process.wait(60))
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as process:
        found.append((os.getsid(process.pid) == process.pid, os.getpgid(process.pid) == process.pid))
        os.killpg(process.pid, signal.SIGINT)
        found.append(process.wait(60))
    with subprocess.Popen(["sleep", "100"], process_group=0) as process:
        found.append((os.getsid(process.pid) == os.getsid(0), os.getpgid(process.pid) == process.pid))
        process.kill()
    return found


SIGNALS = "grep -E 'Sig(Ign|Blk)' /proc/self/status"
INTERNAL = 0x180000000
"""Those two of the C library's threads."""


@case
def signal_dispositions(here: str) -> Any:
    own = script(here, "own", f"#!/bin/sh\nexec {SIGNALS}\n")
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    try:
        return [
            [
                int(line.split()[1], 16) & ~INTERNAL
                for line in run(program, restore_signals=restore)[1].splitlines()
            ]
            for restore in (True, False)
            for program in (["sh", "-c", SIGNALS], [own])
        ]
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


@case
def files_and_pipes(here: str) -> Any:
    found: list[Any] = [
        run(["cat"], input=b"bytes"),
        run(["cat"], input="text\n", text=True),
        run(["cat"], input="täxt\n", encoding="latin-1"),
        run(["tr", "a", "b"], input="a\r\n", universal_newlines=True),
        subprocess.check_output(["echo", "text"], stderr=subprocess.STDOUT),
    ]
    with open(f"{here}/out", "wb") as out:
        out.write(b"before\n")
        out.flush()
        done = subprocess.run(["sh", "-c", "echo out; echo err >&2"], stdout=out, stderr=out, check=False)
        out.write(b"after\n")
        found.append(done.returncode)
    with open(f"{here}/out") as file:
        found.append(subprocess.run(["cat"], stdin=file, capture_output=True, check=False).stdout)
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    os.set_inheritable(writing, True)
    command = f"echo through > /proc/self/fd/{writing}; ls /proc/self/fd"
    own = script(here, "listing", f"#!/bin/sh\n{command}\n")
    for options in ({"pass_fds": [writing]}, {"close_fds": False}, {}):
        for program in (["sh", "-c", command], [own]):
            listed = run(program, **options)[1].split()
            try:
                found.append(os.read(reading, 100))
            except BlockingIOError:
                found.append("nothing")
            found.append((b"%d" % writing in listed, len(listed) if "close_fds" not in options else 0))
    os.close(reading)
    os.close(writing)
    found.append(subprocess.run(["sh", "-c", "read x"], stdin=subprocess.DEVNULL, check=False).returncode)
    return found


@case
def standard_descriptors_that_are_closed(here: str) -> Any:
    own = script(here, "own", "#!/bin/sh\nls /proc/self/fd 2>&1\n")
    saved = os.dup(0)
    os.close(0)
    try:
        done = [
            subprocess.run(args, stdout=subprocess.PIPE, check=False)
            for args in ([own], ["ls", "/proc/self/fd"])
        ]
    finally:
        os.dup2(saved, 0)
        os.close(saved)
    return [(one.returncode, one.stdout) for one in done]


@case
def descriptors_out_of_order(here: str) -> Any:
    own = script(here, "own", "#!/bin/sh\n")
    vars(subprocess)["sorted"] = lambda values: sorted(values, reverse=True)
    try:
        return [outcome(lambda program=program: run([program], pass_fds=[0])) for program in ("true", own)]  # type: ignore[misc]
    finally:
        del vars(subprocess)["sorted"]


@case
def masks_and_users(here: str) -> Any:
    own = script(here, "own", "#!/bin/sh\numask; id -u; id -g; id -G\n")
    found = [run(program, umask=0o27) for program in ([own], ["sh", "-c", "umask"])]
    if os.geteuid() == 0:
        os.chmod(here, 0o777)
        for options in ({"user": 65534}, {"user": 65534, "group": 65534, "extra_groups": [1, 2]}):
            found += [run(program, **options) for program in ([own], ["sh", "-c", "id -u; id -g; id -G"])]
    for number in (-1, 2**64):
        wrong: list[Any] = [{"user": number}, {"group": number}, {"extra_groups": [number]}]
        found += [outcome(lambda options=options: run(["true"], **options)) for options in wrong]  # type: ignore[misc]
    return found


@case
def spawns(here: str) -> Any:
    own = script(here, "own", "#!/bin/sh\necho $0 $1 $VAR > out\nexit 3\n")
    os.chdir(here)
    found: list[Any] = []

    def written() -> str:
        with open(f"{here}/out") as file:
            return file.read()

    for call in (
        lambda: os.spawnv(os.P_WAIT, own, ["name", "a"]),
        lambda: os.spawnl(os.P_WAIT, own, "name", "b"),
        lambda: os.spawnve(os.P_WAIT, own, ["name", "c"], {"VAR": "value"}),
        lambda: os.spawnlp(os.P_WAIT, "sh", "sh", "-c", f"echo sh > {here}/out"),
        lambda: os.spawnv(os.P_WAIT, "/no/such/program", ["name"]),
        lambda: os.waitpid(os.spawnv(os.P_NOWAIT, own, ["name", "d"]), 0)[1],
        lambda: os.waitpid(os.posix_spawn(own, ["name", "e"], {"VAR": "value"}), 0)[1],
        lambda: os.waitpid(os.posix_spawnp("sh", ["sh", "-c", "echo p > out"], os.environ), 0)[1],
        lambda: os.posix_spawn("/no/such/program", ["name"], {}),
        lambda: os.posix_spawnp("no-such-program", ["name"], {}),
        lambda: os.posix_spawn("/etc/passwd", ["name"], {}),
        lambda: os.posix_spawn(own, [], {}),
    ):
        found.append((outcome(call), written()))
    actions = [(os.POSIX_SPAWN_OPEN, 1, f"{here}/opened", os.O_WRONLY | os.O_CREAT, 0o600)]
    for program in ("/bin/sh", script(here, "echo", "#!/bin/sh\necho text\n")):
        pid = os.posix_spawn(program, ["sh", "-c", "echo text"], {}, file_actions=actions, setsid=True)
        found.append(os.waitpid(pid, 0)[1])
        with open(f"{here}/opened") as file:
            found.append(file.read())
    actions = [(os.POSIX_SPAWN_OPEN, 0, f"{here}/none", os.O_RDONLY, 0)]
    found.append(outcome(lambda: os.posix_spawn("/bin/true", ["true"], {}, file_actions=actions))[:3])
    found.append(subprocess.run([own, "x"], close_fds=False, check=False).returncode)
    return found


def in_a_fork(call: Callable[[], Any]) -> tuple[int, bytes]:
    """The exit status of a fork that runs ``call``, and what it prints."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 1)
        try:
            call()
        except OSError as exc:
            os.write(1, f"{exc.errno} {exc.filename}".encode())
        finally:
            os._exit(99)
    os.close(writing)
    with open(reading, "rb") as pipe:
        said = pipe.read()
    return os.waitpid(child, 0)[1], said


@case
def executions(here: str) -> Any:
    own = script(here, "own", "#!/bin/sh\necho $0 $1 $VAR; pwd\nexit 3\n")
    calls = (
        lambda: os.execv(own, ["name", "a"]),
        lambda: os.execl("/bin/sh", "name", "-c", "echo $0"),
        lambda: os.execve(own, ["name", "b"], {"VAR": "value"}),
        lambda: os.execvp("sh", ["name", "-c", "echo $0"]),
        lambda: os.execlpe("sh", "name", "-c", "echo $0 $VAR", {"VAR": "v", "PATH": "/bin"}),
        lambda: os.execv("/no/such/program", ["name"]),
        lambda: os.execv("/etc/passwd", ["name"]),
        lambda: os.execv(here, ["name"]),
        lambda: os.execvp("no-such-program", ["name"]),
        lambda: os.execv(script(here, "text", "text\n"), ["name"]),
        lambda: os.execve(os.open("/bin/sh", os.O_RDONLY), ["name", "-c", "echo $0"], {}),
        lambda: os.execve("/bin/true", ["name"], {"A=B": "c"}),
        lambda: os.execve("/bin/true", ["name"], {"": "c"}),
        lambda: os.execve("/bin/true", ["name"], {"A\0": "c"}),
        lambda: os.posix_spawn("/bin/true", ["name"], {"A=B": "c"}),
    )
    return [outcome(lambda call=call: in_a_fork(call)) for call in calls]  # type: ignore[misc]


@case
def asyncio_s(here: str) -> Any:
    own = script(here, "own", "#!/bin/sh\ncat\nexit 3\n")
    pipe = asyncio.subprocess.PIPE

    async def all_of_them() -> list[Any]:
        found: list[Any] = []
        for args in ([own], ["cat"]):
            process = await asyncio.create_subprocess_exec(*args, stdin=pipe, stdout=pipe, cwd=here)
            found.append((await process.communicate(b"text"), process.returncode))
        process = await asyncio.create_subprocess_shell("cat own | wc -l; exit 4", stdout=pipe, cwd=here)
        found.append((await process.communicate(), process.returncode))
        process = await asyncio.create_subprocess_exec("sleep", "100")
        process.terminate()
        found.append(await process.wait())
        for args, cwd in ((["no-such-program"], here), (["true"], "/nowhere"), (["/etc/passwd"], None)):
            try:
                await asyncio.create_subprocess_exec(*args, cwd=cwd)
            except OSError as exc:
                found.append((type(exc).__name__, exc.errno, exc.filename))
        return found

    return asyncio.run(all_of_them())


@case
def what_a_forgotten_child_leaves(here: str) -> Any:
    """No zombie but its own, and that only until it is waited for."""
    process = subprocess.Popen(["true"])
    deadline = time.monotonic() + 30
    state = ""
    while state != "Z" and time.monotonic() < deadline:
        with open(f"/proc/{process.pid}/stat") as file:
            state = file.read().rpartition(")")[2].split()[0]
    process.wait()
    return state, os.path.exists(f"/proc/{process.pid}")
