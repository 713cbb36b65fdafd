"""How many tools may run at once while memory is short. Pure.

Additive increase, multiplicative decrease (D. Chiu, R. Jain, Analysis of the increase and decrease
algorithms for congestion avoidance, 1989), with a band in which nothing changes, so that a share
near the limit does not have it swing.
"""

from typing import Final, final

__all__ = ["Concurrency"]

_NS: Final = 1_000_000_000


@final
class Concurrency:
    """A limit that is halved while memory is short, and given back by one after the other.

    It is told how much is used and when; it never looks at a clock. Between the two shares it stays
    where it is.
    """

    __slots__ = (
        "_changed_ns",
        "_halved_ns",
        "_hold_ns",
        "_low",
        "_step_ns",
        "high",
        "limit",
        "most",
    )

    def __init__(
        self,
        most: int,
        *,
        high: float = 1.0,
        low: float = 0.9,
        hold_s: float = 2.0,
        step_s: float = 1.0,
    ) -> None:
        """At `high` of the memory allowed or more it is halved, then not again for `hold_s`, in
        which what was stopped can be seen to help; at `low` or less it grows by one each `step_s`
        until it is `most` again. Raises ValueError unless most >= 1 and 0 < low < high."""
        if most < 1 or not 0 < low < high:
            raise ValueError("at least one tool has to run, and low must be below high")
        self.most = most
        self.limit = most
        self.high = high
        self._low = low
        self._hold_ns = round(hold_s * _NS)
        self._step_ns = round(step_s * _NS)
        self._changed_ns: int | None = None
        self._halved_ns: int | None = None

    def observe(self, share: float, now_ns: int) -> int:
        """The limit, now that this share of the memory allowed is used. Never below 1."""
        if share >= self.high and _passed(self._halved_ns, self._hold_ns, now_ns):
            self.limit = max(1, self.limit // 2)
            self._halved_ns = self._changed_ns = now_ns
        elif (
            share <= self._low
            and self.limit < self.most
            and _passed(self._changed_ns, self._step_ns, now_ns)
        ):
            self.limit += 1
            self._changed_ns = now_ns
        return self.limit


def _passed(since_ns: int | None, time_ns: int, now_ns: int) -> bool:
    return since_ns is None or now_ns - since_ns >= time_ns
