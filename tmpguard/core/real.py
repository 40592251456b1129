"""Threads, locks, queues and clocks that nobody can replace.

gevent and eventlet turn threads into greenlets, and freezegun stops the clocks. They do so by patching the
shared modules, before or after tmpguard is imported. tmpguard's own threads and locks must stay real, so this
module loads private copies of the interpreter's modules.

A forked child inherits each lock in its current state, but not the thread that holds it. So this module keeps
track of the locks that it creates, and :func:`free_locks` frees them in the child.
"""

from __future__ import annotations

import weakref
from importlib.machinery import BuiltinImporter, PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import TYPE_CHECKING, Final

from . import runtime

if TYPE_CHECKING:
    import _thread
    import time as _time
    from queue import Empty as Empty
    from queue import SimpleQueue as SimpleQueue
    from threading import RLock as RLock

    _locks: Final[set[weakref.ref[RLock]]] = set()
else:

    def _private(name: str) -> ModuleType:
        """A private copy of the module ``name``. ``sys.modules`` is left unchanged."""
        spec = BuiltinImporter.find_spec(name) or PathFinder.find_spec(name)
        if spec is None:  # PyPy has other modules
            runtime.check()
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    _thread = _private("_thread")
    _time = _private("time")
    _queue = _private("_queue")
    SimpleQueue = _queue.SimpleQueue
    Empty = _queue.Empty

    #: The locks that exist.
    _locks = set()

    def RLock():
        """A reentrant lock that is free in a forked child."""
        lock = _thread.RLock()
        _locks.add(weakref.ref(lock, _locks.discard))
        return lock


#: A lock that any thread may release, so that one thread can wait for another. Use RLock for everything else:
#: a finalizer or a signal handler may run while the thread holds it, and acquire it again.
Lock: Final = _thread.allocate_lock
start_new_thread: Final = _thread.start_new_thread
get_ident: Final = _thread.get_ident

monotonic: Final = _time.monotonic
time_ns: Final = _time.time_ns
perf_counter: Final = _time.perf_counter
sleep: Final = _time.sleep


def free_locks() -> None:
    """In a forked child: free the locks that other threads held, which do not exist in the child."""
    for reference in tuple(_locks):
        lock = reference()
        if lock is not None and not lock._is_owned():  # type: ignore[attr-defined]
            lock._at_fork_reinit()  # type: ignore[attr-defined]
