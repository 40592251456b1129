"""What breaks when a deployed Django project serves, each time in a process with settings of its own."""

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
project, step = sys.argv[1:]
sys.path.insert(0, project)
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
if step == "avatar":
    response = client.post("/avatar", {"avatar": SimpleUploadedFile("me.png", b"image")})
else:
    response = client.get(f"/{step}")
    response = client.get("/count") if step == "visit" and response.status_code != 500 else response
connections.close_all()
assert tmpguard.drain(30)
found = [one for report in settings.reports for one in report.violations]
print(json.dumps([response.status_code, response.content.decode()[:20], [
    [one.operation, one.path, one.errno, one.location and list(one.location), one.remedy] for one in found
]]))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    directory = tmp_path / "site"
    (directory / "shop").mkdir(parents=True)
    for name, source in (
        ("settings.py", SETTINGS),
        ("urls.py", URLS),
        ("shop/__init__.py", ""),
        ("shop/models.py", MODELS),
    ):
        (directory / name).write_text(source)
    return directory


def served(project: Path, step: str) -> tuple[int, str, list[Any]]:
    """Status and beginning of the body, and the violations."""
    status, body, violations = json.loads(run_python(SERVE, project, step))
    return status, body, violations


def line(marker: str) -> int:
    return next(
        number for number, text in enumerate(URLS.splitlines(), 1) if f"# the line of {marker}" in text
    )


def test_a_database_that_is_only_read_works(project: Path) -> None:
    assert served(project, "count") == (200, "0", [])


def test_an_upload_kept_as_media(project: Path) -> None:
    status, _, (finding, *others) = served(project, "avatar")
    assert (status, others) == (500, [])
    operation, path, code, location, remedy = finding
    assert (operation, path, code) == ("os.mkdir", str(project / "media"), EROFS)
    assert location == [str(project / "urls.py"), line("avatar"), "avatar"]
    assert "MEDIA_ROOT=/tmp/media" in remedy
