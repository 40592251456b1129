"""A genezio.yaml in the working directory says what the options of a middleware do not."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.config import project_files
from tests.config.project_files import written
from tests.support import PROJECT
from tmpguard.asgi import TmpGuardMiddleware as AsgiMiddleware
from tmpguard.config import notices
from tmpguard.wsgi import TmpGuardMiddleware as WsgiMiddleware

MB = 1_048_576


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, the working directory meanwhile; nothing was logged of it."""
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.chdir(directory)
    monkeypatch.setattr(notices, "_logged", set())
    return directory


def fastapi_size(**options: Any) -> int:
    """What a FastAPI application sees of /tmp, in MB."""
    from fastapi import FastAPI
    from starlette.testclient import TestClient

    app = FastAPI()
    app.add_middleware(AsgiMiddleware, **options)

    @app.get("/")
    def size() -> int:
        return shutil.disk_usage("/tmp").total // MB

    with TestClient(app) as client:
        return int(client.get("/").text)


def flask_size(**options: Any) -> int:
    """The same of a Flask application."""
    from flask import Flask

    app = Flask(__name__)
    app.wsgi_app = WsgiMiddleware(app.wsgi_app, **options)  # type: ignore[method-assign]

    @app.get("/")
    def size() -> str:
        return str(shutil.disk_usage("/tmp").total // MB)

    with app.test_client().get("/") as response:
        return int(response.text)


SIZES = pytest.mark.parametrize("size", [fastapi_size, flask_size])


@SIZES
def test_the_file_gives_the_size(size: Callable[..., int], project: Path) -> None:
    assert size() == 128
    written(project, project_files.FLASK)
    assert size() == 64
    assert size(storage_size=5) == 5
    assert size(storage_size=None) == 64
    assert size(guard=tmpguard.Guard(bundle=None)) == 128
    assert size(platform="vercel") == 500


@SIZES
def test_a_size_over_the_plan_is_an_error_with_file_and_line(size: Callable[..., int], project: Path) -> None:
    written(project, project_files.FLASK.replace("storageSize: 64", "storageSize: 256"))
    with pytest.raises(tmpguard.ConfigurationError, match=r"^genezio\.yaml:21: backend\.functions\[0\]"):
        size()
    assert size(plan="pro") == 256
    assert size(storage_size=100) == 100


def test_django_takes_it_from_the_file_too(project: Path) -> None:
    written(project, project_files.FLASK)
    code = """
import shutil
import django
from django.conf import settings
from django.http import HttpResponse
from django.test import Client
from django.urls import path

def size(request):
    return HttpResponse(str(shutil.disk_usage("/tmp").total))

urlpatterns = [path("", size)]
settings.configure(
    ROOT_URLCONF=__name__, MIDDLEWARE=["tmpguard.django.TmpGuardMiddleware"], ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["tmpguard.django"], TMPGUARD={}, SECRET_KEY="x",
)
django.setup()
from django.core.management import call_command
print(Client().get("/").content.decode())
open("genezio.yaml", "w").write("backend: {functions: [{name: x, storageSize: 999}]}")
import tmpguard.django
tmpguard.django._shared = None
try:
    call_command("check")
except Exception as exc:
    print("tmpguard.E001" in str(exc), "genezio.yaml:1: backend.functions[0].storageSize: 999 MB" in str(exc))
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"{64 * MB}\nTrue True\n", "")


def test_the_function_s_directory_is_the_bundle(project: Path) -> None:
    written(project, project_files.MIXED)
    assert WsgiMiddleware(lambda *_: []).guard.bundle == str(project / "api")
    assert WsgiMiddleware(lambda *_: [], bundle=".").guard.bundle == str(project)


def test_it_is_logged_once_where_the_size_came_from(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tmpguard")
    written(project, project_files.FLASK)
    for _ in range(3):
        WsgiMiddleware(lambda *_: [])
        AsgiMiddleware(lambda *_: None)  # type: ignore[arg-type, return-value]
    assert caplog.messages == ['tmpguard: 64 MB for /tmp (genezio.yaml:21, function "flask-shop")']


def test_several_functions_have_the_largest_size_and_a_warning_that_names_them(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(project, project_files.SEVERAL)
    for _ in range(2):
        guard = WsgiMiddleware(lambda *_: []).guard
        assert (guard.storage_size, guard.bundle) == (128, str(project))
    (message,) = caplog.messages
    assert '"thumbnails", "archive", "ping"' in message
    assert 'Guard.from_genezio("genezio.yaml", function="thumbnails")' in message
    caplog.clear()
    assert WsgiMiddleware(lambda *_: [], storage_size=3).guard.storage_size == 3
    assert caplog.messages == []


def test_several_functions_of_one_size_need_no_warning(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(project, "backend:\n  functions:\n  - {name: a, storageSize: 9}\n  - {name: b, storageSize: 9}\n")
    assert WsgiMiddleware(lambda *_: []).guard.storage_size == 9
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("backend: [\n", "genezio.yaml:2: is not valid YAML"),
        ("backend: {functions: {}}\n", "genezio.yaml:1: backend.functions: expected a list, found a mapping"),
        ("backend: {path: nowhere}\n", "/nowhere does not exist"),
    ],
)
def test_a_file_that_cannot_be_understood_does_not_stop_an_application(
    text: str, said: str, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(project, text)
    guard = WsgiMiddleware(lambda *_: []).guard
    assert (guard.storage_size, guard.bundle) == (128, str(project))
    (message,) = caplog.messages
    assert said in message


def test_what_is_called_so_and_is_no_file_is_left_alone(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (project / "genezio.yaml").mkdir()
    assert WsgiMiddleware(lambda *_: []).guard.storage_size == 128
    (project / "genezio.yaml").rmdir()
    (project / "genezio.yaml").symlink_to("nowhere")
    assert WsgiMiddleware(lambda *_: []).guard.storage_size == 128
    assert caplog.messages == []


def test_a_project_that_deploys_nothing_of_ours_is_none_of_our_business(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    written(project, "frontend: {path: web}\n")
    assert WsgiMiddleware(lambda *_: []).guard.storage_size == 128
    assert caplog.messages == []


def test_a_guard_that_is_built_in_code_does_not_look_for_the_file(project: Path) -> None:
    written(project, project_files.FLASK)
    assert tmpguard.Guard().storage_size == 128


# --- the project files of other platforms --------------------------------------------------------------

SERVERLESS = """
service: shop
provider: {name: aws}
functions: {f: {handler: app.f, ephemeralStorageSize: 1024}}
"""
TEMPLATE = "Resources: {F: {Type: AWS::Serverless::Function}}\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("serverless.yml", SERVERLESS),
        ("serverless.json", '{"service": "shop", "provider": "aws"}'),
        ("template.yaml", TEMPLATE),
        ("template.json", '{"Resources": {"F": {"Type": "AWS::Lambda::Function"}}}'),
        ("cdk.out", ""),
    ],
)
def test_the_file_of_another_platform_is_named_once_and_not_applied(
    name: str, text: str, project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tmpguard")
    if name == "cdk.out":
        (project / name).mkdir()
        (project / name / "manifest.json").write_text('{"artifacts": {"Shop": {"environment": "aws://1/x"}}}')
    else:
        (project / name).write_text(text)
    for make in (WsgiMiddleware, AsgiMiddleware, WsgiMiddleware):
        guard = make(lambda *_: []).guard  # type: ignore[arg-type, return-value]
        assert (guard.storage_size, guard.platform, guard.bundle) == (128, "genezio", str(project))
    said = f'tmpguard: {name} is not applied: /tmp has 128 MB (the default of platform="genezio"); '
    assert caplog.messages == [
        f'{said}guard=Guard.from_project("{name}") takes the limits of a function from it'
    ]


def test_the_line_that_the_message_gives_applies_it(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tmpguard")
    (project / "serverless.yml").write_text(SERVERLESS)
    (project / "app.py").touch()
    WsgiMiddleware(lambda *_: [], platform="aws-lambda")
    (message,) = caplog.messages
    assert '/tmp has 512 MB (the default of platform="aws-lambda")' in message
    (line,) = [part for part in message.split("; ") if part.startswith("guard=")]
    guard = eval(line.partition(" takes")[0].removeprefix("guard="), {"Guard": tmpguard.Guard})
    assert WsgiMiddleware(lambda *_: [], guard=guard).guard.storage_size == 1024
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    "options", [{"storage_size": 9}, {"platform": "genezio"}, {"platform": "vercel"}, {"guard": ...}], ids=str
)
def test_nothing_is_said_of_it_to_who_has_chosen_the_limits(
    options: dict[str, Any], project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tmpguard")
    (project / "serverless.yml").write_text(SERVERLESS)
    if "guard" in options:
        options = {"guard": tmpguard.Guard()}
    WsgiMiddleware(lambda *_: [], **options)
    assert caplog.messages == []


def test_the_size_of_the_environment_is_a_choice(
    project: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "tmpguard")
    monkeypatch.setenv("TMPGUARD_STORAGE_SIZE", "99")
    (project / "serverless.yml").write_text(SERVERLESS)
    assert WsgiMiddleware(lambda *_: []).guard.storage_size == 99
    assert caplog.messages == []


def test_files_of_the_same_name_that_deploy_nothing_to_aws_are_passed_over(
    project: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tmpguard")
    (project / "serverless.yml").write_text("service: shop\nprovider: google\n")
    (project / "template.yml").mkdir()
    (project / "cdk.out").mkdir()
    WsgiMiddleware(lambda *_: [])
    assert caplog.messages == []
    (project / "template.json").write_text(TEMPLATE)
    WsgiMiddleware(lambda *_: [])
    (message,) = caplog.messages
    assert message.startswith("tmpguard: template.json is not applied")


def test_beside_a_genezio_yaml_it_is_not_mentioned(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "tmpguard")
    (project / "serverless.yml").write_text(SERVERLESS)
    written(project, project_files.FLASK)
    assert WsgiMiddleware(lambda *_: []).guard.storage_size == 64
    (message,) = caplog.messages
    assert "serverless" not in message
