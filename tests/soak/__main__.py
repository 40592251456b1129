"""``python -m tests.soak``: many requests to real servers, while everything goes wrong that can.

For each server there is a first half in which workers are killed and run out of descriptors, and a second one
in which memory and descriptors have to stay flat. In both, signal handlers touch files, requests fork, fill
``/tmp``, go on after their end, leave what is hard to wipe, and are abandoned by their clients. Nothing may
hang, nothing may be left on the disk, and the figures of each report have to be those of its request. Ends
with 1 where something is wrong. All traffic stays on the loopback.

``python -m tests.soak run`` does so to a server behind ``tmpguard run`` (tests/soak/run.py).
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.soak import clients, run, servers
from tests.soak.clients import Clients
from tests.soak.growth import growth
from tests.soak.servers import Server
from tests.support import eventually

#: The share of requests that take a worker or its descriptors, in the first half.
ROUGH = 1 / 400


def soak(name: str, requests: int, seed: int, place: Path) -> list[str]:
    """Send that many requests to one server; returns what is wrong."""
    began = time.monotonic()
    server = Server(name, place)
    try:
        problems = _requests(server, requests, seed)
        problems += _end(server)
    finally:
        server.kill()
    problems = server.problems() + problems
    rate = requests / (time.monotonic() - began)
    print(f"{name}: {requests} requests, {rate:.0f} in a second, {server.reports()} reports", flush=True)
    if problems:
        print(f"{server.log()[-2000:]}", flush=True)
    return problems


def _requests(server: Server, requests: int, seed: int) -> list[str]:
    if not eventually(lambda: server.process.poll() is not None or len(clients.stats(server.port)) == 2):
        return [f"{server.name} does not answer: {server.log()[-2000:]}"]
    rough = Clients(server.port, seed, rough=max(ROUGH, 6 / requests), small=server.is_small)
    rough.send(requests // 2)
    problems = list(rough.problems)
    if not eventually(lambda: len(clients.stats(server.port)) == 2, seconds=clients.PATIENCE):
        problems.append("a worker that was killed is not replaced")
    if left := remaining(server):
        problems.append(f"left by killed workers: {left}")
    calm = Clients(server.port, seed + 1, rough=0, small=server.is_small)
    rest = requests - requests // 2
    calm.send(rest // 3)
    before = clients.stats(server.port)
    calm.send(rest - rest // 3)
    after = clients.stats(server.port)
    print(f"    {dict(rough.answers + calm.answers)}", flush=True)
    if left := remaining(server):
        problems.append(f"left by requests: {left}")
    return problems + calm.problems + growth(before, after)


def remaining(server: Server) -> list[str]:
    """What is left of processes and requests that are gone, once there was time to remove it."""
    eventually(lambda: not server.orphans())
    return server.orphans()


def _end(server: Server) -> list[str]:
    if server.process.poll() is not None:
        return [f"{server.name} is gone: {server.process.returncode}"]
    problems = [] if server.stop(clients.PATIENCE) else [f"{server.name} does not stop"]
    server.kill()
    if server.is_small:
        return problems  # its disk is gone as well
    left = sorted(str(path) for path in server.scratch.rglob("*"))
    return problems + [f"left when the server was stopped: {path}" for path in left]


def main(arguments: Iterable[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    if given[:1] == ["run"]:
        return run.main(given[1:])
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000, help="to all servers together")
    parser.add_argument("--servers", default=",".join(servers.available()), help="with commas between them")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(given)
    names = options.servers.split(",")
    problems: list[str] = []
    for name in names:
        place = Path(tempfile.mkdtemp(prefix="soak-", dir="/var/tmp"))
        found = soak(name, options.requests // len(names), options.seed, place)
        for text in dict.fromkeys(found):
            print(f"    {found.count(text)} times: {text}", flush=True)
        problems += found
        shutil.rmtree(place, ignore_errors=True)
    print(f"{options.requests} requests, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
