"""What breaks when a deployed Django project serves, in a process with settings of its own."""

from __future__ import annotations

import json
from errno import EROFS
from pathlib import Path
from typing import Any

import pytest

from tests.support import run_python

SETTINGS = """
from pathlib import Path
BASE_DIR = Path(__file__).parent
SECRET_KEY = "x"
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "urls"
INSTALLED_APPS = ["django.contrib.contenttypes", "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}
MEDIA_ROOT = BASE_DIR / "media"
MIDDLEWARE = ["tmpguard.django.TmpGuardMiddleware"]
reports = []
TMPGUARD = {"bundle": BASE_DIR, "storage_size": 1, "on_report": reports.append}
"""

MODELS = """
from django.db import models
class Visit(models.Model):
    page = models.CharField(max_length=20)
"""

URLS = """
from django.core.files.storage import default_storage
from django.http import HttpResponse
from django.urls import path
from shop.models import Visit

def visit(request):
    Visit.objects.create(page="home")  # the line of visit
    return HttpResponse("welcome")

def count(request):
    return HttpResponse(str(Visit.objects.count()))

def avatar(request):
    name = default_storage.save("avatars/me.png", request.FILES["avatar"])  # the line of avatar
    return HttpResponse(name)

urlpatterns = [path("visit", visit), path("count", count), path("avatar", avatar)]
"""

SERVE = """
import json, logging, os, sys
logging.disable()
sys.path.insert(0, sys.argv[1])
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
import django
django.setup()
from django.core.management import call_command
from django.db import connections
call_command("migrate", run_syncdb=True, verbosity=0)
connections.close_all()

from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
import settings, tmpguard
client = Client(raise_request_exception=False)

def outcome(response):
    connections.close_all()
    assert tmpguard.drain(30)
    found = [one for report in settings.reports for one in report.violations]
    settings.reports.clear()
    return response.status_code, response.content.decode()[:20], [
        [one.operation, one.path, one.errno, one.location and list(one.location), one.remedy] for one in found
    ]

print(json.dumps({
    "count": outcome(client.get("/count")),
    "visit": outcome(client.get("/visit")),
    "count after a visit": outcome(client.get("/count")),
    "avatar": outcome(client.post("/avatar", {"avatar": SimpleUploadedFile("me.png", b"image")})),
}))
"""

Outcome = list[Any]
"""Status, beginning of the body, violations."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("django") / "site"
    (directory / "shop").mkdir(parents=True)
    for name, source in (
        ("settings.py", SETTINGS),
        ("urls.py", URLS),
        ("shop/__init__.py", ""),
        ("shop/models.py", MODELS),
    ):
        (directory / name).write_text(source)
    return directory


@pytest.fixture(scope="module")
def served(project: Path) -> dict[str, Outcome]:
    """What came of each request, all of them in one process."""
    outcomes: dict[str, Outcome] = json.loads(run_python(SERVE, project))
    return outcomes


def line(marker: str) -> int:
    return next(
        number for number, text in enumerate(URLS.splitlines(), 1) if f"# the line of {marker}" in text
    )


def test_a_database_that_is_only_read_works(served: dict[str, Outcome]) -> None:
    assert served["count"] == [200, "0", []]


def test_a_row_written_to_the_project_s_database(project: Path, served: dict[str, Outcome]) -> None:
    """Django's default settings: SQLite beside the project."""
    status, _, (finding, *others) = served["visit"]
    assert (status, others) == (500, [])
    operation, path, code, location, remedy = finding
    assert (operation, path, code) == ("sqlite3 write", str(project / "db.sqlite3"), EROFS)
    assert location == [str(project / "urls.py"), line("visit"), "visit"]
    assert "database server (DATABASES)" in remedy
    assert served["count after a visit"] == [200, "0", []]


def test_an_upload_kept_as_media(project: Path, served: dict[str, Outcome]) -> None:
    status, _, (finding, *others) = served["avatar"]
    assert (status, others) == (500, [])
    operation, path, code, location, remedy = finding
    assert (operation, path, code) == ("os.mkdir", str(project / "media"), EROFS)
    assert location == [str(project / "urls.py"), line("avatar"), "avatar"]
    assert "MEDIA_ROOT=/tmp/media" in remedy
