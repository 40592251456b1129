"""The code blocks of the documentation's pages."""

from __future__ import annotations

import re

from tests.support import PROJECT


def block(page: str, heading: str, language: str = "python") -> str:
    """The first block below the heading of that name."""
    text = (PROJECT / "docs" / f"{page}.md").read_text()
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, heading
    return re.findall(rf"```{language}\n(.*?)```", found[1], re.DOTALL)[0]
