"""``--tmpguard-baseline``: known findings, which do not fail tests, in a file that is under version control.

A finding is known by the application's function, the operation, the path and the error. The line does not
count, so that the file stays valid when the code around it changes.
"""

from __future__ import annotations

import errno as codes
import json
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

from tmpguard.core.errors import ConfigurationError
from tmpguard.core.reports.report import Violation
from tmpguard.reporting.summary import number
from tmpguard.reporting.violations import error_name, package_of, short_file

#: The version of the file's format.
FORMAT: Final = 1

#: Parts of a path that differ from run to run: tempfile's names, UUIDs and long hexadecimal numbers.
_RANDOM: Final = re.compile(
    r"(?<![a-z0-9_])tmp[a-z0-9_]{8}(?![a-z0-9_])"
    r"|[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"
    r"|(?<![0-9a-zA-Z])[0-9a-f]{16,}(?![0-9a-zA-Z])"
)

_KEYS: Final = ("function", "operation", "path", "errno")


class Known(NamedTuple):
    """A finding as the file has it.

    ``where`` is ``file``, and ``place`` the source file relative to pytest's root directory. If no line of
    the application is known, they are ``library`` and the package that made the call. A ``*`` in ``path`` is
    any text.
    """

    where: str
    place: str
    function: str
    operation: str
    path: str
    errno: str

    def __str__(self) -> str:
        by = f" in {self.function}" if self.function else ""
        return f"{self.place or '(unknown)'}{by}: {self.operation} {self.errno} {self.path!r}"


class Baseline:
    """The known findings of a run. With ``writing``, all findings are accepted, and written at its end."""

    def __init__(self, path: str, root: str, *, writing: bool) -> None:
        self.path = path
        self.writing = writing
        self._root = root
        self._home = os.path.expanduser("~")
        #: pytest's directory for temporary ones, once it is known.
        self.temporary: str | None = None
        self.known: set[Known] = set()
        if not writing or os.path.exists(path):
            self.known = set(_read(path))
        self._patterns = [(one, _pattern(one.path)) for one in sorted(self.known) if "*" in one.path]
        #: The findings of the file that were seen, and with ``writing`` also new ones.
        self.seen: set[Known] = set()

    def accepts(self, violation: Violation) -> bool:
        """Whether ``violation`` is known, or is from now on. It counts as seen."""
        known = self._known(violation)
        if known is None and self.writing:
            known = self._of(violation)
        if known is None:
            return False
        self.seen.add(known)
        return True

    def knows(self, violation: Violation) -> bool:
        """The same as far as it has been seen or is in the file; without any effect."""
        return self._known(violation) is not None

    def _known(self, violation: Violation) -> Known | None:
        one = self._of(violation)
        if one in self.known or one in self.seen:
            return one
        others = (known for known, pattern in self._patterns if pattern.fullmatch(one.path))
        return next((known for known in others if known._replace(path=one.path) == one), None)

    def _of(self, violation: Violation) -> Known:
        location, library = violation.location, violation.library
        if location is not None:
            place = ("file", short_file(location.file, self._root), location.function)
        else:
            place = ("library", package_of(library.file) if library is not None else "", "")
        path = self._lasting(violation.path)
        return Known(*place, violation.operation, path, error_name(violation.errno))

    def _lasting(self, path: str) -> str:
        """``path`` without what depends on the run or the machine."""
        for directory, short in ((self._root, ""), (self.temporary, "*/"), (self._home, "~/")):
            if directory and directory != "/" and path.startswith(f"{directory.rstrip('/')}/"):
                path = short + path[len(directory.rstrip("/")) + 1 :]
        return _RANDOM.sub("*", path)

    def stale(self) -> list[Known]:
        """What the file has and the run did not find."""
        return sorted(self.known - self.seen)

    def write(self, *, keep: bool) -> int:
        """Write what was seen, and with ``keep`` also what was not. Returns the number. Raises OSError."""
        findings = sorted(self.seen | self.known if keep else self.seen)
        rows = ",\n".join(f"  {json.dumps(_as_data(one))}" for one in findings)
        rows = rows and f"\n{rows}\n "
        text = f'{{\n "format": {FORMAT},\n "findings": [{rows}]\n}}\n'
        new = f"{self.path}.{os.getpid()}"
        try:
            with open(new, "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(new, self.path)
        except OSError:
            if os.path.exists(new):
                os.unlink(new)
            raise
        return len(findings)


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, path.split("*"))), re.DOTALL)


def _as_data(one: Known) -> dict[str, str]:
    data = {one.where: one.place, **{name: getattr(one, name) for name in _KEYS}}
    return {name: value for name, value in data.items() if value or name != "function"}


def _read(path: str) -> Iterator[Known]:
    """The findings of a file. Raises ConfigurationError."""
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except OSError as exc:
        raise ConfigurationError(
            f"tmpguard_baseline = {path!r}: {exc.strerror}; --tmpguard-baseline-write writes it"
        ) from None
    except json.JSONDecodeError as exc:
        raise _invalid(path, f":{exc.lineno}: not JSON ({exc.msg})") from None
    except ValueError as exc:
        raise _invalid(path, f": not JSON ({exc})") from None
    if not isinstance(data, dict) or not isinstance(data.get("findings"), list):
        raise _invalid(path, ': no object with "format" and a list "findings"')
    if data.get("format") != FORMAT:
        raise _invalid(path, f": format {data.get('format')!r}, but this tmpguard reads format {FORMAT}")
    for index, one in enumerate(data["findings"]):
        yield _checked(path, index, one)


def _checked(path: str, index: int, one: Any) -> Known:
    what = f": findings[{index}]"
    where = [name for name in ("file", "library") if isinstance(one, dict) and name in one]
    if len(where) != 1 or not all(isinstance(value, str) for value in one.values()):
        raise _invalid(path, f'{what} is no object of strings with either a "file" or a "library"')
    known = {*where, *_KEYS}
    for name in sorted(known - set(one) - {"function"}):
        raise _invalid(path, f"{what} has no {name!r}")
    for name in sorted(set(one) - known):
        raise _invalid(path, f"{what} has an unknown key {name!r}")
    if not isinstance(getattr(codes, one["errno"], None), int) and not one["errno"].isdigit():
        raise _invalid(path, f"{what}: there is no errno {one['errno']!r}")
    return Known(where[0], one[where[0]], *(one.get(name, "") for name in _KEYS))


def _invalid(path: str, what: str) -> ConfigurationError:
    return ConfigurationError(
        f"the baseline {path}{what}; mend it, or write it anew with --tmpguard-baseline-write"
    )


def conclusion(baseline: Baseline, *, finished: bool, partial: bool) -> list[str]:
    """At the end of a run: write the file if that is asked for. Returns what to say of it.

    ``finished`` is false if the run was interrupted or a worker crashed. ``partial`` is true if it left out
    tests.
    """
    path = baseline.path
    if not finished:
        return [f"{path}: not written, because the run did not finish"] if baseline.writing else []
    if baseline.writing:
        try:
            count = baseline.write(keep=partial)
        except OSError as exc:
            return [f"{path}: not written: {exc.strerror}; give a file that can be written"]
        kept = "; those of tests that did not run are kept" if partial else ""
        return [f"{path}: written with {number(count, 'known finding')}{kept}"]
    stale = [] if partial else baseline.stale()
    if not stale:
        return []
    return [
        f"{path}: {number(len(stale), 'known finding')} did not occur. If all tests ran, remove them from "
        "the file, or write it anew with --tmpguard-baseline-write:",
        *(f"  {one}" for one in stale),
    ]


def as_text(findings: Iterable[Known]) -> str:
    """Findings for another process of the run."""
    return json.dumps([list(one) for one in findings])


def of_text(text: str) -> set[Known]:
    """Findings of another process of the run."""
    return {Known(*one) for one in json.loads(text)}
