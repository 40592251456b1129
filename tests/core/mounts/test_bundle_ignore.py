"""What .genezioignore names is not in the bundle: absent below /tmp/package and at its own path (C5.2)."""

from __future__ import annotations

import errno
import glob
import io
import logging
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

import tmpguard
from tests.support import case
from tmpguard.core import originals
from tmpguard.core.layout import is_below

RULES = """\
# what is not deployed
*.csv
!keep.csv
logs/
/local.py
data/private
secret*/
"""

#: What the rules leave in the project, and what they do not, with the line that says so.
KEPT = ["a.txt", "keep.csv", "data/b.txt", "data/public/c.txt", "deep/local.py", "logs-file", "secret-file"]
IGNORED = {
    "rows.csv": 2,
    "data/rows.csv": 2,
    "logs": 4,
    "logs/today.txt": 4,
    "deep/logs": 4,
    "deep/logs/keep.csv": 4,
    "local.py": 5,
    "data/private": 6,
    "data/private/key.txt": 6,
    "secrets": 7,
    "secrets/keep.csv": 7,
}
FILES = [*KEPT, "rows.csv", "data/rows.csv", "logs/today.txt", "deep/logs/keep.csv", "local.py"]
FILES += ["data/private/key.txt", "secrets/keep.csv"]


@pytest.fixture(params=["below /tmp", "elsewhere"])
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A project with a .genezioignore; in either place, since they are different mounts."""
    elsewhere = request.param == "elsewhere"
    parent = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="tmpguard-test-")) if elsewhere else tmp_path
    project = parent.resolve() / "project"
    for name in FILES:
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(name)
    (project / ".genezioignore").write_text(RULES)
    yield project
    if elsewhere:
        shutil.rmtree(parent)


@pytest.fixture
def guard(project: Path, scratch_root: Path) -> tmpguard.Guard:
    return tmpguard.Guard(bundle=project, scratch_root=scratch_root)


@pytest.fixture(params=["/tmp/package", "own path", "relative"])
def root(request: pytest.FixtureRequest, project: Path) -> str:
    """The ways to the project's files."""
    return {"own path": str(project), "relative": "."}.get(request.param, request.param)


def code_of(call: Callable[[], object]) -> str:
    try:
        call()
    except OSError as exc:
        return errno.errorcode[exc.errno or 0]
    return "done"


def test_what_is_not_named_is_there(guard: tmpguard.Guard, root: str) -> None:
    with guard.invocation() as invocation:
        for name in KEPT:
            with case(name):
                assert Path(root, name).read_text() == name
                assert os.path.exists(f"{root}/{name}")
        assert Path(root, ".genezioignore").exists()
    assert invocation.report.violations == invocation.report.lookups == ()


LOOKS: dict[str, Callable[[str], object]] = {
    "open": lambda path: open(path),
    "open bytes": lambda path: open(os.fsencode(path), "rb"),
    "open to update": lambda path: open(path, "r+"),
    "io.FileIO": lambda path: io.FileIO(path),
    "io.open_code": lambda path: io.open_code(os.path.abspath(path)),
    "os.open": lambda path: os.open(path, os.O_RDONLY),
    "os.open to write": lambda path: os.open(path, os.O_WRONLY),
    "stat": lambda path: os.stat(path),
    "lstat": lambda path: os.lstat(path),
    "stat with a slash": lambda path: os.stat(path + "/"),
    "stat bytes": lambda path: os.stat(os.fsencode(path)),
    "stat by dots": lambda path: os.stat(f"{path}/../{os.path.basename(path)}"),
    "statvfs": lambda path: os.statvfs(path),
    "pathconf": lambda path: os.pathconf(path, "PC_NAME_MAX"),
    "listdir": lambda path: os.listdir(path),
    "scandir": lambda path: os.scandir(path),
    "chdir": lambda path: os.chdir(path),
    "readlink": lambda path: os.readlink(path),
    "listxattr": lambda path: os.listxattr(path),
    "truncate": lambda path: os.truncate(path, 0),
    "chmod": lambda path: os.chmod(path, 0o600),
    "utime": lambda path: os.utime(path),
    "link": lambda path: os.link(path, "/tmp/link"),
    "copy": lambda path: shutil.copyfile(path, "/tmp/copy"),
    "copytree": lambda path: shutil.copytree(path, "/tmp/tree"),
    "realpath": lambda path: os.path.realpath(path, strict=True),
    "samefile": lambda path: os.path.samefile(path, "/"),
    "below": lambda path: open(f"{path}/below"),
}


def test_what_is_named_is_not_there(guard: tmpguard.Guard, root: str) -> None:
    for name in IGNORED:
        path = f"{root}/{name}"
        with guard.invocation():
            for look, call in LOOKS.items():
                with case((name, look)), pytest.raises(FileNotFoundError) as refused:
                    call(path)
                assert type(refused.value) is FileNotFoundError
                if "dots" not in look and look not in ("below", "io.open_code", "utime", "realpath"):
                    assert os.fsdecode(refused.value.filename).rstrip("/") == path
            assert not os.path.exists(path)
            assert not os.path.lexists(path)
            assert not os.access(path, os.F_OK)
            assert not Path(path).is_file()
            assert not Path(path).is_dir()
            assert glob.glob(path) == []
            assert os.path.realpath(path) == os.path.realpath(root) + "/" + name


def test_changes_are_answered_as_where_there_is_no_such_file(guard: tmpguard.Guard, root: str) -> None:
    """C2.2: a read-only mount without it."""
    for name, code, call in [
        ("open", "EROFS", lambda path: open(path, "w")),
        ("open new", "EROFS", lambda path: open(path, "x")),
        ("mkdir", "EROFS", lambda path: os.mkdir(path)),
        ("symlink", "EROFS", lambda path: os.symlink("x", path)),
        ("unlink", "EROFS", lambda path: os.unlink(path)),
        ("rename", "EROFS", lambda path: os.rename(path, f"{root}/new")),
        ("rename to /tmp", "EXDEV", lambda path: os.rename(path, "/tmp/new")),
        ("mkdir in it", "ENOENT", lambda path: os.mkdir(f"{path}/new")),
        ("open in it", "ENOENT", lambda path: open(f"{path}/new", "w")),
    ]:
        for ignored in ("rows.csv", "data/private"):
            with case((name, ignored)), guard.invocation():
                assert code_of(lambda call=call, ignored=ignored: call(f"{root}/{ignored}")) == code


def test_listings_leave_it_out(guard: tmpguard.Guard, root: str) -> None:
    with guard.invocation():
        names = [".genezioignore", "a.txt", "data", "deep", "keep.csv", "logs-file", "secret-file"]
        assert sorted(os.listdir(root)) == names
        assert sorted(os.listdir(os.fsencode(root))) == [os.fsencode(name) for name in names]
        assert sorted(entry.name for entry in os.scandir(root)) == names
        assert sorted(entry.name for entry in os.scandir(os.fsencode(root))) == [
            os.fsencode(name) for name in names
        ]
        assert sorted(path.name for path in Path(root).iterdir()) == names
        descriptor = os.open(root, os.O_RDONLY)
        assert sorted(os.listdir(descriptor)) == names
        assert sorted(entry.name for entry in os.scandir(descriptor)) == names
        os.close(descriptor)
        assert sorted(os.listdir(f"{root}/data")) == ["b.txt", "public"]
        walked = {
            os.path.relpath(os.path.join(top, name), root)
            for top, _, files in os.walk(root)
            for name in files
        }
        assert walked == {".genezioignore", *KEPT}
        assert glob.glob("**/*.csv", root_dir=root, recursive=True) == ["keep.csv"]
        assert [path.name for path in Path(root).rglob("*.csv")] == ["keep.csv"]


def test_directory_descriptors_see_no_more(guard: tmpguard.Guard, root: str) -> None:
    with guard.invocation():
        top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        data = os.open("data", os.O_RDONLY | os.O_DIRECTORY, dir_fd=top)
        assert os.stat("b.txt", dir_fd=data).st_size == len("data/b.txt")
        for name, directory in [
            ("rows.csv", top),
            ("logs", top),
            ("private", data),
            ("private/key.txt", data),
        ]:
            with case(name):
                assert code_of(lambda: os.stat(name, dir_fd=directory)) == "ENOENT"  # noqa: B023
                assert code_of(lambda: os.open(name, os.O_RDONLY, dir_fd=directory)) == "ENOENT"  # noqa: B023
                assert not os.access(name, os.R_OK, dir_fd=directory)
        os.fchdir(data)
        assert code_of(lambda: open("rows.csv")) == "ENOENT"
        assert code_of(lambda: open("../rows.csv")) == "ENOENT"
        assert Path("../keep.csv").read_text() == "keep.csv"
        os.close(data)
        os.close(top)


def test_links_lead_nowhere_where_what_they_lead_to_is_named(
    guard: tmpguard.Guard, project: Path, root: str
) -> None:
    (project / "link").symlink_to("rows.csv")
    (project / "directory").symlink_to("logs")
    (project / "linked.csv").symlink_to("a.txt")
    with guard.invocation():
        assert os.path.islink(f"{root}/link")
        assert os.readlink(f"{root}/link") == "rows.csv"
        assert not os.path.exists(f"{root}/link")
        assert code_of(lambda: open(f"{root}/link")) == "ENOENT"
        assert code_of(lambda: open(f"{root}/directory/today.txt")) == "ENOENT"
        entries = {entry.name: entry for entry in os.scandir(root)}
        assert "linked.csv" not in entries
        assert not entries["directory"].is_dir()
        assert not entries["link"].is_file()
        assert code_of(lambda: entries["link"].stat()) == "ENOENT"
        assert not os.path.lexists(f"{root}/linked.csv")
        os.symlink(f"{project}/rows.csv", "/tmp/to-it")
        assert code_of(lambda: open("/tmp/to-it")) == "ENOENT"


def test_a_rule_for_directories_does_not_name_a_link_to_one(guard: tmpguard.Guard, project: Path) -> None:
    shutil.rmtree(project / "logs")
    (project / "logs").symlink_to("data")
    with guard.invocation():
        assert "logs" in os.listdir("/tmp/package")
        assert Path("/tmp/package/logs/b.txt").read_text() == "data/b.txt"


def test_databases_are_opened_in_vain(guard: tmpguard.Guard, project: Path, root: str) -> None:
    originals.sqlite_connect(project / "rows.csv").close()
    for database, uri in [(f"{root}/rows.csv", False), (f"file:{project}/rows.csv?mode=ro", True)]:
        with guard.invocation() as invocation:
            with pytest.raises(sqlite3.OperationalError, match="unable to open database file"):
                sqlite3.connect(database, uri=uri)
        (violation,) = invocation.report.violations
        assert (violation.operation, violation.errno) == ("sqlite3.connect", errno.ENOENT)
        assert violation.remedy == "not in the bundle: .genezioignore line 2, `*.csv`"


# --- what is told of it --------------------------------------------------------------------------------


def test_reading_it_is_a_finding_with_its_line(
    project: Path, scratch_root: Path, root: str, caplog: pytest.LogCaptureFixture
) -> None:
    guard = tmpguard.Guard(bundle=project, scratch_root=scratch_root, log_interval=0)
    for name, line in IGNORED.items():
        pattern = RULES.splitlines()[line - 1]
        why = f"not in the bundle: .genezioignore line {line}, `{pattern}`"
        path = f"{root}/{name}"
        caplog.clear()
        with case(name), caplog.at_level(logging.WARNING, "tmpguard"), guard.invocation() as invocation:
            with pytest.raises(FileNotFoundError) as refused:
                open(path)
            assert refused.value.__notes__ == [f"tmpguard: {why}"]
            (violation,) = invocation.report.violations
            assert violation[:3] == ("open", path, errno.ENOENT)
            assert violation.remedy == why
            assert violation.location is not None
            assert violation.location.file == __file__
            assert invocation.report.lookups == ()
        (record,) = caplog.records
        assert record.getMessage().startswith(
            f"tmpguard: open {path!r}: [Errno 2] No such file or directory, {why} ({__file__}:"
        )
        assert record.tmpguard_remedy == why  # type: ignore[attr-defined]


def test_the_path_of_the_violation_is_text_however_it_was_given(guard: tmpguard.Guard, root: str) -> None:
    """Reports are written as JSON, which knows no bytes."""
    path = f"{root}/rows.csv"
    with guard.invocation() as invocation:
        for given in (path, os.fsencode(path), Path(path)):
            assert code_of(partial(open, given)) == "ENOENT"
    assert [violation.path for violation in invocation.report.violations] == [path, path, str(Path(path))]


def test_asking_for_it_is_recorded_once_and_no_violation(guard: tmpguard.Guard, root: str) -> None:
    path = f"{root}/rows.csv"
    with guard.invocation() as invocation:
        for _ in range(3):
            assert not os.path.exists(path)
            assert not os.path.isfile(path)
            assert not os.access(path, os.R_OK)
        assert not os.path.exists(f"{root}/logs/today.txt")
    assert invocation.report.violations == ()
    assert [(lookup.operation, lookup.path) for lookup in invocation.report.lookups] == [
        ("os.stat", path),
        ("os.stat", f"{root}/logs/today.txt"),
    ]
    (lookup, _) = invocation.report.lookups
    assert lookup.errno == errno.ENOENT
    assert lookup.remedy == "not in the bundle: .genezioignore line 2, `*.csv`"
    assert lookup.location is not None
    assert lookup.location.file == __file__


def test_what_is_not_on_the_disk_either_is_no_finding(guard: tmpguard.Guard, root: str) -> None:
    with guard.invocation() as invocation:
        for name in ("nowhere.csv", "logs/nowhere.txt", "nowhere/rows.csv", "data/private/nowhere/x"):
            with pytest.raises(FileNotFoundError) as refused:
                open(f"{root}/{name}")
            assert not os.path.exists(f"{root}/{name}")
            if name == "nowhere.csv":
                assert not hasattr(refused.value, "__notes__")
    assert invocation.report.violations == invocation.report.lookups == ()


def test_making_a_file_in_an_ignored_directory_is_a_finding(guard: tmpguard.Guard, root: str) -> None:
    with guard.invocation() as invocation:
        for call in (
            lambda: open(f"{root}/logs/new.txt", "w"),
            lambda: os.open(f"{root}/logs/new.txt", os.O_WRONLY | os.O_CREAT),
            lambda: os.mkdir(f"{root}/logs/new"),
        ):
            assert code_of(call) == "ENOENT"
    assert [violation.operation for violation in invocation.report.violations] == [
        "open",
        "os.open",
        "os.mkdir",
    ]
    assert {violation.remedy for violation in invocation.report.violations} == {
        "not in the bundle: .genezioignore line 4, `logs/`"
    }


def test_a_guard_that_only_watches_lets_it_be_read_and_records_it(
    project: Path, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C2.5: where it is in the project. There is no ``/tmp/package`` but on the platform."""
    guard = tmpguard.Guard(bundle=project, scratch_root=scratch_root, enforce=False)
    monkeypatch.chdir(project)
    with guard.invocation() as invocation:
        assert Path("rows.csv").read_text() == "rows.csv"
        assert Path("logs/today.txt").read_text() == "logs/today.txt"
        assert os.path.exists(project / "local.py")
        assert {"rows.csv", "logs"} <= set(os.listdir("."))
        assert Path("a.txt").read_text() == "a.txt"
    assert [(violation.operation, violation.path) for violation in invocation.report.violations] == [
        ("open", "rows.csv"),
        ("open", "logs/today.txt"),
    ]
    assert [lookup.path for lookup in invocation.report.lookups] == [f"{project}/local.py"]


# --- which file ----------------------------------------------------------------------------------------


def test_files_that_come_and_go_are_seen_at_once(guard: tmpguard.Guard, project: Path, root: str) -> None:
    """A server that reloads keeps its guard, while the developer goes on."""
    with guard.invocation():
        assert code_of(lambda: open(f"{root}/new.csv")) == "ENOENT"
        assert code_of(lambda: open(f"{root}/new.txt")) == "ENOENT"
    (project / "new.csv").write_text("new")
    (project / "new.txt").write_text("new")
    (project / "secret-file").unlink()
    (project / "secret-file").mkdir()
    with guard.invocation():
        assert code_of(lambda: open(f"{root}/new.csv")) == "ENOENT"
        assert Path(root, "new.txt").read_text() == "new"
        assert "new.txt" in os.listdir(root)
        assert "new.csv" not in os.listdir(root)
        assert not os.path.exists(f"{root}/secret-file"), "it is a directory now"


def test_the_file_is_read_when_the_guard_is_built(project: Path, scratch_root: Path) -> None:
    (project / ".genezioignore").write_text("a.txt\n")
    guard = tmpguard.Guard(bundle=project, scratch_root=scratch_root)
    (project / ".genezioignore").write_text("")
    with guard.invocation():
        assert not os.path.exists("a.txt")
    with tmpguard.Guard(bundle=project, scratch_root=scratch_root).invocation():
        assert os.path.exists("a.txt")


def test_ignore_none_leaves_nothing_out(project: Path, scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=project, scratch_root=scratch_root, ignore=None)
    with guard.invocation():
        assert Path("rows.csv").read_text() == "rows.csv"
        assert Path("/tmp/package/rows.csv").read_text() == "rows.csv"
    assert guard.ignore is None


def test_a_file_above_the_bundle_names_paths_from_where_it_stands(project: Path, scratch_root: Path) -> None:
    """As it lies beside the genezio.yaml, with the function's directory below."""
    file = project / ".genezioignore"
    file.write_text("/data/b.txt\n/public\ndata/public/*.txt\n*.csv\n")
    guard = tmpguard.Guard(bundle=project / "data", ignore=file, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        assert sorted(os.listdir("/tmp/package")) == ["private", "public"]
        assert os.listdir("/tmp/package/public") == []
        assert code_of(lambda: open("b.txt")) == "ENOENT"
        if not is_below(str(project), "/tmp"):
            assert Path(project, "rows.csv").read_text() == "rows.csv", "it lies outside of the bundle"
    assert invocation.report.violations[0].remedy == "not in the bundle: .genezioignore line 1, `/data/b.txt`"


def test_a_file_from_elsewhere_names_paths_from_the_bundle_on(
    project: Path, scratch_root: Path, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere" / "other"
    other.parent.mkdir()
    other.write_text("/a.txt\n")
    guard = tmpguard.Guard(bundle=project, ignore=other, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        assert code_of(lambda: open("a.txt")) == "ENOENT"
        assert Path("rows.csv").read_text() == "rows.csv"
    assert invocation.report.violations[0].remedy == "not in the bundle: other line 1, `/a.txt`"


def cannot_be_read(path: str, reason: str) -> str:
    return f"ignore={path!r} cannot be read: {reason}: give a file of patterns, or None for none"


def test_wrong_files_are_refused(project: Path, scratch_root: Path) -> None:
    file = project / "file"
    file.write_text("project/data\n")
    above = project.parent / "above"
    above.write_text("x\n\nproject/\n")
    for options, message in [
        ({"ignore": project / "nowhere"}, cannot_be_read(f"{project}/nowhere", "No such file or directory")),
        ({"ignore": project}, cannot_be_read(str(project), "Is a directory")),
        ({"ignore": 5}, "ignore=5 is not a path: give a file, or None for none"),
        ({"ignore": ""}, "ignore='' is not a path: give a file, or None for none"),
        ({"ignore": "a\0b"}, "ignore='a\\x00b' is not a path: give a file, or None for none"),
        (
            {"ignore": file, "bundle": None},
            f"ignore={file!r} has no effect without a bundle: leave it out",
        ),
        ({"ignore": above}, f"{above}:3: 'project/' ignores the whole bundle {project}"),
    ]:
        with case(options), pytest.raises(tmpguard.ConfigurationError) as refused:
            tmpguard.Guard(**{"bundle": project, "scratch_root": scratch_root, **options})
        assert str(refused.value) == message


def test_a_file_of_that_name_that_cannot_be_read_is_no_reason_to_go_on(
    project: Path, scratch_root: Path
) -> None:
    (project / ".genezioignore").unlink()
    (project / ".genezioignore").mkdir()
    with pytest.raises(tmpguard.ConfigurationError, match="cannot be read: Is a directory"):
        tmpguard.Guard(bundle=project, scratch_root=scratch_root)


def test_without_rules_nothing_is_asked(project: Path, scratch_root: Path) -> None:
    for text in ("", "# nothing\n\n"):
        (project / ".genezioignore").write_text(text)
        assert tmpguard.Guard(bundle=project, scratch_root=scratch_root).mounts.hidden is None
    (project / ".genezioignore").unlink()
    assert tmpguard.Guard(bundle=project, scratch_root=scratch_root).mounts.hidden is None
    assert tmpguard.Guard(bundle=None, scratch_root=scratch_root).mounts.hidden is None


# --- links that lead out of the bundle -----------------------------------------------------------------


@pytest.fixture
def linked(tmp_path: Path) -> Iterator[Path]:
    """A project outside /tmp with links that lead out of it; what they lead to is there."""
    parent = Path(tempfile.mkdtemp(dir="/var/tmp", prefix="tmpguard-test-")).resolve()
    project = parent / "project"
    (project / "data").mkdir(parents=True)
    (parent / "outside.txt").write_text("outside")
    (project / "a.txt").write_text("a.txt")
    links = {
        "relative": "../outside.txt",
        "data/within": "../a.txt",
        "absolute": f"{parent}/outside.txt",
        "directory": str(parent),
        "own": f"{project}/a.txt",
        "system": "/usr",
        "dots": "/usr/../etc",
        "back": f"/usr/..{parent}/outside.txt",
        "device": "/dev/null",
        "interpreter": sys.executable,
        "tmp": "/tmp/file.txt",
        "package": "/tmp/package/a.txt",
        "dangling": f"{parent}/nowhere",
    }
    for name, target in links.items():
        (project / name).symlink_to(target)
    yield project
    shutil.rmtree(parent)


def test_links_of_the_bundle_lead_nowhere_that_is_not_deployed(linked: Path, scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=linked, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        for name in ("absolute", "own", "back", "directory/outside.txt", "relative", "dangling"):
            path = f"/tmp/package/{name}"
            with case(name):
                with pytest.raises(FileNotFoundError) as refused:
                    open(path)
                assert refused.value.filename == path
                assert not os.path.exists(path)
                if name != "relative":  # that would be made in /tmp
                    assert code_of(lambda: open(path, "w")) == "ENOENT"  # noqa: B023
                assert hasattr(refused.value, "__notes__") == (name not in ("relative", "dangling"))
        assert [os.path.basename(lookup.path) for lookup in invocation.report.lookups] == [
            "absolute",
            "own",
            "back",
            "outside.txt",
        ]
        assert os.readlink("/tmp/package/absolute") == f"{linked.parent}/outside.txt"
        assert os.path.islink("/tmp/package/absolute")
    reading, *_ = invocation.report.violations
    assert (reading.operation, reading.path, reading.errno) == ("open", "/tmp/package/absolute", errno.ENOENT)
    assert reading.remedy == (
        f"not in the bundle: the link /tmp/package/absolute leads out of it, to {linked.parent}/outside.txt"
    )


def test_links_of_the_bundle_lead_to_what_is_there_after_the_deployment_too(
    linked: Path, scratch_root: Path
) -> None:
    guard = tmpguard.Guard(bundle=linked, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        assert os.path.samefile("/tmp/package/data/within", "/tmp/package/a.txt")
        assert os.listdir("/tmp/package/system") == originals.listdir("/usr")
        assert os.listdir("/tmp/package/dots") == originals.listdir("/etc")
        with open("/tmp/package/device", "w") as file:
            file.write("nothing")
        assert os.access("/tmp/package/interpreter", os.X_OK)
        assert Path("/tmp/package/package").read_text() == "a.txt"
        assert not os.path.exists("/tmp/package/tmp")
        Path("/tmp/file.txt").write_text("the invocation's")
        assert Path("/tmp/package/tmp").read_text() == "the invocation's"
        # A relative one that leads out of the bundle leads into /tmp, as from a directory of that place.
        Path("/tmp/outside.txt").write_text("in /tmp")
        assert Path("/tmp/package/relative").read_text() == "in /tmp"
    assert invocation.report.violations == invocation.report.lookups == ()


def test_a_volume_may_be_what_a_link_of_the_bundle_leads_to(linked: Path, scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=linked, scratch_root=scratch_root, writable=[linked.parent])
    with guard.invocation():
        assert Path("/tmp/package/absolute").read_text() == "outside"


def test_at_the_projects_own_path_links_lead_where_they_lead(linked: Path, scratch_root: Path) -> None:
    guard = tmpguard.Guard(bundle=linked, scratch_root=scratch_root)
    with guard.invocation() as invocation:
        assert Path("absolute").read_text() == Path("relative").read_text() == "outside"
        assert Path("own").read_text() == "a.txt"
    assert invocation.report.violations == ()
