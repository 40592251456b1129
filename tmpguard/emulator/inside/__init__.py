"""What runs in a fresh interpreter inside an instance: see :mod:`~tmpguard.emulator.inside.launcher`."""
