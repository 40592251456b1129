"""The fixtures of the middlewares' tests, for applications of other frameworks."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.middleware.conftest import ended, guard, options, real_tmp, reports, scratch

__all__ = ["ended", "guard", "options", "real_tmp", "reports", "scratch"]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Uploads that an exception's traceback holds are closed while they are still known to be in ``/tmp``."""
    yield
    gc.collect()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Some of the frameworks leave uploads to the garbage collector."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            for text in ("unclosed file", "Implicitly cleaning up"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{text}:ResourceWarning"))
