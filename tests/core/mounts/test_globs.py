"""The patterns of a serverless.yml match what micromatch matches, which the framework uses."""

from __future__ import annotations

import re

import pytest

from tmpguard.core.mounts.globs import Glob, literal, translated
from tmpguard.core.mounts.ignore import Ignore, Rule

PATHS = [
    *("a", "b", "app.py", "src", "src/app.py", "src/tests/test_app.py", "src/tests/data/x.json", "src/.env"),
    *(".env", ".git/HEAD", "node_modules/x", "node_modules/x/index.js", "node_modules/fetch/lib/index.js"),
    *("tests/test_a.py", "tests/data/1.csv", "tests/data/12.csv", "docs/index.md", "a/b/c/d.txt"),
    *("cache/x.pyc", "src/__pycache__/app.pyc", "*", "[x]", "!a.txt", "Größe.txt"),
]

#: What micromatch 4.0.8 matches, with `dot: true`.
MATCHED = {
    "*": ["a", "b", "app.py", "src", ".env", "*", "[x]", "!a.txt", "Größe.txt"],
    "src/**": [
        *("src", "src/app.py", "src/tests/test_app.py", "src/tests/data/x.json", "src/.env"),
        "src/__pycache__/app.pyc",
    ],
    "src/*": ["src/app.py", "src/.env"],
    "src/***": ["src/app.py", "src/.env"],
    "src/**/*.py": ["src/app.py", "src/tests/test_app.py"],
    "**/*.py": ["app.py", "src/app.py", "src/tests/test_app.py", "tests/test_a.py"],
    "**/__pycache__/**": ["src/__pycache__/app.pyc"],
    "*.py": ["app.py"],
    "tests/data/?.csv": ["tests/data/1.csv"],
    "tests/data/[0-9][0-9].csv": ["tests/data/12.csv"],
    "tests/data/{1..3}.csv": ["tests/data/1.csv"],
    "node_modules/*/**": ["node_modules/x/index.js", "node_modules/fetch/lib/index.js"],
    "{tests,docs}/**": [
        *("tests/test_a.py", "tests/data/1.csv", "tests/data/12.csv"),
        "docs/index.md",
    ],
    "src/{tests,app.py}": ["src/app.py"],
    "**/*.{pyc,csv}": [
        *("tests/data/1.csv", "tests/data/12.csv", "cache/x.pyc"),
        "src/__pycache__/app.pyc",
    ],
    "**/.env*": ["src/.env", ".env"],
    ".env": [".env"],
    "src/@(app|main).py": ["src/app.py"],
    "src/?(app).py": ["src/app.py"],
    "+(a|b)": ["a", "b"],
    "(tests|docs)/*": ["tests/test_a.py", "docs/index.md"],
    "a/*/c/*": ["a/b/c/d.txt"],
    "a/**/d.txt": ["a/b/c/d.txt"],
    "[!a]": ["a"],
    "[^a]": ["b", "*"],
    "\\*": ["*"],
    "**/": [],
    "Größe.txt": ["Größe.txt"],
}


@pytest.mark.parametrize("text", MATCHED)
def test_a_pattern_matches_what_micromatch_matches(text: str) -> None:
    expression = re.compile(translated(text), re.DOTALL)
    matched = [path for path in PATHS if expression.fullmatch(path)]
    assert matched == MATCHED[text]
    assert all(path.startswith(literal(text)) for path in matched if path != "src")


def test_everything_is_matched_by_two_stars() -> None:
    assert all(re.fullmatch(translated("**"), path) for path in PATHS)


@pytest.mark.parametrize("text", ["!(a)", "{a,b", "@(a|b", "{1..100000}", "[z-a]"])
def test_what_cannot_be_evaluated_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"has |is not valid"):
        Glob(Rule("file", 1, text), text, excludes=True)


def ignore(*patterns: str) -> Ignore:
    """The rules of these patterns, each in its line."""
    globs = [
        Glob(Rule("serverless.yml", line, one), one.removeprefix("!"), excludes=one.startswith("!"))
        for line, one in enumerate(patterns, 1)
    ]
    return Ignore(b"", "serverless.yml", patterns=globs)


def test_the_last_pattern_that_matches_a_file_decides() -> None:
    rules = ignore("!tests/**", "tests/data/**", "!**/*.csv")
    assert rules.match("tests/a.py", False) == Rule("serverless.yml", 1, "!tests/**")
    assert rules.match("tests/data/a.txt", False) is None
    assert rules.match("tests/data/b.csv", False) == Rule("serverless.yml", 3, "!**/*.csv")
    assert rules.match("app.py", False) is None


def test_files_can_be_put_back_at_any_depth() -> None:
    rules = ignore("!node_modules/**", "node_modules/fetch/lib/*.js")
    assert rules.match("node_modules/fetch/lib/index.js", False) is None
    assert rules.match("node_modules/fetch/index.js", False) is not None
    assert rules.match("node_modules/fetch/lib", True) is None
    assert rules.match("node_modules/other", True) == Rule("serverless.yml", 1, "!node_modules/**")
    assert rules.match("node_modules/other/deep/file", False) == Rule("serverless.yml", 1, "!node_modules/**")


def test_a_directory_is_absent_only_if_everything_in_it_is() -> None:
    rules = ignore("!a/*", "!b/**/*.py", "!**/c/**")
    assert rules.match("a", True) is None
    assert rules.match("b", True) is None
    assert rules.match("x/c", True) == Rule("serverless.yml", 3, "!**/c/**")
    assert rules.match("x", True) is None


def test_everything_can_be_left_out_but_some() -> None:
    rules = ignore("!**", "src/app.py")
    assert rules.match("src/app.py", False) is None
    assert rules.match("src", True) is None
    assert rules.match("docs", True) == Rule("serverless.yml", 1, "!**")
