"""How good predictions are on recorded sessions."""

import random

import pytest

from paceline.predict.context import Context
from paceline.predict.evaluation import Launching, evaluate, evaluate_each, groups
from paceline.predict.events import Event, Said, Step, Trajectory
from tests.unit.predict.sessions import LastArguments, free_text, orders, predictor, step

READ_ONLY = Launching(read_only=frozenset({"get_order", "track_parcel"}))


class Wrong(LastArguments):
    """Is always sure, and never right."""

    def propose(self, name: str, context: Context, **limits: float):
        return [({"never": len(context.calls)}, 0.99)]


def test_regular_sessions_are_predicted() -> None:
    """Where calls follow a rule their tools and arguments are predicted, and launching hides the wait.
    (S2-40, S2-51)"""
    found = evaluate(orders(80), predictor, launching=READ_ONLY)
    assert (found.sessions, found.calls, found.steps) == (80, 160, 160)
    assert found.tool_top[1] > 0.9
    assert found.call_top[1] > 0.4
    assert found.call_top[1] <= found.call_top[3] <= found.call_top[10]
    assert 0.2 < found.hits < 0.6
    assert found.kept_hits >= found.hits
    assert found.extra_calls < 0.1
    assert found.calibration_error < 0.15
    assert 0.1 < found.hidden < 0.6


def test_free_text_is_left_alone() -> None:
    """Where arguments are free text at most 0.05 calls are launched in vain for one real call.
    (S2-40, S2-51)"""
    launching = Launching(read_only=frozenset({"search_web", "write_note", "ask_expert"}))
    found = evaluate(free_text(80), predictor, launching=launching)
    assert found.extra_calls <= 0.05
    assert found.kept_extra_calls <= 0.05


def test_predictions_that_are_always_wrong_are_not_launched() -> None:
    """A model that is sure and always wrong launches next to nothing, as that is seen in shadow. (S2-40)"""
    launching = Launching(read_only=frozenset({"get_order", "track_parcel", "refund_money"}))
    found = evaluate(orders(80), lambda: predictor(arguments=Wrong), launching=launching)
    assert found.extra_calls <= 0.05
    assert found.hits == 0.0


def test_what_was_never_scored_is_not_launched() -> None:
    """Whatever may be wasted, nothing is launched before proposals were scored in shadow. (S2-40)"""
    launching = Launching(read_only=READ_ONLY.read_only, least=0.0, extra_calls=1e9)
    few = evaluate(orders(3), lambda: predictor(arguments=Wrong), launching=launching)
    many = evaluate(orders(40), lambda: predictor(arguments=Wrong), launching=launching)
    assert few.extra_calls == 0
    assert many.extra_calls > 0.5


def test_a_pattern_that_flips_stops_launches() -> None:
    """When what was right turns wrong, only so much is launched in vain. (S2-40, S2-51)"""
    before = orders(60)
    after = [
        Trajectory(
            f"n{number}",
            (Said("Where is my parcel order 1?"), step("get_order", "gone", order_id=number * 7),
             step("write_note", 1, query=str(number)), Said("Done.", by_user=False)),
            task=f"n{number}",
        )
        for number in range(100)
    ]  # fmt: skip
    alone = evaluate(before, predictor, launching=READ_ONLY)
    both = evaluate([*before, *after], predictor, launching=READ_ONLY)
    vain = both.extra_calls * both.calls - alone.extra_calls * alone.calls
    assert vain <= 20


def test_only_what_changes_nothing_is_launched() -> None:
    """Where no tool is said to change nothing, nothing is launched. (S2-40)"""
    found = evaluate(orders(60), predictor)
    assert (found.hits, found.extra_calls, found.kept_extra_calls, found.saved_s) == (0, 0, 0, 0)


def test_a_task_is_not_predicted_from_itself() -> None:
    """All sessions of a task, and of its customers, are predicted before one of them is learnt.
    (S2-51)"""
    alike = [
        Trajectory(str(n), (Said("go"), step("secret", 1, key=7)), task="one", scope=f"c{n % 2}")
        for n in range(6)
    ]
    assert evaluate(alike, predictor).tool_top[1] == 0.0
    apart = [Trajectory(each.id, each.events, task=each.id) for each in alike]
    assert evaluate(apart, predictor).tool_top[1] == pytest.approx(5 / 6)


def test_groups_hold_what_is_shared() -> None:
    """Sessions are grouped by what they share, also by way of others, in order. (S2-51)"""
    pairs = [("a", "x"), ("b", "y"), ("a", "z"), ("c", "y"), ("d", "")]
    made = [Trajectory(str(n), (), task, scope) for n, (task, scope) in enumerate(pairs)]
    found = groups(made, lambda each: filter(None, (each.task, each.scope)))
    assert [[each.id for each in group] for group in found] == [["0", "2"], ["1", "3"], ["4"]]


def test_what_is_kept_is_dropped_by_a_change() -> None:
    """What was launched counts as used later on only if nothing was changed in between. (S2-40)"""

    def some(*between: Step) -> list[Trajectory]:
        rng = random.Random(1)
        found = []
        for number in range(60):
            one, other = rng.sample(["look", "read"], 2)
            events: tuple[Event, ...] = (
                Said("go"),
                step(one, 1, key=1),
                *between,
                step(other, 1, key=1),
            )
            found.append(Trajectory(str(number), events, task=str(number)))
        return found

    launching = Launching(read_only=frozenset({"look", "read"}))
    kept = evaluate(some(), predictor, launching=launching)
    changed = evaluate(some(step("poke", 1)), predictor, launching=launching)
    assert kept.extra_calls > 0.1
    assert kept.kept_extra_calls < 0.05
    assert changed.kept_extra_calls == pytest.approx(changed.extra_calls, abs=0.02)
    assert changed.extra_calls > 0.1


def test_words_before_a_call_can_be_held_back() -> None:
    """What a model says before it calls, in the same reply, can be left out. (S2-51)"""
    made = [
        Trajectory(
            str(n),
            (Said("go"), Said(f"I use {name} now", by_user=False), step(name, 1, key=1)),
            task=str(n),
        )
        for n, name in enumerate(["alpha", "beta"] * 30)
    ]
    assert evaluate(made, predictor).tool_top[1] > 0.8
    assert evaluate(made, predictor, ahead_of_reply=True).tool_top[1] < 0.8


def test_ways_of_launching_are_told_apart() -> None:
    """Several ways of launching by the same predictions come to what each comes to alone. (S2-40)"""
    ways = [READ_ONLY, Launching(read_only=READ_ONLY.read_only, least=0.9), Launching()]
    alone = [evaluate(orders(60), predictor, launching=each) for each in ways]
    assert evaluate_each(orders(60), predictor, ways) == alone
    assert alone[0].hits > alone[1].hits
    assert alone[2].hits == 0.0


def test_it_is_the_same_each_time() -> None:
    """The same sessions give the same figures. (S2-51)"""
    once = evaluate(orders(30), predictor, launching=READ_ONLY)
    assert once == evaluate(orders(30), predictor, launching=READ_ONLY)


def test_no_sessions_are_no_error() -> None:
    """Of no sessions all rates are 0. (S2-51)"""
    found = evaluate([], predictor)
    assert (found.calls, found.hits, found.hidden, found.calibration_error) == (0, 0, 0, 0)


def test_it_says_how_far_it_is() -> None:
    """Whoever watches is told of each session that is predicted, and of each that is learnt, up to
    the whole; of none there is nothing to tell. (S2-51)"""
    told: list[float] = []
    evaluate(orders(20), predictor, far=told.append)
    assert len(told) == 40
    assert told == sorted(told)
    assert told[-1] == 1.0
    evaluate([], predictor, far=told.append)
    assert len(told) == 40
