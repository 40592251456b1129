"""A report as a run of a project's tests may give it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tmpguard.reporting import summary

MB = 1 << 20
ROOT = str(Path(__file__).parents[2])


def _violation(
    operation: str, path: str, errno: int, line: int, remedy: str, **changes: Any
) -> dict[str, Any]:
    return {
        "operation": operation,
        "path": path,
        "errno": errno,
        "location": {"file": f"{ROOT}/examples/fastapi_app.py", "line": line, "function": "upload"},
        "library": None,
        "remedy": remedy,
        "allowed": False,
        **changes,
    }


def _entry(test: str, route: str, peak: int, **changes: Any) -> dict[str, Any]:
    entry = {
        "test": test,
        "kind": "request",
        "route": route,
        "quota_bytes": 128 * MB,
        "peak_bytes": peak,
        "bytes_left": 0,
        "files_left": 0,
        "violations": [],
        "late_writes": [],
        "missing_files": [],
        "children": [],
        **changes,
    }
    return {"violation_count": len(entry["violations"]), **entry}


def report() -> dict[str, Any]:
    """Seven requests to six routes: uploads, a chart, an export that fills /tmp, and others."""
    upload = _violation(
        "open", "uploads/invoice.pdf", 30, 12, "only /tmp is writable; write to /tmp/uploads/invoice.pdf"
    )
    chart = _violation(
        "os.mkdir",
        "/home/app/.config/matplotlib",
        30,
        20,
        "set MPLCONFIGDIR=/tmp/matplotlib before matplotlib is imported",
        library={"file": "matplotlib/__init__.py", "line": 553, "function": "_get_config_or_cache_dir"},
    )
    full = _violation("write", "/tmp/export.csv", 28, 24, "/tmp is full: remove files or allow more")
    late = _violation("open", "/tmp/export.csv", 116, 24, "the invocation that this code runs for has ended")
    removed = _violation("os.unlink", "/var/run/app.pid", 30, 16, "only /tmp is writable", allowed=True)
    missing = _violation("open", "/tmp/model.bin", 2, 20, "/tmp/model.bin was made by the start-up")
    child = {**_violation("subprocess.Popen", "convert", 0, 16, "set children"), "errno": None}
    left = {"files_left": 2, "bytes_left": 12 * MB}
    return summary.build(
        [
            _entry(
                "tests/test_upload.py::test_small", "POST /upload", 96 * MB, violations=[upload] * 12, **left
            ),
            _entry(
                "tests/test_upload.py::test_large", "POST /upload", 124 * MB, violations=[upload] * 2, **left
            ),
            _entry(
                "tests/test_reports.py::test_chart",
                "GET /reports/{name}/chart.png",
                64 * MB,
                violations=[chart],
                missing_files=[missing],
                children=[child, child],
            ),
            _entry(
                "tests/test_reports.py::test_export",
                "GET /reports/{name}/export",
                128 * MB,
                violations=[full],
                late_writes=[late],
            ),
            _entry("tests/test_items.py::test_items", "GET /items/{number}", 100 * MB),
            _entry(
                "tests/test_items.py::test_removal", "DELETE /items/{number}", 8 * MB, violations=[removed]
            ),
            _entry("tests/test_health.py::test_health", "GET /health", 0),
        ],
        ROOT,
    )
