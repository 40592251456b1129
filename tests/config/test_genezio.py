"""A guard takes its size and its bundle from a Genezio project; what cannot be is told with file and line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.config import project_files
from tests.config.project_files import written
from tmpguard.config import genezio
from tmpguard.config.platforms import PLATFORMS
from tmpguard.guard import guard_from

MB = 1_048_576


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory for a project, the working directory meanwhile."""
    directory = tmp_path / "project"
    directory.mkdir()
    monkeypatch.chdir(directory)
    return directory


def error(**options: Any) -> str:
    with pytest.raises(tmpguard.ConfigurationError) as failed:
        tmpguard.Guard.from_genezio("genezio.yaml", **options)
    text = str(failed.value)
    assert "\n" not in text
    return text


# --- the functions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "function", "size", "bundle"),
    [
        (project_files.FLASK, None, 64, "."),
        (project_files.FLASK, "flask-shop", 64, "."),
        (project_files.SEVERAL, "thumbnails", 100, "server/thumbnails"),
        (project_files.SEVERAL, "archive", 50, "server/archive"),
        (project_files.SEVERAL, "ping", 128, "server/ping"),
        (project_files.PLAIN, None, 128, "."),
        (project_files.ANCHORS, "one", 32, "."),
        (project_files.CLASSES, "task.py", 16, "server"),
        (project_files.CLASSES, "Mailer", 128, "server"),
        (project_files.CONTAINER, None, 48, "docker"),
        (project_files.CONTAINER, "container", 48, "docker"),
        (project_files.STREAMLIT, None, 24, "board"),
        (project_files.MIXED, None, 20, "api"),
        (project_files.MIXED, "nextjs", 100, "web"),
        ("backend: {path: server}\n", None, 128, "server"),
        ('{"backend": {"functions": [{"name": "json", "storageSize": 7}]}}', None, 7, "."),
        ("backend:\n  functions:\n  - name: whole\n    storageSize: 8.0\n", None, 8, "."),
        *[(f"{kind}:\n  path: web\n  storageSize: 9\n", None, 9, "web") for kind in genezio.KINDS],
    ],
)
def test_a_function_s_size_and_directory_are_taken(
    text: str, function: str | None, size: int, bundle: str, project: Path
) -> None:
    written(project, text)
    guard = tmpguard.Guard.from_genezio("genezio.yaml", function=function)
    assert (guard.storage_size, guard.platform, guard.plan) == (size, "genezio", "free")
    assert guard.bundle == os.path.realpath(project / bundle)
    with guard.invocation() as invocation:
        assert invocation.report.quota_bytes == size * MB
        assert os.getcwd() == guard.bundle
        assert os.listdir("/tmp/package") == os.listdir(".")


def test_everything_of_a_function_is_read(project: Path) -> None:
    written(project, project_files.FLASK)
    (one,) = genezio.read("genezio.yaml")
    assert (one.kind, one.name, one.handler, one.entry, one.concurrency) == (
        "function",
        "flask-shop",
        "app",
        "app.py",
        10,
    )
    assert one.directory == str(project)
    assert one.size_from() == 'genezio.yaml:21, function "flask-shop"'


def test_paths_are_relative_to_the_file_and_not_to_the_working_directory(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(project, project_files.SEVERAL)
    monkeypatch.chdir("/")
    for path in (
        project / "genezio.yaml",
        str(project / "genezio.yaml"),
        os.fsencode(project / "genezio.yaml"),
    ):
        guard = tmpguard.Guard.from_genezio(path, function="archive")
        assert guard.bundle == str(project / "server/archive")


def test_a_link_to_the_file_counts_where_it_stands(project: Path, tmp_path: Path) -> None:
    """As for the deploying tool, which opens the path that it was given."""
    written(project, project_files.FLASK)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "genezio.yaml").symlink_to(project / "genezio.yaml")
    guard = tmpguard.Guard.from_genezio(tmp_path / "elsewhere" / "genezio.yaml")
    assert guard.bundle == str(tmp_path / "elsewhere")


def test_options_in_code_win_over_the_file(project: Path, tmp_path: Path) -> None:
    written(project, project_files.FLASK.replace("storageSize: 64", "storageSize: 256"))
    assert tmpguard.Guard.from_genezio(plan="pro").storage_size == 256
    guard = tmpguard.Guard.from_genezio(storage_size=5, bundle=tmp_path, max_files=9, enforce=False)
    assert (guard.storage_size, guard.bundle, guard.max_files, guard.enforce) == (5, str(tmp_path), 9, False)
    assert tmpguard.Guard.from_genezio(storage_size=5, bundle=None).bundle is None
    assert error(storage_size=256).startswith("storage_size=256: 256 MB is over the free plan's 128 MB")
    assert "not an option of tmpguard" in error(storage_size=5, storagesize=5)
    assert "does not match a genezio.yaml" in error(platform="vercel")
    assert "not one of" in error(plan="gold")


def test_the_environment_is_asked_where_neither_code_nor_file_gives_a_size(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPGUARD_STORAGE_SIZE", "3")
    written(project, project_files.FLASK)
    assert tmpguard.Guard.from_genezio().storage_size == 64
    assert tmpguard.Guard.from_genezio(storage_size=5).storage_size == 5
    written(project, project_files.PLAIN)
    assert tmpguard.Guard.from_genezio().storage_size == 3


def test_the_guard_knows_where_its_size_came_from(project: Path) -> None:
    written(project, project_files.FLASK)
    assert tmpguard.Guard.from_genezio().size_from == 'genezio.yaml:21, function "flask-shop"'
    assert tmpguard.Guard.from_genezio(storage_size=5).size_from == "storage_size=5"
    written(project, project_files.PLAIN)
    assert tmpguard.Guard.from_genezio().size_from == 'the default of platform="genezio"'


# --- which one -----------------------------------------------------------------------------------------


def test_several_functions_and_none_named_is_an_error_that_lists_them(project: Path) -> None:
    written(project, project_files.SEVERAL)
    said = error()
    assert said.startswith('genezio.yaml: has 3 candidates, "thumbnails", "archive", "ping"')
    assert said.endswith('function="thumbnails"')


def test_a_function_that_is_not_there_is_an_error_that_lists_those_that_are(project: Path) -> None:
    written(project, project_files.SEVERAL)
    assert error(function="thumbnail") == (
        'genezio.yaml: has no function \'thumbnail\': it has "thumbnails", "archive", "ping"'
    )
    for name in (5, b"ping", ["ping"]):
        assert f"function={name!r} is not a name" in error(function=name)


def test_hundreds_of_functions_are_not_all_listed(project: Path) -> None:
    functions = "".join(f"    - name: f{number}\n" for number in range(500))
    written(project, f"backend:\n  functions:\n{functions}")
    assert error().count('"f') < 30
    assert "and 480 more" in error()


@pytest.mark.parametrize(
    "text", ["name: x\n", "name: x\nfrontend: {path: web}\n", "backend: {functions: []}\n"]
)
def test_a_project_without_functions_is_an_error(text: str, project: Path) -> None:
    written(project, text)
    assert "genezio.yaml: deploys nothing that has a /tmp" in error()


# --- what cannot be ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("256", '256 MB is over the free plan\'s 128 MB; plan="pro" allows 512'),
        ("1000", '1000 MB is over the free plan\'s 128 MB; plan="enterprise" allows any'),
        ("0", "0 is not a storage size: give a whole number of MB, from 1 to 128"),
        ("-5", "-5 is not a storage size"),
        ("12.5", "12.5 is not a storage size: give a whole number of MB"),
        ("true", "true: give a whole number of MB"),
        ('"64"', "'64' is not a storage size: give a whole number of MB"),
        ("64MB", "'64MB' is not a storage size"),
        ("1_00", "'1_00' is not a storage size"),
        ("${{env.SIZE}}", "'${{env.SIZE}}' is not a storage size"),
        ("", "no value: give a whole number of MB"),
        ("[64]", "a list: give a whole number of MB"),
        ("{mb: 64}", "a mapping: give a whole number of MB"),
        ("!size 64", "!size (not resolved here): give a whole number of MB"),
    ],
)
def test_an_invalid_size_is_an_error_with_file_line_and_key(value: str, said: str, project: Path) -> None:
    written(project, project_files.FLASK.replace("storageSize: 64 #", f"storageSize: {value} #"))
    assert error().startswith(f"genezio.yaml:21: backend.functions[0].storageSize: {said}")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- a\n- b\n", ":1: expected a mapping, found a list"),
        ("just text\n", ":1: expected a mapping, found 'just text'"),
        ("backend:\n", ":1: backend: expected a mapping, found no value"),
        ("backend:\n- path: .\n", ":2: backend: expected a mapping, found a list"),
        ("backend:\n  functions:\n    name: x\n", ":3: backend.functions: expected a list, found a mapping"),
        ("backend:\n  functions:\n", ":2: backend.functions: expected a list, found no value"),
        ("backend:\n  functions:\n  - x\n", ":3: backend.functions[0]: expected a mapping, found 'x'"),
        ("backend:\n  functions:\n  - [x]\n", ":3: backend.functions[0]: expected a mapping, found a list"),
        ("backend:\n  functions:\n  - path: .\n", ":3: backend.functions[0]: has no name"),
        (
            "backend:\n  functions:\n  - name: 5\n",
            ":3: backend.functions[0].name: expected a string, found 5",
        ),
        ("backend:\n  functions:\n  - name: ''\n", ":3: backend.functions[0].name: '' is empty"),
        ("backend:\n  path: [a]\n", ":2: backend.path: expected a string, found a list"),
        (
            "backend:\n  functions:\n  - name: x\n  - name: x\n",
            ":4: backend.functions[1]: duplicate name 'x', first used in line 3",
        ),
        (
            "backend:\n  functions:\n  - name: x\n    path: nowhere\n",
            ":4: backend.functions[0].path: {project}/nowhere does not exist",
        ),
        (
            "backend:\n  functions:\n  - name: x\n    path: genezio.yaml\n",
            ":4: backend.functions[0].path: {project}/genezio.yaml is not a directory",
        ),
        ("backend:\n  path: nowhere\n", ":2: backend.path: {project}/nowhere does not exist"),
        (
            "backend:\n  functions:\n  - {name: x, maxConcurrentRequestsPerInstance: 0}\n",
            ":3: backend.functions[0].maxConcurrentRequestsPerInstance: 0: give a whole number, 1 or more",
        ),
        ("backend:\n  classes:\n  - type: http\n", ":3: backend.classes[0]: has neither a name nor a path"),
        ("nextjs:\n  storageSize: big\n", ":2: nextjs.storageSize: 'big' is not a storage size"),
        ("container: ./Dockerfile\n", ":1: container: expected a mapping, found './Dockerfile'"),
    ],
)
def test_a_value_of_the_wrong_type_is_an_error(text: str, said: str, project: Path) -> None:
    written(project, text)
    assert error().startswith("genezio.yaml" + said.format(project=project))


def test_the_example_of_the_plans(project: Path) -> None:
    """Word for word."""
    written(
        project,
        "name: x\nyamlVersion: 2\nbackend:\n  functions:\n    - name: my-function\n      path: ./\n"
        "      handler: handler\n      entry: app.py\n      storageSize: 256 # in MB\n",
    )
    assert error() == (
        "genezio.yaml:9: backend.functions[0].storageSize: 256 MB is over the free plan's 128 MB; "
        'plan="pro" allows 512'
    )


def test_sizes_of_functions_that_are_not_asked_for_do_not_matter(project: Path) -> None:
    written(project, project_files.SEVERAL.replace("storageSize: 50", "storageSize: 500"))
    assert tmpguard.Guard.from_genezio(function="ping").storage_size == 128
    assert error(function="archive").startswith("genezio.yaml:12: backend.functions[1].storageSize: 500 MB")


def test_an_absent_file_and_a_path_that_is_none_are_errors(project: Path) -> None:
    assert error() == "genezio.yaml: cannot be read: No such file or directory"
    for path in (5, None, "", b""):
        with pytest.raises(
            tmpguard.ConfigurationError, match=r"is not a path: give the path of a genezio\.yaml"
        ):
            tmpguard.Guard.from_genezio(path)  # type: ignore[arg-type]
    with pytest.raises(tmpguard.ConfigurationError, match="is a directory"):
        tmpguard.Guard.from_genezio(project)


def test_a_guard_is_made_from_a_project_within_an_invocation_too(project: Path) -> None:
    """C6.4"""
    written(project, project_files.FLASK)
    with tmpguard.invocation(bundle=None) as outer:
        assert tmpguard.Guard.from_genezio(project / "genezio.yaml").storage_size == 64
    assert outer.report.violations == ()


# --- AWS SAM -------------------------------------------------------------------------------------------


def sam(**options: Any) -> tmpguard.Guard:
    return tmpguard.Guard.from_sam("template.yaml", **options)


def sam_error(**options: Any) -> str:
    with pytest.raises(tmpguard.ConfigurationError) as failed:
        sam(**options)
    return str(failed.value)


@pytest.mark.parametrize(
    ("function", "size", "bundle"),
    [("Resize", 2048, "resize"), ("Ping", 1024, "common"), ("Plain", 512, ".")],
)
def test_a_template_gives_its_functions_sizes_and_code(
    function: str, size: int, bundle: str, project: Path
) -> None:
    written(project, project_files.SAM, "template.yaml")
    guard = sam(function=function)
    assert (guard.storage_size, guard.platform) == (size, "aws-lambda")
    assert guard.bundle == os.path.realpath(project / bundle)


def test_a_size_that_cloudformation_computes_is_an_error(project: Path) -> None:
    written(project, project_files.SAM, "template.yaml")
    assert sam_error(function="Choosy") == (
        "template.yaml:39: Resources.Choosy.Properties.EphemeralStorage: "
        "!If (not resolved here): give a whole number of MB"
    )
    guard = sam(function="Choosy", storage_size=4096)
    assert (guard.storage_size, guard.bundle) == (4096, str(project))


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("511", "511 MB is too small for aws-lambda: give a whole number of MB, from 512 to 10240"),
        ("10241", "10241 MB is over the 10240 MB of aws-lambda"),
        ("'1024'", "'1024' is not a storage size: give a whole number of MB, from 512 to 10240"),
        ("!Ref Size", "!Ref (not resolved here): give a whole number of MB"),
        ("{Ref: Size}", "a mapping: give a whole number of MB"),
    ],
)
def test_an_invalid_size_in_a_template_is_an_error_with_line_and_key(
    size: str, said: str, project: Path
) -> None:
    text = project_files.SAM.replace("{Size: 2048}", f"{{Size: {size}}}")
    written(project, text, "template.yaml")
    key = "template.yaml:27: Resources.Resize.Properties.EphemeralStorage.Size"
    assert sam_error(function="Resize") == f"{key}: {said}"


def test_a_template_s_functions_are_named_in_errors(project: Path) -> None:
    written(project, project_files.SAM, "template.yaml")
    assert '"Resize", "Ping", "Choosy", "Plain"' in sam_error()
    assert "has no function 'Table'" in sam_error(function="Table")
    assert "does not match" in sam_error(function="Ping", platform="genezio")
    written(project, "Resources: {Bucket: {Type: AWS::S3::Bucket}}\n", "template.yaml")
    assert "it has no functions" in sam_error()
    written(project, "name: x\n", "template.yaml")
    assert "has no Resources" in sam_error()
    written(project, "Resources: {One: {Type: [AWS::Serverless::Function]}}\n", "template.yaml")
    assert "it has no functions" in sam_error()


def test_a_template_that_gives_no_size_has_the_platform_s(project: Path) -> None:
    written(project, "Resources: {One: {Type: AWS::Serverless::Function}}\n", "template.yaml")
    assert sam().storage_size == PLATFORMS["aws-lambda"].default
    assert sam(storage_size=600).storage_size == 600


# --- .genezioignore ------------------------------------------------------------------------------------


def test_the_ignore_file_beside_the_project_file_holds_for_the_function(project: Path) -> None:
    written(project, project_files.MIXED)
    (project / ".genezioignore").write_text("/api/*.csv\n")
    for name in ("main.py", "rows.csv"):
        (project / "api" / name).touch()
    with tmpguard.Guard.from_genezio().invocation():
        assert sorted(os.listdir("/tmp/package")) == sorted(os.listdir(".")) == ["main.py"]
    with tmpguard.Guard.from_genezio(ignore=None).invocation():
        assert sorted(os.listdir(".")) == ["main.py", "rows.csv"]
    with tmpguard.Guard.from_genezio(bundle=project / "api").invocation():
        assert sorted(os.listdir(".")) == ["main.py", "rows.csv"]
    with guard_from(None, {}).invocation():
        assert os.listdir("/tmp/package") == ["main.py"]
