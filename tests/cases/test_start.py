"""What breaks when a deployed application starts, before its first request."""

from __future__ import annotations

import sys
from errno import EROFS
from pathlib import Path
from sqlite3 import OperationalError

import pytest
from starlette.testclient import TestClient

from tests.cases.project import Project
from tmpguard.asgi import TmpGuardMiddleware

START = "only /tmp is writable, and what the start writes there is gone before the first request"


def test_a_models_directory_made_at_import(project: Project) -> None:
    project.write(
        "ranking.py",
        "from pathlib import Path\n"
        "\n"
        "MODELS = Path(__file__).parent / 'models'\n"
        "MODELS.mkdir(exist_ok=True)  # <--\n",
    )
    failure = project.start("ranking")
    assert isinstance(failure, OSError)
    finding = project.finding("os.mkdir", project.directory / "models", EROFS)
    assert finding.library is not None
    assert "pathlib" in finding.library.file
    assert finding.remedy == (
        f"{START}: create models during a request (/tmp/models), or ship it with the project"
    )
    assert failure.__notes__ == [f"tmpguard: {finding.remedy}"]
    assert not (project.directory / "models").exists()


def test_a_log_file_opened_at_import(project: Project) -> None:
    project.write(
        "logs.py",
        "import logging\n"
        "\n"
        "handler = logging.FileHandler('app.log')  # <--\n"
        "logging.getLogger('shop').addHandler(handler)\n",
    )
    assert isinstance(project.start("logs"), OSError)
    finding = project.finding("open", project.directory / "app.log", EROFS)
    assert "log to stderr (logging.StreamHandler)" in finding.remedy


def test_a_cache_database_at_import(project: Project) -> None:
    project.write(
        "cache.py",
        "import os, sqlite3\n"
        "\n"
        "PATH = os.path.join(os.path.dirname(__file__), 'cache.db')\n"
        "database = sqlite3.connect(PATH)  # <--\n"
        "database.execute('create table if not exists cache (key primary key, value)')\n",
    )
    failure = project.start("cache")
    assert isinstance(failure, OperationalError)
    assert str(failure) == "unable to open database file"
    finding = project.finding("sqlite3.connect", project.directory / "cache.db", EROFS)
    assert "copy the database to /tmp/cache.db first" in finding.remedy


def test_a_directory_in_the_working_directory(project: Project) -> None:
    project.write("plugins.py", "import os\n\nos.makedirs('lib', exist_ok=True)  # <--\n")
    assert isinstance(project.start("plugins"), OSError)
    finding = project.finding("os.mkdir", "lib", EROFS)
    assert "create lib during a request (/tmp/lib), or ship it with the project" in finding.remedy


def test_directories_below_home(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr(sys, "path", [*sys.path, str(home)])  # so it is not part of the request's own /tmp
    project.write(
        "crew.py",
        "import os\n"
        "\n"
        "STORAGE = os.path.expanduser('~/.crew/memory')\n"
        "os.makedirs(STORAGE, exist_ok=True)  # <--\n",
    )
    assert isinstance(project.start("crew"), OSError)
    finding = project.finding("os.mkdir", home / ".crew", EROFS)
    assert finding.remedy == f"{START}; set HOME=/tmp, or give the library a directory below /tmp"


def test_a_static_directory_made_in_the_lifespan(project: Project) -> None:
    """The server does not come up."""
    project.write(
        "storefront.py",
        "import contextlib, os\n"
        "from fastapi import FastAPI\n"
        "\n"
        "@contextlib.asynccontextmanager\n"
        "async def lifespan(app):\n"
        "    os.makedirs('static', exist_ok=True)  # <--\n"
        "    yield\n"
        "\n"
        "app = FastAPI(lifespan=lifespan)\n",
    )
    app = TmpGuardMiddleware(project.load("storefront").app, guard=project.guard, lifespan=True)
    with pytest.raises(OSError, match="Read-only"), TestClient(app):
        pass
    finding = project.finding("os.mkdir", "static", EROFS)
    assert "create static during a request" in finding.remedy
    assert [report.cold_start for report in project.reports] == [True]


def test_a_start_that_swallows_the_error_is_found_all_the_same(project: Project) -> None:
    """It comes up, and fails later: here the uploads have nowhere to go."""
    project.write(
        "uploads.py",
        "import os\n"
        "\n"
        "try:\n"
        "    os.makedirs('uploads')  # <--\n"
        "except OSError:\n"
        "    pass  # it is there already\n",
    )
    assert project.start("uploads") is None
    project.finding("os.mkdir", "uploads", EROFS)
