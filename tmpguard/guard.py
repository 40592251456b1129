"""Guard: validated options, from which it makes invocations."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tmpguard.config import genezio, options, sam
from tmpguard.config.options import MB, StrPath
from tmpguard.core import runtime
from tmpguard.core.coldstart import ColdStart
from tmpguard.core.context import unguarded
from tmpguard.core.errors import ConfigurationError, NotPermitted
from tmpguard.core.instance import Instance, InstanceInvocation, Instances
from tmpguard.core.invocation import Invocation
from tmpguard.core.mounts.bundle import deployed_places, find_ignore, hidden_by
from tmpguard.core.mounts.ignore import NAME
from tmpguard.core.mounts.table import MountTable
from tmpguard.core.policy import Policy
from tmpguard.core.reports.log import INTERVAL, Journal
from tmpguard.core.reports.report import Report
from tmpguard.core.storage import scratch
from tmpguard.interpose import install


class Guard(Policy):
    """The options of a guarded application, validated when the guard is built (C3.1).

    :param storage_size: The quota in whole MB (1 MB = 1,048,576 bytes), at least 1. None: the environment
        variable ``TMPGUARD_STORAGE_SIZE`` if set, otherwise the platform's default.
    :param plan: ``"free"`` (up to 128 MB), ``"pro"`` (up to 512) or ``"enterprise"`` (any).
    :param platform: The platform whose sizes and limits apply: ``"genezio"``, ``"aws-lambda"``,
        ``"oci-functions"``, ``"vercel"`` or ``"none"``.
    :param lifetime: ``"invocation"`` wipes ``/tmp`` after each invocation. ``"instance"`` lets all
        invocations of the process share one ``/tmp`` (:mod:`tmpguard.core.instance`).
    :param bundle: The project directory: the working directory of every invocation, and readable at
        ``/tmp/package`` on the platform that has it, ``"genezio"``. None for no bundle (C5).
    :param ignore: A file of patterns in gitignore syntax: project files that match are not in the bundle.
        The default is the bundle's ``.genezioignore``, if it has one. None for no such file.
    :param writable: More directories that may be written to, without quota or wipe (C1.4).
    :param enforce: False refuses nothing and only records (C2.5).
    :param max_files: The maximum number of files, directories and links in ``/tmp``. None applies only the
        platform's limit (C3.6).
    :param scratch_root: Where scratch directories are created. None for the system's temporary directory.
    :param on_report: Called with each finished :class:`~tmpguard.Report` on a background thread.
    :param log_interval: After a refusal is logged, further refusals of the same source line are only counted
        for this many seconds. 0 logs every refusal.
    :param children: How child processes are treated (C6.3). ``"allow"``: they see the real file system.
        ``"refuse"``: none is started. ``"contain"``: they see the invocation's file system, if the machine
        permits it (Linux).

    Raises ConfigurationError (a ValueError) for an invalid option, and on anything but Linux and CPython with
    the global interpreter lock. Building a guard installs the patched layer.
    """

    #: Directories below the real /tmp that can be read at their own paths, as the project can (C1.5). The
    #: testing kit's guards list pytest's own directory here.
    readable: tuple[str, ...] = ()

    def __init__(
        self,
        *,
        storage_size: int | None = None,
        plan: str = "free",
        platform: str = "genezio",
        lifetime: str = "invocation",
        bundle: StrPath | None = ".",
        ignore: StrPath | None = NAME,
        writable: Iterable[StrPath] = (),
        enforce: bool = True,
        max_files: int | None = None,
        scratch_root: StrPath | None = None,
        on_report: Callable[[Report], object] | None = None,
        log_interval: float = INTERVAL,
        children: str = "allow",
        **unknown: object,
    ) -> None:
        runtime.check()
        for name in unknown:
            raise ConfigurationError(options.unknown_option(name))
        with unguarded():  # a guard may be built within another guard's invocation
            self._set_sizes(storage_size, plan, platform, max_files)
            self.lifetime = options.checked_lifetime(lifetime)
            self.enforce = options.checked_bool("enforce", enforce)
            self.on_report = options.checked_callable("on_report", on_report)
            self.journal = Journal(options.checked_seconds("log_interval", log_interval))
            self.children = options.checked_children(children)
            self._set_places(bundle, ignore, writable, scratch_root)
            self.containment = _containment(self) if self.children == "contain" else None
        self._instances = Instances(self) if self.lifetime == "instance" else None
        install.install()

    def _set_sizes(self, storage_size: object, plan: object, platform: object, max_files: object) -> None:
        row = options.checked_platform(platform)
        self.platform = row.name
        self._has_package = row.package
        self.plan = options.checked_plan(plan, row)
        #: ``size_from`` names the source of the storage size.
        self.storage_size, self.size_from = options.told_size(storage_size, self.plan, row)
        self.quota_bytes = self.storage_size * MB
        self.max_files = options.checked_max_files(max_files, self.storage_size, row)

    def _set_places(self, bundle: object, ignore: object, writable: object, scratch_root: object) -> None:
        self.bundle = None if bundle is None else options.checked_directory("bundle", bundle)
        self.writable = options.checked_writable(writable)
        root = options.checked_scratch_root(scratch_root, self.bundle)
        #: The rules that exclude files from the bundle, None if there are none.
        self.ignore = find_ignore(ignore, self.bundle)
        self.mounts = MountTable(
            bundle=self.bundle if self._has_package else None,
            writable=self.writable,
            pinned=options.pinned(self.bundle, *self.readable),
            cwd=self.bundle,
            hidden=hidden_by(self.ignore, self.bundle, self.writable, package=self._has_package),
            deployed=deployed_places(self.bundle, self.writable) if self.enforce else None,
            enforce=self.enforce,
        )
        self.scratch = scratch.root_at(root)

    @classmethod
    def from_genezio(
        cls, path: StrPath = "genezio.yaml", *, function: str | None = None, **overrides: Any
    ) -> Guard:
        """A guard with the storage size of a Genezio project's function, and its directory as the bundle.

        ``path`` is the project's ``genezio.yaml``. ``function`` is the name of one of its functions; it may
        be omitted if there is only one. Options in ``overrides`` take precedence over the file. Raises
        ConfigurationError, with the file, the line and the key, for an invalid value.
        """
        return cls._made(*genezio.options_of(path, function, overrides))

    @classmethod
    def from_sam(
        cls, path: StrPath = "template.yaml", *, function: str | None = None, **overrides: Any
    ) -> Guard:
        """A guard for a function of an AWS SAM template: the ``Size`` of its ``EphemeralStorage`` is the
        storage size, the directory of its ``CodeUri`` is the bundle, and ``platform`` is ``"aws-lambda"``.

        ``function`` is the function's logical id; it may be omitted if there is only one. Options in
        ``overrides`` take precedence over the file. Raises ConfigurationError as :meth:`from_genezio` does.
        """
        return cls._made(*sam.options_of(path, function, overrides))

    @classmethod
    def _made(cls, given: dict[str, Any], size_from: str | None) -> Guard:
        made = cls(**given)
        if size_from is not None:
            made.size_from = size_from
        return made

    def invocation(self) -> Invocation:
        """A new invocation with this guard's options. Performs no file operation (C4.7)."""
        if not install.ready:
            install.make_ready()
        if self._instances is None:
            return Invocation(self)
        return InstanceInvocation(self, self._instances.current())

    @property
    def instance(self) -> Instance | None:
        """What this process's invocations share with ``lifetime="instance"``. None before the first one."""
        return None if self._instances is None else self._instances.last

    def end_instance(self) -> None:
        """With ``lifetime="instance"``, wipe ``/tmp`` and wait for that, as when the platform stops the
        instance. Code that still runs for it gets ESTALE, and the next invocation starts a new instance.
        Otherwise does nothing. Never raises.
        """
        instance = self.instance
        if instance is not None:
            instance.end()

    def __repr__(self) -> str:
        whose = f"plan={self.plan!r}" if self.platform == "genezio" else f"platform={self.platform!r}"
        return f"<Guard storage_size={self.storage_size} {whose} bundle={self.bundle!r}>"


def _containment(guard: Guard) -> object:
    """The containment of the guard's children. Raises ConfigurationError that names the forbidden step."""
    from tmpguard.kernel.containment import Containment  # slow to import, and few guards contain children

    trial = Invocation(guard)
    directory = trial.namespace.scratch()
    try:
        trial.make_mount_points()
        return Containment(guard.mounts, directory, read_only=guard.enforce)
    except NotPermitted as exc:
        raise ConfigurationError(
            f'children="contain" is not permitted here ({exc}): use children="refuse" or children="allow"'
        ) from None
    finally:
        guard.scratch.discard(directory)
        guard.scratch.release()


def guard_from(guard: Guard | None, given: dict[str, Any]) -> Guard:
    """The guard that a middleware was given, or one built from its options; passing both is an error.

    Without a guard, a ``genezio.yaml`` in the working directory supplies what the options leave out.
    """
    if guard is None:
        return detected(Guard, given)
    if not isinstance(guard, Guard):
        raise ConfigurationError(f"guard={guard!r} is not a tmpguard.Guard")
    if given:
        raise ConfigurationError(
            f"guard= and {', '.join(f'{name}=' for name in given)} are both given: "
            "pass either a guard or the options"
        )
    return guard


AnyGuard = TypeVar("AnyGuard", bound=Guard)


def detected(cls: type[AnyGuard], given: dict[str, Any]) -> AnyGuard:
    """A guard with the ``given`` options and those of a ``genezio.yaml`` in the working directory, if any."""
    found = genezio.detected(given)
    if found is None:
        return cls(**given)
    more, size_from = found
    guard = cls(**{**given, **more})
    if "storage_size" in more:
        guard.size_from = size_from or guard.size_from
    genezio.log_once(logging.INFO, f"{guard.storage_size} MB for /tmp ({guard.size_from})")
    return guard


def invocation(**given: Any) -> Invocation:
    """A standalone invocation, with the options of :class:`Guard`: ``with tmpguard.invocation(): ...``"""
    return Guard(**given).invocation()


def cold_start(*, guard: Guard | None = None, **options: Any) -> Invocation:
    """An invocation for imports and start-up: ``with tmpguard.cold_start() as start: import main``.

    Pass either a ``guard`` or the options of :class:`tmpguard.Guard`. Passing both, or an invalid option,
    raises ConfigurationError. ``start.report`` holds the findings, both during the start-up and afterwards.
    """
    chosen = guard_from(guard, options)
    start = chosen.invocation()  # makes the patched layer ready
    if chosen.lifetime == "instance":
        start.cold_start = True  # the requests see what it writes to /tmp
        return start
    return ColdStart(chosen)
