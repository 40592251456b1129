"""The page of the report: looked at in a real browser, on a wide screen and on a phone's."""

from __future__ import annotations

import html.parser
import itertools
import re
import shutil
import struct
import subprocess
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.reporting.sample_report import report
from tmpguard.reporting import summary
from tmpguard.reporting.page import page

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

Pixel = tuple[int, int, int]


# --- the text ------------------------------------------------------------------------------------------


class Elements(html.parser.HTMLParser):
    """What a page consists of; fails where elements are not closed as they were opened."""

    VOID = ("meta", "br", "wbr", "!doctype")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    text = page(report())
    elements = Elements(text)
    tags = {tag for tag, _ in elements.seen}
    assert not tags & {"script", "link", "img", "iframe", "object"}
    for _, attributes in elements.seen:
        assert not {"src", "href", "srcset"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
    assert "url(" not in text
    assert "@import" not in text
    assert "default-src 'none'" in text


def test_the_page_shows_what_the_report_has() -> None:
    told = " ".join(Elements(page(report())).text.split())
    for part in (
        "16 file operations would be refused in production",
        "open of uploads/invoice.pdf",
        "EROFS Read-only file system 14 times".replace(" ", ""),
        "only /tmp is writable; write to /tmp/uploads/invoice.pdf",
        "POST /upload",
        "14 violations · 2 requests · 4 files left, 24 MB",
        "97% 124 MB of 128 MB",
        "1 late write",
        "through matplotlib/__init__.py:553 in _get_config_or_cache_dir",
        "tests/test_health.py::test_health",
    ):
        assert part.replace(" ", "") in told.replace(" ", ""), part


def test_the_page_of_an_empty_report_says_so() -> None:
    data = report()
    data["totals"].update(violations=0, allowed=0, late_writes=0, missing_files=0, children=0)
    data["violations"] = data["late_writes"] = data["missing_files"] = data["children"] = []
    told = " ".join(Elements(page(data)).text.split())
    assert "Nothing would be refused in production Every guarded request wrote only to /tmp" in told
    assert "None: every write went to /tmp and fitted." in told
    assert "Late writes" not in told
    data["totals"]["allowed"] = 1
    told = " ".join(Elements(page(data)).text.split())
    assert "Nothing unexpected would be refused in production 1 violation is allowed by the tests." in told
    told = " ".join(Elements(page(summary.build([], "/project"))).text.split())
    assert "No request was guarded Run pytest with --tmpguard" in told
    assert "every write" not in told


def test_numbers_are_those_of_the_things_counted() -> None:
    data = report()
    data["totals"].update(violations=1, files_left=1, bytes_left=3 << 29, peak_share=0.9999)
    data["violations"] = data["violations"][:1]
    told = " ".join(Elements(page(data)).text.split())
    assert "1 file operation would be refused in production It comes from 1 line of code." in told
    assert "Left behind1 file, 1.5 GB" in told
    assert ">99%" in told


def test_what_is_long_is_unfolded_and_cut() -> None:
    data = report()
    one, row = data["violations"][0], data["routes"][0]
    data["violations"] = [{**one, "paths": [f"number-{count}"]} for count in range(25)]
    data["routes"] = [{**row, "route": f"GET /{count}"} for count in range(310)]
    text = page(data)
    elements = Elements(text)
    told = " ".join(elements.text.split())
    assert "5 more violations" in told
    assert "280 more routes" in told
    assert "GET /299" in told
    assert "and 10 more, in the JSON file" in told
    assert "GET /300" not in told
    folded = text.partition('<details class="rest">')[2].partition("Routes")[0]
    assert "number-20" in folded
    assert "number-19" not in folded


def test_markup_in_names_is_shown_and_not_obeyed() -> None:
    hostile = '"><script>alert(1)</script>\u202e\x00'
    data = report()
    data["root"] = data["routes"][0]["route"] = data["tests"][0]["test"] = hostile
    for group in data["violations"]:
        group.update(operation=hostile, error=hostile, message=hostile, remedy=hostile, paths=[hostile] * 2)
        group.update(tests=[hostile], routes=[hostile], source=[{"line": 1, "text": hostile}])
        group.update(location={"file": hostile, "line": 1, "function": hostile})
    text = page(data)
    assert "script" not in {tag for tag, _ in Elements(text).seen}
    assert not {"\u202e", "\x00"} & set(text)


# --- the colours ---------------------------------------------------------------------------------------


def colours(text: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", text))


def luminance(colour: str) -> float:
    """Of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_and_bars_stand_out_in_both_schemes(scheme: str) -> None:
    """WCAG 2: 4.5 for text, 3 for what is no text."""
    light, dark = page(report()).split("@media (prefers-color-scheme: dark)")[:2]
    palette = colours(light) | (colours(dark) if scheme == "dark" else {})
    backgrounds = ("paper", "card", "sunken")
    pairs = [(ink, back) for ink in ("ink", "soft", "accent", "bad") for back in backgrounds]
    pairs += [("warn", "card"), ("good", "card"), ("ink", "mark"), ("bad", "mark"), ("soft", "mark")]
    pairs += [("bad", "bad-wash"), ("warn", "warn-wash"), ("good", "good-wash")]
    for ink, back in pairs:
        assert contrast(palette[ink], palette[back]) >= 4.5, (ink, back)
    for fill in ("fill", "fill-near", "fill-full"):
        assert contrast(palette[fill], palette["track"]) >= 2, fill
        assert contrast(palette[fill], palette["card"]) >= 3, fill


# --- in a browser --------------------------------------------------------------------------------------


class Picture:
    """A PNG of 8 bits a channel, without interlacing."""

    def __init__(self, data: bytes) -> None:
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        chunks, at = [], 8
        while at < len(data):
            (length,) = struct.unpack_from(">I", data, at)
            chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
            at += 12 + length
        self.width, self.height, depth, kind, _, _, interlaced = struct.unpack(
            ">IIBBBBB", dict(chunks)[b"IHDR"]
        )
        assert (depth, interlaced) == (8, 0)
        self._channels = {2: 3, 6: 4}[kind]
        packed = b"".join(content for name, content in chunks if name == b"IDAT")
        self._rows = self._unfiltered(zlib.decompress(packed))

    def _unfiltered(self, raw: bytes) -> list[bytearray]:
        wide, step = self.width * self._channels, self._channels
        rows = [bytearray(wide)]
        for at in range(0, len(raw), wide + 1):
            row, above, method = bytearray(raw[at + 1 : at + 1 + wide]), rows[-1], raw[at]
            if method == 1:
                for channel in range(step):
                    row[channel::step] = bytes(itertools.accumulate(row[channel::step], _added))
            elif method == 2:
                row = bytearray(map(_added, row, above))
            elif method:
                predicted = _average if method == 3 else _paeth
                for place in range(wide):
                    left, corner = (row[place - step], above[place - step]) if place >= step else (0, 0)
                    row[place] = _added(row[place], predicted(left, above[place], corner))
            rows.append(row)
        return rows[1:]

    def pixel(self, x: int, y: int) -> Pixel:
        start = x * self._channels
        red, green, blue = self._rows[y][start : start + 3]
        return red, green, blue

    def runs(self, colour: Pixel, shortest: int) -> list[tuple[int, int]]:
        """Unbroken horizontal lines of ``colour`` that are long enough: y and length of each."""
        found = []
        for y, row in enumerate(self._rows):
            if bytes(colour) in row:
                same = [self.pixel(x, y) == colour for x in range(self.width)]
                runs = [len(list(run)) for is_same, run in itertools.groupby(same) if is_same]
                found += [(y, length) for length in runs if length >= shortest]
        return found


def _added(one: int, other: int) -> int:
    return (one + other) & 255


def _average(left: int, up: int, corner: int) -> int:
    return (left + up) // 2


def _paeth(left: int, up: int, corner: int) -> int:
    distances = (abs(up - corner), abs(left - corner), abs(left + up - 2 * corner))
    return (left, up, corner)[distances.index(min(distances))]


def rgb(colour: str) -> Pixel:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def browse(tmp_path: Path, text: str, *arguments: str) -> str:
    """Open the page in Chromium; what that prints."""
    assert CHROMIUM is not None
    (tmp_path / "page.html").write_text(text)
    quiet = ("--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-sync")
    more = ("--disable-component-update", f"--user-data-dir={tmp_path}/profile")
    done = subprocess.run(
        [
            *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            *(*quiet, *more, *arguments, f"file://{tmp_path}/page.html"),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout


def screenshot(tmp_path: Path, data: dict[str, Any], width: int, height: int, *arguments: str) -> Picture:
    shot = tmp_path / "page.png"
    text = re.sub("<header>.*</header>", "", page(data), flags=re.DOTALL)  # so that the bars are at the top
    browse(tmp_path, text, f"--screenshot={shot}", f"--window-size={width},{height}", *arguments)
    return Picture(shot.read_bytes())


@in_a_browser
@pytest.mark.parametrize(("width", "height", "scheme"), [(390, 1000, "light"), (760, 660, "dark")])
def test_the_bars_are_as_long_as_the_shares_that_they_show(
    tmp_path: Path, width: int, height: int, scheme: str
) -> None:
    data = report()
    data["violations"] = data["late_writes"] = data["tests"] = []
    data["missing_files"] = data["children"] = []
    arguments = ["--force-dark-mode"] if scheme == "dark" else []
    picture = screenshot(tmp_path, data, width, height, *arguments)
    assert (picture.width, picture.height) == (width, height)

    light, dark = page(data).split("@media (prefers-color-scheme: dark)")[:2]
    palette = colours(light) | (colours(dark) if scheme == "dark" else {})
    assert picture.pixel(2, 2) == rgb(palette["paper"])

    bars = lengths_of_bars(picture, palette)
    shares = [row["peak_share"] for row in data["routes"]]
    assert len(bars) == len(shares)
    longest = bars[0][0]
    assert shares[0] == 1.0
    # Wide on a phone, where it has a line for itself.
    assert longest > (300 if width == 390 else 200)
    for (filled, whole), share in zip(bars, shares, strict=True):
        assert abs(whole - longest) <= 4
        assert abs(filled - share * longest) <= 4, share


def lengths_of_bars(picture: Picture, palette: dict[str, str]) -> list[tuple[int, int]]:
    """Of each bar, from the top: how long its fill is, and how long it is. In pixels, in its middle line."""
    lengths: dict[int, list[int]] = {}
    for name in ("fill", "fill-near", "fill-full", "track"):
        for y, length in picture.runs(rgb(palette[name]), shortest=2):
            lengths.setdefault(y, [0, 0])[name == "track"] += length
    # Of a bar's lines, which lie one below the other, text has none that are as long.
    lines = [y for y in sorted(lengths) if sum(lengths[y]) > 150]
    tops = [y for y in lines if y - 1 not in lines]
    middles = [top + sum(top <= y < top + 20 for y in lines) // 2 for top in tops]
    return [(lengths[y][0], sum(lengths[y])) for y in middles]


@in_a_browser
def test_nothing_is_wider_than_a_phone(tmp_path: Path) -> None:
    """Measured by the browser itself, with names that have no place to break."""
    data = report()
    long = "x" * 400
    data["routes"][0]["route"] = f"GET /{long}"
    data["tests"][0]["test"] = f"test_{long}"
    data["violations"][0].update(
        paths=[long, long + "y"], remedy=long, routes=[long], tests=[long], operation=long
    )
    data["violations"][0]["source"][0]["text"] = f"        {long}"
    measuring = """<script>addEventListener("load", () => {
        const wide = [...document.querySelectorAll("*")]
            .filter(one => one.getBoundingClientRect().right > innerWidth + 1)
            .map(one => one.tagName + "." + one.className);
        document.title = JSON.stringify([innerWidth, document.documentElement.scrollWidth, wide]);
    });</script>"""
    text = page(data).replace("default-src 'none';", "").replace("</head>", measuring + "</head>")
    text = text.replace("<details", "<details open")
    printed = browse(tmp_path, text, "--dump-dom", "--window-size=390,1200")
    told = re.search(r"<title>\[(\d+),(\d+),(\[.*?\])\]</title>", printed)
    assert told is not None
    inner, scrolled, wide = told.groups()
    assert (scrolled, wide) == (inner, "[]")
