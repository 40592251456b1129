"""Runs ``tmpguard check`` in this process, for the tests of what it reads. Needs click and rich."""

from __future__ import annotations

import json
from typing import Any

from click.testing import CliRunner, Result

from tmpguard.config.cli import command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(command, ["check", *arguments])


def told(*arguments: str, code: int = 0) -> dict[str, Any]:
    """The JSON of a run that ends with ``code``."""
    done = run("--json", *arguments)
    assert done.exit_code == code, done.output
    result: dict[str, Any] = json.loads(done.stdout)
    return result
