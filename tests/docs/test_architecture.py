"""docs/architecture.md names what there is, and leaves no module out."""

from __future__ import annotations

import re
from importlib import import_module

import pytest

from tests.support import PROJECT
from tests.test_layers import MODULES

PAGE = (PROJECT / "docs" / "architecture.md").read_text()

#: ``core/mounts/lookup.Namespace``: a module by its path, and perhaps a name in it.
NAMES = sorted(set(re.findall(r"`((?:core|interpose|kernel|config|testing)(?:/\w+)+(?:\.\w+)?)`", PAGE)))


def test_every_module_of_the_core_is_in_its_room() -> None:
    """Likewise those of the other rooms, but for the rooms that the page describes as a whole."""
    whole = ("interpose.files", "interpose.entries", "interpose.sqlite", "interpose.children", "testing")
    for name in MODULES:
        if "." in name and not name.startswith(whole) and name != "core.version":
            assert f"`{name.rpartition('.')[2]}`" in PAGE or f"`{name.replace('.', '/')}/`" in PAGE, name


@pytest.mark.parametrize("name", NAMES)
def test_what_the_page_names_is_there(name: str) -> None:
    path, _, attribute = name.partition(".")
    module = import_module(f"tmpguard.{path.replace('/', '.')}")
    if attribute:
        assert hasattr(module, attribute)


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`(tests(?:/\w+)+(?:\.py)?)`", PAGE))))
def test_the_tests_that_the_page_names_are_there(path: str) -> None:
    assert (PROJECT / path).exists()


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`python -m (tests\.[\w.]+)`", PAGE))))
def test_the_commands_of_the_page_are_there(command: str) -> None:
    assert (PROJECT / f"{command.replace('.', '/')}.py").exists()
