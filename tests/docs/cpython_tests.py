"""Makes the table of docs/cpython-tests.md from tests/cpython: ``python -m tests.docs.cpython_tests``."""

from __future__ import annotations

from tests.cpython.known import ALL, KNOWN
from tests.docs.tables import with_table
from tests.support import PROJECT

PAGE = PROJECT / "docs" / "cpython-tests.md"


def table() -> str:
    """The table in Markdown."""
    lines = ["| tests | on | reason |", "|---|---|---|"]
    for known in KNOWN:
        tests = ", ".join(f"`{pattern}`" for pattern in known.tests)
        versions = "all" if known.versions == ALL else ", ".join(known.versions)
        often = ", not in each run" if known.sometimes else ""
        lines.append(f"| {tests} | {versions}{often} | {known.reason} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with the table as it has to be."""
    return with_table(PAGE, "known", table())


if __name__ == "__main__":
    PAGE.write_text(page())
