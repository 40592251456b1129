"""What breaks when a deployed application serves: FastAPI and Flask."""

from __future__ import annotations

import gc
from errno import ENOSPC, EROFS
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.cases.project import Project
from tmpguard.asgi import TmpGuardMiddleware as AsgiGuard
from tmpguard.wsgi import TmpGuardMiddleware as WsgiGuard

FLASK = "import os\nfrom flask import Flask, request\n\napp = Flask(__name__)\n"
FASTAPI = "import os\nfrom fastapi import BackgroundTasks, FastAPI, UploadFile\n\napp = FastAPI()\n"


def flask(project: Project, name: str) -> Any:
    """A client of the Flask application ``name``."""
    app = project.load(name).app
    app.wsgi_app = WsgiGuard(app.wsgi_app, guard=project.guard)
    return app.test_client()


def fastapi(project: Project, name: str) -> TestClient:
    """A client of the FastAPI application ``name``."""
    app = project.load(name).app
    return TestClient(AsgiGuard(app, guard=project.guard), raise_server_exceptions=False)


# --- files of the project ------------------------------------------------------------------------------


def test_a_bundled_file_opened_for_updating(project: Project) -> None:
    project.write("counter.txt", "41")
    project.write(
        "counting.py",
        f"{FLASK}"
        "@app.post('/count')\n"
        "def count():\n"
        "    with open('counter.txt', 'r+') as file:  # <--\n"
        "        number = int(file.read()) + 1\n"
        "        file.seek(0)\n"
        "        file.write(str(number))\n"
        "    return str(number)\n",
    )
    with flask(project, "counting").post("/count") as response:
        assert response.status_code == 500
    finding = project.finding("open", "counter.txt", EROFS)
    assert finding.remedy == "only /tmp is writable; write to /tmp/counter.txt"
    assert (project.directory / "counter.txt").read_text() == "41"


def test_a_file_written_beside_the_module(project: Project) -> None:
    project.write(
        "charts.py",
        f"{FASTAPI}"
        "@app.get('/chart')\n"
        "def chart():\n"
        "    path = os.path.join(os.path.dirname(__file__), 'chart.png')\n"
        "    with open(path, 'wb+') as file:  # <--\n"
        "        file.write(b'image')\n"
        "    return path\n",
    )
    assert fastapi(project, "charts").get("/chart").status_code == 500
    finding = project.finding("open", project.directory / "chart.png", EROFS)
    assert finding.remedy == "only /tmp is writable; write to /tmp/chart.png"


def test_a_download_into_the_bundle(project: Project) -> None:
    project.write("prices.csv", "old\n")
    project.write(
        "prices.py",
        f"{FLASK}from urllib.request import urlretrieve\n"
        "@app.get('/refresh')\n"
        "def refresh():\n"
        "    source = request.args['from']\n"
        "    urlretrieve(source, 'prices.csv')  # <--\n"
        "    return 'done'\n",
    )
    # In place of a server: what lies in the bundle can be read.
    source = project.write("remote.csv", "new\n").as_uri()
    with flask(project, "prices").get("/refresh", query_string={"from": source}) as response:
        assert response.status_code == 500
    finding = project.finding("open", "prices.csv", EROFS)
    assert finding.remedy.startswith("only /tmp is writable; urlretrieve(url, '/tmp/prices.csv')")
    assert finding.library is not None
    assert finding.library.file.endswith("urllib/request.py")
    assert (project.directory / "prices.csv").read_text() == "old\n"


def test_an_archive_made_in_the_working_directory(project: Project) -> None:
    project.write("data/a.txt", "a")
    project.write(
        "exports.py",
        f"{FLASK}import shutil\n"
        "@app.get('/export')\n"
        "def export():\n"
        "    return shutil.make_archive('export', 'zip', 'data')  # <--\n",
    )
    with flask(project, "exports").get("/export") as response:
        assert response.status_code == 500
    findings = project.violations()
    assert findings  # zipfile tries more than one mode
    for finding in findings:
        assert finding.path.endswith("export.zip")
        assert finding.remedy == "only /tmp is writable; write to /tmp/export.zip"
        project.named(finding, "open", finding.path, EROFS)


# --- files of packages ---------------------------------------------------------------------------------


def package(project: Project, tmp_path: Path, monkeypatch: Any, name: str, source: str) -> None:
    """Install a package of one module."""
    packages = tmp_path / "venv/lib/python3/site-packages"
    project.write(f"{name}/__init__.py", source, packages)
    monkeypatch.syspath_prepend(packages)


def test_a_lock_beside_an_installed_package(project: Project, tmp_path: Path, monkeypatch: Any) -> None:
    package(
        project,
        tmp_path,
        monkeypatch,
        "suffixes",
        "import os\n"
        "CACHE = os.path.join(os.path.dirname(__file__), '.suffix_cache')\n"
        "def lookup(domain):\n"
        "    fd = os.open(CACHE + '.lock', os.O_RDWR | os.O_CREAT)\n"
        "    os.close(fd)\n"
        "    return domain.rpartition('.')[2]\n",
    )
    project.write(
        "domains.py",
        f"{FLASK}import suffixes\n"
        "@app.get('/suffix')\n"
        "def suffix():\n"
        "    return suffixes.lookup('example.org')  # <--\n",
    )
    with flask(project, "domains").get("/suffix") as response:
        assert response.status_code == 500
    cache = tmp_path / "venv/lib/python3/site-packages/suffixes/.suffix_cache.lock"
    finding = project.finding("os.open", cache, EROFS)
    assert finding.library is not None
    assert (finding.library.file, finding.library.function) == (str(cache.parent / "__init__.py"), "lookup")
    assert "installed packages cannot be written" in finding.remedy


def test_a_file_replaced_within_an_installed_package(
    project: Project, tmp_path: Path, monkeypatch: Any
) -> None:
    """Written under another name first, and the failure swallowed: the data stays old for ever."""
    package(
        project,
        tmp_path,
        monkeypatch,
        "useragents",
        "import os\n"
        "PATH = os.path.join(os.path.dirname(__file__), 'agents.json')\n"
        "def refresh():\n"
        "    try:\n"
        "        with open(PATH + '.tmp', 'w') as file:\n"
        "            file.write('[]')\n"
        "        os.replace(PATH + '.tmp', PATH)\n"
        "    except OSError:\n"
        "        return False\n"
        "    return True\n",
    )
    project.write(
        "agents.py",
        f"{FASTAPI}import useragents\n"
        "@app.get('/agents')\n"
        "def agents():\n"
        "    return {'fresh': useragents.refresh()}  # <--\n",
    )
    response = fastapi(project, "agents").get("/agents")
    assert (response.status_code, response.json()) == (200, {"fresh": False})
    path = tmp_path / "venv/lib/python3/site-packages/useragents/agents.json.tmp"
    assert "installed packages cannot be written" in project.finding("open", path, EROFS).remedy


# --- databases -----------------------------------------------------------------------------------------


def test_sqlite_in_the_instance_folder_of_flask(project: Project) -> None:
    """The folder is made as in many a tutorial, with the error swallowed."""
    project.write(
        "notes.py",
        f"{FLASK}import sqlite3\n"
        "try:\n"
        "    os.makedirs(app.instance_path)\n"
        "except OSError:\n"
        "    pass\n"
        "@app.get('/notes')\n"
        "def notes():\n"
        "    database = sqlite3.connect(os.path.join(app.instance_path, 'notes.db'))  # <--\n"
        "    database.execute('create table if not exists note (text)')\n"
        "    return 'made'\n",
    )
    assert project.start("notes") is None
    (at_start,) = project.violations()
    assert (at_start.operation, at_start.path) == ("os.mkdir", str(project.directory / "instance"))
    assert "instance_path='/tmp/instance'" in at_start.remedy
    (project.directory / "instance").mkdir()  # it was made by hand, and shipped
    with flask(project, "notes").get("/notes") as response:
        assert response.status_code == 500
    _, finding = project.violations()
    project.named(finding, "sqlite3.connect", project.directory / "instance/notes.db", EROFS)
    assert "copy the database to /tmp/notes.db first" in finding.remedy


def test_a_relative_database_of_flask_sqlalchemy(project: Project) -> None:
    """It lies in the instance folder, which the extension makes when the application starts."""
    source = (
        f"{FLASK}from flask_sqlalchemy import SQLAlchemy\n"
        "app.config['SQLALCHEMY_DATABASE_URI'] = 'sqlite:///guests.db'\n"
        "database = SQLAlchemy(app)  # <--\n"
        "class Guest(database.Model):\n"
        "    name = database.Column(database.String, primary_key=True)\n"
        "@app.get('/guests')\n"
        "def guests():\n"
        "    database.create_all()\n"
        "    database.session.add(Guest(name='Ada'))\n"
        "    database.session.commit()\n"
        "    return 'welcome'\n"
    )
    project.write("guests.py", source)
    assert isinstance(project.start("guests"), OSError)
    finding = project.finding("os.mkdir", project.directory / "instance", EROFS)
    assert "SQLALCHEMY_DATABASE_URI='sqlite:////tmp/app.db', with poolclass=NullPool" in finding.remedy
    remedied = source.replace("sqlite:///guests.db", "sqlite:////tmp/app.db").replace(
        "database = ",
        "from sqlalchemy.pool import NullPool\n"
        "app.config['SQLALCHEMY_ENGINE_OPTIONS'] = {'poolclass': NullPool}\n"
        "database = ",
    )
    project.write("remedied.py", remedied)
    client = flask(project, "remedied")
    for _ in range(2):  # a pool would keep the first request's database for the second
        with client.get("/guests") as response:
            assert response.text == "welcome"


# --- work after the response, swallowed errors ---------------------------------------------------------


def test_a_report_written_by_a_background_task(project: Project) -> None:
    """The client has its answer already, and nobody sees the failure."""
    project.write(
        "orders.py",
        f"{FASTAPI}"
        "def write_receipt(order):\n"
        "    os.makedirs('receipts', exist_ok=True)  # <--\n"
        "\n"
        "@app.post('/orders')\n"
        "async def order(tasks: BackgroundTasks):\n"
        "    tasks.add_task(write_receipt, 1)\n"
        "    return 'thank you'\n",
    )
    response = fastapi(project, "orders").post("/orders")
    assert (response.status_code, response.json()) == (200, "thank you")
    finding = project.finding("os.mkdir", "receipts", EROFS)
    assert finding.remedy == "only /tmp is writable; write to /tmp/receipts"


def test_a_swallowed_refusal_that_leaves_an_empty_result(project: Project) -> None:
    project.write(
        "search.py",
        f"{FLASK}import json\n"
        "def results(query):\n"
        "    try:\n"
        "        found = [query.upper()]\n"
        "        with open(f'{query}.json', 'w') as file:  # <--\n"
        "            json.dump(found, file)\n"
        "        return found\n"
        "    except OSError:\n"
        "        return []  # nothing in the cache\n"
        "\n"
        "@app.get('/search')\n"
        "def search():\n"
        "    return results('shoes')\n",
    )
    with flask(project, "search").get("/search") as response:
        assert (response.status_code, response.json) == (200, [])
    finding = project.finding("open", "shoes.json", EROFS)
    assert finding.remedy == "only /tmp is writable; write to /tmp/shoes.json"


def test_temporary_files_in_a_directory_of_the_project(project: Project) -> None:
    project.write(
        "thumbnails.py",
        f"{FLASK}import tempfile\n"
        "HERE = os.path.dirname(__file__)\n"
        "@app.get('/thumbnail')\n"
        "def thumbnail():\n"
        "    with tempfile.NamedTemporaryFile(dir=HERE) as file:  # <--\n"
        "        return file.name\n",
    )
    with flask(project, "thumbnails").get("/thumbnail") as response:
        assert response.status_code == 500
    (finding,) = project.violations()
    assert finding.path.startswith(f"{project.directory}/tmp")
    project.named(finding, finding.operation, finding.path, EROFS)
    assert "leave out dir= of tempfile" in finding.remedy


# --- a full /tmp ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # older Starlettes leave the file to the collector
def test_a_large_upload_is_answered_as_a_bad_request(project: Project) -> None:
    """FastAPI makes every error of the form a 400. No line of the application has run by then."""
    project.write(
        "photos.py",
        f"{FASTAPI}@app.post('/photos')\nasync def photos(photo: UploadFile):\n    return photo.size\n",
    )
    client = fastapi(project, "photos")
    assert client.post("/photos", files={"photo": bytes(1000)}).json() == 1000
    response = client.post("/photos", files={"photo": bytes(3 << 20)})
    assert response.status_code == 400
    assert response.json() == {"detail": "There was an error parsing the body"}
    (finding, *_) = project.violations()
    assert finding.errno == ENOSPC
    assert finding.location is None
    assert finding.library is not None
    assert finding.remedy == (
        "/tmp is full: all of its 1 MB (storage_size=1) are used; remove files or allow more; "
        "the upload is spooled there: refuse larger ones by their Content-Length, or read request.stream()"
    )
    gc.collect()


def test_temporary_directories_that_are_never_removed(project: Project) -> None:
    project.write(
        "pages.py",
        f"{FLASK}import tempfile\n"
        "def render(page):\n"
        "    path = os.path.join(tempfile.mkdtemp(), 'page.png')\n"
        "    with open(path, 'wb', buffering=0) as file:\n"
        "        file.write(bytes(200_000))  # <--\n"
        "    return path\n"
        "\n"
        "@app.get('/document')\n"
        "def document():\n"
        "    return [render(page) for page in range(int(request.args['pages']))]\n",
    )
    client = flask(project, "pages")
    with client.get("/document?pages=5") as response:
        assert response.status_code == 200
    assert project.violations() == []
    with client.get("/document?pages=6") as response:
        assert response.status_code == 200  # the last page is cut off, and nothing says so
    with client.get("/document?pages=7") as response:
        assert response.status_code == 500
    (finding,) = project.violations()
    project.named(finding, "write", finding.path, ENOSPC)
    assert finding.path.endswith("/page.png")
    assert "with tempfile.TemporaryDirectory()" in finding.remedy
