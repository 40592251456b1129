"""All rows, in the order of the table."""

from __future__ import annotations

from . import around, bundles, inside, outside, requests, rewrite
from .measure import Row

ROWS: tuple[Row, ...] = (
    *outside.ROWS,
    *requests.ROWS,
    *inside.ROWS,
    *around.ROWS,
    *rewrite.ROWS,
    *bundles.ROWS,
)
