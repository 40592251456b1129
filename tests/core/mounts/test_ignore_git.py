"""The rules of an ignore file are git's: `git check-ignore` is asked the same questions (C5.2).

Git is asked for many ignore files at a time, each in a directory of its own, since a process for each of them
would cost more than all the answers.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support import case
from tmpguard.core.mounts.ignore import Ignore

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

#: Ignore files of one question to git.
BATCH = 40

#: The directories beside each ignore file, and the names asked for in each of them. There are no files of
#: these names, which to git is the same.
TOP = ["a", "foo", "foobar", "a.b", "d e", "[x]", "é"]
BELOW = ["", "/b", "/foo", "/b/a", "/x.csv/a"]
DIRECTORIES = [top + below for top in TOP for below in BELOW]
FILES = [
    "bar",
    "ab",
    "A1",
    "c.csv",
    ".csv",
    "a ",
    "!b",
    "#b",
    "]",
    "-",
    "\\",
    "*",
    "ü\n",
    "data.tar.gz",
    "voilà",
    "Å",
    "a\t",
]
PATHS = [*DIRECTORIES, *FILES, *(f"{directory}/{FILES[at % 7 + shift]}" for at, directory in
                                enumerate(DIRECTORIES) for shift in (0, 3, 7))]  # fmt: skip


class Git:
    """A repository with room for as many ignore files as one question has."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(root),
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(root.parent),
        }
        subprocess.run(["git", "init", "-q", root], check=True, env=self.environment)
        for number in range(BATCH):
            for directory in DIRECTORIES:
                os.makedirs(root / str(number) / directory, exist_ok=True)

    def ask(self, files: list[bytes], paths: list[str]) -> list[dict[str, tuple[int, str] | None]]:
        """For each ignore file: each path, and the line and pattern that decide about it."""
        for number, data in enumerate(files):
            (self.root / str(number) / ".gitignore").write_bytes(data)
        questions = [f"{number}/{path}" for number in range(len(files)) for path in paths]
        done = subprocess.run(
            ["git", "check-ignore", "--no-index", "-z", "-v", "-n", "--stdin"],
            input=b"\0".join(map(os.fsencode, questions)) + b"\0",
            cwd=self.root,
            env=self.environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode in (0, 1), done.stderr
        fields = [os.fsdecode(field) for field in done.stdout.split(b"\0")[:-1]]
        answers: list[dict[str, tuple[int, str] | None]] = [{} for _ in files]
        for source, line, pattern, path in zip(*[iter(fields)] * 4, strict=True):
            number, _, path = path.partition("/")
            decided = (int(line), pattern) if source and not pattern.startswith("!") else None
            answers[int(number)][path] = decided
        return answers


@pytest.fixture(scope="module")
def git(tmp_path_factory: pytest.TempPathFactory) -> Git:
    return Git(tmp_path_factory.mktemp("repository"))


def ours(data: bytes, paths: list[str]) -> dict[str, tuple[int, str] | None]:
    ignore = Ignore(data)
    rules = {path: ignore.match(path, path in DIRECTORIES) for path in paths}
    return {path: rule and (rule.line, rule.pattern) for path, rule in rules.items()}


def compare(git: Git, files: list[bytes]) -> None:
    for start in range(0, len(files), BATCH):
        batch = files[start : start + BATCH]
        for data, expected in zip(batch, git.ask(batch, PATHS), strict=True):
            with case(data):
                assert ours(data, PATHS) == expected


LINES = [
    # as people write them
    "*.csv", "node_modules/", "/foo", "foo/", "foo/bar", "!foo/bar", "foo/*", "!foo/b/", "**/foo", "foo/**",
    "a/**/a", "*.tar.*", "# comment", r"\#b", r"\!b", "data.*", ".*", "*", "/*", "!/foo", "**", "/**", "**/",
    "*/", "/", "//", "!", "", "  ", "a  ", r"a\ ", "a \\ ", "\ta", "a\t", "A1", "é", "ü*", "d?e", "d e/",
    # wildcards
    "?", "??", "???", "f*r", "f*o*r", "*a*", "**a", "a**", "f**r", "foo**/b", "foo**", "x/**foo", "foo***/b",
    "foo/**/", "***", "a/***/a", r"foo/**\/a", "foo?b", "foo/?", "*/*/a", "**/b/**", "*/**/a", "foo*/**",
    "a//b", "***/a", "/***", "foo/***", "foo/**/**/", "*/**/", "/**/", "**/*/",
    "**/a/*", "**/b/a", "!**/b/*", "**/foo/b/", "**/a/**", "x/**/a/*",
    # brackets
    "[a-f]oo", "[!a]oo", "[^a]oo", "[[:alpha:]]oo", "[[:digit:]A]1", "[[:upper:]][[:digit:]]", "[]]",
    "[!]]",
    "[]-]", "[a-]", "[-a]", "[a", "[!", "[", "[]", "[[]x]", r"[\]]", r"[\\]", "[z-a]", "[[:nope:]]", "[[:]",
    "[[::]]", "[[:alpha:", "[a-[:digit:]]", "foo[/]b", "foo[!x]b", "[!x]", "[*]", "[?]", "[[-a]*", "[--a]",
    "[[:punct:]]", "foo[b/]", "[/a]oo", "[!/]", "foo/[!b]", "foo/[/-]*", "[!^]", "[^!]", "[a-\\",
    "[!-~]", r"[+--]", "[,-.]", r"[a-\]]*", r"[\a-\f]oo", "a[[:blank:]]", "[[:space:]]", "[[:graph:]]",
    "[[:print:]]*b", "[[:cntrl:]]", "[[:xdigit:]]*", "[[:lower:]]*", "[[:alnum:]][[:alnum:]]",
    # escapes
    "voilà", "*à", "Å/", "[à]", "/à*", "\tÅ", r"\à", "\x85",
    "\\", "a\\", r"\a", r"\*", r"\?", r"\[x\]", "\\\\", r"\foo", r"foo\/", r"foo\/b", r"*\o", r"\é",
]  # fmt: skip


#: What is understood otherwise than by git. By its manual two stars are one star beside anything but a slash;
#: by git itself they are two behind the literal beginning of a line.
OTHERWISE = {"a**/a", "a**/*", "/a**/**"}


def test_each_kind_of_line_alone(git: Git) -> None:
    compare(git, [line.encode() for line in LINES if line not in OTHERWISE])


def test_what_is_understood_otherwise_is_known(git: Git) -> None:
    """Where they come to agree, the line leaves the list."""
    lines = sorted(OTHERWISE)
    agreed = [
        line
        for line, expected in zip(lines, git.ask([line.encode() for line in lines], PATHS), strict=True)
        if ours(line.encode(), PATHS) == expected
    ]
    assert agreed == []


def test_line_ends_marks_and_bytes_that_are_no_text(git: Git) -> None:
    compare(
        git,
        [
            b"foo\r\na.b\r\n\r\n",
            b"foo\r",
            b"\xef\xbb\xbffoo\n",
            b"\xef\xbb\xbf# comment\nfoo",
            b"a\n\xef\xbb\xbffoo",
            b"fo\0o\nfoo\0bar",
            b"\xe9\n[\xc3]?\n\xc3*\n",
            b"\xff\xfef\0o\0o\0",
            b"foo \r\n",
            b"#\nfoo\n\n!foo\n",
        ],
    )


def test_the_last_line_decides_but_not_within_an_ignored_directory(git: Git) -> None:
    compare(
        git,
        [
            b"foo/\n!foo/bar\n",
            b"foo/*\n!foo/b\n!foo/b/a/\n",
            b"/*\n!/foo\n/foo/*\n!/foo/b\n",
            b"*\n!*/\n!*.csv\n",
            b"*.csv\n!c.csv\n*.csv/\n",
            b"foo\n!foo/\n",
            b"foo/\n!foo\n",
            b"**\n!a\n!a/b\n",
            b"!foo\nfoo\n!foo\n!b\n",
            b"*\n!/**/*/\n",
            b"*/b\n!/**/**/\n",
            b"foo/*\n!**/***/b/\n",
            b"foo\n!/\n!//\n!\n",
            b"/***/\n!a?b\n",
        ],
    )


PIECES = [*"ab/*?.!- #1oéà[]\\", "foo", "**", "/**", "[a-f]", "[!a]", "[[:alpha:]", ".csv", "!", "x"]
OFTEN_OTHERWISE = re.compile(r"[^/*]\*\*+(\\?/|$)|\*\*\\/")
line = (
    st.lists(st.sampled_from(PIECES), max_size=7)
    .map("".join)
    .filter(lambda text: not OFTEN_OTHERWISE.search(text))
) | st.sampled_from([text for text in LINES if text not in OTHERWISE])
ignore_file = st.lists(line, max_size=6).map(lambda lines: "\n".join(lines).encode())


# Nothing is shrunk: a failure names the one ignore file of the many that it is about.
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(st.lists(ignore_file, min_size=BATCH, max_size=BATCH))
def test_any_ignore_file(git: Git, files: list[bytes]) -> None:
    compare(git, files)
