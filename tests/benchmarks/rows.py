"""All rows, in the order of the table."""

from __future__ import annotations

from . import bundles, inside, outside, requests, rewrite
from .measure import Row

ROWS: tuple[Row, ...] = (*outside.ROWS, *requests.ROWS, *inside.ROWS, *rewrite.ROWS, *bundles.ROWS)
