"""Makes the pictures of the documentation: python -m tests.docs.pictures (needs Chromium).

Both show one run of pytest over a small application of FastAPI: its output, and the page of its report.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.text import Text

from tests.support import PROJECT

IMAGES: Final = PROJECT / "docs" / "images"
COLUMNS: Final = 100

APPLICATION: Final = """\
from pathlib import Path

from fastapi import FastAPI, UploadFile

app = FastAPI()


@app.post("/invoices")
def upload(file: UploadFile) -> dict[str, str]:
    try:
        with open(str(file.filename), "wb") as copy:
            copy.write(file.file.read())
    except OSError:
        print("no copy of", file.filename)
    return {"received": str(file.filename)}


@app.get("/export")
def export() -> dict[str, int]:
    rows = "".join(f"{number};{number * 19}\\n" for number in range(200_000))
    Path("/tmp/export.csv").write_text(rows)
    return {"bytes": len(rows)}
"""

TESTS: Final = """\
from fastapi.testclient import TestClient

from shop import app

client = TestClient(app)


def test_an_invoice_is_received() -> None:
    response = client.post("/invoices", files={"file": ("march.pdf", b"%PDF-1.7")})
    assert response.json() == {"received": "march.pdf"}


def test_everything_is_exported() -> None:
    assert client.get("/export").json()["bytes"] > 1_000_000
"""


def run(project: Path, *options: str) -> str:
    """Run the tests of ``project``. Returns the output, with colours."""
    command = [sys.executable, "-m", "pytest", "--tmpguard", "--color=yes", *options]
    quiet = ["-p", "no:cacheprovider", "-p", "no:randomly", "-p", "no:logging", "-W", "ignore", "--no-header"]
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [*command, *quiet], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


def draw_output(output: str, picture: Path) -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(Text.from_ansi("$ pytest --tmpguard -q\n" + output.strip()))
    # Without the font, which a page would load from elsewhere.
    svg = console.export_svg(title="pytest --tmpguard", font_aspect_ratio=0.61)
    head, _, rest = svg.partition("@font-face")
    while rest:
        rest = rest.partition("}")[2]
        more, _, rest = rest.partition("@font-face")
        head += more
    picture.write_text(head.rstrip() + "\n")


def photograph(page: Path, picture: Path) -> None:
    chromium = shutil.which("chromium")
    assert chromium is not None, "Chromium is not installed"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
    subprocess.run(
        [chromium, *options, "--window-size=1000,900", f"--screenshot={picture}", page.as_uri()],
        check=True,
        capture_output=True,
    )


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        project = Path(directory) / "shop"
        project.mkdir()
        (project / "shop.py").write_text(APPLICATION)
        (project / "test_shop.py").write_text(TESTS)
        draw_output(run(project, "-q", "--show-capture=no"), IMAGES / "failing-test.svg")
        run(project, "--tmpguard-report=report")
        photograph(project / "report.html", IMAGES / "report.png")


if __name__ == "__main__":
    main()
