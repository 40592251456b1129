"""Runs scripts in both places and reports where their outcomes differ."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.parity import archives, further, handles, kernel, names, newer, places, scripts, session, trees
from tests.parity.scripts import Call, Outcome

#: Scripts whose outcomes differed once, one per line, each with its setting.
KEPT = Path(__file__).with_name("kept_scripts.jsonl")

#: What is not compared, and why it cannot be equal. Everything else is compared.
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
    "ETXTBSY for the program of a running process": "where its whole file system is read-only, the "
    "kernel says EROFS, too",
    "the message of a RecursionError": "it tells in which operation the interpreter's limit was reached",
    "random names of tempfile": "replaced by counted ones",
}


class Difference(NamedTuple):
    """The first call of a script whose outcomes differ."""

    script: list[Call]
    number: int
    kernel: Any
    guard: Any

    @property
    def bucket(self) -> str:
        """The same for differences that probably have the same cause."""
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
    """The outcome; for a tree, only the entries that the other one lacks."""
    if isinstance(one[0], list):
        return [entry for entry in one[0] if entry not in other[0]] + [one[1]]
    return [one]


class Setting(NamedTuple):
    """What both places have in common.

    ``files`` is the number of files that fit into ``/tmp`` (0: no limit). ``user`` is the id of the user that
    runs the scripts (0: the current one).
    """

    files: int = 0
    user: int = 0


class Pair:
    """A child process on the kernel's set-up and one with a guard. Both have the same project."""

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
        modules = (places, session, handles, names, trees, further, archives, newer, scripts)
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
        """The first difference of the outcomes, if there is any."""
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
        """A script with fewer calls that differs in the same way."""
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


class WatchedPair(Pair):
    """A child process without a guard, and one with a guard that only watches (C2.5).

    The project is writable.
    """

    def _start(self) -> None:
        with open(os.path.join(os.path.dirname(self.project), "ignore"), "w") as ignore:
            ignore.write("tree/\nfile\n")
        job = {
            "project": self.project,
            "scratch": os.path.join(self._place, "scratch"),
            "size": kernel.TMPFS_BYTES,
        }
        command = ["-X", "utf8", "-m", "tests.parity.watched"]
        self.kernel = kernel.Child(command, {**job, "watches": False})
        self.guard = kernel.Child(command, {**job, "watches": True})


@contextlib.contextmanager
def pair(setting: Setting, kind: type[Pair] = Pair) -> Iterator[Pair]:
    # Outside /tmp, which the kernel's set-up covers.
    with tempfile.TemporaryDirectory(prefix="parity-", dir="/var/tmp") as place:
        made = kind(place, setting)
        try:
            yield made
        finally:
            made.close()


def kept() -> list[tuple[Setting, list[Call]]]:
    """The kept scripts and their settings."""
    found = []
    for line in KEPT.read_text().splitlines():
        row = json.loads(line)
        script = row.pop("script")
        found.append((Setting(**row), script))
    return found


def keep(found: Sequence[Difference], setting: Setting) -> None:
    """Add the scripts of the differences to the kept ones."""
    row = {name: value for name, value in setting._asdict().items() if value}
    with KEPT.open("a") as file:
        file.writelines(json.dumps({**row, "script": difference.script}) + "\n" for difference in found)
