"""What launching ahead was worth, by tool: whether the next launch pays, and when to stop for a while.

The account of a tool is kept in seconds that somebody waits. A launch that is used saves some; one
in vain costs a part of what it took, and its money at what an hour of waiting is worth. What was lost
since the account stood best is a cumulative sum (E. S. Page, Continuous inspection schemes, 1954):
it finds a change for the worse soonest, whatever was earned before. As many hits' worth may be lost
as leaves no doubt: where none of n launches came true, the interval of E. B. Wilson (Probable
inference, 1927) with z = 1.64 lies below break-even as soon as they cost more than z * z hits save.
"""

import math
import random
from collections.abc import Mapping
from typing import Annotated, Final, Literal, final

import msgspec
from msgspec import Meta

from paceline.clock import Clock
from paceline.errors import CodecError
from paceline.predict.bounded import Bounded

__all__ = ["Figures", "Ledger", "State"]

State = Literal["on", "off", "shadow"]
"""Whether calls of a tool are launched, are not, or were only proposed so far."""

_NS: Final = 1_000_000_000
_HOUR_S: Final = 3_600.0
_DOUBT: Final = 2.7  # hits whose worth may be lost: z * z for one chance in twenty
_LEAST: Final = 6  # launches in vain before anything is held against a tool
_MOST_FRESH: Final = 30  # launches of a tool at once of which nothing is known yet
_PROBES: Final = 5
_FIRST_PAUSE_S: Final = 60.0
_LONGEST_PAUSE_S: Final = 3_600.0
_MOST_TOOLS: Final = 1_000
_MOST_PENDING: Final = 10_000
_LARGEST: Final = 1e9  # seconds, US dollars
_VERSION: Final = 1

_Amount = Annotated[float, Meta(ge=0, le=1e15)]
_Number = Annotated[int, Meta(ge=0)]


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


class _Rate(msgspec.Struct, gc=False):
    """How often something was the case; old times count less."""

    seen: _Amount = 0.0
    right: _Amount = 0.0

    def add(self, decay: float, *, right: bool) -> None:
        """One more."""
        self.seen = self.seen * decay + 1.0
        self.right = self.right * decay + right

    def correct(self) -> None:
        """One of those that were not the case was."""
        self.right = min(self.seen, self.right + 1.0)

    def share(self) -> float | None:
        """None if nothing was seen."""
        return self.right / self.seen if self.seen else None


class _Account(msgspec.Struct):
    """All that is known of one tool. `lost_s` is what was lost since the account stood best, in
    `lost` launches; `earned_s` what it earned since it was turned on."""

    proposed: _Number = 0
    real: _Number = 0
    launched: _Number = 0
    used: _Number = 0
    cancelled: _Number = 0
    saved_s: _Amount = 0.0
    wasted_s: _Amount = 0.0
    wasted_usd: _Amount = 0.0
    precision: _Rate = msgspec.field(default_factory=_Rate)
    recall: _Rate = msgspec.field(default_factory=_Rate)
    takes_s: _Amount = 0.0
    lost_s: _Amount = 0.0
    lost: _Number = 0
    earned_s: float = 0.0
    off: bool = False
    pause_s: Annotated[float, Meta(ge=0, le=_LONGEST_PAUSE_S)] = 0.0
    waits_s: Annotated[float, Meta(ge=0, le=_LONGEST_PAUSE_S)] = 0.0


class _Running(msgspec.Struct):
    """What is known of a tool in this process only."""

    fresh: int = 0
    epoch: int = 0  # a new one each time it is turned on or off, or probed again
    until_ns: int = 0
    probes: int = 0  # of this epoch: launched, and over without having paid
    over: int = 0


class _Launch(msgspec.Struct, frozen=True, gc=False):
    """One that nobody has used yet."""

    tool: str
    at_ns: int
    takes_s: float
    usd: float
    epoch: int


class _Saved(msgspec.Struct):
    """The form of `Ledger.save`."""

    version: int
    tools: dict[str, _Account]


@final
class Ledger:
    """Says whether a launch is worth it, and for how long a tool is left alone that is not.

    Once a tool has lost more than 2.7 times what a call takes, in at least 6 launches, it is off. After a
    pause of 60 s at most, twice as long each time up to an hour, and at random up to half of that
    shorter, 5 launches try it again: what they save has to be more than what they cost. A launch
    counts as in vain `grace_s` seconds after it, and no more if it is used later after all; one of
    which nothing is heard is forgotten after `ttl_s`.

    At most 30 launches of a tool are out at once of which nothing is known yet. So from the moment
    at which all its predictions are wrong, with T the longest that its calls take and c the most
    that one in vain costs, all in vain together cost at most
    max(2.7 T, 6 c) + 61 c + 5 c (7 + t / 1800) within t seconds.
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
        self._accounts = self._bounded()
        self._running: dict[str, _Running] = {}
        self._fresh: dict[str, _Launch] = {}
        self._late: dict[str, _Launch] = {}  # counted as in vain

    def proposed(self, tool: str) -> None:
        """A call of it was proposed, launched or not."""
        self._account(tool).proposed += 1

    def real(self, tool: str, *, foreseen: bool) -> None:
        """A session made a call of it, that changes nothing; `foreseen` if it had been proposed with
        enough probability to be launched."""
        account = self._account(tool)
        account.real += 1
        account.recall.add(self._decay, right=foreseen)

    def worth(
        self, tool: str, probability: float, *, takes_s: float, lead_s: float, usd: float = 0.0
    ) -> bool:
        """Whether to launch a call that comes true with this probability, takes `takes_s` seconds and
        costs `usd`, `lead_s` seconds before it will be asked for."""
        return not self.objection(tool, probability, takes_s=takes_s, lead_s=lead_s, usd=usd)

    def objection(
        self, tool: str, probability: float, *, takes_s: float, lead_s: float, usd: float = 0.0
    ) -> str:
        """Why it is not worth it, in words; nothing if it is."""
        now_ns = self._settle()
        saving = probability * min(takes_s, lead_s)
        cost = (1 - probability) * self._cost(takes_s, usd)
        if not saving > cost:
            return (
                f"below break-even: it saves {saving:.2g} s and costs {cost:.2g} s by expectation"
            )
        account, running = self._accounts.get(tool), self._running.get(tool)
        if account is None or running is None:
            return ""
        if account.off and not self._may_probe(running, now_ns):
            return self._off(running, now_ns)
        if running.fresh >= _MOST_FRESH:
            return f"{running.fresh} launches of {tool} are out already"
        return ""

    def launched(self, id_: str, tool: str, at_ns: int, takes_s: float, usd: float = 0.0) -> None:
        """A call was launched at a moment of the monotonic clock; what it is expected to take and
        cost. `id_` is its own."""
        now_ns = self._settle()
        takes_s, usd = _amount(takes_s), _amount(usd)
        account, running = self._account(tool), self._runs(tool)
        account.launched += 1
        share = max(1 - self._decay, 1 / account.launched)
        account.takes_s += share * (takes_s - account.takes_s)
        running.fresh += 1
        if account.off and self._may_probe(running, now_ns):
            running.probes += 1
        if len(self._fresh) >= _MOST_PENDING:
            self._age(next(iter(self._fresh)))
        self._fresh[id_] = _Launch(tool, at_ns, takes_s, usd, running.epoch)

    def used(self, id_: str, saved_s: float) -> None:
        """A real call asked for it, and waited so many seconds less. Counts once."""
        self._settle()
        launch = self._taken(id_, right=True)
        if launch is None:
            return
        saved_s = _amount(saved_s)
        account, running = self._account(launch.tool), self._runs(launch.tool)
        account.used += 1
        account.saved_s += saved_s
        if launch.epoch != running.epoch:
            return
        account.lost_s -= saved_s
        account.earned_s += saved_s
        if account.off:
            if account.lost_s < 0:
                self._turn_on(account, running)
            else:
                self._count_probe(account, running)
        elif account.earned_s > _patience_s(account):
            account.pause_s = 0.0  # whatever was before is made good
        if account.lost_s <= 0:
            account.lost_s, account.lost = 0.0, 0

    def withdrawn(self, id_: str) -> None:
        """It was not run after all."""
        launch = self._taken(id_, right=None)
        if launch is not None:
            account, running = self._account(launch.tool), self._runs(launch.tool)
            account.launched -= 1
            self._try_again(account, running, launch)

    def gone(self, id_: str) -> None:
        """Nobody will use it any more: it expired, a write made it stale, its session is over."""
        self._settle()
        if id_ in self._fresh:
            self._age(id_)
        self._late.pop(id_, None)

    def cancelled(self, id_: str) -> None:
        """It gave way to real work: what it took so far is wasted, but that is not its tool's fault."""
        now_ns = self._settle()
        launch = self._taken(id_, right=None)
        if launch is None:
            return
        account, running = self._account(launch.tool), self._runs(launch.tool)
        account.cancelled += 1
        account.wasted_s += min(max(0, now_ns - launch.at_ns) / _NS, launch.takes_s)
        account.wasted_usd += launch.usd
        self._try_again(account, running, launch)

    def figures(self) -> Mapping[str, Figures]:
        """By tool."""
        now_ns = self._settle()
        return {tool: self._figures(tool, each, now_ns) for tool, each in self._accounts.items()}

    def save(self) -> object:
        """All accounts, as plain data. What was launched and is not used yet is not kept."""
        now_ns = self._settle()
        for tool, account in self._accounts.items():
            running = self._running.get(tool)
            left_ns = 0 if running is None else max(0, running.until_ns - now_ns)
            account.waits_s = min(left_ns / _NS, _LONGEST_PAUSE_S)
        accounts = dict(self._accounts.items())
        return msgspec.to_builtins({"version": _VERSION, "tools": accounts})

    def load(self, saved: object) -> None:
        """Takes the place of all accounts; raises CodecError where it is not what `save` returned, and
        then nothing changes."""
        try:
            data = msgspec.convert(saved, _Saved)
        except msgspec.ValidationError as exc:
            raise CodecError(f"what launches were worth cannot be read: {exc}") from exc
        if data.version != _VERSION:
            raise CodecError(f"what launches were worth is of version {data.version}, and not 1")
        if not all(map(_finite, data.tools.values())):
            raise CodecError("what launches were worth has numbers that are none")
        now_ns = self._clock.monotonic_ns()
        self._accounts, self._running, self._fresh, self._late = self._bounded(), {}, {}, {}
        for tool, account in data.tools.items():
            self._accounts.put(tool, account)
            if account.off:
                self._runs(tool).until_ns = now_ns + round(account.waits_s * _NS)

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
            del self._late[id_]
        return now_ns

    def _age(self, id_: str) -> None:
        """Counts one as in vain; it may still be used."""
        if len(self._late) >= _MOST_PENDING:
            del self._late[next(iter(self._late))]
        launch = self._late[id_] = self._fresh.pop(id_)
        account, running = self._account(launch.tool), self._runs(launch.tool)
        running.fresh -= 1
        account.precision.add(self._decay, right=False)
        account.wasted_s += launch.takes_s
        account.wasted_usd += launch.usd
        if launch.epoch != running.epoch:
            return
        cost = self._cost(launch.takes_s, launch.usd)
        account.lost += 1
        account.lost_s = min(account.lost_s + cost, _LARGEST)
        account.earned_s = max(account.earned_s - cost, -_LARGEST)
        if account.off:
            self._count_probe(account, running)
        elif account.lost >= _LEAST and account.lost_s > _patience_s(account):
            self._turn_off(account, running)

    def _taken(self, id_: str, *, right: bool | None) -> _Launch | None:
        """Takes a launch out; what was counted of it is corrected. None for one that is not known."""
        launch = self._fresh.pop(id_, None)
        if launch is not None:
            account, running = self._account(launch.tool), self._runs(launch.tool)
            running.fresh -= 1
            if right is not None:
                account.precision.add(self._decay, right=right)
            return launch
        launch = self._late.pop(id_, None)
        if launch is None:
            return None
        account, running = self._account(launch.tool), self._runs(launch.tool)
        account.wasted_s = max(0.0, account.wasted_s - launch.takes_s)
        account.wasted_usd = max(0.0, account.wasted_usd - launch.usd)
        if right:
            account.precision.correct()
        if launch.epoch == running.epoch:
            cost = self._cost(launch.takes_s, launch.usd)
            account.lost_s = max(0.0, account.lost_s - cost)
            account.earned_s += cost
            if account.off:
                running.over = max(0, running.over - 1)
        return launch

    # -- on and off ---------------------------------------------------------------------------

    def _may_probe(self, running: _Running, now_ns: int) -> bool:
        return now_ns >= running.until_ns and running.probes < _PROBES

    @staticmethod
    def _try_again(account: _Account, running: _Running, launch: _Launch) -> None:
        """One that says nothing of its tool may be made once more."""
        if account.off and launch.epoch == running.epoch:
            running.probes = max(0, running.probes - 1)

    def _count_probe(self, account: _Account, running: _Running) -> None:
        """One more whose end is known, and they have not paid yet."""
        running.over += 1
        if running.over >= _PROBES:
            self._turn_off(account, running)

    def _turn_off(self, account: _Account, running: _Running) -> None:
        account.off = True
        account.pause_s = min(max(_FIRST_PAUSE_S, 2 * account.pause_s), _LONGEST_PAUSE_S)
        wait_s = account.pause_s * self._rng.uniform(0.5, 1.0)
        running.until_ns = self._clock.monotonic_ns() + round(wait_s * _NS)
        self._begin(account, running)

    def _turn_on(self, account: _Account, running: _Running) -> None:
        account.off = False
        self._begin(account, running)

    def _begin(self, account: _Account, running: _Running) -> None:
        """What was launched before says nothing about what comes."""
        account.lost_s = account.earned_s = 0.0
        account.lost = 0
        running.epoch += 1
        running.probes = running.over = 0

    def _off(self, running: _Running, now_ns: int) -> str:
        if running.until_ns > now_ns:
            left_s = (running.until_ns - now_ns) / _NS
            return f"it lost more than it saved, and is tried again in {left_s:.0f} s"
        return f"it lost more than it saved, and {running.probes} launches try it again"

    # -- accounts -----------------------------------------------------------------------------

    def _cost(self, takes_s: float, usd: float) -> float:
        """Of one in vain, in seconds of waiting."""
        return takes_s * self._waste_weight + (usd * self._usd_s if usd > 0 else 0.0)

    def _account(self, tool: str) -> _Account:
        account = self._accounts.get(tool)
        if account is None:
            account = _Account()
            self._accounts.put(tool, account)
        return account

    def _runs(self, tool: str) -> _Running:
        running = self._running.get(tool)
        if running is None:
            if len(self._running) >= 2 * _MOST_TOOLS:
                self._running = {
                    name: each
                    for name, each in self._running.items()
                    if each.fresh or self._accounts.get(name) is not None
                }
            running = self._running[tool] = _Running()
        return running

    def _figures(self, tool: str, account: _Account, now_ns: int) -> Figures:
        running = self._running.get(tool)
        state: State = "off" if account.off else "on" if account.launched else "shadow"
        if state == "shadow":
            why = "nothing was launched yet"
        elif state == "on" or running is None:
            why = f"it saved {account.saved_s:.3g} s and wasted {account.wasted_s:.3g} s"
        else:
            why = self._off(running, now_ns)
        return Figures(
            state,
            why,
            account.proposed,
            account.real,
            account.launched,
            account.used,
            account.cancelled,
            account.precision.share(),
            account.recall.share(),
            account.saved_s,
            account.wasted_s,
            account.wasted_usd,
        )

    @staticmethod
    def _bounded() -> Bounded[_Account]:
        """Those go first that were launched least, and are not off."""
        return Bounded(_MOST_TOOLS, lambda each: (_LARGEST if each.off else 0) + each.launched)


def _patience_s(account: _Account) -> float:
    """What a tool may lose before it is off."""
    return _DOUBT * account.takes_s


def _amount(given: float) -> float:
    """Within what can be added up; nothing for what is no number."""
    return min(max(0.0, given), _LARGEST)


def _finite(account: _Account) -> bool:
    rates = (account.precision.seen, account.precision.right, account.recall.seen)
    amounts = (account.saved_s, account.wasted_s, account.wasted_usd, account.takes_s)
    rest = (account.recall.right, account.lost_s, account.earned_s, account.pause_s)
    return all(map(math.isfinite, (*rates, *amounts, *rest, account.waits_s)))
