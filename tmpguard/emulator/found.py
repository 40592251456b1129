"""The findings of one span of an instance's life."""

from __future__ import annotations

import errno as codes
import json
import os

from tmpguard.core.reports.report import MOST_KEPT, Violation

from .findings import Circumstances, Finding, is_noise, violation_of


class Found:
    """Collects findings, and the lines that arrive after them."""

    def __init__(self) -> None:
        self._entries: list[tuple[Finding, Circumstances]] = []

    def add(self, finding: Finding, circumstances: Circumstances) -> None:
        """Keep a finding, up to the first thousand, unless nobody needs to know of it.

        A runtime that tries a write once more before it gives up is refused once: libuv does.
        """
        if len(self._entries) >= MOST_KEPT or is_noise(finding):
            return
        again = self._entries and not finding.frames and self._entries[-1][0] == finding
        if not (again and finding.code == codes.ENOSPC):
            self._entries.append((finding, circumstances))

    def locate(self, process: int, message: bytes) -> None:
        """Add a stack that a hook in the process ``process`` has sent, with the error's name and the path.

        It arrives after the refusal was seen. Does nothing about a message that makes no sense: any program
        can send one.
        """
        try:
            error, path, frames = json.loads(os.fsdecode(message))
            stack = tuple((str(file), int(line), str(function)) for file, line, function in frames)
            code = getattr(codes, error)
        except (ValueError, TypeError, AttributeError):
            return
        for fits in (_is_same_path, _may_be_path):
            for index in reversed(range(len(self._entries))):
                finding, circumstances = self._entries[index]
                is_meant = (finding.process, finding.code, finding.frames) == (process, code, ())
                if is_meant and fits(finding, path):
                    self._entries[index] = finding._replace(frames=stack), circumstances
                    return

    def take(self) -> tuple[Violation, ...]:
        """The findings so far as violations; they are forgotten here."""
        if not self._entries:
            return ()
        entries, self._entries = self._entries, []
        return tuple(violation_of(finding, circumstances) for finding, circumstances in entries)


def _is_same_path(finding: Finding, path: object) -> bool:
    return path in finding.paths


def _may_be_path(finding: Finding, path: object) -> bool:
    """The hook knows a descriptor's path or the random end of a name less well than the kernel."""
    if not isinstance(path, str):
        return True
    found = os.path.join(finding.directory, finding.paths[0] if finding.paths else "")
    return os.path.normpath(found).startswith(os.path.normpath(os.path.join(finding.directory, path)))
