"""What stays readable below an instance's ``/tmp``: a command may need its own program there (C1.5)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tmpguard.core.layout import SOURCE_ROOT, TMP, is_below

#: Variables whose directories programs are loaded from.
_PATHS = ("PATH", "PYTHONPATH", "NODE_PATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "PYTHONHOME")

#: Bytes of a program's first line.
_LINE = 512


def find_program(command: str, environment: Mapping[str, str], directory: str) -> str | None:
    """The file that ``command`` executes, as an absolute path; None if there is none.

    A name with a slash is relative to ``directory``, where the user has given it.
    """
    if "/" in command:
        path = os.path.join(directory, command)
        return os.path.normpath(path) if os.path.exists(path) else None
    found = shutil.which(command, path=environment.get("PATH", os.defpath))
    return None if found is None else os.path.abspath(found)


def kept_below_tmp(
    program: str, command: Sequence[str], environment: Mapping[str, str], project: str
) -> list[str]:
    """The canonical paths below /tmp that the command needs: outer ones only, each once."""
    wanted = [project, SOURCE_ROOT, *_directories(environment), *_arguments(command)]
    for place in _programs(program, environment):
        wanted += _around(place)
    found = {path for path in map(os.path.realpath, wanted) if is_below(path, TMP) and path != TMP}
    return sorted(path for path in found if not _is_inside(path, found) and os.path.exists(path))


def _is_inside(path: str, others: Iterable[str]) -> bool:
    return any(path != other and is_below(path, other) for other in others)


def _directories(environment: Mapping[str, str]) -> Iterator[str]:
    for name in _PATHS:
        yield from filter(os.path.isabs, environment.get(name, "").split(":"))


def _arguments(command: Sequence[str]) -> Iterator[str]:
    """Arguments that name a file: the configuration of a server, say."""
    for argument in command[1:]:
        yield from filter(os.path.isabs, (argument, argument.partition("=")[2]))


def _programs(program: str, environment: Mapping[str, str]) -> Iterator[str]:
    """The program, where its links lead, and the interpreters that its first line names."""
    seen: set[str] = set()
    pending = [program]
    while pending:
        path = pending.pop()
        if path in seen:
            continue
        seen.add(path)
        yield path
        if os.path.islink(path):
            pending.append(os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path))))
        elif interpreter := _interpreter_of(path, environment):
            pending.append(interpreter)


def _interpreter_of(path: str, environment: Mapping[str, str]) -> str | None:
    try:
        with open(path, "rb") as file:
            line = file.read(_LINE).partition(b"\n")[0]
    except OSError:
        return None
    if not line.startswith(b"#!"):
        return None
    words = os.fsdecode(line[2:]).split()
    if words and os.path.basename(words[0]) == "env" and len(words) > 1:
        return shutil.which(words[-1], path=environment.get("PATH", os.defpath))
    return words[0] if words else None


def _around(program: str) -> Iterator[str]:
    """The installation that a program belongs to, and what a virtual environment is based on."""
    directory = os.path.dirname(program)
    root = os.path.dirname(directory) if os.path.basename(directory) in ("bin", "sbin") else directory
    if root in ("/", TMP):
        yield directory
        return
    yield root
    yield from _editable(root)
    try:
        with open(f"{root}/pyvenv.cfg") as file:
            settings = dict(line.split(" = ", 1) for line in file.read().splitlines() if " = " in line)
    except (OSError, UnicodeError):
        return
    home = settings.get("home", "")
    if home:
        yield os.path.dirname(os.path.realpath(home))


def _editable(root: str) -> Iterator[str]:
    """Directories that the packages of a Python environment are loaded from in place."""
    library = f"{root}/lib"
    for version in os.listdir(library) if os.path.isdir(library) else ():
        packages = f"{library}/{version}/site-packages"
        for name in os.listdir(packages) if os.path.isdir(packages) else ():
            if name.endswith(".pth"):
                with open(f"{packages}/{name}", errors="replace") as file:
                    yield from (line for line in file.read().splitlines() if os.path.isabs(line))
