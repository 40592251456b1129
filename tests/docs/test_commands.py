"""The commands of the pages that have no test of their own: each runs as it is written."""

from __future__ import annotations

import json
import os
import re
import shutil
import textwrap
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import pytest
import yaml

import tmpguard
from tests.docs.blocks import block
from tests.docs.commands import lines_of, run, served, write
from tests.reporting.sample_report import report
from tests.support import PROJECT, free_port

README = (PROJECT / "README.md").read_text()


@pytest.fixture
def project() -> Iterator[Path]:
    """The reader's, outside ``/tmp``."""
    with TemporaryDirectory(prefix="docs-", dir="/var/tmp") as directory:
        yield Path(directory) / "my-project"


# --- the demonstration ---------------------------------------------------------------------------------


def test_the_demonstration_prints_what_the_readme_quotes() -> None:
    commands = re.findall(r"```sh\n(.*?)\n```", README, re.DOTALL)
    (demo,) = [one.rpartition("&& ")[2] for one in commands if "demo.py" in one]
    done = run(demo.removeprefix(".venv/bin/"), PROJECT)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.findall(r"```\n(Everything else .*?)```", README, re.DOTALL)[0] in done.stdout


# --- pytest --------------------------------------------------------------------------------------------

TESTED = """
import pytest
from flask import Flask

app = Flask(__name__)

@app.get("/")
def index():
    try:
        open("count", "w").close()
    except OSError:
        pass
    return "ok"

def test_index():
    with app.test_client().get("/") as answer:
        assert answer.status_code == 200
"""


def test_the_line_that_turns_the_plugin_on(project: Path) -> None:
    write(project, {"test_app.py": TESTED})
    (line,) = lines_of(block("pytest", "The pytest plugin", "sh"))
    done = run(line, project)
    assert done.returncode == 1
    assert "tmpguard: EROFS open 'count' at test_app.py:10 in index" in done.stdout


def test_the_lines_for_a_baseline(project: Path) -> None:
    write(project, {"test_app.py": TESTED})
    text = (PROJECT / "docs" / "pytest.md").read_text()
    (commands,) = re.findall(r"```sh\n(pytest [^`]*--tmpguard-baseline-write\n.*?)```", text, re.DOTALL)
    make, use = lines_of(commands)
    assert run(use, project).returncode != 0
    for line in (make, use):
        done = run(line, project)
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((project / "tmpguard-baseline.json").read_text())["findings"]


def test_the_workflow_runs_the_tests_and_keeps_the_report(project: Path) -> None:
    text = (PROJECT / "docs" / "ci.md").read_text()
    (workflow,) = [one for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "jobs:" in one]
    steps = yaml.safe_load(workflow)["jobs"]["tests"]["steps"]
    (line,) = [step["run"] for step in steps if step.get("run", "").startswith("pytest")]
    (path,) = [step["with"]["path"] for step in steps if "path" in step.get("with", {})]
    write(project, {"test_app.py": TESTED})
    assert run(line, project).returncode == 1
    assert "<html" in (project / path).read_text()


# --- tmpguard report -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("page", "heading"), [("production", "Keep the reports"), ("report", "The report of many requests")]
)
def test_the_lines_that_merge_reports(page: str, heading: str, project: Path) -> None:
    one = json.dumps(report())
    write(project, {"findings.jsonl": f"{one}\n{one}\n", "ci/run.json": one})
    for line in lines_of(block(page, heading, "")):
        done = run(line, project)
        assert (done.returncode, done.stderr) == (0, "")
    assert "<html" in (project / "week.html").read_text()
    if page == "report":
        assert json.loads((project / "week.json").read_text())["merged"]["reports"] == 2


# --- tmpguard invoke -----------------------------------------------------------------------------------

HANDLER = """
import os

def handler(event, context):
    size = os.statvfs("/tmp")
    return {"mb": size.f_blocks * size.f_frsize >> 20, "event": event}

handle = handler
"""

#: The pages with such commands, and for each command the size in MB that the function has.
INVOKED = {
    "aws-lambda": {"app:handler": 512, "MyFunction": 1024},
    "localstack": {"Upload": 600},
    "runtime-interface-emulator": {"app:handle": 512},
}

TEMPLATE = """
Transform: AWS::Serverless-2016-10-31
Resources:
  MyFunction:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: src, Handler: app.handler, Runtime: python3.13, EphemeralStorage: {Size: 1024}}
  Upload:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: src, Handler: app.handle, Runtime: python3.13, EphemeralStorage: {Size: 600}}
"""


@pytest.mark.parametrize("page", INVOKED)
def test_the_lines_that_call_a_handler(page: str, project: Path) -> None:
    pytest.importorskip("httptools")
    text = (PROJECT / "docs" / f"{page}.md").read_text()
    lines = re.findall(r"^tmpguard invoke .*", text, re.MULTILINE)
    sources = {"app.py": HANDLER, "src/app.py": HANDLER}
    write(project, {**sources, "template.yaml": TEMPLATE, "event.json": '{"a": 1}'})
    for line, (named, size) in zip(lines, INVOKED[page].items(), strict=True):
        assert named in line
        done = run(f"{line} --json", project)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["result"] == {"mb": size, "event": {"a": 1}}


# --- tmpguard run --------------------------------------------------------------------------------------

PYTHON = """\
from fastapi import FastAPI

app = FastAPI()


@app.get("/export")
def export() -> str:
    # The page says that this is line 9.
    open("export.csv", "w").close()
    return "exported"


@app.get("/")
def index() -> str:
    return "hello"


@app.post("/upload")
def upload() -> str:
    with open("/tmp/upload", "wb") as file:
        for _ in range(48):
            file.write(bytes(1 << 20))
    return "kept"
"""

NODE = """\
require("http").createServer((request, response) => {
  response.end(request.url);
}).listen(PORT, "127.0.0.1");
"""


def started(block: str, project: Path, port: str) -> str:
    """The last command of a block, whose others install tmpguard and enter the project, with another port."""
    install, enter, line = lines_of(block)
    assert (install, enter) == ("pip install 'tmpguard[run]'", f"cd {project.name}")
    return line.replace("8000", port)


def test_a_python_project_from_install_to_the_first_finding(project: Path) -> None:
    pytest.importorskip("httptools")
    port = free_port()
    write(project, {"app.py": PYTHON})
    line = started(block("run", "From install to the first finding", "sh"), project, port)
    with served(line, project, port) as server:
        assert httpx.get(server.url, timeout=60).json() == "hello"
        assert httpx.post(f"{server.url}/upload", timeout=60).json() == "kept"
        assert httpx.get(f"{server.url}/export", timeout=60).status_code == 500
        printed = iter(measured(server.stop().replace(port, "8000")).splitlines())
    for expected in measured(block("run", "From install to the first finding", "")).splitlines():
        assert expected in printed, f"{expected}\n\n{server.log()}"
    assert not (project / "export.csv").exists()


def measured(text: str) -> str:
    """``text`` without the times."""
    return re.sub(r"^\d\d:\d\d:\d\d|\d+ ms", "...", re.sub(r" +", " ", text), flags=re.MULTILINE)


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_a_node_project_is_served(project: Path) -> None:
    pytest.importorskip("httptools")
    listening, port = free_port(), free_port()
    write(project, {"server.js": NODE.replace("PORT", listening)})
    line = started(block("run", "From install to the first finding", "sh", number=1), project, port)
    with served(line.replace(" -- ", f" --port {port} -- "), project, port) as server:
        assert httpx.get(f"{server.url}/page", timeout=60).text == "/page"


# --- tmpguard export -----------------------------------------------------------------------------------


def test_the_image_of_a_sam_application(project: Path) -> None:
    """Docker's own lines name the directory, the size and the port that the file names."""
    text = (PROJECT / "docs" / "sam.md").read_text()
    (lines,) = [lines_of(one) for one in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)]
    (template,) = [one for one in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "Upload" in one]
    write(project, {"template.yaml": template, "src/app.py": HANDLER})
    export, build, start, _ = lines
    done = run(export, project)
    assert done.returncode == 0, done.stderr
    image = (project / "Dockerfile").read_text()
    assert build == "docker build -t upload -f Dockerfile src"
    assert "# Build: docker build -t upload:latest -f ./Dockerfile src\n" in image
    for shown, written in (
        ("size=1024m,", "size=1073741824,"),
        (":8080 ", ":8080 "),
        ("--read-only", "--read-only"),
    ):
        assert shown in start
        assert written in image


# --- messages ------------------------------------------------------------------------------------------


def test_the_message_on_a_file_that_is_left_out(tmp_path: Path) -> None:
    text = (PROJECT / "docs" / "bundle.md").read_text()
    rules, message = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    write(tmp_path, {".genezioignore": rules, "rows.csv": "1;2", "keep.csv": "3"})
    guard = tmpguard.Guard(bundle=tmp_path)
    with guard.invocation():
        os.chdir(tmp_path)
        assert Path("keep.csv").read_text() == "3"
        with pytest.raises(FileNotFoundError) as caught:
            open("rows.csv")
    raised = f"FileNotFoundError: {caught.value}"
    assert "\n".join([raised, *caught.value.__notes__, ""]) == message


def test_the_message_on_the_cache_of_a_library(project: Path) -> None:
    message = block("remedies", "Remedies", "")
    application = """
    import tmpguard, yfinance
    with tmpguard.invocation(bundle=None):
        try:
            yfinance.fetch()
        except OSError as exc:
            print(f"OSError: {exc}", *exc.__notes__, sep="\\n")
    """
    library = """
    import os

    def fetch():
        os.mkdir(os.path.expanduser("~/.cache/py-yfinance"))
    """
    files = {"site-packages/yfinance.py": library, "app.py": application, "home/app/.cache/kept": ""}
    write(project, {name: textwrap.dedent(text) for name, text in files.items()})
    path = f"{PROJECT}{os.pathsep}{project}/site-packages"
    done = run("python app.py", project, HOME=f"{project}/home/app", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace(str(project), "") == message


def test_the_warning_about_a_child(project: Path) -> None:
    message = block("children", "Which one to use", "")
    (program,) = re.findall(r"Popen '(\w+)'", message)
    (line, function) = re.findall(r"app.py:(\d+) in (\w+)", message)[0]
    source = [""] * (int(line) - 4)
    source += [
        "import subprocess, tmpguard",
        "@tmpguard.guarded(bundle=None)",
        f"def {function}():",
        f"    subprocess.run([{program!r}], env={{'PATH': '.'}})",
    ]
    write(project, {"app.py": "\n".join(source), program: "#!/bin/sh\n"})
    (project / program).chmod(0o755)
    done = run(f"python -c 'import app; app.{function}()'", project)
    assert done.returncode == 0, done.stderr
    assert done.stderr.replace(str(project), "/project") == message


def test_the_messages_on_a_project_file(project: Path) -> None:
    messages = block("genezio", "A Genezio project", "").splitlines()
    head = "name: shop\nregion: x\nbackend:\n  functions:\n    - name: thumbnails\n      entry: app.py\n"
    one = head + "      path: {}\n      handler: app\n      storageSize: {}\n"
    texts = (
        one.format(".", 256),
        one.format("/srv/shop/api", 64),
        one.format(".", 64) + "services:\n  email: {}\n - key\n",
        one.format(".", 64) + "    - {name: archive}\n",
    )
    for text, message in zip(texts, messages, strict=True):
        write(project, {"genezio.yaml": text})
        with pytest.raises(tmpguard.ConfigurationError) as caught:
            tmpguard.Guard.from_genezio(project / "genezio.yaml")
        assert str(caught.value).replace(f"{project}/", "") == message


def test_the_message_on_a_file_that_is_not_applied(project: Path) -> None:
    message = block("genezio", "Automatic detection", "")
    write(project, {"serverless.yml": "service: shop\nprovider: aws\n"})
    code = "import logging; logging.basicConfig(level=logging.INFO, format='%(message)s')\n"
    code += "from tmpguard.wsgi import TmpGuardMiddleware; TmpGuardMiddleware(lambda *_: [])"
    done = run(f'python -c "{code}"', project)
    assert (done.returncode, done.stderr) == (0, message)
