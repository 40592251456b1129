"""The processes in which the rows run: one that never imports tmpguard, one that has it installed.

Both are forked from the command's own process, so that what they have in common is at the same addresses, and
both run on the same core, since a core may be slower than its neighbour for seconds on end.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from time import perf_counter
from typing import Any

from .measure import Batch, Row
from .rows import ROWS


def serve(connection: Connection, guarded: bool, may_import: bool, directory: str) -> None:
    """Answer the parent's requests until it says stop: the body of a worker."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    # Servers have threads, and the guarded side's own one wipes. With the first of them the C library begins
    # to take its locks, for each name that is read from a directory, say.
    threading.Thread(target=threading.Event().wait, daemon=True).start()
    rows = {row.name: row for row in ROWS}
    preparation: Iterator[Batch] | None = None
    batch: Batch | None = None
    while True:
        command, argument = connection.recv()
        if command == "stop":
            return
        if command == "prepare":
            place = os.path.join(directory, str(len(os.listdir(directory))))
            os.mkdir(place)
            preparation = rows[argument].prepare(guarded, place)
            batch = next(preparation)
            gc.collect()
            connection.send(None)
        elif command == "time":
            assert batch is not None
            start = perf_counter()
            batch(argument)
            connection.send(perf_counter() - start)
        else:
            assert preparation is not None
            batch = None
            for _ in preparation:
                raise AssertionError("a preparation yields once")
            if not may_import and "tmpguard" in sys.modules:
                raise AssertionError("the plain side has imported tmpguard")
            connection.send(None)


class Worker:
    """A process that measures one side of the rows.

    ``may_import``: whether tmpguard may be imported there. A plain side that has it is not plain.
    """

    def __init__(self, guarded: bool, may_import: bool, directory: str) -> None:
        if "tmpguard" in sys.modules:
            raise AssertionError("the workers have to be forked before tmpguard is imported")
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        arguments = (theirs, guarded, may_import, directory)
        self._process: BaseProcess = context.Process(target=serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def prepare(self, row: Row) -> None:
        self._ask("prepare", row.name)

    def time(self, count: int) -> float:
        return float(self._ask("time", count))

    def finish(self) -> None:
        self._ask("finish", None)

    def close(self) -> None:
        self._connection.send(("stop", None))
        self._process.join()
        self._connection.close()

    def _ask(self, command: str, argument: object) -> Any:
        self._connection.send((command, argument))
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join()
            raise SystemExit(f"the worker died ({command} {argument}): see its traceback above") from None
