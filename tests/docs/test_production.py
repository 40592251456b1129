"""docs/production.md says what is the case."""

from __future__ import annotations

import contextlib
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import PROJECT
from tmpguard import metrics
from tmpguard.core.reports import delivery as reporter
from tmpguard.core.reports.log import INTERVAL
from tmpguard.reporting import file, tally

PAGE = (PROJECT / "docs" / "production.md").read_text()


def rows(name: str) -> list[list[str]]:
    """The cells of the table between two comments of that name, without its head."""
    text = PAGE.partition(f"<!-- {name} -->\n")[2].partition(f"<!-- /{name} -->")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


@pytest.mark.parametrize("source", re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL))
def test_each_block_runs(source: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "json.tool", raising=False)
    exec(compile(source, "production.md", "exec"), {"__name__": "production"})


def test_the_fields_are_those_of_a_record(guard: tmpguard.Guard, caplog: pytest.LogCaptureFixture) -> None:
    with guard.invocation():
        with contextlib.suppress(OSError):
            os.mkdir("/etc/new")
    (record,) = caplog.records
    documented = [name for row in rows("fields") for name in re.findall(r"`(tmpguard_\w+)`", row[0])]
    assert sorted(documented) == sorted(name for name in vars(record) if name.startswith("tmpguard_"))


def test_the_instruments_are_those_that_are_made() -> None:
    made: list[tuple[str, str, str]] = []

    class Meter:
        def create_histogram(self, name: str, unit: str, description: str, **_: Any) -> None:
            made.append((name, "histogram", unit))

        def create_counter(self, name: str, unit: str, description: str) -> None:
            made.append((name, "counter", unit))

    metrics._Instruments(Meter())
    documented = [tuple(cell.strip("`") for cell in row[:3]) for row in rows("instruments")]
    assert sorted(documented) == sorted(made)


def test_the_numbers_are_those_of_the_code() -> None:
    assert f"At most {reporter.WAITING:,} reports wait" in PAGE
    assert f"For the next {INTERVAL:.0f} seconds" in " ".join(PAGE.split())
    assert f"for {reporter._PATIENCE} seconds at most" in " ".join(PAGE.split())
    assert f"at most every {file.INTERVAL / 60:.0f} minutes (`interval={file.INTERVAL:.0f}`" in PAGE
    assert f"the first {tally.ROUTES} routes and {tally.ALL_FINDINGS:,} findings" in PAGE
