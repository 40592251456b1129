"""What each test's requests used and were refused."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from tmpguard.core.callers import Location
from tmpguard.core.context import unguarded
from tmpguard.core.invocation import Invocation
from tmpguard.core.reports import remedies
from tmpguard.core.reports.report import Child, Report, Violation
from tmpguard.reporting.tally import finding_data
from tmpguard.reporting.violations import Occurrence

from . import ci

if TYPE_CHECKING:
    from .allow import Matcher
    from .baseline import Baseline
    from .settings import Settings, TestSettings

#: The entry of this context's request in progress. An application's own guard within it shares the entry.
in_progress: Final[ContextVar[TestEntry | None]] = ContextVar("tmpguard_testing_entry", default=None)


class TestEntry:
    """One request, or the body of one test."""

    __slots__ = ("_begun", "_judged", "kind", "reports", "route", "view")

    def __init__(self, kind: str, route: str) -> None:
        #: ``request``, ``body`` or ``start``.
        self.kind = kind
        self.route = route
        #: The first line of the route's view; None if it is not known.
        self.view: Location | None = None
        #: The report of its invocation, or several if an application's own guard took over within ours.
        self.reports: list[Report] = []
        self._begun: list[weakref.ref[Invocation]] = []
        self._judged: dict[int, int] = {}

    def add(self, invocation: Invocation) -> None:
        """Add an invocation of this request. It replaces the previous one if that was not used."""
        if self.reports and not _is_used(self._begun[-1](), self.reports[-1]):
            self.reports.pop()
            self._begun.pop()
        self.reports.append(invocation.report)
        self._begun.append(weakref.ref(invocation))

    @property
    def report(self) -> Report | None:
        """The report that represents the request: the innermost one."""
        return self.reports[-1] if self.reports else None

    @property
    def violations(self) -> list[Violation]:
        """The violations of all invocations of the request."""
        return [violation for report in self.reports for violation in report.violations]

    @property
    def late_writes(self) -> list[Violation]:
        """The late writes of all invocations of the request (C4.5)."""
        return [violation for report in self.reports for violation in report.late_writes]

    @property
    def missing_files(self) -> list[Violation]:
        """The look-ups of files that another request or the start-up had created (C7.4)."""
        return [lookup for report in self.reports for lookup in report.elsewhere]

    @property
    def children(self) -> list[Child]:
        """The child processes that were not guarded."""
        return [child for report in self.reports for child in report.unguarded_children]

    def unjudged(self) -> Iterator[Violation]:
        """The violations since the last call."""
        for report in self.reports:
            violations = report.violations
            yield from violations[self._judged.get(id(report), 0) :]
            self._judged[id(report)] = len(violations)

    def is_reportable(self) -> bool:
        """True if the entry belongs in the report. An import belongs there only if it accessed files."""
        return bool(self.reports) and bool(
            self.kind != "start"
            or self.missing_files
            or self.children
            or any(
                report.violations or report.peak_bytes or report.files or report.late_writes
                for report in self.reports
            )
        )

    def end(self) -> None:
        """The test is over: end the invocations that a client left open."""
        for reference in self._begun:
            invocation = reference()
            if invocation is not None:
                invocation.end()


def _is_used(invocation: Invocation | None, report: Report) -> bool:
    return invocation is None or invocation.uses_tmp or bool(report.violations)


class TestRecord:
    """The entries of one test, and which violations it allows."""

    __test__ = False

    def __init__(
        self, nodeid: str, settings: TestSettings | None, *, every_request: bool, wanted: bool
    ) -> None:
        self.nodeid = nodeid
        #: None if the test's markers are invalid, in which case it does not run.
        self.settings = settings
        #: True if the test clients' requests become invocations.
        self.every_request = every_request
        #: True if violations of an application's own guard fail this test.
        self.wanted = wanted or every_request
        self.entries: list[TestEntry] = []
        self.allowed: list[Matcher] = [] if settings is None else list(settings.allowed)
        #: The findings that are known and fail no test.
        self.baseline: Baseline | None = None if settings is None else settings.baseline
        self._late_judged = 0

    @classmethod
    def of_import(cls, nodeid: str, settings: Settings) -> TestRecord:
        """The record of imports that belong to no particular test."""
        record = cls(nodeid, None, every_request=False, wanted=False)
        record.allowed += settings.allowed
        record.baseline = settings.baseline
        return record

    def begin(self, kind: str, route: str) -> TestEntry:
        """Add an entry for a request, a start-up or the body."""
        entry = TestEntry(kind, route)
        self.entries.append(entry)
        return entry

    def explained(self, violation: Violation) -> Violation:
        """``violation``, with another remedy if the path is in a temporary directory of pytest."""
        if self.settings is None or not self.settings.is_temporary(violation.path):
            return violation
        return violation._replace(remedy=remedies.TEST_DIRECTORY)

    def is_allowed(self, violation: Violation) -> bool:
        """Whether the test expects ``violation``, or it is known."""
        if any(matches(violation) for matches in self.allowed):
            return True
        return self.baseline is not None and self.baseline.knows(violation)

    def _accepts(self, violation: Violation) -> bool:
        """The same, for what would fail the test otherwise."""
        if any(matches(violation) for matches in self.allowed):
            return True
        return self.baseline is not None and self.baseline.accepts(violation)

    def unexpected(self) -> list[Occurrence]:
        """The new violations since the last call that the test does not allow."""
        return [
            Occurrence(self.explained(violation), entry.route, entry.view)
            for entry in list(self.entries)
            for violation in list(entry.unjudged())
            if not self._accepts(violation)
        ]

    def unexpected_late(self) -> list[Occurrence]:
        """The new late writes since the last call that the test does not allow, if late writes fail it."""
        if self.settings is None or not self.settings.late_writes_fail:
            return []
        late = [
            Occurrence(one, entry.route, entry.view)
            for entry in list(self.entries)
            for one in entry.late_writes
        ]
        fresh, self._late_judged = late[self._late_judged :], len(late)
        return [one for one in fresh if not self._accepts(one.violation)]

    def missing_files(self) -> list[Occurrence]:
        """The files that the test's requests missed because another request or the start-up created them."""
        return [
            Occurrence(one, entry.route, entry.view)
            for entry in list(self.entries)
            for one in entry.missing_files
        ]

    def properties(self, root: str) -> list[tuple[str, str]]:
        """The findings of the test so far, as properties for JUnit's XML."""
        found = [
            (kind, Occurrence(self.explained(one), entry.route, entry.view), self.is_allowed(one))
            for entry in list(self.entries)
            for kind, some in (("violation", entry.violations), ("late_write", entry.late_writes))
            for one in some
        ]
        return list(ci.properties(found, root))

    def end(self) -> None:
        """The test is over: end the invocations that it left open."""
        for entry in self.entries:
            entry.end()

    def data(self) -> list[dict[str, Any]]:
        """The requests as plain data for the report. Final once all wipes are done."""
        return [self._entry_data(entry) for entry in self.entries if entry.is_reportable()]

    def _entry_data(self, entry: TestEntry) -> dict[str, Any]:
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
                "missing_files": [self._violation_data(one) for one in entry.missing_files],
                "children": [
                    {**finding_data(child), "remedy": remedies.CHILDREN_UNGUARDED} for child in entry.children
                ],
            }

    def _violation_data(self, violation: Violation) -> dict[str, Any]:
        return {**finding_data(self.explained(violation)), "allowed": self.is_allowed(violation)}


class Recorder:
    """The records of one pytest run, and the test that is running."""

    def __init__(self) -> None:
        self.test: TestRecord | None = None
        self.tests: list[TestRecord] = []

    def begin(self, test: TestRecord) -> None:
        """The test of this record starts."""
        self.test = test

    def end(self) -> None:
        """The test is over. Its record is kept only if it has a request."""
        test, self.test = self.test, None
        if test is not None:
            test.end()
            self.keep(test)

    def keep(self, test: TestRecord) -> None:
        """Keep ``test`` for the report, if it has a reportable entry."""
        if any(entry.is_reportable() for entry in test.entries):
            self.tests.append(test)

    def data(self) -> list[dict[str, Any]]:
        """The requests of all kept records as plain data, in order."""
        return [entry for test in self.tests for entry in test.data()]


#: The active recorders; the last one records. There are two when a test of a plugin runs pytest itself.
_at_work: Final[list[Recorder]] = []


def start(recorder: Recorder) -> bool:
    """Make ``recorder`` the one that records. Returns True if it is the only one."""
    _at_work.append(recorder)
    return len(_at_work) == 1


def stop(recorder: Recorder) -> bool:
    """The run of ``recorder`` is over. Returns True if it was the last one."""
    _at_work.remove(recorder)
    return not _at_work


def current_test() -> TestRecord | None:
    """The record of the running test; None between two tests."""
    return _at_work[-1].test if _at_work else None
