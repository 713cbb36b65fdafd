"""How much time looking ahead may take, and how long models do."""

import contextlib
from collections.abc import Generator
from typing import Final, final

from paceline.clock import Clock

__all__ = ["Pace"]

_NS: Final = 1_000_000_000


@final
class Pace:
    """How much time looking ahead takes, and is left: all sessions together a tenth at most, so that
    whoever has work to do is not kept from it."""

    __slots__ = ("_clock", "_next_ns", "model_s")

    def __init__(self, clock: Clock) -> None:
        self.model_s = 1.0
        """How long models take to answer, lately, in seconds."""
        self._clock = clock
        self._next_ns = 0

    def answered(self, seconds: float) -> None:
        """One more answer of a model."""
        self.model_s += 0.2 * (seconds - self.model_s)

    def wait_s(self) -> float:
        """In how many seconds somebody may look again."""
        return max(0, self._next_ns - self._clock.monotonic_ns()) / _NS

    @contextlib.contextmanager
    def looking(self) -> Generator[None]:
        """Around each look."""
        began_ns = self._clock.monotonic_ns()
        try:
            yield
        finally:
            now_ns = self._clock.monotonic_ns()
            self._next_ns = now_ns + 9 * (now_ns - began_ns)
