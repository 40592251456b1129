"""The code blocks of the documentation's pages."""

from __future__ import annotations

import re

from tests.support import PROJECT


def block(page: str, heading: str, language: str = "python", number: int = 0) -> str:
    """The first block of the language below the heading of that name, or another one by its ``number``."""
    text = (PROJECT / "docs" / f"{page}.md").read_text()
    found = re.search(
        rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ [^\n]*\n\n|\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, heading
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", found[1], re.MULTILINE | re.DOTALL)
    return [text for name, text in blocks if name == language][number]
