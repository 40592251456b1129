"""Surveys a project's directory as it would be deployed: what is in the bundle, what is left out, and why.

It follows no links, and reads only the first bytes of what may be a database or a key. Anything unreadable is
a finding, not an error.
"""

from __future__ import annotations

import fnmatch
import heapq
import os
import stat as modes
from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from tmpguard.core import originals
from tmpguard.core.layout import is_below
from tmpguard.core.mounts.ignore import Ignore, Rule

from .databases import database

LARGEST_SHOWN: Final = 10
_EXAMPLES: Final = 3

_ENVIRONMENTS: Final = (".env", ".env.*", "*.env")
_HARMLESS: Final = (".example", ".sample", ".template", ".dist", ".defaults")
_KEYS: Final = ("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", ".netrc", ".pypirc", ".pgpass")


class BundleFinding(NamedTuple):
    """Something in a bundle that is likely to cause trouble once it is deployed.

    ``kind`` is one of ``database``, ``secret``, ``log``, ``environment``, ``history``, ``link``, ``special``,
    ``unreadable``, ``entry``, ``size``, ``pattern``; ``path`` is relative to the bundle.
    """

    kind: str
    path: str
    message: str


class LeftOut(NamedTuple):
    """What one line of the ignore file leaves out; a directory counts as one path, whatever is in it."""

    rule: Rule
    paths: int
    #: The first three of them.
    examples: tuple[str, ...]


class Survey(NamedTuple):
    """What is in a bundle. Sizes are the lengths of the files, in bytes."""

    directory: str
    #: The ignore file in effect, or None.
    ignore_file: str | None
    files: int
    bytes: int
    #: The ten largest files, the largest first: length and path.
    largest: tuple[tuple[int, str], ...]
    left_out: tuple[LeftOut, ...]
    findings: tuple[BundleFinding, ...]


def survey(directory: str, ignore: Ignore | None, skipped: Collection[str] = ()) -> Survey:
    """Survey the existing ``directory``. Never raises because of its contents.

    ``skipped`` are the paths in it that the deploying tool leaves out anyway.
    """
    return _Surveyor(os.path.realpath(directory), ignore, skipped).result()


class _Surveyor:
    def __init__(self, directory: str, ignore: Ignore | None, skipped: Collection[str]) -> None:
        self.directory = directory
        self.skipped = skipped
        self.ignore = ignore
        base = os.path.dirname(ignore.file) if ignore is not None else directory
        offset = directory[len(base) :].strip("/") if is_below(directory, base) else ""
        #: The prefix of all paths, relative to the directory of the ignore file.
        self.offset = f"{offset}/" if offset else ""
        self.findings: list[BundleFinding] = []
        self.by_rule: dict[Rule, list[str]] = {}
        self.counts: dict[Rule, int] = {}
        #: The virtual environments, with their numbers of files and bytes.
        self.environments: dict[str, tuple[int, int]] = {}

    def result(self) -> Survey:
        total = count = 0
        sizes: list[tuple[int, str]] = []
        for path, size, environment in self.files():
            count += 1
            total += size
            if environment:
                files, taken = self.environments[environment]
                self.environments[environment] = files + 1, taken + size
            elif len(sizes) < LARGEST_SHOWN:
                heapq.heappush(sizes, (size, path))
            elif size > sizes[0][0]:
                heapq.heapreplace(sizes, (size, path))
        for environment, (files, taken) in self.environments.items():
            amount = f"{files:,} {'file' if files == 1 else 'files'}, {taken >> 20:,} MB"
            what = f"a virtual environment ({amount}): it would be deployed as a whole"
            self._find("environment", environment, what)
        left_out = [
            LeftOut(rule, self.counts[rule], tuple(examples)) for rule, examples in self.by_rule.items()
        ]
        return Survey(
            self.directory,
            self.ignore.file if self.ignore is not None else None,
            count,
            total,
            tuple(sorted(sizes, key=lambda one: (-one[0], one[1]))),
            tuple(sorted(left_out, key=lambda one: one.rule.line)),
            tuple(sorted(self.findings)),
        )

    def files(self) -> Iterator[tuple[str, int, str]]:
        """Yields the path, the length and the virtual environment of each file in the bundle.

        Symlinks have a length of 0. The virtual environment is "" if the file is in none; of files in one,
        only the sizes are of interest.
        """
        pending = [("", "")]
        while pending:
            head, environment = pending.pop()
            entries = self._entries(head)
            if head and not environment and any(entry.name == "pyvenv.cfg" for entry in entries):
                environment = head[:-1]
                self.environments[environment] = 0, 0
            for entry in entries:
                path = head + entry.name
                is_directory = entry.is_dir(follow_symlinks=False)
                if path in self.skipped or self._is_left_out(path, is_directory):
                    continue
                if is_directory:
                    if entry.name in (".git", ".hg", ".svn"):
                        self._find("history", path, "the history of the project: it would be deployed")
                    pending.append((path + "/", environment))
                else:
                    size = _length(entry) if environment else self._look_at(entry, path)
                    if size is not None:
                        yield path, size, environment

    def _entries(self, head: str) -> list[os.DirEntry[str]]:
        try:
            with originals.scandir(f"{self.directory}/{head}") as found:
                return sorted(found, key=lambda entry: entry.name)
        except OSError as exc:
            self._find("unreadable", head[:-1] or ".", f"the directory cannot be read: {exc.strerror}")
            return []

    def _is_left_out(self, path: str, is_directory: bool) -> bool:
        rule = self.ignore.match(self.offset + path, is_directory) if self.ignore is not None else None
        if rule is None:
            return False
        examples = self.by_rule.setdefault(rule, [])
        self.counts[rule] = self.counts.get(rule, 0) + 1
        if len(examples) < _EXAMPLES:
            examples.append(path + "/" if is_directory else path)
        return True

    def _look_at(self, entry: os.DirEntry[str], path: str) -> int | None:
        """The length of an entry that is not a directory; None if it cannot be deployed."""
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError as exc:
            self._find("unreadable", path, f"cannot be examined: {exc.strerror}")
            return None
        if modes.S_ISLNK(status.st_mode):
            self._look_at_link(path)
            return 0
        if not modes.S_ISREG(status.st_mode):
            self._find("special", path, "a socket, pipe or device: it cannot be deployed")
            return None
        self._look_at_name(entry.name.lower(), path, status)
        return status.st_size

    def _look_at_link(self, path: str) -> None:
        full = f"{self.directory}/{path}"
        try:
            target = originals.readlink(full)
        except OSError as exc:
            self._find("unreadable", path, f"the link cannot be read: {exc.strerror}")
            return
        real = os.path.realpath(full)
        if not is_below(real, self.directory):
            self._find("link", path, f"a link that leads out of the bundle, to {target}")
        elif not os.path.lexists(real):
            self._find("link", path, f"a link that leads nowhere, to {target}")
        elif self.ignore is not None and (rule := self._rule_of(real)) is not None:
            self._find("link", path, f"a link to {target}, which is left out by {rule}")

    def _rule_of(self, real: str) -> Rule | None:
        assert self.ignore is not None
        inside = real[len(self.directory) + 1 :]
        return self.ignore.match(self.offset + inside, os.path.isdir(real))

    def _look_at_name(self, name: str, path: str, status: os.stat_result) -> None:
        directory = self._full(path).rpartition("/")[0]
        found = database(
            name,
            status.st_size,
            lambda: self._head(path),
            lambda other: os.path.lexists(f"{directory}/{other}"),
        )
        if found is not None:
            self._find("database", path, found)
        elif any(fnmatch.fnmatchcase(name, pattern) for pattern in _ENVIRONMENTS):
            if not name.endswith(_HARMLESS):
                self._find("secret", path, "environment variables, usually secrets: they would be deployed")
        elif name in _KEYS:
            self._find("secret", path, "a key or passwords: would be deployed")
        elif name.endswith((".pem", ".key")):
            if b"PRIVATE KEY" in (self._head(path) or b""):
                self._find("secret", path, "a private key: it would be deployed")
        elif name.endswith(".log"):
            self._find("log", path, "a log file: read-only once it is deployed, so logging to it will fail")
        if not status.st_mode & 0o444 or (os.geteuid() and not originals.access(self._full(path), os.R_OK)):
            self._find("unreadable", path, "the file cannot be read")

    def _full(self, path: str) -> str:
        return f"{self.directory}/{path}"

    def _head(self, path: str) -> bytes | None:
        """The first bytes of a regular file; None if it cannot be read."""
        try:
            descriptor = originals.os_open(self._full(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError:
            return None
        try:
            return originals.read(descriptor, 512)
        except OSError:
            return None
        finally:
            originals.close(descriptor)

    def _find(self, kind: str, path: str, message: str) -> None:
        self.findings.append(BundleFinding(kind, path, message))


def _length(entry: os.DirEntry[str]) -> int | None:
    """The length of a regular file, 0 for a link; None for anything else."""
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return None
    if modes.S_ISLNK(status.st_mode):
        return 0
    return status.st_size if modes.S_ISREG(status.st_mode) else None
