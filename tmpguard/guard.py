"""Guard: checked options, and what makes invocations from them."""

from __future__ import annotations

import difflib
import os
import site
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from . import scratch
from .errors import ConfigurationError
from .invocation import Invocation, unguarded
from .mounts import TMP, MountTable, is_below
from .report import Report

MB: Final = 1_048_576
DEFAULT_SIZE: Final = 128

#: The largest storage size of each plan in MB; None: any (C3.1).
PLANS: Final[Mapping[str, int | None]] = {"free": 128, "pro": 512, "enterprise": None}

StrPath = str | os.PathLike[str]


class Guard:
    """The options of a guarded application, each checked when the guard is built (C3.1).

    ``storage_size``: the quota in whole MB (1 MB = 1,048,576 bytes), at least 1. ``plan``: ``"free"`` (up to
    128 MB), ``"pro"`` (up to 512) or ``"enterprise"`` (any). ``bundle``: the project directory, readable at
    ``/tmp/package`` and the working directory of every invocation; None for none (C5). ``writable``: more
    directories that may be written, without quota or wipe (C1.4). ``enforce=False``: refuse nothing, only
    record (C2.5). ``max_files``: at most so many files, directories and links in ``/tmp``; None for no
    limit (C3.6). ``scratch_root``: where the scratch directories are made; None for the system's temporary
    directory. ``on_report``: called with each finished :class:`~tmpguard.Report` on a background thread.

    Raises ConfigurationError (a ValueError) for a wrong option. Building a guard installs the patched layer.
    """

    def __init__(
        self,
        *,
        storage_size: int = DEFAULT_SIZE,
        plan: str = "free",
        bundle: StrPath | None = ".",
        writable: Iterable[StrPath] = (),
        enforce: bool = True,
        max_files: int | None = None,
        scratch_root: StrPath | None = None,
        on_report: Callable[[Report], object] | None = None,
        **unknown: object,
    ) -> None:
        for name in unknown:
            raise ConfigurationError(_unknown_option(name))
        with unguarded():  # it may be built within another one's invocation
            self.storage_size = _checked_size(storage_size, plan)
            self.plan = plan
            self.bundle = None if bundle is None else _checked_directory("bundle", bundle)
            self.writable = _checked_writable(writable)
            self.enforce = _checked_bool("enforce", enforce)
            self.max_files = _checked_max_files(max_files)
            self.on_report = _checked_callable("on_report", on_report)
            root = _checked_scratch_root(scratch_root, self.bundle)

            self.quota_bytes = self.storage_size * MB
            self.mounts = MountTable(
                bundle=self.bundle, writable=self.writable, pinned=_pinned(self.bundle), cwd=self.bundle
            )
            self.scratch = scratch.root_at(root)

        # The patched layer needs the rest of the package first.
        from .interpose import install

        self._layer = install
        install.install()

    def invocation(self) -> Invocation:
        """A new invocation with this guard's options. Makes no file operation (C4.7)."""
        if not self._layer.ready:
            self._layer.make_ready()
        return Invocation(self)

    def __repr__(self) -> str:
        return f"<Guard storage_size={self.storage_size} plan={self.plan!r} bundle={self.bundle!r}>"


def guard_from(guard: Guard | None, options: dict[str, Any]) -> Guard:
    """The guard that a middleware was given, or one built from its options; both is an error."""
    if guard is None:
        return Guard(**options)
    if not isinstance(guard, Guard):
        raise ConfigurationError(f"guard={guard!r} is no tmpguard.Guard")
    if options:
        raise ConfigurationError(
            f"guard= and {', '.join(f'{name}=' for name in options)} are both given: "
            "pass either a guard or the options"
        )
    return guard


def invocation(**options: Any) -> Invocation:
    """An invocation of its own, with the options of :class:`Guard`: ``with tmpguard.invocation(): ...``"""
    return Guard(**options).invocation()


# --- checks --------------------------------------------------------------------------------------------

OPTIONS: Final = (
    "storage_size",
    "plan",
    "bundle",
    "writable",
    "enforce",
    "max_files",
    "scratch_root",
    "on_report",
)


def _unknown_option(name: str) -> str:
    close = difflib.get_close_matches(name, OPTIONS, n=1)
    hint = f"did you mean {close[0]}=? " if close else ""
    return f"{name}= is no option of tmpguard: {hint}the options are {', '.join(OPTIONS)}"


def _checked_size(size: object, plan: object) -> int:
    if not isinstance(plan, str) or plan not in PLANS:
        allowed = ", ".join(f'"{name}"' for name in PLANS)
        raise ConfigurationError(f"plan={plan!r} is none of {allowed}")
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        largest = f" to {PLANS[plan]}" if PLANS[plan] else " up"
        raise ConfigurationError(
            f"storage_size={size!r} is no storage size: give a whole number of MB, from 1{largest}"
        )
    limit = PLANS[plan]
    if limit is not None and size > limit:
        raise ConfigurationError(
            f"storage_size={size!r}: {size} MB is over the {plan} plan's {limit} MB; {_way_out(size, limit)}"
        )
    return size


def _way_out(size: int, limit: int) -> str:
    for name, allows in PLANS.items():
        if allows is not None and allows > limit and size <= allows:
            return f'plan="{name}" allows {allows}, or give storage_size={limit}'
    return f'plan="enterprise" allows any, or give storage_size={limit}'


def _checked_directory(option: str, value: object) -> str:
    """The canonical path of the existing directory ``value``."""
    try:
        path = os.fsdecode(value)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigurationError(f"{option}={value!r} is no path: give a directory") from None
    if not path:
        raise ConfigurationError(f"{option}={value!r} is empty: give a directory")
    if "\0" in path:
        raise ConfigurationError(f"{option}={value!r} has a NUL byte: give a directory")
    real = os.path.realpath(path)
    if not os.path.exists(real):
        raise ConfigurationError(f"{option}={value!r} does not exist ({real}): give an existing directory")
    if not os.path.isdir(real):
        raise ConfigurationError(f"{option}={value!r} is no directory ({real}): give an existing directory")
    return real


def _checked_writable(value: object) -> tuple[str, ...]:
    if isinstance(value, (str, bytes, os.PathLike)) or not isinstance(value, Iterable):
        raise ConfigurationError(f"writable={value!r} is no list of directories: give writable=[path, ...]")
    paths = tuple(_checked_directory("writable", path) for path in value)
    for path in paths:
        if path in ("/", TMP):
            raise ConfigurationError(
                f"writable={path!r} would undo the guard: name the directories below it that stay writable"
            )
    return paths


def _checked_bool(option: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{option}={value!r} is neither True nor False")
    return value


def _checked_max_files(value: object) -> int | None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
        raise ConfigurationError(f"max_files={value!r}: give a whole number from 1 up, or None for no limit")
    return value


def _checked_callable(option: str, value: Any) -> Any:
    if value is not None and not callable(value):
        raise ConfigurationError(
            f"{option}={value!r} cannot be called: give a function of one report, or None"
        )
    return value


def _checked_scratch_root(value: object, bundle: str | None) -> str:
    if value is None:
        return os.path.realpath(tempfile.gettempdir())
    path = _checked_directory("scratch_root", value)
    if reason := scratch.cannot_write(path):
        raise ConfigurationError(
            f"scratch_root={value!r} is not writable ({reason}): give a directory in which one can be made"
        )
    if bundle is not None and is_below(path, bundle):
        raise ConfigurationError(
            f"scratch_root={value!r} lies inside the bundle {bundle!r}: give a directory outside of it"
        )
    return path


def _pinned(bundle: str | None) -> list[str]:
    """The directories of the project, the interpreter and its packages that lie below the real /tmp (C1.5).

    They stay readable at their own paths. A directory that holds /tmp itself is none of them.
    """
    places = [bundle, sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(__file__), *sys.path]
    places += [*site.getsitepackages(), site.getusersitepackages()]
    found = set()
    for place in filter(None, places):
        real = os.path.realpath(place)
        if is_below(real, TMP) and real != TMP and os.path.exists(real):
            found.add(real)
    return sorted(
        path for path in found if not any(path != other and is_below(path, other) for other in found)
    )
