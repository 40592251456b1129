"""The command ``tmpguard``; also ``python -m tmpguard``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or say what it lacks."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError:
        print("tmpguard: the command line needs click and rich: pip install 'tmpguard[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    from tmpguard.core.errors import ConfigurationError

    try:
        import tmpguard.config.exports.command
        import tmpguard.emulator.command
        import tmpguard.reporting.command
        import tmpguard.testing.importing  # noqa: F401 - they add their commands
        from tmpguard.config.cli import command
    except ConfigurationError as exc:  # not on this system, or not with this interpreter
        print(f"tmpguard: {exc}", file=sys.stderr)
        raise SystemExit(2) from None
    command(prog_name="tmpguard")


if __name__ == "__main__":
    main()
