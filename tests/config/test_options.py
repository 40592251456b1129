"""Wrong options are refused when the guard is built, odd paths as the kernel does; nothing is left behind."""

from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import case, run_unprivileged
from tmpguard.config.options import OPTIONS, Options
from tmpguard.config.platforms import PLANS
from tmpguard.guard import guard_from

MB = 1_048_576


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "project/inner").mkdir(parents=True)
    (tmp_path / "project/file.txt").write_text("text")
    return tmp_path / "project"


def refused(*said: str, **options: Any) -> str:
    """The text of the refusal, which has to say all of this and be one line."""
    with pytest.raises(tmpguard.ConfigurationError) as failed:
        tmpguard.Guard(**options)
    text = str(failed.value)
    assert isinstance(failed.value, ValueError)
    assert [part for part in said if part not in text] == [], text
    assert "\n" not in text
    return text


# --- storage_size and plan (C3.1) ----------------------------------------------------------------------


def test_what_is_no_storage_size_is_refused_with_the_value_and_what_is_allowed() -> None:
    for size in (0, -1, 1.5, 128.0, "256", b"1", True, False, [1], float("inf"), 1j):
        refused(f"storage_size={size!r}", "whole number of MB", "1 to 128", storage_size=size)


@pytest.mark.parametrize(
    ("size", "plan", "said"),
    [
        (129, "free", ["129 MB", "free plan's 128 MB", 'plan="pro" allows 512', "storage_size=128"]),
        (512, "free", ['plan="pro" allows 512']),
        (513, "free", ["free plan's 128 MB", 'plan="enterprise" allows any', "storage_size=128"]),
        (513, "pro", ["pro plan's 512 MB", 'plan="enterprise" allows any', "storage_size=512"]),
        (10**9, "pro", ["storage_size=1000000000", 'plan="enterprise"']),
    ],
)
def test_a_size_over_the_plan_is_refused_with_the_limit_and_the_way_out(
    size: int, plan: str, said: list[str]
) -> None:
    refused(f"storage_size={size}", *said, storage_size=size, plan=plan)


def test_an_unknown_plan_is_refused_with_those_there_are() -> None:
    for plan in ("Free", "", "gold", None, 1, ["free"], b"free"):
        refused(f"plan={plan!r}", '"free"', '"pro"', '"enterprise"', plan=plan)


@pytest.mark.parametrize(("plan", "size"), [("free", 128), ("pro", 512), ("enterprise", 100_000)])
def test_each_plan_allows_what_it_allows_and_nothing_is_clamped(plan: str, size: int) -> None:
    for allowed in (1, size):
        guard = tmpguard.Guard(plan=plan, storage_size=allowed, bundle=None)
        assert guard.invocation().report.quota_bytes == allowed * MB
    limit = PLANS[plan]
    if limit is not None:
        refused(f"{limit} MB", plan=plan, storage_size=limit + 1)


def test_the_defaults_are_those_of_the_documentation() -> None:
    guard = tmpguard.Guard()
    assert (guard.storage_size, guard.plan, guard.bundle) == (128, "free", os.path.realpath("."))
    assert (guard.writable, guard.enforce, guard.max_files, guard.on_report) == ((), True, None, None)
    assert guard.invocation().report.quota_bytes == 134_217_728


# --- the other options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("storagesize", "storage_size="),
        ("size", ""),
        ("max_file", "max_files="),
        ("Bundle", "bundle="),
        ("on_reports", "on_report="),
    ],
)
def test_an_unknown_option_is_refused_with_those_there_are(name: str, hint: str) -> None:
    refused(f"{name}=", hint, *OPTIONS, **{name: 1})


def test_the_type_of_the_options_has_those_of_the_guard() -> None:
    parameters = inspect.signature(tmpguard.Guard).parameters.values()
    taken = {one.name: one.annotation for one in parameters if one.kind is one.KEYWORD_ONLY}
    assert list(taken) == list(OPTIONS)
    for name, reference in Options.__annotations__.items():
        assert reference.__forward_arg__ == taken[name], name


def test_options_are_keywords_only() -> None:
    with pytest.raises(TypeError):
        tmpguard.Guard(1)  # type: ignore[misc]


@pytest.mark.parametrize("option", ["bundle", "writable", "scratch_root"])
def test_a_directory_that_cannot_be_is_refused(option: str, project: Path) -> None:
    def given(path: Any) -> dict[str, Any]:
        return {"bundle": None, option: [path] if option == "writable" else path}

    (project / "dangling").symlink_to("nowhere")
    (project / "loop").symlink_to("loop")
    nowhere, file = project / "nowhere", project / "file.txt"
    if option == "writable":  # takes files, too
        file = project / "pipe"
        os.mkfifo(file)
    refused(f"{option}={nowhere!r}", "does not exist", "existing directory", **given(nowhere))
    refused(f"{option}={str(nowhere)!r}", "does not exist", **given(str(nowhere)))
    refused(f"{option}={file!r}", "not a directory", "give an existing directory", **given(file))
    refused(f"{option}=", "does not exist", str(nowhere), **given(project / "dangling"))
    refused(f"{option}=", "loop", **given(project / "loop"))
    refused(f"{option}=", "NUL", **given("with\0nul"))
    refused(f"{option}=", "does not exist", **given("x" * 300))
    refused(f"{option}=5", "not a path", **given(5))
    refused(f"{option}=", "not a path", **given(object()))
    refused(f"{option}=''", **given(""))


def test_directories_may_be_given_in_any_way(project: Path, scratch_root: Path) -> None:
    (project / "link").symlink_to("inner")
    for path in (project / "inner", str(project / "inner"), os.fsencode(project / "inner"), project / "link"):
        guard = tmpguard.Guard(bundle=path, writable=[path], scratch_root=scratch_root)
        assert guard.bundle == str(project / "inner")
        assert guard.writable == (str(project / "inner"),)


def test_writable_has_to_be_a_list() -> None:
    for value in ("/var", b"/var", Path("/var"), 5, None, object()):
        refused(f"writable={value!r}", "writable=[", writable=value)


def test_writable_cannot_undo_the_guard() -> None:
    for path in ("/", "/tmp", "//", "/tmp/", "/etc/.."):
        refused("writable=", "undo the guard", writable=[path])


def test_enforce_is_true_or_false() -> None:
    for value in (1, 0, "yes", None):
        refused(f"enforce={value!r}", "True", "False", enforce=value)


def test_max_files_is_a_number_or_none() -> None:
    for value in (0, -1, 1.5, "10", True, False, []):
        refused(f"max_files={value!r}", "whole number", "None", max_files=value)


def test_on_report_can_be_called_or_is_none() -> None:
    for value in (1, "print", [], object()):
        refused("on_report=", "function", "None", on_report=value)


def test_a_scratch_root_inside_the_bundle_is_refused(project: Path) -> None:
    """Else each request's files would be part of the next one's bundle."""
    for root in (project, project / "inner"):
        refused(f"scratch_root={root!r}", "inside the bundle", bundle=project, scratch_root=root)
    tmpguard.Guard(bundle=project / "inner", scratch_root=project)


def test_a_scratch_root_that_is_not_writable_is_refused(public_root: Path) -> None:
    code = """
for mode in (0o555, 0o600, 0o000):
    path = f"{sys.argv[1]}/{mode:o}"
    os.mkdir(path)
    os.chmod(path, mode)
    try:
        tmpguard.Guard(scratch_root=path, bundle=None)
    except tmpguard.ConfigurationError as exc:
        print(f"scratch_root={path!r}" in str(exc), "not writable" in str(exc))
    os.chmod(path, 0o700)
    print(os.listdir(path))
"""
    assert run_unprivileged(code, public_root) == "True True\n[]\n" * 3


def test_a_read_only_file_system_is_no_scratch_root() -> None:
    """Also for root, who may write everywhere else."""
    for path in ("/sys", "/proc"):
        if os.path.isdir(path):
            refused(f"scratch_root={path!r}", "not writable", scratch_root=path, bundle=None)


def test_a_refused_guard_leaves_nothing(project: Path, scratch_root: Path) -> None:
    """Not on the disk, nor in the interpreter."""
    mkdir = os.mkdir
    for options in (
        {"storage_size": 0},
        {"plan": "gold"},
        {"bundle": "/nowhere"},
        {"max_files": 0},
        {"bundle": project, "scratch_root": project},
        {"no_such_option": 1},
    ):
        refused(**{"scratch_root": scratch_root, **options})
    assert os.mkdir is mkdir
    assert list(scratch_root.iterdir()) == []
    assert sorted(path.name for path in project.iterdir()) == ["file.txt", "inner"]


def test_invocation_takes_the_same_options(scratch_root: Path) -> None:
    with tmpguard.invocation(storage_size=1, scratch_root=scratch_root, bundle=None) as invocation:
        assert invocation.report.quota_bytes == MB
    with pytest.raises(tmpguard.ConfigurationError, match="storage_size=0"):
        tmpguard.invocation(storage_size=0)


def test_a_guard_and_options_are_not_mixed(guard: tmpguard.Guard) -> None:
    assert guard_from(guard, {}) is guard
    assert guard_from(None, {"storage_size": 3, "bundle": None}).storage_size == 3
    with pytest.raises(tmpguard.ConfigurationError, match="storage_size=, bundle= are both given"):
        guard_from(guard, {"storage_size": 3, "bundle": None})
    with pytest.raises(tmpguard.ConfigurationError, match=r"guard=5 is not a tmpguard\.Guard"):
        guard_from(5, {})  # type: ignore[arg-type]


def test_the_repr_of_a_guard_shows_its_options(project: Path) -> None:
    guard = tmpguard.Guard(storage_size=5, plan="pro", bundle=project)
    assert repr(guard) == f"<Guard storage_size=5 plan='pro' bundle={str(project)!r}>"


# --- odd paths -----------------------------------------------------------------------------------------

PATH_CALLS: dict[str, Callable[[Any], object]] = {
    "open": open,
    "open for writing": lambda path: open(path, "w"),
    "os.open": lambda path: os.open(path, os.O_RDWR | os.O_CREAT),
    "os.stat": os.stat,
    "os.lstat": os.lstat,
    "os.listdir": os.listdir,
    "os.scandir": os.scandir,
    "os.mkdir": os.mkdir,
    "os.rmdir": os.rmdir,
    "os.unlink": os.unlink,
    "os.rename": lambda path: os.rename(path, "/tmp/other"),
    "os.rename to it": lambda path: os.rename("/tmp/file.txt", path),
    "os.symlink": lambda path: os.symlink("/etc", path),
    "os.link": lambda path: os.link("/tmp/file.txt", path),
    "os.chmod": lambda path: os.chmod(path, 0o600),
    "os.truncate": lambda path: os.truncate(path, 0),
    "os.utime": os.utime,
    "os.chdir": os.chdir,
    "os.readlink": os.readlink,
    "os.statvfs": os.statvfs,
    "os.mkfifo": os.mkfifo,
    "os.access": lambda path: os.access(path, os.R_OK),
}


@pytest.fixture
def invocation(guard: tmpguard.Guard) -> Iterator[tmpguard.Invocation]:
    """An invocation whose /tmp holds one file, at the end as at the beginning."""
    with guard.invocation() as bound:
        Path("/tmp/file.txt").write_text("text")
        before = os.listdir("/tmp")
        yield bound
        assert sorted(os.listdir("/tmp")) == sorted(before)


def test_a_path_with_a_nul_byte_is_the_usual_value_error(invocation: tmpguard.Invocation) -> None:
    for name, call in PATH_CALLS.items():
        for path in ("/tmp/a\0b", b"/tmp/a\0b", "a\0", "\0", "/etc/a\0b", Path("/tmp/a\0b")):
            with case(f"{name} {path!r}"):
                with pytest.raises(ValueError, match=r"embedded null (byte|character)|null (byte|character)"):
                    call(path)
    assert invocation.report.violations == ()


def test_a_name_of_300_characters_is_too_long(invocation: tmpguard.Invocation) -> None:
    """255 bytes are what a name may have."""
    for title, call in PATH_CALLS.items():
        for name in ("n" * 300, "n" * 256, "é" * 128):
            for path in (f"/tmp/{name}", f"/tmp/./{name}", os.fsencode(f"/tmp/{name}")):
                with case(title):
                    _fails(call, path, errno.ENAMETOOLONG)
        with case(title):
            _fails(call, "/tmp/" + "d/" * 3000, errno.ENAMETOOLONG)
    assert invocation.report.violations == ()


def _fails(call: Callable[[Any], object], path: Any, code: int) -> None:
    if call is PATH_CALLS["os.access"]:
        assert call(path) is False
        return
    with pytest.raises(OSError) as failed:  # noqa: PT011 - its number is what is asked
        call(path)
    assert failed.value.errno == code


def test_a_name_of_255_bytes_is_not_too_long(guard: tmpguard.Guard) -> None:
    with guard.invocation():
        for name in ("n" * 255, "é" * 127):
            Path(f"/tmp/{name}").write_text("text")
            assert name in os.listdir("/tmp")
            assert os.stat(f"/tmp/{name}").st_size == 4


#: These take the link itself.
NO_FOLLOW = ("os.lstat", "os.unlink", "os.rename", "os.rename to it", "os.readlink")
#: These find that something is there.
THERE = ("os.mkdir", "os.symlink", "os.link", "os.mkfifo")


def test_a_symlink_loop_is_eloop(guard: tmpguard.Guard) -> None:
    with guard.invocation() as invocation:
        os.symlink("loop", "/tmp/loop")
        os.symlink("/tmp/second", "/tmp/first")
        os.symlink("first", "/tmp/second")
        Path("/tmp/file.txt").write_text("text")
        for name, call in PATH_CALLS.items():
            if name in (*NO_FOLLOW, *THERE):
                continue
            for path in ("/tmp/loop", "/tmp/first", b"/tmp/loop", "/tmp/loop/x"):
                _fails(
                    call, path, errno.ENOTDIR if name == "os.rmdir" and path != "/tmp/loop/x" else errno.ELOOP
                )
        for name in THERE:
            _fails(PATH_CALLS[name], "/tmp/loop", errno.EEXIST)
        for path in ("/tmp/loop/x", "/tmp/first/x/y"):
            for name in (*NO_FOLLOW, *THERE):
                _fails(PATH_CALLS[name], path, errno.ELOOP)
        assert os.readlink("/tmp/loop") == "loop"
        os.unlink("/tmp/loop")
    assert invocation.report.violations == ()


def test_a_loop_that_leads_out_and_in_again_is_eloop(project: Path, scratch_root: Path) -> None:
    (project / "out").symlink_to("/tmp/in")
    with tmpguard.invocation(bundle=project, scratch_root=scratch_root):
        os.symlink(f"{project}/out", "/tmp/in")
        for path in ("/tmp/in", f"{project}/out", "/tmp/package/out"):
            _fails(open, path, errno.ELOOP)


def test_forty_links_are_followed_and_no_more(guard: tmpguard.Guard) -> None:
    """As the kernel has it."""
    with guard.invocation():
        Path("/tmp/0").write_text("text")
        for number in range(1, 45):
            os.symlink(f"{number - 1}", f"/tmp/{number}")
        assert Path("/tmp/40").read_text() == "text"
        _fails(open, "/tmp/41", errno.ELOOP)
