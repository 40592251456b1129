"""Generates scripts. A script is a list of calls; a call is a list of its name and its arguments, as JSON.

Hypothesis provides the source of randomness and the seed. It does not choose the arguments: it tends to vary
earlier examples, and these scripts have to be different from each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.parity import archives, further, handles, names, newer, operations, trees

words = operations.words

#: A small set of names, so that calls often share one: those of ``places.make_tmp`` and a few new ones.
_TMP = words(
    "file file dir dir/inner empty new new other dir/new empty/new new/new to-file to-dir a a/b a/b/c"
)
_TMP_ODD = words(
    "file/ dir/ new/ missing/new file/new dir/. dir/.. dir/../file new/. empty/.. to-dir/new to-dir/.. "
    "to-file/ to-dir/ dangling dangling/ loop loop/new up up/tmp/new up/new out-file out-dir out-dir/inner "
    " out-dir/new out-dir/../file out-missing out-and-back package package/ package/file "
    "package/dir package/dir/inner package/new package/.. package/../file package/into-tmp-file "
    "package/to-file name1 name2 {256} {255} link link/ link/inner link/new link/. link2 link2/ file/. new/. "
    "dir//inner dir///new ./dir/./inner dir/./.././file /file //new <1000>file <2039>file <2050>file "
    "dir/<1000>inner dir/<2050>inner {255}/new up/./tmp/.//file dangling/. loop/ loop/. to-file/. to-dir/."
)
_TMP_ODD += ["name\udcff", "name\udcff/new", "n\udfff", "dir/\udfff", "\u00e9\u4e2d"]
_PROJECT = words(
    "P P/ P/file P/dir P/new P/dir/inner P/dir/new P/tree P/empty P/to-file P/to-dir P/dangling P/loop "
    "P/into-tmp-file P/into-tmp-missing P/into-tmp-dir P/into-tmp-dir/new P/into-tmp-dir/.. P/file/ "
    "P/into-tmp-dir/inner P/into-tmp-dir/../new file dir new ./file dir/../new into-tmp-file into-tmp-dir "
    "into-tmp-dir/new into-tmp-missing empty inner .. ../file ../new . ./ to-dir/.. tree/branch"
)
_SPELLED = words(
    "//tmp//file //tmp//new /tmp/./file /tmp/./new /usr/../tmp/file /usr/../tmp/new /usr/../tmp/dir/new "
    "/tmp/../tmp/new /tmp/../P/file /./tmp/./dir /tmp/../P/new /tmp//dir//new /tmp/dir/../../tmp/file "
    "b:/tmp/file b:/tmp/new b:/tmp/dir b:P/file b:file b:/tmp/package b:/tmp/dir/../new p:/tmp/file "
    "p:/tmp/new p:P/file p:/tmp/dir p:P/new p:new p:P/into-tmp-missing fd:0 fd:1 fd:2 proc:0 proc:1 "
    "proc:2 proc:0/new proc:1/file proc:0/.. proc:0/../new proc:0/ proc:1/. b:/tmp/link b:/tmp/link/ "
    "p:/tmp/link b:/tmp/to-dir/new b:/tmp//dir/./inner <1000>file"
)
_SPELLED += ["b:/tmp/name\udcff", "b:name\udcff", "p:/tmp/name\udcff", "\udfff", "P/\udfff", "p:/tmp/\udfff"]
_PLACES = words(
    "/tmp /tmp/ /tmp/. /tmp/.. / /usr /usr/new /proc/self/cwd /proc/self/cwd/file /proc/self/cwd/new"
)
_PLACES += [
    "/proc/self/root/tmp/new",
    "/proc/self/root/tmp/file",
    "",
    "/dev/null",
    "/tmp/nul\0byte",
    "/nowhere",
]

PATHS = (
    [f"/tmp/{name}" for name in _TMP] * 8
    + ["/tmp/link", "/tmp/link/", "/tmp/link2", "/tmp/link/new"] * 4
    + [f"/tmp/{name}" for name in _TMP_ODD] * 2
    + _PROJECT * 2
    + _SPELLED * 2
    + _PLACES
)
TARGETS = words(
    "file dir new inner ../file ../new . /tmp/file /tmp/dir /tmp/new /tmp/dir/inner P/file P/dir P/new P "
    "P/into-tmp-file P/into-tmp-dir /tmp/package /tmp/package/file package package/dir b:/tmp/file p:dir "
    "{127} {128} {300} {4095} nowhere/at/all /tmp/loop to-file to-dir dir/.. /proc/self/cwd"
)
TARGETS += ["", "/tmp/"]
#: Texts of links that test the look-up: endings that require a directory, components without effect, and
#: links in /proc.
TARGETS += words(
    "file/ dir/ new/ to-file/ to-dir/ dangling/ loop/ link/ link link/inner file/. dir/. new/. link/. "
    "file/.. dir/../file/ ./file .//dir/./ dir//inner //tmp//file/ /tmp/./dir/./inner ./. .. ../ /./tmp/ "
    "P/file/ P/dir/ P/to-file P/into-tmp-file/ /tmp/link/ /tmp/file/ /tmp/new/ /tmp/package/ "
    "package/to-dir/ /proc/self/cwd/ /proc/self/cwd/file /proc/self/root/tmp/file /proc/self/root "
    "/proc/thread-self/cwd/dir /dev/null /dev/null/ <1000>file <2040>file <2050>file"
)
TARGETS += ["b:file\udcff", "name\udcff/", "\udfff"]
PATTERNS = words(
    "/tmp/* /tmp/*/* /tmp/** /tmp/**/* P/* P/*/* * */* ** /tmp/package/* b:/tmp/* /tmp/d*/i* /tmp/[nf]* "
    "/tmp/to-dir/* /tmp/.* P/into-tmp-dir/* p:/tmp/* /tmp/dir/ /tmp/*/ /tmp/file new* /tmp/package/**"
)
PAGE = 4096
SIZES = [
    0,
    1,
    10,
    100,
    PAGE - 1,
    PAGE,
    PAGE + 1,
    3 * PAGE,
    8191,
    8192,
    8193,
    20_000,
    50_000,
    200_000,
    600_000,
]
SIZES += [(1 << 20) - PAGE, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2_000_000]
OFFSETS = [0, 0, 1, 100, PAGE - 1, PAGE, PAGE + 1, 10 * PAGE - 1, 100_000, 300_000, 1 << 20, 3_000_000, -1]
MODES = words("r w a x r+ w+ a+ x+ rb wb ab xb rb+ wb+ ab+ xb+ " * 3 + "rt wt+ bad rw U rbt wbb")

#: The values of each kind of argument.
KINDS: dict[str, Sequence[Any]] = {
    "slot": [0, 0, 0, 1, 1, 2],
    "path": PATHS,
    "target": TARGETS,
    "mode": MODES,
    "raw_mode": words("r w a x r+ w+ a+ x+"),
    "buffering": [-1, -1, -1, 0, 0, 1, 2, 50, 10_000],
    "flags": operations.FLAGS + words("O_RDWR|O_CREAT O_RDWR|O_CREAT O_RDWR O_RDONLY O_WRONLY|O_CREAT") * 6,
    "permissions": [0o644, 0o666, 0o777, 0o755, 0o600, 0o700, 0, 0o400, 0o1777, 0o22],
    "directory": [None] * 14 + [0, 1],
    "directory?": [None, None, "/tmp", "/tmp", "/tmp/dir", "/tmp/new", "P", "/tmp/package"],
    "size": SIZES,
    "sizes": [[], [0], *([one, other] for one in SIZES for other in SIZES), [1, PAGE, 0, 10_000]],
    "offset": OFFSETS,
    "offset?": [None, None, None, *OFFSETS],
    "length": [None, *OFFSETS, *SIZES],
    "whence": [0, 0, 0, 1, 2, 2, 5],
    "seeking": [0, 0, 0, 1, 2, 3, 4, 9],
    "bool": [True, False],
    "time": [None, 0, 1, 10**9, 1_500_000_000],
    "attribute": words("user.one user.one user.two nonsense user. {300}"),
    "create": [0, 0, 1, 2],
    "access": [0, 1, 2, 4, 6],
    "pathconf": words("PC_NAME_MAX PC_PATH_MAX PC_NAME_MAX PC_PIPE_BUF"),
    "look": sorted(names.LOOKS),
    "copy": sorted(trees.COPIES),
    "method": sorted(trees.METHODS),
    "maker": sorted(trees.MAKERS),
    "pattern": PATTERNS,
    **names.KINDS,
    **further.KINDS,
    **archives.KINDS,
    **newer.KINDS,
}

#: Calls that are chosen more often than the others.
_FREQUENT = {
    "open_": 12,
    "write": 10,
    "os_open": 8,
    "os_write": 5,
    "close": 5,
    "path_method": 8,
    "os_path": 3,
    "rename": 4,
    "mkdir": 3,
    "unlink": 4,
    "symlink": 3,
    "make_temporary": 4,
    "copy": 4,
    "chdir": 2,
    "pwrite": 2,
    "seek": 3,
    "file_truncate": 2,
    "flush": 2,
}

#: Calls that put a handle into a slot. All but the last three need no other handle.
_OPENING = words("open_ os_open file_io make_temporary open_by_opener open_otherwise fdopen dup duplicate")


def _chosen(*, holding: bool) -> list[str]:
    """The calls that this interpreter has; those that need a handle only if ``holding``."""
    return [
        name
        for name, (_, kinds) in sorted(handles.CALLS.items())
        for _ in range(_FREQUENT.get(name, 1))
        if name not in newer.LACKING
        if holding or "slot" not in kinds or name in _OPENING[:6]
    ]


_ANY_CALL = _chosen(holding=True)
_FIRST_CALL = _chosen(holding=False)
_LENGTHS = [2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25]

#: Calls that open something and succeed unless an earlier call prevents it.
_SURE = (
    ["open_", "/tmp/new", "wb", 0],
    ["open_", "/tmp/file", "rb+", -1],
    ["open_", "/tmp/new", "w+", -1],
    ["open_", "/tmp/other", "wb+", 50],
    ["open_", "/tmp/file", "ab", -1],
    ["open_", "/tmp/file", "rb", -1],
    ["open_otherwise", "/tmp/file", "r"],
    ["open_otherwise", "/tmp/file", "r for bytes"],
    ["open_otherwise", "/tmp/file", "r with an encoding"],
    ["open_otherwise", "P/file", "r"],
    ["open_otherwise", "P/file", "r for bytes"],
    ["os_open", "/tmp/new", "O_RDWR|O_CREAT", 0o600, None],
    ["os_open", "/tmp/file", "O_RDWR|O_CREAT", 0o644, None],
    ["os_open", "/tmp", "O_RDWR|O_TMPFILE", 0o600, None],
    ["os_open", "/tmp", "O_RDONLY", 0, None],
    ["os_open", "P", "O_RDONLY", 0, None],
    ["os_open", "/tmp/dir", "O_RDONLY", 0, None],
    ["os_open", "P/file", "O_RDONLY", 0, None],
    ["os_open", "P/file", "O_PATH", 0, None],
    ["make_temporary", "TemporaryFile", "/tmp"],
    ["make_temporary", "NamedTemporaryFile", None],
    ["make_temporary", "TemporaryDirectory", "/tmp"],
)

#: Most scripts start with files in ``/tmp``, with or without links.
_STARTS: tuple[list[list[Any]], ...] = (
    [],
    *[[["make", False]], [["make", True]], [["make", True]]] * 2,
    *([["make", links], ["fill", "/tmp/other", left]] for links in (True, False) for left in (4096, 8193)),
    [["make", False], ["make_many", "/tmp/dir", 20, 100]],
)


class _Maker:
    """Generates one script, whose calls share paths and handles."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._held: list[int] = []
        self._named: list[str] = []

    def script(self) -> list[list[Any]]:
        choose = self._random.choice
        made = [list(call) for call in choose(_STARTS)]
        for _ in range(choose(_LENGTHS)):
            if self._random.random() < 0.12:
                name, *arguments = choose(_SURE)
                arguments = [choose(KINDS["slot"]), *arguments]
            else:
                name = choose(_ANY_CALL if self._held else _FIRST_CALL)
                arguments = self._arguments(name)
            if name in _OPENING and arguments[0] not in self._held:
                self._held.append(arguments[0])
            made.append([name, *arguments])
        return made

    def _arguments(self, name: str) -> list[Any]:
        return [
            self._argument(kind, fresh=not number and name in _OPENING)
            for number, kind in enumerate(handles.CALLS[name][1])
        ]

    def _argument(self, kind: str, *, fresh: bool) -> Any:
        choose = self._random.choice
        if kind == "slot" and self._held and not fresh:
            return choose(self._held)
        if kind == "path" and self._named and self._random.random() < 0.3:
            return choose(self._named)  # one that was used before
        chosen = choose(KINDS[kind])
        if kind == "path" and chosen.startswith(("/tmp/", "P/")):
            self._named.append(chosen)
        return chosen


def script_of(random: Random) -> list[list[Any]]:
    return _Maker(random).script()


scripts = st.randoms(use_true_random=True).map(script_of)
