"""Time as an interface: nothing in Paceline reads a clock except through one of these."""

import time
from typing import Protocol, final

__all__ = ["Clock", "SystemClock"]


class Clock(Protocol):
    """Two clocks: one that only moves forward, for durations, and the wall, for records.

    Waiting is the event loop's own; in tests the loop's time is virtual too
    (`paceline.testing.virtual_time`).
    """

    def monotonic_ns(self) -> int:
        """Nanoseconds since some fixed moment; never goes back. For durations and deadlines."""
        ...

    def wall_ns(self) -> int:
        """Nanoseconds since 1970-01-01 UTC; may jump. Only for what is stored or shown."""
        ...


@final
class SystemClock:
    """The clocks of this machine."""

    __slots__ = ()

    # Bound, not wrapped: a call costs what the C function costs.
    monotonic_ns = staticmethod(time.monotonic_ns)
    wall_ns = staticmethod(time.time_ns)
