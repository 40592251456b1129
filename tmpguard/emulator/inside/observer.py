"""Sees every change that the kernel refuses to a process of the instance, by seccomp and ptrace.

A filter stops a thread at each system call that could change a file system; the tracer lets it run to the end
of the call and looks at what it returned. So the kernel's own errno is known, whatever the program is written
in, and all other calls run at full speed.

One thread does this: ptrace belongs to the thread that seized a process. The same thread collects the
processes that have ended, the instance's orphans included.
"""

from __future__ import annotations

import os
from errno import ENOENT, ENOSPC, EROFS, ESTALE

from . import arming, stacks, tracing
from .arming import Arming
from .calls import CALLS, FREES, OPEN_CHANGES, OPENAT2, SystemCall
from .peak import Peak
from .tracing import go_on, go_on_to_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from .messages import Channel

#: Opening such a path is how a hook in the application sends a message. There is never such a file.
MESSAGE: Final = b"/.tmpguard/"

_AT_FDCWD: Final = 0xFFFFFFFFFFFFFF9C
_REFUSED: Final = (-EROFS, -ENOSPC)
_O_TRUNC: Final = 0o1000
_TMP: Final = "/tmp/"
_SIGBUS: Final = 7

#: Findings that a report keeps, and some more: not all of them get that far.
_KEPT: Final = 1100

#: No finding is made of these; a Python that cannot write its bytecode goes on without.
_UNTOLD: Final = b"__pycache__"


class Observer:
    """Watches the application and all that it starts. ``tmp`` is a descriptor of its /tmp.

    ``traces`` is false where this thread is not their tracer.
    """

    def __init__(self, channel: Channel, peak: Peak, tmp: int, *, traces: bool) -> None:
        self._traces = traces
        self._channel = channel
        self._peak = peak
        self._tmp = tmp
        #: The call that a thread is in, and its arguments.
        self._running: dict[int, tuple[SystemCall, tuple[int, ...]]] = {}
        #: Threads that are writing their stack down.
        self._stacks: dict[int, stacks.Stack] = {}
        #: Processes that can do so.
        self._speaking: set[int] = set()
        #: Threads that are giving their process the second filter, and processes that need none any more.
        self._armings: dict[int, Arming] = {}
        self._armed: set[int] = set()
        #: The process of each thread that has changed something.
        self._groups: dict[int, int] = {}
        #: The period of the last finding, and the findings in it.
        self._period = self._told = 0
        #: How many calls have been seen. The control thread reads it.
        self.calls = 0

    def run(self, first: int, ended: Callable[[int], None]) -> None:
        """Trace until no process is left. ``ended`` gets the status of the process ``first``."""
        while True:
            try:
                thread, status = os.waitpid(-1, tracing.WALL)
            except ChildProcessError:
                return
            if status & 0xFF == 0x7F:
                self._on_stop(thread, status)
                continue
            self._forget(thread)
            self._armed.discard(thread)
            if thread == first:
                ended(os.waitstatus_to_exitcode(status))

    def _forget(self, thread: int) -> None:
        """It has ended, or executes another program. Filters stay then."""
        self._running.pop(thread, None)
        self._stacks.pop(thread, None)
        self._armings.pop(thread, None)
        self._groups.pop(thread, None)
        self._speaking.discard(thread)

    def _on_stop(self, thread: int, status: int) -> None:
        event, signal = status >> 16, status >> 8 & 0xFF
        if event == tracing.EVENT_SECCOMP:
            self._on_entry(thread)
        elif signal == tracing.SYSCALL_STOP:
            self._on_call(thread)
        elif event == tracing.EVENT_STOP:
            if signal in stacks.STOPPING:
                tracing.stay_stopped(thread)
            else:
                go_on(thread)
        elif event:
            if event == tracing.EVENT_EXEC:
                self._forget(thread)
            elif event in tracing.EVENTS_START and self._group_of(thread) in self._armed:
                self._armed.add(tracing.new_thread(thread))
            elif event == tracing.EVENT_EXIT:
                self._peak.sample(self._tmp)  # files that it has removed and still holds open go now
            go_on(thread)
        elif signal == _SIGBUS:
            self._on_fault(thread)
            go_on(thread, signal)
        elif thread in self._stacks:
            go_on_to_call(thread, signal)
        elif thread in self._armings:
            self._armings[thread].signals.append(signal)
            go_on_to_call(thread)
        else:
            go_on(thread, signal)

    # --- calls -----------------------------------------------------------------------------------------

    def _on_entry(self, thread: int) -> None:
        self.calls += 1
        if thread in self._stacks:
            go_on_to_call(thread)
            return
        number, *arguments, data = tracing.entered_call(thread)
        call = CALLS.get(number)
        if call is None or (number == OPENAT2 and not _changes_by_openat2(thread, arguments[2])):
            go_on(thread)
            return
        if data == FREES or (call.flags >= 0 and arguments[call.flags] & _O_TRUNC):
            self._peak.sample(self._tmp)
            if call.name == "close":
                go_on(thread)
                return
        self._running[thread] = call, tuple(arguments)
        go_on_to_call(thread)

    def _on_call(self, thread: int) -> None:
        if thread in self._stacks:
            self._on_stack(thread, self._stacks[thread])
            return
        if thread in self._armings:
            self._on_arming(thread, self._armings[thread])
            return
        call, arguments = self._running.pop(thread, (None, ()))
        result = tracing.result_of_call(thread)
        if call is None:
            go_on(thread)
            return
        if result < 0:
            if result in _REFUSED and self.on_refusal(thread, call, arguments, -result):
                go_on_to_call(thread)
                return
            if result == -ENOENT and call.name == "open":
                self._on_message(thread, call, arguments)
        elif call.name == "open" and self._on_opened(thread, result):
            go_on_to_call(thread)
            return
        go_on(thread)

    def on_refusal(self, thread: int, call: SystemCall, arguments: tuple[int, ...], code: int) -> bool:
        """Report the refusal; true if the thread writes its stack down first."""
        if code == ENOSPC:
            self._peak.sample(self._tmp)
        paths = paths_of(thread, call, arguments)
        if any(_UNTOLD in path for path in paths) or not self._is_wanted():
            return False
        finding = self._finding(thread, _operation(call, arguments), code, paths)
        return self._tell_with_stack(thread, finding)

    def _is_wanted(self) -> bool:
        """Does the report of this period still keep findings? A loop of refusals costs little after that."""
        period = self._peak.period()
        if period != self._period:
            self._period, self._told = period, 0
        self._told += 1
        return self._told <= _KEPT

    def _finding(self, thread: int, name: str, code: int, paths: list[bytes]) -> tuple[Any, ...]:
        place = tracing.link_of(f"/proc/{thread}/cwd")
        return name, code, paths, self._group_of(thread), process_name(thread), place

    def _tell_with_stack(self, thread: int, finding: tuple[Any, ...]) -> bool:
        """Report the finding, or have the thread write its stack down first: then true."""
        process = self._group_of(thread)
        if process in self._speaking and stacks.request(process, thread):
            self._stacks[thread] = stacks.Stack(finding)
            return True
        self._channel.send("finding", *finding, [])
        return False

    def _on_fault(self, thread: int) -> None:
        """A page of a mapped file does not fit into /tmp any more: the process ends of it."""
        path = tracing.mapped_file(thread, tracing.fault_address(thread)).removesuffix(" (deleted)")
        if path.startswith(_TMP) and not _has_room(self._tmp):
            self._peak.sample(self._tmp)
            self._channel.send("finding", *self._finding(thread, "mmap", ENOSPC, [os.fsencode(path)]), [])

    def on_announced(self, thread: int, call: SystemCall, arguments: tuple[int, ...]) -> None:
        """A thread is about to make a call whose result will not be seen. The control thread says so."""
        self.calls += 1
        if call.frees or call.name == "open":
            self._peak.sample(self._tmp)
        if call.name == "open":
            self._on_message(thread, call, arguments)

    def on_bind(self, thread: int, path: bytes) -> None:
        """A socket is refused a name in a read-only directory. The control thread sees that."""
        process = tracing.group_of(thread)
        place = tracing.link_of(f"/proc/{thread}/cwd")
        self._channel.send("finding", "bind", EROFS, [path], process, process_name(thread), place, [])

    def _on_message(self, thread: int, call: SystemCall, arguments: tuple[int, ...]) -> None:
        path = tracing.read_text(thread, arguments[call.paths[0][1]])
        if not path.startswith(MESSAGE):
            return
        message, process = path[len(MESSAGE) :], self._group_of(thread)
        if message == stacks.HELLO:
            if self._traces:
                self._speaking.add(process)
        else:
            self._channel.send("message", process, message)

    def _group_of(self, thread: int) -> int:
        group = self._groups.get(thread)
        if group is None:
            group = self._groups[thread] = tracing.group_of(thread)
        return group

    def _on_opened(self, thread: int, descriptor: int) -> bool:
        """A file was opened for writing: true if the thread makes more calls before it goes on."""
        process = self._group_of(thread)
        is_new, is_late = process not in self._armed, not self._peak.is_active()
        if not (is_new or is_late):
            return False
        path = tracing.link_of(f"/proc/{thread}/fd/{descriptor}").removesuffix(" (deleted)")
        if not path.startswith(_TMP):
            return False
        finding = self._finding(thread, "open", ESTALE, [os.fsencode(path)]) if is_late else None
        if is_new and arming.POSSIBLE:
            self._armed.add(process)
            if arming.is_possible(thread):
                self._armings[thread] = Arming(thread, finding)
                return True
        return finding is not None and self._tell_with_stack(thread, finding)

    def _on_arming(self, thread: int, running: Arming) -> None:
        if running.go_on():
            go_on_to_call(thread)
            return
        del self._armings[thread]
        running.send_signals(self._group_of(thread))
        if running.finding is not None and self._tell_with_stack(thread, running.finding):
            go_on_to_call(thread)
        else:
            go_on(thread)

    def _on_stack(self, thread: int, stack: stacks.Stack) -> None:
        if stack.take(thread):
            go_on_to_call(thread)
            return
        del self._stacks[thread]
        self._channel.send("finding", *stack.finding, stack.frames)
        go_on(thread)


# --- what a call was about -----------------------------------------------------------------------------


def _operation(call: SystemCall, arguments: tuple[int, ...]) -> str:
    """The call's name; unlinkat() with AT_REMOVEDIR is an rmdir()."""
    if call.name == "unlink" and call.paths[0][0] >= 0 and arguments[2] & 0x200:
        return "rmdir"
    return call.name


def _changes_by_openat2(thread: int, how: int) -> bool:
    flags = int.from_bytes(tracing.read_memory(thread, how, 8), "little")
    return bool(flags & OPEN_CHANGES)


def paths_of(thread: int, call: SystemCall, arguments: tuple[int, ...]) -> list[bytes]:
    """The paths of a call, as given. One that is relative to a descriptor's directory becomes absolute."""
    if call.descriptor >= 0:
        return [_path_of_descriptor(thread, arguments[call.descriptor])]
    return [
        _path(thread, _AT_FDCWD if directory < 0 else arguments[directory], arguments[path])
        for directory, path in call.paths
    ]


def _path(thread: int, directory: int, address: int) -> bytes:
    path = tracing.read_text(thread, address)
    if path.startswith(b"/") or directory & 0xFFFFFFFF == _AT_FDCWD & 0xFFFFFFFF:
        return path
    parent = _path_of_descriptor(thread, directory)
    return os.path.join(parent, path) if path else parent


def _path_of_descriptor(thread: int, descriptor: int) -> bytes:
    return os.fsencode(tracing.link_of(f"/proc/{thread}/fd/{descriptor & 0xFFFFFFFF}"))


def _has_room(tmp: int) -> bool:
    return os.fstatvfs(tmp).f_bfree > 0


def process_name(thread: int) -> str:
    """The name of the program that the thread belongs to."""
    try:
        with open(f"/proc/{tracing.group_of(thread)}/comm", "rb") as file:
            return file.read().strip().decode(errors="replace")
    except OSError:
        return ""
