"""What the option ``children`` says: children are allowed and told of, refused, or contained (C6.3)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import logging
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import PROJECT, case, run_python
from tmpguard.kernel import containment


@pytest.fixture
def refusing(scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(children="refuse", bundle=None, scratch_root=scratch_root)


def by_asyncio(shell: bool) -> None:
    async def main() -> None:
        if shell:
            await asyncio.create_subprocess_shell("true")
        else:
            await asyncio.create_subprocess_exec("true")

    asyncio.run(main())


def by_process(method: str) -> Callable[[], None]:
    context: Any = multiprocessing.get_context(method)

    def start() -> None:
        process = context.Process(target=os.getpid)
        process.start()
        process.join()

    return start


ROUTES: dict[str, tuple[Callable[[], object], str, str]] = {
    "Popen": (lambda: subprocess.Popen(["true"]).wait(), "subprocess.Popen", "true"),
    "run": (lambda: subprocess.run("true", shell=True), "subprocess.Popen", "/bin/sh"),
    "close_fds": (lambda: subprocess.run(["/bin/true"], close_fds=False), "subprocess.Popen", "/bin/true"),
    "getoutput": (lambda: subprocess.getoutput("true"), "subprocess.Popen", "/bin/sh"),
    "system": (lambda: os.system("true"), "os.system", "true"),
    "popen": (lambda: os.popen("true").close(), "subprocess.Popen", "/bin/sh"),
    "posix_spawn": (lambda: os.posix_spawn("/bin/true", ["true"], {}), "os.posix_spawn", "/bin/true"),
    "posix_spawnp": (lambda: os.posix_spawnp(b"true", ["true"], {}), "os.posix_spawnp", "true"),
    "spawnv": (lambda: os.spawnv(os.P_WAIT, "/bin/true", ["true"]), "os.spawn", "/bin/true"),
    "spawnlp": (lambda: os.spawnlp(os.P_NOWAIT, "true", "true"), "os.spawn", "true"),
    "execv": (lambda: os.execv("/bin/true", ["true"]), "os.execv", "/bin/true"),
    "execlp": (lambda: os.execlpe("/bin/true", "true", {}), "os.execve", "/bin/true"),
    "asyncio": (lambda: by_asyncio(False), "subprocess.Popen", "true"),
    "asyncio shell": (lambda: by_asyncio(True), "subprocess.Popen", "/bin/sh"),
    "multiprocessing": (by_process("spawn"), "subprocess.Popen", sys.executable),
    "fork server": (by_process("forkserver"), "multiprocessing.Process", "forkserver"),
}


# --- refuse --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES)
def test_a_refused_child_is_a_permission_error_and_a_violation(route: str, refusing: tmpguard.Guard) -> None:
    start, operation, program = ROUTES[route]
    with refusing.invocation() as invocation, pytest.raises(PermissionError) as refused:
        start()
    assert refused.value.errno == errno.EPERM
    assert os.fsdecode(refused.value.filename) == program
    (note,) = refused.value.__notes__
    assert note.startswith('tmpguard: children="refuse" lets no child process start: ')
    (violation,) = invocation.report.violations
    assert violation[:3] == (operation, program, errno.EPERM)
    assert violation.location is not None
    assert violation.location.file == __file__


def test_forks_are_the_request_s_and_not_refused(refusing: tmpguard.Guard) -> None:
    """C6.2"""
    with refusing.invocation() as invocation:
        Path("/tmp/file.txt").write_text("text")
        child = os.fork()
        if not child:
            os._exit(0 if os.listdir("/tmp") == ["file.txt"] else 1)
        assert os.waitpid(child, 0)[1] == 0
        context = multiprocessing.get_context("fork")
        with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
            assert pool.submit(os.listdir, "/tmp").result() == ["file.txt"]
        assert invocation.report.violations == ()


def test_libraries_that_can_do_without_children_do(refusing: tmpguard.Guard) -> None:
    """They expect that there may be no such program."""
    with refusing.invocation():
        platform.processor()
        assert platform.platform()


def test_what_only_watches_records_children_and_lets_them_run(scratch_root: Path) -> None:
    """C2.5"""
    guard = tmpguard.Guard(children="refuse", enforce=False, bundle=None, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        assert subprocess.check_output(["echo", "text"]) == b"text\n"
        assert os.system("exit 3") == 3 << 8
        with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
            Path(directory, "file.txt").write_text("text")
    operations = [violation.operation for violation in invocation.report.violations]
    assert operations[:2] == ["subprocess.Popen", "os.system"]
    assert "open" in operations  # the backstop has not taken it for let through


def test_code_outside_of_requests_starts_children(refusing: tmpguard.Guard) -> None:
    """C6.4"""
    with refusing.invocation():
        pass
    assert subprocess.run(["true"], check=False).returncode == 0


# --- allow ---------------------------------------------------------------------------------------------


def test_allowed_children_see_the_real_file_system(guard: tmpguard.Guard) -> None:
    assert guard.children == "allow"
    with tempfile.NamedTemporaryFile(dir="/tmp") as real, guard.invocation() as invocation:
        Path("/tmp/file.txt").write_text("text")
        assert subprocess.run(["test", "-e", real.name], check=False).returncode == 0
        assert subprocess.run(["test", "-e", "/tmp/file.txt"], check=False).returncode == 1
        assert invocation.report.violations == ()


def test_each_line_that_starts_them_is_told_of_once(
    guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture
) -> None:
    with guard.invocation():
        for _ in range(3):
            subprocess.run(["true"], check=True)
        os.system("true")
    with guard.invocation():
        os.posix_spawn("/bin/true", ["true"], {})
        os.wait()
    told = [record for record in caplog.records if record.name == "tmpguard"]
    assert [record.levelno for record in told] == [logging.WARNING] * 3
    starts = ["subprocess.Popen 'true'", "os.system 'true'", "os.posix_spawn '/bin/true'"]
    for record, start in zip(told, starts, strict=True):
        text = record.getMessage()
        assert text.startswith(f"tmpguard: {start}: the child sees the real file system")
        assert 'children="contain"' in text
        assert f"{__file__}:" in text


def test_nothing_is_told_of_children_outside_of_requests(
    guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture
) -> None:
    with guard.invocation():
        pass
    subprocess.run(["true"], check=True)
    assert caplog.records == []


def test_a_fork_server_of_a_request_serves_the_next_one_too(tmp_path: Path) -> None:
    """It is the process's own; so is the directory of its socket."""
    script = tmp_path / "script.py"
    script.write_text(
        """
import multiprocessing, os, tmpguard
if __name__ == "__main__":
    guard = tmpguard.Guard(bundle=None)
    context = multiprocessing.get_context("forkserver")
    for _ in range(2):
        with guard.invocation():
            process = context.Process(target=os.getpid)
            process.start()
            process.join()
            print(process.exitcode)
"""
    )
    done = subprocess.run(
        [sys.executable, script],
        env={**os.environ, "PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "0\n0\n", done.stderr
    assert "Traceback" not in done.stderr


# --- the option ----------------------------------------------------------------------------------------


def test_anything_else_is_refused_with_what_is_allowed() -> None:
    for value in ("", "Allow", "deny", None, True, 1, b"allow", ["allow"]):
        with case(value), pytest.raises(tmpguard.ConfigurationError) as refused:
            tmpguard.Guard(children=value)  # type: ignore[arg-type]
        assert str(refused.value) == f'children={value!r} is not one of "allow", "refuse", "contain"'


def test_a_guard_that_cannot_contain_says_which_steps_were_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(containment, "WAYS", ("bwrap",))
    with pytest.raises(tmpguard.ConfigurationError) as refused:
        tmpguard.Guard(children="contain", bundle=None)
    assert str(refused.value) == (
        'children="contain" is not permitted here (bwrap: it is not installed): '
        'use children="refuse" or children="allow"'
    )


NO_MOUNTS = """
import subprocess, sys
limits = "echo 0 > /proc/sys/user/max_mnt_namespaces && echo 0 > /proc/sys/user/max_user_namespaces && "
script = 'import tmpguard; tmpguard.Guard(children="contain", bundle=None)'
shell = ["sh", "-c", limits + 'exec "$0" -c "$1"', sys.executable, script]
done = subprocess.run(
    ["unshare", "--user", "--map-root-user", *shell], capture_output=True, text=True, check=False
)
print(done.stderr)
"""


def test_a_machine_that_permits_no_namespaces_is_told_of() -> None:
    said = run_python(NO_MOUNTS)
    if "ConfigurationError" not in said:
        pytest.skip(f"the limits cannot be set here: {said.strip()}")
    message = said[said.index('children="contain" is') :]
    assert message.startswith('children="contain" is not permitted here (')
    assert "python: unshare(CLONE_NEWNS): No space left on device" in message
    assert "python: unshare(CLONE_NEWUSER | CLONE_NEWNS): No space left on device" in message


def test_a_server_in_which_python_is_embedded_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("executable", "_base_executable"):
        monkeypatch.setattr(sys, name, "/usr/bin/server")
    monkeypatch.setattr(sys, "base_exec_prefix", "/nowhere")
    with pytest.raises(tmpguard.ConfigurationError, match="there is no interpreter to start children with"):
        tmpguard.Guard(children="contain", bundle=None)


def test_a_guard_that_only_tried_leaves_nothing(scratch_root: Path) -> None:
    try:
        tmpguard.Guard(children="contain", bundle=None, scratch_root=scratch_root)
    except tmpguard.ConfigurationError as exc:
        pytest.skip(str(exc))
    assert os.listdir(scratch_root) == []
