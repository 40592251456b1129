"""A full ``/tmp`` in which one file is rewritten in place: 5,000 files against 50, both guarded."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from .measure import Batch, Row

PAGE = 4096
QUOTA_MB = 24
TIMES = 200


def _fill(files: int) -> None:
    """Fill the ``/tmp`` of the current invocation to the last byte, with so many files."""
    for number in range(files - 1):
        with open(f"/tmp/{number:04}.bin", "wb") as file:
            file.write(b"x" * PAGE)
    with open("/tmp/rest.bin", "wb", buffering=0) as rest:
        left = QUOTA_MB * (1 << 20) - (files - 1) * PAGE
        assert rest.write(b"x" * left) == left
        try:
            rest.write(b"x")
        except OSError:
            return
    raise AssertionError("/tmp is not full")


def _full(directory: str, files: int, rewrite: Callable[[str], None]) -> Iterator[Batch]:
    import tmpguard

    with tmpguard.invocation(storage_size=QUOTA_MB, scratch_root=directory, bundle=None):
        _fill(files)

        def batch(count: int) -> None:
            for _ in range(count):
                for _ in range(TIMES):
                    rewrite("/tmp/0007.bin")

        yield batch


def _in_place(path: str) -> None:
    with open(path, "r+b") as file:
        file.write(b"y" * PAGE)


def _truncated(path: str) -> None:
    with open(path, "wb") as file:
        file.write(b"z" * PAGE)


def in_place(guarded: bool, directory: str) -> Iterator[Batch]:
    """``guarded`` stands for the side with more to do here."""
    return _full(directory, 5000 if guarded else 50, _in_place)


def truncated(guarded: bool, directory: str) -> Iterator[Batch]:
    return _full(directory, 5000 if guarded else 50, _truncated)


ROWS = (
    Row(
        "full `/tmp`: one of 5,000 files rewritten in place 200 times, against 50 files",
        1.5,
        in_place,
        rounds=10,
        both_guarded=True,
    ),
    Row('full `/tmp`: the same, opened with `"wb"`', 1.5, truncated, rounds=10, both_guarded=True),
)
