"""What launches were worth."""

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given

from paceline.errors import CodecError
from tests.unit.predict.launches import ONE, Drift, Launches, Step, steps


@pytest.mark.parametrize(
    ("probability", "options", "worth"),
    [
        (0.16, ONE, True),
        (0.15, ONE, False),
        (0.16, {"takes_s": 100.0, "lead_s": 100.0}, True),
        (0.5, {"takes_s": 1.0, "lead_s": 0.0}, False),
        (0.5, {"takes_s": 100.0, "lead_s": 10.0}, False),
        (0.7, {"takes_s": 100.0, "lead_s": 10.0}, True),
        (0.9, {"takes_s": 0.0, "lead_s": 3.5}, False),
        (0.5, {**ONE, "usd": 0.004}, True),
        (0.5, {**ONE, "usd": 0.005}, False),
        (1.0, {**ONE, "usd": 9.0}, True),
        (float("nan"), ONE, False),
    ],
)
def test_a_launch_is_worth_what_it_saves_by_expectation(
    probability: float, options: dict[str, Any], worth: bool
) -> None:
    """A launch is worth it if it saves more than it costs by expectation: of a free call from a
    probability of 0.15, of others the later, the more they cost and the less there is to save. (S2-40)"""
    ledger = Launches().ledger
    assert bool(ledger.objection("t", probability, **options)) is not worth


def test_money_counts_by_what_waiting_is_worth() -> None:
    """Who would pay more for an hour launches dearer calls, and who would pay nothing none. (S2-40)"""
    for usd_an_hour, most in ((2.0, 0.0004), (20.0, 0.004), (200.0, 0.04), (0.0, 0.0)):
        ledger = Launches(usd_an_hour=usd_an_hour).ledger
        assert not ledger.objection("t", 0.5, **ONE, usd=most)
        assert ledger.objection("t", 0.5, **ONE, usd=2 * most + 1e-6)


def test_what_came_of_launches_is_counted() -> None:
    """Each launch is used, in vain, cancelled or not known yet, once; precision and recall are
    shares of it. (S2-40, S2-51)"""
    made = Launches()
    made.ledger.proposed("t")
    for foreseen in (True, True, True, False):
        made.ledger.real("t", foreseen=foreseen)
    assert made.figures.state == "shadow"
    assert made.figures.precision is None
    for saved_s in (0.5, 0.25):
        made.right(saved_s)
        made.ledger.used(str(made.made), 9.0)
    made.wrong(usd=0.001)
    made.ledger.gone(str(made.made))
    id_ = made.launch()
    made.clock.advance(0.5)
    made.ledger.cancelled(id_)
    made.ledger.cancelled(id_)
    made.launch()
    found = made.figures
    assert (found.state, found.proposed, found.real) == ("on", 1, 4)
    assert (found.launched, found.used, found.cancelled) == (5, 2, 1)
    assert found.precision == pytest.approx(2 / 3, abs=0.01)
    assert found.recall == pytest.approx(3 / 4, abs=0.03)
    assert (found.saved_s, found.wasted_s, found.wasted_usd) == (0.75, 1.5, 0.001)
    assert found.why == "it saved 0.75 s and wasted 1.5 s"


def test_a_launch_that_is_not_used_for_long_is_in_vain() -> None:
    """What nobody uses counts as in vain after 30 s, no more if it is used later after all, and is
    forgotten after 10 minutes. (S2-40)"""
    made = Launches()
    first, second = made.launch(), made.launch()
    made.clock.advance(29)
    assert made.figures.wasted_s == 0
    made.clock.advance(2)
    assert (made.figures.wasted_s, made.figures.precision) == (2, 0)
    made.ledger.used(first, 0.5)
    assert (made.figures.wasted_s, made.figures.saved_s, made.figures.used) == (1, 0.5, 1)
    assert made.figures.precision == pytest.approx(0.5, abs=0.01)
    made.clock.advance(600)
    made.ledger.used(second, 0.5)
    assert (made.figures.wasted_s, made.figures.used) == (1, 1)
    third = made.launch()
    made.clock.advance(31)
    made.ledger.gone(third)
    made.ledger.used(third, 0.5)
    assert (made.figures.wasted_s, made.figures.used) == (2, 1)


def test_what_is_not_used_at_the_end_is_in_vain() -> None:
    """At the end what nobody used yet is in vain, and nothing else is. (S2-40)"""
    made = Launches()
    assert not made.ledger.end()
    made.right(0.5)
    made.launch()
    assert made.ledger.end()
    found = made.figures
    assert (found.launched, found.used, found.wasted_s) == (2, 1, 1)
    assert found.precision == pytest.approx(0.5, abs=0.01)
    assert not made.ledger.end()


def test_a_tool_that_loses_is_off() -> None:
    """A tool that is always wrong is off after as many launches as cost what 2.7 hits save, also
    if it was right for long; until then, and one that pays, it stays on. (S2-40)"""
    fresh, old = Launches(), Launches()
    assert fresh.until_off() == 16
    assert (fresh.figures.state, fresh.wrong()) == ("off", False)
    said = fresh.ledger.objection("t", 0.9, **ONE)
    assert said.startswith("it lost more than it saved, and is tried again in ")
    assert fresh.figures.why.startswith("it lost more than it saved, and is tried again in ")
    assert all(old.right() for _ in range(1_000))
    assert old.until_off() == 16


def test_one_bad_launch_is_not_held_against_a_tool() -> None:
    """However dear, fewer than 6 launches in vain turn nothing off. (S2-40)"""
    made = Launches(usd_an_hour=1.0)
    assert all(made.wrong(usd=0.01, chance=0.999) for _ in range(6))
    assert made.is_off()


@pytest.mark.parametrize(("rate", "share"), [(0.05, 0.05), (0.4, 0.99)])
def test_what_pays_goes_on(rate: float, share: float) -> None:
    """Of many thousand launches those of a tool that pays are nearly all made, and of one that does
    not hardly any. (S2-40, S2-51)"""
    made, rng = Launches(), random.Random(2)
    wanted = 5_000
    for _ in range(wanted):
        made.clock.advance(5)
        if rng.random() < rate:
            made.right()
        else:
            made.wrong()
    assert made.made >= share * wanted if rate > 0.15 else made.made <= share * wanted


def test_it_is_tried_again() -> None:
    """After a pause 5 launches try a tool again; the pause doubles from a minute to an hour, by
    chance up to half of it shorter, for as long as they do not pay. (S2-40)"""
    made = Launches()
    made.until_off()
    for pause in (60, 120, 240, 480, 960, 1_920, 3_600, 3_600):
        made.clock.advance(pause / 2 - 1)
        assert not made.wrong()
        made.clock.advance(pause / 2 + 1)
        assert [made.wrong() for _ in range(7)] == [True] * 5 + [False] * 2
    assert made.is_off()


def test_pauses_are_not_all_alike() -> None:
    """Tools that were turned off at one moment are not tried again at one moment. (S2-40)"""
    made = Launches()
    for tool in range(40):
        for number in range(16):
            made.ledger.launched(f"{tool}.{number}", f"t{tool}", 0, 1.0)
            made.ledger.gone(f"{tool}.{number}")
    tried: set[int] = set()
    while len(tried) < 40 and made.clock.monotonic_ns() <= 60e9:
        made.clock.advance(1)
        for tool in set(range(40)) - tried:
            if not made.ledger.objection(f"t{tool}", 0.9, **ONE):
                tried.add(tool)
        if made.clock.monotonic_ns() == 29e9:
            assert not tried
        if made.clock.monotonic_ns() == 45e9:
            assert 5 < len(tried) < 35
    assert len(tried) == 40


def test_no_more_than_a_few_try_it_again() -> None:
    """While it is not known what came of the 5 that try a tool again, no more are launched. (S2-40)"""
    made = Launches()
    made.until_off()
    made.clock.advance(60)
    tried = [made.launch() for _ in range(7)]
    assert tried[5:] == ["", ""]
    assert made.figures.why == "it lost more than it saved, and 5 launches try it again"
    made.ledger.cancelled(tried[0])
    assert made.launch()


def test_a_try_that_pays_turns_it_on() -> None:
    """Once what was launched to try a tool again saved more than it cost, the tool is on; once it has
    made good what it lost, the next pause is short again. (S2-40)"""
    made = Launches()
    made.until_off()
    made.clock.advance(60)
    assert made.wrong()
    assert made.right(0.1)
    assert made.is_off()
    assert made.right(0.1)
    assert not made.is_off()
    made.until_off()
    made.clock.advance(59)
    assert not made.wrong()  # the second pause is at least as long
    made.clock.advance(61)
    assert all(made.right() for _ in range(4))
    made.until_off()
    made.clock.advance(60)
    assert made.wrong()


def test_late_use_makes_a_try_good() -> None:
    """A launch that tries a tool again and is used after it was held to be in vain counts as
    used. (S2-40)"""
    made = Launches()
    made.until_off()
    made.clock.advance(60)
    id_ = made.launch()
    made.clock.advance(31)
    assert made.wrong()
    assert made.is_off()
    made.ledger.used(id_, 1.0)
    assert not made.is_off()


def test_what_was_launched_before_is_no_try() -> None:
    """Launches from before a tool was off, which are found to be in vain after that, take no place of
    those that try it again. (S2-40)"""
    made = Launches()
    ids = [made.launch() for _ in range(20)]
    for id_ in ids[:16]:
        made.ledger.gone(id_)
    assert made.is_off()
    made.clock.advance(60)
    assert [made.wrong() for _ in range(6)] == [True] * 5 + [False]


def test_late_use_is_counted_once() -> None:
    """A launch that tries a tool again and is used late, but saves too little, is one of the 5, and
    not two. (S2-40)"""
    made = Launches()
    made.until_off()
    made.clock.advance(60)
    assert made.wrong()
    id_ = made.launch()
    made.clock.advance(31)
    made.ledger.used(id_, 0.01)
    assert made.is_off()
    assert [made.wrong() for _ in range(4)] == [True] * 3 + [False]


def test_what_gives_way_is_not_blamed() -> None:
    """However many launches give way to real work, the tool stays on; what they took is
    wasted. (S2-40)"""
    made = Launches()
    for late in (False, True) * 50:
        id_ = made.launch(takes_s=50.0, chance=0.99)
        made.clock.advance(40 if late else 0.5)
        made.ledger.cancelled(id_)
    assert not made.is_off()
    assert made.figures.wasted_s == pytest.approx(50 * 40.5)
    assert made.figures.cancelled == 100


def test_few_are_out_at_once() -> None:
    """Of a tool no more than 30 launches are out of which nothing is known yet. (S2-40)"""
    made = Launches()
    ids = [made.launch() for _ in range(31)]
    assert ids[30] == ""
    assert made.ledger.objection("t", 0.9, **ONE) == "30 launches of t are out already"
    made.ledger.used(ids[0], 1.0)
    assert made.launch()


def most(made: Drift) -> float:
    """The bound that the ledger names."""
    t, c = (made.clock.monotonic_ns() - made.since_ns) / 1e9, made.dearest
    return max(2.7 * made.longest, 6 * c) + 61 * c + 5 * c * (7 + t / 1_800)


@given(steps(), steps())
def test_drift_costs_no_more_than_it_may(before: list[Step], after: list[Step]) -> None:
    """From the moment at which every prediction is wrong, all launches in vain together cost no more
    than max(2.7 T, 6 c) + 61 c + 5 c (7 + t / 1800), and the tool is off. (S2-40, S2-51)"""
    made = Drift()
    made.play(before)
    made.drift()
    made.play(after)
    for _ in range(200):  # and then as much as is allowed
        made.clock.advance(20)
        while id_ := made.make("c0", made.longest or 1.0, 0.0):
            made.end("gone", id_)
    assert made.lost() <= most(made)
    assert made.is_off()


def test_accounts_are_kept() -> None:
    """What is saved and loaded has the same figures and the same pause, by whatever clock; what is
    not ours is refused, and nothing changes. (S2-49)"""
    made = Launches()
    made.right()
    made.until_off()
    made.clock.advance(10)
    saved = msgspec.msgpack.decode(msgspec.msgpack.encode(made.ledger.save()))
    other = Launches()
    other.clock.advance(1_000)
    other.ledger.load(saved)
    assert other.figures == made.figures
    assert other.figures.state == "off"
    assert not other.wrong()
    other.clock.advance(50)
    assert other.wrong()
    before = other.figures
    bad: list[Any] = [
        3, {}, {"version": 2, "tools": {}}, {"version": 3, "tools": {}, "accounts": []},
        {"version": 1, "tools": {"t": {"saved_s": -1}}},
        {"version": 2, "tools": {}, "accounts": [["", "t", {"lost_s": float("inf")}]]},
        {"version": 2, "tools": {"t": {"doubt": 9}}, "accounts": []},
        {"version": 1, "tools": {"t": {"earned_s": float("nan")}}},
        {"version": 1, "tools": {"t": {"saved_s": float("nan")}}},
        {"version": 1, "tools": {"t": {"pause_s": 1e9}}},
    ]  # fmt: skip
    for one in bad:
        with pytest.raises(CodecError):
            other.ledger.load(one)
    assert other.figures == before


def test_it_is_bounded() -> None:
    """Of thousands of tools those launched least are dropped, and those that are off last; of launches
    of which nothing is heard the oldest. (S2-40, S2-51)"""
    made = Launches(grace_s=1e6, ttl_s=2e6)
    assert made.until_off()
    for number in range(3_000):
        for _ in range(17):  # more often than the one that is off
            made.ledger.launched("x", f"t{number}", 0, 1.0)
            made.ledger.used("x", 1.0)
    assert len(made.ledger.figures()) <= 1_000
    assert made.is_off()
    for number in range(30_000):
        made.ledger.launched(f"y{number}", f"t{number % 5_000}", 0, 1.0)
    assert len(made.ledger._fresh) <= 10_000
    assert len(made.ledger._late) <= 10_000
    assert len(made.ledger._accounts) <= 4_000


def test_numbers_that_are_none_do_no_harm() -> None:
    """Times and money that are no numbers, or without end, leave figures that can be kept. (S2-49)"""
    made = Launches()
    for number, odd in enumerate((float("nan"), float("inf"), -1.0)):
        made.ledger.launched(str(number), "t", 0, odd, odd)
        made.ledger.used(str(number), odd)
        made.ledger.launched(f"{number}b", "t", 0, odd, odd)
        made.ledger.gone(f"{number}b")
    Launches().ledger.load(made.ledger.save())
    assert 0 <= made.figures.wasted_s < float("inf")


def test_trials_that_were_not_run_are_made_once_more() -> None:
    """Of the launches that try a tool again, those count that were run: however many were not, five
    more can turn it on (S2-40)."""
    some = Launches()
    some.until_off()
    some.clock.advance(61)
    for _ in range(20):
        some.ledger.withdrawn(some.launch())
    assert some.right()
    assert not some.is_off()


def really(made: Launches, took_s: float, usd: float, after_s: float) -> bool:
    """One that is in vain and really takes so much, which is known so long after it was launched."""
    if id_ := made.launch(takes_s=0.5):
        made.clock.advance(after_s)
        made.ledger.took(id_, took_s, usd)
        made.ledger.took(id_, 1e6, 1e6)  # counts once
        made.ledger.gone(id_)
    return bool(id_)


@pytest.mark.parametrize("after_s", [0.0, 40.0])
@pytest.mark.parametrize(("took_s", "usd"), [(15.0, 0.0), (0.5, 0.05)])
def test_what_it_really_took_turns_it_off(took_s: float, usd: float, after_s: float) -> None:
    """A tool that takes or costs much more than expected is off as soon as 6 launches in vain were over,
    and what they took and cost is what is wasted, whenever that was known. (S2-40)"""
    made = Launches()
    for _ in range(4):  # as expected, and used
        id_ = made.launch(takes_s=0.5)
        made.ledger.took(id_, 0.5)
        made.ledger.used(id_, 0.5)
    count = 0
    while really(made, took_s, usd, after_s):
        count += 1
    assert count == 6
    assert made.is_off()
    assert made.figures.wasted_s == pytest.approx(count * took_s)
    assert made.figures.wasted_usd == pytest.approx(count * usd)


def test_what_took_less_than_expected_is_held_against_it_no_more() -> None:
    """A tool that is wrong, but of which a call takes hardly anything really, is turned off no sooner
    than one of which that was expected. (S2-40)"""
    made, other = Launches(), Launches()
    for each, expected_s in ((made, 10.0), (other, 0.1)):
        for _ in range(3):
            id_ = each.launch(takes_s=expected_s, chance=0.99)
            each.ledger.took(id_, 0.1)
            each.ledger.used(id_, 0.1)
        for _ in range(10):
            id_ = each.launch(takes_s=expected_s, chance=0.99)
            each.ledger.took(id_, 0.1)
            each.ledger.gone(id_)
    assert made.figures.state == other.figures.state == "on"
    assert made.figures.wasted_s == pytest.approx(1.0)


def test_what_still_runs_is_out() -> None:
    """A launch that runs for long counts as in vain meanwhile, but as one that is out until it is
    over. (S2-40)"""
    made = Launches()
    made.ledger.used(made.launch(takes_s=20.0, chance=0.999), 1.0)
    ids = [made.launch(takes_s=0.1) for _ in range(30)]
    made.clock.advance(31)
    assert made.figures.wasted_s == pytest.approx(3.0)
    assert made.ledger.objection("t", 0.9, **ONE) == "30 launches of t are out already"
    made.ledger.took(ids[0], 0.1)
    assert made.launch(takes_s=0.1)
    assert not made.launch(takes_s=0.1)


def test_what_it_really_cost_is_paid_for_by_what_was_earned() -> None:
    """As soon as launches cost more than expected, no more are made on what was earned than that pays
    for. (S2-40)"""
    made = Launches()
    assert made.right(4.0, circle="pays")
    for number in range(200):  # others lose all that may be lost
        made.wrong(circle=f"c{number}")
    id_ = made.launch(circle="pays")
    assert id_
    made.ledger.took(id_, 22.0)  # costs 3.96 s
    assert not made.launch(circle="pays")
    made.ledger.used(id_, 1.0)
    assert made.launch(circle="pays")


@given(steps(2))
def test_what_is_wasted_is_what_launches_in_vain_really_took(what: list[Step]) -> None:
    """At the end the seconds and dollars that are wasted are the sum of what launches in vain really took
    and cost, whenever that was heard of, and of what gave way until then. (S2-40, S2-51)"""
    made = Launches(ttl_s=1e9)
    began: dict[str, float] = {}
    took: dict[str, tuple[float, float]] = {}
    """Of those that may still be heard of."""
    wasted: dict[str, tuple[float, float]] = {}
    for how, circle, takes_s, usd, number in what:
        now_s = made.clock.monotonic_ns() / 1e9
        if how == "launch":
            id_ = made.launch(takes_s=takes_s, usd=usd, chance=1.0, circle=f"c{circle}")
            if id_:
                began[id_] = now_s
                took[id_] = wasted[id_] = takes_s * number / 20, usd * number / 20
        elif how == "wait":
            made.clock.advance(number)
        elif took:
            id_ = [*took][number % len(took)]
            if how == "cancelled":
                made.ledger.cancelled(id_, took[id_][1])
                wasted[id_] = now_s - began[id_], took.pop(id_)[1]
                continue
            made.ledger.took(id_, *took[id_])
            if how == "gone":
                made.ledger.gone(id_)
                del took[id_]
            elif how == "used":
                made.ledger.used(id_, 0.1)
                del took[id_], wasted[id_]
    for id_, (took_s, usd) in took.items():
        made.ledger.took(id_, took_s, usd)
    made.ledger.end()
    found = made.ledger.figures().get("t")
    seconds, dollars = (
        (sum(each) for each in zip(*wasted.values(), strict=True)) if wasted else (0, 0)
    )
    assert (found.wasted_s if found else 0) == pytest.approx(seconds, abs=1e-6)
    assert (found.wasted_usd if found else 0) == pytest.approx(dollars, abs=1e-6)
