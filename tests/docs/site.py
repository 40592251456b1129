"""A hook of MkDocs: two pages of the site are files of the repository's root, whose links begin there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGES = {"contributing.md": ROOT / "CONTRIBUTING.md", "changelog.md": ROOT / "CHANGELOG.md"}


def on_page_markdown(markdown: str, page: Any, **_: object) -> str:
    source = PAGES.get(page.file.src_uri)
    if source is None:
        return markdown
    return source.read_text().replace("](docs/", "](").replace("](CHANGELOG.md)", "](changelog.md)")
