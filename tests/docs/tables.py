"""Tables that are made from the code and stand between two marks in a page of the documentation."""

from __future__ import annotations

from pathlib import Path


def with_table(page: Path, mark: str, table: str) -> str:
    """The text of ``page`` with ``table`` between ``<!-- mark -->`` and ``<!-- /mark -->``."""
    start, end = f"<!-- {mark} -->\n", f"<!-- /{mark} -->"
    before, _, rest = page.read_text().partition(start)
    return before + start + table + end + rest.partition(end)[2]
