"""Guards that contain children, one for each way; they are kept for all tests, as they take a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tmpguard
from tmpguard.kernel import containment


class Way(NamedTuple):
    """A way of making namespaces, and whether nsenter of util-linux enters them."""

    name: str
    nsenter: bool


WAYS = [Way("bwrap", True), Way("python", True), Way("python", False)]

Build = Callable[..., tmpguard.Guard]


class Builder:
    """Builds guards in one way, each once for the same options."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.built: dict[str, tmpguard.Guard | tmpguard.ConfigurationError] = {}

    def __call__(self, way: Way, **options: Any) -> tmpguard.Guard:
        key = f"{way} {options}"
        if key not in self.built:
            self.built[key] = self._build(way, {"scratch_root": self.root, "bundle": None, **options})
        guard = self.built[key]
        if isinstance(guard, tmpguard.ConfigurationError):
            pytest.skip(f"{way.name} is not permitted: {guard}")
        return guard

    def _build(self, way: Way, options: dict[str, Any]) -> tmpguard.Guard | tmpguard.ConfigurationError:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(containment, "WAYS", (way.name,))
            patch.setattr(containment, "NSENTER", way.nsenter)
            try:
                return tmpguard.Guard(children="contain", **options)
            except tmpguard.ConfigurationError as exc:
                return exc


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    return Builder(tmp_path_factory.mktemp("contained"))


@pytest.fixture(params=WAYS, ids=lambda way: way.name if way.nsenter else f"{way.name} alone")
def build(request: pytest.FixtureRequest, builder: Builder) -> Build:
    """Makes a guard that contains children in each of the ways."""
    return lambda **options: builder(request.param, **options)


@pytest.fixture
def build_any(builder: Builder) -> Build:
    """Makes one that does so in the first way that is permitted."""

    def make(**options: Any) -> tmpguard.Guard:
        for way in WAYS[:-1]:
            try:
                return builder(way, **options)
            except pytest.skip.Exception:
                continue
        return builder(WAYS[-1], **options)

    return make


@pytest.fixture
def inside(build: Build) -> Iterator[tmpguard.Invocation]:
    """Within an invocation of 1 MB whose children are contained, in each of the ways."""
    with build(storage_size=1).invocation() as invocation:
        yield invocation


@pytest.fixture
def inside_any(build_any: Build) -> Iterator[tmpguard.Invocation]:
    """The same in the first way that is permitted."""
    with build_any(storage_size=1).invocation() as invocation:
        yield invocation
