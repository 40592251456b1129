"""Guard: checked options, and what makes invocations from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from . import options, scratch
from .bundle import deployed_places, find_ignore, hidden_by
from .context import unguarded
from .errors import ConfigurationError, Refused
from .ignore import NAME
from .instance import Instance, InstanceInvocation, current_instance
from .invocation import Invocation
from .journal import INTERVAL, Journal
from .mounts import MountTable
from .options import MB, StrPath
from .report import Report

if TYPE_CHECKING:
    from .containment import Containment


class Guard:
    """The options of a guarded application, each checked when the guard is built (C3.1).

    ``storage_size``: the quota in whole MB (1 MB = 1,048,576 bytes), at least 1; None for what the
    environment's ``TMPGUARD_STORAGE_SIZE`` says or else the platform gives. ``plan``: ``"free"`` (up to 128
    MB), ``"pro"`` (up to 512) or ``"enterprise"`` (any). ``platform``: whose sizes and limits hold, one of
    ``"genezio"``, ``"aws-lambda"``, ``"oci-functions"``, ``"vercel"`` and ``"none"``.
    ``lifetime``: ``"invocation"`` wipes ``/tmp`` after each one, with ``"instance"`` all invocations of the
    process share one (:mod:`tmpguard.instance`). ``bundle``: the project directory, readable at
    ``/tmp/package`` and the working directory of every invocation; None for none (C5).
    ``ignore``: the file that names, in gitignore syntax, what of the project is not in the bundle; by default
    the ``.genezioignore`` in the bundle, if there is one; None for none.
    ``writable``: more directories that may be written, without quota or wipe (C1.4). ``enforce=False``:
    refuse nothing, only record (C2.5). ``max_files``: at most so many files, directories and links in
    ``/tmp``; None for no limit but the platform's (C3.6). ``scratch_root``: where the scratch directories are
    made; None for the system's temporary directory. ``on_report``: called with each finished
    :class:`~tmpguard.Report` on a background thread. ``log_interval``: a source line that goes on being
    refused is logged once in so many seconds (0: each time). ``children``: what becomes of child processes
    (C6.3): ``"allow"``, they see the real file system; ``"refuse"``, none is started; ``"contain"``, they
    see the invocation's, where the machine permits it (Linux).

    Raises ConfigurationError (a ValueError) for a wrong option. Building a guard installs the patched layer.
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
        for name in unknown:
            raise ConfigurationError(options.unknown_option(name))
        with unguarded():  # it may be built within another one's invocation
            row = options.checked_platform(platform)
            self.platform = row.name
            self.plan = options.checked_plan(plan, row)
            self.lifetime = options.checked_lifetime(lifetime)
            #: ``size_from`` says what told the storage size.
            self.storage_size, self.size_from = options.told_size(storage_size, self.plan, row)
            self.bundle = None if bundle is None else options.checked_directory("bundle", bundle)
            self.writable = options.checked_writable(writable)
            self.enforce = options.checked_bool("enforce", enforce)
            self.max_files = options.checked_max_files(max_files, self.storage_size, row)
            self.on_report = options.checked_callable("on_report", on_report)
            self.journal = Journal(options.checked_seconds("log_interval", log_interval))
            self.children = options.checked_children(children)
            root = options.checked_scratch_root(scratch_root, self.bundle)

            self.quota_bytes = self.storage_size * MB
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
            #: What gives children the invocation's file system, None where nothing does.
            self.containment = _containment(self) if self.children == "contain" else None
        #: Reports that ``on_report`` was not called with, as too many waited for it already.
        self.dropped_reports = 0

        if self.lifetime == "instance":
            self.invocation = self._instance_invocation  # type: ignore[method-assign]

        # The patched layer needs the rest of the package first.
        from .interpose import install

        self._layer = install
        install.install()

    @classmethod
    def from_genezio(
        cls, path: StrPath = "genezio.yaml", *, function: str | None = None, **overrides: Any
    ) -> Guard:
        """A guard for a function of a Genezio project: its storage size, and its directory as the bundle.

        ``path`` is the project's ``genezio.yaml``, ``function`` the name of one of its functions, which may
        be left out where there is only one. Options in ``overrides`` win over the file. Raises
        ConfigurationError with the file, the line and the key of what cannot be.
        """
        from . import genezio

        return genezio.guard(cls, path, function, overrides)

    @classmethod
    def from_sam(
        cls, path: StrPath = "template.yaml", *, function: str | None = None, **overrides: Any
    ) -> Guard:
        """A guard for a function of a template of AWS SAM: the ``Size`` of its ``EphemeralStorage``, and the
        directory of its ``CodeUri`` as the bundle; ``platform`` is ``"aws-lambda"``.

        ``function`` is its logical id, which may be left out where there is only one. Options in
        ``overrides`` win over the file. Raises ConfigurationError as :meth:`from_genezio` does.
        """
        from . import sam

        return sam.guard(cls, path, function, overrides)

    def invocation(self) -> Invocation:
        """A new invocation with this guard's options. Makes no file operation (C4.7)."""
        if not self._layer.ready:
            self._layer.make_ready()
        return Invocation(self)

    #: What the invocations share with ``lifetime="instance"``, once there was one.
    instance: Instance | None = None

    def _instance_invocation(self) -> Invocation:
        """What ``invocation`` is with ``lifetime="instance"``."""
        if not self._layer.ready:
            self._layer.make_ready()
        return InstanceInvocation(self, current_instance(self, self.instance))

    def end_instance(self) -> None:
        """With ``lifetime="instance"``: wipe ``/tmp`` and wait for it, as when the platform takes the
        instance down. What still runs for it gets ESTALE, and the next invocation begins a new one. Else it
        does nothing; never raises.
        """
        if self.instance is not None:
            self.instance.end()

    def __repr__(self) -> str:
        whose = f"plan={self.plan!r}" if self.platform == "genezio" else f"platform={self.platform!r}"
        return f"<Guard storage_size={self.storage_size} {whose} bundle={self.bundle!r}>"


def _containment(guard: Guard) -> Containment:
    """What contains the guard's children. Raises ConfigurationError that says which step is not permitted."""
    from .containment import Containment

    trial = Invocation(guard)
    directory = trial.namespace.scratch()
    try:
        trial.make_mount_points()
        return Containment(guard.mounts, directory, read_only=guard.enforce)
    except Refused as exc:
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
        from . import genezio

        return genezio.detected(Guard, given)
    if not isinstance(guard, Guard):
        raise ConfigurationError(f"guard={guard!r} is no tmpguard.Guard")
    if given:
        raise ConfigurationError(
            f"guard= and {', '.join(f'{name}=' for name in given)} are both given: "
            "pass either a guard or the options"
        )
    return guard


def invocation(**given: Any) -> Invocation:
    """An invocation of its own, with the options of :class:`Guard`: ``with tmpguard.invocation(): ...``"""
    return Guard(**given).invocation()
