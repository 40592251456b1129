"""httpx or httpx2, on which the fixture's clients are built. The rest of the plugin needs neither."""

from __future__ import annotations

from tmpguard.core.errors import ConfigurationError

__all__ = ["httpx"]

try:
    import httpx
except ModuleNotFoundError:  # pragma: no cover - depends on what is installed
    try:
        import httpx2 as httpx  # type: ignore[import-not-found, no-redef]
    except ModuleNotFoundError as exc:
        raise ConfigurationError(
            "the clients of the tmpguard fixture need httpx: pip install 'tmpguard[testing]'"
        ) from exc
