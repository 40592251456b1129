"""``open`` within an invocation is ``open``: the same objects, effects, errors and warnings (C7.2)."""

from __future__ import annotations

import builtins
import io
import itertools
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from contextvars import Context
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tmpguard.core import originals

CONTENT = b"first\nsecond\r\nthird\rfourth"

LETTERS = "rwxabt+U"
MODES = ["", *("".join(mode) for size in (1, 2, 3) for mode in itertools.permutations(LETTERS, size))]
MODES += ["rr", "ww", "rbb", "rt+t", "r++", "w+bt", "bt", "r b", "R", "é", "r\0", "rbU", "U+", "xat"]
VALID = ["r", "w", "a", "x", "r+", "w+", "a+", "x+", "rb", "wb", "ab", "xb", "r+b", "w+b", "a+b", "x+b"]

Opener = Callable[..., Any]


class Place:
    """A directory in which files are opened: by ``open``, as it is called there."""

    def __init__(self, directory: str, opener: Opener) -> None:
        self.directory = directory
        self.open = opener

    def outcome(self, exists: bool, *args: Any, **options: Any) -> tuple[Any, ...]:
        """What comes of it, and what is in the file afterwards."""
        path = f"{self.directory}/file.bin"
        if os.path.lexists(path):
            os.unlink(path)
        if exists:
            with self.open(path, "wb") as file:
                file.write(CONTENT)
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                file = self.open(path, *args, **options)
            except Exception as exc:
                result: object = self._told(exc)
            else:
                with file:
                    result = self._described(file)
        said = [(one.category, str(one.message)) for one in warned]
        left = None
        if os.path.exists(path):
            with self.open(path, "rb") as file:
                left = file.read()
        return result, said, left

    def _told(self, exc: Exception) -> tuple[Any, ...]:
        message = str(exc).replace(self.directory, "DIRECTORY")
        name = getattr(exc, "filename", None)
        return type(exc), message, name and name.replace(self.directory, "DIRECTORY")

    def _described(self, file: Any) -> dict[str, Any]:
        """All that is to be seen of a file, and what it does."""
        told: dict[str, Any] = {}
        for layer, name in ((file, "file"), (getattr(file, "buffer", None), "buffer"), (_raw(file), "raw")):
            told[f"{name} type"] = type(layer).__name__, type(layer).__module__
            told[f"{name} repr"] = repr(layer).replace(self.directory, "DIRECTORY")
            for attribute in ("mode", "encoding", "errors", "line_buffering", "write_through", "closefd"):
                told[f"{name} {attribute}"] = getattr(layer, attribute, None)
        told["name"] = str(file.name).replace(self.directory, "DIRECTORY")
        told["is"] = [isinstance(file, kind) for kind in (io.IOBase, io.TextIOBase, io.BufferedIOBase)]
        told["raw is"] = isinstance(_raw(file), io.FileIO), isinstance(_raw(file), io.RawIOBase)
        told["can"] = [file.readable(), file.writable(), file.seekable(), file.isatty(), file.closed]
        told["at"] = file.tell() if file.seekable() else None
        told["fileno"] = os.fstat(file.fileno()).st_size
        told["dictionary"] = sorted(name for name in vars(file) if name == "mode")
        for action in (self._reading, self._writing, self._truncating):
            try:
                told[action.__name__] = action(file)
            except Exception as exc:
                told[action.__name__] = self._told(exc)
        return told

    @staticmethod
    def _reading(file: Any) -> object:
        return file.read(), file.read()

    @staticmethod
    def _writing(file: Any) -> object:
        text = isinstance(file, io.TextIOBase)
        return file.write("new\nline" if text else b"new\nline"), file.tell()

    @staticmethod
    def _truncating(file: Any) -> object:
        return file.seek(3), file.truncate(), file.tell()


def _raw(file: Any) -> Any:
    buffer = getattr(file, "buffer", file)
    return getattr(buffer, "raw", buffer)


@pytest.fixture
def plain(tmp_path: Path) -> Place:
    """A directory of the real file system, and the untouched ``open``, in no invocation."""
    (tmp_path / "plain").mkdir()
    return Place(f"{tmp_path}/plain", partial(Context().run, originals.open))


@pytest.fixture(params=["tmp", "writable mount"])
def guarded(
    request: pytest.FixtureRequest, plain: Place, tmp_path: Path, scratch_root: Path
) -> Iterator[Place]:
    """A directory in an invocation, and its ``open``. The plain one is to be used out of it."""
    (tmp_path / "volume").mkdir()
    guard = tmpguard.Guard(
        bundle=None, scratch_root=scratch_root, writable=[tmp_path / "volume", plain.directory]
    )
    with guard.invocation():
        assert builtins.open is not originals.open
        os.mkdir("/tmp/inner")
        yield Place("/tmp/inner" if request.param == "tmp" else f"{tmp_path}/volume", builtins.open)


@pytest.mark.parametrize("exists", [True, False], ids=["there", "not there"])
def test_every_mode_valid_or_not(exists: bool, plain: Place, guarded: Place) -> None:
    for mode in MODES:
        assert guarded.outcome(exists, mode) == plain.outcome(exists, mode), mode


TEXT_OPTIONS: list[tuple[Any, Any, Any]] = [
    (None, None, None),
    ("utf-8", None, "\n"),
    ("latin-1", "replace", "\r\n"),
    (None, None, ""),
    (None, "replace", "\r"),
    ("no such encoding", None, None),
    (None, "no such handler", None),
    (None, None, "x"),
    ("", None, None),
]


def test_every_combination_of_buffering_and_text_options(plain: Place, guarded: Place) -> None:
    for mode in VALID:
        _compare_options(mode, plain, guarded)


def _compare_options(mode: str, plain: Place, guarded: Place) -> None:
    for buffering in (-1, 0, 1, 2, 5000, -2):
        for choice in TEXT_OPTIONS if "b" not in mode else TEXT_OPTIONS[:2]:
            options = dict(zip(("encoding", "errors", "newline"), choice, strict=True), buffering=buffering)
            for exists in (True, False):
                expected, found = (place.outcome(exists, mode, **options) for place in (plain, guarded))
                if buffering == 0 and "b" not in mode:  # see below
                    expected, found = expected[:2], found[:2]
                assert found == expected, (mode, options, exists)


@pytest.mark.parametrize("exists", [True, False], ids=["there", "not there"])
def test_text_cannot_be_unbuffered_which_comes_to_light_when_the_file_is_open(
    exists: bool, plain: Place, guarded: Place
) -> None:
    assert guarded.outcome(exists, "w", 0) == plain.outcome(exists, "w", 0)


@pytest.mark.parametrize("mode", ["rb", "wb", "w+b"])
def test_a_warning_points_to_the_line_that_opens_the_file(mode: str, guarded: Place) -> None:
    path = f"{guarded.directory}/file.bin"
    open(path, "wb").close()
    with pytest.warns(RuntimeWarning, match="line buffering") as warned:
        open(path, mode, buffering=1).close()
    assert [warning.filename for warning in warned] == [__file__]


ODD: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((None,), {}),
    ((b"r",), {}),
    (("r", "x"), {}),
    (("r", None), {}),
    (("r", 1.0), {}),
    (("w", 1 << 80), {}),
    (("w", True), {}),
    (("rb", False), {}),
    (("r",), {"encoding": 1}),
    (("r",), {"errors": 1}),
    (("r",), {"newline": 1}),
    (("r",), {"newline": b"\n"}),
    (("r",), {"closefd": False}),
    (("w",), {"closefd": False}),
    (("wb", 0), {"closefd": False}),
    (("r",), {"closefd": 0}),
    (("w",), {"closefd": []}),
    (("w",), {"opener": 1}),
    (("w",), {"opener": lambda path, flags: -1}),
    (("w",), {"opener": lambda path, flags: "x"}),
    (("w",), {"opener": lambda path, flags: 1 / 0}),
    (("r",), {"opener": lambda path, flags: -1}),
    (("wb",), {"encoding": "utf-8", "buffering": 0}),
    ((), {"mode": "w"}),
    ((), {}),
    (("w", -1, "utf-8", "strict", "\n", True, None), {}),
]


def test_odd_arguments(plain: Place, guarded: Place) -> None:
    for args, options in ODD:
        for exists in (True, False):
            expected, found = (place.outcome(exists, *args, **options) for place in (plain, guarded))
            assert found == expected, (args, options, exists)


def test_too_many_arguments_are_a_type_error(guarded: Place) -> None:
    """Its words are those of a Python function, as in :mod:`_pyio`."""
    path = f"{guarded.directory}/file.bin"
    for call in (
        lambda: open(path, "w", -1, None, None, None, True, None, None),  # type: ignore[call-overload]
        lambda: open(path, "w", no_such=1),  # type: ignore[call-overload]
        lambda: open(),  # type: ignore[call-overload]
    ):
        with pytest.raises(TypeError):
            call()
    assert not os.path.exists(path)


class Fspath:
    """Something that says what path it is."""

    def __init__(self, path: object) -> None:
        self.path = path

    def __fspath__(self) -> Any:
        if isinstance(self.path, Exception):
            raise self.path
        return self.path


#: What is a path, and outside of /tmp, is refused for writing: see the tests of refusals.
PATHS = ["x" * 300, "x/" * 3000, "\udcff\udc80"]

ODD_FILES: list[Any] = [
    None,
    1.5,
    [],
    -1,
    -5,
    1 << 80,
    999_999,
    "",
    b"",
    "a\0b",
    b"a\0b",
    *PATHS,
    Fspath(None),
    Fspath(1),
    Fspath(ZeroDivisionError()),
    Fspath("a\0b"),
    bytearray(b"x"),
    memoryview(b"x"),
    object,
]


def test_odd_files(plain: Place, guarded: Place) -> None:
    def told(place: Place, file: Any, mode: str) -> tuple[Any, ...]:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                place.open(file, mode).close()
            except Exception as exc:
                return type(exc), str(exc), getattr(exc, "filename", None), [str(w.message) for w in warned]
        return None, [str(w.message) for w in warned]

    for file, mode in itertools.product(ODD_FILES, ("r", "rb", "w", "w+b", "x", "a")):
        if mode in ("r", "rb") or not any(file is path for path in PATHS):
            assert told(guarded, file, mode) == told(plain, file, mode), (file, mode)


def test_a_name_is_given_back_as_it_was_spelled(guarded: Place) -> None:
    """``f.name`` is the very object, text, bytes or what a PathLike says."""
    path = f"{guarded.directory}/name.txt"
    spelled = [path, os.fsencode(path), f"{guarded.directory}//./name.txt", f"{guarded.directory}/../"]
    spelled[-1] += f"{os.path.basename(guarded.directory)}/name.txt"
    for mode in ("w", "r", "rb", "ab", "r+"):
        for name in spelled:
            with open(name, mode) as file:
                assert file.name == name
                assert type(file.name) is type(name)
        with open(Path(path), mode) as file:
            assert file.name == path
        with open(Fspath(os.fsencode(path)), mode) as file:
            assert file.name == os.fsencode(path)


def test_a_descriptor_is_taken_up_as_ever(plain: Place, guarded: Place) -> None:
    def described(place: Place, mode: str, closefd: bool) -> object:
        path = f"{place.directory}/descriptor.bin"
        with place.open(path, "wb") as file:
            file.write(CONTENT)
        descriptor = os.open(path, os.O_RDWR)
        with place.open(descriptor, mode, closefd=closefd) as file:
            assert file.name == descriptor
            told = place._described(file)
        for name in ("name", "file repr", "buffer repr", "raw repr"):
            told[name] = told[name].replace(f"{descriptor}", "DESCRIPTOR")
        try:
            os.close(descriptor)
        except OSError as exc:
            return told, exc.errno
        return told, "still open"

    for mode, closefd in itertools.product(("rb", "wb", "r+b", "w+b", "ab", "r", "w"), (True, False)):
        assert described(guarded, mode, closefd) == described(plain, mode, closefd), (mode, closefd)


def test_an_opener_is_asked_with_the_name_and_the_flags(plain: Place, guarded: Place) -> None:
    def asked(place: Place, mode: str) -> object:
        calls: list[tuple[object, int]] = []

        def opener(path: str, flags: int) -> int:
            calls.append((path.replace(place.directory, "DIRECTORY"), flags))
            return os.open(path, flags, 0o640)

        path = f"{place.directory}/opener.bin"
        if os.path.lexists(path):
            os.unlink(path)
        if mode[0] == "r":
            place.open(path, "wb").close()
        with place.open(path, mode, opener=opener) as file:
            told = place._described(file)
        return calls, told, os.stat(path).st_mode & 0o777 if mode[0] != "r" else None

    for mode in ("rb", "wb", "xb", "r", "w", "a+"):
        assert asked(guarded, mode) == asked(plain, mode), mode


@pytest.mark.parametrize("mode", ["wb", "ab", "rb", "r+b"])
def test_an_unbuffered_file_whose_first_seek_fails(plain: Place, guarded: Place, mode: str) -> None:
    """It says from then on what it then said of itself."""

    def told(place: Place) -> tuple[bool, bool]:
        path = f"{place.directory}/sought.bin"
        place.open(path, "wb").close()
        with place.open(path, mode, buffering=0) as file:
            with pytest.raises(OSError, match="Invalid argument"):
                file.seek(-1, os.SEEK_END)
            return file.seekable(), file.seekable()

    assert told(guarded) == told(plain)


FILE_IO_MODES = ["r", "w", "a", "x", "r+", "w+", "a+", "x+", "rb", "wb", "xb", "rb+", "U", "rw", "", "rt"]


def test_file_io_is_made_as_ever(plain: Place, guarded: Place) -> None:
    def made(place: Place, kind: Any, mode: str, exists: bool) -> object:
        path = f"{place.directory}/raw.bin"
        if os.path.exists(path):
            os.unlink(path)
        if exists:
            with place.open(path, "wb") as file:
                file.write(CONTENT)
        try:
            with kind(path, mode) as file:
                return place._described(file)
        except Exception as exc:
            return place._told(exc)

    for mode, exists in itertools.product(FILE_IO_MODES, (True, False)):
        expected = made(plain, originals.FileIO, mode, exists)
        assert made(guarded, io.FileIO, mode, exists) == expected, (mode, exists)


WARNED = """
import os, sys, warnings
import tmpguard

lines = []
warnings.simplefilter("always")
warnings.showwarning = lambda message, category, file, line, *_: lines.append((category.__name__, file, line))

def opened():
    for path in ("/tmp/file.txt", "/etc/passwd"):
        for mode in ("w", "a", "r", "r", "rt", "rb", "wb"):
            if path == "/tmp/file.txt" or mode[0] == "r":
                open(path, mode).close()
        open(path, encoding="ascii", errors="replace").close()
    open(os.open(path, os.O_RDONLY)).close()

def raised():
    warnings.simplefilter("error")
    for _ in range(2):
        try:
            open("/etc/passwd")
        except EncodingWarning:
            lines.append("raised")
    warnings.simplefilter("always")

def at_once():
    open("/etc/passwd").close()
    print(lines)
    lines.clear()

with tmpguard.invocation(bundle=None):
    opened()
    raised()
    at_once()
at_once()
"""


@pytest.mark.parametrize("extension", [True, False])
def test_a_warning_about_the_default_encoding_names_the_callers_line(extension: bool) -> None:
    environment = {**os.environ, **({} if extension else {"TMPGUARD_NO_EXTENSION": "1"})}
    command = [sys.executable, "-X", "warn_default_encoding", "-c", WARNED]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    within, outside = ran.stdout.splitlines()
    opened = [("EncodingWarning", "<string>", 13)] * 8 + [("EncodingWarning", "<string>", 15)]
    at_once = [("EncodingWarning", "<string>", 27)]
    assert within == str([*opened, "raised", "raised", *at_once])
    assert outside == str(at_once)
