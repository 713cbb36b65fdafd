"""What running a tool in this process took.

A synchronous tool has a thread to itself while it runs, and the system counts for each thread the
processor time and what it moved to and from disks. Threads and processes that the tool starts are
not in it, nor is memory: all threads have the same. For a whole process, children included, see
`paceline.instances.process_usage`.

An async tool shares the thread of the event loop with all others. Nothing tells whose time it was,
so only the time from its start to its end is known.
"""

import resource
from typing import Final, final

from paceline.clock import Clock
from paceline.resources import ResourceUsage, current_resources

__all__ = ["ThreadMeasure", "charge"]

_BLOCK: Final = 512
"""Bytes in which the system counts."""
_NS: Final = 1_000_000_000


@final
class ThreadMeasure:
    """Measures the thread it is made in, from then on."""

    __slots__ = ("_clock", "_started_ns", "_used")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._started_ns = clock.monotonic_ns()
        self._used = resource.getrusage(resource.RUSAGE_THREAD)

    def usage(self) -> ResourceUsage:
        """What was taken so far. In the same thread."""
        now, before = resource.getrusage(resource.RUSAGE_THREAD), self._used
        cpu_s = now.ru_utime - before.ru_utime + now.ru_stime - before.ru_stime
        blocks = now.ru_inblock - before.ru_inblock + now.ru_oublock - before.ru_oublock
        wall_ns = self._clock.monotonic_ns() - self._started_ns
        return ResourceUsage(round(cpu_s * _NS), None, blocks * _BLOCK, None, wall_ns)


def charge(usage: ResourceUsage) -> None:
    """Adds to what the running execution took, if somebody adds it up. On the event loop."""
    resources = current_resources.get()
    if resources is not None:
        resources.add(usage)
