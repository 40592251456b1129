"""A short soak: the command, its servers and its applications work, and find nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import tmpguard
from tests.soak import __main__ as command
from tests.soak import servers
from tests.soak.claims import PAGE, Claims
from tests.soak.growth import growth


@pytest.mark.parametrize("server", ["uvicorn", "gthread-preload"])
def test_a_few_hundred_requests_find_nothing(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if server not in servers.available():
        pytest.skip("this version of uvicorn does not replace a killed worker")
    assert command.soak(server, 240, 1, tmp_path) == [], capsys.readouterr().out


def test_a_wrong_figure_is_found() -> None:
    with tmpguard.invocation(bundle=None) as invocation:
        Path("/tmp/file.txt").write_text("text")
        report = invocation.report
        assert Claims("right", used=PAGE, peak=PAGE, files=1).wrong(report, "now") == ""
        assert Claims("unknown", used=None, peak=None, files=None).wrong(report, "now") == ""
        found = Claims("wrong", used=0, peak=PAGE, files=2, violations=1).wrong(report, "now")
    assert found == "wrong, now: used is 4096 and not 0, files is 1 and not 2, violations is 0 and not 1"


def test_what_is_left_and_what_grows_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"memory": 1, "descriptors": 9, "threads": 3}
    assert growth({7: figures}, {7: figures}) == []
    [grown] = growth({7: figures}, {7: {**figures, "descriptors": 20}})
    assert grown == "worker 7 has grown by {'memory': 0, 'descriptors': 11, 'threads': 0}"
    [replaced] = growth({7: figures}, {8: figures})
    assert replaced == "a worker was replaced: [7], [8]"
