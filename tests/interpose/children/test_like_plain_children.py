"""What comes of starting a program is the same for a contained child as for a plain one (C6.3)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

import pytest

import tmpguard
from tests.interpose.children import cases
from tests.interpose.children.conftest import WAYS
from tests.support import PROJECT
from tmpguard.core.context import unguarded

PLAIN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from tests.interpose.children import cases
print(json.dumps(cases.result_of(sys.argv[2], sys.argv[3])))
"""


@pytest.fixture
def plain(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Runs a case in a process without tmpguard."""
    with tempfile.TemporaryDirectory(dir="/tmp") as here:
        yield lambda name: json.loads(
            subprocess.run(
                [sys.executable, "-c", PLAIN, PROJECT, name, here],
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
        )


#: Each case where most children are entered quickly, and those about what is handed on where none is.
PAIRS = [(WAYS[0], name) for name in cases.CASES]
PAIRS += [
    (WAYS[1], name)
    for name in ("files_and_pipes", "signals", "signal_dispositions", "environments", "spawns")
]


@pytest.mark.parametrize(
    ("build", "name"), PAIRS, ids=lambda value: str(getattr(value, "name", value)), indirect=["build"]
)
def test_it_goes_as_with_a_plain_child(plain: Any, name: str, inside: tmpguard.Invocation) -> None:
    os.mkdir("/tmp/here")
    found = cases.result_of(name, "/tmp/here")
    with unguarded():
        expected = plain(name)
    assert found == expected
