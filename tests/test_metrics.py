"""Reports as OpenTelemetry metrics, where its API is installed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import run_python
from tmpguard import metrics
from tmpguard.core.reports.report import MOST_KEPT, Report
from tmpguard.core.storage.pages import Usage

sdk = pytest.importorskip("opentelemetry.sdk.metrics")
export = pytest.importorskip("opentelemetry.sdk.metrics.export")


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What is read from a provider of this test's own."""
    memory = export.InMemoryMetricReader()
    provider = sdk.MeterProvider(metric_readers=[memory])
    instruments = metrics._Instruments(provider.get_meter("tmpguard"))
    monkeypatch.setattr(metrics, "_instruments", lambda: instruments)
    yield memory
    provider.shutdown()


def points(reader: Any) -> dict[str, tuple[str, dict[tuple[Any, ...], Any]]]:
    """The instruments by name: unit, and the data points by their attributes."""
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        metric.name: (
            metric.unit,
            {tuple(point.attributes.values()): point for point in metric.data.data_points},
        )
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def attempt(path: str) -> None:
    with contextlib.suppress(OSError):
        os.mkdir(path)


def test_a_finished_report_is_recorded_in_proper_units(reader: Any, scratch_root: Path) -> None:
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, storage_size=1, on_report=metrics.record)
    with guard.invocation():
        Path("/tmp/gone.bin").write_bytes(bytes(20_000))
        os.unlink("/tmp/gone.bin")
        Path("/tmp/kept.bin").write_bytes(bytes(10_000))
        with contextlib.suppress(OSError):
            Path("/tmp/large.bin").write_bytes(bytes(2 << 20))
        os.unlink("/tmp/large.bin")
        for _ in range(3):
            attempt("/etc/new")
    with tmpguard.cold_start(guard=guard) as start:
        attempt("/etc/new")
    with start.bound():
        attempt("/tmp/late")
    assert tmpguard.drain(30)
    seen = points(reader)
    assert {name: unit for name, (unit, _) in seen.items()} == {
        "tmpguard.storage.used": "By",
        "tmpguard.storage.peak": "By",
        "tmpguard.wipe.duration": "s",
        "tmpguard.violations": "{violation}",
    }
    used, peak = seen["tmpguard.storage.used"][1], seen["tmpguard.storage.peak"][1]
    assert (used[False,].sum, used[False,].count, used[True,].sum) == (12_288, 1, 0)
    assert peak[False,].sum == 1 << 20
    assert 0 < seen["tmpguard.wipe.duration"][1][False,].sum < 10
    violations = {key: point.value for key, point in seen["tmpguard.violations"][1].items()}
    assert violations[False, "EROFS"] == 3
    assert violations[False, "ENOSPC"] >= 1
    assert violations[True, "EROFS"] == 1


def test_late_writes_and_what_was_only_counted_are_recorded(reader: Any) -> None:
    report = Report(1 << 20, lambda: (Usage(0, 0), 0))
    violation = tmpguard.Violation("open", "/etc/new", 30, None, None)
    for _ in range(MOST_KEPT + 5):
        report.add(violation)
    report.add(violation._replace(errno=116), late=True)
    metrics.record(report)
    seen = {key: point.value for key, point in points(reader)["tmpguard.violations"][1].items()}
    assert seen == {(False, "EROFS"): MOST_KEPT, (False, "ESTALE"): 1, (False, "_OTHER"): 5}


def test_the_buckets_fit_bytes_and_seconds(reader: Any, scratch_root: Path) -> None:
    with tmpguard.invocation(scratch_root=scratch_root, bundle=None, on_report=metrics.record):
        pass
    assert tmpguard.drain(30)
    seen = points(reader)
    assert seen["tmpguard.storage.peak"][1][False,].explicit_bounds[-1] == 8 << 30
    assert seen["tmpguard.wipe.duration"][1][False,].explicit_bounds[0] == 0.0001


WORK = """
import sys, tmpguard
from tmpguard import metrics
with tmpguard.invocation(scratch_root=sys.argv[1], bundle=None, on_report=metrics.record):
    open("/tmp/file.txt", "w").close()
"""


def test_the_global_provider_gets_them(scratch_root: Path) -> None:
    code = f"""
from opentelemetry import metrics as api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
{WORK}
tmpguard.drain()
reader = InMemoryMetricReader()
api.set_meter_provider(MeterProvider(metric_readers=[reader]))
with tmpguard.invocation(scratch_root=sys.argv[1], bundle=None, on_report=metrics.record):
    pass
tmpguard.drain()
data = reader.get_metrics_data().resource_metrics[0].scope_metrics[0]
print(data.scope.name, data.scope.version == tmpguard.__version__, len(data.metrics))
"""
    assert run_python(code, scratch_root) == "tmpguard True 3\n"


def test_nothing_happens_where_the_api_is_not_installed(scratch_root: Path) -> None:
    """But for one warning: see tests/middleware/test_wrong_use.py."""
    code = f"""
import logging, sys
logging.disable()
sys.modules["opentelemetry"] = None
{WORK}
print(tmpguard.drain(30))
"""
    assert run_python(code, scratch_root) == "True\n"


def test_tmpguard_alone_does_not_import_it() -> None:
    code = "import sys, tmpguard, tmpguard.metrics\nprint('opentelemetry' in sys.modules)"
    assert run_python(code) == "False\n"
