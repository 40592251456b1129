"""A cold start is paid for in imports: what the first invocation does not need, it does not import."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import PROJECT, run_python

#: Slow to import, and for rare cases or for others.
RARE = (
    *("argparse", "asyncio", "ctypes", "dataclasses", "difflib", "dis", "email", "html", "http"),
    *("inspect", "json", "multiprocessing", "ssl", "subprocess", "unittest", "uuid", "xml"),
    *("click", "pathspec", "rich", "yaml"),
    *("tmpguard.config.genezio", "tmpguard.config.sam", "tmpguard.config.yamlfile", "tmpguard.emulator"),
    *("tmpguard.interpose.sqlite.vfs", "tmpguard.kernel.containment", "tmpguard.testing"),
)


def test_the_first_invocation_imports_nothing_that_it_does_not_need(
    scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(PROJECT)  # the bundle, in which the scratch root must not be
    code = """
import logging, sys  # every server has that, and since 3.14 it imports some of these
before = set(sys.modules)
import tmpguard
guard = tmpguard.Guard(scratch_root=sys.argv[1])
with guard.invocation():
    with open("/tmp/file", "w") as file:
        file.write("text")
print(sorted((set(sys.modules) - before) & set(sys.argv[2:])))
"""
    assert run_python(code, scratch_root, *RARE) == "[]\n"


def test_a_project_file_that_is_not_applied_costs_no_imports(
    tmp_path: Path, scratch_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "serverless.yml").write_text("service: shop\nprovider: aws\n")
    monkeypatch.chdir(project)
    code = """
import logging, sys
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
before = set(sys.modules)
from tmpguard.guard import guard_from
guard_from(None, {"scratch_root": sys.argv[1]})  # as a middleware does
print(sorted((set(sys.modules) - before) & set(sys.argv[2:])))
"""
    said, imported = run_python(code, scratch_root, *RARE).splitlines()
    assert said.startswith("tmpguard: serverless.yml is not applied: ")
    assert imported == "[]"


def test_signatures_are_kept_where_inspect_is_imported_after_the_layer(scratch_root: Path) -> None:
    """C7.2"""
    code = """
import os, sys, tmpguard
guard = tmpguard.Guard(scratch_root=sys.argv[1], bundle=None)
import inspect
for wrapper in (os.stat, os.lstat, open):
    print(inspect.signature(wrapper), *inspect.getfullargspec(wrapper).args)
"""
    plain = """
import inspect, os
for function in (os.stat, os.lstat, open):
    print(inspect.signature(function), *inspect.getfullargspec(function).args)
"""
    assert run_python(code, scratch_root) == run_python(plain)
