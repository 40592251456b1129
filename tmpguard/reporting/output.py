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
    for ending in SUFFIXES:
        write_one(data, stem + ending, as_json=ending == ".json")
    return [stem + ending for ending in SUFFIXES]


def write_one(data: dict[str, Any], path: str, *, as_json: bool) -> None:
    """Write ``data`` to the file ``path``, as JSON or as a page. Raises OSError."""
    text = json.dumps(data, indent=1, ensure_ascii=False) + "\n" if as_json else page(data)
    # A path may contain any bytes; Python decodes undecodable ones to surrogates.
    with open(path, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write(text)
