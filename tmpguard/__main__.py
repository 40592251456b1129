"""The command ``tmpguard``; also ``python -m tmpguard``."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line, or report its missing dependencies."""
    try:
        import click  # noqa: F401
        import rich  # noqa: F401
    except ImportError:
        print("tmpguard: the command line needs click and rich: pip install 'tmpguard[cli]'", file=sys.stderr)
        raise SystemExit(2) from None
    from tmpguard.config.cli import command

    command(prog_name="tmpguard")


if __name__ == "__main__":
    main()
