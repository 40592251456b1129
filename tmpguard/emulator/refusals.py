"""What to do when an instance cannot be started, by the step that failed."""

from __future__ import annotations

import errno as codes
import os
from contextlib import suppress

from .protocols import StartFailed

_NAMESPACES = "allow user namespaces"


def start_failed(step: str, code: int, detail: str) -> StartFailed:
    """The error for a step of the launcher that failed with ``code``; ``detail`` is a file's name."""
    reason = os.strerror(code) + (f": {detail}" if detail else "")
    return StartFailed(step, reason, _way_out(step, code, detail))


def _way_out(step: str, code: int, detail: str) -> str:
    if step == "exec":
        return _about_program(code, detail)
    if code == codes.ENOSYS:
        return f"Linux 5.12 or newer is needed; this is {os.uname().release}"
    if step.startswith(("unshare", "writing /proc")):
        return _about_namespaces(code)
    if step.startswith("flock"):
        return (
            "another instance uses this container's /tmp: --instances 1, or let the container have namespaces"
        )
    if step.startswith("mount(proc)"):
        return (
            "this container hides parts of /proc: start it with --security-opt systempaths=unconfined "
            "(Docker), or as root with --cap-add SYS_ADMIN"
        )
    if code in (codes.EPERM, codes.EACCES):
        return "the machine does not permit these mounts: run as root, or outside the container"
    return ""


def _about_program(code: int, program: str) -> str:
    if code == codes.ENOENT:
        return "the program, or the interpreter that its first line names, does not exist"
    if code == codes.EACCES:
        return f"{program} must be executable for this user, and each directory on the way (and of its links)"
    if code == codes.ENOEXEC:
        return "it is no program for this machine, and has no first line that names an interpreter (#!)"
    return ""


def _about_namespaces(code: int) -> str:
    if code == codes.ENOSPC or _setting("/proc/sys/user/max_user_namespaces") == "0":
        return f"{_NAMESPACES}: sysctl user.max_user_namespaces=10000"
    if _setting("/proc/sys/kernel/unprivileged_userns_clone") == "0":
        return f"{_NAMESPACES}: sysctl kernel.unprivileged_userns_clone=1"
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        return (
            "the container's seccomp profile forbids it: start the container with --cap-add SYS_ADMIN "
            "--security-opt seccomp=unconfined, or with --read-only --tmpfs /tmp:size=128m"
        )
    if _setting("/proc/sys/kernel/apparmor_restrict_unprivileged_userns") == "1":
        return (
            f"{_NAMESPACES}: AppArmor forbids them (Ubuntu 23.10 and newer): "
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or run as root"
        )
    return f"{_NAMESPACES}, or run as root"


def _setting(path: str) -> str:
    with suppress(OSError), open(path) as file:
        return file.read().strip()
    return ""
