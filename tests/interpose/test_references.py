"""Who took references to the originals: found without looking into every class and every default.

Each test runs in an interpreter of its own, in which nobody but the test has taken any.
"""

from __future__ import annotations

import pytest

from tests.support import run_python

pytestmark = pytest.mark.usefixtures("uninstalled")

#: Installs the layer and prints whether that took a search in depth.
ASK = """
import gc
from tmpguard.interpose import install, references
asked = []
def reaches_in_depth(search, original=references.Search.reaches_in_depth):
    asked.append(original(search))
    return asked[-1]
references.Search.reaches_in_depth = reaches_in_depth
gc.collect()
install.install()
print(asked)
"""

IN_DEPTH = {
    "a default": "import os\ndef function(remove=os.remove): ...\n",
    "a method's default": "import os\nclass Kind:\n    def method(self, remove=os.remove): ...\n",
    "a default of a type alone": "import io\ndef function(raw=io.FileIO): ...\n",
    "a class attribute": "import os\nclass Kind:\n    make = os.mkdir\n",
    "a class attribute, a type": "import io\nclass Kind:\n    raw = io.FileIO\n",
    "a static method": "import os\nclass Kind:\n    make = staticmethod(os.mkdir)\n",
    "a default of a module with two names": "import os\ndef function(is_mount=os.path.ismount): ...\n",
    "a default beside a module that is known by two names": (
        "import os, sys, types\n"
        "module = sys.modules['one'] = sys.modules['two'] = types.ModuleType('one')\n"
        "module.make = os.mkdir\n"
        "def function(make=os.mkdir): ...\n"
    ),
    "what the collector is told to forget": "import gc, os\ngc.freeze()\n",
}

AT_HAND = {
    "nothing": "",
    "names": "import os\nfrom os import mkdir, stat\nfrom io import FileIO, open as io_open\nmake = mkdir\n",
    "the modules of the library that have some": "import subprocess, tempfile, shutil, logging, zipfile\n",
    "a table": "import os\ntable = {'make': os.mkdir, 'nested': {'open': open}}\n",
    "a default of keywords": "import os\ndef function(*, make=os.mkdir): ...\n",
    "a class derived from one": "import io\nclass Raw(io.FileIO): ...\nclass More(Raw): ...\n",
}


@pytest.mark.parametrize("kind", IN_DEPTH)
def test_references_that_only_a_search_in_depth_finds(kind: str) -> None:
    """C6.1"""
    assert run_python(IN_DEPTH[kind] + ASK) == "[True]\n"


@pytest.mark.parametrize("kind", AT_HAND)
def test_a_search_in_depth_is_made_for_nothing_else(kind: str) -> None:
    assert run_python(AT_HAND[kind] + ASK) == "[False]\n"


def test_what_a_module_took_by_name_later_is_found_without_one() -> None:
    """C6.1: by a module that was looked through before."""
    code = """
import os, sys, types
from tmpguard.interpose import install
module = sys.modules["module"] = types.ModuleType("module")
install.install()
install.uninstall()
module.make = os.mkdir
install.install()
print(module.make is os.mkdir is not sys.modules["posix"].mkdir)
install.uninstall()
print(module.make is sys.modules["posix"].mkdir)
"""
    assert run_python(code) == "True\nTrue\n"


def test_a_table_with_nothing_but_a_function_of_a_module_with_two_names_is_found() -> None:
    """C6.1: os.path is posixpath."""
    code = """
import os
table = {"is_mount": os.path.ismount}
import tmpguard
with tmpguard.Guard(bundle=None).invocation():
    print(table["is_mount"] is os.path.ismount, table["is_mount"]("/tmp"))
"""
    assert run_python(code) == "True True\n"
