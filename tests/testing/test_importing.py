"""``tmpguard import MODULE`` lists what would be refused while an application is imported."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

SHOP = """
import logging
import subprocess

logging.basicConfig(filename="app.log")
subprocess.run(["true"])
"""


@pytest.fixture
def project() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    (directory / "shop.py").write_text(SHOP)
    yield directory
    shutil.rmtree(directory)


def imported(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tmpguard", "import", *arguments]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False)


def test_findings_are_listed_with_their_lines(project: Path) -> None:
    done = imported(project, "shop")
    assert done.returncode == 1
    assert done.stderr == ""
    first, child, last = done.stdout.strip().split("\n\n")
    assert first.startswith(f"open '{project}/app.log': [Errno 30] EROFS: Read-only file system\n")
    assert "\n  in:      import of shop\n  by:      shop.py:5 in <module>\n" in first
    assert '    >     5 | logging.basicConfig(filename="app.log")\n' in first
    assert "\n  through: logging/__init__.py:" in first
    assert "\n  remedy:  only /tmp is writable, and what the start writes there is gone" in first
    assert child == "subprocess.Popen 'true' at shop.py:6 in <module>: a child process, which was not guarded"
    assert last == "shop: 1 finding at import"


def test_without_findings(project: Path) -> None:
    (project / "clean.py").write_text("import tempfile\ntempfile.TemporaryFile().close()\n")
    done = imported(project, "clean")
    assert (done.returncode, done.stdout) == (0, "clean: no findings at import\n")


def test_several_modules(project: Path) -> None:
    (project / "package").mkdir()
    (project / "package" / "__init__.py").write_text("open('one', 'w').close()\n")
    (project / "package" / "inner.py").write_text("open('two', 'w').close()\n")
    done = imported(project, "package.inner", "shop")
    assert "package.inner, shop: 3 findings at import" in done.stdout
    assert (project / "one").exists()  # nothing is refused


def test_what_the_platform_refuses_is_refused_on_demand(project: Path) -> None:
    done = imported(project, "--enforce", "shop")
    assert done.returncode == 1
    assert not (project / "app.log").exists()
    assert 'File "' + f'{project}/shop.py", line 5, in <module>' in done.stdout
    assert "tmpguard/" not in done.stdout.partition("the import failed:")[2]
    assert "\ntmpguard: only /tmp is writable" in done.stdout
    assert done.stdout.endswith("shop: 1 finding at import, until it failed\n")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere'"),
        ("raise SystemExit('not configured')", "SystemExit: not configured"),
        ("try:\n    1 / 0\nexcept ArithmeticError as exc:\n    raise ValueError from exc", "direct cause"),
    ],
)
def test_an_import_that_fails(project: Path, source: str, said: str) -> None:
    (project / "broken.py").write_text(dedent(source))
    done = imported(project, "broken")
    assert done.returncode == 1
    assert "the import failed:\nTraceback (most recent call last):\n" in done.stdout or "cause" in said
    assert said in done.stdout
    assert "importlib" not in done.stdout
    assert done.stderr == ""


def test_a_module_that_does_not_exist(project: Path) -> None:
    done = imported(project, "nowhere")
    assert done.returncode == 1
    assert "the import failed:\nModuleNotFoundError: No module named 'nowhere'" in done.stdout


def test_a_module_that_tmpguard_has_loaded_is_named(project: Path) -> None:
    done = imported(project, "json")
    assert "json: loaded by tmpguard itself before, so nothing of it was seen" in done.stdout


def test_as_json(project: Path) -> None:
    done = imported(project, "--json", "shop")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    (finding,), (child,) = found.pop("findings"), found.pop("children")
    assert found == {"version": 1, "module": "shop", "failure": None}
    assert finding["location"]["line"] == 5
    assert [line["line"] for line in finding["location"]["source"]] == [3, 4, 5, 6]
    assert (finding["operation"], finding["error"]) == ("open", "EROFS")
    assert (child["operation"], child["program"]) == ("subprocess.Popen", "true")


def test_wrong_options_are_spelled_as_on_the_command_line(project: Path) -> None:
    done = imported(project, "--storage-size", "999", "shop")
    assert done.returncode == 2
    assert (
        "--storage-size 999: 999 MB is over the free plan's 128 MB; --plan enterprise allows any"
        in done.stderr
    )
    assert not (project / "app.log").exists()


def test_a_django_project(project: Path) -> None:
    """A FileHandler in the settings is found, which pytest-django would have loaded before the plugin."""
    (project / "settings.py").write_text(
        dedent("""
        SECRET_KEY = "x"
        LOGGING = {
            "version": 1,
            "handlers": {"file": {"class": "logging.FileHandler", "filename": "django.log"}},
            "root": {"handlers": ["file"]},
        }
        """)
    )
    (project / "mysite.py").write_text(
        dedent("""
        import os

        os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
        from django.core.wsgi import get_wsgi_application

        application = get_wsgi_application()
        """)
    )
    done = imported(project, "mysite")
    assert done.returncode == 1
    assert "mysite: 1 finding at import" in done.stdout
    assert "by:      mysite.py:7 in <module>" in done.stdout
