"""What each test's requests used and were refused."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from tmpguard.core.callers import Location
from tmpguard.core.context import unguarded
from tmpguard.core.invocation import Invocation
from tmpguard.core.reports import remedies
from tmpguard.core.reports.report import Report, Violation
from tmpguard.core.storage.volume import NO_VOLUME

if TYPE_CHECKING:
    from .allow import Matcher
    from .settings import TestSettings

#: A request that has begun in this context. An application's own guard within it belongs to it.
in_progress: Final[ContextVar[Entry | None]] = ContextVar("tmpguard_testing_entry", default=None)


#: What stands for a route where it is no request.
START_UP: Final = "(start-up)"
IMPORT: Final = "(import)"


class Occurrence(NamedTuple):
    """A violation, and the route of the request that it occurred in."""

    violation: Violation
    route: str


class Entry:
    """One request, or the body of one test."""

    __slots__ = ("_begun", "_judged", "kind", "reports", "route")

    def __init__(self, kind: str, route: str) -> None:
        #: ``request``, ``body`` or ``start``.
        self.kind = kind
        self.route = route
        #: The report of its invocation; of several, where an application's own guard took over within ours.
        self.reports: list[Report] = []
        self._begun: list[weakref.ref[Invocation]] = []
        self._judged: dict[int, int] = {}

    def add(self, invocation: Invocation) -> None:
        """``invocation`` is the request's, in place of one that it has and did not use."""
        if self.reports and not _is_used(self._begun[-1](), self.reports[-1]):
            self.reports.pop()
            self._begun.pop()
        self.reports.append(invocation.report)
        self._begun.append(weakref.ref(invocation))

    @property
    def report(self) -> Report | None:
        """The report that stands for the request: the innermost one."""
        return self.reports[-1] if self.reports else None

    @property
    def violations(self) -> list[Violation]:
        return [violation for report in self.reports for violation in report.violations]

    @property
    def late_writes(self) -> list[Violation]:
        return [violation for report in self.reports for violation in report.late_writes]

    def unjudged(self) -> Iterator[Violation]:
        """The violations since the last call."""
        for report in self.reports:
            violations = report.violations
            yield from violations[self._judged.get(id(report), 0) :]
            self._judged[id(report)] = len(violations)

    def is_telling(self) -> bool:
        """Is it worth a line of the report? An import is if it did something with files."""
        return bool(self.reports) and (
            self.kind != "start"
            or any(
                report.violations or report.peak_bytes or report.files or report.late_writes
                for report in self.reports
            )
        )

    def end(self) -> None:
        """End what a client left open: the test that it belongs to is over."""
        for reference in self._begun:
            invocation = reference()
            if invocation is not None:
                invocation.end()


def _is_used(invocation: Invocation | None, report: Report) -> bool:
    return invocation is None or invocation.mounted is not NO_VOLUME or bool(report.violations)


class TestRecord:
    """What one test's requests used and were refused."""

    __test__ = False

    def __init__(
        self, nodeid: str, settings: TestSettings | None, *, every_request: bool, wanted: bool
    ) -> None:
        self.nodeid = nodeid
        #: None where the test's markers are wrong, and it will not run.
        self.settings = settings
        #: Do the test clients' requests become invocations?
        self.every_request = every_request
        #: Do the violations of an application's own guard fail this test?
        self.wanted = wanted or every_request
        self.entries: list[Entry] = []
        self.allowed: list[Matcher] = [] if settings is None else list(settings.allowed)
        self._late_judged = 0

    @classmethod
    def of_import(cls, nodeid: str, allowed: Iterable[Matcher]) -> TestRecord:
        """The record of what is imported for no test in particular."""
        record = cls(nodeid, None, every_request=False, wanted=False)
        record.allowed += allowed
        return record

    def begin(self, kind: str, route: str) -> Entry:
        """A request begins, or the body."""
        entry = Entry(kind, route)
        self.entries.append(entry)
        return entry

    def explained(self, violation: Violation) -> Violation:
        """``violation``, with what to do where it is about the temporary directory of a test."""
        if self.settings is None or not self.settings.is_temporary(violation.path):
            return violation
        return violation._replace(remedy=remedies.TEST_DIRECTORY)

    def is_allowed(self, violation: Violation) -> bool:
        return any(matches(violation) for matches in self.allowed)

    def unexpected(self) -> list[Occurrence]:
        """The violations since the last call that the test does not allow."""
        return [
            Occurrence(self.explained(violation), entry.route)
            for entry in list(self.entries)
            for violation in list(entry.unjudged())
            if not self.is_allowed(violation)
        ]

    def unexpected_late(self) -> list[Occurrence]:
        """The same of late writes, where they are to fail the test."""
        if self.settings is None or not self.settings.late_writes_fail:
            return []
        late = [Occurrence(one, entry.route) for entry in list(self.entries) for one in entry.late_writes]
        fresh, self._late_judged = late[self._late_judged :], len(late)
        return [one for one in fresh if not self.is_allowed(one.violation)]

    def end(self) -> None:
        """The test is over, and so is what it left open."""
        for entry in self.entries:
            entry.end()

    def data(self) -> list[dict[str, Any]]:
        """What is known of the requests, as plain data for the report; final when all wipes are through."""
        return [self._entry_data(entry) for entry in self.entries if entry.is_telling()]

    def _entry_data(self, entry: Entry) -> dict[str, Any]:
        report = entry.report
        assert report is not None
        with unguarded():
            return {
                "test": self.nodeid,
                "kind": entry.kind,
                "route": entry.route,
                "quota_bytes": report.quota_bytes,
                "peak_bytes": max(one.peak_bytes for one in entry.reports),
                "bytes_left": sum(one.used_bytes for one in entry.reports),
                "files_left": sum(one.files for one in entry.reports),
                "violation_count": sum(one.violation_count for one in entry.reports),
                "violations": [self._violation_data(one) for one in entry.violations],
                "late_writes": [self._violation_data(one) for one in entry.late_writes],
            }

    def _violation_data(self, violation: Violation) -> dict[str, Any]:
        return {
            "operation": violation.operation,
            "path": violation.path,
            "errno": violation.errno,
            "location": _location_data(violation.location),
            "library": _location_data(violation.library),
            "remedy": self.explained(violation).remedy,
            "allowed": self.is_allowed(violation),
        }


def _location_data(location: Location | None) -> dict[str, Any] | None:
    return None if location is None else location._asdict()


class Recorder:
    """The records of one run of pytest, and of which test it is at."""

    def __init__(self) -> None:
        self.test: TestRecord | None = None
        self.tests: list[TestRecord] = []

    def begin(self, test: TestRecord) -> None:
        self.test = test

    def end(self) -> None:
        """The test is over. A record without a request is not kept."""
        test, self.test = self.test, None
        if test is not None:
            test.end()
            self.keep(test)

    def keep(self, test: TestRecord) -> None:
        """``test`` goes into the report, if it has anything to tell."""
        if any(entry.is_telling() for entry in test.entries):
            self.tests.append(test)

    def data(self) -> list[dict[str, Any]]:
        return [entry for test in self.tests for entry in test.data()]


#: The recorders at work, the last one in charge: there is a second one where a test of a plugin runs pytest.
_at_work: Final[list[Recorder]] = []


def start(recorder: Recorder) -> bool:
    """Put ``recorder`` in charge; True if it is the first one."""
    _at_work.append(recorder)
    return len(_at_work) == 1


def stop(recorder: Recorder) -> bool:
    """Its run is over; True if it was the last one."""
    _at_work.remove(recorder)
    return not _at_work


def current_test() -> TestRecord | None:
    """The record of the test that is running, None between two tests."""
    return _at_work[-1].test if _at_work else None
