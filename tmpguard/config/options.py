"""Checks a guard's options. Each error names the option, the value and what is allowed (C3.1)."""

from __future__ import annotations

import math
import os
import re
import site
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Final, TypedDict

from tmpguard.core.errors import ConfigurationError
from tmpguard.core.layout import SOURCE_ROOT, TMP, is_below
from tmpguard.core.mounts.ignore import Ignore
from tmpguard.core.reports.report import Report
from tmpguard.core.storage import claims

from .platforms import PLATFORMS, Platform

MB: Final = 1_048_576

#: Gives the size if neither an option nor a project file does.
SIZE_VARIABLE: Final = "TMPGUARD_STORAGE_SIZE"

#: How the source of a storage size begins that nothing gives.
DEFAULT_OF: Final = "the default of platform="

LIFETIMES: Final = ("invocation", "instance")

#: How child processes are treated (C6.3).
CHILDREN: Final = ("allow", "refuse", "contain")

StrPath = str | os.PathLike[str]


class Options(TypedDict, total=False):
    """The options of :class:`tmpguard.Guard`, for signatures that pass them on (PEP 692)."""

    storage_size: int | None
    plan: str
    platform: str
    lifetime: str
    bundle: StrPath | None
    ignore: StrPath | Ignore | None
    writable: Iterable[StrPath]
    enforce: bool
    max_files: int | None
    scratch_root: StrPath | None
    on_report: Callable[[Report], object] | None
    log_interval: float
    children: str


OPTIONS: Final = tuple(Options.__annotations__)

#: An option in an error: storage_size=64, plan="pro", bundle='/nowhere'.
_OPTION: Final = rf"""\b(?P<name>{"|".join(OPTIONS)})=(?P<value>"[^"]*"|'[^']*'|[^\s,;:"']+)"""

#: One of the violations that are expected, of the pytest plugin: allow=['EROFS'].
_ALLOW: Final = r"\b(?P<name>allow)=\[(?P<value>[^]]*)\]"


def unknown_option(name: str, known: Sequence[str] = OPTIONS) -> str:
    """The message for an option that does not exist."""
    import difflib  # only for this error

    close = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f"did you mean {close[0]}=? " if close else ""
    return f"{name}= is not an option of tmpguard: {hint}the options are {', '.join(known)}"


def respelled(message: str, pattern: str) -> str:
    """An error's ``message`` with its options as they are spelled outside Python.

    ``pattern`` has ``{name}`` and ``{value}``: ``tmpguard_{name} = {value}`` for an ini file.
    """

    def spelled(found: re.Match[str]) -> str:
        value = found["value"].strip("'" + '"')
        name = found["name"].replace("_", "-") if pattern.startswith("--") else found["name"]
        return pattern.format(name=name, value=value)

    return re.sub(_OPTION, spelled, re.sub(_ALLOW, spelled, message))


# --- the platform and its sizes ------------------------------------------------------------------------


def checked_platform(value: object) -> Platform:
    """The platform with that name. Raises ConfigurationError if there is none."""
    return PLATFORMS[_checked_choice("platform", value, PLATFORMS)]


def checked_plan(value: object, platform: Platform) -> str:
    """The plan. For a platform without plans, only the default is accepted."""
    if not platform.plans:
        if value != "free":
            raise ConfigurationError(
                f'plan={value!r} has no meaning for platform="{platform.name}": leave it out'
            )
        return "free"
    return _checked_choice("plan", value, platform.plans)


def checked_lifetime(value: object) -> str:
    """``"invocation"`` or ``"instance"``. Raises ConfigurationError for anything else."""
    return _checked_choice("lifetime", value, LIFETIMES)


def _checked_choice(option: str, value: object, choices: Iterable[str]) -> str:
    if not isinstance(value, str) or value not in choices:
        allowed = ", ".join(f'"{name}"' for name in choices)
        raise ConfigurationError(f"{option}={value!r} is not one of {allowed}")
    return value


def resolved_size(size: object, plan: str, platform: Platform) -> tuple[int, str]:
    """The storage size in MB, and where it comes from: the option, the environment or the platform."""
    if size is not None:
        if problem := size_problem(size, plan, platform):
            raise ConfigurationError(_for_an_option(size, problem, plan, platform))
        assert isinstance(size, int)
        return size, f"storage_size={size}"
    text = os.environ.get(SIZE_VARIABLE)
    if text is None:
        return platform.default, f'{DEFAULT_OF}"{platform.name}"'
    given = int(text) if text.isascii() and text.isdigit() else text
    if problem := size_problem(given, plan, platform):
        raise ConfigurationError(f"{SIZE_VARIABLE} in the environment: {problem}")
    return int(given), f"{SIZE_VARIABLE} in the environment"


def size_problem(size: object, plan: str, platform: Platform) -> str | None:
    """Why ``size`` in MB is not a valid storage size there, and what to do; None if it is valid."""
    limit = largest(plan, platform)
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        return f"{size!r} is not a storage size: give a whole number of MB, {_allowed(plan, platform)}"
    if size < platform.smallest:
        allowed = _allowed(plan, platform)
        return f"{size} MB is too small for {platform.name}: give a whole number of MB, {allowed}"
    if limit is not None and size > limit:
        if platform.plans:
            return f"{size} MB is over the {plan} plan's {limit} MB; {_larger_plan(size, limit, platform)}"
        return f"{size} MB is over the {limit} MB of {platform.name}"
    if platform.step is None and size not in platform.inodes:
        return f"{size} MB is not a size that {platform.name} offers: it has {_listed(platform.inodes)}"
    return None


def _for_an_option(size: object, problem: str, plan: str, platform: Platform) -> str:
    if problem.startswith(f"{size!r} is not"):
        return f"storage_size={problem}"
    if isinstance(size, int) and size < platform.smallest:
        return f"storage_size={size}: {problem}"
    limit = largest(plan, platform)
    return f"storage_size={size!r}: {problem}, or give storage_size={limit}"


def largest(plan: str, platform: Platform) -> int | None:
    """The largest storage size in MB; None for no limit."""
    return platform.plans[plan] if platform.plans else platform.largest


def _allowed(plan: str, platform: Platform) -> str:
    if platform.step is None:
        return f"one of {_listed(platform.inodes)}"
    limit = largest(plan, platform)
    return f"from {platform.smallest} to {limit}" if limit else f"{platform.smallest} or more"


def _listed(sizes: Iterable[int]) -> str:
    *most, last = map(str, sizes)
    return f"{', '.join(most)} and {last}"


def _larger_plan(size: int, limit: int, platform: Platform) -> str:
    for name, allows in platform.plans.items():
        if allows is not None and allows > limit and size <= allows:
            return f'plan="{name}" allows {allows}'
    return 'plan="enterprise" allows any'


def checked_max_files(value: object, size: int, platform: Platform) -> int | None:
    """The limit on files. None selects the platform's own limit, if it has one."""
    if value is None:
        return platform.inodes.get(size)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigurationError(f"max_files={value!r}: give a whole number, 1 or more, or None for no limit")
    return value


# --- directories ---------------------------------------------------------------------------------------


def checked_directory(option: str, value: object, *, or_file: bool = False) -> str:
    """The canonical path of the existing directory ``value``; with ``or_file``, of a regular file as well."""
    wanted = "directory or file" if or_file else "directory"
    try:
        path = os.fsdecode(value)  # type: ignore[arg-type]
    except TypeError:
        raise ConfigurationError(f"{option}={value!r} is not a path: give a {wanted}") from None
    if not path:
        raise ConfigurationError(f"{option}={value!r} is empty: give a {wanted}")
    if "\0" in path:
        raise ConfigurationError(f"{option}={value!r} contains a NUL byte: give a {wanted}")
    real = os.path.realpath(path)
    named, where = f"{option}={value!r}", "" if path == real else f" ({real})"
    if not os.path.exists(real):
        raise ConfigurationError(f"{named} does not exist{where}: give an existing {wanted}")
    if not (os.path.isdir(real) or (or_file and os.path.isfile(real))):
        raise ConfigurationError(f"{named} is not a {wanted}{where}: give an existing {wanted}")
    return real


def checked_writable(value: object) -> tuple[str, ...]:
    """The canonical paths of the writable mounts (C1.4). Raises ConfigurationError."""
    if isinstance(value, (str, bytes, os.PathLike)) or not isinstance(value, Iterable):
        raise ConfigurationError(f"writable={value!r} is not a list of paths: give writable=[path, ...]")
    paths = tuple(checked_directory("writable", path, or_file=True) for path in value)
    for path in paths:
        if path in ("/", TMP):
            raise ConfigurationError(
                f"writable={path!r} would undo the guard: name the directories below it that stay writable"
            )
    return paths


def checked_scratch_root(value: object, bundle: str | None, *, is_used: bool = True) -> str:
    """The canonical path of the directory for scratch directories. Raises ConfigurationError.

    A guard that only watches makes none: ``is_used`` is false, and the directory need not be writable.
    """
    if value is None:
        if not is_used:
            return TMP
        try:
            return os.path.realpath(tempfile.gettempdir())
        except FileNotFoundError as exc:
            raise ConfigurationError(
                f"{exc.strerror}: give scratch_root=, a writable directory for the files of requests"
            ) from None
    path = checked_directory("scratch_root", value)
    if is_used and (reason := claims.cannot_write(path)):
        raise ConfigurationError(
            f"scratch_root={value!r} is not writable ({reason}): give a directory where others can be created"
        )
    if bundle is not None and is_below(path, bundle):
        raise ConfigurationError(
            f"scratch_root={value!r} is inside the bundle {bundle!r}: give a directory outside it"
        )
    return path


def pinned(*more: str | None) -> list[str]:
    """The directories of the project, the interpreter and its packages below the real /tmp (C1.5).

    They stay readable at their own paths. A directory that contains /tmp itself is not included.
    """
    places = [*more, sys.prefix, sys.base_prefix, sys.exec_prefix, SOURCE_ROOT, *sys.path]
    places += [*site.getsitepackages(), site.getusersitepackages()]
    found = set()
    for place in filter(None, places):
        real = os.path.realpath(place)
        if is_below(real, TMP) and real != TMP and os.path.exists(real):
            found.add(real)
    return sorted(
        path for path in found if not any(path != other and is_below(path, other) for other in found)
    )


# --- other options -------------------------------------------------------------------------------------


def checked_bool(option: str, value: object) -> bool:
    """True or False. Raises ConfigurationError for anything else, including 0 and 1."""
    if not isinstance(value, bool):
        raise ConfigurationError(f"{option}={value!r} is neither True nor False")
    return value


def checked_seconds(option: str, value: object) -> float:
    """A finite number of seconds, 0 or more. Raises ConfigurationError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigurationError(f"{option}={value!r} is not a duration: give seconds, 0 or more")
    return float(value)


def checked_callable(option: str, value: object) -> Callable[..., object] | None:
    """A callable or None. Raises ConfigurationError."""
    if value is None or callable(value):
        return value
    raise ConfigurationError(
        f"{option}={value!r} is not callable: give a function that takes a report, or None"
    )


def checked_children(value: object) -> str:
    """One of :data:`CHILDREN` (C6.3). Raises ConfigurationError."""
    return _checked_choice("children", value, CHILDREN)
