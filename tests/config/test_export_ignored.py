"""The `.dockerignore` leaves out what the project file leaves out, by Docker's own reading of it."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tmpguard.config import projects
from tmpguard.config.exports.deployment import Deployment, deployments
from tmpguard.config.exports.dockerignore import dockerignore

docker_build = pytest.importorskip("docker").utils.build

GENEZIO = "backend: {functions: [{name: web, entry: main.py, handler: app, type: httpServer}]}\n"
FILES = [
    *("main.py", "a.csv", "keep.csv", "data/a.csv", "data/keep.csv", "data/deep/er/x.csv", "build/keep.csv"),
    *("build/out/x.py", "src/build", "src/a/build/y.py", "src/#odd", "src/!odd", "docs/a b.md"),
    *("tests/unit/test_a.py", "tests/data/1.csv", ".env", "src/.env", "node_modules/x/index.js", "src/tests"),
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def deployment(project: Path, file: str) -> Deployment:
    (one,) = deployments(str(project / file), "free", (), None, None)
    return one


def by_docker(project: Path, text: str) -> list[str]:
    """The files that Docker would take, by the library of its makers."""
    patterns = [line for line in text.splitlines() if line and not line.startswith("#")]
    found = docker_build.exclude_paths(str(project), patterns)
    return sorted(name for name in found if os.path.isfile(project / name) and name in FILES)


def by_project(one: Deployment) -> list[str]:
    """The files that the deployment takes."""
    ignore = one.ignore
    assert ignore is not None
    return sorted(name for name in FILES if ignore.match(name, False) is None)


@pytest.mark.parametrize(
    "lines",
    [
        "*.csv",
        "*.csv\n!keep.csv",
        "/data/\n!keep.csv",
        "build/",
        "build",
        "/build",
        "build/\n!build/keep.csv",
        "/*\n!/src/\n!/main.py",
        "*\n!*.py",
        "data/**/x.csv",
        "**/build",
        "src/*\n!src/a",
        "*.csv\n!data",
        "[bd]*/tests\n*.csv\n!tests",
        "a b.md\n# a comment\n\n*.md   ",
        "d**a/",
        "node_modules/\n.env",
        "tests/\n",
    ],
)
def test_the_lines_of_a_genezioignore_leave_out_the_same_files(lines: str, project: Path) -> None:
    (project / "genezio.yaml").write_text(GENEZIO)
    (project / ".genezioignore").write_text(lines)
    one = deployment(project, "genezio.yaml")
    assert by_docker(project, dockerignore(one)) == by_project(one), dockerignore(one)


def test_any_lines_leave_out_the_same_files(project: Path) -> None:
    (project / "genezio.yaml").write_text(GENEZIO)
    names = ["*", "*.py", "*.csv", "build", "data", "src", "tests", "keep.csv", "**", "?ata", "[bd]*", ".env"]
    files = ["keep.csv", "*.py", ".env"]
    choose = random.Random(7)
    for _ in range(150):
        lines = []
        for _ in range(choose.randint(1, 4)):
            pattern = "/".join(choose.choice(names) for _ in range(choose.randint(1, 2)))
            lines.append(choose.choice(["", "/"]) + pattern + choose.choice(["", "/"]))
            if choose.random() < 0.3:
                lines.append(f"!{choose.choice(files)}")
        (project / ".genezioignore").write_text("\n".join(lines))
        one = deployment(project, "genezio.yaml")
        assert by_docker(project, dockerignore(one)) == by_project(one), dockerignore(one)


def test_what_cannot_be_expressed_is_a_comment(project: Path) -> None:
    (project / "genezio.yaml").write_text(GENEZIO)
    (project / ".genezioignore").write_text("*.csv\n[[:digit:]].txt\n")
    text = dockerignore(deployment(project, "genezio.yaml"))
    assert text.splitlines()[1:] == ["**/*.csv", "# Cannot be expressed, line 2: [[:digit:]].txt"]


def test_escapes_and_negated_classes_are_those_of_go(project: Path) -> None:
    """The library does not know them, Docker itself does: its patterns are Go's filepath.Match."""
    (project / "genezio.yaml").write_text(GENEZIO)
    (project / ".genezioignore").write_text("\\#odd\n\\!odd\nsrc/\\[x\\].py\n[!a].csv\n")
    text = dockerignore(deployment(project, "genezio.yaml"))
    assert text.splitlines()[1:] == ["**/\\#odd", "**/\\!odd", "src/\\[x\\].py", "**/[^a].csv"]


@pytest.mark.parametrize(
    "patterns",
    [
        ["!tests/**"],
        ["!tests/**", "tests/data/**"],
        ["!**/*.{csv,md}"],
        ["!**", "src/**", "main.py"],
        ["!node_modules/**", "node_modules/x/*.js", "!**/.env"],
        ["!./build/**"],
        ["!tests/**", "**/*.csv"],
    ],
)
def test_the_patterns_of_a_serverless_yml_leave_out_the_same_files(
    patterns: list[str], project: Path
) -> None:
    listed = "".join(f"\n  - '{pattern}'" for pattern in patterns)
    (project / "serverless.yml").write_text(
        f"service: x\nprovider: {{name: aws, runtime: python3.13}}\npackage:\n  patterns:{listed}\n"
        "functions: {web: {handler: main.app}}\n"
    )
    one = deployment(project, "serverless.yml")
    assert by_docker(project, dockerignore(one)) == by_project(one), dockerignore(one)


def test_patterns_that_docker_does_not_have_are_comments(project: Path) -> None:
    (project / "serverless.yml").write_text(
        "service: x\nprovider: {name: aws, runtime: python3.13}\npackage:\n  exclude: ['data/*']\n"
        "  patterns: ['!@(a|b).csv', '!f{1..3}.txt']\nfunctions: {web: {handler: main.app}}\n"
    )
    lines = dockerignore(deployment(project, "serverless.yml")).splitlines()
    assert lines[-6:] == [
        "data/*",
        "# Cannot be expressed, line 5: !@(a|b).csv",
        "# Cannot be expressed, line 5: !f{1..3}.txt",
        "# What is there now and the lines above would treat differently:",
        "a.csv",
        "!data/deep/er/x.csv",
    ]


def test_a_project_that_leaves_nothing_out_says_so(project: Path) -> None:
    (project / "template.yaml").write_text(
        "Resources: {A: {Type: AWS::Lambda::Function, Properties: {Code: ., Runtime: python3.13}}}\n"
    )
    assert "leaves nothing out" in dockerignore(deployment(project, "template.yaml"))
    assert projects.read(str(project / "template.yaml")).functions[0].ignore is None
