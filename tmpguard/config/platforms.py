"""The ``/tmp`` of each serverless platform, with the source of each row and the day it was read.

Sizes are in whole MB (1 MB = 1,048,576 bytes). A row contains only what the platform's own documentation
states.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

#: The project file of the platform genezio.
PROJECT_FILE: Final = "genezio.yaml"

#: The directory that ``cdk synth`` writes, and the file in it that makes it one.
CDK_DIRECTORY: Final = "cdk.out"
CDK_MANIFEST: Final = "manifest.json"

#: The project files of tools that deploy to AWS, in the order in which they are looked for. The Serverless
#: Framework looks for its own in the same order.
AWS_PROJECT_FILES: Final = (
    *("serverless.yml", "serverless.yaml", "serverless.json"),
    *("template.yaml", "template.yml", "template.json"),
    CDK_DIRECTORY,
)


class Platform(NamedTuple):
    """The ``/tmp`` of one platform."""

    name: str
    #: The size of a function that does not give one.
    default: int
    smallest: int
    #: None if there is no limit, or if it depends on the ``plans``.
    largest: int | None
    #: Sizes above the smallest are multiples of this; None if only the sizes in ``inodes`` exist.
    step: int | None
    #: Whether an invocation may find files that an earlier one of the same warm instance left.
    survives: bool
    #: The titles of the pages of the platform's documentation.
    source: str
    #: The day on which the pages were read, year-month-day.
    read: str
    #: The largest size of each plan; None for no limit (C3.1). Empty if the platform has no plans.
    plans: Mapping[str, int | None] = MappingProxyType({})
    #: The limit on files for each size. Empty if there is none; otherwise these are all the sizes.
    inodes: Mapping[int, int] = MappingProxyType({})
    #: True if the project's files are visible below ``/tmp/package`` (C5.1).
    package: bool = False
    #: True if there is a ``/dev/shm`` (C1.6).
    shared_memory: bool = True


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
        package=True,
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
        shared_memory=False,
    ),
    Platform(
        name="oci-functions",
        default=32,  # for a function with 128 MB of memory, the smallest
        smallest=32,
        largest=768,
        step=None,
        survives=True,
        source="Oracle Cloud Infrastructure, Functions: Accessing File Systems from Running Functions",
        read="2026-11-23",
        # For functions with 128, 256, 512, 1,024, 2,048 and 3,072 MB of memory.
        inodes=MappingProxyType({32: 1024, 64: 2048, 128: 4096, 256: 8192, 512: 16_384, 768: 24_576}),
    ),
    Platform(
        name="vercel",
        default=500,
        smallest=1,
        largest=500,
        step=1,
        survives=True,  # instances are reused; /tmp is not mentioned, so nothing may be relied on
        source="Vercel documentation: Runtimes, File system support; Fluid compute",
        read="2026-11-23",
        shared_memory=False,
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
