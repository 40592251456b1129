"""What ``.genezioignore`` leaves out of the project is absent in an instance (C5.2)."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.emulator.instances import SERVED, Running, in_instance, interpreter, run_as_user
from tmpguard.core.mounts.ignore import Ignore
from tmpguard.emulator.ignored import ignored_entries

FILES = ("app.py", "a,b:c\\d.txt", "secret.env", "logs/old.log", "logs/deep/x", "src/keep.py", "src/drop.log")


@pytest.fixture
def project() -> Iterator[Path]:
    with TemporaryDirectory(prefix="run-", dir="/var/tmp") as directory:
        os.chmod(directory, 0o755)
        for name in FILES:
            path = Path(directory, name)
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(name)
        os.chmod(f"{directory}/src", 0o1755)
        os.utime(f"{directory}/src", (1000, 2000))
        yield Path(directory)


def write_rules(project: Path, *lines: str) -> Ignore:
    path = project / ".genezioignore"
    path.write_text("\n".join(lines) + "\n")
    path.chmod(0o644)
    return Ignore.read(str(path))


LOOK = """
import os
def tree(top):
    found = []
    for parent, directories, files in os.walk(top):
        found += [os.path.relpath(os.path.join(parent, name), top) for name in directories + files]
    return sorted(found)
def error(call, *arguments):
    try:
        return call(*arguments)
    except OSError as exc:
        return exc.errno
status = os.stat("src")
result = [
    tree("."), tree({project!r}), [oct(status.st_mode), status.st_mtime],
    error(open, "secret.env"), error(os.stat, {project!r} + "/logs/deep/x"), error(os.mkdir, "logs"),
]
"""


async def look(started: Running) -> Any:
    return (await started.request(LOOK.format(project=started.instance.settings.project))).result


SEEN = [".genezioignore", "a,b:c\\d.txt", "app.py", "src", "src/keep.py"]
AS_USER = """
from tests.emulator.instances import in_instance
from tests.emulator.test_ignored import Ignore, look
def scenario(project):
    return in_instance(project, look, ignore=Ignore.read(project + "/.genezioignore"))
"""


@pytest.mark.parametrize("run", ["as caller", "as user"])
def test_ignored_files_are_absent_at_both_paths(project: Path, run: str) -> None:
    """Also names that mean something in the options of a mount, and with modes and times as they are."""
    ignore = write_rules(project, "*.log", "*.env", "logs/", "a,b*", "!a,b*")
    found = (
        in_instance(project, look, ignore=ignore)
        if run == "as caller"
        else run_as_user(AS_USER, str(project))
    )
    mode = os.stat(project / "src").st_mode
    expected = [SEEN, SEEN, [oct(mode), 2000], errno.ENOENT, errno.ENOENT, errno.EROFS]
    assert found == expected


def test_changes_outside_are_seen_at_once(project: Path) -> None:
    ignore = write_rules(project, "*.env")

    async def scenario(started: Running) -> Any:
        (project / "new.py").write_text("new")
        (project / "app.py").write_text("other")
        answer = await started.request("result = [open('new.py').read(), open('app.py').read()]")
        return answer.result

    assert in_instance(project, scenario, ignore=ignore) == ["new", "other"]


def test_environment_in_the_project_stays_at_its_own_path(project: Path) -> None:
    """The platform provides it: it is not in the bundle, and programs run from it."""
    ignore = write_rules(project, ".venv/", "node_modules/", "other/")
    for name in (".venv/bin", "node_modules/package", "other"):
        (project / name).mkdir(parents=True)
    sleep = project / ".venv/bin/sleep"
    shutil.copy("/bin/sleep", sleep)

    async def scenario(started: Running) -> Any:
        code = f"import os; result = [sorted(os.listdir('.')), sorted(os.listdir({str(project)!r}))]"
        return (await started.request(code)).result

    environment = {**os.environ, "VIRTUAL_ENV": str(project / ".venv")}
    command = (interpreter(), str(SERVED), "3000")
    bundle, own = in_instance(project, scenario, ignore=ignore, environment=environment, command=command)
    assert set(own) - set(bundle) == {".venv"}
    assert "node_modules" in bundle
    assert "other" not in own


def test_entries_inside_an_ignored_directory_are_kept(project: Path) -> None:
    """With the directories that lead to them, and nothing else of the ignored one."""
    ignore = write_rules(project, "logs/")
    found = ignored_entries(ignore, str(project), [str(project / "logs" / "deep")])
    assert found == ["logs/old.log"]
    assert ignored_entries(ignore, str(project)) == ["logs"]
    assert ignored_entries(None, str(project)) == []
