"""What a process may grow by while it does the same again and again."""

from __future__ import annotations

#: How much a process's memory may grow once it is warm, in bytes, and how many descriptors and threads more
#: it may have.
GROWTH, MORE = 12 << 20, 6


def growth(before: dict[int, dict[str, int]], after: dict[int, dict[str, int]]) -> list[str]:
    """What is wrong with how the processes' memory, descriptors and threads have grown."""
    if before.keys() != after.keys():
        return [f"a worker was replaced: {sorted(before)}, {sorted(after)}"]
    problems = []
    for process, figures in before.items():
        more = {name: after[process][name] - figure for name, figure in figures.items()}
        print(f"    worker {process}: {more}", flush=True)
        if more["memory"] > GROWTH or more["descriptors"] > MORE or more["threads"] > MORE:
            problems.append(f"worker {process} has grown by {more}")
    return problems
