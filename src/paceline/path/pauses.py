"""Pauses between attempts to compute a result anew that is still served."""

from typing import Final, NamedTuple, final

from paceline.clock import Clock

__all__ = ["Pauses"]

_FIRST_NS: Final = 1_000_000_000
_LONGEST_NS: Final = 60_000_000_000
_MOST: Final = 1_024


class _Pause(NamedTuple):
    """`length_ns` is that of the pause after the last failure, 0 without one."""

    ends_ns: int
    length_ns: int


@final
class Pauses:
    """When to try again, by key: a second later, after each failure twice as long as before, up to
    a minute. A failure is forgotten after a success, and a minute after its pause.

    Of more than 1,024 keys the one that was paused longest ago is forgotten: it is tried at once.
    """

    def __init__(self, clock: Clock) -> None:
        self._now_ns = clock.monotonic_ns
        self._pauses: dict[bytes, _Pause] = {}  # the one that began last, last

    def over(self, key: bytes) -> bool:
        """Whether this may be tried."""
        pause = self._pauses.get(key)
        return pause is None or self._now_ns() >= pause.ends_ns

    def begin(self, key: bytes) -> None:
        """Another is at it: pauses shortly."""
        self._set(key, _FIRST_NS, self._length_ns(key))

    def lengthen(self, key: bytes) -> None:
        """It failed: pauses twice as long as after the failure before."""
        length_ns = min(2 * self._length_ns(key), _LONGEST_NS) or _FIRST_NS
        self._set(key, length_ns, length_ns)

    def end(self, key: bytes) -> None:
        """It succeeded: there is no pause, and the next one is short."""
        self._pauses.pop(key, None)

    def _length_ns(self, key: bytes) -> int:
        """How long the pause after the last failure was; 0 if there was none of late."""
        pause = self._pauses.get(key)
        if pause is None or self._now_ns() >= pause.ends_ns + _LONGEST_NS:
            return 0
        return pause.length_ns

    def _set(self, key: bytes, pause_ns: int, length_ns: int) -> None:
        self._pauses.pop(key, None)
        self._pauses[key] = _Pause(self._now_ns() + pause_ns, length_ns)
        if len(self._pauses) > _MOST:
            del self._pauses[next(iter(self._pauses))]
