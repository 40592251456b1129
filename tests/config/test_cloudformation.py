"""Templates of CloudFormation, and those that the CDK writes, give their functions' sizes and code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import tmpguard

pytest.importorskip("click")
pytest.importorskip("rich")

from tests.config.checking import told

TEMPLATE = """\
AWSTemplateFormatVersion: "2010-09-09"
Parameters:
  Size: {Type: Number, Default: 1024}
Resources:
  Role:
    Type: AWS::IAM::Role
    Properties:
      ManagedPolicyArns: [!Sub "arn:${AWS::Partition}:iam::aws:policy/Basic"]
  Upload:
    Type: AWS::Lambda::Function
    Properties:
      Code: ./src
      Handler: app.handle
      Runtime: python3.13
      MemorySize: 256
      Timeout: 30
      Role: !GetAtt Role.Arn
      EphemeralStorage:
        Size: 2048
      Environment:
        Variables:
          HOSTS: !Join [",", !Split [" ", !Ref Hosts]]
          ZONE: !Select [0, !GetAZs ""]
          LATE: !If [Late, !ImportValue other, !FindInMap [A, B, C]]
          CIDR: !Cidr [!GetAtt Vpc.CidrBlock, 1, 8]
          TEXT: !Base64 {"Fn::Sub": "${AWS::Region}"}
  Inline:
    Type: AWS::Lambda::Function
    Properties:
      Runtime: python3.13
      Handler: index.handle
      Code:
        ZipFile: |
          def handle(event, context):
              return 1
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the template, the working directory meanwhile."""
    directory = tmp_path / "project"
    (directory / "src").mkdir(parents=True)
    (directory / "src/app.py").write_text("x")
    monkeypatch.chdir(directory)
    return directory


def error(path: str | None = None, **options: Any) -> str:
    with pytest.raises(tmpguard.ConfigurationError) as failed:
        tmpguard.Guard.from_project(path, **options)
    return str(failed.value)


# --- CloudFormation ------------------------------------------------------------------------------------


def test_a_template_with_every_short_function_is_read(project: Path) -> None:
    (project / "template.yaml").write_text(TEMPLATE)
    guard = tmpguard.Guard.from_project(function="Upload")
    assert (guard.storage_size, guard.platform, guard.bundle) == (2048, "aws-lambda", str(project / "src"))
    upload, inline = told()["functions"]
    assert (upload["storage_size_mb"], upload["entry"], upload["findings"]) == (2048, "app.py", [])
    assert (inline["storage_size_mb"], inline["bundle"], inline["entry"]) == (512, None, None)


@pytest.mark.parametrize("name", ["template.json", "stack.template"])
def test_a_template_may_be_json(name: str, project: Path) -> None:
    properties = {
        "Code": "src",
        "Handler": "app.handle",
        "Runtime": "python3.13",
        "EphemeralStorage": {"Size": 64},
    }
    resources = {"Upload": {"Type": "AWS::Lambda::Function", "Properties": properties}}
    (project / name).write_text(json.dumps({"Resources": resources}, indent="\t"))
    assert error(name) == (
        f"{name}:10: Resources.Upload.Properties.EphemeralStorage.Size: 64 MB is too small for aws-lambda: "
        "give a whole number of MB, from 512 to 10240"
    )
    assert told(name, code=1)["errors"] == [error(name)]
    properties["EphemeralStorage"] = {"Size": {"Fn::If": ["Large", 4096, 512]}}
    (project / name).write_text(json.dumps({"Resources": resources}))
    assert told(name)["functions"][0]["findings"][0]["kind"] == "size"


def test_a_file_that_is_not_json_is_an_error_with_its_line(project: Path) -> None:
    (project / "template.json").write_text('{\n  "Resources": {\n    "A": {},\n  }\n}\n')
    result = told(code=1)
    assert (result["platform"], result["file"]) == ("aws-lambda", "template.json")
    assert result["errors"][0].startswith("template.json:")
    assert "is not valid JSON" in result["errors"][0]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("EphemeralStorage: 2048", "EphemeralStorage: 2048: give a mapping, EphemeralStorage: {Size: 512}"),
        ("EphemeralStorageSize: 2048", "EphemeralStorageSize: is not a key that the deployment reads: did"),
        ("ephemeralStorage: {Size: 2048}", "ephemeralStorage: is not a key that the deployment reads: did"),
        (
            "EphemeralStorage: {size: 2048}",
            "EphemeralStorage.size: is not a key that the deployment reads: did",
        ),
    ],
)
def test_a_size_that_is_written_wrongly_is_an_error(given: str, said: str, project: Path) -> None:
    text = TEMPLATE.replace("EphemeralStorage:\n        Size: 2048", given)
    (project / "template.yaml").write_text(text)
    assert error(function="Upload").startswith(f"template.yaml:18: Resources.Upload.Properties.{said}")
    assert told(code=1)["errors"] == [error(function="Upload")]
    assert tmpguard.Guard.from_project(function="Inline").storage_size == 512


# --- the CDK -------------------------------------------------------------------------------------------


def function(name: str, asset: str | None, **properties: Any) -> dict[str, Any]:
    metadata = {"aws:cdk:path": f"Shop/{name}/Resource"}
    if asset is not None:
        metadata |= {"aws:asset:path": asset, "aws:asset:is-bundled": False, "aws:asset:property": "Code"}
    bucket = {"Fn::Sub": "cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}"}
    code = {"S3Bucket": bucket, "S3Key": f"{asset}.zip"}
    given = {"Code": code, "Handler": "app.handle", "Runtime": "python3.13", **properties}
    return {"Type": "AWS::Lambda::Function", "Properties": given, "Metadata": metadata}


def assembly(
    directory: Path, stacks: dict[str, dict[str, Any]], assets: tuple[str, ...] = ("asset.1",)
) -> None:
    """A directory as `cdk synth` writes it."""
    directory.mkdir()
    (directory / "manifest.json").write_text('{"version": "48.0.0", "artifacts": {}}')
    (directory / "tree.json").write_text("{}")
    for asset in assets:
        (directory / asset).mkdir()
        (directory / asset / "app.py").write_text("x")
    for name, resources in stacks.items():
        text = json.dumps({"Resources": resources}, indent=1)
        (directory / f"{name}.template.json").write_text(text)


def test_the_functions_of_all_stacks_are_read(project: Path) -> None:
    first = {"UploadA1": function("Upload", "asset.1", EphemeralStorage={"Size": 2048}, MemorySize=256)}
    second = {
        "ReportB2": function("Report", "asset.2"),
        "LogRetentionC3": function("LogRetention", None, Code={"ZipFile": "x"}),
        "ImageD4": function("Image", None, Code={"ImageUri": {"Fn::Sub": "x"}}, PackageType="Image"),
    }
    assembly(project / "cdk.out", {"Shop": first, "Reports": second}, ("asset.1", "asset.2"))
    (project / "cdk.out/asset.2/debug.log").touch()
    result = told()
    assert (result["file"], result["platform"], result["valid"]) == ("cdk.out", "aws-lambda", True)
    keys = ("name", "storage_size_mb", "bundle", "entry")
    assert [tuple(one[key] for key in keys) for one in result["functions"]] == [
        ("ReportB2", 512, str(project / "cdk.out/asset.2"), "app.py"),
        ("LogRetentionC3", 512, None, None),
        ("ImageD4", 512, None, None),
        ("UploadA1", 2048, str(project / "cdk.out/asset.1"), "app.py"),
    ]  # fmt: skip
    assert [one["path"] for one in result["functions"][0]["findings"]] == ["debug.log"]
    guard = tmpguard.Guard.from_project("cdk.out", function="UploadA1")
    assert (guard.storage_size, guard.bundle) == (2048, str(project / "cdk.out/asset.1"))
    with guard.invocation():
        assert os.listdir(".") == ["app.py"]


def test_the_directory_of_a_project_or_a_single_template_will_do(project: Path) -> None:
    resources = {"UploadA1": function("Upload", "asset.1", EphemeralStorage={"Size": 700})}
    assembly(project / "cdk.out", {"Shop": resources})
    for path in (None, ".", "cdk.out", "cdk.out/Shop.template.json"):
        assert tmpguard.Guard.from_project(path).storage_size == 700
    for path in (".", "cdk.out", "cdk.out/Shop.template.json"):
        assert told(path)["functions"][0]["storage_size_mb"] == 700


def test_stages_have_directories_of_their_own(project: Path) -> None:
    """Their assets are in that of the application."""
    assembly(project / "cdk.out", {})
    stage = project / "cdk.out/assembly-Prod"
    assembly(stage, {"ProdShop": {"A": function("Upload", "../asset.1", EphemeralStorage={"Size": 900})}}, ())
    (one,) = told()["functions"]
    assert (one["storage_size_mb"], one["bundle"]) == (900, str(project / "cdk.out/asset.1"))


def test_errors_name_the_template_the_line_and_the_key(project: Path) -> None:
    resources = {"UploadA1": function("Upload", "asset.1", EphemeralStorage={"Size": 20_000})}
    assembly(project / "cdk.out", {"Shop": resources})
    said = (
        "cdk.out/Shop.template.json:15: Resources.UploadA1.Properties.EphemeralStorage.Size: 20000 MB is over"
    )
    assert error().startswith(said)
    assert told(code=1)["errors"] == [error()]


def test_code_that_was_not_written_is_an_error(project: Path) -> None:
    assembly(project / "cdk.out", {"Shop": {"A": function("A", "asset.gone")}})
    (said,) = told(code=1)["errors"]
    assert said.startswith("cdk.out/Shop.template.json:17: Resources.A.Metadata.aws:asset:path: ")
    assert said.endswith("asset.gone does not exist")


def test_a_name_that_is_in_several_templates_is_an_error(project: Path) -> None:
    stacks = {name: {"UploadA1": function("Upload", "asset.1")} for name in ("Dev", "Prod")}
    assembly(project / "cdk.out", stacks)
    assert error(function="UploadA1") == (
        "cdk.out: function 'UploadA1' is in cdk.out/Dev.template.json, cdk.out/Prod.template.json: "
        "give one of them"
    )


def test_nothing_to_read_is_an_error_that_says_what_to_run(project: Path) -> None:
    assert error() == (
        "there is no genezio.yaml, serverless.yml, serverless.yaml, serverless.json, template.yaml, "
        "template.yml, template.json or cdk.out here: give the project file"
    )
    assert "in src" in error("src")
    assembly(project / "cdk.out", {})
    assert told(code=1)["errors"] == ["cdk.out: has no *.template.json: run cdk synth first"]


def test_amplify_s_templates_name_their_code_likewise(project: Path) -> None:
    one = {
        "Type": "AWS::Lambda::Function",
        "Metadata": {"aws:asset:path": "./src", "aws:asset:property": "Code"},
        "Properties": {"Code": {"S3Bucket": {"Ref": "b"}, "S3Key": {"Ref": "k"}}, "Handler": "app.handle"},
    }
    (project / "template.json").write_text(json.dumps({"Resources": {"LambdaFunction": one}}))
    assert tmpguard.Guard.from_project().bundle == str(project / "src")


# --- which file it is ----------------------------------------------------------------------------------


def test_the_project_file_is_found_by_its_name_in_this_order(project: Path) -> None:
    assembly(project / "cdk.out", {"Shop": {"A": function("A", "asset.1", EphemeralStorage={"Size": 800})}})
    assert tmpguard.Guard.from_project().storage_size == 800
    (project / "template.yaml").write_text(TEMPLATE)
    assert tmpguard.Guard.from_project(function="Upload").storage_size == 2048
    (project / "serverless.yml").write_text(
        "service: x\nprovider: aws\nfunctions: {a: {ephemeralStorageSize: 600}}\n"
    )
    assert tmpguard.Guard.from_project().storage_size == 600
    (project / "genezio.yaml").write_text("backend: {functions: [{name: a, storageSize: 64}]}\n")
    guard = tmpguard.Guard.from_project()
    assert (guard.storage_size, guard.platform) == (64, "genezio")


def test_a_genezio_project_s_misspelt_size_is_an_error(project: Path) -> None:
    (project / "genezio.yaml").write_text("backend:\n  functions:\n  - name: a\n    storagesize: 64\n")
    said = "genezio.yaml:4: backend.functions[0].storagesize: is not a key that the deployment reads: did"
    assert error().startswith(said)
    assert told(code=1)["errors"] == [error()]


def test_a_path_that_is_none_is_an_error(project: Path) -> None:
    assert "is not a path" in error(3)  # type: ignore[arg-type]
    assert "cannot be read" in error("nothing.yaml")
