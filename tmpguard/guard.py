"""Guard: checked options, and what makes invocations from them."""

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
    """The options of a guarded application, each checked when the guard is built (C3.1).

    :param storage_size: The quota in whole MB (1 MB = 1,048,576 bytes), at least 1. None: the environment's
        ``TMPGUARD_STORAGE_SIZE``, or else the platform's default.
    :param plan: ``"free"`` (up to 128 MB), ``"pro"`` (up to 512) or ``"enterprise"`` (any).
    :param platform: Whose sizes and limits hold: ``"genezio"``, ``"aws-lambda"``, ``"oci-functions"``,
        ``"vercel"`` or ``"none"``.
    :param lifetime: ``"invocation"`` wipes ``/tmp`` after each one; with ``"instance"`` all invocations of
        the process share one (:mod:`tmpguard.core.instance`).
    :param bundle: The project directory, readable at ``/tmp/package`` and the working directory of every
        invocation; None for none (C5).
    :param ignore: The file that names, in gitignore syntax, what of the project is not in the bundle; by
        default the ``.genezioignore`` in the bundle, if there is one; None for none.
    :param writable: More directories that may be written, without quota or wipe (C1.4).
    :param enforce: False: refuse nothing, only record (C2.5).
    :param max_files: The most files, directories and links that ``/tmp`` may hold; None for no limit but the
        platform's (C3.6).
    :param scratch_root: Where the scratch directories are made; None for the system's temporary directory.
    :param on_report: Called with each finished :class:`~tmpguard.Report` on a background thread.
    :param log_interval: Seconds for which a source line that goes on being refused is only counted after it
        was logged; 0 logs each refusal.
    :param children: What becomes of child processes (C6.3): ``"allow"``, they see the real file system;
        ``"refuse"``, none is started; ``"contain"``, they see the invocation's, where the machine permits it
        (Linux).

    Raises ConfigurationError (a ValueError) for a wrong option, and on anything but Linux and CPython with
    the global interpreter lock. Building a guard installs the patched layer.
    """

    #: Directories below the real /tmp that are to be read at their own paths, as the project is (C1.5). The
    #: testing kit's guards have pytest's own directory there.
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
        with unguarded():  # it may be built within another one's invocation
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
        self.plan = options.checked_plan(plan, row)
        #: ``size_from`` says what gave the storage size.
        self.storage_size, self.size_from = options.told_size(storage_size, self.plan, row)
        self.quota_bytes = self.storage_size * MB
        self.max_files = options.checked_max_files(max_files, self.storage_size, row)

    def _set_places(self, bundle: object, ignore: object, writable: object, scratch_root: object) -> None:
        self.bundle = None if bundle is None else options.checked_directory("bundle", bundle)
        self.writable = options.checked_writable(writable)
        root = options.checked_scratch_root(scratch_root, self.bundle)
        #: The rules by which files are not in the bundle, None where there are none.
        self.ignore = find_ignore(ignore, self.bundle)
        self.mounts = MountTable(
            bundle=self.bundle,
            writable=self.writable,
            pinned=options.pinned(self.bundle, *self.readable),
            cwd=self.bundle,
            hidden=hidden_by(self.ignore, self.bundle, self.writable),
            deployed=deployed_places(self.bundle, self.writable) if self.enforce else None,
            enforce=self.enforce,
        )
        self.scratch = scratch.root_at(root)

    @classmethod
    def from_genezio(
        cls, path: StrPath = "genezio.yaml", *, function: str | None = None, **overrides: Any
    ) -> Guard:
        """A guard for a function of a Genezio project: its storage size, and its directory as the bundle.

        ``path`` is the project's ``genezio.yaml``, ``function`` the name of one of its functions, which may
        be left out where there is only one. Options in ``overrides`` win over the file. Raises
        ConfigurationError with the file, the line and the key of what cannot be.
        """
        return cls._made(*genezio.options_of(path, function, overrides))

    @classmethod
    def from_sam(
        cls, path: StrPath = "template.yaml", *, function: str | None = None, **overrides: Any
    ) -> Guard:
        """A guard for a function of a template of AWS SAM: the ``Size`` of its ``EphemeralStorage``, and the
        directory of its ``CodeUri`` as the bundle; ``platform`` is ``"aws-lambda"``.

        ``function`` is its logical id, which may be left out where there is only one. Options in
        ``overrides`` win over the file. Raises ConfigurationError as :meth:`from_genezio` does.
        """
        return cls._made(*sam.options_of(path, function, overrides))

    @classmethod
    def _made(cls, given: dict[str, Any], size_from: str | None) -> Guard:
        made = cls(**given)
        if size_from is not None:
            made.size_from = size_from
        return made

    def invocation(self) -> Invocation:
        """A new invocation with this guard's options. Makes no file operation (C4.7)."""
        if not install.ready:
            install.make_ready()
        if self._instances is None:
            return Invocation(self)
        return InstanceInvocation(self, self._instances.current())

    @property
    def instance(self) -> Instance | None:
        """What the invocations of this process share with ``lifetime="instance"``, once there was one."""
        return None if self._instances is None else self._instances.last

    def end_instance(self) -> None:
        """With ``lifetime="instance"``: wipe ``/tmp`` and wait for it, as when the platform takes the
        instance down. What still runs for it gets ESTALE, and the next invocation begins a new one. Else it
        does nothing; never raises.
        """
        instance = self.instance
        if instance is not None:
            instance.end()

    def __repr__(self) -> str:
        whose = f"plan={self.plan!r}" if self.platform == "genezio" else f"platform={self.platform!r}"
        return f"<Guard storage_size={self.storage_size} {whose} bundle={self.bundle!r}>"


def _containment(guard: Guard) -> object:
    """What contains the guard's children. Raises ConfigurationError that says which step is not permitted."""
    from tmpguard.kernel.containment import Containment  # takes a while, and few guards contain children

    trial = Invocation(guard)
    directory = trial.namespace.scratch()
    try:
        trial.make_mount_points()
        return Containment(guard.mounts, directory, read_only=guard.enforce)
    except NotPermitted as exc:
        raise ConfigurationError(
            f'children="contain" is not permitted here ({exc}): give children="refuse" or children="allow"'
        ) from None
    finally:
        guard.scratch.discard(directory)
        guard.scratch.release()


def guard_from(guard: Guard | None, given: dict[str, Any]) -> Guard:
    """The guard that a middleware was given, or one built from its options; both is an error.

    Without a guard a ``genezio.yaml`` in the working directory says what the options do not.
    """
    if guard is None:
        return detected(Guard, given)
    if not isinstance(guard, Guard):
        raise ConfigurationError(f"guard={guard!r} is no tmpguard.Guard")
    if given:
        raise ConfigurationError(
            f"guard= and {', '.join(f'{name}=' for name in given)} are both given: "
            "pass either a guard or the options"
        )
    return guard


AnyGuard = TypeVar("AnyGuard", bound=Guard)


def detected(cls: type[AnyGuard], given: dict[str, Any]) -> AnyGuard:
    """A guard of ``given`` options, and of the ``genezio.yaml`` in the working directory if there is one."""
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
    """An invocation of its own, with the options of :class:`Guard`: ``with tmpguard.invocation(): ...``"""
    return Guard(**given).invocation()


def cold_start(*, guard: Guard | None = None, **options: Any) -> Invocation:
    """An invocation for imports and start-up: ``with tmpguard.cold_start() as start: import main``.

    ``guard`` is the guard whose options hold, or they are given themselves, those of
    :class:`tmpguard.Guard`; both at once, or a wrong one, raises ConfigurationError. ``start.report`` has the
    findings, live and after the end.
    """
    chosen = guard_from(guard, options)
    start = chosen.invocation()  # makes the patched layer ready
    if chosen.lifetime == "instance":
        start.cold_start = True  # what it writes to /tmp is there for the requests
        return start
    return ColdStart(chosen)
