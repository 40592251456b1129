"""The build hook: compiles ``tmpguard/core/_speedups.c``, which is optional, with setuptools.

Where there is no compiler, or no headers of the interpreter, the wheel is a pure one, and tmpguard uses the
same steps in Python (``tmpguard/core/speedups.py``). The environment variable ``TMPGUARD_NO_EXTENSION`` makes
a pure wheel everywhere.
"""

from __future__ import annotations

import os
import sysconfig
import tempfile
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SOURCE = "tmpguard/core/_speedups.c"
MODULE = "tmpguard.core._speedups"


class ExtensionBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the compiled extension to a wheel, or to the checkout if the wheel is an editable one."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel" or os.environ.get("TMPGUARD_NO_EXTENSION"):
            return
        name = "_speedups" + sysconfig.get_config_var("EXT_SUFFIX")
        built = os.path.join(self.root, os.path.dirname(SOURCE), name)
        if version != "editable":
            self._directory = tempfile.TemporaryDirectory(prefix="tmpguard-build-")
            built = os.path.join(self._directory.name, name)
        try:
            if not _is_newer(built, os.path.join(self.root, SOURCE)):
                _compile(self.root, built)
        except Exception as exc:  # whatever a compiler, or its absence, can raise
            self.app.display_warning(f"tmpguard is built without its C extension: {exc}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version != "editable":
            build_data["force_include"][built] = f"{os.path.dirname(SOURCE)}/{name}"


def _is_newer(built: str, source: str) -> bool:
    return os.path.exists(built) and os.path.getmtime(built) > os.path.getmtime(source)


def _compile(root: str, built: str) -> None:
    """Compile the extension into the file ``built``, which a running process may be using."""
    from setuptools import Distribution, Extension
    from setuptools.command.build_ext import build_ext

    # Debian's headers include others from their parent directory, which is not the system's if the
    # interpreter was unpacked elsewhere.
    parent = os.path.dirname(sysconfig.get_path("include"))
    extension = Extension(
        MODULE, [os.path.join(root, SOURCE)], extra_compile_args=["-O2", "-g0", "-idirafter", parent]
    )
    with tempfile.TemporaryDirectory(prefix=".tmpguard-build-", dir=os.path.dirname(built)) as directory:
        command = build_ext(Distribution({"name": "tmpguard", "ext_modules": [extension]}))
        command.build_lib = command.build_temp = directory
        command.ensure_finalized()
        command.run()
        os.replace(command.get_ext_fullpath(MODULE), built)
