"""No request sees a scratch directory, its own or another's, by the real path, wherever it lies (C4.1)."""

from __future__ import annotations

import glob
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import tmpguard
from tmpguard.core import originals
from tmpguard.core.storage.claims import new_name

PLACES = ("outside", "in the project", "in a project below /tmp", "in a writable directory")


@pytest.fixture(params=PLACES)
def guard(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[tmpguard.Guard]:
    """A guard whose scratch root, which holds a file of somebody's as well, lies at one of the places."""
    where = "/tmp" if request.param == "in a project below /tmp" else "/var/tmp"
    place = Path(tempfile.mkdtemp(dir=where))
    root = place / "root"
    root.mkdir()
    (root / "other.txt").write_text("somebody's")
    options: dict[str, object] = {"scratch_root": root, "bundle": None}
    if "project" in request.param:
        monkeypatch.setattr(tempfile, "tempdir", str(root))
        options = {"bundle": place}
    elif "writable" in request.param:
        options["writable"] = [place]
    yield tmpguard.Guard(**options)  # type: ignore[arg-type]
    tmpguard.drain()
    shutil.rmtree(place)


@pytest.fixture
def claims(guard: tmpguard.Guard) -> list[str]:
    """The paths at which the scratch root is seen."""
    root = guard.scratch.path
    return [root] if guard.bundle is None else [root, f"/tmp/package{root[len(guard.bundle) :]}"]


def test_no_other_request_s_file_is_found(guard: tmpguard.Guard, claims: list[str]) -> None:
    other = guard.invocation()
    with other.bound():
        Path("/tmp/secret").write_text("of the other one")
    real = other.mounted.directory
    assert real is not None
    with guard.invocation():
        Path("/tmp/own").touch()
        os.symlink(guard.scratch.path, "/tmp/link")
        descriptor = os.open(guard.scratch.path, os.O_RDONLY)
        for root in (*claims, "/tmp/link", f"/proc/self/fd/{descriptor}", f"{claims[0]}/../root"):
            assert os.listdir(root) == ["other.txt"]
            assert os.listdir(os.fsencode(root)) == [b"other.txt"]
            assert [entry.name for entry in os.scandir(root)] == ["other.txt"]
            assert list(os.walk(root)) == [(root, [], ["other.txt"])]
            assert glob.glob(f"{root}/**/secret", recursive=True) == []
            scratch = root + real[len(guard.scratch.path) :]
            for path in (f"{scratch}/secret", scratch, os.path.dirname(scratch)):
                assert not os.path.lexists(path)
                assert not os.path.lexists(os.fsencode(path))
                with pytest.raises(FileNotFoundError):
                    open(path)
                with pytest.raises(FileNotFoundError):
                    os.stat(path)
            with pytest.raises(FileNotFoundError):
                open(f"{scratch}/secret", "a")
            assert Path(root, "other.txt").read_text() == "somebody's"
        assert os.listdir(descriptor) == ["other.txt"]
        assert not os.path.lexists(os.path.relpath(f"{real}/secret"))
        with pytest.raises(FileNotFoundError):
            os.stat(real[len(guard.scratch.path) + 1 :], dir_fd=descriptor)
        os.close(descriptor)
        # Seen in a walk from above, its directories are remembered.
        above = os.path.dirname(guard.scratch.path)
        assert [files for _, _, files in os.walk(above)] == [[], ["other.txt"]]
        assert os.listdir(guard.scratch.path) == ["other.txt"]
    other.end()
    assert other.report.violations == ()


def test_nor_one_of_another_process(guard: tmpguard.Guard) -> None:
    name = new_name()
    originals.mkdir(f"{guard.scratch.path}/{name}", 0o700)
    with guard.invocation():
        assert os.listdir(guard.scratch.path) == ["other.txt"]
        with pytest.raises(FileNotFoundError):
            os.listdir(f"{guard.scratch.path}/{name}")


def test_a_name_that_only_looks_alike_is_seen(guard: tmpguard.Guard) -> None:
    for name in ("tmpguard-notes", new_name() + "0"):
        originals.mkdir(f"{guard.scratch.path}/{name}")
    originals.mkdir(f"{os.path.dirname(guard.scratch.path)}/{(elsewhere := new_name())}")
    with guard.invocation():
        assert len(os.listdir(guard.scratch.path)) == 3
        assert os.path.isdir(f"{guard.scratch.path}/tmpguard-notes")
        assert os.path.isdir(f"{os.path.dirname(guard.scratch.path)}/{elsewhere}")


def test_a_contained_child_sees_its_own_files_at_most(guard: tmpguard.Guard) -> None:
    other = guard.invocation()
    with other.bound():
        Path("/tmp/secret").write_text("of the other one")
    try:
        contained = tmpguard.Guard(
            bundle=guard.bundle,
            scratch_root=None if guard.bundle else guard.scratch.path,
            writable=guard.writable,
            children="contain",
        )
    except tmpguard.ConfigurationError as exc:
        pytest.skip(str(exc))
    assert contained.scratch is guard.scratch
    with contained.invocation():
        Path("/tmp/own").touch()
        above = os.path.dirname(guard.scratch.path)
        found = subprocess.run(["find", above, "/tmp", "-name", "secret"], capture_output=True, text=True)
        assert found.stdout == ""
        assert subprocess.run(["cat", "/tmp/own"]).returncode == 0
    other.end()
