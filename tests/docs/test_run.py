"""docs/run.md says what ``tmpguard run`` is."""

from __future__ import annotations

import re

import click
import pytest

from tests.support import PROJECT
from tmpguard.emulator.command import run_command

PAGE = (PROJECT / "docs" / "run.md").read_text()


def test_the_table_has_all_options_and_no_others() -> None:
    table = PAGE.partition("## Options\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `--")]
    documented = {option for row in rows for option in re.findall(r"`(--[\w-]+)", row)}
    options = {one.opts[0] for one in run_command.params if isinstance(one, click.Option)}
    assert documented == options


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([\w./-]+)#?[\w-]*\)", PAGE))))
def test_its_links_lead_somewhere(link: str) -> None:
    assert (PROJECT / "docs" / link).exists()
