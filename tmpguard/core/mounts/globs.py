"""Which files the patterns of a ``serverless.yml`` leave out of a function's code.

The patterns are globs that match files only: ``!tests/**`` leaves files out, ``tests/data/**`` puts them
back, at any depth, and the last pattern that matches decides. That is where they differ from gitignore's. A
directory is absent if a pattern leaves out everything in it and no later one puts anything back.
"""

from __future__ import annotations

import re
from typing import Final

from .ignore import Rule

#: A name that no pattern is written for: what matches it matches every name.
_ANY: Final = "\x01"
_WILD: Final = re.compile(r"[*?\[{(\\]")
#: What a name begins after and ends before.
_BEFORE: Final = ("", "/", "{", ",", "(", "|")
_AFTER: Final = ("", "/", "}", ",", ")", "|")
_RANGE: Final = re.compile(r"(-?\d{1,18})\.\.(-?\d{1,18})|([A-Za-z])\.\.([A-Za-z])")
#: The most alternatives of a range in braces.
_MOST: Final = 1000
_REPEATS: Final = {"@": "", "?": "?", "+": "+", "*": "*"}


class Glob:
    """One pattern. It has the attributes and methods that :class:`~.ignore.Names` uses of a pattern.

    Raises ValueError for a ``text`` that is no glob, or none that can be evaluated.
    """

    __slots__ = ("_head", "below", "excludes", "expression", "path", "plain", "rule")

    def __init__(self, rule: Rule, text: str, *, excludes: bool) -> None:
        self.rule = rule
        self.excludes = excludes
        try:
            self.expression = re.compile(translated(text), re.DOTALL)
        except re.error as exc:
            raise ValueError(f"is not valid: {exc.msg}") from None
        self.path = True
        self.below = False
        self.plain: str | None = None
        #: The start of the path of everything that it matches.
        self._head = literal(text)

    def is_for(self, prefix: str) -> bool:
        """Whether it can match anything below the directory ``prefix``, which ends in a slash."""
        return prefix.startswith(self._head) or self._head.startswith(prefix)

    def names(self, path: str, *, directory: bool) -> bool:
        """Whether it decides ``path``: for a directory, whether it decides everything in it."""
        if not directory:
            return self.expression.fullmatch(path) is not None
        if not self.excludes:
            return self.is_for(path + "/")
        every = (f"{path}/{_ANY}", f"{path}/{_ANY}/{_ANY}")
        return all(self.expression.fullmatch(one) for one in every)


def literal(text: str) -> str:
    """What the paths that ``text`` matches begin with."""
    found = _WILD.search(text)
    return text if found is None else re.sub(r"[!@+]\Z", "", text[: found.start()])


def translated(text: str) -> str:
    """The regular expression for the glob ``text``.

    ``*`` and ``?`` match within a name, ``**`` any directories. There are ``[classes]``, ``{a,b}``,
    ``{1..3}`` and ``@(a|b)`` with its likes. Raises ValueError for what is none of these, such as ``!(a)``.
    """
    return _Translator(text).whole()


class _Translator:
    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def whole(self) -> str:
        made = self.until("")
        if self.at < len(self.text):
            raise ValueError(f"has an unexpected {self.text[self.at]!r}")
        return made

    def until(self, ends: str) -> str:
        """The expression up to the first of the characters ``ends``, which is not consumed."""
        found = []
        while self.at < len(self.text) and self.text[self.at] not in ends:
            found.append(self.one())
        return "".join(found)

    def one(self) -> str:
        character = self.text[self.at]
        following = self.text[self.at + 1 : self.at + 2]
        if following == "(" and character in "!@+?*":
            return self.extended(character)
        if character == "*":
            return self.stars()
        self.at += 1
        if character == "/" and self.text[self.at :] == "**":
            after_star = self.text[: self.at - 1].endswith("*")
            self.at += 2
            return "/.*" if after_star else "(?:/.*)?"  # `a/**` matches `a` as well, `*/**` no name alone
        if character == "?":
            return "[^/]"
        if character == "[":
            return self.characters()
        if character == "{":
            return self.braces()
        if character == "(":
            return self.alternatives("|", ")")
        if character == "\\" and following:
            self.at += 1
            return re.escape(following)
        return re.escape(character)

    def stars(self) -> str:
        start = self.at
        while self.text[self.at : self.at + 1] == "*":
            self.at += 1
        alone = self.at - start == 2 and self.text[:start][-1:] in _BEFORE
        following = self.text[self.at : self.at + 1]
        if not alone or following not in _AFTER:
            return "[^/]*"
        if following == "/":
            self.at += 1
            return "(?:.*/)?"
        return ".*"

    def characters(self) -> str:
        # An exclamation mark is one of the characters.
        negated = self.text.startswith("^", self.at)
        start = self.at + negated
        end = self.text.find("]", start + 1)
        if end < 0:
            return r"\["
        self.at = end + 1
        inner = re.sub(r"([\[&~|])", r"\\\1", self.text[start:end].replace("\\", r"\\"))
        return f"[{'^/' if negated else ''}{inner}]"

    def braces(self) -> str:
        end = self.text.find("}", self.at)
        if end >= 0 and (found := _RANGE.fullmatch(self.text[self.at : end])):
            self.at = end + 1
            return self.range(found)
        return self.alternatives(",", "}")

    @staticmethod
    def range(found: re.Match[str]) -> str:
        numbers = found[1] is not None
        first, last = (int(found[1]), int(found[2])) if numbers else (ord(found[3]), ord(found[4]))
        first, last = min(first, last), max(first, last)
        if last - first >= _MOST:
            raise ValueError(f"has a range of more than {_MOST:,} numbers")
        padded = numbers and any(len(end) > 1 and end.startswith("0") for end in found.group(1, 2))
        width = max(len(end) for end in found.group(1, 2)) if padded else 0
        every = (re.escape(f"{one:0{width}}" if numbers else chr(one)) for one in range(first, last + 1))
        return f"(?:{'|'.join(every)})"

    def extended(self, kind: str) -> str:
        if kind == "!":
            raise ValueError("has !(...), which tmpguard does not evaluate")
        self.at += 2
        return self.alternatives("|", ")") + _REPEATS[kind]

    def alternatives(self, between: str, end: str) -> str:
        found = [self.until(between + end)]
        while self.text[self.at : self.at + 1] == between:
            self.at += 1
            found.append(self.until(between + end))
        if self.at == len(self.text):
            raise ValueError(f"has no {end!r} where one is needed")
        self.at += 1
        return f"(?:{'|'.join(found)})"
