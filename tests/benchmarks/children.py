"""What a child costs: ``python -m tests.benchmarks.children`` prints the table of docs/children.md.

All are measured in one process, in turns, so that the ratios hold where the machine has other work as well.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable

import tmpguard
from tmpguard.kernel import containment

ROUNDS = 40
#: The way to make a namespace, and whether nsenter enters it, by the name of the row.
WAYS = {"bwrap": ("bwrap", True), "python": ("python", True), "python without nsenter": ("python", False)}


def timed(call: Callable[[], object]) -> float:
    begin = time.perf_counter()
    call()
    return (time.perf_counter() - begin) * 1e3


def child() -> None:
    subprocess.run(["/bin/true"], check=True)


def guards(root: str) -> dict[str, tmpguard.Guard]:
    found = {"allow": tmpguard.Guard(bundle=None, scratch_root=root)}
    for name, (way, nsenter) in WAYS.items():
        containment.WAYS, containment.NSENTER = (way,), nsenter
        try:
            found[name] = tmpguard.Guard(children="contain", bundle=None, scratch_root=root)
        except tmpguard.ConfigurationError as exc:
            print(f"{name}: {exc}")
    return found


def main() -> None:
    samples: dict[tuple[str, str], list[float]] = {}
    with tempfile.TemporaryDirectory() as root:
        made = guards(root)
        for _ in range(ROUNDS):
            samples.setdefault(("bare", "child"), []).append(timed(child))
            for name, guard in made.items():
                with guard.invocation():
                    open("/tmp/file", "w").close()
                    if guard.children == "contain":
                        first = samples.setdefault((name, "first"), [])
                        first.append(timed(lambda: subprocess.run(["/bin/true"], check=True)))
                    samples.setdefault((name, "child"), []).append(timed(child))
    bare = statistics.median(samples["bare", "child"])
    print("| child | first of a request | each further one |\n|---|---:|---:|")
    print(f"| bare | | 1 ({bare:.2f} ms) |")
    for name in made:
        first, each = (
            f"{statistics.median(samples[name, kind]) / bare:.1f}" if (name, kind) in samples else ""
            for kind in ("first", "child")
        )
        print(f"| {name} | {first} | {each} |")


if __name__ == "__main__":
    os.chdir("/")
    main()
