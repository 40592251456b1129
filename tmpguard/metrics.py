"""Reports as OpenTelemetry metrics: how much of ``/tmp`` production uses, and what is refused.

Pass :func:`record` to a guard or a middleware, or call it from your own callback::

    from tmpguard import metrics

    app.add_middleware(TmpGuardMiddleware, storage_size=64, on_report=metrics.record)

The instruments belong to the meter ``tmpguard`` of the global meter provider, which may be set before or
after: ``tmpguard.storage.used`` and ``tmpguard.storage.peak``, histograms in bytes (By);
``tmpguard.wipe.duration``, a histogram in seconds (s); and ``tmpguard.violations``, a counter with the
attribute ``error.type`` (``EROFS``, ``ENOSPC``, ``ESTALE`` for a late write, and so on). All have the
attribute ``tmpguard.cold_start``, true for :func:`tmpguard.cold_start` and false for a request.

They are recorded on the background thread that calls ``on_report``. If the package ``opentelemetry-api`` is
not installed, :func:`record` logs that once and does nothing.
"""

from __future__ import annotations

import errno as codes
import logging
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.metrics import Histogram, Meter

    from tmpguard.core.reports.report import Report

__all__ = ["record"]

logger = logging.getLogger("tmpguard")

#: Bucket boundaries, advisory for the SDK: 4 KiB to 8 GiB, and 100 µs to 30 s.
_BYTES: Final[list[float]] = [0, *(4096 << shift for shift in range(0, 22, 2)), 8 << 30]
_SECONDS: Final[list[float]] = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30]

#: The ``error.type`` of violations that were only counted, from OpenTelemetry's semantic conventions.
_OTHER: Final = "_OTHER"


def record(report: Report) -> None:
    """Record one finished report. Does nothing if OpenTelemetry's API is not installed."""
    instruments = _instruments()
    if instruments is None:
        return
    attributes = {"tmpguard.cold_start": report.cold_start}
    instruments.used.record(report.used_bytes, attributes)
    instruments.peak.record(report.peak_bytes, attributes)
    instruments.wipe.record(report.wipe_seconds, attributes)
    for kind, count in _kinds(report).items():
        instruments.violations.add(count, {**attributes, "error.type": kind})


def _kinds(report: Report) -> Counter[str]:
    """The number of violations and late writes by errno name."""
    violations = report.violations
    kinds = Counter(codes.errorcode.get(one.errno, _OTHER) for one in (*violations, *report.late_writes))
    if report.violation_count > len(violations):
        kinds[_OTHER] += report.violation_count - len(violations)
    return kinds


class _Instruments:
    def __init__(self, meter: Meter) -> None:
        self.used = _histogram(
            meter, "tmpguard.storage.used", "By", "Bytes that an invocation left in its /tmp.", _BYTES
        )
        self.peak = _histogram(
            meter,
            "tmpguard.storage.peak",
            "By",
            "The most bytes that an invocation's /tmp held at one time.",
            _BYTES,
        )
        self.wipe = _histogram(
            meter, "tmpguard.wipe.duration", "s", "The time it took to wipe an invocation's /tmp.", _SECONDS
        )
        self.violations = meter.create_counter(
            "tmpguard.violations", "{violation}", "Refused operations and late writes."
        )


def _histogram(meter: Meter, name: str, unit: str, description: str, bounds: list[float]) -> Histogram:
    try:
        return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=bounds)
    except TypeError:  # the API has no advisory parameters before 1.30
        return meter.create_histogram(name, unit, description)


@cache
def _instruments() -> _Instruments | None:
    try:
        from opentelemetry import metrics
    except ImportError:
        logger.warning(
            "tmpguard: metrics.record does nothing, it needs OpenTelemetry: pip install opentelemetry-api"
        )
        return None
    from tmpguard.core.version import __version__

    return _Instruments(metrics.get_meter("tmpguard", __version__))
