"""Git's patterns where pathspec reads them differently: sets in brackets, some escapes, runs of stars.

Reason to keep it: pathspec 1.1.1, the newest when it was last tried, has no character classes
(``[[:alpha:]]``), lets sets match a slash, and refuses ranges such as ``[z-a]`` and escapes such as ``\\/``,
which git reads. Of the 149 lines that tests/core/mounts/test_ignore_git.py asks git about one by one,
pathspec alone answers 26 differently and refuses 10.

Patterns are text with one character for each byte (``ignore.byte_text``). Sets become characters of a private
range of Unicode. pathspec passes these on as they are, and in what it makes of the pattern they stand for
their expressions.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from typing import Final

#: The first of the characters that stand for sets. No byte has them.
_FIRST: Final = 0xF0000
_STANDING: Final = re.compile(f"[{chr(_FIRST)}-\U0010ffff]")

#: What makes a name a pattern; the characters that stand for sets, too.
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
    """A pattern as pathspec is to read it: ``text``, in which single characters stand for sets."""

    __slots__ = ("_expressions", "text")

    def __init__(self, text: str, expressions: Iterable[str]) -> None:
        self.text = text
        self._expressions = tuple(expressions)

    def restored(self, expression: str) -> re.Pattern[str]:
        """What pathspec has made of the text, compiled with the sets in their places."""
        return re.compile(
            _STANDING.sub(lambda found: self._expressions[ord(found[0]) - _FIRST], expression),
            re.DOTALL,  # a name may have any character
        )


def rewritten(line: str) -> Pattern | None:
    """The pattern of a line without the spaces at its end; None for one that can match nothing."""
    body = line.removeprefix("!")
    made: list[str] = []
    standing: dict[str, str] = {}
    anchored = False

    def stand_for(members: Iterable[int]) -> str:
        return standing.setdefault(_expression(members), chr(_FIRST + len(standing)))

    at = 0
    while at < len(body):
        char, following = body[at], body[at + 1 : at + 2]
        if char == "[":
            found = _set(body, at)
            if found is None:
                return None
            members, end = found
            made.append(stand_for(members))
            anchored = anchored or "/" in body[at:end]
            at = end
            continue
        if char == "\\":
            at += 1
            if not following or (following == "/" and not (made and body[at + 1 :])):
                return None
            char = "/" if following == "/" else char + following
        # What Python takes for a space pathspec would strip; "à" and "Å" end in such a byte.
        made.append(stand_for([ord(char[-1])]) if char[-1].isspace() and char != " " else char)
        at += 1
    text = re.sub(r"(^|(?<=/))\*{3,}(?=/|$)", "**", "".join(made))
    if anchored and "/" not in text.rstrip("/"):
        text = "/" + text  # to git a slash in a set is one, too
    if text.endswith("/**/"):
        text += "*/"  # directories in it
    text = re.sub(r"^/?(\*\*/)+(?=.)", "**/", text)
    if not text.strip("/"):
        return None
    return Pattern("!" * (body != line) + text, standing)


def _set(text: str, at: int) -> tuple[set[int], int] | None:
    """What the set that begins at ``at`` matches, and where it ends; None where git gives it up."""
    at += 1
    negated = text[at : at + 1] in ("!", "^")
    start = at = at + negated
    found: set[int] = set()
    before = ""  # what a range may begin with
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
    """A regular expression for one of these characters, but for a slash, which no set matches."""
    ranges: list[list[int]] = []
    for member in sorted(set(members) - {ord("/")}):
        if ranges and ranges[-1][1] == member - 1:
            ranges[-1][1] = member
        else:
            ranges.append([member, member])
    return "".join(["[", *(rf"\x{low:02x}-\x{high:02x}" for low, high in ranges), "]"]) if ranges else "(?!)"
