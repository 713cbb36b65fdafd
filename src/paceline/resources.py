"""What running something took of the machine."""

from contextvars import ContextVar

import msgspec

__all__ = ["ResourceUsage", "Resources", "current_resources"]


class ResourceUsage(msgspec.Struct, frozen=True):
    """What one call, or several together, took of the machine. None where it was not measured.

    `cpu_ns` of processor time, `peak_memory_bytes` of the process that ran it at most (None where
    others ran in it too), `disk_io_bytes` read and written, `network_bytes` sent and received.
    """

    cpu_ns: int | None = None
    peak_memory_bytes: int | None = None
    disk_io_bytes: int | None = None
    network_bytes: int | None = None
    wall_ns: int = 0

    @property
    def cpu_percent(self) -> float | None:
        """Processor time as a share of the time it took, 100.0 for one core; None if not measured."""
        if self.cpu_ns is None or self.wall_ns <= 0:
            return None
        return 100.0 * self.cpu_ns / self.wall_ns

    @property
    def memory_mb(self) -> float | None:
        """`peak_memory_bytes` in MiB."""
        return None if self.peak_memory_bytes is None else self.peak_memory_bytes / 1024**2

    def plus(self, other: "ResourceUsage") -> "ResourceUsage":
        """Both together: sums, and of the memory the higher peak."""
        return ResourceUsage(
            _sum(self.cpu_ns, other.cpu_ns),
            _highest(self.peak_memory_bytes, other.peak_memory_bytes),
            _sum(self.disk_io_bytes, other.disk_io_bytes),
            _sum(self.network_bytes, other.network_bytes),
            self.wall_ns + other.wall_ns,
        )


class Resources:
    """Adds up what one execution takes. `left_behind` are threads that still run for it though nobody
    waits for them."""

    __slots__ = ("left_behind", "used")

    def __init__(self) -> None:
        self.used: ResourceUsage | None = None
        self.left_behind = 0

    def add(self, usage: ResourceUsage) -> None:
        """Adds what was measured of a part of it. On the event loop."""
        self.used = usage if self.used is None else self.used.plus(usage)


current_resources: ContextVar[Resources | None] = ContextVar(
    "paceline_current_resources", default=None
)
"""Where what the running code takes is added up."""


def _sum(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return one + other


def _highest(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return max(one, other)
