"""Writes the report of a run as a JSON file and an HTML page."""

from __future__ import annotations

import json
import os
from typing import Any

from .page import page

SUFFIXES = (".json", ".html")


def write(data: dict[str, Any], name: str) -> list[str]:
    """Write ``data`` to ``name.json`` and ``name.html``, and return the paths of the files.

    A ``.json`` or ``.html`` suffix of ``name`` is removed first. Raises OSError.
    """
    stem, suffix = os.path.splitext(os.path.abspath(name))
    if suffix not in SUFFIXES:
        stem += suffix
    os.makedirs(os.path.dirname(stem), exist_ok=True)
    texts = (json.dumps(data, indent=1, ensure_ascii=False) + "\n", page(data))
    for text, ending in zip(texts, SUFFIXES, strict=True):
        # A path may contain any bytes; Python decodes undecodable ones to surrogates.
        with open(stem + ending, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
    return [stem + ending for ending in SUFFIXES]
