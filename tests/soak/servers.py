"""Starts and stops the servers of the soak."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from tests.support import PROJECT, free_port

#: The size of a small disk for the scratch directories, in bytes: less than two requests may fill.
SMALL = 1_200_000

#: How many descriptors a worker may have.
DESCRIPTORS = 96

_UVICORN = (
    "-m",
    "uvicorn",
    "--host",
    "127.0.0.1",
    "--port",
    "PORT",
    "--log-level",
    "warning",
    "--workers",
    "2",
)
_GUNICORN = (
    *("-m", "gunicorn", "--bind", "127.0.0.1:PORT", "--graceful-timeout", "5", "--timeout", "120"),
    *("--workers", "2", "--log-level", "error", "--worker-tmp-dir", "/dev/shm", "--keep-alive", "75"),
)
_WSGI, _ASGI = "tests.soak.apps:wsgi", "tests.soak.apps:asgi"

#: uvicorn kills a worker that does not answer it within 5 seconds, for which a busy machine is enough. But a
#: worker that is killed just while it is asked is not replaced before that time is over, because uvicorn
#: holds both ends of the pipe and sees no end of file. So it is well below the patience of the clients.
#: Older versions have no option for it.
_PATIENT = ("--timeout-worker-healthcheck", "20")

#: Runs a server where the disk for its scratch directories is small, in a mount namespace of its own.
_ON_A_SMALL_DISK = """
import os, sys
from tests.parity import mounting
mounting.enter_namespace()
mounting.mount_tmpfs(os.environ["TMPDIR"], int(os.environ["SOAK_SMALL"]))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""

COMMANDS = {
    "uvicorn": (*_UVICORN, _ASGI),
    "gthread": (*_GUNICORN, "--worker-class", "gthread", "--threads", "8", _WSGI),
    "gthread-preload": (*_GUNICORN, "--preload", "--worker-class", "gthread", "--threads", "8", _WSGI),
    "gthread-small-disk": (*_GUNICORN, "--worker-class", "gthread", "--threads", "8", _WSGI),
    "gevent": (*_GUNICORN, "--worker-class", "gevent", _WSGI),
    "gevent-preload": (*_GUNICORN, "--preload", "--worker-class", "gevent", _WSGI),
}


def available() -> list[str]:
    """The servers that are installed and can be run here."""
    has_gevent = importlib.util.find_spec("gevent") is not None
    uvicorn_version = _version_of("uvicorn")
    return [
        name
        for name in COMMANDS
        if (has_gevent or not name.startswith("gevent"))
        and (os.geteuid() == 0 or not name.endswith("disk"))
        # Older versions start no worker in the place of a killed one.
        and (uvicorn_version >= (0, 30) or name != "uvicorn")
    ]


def _version_of(distribution: str) -> tuple[int, ...]:
    return tuple(int(part) for part in importlib.metadata.version(distribution).split(".")[:2])


class Server:
    """A server on the loopback with its workers; everything that it leaves is below ``place``."""

    def __init__(self, name: str, place: Path) -> None:
        self.name = name
        self.port = int(free_port())
        #: May requests fail since the disk is full?
        self.is_small = name.endswith("small-disk")
        self._directory = place / "scratch"
        self._directory.mkdir()
        self._problems, self._reports, self._log = place / "problems", place / "reports", place / "log"
        command = [part.replace("PORT", str(self.port)) for part in COMMANDS[name]]
        if name == "uvicorn" and _version_of("uvicorn") >= (0, 37):
            command += _PATIENT
        if self.is_small:
            command = ["-c", _ON_A_SMALL_DISK, "-Wignore::DeprecationWarning", *command]
        with open(self._log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-Wignore::DeprecationWarning", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment(),
                cwd=place,
                start_new_session=True,
            )

    @property
    def scratch(self) -> Path:
        """The directory with the scratch directories, as the server sees it; a small one is gone with it."""
        return Path(f"/proc/{self.process.pid}/root{self._directory}") if self.is_small else self._directory

    def _environment(self) -> dict[str, str]:
        small = {"SOAK_SMALL": str(SMALL)} if self.is_small else {}
        return {
            **small,
            **os.environ,
            "PYTHONPATH": str(PROJECT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TMPDIR": str(self._directory),
            "SOAK_PROBLEMS": str(self._problems),
            "SOAK_REPORTS": str(self._reports),
            "SOAK_DESCRIPTORS": str(DESCRIPTORS),
        }

    def problems(self) -> list[str]:
        """What the applications complained about."""
        if not self._problems.exists():
            return []
        return [json.loads(line) for line in self._problems.read_text().splitlines()]

    def reports(self) -> int:
        """How many reports were handed out."""
        return self._reports.stat().st_size

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def orphans(self) -> list[str]:
        """The scratch directories of processes that are gone, and those in which a request has something."""
        held = _locked_files()
        found = []
        for claim in self.scratch.glob("tmpguard-*"):
            with suppress(FileNotFoundError):
                if claim.stat().st_ino not in held:  # asked without the lock, which the sweep tries to take
                    found.append(claim.name)
            for directory in claim.glob("*"):
                with suppress(FileNotFoundError):
                    found += [f"{claim.name}/{directory.name}/{name}" for name in os.listdir(directory)]
        return found

    def stop(self, seconds: float) -> bool:
        """Ask it to stop; True if it does within that time."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it with all its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _locked_files() -> set[int]:
    """The inodes that some process holds a lock of."""
    lines = Path("/proc/locks").read_text().splitlines()
    return {int(line.split()[-3].rpartition(":")[2]) for line in lines}
