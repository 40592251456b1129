"""One pattern of an ignore file as regular expressions that match what git's own matcher matches.

Git compares bytes: ``?`` is one byte of a name, not one letter. Here every byte is a character (see
:func:`byte_text`), and ``re`` does the matching. Where git does something that its manual does not say, its
behaviour counts, and the tests hold this module to it.
"""

from __future__ import annotations

import os
import re
from typing import Final, NamedTuple

_SPECIAL: Final = "*?[\\"
_SLASH: Final = "/"

#: Tokens of a pattern in path mode, besides the expressions for exactly one character.
_STAR: Final = "[^/]*"
_ANYTHING: Final = ".*"
_DIRECTORIES: Final = "(?:.*/)?"

_NEVER: Final = "(?!)"

_ALNUM: Final = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_GRAPH: Final = frozenset(map(chr, range(0x21, 0x7F)))

#: The classes in ``[[:alpha:]]``, all of them in ASCII.
_CLASSES: Final[dict[str, frozenset[str]]] = {
    "alnum": _ALNUM,
    "alpha": frozenset(letter for letter in _ALNUM if letter.isalpha()),
    "blank": frozenset(" \t"),
    "cntrl": frozenset(map(chr, [*range(0x20), 0x7F])),
    "digit": frozenset("0123456789"),
    "graph": _GRAPH,
    "lower": frozenset(letter for letter in _ALNUM if letter.islower()),
    "print": _GRAPH | {" "},
    "punct": _GRAPH - _ALNUM,
    "space": frozenset(" \t\n\r"),
    "upper": frozenset(letter for letter in _ALNUM if letter.isupper()),
    "xdigit": frozenset("0123456789ABCDEFabcdef"),
}


class _Invalid(Exception):
    """The pattern matches nothing: a bracket or an escape that does not end."""


class Matcher(NamedTuple):
    """What a pattern asks of a path, ``head`` of its directory and ``tail`` of its last name.

    ``head`` is matched with the directory's path and a slash, ``""`` at the top; None: any directory will do.
    ``tail`` is None where every name will do. ``whole`` stands instead of both where they cannot be told
    apart: it is matched with the whole path. All of them have to match from the first to the last character.
    """

    head: re.Pattern[str] | None
    tail: re.Pattern[str] | None
    whole: re.Pattern[str] | None
    #: The name itself where ``tail`` is a name without wildcards, ``*`` and what follows for ``*.csv``.
    plain: str | None


def byte_text(path: str) -> str:
    """``path`` with one character for each of its bytes."""
    return path if path.isascii() else os.fsencode(path).decode("latin-1")


def compile_name(pattern: str) -> Matcher | None:
    """A pattern without a slash: a name in whatever directory. None where it matches nothing."""
    try:
        tokens = _tokens(pattern, paths=False)
    except _Invalid:
        return None
    return Matcher(None, _regex(tokens), None, _plain(pattern)) if tokens else None


def compile_path(pattern: str) -> Matcher | None:
    """A pattern with a slash, which is anchored at the top; None where it matches nothing."""
    pattern = pattern.removeprefix("/")
    # Git compares what stands before the first wildcard as it is and then begins anew. So "a**/b" has a
    # leading "**/" after its "a", and matches "ab" as well.
    literal = pattern[: _literal_length(pattern)]
    try:
        tokens = [re.escape(letter) for letter in literal] + _tokens(pattern[len(literal) :], paths=True)
    except _Invalid:
        return None
    if not tokens:
        return None
    split = max((at + 1 for at, token in enumerate(tokens) if token in (_SLASH, _DIRECTORIES)), default=0)
    head, tail = tokens[:split], tokens[split:]
    if tail == [_ANYTHING]:
        return Matcher(_regex([*head, _ANYTHING]), None, None, None)
    if _ANYTHING in tail:
        return Matcher(None, None, _regex(tokens), None)
    last = pattern.rpartition("/")[2]
    return Matcher(_regex(head), _regex(tail), None, _plain(last) if "]" not in last else None)


def _literal_length(pattern: str) -> int:
    return next((at for at, letter in enumerate(pattern) if letter in _SPECIAL), len(pattern))


def _plain(name: str) -> str | None:
    """``name`` if it has no wildcard but perhaps one star at its start."""
    return name if _literal_length(name.removeprefix("*")) == len(name.removeprefix("*")) else None


def _regex(tokens: list[str]) -> re.Pattern[str]:
    return re.compile(_joined(tokens), re.DOTALL)


def _joined(tokens: list[str]) -> str:
    """The tokens as one expression that does not try in vain.

    What stands between two stars of one name is found at its first place or nowhere: no other place need be
    tried when something after it does not match.
    """
    parts: list[str] = []
    star = False
    chunk: list[str] = []

    def end_chunk(*, last: bool) -> None:
        if not star:
            parts.extend(chunk)
        elif last:
            parts.extend([_STAR, *chunk])
        else:
            parts.append(f"(?>{_STAR}?{''.join(chunk)})")
        chunk.clear()

    for token in tokens:
        if token == _STAR:
            end_chunk(last=False)
            star = True
        elif token in (_SLASH, _ANYTHING, _DIRECTORIES):
            end_chunk(last=True)
            star = False
            parts.append(token)
        else:
            chunk.append(token)
    end_chunk(last=True)
    return "".join(parts)


def _tokens(pattern: str, *, paths: bool) -> list[str]:
    """The expressions of ``pattern`` one after the other. Raises _Invalid where it matches nothing."""
    tokens = []
    at = 0
    while at < len(pattern):
        letter = pattern[at]
        if letter == "*":
            token, at = _stars(pattern, at, paths=paths)
        elif letter == "[":
            token, at = _bracket(pattern, at + 1)
        elif letter == "?":
            token, at = "[^/]", at + 1
        else:
            letter, at = _escaped(pattern, at)
            token = re.escape(letter)
        tokens.append(token)
    return tokens


def _stars(pattern: str, start: int, *, paths: bool) -> tuple[str, int]:
    """One star or several that stand together, and where they end."""
    end = start
    while pattern[end : end + 1] == "*":
        end += 1
    after = pattern[end : end + 2]
    if (
        paths
        and end - start > 1
        and (start == 0 or pattern[start - 1] == "/")
        and (not after or after[0] == "/" or after == "\\/")
    ):
        return (_DIRECTORIES, end + 1) if after[:1] == "/" else (_ANYTHING, end)
    return _STAR, end


def _bracket(pattern: str, at: int) -> tuple[str, int]:
    """The expression of a set whose bracket was opened before ``at``, and where it ends."""
    negated = pattern[at : at + 1] in ("!", "^")
    at += negated
    letters: set[str] = set()
    before = ""  # the letter from which a range may go on
    first = True
    while True:
        letter = pattern[at : at + 1]
        if not letter:
            raise _Invalid
        if letter == "]" and not first:
            break
        first = False
        if letter == "-" and before and pattern[at + 1 : at + 2] not in ("", "]"):
            last, at = _escaped(pattern, at + 1)
            letters.update(map(chr, range(ord(before), ord(last) + 1)))
            before = ""
        elif letter == "[" and pattern[at + 1 : at + 2] == ":":
            end = pattern.find("]", at + 2)
            if end < 0:
                raise _Invalid
            if end > at + 2 and pattern[end - 1] == ":":
                try:
                    letters |= _CLASSES[pattern[at + 2 : end - 1]]
                except KeyError:
                    raise _Invalid from None
                before = ""
                at = end + 1
            else:
                letters.add("[")
                before = "["
                at += 1
        else:
            before, at = _escaped(pattern, at)
            letters.add(before)
    if negated:
        letters = set(map(chr, range(1, 256))) - letters
    letters.discard("/")
    expression = "".join(sorted(map(re.escape, letters)))
    return (f"[{expression}]" if letters else _NEVER), at + 1


def _escaped(pattern: str, at: int) -> tuple[str, int]:
    """The letter at ``at``, or the one that is escaped there, and where the next one is."""
    at += pattern[at : at + 1] == "\\"
    if at >= len(pattern):
        raise _Invalid
    return pattern[at], at + 1
