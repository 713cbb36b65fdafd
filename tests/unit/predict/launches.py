"""Launches by a ledger, to be told what became of them."""

import random
from typing import Any

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

    def wrong(self, **options: Any) -> bool:
        """One that is not."""
        if id_ := self.launch(**options):
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
            st.sampled_from(["launch", "launch", "launch", "used", "gone", "cancelled", "wait"]),
            st.integers(0, most),
            st.floats(0.01, 20),
            st.floats(0, 0.05),
            st.integers(0, 80),
        ),
        max_size=250,
    )


class Drift(Launches):
    """Launches of which, from some moment on, none comes true; and what those cost."""

    def __init__(self) -> None:
        super().__init__()
        self.open: dict[str, float] = {}
        self.drifted = False
        self.wasted = self.longest = self.dearest = 0.0
        self.since_ns = 0

    def play(self, steps: list[Step]) -> None:
        for what, circle, takes_s, usd, number in steps:
            if what == "launch":
                self.make(f"c{circle}", takes_s, usd)
            elif what == "wait":
                self.clock.advance(number)
            elif self.open:
                self.end(what, list(self.open)[number % len(self.open)])

    def make(self, circle: str, takes_s: float, usd: float) -> str:
        id_ = self.launch(takes_s=takes_s, usd=usd, chance=1.0, circle=circle)
        if id_:
            self.open[id_] = cost = 0.18 * takes_s + usd * 180
            self.longest, self.dearest = max(self.longest, takes_s), max(self.dearest, cost)
        return id_

    def end(self, how: str, id_: str) -> None:
        cost = self.open.pop(id_)
        if self.drifted:
            self.ledger.gone(id_)
            self.wasted += cost
        elif how == "used":
            self.ledger.used(id_, 1.0)
        else:
            (self.ledger.cancelled if how == "cancelled" else self.ledger.gone)(id_)

    def drift(self) -> None:
        self.ledger.figures()  # counts what is open for long as in vain
        self.open = {id_: cost for id_, cost in self.open.items() if id_ in self.ledger._fresh}
        self.drifted, self.since_ns = True, self.clock.monotonic_ns()
