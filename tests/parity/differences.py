"""Runs scripts in both places and tells where they differ."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.parity import archives, further, handles, kernel, names, places, scripts, session, trees
from tests.parity.scripts import Call, Outcome

#: Scripts that differed once, one on each line, each with the setting in which it did.
KEPT = Path(__file__).with_name("kept_scripts.jsonl")

#: What is not compared, and why it cannot be equal. Everything else is.
NORMALISED = {
    "numbers of inodes, descriptors and devices": "they are given by each kernel and process as they come",
    "times but those set by a call": "the two runs happen at different times",
    "a directory's st_size and st_nlink": "what they tell is every file system's own affair",
    "extended attributes and removed working directories where files are limited": "a tmpfs counts the "
    "former as inodes, and the latter until they are left",
    "st_blocks": "what the disk allocates; what is charged is compared by the free space",
    "the order of listings": "every file system's own affair; libraries that go by one get it sorted",
    "what sendfile reads of the file that it writes": "pages are read while they are written",
    "where lseek finds data and holes after space was allocated": "what is allocated and unwritten counts as "
    "either",
    "lseek in a directory": "what there is to seek is the file system's own affair",
    "entries of a listing, once a link on the way to it is gone": "they are looked up where they were listed",
    "which of its two names a copy of a bundled file's descriptor has": "both have one file and one mount "
    "behind them, and the kernel tells nobody of which descriptor another is a copy",
    "random names of tempfile": "replaced by counted ones",
}


class Difference(NamedTuple):
    """The first call at which a script's outcomes differ."""

    script: list[Call]
    number: int
    kernel: Any
    guard: Any

    @property
    def bucket(self) -> str:
        """Differences that are probably the same one have the same."""
        call = self.script[self.number][0] if self.number < len(self.script) else "end"
        shown = [str(told).split(" ")[:2] for told, *_ in (self.kernel, self.guard)]
        usage = self.kernel[0] == self.guard[0]
        return f"{call} {'usage' if usage else shown}"

    def __str__(self) -> str:
        lines = [f"    {json.dumps(call)}" for call in self.script]
        at = self.script[self.number] if self.number < len(self.script) else "closing, and what is there then"
        lines += [f"  differs at call {self.number}: {json.dumps(at)}"]
        lines += [f"    kernel:   {told}" for told in _only(self.kernel, self.guard)]
        lines += [f"    tmpguard: {told}" for told in _only(self.guard, self.kernel)]
        return "\n".join(lines)


def _only(one: Any, other: Any) -> list[Any]:
    """The outcome, or of a tree only what the other one has not."""
    if isinstance(one[0], list):
        return [entry for entry in one[0] if entry not in other[0]] + [one[1]]
    return [one]


class Setting(NamedTuple):
    """What both places have in common: how many files ``/tmp`` holds (0: any number), and as which user the
    scripts run (0: this one)."""

    files: int = 0
    user: int = 0


class Pair:
    """A child on the kernel's set-up and one with the guard, with the same project."""

    def __init__(self, place: str, setting: Setting) -> None:
        self.setting = setting
        self.project = os.path.join(place, "outer", "project")
        os.makedirs(self.project)
        places.make_project(self.project)
        os.mkdir(os.path.join(place, "scratch"))
        if setting.user:
            for parent, directories, files in os.walk(place):
                for name in (".", *directories, *files):
                    os.lchown(os.path.join(parent, name), setting.user, setting.user)
        self._place = place
        self._start()

    def _start(self) -> None:
        modules = (places, session, handles, names, trees, further, archives, scripts)
        self.kernel = kernel.child(modules, self.project, *self.setting)
        job = {
            "project": self.project,
            "throw_away": self._place,
            "scratch": os.path.join(self._place, "scratch"),
            "size": kernel.TMPFS_BYTES,
            **self.setting._asdict(),
        }
        self.guard = kernel.Child(["-X", "utf8", "-m", "tests.parity.guarded"], job)

    def outcomes(self, script: list[Call], watched: bool) -> tuple[list[Outcome], list[Outcome]]:
        for child in (self.kernel, self.guard):
            child.ask("run", script, self.project, watched)
        return self.kernel.answer(), self.guard.answer()

    def difference(self, script: list[Call], watched: bool = True) -> Difference | None:
        """Where the outcomes differ for the first time."""
        try:
            kernels, guards = self.outcomes(script, watched)
        except kernel.NoAnswer as exc:
            self.close()
            self._start()
            return Difference(script, 0, [f"NoAnswer {exc}", None], [f"NoAnswer {exc}", None])
        for number, (expected, found) in enumerate(zip(kernels, guards, strict=True)):
            if expected != found:
                return Difference(script, number, expected, found)
        return None

    def shrunk(self, difference: Difference, watched: bool) -> Difference:
        """A script of fewer calls that differs in the same way."""
        best = difference
        end = min(len(best.script), best.number + 1)
        tail = self.difference(best.script[:end], watched)
        if tail is not None and tail.bucket == best.bucket:
            best = tail
        position = 0
        while position < len(best.script):
            shorter = best.script[:position] + best.script[position + 1 :]
            found = self.difference(shorter, watched)
            if found is not None and found.bucket == best.bucket:
                best = found
            else:
                position += 1
        return best

    def close(self) -> None:
        self.kernel.close()
        self.guard.close()


@contextlib.contextmanager
def pair(setting: Setting) -> Iterator[Pair]:
    # Outside /tmp, which the kernel's set-up covers.
    with tempfile.TemporaryDirectory(prefix="parity-", dir="/var/tmp") as place:
        made = Pair(place, setting)
        try:
            yield made
        finally:
            made.close()


def kept() -> list[tuple[Setting, list[Call]]]:
    """The scripts that differed once, and the setting of each."""
    found = []
    for line in KEPT.read_text().splitlines():
        row = json.loads(line)
        script = row.pop("script")
        found.append((Setting(**row), script))
    return found


def keep(found: Sequence[Difference], setting: Setting) -> None:
    """Add their scripts to those that are always run."""
    row = {name: value for name, value in setting._asdict().items() if value}
    with KEPT.open("a") as file:
        file.writelines(json.dumps({**row, "script": difference.script}) + "\n" for difference in found)
