"""What the instance's process 1 does once the application is started.

Its first thread observes and collects processes; a second one answers the supervisor and the calls that wait
for an answer. The second is idle while requests run, so the two do not wait for each other.
"""

from __future__ import annotations

import _thread
import os
import select

from . import activity, application, notifications
from .calls import BIND, LISTEN
from .family import Family
from .messages import Channel
from .observer import Observer
from .peak import Peak
from .ports import Ports
from .replay import Replay
from .storage import used_inodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, NoReturn

_TMP: Final = "/tmp"
#: Milliseconds between two looks at an application that is starting.
_STEP: Final = 25
#: Seconds to wait for what is known at once, unless that thread has failed.
_PATIENCE: Final = 5


def run(channel: Channel, orders: dict[str, Any], family: Family) -> NoReturn:
    """Start the application, and look after it until it has ended, or the supervisor has."""
    tmp = os.open(_TMP, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    channel.send_descriptor(tmp, "tmp", used_inodes(tmp), family.is_alone)
    started = application.start(orders)
    channel.send("observed", started.means, started.reason)
    observer = Observer(channel, Peak(orders["peak"]), tmp, traces=started.means == "ptrace")
    control = _Control(channel, started, observer, orders["address"], family)
    _thread.start_new_thread(control.run, ())

    def ended(code: int) -> None:
        if started.means != "ptrace":
            family.end()
        control.begun.acquire(True, _PATIENCE)  # a program that cannot be executed says why, and no more
        channel.send("ended", code)
        os._exit(0)

    observer.run(started.process, ended)
    os._exit(0)


class _Control:
    """The second thread."""

    def __init__(
        self,
        channel: Channel,
        started: application.Started,
        observer: Observer,
        address: str,
        family: Family,
    ) -> None:
        self._channel = channel
        self._started = started
        self._observer = observer
        self._replay: Replay | None = None
        self._ports = Ports(address, observer.on_bind, family, can_see=started.listener >= 0)
        self._family = family
        #: Locked until it is known whether the program could be executed.
        self.begun = _thread.allocate_lock()
        self.begun.acquire()
        self._readiness: activity.Readiness | None = activity.Readiness(family)
        self._poll = select.poll()
        self._poll.register(channel, select.POLLIN)
        self._poll.register(started.result, select.POLLIN)
        if started.listener >= 0:
            notifications.prepare(started.listener)
            self._poll.register(started.listener, select.POLLIN)

    def run(self) -> None:
        """Work until the supervisor is gone; then everything ends with this process."""
        try:
            while True:
                for descriptor, event in self._poll.poll(-1 if self._readiness is None else _STEP):
                    self._on_event(descriptor, event)
                self._look_whether_ready()
        finally:
            self._end()

    def _end(self) -> None:
        if self._started.means != "ptrace":
            self._family.end()
        os._exit(0)

    def _on_event(self, descriptor: int, event: int) -> None:
        if descriptor == self._started.listener:
            if event & select.POLLHUP:
                self._poll.unregister(descriptor)
            else:
                self._on_call()
        elif descriptor == self._started.result.fileno():
            self._poll.unregister(descriptor)
            failure = application.not_started(self._started.result)
            if failure is not None:
                self._channel.send("refused", "exec", *failure)
                self._end()
            self.begun.release()
        else:
            message = self._channel.receive()
            if message is None:
                self._end()
                return
            self._on_command(*message)

    def _on_call(self) -> None:
        notification = notifications.receive(self._started.listener)
        if notification is None:
            return
        if notification.call in (BIND, LISTEN):
            self._ports.on_call(notification)
            return
        if self._replay is None:
            self._replay = Replay(self._observer)  # here: rights belong to a thread
        self._replay.on_call(notification)

    def _on_command(self, command: str, *arguments: int) -> None:
        """``signal`` sends one to the application's first process, ``signal all`` to every process."""
        if command == "signal all":
            self._family.signal(arguments[0])
            return
        try:
            os.kill(self._started.process, arguments[0])
        except ProcessLookupError:
            return

    def _look_whether_ready(self) -> None:
        """It is ready if it listens and has come to rest: a server may listen before it can serve."""
        if self._readiness is None:
            return
        address = self._ports.found()
        if address is not None and self._readiness.is_reached(self._observer.calls):
            self._readiness = None
            self._ports.close()
            self._channel.send("ready", *address)
