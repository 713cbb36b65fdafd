"""A line on the terminal that says what takes its time, how far it is, and for how long it has."""

import contextlib
import sys
import threading
from collections.abc import Callable, Generator, Mapping
from typing import Final, TextIO

from paceline.cli.output import harmless
from paceline.cli.screen import can_move, size_of
from paceline.clock import Clock

__all__ = ["Far", "ticking"]

_EVERY_S: Final = 0.5
_ERASE: Final = "\r\x1b[K"
_NS: Final = 1_000_000_000

Far = Callable[[float], object]
"""Is told how far something is, from 0 to 1."""


@contextlib.contextmanager
def ticking(what: str, clock: Clock, environ: Mapping[str, str]) -> Generator[Far]:
    """Shows it on standard error, if that is a terminal, until it is over, in whatever way. What it
    is entered for is told how far it is, from any thread, if that is known."""
    out: TextIO = sys.stderr
    share: float | None = None

    def told(far: float) -> None:
        nonlocal share
        share = far

    if not can_move(environ, out):
        yield told
        return
    begin_ns = clock.monotonic_ns()
    over = threading.Event()

    def tick() -> None:
        while not over.wait(_EVERY_S):
            elapsed_s = (clock.monotonic_ns() - begin_ns) // _NS
            far = "" if share is None else f" {min(share, 1.0):.0%},"
            tail = f":{far} {elapsed_s} s"
            room = max(0, size_of(out)[0] - 1 - len(tail))  # one line, or it could not be erased
            with contextlib.suppress(OSError, ValueError):  # a terminal that is gone
                out.write(f"{_ERASE}{harmless(what)[:room]}{tail}")
                out.flush()

    thread = threading.Thread(target=tick, name="paceline-ticking", daemon=True)
    thread.start()
    try:
        yield told
    finally:
        over.set()
        thread.join()
        with contextlib.suppress(OSError, ValueError):
            out.write(_ERASE)
            out.flush()
