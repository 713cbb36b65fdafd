"""What launches were worth, by circle of people and for all of them together."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.predict.launches import ONE, Drift, Launches, Step, steps


def test_who_is_always_wrong_turns_nothing_off_for_others() -> None:
    """A circle that is always wrong is left alone, and each of the others is launched for as if it
    were not there, new ones and those that pay alike. (S2-40)"""
    made = Launches()
    made.right(circle="pays")
    assert made.until_off("wrong") == 16
    assert set(made.ledger.off("wrong")) == {"t"}
    for circle in ("pays", "new"):
        assert not made.ledger.off(circle)
        assert made.launch(circle=circle)
    assert (made.figures.state, made.figures.launched, made.figures.used) == ("off", 19, 1)
    assert made.figures.why == "off for 1 of 3: it lost more than it saved for them"


def test_each_circle_has_its_own_pause() -> None:
    """One circle is tried again after its own pause, and what comes of that turns it on there and
    nowhere else. (S2-40)"""
    made = Launches()
    made.until_off("first")
    made.clock.advance(50)
    made.until_off("second")
    made.clock.advance(15)
    assert not made.wrong(circle="second")
    assert made.right(circle="first")
    assert not made.ledger.off("first")
    assert set(made.ledger.off("second")) == {"t"}


@pytest.mark.parametrize("dear", [False, True])
@pytest.mark.parametrize("at_once", [1, 30])
def test_one_circle_alone_never_takes_what_all_may_lose(dear: bool, at_once: int) -> None:
    """However long, dear and at once a circle is wrong, a new one is launched for. (S2-40)"""
    made = Launches(usd_an_hour=1.0 if dear else 20.0)
    cost: dict[str, Any] = {"usd": 0.01, "chance": 0.999} if dear else {}
    for second in range(4_000):
        made.clock.advance(1)
        ids = [made.launch(**cost, circle="wrong") for _ in range(at_once)]
        assert not made.ledger.objection("t", 0.999, **ONE, circle="new"), second
        for id_ in filter(None, ids):
            made.ledger.gone(id_)


class Crowd(Drift):
    """Drift in many circles."""

    earned = 0.0

    def drift(self) -> None:
        super().drift()
        standings = [standing for _, standing in self.ledger._accounts.items()]
        self.earned = sum(max(0.0, each.account.earned_s) for each in standings)
        # What runs and was counted as in vain was taken from what was earned.
        counted = [one for id_, one in self.open.items() if id_ in self.ledger._late]
        self.earned += sum(one.expected for one in counted if one.earned)
        self.since_ns = min((one.at_ns for one in self.open.values()), default=self.since_ns)

    def most(self) -> float:
        """The bound that the ledger names."""
        t = (self.clock.monotonic_ns() - self.since_ns) / 1e9
        unearned = (8 + t / 600) * max(2.7 * self.longest, 6 * self.dearest)
        return unearned + self.earned + sum(self.surprise.values())


@given(steps(12), steps(12), st.floats(0.01, 20), st.floats(0, 0.05))
def test_drift_of_all_costs_no_more_than_it_may(
    before: list[Step], after: list[Step], takes_s: float, usd: float
) -> None:
    """From the moment at which every prediction is wrong, all circles together, hundreds of new ones
    among them, lose no more than they had earned and (8 + t / 600) max(2.7 T, 6 c); and where what a
    circle had earned paid for it, by how much that cost more while nobody knew. (S2-40, S2-51)"""
    made = Crowd()
    made.play(before)
    made.drift()
    made.play(after)
    for number in range(400):  # each new, and always wrong
        made.clock.advance(2)
        for _ in range(2):
            if id_ := made.make(f"new {number % 300}", takes_s, usd):
                made.end("gone", id_)
    assert made.lost() <= made.most() + 1e-6


def test_what_all_lost_is_tried_again_little_by_little() -> None:
    """Once a thousand new circles were wrong about a tool none that is new is launched for, but one
    that has earned it is; little by little new ones try it again, and hits make it good. (S2-40)"""
    made = Launches()
    assert all(made.right(circle="pays") for _ in range(3))
    launched = sum(made.wrong(circle=f"c{number}") for number in range(1_000))
    assert 100 < launched < 150
    assert not made.wrong(circle="new")
    assert made.ledger.objection("t", 0.9, **ONE, circle="new") == made.ledger.off("new")["t"]
    assert made.is_off()
    assert made.figures.why == (
        "it lost more than it saved for many, and is tried again little by little"
    )
    assert not made.ledger.off("pays")
    out = [made.launch(circle="pays") for _ in range(30)]
    assert len([*filter(None, out)]) == 16  # in vain they would cost what was earned, 3 s
    for id_ in filter(None, out):
        made.ledger.used(id_, 1.0)
    made.clock.advance(600)
    assert 10 < sum(made.wrong(circle=f"d{number}") for number in range(100)) < 20
    made.clock.advance(40)
    for number in range(100):
        assert made.right(circle=f"e{number}")
    assert not made.is_off()


@pytest.mark.parametrize("end", ["used", "used late", "cancelled", "withdrawn"])
def test_only_what_is_in_vain_is_held_against_new_circles(end: str) -> None:
    """However many launches of new circles are used or are not run to their end, the next one is
    launched for. (S2-40)"""
    made = Launches()
    for number in range(500):
        id_ = made.launch(circle=f"c{number}")
        assert id_
        if end == "used late":
            made.clock.advance(31)
        match end:
            case "cancelled":
                made.ledger.cancelled(id_)
            case "withdrawn":
                made.ledger.withdrawn(id_)
            case _:
                made.ledger.used(id_, 0.0)


def test_what_new_circles_save_makes_good_what_others_lose() -> None:
    """As long as launches for new circles save more than they cost altogether, each new one has them.
    (S2-40)"""
    made = Launches()
    for number in range(500):
        assert made.right(circle=f"right {number}")
        for wrong in range(5):
            assert made.wrong(circle=f"wrong {number} {wrong}")


def test_accounts_of_circles_are_kept() -> None:
    """What is saved and loaded leaves the same circles alone, but for those that do not last; totals
    are of all, whether those are known or not. (S2-49)"""
    made = Launches()
    for circle in ("user ada", "session s1"):
        made.until_off(circle)
    made.right(circle="user bob")
    saved = made.ledger.save(lambda circle: not circle.startswith("session"))
    other = Launches()
    other.ledger.load(msgspec.msgpack.decode(msgspec.msgpack.encode(saved)))
    assert set(other.ledger.off("user ada")) == {"t"}
    assert not other.ledger.off("session s1")
    assert not other.ledger.off("user bob")
    assert (other.figures.launched, other.figures.used) == (33, 1)
    other.ledger.forget("user ada")
    assert not other.ledger.off("user ada")
    assert other.figures.launched == 33


def test_accounts_from_before_there_were_circles_are_read() -> None:
    """A file that knew only tools loads: the totals go on, and what was off for all is tried little
    by little by each. (S2-49)"""
    made = Launches()
    rate = {"seen": 2.0, "right": 1.0}
    account = {
        "proposed": 9, "real": 5, "launched": 4, "used": 3, "cancelled": 1, "saved_s": 2.5,
        "wasted_s": 1.5, "wasted_usd": 0.25, "precision": rate, "recall": rate, "takes_s": 1.0,
        "lost_s": 0.0, "lost": 0, "earned_s": 1.0, "off": False, "pause_s": 0.0, "waits_s": 0.0,
    }  # fmt: skip
    off = {**account, "off": True, "pause_s": 60.0, "waits_s": 30.0}
    made.ledger.load({"version": 1, "tools": {"t": account, "u": off}})
    assert (made.figures.state, made.figures.launched, made.figures.saved_s) == ("on", 4, 2.5)
    assert made.figures.precision == 0.5
    assert made.launch(circle="user ada")
    assert set(made.ledger.off("user ada")) == {"u"}
    made.clock.advance(101)
    assert not made.ledger.off("user ada")


def test_those_used_last_are_kept() -> None:
    """Of thousands of accounts those are dropped that were used longest ago; what is still out of
    such a one is counted in the totals. (S2-40, S2-51)"""
    made = Launches()
    ledger = made.ledger
    made.until_off("first")
    out = made.launch(circle="lost")
    for number in range(5_000):
        ledger.launched("x", "u", 0, 1.0, circle=f"c{number}")
        ledger.used("x", 1.0)
        if number % 1_000 == 0:
            ledger.launched("y", "t", 0, 1.0, circle="first")
            ledger.withdrawn("y")
    assert len(ledger._accounts) <= 4_000
    assert set(ledger.off("first")) == {"t"}
    ledger.used(out, 1.0)
    assert (made.figures.used, made.figures.launched) == (1, 17)


def test_what_is_out_of_an_account_that_is_gone_is_counted_in_no_other() -> None:
    """What becomes of launches of an account that was dropped changes nothing in the one that came in
    its place. (S2-40, S2-51)"""
    made = Launches()
    before = [made.launch(circle="ada") for _ in range(30)]
    made.ledger.forget("ada")
    assert all(made.launch(circle="ada") for _ in range(15))
    for id_ in before[:16]:
        made.ledger.withdrawn(id_)
    for id_ in before[16:]:
        made.ledger.gone(id_)
    out = [made.launch(circle="ada") for _ in range(16)]
    assert [*map(bool, out)] == [*[True] * 15, False]
    made.ledger.load(made.ledger.save())
    assert not made.ledger.off("ada")


def test_totals_that_begin_anew_are_kept() -> None:
    """What was launched before the totals of its tool were dropped, and is not run, leaves figures that
    can be loaded. (S2-49)"""
    made = Launches()
    out = made.launch()
    for number in range(1_001):
        for name in "ab":
            made.ledger.launched(f"{number}{name}", f"t{number}", 0, 1.0)
    made.ledger.withdrawn(out)
    made.ledger.load(made.ledger.save())
    assert made.figures.launched == 0


def test_what_nobody_knows_the_cost_of_yet_counts_as_the_most_it_may() -> None:
    """However short calls are expected to be, of new circles all at once no more are launched than may
    be lost if they take long; once they are over and took as expected, more are. (S2-40)"""
    made = Launches()
    ids = [made.launch(takes_s=0.1, circle=f"c{number}") for number in range(500)]
    out = [*filter(None, ids)]
    assert 40 < len(out) <= 48
    for id_ in out:
        made.ledger.took(id_, 0.1)
    assert made.launch(takes_s=0.1, circle="new")
