"""The current invocation survives finalizers that run while it is being changed (C6.2).

On Python 3.11 the garbage collector may run within the code of a context variable. These tests have it run as
often as it can, in processes of their own, since what goes wrong there may be a crash.
"""

from __future__ import annotations

import pytest

from tests.support import run_python

GARBAGE = """
import contextvars, gc, os, tempfile
import tmpguard
from tmpguard.wsgi import TmpGuardMiddleware

guard = tmpguard.Guard(bundle=None, scratch_root=sys.argv[1])
others = [contextvars.ContextVar(f"other {number}") for number in range(5)]
for other in others:
    other.set(1)

class Cycle:
    def __init__(self):
        self.cycle = self

class Looks(Cycle):
    def __del__(self):
        os.path.exists("/tmp/file.txt")

def abandoned_body():
    def application(environ, start_response):
        try:
            yield b"a body that nobody closes"
        finally:
            os.path.exists("/tmp/file.txt")

    cycle = Cycle()
    cycle.body = TmpGuardMiddleware(application, guard=guard)({}, None)
    next(iter(cycle.body))

def abandoned_directory():
    cycle = Cycle()
    with guard.invocation().bound():
        cycle.directory = tempfile.TemporaryDirectory()

def abandoned_file():
    cycle = Cycle()
    with guard.invocation().bound():
        cycle.file = tempfile.NamedTemporaryFile()
"""

STRESS = """
import warnings
warnings.simplefilter("ignore", ResourceWarning)
make = {
    "looks": Looks,
    "body": abandoned_body,
    "directory": abandoned_directory,
    "file": abandoned_file,
}[sys.argv[2]]
gc.set_threshold(1, 1, 1)
for number in range(int(sys.argv[3])):
    make()
    invocation = guard.invocation()
    with invocation.bound():
        assert tmpguard.current() is invocation, number
        make()
    invocation.end()
    assert tmpguard.current() is None, (number, tmpguard.current())
gc.set_threshold(700, 10, 10)
gc.collect()
tmpguard.drain()
print("through")
"""


@pytest.mark.parametrize(
    ("kind", "times"), [("looks", 3000), ("body", 1000), ("directory", 30), ("file", 60)]
)
def test_finalizers_leave_the_current_invocation_alone(scratch_root: object, kind: str, times: int) -> None:
    assert run_python(GARBAGE + STRESS, scratch_root, kind, times) == "through\n"
