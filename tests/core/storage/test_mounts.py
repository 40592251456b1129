"""The wipe goes through no mount point, whoever made it, and comes back when it is gone (C4.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import run_with_mounts

BEGIN = """
import errno, glob, io, logging, os, tmpguard
from tmpguard.core import originals

scratch_root, precious = sys.argv[1:3]
told = io.StringIO()
logging.basicConfig(stream=told, format="%(message)s")

def fill(path):
    os.makedirs(f"{path}/inner")
    for name in ("data", "inner/data"):
        with open(f"{path}/{name}", "w") as file:
            file.write("precious")
    os.chmod(f"{path}/inner", 0)

def state(path):
    found = []
    for name in ("", "data", "inner", "inner/data"):
        status = os.stat(f"{path}/{name}")
        found.append((name, status.st_mode, status.st_ino, status.st_mtime_ns, status.st_ctime_ns))
    return found

def mount_points():
    # The wipe may have moved the directory around one.
    with originals.open("/proc/self/mountinfo") as mounts:
        return [line.split()[4] for line in mounts if line.split()[4].startswith(scratch_root + "/")]

def others(path, place):
    # All that is not on the way to the mount point.
    found = []
    for directory, names, files in os.walk(path):
        if directory == place:
            names.clear()
            continue
        found += [f"{directory}/{name}" for name in [*names, *files]]
    return [name for name in found if not place.startswith(name)]

fill(precious)
os.mkdir(scratch_root)
guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None)
"""

#: What the invocation has in its /tmp, where something is mounted in it, and what that is.
PLACES = {
    "the first level": ("os.mkdir('/tmp/m')", "m"),
    "the second level": ("os.makedirs('/tmp/a/m')", "a/m"),
    "deep": ("os.makedirs('/tmp/a/b/c/d/e/m')", "a/b/c/d/e/m"),
    "in a directory without rights": ("os.makedirs('/tmp/a/m'); os.chmod('/tmp/a', 0)", "a/m"),
    "/tmp itself": ("os.mkdir('/tmp/a')", ""),
    "a name of ours": ("os.makedirs('/tmp/tmpguard-0/tmpguard-1')", "tmpguard-0/tmpguard-1"),
}

KINDS = {
    "a bind mount": ("mounting.bind(precious, place)", "precious"),
    "a tmpfs": ("mounting.mount_tmpfs(place, 1 << 20); fill(place)", "place"),
    "two mounts": (
        "mounting.mount_tmpfs(place, 1 << 20); fill(place); mounting.bind(precious, place)",
        "precious",
    ),
}


@pytest.mark.parametrize(("mount", "mounted"), KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize(("make", "at"), PLACES.values(), ids=PLACES.keys())
def test_what_is_mounted_in_tmp_is_not_touched(
    make: str, at: str, mount: str, mounted: str, tmp_path: Path
) -> None:
    """Whether it ends in a block, in the background or with its instance."""
    code = f"""
shared = tmpguard.Guard(scratch_root=scratch_root, bundle=None, lifetime="instance")
for how in ("block", "background", "instance"):
    told.truncate(0)
    invocation = (shared if how == "instance" else guard).invocation()
    with invocation.bound():
        {make}
        for number in range(20):
            os.makedirs(f"/tmp/{{number}}/inner")
            open(f"/tmp/{{number}}/inner/file", "w").close()
    (real,) = glob.glob(f"{{scratch_root}}/*/*")
    place = f"{{real}}/{at}".rstrip("/")
    files = invocation.report.files
    {mount}
    before = state({mounted})
    assert invocation.report.files <= files, invocation.report
    if how == "block":
        with invocation:
            pass
    elif how == "background":
        invocation.end()
        tmpguard.drain()
    else:
        shared.end_instance()
    place = mount_points()[0]
    assert state({mounted}) == before
    assert others(scratch_root, place) == [], others(scratch_root, place)
    assert "could not wipe the scratch directory" in told.getvalue()
    assert "mounted there" in told.getvalue()
    with guard.invocation():
        assert os.listdir("/tmp") == []
    assert state({mounted}) == before
    for place in reversed(mount_points()):
        mounting.unmount(place)
    assert tmpguard.drain()
    assert glob.glob(f"{{scratch_root}}/*/*") == []
    assert sorted(os.listdir(precious)) == ["data", "inner"]
"""
    run_with_mounts(BEGIN + code, tmp_path / "scratch", tmp_path / "precious")


@pytest.mark.parametrize("end", ["with invocation: pass", "invocation.end(); tmpguard.drain()"])
@pytest.mark.parametrize("at", ["file", "a/file"])
def test_a_file_that_is_mounted_on_a_file_is_not_touched(at: str, end: str, tmp_path: Path) -> None:
    code = f"""
invocation = guard.invocation()
with invocation.bound():
    os.makedirs(os.path.dirname("/tmp/{at}"), exist_ok=True)
    open("/tmp/{at}", "w").close()
    open("/tmp/other", "w").close()
(real,) = glob.glob(f"{{scratch_root}}/*/*")
before = state(precious)
mounting.bind(f"{{precious}}/data", f"{{real}}/{at}")
{end}
assert state(precious) == before
(found,) = glob.glob(f"{{scratch_root}}/*/**/file", recursive=True)
assert open(found).read() == "precious"
mounting.unmount(found)
assert tmpguard.drain()
assert glob.glob(f"{{scratch_root}}/*/*") == []
"""
    run_with_mounts(BEGIN + code, tmp_path / "scratch", tmp_path / "precious")


@pytest.mark.parametrize("at", ["", "/1", "/1/m", "/1/a/b/c/m"])
def test_the_sweep_goes_through_no_mount_point(at: str, tmp_path: Path) -> None:
    code = f"""
from tmpguard.core.storage.claims import new_name, sweep

left = f"{{scratch_root}}/{{new_name()}}"
os.makedirs(left + "{at}")
os.chmod(left, 0o700)
open(left + "/file", "w").close()
place = left + "{at}"
mounting.bind(precious, place)
os.chmod(precious, 0o700)
before = state(precious)
assert sweep(scratch_root) == 0
assert state(precious) == before
(place,) = mount_points()
assert others(scratch_root, place) == []
mounting.unmount(place)
assert sweep(scratch_root) == 1
assert os.listdir(scratch_root) == []
"""
    run_with_mounts(BEGIN + code, tmp_path / "scratch", tmp_path / "precious")


def test_a_mount_that_stays_until_the_exit_is_not_touched(tmp_path: Path) -> None:
    code = """
invocation = guard.invocation()
with invocation:
    os.makedirs("/tmp/a/m")
    os.makedirs("/tmp/b/c")
    (real,) = originals.listdir(scratch_root)
    mounting.bind(precious, f"{scratch_root}/{real}/1/a/m")
print(real)
"""
    name = run_with_mounts(BEGIN + code, tmp_path / "scratch", tmp_path / "precious").strip()
    left = {str(path.relative_to(tmp_path / "scratch")) for path in (tmp_path / "scratch").rglob("*")}
    assert left <= {name, f"{name}/1", f"{name}/1/a", f"{name}/1/a/m"} | {
        f"{name}/1/tmpguard-{number}" for number in range(4)
    } | {f"{name}/1/tmpguard-{number}/m" for number in range(4)}
    assert (tmp_path / "precious/inner/data").read_text() == "precious"


def test_without_a_proc_of_linux_devices_are_compared(tmp_path: Path) -> None:
    code = """
mount = mounting.mount_tmpfs
invocation = guard.invocation()
with invocation.bound():
    os.makedirs("/tmp/a/m")
(real,) = glob.glob(f"{scratch_root}/*/*")
mount(f"{real}/a/m", 1 << 20)
fill(f"{real}/a/m")
mount("/proc", 1 << 20)
before = state(f"{real}/a/m")
invocation.end()
assert tmpguard.drain()
(place,) = glob.glob(f"{real}/*/m")
assert state(place) == before
mounting.unmount(place)
assert tmpguard.drain()
assert glob.glob(f"{scratch_root}/*/*") == []
"""
    run_with_mounts(BEGIN + code, tmp_path / "scratch", tmp_path / "precious")
