"""The wipe of a few files: the extension sees and does what the same steps in Python do (C4.2)."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tmpguard.core import speedups
from tmpguard.core.storage import small
from tmpguard.core.storage.dirfd import DIRECTORY


@pytest.fixture(params=["extension", "python"])
def parent(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory in which ``1`` is as a scratch directory."""
    if request.param == "python":
        monkeypatch.setattr(speedups, "extension", None)
    elif speedups.extension is None:
        pytest.skip("the extension was not built")
    (tmp_path / "1").mkdir()
    (tmp_path / "1").chmod(small.TMP_MODE)
    return tmp_path


@pytest.fixture
def opened(parent: Path) -> Iterator[int]:
    """A descriptor of it."""
    descriptor = os.open(parent, DIRECTORY)
    yield descriptor
    os.close(descriptor)


def look(parent: int, name: str = "1") -> tuple[int, list[str], bool] | None:
    """What a survey of the directory tells, whose descriptor is closed."""
    found = small.survey(parent, name)
    if found is None:
        return None
    os.close(found.descriptor)
    return found[1:]


def empty(parent: int, *files: str) -> int | None:
    """Empty the directory ``1``, in which the survey found the ``files``, and call it ``2``."""
    descriptor = os.open("1", DIRECTORY, dir_fd=parent)
    try:
        return small.empty(parent, "1", "2", small.Survey(descriptor, 0, [*files], unchanged=True))
    finally:
        os.close(descriptor)


def sparse(directory: Path) -> None:
    with open(directory / "sparse", "wb") as file:
        file.truncate(1 << 20)
        file.write(b"x")


def with_socket(directory: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(directory / "socket"))


def linked(directory: Path) -> None:
    (directory / "a").write_text("text")
    os.link(directory / "a", directory / "b")


def many(directory: Path) -> None:
    for number in range(small.FEW + 1):
        (directory / str(number)).touch()


def longest(directory: Path) -> None:
    for number in range(small.FEW):
        (directory / f"{number}{'x' * 254}").write_bytes(b"x" * (number * 1000 + 1))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda directory: None, (0, [], True)),
        (lambda directory: (directory / "a").write_bytes(b""), (0, ["a"], True)),
        (lambda directory: (directory / "a").write_bytes(b"x" * 4097), (8192, ["a"], True)),
        (lambda directory: (directory / "a").write_bytes(b"x" * 20000), (20480, ["a"], True)),
        (
            lambda directory: (directory / "\udcff ü").write_bytes(b"x"),
            (4096, ["\udcff ü"], True),
        ),
        (lambda directory: directory.chmod(0o700), (0, [], False)),
        (sparse, (4096, ["sparse"], True)),
        (many, None),
        (linked, None),
        (with_socket, None),
        (lambda directory: (directory / "inner").mkdir(), None),
        (lambda directory: (directory / "link").symlink_to("nowhere"), None),
    ],
)
def test_a_survey_tells_what_a_few_files_take_up(
    parent: Path,
    opened: int,
    make: Callable[[Path], object],
    expected: tuple[int, list[str], bool] | None,
) -> None:
    make(parent / "1")
    before = len(os.listdir("/proc/self/fd"))
    assert look(opened) == expected
    assert len(os.listdir("/proc/self/fd")) == before


def test_long_names_are_a_few_files_too(parent: Path, opened: int) -> None:
    longest(parent / "1")
    found = look(opened)
    assert found is not None
    size, files, _ = found
    assert sorted(files) == sorted(os.listdir(parent / "1"))
    assert size == 4096 * 5 + 8192 * 3
    assert empty(opened, *files)
    assert os.listdir(parent / "2") == []


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="the platform has no extended attributes")
def test_an_extended_attribute_is_a_change(parent: Path, opened: int) -> None:
    try:
        os.setxattr(parent / "1", "user.tmpguard", b"1")
    except OSError as exc:
        pytest.skip(f"no extended attributes here: {exc}")
    assert look(opened) == (0, [], False)


def test_what_is_no_directory_cannot_be_looked_at(parent: Path, opened: int) -> None:
    (parent / "link").symlink_to("1")
    (parent / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(NotADirectoryError):
            small.survey(opened, name)
    with pytest.raises(FileNotFoundError):
        small.survey(opened, "missing")


def test_a_file_that_was_removed_has_no_path_in_the_directory(parent: Path, opened: int) -> None:
    path = parent / "1" / "a"
    path.write_text("text")
    with open(path) as still_open:
        changed = empty(opened, "a")
        assert os.readlink(f"/proc/self/fd/{still_open.fileno()}") == f"{parent}/2.gone (deleted)"
        assert still_open.read() == "text"
    assert os.listdir(parent) == ["2"]
    assert changed is not None
    assert small.last_change(f"{parent}/2") == os.stat(parent / "2").st_mtime_ns == changed
    (parent / "2" / "late").touch()
    assert small.last_change(f"{parent}/2") != changed


def test_what_was_added_meanwhile_stays_and_is_told(parent: Path, opened: int) -> None:
    (parent / "1" / "a").touch()
    (parent / "1" / "late").touch()
    assert empty(opened, "a") is None
    assert os.listdir(parent) == ["2"]
    assert os.listdir(parent / "2") == ["late"]


def test_a_file_that_is_gone_meanwhile_is_told(parent: Path, opened: int) -> None:
    (parent / "1" / "a").touch()
    assert empty(opened, "gone", "a") is None
    assert os.listdir(parent / "2") == ["a"]


def test_a_directory_that_cannot_be_renamed_is_left_as_it_is(parent: Path, opened: int) -> None:
    (parent / "1" / "a").touch()
    (parent / "2").mkdir()
    (parent / "2" / "b").touch()
    with pytest.raises(OSError, match="not empty"):
        empty(opened, "a")
    assert os.listdir(parent / "1") == ["a"]
    assert os.listdir(parent / "2") == ["b"]


def test_a_closed_descriptor_is_an_error(parent: Path) -> None:
    closed = os.open(parent, DIRECTORY)
    os.close(closed)
    with pytest.raises(OSError, match="Bad file descriptor"):
        small.survey(closed, "1")


def test_the_last_change_follows_no_link(parent: Path) -> None:
    (parent / "link").symlink_to("1")
    changed = os.stat(parent / "link", follow_symlinks=False).st_mtime_ns
    assert small.last_change(f"{parent}/link") == changed
    with pytest.raises(FileNotFoundError, match="missing"):
        small.last_change(f"{parent}/missing")


def test_the_largest_size_of_a_hole_takes_up_nothing() -> None:
    """Rounded up to pages, it is no longer a number of 64 bits."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        pytest.skip("only tmpfs and few others have files of that size")
    with tempfile.TemporaryDirectory(dir=memory) as directory:
        with open(f"{directory}/hole", "wb") as file:
            try:
                file.truncate((1 << 63) - 1)
            except OSError as exc:
                pytest.skip(f"no such file here: {exc}")
        opened = os.open(memory, DIRECTORY)
        try:
            found = look(opened, Path(directory).name)
        finally:
            os.close(opened)
    assert found is not None
    assert found[:2] == (0, ["hole"])
