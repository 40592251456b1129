"""What each serverless platform gives a function for ``/tmp``: data, with its source and the day it was read.

Sizes are in whole MB (1 MB = 1,048,576 bytes). A row says what the platform's own documentation says, and
where that is silent, the row is, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple


class Platform(NamedTuple):
    """The ``/tmp`` of one platform."""

    name: str
    #: The size of a function that asks for none.
    default: int
    smallest: int
    #: None: any size, or one that depends on the ``plans``.
    largest: int | None
    #: Sizes are multiples of it above the smallest; None where only those of ``inodes`` can be had.
    step: int | None
    #: May an invocation find what an earlier one of the same warm instance left?
    survives: bool
    #: The titles of the pages of the platform's documentation.
    source: str
    #: The day on which they were read, year-month-day.
    read: str
    #: The largest size of each plan; None: any (C3.1). Empty where the platform has no plans.
    plans: Mapping[str, int | None] = MappingProxyType({})
    #: How many files each size may hold, where that is limited, and then these are all the sizes.
    inodes: Mapping[int, int] = MappingProxyType({})


PLANS: Final[Mapping[str, int | None]] = MappingProxyType({"free": 128, "pro": 512, "enterprise": None})

_ROWS: Final = (
    Platform(
        name="genezio",
        default=128,
        smallest=1,
        largest=None,
        step=1,
        survives=False,
        source="Genezio, DeployApps documentation: Temporary Storage; DeployApps Configuration File",
        read="2026-11-23",
        plans=PLANS,
    ),
    Platform(
        name="aws-lambda",
        default=512,
        smallest=512,
        largest=10_240,
        step=1,
        survives=True,
        source="AWS Lambda Developer Guide: EphemeralStorage; Understanding the Lambda programming model",
        read="2026-11-23",
    ),
    Platform(
        name="oci-functions",
        default=32,  # of a function of 128 MB of memory, which is the smallest
        smallest=32,
        largest=768,
        step=None,
        survives=True,
        source="Oracle Cloud Infrastructure, Functions: Accessing File Systems from Running Functions",
        read="2026-11-23",
        # By the function's memory: 128, 256, 512, 1,024, 2,048 and 3,072 MB.
        inodes=MappingProxyType({32: 1024, 64: 2048, 128: 4096, 256: 8192, 512: 16_384, 768: 24_576}),
    ),
    Platform(
        name="vercel",
        default=500,
        smallest=1,
        largest=500,
        step=1,
        survives=True,  # instances are reused; nothing is said of /tmp, so nothing may be relied on
        source="Vercel documentation: Runtimes, File system support; Fluid compute",
        read="2026-11-23",
    ),
    Platform(
        name="none",
        default=128,
        smallest=1,
        largest=None,
        step=1,
        survives=False,
        source="no platform: only what the options say",
        read="2026-11-23",
    ),
)

PLATFORMS: Final[Mapping[str, Platform]] = MappingProxyType({row.name: row for row in _ROWS})
