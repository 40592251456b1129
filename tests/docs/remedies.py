"""Makes the table of docs/remedies.md from the one in the code: ``python -m tests.docs.remedies``."""

from __future__ import annotations

from errno import ENOSPC

from tests.docs.tables import with_table
from tests.support import PROJECT
from tmpguard.core.reports.libraries import TABLE, Row

PAGE = PROJECT / "docs" / "remedies.md"


def recognised(row: Row) -> str:
    """By what a row is recognised, in Markdown."""
    parts = []
    if row.modules:
        by = ", by the application itself" if row.direct else ""
        parts.append("called from " + ", ".join(f"`{module}`" for module in row.modules) + by)
    if row.operations:
        parts.append("by " + ", ".join(f"`{operation}`" for operation in row.operations))
    if row.path:
        parts.append(f"path has `{row.path}`".replace("|", "\\|"))
    if ENOSPC in row.errnos:
        parts.append("`/tmp` is full")
    return "; ".join(parts)


def table() -> str:
    """The table in Markdown."""
    lines = ["| what | recognised | remedy |", "|---|---|---|"]
    for row in TABLE:
        say = row.say.replace("{to}", "/tmp/NAME")
        lines.append(f"| {row.name} | {recognised(row)} | {say} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with the table as it has to be."""
    return with_table(PAGE, "remedies", table())


if __name__ == "__main__":
    PAGE.write_text(page())
