"""Two sides of a row, measured in alternation, and what is made of the numbers.

Each side lives in a process of its own. Taking the patched layer out would not do for the plain side: an
audit hook stays for the life of a process and would be charged to both. What two processes differ in by
accident (where their memory lies) is evened out by several pairs of them; what the machine does meanwhile, by
alternating in rounds of a few thousandths of a second and taking the median of the rounds' ratios.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

Batch = Callable[[int], None]
"""Does the row's operation so many times."""


class Prepare(Protocol):
    """Sets a row up in the worker's process, as a generator.

    It yields the batch to be timed and cleans up when it is resumed. ``directory`` is on the real disk, empty
    and the worker's own.
    """

    def __call__(self, guarded: bool, directory: str) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Row:
    """One line of the table: an operation that is measured in two ways."""

    name: str
    bound: float | None
    """The largest ratio that is allowed; None: measured for information."""
    prepare: Prepare
    seconds: float = 0.004
    """How long a batch of the plain side should take, about."""
    rounds: int = 100
    both_guarded: bool = False
    """Whether the other side is guarded as well, with less to do."""


@dataclass(frozen=True)
class Measured:
    """The result of a row. Times are seconds for one operation."""

    row: Row
    ratio: float
    low: float
    high: float
    plain: float
    guarded: float

    @property
    def verdict(self) -> str:
        if self.row.bound is None:
            return ""
        return "ok" if self.passed else "**beyond**"

    @property
    def passed(self) -> bool:
        return self.row.bound is None or self.ratio <= self.row.bound


@dataclass
class Samples:
    """The rounds of one row over all pairs of processes."""

    plain: list[float]
    guarded: list[float]
    ratios: list[float]

    def summary(self, row: Row) -> Measured:
        quarters = statistics.quantiles(self.ratios, n=4, method="inclusive")
        return Measured(
            row,
            ratio=statistics.median(self.ratios),
            low=quarters[0],
            high=quarters[2],
            plain=statistics.median(self.plain),
            guarded=statistics.median(self.guarded),
        )


class Side(Protocol):
    """A worker that has prepared a row."""

    def time(self, count: int) -> float:
        """Seconds that ``count`` operations took."""
        ...


def calibrate(side: Side, seconds: float) -> int:
    """How many operations of ``side`` take about ``seconds``; at least one."""
    count = 1
    while (taken := side.time(count)) < seconds / 4:
        count *= 4
    return max(1, round(count * seconds / taken))


def alternate(plain: Side, guarded: Side, count: int, rounds: int, into: Samples) -> None:
    """Time ``count`` operations of both sides ``rounds`` times; who goes first changes with each round."""
    for number in range(rounds):
        if number % 2:
            guarded_time = guarded.time(count)
            plain_time = plain.time(count)
        else:
            plain_time = plain.time(count)
            guarded_time = guarded.time(count)
        into.plain.append(plain_time / count)
        into.guarded.append(guarded_time / count)
        into.ratios.append(guarded_time / plain_time)
