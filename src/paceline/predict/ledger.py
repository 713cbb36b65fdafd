"""What launching ahead was worth, by tool: whether the next launch pays, and when to stop for a while.

The account of a tool in one circle of people is kept in seconds that somebody waits. A launch that is
used saves some; one in vain costs a part of what it took, and its money at what an hour of waiting is
worth. What was lost since the account stood best is a cumulative sum (E. S. Page, Continuous inspection
schemes, 1954): it finds a change for the worse soonest, whatever was earned before. As many hits' worth
may be lost as leaves no doubt: where none of n launches came true, the interval of E. B. Wilson
(Probable inference, 1927) with z = 1.64 lies below break-even as soon as they cost more than z * z hits
save.

What is lost where nothing was earned is added up for all circles of a tool, too, in a bucket that leaks
(J. Turner, New directions in communications, 1986): a new circle may try what the others left of it.
"""

import math
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Final, Literal, final

import msgspec

from paceline.clock import Clock
from paceline.predict.accounts import Accounts, Place, Total
from paceline.predict.standing import LARGEST, MOST_OF_ONE, Standing

__all__ = ["Figures", "Ledger", "State"]

State = Literal["on", "off", "shadow"]
"""Whether calls of a tool are launched, are not somewhere, or were only proposed so far."""

_NS: Final = 1_000_000_000
_HOUR_S: Final = 3_600.0
_MOST_PENDING: Final = 10_000
_DOUBTED: Final = "it lost more than it saved for many, and is tried again little by little"


class Figures(msgspec.Struct, frozen=True):
    """What launching calls of one tool came to. Times in seconds.

    `precision` is the share of launches that were used, `recall` that of the real calls that were
    foreseen, both of late and None where there were none. The others are sums: `wasted` is what
    nobody used, `cancelled` gave way to real work. `why` says in words what the state comes from.
    """

    state: State
    why: str
    proposed: int
    real: int
    launched: int
    used: int
    cancelled: int
    precision: float | None
    recall: float | None
    saved_s: float
    wasted_s: float
    wasted_usd: float


class _Launch(msgspec.Struct, frozen=True, gc=False):
    """One that nobody has used yet. `standing` is that of its place when it was launched, which may be
    forgotten by now. What it takes and costs is as expected while it `runs`, then as it was. `doubt` is
    its part of that which a tool may lose in all circles, the most of one while it runs; nothing where
    it is paid for by what was earned, and then `open_s` is what it costs."""

    tool: str
    standing: Standing
    at_ns: int
    takes_s: float
    usd: float
    epoch: int
    doubt: float
    open_s: float
    runs: bool = True


@final
class Ledger:
    """Says whether a launch is worth it, and for how long a tool is left alone that is not: in the
    circle in which its calls are predicted, so that nobody is left alone because of others.

    Once a tool has lost more than 2.7 times what a call is expected to take, in at least 6 launches,
    it is off. After a pause of 60 s at most, twice as long each time up to an hour, and at random up to
    half of that shorter, 5 launches try it again: what they save has to be more than what they cost. A
    launch counts as in vain `grace_s` seconds after it, and no more if it is used later after all; one
    of which nothing is heard is forgotten after `ttl_s`. What a launch really took and cost takes the
    place of what was expected as soon as it is over, whether it was counted by then or not.

    At most 30 launches of a tool are out at once that run, or of which nothing is known yet. So from
    the moment at which all its predictions are wrong, with T the longest that its calls are expected to
    take and c the most that one in vain costs, expected or really, all in vain together cost at most
    max(2.7 T, 6 c) + 61 c + 5 c (7 + t / 1800) within t seconds.

    That is for one circle. All of them together, however many and new, lose no more than what they
    had earned and (8 + t / 600) max(2.7 T, 6 c), t counted from the first launch: who has earned
    nothing has to wait then. Besides, what is launched on what a circle had earned may cost more than
    expected, as long as that is not known. One circle that is always wrong never takes all of that. The
    accounts that were used last are kept, 4,000 of them.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        rng: random.Random,
        usd_an_hour: float = 20.0,
        waste_weight: float = 0.18,
        half_life: float = 50.0,
        grace_s: float = 30.0,
        ttl_s: float = 600.0,
    ) -> None:
        """`usd_an_hour` is what an hour of somebody's waiting is worth; of 0, nothing that costs is
        worth it. `waste_weight` is what a second of work in vain costs, in seconds of waiting.
        Precision is halved in weight every `half_life` launches, recall every so many calls."""
        self._clock = clock
        self._rng = rng
        self._usd_s = _HOUR_S / usd_an_hour if usd_an_hour > 0 else math.inf
        self._waste_weight = waste_weight
        self._decay = 0.5 ** (1 / half_life)
        self._grace_ns = round(grace_s * _NS)
        self._ttl_ns = round(ttl_s * _NS)
        self._accounts = Accounts()
        self._fresh: dict[str, _Launch] = {}
        self._late: dict[str, _Launch] = {}  # counted as in vain

    def proposed(self, tool: str) -> None:
        """A call of it was proposed, launched or not."""
        self._accounts.total(tool).proposed += 1

    def real(self, tool: str, *, foreseen: bool) -> None:
        """A session made a call of it, that changes nothing; `foreseen` if it had been proposed with
        enough probability to be launched."""
        total = self._accounts.total(tool)
        total.real += 1
        total.recall.add(self._decay, right=foreseen)

    def objection(
        self,
        tool: str,
        probability: float,
        *,
        takes_s: float,
        lead_s: float,
        usd: float = 0.0,
        circle: str = "",
    ) -> str:
        """Why not to launch a call that comes true with this probability, takes `takes_s` seconds and
        costs `usd`, `lead_s` seconds before it will be asked for, in words; nothing if it is worth it."""
        now_ns = self._settle()
        whole = self._cost(takes_s, usd)
        saving, cost = probability * min(takes_s, lead_s), (1 - probability) * whole
        if not saving > cost:
            return (
                f"below break-even: it saves {saving:.2g} s and costs {cost:.2g} s by expectation"
            )
        found = self._accounts.find(Place(circle, tool))
        if found is not None:
            if refusal := found.objection(tool, now_ns):
                return refusal
            if found.pays(whole):
                return ""
        total = self._accounts.totals.get(tool)
        return _DOUBTED if total is not None and total.is_doubted(now_ns) else ""

    def launched(
        self,
        id_: str,
        tool: str,
        at_ns: int,
        takes_s: float,
        usd: float = 0.0,
        *,
        circle: str = "",
    ) -> None:
        """A call was launched at a moment of the monotonic clock; what it is expected to take and
        cost. `id_` is its own."""
        now_ns = self._settle()
        takes_s, usd = _amount(takes_s), _amount(usd)
        total = self._accounts.total(tool)
        standing = self._accounts.use(Place(circle, tool), now_ns)
        total.launched += 1
        standing.launched(takes_s, 1 - self._decay, now_ns)
        cost = self._cost(takes_s, usd)
        doubt, open_s = (0.0, cost) if standing.pays(cost) else (MOST_OF_ONE, 0.0)
        standing.opened(open_s)
        total.doubted(doubt, now_ns)
        if len(self._fresh) >= _MOST_PENDING:
            self._age(next(iter(self._fresh)))
        self._fresh[id_] = _Launch(
            tool, standing, at_ns, takes_s, usd, standing.epoch, doubt, open_s
        )

    def took(self, id_: str, took_s: float, usd: float = 0.0) -> None:
        """It ran to its end: what it did take and cost takes the place of what was expected. Counts
        once."""
        now_ns = self._settle()
        late = id_ not in self._fresh
        launches = self._late if late else self._fresh
        launch = launches.get(id_)
        if launch is None or not launch.runs:
            return
        took_s, usd = _amount(took_s), _amount(usd)
        total, standing = self._accounts.total(launch.tool), launch.standing
        cost, doubt, open_s = self._cost(took_s, usd), 0.0, 0.0
        if launch.doubt:
            doubt = min(standing.share(cost), MOST_OF_ONE)
            total.doubted(doubt - launch.doubt, now_ns)
        elif not late:
            open_s = cost
            standing.opened(open_s - launch.open_s)
        launches[id_] = msgspec.structs.replace(
            launch, takes_s=took_s, usd=usd, doubt=doubt, open_s=open_s, runs=False
        )
        if late:
            standing.known()
            total.waste(took_s - launch.takes_s, usd - launch.usd)
            if launch.epoch == standing.epoch:
                more_s = cost - self._cost(launch.takes_s, launch.usd)
                standing.lost_more(more_s, now_ns, self._rng)

    def used(self, id_: str, saved_s: float) -> None:
        """A real call asked for it, and waited so many seconds less. Counts once."""
        now_ns = self._settle()
        launch = self._taken(id_, right=True)
        if launch is None:
            return
        saved_s = _amount(saved_s)
        total, standing = self._accounts.total(launch.tool), launch.standing
        total.used += 1
        total.saved_s += saved_s
        if launch.doubt:
            total.doubted(-standing.share(saved_s), now_ns)
        if launch.epoch == standing.epoch:
            standing.earn(saved_s, now_ns, self._rng)

    def withdrawn(self, id_: str) -> None:
        """It was not run after all."""
        launch = self._taken(id_, right=None)
        if launch is not None:
            total = self._accounts.total(launch.tool)
            total.launched = max(0, total.launched - 1)  # it may be another one by now
            launch.standing.account.launched -= 1
            launch.standing.try_again(launch.epoch)

    def gone(self, id_: str) -> None:
        """Nobody will use it any more: it expired, a write made it stale, its session is over."""
        self._settle()
        if id_ in self._fresh:
            self._age(id_)
        self._drop(id_)

    def cancelled(self, id_: str, usd: float | None = None) -> None:
        """It gave way to real work: what it took so far is wasted, but that is not its tool's fault. It
        cost what was expected, if nobody knows better."""
        now_ns = self._settle()
        launch = self._taken(id_, right=None)
        if launch is None:
            return
        total = self._accounts.total(launch.tool)
        total.cancelled += 1
        total.waste(
            max(0, now_ns - launch.at_ns) / _NS, launch.usd if usd is None else _amount(usd)
        )
        launch.standing.try_again(launch.epoch)

    def end(self) -> bool:
        """Nobody will be heard of any more: what was not used so far is in vain. Whether there was any."""
        self._settle()
        unused = list(self._fresh)
        for id_ in unused:
            self._age(id_)
        return bool(unused)

    def figures(self) -> Mapping[str, Figures]:
        """By tool, of all circles together; one that is off somewhere is off."""
        now_ns = self._settle()
        of_circles: defaultdict[str, list[Standing]] = defaultdict(list)
        for place, found in self._accounts.items():
            of_circles[place.tool].append(found)
        return {
            tool: self._figures(total, of_circles[tool], now_ns)
            for tool, total in self._accounts.totals.items()
        }

    def off(self, circle: str) -> Mapping[str, str]:
        """The tools of which nothing is launched in a circle just now, each with the reason."""
        now_ns = self._settle()
        why: dict[str, str] = {}
        for tool, total in self._accounts.totals.items():
            found = self._accounts.find(Place(circle, tool))
            if found is not None and found.account.off:
                why[tool] = found.why_off(now_ns)
            elif total.is_doubted(now_ns) and (found is None or not found.pays(0.0)):
                why[tool] = _DOUBTED
        return why

    def circles(self) -> set[str]:
        """Those of which something is known."""
        return {place.circle for place, _ in self._accounts.items()}

    def forget(self, circle: str) -> None:
        """What is known of one circle alone."""
        self._accounts.forget(circle)

    def save(self, lasting: Callable[[str], bool] = lambda _: True) -> object:
        """All accounts of circles that last, as plain data. What was launched and is not used yet is
        not kept."""
        return self._accounts.save(self._settle(), lasting)

    def load(self, saved: object) -> None:
        """Takes the place of all accounts; raises CodecError where it is not what `save` returned, and
        then nothing changes. What was saved before there were circles counts as totals: a tool that
        was off is in as much doubt as can be."""
        self._accounts = Accounts.load(saved, self._clock.monotonic_ns())
        self._fresh, self._late = {}, {}

    # -- what became of launches --------------------------------------------------------------

    def _settle(self) -> int:
        """Counts as in vain what has not been used for long. The present moment."""
        now_ns = self._clock.monotonic_ns()
        while self._fresh:
            id_, launch = next(iter(self._fresh.items()))
            if now_ns - launch.at_ns < self._grace_ns:
                break
            self._age(id_)
        while self._late:
            id_, launch = next(iter(self._late.items()))
            if now_ns - launch.at_ns < self._ttl_ns:
                break
            self._drop(id_)
        return now_ns

    def _age(self, id_: str) -> None:
        """Counts one as in vain; it may still be used."""
        if len(self._late) >= _MOST_PENDING:
            self._drop(next(iter(self._late)))
        launch = self._late[id_] = self._fresh.pop(id_)
        total, standing = self._accounts.total(launch.tool), launch.standing
        total.precision.add(self._decay, right=False)
        total.waste(launch.takes_s, launch.usd)
        standing.opened(-launch.open_s)
        if not launch.runs:
            standing.known()
        if launch.epoch == standing.epoch:
            cost = self._cost(launch.takes_s, launch.usd)
            standing.lose(cost, self._clock.monotonic_ns(), self._rng)

    def _drop(self, id_: str) -> _Launch | None:
        """Takes one out that was counted as in vain; what becomes of it is not heard any more."""
        launch = self._late.pop(id_, None)
        if launch is not None and launch.runs:
            launch.standing.known()
        return launch

    def _taken(self, id_: str, *, right: bool | None) -> _Launch | None:
        """Takes a launch out; what was counted of it is corrected. None for one that is not known."""
        late = id_ not in self._fresh
        launch = self._drop(id_) if late else self._fresh.pop(id_)
        if launch is None:
            return None
        total, standing = self._accounts.total(launch.tool), launch.standing
        total.doubted(-launch.doubt, self._clock.monotonic_ns())
        if not late:
            standing.opened(-launch.open_s)
            standing.known()
            if right is not None:
                total.precision.add(self._decay, right=right)
            return launch
        total.waste(-launch.takes_s, -launch.usd)
        if right:
            total.precision.correct()
        if launch.epoch == standing.epoch:
            standing.not_lost(self._cost(launch.takes_s, launch.usd))
        return launch

    # -- figures ------------------------------------------------------------------------------

    def _cost(self, takes_s: float, usd: float) -> float:
        """Of one in vain, in seconds of waiting."""
        return takes_s * self._waste_weight + (usd * self._usd_s if usd > 0 else 0.0)

    @staticmethod
    def _figures(total: Total, of_circles: list[Standing], now_ns: int) -> Figures:
        off = [each for each in of_circles if each.account.off]
        doubted = total.is_doubted(now_ns)
        state: State = "off" if off or doubted else "on" if total.launched else "shadow"
        if doubted and len(off) != 1:
            why = _DOUBTED
        elif off and len(of_circles) > 1:
            why = f"off for {len(off)} of {len(of_circles)}: it lost more than it saved for them"
        elif off:
            why = off[0].why_off(now_ns)
        elif state == "shadow":
            why = "nothing was launched yet"
        else:
            why = f"it saved {total.saved_s:.3g} s and wasted {total.wasted_s:.3g} s"
        return Figures(
            state,
            why,
            total.proposed,
            total.real,
            total.launched,
            total.used,
            total.cancelled,
            total.precision.share(),
            total.recall.share(),
            total.saved_s,
            total.wasted_s,
            total.wasted_usd,
        )


def _amount(given: float) -> float:
    """Within what can be added up; nothing for what is no number."""
    return min(max(0.0, given), LARGEST)
