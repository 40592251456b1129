"""freezegun stops the clocks of all modules."""

from __future__ import annotations

import pytest

from tests.company import need
from tests.support import run_python

need("freezegun")

CODE = """
import logging, os
{first}
{second}

class Lines(list):
    write = list.append
    def flush(self):
        pass

lines = Lines()
logging.getLogger("tmpguard").addHandler(logging.StreamHandler(lines))
guard = tmpguard.Guard(storage_size=1, bundle=None, log_interval=0.01)
with freezegun.freeze_time("2001-01-01"):
    for n in range(3):
        with guard.invocation() as invocation:
            open("/tmp/file", "w").write("x" * 200_000)
            try:
                open("/etc/new", "w")
            except OSError:
                pass
        print(invocation.report.violations[0].operation, tmpguard.drain(30))
        own.sleep(0.02)
print(sum("Read-only" in line for line in lines))
"""
FREEZEGUN, TMPGUARD = (
    "import freezegun",
    "import tmpguard, tmpguard.guard; from tmpguard.core import real as own",
)


@pytest.mark.parametrize("order", [(FREEZEGUN, TMPGUARD), (TMPGUARD, FREEZEGUN)], ids=["before", "after"])
def test_tmpguard_s_own_clocks_run_on(order: tuple[str, str]) -> None:
    """The wipe waits by the clock, and a refused line is logged again after its interval."""
    printed = run_python(CODE.format(first=order[0], second=order[1]))
    assert printed == "open True\n" * 3 + "3\n"
