"""Launches by a ledger, to be told what became of them."""

import random
from typing import Any, NamedTuple

from hypothesis import strategies as st

from paceline.predict.ledger import Figures, Ledger
from paceline.testing.virtual_time import VirtualClock

ONE: dict[str, Any] = {"takes_s": 1.0, "lead_s": 3.5}


class Launches:
    """A ledger, and launches of it that come true or do not."""

    def __init__(self, **options: Any) -> None:
        self.clock = VirtualClock()
        self.ledger = Ledger(self.clock, rng=random.Random(1), **options)
        self.made = 0

    def launch(
        self, *, takes_s: float = 1.0, usd: float = 0.0, chance: float = 0.9, circle: str = ""
    ) -> str:
        """The id of one if it is worth it, else nothing."""
        cost: dict[str, Any] = {"takes_s": takes_s, "usd": usd}
        if self.ledger.objection("t", chance, **cost, lead_s=3.5, circle=circle):
            return ""
        self.made += 1
        at_ns = self.clock.monotonic_ns()
        self.ledger.launched(str(self.made), "t", at_ns, **cost, circle=circle)
        return str(self.made)

    def right(self, saved_s: float = 1.0, circle: str = "") -> bool:
        """One that is used."""
        if id_ := self.launch(circle=circle):
            self.ledger.used(id_, saved_s)
        return bool(id_)

    def wrong(self, *, takes_s: float = 1.0, usd: float = 0.0, **options: Any) -> bool:
        """One that is not, and takes what was expected."""
        if id_ := self.launch(takes_s=takes_s, usd=usd, **options):
            self.ledger.took(id_, takes_s, usd)
            self.ledger.gone(id_)
        return bool(id_)

    def until_off(self, circle: str = "") -> int:
        """How many in vain turn it off."""
        count = 0
        while self.wrong(circle=circle):
            count += 1
        return count

    @property
    def figures(self) -> Figures:
        return self.ledger.figures()["t"]

    def is_off(self) -> bool:
        return self.figures.state == "off"


Step = tuple[str, int, float, float, int]


def steps(most: int = 0) -> st.SearchStrategy[list[Step]]:
    """What happens, and in which circle of `most` and one more."""
    return st.lists(
        st.tuples(
            st.sampled_from(
                ["launch", "launch", "launch", "took", "used", "gone", "cancelled", "wait"]
            ),
            st.integers(0, most),
            st.floats(0.01, 20),
            st.floats(0, 0.05),
            st.integers(0, 80),
        ),
        max_size=250,
    )


class Out(NamedTuple):
    """One that was launched, and what it really takes and costs."""

    at_ns: int
    circle: str
    takes_s: float
    usd: float
    expected: float
    """What it was to cost."""
    earned: bool
    """Whether it is paid for by what was earned."""

    @property
    def cost(self) -> float:
        return 0.18 * self.takes_s + self.usd * 180


class Drift(Launches):
    """Launches of which, from some moment on, none comes true; and what those cost, which is known
    when they are over."""

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[str, Out] = {}
        self.runs: dict[str, Out] = {}
        self.surprise: dict[str, float] = {}
        """By circle, the most by which those that ran at once, paid for by what was earned, cost more
        than expected."""
        self.drifted = False
        self.wasted = self.longest = self.dearest = 0.0
        self.since_ns = 0

    def play(self, steps: list[Step]) -> None:
        for what, circle, takes_s, usd, number in steps:
            if what == "launch":
                self.make(f"c{circle}", takes_s, usd, number / 20)
            elif what == "wait":
                self.clock.advance(number)
            elif what == "took":
                if self.runs:
                    self.tell(list(self.runs)[number % len(self.runs)])
            elif self.open:
                self.end(what, list(self.open)[number % len(self.open)])

    def make(self, circle: str, takes_s: float, usd: float, really: float = 1.0) -> str:
        """One that really takes and costs `really` times as much."""
        id_ = self.launch(takes_s=takes_s, usd=usd, chance=1.0, circle=circle)
        if id_:
            at_ns, expected = self.clock.monotonic_ns(), 0.18 * takes_s + usd * 180
            earned = not self.ledger._fresh[id_].doubt
            out = Out(at_ns, circle, takes_s * really, usd * really, expected, earned)
            self.open[id_] = self.runs[id_] = out
            self.longest = max(self.longest, takes_s)
            self.dearest = max(self.dearest, expected, out.cost)
            self._surprise(circle)
        return id_

    def _surprise(self, circle: str) -> None:
        run = [one for one in self.runs.values() if one.circle == circle and one.earned]
        now = sum(max(0.0, one.cost - one.expected) for one in run)
        self.surprise[circle] = max(self.surprise.get(circle, 0.0), now)

    def tell(self, id_: str) -> None:
        """It is over."""
        if (out := self.runs.pop(id_, None)) is not None:
            self.ledger.took(id_, out.takes_s, out.usd)

    def end(self, how: str, id_: str) -> None:
        out = self.open.pop(id_)
        if how == "gone" or self.drifted:
            self.tell(id_)
            self.ledger.gone(id_)
            self.wasted += out.cost if self.drifted else 0.0
            return
        self.runs.pop(id_, None)
        if how == "used":
            self.ledger.used(id_, 1.0)
        else:
            self.ledger.cancelled(id_)

    def drift(self) -> None:
        self.ledger.figures()  # counts what is open for long as in vain
        out = {
            **self.ledger._fresh,
            **{id_: one for id_, one in self.ledger._late.items() if one.runs},
        }
        self.open = {id_: one for id_, one in self.open.items() if id_ in out}
        self.runs = {id_: one for id_, one in self.runs.items() if id_ in out}
        self.drifted, self.since_ns = True, self.clock.monotonic_ns()
        self.surprise.clear()
        for one in self.runs.values():
            self._surprise(one.circle)

    def lost(self) -> float:
        """What those in vain cost, and those that are out."""
        return self.wasted + sum(each.cost for each in self.open.values())
