"""JSON project files are read with the line of each value."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tmpguard
from tmpguard.config import yamlfile
from tmpguard.config.nodes import Node


def plain(node: Node) -> Any:
    """The value of a node, as the standard library gives it."""
    if isinstance(node.value, dict):
        return {name: plain(child) for name, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def test_each_value_has_its_line_and_its_key(tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    path.write_text('{\n\t"a": {\n\t\t"b": [1,\n\n2]},\r\n"c":"x\\ny"\n,"d":null}')
    top = yamlfile.read(path)
    a, c = top.get("a"), top.get("c")
    assert a is not None
    assert c is not None
    b = a.get("b")
    assert b is not None
    assert [(one.key, one.line, one.value) for one in b.entries()] == [("a.b[0]", 3, 1), ("a.b[1]", 5, 2)]
    assert (c.key, c.line, c.value) == ("c", 6, "x\ny")
    assert (top.line, a.line) == (1, 2)


VALUES = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text()
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=10,
)


@settings(deadline=None, derandomize=True, max_examples=200)
@given(value=VALUES, indent=st.sampled_from([None, 1, "\t"]), ascii_only=st.booleans())
def test_everything_that_the_standard_library_writes_is_read(
    value: Any, indent: int | str | None, ascii_only: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Surrogates, tabs and line separators included, which YAML does not take."""
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=ascii_only), "utf-8", "surrogatepass")
    try:
        path.read_text("utf-8")
    except UnicodeDecodeError:
        return
    assert plain(yamlfile.read(path)) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "1: is not valid JSON: Expecting value"),
        ('{\n"a": 1,\n"b" 2}', "3: is not valid JSON: Expecting ':' delimiter"),
        ('{"a": NaN}', "1: is not valid JSON: NaN is not a number"),
        ('{"a": 1,\n "a": 2}', "2: duplicate key 'a', first used in line 1"),
        ("a: 1", "1: is not valid JSON: Expecting value"),
        ("[\n" * 101 + "]" * 101, "101: is nested deeper than 100 mappings and lists"),
        ("[" * 100_000, "1: is nested deeper than 100 mappings and lists"),
    ],
)
def test_what_is_not_json_is_an_error_with_its_line(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    path.write_text(text)
    with pytest.raises(tmpguard.ConfigurationError) as failed:
        yamlfile.read(path)
    assert str(failed.value).startswith(f"{path}:{said}")


def test_a_template_of_that_ending_is_in_either_language(tmp_path: Path) -> None:
    path = tmp_path / "stack.template"
    path.write_text('{\t"Resources": {}}')
    assert yamlfile.read(path).get("Resources") is not None
    path.write_text("Resources: {}\n")
    assert yamlfile.read(path).get("Resources") is not None


def test_a_number_of_thousands_of_digits_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "template.json"
    path.write_text(f'{{"a": {"9" * 5000}}}')
    node = yamlfile.read(path).get("a")
    assert node is not None
    assert node.value == "9" * 5000
