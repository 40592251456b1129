"""The ``.dockerignore`` of a function: the patterns that leave files out of its code, in Docker's language.

The two languages differ. In Docker's, a pattern has no end "only directories", ``!`` includes files again
even in a directory that is left out, and all that is in a directory goes with it. What is there now and would
be treated differently is listed at the end. Lines that cannot be translated are there as comments.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from typing import Final

from tmpguard.core import originals
from tmpguard.core.mounts.ignore import Ignore, Rule

from .deployment import Deployment

#: The most paths that are listed.
_LISTED: Final = 500
_EXTENDED: Final = re.compile(r"[!@+?*]\(|(?<![!@+?*])\(")


def dockerignore(deployment: Deployment) -> str:
    """The text of the file: the patterns are relative to the context of the build."""
    ignore = deployment.ignore
    if ignore is None:
        return "# Written by tmpguard export docker: the project leaves nothing out.\n"
    lines = [f"# Written by tmpguard export docker from {os.path.basename(ignore.file)}."]
    is_gitignore = not deployment.is_lambda
    for rule, excludes in zip(ignore.rules, ignore.excluding, strict=True):
        lines += _of_gitignore(rule) if is_gitignore else _of_globs(rule, excludes)
    lines += _corrections(lines, ignore, deployment.context)
    return "\n".join(lines) + "\n"


# --- the lines of a .genezioignore ---------------------------------------------------------------------


def _of_gitignore(rule: Rule) -> list[str]:
    pattern = rule.pattern
    again = "!" if pattern.startswith("!") else ""
    text = pattern.removeprefix("!").rstrip("/")
    if not text:
        return []
    if not _is_ascii_class(text):
        return [f"# Cannot be expressed, line {rule.line}: {pattern}"]
    anchored = "/" in text
    text = text.removeprefix("/")
    names = [_of_name(name) for name in text.split("/")]
    # Docker's patterns begin at the top.
    return [again + "/".join(names if anchored else ["**", *names])]


def _is_ascii_class(text: str) -> bool:
    """Whether its classes are such as Go's filepath.Match has, too."""
    return "[:" not in text and "[.]" not in text and "[]" not in text


def _of_name(name: str) -> str:
    """One name of a pattern. Only alone are two stars any directories; Docker takes them so anywhere."""
    if name == "**":
        return name
    return re.sub(r"(?<!\\)\*{2,}", "*", name).replace("[!", "[^")


# --- the patterns of a serverless.yml ------------------------------------------------------------------


def _of_globs(rule: Rule, excludes: bool) -> list[str]:
    pattern = rule.pattern
    text = pattern.removeprefix("!").removeprefix("./")
    if _EXTENDED.search(text) or re.search(r"\.\.|\[!|\$\{", text):
        return [f"# Cannot be expressed, line {rule.line}: {pattern}"]
    return [("" if excludes else "!") + one for one in _braces(text)]


def _braces(text: str) -> list[str]:
    """``a{b,c}`` as ``ab`` and ``ac``. The innermost braces first."""
    found = re.search(r"\{([^{}]*)\}", text)
    if found is None:
        return [text]
    head, tail = text[: found.start()], text[found.end() :]
    return [one for part in found[1].split(",") for one in _braces(head + part + tail)]


# --- the difference ------------------------------------------------------------------------------------


def _corrections(lines: list[str], ignore: Ignore, context: str) -> list[str]:
    """Lines that make the difference for the files that are there now."""
    docker = _Docker(lines)
    found = [*_different(docker, ignore, context, "", False)]
    if not found:
        return []
    shown = ["# What is there now and the lines above would treat differently:", *found[:_LISTED]]
    return shown + ([f"# and {len(found) - _LISTED:,} more"] if len(found) > _LISTED else [])


def _different(docker: _Docker, ignore: Ignore, context: str, head: str, skipped: bool) -> Iterator[str]:
    """What is different below ``head``. ``skipped``: Docker does not look there."""
    for entry in _entries(context, head):
        path = head + entry.name
        is_directory = entry.is_dir(follow_symlinks=False)
        left_out = ignore.match(path, is_directory) is not None
        if not is_directory:
            if left_out != (skipped or docker.leaves_out(path)):
                yield ("" if left_out else "!") + _literal(path)
        elif not left_out:
            yield from _different(docker, ignore, context, path + "/", skipped or docker.skips(path))
        elif not skipped and _has_some(docker, context, path):
            yield _literal(path)


def _has_some(docker: _Docker, context: str, directory: str) -> bool:
    """Whether Docker would take a file in a directory that is left out."""
    if docker.skips(directory):
        return False
    for entry in _entries(context, directory + "/"):
        path = f"{directory}/{entry.name}"
        if entry.is_dir(follow_symlinks=False):
            if _has_some(docker, context, path):
                return True
        elif not docker.leaves_out(path):
            return True
    return False


def _entries(context: str, head: str) -> list[os.DirEntry[str]]:
    try:
        with originals.scandir(os.path.join(context, head)) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError:
        return []


def _literal(path: str) -> str:
    return re.sub(r"([*?\[\]\\])", r"\\\1", path)


class _Docker:
    """What Docker makes of the lines: the last that matches a path, or a directory on its way, decides."""

    def __init__(self, lines: list[str]) -> None:
        patterns = [line for line in lines if not line.startswith("#")]
        #: The last one first, each with what it decides.
        self._patterns = [
            (_compiled(one.removeprefix("!")), not one.startswith("!")) for one in reversed(patterns)
        ]
        again = (re.sub(r"(/\*\*|\*)\Z", "", one[1:]) for one in patterns if one.startswith("!"))
        self._again = [f"{one}/" for one in again]

    def leaves_out(self, path: str) -> bool:
        names = path.split("/")
        ways = ["/".join(names[:end]) for end in range(len(names), 0, -1)]
        for expression, leaves_out in self._patterns:
            if any(expression.fullmatch(way) for way in ways):
                return leaves_out
        return False

    def skips(self, directory: str) -> bool:
        """Whether it does not look into the directory: no line with ``!`` begins with its name."""
        return self.leaves_out(directory) and not any(one.startswith(f"{directory}/") for one in self._again)


def _compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression that Docker makes of a pattern."""
    found = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*" and pattern[at : at + 1] == "*":
            at += 1
            if pattern[at : at + 1] == "/":
                at += 1
            found.append(".*" if at == len(pattern) else "(?:.*/)?")
        elif character in "*?":
            found.append("[^/]*" if character == "*" else "[^/]")
        elif character == "\\" and at < len(pattern):
            found.append(re.escape(pattern[at]))
            at += 1
        else:
            found.append(character if character in "[]^-" else re.escape(character))
    try:
        return re.compile("".join(found), re.DOTALL)
    except re.error:
        return re.compile("(?!)")
