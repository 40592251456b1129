"""Which files of the project are in the bundle: all but those that its ``.genezioignore`` names (C5.2).

Ignored files are absent both below ``/tmp/package`` and at the project's own path: what would be missing
after the deployment is missing here. Some directories stay at their own path whatever the file says: the
interpreter's environment and its packages, which the platform provides, and the writable mounts. They can be
opened by path, and they list their own contents, but a listing of the project leaves them out.

Only the decisions of the rules are cached. Whether a file exists is checked on disk each time.
"""

from __future__ import annotations

import os
import site
import stat as modes
import sys
import sysconfig
from collections.abc import Iterable
from typing import Final

from tmpguard.core import originals, presence
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.layout import PACKAGE, SOURCE_ROOT, TMP, is_below

from .ignore import IGNORE_FILE, Ignore, Level, Names, Rule

#: The directories of the platform's own files, which exist whatever the bundle contains.
_SYSTEM: Final = ("/bin", "/dev", "/etc", "/lib", "/lib32", "/lib64", "/proc", "/sbin", "/sys", "/usr")

#: Up to this many names, deleting them from a list one by one is fastest.
_FEW: Final = 32


class Hidden:
    """The files of the project that are not in the bundle."""

    __slots__ = ("_bundle", "_ignore", "_kept", "_offset", "_own", "_package")

    def __init__(
        self, ignore: Ignore, bundle: str, *, writable: Iterable[str] = (), package: bool = True
    ) -> None:
        self._ignore = ignore
        #: True if the bundle is mounted at /tmp/package. Otherwise that is an ordinary name (C5.1).
        self._package = package
        self._bundle = bundle.rstrip("/")
        self._own = self._bundle + "/"
        base = os.path.dirname(ignore.file)
        if not is_below(bundle, base):
            base = bundle  # a file from elsewhere: its patterns apply to the bundle
        offset = bundle[len(base) :].strip("/")
        #: The prefix of paths in the bundle, relative to the directory of the ignore file.
        self._offset = offset + "/" if offset else ""
        if offset and (rule := ignore.match(offset, True)):
            raise ConfigurationError(
                f"{rule.file}:{rule.line}: {rule.pattern!r} ignores the whole bundle {bundle}"
            )
        kept = [*interpreter_places(), *writable, TMP]
        self._kept = tuple(place for place in kept if place.startswith(self._own) and place != self._own)

    def rule(self, virtual: str) -> Rule | None:
        """The rule that hides the canonical path ``virtual``; None if it is not hidden.

        Also None if there is no such file at all: in that case no rule is the reason.
        """
        relative = self._relative(virtual)
        if not relative:
            return None
        head, _, name = (self._offset + relative).rpartition("/")
        level = self._ignore.level(head)
        if level.excluded is None and not level.names.suspects(name):
            return None
        return self._decided(virtual, relative, level.excluded, level.names, name)

    def real(self, virtual: str) -> str:
        """The real path of ``virtual``, which is in the project."""
        return self._own + (self._relative(virtual) or "")

    def may_hide(self, path: str) -> bool:
        """Whether a rule may hide ``path``, which is the project's own path of a file. A quick check."""
        if not path.startswith(self._own):
            return False
        head, _, name = (self._offset + path[len(self._own) :]).rpartition("/")
        level = self._ignore.level(head)
        if level.excluded is None and not level.names.suspects(name):
            return False
        return not self._is_kept(path)

    def veil(self, directory: str) -> Veil | None:
        """What a listing of the canonical path ``directory`` leaves out; None for nothing."""
        relative = self._relative(directory)
        if relative is None or any(is_below(directory, place) for place in self._kept):
            return None
        level = self._ignore.level((self._offset + relative).rstrip("/"))
        return Veil(self._own + relative, level)

    def _relative(self, virtual: str) -> str | None:
        """The path of ``virtual`` relative to the bundle; None if it is not in the project."""
        if self._package and virtual.startswith(PACKAGE) and is_below(virtual, PACKAGE):
            return virtual[len(PACKAGE) + 1 :]
        if virtual.startswith(self._own):
            return virtual[len(self._own) :]
        return "" if virtual == self._bundle else None

    def _decided(
        self, virtual: str, relative: str, excluded: Rule | None, names: Names, name: str
    ) -> Rule | None:
        as_directory, as_file = (excluded, excluded) if excluded else names.decide(name)
        if as_directory is as_file is None or (virtual.startswith(self._own) and self._is_kept(virtual)):
            return None
        try:
            mode = originals.lstat(self._own + relative).st_mode
        except OSError:
            return None
        return as_directory if modes.S_ISDIR(mode) else as_file

    def _is_kept(self, path: str) -> bool:
        """Whether ``path`` is a directory that stays at its own path, or is inside or above one."""
        return any(is_below(path, place) or is_below(place, path) for place in self._kept)


class Veil:
    """What a listing of one directory leaves out because of the rules."""

    __slots__ = ("_level", "_own")

    def __init__(self, own: str, level: Level) -> None:
        self._own = own
        self._level = level

    def hidden(self, names: list[str], is_directory: bool | None = None) -> frozenset[str]:
        """Those of the ``names`` that are left out.

        ``is_directory`` says whether all of them are directories. None means unknown: the disk is checked if
        it matters.
        """
        if self._level.excluded:
            return frozenset(names)
        suspected = self._level.names.suspected(names)
        return frozenset(name for name in suspected if self._hides(name, is_directory))

    def take_out(self, names: list[str], is_directory: bool) -> list[str]:
        """The ``names`` of a listing without those left out. Either all or none of them are directories.

        The decision for a directory is cached for as long as it has the same names.
        """
        decided, key = self._level.decided, hash("/".join(names))
        known = decided.get(is_directory)
        if known is None or known[0] != key:
            hidden = self.hidden(names, is_directory)
            places = [at for at, name in enumerate(names) if name in hidden]
            known = decided[is_directory] = key, places[::-1]
        places = known[1]
        if len(places) > _FEW:
            gone = set(places)
            return [name for at, name in enumerate(names) if at not in gone]
        for at in places:
            del names[at]
        return names

    def _hides(self, name: str, is_directory: bool | None) -> bool:
        as_directory, as_file = self._level.names.decide(name)
        if (as_directory is None) == (as_file is None):
            return as_file is not None
        if is_directory is None:
            is_directory = presence.is_directory(f"{self._own}/{name}")
        return (as_directory if is_directory else as_file) is not None


class Unlisted:
    """What a listing of /tmp leaves out: directories that can be reached only by path (C1.5, C4.1)."""

    __slots__ = ("_names",)

    def __init__(self, names: frozenset[str]) -> None:
        self._names = names

    def hidden(self, names: list[str], is_directory: bool | None = None) -> frozenset[str]:
        return self._names

    def take_out(self, names: list[str], is_directory: bool) -> list[str]:
        return [name for name in names if name not in self._names]


def interpreter_places() -> list[str]:
    """The directories of the interpreter, its environment, its packages and tmpguard."""
    paths = sysconfig.get_paths()
    places = [sys.prefix, sys.base_prefix, sys.exec_prefix, SOURCE_ROOT]
    places += [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib") if paths.get(name)]
    places += [*site.getsitepackages(), site.getusersitepackages()]
    return sorted({os.path.realpath(place) for place in places})


def deployed_places(bundle: str | None, writable: Iterable[str]) -> tuple[str, ...]:
    """The directories outside the bundle that also exist after the deployment.

    A link in the bundle that points to an absolute path anywhere else dangles there.
    """
    own = [place for place in interpreter_places() if bundle is None or not is_below(place, bundle)]
    return (*_SYSTEM, TMP, *own, *writable)


def hidden_by(
    ignore: Ignore | None, bundle: str | None, writable: Iterable[str], *, package: bool = True
) -> Hidden | None:
    """The files that the rules leave out of the bundle; None if they cannot leave out any."""
    if ignore is None or bundle is None or not ignore.rules:
        return None
    return Hidden(ignore, bundle, writable=writable, package=package)


def find_ignore(option: object, bundle: str | None) -> Ignore | None:
    """The rules of the file that the option ``ignore`` names, or itself. Raises ConfigurationError."""
    if option is None or isinstance(option, Ignore):
        return option
    if option == IGNORE_FILE:
        path = None if bundle is None else f"{bundle}/{IGNORE_FILE}"
        return Ignore.read(path) if path is not None and os.path.lexists(path) else None
    try:
        path = os.fsdecode(option)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigurationError(f"ignore={option!r} is not a path: give a file, or None for none") from None
    if not path or "\0" in path:
        raise ConfigurationError(f"ignore={option!r} is not a path: give a file, or None for none")
    if bundle is None:
        raise ConfigurationError(f"ignore={option!r} has no effect without a bundle: leave it out")
    head, tail = os.path.split(os.path.abspath(path))
    try:
        return Ignore.read(os.path.join(os.path.realpath(head), tail))
    except ConfigurationError as exc:
        cause = exc.__cause__
        if not isinstance(cause, OSError):
            raise
        problem = f"ignore={path!r} cannot be read: {cause.strerror}"
        raise ConfigurationError(f"{problem}: give a file of patterns, or None for none") from cause
