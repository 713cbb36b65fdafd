"""What calls add up to: mutable, and used by one thread at a time."""

from typing import final

from paceline.metrics.figures import NO_USAGE, Usage
from paceline.metrics.sketch import Sketch

__all__ = ["Tally"]


@final
class Tally:
    """The figures of one kind of call in a span of time. The sketch holds nanoseconds."""

    __slots__ = ("queue_ns", "saved_ns", "times", "usage")

    def __init__(self) -> None:
        self.times = Sketch()
        """Total times."""
        self.queue_ns = 0
        self.saved_ns = 0
        self.usage: Usage = NO_USAGE

    def use(self, usage: Usage) -> None:
        """Adds tokens and money."""
        self.usage = usage if self.usage is NO_USAGE else self.usage.plus(usage)

    def merge(self, other: "Tally") -> None:
        """Adds the figures of another span."""
        self.times.merge(other.times)
        self.queue_ns += other.queue_ns
        self.saved_ns += other.saved_ns
        if other.usage is not NO_USAGE:
            self.use(other.usage)

    def copy(self) -> "Tally":
        """The same figures, which then go their own way."""
        twin = Tally()
        twin.merge(self)
        return twin
