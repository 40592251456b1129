"""What a contained child sees (C6.3): the invocation's /tmp, the rest read-only, nothing of the real /tmp."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import tmpguard
from tests.interpose.children.conftest import Build
from tmpguard.core.context import unguarded


def sh(script: str, *args: str, **options: object) -> str:
    """What a shell's ``script`` prints, its errors included."""
    done = subprocess.run(
        ["sh", "-c", script, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )  # type: ignore[call-overload]
    return str(done.stdout)


@pytest.fixture
def real_tmp() -> Iterator[Path]:
    """A file in the real /tmp."""
    with tempfile.NamedTemporaryFile(dir="/tmp", prefix="real-") as file:
        file.write(b"real")
        file.flush()
        yield Path(file.name)


# --- /tmp ----------------------------------------------------------------------------------------------


def test_a_child_and_its_request_see_each_other_s_files(real_tmp: Path, inside: tmpguard.Invocation) -> None:
    Path("/tmp/a.txt").write_text("from the request")
    os.mkdir("/tmp/directory")
    assert sh("cat /tmp/a.txt; echo; ls /tmp") == "from the request\na.txt\ndirectory\n"
    assert sh("echo from the child > /tmp/b.txt; mv /tmp/a.txt /tmp/directory; rm -f /tmp/none") == ""
    assert Path("/tmp/b.txt").read_text() == "from the child\n"
    assert sorted(os.listdir("/tmp/directory")) == ["a.txt"]
    # Children see what their elders wrote, and each other.
    assert sh(f"cat /tmp/b.txt; sh -c 'sh -c \"ls /tmp\"'; ls {real_tmp} 2>&1 | grep -c cannot") == (
        "from the child\nb.txt\ndirectory\n1\n"
    )
    assert inside.report.violations == ()


def test_the_real_tmp_is_never_touched(real_tmp: Path, inside: tmpguard.Invocation) -> None:
    name = f"child-{uuid.uuid4().hex}"
    assert (
        sh(f"echo > /tmp/{name}; echo > {real_tmp}; mkdir /tmp/dir-{name}; rm -rf /tmp/*; ls -A /tmp") == ""
    )
    with unguarded():
        assert real_tmp.read_bytes() == b"real"
        assert not [entry for entry in os.listdir("/tmp") if name in entry]


def test_tmp_looks_like_one(inside_any: tmpguard.Invocation) -> None:
    """C7.1: no scratch path shows."""
    assert sh("stat -c %a /tmp; cd /tmp; pwd -P; readlink -f .; readlink /proc/self/cwd") == (
        "1777\n/tmp\n/tmp\n/tmp\n"
    )
    shown = sh("echo $$ $0 $*; tr '\\0' ' ' < /proc/self/cmdline; tr '\\0' '\\n' < /proc/self/environ; pwd")
    assert "tmpguard-" not in shown
    assert "nsenter" not in shown


def test_a_link_that_a_child_makes_leads_the_request_nowhere_else(inside_any: tmpguard.Invocation) -> None:
    """C1.2: by its text /tmp/link/file lies in /tmp, but it does not lead there."""
    Path("/tmp/before.txt").write_text("")
    assert sh("ln -s /etc /tmp/link; ln -s /tmp/before.txt /tmp/absolute; ln -s /etc/passwd /tmp/file") == ""
    for path in ("/tmp/link/file.txt", "/tmp/file"):
        with pytest.raises(OSError, match="Read-only file system"):
            open(path, "w")
    Path("/tmp/absolute").write_text("text")
    assert Path("/tmp/before.txt").read_text() == "text"
    assert os.readlink("/tmp/absolute") == "/tmp/before.txt"


# --- everything else -----------------------------------------------------------------------------------


def test_the_rest_can_be_read_and_not_written(inside: tmpguard.Invocation) -> None:
    places = [place for place in ("/", "/usr", "/var/tmp", "/dev", "/run") if os.path.isdir(place)]
    name = f"child-{uuid.uuid4().hex}"
    for place in places:
        assert "Read-only file system" in sh(f"echo > {place}/{name}"), place
        assert "Read-only file system" in sh(f"mkdir {place}/{name}"), place
    assert "Read-only file system" in sh("echo > /proc/self/comm")
    assert "Read-only file system" in sh(
        f"touch -c {sys.executable} || echo", env={"LC_ALL": "C", **os.environ}
    )
    assert sh("head -c 4 /etc/passwd") == Path("/etc/passwd").read_text()[:4]


def test_devices_can_be_used(inside: tmpguard.Invocation) -> None:
    """C1.3"""
    assert sh("echo > /dev/null && head -c 3 /dev/zero | wc -c; echo text > /dev/stdout") == "3\ntext\n"


def test_processes_are_seen_as_they_are(inside_any: tmpguard.Invocation) -> None:
    assert sh(f"test -d /proc/{os.getpid()} && echo $PPID") == f"{os.getpid()}\n"
    assert sh("id -u; id -g") == f"{os.getuid()}\n{os.getgid()}\n"


def test_writable_mounts_can_be_written(build: Build, tmp_path: Path) -> None:
    """C1.4: below /tmp and elsewhere."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as elsewhere:
        guard = build(writable=[tmp_path, elsewhere])
        with guard.invocation() as invocation:
            script = "echo text > $0/a; echo text > $1/b; echo > $1/../no; echo > /tmp/c"
            assert sh(script, str(tmp_path), elsewhere).count("Read-only file system") == 1
            assert invocation.report.files == 1
        assert (tmp_path / "a").read_text() == (Path(elsewhere) / "b").read_text() == "text\n"


def test_the_project_is_read_only_at_both_of_its_places(build: Build, tmp_path: Path) -> None:
    """C1.5, C5.1: it lies below the real /tmp."""
    (tmp_path / "project/inner").mkdir(parents=True)
    (tmp_path / "project/inner/file.txt").write_text("text")
    (tmp_path / "neighbour").write_text("real")
    guard = build(bundle=tmp_path / "project")
    with guard.invocation() as invocation:
        where = tmp_path / "project"
        assert sh(f"pwd; cat inner/file.txt {where}/inner/file.txt /tmp/package/inner/file.txt") == (
            f"{where}\ntexttexttext"
        )
        for place in (".", str(where), "/tmp/package", "/tmp/package/inner"):
            assert "Read-only file system" in sh(f"echo > {place}/new.txt"), place
        assert "No such file" in sh(f"cat {tmp_path}/neighbour")
        # A directory on the way to the project is the invocation's own.
        assert sh(f"echo > {tmp_path}/new.txt; ls {tmp_path}") == "new.txt\nproject\n"
        assert invocation.report.files == 1
        assert subprocess.run([sys.executable, "-IS", "-c", ""], check=False).returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["neighbour", "project"]


def test_the_working_directory_is_the_invocation_s(inside_any: tmpguard.Invocation) -> None:
    """C5.3"""
    before = os.getcwd()
    assert sh("pwd") == f"{before}\n"
    os.mkdir("/tmp/directory")
    os.chdir("/tmp/directory")
    assert sh("pwd; pwd -P; echo > here") == "/tmp/directory\n/tmp/directory\n"
    assert os.listdir(".") == ["here"]
    assert sh("pwd", cwd="..") == "/tmp\n"
    assert sh("pwd", cwd=b"/tmp/directory") == "/tmp/directory\n"
    assert sh("pwd", cwd=Path("/usr/./lib/..")) == "/usr\n"


def test_what_only_watches_lets_children_write_and_see_the_real_tmp(
    build_any: Build, tmp_path: Path, scratch_root: Path
) -> None:
    """C2.5"""
    guard = build_any(enforce=False)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as elsewhere, guard.invocation():
        with tempfile.NamedTemporaryFile("w", dir="/tmp") as file:
            file.write("text")
            file.flush()
            assert sh(f"cat {file.name} > {elsewhere}/copy.txt") == ""
        assert (Path(elsewhere) / "copy.txt").read_text() == "text"


def test_shared_memory_can_be_written(inside_any: tmpguard.Invocation) -> None:
    """C1.6: by all children. The locks of a pool lie there."""
    import concurrent.futures
    import multiprocessing

    context = multiprocessing.get_context("spawn")
    Path("/tmp/file.txt").write_text("text")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(os.listdir, "/tmp").result() == ["file.txt"]
        assert pool.submit(os.getcwd).result() == os.getcwd()
    name = f"/dev/shm/tmpguard-{uuid.uuid4().hex}"
    assert sh(f"echo text > {name} && cat {name} && rm {name}") == "text\n"
