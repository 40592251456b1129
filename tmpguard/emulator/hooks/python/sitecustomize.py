"""Lets the observer of ``tmpguard run`` ask this process for a thread's stack (emulator/inside/stacks.py).

Every Python of an instance imports this at its start. It must do no harm whatever the application is: it
imports next to nothing, and runs the application's own sitecustomize.
"""

import os
import sys

#: The descriptor that faulthandler is given, and the signal.
_DESCRIPTOR = 1023
_SIGNAL = 60


def _register() -> None:
    try:
        os.fstat(_DESCRIPTOR)
        return  # it is in use
    except OSError:
        pass
    try:
        import faulthandler

        descriptor = os.open("/dev/null", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.dup2(descriptor, _DESCRIPTOR, False)
        finally:
            os.close(descriptor)
        try:
            faulthandler.register(_SIGNAL, file=_DESCRIPTOR, all_threads=False)
        finally:
            os.close(_DESCRIPTOR)
    except Exception:
        return  # the findings have no line then
    os.register_at_fork(after_in_child=_speak)
    _speak()


def _speak() -> None:
    """Tell the observer: it sees that this file is opened, and there is none."""
    try:
        os.close(os.open("/.tmpguard/python", os.O_WRONLY))
    except OSError:
        return


def _run_next() -> None:
    """Take this directory out of the path, and import the sitecustomize that this one hides."""
    own = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [path for path in sys.path if path != own]
    module = sys.modules.pop("sitecustomize")
    try:
        __import__("sitecustomize")
    except ImportError as exc:
        if exc.name != "sitecustomize":
            raise
        sys.modules["sitecustomize"] = module


_register()
_run_next()
