"""The command line."""

import sys

__all__ = ["main"]


def main() -> None:
    """What the `paceline` command runs; ends the process with its exit code."""
    try:
        from paceline.cli.app import run  # noqa: PLC0415 (keeps `import paceline.cli` light)

        code = run(sys.argv[1:])
    except KeyboardInterrupt:  # while modules were loaded, say
        if sys.stderr is not None:
            sys.stderr.write("interrupted\n")
        sys.exit(130)
    sys.exit(code)
