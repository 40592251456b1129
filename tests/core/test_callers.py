"""Who made a call: the application's line, the library functions on the way, an import, an observer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import PROJECT, run_python

OBSERVING = """
site, project, scratch = sys.argv[1:]
sys.path[:0] = [site]
import coverage, tmpguard
assert tmpguard.__file__.startswith(site) or site.endswith("/elsewhere")
with tmpguard.invocation(bundle=project, scratch_root=scratch) as invocation:
    print(coverage.sees(project + "/local.py"), coverage.sees(project + "/local.csv"))
print(invocation.report.lookups)
"""


@pytest.mark.parametrize("directory", ["site-packages", "elsewhere"])
def test_a_coverage_tool_sees_what_is_not_in_the_bundle(
    tmp_path: Path, scratch_root: Path, directory: str
) -> None:
    """Wherever tmpguard itself is installed."""
    site, project = tmp_path / directory, tmp_path / "project"
    (site / "coverage").mkdir(parents=True)
    (site / "coverage" / "__init__.py").write_text("import os\nsees = lambda path: os.path.exists(path)\n")
    if directory == "site-packages":
        (site / "tmpguard").symlink_to(PROJECT / "tmpguard")
    project.mkdir()
    for name in ("local.py", "local.csv"):
        (project / name).touch()
    (project / ".genezioignore").write_text("local.*\n")
    assert run_python(OBSERVING, site, project, scratch_root) == "True True\n()\n"
