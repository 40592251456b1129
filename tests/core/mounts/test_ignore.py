"""Reading an ignore file, and what it says of a path: which file, which line (C5.2)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import tmpguard
from tests.support import case, run_unprivileged
from tmpguard.core.mounts import ignore as module
from tmpguard.core.mounts.ignore import Ignore, Rule


def test_a_rule_names_its_file_line_and_pattern(tmp_path: Path) -> None:
    file = tmp_path / ".genezioignore"
    file.write_text("# data\n\n*.csv  \n!keep.csv\nlogs/\n")
    ignore = Ignore.read(file)
    assert ignore.match("a/b.csv", False) == Rule(str(file), 3, "*.csv")
    assert str(ignore.match("b.csv", False)) == ".genezioignore line 3, `*.csv`"
    assert ignore.match("a/logs/today/1.txt", False) == Rule(str(file), 5, "logs/")
    assert ignore.match("logs", True) == Rule(str(file), 5, "logs/")
    assert ignore.match("logs", False) is None
    assert ignore.match("keep.csv", False) is None
    assert ignore.match("a.txt", False) is None
    assert ignore.match("", True) is None
    assert [rule.line for rule in ignore.rules] == [3, 4, 5]
    assert ignore.file == str(file)


def test_a_relative_name_of_the_file_becomes_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ignored").write_text("x")
    monkeypatch.chdir(tmp_path)
    rule = Ignore.read("ignored").match("x", False)
    assert rule is not None
    assert rule.file == str(tmp_path / "ignored")


def test_names_that_are_no_text_are_matched_by_their_bytes() -> None:
    ignore = Ignore(b"\xff*\n\xc3\xa9t\xc3\xa9/\n")
    assert ignore.match(os.fsdecode(b"a/\xffb"), False) == Rule(".genezioignore", 1, os.fsdecode(b"\xff*"))
    assert ignore.match("été/x", False) == Rule(".genezioignore", 2, "été/")


def test_a_file_that_cannot_be_read_is_said_so(tmp_path: Path) -> None:
    for path, reason in [
        (tmp_path / "nowhere", "No such file or directory"),
        (tmp_path, "Is a directory"),
    ]:
        with case(path), pytest.raises(tmpguard.ConfigurationError) as refused:
            Ignore.read(path)
        assert str(refused.value) == f"{path}: cannot be read: {reason}"


def test_a_file_without_permission_is_said_so(public_root: Path) -> None:
    file = public_root / ".genezioignore"
    file.touch(mode=0o000)
    code = """
import sys
from tmpguard.core.mounts.ignore import Ignore
try:
    Ignore.read(sys.argv[1])
except tmpguard.ConfigurationError as exc:
    print(exc)
"""
    assert run_unprivileged(code, file) == f"{file}: cannot be read: Permission denied\n"


def test_any_depth_can_be_asked_for() -> None:
    ignore = Ignore(b"x\n")
    deep = "a/" * 2000
    assert ignore.match(f"{deep}b", False) is None
    assert ignore.match(f"{deep}x/b", False) == Rule(".genezioignore", 1, "x")


def test_made_up_paths_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_KEPT", 100)
    ignore = Ignore(b"*.csv\n/a/b/*.txt\n")
    for number in range(1000):
        assert ignore.match(f"{number}/a", False) is None
        assert ignore.match(f"a/{number}.csv", False) is not None
    assert len(ignore._levels) <= 100
    assert all(len(names._decided) <= 100 for names in ignore._names.values())
    assert ignore.match("a/b/c.txt", False) == Rule(".genezioignore", 2, "/a/b/*.txt")


def test_directories_share_what_is_known_of_their_names() -> None:
    ignore = Ignore(b"*.csv\n/data/*.txt\n")
    for number in range(50):
        ignore.match(f"{number}/a", False)
    assert ignore.match("data/a.txt", False) == Rule(".genezioignore", 2, "/data/*.txt")
    assert ignore.match("other/a.txt", False) is None
    assert len(ignore._names) == 1


def test_a_quick_look_overlooks_nothing() -> None:
    """What it lets pass is never excluded."""
    ignore = Ignore(b"*.csv\nlogs/\n[ab]?\n/data/*.t?t\n!x.csv\nx/**\n/y*\ncaf\xc3\xa9\n")
    for directory in ("", "data", "a/b", "x", "y", "z"):
        names = ignore.level(directory).names
        asked = ["a.csv", "logs", "ab", "b", "x.csv", "t.txt", "y", "yes", "csv", "csv.csv", "plain", "café"]
        excluded = {name for name in asked if names.decide(name) != (None, None)}
        assert all(names.suspects(name) for name in excluded)
        assert excluded <= set(names.suspected(asked))
        assert excluded - {"café"} <= set(names.suspected(asked[:-1]))
    assert not ignore.level("z").names.suspects("plain")
    assert ignore.level("z").names.suspected(["csv", "plain", "x.csv.txt"]) == []


def test_a_pattern_for_some_directories_does_not_concern_the_others() -> None:
    ignore = Ignore(b"*.csv\n/data-1?/pri*\n*/[ab]/keep.*\n")
    assert ignore.match("data-12/private", False) == Rule(".genezioignore", 2, "/data-1?/pri*")
    assert ignore.match("data-21/private", False) is None
    assert ignore.match("other/data-12/private", False) is None
    assert ignore.match("x/a/keep.txt", False) == Rule(".genezioignore", 3, "*/[ab]/keep.*")
    assert ignore.match("x/y/a/keep.txt", False) is None
    assert ignore.level("data-21").names is ignore.level("other").names is ignore.level("x/y/a").names
