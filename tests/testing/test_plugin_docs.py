"""docs/pytest.md says what is the case."""

from __future__ import annotations

import inspect
import pkgutil
import re
import textwrap
from typing import Any

import pytest

from tests.reporting.sample_report import report
from tests.support import PROJECT, Run
from tmpguard import pytest_plugin, testing
from tmpguard.config.options import OPTIONS
from tmpguard.testing.fixture import TmpGuard
from tmpguard.testing.settings import LATE_WRITES, MARKER_ONLY

pytest_plugins = ["pytester"]

PAGE = (PROJECT / "docs" / "pytest.md").read_text()


def names_in(part: str) -> set[str]:
    """What stands as code in the first cells of the table between two comments."""
    table = PAGE.partition(f"<!-- {part} -->\n")[2].partition(f"<!-- /{part} -->")[0]
    cells = [line.split("|")[1] for line in table.splitlines()[2:]]
    return set(re.findall(r"`(\w+)`", " ".join(cells)))


def test_the_keys_of_the_json_are_those_that_it_has() -> None:
    data = report()
    assert names_in("report") == set(data)
    assert names_in("groups") == set(data["violations"][0]) == set(data["late_writes"][0])
    figures = names_in("figures")
    assert set(data["totals"]) == figures | {"requests", "routes", "tests", "imports"}
    assert set(data["routes"][0]) == figures | {"route", "kind", "requests", "tests"}
    assert set(data["tests"][0]) == figures | {"test", "kind", "requests", "routes"}


def test_the_options_and_keys_of_the_ini_file_are_those_that_there_are(
    pytestconfig: pytest.Config,
) -> None:
    options = PAGE.partition("## Options\n")[2].partition("## The report")[0]
    known = {name for name, _, _ in pytest_plugin._INI} | {"tmpguard_enforce"}
    assert set(re.findall(r"`(tmpguard\w*)", options)) == known
    assert {f"tmpguard_{name}" for name in OPTIONS} - known == {"tmpguard_on_report", "tmpguard_log_interval"}
    given = {action for action in vars(pytestconfig.option) if action.startswith("tmpguard")}
    assert {name.replace("-", "_") for name in re.findall(r"`--(tmpguard[\w-]*)", options)} == given
    for value in LATE_WRITES[1:]:
        assert f"`tmpguard_late_writes = {value}`" in PAGE


def test_the_fixture_and_the_marker_have_the_documented_members() -> None:
    members = {name for name, _ in inspect.getmembers(TmpGuard) if not name.startswith("_")}
    assert set(re.findall(r"^\| `tmpguard\.(\w+)", PAGE, re.MULTILINE)) == members
    marker = PAGE.partition("## The marker\n")[2].partition("## Violations")[0]
    for name in MARKER_ONLY:
        assert f"`{name}=" in marker


def test_the_failure_is_the_one_that_is_shown(pytester: pytest.Pytester, run: Run) -> None:
    block = PAGE.partition("```\ntmpguard: ")[2].partition("```")[0]
    source = [line.partition(" | ")[2] for line in block.splitlines() if re.match(r"[ >]+\d+ \|", line)]
    assert len(source) == 5
    before = ["# The page shows the tenth line and those after it."] + ["#"] * 8
    text = "\n".join([*before, *source, "        return 400", ""])
    (pytester.mkpydir("shop") / "views.py").write_text(text)
    pytester.makepyfile(
        """
        from shop.views import upload

        def app(environ, start_response):
            upload("invoice.pdf", b"data")
            start_response("400 Bad Request", [])
            return [b""]

        def test_upload(tmpguard):
            tmpguard.client(app).post("/upload")
        """
    )
    pytester.mkdir("uploads")
    result = run()
    result.assert_outcomes(failed=1)
    printed = "\n".join(result.outlines)
    assert f"tmpguard: {block}" in printed


def test_the_examples_work(pytester: pytest.Pytester, run: Run) -> None:
    examples: list[Any] = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    examples = [one for one in examples if "page.goto" not in one]  # test_plugin_live.py has that one
    assert len(examples) == 2
    application = """
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            with open("/tmp/upload", "wb") as file:
                file.write((await receive())["body"])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body"})

        def export(path):
            open(path, "w").close()
    """
    text = "\n".join(["import pytest", textwrap.dedent(application), *examples])
    (pytester.path / "test_examples.py").write_text(text)
    run().assert_outcomes(passed=2)


def test_the_keys_can_be_in_either_table_of_pyproject(pytester: pytest.Pytester, run: Run) -> None:
    (table,) = [one for one in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "tmpguard_allow" in one]
    pytester.makepyfile(
        """
        def app(environ, start_response):
            start_response("200 OK", [])
            return [b""]

        def test_size(tmpguard):
            tmpguard.client(app).get("/")
            assert tmpguard.last.quota_bytes == 64 << 20
        """
    )
    pytester.makepyprojecttoml(table)
    run().assert_outcomes(passed=1)
    if pytest.version_tuple >= (9,):
        native = table.replace(".ini_options", "")
        pytester.makepyprojecttoml(native.replace("= 64", '= "64"'))
        run().assert_outcomes(passed=1)
        pytester.makepyprojecttoml(native)
        assert "expects a string, got int" in "\n".join(run().errlines)


def test_the_baseline_that_is_shown_is_one(pytester: pytest.Pytester, run: Run) -> None:
    (shown,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    views = """
        def upload(name):
            try:
                open(f"uploads/{name}", "wb")
            except OSError:
                pass
    """
    (pytester.mkpydir("shop") / "views.py").write_text(textwrap.dedent(views))
    pytester.makepyfile(
        """
        from shop.views import upload

        def app(environ, start_response):
            upload("invoice.pdf")
            start_response("200 OK", [])
            return [b""]

        def test_upload(tmpguard):
            tmpguard.client(app).post("/upload")
        """
    )
    pytester.mkdir("uploads")
    (pytester.path / "tmpguard-baseline.json").write_text(shown)
    result = run("--tmpguard-baseline=tmpguard-baseline.json")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*did not occur*")
    run("--tmpguard-baseline=tmpguard-baseline.json", "--tmpguard-baseline-write")
    written = (pytester.path / "tmpguard-baseline.json").read_text()
    assert written == shown


def test_the_readme_leads_to_the_page() -> None:
    assert "(docs/pytest.md)" in (PROJECT / "README.md").read_text()


def test_the_table_of_the_package_has_each_of_its_modules() -> None:
    named = set(re.findall(r"^``(\w+)``", testing.__doc__ or "", re.MULTILINE))
    assert named == {module.name for module in pkgutil.iter_modules(testing.__path__)}


def test_what_git_ignores_can_be_left_out(pytester: pytest.Pytester, run: Run) -> None:
    """C5.2: what an earlier run left in the project hides nothing."""
    (block,) = [one for one in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "tmpguard_ignore" in one]
    (pytester.path / ".gitignore").write_text("cache/\n")
    (pytester.path / "cache").mkdir()
    pytester.makepyfile(
        """
        from pathlib import Path
        from flask import Flask

        app = Flask(__name__)

        @app.get("/")
        def index():
            Path("cache").mkdir(exist_ok=True)
            return "ok"

        def test_index():
            assert app.test_client().get("/").status_code == 200
        """
    )
    run("--tmpguard").assert_outcomes(passed=1)
    pytester.makepyprojecttoml(block)
    result = run()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*EROFS*'cache'*"])
