"""Lets ``INSTALLED_APPS`` name the package, ``"tmpguard"``, as well as ``"tmpguard.django"``."""

from __future__ import annotations

from importlib import import_module

from django.apps import AppConfig


class TmpGuardConfig(AppConfig):  # type: ignore[misc]
    """Registers the system checks."""

    name = "tmpguard"

    def ready(self) -> None:
        import_module("tmpguard.django")
