"""Makes the table of docs/surface.md from the one in the code: ``python -m tests.docs.surface``."""

from __future__ import annotations

from tests.docs.tables import with_table
from tests.support import PROJECT
from tmpguard.interpose import surface

PAGE = PROJECT / "docs" / "surface.md"


def table() -> str:
    """The table in Markdown. Helpers of the standard library that have no public name are left out."""
    lines = ["| callable | use | path arguments |", "|---|---|---|"]
    for call in surface.TABLE:
        if not any(part.startswith("_") for part in (*call.owner.split(":")[1:], call.name)):
            paths = ", ".join(f"`{name}`" for name in call.paths)
            lines.append(f"| `{call.public}` | {call.intent} | {paths} |")
    return "\n".join(lines) + "\n"


def page() -> str:
    """The page with the table as it has to be."""
    return with_table(PAGE, "surface", table())


if __name__ == "__main__":
    PAGE.write_text(page())
