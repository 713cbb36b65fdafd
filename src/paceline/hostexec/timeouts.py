"""How long a command may take, learnt from how long its kind of command took."""

from typing import Final, final

from paceline.balance.durations import Durations

__all__ = ["AdaptiveTimeouts"]

CEILING_S: Final = 300.0


@final
class AdaptiveTimeouts:
    """Time limits by rule: a first value, and from 20 observations on four times their p99.

    The p99 is that of `Durations`, the last 128 of a rule. A limit learnt is at most 300 s, and
    never under the first value: short runs say nothing of the next one, which may have more to do
    and must not be stopped half done.
    """

    __slots__ = ("_first_s", "_first_slow_s", "_seen")

    def __init__(self, first_s: float, first_slow_s: float) -> None:
        """The first limits in seconds, of ordinary rules and of those marked slow."""
        self._first_s = first_s
        self._first_slow_s = first_slow_s
        self._seen: dict[str, Durations] = {}

    def limit_s(self, rule: str, *, slow: bool, asked_s: float | None = None) -> float:
        """Seconds that the next command of this rule may take; never more than it asks for."""
        limit = self._first_slow_s if slow else self._first_s
        seen = self._seen.get(rule)
        if seen is not None:
            highest = max(limit, CEILING_S)  # a first limit that is higher holds
            limit = seen.limit_s(shortest=limit, longest=highest, first=limit)
        return limit if asked_s is None else min(limit, asked_s)

    def observe(self, rule: str, seconds: float) -> None:
        """A command of this rule ended by itself after so long."""
        self._seen.setdefault(rule, Durations()).observe(seconds)
