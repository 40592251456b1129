"""The hook for pre-commit checks the project files of a commit, by the command that it names."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import PROJECT
from tmpguard.config import projects

pytest.importorskip("click")
pytest.importorskip("rich")

HOOKS = PROJECT / ".pre-commit-hooks.yaml"
PAGE = (PROJECT / "docs" / "ci.md").read_text()


@pytest.fixture
def hook() -> dict[str, Any]:
    (one,) = yaml.safe_load(HOOKS.read_text())
    return dict(one)


def run(hook: dict[str, Any], directory: Path, *files: str) -> subprocess.CompletedProcess[str]:
    """What pre-commit does: the command of the hook, with those of the files that it is for."""
    chosen = [name for name in files if re.search(hook["files"], name)]
    assert chosen
    module, *arguments = shlex.split(hook["entry"])
    command = [sys.executable, "-m", module, *arguments, *hook.get("args", []), *chosen]
    return subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)


def test_each_project_file_of_the_commit_is_checked(hook: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api/genezio.yaml").write_text("backend: {functions: [{name: x, storageSize: 64}]}\n")
    service = "service: x\nprovider: aws\nfunctions: {f: {ephemeralStorageSize: 600}}\n"
    (tmp_path / "serverless.yml").write_text(service)
    committed = ("api/genezio.yaml", "serverless.yml", "README.md", "api/app.py")
    done = run(hook, tmp_path, *committed)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("No errors") == 2
    (tmp_path / "serverless.yml").write_text(service.replace("600", "64"))
    done = run(hook, tmp_path, *committed)
    assert done.returncode == 1
    assert "serverless.yml:3: functions.f.ephemeralStorageSize: 64 MB is too small" in done.stdout


def test_findings_fail_it_on_demand(hook: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "genezio.yaml").write_text("backend: {functions: [{name: x}]}\n")
    (tmp_path / ".env").write_text("KEY=1")
    assert run(hook, tmp_path, "genezio.yaml").returncode == 0
    assert run({**hook, "args": ["--strict"]}, tmp_path, "genezio.yaml").returncode == 1


def test_it_is_for_all_files_that_are_project_files(hook: dict[str, Any]) -> None:
    for name in projects.NAMES:
        if name != "cdk.out":
            assert re.search(hook["files"], name)
            assert re.search(hook["files"], f"services/one/{name}")
    for name in (
        "my-template.yaml",
        "template.yaml.j2",
        "serverless.ts",
        "genezio.yaml.bak",
        "templates/x.yaml",
    ):
        assert not re.search(hook["files"], name)


def test_it_is_installed_with_what_the_command_line_needs(hook: dict[str, Any]) -> None:
    import tomllib

    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert hook["additional_dependencies"] == extras["cli"]
    assert hook["language"] == "python"


def test_the_documentation_names_it(hook: dict[str, Any]) -> None:
    (block,) = [one for one in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL) if "repos:" in one]
    (repository,) = yaml.safe_load(block)["repos"]
    assert [one["id"] for one in repository["hooks"]] == [hook["id"]]
