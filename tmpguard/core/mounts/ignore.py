"""Which files a ``.genezioignore`` leaves out of the bundle, by which of its lines (C5.2).

The syntax is that of gitignore: the last matching line decides; what lies in an ignored directory is ignored
by the line that names the directory, and nothing in it can be taken back in. Each line is compiled once, by
pathspec. That and :mod:`.wildmatch` are imported when there is a file to read: most guards have none.

For a directory it is found out once which lines can name anything in it; most directories share the answer.
So a name costs a few look-ups, or one regular expression where the lines in question need one.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from tmpguard.core import originals
from tmpguard.core.errors import ConfigurationError

if TYPE_CHECKING:
    from .wildmatch import Pattern

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
    """A rule, compiled.

    ``path``: it has a slash and is matched with the whole path, else with a name alone. ``head`` is the
    directory of what it names, or, where ``open``, the beginning of it. ``below``: it names all that lies in
    the directories that its expression matches.
    """

    rule: Rule
    excludes: bool
    only_directories: bool
    expression: re.Pattern[str]
    path: bool
    head: str
    open: bool
    below: bool
    #: The expression of an ``open`` head, where each of its names stands for one directory.
    heads: re.Pattern[str] | None
    #: The name itself where it is one without wildcards, ``*`` and what follows for ``*.csv``.
    plain: str | None

    def is_for(self, prefix: str) -> bool:
        """Can it name anything in the directory ``prefix``, which ends in a slash?"""
        if self.below:
            return self.expression.search(prefix + "x") is not None
        if not self.path:
            return True
        if self.heads is not None:
            return self.heads.fullmatch(prefix) is not None
        return prefix.startswith(self.head) if self.open else prefix == self.head

    def names(self, path: str, *, directory: bool) -> bool:
        """Is ``path``, or the name, itself what the line says, and not only something below it?"""
        if self.below:
            return True
        if self.only_directories:
            if not directory:
                return False
            path += "/"
        found = self.expression.search(path)
        return found is not None and found.end() == len(path)


#: What decides for a name, were it a directory and were it not; None: it is not ignored.
Decision = tuple[Rule | None, Rule | None]


class Names:
    """The patterns that can match names in a directory, and what they say of each."""

    __slots__ = (
        "_always",
        "_decided",
        "_endings",
        "_ends",
        "_expression",
        "_literals",
        "_patterns",
        "_prefix",
    )

    def __init__(self, patterns: list[_Pattern], prefix: str) -> None:
        #: From the last to the first, since the last one that matches decides.
        self._patterns = patterns[::-1]
        self._prefix = prefix
        self._decided: dict[str, Decision] = {}
        excluding = [pattern for pattern in patterns if pattern.excludes]
        plain = [pattern.plain for pattern in excluding if pattern.plain is not None]
        odd = [pattern for pattern in excluding if pattern.plain is None]
        self._always = any(pattern.path or pattern.below for pattern in odd)
        self._literals = frozenset(name for name in plain if not name.startswith("*"))
        self._endings = tuple(name[1:] for name in plain if name.startswith("*"))
        self._ends = tuple(ending + "/" for ending in self._endings)
        self._expression = _any_of([pattern.expression for pattern in odd]) if not self._always else None

    def suspects(self, name: str) -> bool:
        """May ``name`` be excluded? A quick look; :meth:`decide` knows."""
        if not name.isascii():
            name = byte_text(name)
        return (
            self._always
            or name in self._literals
            or name.endswith(self._endings)
            or (self._expression is not None and self._expression.search(name + "/") is not None)
        )

    def suspected(self, names: list[str]) -> list[str]:
        """Those of the ``names`` that :meth:`suspects` does: a quick look at all of a directory."""
        joined = "/".join(names) + "/"
        if self._always or not joined.isascii():
            return [name for name in names if self.suspects(name)]
        found = [] if self._literals.isdisjoint(names) else [*self._literals.intersection(names)]
        # Most directories have few of them, or none: to look for the endings in one text is the quickest.
        for end in self._ends:
            at = joined.find(end)
            while at >= 0:
                found.append(joined[joined.rfind("/", 0, at) + 1 : at + len(end) - 1])
                at = joined.find(end, at + 1)
        if self._expression is not None:
            search = self._expression.search
            found += [name for name in names if search(name + "/")]
        return found

    def decide(self, name: str) -> Decision:
        """The rule by which ``name`` is excluded, were it a directory and were it none."""
        decided = self._decided.get(name)
        if decided is None:
            if len(self._decided) >= _KEPT:
                self._decided.clear()
            text = byte_text(name)
            decided = self._decide(text, directory=True), self._decide(text, directory=False)
            self._decided[name] = decided
        return decided

    def _decide(self, name: str, *, directory: bool) -> Rule | None:
        for pattern in self._patterns:
            if pattern.names(self._prefix + name if pattern.path else name, directory=directory):
                return pattern.rule if pattern.excludes else None
        return None


class Level(NamedTuple):
    """What holds for the names in one directory: excluded altogether by a rule, or else each by ``names``."""

    excluded: Rule | None
    names: Names
    #: What the last listing left out, of directories and of all else: the hash of the names, and the places
    #: of those that are hidden, from the last to the first.
    decided: dict[bool, tuple[int, list[int]]]


class Ignore:
    """The rules of one ignore file. ``rules`` are its lines in their order, those with ``!`` included."""

    __slots__ = ("_levels", "_names", "_patterns", "file", "rules")

    def __init__(self, data: bytes, file: str = NAME) -> None:
        self.file = file
        self._patterns = _parse(data, file)
        self.rules = tuple(pattern.rule for pattern in self._patterns)
        self._names: dict[tuple[int, ...], Names] = {}
        self._levels = {"": Level(None, self._names_in(""), {})}

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
                known = Level(rule, level.names if rule else self._names_in(path + "/"), {})
                self._levels[path] = known
            level = known
        return level

    def _names_in(self, prefix: str) -> Names:
        """The patterns for the directory ``prefix``, which ends in a slash; most have the same in common."""
        prefix = byte_text(prefix)
        chosen = [number for number, pattern in enumerate(self._patterns) if pattern.is_for(prefix)]
        patterns = [self._patterns[number] for number in chosen]
        if any(pattern.path for pattern in patterns):
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


def _compiled(line: str, file: str, number: int) -> _Pattern | None:
    """None for a line that can match nothing."""
    from .wildmatch import WILD, rewritten

    pattern = rewritten(line)
    made = None if pattern is None else _expression(pattern.text)
    if pattern is None or made is None:
        return None
    expression = pattern.restored(made[0])
    text = pattern.text
    tail = text.removeprefix("!").removesuffix("/")
    anywhere = tail.startswith("**/")  # what stands before the first slash is any directory
    tail = tail.removeprefix("**/")
    head, _, name = tail.removeprefix("/").rpartition("/")
    literal = "" if anywhere else _literal(head)
    is_open = anywhere or literal.removesuffix("/") != head
    # pathspec marks where what it matched ends; without the mark it is all that follows.
    below = not expression.groupindex
    return _Pattern(
        Rule(file, number, os.fsdecode(line.encode("latin-1"))),
        excludes=made[1],
        only_directories=text.endswith("/"),
        expression=expression,
        path="/" in tail and not below,
        head=literal,
        open=is_open,
        heads=_heads(head, pattern) if is_open and not anywhere else None,
        below=below,
        plain=None if below or WILD.search(name.removeprefix("*")) else name,
    )


def _expression(text: str) -> tuple[str, bool] | None:
    """What pathspec makes of a pattern, and whether it excludes; None where it matches nothing."""
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    try:
        made, excludes = GitIgnoreSpecPattern.pattern_to_regex(text)
    except ValueError:
        return None
    return None if made is None else (made, bool(excludes))


def _heads(head: str, pattern: Pattern) -> re.Pattern[str] | None:
    """The expression of the directories that ``head`` names; None where they may be of any depth."""
    if "**" in head.split("/"):
        return None
    made = _expression(f"/{head}/")
    return None if made is None else pattern.restored(made[0])


def _literal(head: str) -> str:
    """The directories at the start of ``head`` that have no wildcard, with a slash after each."""
    from .wildmatch import WILD

    names = []
    for name in head.split("/") if head else ():
        if WILD.search(name):
            break
        names.append(name + "/")
    return "".join(names)


def _any_of(expressions: list[re.Pattern[str]]) -> re.Pattern[str] | None:
    if not expressions:
        return None
    return re.compile("|".join(each.pattern.replace("?P<ps_d>", "?:") for each in expressions), re.DOTALL)


def byte_text(path: str) -> str:
    """``path`` with one character for each of its bytes: git compares those, so ``?`` is one byte."""
    return path if path.isascii() else os.fsencode(path).decode("latin-1")
