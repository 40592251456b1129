"""The plot of a request's cost by the number of its files: it is measured, and drawn as XML."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.benchmarks import plot


@pytest.mark.parametrize("way", ["tmpguard", "TemporaryDirectory by hand"])
def test_each_number_of_files_is_measured(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot, "COUNTS", (0, 2))
    found = plot.measured(way, 0)
    assert len(found) == 2
    assert all(value > 0 for value in found)


def test_each_way_has_its_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points = {way: [10.0 ** (number - 5) for number in range(len(plot.COUNTS))] for way in plot.WAYS}
    monkeypatch.setattr(plot, "_elsewhere", lambda way, seconds: points[way])
    assert plot.main([str(tmp_path / "picture.svg")]) == 0
    drawn = ElementTree.parse(tmp_path / "picture.svg").getroot()
    lines = [line.attrib["points"].split() for line in drawn.iter("{http://www.w3.org/2000/svg}polyline")]
    assert [len(line) for line in lines] == [len(plot.COUNTS)] * len(plot.WAYS)
    texts = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {*plot.WAYS, "0", "100"} <= texts
