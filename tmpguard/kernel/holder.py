"""Runs in a fresh interpreter to make an invocation's mount namespace, and to hold it until it is opened."""

from __future__ import annotations

import os
import sys

from . import mounts
from .mounts import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def main(orders: dict[str, Any]) -> None:
    """Make the mounts, report the result on standard output, and wait for standard input to close."""
    try:
        _mount(orders)
    except mounts.StepFailed as exc:
        print(f"refused {exc}", flush=True)
        return
    print(f"ready {os.getpid()}", flush=True)
    sys.stdin.read()


def _mount(orders: dict[str, Any]) -> None:
    mounts.unshare_mounts(0, "CLONE_NEWNS", own_user=orders["own user namespace"])
    mounts.make_private()
    # Open all of them before mounting the first, which may cover the sources of the others.
    trees = [(Tree(source, writable=writable), target) for source, target, writable in orders["mounts"]]
    mounts.make_root_read_only()
    for tree, target in trees:
        tree.attach(target)
