"""docs/first-steps.md, tried as written: its commands, and what they print."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from starlette.testclient import TestClient

from tests.docs.blocks import block
from tests.docs.commands import lines_of, run, write

VIEWS = """\
from pathlib import Path

from flask import Flask, request

app = Flask(__name__)


@app.post("/upload")
def upload():
    file = request.files["file"]
    # The page says that this is line 12.
    with open(f"uploads/{file.filename}", "wb") as copy:
        copy.write(file.read())
    return "kept"
"""

TESTS = """\
import io

from shop.views import app


def test_upload():
    invoice = (io.BytesIO(b"%PDF"), "invoice.pdf")
    with app.test_client().post("/upload", data={"file": invoice}) as answer:
        assert answer.status_code == 500
"""

SITE = {
    "mysite/__init__.py": "",
    "mysite/settings.py": """\
SECRET_KEY = "x"
LOGGING = {
    "version": 1,
    "handlers": {"file": {"class": "logging.FileHandler", "filename": "django.log"}},
    "root": {"handlers": ["file"]},
}
""",
    "mysite/wsgi.py": """\
import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_wsgi_application()
""",
}


@pytest.fixture
def project() -> Iterator[Path]:
    """The reader's, outside ``/tmp``."""
    with TemporaryDirectory(prefix="project-", dir="/var/tmp") as directory:
        yield Path(directory)


def names_of(source: str) -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile(source, "first-steps.md", "exec"), names)
    return names


def test_the_tests_that_there_are(project: Path) -> None:
    command, message = (
        block("first-steps", "In the tests you have", language="", number=number) for number in (0, 1)
    )
    write(project, {"shop/__init__.py": "", "shop/views.py": VIEWS, "test_shop.py": TESTS})
    (line,) = lines_of(command)
    (project / "uploads").mkdir()
    found = run(line, project)
    assert found.returncode == 1, found.stdout + found.stderr
    assert f"\n{message}" in found.stdout
    write(project, {"shop/views.py": VIEWS.replace('"uploads/', '"/tmp/')})
    write(project, {"test_shop.py": TESTS.replace("500", "200")})
    mended = run(line, project)
    assert mended.returncode == 0, mended.stdout + mended.stderr
    # The import of a test module is an invocation as well.
    write(project, {"shop/views.py": 'open("import.log", "w").close()\n' + VIEWS})
    at_import = run(line, project)
    assert at_import.returncode != 0
    assert "EROFS open 'import.log' at shop/views.py:1 in <module>" in at_import.stdout


def test_the_import_of_a_site(project: Path) -> None:
    write(project, SITE)
    shown = block("first-steps", "Imports and start-up", language="")
    (line,) = lines_of(shown)
    done = run(line, project)
    assert (done.returncode, done.stderr) == (1, "")
    printed = iter(shortened(done.stdout.replace(str(project), "/project")).splitlines())
    for expected in shortened(shown).splitlines()[1:]:
        start = expected.removesuffix("...")
        assert any(one == expected or (start != expected and one.startswith(start)) for one in printed), (
            f"{expected}\n\n{done.stdout}"
        )
    assert (project / "django.log").exists()  # nothing was refused
    refused = run(f"{line} --enforce", project)
    assert refused.returncode == 1


def shortened(text: str) -> str:
    """``text`` without the line in the library, and with its file as it is in a plain environment."""
    return re.sub(r"through: (?:\S*-packages/)?(\S+):\d+", r"through: \1:...", text)


def test_a_decorated_function() -> None:
    names = names_of(block("first-steps", "In a script", number=1))
    names["resize"]("of-the-page.png")
    assert not os.path.exists("/tmp/of-the-page.png")


@pytest.mark.parametrize("value", ["1", ""])
def test_the_variable_that_decides(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPGUARD", value)
    app = names_of(block("first-steps", "When to have it on"))["app"]

    @app.get("/")
    def size() -> int:
        status = os.statvfs("/tmp")
        return status.f_blocks * status.f_frsize

    with TestClient(app) as client:
        assert (client.get("/").json() == 64 << 20) is (value == "1")
