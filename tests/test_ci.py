"""What ``.ci/run`` tests is what the project claims: the versions of CPython and the lowest ones of the
dependencies; and no library that a test needs is missing everywhere."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from tests.support import PROJECT

SETTINGS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
RUN = (PROJECT / ".ci" / "run").read_text()

#: What is imported by another name than it is installed by.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "xdist": "pytest-xdist",
    "opentelemetry": "opentelemetry-sdk",
}


def interpreters() -> list[str]:
    """The versions of CPython that ``.ci/run`` tests."""
    found = re.search(r"^supported=\((.*)\)$", RUN, re.MULTILINE)
    assert found
    return found[1].split()


def declared() -> dict[str, str]:
    """The lower bound of each dependency of the tests, by its name; two bounds for one are an error."""
    extras = [some for extra, some in SETTINGS["optional-dependencies"].items() if extra != "docs"]
    bounds: dict[str, str] = {}
    for requirement in {*SETTINGS["dependencies"], *(one for extra in extras for one in extra)}:
        name, lowest = re.fullmatch(r"([\w.-]+)(?:\[\w+\])?>=([\d.b]+)", requirement).groups()  # type: ignore[union-attr]
        assert name not in bounds, name
        bounds[name] = lowest
    return bounds


def lines(name: str) -> list[str]:
    """The lines of a file in ``.ci`` without its comments."""
    return [line for line in (PROJECT / ".ci" / name).read_text().splitlines() if not line.startswith("#")]


def test_the_versions_that_are_tested_are_those_that_are_claimed() -> None:
    prefix = "Programming Language :: Python :: "
    claimed = [one.removeprefix(prefix) for one in SETTINGS["classifiers"] if one.startswith(f"{prefix}3.")]
    assert claimed == interpreters()
    assert SETTINGS["requires-python"] == f">={claimed[0]}"
    assert f"CPython {claimed[0]} to {claimed[-1]}" in (PROJECT / "README.md").read_text()


def test_the_contributors_page_says_how_each_is_interpreters() -> None:
    page = (PROJECT / "CONTRIBUTING.md").read_text()
    table = page.partition("<!-- versions -->\n")[2].partition("<!-- /versions -->")[0]
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == interpreters()


def test_the_lowest_versions_are_those_that_are_declared() -> None:
    assert lines("lowest.txt") == sorted(f"{name}=={lowest}" for name, lowest in declared().items())


def test_every_library_that_a_test_needs_is_installed_in_some_environment() -> None:
    names = set()
    for path in (PROJECT / "tests").rglob("*.py"):
        names.update(re.findall(r'\b(?:importorskip|need|find_spec)\("(\w+)', path.read_text()))
    names -= {*sys.stdlib_module_names, "test", "compression"}  # the last is new in 3.14
    assert len(names) > 20
    needed = {DISTRIBUTIONS.get(name, name).replace("_", "-") for name in names}
    assert needed - {*lines("libraries.txt"), *declared()} == set()


def listed(name: str) -> list[Path]:
    """The paths in the list of that name in ``.ci/run``."""
    found = re.search(rf"^{name}=\((.*)\)$", RUN, re.MULTILINE)
    assert found
    paths = [PROJECT / one for one in found[1].split()]
    assert all(path.exists() for path in paths)
    return paths


def test_a_test_that_some_environments_leave_out_is_run_in_another() -> None:
    assert {*listed("once")}.isdisjoint([*listed("whole"), *listed("independent")])
    found = re.search(r"^middle=\((.*)\)$", RUN, re.MULTILINE)
    assert found
    assert {*found[1].split()} < {*interpreters()[1:-1]}


def test_every_test_that_needs_a_library_of_that_environment_is_run_in_it() -> None:
    run = listed("library_tests")
    for path in (PROJECT / "tests").rglob("test_*.py"):
        names = re.findall(r'\b(?:importorskip|need|find_spec)\("(\w+)', path.read_text())
        needed = {DISTRIBUTIONS.get(name, name).replace("_", "-") for name in names}
        if needed & {*lines("libraries.txt")}:
            assert any(path.is_relative_to(one) for one in run), path
