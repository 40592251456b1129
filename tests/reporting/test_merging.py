"""``tmpguard report FILE...`` merges the reports of many runs and processes."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click.testing
import pytest

import tmpguard
from tests.emulator.support import VIOLATION
from tests.reporting.sample_report import report as sample
from tests.reporting.test_page import Elements
from tests.support import PROJECT
from tmpguard.config.cli import command
from tmpguard.emulator.ledger import Ledger
from tmpguard.emulator.protocols import Span
from tmpguard.reporting import command as report_command
from tmpguard.reporting.page import page
from tmpguard.reporting.summary import FORMAT, LISTED

Data = dict[str, Any]
Report = Callable[..., click.testing.Result]

assert report_command  # it has added its command


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Report:
    """Runs ``tmpguard report`` in the test's directory."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> click.testing.Result:
        return click.testing.CliRunner().invoke(command, ["report", *arguments])

    return run


def written(name: str, *reports: Data, **dumping: Any) -> str:
    with open(name, "w") as file:
        file.writelines(json.dumps(one, **dumping) + "\n" for one in reports)
    return name


def merged(report: Report, *files: str) -> Data:
    done = report("--json", *files)
    assert done.exit_code == 0, done.output
    data: Data = json.loads(done.output)
    return data


def of_day(day: int, **changes: Any) -> Data:
    return {**sample(), "created": f"2026-11-{day:02}T12:00:00+00:00", **changes}


def rows(data: Data, name: str = "routes") -> dict[str, Data]:
    return {row[name[:-1]]: row for row in data[name]}


def test_counts_add_up_and_the_fullest_request_stays(report: Report) -> None:
    one = of_day(1)
    data = merged(report, written("one.json", one, indent=1), written("two.json", of_day(3), indent=1))
    for name in ("requests", "violations", "allowed", "late_writes", "missing_files", "children"):
        assert data["totals"][name] == 2 * one["totals"][name], name
    for name in ("routes", "tests", "imports", "peak_bytes", "quota_bytes", "peak_share"):
        assert data["totals"][name] == one["totals"][name], name
    upload = rows(data)["POST /upload"]
    assert (upload["requests"], upload["violations"], upload["tests"]) == (4, 28, 2)
    assert upload["peak_bytes"] == rows(one)["POST /upload"]["peak_bytes"]
    assert list(rows(data)) == list(rows(one))
    assert list(rows(data, "tests")) == list(rows(one, "tests"))
    assert [group["count"] for group in data["violations"]] == [28, 2, 2, 2]
    assert data["merged"] == {
        "reports": 2,
        "processes": 0,
        "since": "2026-11-01T12:00:00+00:00",
        "until": "2026-11-03T12:00:00+00:00",
    }
    assert (data["format"], data["root"]) == (FORMAT, one["root"])


def test_a_finding_has_the_first_and_the_last_time_and_all_routes(report: Report) -> None:
    old, new = of_day(1), of_day(9)
    for group in new["violations"]:
        group.update(routes=["POST /renamed"], paths=["other.pdf"], remedy="as it is now")
        group["source"] = [{"line": group["location"]["line"], "text": "as it is now"}]
    old["violations"][0].update(first="2026-10-30T08:00:00+00:00", last="2026-11-01T11:00:00+00:00")
    # The newer one first: the order of the files does not matter.
    data = merged(report, written("new.json", new), written("old.json", old))
    group = data["violations"][0]
    assert group["first"] == "2026-10-30T08:00:00+00:00"
    assert group["last"] == "2026-11-09T12:00:00+00:00"
    assert sorted(group["routes"]) == ["POST /renamed", "POST /upload"]
    assert sorted(group["paths"]) == ["other.pdf", "uploads/invoice.pdf"]
    assert (group["remedy"], group["source"][0]["text"]) == ("as it is now", "as it is now")


def test_another_line_operation_or_error_is_another_finding(report: Report) -> None:
    other = of_day(2)
    other["violations"][0]["location"]["line"] += 1
    other["violations"][1]["operation"] = "os.remove"
    other["violations"][2]["allowed"] = True
    data = merged(report, written("one.json", of_day(1)), written("two.json", other))
    assert len(data["violations"]) == 4 + 3


def test_what_has_no_line_of_the_application_is_one_by_path_and_library(report: Report) -> None:
    one, two = of_day(1), of_day(2)
    for data, line in ((one, 10), (two, 99)):
        data["violations"] = data["violations"][:1]
        library = {"file": "logging/__init__.py", "line": line, "function": "emit"}
        data["violations"][0].update(location=None, source=[], library=library, paths=["app.log"])
    (group,) = merged(report, written("one.json", one), written("two.json", two))["violations"]
    assert group["count"] == 28


def test_lists_stay_short(report: Report) -> None:
    one, two = of_day(1), of_day(2)
    one["violations"][0]["paths"] = [f"one-{number}" for number in range(LISTED)]
    two["violations"][0]["paths"] = [f"two-{number}" for number in range(LISTED)]
    data = merged(report, written("one.json", one), written("two.json", two))
    assert len(data["violations"][0]["paths"]) == LISTED


def test_what_processes_in_production_appended_is_merged(report: Report, scratch_root: Path) -> None:
    findings = tmpguard.ReportFile("findings.jsonl", interval=0)
    guard = tmpguard.Guard(scratch_root=scratch_root, bundle=None, on_report=findings)
    for _ in range(3):
        with guard.invocation(), contextlib.suppress(OSError):
            os.rmdir("/usr/new")
        tmpguard.drain()
    ledger = Ledger(1 << 20, "/srv", "uvicorn app:app")
    ledger.add_request("GET /", Span(4096, 0, 0, (VIOLATION,), ()))
    files = ["findings.jsonl", written("run.json", ledger.data(), indent=1)]
    data = merged(report, *files, "./findings.jsonl")
    assert (data["totals"]["requests"], data["totals"]["violations"]) == (4, 4)
    assert (data["merged"]["reports"], data["merged"]["processes"]) == (4, 1)
    assert data["root"] == ""
    done = report(*files)
    assert done.output.startswith("4 requests to 2 routes in 4 reports from 1 process, ")
    assert "tests by use" not in done.output
    assert "test_merging.py:" in done.output
    assert " UTC\n" in done.output


def test_a_merged_report_can_be_merged_again(report: Report) -> None:
    files = [written(f"{day}.json", of_day(day)) for day in (1, 2, 3)]
    assert report("--json", "--output", "two.json", *files[:2]).exit_code == 0
    at_once, in_steps = merged(report, *files), merged(report, "two.json", files[2])
    for data in (at_once, in_steps):
        del data["created"]
    assert at_once == in_steps


def test_the_page_is_that_of_the_testing_kit(report: Report) -> None:
    done = report(written("one.json", of_day(1)), written("two.json", of_day(3)), "--output", "week.html")
    assert done.exit_code == 0
    assert done.output.endswith("\nwritten: week.html\n")
    text = Path("week.html").read_text()
    told = " ".join(Elements(text).text.split())
    assert "32 file operations would be refused on the platform" in told
    assert "Reports2 2026-11-01 to 2026-11-03" in told
    assert "seen 2026-11-01 12:00 to 2026-11-03 12:00 UTC" in told
    assert "tmpguard report --json prints the same data" in told
    assert page(merged(report, "one.json"))


def test_json_goes_to_a_file_of_that_name(report: Report) -> None:
    report(written("one.json", of_day(1)), "--output", "merged.json")
    report("one.json", "--json", "--output", "merged")
    assert json.loads(Path("merged.json").read_text())["merged"]["reports"] == 1
    assert json.loads(Path("merged").read_text())["merged"]["reports"] == 1


def test_nothing_was_reported_yet(report: Report) -> None:
    Path("empty.jsonl").touch()
    done = report("empty.jsonl", "--output", "page.html")
    assert done.exit_code == 0
    assert done.output.startswith("0 requests to 0 routes in 0 reports: 0 violations")
    assert "No request was guarded" in Path("page.html").read_text()


def test_a_line_that_was_cut_off_is_skipped_with_a_note(report: Report) -> None:
    whole = json.dumps(of_day(1), separators=(",", ":"))
    Path("findings.jsonl").write_text(f"\n{whole}\n\n{whole[:500]}\n{whole}\n")
    done = report("findings.jsonl")
    assert done.exit_code == 0
    assert "tmpguard: findings.jsonl:4: skipped: a line that its process could not finish\n" in done.output
    assert "in 2 reports" in done.output


def changed(place: str, *value: object) -> str:
    """A report with another value at a place such as ``violations.1.count``, or with none."""
    data = inner = sample()
    *keys, last = [int(key) if key.isdigit() else key for key in place.split(".")]
    for key in keys:
        inner = inner[key]  # type: ignore[index]
    if value:
        inner[last] = value[0]  # type: ignore[index]
    else:
        del inner[last]  # type: ignore[arg-type]
    return json.dumps(data)


#: By what is said, because the texts contain the time: they are no names for tests.
NO_REPORTS = [
    ("<!doctype html>", "bad:1: not JSON (Expecting value)"),
    ('\n{\n "format": 1,\n oh\n}', "bad:4: not JSON (Expecting property name"),
    (json.dumps(sample()) + "\noh\n", "bad:2: not JSON (Expecting value)"),
    ('{"version": 1}', "bad:1: JSON, but no report of tmpguard"),
    ('\n{\n"version": 1}', "bad: JSON, but no report of tmpguard"),
    ("[1]", "bad:1: JSON, but no report of tmpguard"),
    ("\udcff\udcfe", "bad: not a text file in UTF-8"),
    (changed("routes"), "bad:1: the report has no 'routes'"),
    (changed("totals.violations"), "bad:1: totals has no 'violations'"),
    (changed("routes.2.route"), "bad:1: routes[2] has no 'route'"),
    (changed("violations.0.location.line"), "violations[0].location has no 'line'"),
    (changed("violations.0.source.0.text"), "violations[0].source[0] has no 'text'"),
    (changed("violations.1.count", "many"), "'count' of violations[1] has a wrong type"),
    (changed("violations.1.count", True), "'count' of violations[1] has a wrong type"),
    (changed("violations.1.paths", [1]), "violations[1].paths is no list of strings"),
    (changed("violations.1.paths", []), "violations[1] has no path"),
    (changed("violations.1.last", "soon"), "'soon' is no date and time in ISO 8601"),
    (changed("violations.0", 3), "violations[0] is no object"),
]


@pytest.mark.parametrize(("text", "said"), NO_REPORTS, ids=[said for _, said in NO_REPORTS])
def test_what_is_no_report_is_named_with_its_line(report: Report, text: str, said: str) -> None:
    Path("bad").write_text(text, errors="surrogateescape")
    done = report(written("good.json", of_day(1)), "bad", "--output", "page.html")
    assert done.exit_code == 2
    assert said in done.output
    assert "what can be merged: the JSON of pytest --tmpguard-report and tmpguard run" in done.output
    assert not Path("page.html").exists()


def test_a_newer_format_says_what_to_do(report: Report) -> None:
    done = report(written("new.json", of_day(1, format=FORMAT + 1)))
    assert done.exit_code == 2
    assert f"new.json:1: format {FORMAT + 1}, but tmpguard {tmpguard.__version__} reads" in done.output
    assert f"reads format {FORMAT}; use the tmpguard that wrote it, or a newer one" in done.output


def test_files_that_cannot_be_read_or_written(report: Report) -> None:
    good = written("good.json", of_day(1))
    assert "Error: nowhere.json: No such file or directory; what can be" in report("nowhere.json").output
    assert "Error: .: Is a directory; what can be merged" in report(".").output
    done = report(good, "--output", "no/such/page.html")
    assert done.exit_code == 2
    assert "--output no/such/page.html: No such file or directory: give a file that can be" in done.output
    done = report(good, "--output", "./good.json")
    assert done.exit_code == 2
    assert "--output ./good.json is one of the files to merge: give another file" in done.output
    assert report().exit_code == 2


def test_names_of_any_bytes_are_printed(report: Report) -> None:
    data = of_day(1)
    data["violations"][0]["paths"] = ["\udcff.txt"]
    data["routes"][0]["route"] = "GET /\x1b[31m\udcff"
    done = report(written("one.json", data), "--output", "page.html")
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    assert "GET /\\x1b[31m" in done.output


def test_the_command_is_one_of_tmpguard_s(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text(json.dumps(sample()))
    done = subprocess.run(
        [sys.executable, "-m", "tmpguard", "report", "one.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("7 requests to 6 routes in 1 report, ")


def test_the_page_on_reports_names_the_keys_that_say_where_one_comes_from(report: Report) -> None:
    text = (PROJECT / "docs" / "report.md").read_text()
    table = text.partition("<!-- origins -->\n")[2].partition("<!-- /origins -->")[0]
    documented = {name for line in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", line)}
    findings = tmpguard.ReportFile("findings.jsonl")
    findings(tmpguard.Guard(bundle=None).invocation().report)
    (of_file,) = map(json.loads, filter(None, Path("findings.jsonl").read_text().splitlines()))
    of_run = Ledger(1 << 20, "/srv", "app").data()
    of_merge = merged(report, "findings.jsonl")
    for one, keys in ((of_file, {"since", "process"}), (of_run, {"run"}), (of_merge, {"merged"})):
        assert set(one) - set(sample()) == keys
        assert keys | {name for key in keys if isinstance(one[key], dict) for name in one[key]} <= documented
