"""A pytest plugin for the foreign suites: ``-p foreign_pytest``."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from foreign_layer import LAYER, RECORDER, SHARED, WANTED, WAY, outside, stable

LAYER.start()


class Outcomes:
    """One outcome for each test: that of its call, unless setting up or tearing down fails."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            RECORDER.tell(report.nodeid, "failed", report.longreprtext)
        elif report.skipped and not hasattr(report, "wasxfail"):
            RECORDER.tell(report.nodeid, "skipped", report.longreprtext)
        elif report.when == "call":
            RECORDER.tell(report.nodeid, "passed")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            RECORDER.tell(f"collecting {report.nodeid}", "failed", report.longreprtext)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Outcomes())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if WANTED:
        items[:] = [item for item in items if stable(item.nodeid) in WANTED]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    RECORDER.tell(item.nodeid, "started")
    with LAYER.test(), _temporary_directories(item.config, "/tmp"):
        return (yield)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, Any, Any]:
    """What a module's or a session's fixtures make is there for all of its tests."""
    if fixturedef.scope == "function":
        return (yield)
    with outside(), _temporary_directories(request.config, SHARED):
        return (yield)


@contextmanager
def _temporary_directories(config: pytest.Config, place: str) -> Iterator[None]:
    """Have pytest make its own temporary directories in ``place``."""
    if WAY != "each":
        yield
        return
    factory = config._tmp_path_factory  # type: ignore[attr-defined]
    before = factory._basetemp
    factory._basetemp = Path(place, "pytest")
    factory._basetemp.mkdir(exist_ok=True)
    try:
        yield
    finally:
        factory._basetemp = before
