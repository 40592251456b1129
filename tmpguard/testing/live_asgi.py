"""The ASGI half of :mod:`tmpguard.testing.live`. Needs uvicorn and anyio."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn
from anyio.abc import TaskStatus
from anyio.from_thread import start_blocking_portal

from tmpguard.asgi import ASGIApp
from tmpguard.guard import Guard

from .applications import GuardedASGI
from .lifespan import running
from .startup import MakeStart, StartingASGI


@contextmanager
def serving(
    app: ASGIApp, guard: Guard, start: MakeStart, listening: socket.socket, patience: int
) -> Iterator[None]:
    """Serve ``app`` on a listening socket, in an event loop in another thread, from start-up to shutdown.

    Raises what the start-up raises, and on exit what the shutdown raises. uvicorn would only log both, so the
    lifespan is not left to it. On exit, requests in progress have ``patience`` seconds to end.
    """
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(running(StartingASGI(app, start))) as served,
    ):
        config = uvicorn.Config(
            GuardedASGI(served, lambda test: guard),
            lifespan="off",
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=patience,
        )
        server = _Server(config)
        done, _ = portal.start_task(server.run_on, listening)
        try:
            yield
        finally:
            server.should_exit = True
            done.result()


class _Server(uvicorn.Server):
    """Reports that it has started, or why it cannot."""

    async def run_on(self, listening: socket.socket, *, task_status: TaskStatus[None]) -> None:
        self._status = task_status
        await self.serve([listening])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._status.started()
