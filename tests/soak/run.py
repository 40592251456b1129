"""``python -m tests.soak run``: many requests to a server in instances of ``tmpguard run``.

Each answer has to be that of its request, and each line of the run has to say what its request did. Memory
and descriptors of all processes have to stay flat. At the end no process, mount or file is left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import Any, Final

from tests.soak.growth import growth
from tests.support import PROJECT, eventually, free_port

MB: Final = 1_048_576
CLIENTS: Final = 8
INSTANCES: Final = 4

APPLICATION: Final = """
import json, os, threading

def hello(name): return name

def write(name):
    before = sorted(set(os.listdir("/tmp")) - {"package"})
    with open("/tmp/note.txt", "w") as file: file.write(name)
    with open("/tmp/note.txt") as file: return json.dumps([before, file.read()])

def outside(name):
    try: open("out.txt", "w")
    except OSError as exc: return str(exc.errno)

def overfill(name):
    count = 0
    try:
        with open("/tmp/big", "wb", buffering=0) as file:
            while True: count += file.write(bytes(65536))
    except OSError as exc: return json.dumps([count, exc.errno])

def late(name):
    threading.Timer(0.001, lambda: open("/tmp/late", "w").close()).start()
    return name

def child(name):
    return str(os.spawnvp(os.P_WAIT, "sh", ["sh", "-c", "echo > /tmp/child; echo > child.txt"]) != 0)

async def app(scope, receive, send):
    _, route, name = scope["path"].split("/")
    body = globals()[route](name).encode()
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""

#: How often each route is asked for.
WEIGHTS: Final = {"hello": 50, "write": 30, "outside": 12, "overfill": 4, "late": 3, "child": 1}


#: The file that a request to ``late`` writes after its response, which the next one may see.
LATE: Final = '"late"'


def answer_to(route: str, name: str) -> str:
    """What the application has to answer."""
    return {
        "hello": name,
        "write": json.dumps([[], name]),
        "outside": "30",
        "overfill": json.dumps([MB, 28]),
        "late": name,
        "child": "True",
    }[route]


#: The peak in bytes, the files left and the findings of a request; None for what the late write may add to.
FIGURES: Final[dict[str, tuple[int | None, int | None, list[int]]]] = {
    "hello": (0, 0, []),
    "write": (4096, 1, []),
    "outside": (0, 0, [30]),
    "overfill": (MB, 1, [28]),
    "late": (0, None, []),
    "child": (4096, 1, [30]),
}


class Run:
    """The command, and what it says."""

    def __init__(self, project: Path) -> None:
        self._project = project
        self.problems: list[str] = []
        self.told: Counter[str] = Counter()
        self.late = self.children = 0
        self.report: dict[str, Any] = {}
        self.listening = asyncio.Event()

    async def start(self) -> None:
        command = (sys.executable, "-m", "uvicorn", "app:app", "--lifespan", "off", "--log-level", "warning")
        limits = ("--storage-size", "1", "--instances", str(INSTANCES), "--json", "--port", free_port())
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tmpguard", "run", *limits, "--", *command),
            cwd=self._project,
            env={**os.environ, "PYTHONPATH": str(PROJECT)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            limit=16 * MB,
        )
        self._reading = asyncio.ensure_future(self._read())
        await self.listening.wait()

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            event = json.loads(line)
            kind = event["event"]
            if kind == "listening":
                self.port = int(event["address"].rpartition(":")[2])
                self.listening.set()
            elif kind == "request":
                self._check(event)
            elif kind == "output" and "child.txt" in event["line"]:
                self.children += 1
            elif kind == "late writes":
                self.late += len(event["late_writes"])
            elif kind == "summary":
                self.report = event["report"]
            elif kind not in ("started", "ended", "message"):
                self.problems.append(f"{event}")
        self.listening.set()

    def _check(self, event: dict[str, Any]) -> None:
        route = event["target"].split("/")[1]
        self.told[route] += 1
        peak, files, errors = FIGURES[route]
        found = [one["errno"] for one in event["violations"]]
        wrong = {
            "status": event["status"] != 200,
            "peak": peak is not None and event["peak_bytes"] != peak,
            "files": files is not None and event["files_left"] - files not in (0, 1),  # a late one
            "findings": found != errors,
            "trouble": event["trouble"] != "",
        }
        if any(wrong.values()):
            self.problems.append(f"{route}: {[name for name in wrong if wrong[name]]} in {event}")

    async def end(self) -> None:
        self.process.send_signal(signal.SIGINT)
        status = await self.process.wait()
        await self._reading
        if status:
            self.problems.append(f"it ended with {status}")

    def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()


class Sender:
    """Clients that ask for one thing after another, over connections that they keep for a while."""

    def __init__(self, port: int, seed: int) -> None:
        self._port = port
        self._random = Random(seed)
        self.sent: Counter[str] = Counter()
        self.problems: list[str] = []

    async def send(self, count: int) -> None:
        shares = [count // CLIENTS + (number < count % CLIENTS) for number in range(CLIENTS)]
        await asyncio.gather(*(self._client(Random(self._random.random()), share) for share in shares))

    async def _client(self, random: Random, count: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        for _ in range(count):
            [route] = random.choices(list(WEIGHTS), list(WEIGHTS.values()))
            name = str(random.randrange(1 << 40))
            self.sent[route] += 1
            writer.write(f"GET /{route}/{name} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            answer = await _answer(reader)
            if answer.replace(LATE, "") != answer_to(route, name):
                self.problems.append(f"{route}/{name} was answered {answer[:200]!r}")
            if random.random() < 0.02:
                writer.close()
                await writer.wait_closed()
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.close()
        await writer.wait_closed()


async def _answer(reader: asyncio.StreamReader) -> str:
    head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
    length = int(head.partition("content-length: ")[2].partition("\r\n")[0])
    body = (await reader.readexactly(length)).decode()
    return body if head.startswith("http/1.1 200 ") else f"{head}{body}"


def processes_of(supervisor: int) -> list[int]:
    """The run's own processes: the supervisor, and the launcher and the janitor of each instance."""
    launchers = _children(supervisor)
    return [supervisor, *launchers, *(janitor for one in launchers for janitor in _children(one))]


def _children(process: int) -> list[int]:
    return [
        int(child)
        for task in os.listdir(f"/proc/{process}/task")
        for child in Path(f"/proc/{process}/task/{task}/children").read_text().split()
    ]


def figures(processes: Iterable[int]) -> dict[int, dict[str, int]]:
    """The memory of each process in bytes, and its descriptors and threads."""
    return {
        process: {
            "memory": int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE"),
            "descriptors": len(os.listdir(f"/proc/{process}/fd")),
            "threads": len(os.listdir(f"/proc/{process}/task")),
        }
        for process in processes
    }


async def soak(requests: int, seed: int, project: Path) -> list[str]:
    """Send that many requests; what is wrong."""
    (project / "app.py").write_text(APPLICATION)
    run = Run(project)
    await run.start()
    if run.process.returncode is not None or not hasattr(run, "port"):
        return ["it does not start", *run.problems]
    try:
        sender = Sender(run.port, seed)
        began = time.monotonic()
        await sender.send(requests // 3)
        processes = processes_of(run.process.pid)
        before = figures(processes)
        await sender.send(requests - requests // 3)
        passed = time.monotonic() - began
        after = figures(processes_of(run.process.pid))
        await run.end()
    finally:
        run.kill()
    print(f"    {dict(sender.sent)}, {run.late} late writes", flush=True)
    print(f"    {requests / passed:.0f} requests in a second, {len(processes)} processes", flush=True)
    return [
        *run.problems,
        *sender.problems,
        *growth(before, after),
        *_complete(run, sender),
        *_left(project, processes),
    ]


def _complete(run: Run, sender: Sender) -> list[str]:
    """Whether each request has its line, and the report all of them."""
    rows = {row["route"].split("/")[1]: row for row in run.report["routes"] if row["route"].startswith("GET")}
    counted = Counter({route: row["requests"] for route, row in rows.items()})
    problems = []
    if not sender.sent == run.told == counted:
        problems.append(f"sent {sender.sent}, told {run.told}, counted {counted}")
    if run.report["run"]["restarts"]:
        problems.append(f"{run.report['run']['restarts']} restarts")
    expected = sender.sent["outside"] + sender.sent["overfill"] + sender.sent["child"]
    if run.report["totals"]["violations"] != expected:
        problems.append(f"{run.report['totals']['violations']} findings and not {expected}")
    if run.children != sender.sent["child"]:
        problems.append(f"{run.children} lines of children and not {sender.sent['child']}")
    if sender.sent["late"] and not run.late:
        problems.append("no late write was found")
    return problems


def _left(project: Path, processes: list[int]) -> list[str]:
    if not eventually(lambda: not any(os.path.exists(f"/proc/{process}") for process in processes)):
        return ["processes are left"]
    left = {path.name for path in project.iterdir()} - {"app.py", "__pycache__"}
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(project) in line]
    return [f"left: {one}" for one in [*left, *mounts]]


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak run", description=__doc__)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    project = Path(tempfile.mkdtemp(prefix="soak-", dir="/var/tmp"))
    try:
        problems = asyncio.run(soak(options.requests, options.seed, project))
    finally:
        shutil.rmtree(project, ignore_errors=True)
    for text in problems[:20]:
        print(f"    {text}")
    print(f"{options.requests} requests, {len(problems)} problems")
    return 1 if problems else 0
