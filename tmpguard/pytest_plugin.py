"""The pytest entry point of tmpguard. Every pytest run imports it if tmpguard is installed, so it is small.

The plugin itself is :mod:`tmpguard.testing.plugin`, which is imported only if an option, a marker or the
fixture needs it. See docs/pytest.md.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Literal, Protocol

import pytest

if TYPE_CHECKING:
    from tmpguard.testing.fixture import TmpGuard
    from tmpguard.testing.plugin import Plugin


class Worker(Protocol):
    """A worker of pytest-xdist. It has no ``workeroutput`` if it crashed."""

    config: pytest.Config


#: name, type, help. A type of None is a string.
_INI: tuple[tuple[str, Literal["bool", "paths", "linelist"] | None, str], ...] = (
    ("tmpguard", "bool", "guard every request that a test client makes, as --tmpguard does"),
    ("tmpguard_storage_size", None, "the size of /tmp in MB"),
    ("tmpguard_plan", None, "free, pro or enterprise: the limit of the storage size"),
    ("tmpguard_platform", None, "the serverless platform whose /tmp it is"),
    (
        "tmpguard_lifetime",
        None,
        "invocation (default) or instance: how long /tmp lives, an instance for each test",
    ),
    ("tmpguard_children", None, "allow (default), refuse or contain: how child processes are treated"),
    ("tmpguard_ignore", None, "the file that lists what is not in the bundle, or none"),
    ("tmpguard_bundle", None, "the project directory, relative to the ini file's directory, or none"),
    ("tmpguard_writable", "paths", "directories and files outside /tmp that are writable"),
    ("tmpguard_writable_tmp_path", "bool", "make pytest's temporary directories (tmp_path) writable"),
    ("tmpguard_max_files", None, "how many files, directories and links /tmp may hold"),
    ("tmpguard_scratch_root", None, "where the private directories behind /tmp are created"),
    (
        "tmpguard_allow",
        "linelist",
        "violations that do not fail a test: errno names or numbers, path patterns",
    ),
    ("tmpguard_late_writes", None, "report (default) or fail: how late writes are treated"),
    ("tmpguard_import", "bool", "also guard imports and start-ups, as --tmpguard-import does"),
    ("tmpguard_report", None, "where to write the report, as with --tmpguard-report"),
    ("tmpguard_baseline", None, "the file of known findings, as with --tmpguard-baseline"),
)

#: Each of these is both a command-line option and an ini option.
_SWITCHES = ("tmpguard", "tmpguard_import", "tmpguard_report")

_MARKER = (
    "tmpguard(allow=[], body=True, writable_tmp_path=False, **options): run the test's body as an invocation "
    "with these options of tmpguard.Guard, and use them for its guarded requests; accept the violations that "
    "allow= lists (errno names or numbers, and path patterns); see docs/pytest.md"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("tmpguard", "the file system of a serverless function")
    group.addoption(
        "--tmpguard",
        action="store_true",
        help="guard every request that the frameworks' test clients make",
    )
    group.addoption(
        "--tmpguard-import",
        action="store_true",
        help="also guard the import of test modules and conftest files and the start-up of ASGI applications",
    )
    group.addoption(
        "--tmpguard-report",
        metavar="FILE",
        help="write what the guarded requests used and were refused to FILE.json and FILE.html",
    )
    group.addoption(
        "--tmpguard-baseline",
        metavar="FILE",
        help="the findings that FILE lists are known: they do not fail their tests, new ones do",
    )
    group.addoption(
        "--tmpguard-baseline-write",
        action="store_true",
        help="write the findings of this run to the file of known ones, and let no test fail by them",
    )
    for name, kind, text in _INI:
        parser.addini(name, text, type=kind)
    parser.addini(
        "tmpguard_enforce", "false: refuse and redirect nothing, only report", type="bool", default=True
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)
    asked = config.option.tmpguard_baseline or config.option.tmpguard_baseline_write
    if asked or any(_is_wanted(config.option, config, name) for name in _SWITCHES):
        plugin_of(config)


def _is_wanted(given: object, config: pytest.Config, name: str) -> bool:
    return bool(getattr(given, name) or config.getini(name))


@pytest.hookimpl(wrapper=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, object, object]:
    if not _is_wanted(early_config.known_args_namespace, early_config, "tmpguard_import"):
        return (yield)
    from tmpguard.testing.plugin import importing_conftests

    # Guard only pytest's own implementation of this hook, which loads the conftest files. Files that other
    # plugins such as pytest-cov write at this point are not the project's.
    implementations = early_config.hook.pytest_load_initial_conftests.get_hookimpls()
    (own,) = (one for one in implementations if one.plugin is early_config)
    load = own.function

    def guarded(*args: object) -> object:
        with importing_conftests(early_config):
            return load(*args)

    own.function = guarded  # type: ignore[misc]
    try:
        return (yield)
    finally:
        own.function = load  # type: ignore[misc]


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "tmpguard" in getattr(item, "fixturenames", ()) or item.get_closest_marker("tmpguard"):
            plugin_of(config)
            return


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Worker) -> None:
    """A pytest-xdist worker has finished: the controller reports its findings."""
    output = getattr(node, "workeroutput", None)
    if output is None or "tmpguard" in output:
        plugin_of(node.config).add_seen(output)
    if output and output.get("tmpguard"):
        plugin_of(node.config).add(output["tmpguard"])


def plugin_of(config: pytest.Config) -> Plugin:
    """The plugin itself, imported and registered on first use."""
    from tmpguard.testing.plugin import Plugin

    return Plugin.of(config)


@pytest.fixture
def tmpguard(request: pytest.FixtureRequest) -> Iterator[TmpGuard]:
    """Guarded clients of an application (``tmpguard.client(app)``), and the reports of their requests."""
    with plugin_of(request.config).fixture(request.node) as fixture:
        yield fixture
