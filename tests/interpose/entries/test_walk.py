"""`os.walk` reads a directory at a time within an invocation, and tells what the standard library tells."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tmpguard.core import originals

Walk = Callable[..., Iterator[tuple[Any, list[Any], list[Any]]]]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path.resolve() / "project"
    (directory / "code/deep/deeper").mkdir(parents=True)
    (directory / "logs").mkdir()
    (directory / "data").mkdir()
    for name in (
        "app.py",
        "code/a.py",
        "code/deep/rows.csv",
        "logs/a.log",
        "data/keep.csv",
        "data/größe.csv",
    ):
        (directory / name).write_text("text")
    (directory / "data/build").write_text("a file")
    (directory / "code/build").mkdir()
    for name, target in {
        "to-code": "code",
        "code/up": "..",
        "to-logs": "logs",
        "dangling": "nowhere",
        "to-tmp": "/tmp/made",
        "data/loop": "loop",
        "data/to-file": "keep.csv",
    }.items():
        (directory / name).symlink_to(target)
    (directory / ".genezioignore").write_text("*.csv\n!keep.csv\nlogs/\nbuild/\ng*.csv\n")
    return directory


@pytest.fixture(params=["refusing", "nothing ignored"])
def within(
    request: pytest.FixtureRequest, project: Path, scratch_root: Path
) -> Iterator[tmpguard.Invocation]:
    guard = tmpguard.Guard(
        bundle=project,
        ignore=None if request.param == "nothing ignored" else ".genezioignore",
        scratch_root=scratch_root,
    )
    with guard.invocation() as invocation:
        os.makedirs("/tmp/made/below")
        Path("/tmp/made/file.txt").write_text("text")
        os.symlink("made", "/tmp/link")
        yield invocation


def steps(walk: Walk, top: Any, **options: Any) -> list[Any]:
    """All that a walk tells, with its errors, and which directories were gone into in spite of a change."""
    told: list[Any] = []
    for path, directories, others in walk(
        top, onerror=lambda exc: told.append((type(exc), exc.errno, exc.filename)), **options
    ):
        told.append((path, list(directories), list(others)))
        if options.get("topdown", True):
            directories[:] = [name for name in sorted(directories) if os.fsdecode(name) != "deeper"]
            directories += [type(name)(name) for name in others if os.fsdecode(name) == "keep.csv"]
    return told


PLACES = ["", "/", "/code", "/to-code", "/data", "/logs", "/to-logs", "/app.py", "/none", "/code/deep/../.."]


@pytest.mark.parametrize("options", [{}, {"topdown": False}, {"followlinks": False}], ids=str)
def test_a_walk_tells_what_the_standard_library_tells(
    within: tmpguard.Invocation, project: Path, options: dict[str, Any]
) -> None:
    tops: list[Any] = [root + place for root in (f"{project}", "/tmp/package") for place in PLACES]
    tops += ["/tmp", "/tmp/", "/tmp/link", "/tmp/made", ".", "code", "", "code/", "\0", project]
    tops += [os.fsencode(project), b"/tmp/package", b"data"]
    for top in tops:
        for _ in range(2):  # what was remembered of the first one is the same
            expected = outcome(originals.walk, top, options)
            assert outcome(os.walk, top, options) == expected, top
    assert len(steps(os.walk, project, **options)) > 3


def outcome(walk: Walk, top: Any, options: dict[str, Any]) -> Any:
    try:
        return steps(walk, top, **options)
    except (TypeError, ValueError) as exc:
        return type(exc), str(exc)


def test_what_is_no_path_is_refused_as_ever(within: tmpguard.Invocation) -> None:
    for top in (None, 1.5, object()):
        with pytest.raises(TypeError) as expected:
            list(originals.walk(top))  # type: ignore[call-overload]
        with pytest.raises(TypeError) as found:
            list(os.walk(top))  # type: ignore[call-overload]
        assert str(found.value) == str(expected.value)


def test_a_directory_that_changes_meanwhile_is_read_as_it_is_then(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        for name in ("a", "b", "c"):
            os.makedirs(f"/tmp/top/{name}/below")
        seen = []
        for path, directories, _ in os.walk("/tmp/top"):
            seen.append(path)
            if path == "/tmp/top":
                directories.sort()
                shutil.rmtree("/tmp/top/b")
                os.rename("/tmp/top/c", "/tmp/moved")
                os.symlink("/tmp/moved", "/tmp/top/c")
                os.mkdir("/tmp/top/a/new")
        assert sorted(seen) == ["/tmp/top", "/tmp/top/a", "/tmp/top/a/below", "/tmp/top/a/new"]


def test_files_of_the_project_that_come_and_go_are_seen_at_once(project: Path, scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=project, scratch_root=scratch_root)

    def names() -> set[str]:
        with guard.invocation():
            return {name for _, found, others in os.walk("/tmp/package/data") for name in (*found, *others)}

    assert names() == {"build", "keep.csv", "loop", "to-file"}
    (project / "data/new.csv").write_text("ignored")
    (project / "data/new.txt").write_text("there")
    assert names() == {"build", "keep.csv", "loop", "to-file", "new.txt"}
    (project / "data/build").unlink()
    (project / "data/build").mkdir()  # directories of that name are ignored
    assert names() == {"keep.csv", "loop", "to-file", "new.txt"}


def test_a_directory_of_hundreds_of_ignored_files_is_read_without_them(
    project: Path, scratch_root: Path
) -> None:
    for number in range(200):
        (project / f"data/{number}.{'csv' if number % 3 else 'txt'}").write_text("")
    with tmpguard.Guard(bundle=project, scratch_root=scratch_root).invocation():
        for _ in range(2):
            ((_, _, names),) = os.walk(project / "data")
            assert {name for name in names if name.endswith(".csv")} == {"keep.csv"}
            assert len(names) == 67 + 4


def test_a_walk_may_go_on_outside_and_in_another_invocation(project: Path, scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=project, ignore=None, scratch_root=scratch_root)
    with guard.invocation():
        os.makedirs("/tmp/one/two")
        walk, elsewhere = os.walk("/tmp/one"), os.walk(project / "code")
        assert next(walk) == ("/tmp/one", ["two"], [])
        assert "deep" in next(elsewhere)[1]
    assert f"{project}/code/deep/deeper" in [path for path, _, _ in elsewhere]
    with guard.invocation():
        assert list(walk) == []  # it is another /tmp
