"""What imports leave in ``/tmp``, for tests with ``lifetime="instance"``.

A module is imported only once, but each test has its own instance, and on the platform each instance imports
the application. So each test starts with a copy of what the imports left, and in the directory to which they
changed. The instances of the imports live until the end of the run, so that files that the modules keep open
can still be written.
"""

from __future__ import annotations

import shutil
from contextlib import suppress

from tmpguard.core.instance import ProcessInstance


class Imported:
    """The instances in which imports ran. Later instances start with a copy of their files."""

    def __init__(self) -> None:
        self._instances: list[ProcessInstance] = []

    @property
    def cwd(self) -> str | None:
        """The directory to which the imports changed; None if they did not."""
        return next((one.cwd for one in reversed(self._instances) if one.cwd is not None), None)

    def add(self, instance: ProcessInstance | None) -> None:
        """Add an ``instance`` in which imports ran."""
        if instance is not None:
            self._instances.append(instance)

    def fill(self, directory: str) -> None:
        """Copy the files to ``directory``. Files that cannot be copied (sockets, pipes) are left out."""
        for instance in self._instances:
            source = instance.volume.directory
            if source is not None:
                with suppress(OSError):
                    shutil.copytree(source, directory, symlinks=True, dirs_exist_ok=True)

    def end(self) -> None:
        """The run is over: end the instances, which wipes them."""
        for instance in self._instances:
            instance.end()
