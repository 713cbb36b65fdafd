"""The command line."""

import sys

__all__ = ["main"]


def main() -> None:
    """What the `paceline` command runs; ends the process with its exit code."""
    from paceline.cli.app import run  # noqa: PLC0415 (keeps `import paceline.cli` light)

    sys.exit(run(sys.argv[1:]))
