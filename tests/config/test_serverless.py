"""A serverless.yml gives its functions' sizes and code, as the Serverless Framework would deploy them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import tmpguard

pytest.importorskip("click")
pytest.importorskip("rich")

from tests.config.checking import run, told

SERVICE = """\
service: shop
frameworkVersion: "4"
useDotenv: true
provider:
  name: aws
  runtime: python3.13
  stage: ${opt:stage, 'dev'}
  environment:
    TABLE: !Ref Table
custom:
  sizes:
    large: 2048
  folder: tests
package:
  patterns:
    - "!${self:custom.folder}/**"
    - tests/data/**
functions:
  upload:
    handler: src/upload.handle
    ephemeralStorageSize: 1024
    events:
      - httpApi: POST /upload
  report:
    handler: src/report.handle
    ephemeralStorageSize: ${self:custom.sizes.large}
  ping:
    handler: src/upload.handle
resources:
  Resources:
    Table: {Type: AWS::DynamoDB::Table}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of a service, the working directory meanwhile."""
    directory = tmp_path / "shop"
    for name in (
        "src/upload.py",
        "src/report.py",
        "tests/test_a.py",
        "tests/data/1.csv",
        ".env",
        ".git/HEAD",
    ):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("x")
    (directory / "serverless.yml").write_text(SERVICE)
    monkeypatch.chdir(directory)
    return directory


def written(project: Path, *changes: tuple[str, str]) -> None:
    text = SERVICE
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    (project / "serverless.yml").write_text(text)


def error(**options: Any) -> str:
    with pytest.raises(tmpguard.ConfigurationError) as failed:
        tmpguard.Guard.from_project("serverless.yml", **options)
    return str(failed.value)


# --- the guard -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("function", "size"), [("upload", 1024), ("report", 2048), ("ping", 512)])
def test_a_function_s_size_is_taken(function: str, size: int, project: Path) -> None:
    guard = tmpguard.Guard.from_project("serverless.yml", function=function)
    assert (guard.storage_size, guard.platform, guard.bundle) == (size, "aws-lambda", str(project))


def test_the_code_is_the_service_without_what_its_patterns_leave_out(project: Path) -> None:
    """C5.2"""
    guard = tmpguard.Guard.from_project(function="upload")
    with guard.invocation():
        assert sorted(os.listdir(".")) == ["src", "tests"]
        assert os.listdir("tests") == ["data"]
        assert Path("tests/data/1.csv").read_text() == "x"
        for name in ("tests/test_a.py", ".env", ".git/HEAD", "serverless.yml"):
            with pytest.raises(FileNotFoundError):
                open(name)


def test_options_win_over_the_file(project: Path, tmp_path: Path) -> None:
    guard = tmpguard.Guard.from_project(project, function="upload", storage_size=600, ignore=None)
    assert guard.storage_size == 600
    with guard.invocation():
        assert Path("tests/test_a.py").exists()
    assert tmpguard.Guard.from_project(function="upload", bundle=tmp_path).bundle == str(tmp_path)


def test_several_functions_and_none_named_is_an_error_that_lists_them(project: Path) -> None:
    assert '"upload", "report", "ping"' in error()
    assert "has no function 'nothing'" in error(function="nothing")
    assert "does not match" in error(function="ping", platform="genezio")


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("511", "21: functions.upload.ephemeralStorageSize: 511 MB is too small for aws-lambda"),
        ("10241", "21: functions.upload.ephemeralStorageSize: 10241 MB is over the 10240 MB"),
        ("1.5", "21: functions.upload.ephemeralStorageSize: 1.5 is not a storage size"),
        ("[1]", "21: functions.upload.ephemeralStorageSize: a list: give a whole number"),
        ("${opt:size}", "21: functions.upload.ephemeralStorageSize: ${opt:size} (not resolved here)"),
        ("!Ref Size", "21: functions.upload.ephemeralStorageSize: !Ref (not resolved here)"),
        ("${self:custom.folder}", "13: custom.folder: 'tests' is not a storage size"),
    ],
)
def test_an_invalid_size_is_an_error_with_file_line_and_key(size: str, said: str, project: Path) -> None:
    written(project, ("ephemeralStorageSize: 1024", f"ephemeralStorageSize: {size}"))
    assert error(function="upload").startswith(f"serverless.yml:{said}")
    assert tmpguard.Guard.from_project(function="report").storage_size == 2048


def test_the_framework_takes_text_for_the_number_that_it_is(project: Path) -> None:
    written(project, ("ephemeralStorageSize: 1024", "ephemeralStorageSize: '1536'"))
    assert tmpguard.Guard.from_project(function="upload").storage_size == 1536


@pytest.mark.parametrize("key", ["ephemeralStorage", "ephemeralStoragesize", "EphemeralStorageSize"])
def test_a_key_that_is_almost_right_is_an_error(key: str, project: Path) -> None:
    written(project, ("ephemeralStorageSize: 1024", f"{key}: 1024"))
    assert error(function="upload") == (
        f"serverless.yml:21: functions.upload.{key}: is not a key that the deployment reads: "
        "did you mean ephemeralStorageSize?"
    )
    assert told(code=1)["errors"] == [error(function="upload")]


def test_a_size_at_the_provider_is_an_error_since_it_has_no_effect(project: Path) -> None:
    written(project, ("  runtime: python3.13", "  ephemeralStorageSize: 2048"))
    said = "serverless.yml:6: provider.ephemeralStorageSize: has no effect at the provider"
    assert error(function="ping").startswith(said)
    assert tmpguard.Guard.from_project(function="upload").storage_size == 1024


# --- variables -----------------------------------------------------------------------------------------


def test_functions_may_be_in_files_of_their_own(project: Path) -> None:
    (project / "more.yml").write_text("late:\n  handler: src/report.handle\n  ephemeralStorageSize: 64\n")
    (project / "sizes.json").write_text('{"large": [700, 800]}')
    written(
        project,
        ("functions:\n  upload:", "functions:\n- ${file(./more.yml)}\n- upload:"),
        (
            "    handler: src/upload.handle\n    ephemeral",
            "      handler: src/upload.handle\n      ephemeral",
        ),
        ("    events:\n      - httpApi: POST /upload\n", ""),
        ("  report:\n    handler: src/report.handle\n", "- report:\n"),
        (
            "    ephemeralStorageSize: ${self:custom.sizes.large}",
            "    ephemeralStorageSize: ${self:custom.of}",
        ),
        ("  folder: tests", "  folder: tests\n  of: ${file(sizes.json):large.1}"),
        ("  ping:\n    handler: src/upload.handle\n", ""),
    )
    result = told(code=1)
    assert [one["name"] for one in result["functions"]] == ["late", "upload", "report"]
    assert [one["storage_size_mb"] for one in result["functions"]] == [None, 1024, 800]
    (said,) = result["errors"]
    assert said.endswith("more.yml:3: late.ephemeralStorageSize: 64 MB is too small for aws-lambda: "
                         "give a whole number of MB, from 512 to 10240")  # fmt: skip


def test_a_size_that_only_the_deployment_knows_is_a_finding(project: Path) -> None:
    written(project, ("ephemeralStorageSize: 1024", "ephemeralStorageSize: ${ssm:/size}"))
    result = told()
    assert result["valid"]
    (upload, *_) = result["functions"]
    assert upload["storage_size_mb"] is None
    assert upload["findings"][0] == {
        "kind": "size",
        "path": "line 21",
        "message": "the size is ${ssm:/size} (not resolved here): it was not checked",
    }


def test_a_pattern_that_only_the_deployment_knows_is_a_finding(project: Path) -> None:
    written(project, ("- tests/data/**", '- "!${opt:stage}/**"\n    - "!src/!(a|b)/**"'))
    findings = told()["functions"][0]["findings"]
    assert [(one["kind"], one["path"]) for one in findings] == [
        ("pattern", "line 17"),
        ("pattern", "line 18"),
    ]
    assert "was not applied" in findings[0]["message"]


def test_functions_that_cannot_be_read_are_an_error(project: Path) -> None:
    """It is not said that nothing has a /tmp."""
    for variable in ("${file(functions.js)}", "${opt:functions}"):
        (project / "serverless.yml").write_text(
            f"service: x\nprovider: {{name: aws}}\nfunctions: {variable}\n"
        )
        (said,) = told(code=1)["errors"]
        assert said.startswith(f"serverless.yml:3: functions: {variable}: tmpguard does not evaluate this")
    (project / "serverless.yml").write_text("service: x\nprovider: aws\nfunctions: ${file(no.yml)}\n")
    (said,) = told(code=1)["errors"]
    assert said.startswith("serverless.yml:3: functions: ${file(no.yml)}: ")
    assert said.endswith("no.yml does not exist")


def test_variables_that_name_each_other_come_to_an_end(project: Path) -> None:
    custom = "\n".join(
        f"  v{number}: ${{self:custom.v{number + 1}}}${{self:custom.v{number + 1}}}" for number in range(40)
    )
    written(
        project,
        ("custom:", f"custom:\n  a: ${{self:custom.b}}\n  b: ${{self:custom.a}}\n{custom}"),
        ("ephemeralStorageSize: 1024", "ephemeralStorageSize: ${self:custom.a}"),
        ("${self:custom.sizes.large}", "${self:custom.v0}"),
    )  # fmt: skip
    assert "(not resolved here)" in error(function="upload")
    assert "(not resolved here)" in error(function="report")


# --- packages ------------------------------------------------------------------------------------------


def test_functions_that_are_packaged_apart_have_their_own_patterns(project: Path) -> None:
    written(
        project,
        ("package:\n", "package:\n  individually: true\n"),
        ("    events:", "    package:\n      patterns: ['!src/report.py']\n    events:"),
    )
    result = told()
    assert [bundle["files"] for bundle in result["bundles"]] == [2, 3]
    with tmpguard.Guard.from_project(function="upload").invocation():
        assert os.listdir("src") == ["upload.py"]
    with tmpguard.Guard.from_project(function="report").invocation():
        assert sorted(os.listdir("src")) == ["report.py", "upload.py"]


def test_a_function_s_patterns_have_no_effect_in_a_common_package(project: Path) -> None:
    written(project, ("    events:", "    package: {patterns: ['!src/report.py']}\n    events:"))
    assert [bundle["files"] for bundle in told()["bundles"]] == [3]


def test_include_and_exclude_are_understood_too(project: Path) -> None:
    written(
        project,
        ('  patterns:\n    - "!${self:custom.folder}/**"', "  exclude:\n    - tests/**\n  include:"),
    )
    with tmpguard.Guard.from_project(function="upload").invocation():
        assert os.listdir("tests") == ["data"]


def test_the_check_says_what_is_left_out_and_by_which_line(project: Path) -> None:
    output = " ".join(run().output.split())
    for part in (
        "function upload (serverless.yml:20)",
        "/tmp 1024 MB (line 21, platform aws-lambda)",
        "/tmp 2048 MB (line 12, platform aws-lambda)",
        "/tmp 512 MB (not given, platform aws-lambda)",
        "entry src/upload.py",
        "left out by serverless.yml",
        "16 !tests/** 1 tests/test_a.py",
        "default .git/** 1 .git/",
        "default .env* 1 .env",
        "No errors; nothing to report.",
    ):
        assert part in output, output


def test_an_entry_file_that_is_left_out_or_missing_is_found(project: Path) -> None:
    written(project, ("- tests/data/**", '- "!src/upload.py"'), ("src/report.handle", "src/none.handle"))
    by_name = {one["name"]: one["findings"] for one in told()["functions"]}
    assert [one["message"] for one in by_name["upload"]] == [
        "the entry file is left out by serverless.yml line 17, `!src/upload.py`"
    ]
    assert [one["path"] for one in by_name["report"]] == ["src/none.py"]


@pytest.mark.parametrize(
    "code", ["package: {artifact: dist/code.zip}", "image: 123456789012.dkr.ecr.us-east-1.amazonaws.com/x:1"]
)
def test_code_that_is_made_elsewhere_is_not_looked_through(code: str, project: Path) -> None:
    written(project, ("    events:", f"    {code}\n    events:"))
    (upload, *_) = told()["functions"]
    assert (upload["bundle"], upload["entry"], upload["findings"]) == (None, None, [])
    assert tmpguard.Guard.from_project(function="upload").bundle is None


# --- what it is not ------------------------------------------------------------------------------------


def test_another_provider_is_an_error(project: Path) -> None:
    written(project, ("name: aws", "name: google"))
    assert error(function="upload") == (
        "serverless.yml:5: provider.name: 'google': tmpguard reads serverless.yml files with the provider aws"
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("  ping:\n    handler: src/upload.handle\n", "  ping:\n"), "functions.ping: expected a mapping"),
        (("  patterns:", "  patterns: x\n  other:"), "package.patterns: expected a list"),
        (("- tests/data/**", "- [a]"), "package.patterns[1]: expected a pattern, found a list"),
        (("service: shop", "service: shop\nservice: x"), "duplicate key 'service'"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error(change: tuple[str, str], said: str, project: Path) -> None:
    written(project, change)
    (problem,) = told(code=1)["errors"]
    assert said in problem


def test_the_file_may_be_json(project: Path) -> None:
    (project / "serverless.yml").unlink()
    service = {"service": "x", "provider": {"name": "aws"}, "functions": {"a": {"ephemeralStorageSize": 64}}}
    (project / "serverless.json").write_text(json.dumps(service, indent="\t"))
    (said,) = told(code=1)["errors"]
    assert said.startswith("serverless.json:8: functions.a.ephemeralStorageSize: 64 MB is too small")


def test_a_service_without_functions_deploys_nothing_with_a_tmp(project: Path) -> None:
    (project / "serverless.yml").write_text("service: x\nprovider: aws\n")
    assert run().output == "No errors; nothing it deploys has a /tmp.\n"
