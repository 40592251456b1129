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
def opened(parent: Path) -> Iterator[tuple[int, int]]:
    """Descriptors of both."""
    outer, inner = os.open(parent, DIRECTORY), os.open(parent / "1", DIRECTORY)
    yield outer, inner
    os.close(inner)
    os.close(outer)


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
        (lambda directory: None, small.Survey(0, [], True)),
        (lambda directory: (directory / "a").write_bytes(b""), small.Survey(0, ["a"], True)),
        (lambda directory: (directory / "a").write_bytes(b"x" * 4097), small.Survey(8192, ["a"], True)),
        (lambda directory: (directory / "a").write_bytes(b"x" * 20000), small.Survey(20480, ["a"], True)),
        (
            lambda directory: (directory / "\udcff ü").write_bytes(b"x"),
            small.Survey(4096, ["\udcff ü"], True),
        ),
        (lambda directory: directory.chmod(0o700), small.Survey(0, [], False)),
        (sparse, small.Survey(4096, ["sparse"], True)),
        (many, None),
        (linked, None),
        (with_socket, None),
        (lambda directory: (directory / "inner").mkdir(), None),
        (lambda directory: (directory / "link").symlink_to("nowhere"), None),
    ],
)
def test_a_survey_tells_what_a_few_files_take_up(
    parent: Path, opened: tuple[int, int], make: Callable[[Path], object], expected: small.Survey | None
) -> None:
    make(parent / "1")
    found = small.survey(opened[1])
    assert found == expected
    assert small.survey(opened[1]) == expected  # it begins at the first name again


def test_long_names_are_a_few_files_too(parent: Path, opened: tuple[int, int]) -> None:
    longest(parent / "1")
    found = small.survey(opened[1])
    assert found is not None
    assert sorted(found.files) == sorted(os.listdir(parent / "1"))
    assert found.bytes == 4096 * 5 + 8192 * 3
    assert small.clear(*opened, found.files, "1.gone")
    assert os.listdir(parent / "1") == []


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="the platform has no extended attributes")
def test_an_extended_attribute_is_a_change(parent: Path, opened: tuple[int, int]) -> None:
    try:
        os.setxattr(parent / "1", "user.tmpguard", b"1")
    except OSError as exc:
        pytest.skip(f"no extended attributes here: {exc}")
    assert small.survey(opened[1]) == small.Survey(0, [], False)


def test_a_cleared_file_no_longer_has_a_path_in_the_directory(parent: Path, opened: tuple[int, int]) -> None:
    path = parent / "1" / "a"
    path.write_text("text")
    with open(path) as still_open:
        changed = small.clear(*opened, ["a"], "2.gone")
        assert os.readlink(f"/proc/self/fd/{still_open.fileno()}") == f"{parent}/2.gone (deleted)"
        assert still_open.read() == "text"
    assert os.listdir(parent) == ["1"]
    assert os.stat(parent / "1").st_mtime_ns == changed
    (parent / "1" / "late").touch()
    assert os.stat(parent / "1").st_mtime_ns != changed


def test_what_was_added_meanwhile_stays_and_is_told(parent: Path, opened: tuple[int, int]) -> None:
    (parent / "1" / "a").touch()
    (parent / "1" / "late").touch()
    assert small.clear(*opened, ["a"], "2.gone") is None
    assert os.listdir(parent / "1") == ["late"]


def test_a_file_that_is_gone_meanwhile_is_an_error(parent: Path, opened: tuple[int, int]) -> None:
    with pytest.raises(FileNotFoundError):
        small.clear(*opened, ["gone"], "2.gone")


def test_a_closed_descriptor_is_an_error(parent: Path) -> None:
    closed = os.open(parent, DIRECTORY)
    os.close(closed)
    with pytest.raises(OSError, match="Bad file descriptor"):
        small.survey(closed)


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
        opened = os.open(directory, DIRECTORY)
        try:
            found = small.survey(opened)
        finally:
            os.close(opened)
    assert found is not None
    assert (found.bytes, found.files) == (0, ["hole"])
