"""Guard: validated options, from which it makes invocations."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable
from typing import Any, Final, Never, ParamSpec, TypeVar, Unpack, overload

from tmpguard.config import options
from tmpguard.config.options import DEFAULT_OF, MB, Options, StrPath
from tmpguard.config.platforms import PROJECT_FILE
from tmpguard.core import runtime
from tmpguard.core.coldstart import ColdStart
from tmpguard.core.context import unguarded
from tmpguard.core.errors import ConfigurationError, NotPermitted
from tmpguard.core.instance import InstanceInvocation, Instances, ProcessInstance
from tmpguard.core.invocation import Invocation
from tmpguard.core.layout import SHARED_MEMORY
from tmpguard.core.mounts.bundle import deployed_places, find_ignore, hidden_by
from tmpguard.core.mounts.ignore import IGNORE_FILE, Ignore
from tmpguard.core.mounts.table import MountTable
from tmpguard.core.policy import Policy
from tmpguard.core.reports.log import INTERVAL, Journal
from tmpguard.core.reports.report import Report
from tmpguard.core.storage import scratch
from tmpguard.core.storage.forgotten import Forgotten
from tmpguard.core.storage.ledger import Makers
from tmpguard.core.watching import Watching
from tmpguard.interpose import install

logger = logging.getLogger("tmpguard")

P = ParamSpec("P")
T = TypeVar("T")


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
    :param writable: More directories and files that may be written to, without quota or wipe (C1.4).
    :param enforce: False changes nothing that the application sees, and only records (C2.5).
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
        ignore: StrPath | Ignore | None = IGNORE_FILE,
        writable: Iterable[StrPath] = (),
        enforce: bool = True,
        max_files: int | None = None,
        scratch_root: StrPath | None = None,
        on_report: Callable[[Report], object] | None = None,
        log_interval: float = INTERVAL,
        children: str = "allow",
        **unknown: Never,
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
            contains = self.children == "contain" and self.enforce
            self.containment = _containment(self) if contains else None
        self.forgotten = Forgotten(self.scratch)
        self.makers = Makers()
        self._instances = Instances(self) if self.lifetime == "instance" else None
        self.quick_table = self.mounts if self.enforce else None
        self.plain_invocation = _plain_invocation if self._instances is None else None
        install.install()

    def _set_sizes(self, storage_size: object, plan: object, platform: object, max_files: object) -> None:
        row = options.checked_platform(platform)
        self.platform = row.name
        self._has_package = row.package
        self.shared_memory = row.shared_memory
        self.plan = options.checked_plan(plan, row)
        #: ``size_from`` names the source of the storage size.
        self.storage_size, self.size_from = options.resolved_size(storage_size, self.plan, row)
        self.quota_bytes = self.storage_size * MB
        self.max_files = options.checked_max_files(max_files, self.storage_size, row)

    def _set_places(self, bundle: object, ignore: object, writable: object, scratch_root: object) -> None:
        self.bundle = None if bundle is None else options.checked_directory("bundle", bundle)
        self.writable = options.checked_writable(writable)
        shared = os.path.realpath(SHARED_MEMORY)
        memory = (shared,) if self.shared_memory and os.path.isdir(shared) else ()
        self.passed_through = (*self.writable, *memory)
        root = options.checked_scratch_root(scratch_root, self.bundle, is_used=self.enforce)
        #: The rules that exclude files from the bundle, None if there are none.
        self.ignore = find_ignore(ignore, self.bundle)
        self.mounts = MountTable(
            bundle=self.bundle if self._has_package else None,
            writable=self.passed_through,
            pinned=options.pinned(self.bundle, *self.readable),
            cwd=self.bundle,
            hidden=hidden_by(self.ignore, self.bundle, self.writable, package=self._has_package),
            deployed=deployed_places(self.bundle, self.writable) if self.enforce else None,
            enforce=self.enforce,
        )
        # One that only watches removes nothing, not even what dead processes have left.
        self.scratch = scratch.root_at(root) if self.enforce else scratch.ScratchRoot(root)

    @classmethod
    def from_genezio(
        cls, path: StrPath = "genezio.yaml", *, function: str | None = None, **overrides: Unpack[Options]
    ) -> Guard:
        """A guard with the storage size of a Genezio project's function, and its directory as the bundle.

        ``path`` is the project's ``genezio.yaml``. ``function`` is the name of one of its functions; it may
        be omitted if there is only one. Options in ``overrides`` take precedence over the file. Raises
        ConfigurationError, with the file, the line and the key, for an invalid value.
        """
        from tmpguard.config import genezio  # slow to import, as its reader of YAML is

        return cls._made(*genezio.options_of(path, function, overrides))

    @classmethod
    def from_sam(
        cls, path: StrPath = "template.yaml", *, function: str | None = None, **overrides: Unpack[Options]
    ) -> Guard:
        """A guard for a function of an AWS SAM template: the ``Size`` of its ``EphemeralStorage`` is the
        storage size, the directory of its ``CodeUri`` is the bundle, and ``platform`` is ``"aws-lambda"``.

        ``function`` is the function's logical id; it may be omitted if there is only one. Options in
        ``overrides`` take precedence over the file. Raises ConfigurationError as :meth:`from_genezio` does.
        """
        from tmpguard.config import sam

        return cls._made(*sam.options_of(path, function, overrides))

    @classmethod
    def from_project(
        cls, path: StrPath | None = None, *, function: str | None = None, **overrides: Unpack[Options]
    ) -> Guard:
        """A guard for a function of a project file: its storage size, its directory as the bundle without the
        files that are not deployed, and its platform.

        ``path`` is a ``genezio.yaml``, a ``serverless.yml``, a template of AWS SAM or CloudFormation (YAML or
        JSON), the CDK's directory ``cdk.out``, or a directory with one of these, by default the working
        directory. ``function`` is the function's name or logical id; it may be omitted if there is only one.
        Options in ``overrides`` take precedence over the file. Raises ConfigurationError as
        :meth:`from_genezio` does.
        """
        from tmpguard.config import projects

        return cls._made(*projects.options_of(path, function, overrides))

    @classmethod
    def _made(cls, given: Options, size_from: str | None) -> Guard:
        made = cls(**given)
        if size_from is not None:
            made.size_from = size_from
        return made

    def invocation(self) -> Invocation:
        """A new invocation with this guard's options. Performs no file operation (C4.7)."""
        if not install.ready:
            install.make_ready()
        if not self.enforce:
            return Watching(self)
        if self._instances is None:
            return Invocation(self)
        return InstanceInvocation(self, self._instances.current())

    def __call__(self, function: Callable[P, T]) -> Callable[P, T]:
        """Wrap ``function`` so that each call is an invocation of this guard: ``@guard``.

        See :func:`guarded`.
        """
        from tmpguard.core.decorating import decorated  # rarely needed, and imports inspect

        return decorated(function, self.invocation)

    @property
    def instance(self) -> ProcessInstance | None:
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


_plain_invocation: Final = Guard.invocation


def _containment(guard: Guard) -> object:
    """The containment of the guard's children. Raises ConfigurationError that names the forbidden step."""
    from tmpguard.kernel.containment import Containment  # slow to import, and few guards contain children

    trial = Invocation(guard)
    directory = trial.namespace.scratch()
    try:
        trial.make_mount_points()
        return Containment(guard.mounts, directory)
    except NotPermitted as exc:
        raise ConfigurationError(
            f'children="contain" is not permitted here ({exc}): use children="refuse" or children="allow"'
        ) from None
    finally:
        guard.scratch.discard(directory)
        guard.scratch.release()


def guard_from(guard: Guard | None, given: Options) -> Guard:
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


def detected(make: Callable[..., AnyGuard], given: Options) -> AnyGuard:
    """A guard with the ``given`` options and those of a ``genezio.yaml`` in the working directory, if any.

    The project file of another platform is not applied, but logged if the options leave its limits open.
    """
    with unguarded():
        there = given.get("platform", "genezio") == "genezio" and os.path.isfile(PROJECT_FILE)
    if not there:
        guard = make(**given)
        if _leaves_aws_open(guard, given) and logger.isEnabledFor(logging.INFO):
            from tmpguard.config.notices import note_aws_project  # so that others pay nothing for it

            with unguarded():
                note_aws_project(guard.storage_size, guard.size_from)
        return guard
    from tmpguard.config import genezio, notices

    more, size_from = genezio.detected_options(given)
    guard = make(**{**given, **more})
    if "storage_size" in more:
        guard.size_from = size_from or guard.size_from
    notices.log_once(logging.INFO, f"{guard.storage_size} MB for /tmp ({guard.size_from})")
    return guard


def _leaves_aws_open(guard: Guard, given: Options) -> bool:
    """Whether the options neither name another platform than AWS nor give a storage size."""
    return given.get("platform", "aws-lambda") == "aws-lambda" and guard.size_from.startswith(DEFAULT_OF)


def invocation(**given: Unpack[Options]) -> Invocation:
    """A standalone invocation, with the options of :class:`Guard`: ``with tmpguard.invocation(): ...``"""
    return Guard(**given).invocation()


@overload
def guarded(function: Callable[P, T], /) -> Callable[P, T]: ...


@overload
def guarded(
    *, guard: Guard | None = None, **options: Unpack[Options]
) -> Callable[[Callable[P, T]], Callable[P, T]]: ...


def guarded(
    function: Callable[..., Any] | None = None, /, *, guard: Guard | None = None, **options: Unpack[Options]
) -> Callable[..., Any]:
    """Decorate a handler so that each call is an invocation: ``@tmpguard.guarded(storage_size=64)``.

    Takes functions, coroutine functions, generator functions and async generator functions: handlers of AWS
    Lambda and Genezio, tasks of Celery, jobs of RQ and APScheduler. A call of a function ends the invocation
    when it returns, a generator when it is exhausted or closed. A generator's consumer is not part of it.

    Pass either a ``guard`` or the options of :class:`Guard`; passing both, or an invalid option, raises
    ConfigurationError when the function is decorated. As with the middlewares, a ``genezio.yaml`` in the
    working directory supplies what the options leave out.
    """
    if function is not None and not callable(function):
        raise TypeError(f"guarded() decorates a function, not {function!r}: use @tmpguard.guarded(...)")
    chosen = guard_from(guard, options)
    return chosen if function is None else chosen(function)


def cold_start(*, guard: Guard | None = None, **options: Unpack[Options]) -> Invocation:
    """An invocation for imports and start-up: ``with tmpguard.cold_start() as start: import main``.

    Pass either a ``guard`` or the options of :class:`tmpguard.Guard`. Passing both, or an invalid option,
    raises ConfigurationError. ``start.report`` holds the findings, both during the start-up and afterwards.
    """
    chosen = guard_from(guard, options)
    start = chosen.invocation()  # makes the patched layer ready
    if chosen.lifetime == "instance" or start.watches:
        start.cold_start = True  # the requests see what it writes to /tmp
        return start
    return ColdStart(chosen)
