"""What the command line and genezio.yaml say is served, and how."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tmpguard.core.errors import ConfigurationError
from tmpguard.emulator import functions, watching
from tmpguard.emulator.functions import RunOptions
from tmpguard.emulator.hooks.serving import serve


def test_a_command_has_the_platform_s_storage(tmp_path: Path) -> None:
    project = str(tmp_path)
    one = functions.of_command(("uvicorn", "app:app"), RunOptions(project=project))
    settings = one.settings
    assert (settings.command, settings.project) == (("uvicorn", "app:app"), project)
    assert (settings.storage_size, settings.package, settings.shared_memory) == (128, True, True)
    assert (settings.lifetime, settings.freeze, settings.observer) == ("invocation", False, True)
    assert (one.limits.instances, one.limits.concurrency, one.limits.idle_timeout) == (4, 1, 60.0)
    assert (one.request_timeout, one.port, one.command) == (0.0, None, "uvicorn app:app")
    lambdas = functions.of_command(("x",), RunOptions(project=project, platform="aws-lambda")).settings
    assert (lambdas.storage_size, lambdas.package, lambdas.shared_memory) == (512, False, False)
    assert lambdas.lifetime == "instance"
    small = functions.of_command(("x",), RunOptions(project=project, platform="oci-functions")).settings
    assert (small.storage_size, small.max_files) == (32, 1024)


def test_options_win(tmp_path: Path) -> None:
    (tmp_path / ".genezioignore").write_text("*.csv\n")
    options = RunOptions(
        storage_size=7,
        project=str(tmp_path),
        writable=(str(tmp_path),),
        instances=2,
        concurrency=3,
        lifetime="instance",
        idle_timeout=0,
        request_timeout=4,
        port=1234,
        observer=False,
    )
    one = functions.of_command(("x",), options)
    assert (one.settings.storage_size, one.settings.lifetime, one.settings.observer) == (7, "instance", False)
    assert one.settings.writable == (str(tmp_path),)
    assert one.settings.ignore is not None
    assert one.settings.ignore.match("a.csv", False) is not None
    assert (one.limits.instances, one.limits.concurrency, one.limits.idle_timeout) == (2, 3, 0)
    assert (one.request_timeout, one.port) == (4, 1234)


PROJECT = """
backend:
  path: server
  language: {name: LANGUAGE}
  functions:
    - {name: web, path: web, entry: ENTRY, TYPE, storageSize: 64, LIMIT,
       maxConcurrentRequestsPerInstance: 5, maxConcurrentInstances: 2, cooldownTime: 7}
"""


def project(
    directory: Path, entry: str, kind: str = "type: httpServer", language: str = "python"
) -> RunOptions:
    (directory / "server" / "web").mkdir(parents=True)
    text = PROJECT.replace("ENTRY", entry).replace("TYPE", kind).replace("LANGUAGE", language)
    text = text.replace(", LIMIT", "" if "timeout" in kind else ", timeout: 20")
    (directory / "genezio.yaml").write_text(text)
    return RunOptions(project=str(directory))


def test_a_function_s_own_limits(tmp_path: Path) -> None:
    (tmp_path / ".genezioignore").write_text("*.csv\n")
    [one], notes = functions.of_project(project(tmp_path, "app.js", language="js"))
    assert notes == []
    assert one.settings.command == ("node", "app.js")
    assert one.settings.project == str(tmp_path / "server" / "web")
    assert one.settings.storage_size == 64
    assert (one.limits.instances, one.limits.concurrency, one.limits.idle_timeout) == (2, 5, 7.0)
    assert (one.name, one.port, one.request_timeout) == ("", None, 20.0)
    assert one.settings.ignore is not None
    assert one.settings.ignore.file == str(tmp_path / ".genezioignore")


def test_a_python_function_is_served_by_its_handler_or_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VIRTUAL_ENV", raising=False)
    [one], _ = functions.of_project(project(tmp_path / "a", "main.py, handler: app"))
    assert one.settings.command == (sys.executable, serve.__file__, "8080", "main.py:app")
    [one], _ = functions.of_project(project(tmp_path / "b", "main.py"))
    assert one.settings.command == (sys.executable, "main.py")


@pytest.mark.parametrize(
    ("entry", "kind", "error"),
    [
        (
            "main.go",
            "type: httpServer",
            r"genezio.yaml:6: backend.functions\[0\]: entry 'main.go' is neither",
        ),
        ("main.py", "handler: handler", "has no function of type httpServer"),
        ("main.py", "type: httpServer, timeout: soon", "timeout: .*give seconds"),
    ],
)
def test_what_cannot_be_served_is_refused(tmp_path: Path, entry: str, kind: str, error: str) -> None:
    with pytest.raises(ConfigurationError, match=error):
        functions.of_project(project(tmp_path, entry, kind))


def test_changed_files_are_found(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("1")
    (tmp_path / "gone.py").write_text("1")
    (tmp_path / "report.json").write_text("1")
    for name in ("node_modules", ".git", "__pycache__", "deep/er", "env"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    left_out = [str(tmp_path / "report.json")]
    before = watching.state_of(str(tmp_path), left_out)
    assert watching.changed(before, watching.state_of(str(tmp_path), left_out)) == []
    (tmp_path / "app.py").write_text("12")
    (tmp_path / "gone.py").unlink()
    (tmp_path / "report.json").write_text("12")
    for name in ("node_modules", ".git", "__pycache__", "deep/er", "env"):
        (tmp_path / name / "new.js").write_text("1")
    changes = watching.changed(before, watching.state_of(str(tmp_path), left_out))
    assert changes == [str(tmp_path / name) for name in ("app.py", "deep/er/new.js", "gone.py")]


# --- the kinds of Python objects -----------------------------------------------------------------------


def test_the_kind_of_an_object_is_seen() -> None:
    from fastapi import FastAPI
    from flask import Flask

    async def asgi(scope: object, receive: object, send: object) -> None: ...

    def wsgi(environ: object, start_response: object) -> None: ...

    def handler(event: object) -> None: ...

    def handler_of_lambda(event: object, context: object) -> None: ...

    async def later(event: object) -> None: ...

    kinds = {
        "asgi": (asgi, FastAPI()),
        "wsgi": (wsgi, Flask("app")),
        "handler": (handler, handler_of_lambda, later),
    }
    for kind, objects in kinds.items():
        assert [serve.kind_of(one) for one in objects] == [kind] * len(objects)


def test_a_handler_s_own_type_error_is_not_taken_for_a_wrong_number_of_arguments() -> None:
    calls = []

    def handler(event: object) -> None:
        calls.append(event)
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        serve.call_handler(handler, 1)
    assert calls == [1]
