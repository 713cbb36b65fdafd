"""How one tool stands in one circle: what launches of it earned and lost there, and whether it is off."""

import random
from typing import Annotated, Final, final

import msgspec
from msgspec import Meta

__all__ = ["LARGEST", "LONGEST_PAUSE_S", "MOST_OF_ONE", "Account", "Amount", "Number", "Standing"]

LARGEST: Final = 1e9
"""Seconds, and US dollars, that one number may be."""
LONGEST_PAUSE_S: Final = 3_600.0
_LEAST: Final = 6  # launches in vain before anything is held against a tool
MOST_OF_ONE: Final = 1 / _LEAST
"""Of what one circle may lose, the most that one launch is held to take."""
_NS: Final = 1_000_000_000
_DOUBT: Final = 2.7  # hits whose worth may be lost: z * z for one chance in twenty
_MOST_FRESH: Final = 30  # launches at once of which nothing is known yet
_PROBES: Final = 5
_FIRST_PAUSE_S: Final = 60.0

Amount = Annotated[float, Meta(ge=0, le=1e15)]
Number = Annotated[int, Meta(ge=0)]
_Pause = Annotated[float, Meta(ge=0, le=LONGEST_PAUSE_S)]


class Account(msgspec.Struct):
    """What is kept of it. `lost_s` is what was lost since the account stood best, in `lost` launches;
    `earned_s` what it earned since it was turned on; `waits_s` what is left of its pause."""

    launched: Number = 0
    takes_s: Amount = 0.0
    lost_s: Amount = 0.0
    lost: Number = 0
    earned_s: float = 0.0
    off: bool = False
    pause_s: _Pause = 0.0
    waits_s: _Pause = 0.0


@final
class Standing:
    """Once more was lost than leaves a doubt, it is off; after a pause a few launches try it again,
    and what they save has to be more than what they cost."""

    __slots__ = ("_over", "_probes", "account", "epoch", "fresh", "open_s", "until_ns")

    def __init__(self, account: Account, now_ns: int) -> None:
        """As it is kept; what is left of a pause begins now."""
        self.account = account
        self.fresh = 0
        """Launches that run, or of which nothing is known yet."""
        self.open_s = 0.0
        """What those cost that are paid for by what was earned."""
        self.epoch = 0
        """A new one each time it is turned on or off, or its trial is over."""
        self.until_ns = now_ns + round(account.waits_s * _NS)
        self._probes = 0  # of this epoch: launched, and over without having paid
        self._over = 0

    def objection(self, tool: str, now_ns: int) -> str:
        """Why no more is launched just now; nothing if it is."""
        if self.account.off and not self._may_probe(now_ns):
            return self.why_off(now_ns)
        if self.fresh >= _MOST_FRESH:
            return f"{self.fresh} launches of {tool} are out already"
        return ""

    def why_off(self, now_ns: int) -> str:
        """In words, of one that is off."""
        if self.until_ns > now_ns:
            left_s = (self.until_ns - now_ns) / _NS
            return f"it lost more than it saved, and is tried again in {left_s:.0f} s"
        return f"it lost more than it saved, and {self._probes} launches try it again"

    def pays(self, cost_s: float) -> bool:
        """Whether enough was earned for one more in vain."""
        return not self.account.off and self.account.earned_s > self.open_s + cost_s

    def share(self, seconds: float) -> float:
        """So much, as a share of what may be lost here."""
        patience_s = self._patience_s
        return seconds / patience_s if patience_s else (LARGEST if seconds else 0.0)

    def launched(self, takes_s: float, least_share: float, now_ns: int) -> None:
        """One more, which is to take so long."""
        account = self.account
        account.launched += 1
        share = max(least_share, 1 / account.launched)
        account.takes_s += share * (takes_s - account.takes_s)
        self.fresh += 1
        if account.off and self._may_probe(now_ns):
            self._probes += 1

    def opened(self, cost_s: float) -> None:
        """Launches cost so much more of what was earned, or less."""
        self.open_s = max(0.0, self.open_s + cost_s)

    def known(self) -> None:
        """One is over, and it is known what became of it."""
        self.fresh -= 1

    def try_again(self, epoch: int) -> None:
        """One of this epoch says nothing of its tool: it may be made once more."""
        if self.account.off and epoch == self.epoch:
            self._probes = max(0, self._probes - 1)

    def earn(self, saved_s: float, now_ns: int, rng: random.Random) -> None:
        """One of this epoch was used."""
        account = self.account
        account.lost_s -= saved_s
        account.earned_s = min(account.earned_s + saved_s, LARGEST)
        if account.off:
            if account.lost_s < 0:
                account.off = False
                self._begin()
            else:
                self._count_probe(now_ns, rng)
        elif account.earned_s > self._patience_s:
            account.pause_s = 0.0  # whatever was before is made good
        if account.lost_s <= 0:
            account.lost_s, account.lost = 0.0, 0

    def lose(self, cost_s: float, now_ns: int, rng: random.Random) -> None:
        """One of this epoch was in vain."""
        account = self.account
        account.lost += 1
        account.lost_s = min(account.lost_s + cost_s, LARGEST)
        account.earned_s = max(account.earned_s - cost_s, -LARGEST)
        if account.off:
            self._count_probe(now_ns, rng)
        else:
            self._judge(now_ns, rng)

    def lost_more(self, cost_s: float, now_ns: int, rng: random.Random) -> None:
        """One of this epoch that was in vain cost so much more than was counted, or less."""
        account = self.account
        account.lost_s = min(max(0.0, account.lost_s + cost_s), LARGEST)
        account.earned_s = max(account.earned_s - cost_s, -LARGEST)
        if not account.off:
            self._judge(now_ns, rng)

    def not_lost(self, cost_s: float) -> None:
        """One of this epoch that was held to be in vain was not."""
        account = self.account
        account.lost_s = max(0.0, account.lost_s - cost_s)
        account.earned_s += cost_s
        if account.off:
            self._over = max(0, self._over - 1)

    @property
    def _patience_s(self) -> float:
        """What may be lost before it is off."""
        return _DOUBT * self.account.takes_s

    def _judge(self, now_ns: int, rng: random.Random) -> None:
        """Turns it off if more was lost than may be."""
        account = self.account
        if account.lost >= _LEAST and account.lost_s > self._patience_s:
            self._turn_off(now_ns, rng)

    def _may_probe(self, now_ns: int) -> bool:
        return now_ns >= self.until_ns and self._probes < _PROBES

    def _count_probe(self, now_ns: int, rng: random.Random) -> None:
        """One more whose end is known, and they have not paid yet."""
        self._over += 1
        if self._over >= _PROBES:
            self._turn_off(now_ns, rng)

    def _turn_off(self, now_ns: int, rng: random.Random) -> None:
        account = self.account
        account.off = True
        account.pause_s = min(max(_FIRST_PAUSE_S, 2 * account.pause_s), LONGEST_PAUSE_S)
        self.until_ns = now_ns + round(account.pause_s * rng.uniform(0.5, 1.0) * _NS)
        self._begin()

    def _begin(self) -> None:
        """What was launched before says nothing about what comes."""
        account = self.account
        account.lost_s = account.earned_s = 0.0
        account.lost = 0
        self.epoch += 1
        self._probes = self._over = 0
