"""The options from the ini file, a test's markers and a client; and the guards made from them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Unpack, cast

import pytest

from tmpguard.config.options import OPTIONS, Options, checked_writable, respelled, unknown_option
from tmpguard.core.context import unguarded
from tmpguard.core.errors import ConfigurationError
from tmpguard.core.layout import TMP, is_below
from tmpguard.guard import Guard, detected

from .allow import Matcher, matchers_of
from .baseline import Baseline
from .imported import Imported

if TYPE_CHECKING:
    from tmpguard.core.instance import ProcessInstance

_IMPORTED: Final = pytest.StashKey[Imported]()
_BASELINE: Final = pytest.StashKey[Baseline]()

#: Arguments of a marker that are not options of a guard.
MARKER_ONLY: Final = ("allow", "body", "writable_tmp_path")

#: Options of a client's or a live server's guard.
GUARD_OPTIONS: Final = (*OPTIONS, "writable_tmp_path")

LATE_WRITES: Final = ("report", "fail")

#: Fixtures that give a test directories below pytest's base directory.
_TMP_PATHS: Final = frozenset({"tmp_path", "tmpdir", "tmp_path_factory", "tmpdir_factory"})


class TestGuard(Guard):
    """A guard that lets pytest's temporary directories be read at their own paths below ``/tmp``."""

    __test__ = False

    def __init__(self, *, readable: tuple[str, ...] = (), **options: Unpack[Options]) -> None:
        self.readable = readable
        super().__init__(**options)

    def begin_with(self, imported: Imported) -> None:
        """With ``lifetime="instance"``, start each new instance with what ``imported`` holds."""
        if self._instances is not None:
            self._instances.beginning = imported

    def set_aside_instance(self) -> ProcessInstance | None:
        """Let the next invocation begin a new instance. Returns the current one, without ending it."""
        return None if self._instances is None else self._instances.set_aside()


class Settings:
    """The settings from the ini file and the command line. Raises UsageError for an invalid value."""

    def __init__(self, config: pytest.Config, namespace: argparse.Namespace | None = None) -> None:
        self._config = config
        #: Shared by the settings for the conftest files and those for the rest of the run.
        self.imported = config.stash.setdefault(_IMPORTED, Imported())
        given = namespace or config.option
        self._guards: dict[object, tuple[TestGuard, dict[str, Any]]] = {}
        with usage_errors():
            self.options = _ini_options(config)
            self.allowed = matchers_of(config.getini("tmpguard_allow"), directory_of(self.options))
            self.writable_tmp_path = bool(config.getini("tmpguard_writable_tmp_path"))
            self.late_writes = config.getini("tmpguard_late_writes") or "report"
            if self.late_writes not in LATE_WRITES:
                raise ConfigurationError(
                    f"tmpguard_late_writes = {self.late_writes!r} is neither report nor fail"
                )
        self.every_request = bool(given.tmpguard or config.getini("tmpguard"))
        #: True if imports and start-ups are invocations, too.
        self.starts = bool(given.tmpguard_import or config.getini("tmpguard_import"))
        self.report = _path_of(config, "report", given.tmpguard_report)
        with usage_errors():
            self.baseline = _baseline_of(config, given)

    def of_test(self, item: pytest.Item) -> TestSettings:
        """The settings of a test. The nearest marker takes precedence, then outer ones, then the ini file."""
        return TestSettings(self, item)

    def base_temporary(self) -> str:
        """The directory in which pytest creates each ``tmp_path`` of this run."""
        factory = self._config._tmp_path_factory  # type: ignore[attr-defined]
        return os.path.realpath(str(factory.getbasetemp()))

    def guard(self, options: Mapping[str, Any], *, tmp_path: bool, writable_tmp_path: bool) -> TestGuard:
        """The guard with these options; equal options share one guard. Raises ConfigurationError."""
        with unguarded():  # a guarded test body may ask for a client
            return self._guard(dict(options), tmp_path, writable_tmp_path)

    def guard_of_imports(self) -> Guard:
        """The guard for code that runs before the first test. Raises UsageError for an invalid option."""
        with usage_errors():
            return self._guard_of_imports()

    def _guard_of_imports(self) -> TestGuard:
        return self.guard(self.options, tmp_path=False, writable_tmp_path=False)

    def end_imports(self) -> None:
        """The imports are done: each instance from now on starts with what they left."""
        if self.starts:
            self.imported.add(self._guard_of_imports().set_aside_instance())

    def end_instances(self) -> None:
        """End the instances after a test: with ``lifetime="instance"``, each test has its own /tmp."""
        for guard, _ in self._guards.values():
            guard.end_instance()

    def _guard(self, options: dict[str, Any], tmp_path: bool, writable_tmp_path: bool) -> TestGuard:
        readable: tuple[str, ...] = ()
        if writable_tmp_path:
            options["writable"] = [*checked_writable(options.get("writable", ())), self.base_temporary()]
        elif tmp_path and is_below(self.base_temporary(), TMP):
            readable = (self.base_temporary(),)
        # A relative bundle depends on the working directory, which a test may change.
        key = (readable, os.getcwd(), repr(options))
        if key not in self._guards:
            make = partial(TestGuard, readable=readable)
            # Stored with its options: the key may contain addresses of objects, which must stay alive.
            guard = detected(make, cast("Options", options))
            guard.begin_with(self.imported)
            self._guards[key] = guard, options
        return self._guards[key][0]


class TestSettings:
    """The settings of one test. Raises ConfigurationError for an invalid marker."""

    __test__ = False

    def __init__(self, settings: Settings, item: pytest.Item) -> None:
        self._settings = settings
        self._tmp_path = not _TMP_PATHS.isdisjoint(getattr(item, "fixturenames", ()))
        self.options = dict(settings.options)
        self.allowed: list[Matcher] = list(settings.allowed)
        self.baseline = settings.baseline
        if self.baseline is not None and self._tmp_path:
            self.baseline.temporary = settings.base_temporary()
        self.starts = settings.starts
        self.late_writes_fail = settings.late_writes == "fail"
        self._writable_tmp_path = settings.writable_tmp_path
        body: bool | None = None
        marked: dict[str, Any] = {}
        markers = list(item.iter_markers("tmpguard"))
        for marker in reversed(markers):  # the nearest marker comes last and takes precedence
            given = _checked_marker(marker)
            self.allowed += matchers_of(given.pop("allow", ()), directory_of(settings.options))
            body = given.pop("body", body)
            self._writable_tmp_path = given.pop("writable_tmp_path", self._writable_tmp_path)
            marked |= given
        self.options |= marked
        #: True if the test's body is an invocation. A marker with only ``allow`` does not make it one.
        self.body = body if body is not None else any(_guards_body(marker) for marker in markers)
        self.marked = bool(markers)

    def is_temporary(self, path: str) -> bool:
        """True if ``path`` is in pytest's temporary directories and the test uses those."""
        return self._tmp_path and is_below(path, self._settings.base_temporary())

    def guard(self, options: Mapping[str, Any] | None = None) -> Guard:
        """The guard of the test, or of a client with its own ``options``. Raises ConfigurationError."""
        given = {**self.options, **(options or {})}
        writable = given.pop("writable_tmp_path", self._writable_tmp_path)
        return self._settings.guard(given, tmp_path=self._tmp_path, writable_tmp_path=writable)


def directory_of(options: Mapping[str, Any]) -> str:
    """The working directory of the requests."""
    with unguarded():
        return os.path.realpath(options.get("bundle") or ".")


def _guards_body(marker: pytest.Mark) -> bool:
    return not marker.kwargs or any(name not in MARKER_ONLY for name in marker.kwargs)


def _checked_marker(marker: pytest.Mark) -> dict[str, Any]:
    if marker.args:
        raise ConfigurationError(f"the marker tmpguard takes only keyword arguments, not {marker.args[0]!r}")
    given = dict(marker.kwargs)
    for name in given:
        if name not in MARKER_ONLY and name not in OPTIONS:
            raise ConfigurationError(unknown_option(name, (*OPTIONS, *MARKER_ONLY)))
    for name in ("body", "writable_tmp_path"):
        if not isinstance(given.get(name, True), bool):
            raise ConfigurationError(f"{name}={given[name]!r} is neither True nor False")
    return given


def _ini_options(config: pytest.Config) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for name in ("plan", "platform", "lifetime", "children", "scratch_root"):
        if value := config.getini(f"tmpguard_{name}"):
            options[name] = value
    for name in ("storage_size", "max_files"):
        if value := config.getini(f"tmpguard_{name}"):
            options[name] = int(value) if str(value).isdigit() else value
    if bundle := config.getini("tmpguard_bundle"):
        options["bundle"] = None if bundle == "none" else os.path.join(_ini_directory(config), bundle)
    if ignore := config.getini("tmpguard_ignore"):
        options["ignore"] = None if ignore == "none" else os.path.join(_ini_directory(config), ignore)
    if writable := config.getini("tmpguard_writable"):
        options["writable"] = [str(path) for path in writable]
    if not config.getini("tmpguard_enforce"):
        options["enforce"] = False
    return options


def _path_of(config: pytest.Config, name: str, given: str | None) -> str | None:
    """The path of a file, relative to the working directory (command line) or to the ini file (ini key)."""
    if given:
        return os.path.join(config.invocation_params.dir, given)
    if given := config.getini(f"tmpguard_{name}"):
        return os.path.join(_ini_directory(config), given)
    return None


def _baseline_of(config: pytest.Config, given: argparse.Namespace) -> Baseline | None:
    """The known findings, shared by the settings of a run. Raises ConfigurationError."""
    path = _path_of(config, "baseline", given.tmpguard_baseline)
    if path is None:
        if given.tmpguard_baseline_write:
            raise ConfigurationError(
                "--tmpguard-baseline-write names no file: add --tmpguard-baseline FILE, or tmpguard_baseline "
                "= FILE in the ini file"
            )
        return None
    if _BASELINE not in config.stash:
        writing = given.tmpguard_baseline_write
        config.stash[_BASELINE] = Baseline(path, str(config.rootpath), writing=writing)
    return config.stash[_BASELINE]


def _ini_directory(config: pytest.Config) -> str:
    return str(config.inipath.parent if config.inipath else config.rootpath)


@contextmanager
def usage_errors() -> Iterator[None]:
    """End the run for an invalid option, with its message and no traceback."""
    try:
        yield
    except ConfigurationError as exc:
        raise pytest.UsageError(f"tmpguard: {respelled(str(exc), 'tmpguard_{name} = {value}')}") from exc
