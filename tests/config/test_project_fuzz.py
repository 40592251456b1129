"""Whatever a project file holds: a guard, or one clear error. Whatever is done in /tmp: its rest is told."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tmpguard
from tmpguard.config import genezio, sam, serverless, yamlfile
from tmpguard.config.check import check
from tmpguard.config.platforms import PLATFORMS
from tmpguard.config.project import Deployable

PAGE = 4096
FEW = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)

KEYS = st.sampled_from(
    (
        *("backend", "functions", "classes", "path", "name", "storageSize", "entry", "handler", "container"),
        *("nextjs", "other", "Type", "Size", "CodeUri", "maxConcurrentRequestsPerInstance", "Resources"),
        *("Globals", "Function", "Properties", "EphemeralStorage", "Metadata", "aws:asset:path", "Code"),
        *("service", "provider", "package", "patterns", "exclude", "ephemeralStorageSize", "custom", "image"),
    )
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 20_000),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([".", "..", "/", "AWS::Serverless::Function", "x", "", "\0", "é", "${{x}}", "~"]),
    st.sampled_from(["aws", "!**", "{a,b", "[z-a]", "${self:custom}", "${self:custom.x}", "${file(x.yml)}"]),
    st.text(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4), st.dictionaries(KEYS, inner)
    ),
    max_leaves=12,
)


def understood(path: Path, call: Callable[[], Any]) -> Any:
    """What ``call`` gives, or None where it refuses the file: in one line, with its name."""
    try:
        return call()
    except tmpguard.ConfigurationError as exc:
        said = str(exc)
    assert said.startswith(f"{path}:")
    assert "\n" not in said
    return None


def _serverless(path: Path) -> list[Deployable]:
    return serverless.functions_of(yamlfile.read(path))


@FEW
@given(value=VALUES | st.dictionaries(KEYS, VALUES).map(lambda given: {"provider": "aws", **given}))
def test_a_file_of_any_structure_is_understood_or_refused(value: Any, tmp_path: Path) -> None:
    path = tmp_path / "genezio.yaml"
    path.write_text(json.dumps(value))
    readers = ((genezio.read, "genezio"), (sam.read, "aws-lambda"), (_serverless, "aws-lambda"))
    for read, platform in readers:
        row = PLATFORMS[platform]
        for one in understood(path, partial(read, path)) or ():
            size = understood(path, partial(one.size, "free", row))
            assert size is None or row.smallest <= size <= (row.largest or 128)


@FEW
@given(
    data=st.one_of(
        st.binary(max_size=200),
        st.text("ab:-{}[]&*!|>'\"#%@`,?\n\t 01.~<\ud7ff\x85\ufeff", max_size=80).map(str.encode),
    )
)
def test_a_file_of_any_bytes_is_read_or_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "genezio.yaml"
    path.write_bytes(data)
    understood(path, partial(yamlfile.read, path))


@settings(FEW, max_examples=40)
@given(names=st.lists(st.binary(min_size=1, max_size=8), max_size=6), rules=st.binary(max_size=40))
def test_a_bundle_of_any_names_is_looked_through(names: list[bytes], rules: bytes, tmp_path: Path) -> None:
    project = tmp_path / "project"
    shutil.rmtree(project, ignore_errors=True)
    project.mkdir()
    (project / "genezio.yaml").write_text("backend: {functions: [{name: x}]}\n")
    (project / ".genezioignore").write_bytes(rules)
    made = set()
    for name in names:
        with suppress(OSError, ValueError):
            path = os.path.join(os.fsencode(project), name.replace(b"/", b"_"))
            os.close(os.open(path, os.O_CREAT | os.O_EXCL))
            made.add(path)
    result = check(str(project / "genezio.yaml"), "free")
    (one,) = result.surveys
    assert result.errors == ()
    assert one.files + sum(left_out.paths for left_out in one.left_out) == len(made) + 2
    json.dumps(result.as_json())


# --- what is left behind -------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "c", "d/a", "d/b"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), NAMES, st.integers(0, 3 * PAGE)),
        st.tuples(st.just("append"), NAMES, st.integers(0, 2 * PAGE)),
        st.tuples(st.just("remove"), NAMES, st.just(0)),
        st.tuples(st.just("mkdir"), st.just("d"), st.just(0)),
        st.tuples(st.just("rmtree"), st.just("d"), st.just(0)),
    ),
    max_size=8,
)


def act(step: tuple[str, str, int]) -> None:
    what, name, size = step
    path = f"/tmp/{name}"
    with suppress(OSError):
        if what in ("write", "append"):
            with open(path, "wb" if what == "write" else "ab") as file:
                file.write(b"x" * size)
        elif what == "remove":
            os.unlink(path)
        elif what == "mkdir":
            os.mkdir(path)
        else:
            shutil.rmtree(path)


def sizes() -> dict[str, int]:
    """The pages of each entry of /tmp, by its path, as the application itself finds out."""
    found = {}
    for directory, directories, files in os.walk("/tmp"):
        for name in directories:
            found[f"{directory}/{name}"] = 0
        for name in files:
            path = f"{directory}/{name}"
            found[path] = -(-os.path.getsize(path) // PAGE) * PAGE
    return found


@settings(FEW, max_examples=60)
@given(requests=st.lists(STEPS, min_size=1, max_size=4))
def test_the_leftovers_are_what_was_not_there_before(
    requests: list[list[tuple[str, str, int]]], scratch_root: Path
) -> None:
    guard = tmpguard.Guard(lifetime="instance", storage_size=1, scratch_root=scratch_root, bundle=None)
    before: dict[str, int] = {}
    for steps in requests:
        with guard.invocation() as invocation:
            for step in steps:
                act(step)
            after = sizes()
        expected = {
            path: size - before.get(path, 0)
            for path, size in after.items()
            if path not in before or size > before[path]
        }
        assert dict(invocation.report.leftovers) == expected
        assert invocation.report.used_bytes == sum(after.values())
        assert invocation.report.files == len(after)
        before = after
    guard.end_instance()
