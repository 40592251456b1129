"""Writes the table of platforms in docs/genezio.md from the code: ``python -m tests.docs.platforms``."""

from __future__ import annotations

from tests.support import PROJECT
from tmpguard.config.platforms import PLATFORMS, Platform

PAGE = PROJECT / "docs" / "genezio.md"
_START, _END = "|---|---|---|---|---|---|---|---|\n", "<!-- /platforms -->"


def page() -> str:
    """The page with the table as the code has it."""
    text = PAGE.read_text()
    head, _, tail = text.partition(_START)
    rows = "".join(f"| {' | '.join(_cells(row))} |\n" for row in PLATFORMS.values())
    return head + _START + rows + _END + tail.partition(_END)[2]


def _cells(row: Platform) -> list[str]:
    left = "maybe" if row.survives else "nothing"
    if row.name == "none":
        left = "as `lifetime` says"
    return [
        f'`"{row.name}"`',
        str(row.default),
        _allowed(row),
        ", ".join(f"{files:,}" for files in row.inodes.values()) or "no limit",
        left,
        "yes" if row.package else "no",
        row.source,
        row.read,
    ]


def _allowed(row: Platform) -> str:
    if row.plans:
        return ", ".join(f"{name}: {f'1 to {size}' if size else 'any'}" for name, size in row.plans.items())
    if row.step is None:
        return ", ".join(map(str, row.inodes))
    return f"{row.smallest:,} to {row.largest:,}" if row.largest else "any"


if __name__ == "__main__":
    PAGE.write_text(page())
