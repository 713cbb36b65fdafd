"""Whether an instance is to be asked at all: outliers are ejected, the recovered are eased in.

Two guards (`paceline.balance.instance.Guard`) beside the circuit: the circuit sees an instance that
fails everything, `Outliers` one that fails more than the others do, and `SlowStart` keeps one that
is back from being flooded at once.
"""

import math
import random
import statistics
import weakref
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, final

import msgspec

from paceline.balance.instance import NEVER, AgentInstance
from paceline.clock import Clock
from paceline.errors import Shortage

if TYPE_CHECKING:
    from paceline.balance.lease import Lease
    from paceline.balance.request import Request

__all__ = ["Liveness", "OutlierPolicy", "Outliers", "SlowStart"]

_NS: Final = 1_000_000_000


class OutlierPolicy(msgspec.Struct, frozen=True):
    """When an instance fails out of line with the others.

    Of its last `window` outcomes, at least `least` known, so many fail that its success rate is
    `deviations` standard deviations below the mean of the others, 10 points at least, and more than
    chance would make it: it is ejected for `ejected_s` times the number of its ejections,
    `longest_s` at most; never more than the share `most` of the instances at once (after Envoy's
    success rate detection, with its defaults).
    """

    window: int = 100
    least: int = 20
    deviations: float = 1.9
    ejected_s: float = 30.0
    longest_s: float = 300.0
    most: float = 0.5


_LEAST_GAP: Final = 0.1
_CHANCE: Final = 4.0
"""Standard errors of a rate that chance alone does not bridge, though it is asked often."""
_LEAST_INSTANCES: Final = 3


@final
class Outliers:
    """Watches the instances of one type together."""

    def __init__(self, clock: Clock, policy: OutlierPolicy | None = None) -> None:
        self._clock = clock
        self._policy = policy or OutlierPolicy()
        # Weak: nobody tells of an instance that is gone for good.
        self._watched: weakref.WeakSet[_Watched] = weakref.WeakSet()

    def watch(self, instance: AgentInstance) -> "_Watched":
        """The guard of one more instance, to be put among its guards."""
        watched = _Watched(self, instance)
        self._watched.add(watched)
        return watched

    def forget(self, instance: AgentInstance) -> None:
        """The instance is gone."""
        for watched in tuple(self._watched):
            if watched.instance is instance:
                self._watched.discard(watched)

    def judge(self, suspect: "_Watched") -> None:
        """Ejects it if it fails out of line. For its guard."""
        policy, now_ns = self._policy, self._clock.monotonic_ns()
        here = [w for w in self._watched if w.instance.watcher is not None]  # still registered
        known = [w for w in here if len(w.outcomes) >= policy.least]
        if suspect not in known or len(known) < _LEAST_INSTANCES:
            return
        # Its own rate is left out: among a few it would hide itself in their mean and deviation.
        rates = [w.success_rate for w in known if w is not suspect]
        usual = statistics.fmean(rates)
        by_chance = _CHANCE * math.sqrt(usual * (1 - usual) / len(suspect.outcomes))
        gap = max(policy.deviations * statistics.pstdev(rates, usual), _LEAST_GAP, by_chance)
        if suspect.success_rate > usual - gap:
            return
        out = sum(w.ejected_until_ns > now_ns for w in here)
        if out + 1 > policy.most * len(here):
            return
        suspect.ejections += 1
        ejected_s = min(policy.ejected_s * suspect.ejections, policy.longest_s)
        suspect.ejected_until_ns = now_ns + round(ejected_s * _NS)
        suspect.outcomes.clear()

    def window(self) -> deque[bool]:
        """A new, empty window of outcomes. For the guards."""
        return deque(maxlen=self._policy.window)


@final
class _Watched:
    """The outcomes of one instance, and until when it is ejected."""

    reason: Shortage = Shortage.UNHEALTHY
    __slots__ = ("__weakref__", "_all", "ejected_until_ns", "ejections", "instance", "outcomes")

    def __init__(self, all_of_them: Outliers, instance: AgentInstance) -> None:
        self._all = all_of_them
        self.instance = instance
        self.outcomes = all_of_them.window()
        self.ejections = 0
        self.ejected_until_ns = 0

    @property
    def success_rate(self) -> float:
        """Of the outcomes that are known."""
        return sum(self.outcomes) / len(self.outcomes)

    def opens_ns(self) -> int:
        """When its ejection ends."""
        return self.ejected_until_ns

    def admit(self, request: "Request") -> object:  # noqa: ARG002 (a Guard's)
        """Whatever is sent to it is watched."""
        return self

    def ended(self, permit: object, lease: "Lease") -> None:  # noqa: ARG002 (a Guard's)
        """Counts the outcome, unless the caller gave it up. Mistakes of callers too: they are as
        frequent at the others, if it is not the instance that takes right for wrong."""
        if lease.abandoned or not lease.started_ns:
            return
        good = lease.error is None
        self.outcomes.append(good)
        if not good:
            self._all.judge(self)


@final
class SlowStart:
    """Lets an instance that is new, or back, take a part of its capacity first, and more by and by.

    From `begin` on, or when its fleet no longer holds it for ill, it may have one piece of work in
    flight, then a share of its capacity that grows evenly for `over_s` seconds. A cold cache or a
    cold pool of connections answers slowly, and a strategy that goes by load would fill it at once.
    """

    reason: Shortage = Shortage.FULL
    __slots__ = ("_clock", "_in_flight", "_instance", "_over_ns", "_since_ns")

    def __init__(self, instance: AgentInstance, clock: Clock, over_s: float = 10.0) -> None:
        """Begins by being over: who starts everything at once need not wait."""
        self._instance = instance
        self._clock = clock
        self._over_ns = round(over_s * _NS)
        self._since_ns = -self._over_ns
        self._in_flight = 0

    def begin(self) -> None:
        """The instance is new, or back."""
        self._since_ns = self._clock.monotonic_ns()

    def opens_ns(self) -> int:
        """When it may have one more in flight than now. The fleet asks when it looks at its
        instance, and knows by then how it was, not how it is."""
        if self._instance.ejected:
            self.begin()
        due_ns = self._since_ns + self._over_ns
        now_ns = self._clock.monotonic_ns()
        capacity = self._instance.max_capacity
        if now_ns >= due_ns or not self._in_flight:
            return 0
        if self._in_flight >= capacity:
            return NEVER  # full anyway
        next_ns = self._since_ns + self._over_ns * self._in_flight // capacity
        return 0 if next_ns <= now_ns else next_ns

    def admit(self, request: "Request") -> object:  # noqa: ARG002 (a Guard's)
        """One more is in flight."""
        self._in_flight += 1
        return self

    def ended(self, permit: object, lease: "Lease") -> None:  # noqa: ARG002 (a Guard's)
        """One less is."""
        self._in_flight -= 1


@final
class Liveness:
    """Whether an instance is there, by active checks: `fall` in a row that failed take it away,
    `rise` that succeeded bring it back. `interval_s` between two checks varies at random by a
    fifth, so that many do not ask at one moment."""

    __slots__ = ("_back", "_fall", "_in_a_row", "_instance", "_interval_s", "_rise", "_rng")

    def __init__(
        self,
        instance: AgentInstance,
        rng: random.Random,
        *,
        interval_s: float = 10.0,
        rise: int = 2,
        fall: int = 3,
        back: Callable[[], object] = lambda: None,
    ) -> None:
        """`back` is called when it is there again."""
        self._instance = instance
        self._rng = rng
        self._interval_s = interval_s
        self._rise = rise
        self._fall = fall
        self._back = back
        self._in_a_row = 0

    def pause_s(self) -> float:
        """Seconds until the next check."""
        return self._interval_s * self._rng.uniform(0.8, 1.2)

    def checked(self, *, there: bool) -> None:
        """What a check found."""
        if there is self._instance.is_healthy:
            self._in_a_row = 0
            return
        self._in_a_row += 1
        if self._in_a_row < (self._rise if there else self._fall):
            return
        self._in_a_row = 0
        if there:
            self._back()
        self._instance.is_healthy = there
