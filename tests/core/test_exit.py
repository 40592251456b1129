"""What ends while the interpreter exits is wiped there and then, without a thread (C4.2, C4.4)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import run_python

BEGIN = """
import atexit
atexit.register(lambda: at_exit and at_exit[0]())  # runs after tmpguard's own
at_exit = []
import contextlib, logging, os, threading, tmpguard

guard = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)

def use(name="file", guard=guard, fill=lambda: None, open=open):
    invocation = guard.invocation()
    with invocation.bound():
        open(f"/tmp/{name}", "w").close()
        fill()
    return invocation

class AtTheVeryEnd:
    def __init__(self, call):
        self.call = call
    def __del__(self):
        self.call()

def directories(open=open):
    for number in range(20):
        os.makedirs(f"/tmp/{number}/inner")
        open(f"/tmp/{number}/inner/file", "w").close()
"""

LATE = {
    "a file": "kept = AtTheVeryEnd(use().end)",
    "directories": "kept = AtTheVeryEnd(use(fill=directories).end)",
    "the wiper's thread was there before": """
use(fill=directories).end()
kept = AtTheVeryEnd(use(fill=directories).end)
""",
    "in a block": """
def end(invocation=use(fill=directories)):
    with invocation:
        pass
kept = AtTheVeryEnd(end)
""",
    "an exit handler before": "atexit.register(use(fill=directories).end)",
    "an exit handler after": "at_exit.append(use(fill=directories).end)",
    "begun by an exit handler after": "at_exit.append(lambda: use(fill=directories).end())",
    "begun by a finalizer": "kept = AtTheVeryEnd(lambda: use(fill=directories).end())",
    "its report is asked": """
def end(invocation=use(fill=directories)):
    invocation.end()
    assert invocation.report.files == 61, invocation.report
kept = AtTheVeryEnd(end)
""",
    "it is waited for": """
def end(invocation=use(fill=directories), drain=tmpguard.drain):
    invocation.end()
    assert drain()
kept = AtTheVeryEnd(end)
""",
    "with a callback": """
reports = []
telling = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None, on_report=reports.append)
def end(invocation=use(guard=telling, fill=directories), reports=reports):
    invocation.end()
    assert reports == [invocation.report], reports
kept = AtTheVeryEnd(end)
""",
    "an instance": """
shared = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None, lifetime="instance")
use(guard=shared, fill=directories).end()
kept = AtTheVeryEnd(shared.end_instance)
""",
    "a WSGI body": """
from tmpguard.wsgi import TmpGuardMiddleware
def application(environ, start_response):
    directories()
    start_response("200 OK", [])
    return [b"body"]
kept = TmpGuardMiddleware(application, guard=guard)({}, lambda *_: None)
""",
    "a generator": """
def step():
    with guard.invocation():
        directories()
        yield
kept = step()
next(kept)
""",
    "a thread that goes on": """
def go_on():
    with guard.invocation(), contextlib.suppress(OSError):  # ESTALE, in the end
        while True:
            open("/tmp/file", "w").close()
            ready.set()
ready = threading.Event()
threading.Thread(target=go_on, daemon=True).start()
ready.wait()
""",
    "a file that a thread goes on to write beside": """
shared = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None, lifetime="instance")
def go_on():
    logging.getLogger("tmpguard").setLevel(logging.CRITICAL)
    with shared.invocation(), contextlib.suppress(OSError):
        file = open("/tmp/file", "wb")
        while True:
            file.seek(0)
            file.write(bytes(20_000_000))
            ready.set()
ready = threading.Event()
threading.Thread(target=go_on, daemon=True).start()
ready.wait()
invocation = shared.invocation()
with invocation.bound():
    kept = open("/tmp/other", "w")
    kept.write("text")
""",
}


@pytest.mark.parametrize("late", LATE.values(), ids=LATE.keys())
def test_what_ends_at_the_exit_is_wiped_and_the_process_ends(late: str, scratch_root: Path) -> None:
    assert run_python(BEGIN + late, scratch_root) == ""
    assert list(scratch_root.iterdir()) == []
