"""The pytest plugin: runs requests and tests as invocations, fails tests that have violations, and reports.

pytest finds it through ``tmpguard.pytest_plugin``, which imports this module on demand. See docs/pytest.md.
"""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Final

import pytest

from tmpguard.core.errors import ConfigurationError
from tmpguard.core.invocation import Invocation
from tmpguard.core.reports import log
from tmpguard.guard import Guard
from tmpguard.reporting import output, summary
from tmpguard.reporting.routes import IMPORT
from tmpguard.reporting.violations import Occurrence, failure_text

from . import body, ci, patches, records, tracebacks
from .baseline import as_text, conclusion, of_text
from .fixture import TmpGuard, opened
from .records import Recorder, TestRecord
from .settings import Settings
from .startup import begin_start

#: The name under which the plugin is registered with pytest.
PLUGIN_NAME: Final = "tmpguard-plugin"

#: The exit statuses of a run that was not interrupted.
_FINISHED: Final = (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.NO_TESTS_COLLECTED)

_CONFTESTS: Final = pytest.StashKey[TestRecord]()


class Plugin:
    """The hooks, registered once per pytest run that uses tmpguard in any way."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.settings = Settings(config)
        self.recorder = Recorder()
        self._entries: list[dict[str, Any]] = []
        self._written: list[str] = []
        self._baseline_lines: list[str] = []
        #: True if not all tests ran.
        self._is_partial = False
        self._has_lost_worker = False
        #: The report of the run, made at its end.
        self.data: dict[str, Any] | None = None
        if self.settings.every_request or self.settings.starts:
            # Before the application is imported. An invalid option ends the run right here.
            self._guard_of_imports = self.settings.guard_of_imports()
        conftests = config.stash.get(_CONFTESTS, None)
        if conftests is not None:
            self._take_conftests(conftests)
        if records.start(self.recorder):
            patches.install()

    @classmethod
    def of(cls, config: pytest.Config) -> Plugin:
        """The plugin of this run, registered if it is not yet."""
        plugin = config.pluginmanager.get_plugin(PLUGIN_NAME)
        if plugin is None:
            plugin = cls(config)
            config.pluginmanager.register(plugin, PLUGIN_NAME)
        assert isinstance(plugin, cls)
        return plugin

    def pytest_unconfigure(self) -> None:
        self.settings.imported.end()
        if records.stop(self.recorder):
            patches.uninstall()
            log.restart()  # the summary has already reported what the log would sum up at exit

    # --- a test ------------------------------------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self.recorder.begin(self._record_of(item))
        try:
            return (yield)
        finally:
            self.recorder.end()
            self.settings.end_instances()

    def _record_of(self, item: pytest.Item) -> TestRecord:
        try:
            settings = self.settings.of_test(item)
        except ConfigurationError:  # reported in the test's set-up
            settings = None
        wanted = "tmpguard" in getattr(item, "fixturenames", ()) or (settings is not None and settings.marked)
        return TestRecord(item.nodeid, settings, every_request=self.settings.every_request, wanted=wanted)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> Generator[None, object, object]:
        with self._judging(item, "setup"):
            result = yield
        with _plain_errors():
            self.settings.of_test(item)
        return result

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        with self._judging(item, "call"), self._body(item):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        with self._judging(item, "teardown"):
            result = yield
            test = self._test(item)
            test.end()
        item.user_properties += test.properties(str(self.config.rootpath))
        return result

    def _test(self, item: pytest.Item) -> TestRecord:
        test = self.recorder.test
        if test is None:  # another plugin runs the test without the runtest protocol
            self.recorder.begin(test := self._record_of(item))
        return test

    def _body(self, item: pytest.Item) -> AbstractContextManager[None]:
        test = self._test(item)
        if test.settings is None or not test.settings.body:
            return nullcontext()
        with _plain_errors():
            return body.guarding(item, test.settings.guard(), test)

    @contextmanager
    def _judging(self, item: pytest.Item, when: str) -> Iterator[None]:
        """Fail the test if the block has violations. If it fails anyway, add them to its report."""
        test = self._test(item)
        try:
            yield
        except BaseException as exc:
            text = self._text(test, missing=test.missing_files())
            if text and not isinstance(exc, pytest.skip.Exception):
                item.add_report_section(when, "tmpguard", text)
            raise
        has_failed = bool(getattr(item, "_excinfo", None))  # unittest stores a failure instead of raising it
        text = self._text(test, missing=test.missing_files() if has_failed else ())
        if text and has_failed:
            item.add_report_section(when, "tmpguard", text)
        elif text:
            pytest.fail(text, pytrace=False)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, call: pytest.CallInfo[None]) -> None:
        if call.excinfo is not None:
            tracebacks.hide()

    def _text(self, test: TestRecord, missing: Sequence[Occurrence] = ()) -> str:
        """What is wrong with ``test`` so far. Files that its requests missed only explain another failure."""
        violations, late = test.unexpected(), test.unexpected_late()
        if not violations and not late and not missing:
            return ""
        marker = test.settings is not None
        return failure_text(violations, late, str(self.config.rootpath), missing=missing, marker=marker)

    # --- the fixture -------------------------------------------------------------------------------------

    @contextmanager
    def fixture(self, item: pytest.Item) -> Iterator[TmpGuard]:
        """The value of the fixture ``tmpguard`` in the test ``item``."""
        test = self._test(item)
        test.wanted = True
        with opened(test, self._start) as fixture:
            yield fixture

    def _start(self, guard: Guard) -> Invocation | None:
        if not self.settings.starts or self.recorder.test is None:
            return None
        return begin_start(self.recorder.test, guard)

    # --- imports -----------------------------------------------------------------------------------------

    def _take_conftests(self, conftests: TestRecord) -> None:
        """Take over the record of the conftest files, imported before the plugin. Violations end the run."""
        self.recorder.keep(conftests)
        if text := self._text(conftests):
            raise pytest.UsageError(text)

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_make_collect_report(
        self, collector: pytest.Collector
    ) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
        if not self.settings.starts:
            return (yield)
        tracebacks.hide()
        record = TestRecord.of_import(collector.nodeid or "(collection)", self.settings)
        with begin_start(record, self._guard_of_imports, IMPORT):
            report = yield
        self.recorder.keep(record)
        text = self._text(record)
        if not text:
            return report
        if report.failed:
            report.sections.append(("tmpguard", text))
        else:
            report.outcome, report.longrepr, report.result = "failed", text, []
        return report

    @pytest.hookimpl(trylast=True)
    def pytest_collection_finish(self) -> None:
        self.settings.end_imports()

    # --- the end of the run ------------------------------------------------------------------------------

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._is_partial |= bool(items)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self._entries += self.recorder.data()
        self._is_partial |= bool(session.shouldfail or session.shouldstop)
        baseline = self.settings.baseline
        of_worker = getattr(self.config, "workeroutput", None)
        if of_worker is not None:
            # As JSON: execnet takes no path with bytes that are not UTF-8.
            of_worker["tmpguard"] = json.dumps(self._entries)
            if baseline is not None:
                of_worker["tmpguard_baseline"] = (as_text(baseline.seen), self._is_partial)
            return
        if baseline is not None:
            finished = exitstatus in _FINISHED and not self._has_lost_worker
            self._baseline_lines = conclusion(baseline, finished=finished, partial=self._is_partial)
        # The terminal reporter's own hook calls pytest_terminal_summary after this one.
        self.data = summary.build(self._entries, str(self.config.rootpath))
        if self.settings.report:
            self._written = output.write(self.data, self.settings.report)

    def add_seen(self, output: dict[str, Any] | None) -> None:
        """Add what a pytest-xdist worker has seen of the baseline. None: the worker crashed."""
        if output is None:
            self._has_lost_worker = True
        elif self.settings.baseline is not None and "tmpguard_baseline" in output:
            seen, is_partial = output["tmpguard_baseline"]
            self.settings.baseline.seen |= of_text(seen)
            self._is_partial |= is_partial

    def add(self, entries: str) -> None:
        """Add the entries of a pytest-xdist worker. All workers import the same modules: each counts once."""
        self._entries += [
            entry for entry in json.loads(entries) if entry["route"] != IMPORT or entry not in self._entries
        ]

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if self.data is None:
            return
        if self.data["tests"]:
            terminalreporter.section("tmpguard")
            for line in summary.lines(self.data, verbosity=self.config.get_verbosity()):
                terminalreporter.line(line)
        if self._baseline_lines:
            terminalreporter.section("tmpguard baseline")
            for line in self._baseline_lines:
                terminalreporter.line(line)
        if self._written:
            terminalreporter.line("")
            terminalreporter.line(f"written: {', '.join(self._written)}")
        if ci.is_wanted(os.environ):
            fail = self.settings.late_writes == "fail"
            for line in ci.github(self.data, os.environ, late_writes_fail=fail):
                terminalreporter.line(line)


@contextmanager
def importing_conftests(config: pytest.Config) -> Iterator[None]:
    """Guard the import of the conftest files that pytest loads before it configures its plugins."""
    settings = Settings(config, config.known_args_namespace)
    tracebacks.hide()
    record = config.stash[_CONFTESTS] = TestRecord.of_import("conftest.py", settings)
    try:
        with begin_start(record, settings.guard_of_imports(), IMPORT):
            yield
    finally:
        settings.end_imports()


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Fail the test for an invalid option, with its message and no traceback."""
    try:
        yield
    except ConfigurationError as exc:
        raise pytest.fail.Exception(f"tmpguard: {exc}", pytrace=False) from None
