"""The pages of the platforms: their project files are read, and their commands print what they say."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import PROJECT

pytest.importorskip("click")
pytest.importorskip("rich")

from click.testing import CliRunner

from tmpguard.config.cli import command
from tmpguard.config.exports.command import export


def page(name: str) -> str:
    return (PROJECT / "docs" / f"{name}.md").read_text()


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The reader's project, the working directory meanwhile."""
    directory = tmp_path / "project"
    for name in ("src/upload.py", "src/report.py"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text("x")
    monkeypatch.chdir(directory)
    return directory


def write_files(text: str) -> None:
    """The blocks that begin with the name of a file, in the working directory."""
    for block in blocks(text, "(?:yaml|python)"):
        if (name := re.match(r"# ([\w./-]+)\n", block)) is not None:
            Path(name[1]).write_text(block)


def normalised(line: str) -> str:
    return " ".join(line.replace(os.getcwd(), "/project").split())


def check_commands(text: str) -> None:
    """Run the commands of the page. What it quotes of their output stands there in this order."""
    for block in blocks(text, "console"):
        first, *quoted = block.splitlines()
        if not first.startswith("$ tmpguard "):
            continue
        _, *arguments = shlex.split(first.removeprefix("$ "))
        done = CliRunner().invoke(command, arguments)
        printed = [normalised(line) for line in done.output.splitlines()]
        for line in map(normalised, quoted):
            assert line in printed, f"{line}\n\n{done.output}"
            del printed[: printed.index(line) + 1]


def run_blocks(text: str, skipped: str = "\0") -> Iterator[dict[str, Any]]:
    """Run the Python blocks. What they print is what their comments say."""
    for source in blocks(text, "python"):
        if skipped in source:
            continue
        names: dict[str, Any] = {"__name__": "page"}
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(source, "page.md", "exec"), names)
        assert output.getvalue().split() == re.findall(r"print\(.*?\)  # (\S+)", source)
        yield names


def errors_of(text: str, name: str, changes: dict[str, str]) -> list[str]:
    """The errors of the check, each for the project file ``name`` with one of the ``changes``."""
    found = []
    original = Path(name).read_text()
    for old, new in changes.items():
        assert old in original
        Path(name).write_text(original.replace(old, new, 1))
        found += json.loads(CliRunner().invoke(command, ["check", "--json"]).stdout)["errors"]
    return found


def test_the_serverless_framework(project: Path) -> None:
    text = page("serverless-framework")
    write_files(text)
    Path("debug.log").write_text("x" * 216)
    Path("tests").mkdir()
    Path("tests/test_upload.py").touch()
    check_commands(text)
    *_, decorated = run_blocks(text)
    assert decorated["handle"]({}, None) == {"statusCode": 200}
    changes = {
        "${self:custom.large}": "64",
        "ephemeralStorageSize: ${self:custom.large}": "ephemeralStorage: 1024",
        "  runtime: python3.13": "  ephemeralStorageSize: 1024",
    }
    for said in dict.fromkeys(errors_of(text, "serverless.yml", changes)):
        assert f"\n{said}\n" in text


def test_cloudformation(project: Path) -> None:
    text = page("cloudformation")
    write_files(text)
    check_commands(text)
    assert len([*run_blocks(text)]) == 1
    changes = {
        "Size: 1024": "Size: 64",
        "EphemeralStorage:\n        Size: 1024": "EphemeralStorageSize: 1024",
        "EphemeralStorage:\n        Size: 1024\n": "EphemeralStorage: 1024\n",
    }
    for said in errors_of(text, "template.yaml", changes):
        assert f"\n{said}\n" in text


def test_the_cdk(project: Path) -> None:
    """The template is as the CDK writes it for the application of the page, which needs the CDK."""
    text = page("cdk")
    one = {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "Code": {
                "S3Bucket": {"Fn::Sub": "cdk-hnb659fds-assets-${AWS::AccountId}-${AWS::Region}"},
                "S3Key": "2f1d.zip",
            },
            "EphemeralStorage": {"Size": 1024},
            "Handler": "upload.handle",
            "Runtime": "python3.13",
        },
        "Metadata": {"aws:cdk:path": "Shop/Upload/Resource", "aws:asset:path": "asset.2f1d"},
    }
    Path("cdk.out/asset.2f1d").mkdir(parents=True)
    for name in ("upload.py", "report.py"):
        Path(f"cdk.out/asset.2f1d/{name}").write_text("x")
    Path("cdk.out/manifest.json").write_text("{}")
    Path("cdk.out/Shop.template.json").write_text(
        json.dumps({"Resources": {"Upload51C4D210": one}}, indent=1)
    )
    check_commands(text)
    assert len([*run_blocks(text, skipped="aws_cdk")]) == 1


def test_the_export(project: Path) -> None:
    text = page("export")
    write_files(text)
    Path("api").mkdir()
    Path("api/main.py").write_text("from fastapi import FastAPI\napp = FastAPI()\n")
    Path("api/requirements.txt").touch()
    Path("archive").mkdir()
    Path("archive/keep.csv").touch()
    (rules,) = blocks(text, "gitignore")
    Path(".genezioignore").write_text(rules)
    check_commands(text)
    assert CliRunner().invoke(command, ["export", "docker", "-o", "."]).exit_code == 0
    assert f"\n```\n{Path('Dockerfile.dockerignore').read_text()}```\n" in text
    for line in (
        "tmpguard export docker --output deploy",
        "tmpguard export compose --output deploy/compose.yaml",
    ):
        assert line in text
        assert CliRunner().invoke(command, line.split()[1:]).exit_code == 0
    assert sorted(os.listdir("deploy")) == ["Dockerfile", "Dockerfile.dockerignore", "compose.yaml"]


def test_the_options_of_the_export_are_in_the_table() -> None:
    table = page("export").partition("## Options\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `(--[\w-]+)", table, re.MULTILINE)) == {
        one.opts[0] for one in export.params[2:]
    }
