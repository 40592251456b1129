"""pyfakefs gives all modules a fake file system for the time of a test."""

from __future__ import annotations

from pathlib import Path

from tests.company import need
from tests.support import run_python

need("pyfakefs")

TESTS = """
import os
from os import listdir
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

def index(request):
    open("/tmp/a", "w").write("x")
    names = sorted(os.listdir("/tmp"))
    return PlainTextResponse(f"{open('/tmp/a').read()}{names}{os.stat('/tmp/a').st_size}")

client = TestClient(Starlette(routes=[Route("/", index)]))

def test_first():
    assert client.get("/").text == "x['a', 'package']1"

def test_fake(fs):
    fs.create_file("/a/b", contents="z")
    assert open("/a/b").read() == "z"
    assert listdir("/a") == os.listdir("/a") == ["b"]
    assert os.stat("/a/b").st_size == 1

def test_last():
    assert client.get("/").text == "x['a', 'package']1"
    assert not os.path.exists("/a/b")
"""


def test_fake_file_systems_and_guarded_requests_take_turns(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "test_fakes.py").write_text(TESTS)
    options = ["-q", "--tmpguard", "-p", "no:cacheprovider", "-p", "no:randomly", "-W", "ignore"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


def test_a_guard_can_be_built_while_the_file_system_is_a_fake_one() -> None:
    code = """
import os, warnings
warnings.simplefilter("ignore")
import tmpguard, tmpguard.guard
from pyfakefs.fake_filesystem_unittest import Patcher
before = os.mkdir, open
with Patcher() as patcher:
    patcher.fs.create_dir("/fake")
    guard = tmpguard.Guard(storage_size=1, bundle=None)
    print(os.listdir("/fake"))
with guard.invocation():
    os.mkdir("/tmp/new")
    print(os.listdir("/tmp"))
tmpguard.uninstall()
print(before[0] is os.mkdir, before[1] is open)
"""
    assert run_python(code) == "[]\n['new']\nTrue True\n"
