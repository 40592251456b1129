"""Each Python block of the pages can be copied as it is: no name in it is undefined, and it runs.

The blocks of the other pages run in the tests of those pages.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import PROJECT
from tests.testing.test_plugin_deployments import ALONE

#: What stands for the reader's own code.
PLACEHOLDERS = {"app", "application", "handle", "event", "export", "INSTALLED_APPS", "MIDDLEWARE"}

PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]


def blocks() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        sources = re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)
        found += [(f"{page.name}-{number}", source) for number, source in enumerate(sources)]
    return found


@pytest.mark.parametrize(("name", "source"), blocks(), ids=lambda value: value if "\n" not in value else "")
def test_no_name_is_undefined(name: str, source: str, tmp_path: Path) -> None:
    file = tmp_path / "block.py"
    file.write_text(source)
    command = [
        sys.executable,
        "-m",
        "ruff",
        "check",
        "--isolated",
        "--select",
        "F821,E9",
        "--output-format",
        "concise",
    ]
    done = subprocess.run([*command, str(file)], capture_output=True, text=True, check=False)
    undefined = set(re.findall(r"Undefined name `(\w+)`", done.stdout))
    assert undefined <= PLACEHOLDERS, done.stdout
    assert "syntax" not in done.stdout.lower(), done.stdout


#: Projects with the names that the pages use.
PROJECT_FILES = {
    "genezio.yaml": """
name: shop
backend:
  path: src
  functions:
    - {name: my-function, path: ., entry: app.py, handler: handler, storageSize: 64}
""",
    "serverless.yml": """
service: shop
provider: {name: aws, runtime: python3.13}
functions:
  upload: {handler: src/app.handler, ephemeralStorageSize: 1024}
""",
    "template.yaml": """
Transform: AWS::Serverless-2016-10-31
Resources:
  MyFunction:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: src, Handler: app.handler, EphemeralStorage: {Size: 1024}}
""",
    "src/app.py": "def handler(event, context): ...",
}

#: What the pages leave to the reader.
READERS = """
import io
from fastapi import FastAPI, UploadFile

def handle(event):
    open("/tmp/kept", "w").close()
    os.remove("/tmp/kept")

def export(path):
    open(path, "w").close()

app = FastAPI()

@app.post("/upload")
def upload(file: UploadFile):
    with open("/tmp/kept", "wb") as kept:
        kept.write(file.file.read())

event = {}
"""


def python_blocks(name: str) -> list[str]:
    text = (PROJECT / "docs" / f"{name}.md").read_text()
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("name", ["aws-lambda", "genezio", "options"])
def test_the_blocks_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, text in PROJECT_FILES.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    monkeypatch.chdir(tmp_path)
    for source in python_blocks(name):
        names: dict[str, Any] = {"__name__": "page", "os": os}
        exec(READERS, names)
        exec(compile(source, f"{name}.md", "exec"), names)
        for guard in [value for value in names.values() if isinstance(value, tmpguard.Guard)]:
            guard.end_instance()
        if "handler" in names:
            assert names["handler"]({}, None) == {"statusCode": 200}


def test_the_tests_of_the_plugin_s_page_pass(tmp_path: Path) -> None:
    """But for the one with a browser."""
    tests = [source for source in python_blocks("pytest") if "page" not in source]
    assert len(tests) == 2
    (tmp_path / "test_page.py").write_text("import os\n" + READERS + "\n".join(tests))
    command = [sys.executable, "-m", "pytest", *ALONE, "--tmpguard", "test_page.py"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "2 passed" in done.stdout, done.stdout + done.stderr
