"""What calls add up to: mutable, and used by one thread at a time; or sealed, in few bytes."""

from collections.abc import Sequence
from typing import Final, final

import msgspec

from paceline.metrics.figures import NO_USAGE, Usage
from paceline.metrics.packed import fitting, pack, united, unpack
from paceline.metrics.sketch import Sketch

__all__ = ["Tally", "seal", "total", "unseal"]


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


class _Sums(msgspec.Struct, array_like=True, frozen=True, omit_defaults=True):
    """A tally without its sketch."""

    start_ns: int
    queue_ns: int | float
    saved_ns: int | float
    usage: tuple[int | float, ...] = ()
    """The fields of `Usage`."""


def seal(tallies: Sequence[tuple[int, Tally]]) -> bytes:
    """Tallies in few bytes, with the moments they begin at. Sums from 2**63 on become floats."""
    sums = [_sums(start_ns, tally) for start_ns, tally in tallies]
    return pack([tally.times for _, tally in tallies], _encode(sums))


def unseal(sealed: bytes) -> list[tuple[int, Tally]]:
    """What `seal` was given, as new tallies."""
    found: list[tuple[int, Tally]] = []
    sketches, aside = unpack(sealed)
    for times, sums in zip(sketches, _decode(aside), strict=True):
        tally = Tally()
        tally.times = times
        _add(tally, sums)
        found.append((sums.start_ns, tally))
    return found


def total(sealed: bytes) -> Tally:
    """What the tallies that `seal` was given come to, together."""
    whole = Tally()
    whole.times, aside = united(sealed)
    for sums in _decode(aside):
        _add(whole, sums)
    return whole


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(list[_Sums]).decode


def _sums(start_ns: int, tally: Tally) -> _Sums:
    usage = () if tally.usage is NO_USAGE else msgspec.structs.astuple(tally.usage)
    fields = tuple([fitting(number) for number in usage])
    return _Sums(start_ns, fitting(tally.queue_ns), fitting(tally.saved_ns), fields)


def _add(tally: Tally, sums: _Sums) -> None:
    tally.queue_ns += int(sums.queue_ns)
    tally.saved_ns += int(sums.saved_ns)
    if sums.usage:
        tally.use(Usage(*sums.usage))  # type: ignore[arg-type]
