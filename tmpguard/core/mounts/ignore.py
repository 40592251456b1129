"""Which files a ``.genezioignore`` leaves out of the bundle, and which of its lines does so (C5.2).

The syntax is that of gitignore. The last matching line decides. The contents of an ignored directory are
ignored by the line that names the directory, and no line can include them again. pathspec compiles each line
once. It and :mod:`.wildmatch` are imported only when there is a file to read: most guards have none.

For each directory, the lines that can match anything in it are selected once. Most directories share the same
selection. Deciding a name then takes a few look-ups, or one regular expression if the lines need it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from tmpguard.core import originals
from tmpguard.core.errors import ConfigurationError

if TYPE_CHECKING:
    from .wildmatch import Pattern

#: The file name that the platform looks for.
IGNORE_FILE: Final = ".genezioignore"

#: The largest number of cached answers. The cache is cleared when full: made-up paths cannot fill the memory.
_KEPT: Final = 20_000


class Rule(NamedTuple):
    """One line of an ignore file: the file's path, the line number from 1 and the pattern as written.

    The line is 0 for a pattern that the deploying tool adds by itself.
    """

    file: str
    line: int
    pattern: str

    def __str__(self) -> str:
        if not self.line:
            return f"the deploying tool's own `{self.pattern}`"
        return f"{os.path.basename(self.file)} line {self.line}, `{self.pattern}`"


class _Pattern(NamedTuple):
    """A compiled rule.

    ``path``: the pattern has a slash and is matched against the whole path, otherwise against the name alone.
    ``head`` is the directory of what it matches, or, if ``open``, only the start of that directory.
    ``below``: it matches everything inside the directories that its expression matches.
    """

    rule: Rule
    excludes: bool
    only_directories: bool
    expression: re.Pattern[str]
    path: bool
    head: str
    open: bool
    below: bool
    #: The expression for an ``open`` head in which each name matches exactly one directory.
    heads: re.Pattern[str] | None
    #: The name itself if it has no wildcards, or has only a leading ``*`` as in ``*.csv``.
    plain: str | None

    def is_for(self, prefix: str) -> bool:
        """Whether it can match anything in the directory ``prefix``, which ends in a slash."""
        if self.below:
            return self.expression.search(prefix + "x") is not None
        if not self.path:
            return True
        if self.heads is not None:
            return self.heads.fullmatch(prefix) is not None
        return prefix.startswith(self.head) if self.open else prefix == self.head

    def names(self, path: str, *, directory: bool) -> bool:
        """Whether the line matches ``path`` (or the name) itself, rather than only a parent of it."""
        if self.below:
            return True
        if self.only_directories:
            if not directory:
                return False
            path += "/"
        found = self.expression.search(path)
        return found is not None and found.end() == len(path)


class AnyPattern(Protocol):
    """What decides names: a line of an ignore file, or a glob of another kind of file."""

    @property
    def rule(self) -> Rule: ...
    @property
    def excludes(self) -> bool: ...
    @property
    def expression(self) -> re.Pattern[str]: ...
    @property
    def path(self) -> bool: ...
    @property
    def below(self) -> bool: ...
    @property
    def plain(self) -> str | None: ...

    def is_for(self, prefix: str) -> bool: ...

    def names(self, path: str, *, directory: bool) -> bool: ...


#: The rule that ignores a name if it is a directory, and the one if it is not; None if it is not ignored.
Decision = tuple[Rule | None, Rule | None]


class Names:
    """The patterns that can match names in a directory, and their decision for each name."""

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

    def __init__(self, patterns: Sequence[AnyPattern], prefix: str) -> None:
        #: In reverse order, because the last one that matches decides.
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
        """Whether ``name`` may be excluded. A quick check; :meth:`decide` is exact."""
        if not name.isascii():
            name = byte_text(name)
        return (
            self._always
            or name in self._literals
            or name.endswith(self._endings)
            or (self._expression is not None and self._expression.search(name + "/") is not None)
        )

    def suspected(self, names: list[str]) -> list[str]:
        """The ``names`` for which :meth:`suspects` is true: a quick check of a whole directory."""
        joined = "/".join(names) + "/"
        if self._always or not joined.isascii():
            return [name for name in names if self.suspects(name)]
        found = [] if self._literals.isdisjoint(names) else [*self._literals.intersection(names)]
        # Most directories have few matches or none: searching the joined text for the endings is fastest.
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
        """The rules that exclude ``name`` if it is a directory, and if it is not."""
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
    """The decision for the names in one directory: a rule excludes all of them, or ``names`` decides each."""

    excluded: Rule | None
    names: Names
    #: What the last listing left out, for directories and for everything else: the hash of all names, and the
    #: indexes of the hidden ones in reverse order.
    decided: dict[bool, tuple[int, list[int]]]


class Ignore:
    """The rules of one ignore file. ``rules`` are its lines in order, including those with ``!``."""

    __slots__ = ("_levels", "_names", "_patterns", "excluding", "file", "rules")

    def __init__(
        self, data: bytes, file: str = IGNORE_FILE, *, patterns: Sequence[AnyPattern] | None = None
    ) -> None:
        """The rules in ``data``, or the compiled ``patterns``."""
        self.file = file
        self._patterns: Sequence[AnyPattern] = _parse(data, file) if patterns is None else patterns
        self.rules = tuple(pattern.rule for pattern in self._patterns)
        #: For each of the rules, whether it leaves files out. The others put them back.
        self.excluding = tuple(pattern.excludes for pattern in self._patterns)
        self._names: dict[tuple[int, ...], Names] = {}
        self._levels = {"": Level(None, self._names_in(""), {})}

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> Ignore:
        """The rules of the file ``path``.

        Raises ConfigurationError if it cannot be read: missing, a directory, no permission.
        """
        name = os.fsdecode(path)
        try:
            with originals.open(name, "rb") as file:
                data = file.read()
        except OSError as exc:
            raise ConfigurationError(f"{name}: cannot be read: {exc.strerror}") from exc
        return cls(data, os.path.abspath(name))

    def match(self, path: str, is_directory: bool) -> Rule | None:
        """The rule that ignores ``path``; None if it is not ignored.

        ``path`` is relative to the directory of the ignore file, with slashes and without dot names.
        ``is_directory`` must be false for a link to a directory: ``logs/`` does not match a link.
        """
        path = path.rstrip("/")
        if not path:
            return None  # the directory of the ignore file
        head, _, name = path.rpartition("/")
        level = self.level(head)
        return level.excluded or level.names.decide(name)[not is_directory]

    def level(self, directory: str) -> Level:
        """The decision for the names in ``directory``, relative as in :meth:`match`; ``""`` is the top."""
        level = self._levels.get(directory)
        if level is not None:
            return level
        if len(self._levels) >= _KEPT:
            self._levels = {"": self._levels[""]}
        # From the top down: an ignored directory decides for everything in it.
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
        """The patterns for the directory ``prefix``, which ends in a slash. Most directories share them."""
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
        # A line ends at a NUL byte, as C strings in git do.
        pattern = line.removesuffix(b"\r").partition(b"\0")[0].decode("latin-1")
        compiled = None if pattern.startswith("#") else _compiled(_trimmed(pattern), file, number)
        if compiled is not None:
            found.append(compiled)
    return found


def _trimmed(line: str) -> str:
    """``line`` without trailing spaces, except an escaped one."""
    end = at = 0
    while at < len(line):
        if line[at] == "\\":
            if at + 1 == len(line):
                return line  # git stops here
            at += 1
        elif line[at] == " ":
            at += 1
            continue
        at += 1
        end = at
    return line[:end]


def _compiled(line: str, file: str, number: int) -> _Pattern | None:
    """The compiled pattern; None for a line that cannot match anything."""
    from .wildmatch import WILD, rewritten

    pattern = rewritten(line)
    made = None if pattern is None else _expression(pattern.text)
    if pattern is None or made is None:
        return None
    expression = pattern.restored(made[0])
    text = pattern.text
    tail = text.removeprefix("!").removesuffix("/")
    anywhere = tail.startswith("**/")  # it matches any directory
    tail = tail.removeprefix("**/")
    head, _, name = tail.removeprefix("/").rpartition("/")
    literal = "" if anywhere else _literal(head)
    is_open = anywhere or literal.removesuffix("/") != head
    # pathspec marks the end of the match with a group; without one, the pattern matches everything below.
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
    """pathspec's regular expression for a pattern, and whether it excludes; None if it matches nothing."""
    from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

    try:
        made, excludes = GitIgnoreSpecPattern.pattern_to_regex(text)
    except ValueError:
        return None
    return None if made is None else (made, bool(excludes))


def _heads(head: str, pattern: Pattern) -> re.Pattern[str] | None:
    """The expression for the directories that ``head`` names; None if they may be at any depth."""
    if "**" in head.split("/"):
        return None
    made = _expression(f"/{head}/")
    return None if made is None else pattern.restored(made[0])


def _literal(head: str) -> str:
    """The leading directories of ``head`` without wildcards, each followed by a slash."""
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
    """``path`` with one character for each byte: git compares bytes, so ``?`` matches one byte."""
    return path if path.isascii() else os.fsencode(path).decode("latin-1")
