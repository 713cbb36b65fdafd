"""What may be launched."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.predict.budget import Budget
from paceline.testing.virtual_time import VirtualClock

MINUTE, DAY = 60.0, 86_400.0
PLENTY: dict[str, Any] = {
    "launches_per_minute": 10_000, "tool_launches_per_minute": 10_000, "session_launches_per_minute": 10_000,
    "work_s_per_minute": 1e6, "usd_a_day": 1e6, "extra_calls": 1.0, "initial": 1e6,
}  # fmt: skip


def a_budget(clock: VirtualClock, **limits: float) -> Budget:
    return Budget(clock, **{**PLENTY, **limits})


def launch(budget: Budget, number: int, **options: Any) -> bool:
    """Launches one if it may be."""
    call = {"tool": "t", "session": "s", "expected_s": 0.0, "usd": 0.0, **options}
    if budget.may(**call):
        return False
    budget.launched(str(number), **call)
    return True


@pytest.mark.parametrize(
    ("limits", "call", "said"),
    [
        ({"launches_per_minute": 5}, {}, "no more than 5 launches a minute"),
        ({"tool_launches_per_minute": 5}, {}, "no more than 5 launches of t a minute"),
        ({"session_launches_per_minute": 5}, {}, "no more than 5 launches a minute in one session"),
    ],
)
def test_each_limit_holds_in_a_minute(
    limits: dict[str, float], call: dict[str, float], said: str
) -> None:
    """Each limit lets as much through as it says, then says so in words, and a minute later as much
    again. (S2-40)"""
    clock = VirtualClock()
    budget = a_budget(clock, **limits)
    for minute in range(3):
        launched = [launch(budget, 10 * minute + number, **call) for number in range(9)]
        assert launched == [True] * 5 + [False] * 4
        assert budget.may("t", "s", call.get("expected_s", 0.0), call.get("usd", 0.0)) == said
        clock.advance(MINUTE)


def test_work_and_money_are_limited_in_all() -> None:
    """However many tools and sessions there are, all of them together take no more seconds and dollars
    than the limits say, and that is said in words. (S2-40)"""
    for limits, call, said in (
        ({"work_s_per_minute": 10}, {"expected_s": 2.0}, "no more than 10 s of work a minute"),
        ({"usd_a_day": 20}, {"usd": 2.0}, "no more than 20 USD a day"),
    ):
        budget = a_budget(VirtualClock(), **limits)
        each = [{**call, "tool": f"t{number}", "session": f"s{number}"} for number in range(9)]
        launched = [launch(budget, number, **one) for number, one in enumerate(each)]
        assert launched == [True] * 5 + [False] * 4
        assert budget.may("t", "s", call.get("expected_s", 0.0), call.get("usd", 0.0)) == said


@pytest.mark.parametrize(
    ("alone", "said"),
    [
        ({"tool": "t"}, "no more than 15 s of work of t at once"),
        ({"session": "s"}, "no more than 15 s of work at once in one session"),
    ],
)
def test_nobody_takes_the_seconds_of_all(alone: dict[str, str], said: str) -> None:
    """One tool, or one session, takes half of the seconds at once and no more; they come back to it as
    fast as to all, so that alone it has all of them in the course of time. (S2-40)"""
    clock = VirtualClock()
    budget = a_budget(clock, work_s_per_minute=30)

    def one(number: int, seconds: float) -> bool:
        call = {"tool": f"t{number}", "session": f"s{number}", **alone}
        return launch(budget, number, expected_s=seconds, **call)

    assert not one(0, 30.0)
    assert [one(1, 5.0), one(2, 10.0), one(3, 0.1)] == [True, True, False]
    call = {"tool": "t4", "session": "s4", **alone}
    assert budget.may(call["tool"], call["session"], 0.1) == said
    assert launch(budget, 5, tool="other", session="another", expected_s=15.0)
    clock.advance(30)
    assert one(6, 15.0)
    assert not one(7, 0.1)


AMOUNTS = st.lists(
    st.tuples(st.floats(0, DAY), st.floats(0, 4), st.floats(0, 4), st.floats(0, 1)), max_size=60
)


@given(AMOUNTS, st.booleans())
def test_something_is_left_for_others(launches: list[Any], one_tool: bool) -> None:
    """Whatever one tool launches in all sessions, or one session of all tools, another may take half of
    the seconds and dollars that there are at once. (S2-40)"""
    clock = VirtualClock()
    budget = a_budget(clock, work_s_per_minute=4, usd_a_day=4, initial=1e9)
    for number, (wait_s, seconds, usd, share) in enumerate(launches):
        clock.advance(wait_s)
        name = {"session": f"s{number}"} if one_tool else {"tool": f"t{number}"}
        if launch(budget, number, expected_s=seconds, usd=usd, **name):
            budget.took(str(number), share * seconds, share * usd)
        assert budget.may("other", "another", 2.0, 1.0) == ""


def test_others_have_limits_of_their_own() -> None:
    """What one tool or session has used up is not taken from another. (S2-40)"""
    budget = a_budget(VirtualClock(), tool_launches_per_minute=1, session_launches_per_minute=2)
    assert launch(budget, 1)
    assert not launch(budget, 2)
    assert launch(budget, 3, tool="u")
    assert not launch(budget, 4, tool="v")
    assert launch(budget, 5, tool="v", session="other")


def test_a_limit_of_nothing_launches_nothing() -> None:
    """With any limit at 0 nothing is launched that it limits, and limits below 0 are refused. (S2-40)"""
    for name in (
        "launches_per_minute",
        "tool_launches_per_minute",
        "session_launches_per_minute",
        "extra_calls",
        "initial",
    ):
        budget = a_budget(VirtualClock(), **{name: 0})
        assert not launch(budget, 1)
        with pytest.raises(ValueError, match="below 0"):
            a_budget(VirtualClock(), **{name: -1})
    assert not launch(a_budget(VirtualClock(), work_s_per_minute=0), 1, expected_s=0.1)
    free = Budget(VirtualClock())
    assert launch(free, 1)
    assert not launch(free, 2, usd=1e-6)
    assert free.may("t", "s", 0.0, 1e-6) == "no more than 0 USD a day"


def test_work_is_corrected_once_it_is_known() -> None:
    """What took longer than expected is taken from what is left, and what took less is given back,
    once for each launch. (S2-40)"""
    budget = a_budget(VirtualClock(), work_s_per_minute=20)
    assert launch(budget, 1, expected_s=4.0)
    budget.took("1", 9.0)
    budget.took("1", 0.0)
    budget.took("unknown", -5.0)
    assert not launch(budget, 2, expected_s=2.0)
    assert launch(budget, 3, expected_s=1.0)
    budget.took("3", 0.0)
    assert launch(budget, 4, expected_s=1.0)
    assert not launch(budget, 5, expected_s=0.1)


def test_money_that_was_not_spent_is_there_again() -> None:
    """A call that cost less than expected leaves the rest of it for others. (S2-40)"""
    budget = a_budget(VirtualClock(), usd_a_day=4)
    assert launch(budget, 1, usd=1.0)
    assert not launch(budget, 2, usd=0.5)
    budget.took("1", 0.0, 0.5)
    assert launch(budget, 3, usd=0.5)


@given(st.lists(st.tuples(st.floats(0, DAY / 3), st.floats(0, 3)), min_size=1, max_size=60))
def test_a_day_costs_no_more_than_it_may(launches: list[tuple[float, float]]) -> None:
    """In any 24 hours what is launched costs no more than the limit of a day. (S2-40)"""
    clock = VirtualClock()
    budget = a_budget(clock, usd_a_day=4)
    spent: list[tuple[int, float]] = []
    for number, (wait_s, usd) in enumerate(launches):
        clock.advance(wait_s)
        if launch(budget, number, usd=usd):
            spent.append((clock.monotonic_ns(), usd))
    for since_ns, _ in spent:
        day = [usd for at_ns, usd in spent if 0 <= at_ns - since_ns <= DAY * 1e9]
        assert sum(day) <= 4 + 1e-6


EVENTS = st.lists(
    st.tuples(st.sampled_from(["launch", "launch", "used", "gone", "real"]), st.integers(0, 30)),
    max_size=150,
)


@given(EVENTS, st.floats(0, 2), st.integers(0, 10))
def test_launches_in_vain_are_a_share_of_real_calls(
    events: list[tuple[str, int]], extra_calls: float, initial: int
) -> None:
    """Whatever happens, what was launched and is not used is never more than the initial allowance
    and the share of the real calls. (S2-40)"""
    budget = a_budget(VirtualClock(), extra_calls=extra_calls, initial=initial)
    launched, used, real = 0, set[int](), 0
    for what, number in events:
        if what == "launch":
            launched += launch(budget, launched)
        elif what == "used":
            budget.used(str(number))
            if number < launched:
                used.add(number)
        elif what == "gone":
            budget.gone(str(number))
        else:
            budget.real()
            real += 1
        assert launched - len(used) <= initial + extra_calls * real + 1e-6


def test_what_is_used_is_given_back_once() -> None:
    """A launch that is used makes place for another, once, and one that is gone does not. (S2-40)"""
    budget = a_budget(VirtualClock(), extra_calls=0.001, initial=1)
    assert launch(budget, 1)
    assert budget.may("t", "s", 0.0).startswith("too many launches in vain: 0.001 for one")
    budget.used("1")
    budget.used("1")
    assert launch(budget, 2)
    assert not launch(budget, 3)
    budget.gone("2")
    budget.used("2")
    assert not launch(budget, 4)


def test_real_calls_save_up_no_more_than_a_hundred() -> None:
    """After a quiet month no more than a hundred may be launched in vain at once. (S2-40)"""
    budget = Budget(VirtualClock(), launches_per_minute=10_000, tool_launches_per_minute=10_000,
                    session_launches_per_minute=10_000)  # fmt: skip
    for _ in range(10_000):
        budget.real()
    assert sum(launch(budget, number) for number in range(200)) == 100
    for number in range(200):
        budget.used(str(number))
    assert budget.allowance() == 100


def test_it_does_not_grow() -> None:
    """Names and launches without number take bounded memory, and no bucket is forgotten that is not
    full. (S2-40)"""
    clock = VirtualClock()
    budget = a_budget(clock, launches_per_minute=50, tool_launches_per_minute=1, initial=1e9)
    for number in range(30_000):
        clock.advance(1.3)
        cost = {"expected_s": 0.1, "usd": 0.1}
        assert launch(budget, number, tool=f"t{number}", session=f"s{number}", **cost)
        lately = f"t{max(0, number - 40)}"  # 52 s ago
        assert not launch(budget, number, tool=lately)
    assert len(budget._launches) <= 2 * 101
    assert max(len(budget._seconds), len(budget._usd)) <= 2 * 10_000
    assert max(len(budget._unused), len(budget._running)) == 10_000


def test_everybody_has_an_allowance_of_his_own() -> None:
    """Who is always wrong takes nothing from others: their launches go on (S2-40)."""
    budget = Budget(VirtualClock(), launches_per_minute=1_000, session_launches_per_minute=1_000)
    for number in range(100):
        if budget.may(f"t{number}", "s1", 0.0, whose="eve"):
            break
        budget.launched(f"e{number}", f"t{number}", "s1", 0.0, whose="eve")
    assert budget.may("t", "s1", 0.0, whose="eve").startswith("too many launches in vain")
    assert budget.may("t", "s2", 0.0, whose="ada") == ""
    budget.real("ada")
    assert budget.allowance("eve") == 0
    assert budget.allowance("ada") > 8


@pytest.mark.parametrize(
    "limits",
    [
        {"launches_per_minute": 5},
        {"tool_launches_per_minute": 5},
        {"session_launches_per_minute": 5},
        {"work_s_per_minute": 20.0},
        {"usd_a_day": 10.0},
        {"initial": 5.0},
    ],
)
def test_what_was_not_run_after_all_takes_nothing(limits: dict[str, float]) -> None:
    """However many launches found no place, or what they were to make, as much may be launched after
    them as before; what was run and found later is not given back. (S2-40)"""
    budget = a_budget(VirtualClock(), **limits)
    call: dict[str, Any] = {"expected_s": 2.0, "usd": 0.5}
    for number in range(50):
        assert launch(budget, number, **call)
        for _ in range(2):
            budget.withdrawn(str(number))
        budget.took(str(number), 3.0, 0.5)
    for number in range(5):
        assert launch(budget, 100 + number, **call)
        budget.took(str(100 + number), 2.0, 0.5)
    budget.withdrawn("unknown")
    assert not launch(budget, 200, **call)
