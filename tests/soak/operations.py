"""What the requests of the soak do. Each operation gets its own random numbers, and states what it did."""

from __future__ import annotations

import errno
import gc
import os
import signal
import sqlite3
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from random import Random
from typing import Final

import tmpguard
from tests.soak.claims import Claims, pages

MB = 1_048_576

#: How long descriptors are hoarded, and how long late work goes on, in seconds.
HOARDED, LATE = 0.05, 30

#: Says what is wrong, see tests/soak/apps.py.
Complain = Callable[[str], None]
Operation = Callable[[Random, Claims, Complain], None]


class Interrupted(Exception):
    """Raised by the signal handler, in the middle of whatever runs."""


#: Since when there are descriptors again, by the monotonic clock, unless a request hoards them.
released = -float("inf")
_hoarding: Final[set[object]] = set()
#: Seconds until the connections that waited for a descriptor meanwhile are served.
BACKLOG = 0.5


def were_short(claims: Claims) -> bool:
    """Were descriptors short after the request with these ``claims`` began?"""
    return bool(_hoarding) or claims.began < released + BACKLOG


#: May the handler raise? Only the main thread's request sets it.
interruptible = False


def short(what: str) -> Exception:
    """The error for something that did not fit, which only a full disk explains."""
    return OSError(errno.ENOSPC, what) if "SOAK_SMALL" in os.environ else AssertionError(what)


def nothing(random: Random, claims: Claims, complain: Complain) -> None:
    """Touches no file."""


def files(random: Random, claims: Claims, complain: Complain) -> None:
    """Writes some files, reads them back and removes some."""
    contents = {f"/tmp/{number}.bin": random.randbytes(random.randrange(60_000)) for number in range(5)}
    for path, content in contents.items():
        with open(path, "wb") as file:
            file.write(content)
    claims.peak = sum(pages(len(content)) for content in contents.values())
    for path, content in contents.items():
        with open(path, "rb") as file:
            if file.read() != content:
                complain(f"{path} has other bytes")
    for path in random.sample(sorted(contents), 2):
        os.unlink(path)
        del contents[path]
    if sorted(os.listdir("/tmp")) != sorted(os.path.basename(path) for path in contents):
        complain(f"/tmp has {os.listdir('/tmp')}")
    claims.used = sum(pages(len(content)) for content in contents.values())
    claims.files = len(contents)


def rewritten(random: Random, claims: Claims, complain: Complain) -> None:
    """Writes one file in place again and again: it never has more pages than its longest content."""
    sizes = [random.randrange(1, 50_000) for _ in range(10)]
    for size in sizes:
        with open("/tmp/same.bin", "wb") as file:
            file.write(bytes(size))
    claims.used, claims.peak, claims.files = pages(sizes[-1]), max(map(pages, sizes)), 1


def refused(random: Random, claims: Claims, complain: Complain) -> None:
    """Writes outside /tmp."""
    claims.violations = random.randrange(1, 4)
    for _ in range(claims.violations):
        try:
            open("soak-refused.txt", "w").close()
        except OSError as exc:
            if exc.errno != errno.EROFS:
                raise
        else:
            complain("a write outside /tmp was not refused")


def full(random: Random, claims: Claims, complain: Complain) -> None:
    """Writes more than fits, removes it, and writes again."""
    with open("/tmp/large.bin", "wb", buffering=0) as file:
        written = file.write(bytes(2 * MB))
        if written != MB:
            raise short(f"{written} bytes fitted")
        if _code(lambda: file.write(b"x")) != errno.ENOSPC:
            complain("a full /tmp took more")
    claims.violations = 1
    os.unlink("/tmp/large.bin")
    with open("/tmp/small.bin", "wb") as small:
        small.write(bytes(5000))
    claims.used, claims.peak, claims.files = pages(5000), MB, 1


def unlinked(random: Random, claims: Claims, complain: Complain) -> None:
    """Keeps a file without a name: it costs until it is closed."""
    size = random.randrange(1, 100_000)
    with tempfile.TemporaryFile(buffering=0) as file:
        if (written := file.write(bytes(size))) != size:
            raise short(f"{written} bytes of {size} fitted")
        claims.peak = pages(size)


def database(random: Random, claims: Claims, complain: Complain) -> None:
    """Writes a database."""
    claims.peak = None  # what its journal takes
    try:
        with closing(sqlite3.connect("/tmp/soak.db")) as connection, connection:
            connection.execute("CREATE TABLE rows (text)")
            connection.executemany("INSERT INTO rows VALUES (?)", [("x" * 500,)] * random.randrange(100))
    except sqlite3.OperationalError as exc:
        if were_short(claims):
            raise OSError(errno.EMFILE, str(exc)) from None
        raise short(str(exc)) from None
    claims.used, claims.files = pages(os.stat("/tmp/soak.db").st_size), 1


def awkward(random: Random, claims: Claims, complain: Complain) -> None:
    """Leaves what is hard to wipe."""
    deep = "/tmp"
    for _ in range(20):
        deep += "/" + "d" * random.randrange(1, 100)
        os.mkdir(deep)
    os.symlink("/etc", f"{deep}/link")
    os.symlink("/tmp", "/tmp/loop")
    with open(os.fsencode(f"{deep}/") + b"\xff\n", "wb") as file:
        file.write(b"x")
    os.link(os.fsencode(f"{deep}/") + b"\xff\n", "/tmp/hard")
    os.chmod(f"{deep}", 0)
    claims.used, claims.peak, claims.files = pages(1), pages(1), 24


def threads(random: Random, claims: Claims, complain: Complain) -> None:
    """Hands work on to threads."""

    def work(number: int) -> None:
        try:
            with open(f"/tmp/thread-{number}.bin", "wb") as file:
                file.write(bytes(4097))
        except OSError as exc:
            errors.append(exc)

    errors: list[OSError] = []
    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for error in errors:
        raise error
    claims.used = claims.peak = 3 * pages(4097)
    claims.files = 3


def forked(random: Random, claims: Claims, complain: Complain) -> None:
    """Forks; the child writes to the same /tmp."""
    claims.peak = None  # each process counts its own
    child = os.fork()
    if not child:
        code = 1
        with suppress(OSError):
            with open("/tmp/child.bin", "wb", buffering=0) as file:
                code = int(file.write(bytes(6000)) != 6000)
        os._exit(code)
    _, status = os.waitpid(child, 0)
    if status:
        claims.void(f"the child ended with {status}")
        return
    claims.used, claims.files = pages(6000), 1


def started(random: Random, claims: Claims, complain: Complain) -> None:
    """Starts a program that writes to an open file."""
    claims.peak = None  # measured when it is over
    text = random.randbytes(random.randrange(1, 50_000))
    with open("/tmp/out.bin", "wb") as file:
        if code := subprocess.run(["cat"], input=text, stdout=file).returncode:
            raise short(f"cat ended with {code}")
    with open("/tmp/out.bin", "rb") as file:
        if file.read() != text:
            complain("the program's output is another one")
    claims.used, claims.files = pages(len(text)), 1


def hoarding(random: Random, claims: Claims, complain: Complain) -> None:
    """Takes all descriptors there are, until some time after the end."""
    with open("/tmp/before.bin", "wb") as file:
        file.write(bytes(100))
    claims.void("no descriptors")
    held: list[int] = []
    this = object()
    _hoarding.add(this)

    def release() -> None:
        global released
        time.sleep(HOARDED)
        while held:
            os.close(held.pop())
        released = time.monotonic()
        _hoarding.remove(this)

    releasing = threading.Thread(target=release)
    with suppress(OSError):
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    releasing.start()


def late(random: Random, claims: Claims, complain: Complain) -> None:
    """Goes on after the end, by path and by a descriptor that it kept."""
    claims.void("goes on")
    kept = os.open("/tmp/kept.bin", os.O_RDWR | os.O_CREAT)

    def work() -> None:
        deadline = time.monotonic() + LATE
        codes: dict[str, int | None] = {"path": None, "descriptor": None}
        while set(codes.values()) != {errno.ESTALE}:
            if time.monotonic() > deadline:
                complain(f"late work was not stopped: {codes}")
                break
            codes["path"] = _code(lambda: os.mkdir(f"/tmp/late-{time.monotonic_ns()}"))
            codes["descriptor"] = _code(lambda: os.write(kept, b"x"))
            time.sleep(0.005)
        os.close(kept)

    threading.Thread(target=work).start()


def _code(call: Callable[[], object]) -> int | None:
    try:
        call()
    except OSError as exc:
        return exc.errno
    return None


def interrupted(random: Random, claims: Claims, complain: Complain) -> None:
    """Is interrupted by an exception of a signal handler, wherever it is then."""
    global interruptible
    claims.void("interrupted")
    if threading.current_thread() is not threading.main_thread():
        return
    deadline = time.monotonic() + 0.03
    try:
        interruptible = True
        while time.monotonic() < deadline:
            # Not by shutil.rmtree, which closes a descriptor twice where it is interrupted in between.
            for remove, path in ((os.unlink, "file.bin"), (os.rmdir, "deep"), (os.rmdir, ".")):
                with suppress(FileNotFoundError):
                    remove(os.path.normpath(f"/tmp/tree/{path}"))
            os.makedirs("/tmp/tree/deep")
            with open("/tmp/tree/deep/file.bin", "wb") as file:
                file.write(bytes(8192))
            os.rename("/tmp/tree/deep/file.bin", "/tmp/tree/file.bin")
    except Interrupted:
        pass
    finally:
        interruptible = False


def nested(random: Random, claims: Claims, complain: Complain) -> None:
    """Holds further invocations by generators, which are ended out of order, or by the collector."""
    outer = tmpguard.current()
    assert outer is not None
    guard = outer.guard
    assert isinstance(guard, tmpguard.Guard)

    def held() -> Iterator[str]:
        with guard.invocation():
            with open("/tmp/inner.bin", "wb") as file:
                file.write(bytes(100))
            yield os.listdir("/tmp")[0]

    one, two = held(), held()
    if {next(one), next(two)} != {"inner.bin"}:
        complain("an inner invocation has something else")
    one.close()
    two.close()
    if tmpguard.current() is not outer:
        complain("another invocation is current")
        return
    with open("/tmp/outer.bin", "wb") as file:
        file.write(bytes(100))
    claims.used = claims.peak = pages(100)
    claims.files = 1


def collected(random: Random, claims: Claims, complain: Complain) -> None:
    """Leaves open files in a cycle to the garbage collector."""
    claims.peak = None  # when the buffer is written is the collector's business

    class Kept:
        def __init__(self) -> None:
            self.itself = self
            self.file = open("/tmp/kept.txt", "w")
            self.file.write("x" * 100)

    Kept()
    if random.random() < 0.2:
        gc.collect()
    claims.used = None
    claims.files = 1


def killed(random: Random, claims: Claims, complain: Complain) -> None:
    """Takes the process with it."""
    os.makedirs("/tmp/of/the/killed")
    with open("/tmp/of/the/killed/file.bin", "wb") as file:
        file.write(bytes(10_000))
    os.kill(os.getpid(), signal.SIGKILL)


#: Each operation with how often it is asked for. Those of ``ROUGH`` are only for phases in which the server
#: itself may fail or lose workers.
CALM: dict[Operation, int] = {
    nothing: 10,
    files: 10,
    rewritten: 5,
    refused: 5,
    full: 3,
    unlinked: 5,
    database: 3,
    awkward: 5,
    threads: 5,
    forked: 1,
    started: 1,
    late: 1,
    interrupted: 2,
    nested: 3,
    collected: 3,
}
ROUGH: dict[Operation, int] = {hoarding: 1, killed: 1}

BY_NAME: dict[str, Operation] = {operation.__name__: operation for operation in (*CALM, *ROUGH)}
