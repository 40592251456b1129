"""What each example does, without tmpguard: files in plain Python, by a native library and by a child."""

from __future__ import annotations

import os
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path


def write(text: str) -> str:
    Path("/tmp/note.txt").write_text(text)
    return f"wrote {len(text)} bytes; /tmp holds {held()}\n"


def held() -> str:
    return " ".join(sorted(name for name in os.listdir("/tmp") if name != "package"))


def read() -> str:
    there_before = os.path.exists("/tmp/note.txt")
    Path("/tmp/note.txt").write_text("written by this request")
    text = Path("/tmp/note.txt").read_text()
    return f"a note of another request: {str(there_before).lower()}; of this one: {text}\n"


def outside() -> str:
    with open("file.txt", "w") as file:
        file.write("this is not /tmp")
    return "wrote file.txt\n"


def overfill() -> str:
    fitted = 0
    try:
        with open("/tmp/big.bin", "wb", buffering=0) as file:
            while True:
                fitted += file.write(bytes(100_000))
    except OSError as exc:
        return f"{fitted} bytes fitted, then: {exc}\n"


def bundled() -> str:
    return Path("/tmp/package/greeting.txt").read_text()


def native() -> str:
    """SQLite opens its files below Python."""
    done = []
    for path in ("/tmp/native.db", "native.db"):
        try:
            with closing(sqlite3.connect(path)) as database:
                database.execute("create table notes (text)")
            done.append(f"{path}: written")
        except sqlite3.OperationalError as exc:
            done.append(f"{path}: {exc}")
    return "\n".join(done) + "\n"


def child() -> str:
    script = "echo hello > /tmp/child.txt && cat /tmp/child.txt; echo hello > child.txt"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
