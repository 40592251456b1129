"""`tmpguard check`: what is told of a project before it is deployed, for people and for machines."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import re
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import IO

import pytest

from tests.config import project_files
from tests.config.project_files import written
from tests.support import PROJECT, run_unprivileged
from tmpguard.config.check import check

pytest.importorskip("click")
pytest.importorskip("rich")

from tests.config.checking import run, told
from tmpguard.config.cli import amount, command, escaped


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of one function, the working directory meanwhile."""
    directory = tmp_path / "project"
    directory.mkdir()
    written(directory, project_files.FLASK)
    (directory / "app.py").write_text("app = None\n")
    monkeypatch.chdir(directory)
    return directory


def findings(*arguments: str) -> dict[str, str]:
    """The kinds of what was found in the first function's bundle, by their paths."""
    (function, *_) = told(*arguments)["functions"]
    return {finding["path"]: finding["kind"] for finding in function["findings"]}


# --- for people ----------------------------------------------------------------------------------------


def test_each_function_is_shown_with_its_size_and_bundle(project: Path) -> None:
    (project / ".genezioignore").write_text("# not for the platform\n*.csv\ntests/\n")
    (project / "rows.csv").write_text("x")
    (project / "tests").mkdir()
    (project / "model.bin").write_bytes(b"x" * 3_000_000)
    done = run()
    assert done.exit_code == 0
    output = " ".join(done.output.split())
    for part in (
        "function flask-shop (genezio.yaml:16)",
        "/tmp 64 MB (line 21, plan free)",
        "entry app.py",
        "concurrency 10",
        f"bundle {project}",
        "left out by .genezioignore",
        "2 *.csv 1 rows.csv",
        "3 tests/ 1 tests/",
        "2.9 MB model.bin",
        "No errors; nothing to report.",
    ):
        assert part in output


def test_what_the_deployment_would_refuse_ends_with_one(project: Path) -> None:
    text = project_files.FLASK.replace("storageSize: 64", "storageSize: 256")
    written(project, text)
    done = run()
    assert done.exit_code == 1
    assert "error genezio.yaml:21: backend.functions[0].storageSize: 256 MB is over" in done.output
    assert "No errors" not in done.output
    assert run("--plan", "pro").exit_code == 0
    for broken, said in {
        "backend: [\n": "error genezio.yaml:2: is not valid YAML",
        "backend: {functions: [{name: x, path: nowhere}]}\n": "nowhere does not exist",
        "": "error genezio.yaml: is empty",
    }.items():
        written(project, broken)
        done = run()
        assert done.exit_code == 1
        assert said in done.output


def test_a_project_without_functions_is_none_that_would_be_refused(project: Path) -> None:
    written(project, "name: x\nfrontend: {path: client}\n")
    done = run()
    assert (done.exit_code, done.output) == (0, "No errors; nothing it deploys has a /tmp.\n")
    assert told()["functions"] == []


def test_a_wrong_use_ends_with_two(project: Path) -> None:
    (project / "empty").mkdir()
    for arguments in (["nowhere.yaml"], ["empty"], ["--plan", "gold"], ["--nothing"], [".", "b"]):
        assert run(*arguments).exit_code == 2
    (project / "genezio.yaml").unlink()
    done = run()
    assert done.exit_code == 2
    assert "genezio.yaml" in done.output


def test_all_functions_of_a_project_are_shown_and_each_bundle_once(project: Path) -> None:
    written(project, project_files.CLASSES)
    done = run()
    assert done.exit_code == 0
    assert done.output.count(f"{project}/server") == 2
    assert done.output.count("largest files") == 0
    written(project, project_files.SEVERAL)
    (project / "server/ping/index.py").touch()
    done = run()
    assert [name in done.output for name in ("thumbnails", "archive", "ping")] == [True] * 3
    assert "entry main.py: the entry file does not exist" in done.output


def test_a_file_may_have_any_name(project: Path) -> None:
    names = [b"caf\xe9", b"new\nline", b"\x1b[31mred", "Größe".encode(), b"[bold]markup[\\bold]", b"x" * 255]
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(project), name))).write_bytes(b"x" * 100)
    done = run()
    assert done.exit_code == 0
    for part in ("caf\\udce9", "new\\nline", "\\x1b[31mred", "Größe", "[bold]markup[\\bold]", "x" * 255):
        assert part in done.output
    assert "\x1b" not in done.output
    paths = {one["path"] for one in told()["bundles"][0]["largest"]}
    assert {os.fsdecode(name) for name in names} <= paths


class Terminal(io.TextIOWrapper):
    """A standard output that says that it is a terminal, with the text that it was given."""

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding)

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        return self.buffer.getvalue().decode(self.encoding)  # type: ignore[attr-defined,no-any-return]


def run_on(output: IO[str] | None, monkeypatch: pytest.MonkeyPatch, **environment: str) -> int:
    """The status of a run whose standard output is ``output``."""
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", output)
        patch.delenv("NO_COLOR", raising=False)
        for name, value in {"TERM": "xterm", **environment}.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit) as ended:
            command(["check"])
    assert isinstance(ended.value.code, int)
    return ended.value.code


@pytest.mark.parametrize("columns", [30, 40, 80])
def test_a_narrow_terminal_has_whole_words(
    columns: int, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open("genezio.yaml", "a") as file:
        file.write("container:\n  storageSize: 256\n")
    (project / "app.log").write_text("")
    terminal = Terminal()
    assert run_on(terminal, monkeypatch, COLUMNS=str(columns)) == 1
    lines = re.sub("\x1b\\[[0-9;]*m", "", terminal.text).splitlines()
    assert max(map(len, lines)) <= columns
    words = {word for line in lines for word in line.split()}
    for message in (
        "app.log: a log file: read-only once it is deployed, so logging to it will fail",
        "256 MB is over the free plan's 128 MB; --plan pro allows 512",
    ):
        assert set(message.split()) <= words


def test_colours_are_for_terminals_that_want_them(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coloured, plain = Terminal(), Terminal()
    assert run_on(coloured, monkeypatch) == run_on(plain, monkeypatch, NO_COLOR="1") == 0
    assert re.search("\x1b\\[[0-9;]*3[0-7]", coloured.text)
    assert not re.search("\x1b\\[[0-9;]*3[0-7]", plain.text)
    assert "\x1b" not in run().output


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_an_output_that_cannot_have_all_characters_has_them_escaped(
    encoding: str, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "Größe €.log").write_text("x" * 5000)
    output = io.TextIOWrapper(io.BytesIO(), encoding)
    assert run_on(output, monkeypatch) == 0
    text = output.buffer.getvalue().decode(encoding)  # type: ignore[attr-defined]
    name = "Gr\\xf6\\xdfe \\u20ac.log" if encoding == "ascii" else "Größe \\u20ac.log"
    assert text.count(name) == 2


def test_an_output_that_is_closed_or_full_does_not_say_what_the_deployment_would(
    project: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_on(None, monkeypatch) == 0
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:  # as of `tmpguard check | head -1`
        assert run_on(pipe, monkeypatch) == 0
    assert capfd.readouterr().err == ""
    full = io.TextIOWrapper(open("/dev/full", "wb", 0), write_through=True)  # as with `python -u`
    assert run_on(full, monkeypatch) == 2
    assert capfd.readouterr().err == "Error: cannot write the output: No space left on device\n"
    with contextlib.suppress(OSError):
        full.close()


def test_the_amounts_are_readable() -> None:
    assert [amount(size) for size in (0, 1023, 1024, 1_500_000, 3 << 30, 5000 << 30)] == [
        "0 B",
        "1023 B",
        "1.0 KB",
        "1.4 MB",
        "3.0 GB",
        "5,000.0 GB",
    ]
    assert escaped("a\tb") == "a\\tb"


# --- for machines --------------------------------------------------------------------------------------


def test_the_json_has_these_keys_and_no_others(project: Path) -> None:
    """They are documented, and held stable: whoever changes one raises JSON_VERSION."""
    (project / ".genezioignore").write_text("*.csv\n")
    (project / "rows.csv").touch()
    (project / ".env").write_text("A=1\n")
    result = told()
    (function,) = result["functions"]
    (bundle,) = result["bundles"]
    assert {**result, "functions": 1, "bundles": 1} == {
        "version": 1,
        "file": "genezio.yaml",
        "platform": "genezio",
        "plan": "free",
        "valid": True,
        "errors": [],
        "functions": 1,
        "bundles": 1,
    }
    assert {**function, "findings": [list(one) for one in function["findings"]]} == {
        "kind": "function",
        "name": "flask-shop",
        "line": 16,
        "storage_size_mb": 64,
        "storage_size_line": 21,
        "entry": "app.py",
        "handler": "app",
        "max_concurrent_requests": 10,
        "bundle": str(project),
        "error": None,
        "findings": [["kind", "path", "message"]],
    }
    assert (bundle["directory"], bundle["ignore_file"]) == (str(project), str(project / ".genezioignore"))
    assert bundle["files"] == len([path for path in project.rglob("*") if path.is_file()]) - 1
    assert set(bundle) == {"directory", "ignore_file", "files", "bytes", "largest", "ignored"}
    assert bundle["ignored"] == [{"line": 1, "pattern": "*.csv", "paths": 1, "examples": ["rows.csv"]}]
    assert set(bundle["largest"][0]) == {"path", "bytes"}
    page = (PROJECT / "docs" / "genezio.md").read_text()
    for key in [*result, *function, *bundle]:
        assert f"`{key}`" in page, key


def test_the_json_of_what_would_be_refused_is_complete(project: Path) -> None:
    written(project, project_files.SEVERAL.replace("100", "big").replace("50", "5000"))
    result = told(code=1)
    assert result["valid"] is False
    assert len(result["errors"]) == 2
    assert [function["storage_size_mb"] for function in result["functions"]] == [None, None, 128]
    assert [bool(function["error"]) for function in result["functions"]] == [True, True, False]
    written(project, "backend: [\n")
    result = told(code=1)
    assert (result["functions"], result["bundles"]) == ([], [])


# --- findings ------------------------------------------------------------------------------------------


def test_what_is_likely_to_fail_or_to_be_regretted_is_found(project: Path) -> None:
    database = sqlite3.connect(project / "db.sqlite3")
    database.execute("create table t (x)")
    database.commit()
    database.close()
    (project / "empty.sqlite").touch()
    (project / "words.db").write_text("no database of SQLite's\n")
    for name in (".env", ".env.production", "prod.env", ".env.example", "env.py"):
        (project / name).write_text("A=1\n")
    (project / "app.log").write_text("started\n")
    (project / "keys").mkdir()
    (project / "keys/id_ed25519").write_text("x")
    (project / "keys/server.pem").write_text("-----BEGIN PRIVATE KEY-----\n")
    (project / "keys/public.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    for name in (".git", "env", "keys/venv"):
        (project / name).mkdir()
    (project / ".git/config").touch()
    (project / "env/pyvenv.cfg").touch()
    os.mkfifo(project / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
    assert findings() == {
        "db.sqlite3": "database",
        "empty.sqlite": "database",
        ".env": "secret",
        ".env.production": "secret",
        "prod.env": "secret",
        "app.log": "log",
        "keys/id_ed25519": "secret",
        "keys/server.pem": "secret",
        ".git": "history",
        "env": "environment",
        "pipe": "special",
        "socket": "special",
    }


def test_what_is_left_out_is_not_found(project: Path) -> None:
    (project / ".genezioignore").write_text(".env\n*.log\nprivate/\n!keep.log\n")
    (project / "private").mkdir()
    for name in (".env", "app.log", "keep.log", "private/.env", "private/db.sqlite3"):
        (project / name).touch()
    assert findings() == {"keep.log": "log"}
    ignored = told()["bundles"][0]["ignored"]
    assert [(one["line"], one["examples"]) for one in ignored] == [
        (1, [".env"]),
        (2, ["app.log"]),
        (3, ["private/"]),
    ]


def test_the_ignore_file_is_the_one_beside_the_project_file(project: Path) -> None:
    written(project, project_files.MIXED)
    (project / "api/main.py").touch()
    (project / "api/rows.csv").touch()
    (project / "api/.genezioignore").write_text("main.py\n")
    (project / ".genezioignore").write_text("/api/rows.csv\n")
    bundle = told()["bundles"][0]
    assert bundle["ignored"][0]["examples"] == ["rows.csv"]
    assert bundle["files"] == 2


def test_without_one_there_the_ignore_file_in_the_bundle_holds(project: Path) -> None:
    written(project, project_files.MIXED)
    for name in ("main.py", "rows.csv"):
        (project / "api" / name).touch()
    (project / "api/.genezioignore").write_text("*.csv\n")
    api, web = told()["bundles"]
    assert [one["ignore_file"] for one in (api, web)] == [str(project / "api/.genezioignore"), None]
    assert [one["examples"] for one in api["ignored"]] == [["rows.csv"]]


def test_an_entry_file_that_is_not_deployed_is_found(project: Path) -> None:
    (project / ".genezioignore").write_text("app.*\n")
    (function,) = told()["functions"]
    assert function["findings"] == [
        {
            "kind": "entry",
            "path": "app.py",
            "message": "the entry file is left out by .genezioignore line 1, `app.*`",
        }
    ]


def test_an_ignore_file_that_leaves_out_the_whole_bundle_is_an_error(project: Path) -> None:
    written(project, project_files.MIXED)
    (project / ".genezioignore").write_text("api\n")
    assert ".genezioignore:1: 'api' ignores the whole bundle" in told(code=1)["errors"][0]


def test_links_are_reported_and_never_followed_out_of_the_bundle(project: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/huge.bin").write_bytes(b"x" * 10_000)
    (project / ".genezioignore").write_text("*.csv\n")
    (project / "rows.csv").touch()
    for name, target in {
        "out": "../outside",
        "absolute": "/etc/passwd",
        "nowhere": "missing",
        "loop": "loop",
        "up": ".",
        "left out": "rows.csv",
        "fine": "app.py",
    }.items():
        (project / name).symlink_to(target)
    found = findings()
    assert found == {"out": "link", "absolute": "link", "nowhere": "link", "left out": "link", **_loop(found)}
    bundle = told()["bundles"][0]
    assert "huge.bin" not in json.dumps(bundle)
    assert bundle["bytes"] < 10_000


def _loop(found: dict[str, str]) -> dict[str, str]:
    """A link to itself is there and leads nowhere: told or not."""
    return {"loop": "link"} if "loop" in found else {}


def test_directories_and_files_that_cannot_be_read_are_findings(public_root: Path) -> None:
    (public_root / "genezio.yaml").write_text("backend: {functions: [{name: x, path: .}]}\n")
    (public_root / "locked").mkdir()
    (public_root / "locked").chmod(0)
    (public_root / "key.pem").write_text("x")
    (public_root / "key.pem").chmod(0)
    code = """
from tmpguard.config.check import check
result = check(sys.argv[1], "free")
print(result.errors, [(one.kind, one.path) for one in result.functions[0].findings])
"""
    needed = "tmpguard.config.check, yaml, pathspec.patterns.gitignore.spec"
    said = run_unprivileged(code, public_root / "genezio.yaml", imported=needed)
    assert said == "() [('unreadable', 'key.pem'), ('unreadable', 'locked')]\n"


def test_ten_thousand_files_are_looked_through_in_no_time(project: Path) -> None:
    """Fifty thousand take 1.3 s; here it is a bound for a busy machine."""
    (project / ".genezioignore").write_text("*.csv\n*.[oa]\n/data/**/raw\nnode_modules/\n!keep.csv\n")
    directories = [project / f"d{number}" for number in range(100)]
    for directory in directories:
        directory.mkdir()
        for number in range(100):
            os.link(project / "app.py", directory / f"file{number}.py")
    began = time.process_time()
    result = check("genezio.yaml", "free")
    seconds = time.process_time() - began
    assert result.surveys[0].files == 10_004
    assert seconds < 3


def test_nothing_is_patched_and_nothing_is_left(project: Path) -> None:
    before = os.mkdir, open, sorted(os.listdir(project))
    run()
    assert (os.mkdir, open, sorted(os.listdir(project))) == before


def test_a_database_is_known_by_its_first_bytes(project: Path) -> None:
    for name in ("data", "state.bin", "upload.dat"):
        connection = sqlite3.connect(project / name)
        connection.execute("create table t (x)")
        connection.commit()
        connection.close()
    (project / "zeros.bin").write_bytes(bytes(4096))
    (project / "text.bin").write_text("SQLite format 3 is what it is about")
    assert findings() == {"data": "database", "state.bin": "database", "upload.dat": "database"}


def test_shelves_of_each_kind_are_databases(project: Path) -> None:
    kinds = []
    for kind in ("dumb", "gnu", "ndbm", "sqlite3"):
        with contextlib.suppress(ImportError):
            module = importlib.import_module(f"dbm.{kind}")
            with contextlib.closing(module.open(str(project / f"shelf-{kind}"), "n")) as shelf:
                shelf[b"key"] = b"value"
            kinds.append(kind)
    found = findings()
    assert set(found.values()) == {"database"}
    for kind in kinds:
        assert sum(path.startswith(f"shelf-{kind}") for path in found) == 1, (kind, found)


def test_celery_beat_s_schedule_is_a_database_and_reported_once(project: Path) -> None:
    for name in ("celerybeat-schedule", "a/celerybeat-schedule.db"):
        (project / name).parent.mkdir(exist_ok=True)
        (project / name).write_text("x")
    (project / "b").mkdir()
    for ending in ("dat", "bak", "dir"):
        (project / f"b/celerybeat-schedule.{ending}").write_text("x")
    assert findings() == {
        "celerybeat-schedule": "database",
        "a/celerybeat-schedule.db": "database",
        "b/celerybeat-schedule.dat": "database",
    }


def test_a_virtual_environment_is_reported_once_and_its_contents_are_not(project: Path) -> None:
    (project / ".venv/lib").mkdir(parents=True)
    (project / ".venv/pyvenv.cfg").write_text("home = /usr/bin\n")
    (project / ".venv/lib/large.so").write_bytes(bytes(3 << 20))
    (project / ".venv/lib/app.log").touch()
    (project / ".venv/lib/db.sqlite3").touch()
    (project / ".venv/lib/python").symlink_to("/usr/bin/python3")
    result = told()
    assert result["functions"][0]["findings"] == [
        {
            "kind": "environment",
            "path": ".venv",
            "message": "a virtual environment (5 files, 3 MB): it would be deployed as a whole",
        }
    ]
    (bundle,) = result["bundles"]
    assert not [one for one in bundle["largest"] if one["path"].startswith(".venv")]
    assert bundle["bytes"] > 3 << 20


# --- a template of AWS SAM -------------------------------------------------------------------------------

TEMPLATE = """\
AWSTemplateFormatVersion: "2010-09-09"
Transform: AWS::Serverless-2016-10-31
Globals:
  Function:
    Runtime: python3.12
    EphemeralStorage: {Size: 1024}
Resources:
  Upload:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: src/
      Handler: app.handle
  Report:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: src/
      Handler: reports.main.handle
      EphemeralStorage:
        Size: 2048
  Table:
    Type: AWS::DynamoDB::Table
"""


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The template of a project with two functions, in the working directory."""
    (tmp_path / "src/reports/main").mkdir(parents=True)
    (tmp_path / "src/reports/main/__init__.py").touch()
    (tmp_path / "src/app.py").write_text("x")
    path = tmp_path / "template.yaml"
    path.write_text(TEMPLATE)
    monkeypatch.chdir(tmp_path)
    return path


def test_the_functions_of_a_template_have_their_sizes(template: Path) -> None:
    done = run()
    assert done.exit_code == 0
    output = " ".join(done.output.split())
    for part in (
        "function Upload (template.yaml:",
        "/tmp 1024 MB (line 6, platform aws-lambda)",
        "/tmp 2048 MB (line 19, platform aws-lambda)",
        "entry app.py",
        f"bundle {template.parent}/src 2 files",
        "No errors; nothing to report.",
    ):
        assert part in output, output
    result = told("template.yaml")
    assert (result["platform"], result["plan"], result["valid"]) == ("aws-lambda", None, True)
    assert [(one["name"], one["storage_size_mb"], one["entry"]) for one in result["functions"]] == [
        ("Upload", 1024, "app.py"),
        ("Report", 2048, "reports/main/__init__.py"),
    ]


def test_errors_of_a_template_name_the_file_the_line_and_the_key(template: Path) -> None:
    for old, new, said in (
        (
            "Size: 2048",
            "Size: 64",
            "template.yaml:19: Resources.Report.Properties.EphemeralStorage.Size: ",
        ),
        (
            "Size: 1024",
            "Size: 20000",
            "template.yaml:6: Globals.Function.EphemeralStorage.Size: ",
        ),
        (
            "CodeUri: src/\n      Handler: app",
            "CodeUri: nowhere/\n      Handler: app",
            "template.yaml:11: Resources.Upload.Properties.CodeUri: ",
        ),
        ("Resources:", "Resource:", "template.yaml:8: Resource: is not a key that the deployment reads"),
        ("Resources:", "Things:", "template.yaml:1: has no Resources"),
    ):
        template.write_text(TEMPLATE.replace(old, new))
        done = run("template.yaml")
        assert done.exit_code == 1
        assert f"error {said}" in done.output


def test_what_is_likely_to_fail_is_found_in_a_template_s_bundle(template: Path) -> None:
    (template.parent / "src/app.py").unlink()
    (template.parent / "src/.aws-sam").mkdir()
    (template.parent / "src/.aws-sam/app.log").touch()
    (template.parent / "src/debug.log").touch()
    assert findings("template.yaml") == {"app.py": "entry", "debug.log": "log"}


def test_a_size_that_only_the_deployment_computes_is_a_finding_and_no_error(template: Path) -> None:
    for size in ("!Ref StorageSize", "{Ref: StorageSize}", '{"Fn::If": [Large, 4096, 512]}'):
        template.write_text(TEMPLATE.replace("Size: 2048", f"Size: {size}"))
        result = told("template.yaml")
        assert result["valid"]
        report = result["functions"][1]
        assert report["storage_size_mb"] is None
        assert [finding["kind"] for finding in report["findings"]] == ["size"]
        assert "it was not checked" in run("template.yaml").output


def test_a_file_that_is_neither_is_an_error(template: Path) -> None:
    """It is not one that deploys nothing with a /tmp."""
    template.write_text("volumes:\n  web: {image: nginx}\nversion: '3'\n")
    done = run("template.yaml")
    assert done.exit_code == 1
    assert "template.yaml:1: is neither a genezio.yaml nor a template of AWS SAM" in done.output


# --- the command ---------------------------------------------------------------------------------------


def test_it_is_a_command_and_a_module(project: Path) -> None:
    script = Path(sys.executable).parent / "tmpguard"
    commands = [[sys.executable, "-m", "tmpguard", "check"]]
    if script.exists():
        commands.append([str(script), "check"])
    environment = {
        **os.environ,
        "PYTHONPATH": str(PROJECT),
        "COLUMNS": "80",
        "PYTHONIOENCODING": "ascii:backslashreplace",
    }
    for line in commands:
        done = subprocess.run(line, capture_output=True, text=True, check=False, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert "flask-shop" in done.stdout


def test_without_click_it_says_what_to_install(project: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(PROJECT)!r})
sys.modules["click"] = None
from tmpguard.__main__ import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "tmpguard: the command line needs click and rich: pip install 'tmpguard[cli]'\n"
