"""Each platform's sizes and limits are those of the table, and a wrong one is refused with the way out."""

from __future__ import annotations

import re
from typing import Any

import pytest

import tmpguard
from tests.config.test_options import refused
from tests.docs import platforms as platforms_doc
from tmpguard.config.platforms import PLATFORMS

MB = 1_048_576


def built(**options: Any) -> tmpguard.Guard:
    return tmpguard.Guard(bundle=None, **options)


@pytest.mark.parametrize(
    ("platform", "size", "files"),
    [
        ("genezio", 128, None),
        ("aws-lambda", 512, None),
        ("oci-functions", 32, 1024),
        ("vercel", 500, None),
        ("none", 128, None),
    ],
)
def test_a_platform_gives_its_default_size_and_limit_of_files(
    platform: str, size: int, files: int | None
) -> None:
    guard = built(platform=platform)
    assert (guard.platform, guard.storage_size, guard.max_files) == (platform, size, files)
    assert guard.invocation().report.quota_bytes == size * MB
    assert platform in guard.size_from


@pytest.mark.parametrize(
    ("platform", "allowed"),
    [("aws-lambda", [512, 513, 10_240]), ("vercel", [1, 500]), ("none", [1, 100_000])],
)
def test_every_size_within_the_platform_s_bounds_is_taken(platform: str, allowed: list[int]) -> None:
    for size in allowed:
        assert built(platform=platform, storage_size=size).storage_size == size


@pytest.mark.parametrize(
    ("size", "files"), [(32, 1024), (64, 2048), (128, 4096), (256, 8192), (512, 16_384), (768, 24_576)]
)
def test_oci_functions_have_six_sizes_each_with_its_files(size: int, files: int) -> None:
    assert built(platform="oci-functions", storage_size=size).max_files == files
    assert built(platform="oci-functions", storage_size=size, max_files=7).max_files == 7


@pytest.mark.parametrize(
    ("platform", "size", "said"),
    [
        ("aws-lambda", 511, ["storage_size=511", "whole number of MB", "from 512 to 10240"]),
        ("aws-lambda", 10_241, ["10241 MB is over the 10240 MB of aws-lambda", "storage_size=10240"]),
        ("aws-lambda", "1024", ["storage_size='1024'", "from 512 to 10240"]),
        ("aws-lambda", 512.0, ["storage_size=512.0", "whole number"]),
        (
            "oci-functions",
            100,
            ["100 MB is not a size that oci-functions offers", "32, 64, 128, 256, 512 and 768"],
        ),
        ("oci-functions", 31, ["storage_size=31", "32, 64, 128, 256, 512 and 768"]),
        ("oci-functions", 1024, ["over the 768 MB"]),
        ("vercel", 501, ["501 MB is over the 500 MB of vercel"]),
        ("none", 0, ["storage_size=0", "1 or more"]),
        ("none", True, ["storage_size=True"]),
    ],
)
def test_a_size_that_a_platform_has_not_is_refused(platform: str, size: object, said: list[str]) -> None:
    refused(*said, platform=platform, storage_size=size)


def test_an_unknown_platform_is_refused_with_those_there_are() -> None:
    for platform in ("Genezio", "aws", "", None, 1, ["none"]):
        refused(f"platform={platform!r}", *(f'"{name}"' for name in PLATFORMS), platform=platform)


def test_a_plan_is_refused_where_the_platform_has_none() -> None:
    for platform in PLATFORMS:
        if platform != "genezio":
            refused("plan='pro'", f'"{platform}"', "leave it out", platform=platform, plan="pro")
            built(platform=platform, plan="free")


def test_the_limit_of_files_of_a_platform_is_kept() -> None:
    with built(platform="oci-functions").invocation() as invocation:
        for number in range(1024):
            open(f"/tmp/{number}", "x").close()
        with pytest.raises(OSError, match="No space left"):
            open("/tmp/one more", "x")
    assert invocation.report.files == 1024


def test_the_repr_names_the_platform_where_it_is_not_genezio() -> None:
    assert repr(built(platform="vercel")) == "<Guard storage_size=500 platform='vercel' bundle=None>"


# --- TMPGUARD_STORAGE_SIZE -----------------------------------------------------------------------------


def test_the_environment_gives_the_size_where_no_option_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPGUARD_STORAGE_SIZE", "64")
    guard = built()
    assert (guard.storage_size, guard.size_from) == (64, "TMPGUARD_STORAGE_SIZE in the environment")
    assert built(storage_size=32).storage_size == 32
    monkeypatch.setenv("TMPGUARD_STORAGE_SIZE", "256")
    assert built(plan="pro").storage_size == 256


@pytest.mark.parametrize("value", ["", "0", "-1", "12.5", "64MB", " 64", "true", "٦٤", "0x40"])
def test_a_wrong_size_in_the_environment_names_the_variable(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPGUARD_STORAGE_SIZE", value)
    refused("TMPGUARD_STORAGE_SIZE in the environment: ", "whole number of MB, from 1 to 128")
    built(storage_size=1)  # it is not asked


def test_a_size_over_the_plan_in_the_environment_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPGUARD_STORAGE_SIZE", "256")
    said = refused("TMPGUARD_STORAGE_SIZE", "256 MB is over the free plan's 128 MB")
    assert said.endswith('plan="pro" allows 512')


# --- the table -----------------------------------------------------------------------------------------


def test_every_platform_has_a_source_and_the_day_it_was_read() -> None:
    for name, row in PLATFORMS.items():
        assert row.name == name
        assert row.source
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", row.read)
        assert row.largest is None or row.smallest <= row.default <= row.largest
        assert not row.inodes or list(row.inodes) == sorted(row.inodes)


def test_the_documentation_has_the_table_of_the_code() -> None:
    assert platforms_doc.PAGE.read_text() == platforms_doc.page(), "run python -m tests.docs.platforms"
