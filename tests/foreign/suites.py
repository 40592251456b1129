"""The foreign suites: which release of which project, what its tests need, and where they are run."""

from __future__ import annotations

import sys
from typing import NamedTuple

PYTEST = "pytest==9.1.1"

#: The ways to run a suite. See tests/foreign/inside/foreign_layer.py, which carries them out.
PLAIN = "plain"
INSTALLED = "installed"
REQUESTS = "requests"
EACH = "each"
WHOLE = "whole"


class Suite(NamedTuple):
    """One project's tests.

    ``sdist`` is the exact release, ``needs`` are the distributions that its tests import, ``runner`` is
    ``"pytest"`` or ``"django"``, ``arguments`` are the runner's, ``ways`` are the ways to run it other than
    plainly.
    """

    name: str
    sdist: str
    needs: tuple[str, ...]
    arguments: tuple[str, ...]
    ways: tuple[str, ...]
    runner: str = "pytest"
    #: Where in the sdist the runner is started.
    place: str = "."
    #: More environment variables.
    environment: tuple[tuple[str, str], ...] = ()


#: Of each series of Django the newest release that supports this interpreter.
_DJANGO = "django==5.2.19" if sys.version_info < (3, 12) else "django==6.1.3"

SUITES = (
    Suite(
        "starlette",
        "starlette==1.10.0",
        (
            PYTEST,
            "anyio==4.16.0",
            "blockbuster==1.5.29",
            "httpx==0.28.1",
            "httpx2==2.16.2",
            "itsdangerous==2.2.0",
            "jinja2==3.1.6",
            "opentelemetry-sdk==1.45.2",
            "python-multipart==0.0.34",
            "pyyaml==6.0.4",
            "trio==0.35.0",
        ),
        ("tests",),
        (INSTALLED, REQUESTS, EACH),
    ),
    Suite(
        "flask",
        "flask==3.1.3",
        ("pytest==8.4.2", "asgiref==3.13.0", "greenlet==3.5.6", "python-dotenv==1.2.4"),
        ("tests",),
        (INSTALLED, REQUESTS, EACH),
    ),
    Suite(
        "werkzeug",
        "werkzeug==3.1.9",
        (
            "pytest==8.4.2",
            "cffi==2.1.1",
            "cryptography==50.0.2",
            "ephemeral-port-reserve==1.1.4",
            "pytest-timeout==2.4.0",
            "watchdog==6.0.0",
        ),
        ("--timeout=300", "tests"),
        (INSTALLED, REQUESTS, EACH),
    ),
    Suite(
        "django",
        _DJANGO,
        ("pillow==13.0.0", "pyyaml==6.0.4", "jinja2==3.1.6", "tblib==3.2.2"),
        ("file_uploads", "file_storage", "files", "sessions_tests", "staticfiles_tests"),
        (INSTALLED, REQUESTS, EACH),
        runner="django",
        place="tests",
    ),
    Suite(
        "pyfakefs",
        "pyfakefs==6.3.2",
        (PYTEST, "openpyxl==3.1.5"),
        # Its own settings are for the suite of the plugin alone; the patterns are those of its `all_tests`.
        (
            "-o",
            "python_files=*_test.py",
            "pyfakefs/tests",
            "pyfakefs/pytest_tests/pytest_plugin_test.py",
            "pyfakefs/pytest_tests/pytest_fixture_test.py",
        ),
        (INSTALLED, EACH),
    ),
    Suite(
        "joblib",
        "joblib==1.6.0",
        (PYTEST, "numpy", "pytest-timeout==2.4.0", "threadpoolctl"),
        ("--timeout=300", "joblib"),
        # Its processes outlive the test that starts them.
        (INSTALLED, WHOLE),
    ),
)


def suite(name: str) -> Suite:
    """The suite of that name. Raises KeyError."""
    return {one.name: one for one in SUITES}[name]
