"""A project file that is none is one clear error, quickly: with the file, and the line where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tmpguard
from tests.support import PROJECT, run_python, run_unprivileged
from tmpguard.config import check, sam, yamlfile


@pytest.fixture
def error(tmp_path: Path) -> Callable[[str | bytes], str]:
    """What is said of a file of this content, within a second; without the directory."""

    def tell(content: str | bytes) -> str:
        path = tmp_path / "genezio.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        began = time.monotonic()
        with pytest.raises(tmpguard.ConfigurationError) as failed:
            yamlfile.read(path)
        assert time.monotonic() - began < 1
        text = str(failed.value)
        assert text.startswith(f"{tmp_path}/genezio.yaml:")
        assert "\n" not in text
        return text.removeprefix(f"{tmp_path}/")

    return tell


def bomb(depth: int) -> str:
    """Nine times nine times nine ... values, in a few lines."""
    lines = ["a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    for level in range(depth):
        lines.append(f"a{level + 1}: &a{level + 1} [{', '.join([f'*a{level}'] * 9)}]")
    return "\n".join(lines) + "\nbackend:\n  functions: *a5\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [1\nb: 2\n", ":2: is not valid YAML"),
        ("backend:\n\tpath: .\n", ":2: is not valid YAML"),
        ("backend: {functions\n", ":2: is not valid YAML"),
        ('a: "never closed\n', "is not valid YAML"),
        ("environment: {URL: ${{env.URL}}}\n", ":1: is not valid YAML"),
        ("a: *nothing\n", ":1: is not valid YAML: *nothing names nothing"),
        ("a: 1\nb: x\0y\n", "is not valid YAML"),
        ("a: 1\nb: 'x\x1by'\n", ":2: is not valid YAML"),
        (b"a: 1\nb: caf\xe9\n", ":2: is not UTF-8: byte 0xe9"),
        ("a: 1\n".encode("utf-16"), ":1: is not UTF-8: byte 0xff"),
        ("a: 1\n---\nb: 2\n", ":2: starts a second document"),
        ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", ":5: duplicate key 'c', first used in line 3"),
        ("a: {b: 1, b: 1}\n", ":1: duplicate key 'b', first used in line 1"),
        ("a: &a [1, *a]\n", ":1: *a is inside the value that it names"),
        ("a: &a {b: *a}\n", ":1: *a is inside the value that it names"),
        ("[" * 100_000, ":1: is nested deeper than 100"),
        ("".join(" " * depth + "a:\n" for depth in range(1000)), ":101: is nested deeper than 100"),
        ("", ": is empty"),
        ("# nothing but a comment\n", ": is empty"),
        ("a: " + "x" * (10 << 20), ": is larger than the limit of 1,048,576 bytes"),
    ],
)
def test_what_is_no_project_file_is_an_error_with_its_line(
    content: str | bytes, said: str, error: Callable[[str | bytes], str]
) -> None:
    assert said in error(content)


def test_what_is_no_file_is_an_error(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    (tmp_path / "loop").symlink_to("loop")
    for path, said in {
        tmp_path / "nowhere.yaml": "No such file or directory",
        tmp_path: "is a directory",
        tmp_path / "loop": "Too many levels of symbolic links",
        tmp_path / "pipe" / "file": "Not a directory",
        tmp_path / ("x" * 300): "File name too long",
        pipe: "is not a regular file",
        Path("/dev/null"): "is not a regular file",
        Path("/proc/self/mem"): "cannot be read",
    }.items():
        with pytest.raises(tmpguard.ConfigurationError) as failed:
            yamlfile.read(path)
        assert str(failed.value).startswith(f"{path}: ")
        assert said in str(failed.value)
    with pytest.raises(tmpguard.ConfigurationError, match="NUL"):
        yamlfile.read("a\0b")


def test_a_file_that_may_not_be_read_is_an_error(public_root: Path) -> None:
    (public_root / "genezio.yaml").write_text("a: 1\n")
    (public_root / "genezio.yaml").chmod(0)
    code = """
try:
    tmpguard.Guard.from_genezio(sys.argv[1])
except tmpguard.ConfigurationError as exc:
    print(exc)
"""
    said = run_unprivileged(code, public_root / "genezio.yaml", imported="tmpguard.config.genezio, yaml")
    assert said == f"{public_root}/genezio.yaml: cannot be read: Permission denied\n"


def test_the_parser_that_is_not_in_c_says_the_same(tmp_path: Path) -> None:
    """PyYAML is installed without the other on some platforms."""
    cases = (
        "a: [1\nb: 2\n",
        "a: 1\nb: 'x\x1by'\n",
        bomb(40) + "a: [\n",
        "[" * 5000,
        "a: &a [*a]\n",
        "a: {b: 1, b: 1}\n",
    )
    for number, content in enumerate(cases):
        (tmp_path / f"{number}.yaml").write_text(content)
    code = """
import yaml
if "python" in sys.argv[1]:
    for name in [name for name in vars(yaml) if name.startswith("C")]:
        delattr(yaml, name)
from tmpguard.config import yamlfile
for number in range(6):
    try:
        yamlfile.read(f"{sys.argv[2]}/{number}.yaml")
    except yamlfile.ConfigurationError as exc:
        print(str(exc).partition("valid YAML:")[0])
"""
    said = run_python(code, "python", tmp_path)
    assert said == run_python(code, "c", tmp_path)
    assert len(said.splitlines()) == len(cases)


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("64", 64),
        ("0100", 100),
        ("0x40", 64),
        ("0o100", 64),
        ("+5", 5),
        ("-1", -1),
        ("64.0", 64.0),
        ("12.5", 12.5),
        (".5", 0.5),
        ("1e2", 100.0),
        ("1_000", "1_000"),
        ("64MB", "64MB"),
        ("yes", "yes"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("null", None),
        ('"64"', "64"),
        ("'64'", "64"),
        ("!!str 64", "64"),
        ('!!int "64"', 64),
        ("2024-01-01", "2024-01-01"),
        ("1:30", "1:30"),
        ("${{env.SIZE}}", "${{env.SIZE}}"),
        ("9" * 5000, "9" * 5000),
    ],
)
def test_scalars_are_those_of_yaml_1_2(written: str, value: object, tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text(f"a: {written}\n")
    node = yamlfile.read(path).get("a")
    assert node is not None
    assert (node.value, type(node.value), node.line) == (value, type(value), 1)


def test_nodes_know_their_lines_and_keys(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("\ufeffa:\n  - x: 1\n    y: &y\n      z: 2\n  - *y\n")
    (first, second) = list(yamlfile.read(path).get("a").entries())  # type: ignore[union-attr]
    assert (first.key, first.line) == ("a[0]", 2)
    inner: Any = first.get("y")
    assert inner.get("z").key == "a[0].y.z"
    assert inner.get("z").line == 4
    assert second.get("z").key == "a[1].z"  # type: ignore[union-attr]
    assert second.get("nothing") is None


def test_tags_build_no_objects(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text('a: !!python/object/apply:os.system ["touch /nowhere/x"]\nb: !Sub "${x}"\n')
    top = yamlfile.read(path)
    assert [node.tag for _, node in top.items()][1] == "!Sub"
    with pytest.raises(
        tmpguard.ConfigurationError, match=r":2: b: expected a string, found !Sub \(not resolved here\)"
    ):
        top.get("b").text()  # type: ignore[union-attr]


def test_a_project_of_this_size_is_read_in_no_time(tmp_path: Path) -> None:
    path = tmp_path / "file.yaml"
    path.write_text("a:\n" + "".join(f"  - name: function-{number}\n" for number in range(2000)))
    began = time.monotonic()
    assert len(yamlfile.read(path).get("a").value) == 2000  # type: ignore[union-attr]
    assert time.monotonic() - began < 2


def chain(length: int) -> str:
    """Lists inside one another by aliases, deeper than any stack."""
    links = [f"a{number + 1}: &a{number + 1} [*a{number}]\n" for number in range(length)]
    return "a0: &a0 [lol]\n" + "".join(links) + f"backend:\n  functions: *a{length}\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bomb(40), ":5: backend.functions[0]: expected a mapping, found a list"),
        (
            bomb(40).replace("functions: *a5", "classes: *a40"),
            ": backend.classes[0]: expected a mapping, found a list",
        ),
        (bomb(40).replace("functions: *a5", "path: *a40"), ": backend.path: expected a string, found a list"),
        (
            bomb(40).replace("functions: *a5", "functions: [{name: *a40}]"),
            ": backend.functions[0].name: expected a string, found a list",
        ),
        (
            bomb(40).replace("functions: *a5", "functions: [{name: x, storageSize: *a40}]"),
            ".storageSize: a list: give a whole",
        ),
        (chain(2000), ": backend.functions[0]: expected a mapping, found a list"),
    ],
)
def test_aliases_cost_nothing_whatever_they_expand_to(content: str, said: str, tmp_path: Path) -> None:
    """Nine to the power of forty values, in the places that are read."""
    path = tmp_path / "genezio.yaml"
    path.write_text(content)
    began = time.monotonic()
    with pytest.raises(tmpguard.ConfigurationError) as failed:
        tmpguard.Guard.from_genezio(path)
    assert said in str(failed.value)
    assert said in str(check.check(str(path), "free").errors)
    assert time.monotonic() - began < 2


def test_an_anchor_is_used_as_often_as_the_template_likes(tmp_path: Path) -> None:
    variables = "".join(f"      KEY_{number}: value-{number}\n" for number in range(60))
    functions = "".join(
        f"  F{number}:\n    Type: AWS::Serverless::Function\n    Properties: {{Environment: *all}}\n"
        for number in range(200)
    )
    path = tmp_path / "template.yaml"
    path.write_text(f"x-common:\n  Variables: &all\n{variables}Resources:\n{functions}")
    found = sam.read(path)
    assert [one.name for one in found] == [f"F{number}" for number in range(200)]
    environment: Any = found[199].node.get("Properties").get("Environment")  # type: ignore[union-attr]
    assert len(environment.mapping()) == 60
    assert environment.key == "Resources.F199.Properties.Environment"
    assert environment.get("KEY_59").value == "value-59"


def test_a_guard_imports_neither_yaml_nor_pathspec_nor_what_only_errors_need(tmp_path: Path) -> None:
    code = """
import tmpguard, tmpguard.asgi, tmpguard.wsgi
tmpguard.Guard(bundle=None)
tmpguard.wsgi.TmpGuardMiddleware(None, bundle=None)
with tmpguard.invocation(bundle=None):
    open("/tmp/file", "w").close()
unused = ("yaml", "pathspec", "click", "rich", "difflib", "hashlib", "tmpguard.core.mounts.wildmatch")
print(*[name for name in unused if name in sys.modules], "imported")
"""
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n{code}"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("imported\n", "")


def test_without_pyyaml_the_error_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "genezio.yaml").write_text("a: 1\n")
    code = """
sys.modules["yaml"] = None
import tmpguard
try:
    tmpguard.Guard.from_genezio(sys.argv[1])
except tmpguard.ConfigurationError as exc:
    print(exc)
"""
    assert "pip install pyyaml" in run_python(code, tmp_path / "genezio.yaml")
