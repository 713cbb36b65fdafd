"""What is known of launching calls: of each tool in all, and of each tool in one circle of people."""

import math
from collections.abc import Callable, ItemsView
from typing import Annotated, Final, NamedTuple, Self, final

import msgspec
from msgspec import Meta

from paceline.errors import CodecError
from paceline.predict.bounded import Bounded
from paceline.predict.standing import (
    LARGEST,
    LONGEST_PAUSE_S,
    MOST_OF_ONE,
    Account,
    Amount,
    Number,
    Standing,
)

__all__ = ["Accounts", "Place", "Rate", "Total"]

_MOST_DOUBT: Final = 8.0  # circles that lose all that they may
_LEAK_S: Final = 600.0  # in which one more may
_DOUBTED: Final = 0.5
_MOST_TOOLS: Final = 1_000
_MOST_ACCOUNTS: Final = 4_000
_VERSION: Final = 2
_OF_TOOLS: Final = 1  # the version that knew nothing of circles
_NS: Final = 1_000_000_000


class Place(NamedTuple):
    """A tool, and the circle in which calls of it are predicted."""

    circle: str
    tool: str


class Rate(msgspec.Struct, gc=False):
    """How often something was the case; old times count less."""

    seen: Amount = 0.0
    right: Amount = 0.0

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


class Total(msgspec.Struct):
    """Of one tool, in all circles. `doubt` is what was lost of late where nothing had been earned,
    measured by what one circle may lose."""

    proposed: Number = 0
    real: Number = 0
    launched: Number = 0
    used: Number = 0
    cancelled: Number = 0
    saved_s: Amount = 0.0
    wasted_s: Amount = 0.0
    wasted_usd: Amount = 0.0
    precision: Rate = msgspec.field(default_factory=Rate)
    recall: Rate = msgspec.field(default_factory=Rate)
    doubt: Annotated[float, Meta(ge=0, le=_MOST_DOUBT)] = 0.0
    at_ns: int = 0  # of the doubt, by the clock of this process

    def waste(self, seconds: float, usd: float) -> None:
        """So much more was in vain, or less."""
        self.wasted_s = max(0.0, self.wasted_s + seconds)
        self.wasted_usd = max(0.0, self.wasted_usd + usd)

    def doubted(self, amount: float, now_ns: int) -> float:
        """The doubt, with so much more of it, or less."""
        left = max(0.0, self.doubt - max(0, now_ns - self.at_ns) / _NS / _LEAK_S)
        self.doubt, self.at_ns = min(_MOST_DOUBT, max(0.0, left + amount)), now_ns
        return self.doubt

    def is_doubted(self, now_ns: int) -> bool:
        """Whether so much was lost that one launch more could be too much."""
        return self.doubted(0.0, now_ns) + MOST_OF_ONE > _MOST_DOUBT


class _Kept(msgspec.Struct, array_like=True):
    """Of one place."""

    circle: str
    tool: str
    account: Account


class _Saved(msgspec.Struct):
    """The form of `Accounts.save`."""

    version: int
    tools: dict[str, Total]
    accounts: list[_Kept]


class _Totals(msgspec.Struct):
    """The totals in the form from before there were circles."""

    tools: dict[str, Total]


class _States(msgspec.Struct):
    """What that form says of a tool besides: whether it is off."""

    tools: dict[str, Account]


class _Version(msgspec.Struct):
    version: int


@final
class Accounts:
    """The totals of tools, and the accounts of those places that were used last."""

    __slots__ = ("_of", "totals")

    def __init__(self) -> None:
        self.totals: Bounded[Total] = Bounded(_MOST_TOOLS, _worth)
        """By tool. Those go first that were launched least, and are in no doubt."""
        self._of: dict[Place, Standing] = {}

    def __len__(self) -> int:
        return len(self._of)

    def total(self, tool: str) -> Total:
        """Of all circles."""
        total = self.totals.get(tool)
        if total is None:
            total = Total()
            self.totals.put(tool, total)
        return total

    def find(self, place: Place) -> Standing | None:
        """None where nothing was launched, or long ago."""
        return self._of.get(place)

    def use(self, place: Place, now_ns: int) -> Standing:
        """The same as that used last; a new one in place of the one used longest ago."""
        found = self._of.pop(place, None)
        if found is None:
            found = Standing(Account(), now_ns)
            if len(self._of) >= _MOST_ACCOUNTS:
                del self._of[next(iter(self._of))]
        self._of[place] = found
        return found

    def items(self) -> ItemsView[Place, Standing]:
        """All of them, the one used last at the end."""
        return self._of.items()

    def forget(self, circle: str) -> None:
        """Those of one circle; what they came to stays a part of the totals."""
        for place in [each for each in self._of if each.circle == circle]:
            del self._of[place]

    def save(self, now_ns: int, lasting: Callable[[str], bool]) -> object:
        """As plain data; of circles those that last."""
        for total in self.totals.values():
            total.doubted(0.0, now_ns)
        kept: list[_Kept] = []
        for place, standing in self._of.items():
            if lasting(place.circle):
                left_s = max(0, standing.until_ns - now_ns) / _NS
                standing.account.waits_s = min(left_s, LONGEST_PAUSE_S)
                kept.append(_Kept(place.circle, place.tool, standing.account))
        return msgspec.to_builtins(_Saved(_VERSION, dict(self.totals.items()), kept))

    @classmethod
    def load(cls, saved: object, now_ns: int) -> Self:
        """What `save` returned, now or before there were circles. Raises CodecError for anything
        else."""
        try:
            totals, kept = _read(saved)
        except msgspec.ValidationError as exc:
            raise CodecError(f"what launches were worth cannot be read: {exc}") from exc
        accounts = cls()
        for tool, total in totals.items():
            total.at_ns = now_ns
            accounts.totals.put(tool, total)
        for each in kept[-_MOST_ACCOUNTS:]:
            accounts._of[Place(each.circle, each.tool)] = Standing(each.account, now_ns)
        return accounts


def _read(saved: object) -> tuple[dict[str, Total], list[_Kept]]:
    """Totals and accounts of whatever version that is known. Raises as `convert` does, and
    CodecError."""
    version = msgspec.convert(saved, _Version).version
    if version == _VERSION:
        data = msgspec.convert(saved, _Saved)
        totals, kept = data.tools, data.accounts
        accounts = [each.account for each in kept]
    elif version == _OF_TOOLS:
        totals, kept = msgspec.convert(saved, _Totals).tools, []
        states = msgspec.convert(saved, _States).tools
        accounts = list(states.values())
        for tool, account in states.items():  # a tool was off for everybody
            totals[tool].doubt = _MOST_DOUBT if account.off else 0.0
    else:
        raise CodecError(f"what launches were worth is of version {version}, and not {_VERSION}")
    if not all(_finite(each) for each in (*totals.values(), *accounts)):
        raise CodecError("what launches were worth has numbers that are none")
    return totals, kept


def _worth(total: Total) -> float:
    return total.launched + (LARGEST if total.doubt >= _DOUBTED else 0)


def _finite(numbers: msgspec.Struct) -> bool:
    """Whether all that it holds are numbers that can be reckoned with."""
    values: list[object] = [*msgspec.structs.astuple(numbers)]
    for rate in [each for each in values if isinstance(each, Rate)]:
        values += msgspec.structs.astuple(rate)
    return all(math.isfinite(each) for each in values if isinstance(each, float))
