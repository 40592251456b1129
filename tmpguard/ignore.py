"""Which files a ``.genezioignore`` leaves out of the bundle, by which of its lines (C5.2).

The syntax is that of gitignore, and git itself is the reference, its undocumented sides included: the last
matching line decides; what lies in an ignored directory is ignored by the line that names the directory, and
nothing in it can be taken back in.

Each line is compiled once (:mod:`tmpguard.wildmatch`). For a directory it is found out once which lines can
name anything in it; most directories share the answer. So a name costs a few look-ups, or one regular
expression where the lines in question need one.
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

from .errors import ConfigurationError
from .interpose import originals
from .wildmatch import Matcher, byte_text, compile_name, compile_path

#: The name of the file, as the platform looks for it.
NAME: Final = ".genezioignore"

#: Answers kept; with more of them it begins anew, so that made-up paths cannot fill the memory.
_KEPT: Final = 20_000


class Rule(NamedTuple):
    """One line of an ignore file: the file's path, the line's number from 1, and its pattern as written."""

    file: str
    line: int
    pattern: str

    def __str__(self) -> str:
        return f"{os.path.basename(self.file)} line {self.line}, `{self.pattern}`"


class _Pattern(NamedTuple):
    """A rule, compiled."""

    rule: Rule
    excludes: bool
    only_directories: bool
    matcher: Matcher


#: What decides for a name, were it a directory and were it not; None: it is not ignored.
Decision = tuple[Rule | None, Rule | None]


class Names:
    """The patterns that can match names in a directory, and what they say of each."""

    __slots__ = ("_always", "_decided", "_endings", "_expression", "_literals", "_patterns", "_prefix")

    def __init__(self, patterns: list[_Pattern], prefix: str) -> None:
        #: From the last to the first, since the last one that matches decides.
        self._patterns = patterns[::-1]
        self._prefix = prefix
        self._decided: dict[str, Decision] = {}
        literals, endings, expressions = set(), [], []
        for pattern in patterns:
            _, tail, _, plain = pattern.matcher
            if not pattern.excludes:
                continue
            if plain is None:
                expressions.append("" if tail is None else rf"(?:{tail.pattern})\Z")
            elif plain.startswith("*"):
                endings.append(plain[1:])
            else:
                literals.add(plain)
        self._always = "" in expressions or "" in endings
        self._literals = frozenset(literals)
        self._endings = tuple(endings)
        self._expression = re.compile("|".join(expressions), re.DOTALL) if expressions else None

    def suspects(self, name: str) -> bool:
        """May ``name`` be excluded? A quick look; :meth:`decide` knows."""
        if not name.isascii():
            name = byte_text(name)
        return (
            self._always
            or name in self._literals
            or name.endswith(self._endings)
            or (self._expression is not None and self._expression.match(name) is not None)
        )

    def decide(self, name: str) -> Decision:
        """The rule by which ``name`` is excluded, were it a directory and were it none."""
        decided = self._decided.get(name)
        if decided is None:
            if len(self._decided) >= _KEPT:
                self._decided.clear()
            decided = self._decided[name] = self._decide(byte_text(name))
        return decided

    def _decide(self, name: str) -> Decision:
        as_directory: Rule | None = None
        open_for_directories = True
        for pattern in self._patterns:
            _, tail, whole, _ = pattern.matcher
            if tail is not None and tail.fullmatch(name) is None:
                continue
            if whole is not None and whole.fullmatch(self._prefix + name) is None:
                continue
            rule = pattern.rule if pattern.excludes else None
            if open_for_directories:
                as_directory = rule
                open_for_directories = False
            if not pattern.only_directories:
                return as_directory, rule
        return as_directory, None


class Level(NamedTuple):
    """What holds for the names in one directory: excluded altogether by a rule, or else each by ``names``."""

    excluded: Rule | None
    names: Names


class Ignore:
    """The rules of one ignore file. ``rules`` are its lines in their order, those with ``!`` included."""

    __slots__ = ("_levels", "_names", "_patterns", "file", "rules")

    def __init__(self, data: bytes, file: str = NAME) -> None:
        self.file = file
        self._patterns = _parse(data, file)
        self.rules = tuple(pattern.rule for pattern in self._patterns)
        self._names: dict[tuple[int, ...], Names] = {}
        self._levels = {"": Level(None, self._names_in(""))}

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Ignore:
        """The rules of the file ``path``.

        Raises ConfigurationError where it cannot be read: absent, a directory, no permission.
        """
        name = os.fsdecode(path)
        try:
            with originals.open(name, "rb") as file:
                data = file.read()
        except OSError as exc:
            raise ConfigurationError(f"{name}: cannot be read: {exc.strerror}") from exc
        return cls(data, os.path.abspath(name))

    def match(self, path: str, is_directory: bool) -> Rule | None:
        """The rule by which ``path`` is ignored, None where it is not.

        ``path`` is relative to the directory of the ignore file, with slashes and without dot names.
        ``is_directory`` is to tell a directory itself, not a link to one: ``logs/`` does not name a link.
        """
        path = path.rstrip("/")
        if not path:
            return None  # the directory of the ignore file
        head, _, name = path.rpartition("/")
        level = self.level(head)
        return level.excluded or level.names.decide(name)[not is_directory]

    def level(self, directory: str) -> Level:
        """What holds for the names in ``directory``, relative as in :meth:`match`; ``""`` is the top."""
        level = self._levels.get(directory)
        if level is not None:
            return level
        if len(self._levels) >= _KEPT:
            self._levels = {"": self._levels[""]}
        # From the top down, since a directory that is ignored decides for all that lies in it.
        level = self._levels[""]
        end = 0
        while end < len(directory):
            start = end
            end = directory.find("/", start + 1)
            end = len(directory) if end < 0 else end
            path = directory[:end]
            known = self._levels.get(path)
            if known is None:
                rule = level.excluded or level.names.decide(path[start and start + 1 :])[0]
                known = Level(rule, level.names if rule else self._names_in(path + "/"))
                self._levels[path] = known
            level = known
        return level

    def _names_in(self, prefix: str) -> Names:
        """The patterns for the directory ``prefix``, which ends in a slash; most have the same in common."""
        prefix = byte_text(prefix)
        chosen = [
            number
            for number, pattern in enumerate(self._patterns)
            if pattern.matcher.head is None or pattern.matcher.head.fullmatch(prefix)
        ]
        patterns = [self._patterns[number] for number in chosen]
        if any(pattern.matcher.whole is not None for pattern in patterns):
            return Names(patterns, prefix)
        names = self._names.get(tuple(chosen))
        if names is None:
            names = self._names[tuple(chosen)] = Names(patterns, "")
        return names


# --- the file ------------------------------------------------------------------------------------------


def _parse(data: bytes, file: str) -> list[_Pattern]:
    found = []
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, 1):
        # As git's own C strings, a line ends at a NUL byte.
        pattern = line.removesuffix(b"\r").partition(b"\0")[0].decode("latin-1")
        compiled = None if pattern.startswith("#") else _compiled(_trimmed(pattern), file, number)
        if compiled is not None:
            found.append(compiled)
    return found


def _trimmed(line: str) -> str:
    """``line`` without the spaces at its end, but for one that is escaped."""
    end = at = 0
    while at < len(line):
        if line[at] == "\\":
            if at + 1 == len(line):
                return line  # git looks no further there
            at += 1
        elif line[at] == " ":
            at += 1
            continue
        at += 1
        end = at
    return line[:end]


def _compiled(text: str, file: str, number: int) -> _Pattern | None:
    """None for a line that can match nothing."""
    pattern = text.removeprefix("!")
    only_directories = pattern.endswith("/")
    pattern = pattern.removesuffix("/")
    matcher = compile_path(pattern) if "/" in pattern else compile_name(pattern)
    if matcher is None:
        return None
    rule = Rule(file, number, os.fsdecode(text.encode("latin-1")))
    return _Pattern(rule, not text.startswith("!"), only_directories, matcher)
