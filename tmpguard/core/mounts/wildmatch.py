"""Rewrites git's patterns that pathspec reads differently: sets in brackets, some escapes, runs of stars.

Why it is needed: pathspec 1.1.1, the newest version when last checked, has no character classes
(``[[:alpha:]]``), lets sets match a slash, and rejects ranges such as ``[z-a]`` and escapes such as ``\\/``,
which git accepts. tests/core/mounts/test_ignore_git.py checks 149 lines against git one by one. pathspec
alone gives a different answer for 26 of them and rejects 10.

Patterns are text with one character for each byte (``ignore.byte_text``). Each set is replaced by a character
from a private range of Unicode, which pathspec passes through unchanged. In the resulting regular expression
that character is replaced by the expression of the set.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from typing import Final

#: The first of the placeholder characters for sets. No byte maps to them.
_FIRST: Final = 0xF0000
_PLACEHOLDER: Final = re.compile(f"[{chr(_FIRST)}-\U0010ffff]")

#: The wildcard characters, including the placeholders for sets.
WILD: Final = re.compile(rf"[][*?\\{chr(_FIRST)}-{chr(0x10FFFF)}]")

_SPACES: Final = " \t\n\r"  # git's own list
_PRINTED: Final = string.digits + string.ascii_letters + string.punctuation
_CLASSES: Final = {
    "alnum": string.digits + string.ascii_letters,
    "alpha": string.ascii_letters,
    "blank": " \t",
    "cntrl": "".join(map(chr, (*range(32), 127))),
    "digit": string.digits,
    "graph": _PRINTED,
    "lower": string.ascii_lowercase,
    "print": _PRINTED + " ",
    "punct": string.punctuation,
    "space": _SPACES,
    "upper": string.ascii_uppercase,
    "xdigit": string.hexdigits,
}


class Pattern:
    """A pattern for pathspec: ``text``, with placeholder characters for sets."""

    __slots__ = ("_expressions", "text")

    def __init__(self, text: str, expressions: Iterable[str]) -> None:
        self.text = text
        self._expressions = tuple(expressions)

    def restored(self, expression: str) -> re.Pattern[str]:
        """The ``expression`` that pathspec made of the text, compiled with the sets put back."""
        return re.compile(
            _PLACEHOLDER.sub(lambda found: self._expressions[ord(found[0]) - _FIRST], expression),
            re.DOTALL,  # a name may contain any character
        )


def rewritten(line: str) -> Pattern | None:
    """The pattern of a line, given without trailing spaces; None if it cannot match anything."""
    body = line.removeprefix("!")
    made: list[str] = []
    placeholders: dict[str, str] = {}
    anchored = False

    def placeholder(members: Iterable[int]) -> str:
        return placeholders.setdefault(_expression(members), chr(_FIRST + len(placeholders)))

    at = 0
    while at < len(body):
        char, following = body[at], body[at + 1 : at + 2]
        if char == "[":
            found = _set(body, at)
            if found is None:
                return None
            members, end = found
            made.append(placeholder(members))
            anchored = anchored or "/" in body[at:end]
            at = end
            continue
        if char == "\\":
            at += 1
            if not following or (following == "/" and not (made and body[at + 1 :])):
                return None
            char = "/" if following == "/" else char + following
        # pathspec strips what Python considers whitespace; "à" and "Å" end in such a byte.
        made.append(placeholder([ord(char[-1])]) if char[-1].isspace() and char != " " else char)
        at += 1
    text = re.sub(r"(^|(?<=/))\*{3,}(?=/|$)", "**", "".join(made))
    if anchored and "/" not in text.rstrip("/"):
        text = "/" + text  # git counts a slash in a set, too
    if text.endswith("/**/"):
        text += "*/"  # only the directories inside
    text = re.sub(r"^/?(\*\*/)+(?=.)", "**/", text)
    if not text.strip("/"):
        return None
    return Pattern("!" * (body != line) + text, placeholders)


def _set(text: str, at: int) -> tuple[set[int], int] | None:
    """The bytes that the set starting at ``at`` matches, and where it ends; None if git rejects it."""
    at += 1
    negated = text[at : at + 1] in ("!", "^")
    start = at = at + negated
    found: set[int] = set()
    before = ""  # the character that may start a range
    while at == start or text[at : at + 1] != "]":
        char = text[at : at + 1]
        if char == "-" and before and text[at + 1 : at + 2] not in ("", "]"):
            at += 1 + (text[at + 1] == "\\")
            found.update(range(ord(before), ord(text[at : at + 1] or "\0") + 1))
            before = ""
        elif text.startswith("[:", at) and (end := text.find("]", at)) > at + 2 and text[end - 1] == ":":
            members = _CLASSES.get(text[at + 2 : end - 1])
            if members is None:
                return None
            found.update(map(ord, members))
            before, at = "", end
        else:
            at += char == "\\"
            before = text[at : at + 1]
            found.update(map(ord, before))
        at += 1
        if at > len(text):
            return None
    return (set(range(256)) - found if negated else found), at + 1


def _expression(members: Iterable[int]) -> str:
    """A regular expression for any of ``members`` except a slash, which no set matches."""
    ranges: list[list[int]] = []
    for member in sorted(set(members) - {ord("/")}):
        if ranges and ranges[-1][1] == member - 1:
            ranges[-1][1] = member
        else:
            ranges.append([member, member])
    return "".join(["[", *(rf"\x{low:02x}-\x{high:02x}" for low, high in ranges), "]"]) if ranges else "(?!)"
