"""Each block of the pages is run by a test, or has a reason why not."""

from __future__ import annotations

import re
import shlex
import tomllib

import pytest

from tests.docs.commands import lines_of
from tests.support import PROJECT

pytest.importorskip("click")
pytest.importorskip("rich")

import tmpguard.config.exports.command
import tmpguard.emulator.command
import tmpguard.reporting.command
import tmpguard.testing.importing  # noqa: F401 - they add their commands
from tmpguard.config.cli import command

PAGES = {page.stem: page for page in [PROJECT / "README.md", *(PROJECT / "docs").glob("*.md")]}

#: For each page that has blocks how many there are, and the modules below ``tests`` that run them. Who adds a
#: block adds it to a test first, and counts it here.
RUN: dict[str, tuple[int, str]] = {
    "README": (8, "docs/test_readme docs/test_covered docs/test_commands"),
    "adopting": (10, "docs/test_adopting"),
    "aws-lambda": (3, "docs/test_blocks docs/test_readme docs/test_commands"),
    "bundle": (2, "docs/test_commands"),
    "cdk": (4, "docs/test_platform_pages"),
    "children": (2, "docs/test_commands"),
    "ci": (2, "docs/test_pre_commit docs/test_commands"),
    "cloudformation": (4, "docs/test_platform_pages"),
    "cpython-tests": (1, ""),
    "django": (1, "docs/test_readme"),
    "export": (8, "docs/test_platform_pages docs/test_covered"),
    "fastapi": (1, "docs/test_readme"),
    "first-steps": (8, "docs/test_first_steps docs/test_readme docs/test_covered"),
    "flask": (1, "docs/test_readme"),
    "frameworks": (10, "docs/test_frameworks"),
    "genezio": (8, "docs/test_blocks docs/test_commands docs/test_covered"),
    "localstack": (3, "docs/test_local_lambda docs/test_commands"),
    "options": (1, "docs/test_blocks"),
    "production": (6, "docs/test_production docs/test_commands"),
    "pytest": (9, "testing/test_plugin_docs testing/test_plugin_live docs/test_blocks docs/test_commands"),
    "remedies": (1, "docs/test_commands"),
    "report": (1, "docs/test_commands"),
    "run": (4, "docs/test_commands"),
    "runtime-interface-emulator": (6, "docs/test_local_lambda docs/test_commands"),
    "sam": (7, "docs/test_local_lambda docs/test_commands"),
    "serverless-framework": (5, "docs/test_platform_pages"),
    "testing": (24, "testing/test_plugin_deployments"),
}

#: Blocks that no test runs, by the page and how they begin.
NOT_RUN = {
    ("README", "python3 -m venv .venv && .venv/bin/pip install --quiet -e '.[dev]' && .venv/bin/python -m"): (
        "that is the run of the tests itself"
    ),
    ("cdk", "cdk synth"): "it needs the CDK",
    ("cdk", "from aws_cdk"): "it needs the CDK",
    ("children", 'children="contain" is not permitted here'): "it says what one machine does not permit",
    ("cpython-tests", "python -m tests.cpython"): "it takes minutes: by hand, for each release",
    ("run", "docker run"): "it needs Docker",
    (
        "runtime-interface-emulator",
        "GUARDED=1 aws-lambda-rie",
    ): "a stand-in for the emulator runs its command",
    ("runtime-interface-emulator", "docker run"): "it needs Docker",
}


def blocks(name: str) -> list[tuple[str, str]]:
    """The language and the text of each block."""
    return re.findall(r"^```(\w*)\n(.*?)^```", PAGES[name].read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("name", sorted(PAGES))
def test_each_block_is_run_or_has_a_reason(name: str) -> None:
    found = [text for language, text in blocks(name) if language != "mermaid"]
    count, modules = RUN.get(name, (0, ""))
    assert len(found) == count, f"{name} has {len(found)} blocks: let a test run each"
    for module in modules.split():
        source = (PROJECT / "tests" / f"{module}.py").read_text()
        assert re.search(rf"\b{name}\b", source), f"{module} does not mention {name}"
    for page, start in NOT_RUN:
        if page == name:
            assert any(text.startswith(start) for text in found), start


def shell_lines() -> list[tuple[str, str]]:
    """All commands of the pages, with their page."""
    return [
        (name, line)
        for name in sorted(PAGES)
        for language, text in blocks(name)
        if language in ("", "sh", "console")
        for line in lines_of(text)
        if not line.startswith("tmpguard:")  # that is a message
    ]


def test_the_extras_that_are_installed_are_those_that_there_are() -> None:
    settings = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    lines = [line for _, line in shell_lines() if line.startswith("pip install ")]
    assert lines
    for line in lines:
        extra = re.fullmatch(r"tmpguard(?:\[(\w+)\])?", shlex.split(line)[2])
        assert extra is not None, line
        assert extra[1] in (None, *settings["optional-dependencies"]), line


def test_the_options_of_the_commands_are_those_that_there_are() -> None:
    lines = [(name, line) for name, line in shell_lines() if re.match(r"tmpguard \w+ ", line)]
    assert len(lines) > 20
    for name, line in lines:
        words = line.partition(" -- ")[0].split()
        known = {option for parameter in command.commands[words[1]].params for option in parameter.opts}
        given = set(re.findall(r"--[\w-]+", " ".join(words)))
        assert given <= known, f"{name}: {line}"
