"""`make demo`."""

import sys


def main() -> int:
    """Runs the demo; Ctrl-C ends it at any time, while it is loaded, too."""
    try:
        from examples.demo import show  # noqa: PLC0415

        return show.main()
    except KeyboardInterrupt:
        print("\nstopped; what was stored is kept", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
