"""How much memory this process takes."""

from collections.abc import Callable
from typing import Final, final

import psutil

from paceline.clock import Clock

__all__ = ["ProcessMemory"]

_FRESH_NS: Final = 250_000_000


@final
class ProcessMemory:
    """Looks at most four times a second, as it is asked at every step."""

    __slots__ = ("_clock", "_look", "_looked_ns", "_taken")

    def __init__(self, clock: Clock, look: Callable[[], int] | None = None) -> None:
        """`look` says how many bytes it is now."""
        self._clock = clock
        self._look = look or _resident
        self._looked_ns: int | None = None
        self._taken = 0

    def __call__(self) -> int:
        """Bytes."""
        now_ns = self._clock.monotonic_ns()
        if self._looked_ns is None or now_ns - self._looked_ns >= _FRESH_NS:
            self._looked_ns = now_ns
            self._taken = self._look()
        return self._taken


def _resident() -> int:
    return int(psutil.Process().memory_info().rss)
