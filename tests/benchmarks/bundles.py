"""A bundle of 50,000 files with a ``.genezioignore``: a walk of it, and making a guard for it.

It is made once for all the pairs of processes, since it is only read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from .measure import Batch, Row

DIRECTORIES = 500
FILES = 100

RULES = """\
# not deployed
__pycache__/
*.csv
!keep.csv
*.tmp
/local_settings.py
.env
tests/fixtures/
data-1?/private
"""


def _bundle(directory: str, directories: int = DIRECTORIES) -> str:
    """A project of so many directories of 100 files, of which two are ignored in each."""
    top = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(directory))), f"bundle-{directories}")
    if os.path.exists(top):
        return top
    os.mkdir(top)
    for number in range(directories):
        branch = f"{top}/data-{number}"
        os.mkdir(branch)
        names = [f"module_{leaf:02}.py" for leaf in range(FILES - 3)]
        for name in (*names, "rows.csv", "keep.csv", "left.tmp"):
            with open(f"{branch}/{name}", "wb"):
                pass
    with open(f"{top}/.genezioignore", "w") as file:
        file.write(RULES)
    return top


def walk(guarded: bool, directory: str) -> Iterator[Batch]:
    top = _bundle(directory)

    def batch(count: int) -> None:
        for _ in range(count):
            for _ in os.walk(top):
                pass

    if not guarded:
        yield batch
        return
    import tmpguard

    with tmpguard.invocation(scratch_root=directory, bundle=top):
        yield batch


def start(guarded: bool, directory: str) -> Iterator[Batch]:
    """``guarded`` stands for the side with more to do here."""
    import tmpguard

    top = _bundle(directory, DIRECTORIES if guarded else 1)

    def batch(count: int) -> None:
        for _ in range(count):
            tmpguard.Guard(scratch_root=directory, bundle=top)

    yield batch


ROWS = (
    Row("bundle of 50,000 files, 1,000 of them ignored: `os.walk`", 1.3, walk, rounds=10),
    Row(
        "bundle of 50,000 files: making the guard, against a bundle of 100",
        1.05,
        start,
        both_guarded=True,
    ),
)
