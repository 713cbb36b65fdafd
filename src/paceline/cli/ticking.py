"""A line on the terminal that says what takes its time, and for how long it has."""

import contextlib
import sys
import threading
from collections.abc import Generator
from typing import Final, TextIO

from paceline.clock import Clock

__all__ = ["ticking"]

_EVERY_S: Final = 0.5
_ERASE: Final = "\r\x1b[K"


@contextlib.contextmanager
def ticking(what: str, clock: Clock) -> Generator[None]:
    """Shows it on standard error, if that is a terminal, until it is over, in whatever way."""
    out: TextIO = sys.stderr
    if not out.isatty():
        yield
        return
    begin_ns = clock.monotonic_ns()
    over = threading.Event()

    def tick() -> None:
        while not over.wait(_EVERY_S):
            elapsed_s = (clock.monotonic_ns() - begin_ns) // 1_000_000_000
            with contextlib.suppress(OSError, ValueError):  # a terminal that is gone
                out.write(f"{_ERASE}{what}: {elapsed_s} s")
                out.flush()

    thread = threading.Thread(target=tick, name="paceline-ticking", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(OSError, ValueError):
            out.write(_ERASE)
            out.flush()
