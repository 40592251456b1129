"""The proxy: takes requests from clients, sends each to an instance, and passes the response back.

Both directions are streams: nothing is read from one side for which the other has no room. Clients are served
in callbacks of asyncio's protocols; only a new connection to the application takes a task.

A client that goes away does not end its request, for most servers go on with it: the request keeps its place
in the instance until the response is complete, or for :data:`~tmpguard.emulator.http.exchange.DRAIN` seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from .client import LINGER, Client
from .exchange import Exchange
from .framing import Refused, RequestHead
from .local import Local
from .pool import ENDING, Pool
from .turns import Done, Turn
from .upstream import Upstream

#: Seconds for the application's server to listen again, after a restart of its own.
CONNECT: Final = 5.0
#: The most seconds for which a head waits for the body that follows it, to be sent with it.
HELD: Final = 0.005
#: Seconds between two looks at what has taken too long.
SWEEP: Final = 0.25
#: Seconds for the first request of a new connection to arrive when everything ends.
FIRST_REQUEST: Final = 0.5


class Proxy:
    """What the connections of one port share."""

    def __init__(
        self,
        pool: Pool,
        on_done: Callable[[Done], None],
        *,
        on_refused: Callable[[Refused], None] = lambda refused: None,
        request_timeout: float = 0.0,
        local_prefix: bytes = b"",
        local: Callable[[Local], None] | None = None,
    ) -> None:
        """``request_timeout`` is in seconds, 0 for none. Targets below ``local_prefix`` go to ``local``."""
        self.pool = pool
        self.on_done = on_done
        self.on_refused = on_refused
        self.clients: set[Client] = set()
        self.active: set[Exchange] = set()
        self.closing = False
        self._request_timeout = request_timeout
        self._local_prefix = local_prefix
        self._local = local
        self._connecting: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        #: The exchanges whose heads are held. One timer serves all: most of them are released before it ends.
        self._held: list[Exchange] = []
        self._releaser: asyncio.TimerHandle | None = None

    def client(self) -> Client:
        """The protocol of a new connection."""
        return Client(self)

    def turn(self, client: Client, head: RequestHead) -> Turn:
        """Who answers a request."""
        if self._local is not None and head.target.startswith(self._local_prefix):
            return Local(client, head, self._local)
        return Exchange(self, client, head)

    # --- connections to the application ---

    def connect(self, exchange: Exchange) -> None:
        """Make a new connection for ``exchange``."""
        task = asyncio.get_running_loop().create_task(self._connect(exchange))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, exchange: Exchange) -> None:
        member = exchange.member
        assert member is not None
        loop = asyncio.get_running_loop()
        until = time.monotonic() + CONNECT
        host, port = member.instance.address
        while True:
            try:
                _, upstream = await loop.create_connection(Upstream, host, port)
            except OSError as exc:
                if exchange.ended or member.instance.ended.done() or time.monotonic() > until:
                    exchange.not_connected(
                        f"the application does not take connections: {exc.strerror or exc}"
                    )
                    return
                await asyncio.sleep(0.05)
            else:
                if exchange.ended:
                    upstream.abort()
                else:
                    exchange.attach(upstream)
                return

    # --- time ---

    def hold(self, exchange: Exchange) -> None:
        """Have ``exchange`` release the head of its response in a moment."""
        self._held.append(exchange)
        if self._releaser is None:
            self._releaser = asyncio.get_running_loop().call_later(HELD, self._release)

    def _release(self) -> None:
        self._releaser = None
        held, self._held = self._held, []
        for exchange in held:
            exchange.release_head()

    def start(self) -> None:
        """Begin to look for what takes too long."""
        self._sweep()

    def _sweep(self) -> None:
        now = time.monotonic()
        for exchange in list(self.active):
            timeout = self._request_timeout
            if exchange.drain_until:
                if now >= exchange.drain_until:
                    exchange.give_up()
            elif timeout and exchange.status != 101 and now - exchange.dispatched >= timeout:
                exchange.time_out(timeout)
        for client in list(self.clients):
            client.sweep(now)
        self.pool.sweep(now)
        self._sweeper = asyncio.get_running_loop().call_later(SWEEP, self._sweep)

    async def drain(self, grace: float) -> None:
        """Wait until all requests that were sent are answered, for ``grace`` seconds at most.

        Connections are closed when they have nothing more to say.
        """
        self.closing = True
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < grace:
            patient = passed < FIRST_REQUEST
            expected = [client.end_if_idle(patient=patient) for client in list(self.clients)]
            if not (self.active or self.pool.waiting or any(expected)):
                break
            await asyncio.sleep(0.02)

    async def close(self) -> None:
        """End all connections: what is not answered by now is refused."""
        self.closing = True
        for timer in (self._sweeper, self._releaser):
            if timer is not None:
                timer.cancel()
        for task in list(self._connecting):
            task.cancel()
        for exchange in list(self.active):
            exchange.cut_off(ENDING)
        until = time.monotonic() + LINGER
        while time.monotonic() < until:
            expected = [client.end_if_idle(patient=False) for client in list(self.clients)]
            if not (any(expected) or any(client.is_unfinished() for client in self.clients)):
                break
            await asyncio.sleep(0.02)
        for client in list(self.clients):
            client.transport.abort()
