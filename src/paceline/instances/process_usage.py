"""What a process took, with the processes it started and waited for."""

import contextlib
import resource
from pathlib import Path
from typing import Final, final

from paceline.clock import Clock
from paceline.resources import ResourceUsage

__all__ = ["ProcessMeasure"]

_BLOCK: Final = 512
"""Bytes in which the system counts what goes to and from disks."""
_KIB: Final = 1024
_NS: Final = 1_000_000_000
_PEAK: Final = b"VmHWM:"
_OF_ALL: Final = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


@final
class ProcessMeasure:
    """Measures this process, from then on; one at a time, as there is one peak of memory.

    The peak is that of the process itself. Where the system does not let it be set back (Linux
    does, for all that a process may write of itself), it is the highest since the process began.
    """

    __slots__ = ("_clock", "_cpu_s", "_moved", "_started_ns")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_bytes(b"5")  # see proc(5): the peak starts anew
        self._cpu_s, self._moved = _counted()
        self._started_ns = clock.monotonic_ns()

    def usage(self) -> ResourceUsage:
        """What was taken so far."""
        cpu_s, moved = _counted()
        return ResourceUsage(
            round((cpu_s - self._cpu_s) * _NS),
            _peak_bytes(),
            moved - self._moved,
            None,
            self._clock.monotonic_ns() - self._started_ns,
        )


def _counted() -> tuple[float, int]:
    """Seconds of processor time, and bytes to and from disks."""
    used = [resource.getrusage(who) for who in _OF_ALL]
    cpu_s = sum(one.ru_utime + one.ru_stime for one in used)
    return cpu_s, _BLOCK * sum(one.ru_inblock + one.ru_oublock for one in used)


def _peak_bytes() -> int:
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_bytes().splitlines():
            if line.startswith(_PEAK):
                return int(line.split()[1]) * _KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIB
