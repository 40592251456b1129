"""`tmpguard invoke` calls the handler of a function in the project file, in its storage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.emulator.test_run import printed

HANDLER = """
import errno, os, shutil

def handle(event, context):
    found = {"size": shutil.disk_usage("/tmp").total >> 20, "there": sorted(os.listdir(".")), "event": event}
    for path in ("/tmp/x", "x", "/dev/shm/x"):
        try:
            open(path, "w").close()
            found[path] = 0
        except OSError as exc:
            found[path] = errno.errorcode[exc.errno]
    return found
"""

SAM = """
Resources:
  Upload:
    Type: AWS::Serverless::Function
    Properties:
      CodeUri: src
      Handler: app.handle
      Runtime: python3.13
      EphemeralStorage: {Size: 600}
  Other:
    Type: AWS::Serverless::Function
    Properties: {CodeUri: src, Handler: index.handle, Runtime: nodejs20.x}
"""

SERVERLESS = """
service: shop
provider: {name: aws, runtime: python3.13}
package: {patterns: ['!src/*.csv']}
functions:
  upload: {handler: src/app.handle, ephemeralStorageSize: 700}
"""

GENEZIO = """
backend:
  path: src
  functions: [{name: upload, path: ., entry: app.py, handler: handle, storageSize: 64}]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/app.py").write_text(HANDLER)
    (tmp_path / "src/rows.csv").touch()
    return tmp_path


def invoked(directory: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    status, text = printed("invoke", "--json", *arguments, directory=directory)
    if "unshare" in text:
        pytest.skip(f"this machine permits no namespaces: {text}")
    answer: dict[str, Any] = json.loads(text)["result"]
    return status, answer


def test_a_function_of_sam_has_its_size_and_code(directory: Path) -> None:
    (directory / "template.yaml").write_text(SAM)
    (directory / "event.json").write_text('{"a": 1}')
    status, answer = invoked(directory, "--function", "Upload", "--event", "event.json")
    assert answer == {
        "size": 600,
        "there": ["app.py", "rows.csv"],
        "event": {"a": 1},
        "/tmp/x": 0,
        "x": "EROFS",
        "/dev/shm/x": answer["/dev/shm/x"],
    }
    assert answer["/dev/shm/x"] != 0
    assert status == 1  # there are findings


def test_a_function_of_the_serverless_framework_has_no_file_that_is_left_out(directory: Path) -> None:
    (directory / "serverless.yml").write_text(SERVERLESS)
    _, answer = invoked(directory)
    assert (answer["size"], answer["there"]) == (700, ["src"])
    _, answer = invoked(directory, "--file", "serverless.yml", "--storage-size", "512")
    assert answer["size"] == 512


def test_a_function_of_genezio_has_its_size(directory: Path) -> None:
    (directory / "genezio.yaml").write_text(GENEZIO)
    (directory / ".genezioignore").write_text("*.csv\n")
    _, answer = invoked(directory, "--function", "upload")
    assert (answer["size"], answer["there"], answer["/dev/shm/x"]) == (64, ["app.py"], 0)


def test_a_wrong_use_says_what_to_do(directory: Path) -> None:
    (directory / "template.yaml").write_text(SAM)
    for arguments, said in (
        (("--function", "None"), 'has no function \'None\': it has "Upload", "Other"'),
        ((), "has 2 candidates"),
        (("--function", "Other"), "tmpguard invoke needs a handler of Python in a directory"),
        (("--function", "Upload", "--platform", "vercel"), "--platform vercel does not match template.yaml"),
        (("--function", "Upload", "app:handle"), "give either MODULE:FUNCTION or --function and --file"),
        (("--file", "src"), "there is no genezio.yaml"),
        (("--function", "Upload", "--storage-size", "64"), "64 MB is too small for aws-lambda"),
    ):
        status, text = printed("invoke", *arguments, directory=directory)
        assert status != 0
        assert said in text, text
