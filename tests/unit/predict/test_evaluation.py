"""How good predictions are on recorded sessions."""

import random
from collections.abc import Iterable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.predict.context import Context
from paceline.predict.evaluation import Launching, evaluate, evaluate_each, groups
from paceline.predict.events import Called, Event, Said, Step, Trajectory
from tests.unit.predict.sessions import LastArguments, call, free_text, orders, predictor, step

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


def test_words_of_an_answer_are_not_read_before_its_calls() -> None:
    """What a model says in the answer that calls a tool says nothing of these calls, however well they
    could be told by it. (S2-40, S2-51)"""
    made = [
        Trajectory(str(n), (Said("go"), Step((call(name),), f"I use {name} now")), task=str(n))
        for n, name in enumerate(["alpha", "beta"] * 30)
    ]
    silent = [Trajectory(each.id, _silent(each.events), task=each.task) for each in made]
    found = evaluate(made, predictor)
    assert found.tool_top[1] < 0.8
    assert found == evaluate(silent, predictor)


def test_words_of_an_answer_are_known_after_its_calls() -> None:
    """What a model says in the answer that calls a tool tells of what it calls in the next one.
    (S2-40, S2-51)"""
    made = [
        Trajectory(
            str(n),
            (Said("go"), Step((call("look"),), f"I use {name} after this"), step(name)),
            task=str(n),
        )
        for n, name in enumerate(random.Random(1).choices(["alpha", "beta"], k=60))
    ]
    silent = [Trajectory(each.id, _silent(each.events), task=each.task) for each in made]
    assert evaluate(made, predictor).tool_top[1] > 0.9
    assert evaluate(silent, predictor).tool_top[1] < 0.9


def _silent(events: Iterable[Event]) -> tuple[Event, ...]:
    """The same without the words of answers that call."""
    return tuple(Step(each.calls) if isinstance(each, Step) else each for each in events)


STATUS = step("status", "sent", order=7)
FOUR = tuple(call(name, 1, order=7) for name in ("a", "b", "c", "d"))
READS = frozenset({"status", "a", "b", "c", "d"})
LOOKS = Launching(read_only=READS, tool_s={"a": 5.0}, model_s=2.0)


def _same(*events: Event, count: int = 60) -> list[Trajectory]:
    """Sessions in which all of them did the same."""
    return [Trajectory(str(n), (Said("go"), *events), task=str(n)) for n in range(count)]


def test_a_repeat_is_neither_waited_for_nor_saved() -> None:
    """A read that the session made before is answered by the cache, launched or not: it adds no wait,
    saves none and is no hit. (S2-40)"""
    found = evaluate(_same(*[STATUS] * 5), predictor, launching=LOOKS)
    once = evaluate(_same(STATUS), predictor, launching=LOOKS)
    assert (found.read_only_calls, found.first_reads, found.wait_s) == (300, 60, 60.0)
    assert 0 < found.saved_s <= 60
    assert found.kept_hits == found.hidden == found.saved_s / 60
    assert (once.first_reads, once.wait_s) == (60, 60.0)


def test_a_repeat_that_is_launched_is_not_in_vain() -> None:
    """To launch what the cache has runs nothing, so that it is not in vain where results are kept,
    if nobody asks for it either. (S2-40)"""
    thens = random.Random(1).choices([STATUS, step("other")], k=60)
    made = [Trajectory(str(n), (Said("go"), STATUS, then), str(n)) for n, then in enumerate(thens)]
    found = evaluate(made, predictor, launching=LOOKS)
    assert found.extra_calls > 0.05
    assert found.kept_extra_calls == 0


def test_after_a_change_a_read_is_run_again() -> None:
    """What something was changed since is run again, and can be saved again; in one answer too. (S2-40)"""
    change = step("poke")
    found = evaluate(_same(STATUS, change, STATUS), predictor, launching=LOOKS)
    assert (found.first_reads, found.wait_s) == (120, 180.0)
    in_one = Step((*STATUS.calls, *change.calls, *STATUS.calls))
    found = evaluate(_same(in_one), predictor, launching=LOOKS)
    assert (found.first_reads, found.wait_s) == (120, 180.0)
    assert 0 < found.kept_hits <= 0.5  # what is read after the change cannot be made before it
    assert found.saved_s == found.kept_hits * 120


def test_reads_of_one_answer_are_waited_for_together() -> None:
    """Reads of one answer run side by side, so that the longest is waited for; to have another one there
    before saves nothing. (S2-40)"""
    one = msgspec.structs.replace(LOOKS, at_once=1)
    longest = evaluate(_same(Step(FOUR)), predictor, launching=one)
    assert (longest.first_reads, longest.wait_s) == (240, 60 * 5.0)
    assert 60 < longest.saved_s <= longest.kept_hits * 240 * 2.0  # as long as the model takes
    other = evaluate(_same(Step(FOUR[::-1])), predictor, launching=one)
    assert other.wait_s == 60 * 5.0
    assert other.kept_hits > 0
    assert other.saved_s == 0


CALLS = st.builds(
    lambda name, key, failed: Called(name, {"order": key}, 1, failed),
    st.sampled_from(["status", "a", "poke"]),
    st.integers(1, 2),
    st.booleans(),
)


@given(st.lists(st.lists(CALLS, min_size=1, max_size=4), min_size=1, max_size=5))
@settings(max_examples=40, deadline=None)
def test_no_more_is_saved_than_waited_for(answers: list[list[Called]]) -> None:
    """Whatever answers ask for, what is waited for without launching does not depend on what is launched,
    and no more than that is saved. (S2-40)"""
    made = _same(*(Step(tuple(each)) for each in answers), count=12)
    nothing = Launching(READS, least=2.0, tool_s={"a": 5.0})
    one, none = evaluate_each(made, predictor, [LOOKS, nothing])
    assert (none.kept_hits, none.saved_s) == (0, 0)
    assert (one.wait_s, one.first_reads) == (none.wait_s, none.first_reads)
    assert 0 <= one.saved_s <= one.wait_s
    assert 0 <= one.kept_hits <= 1
    assert one.first_reads <= one.read_only_calls


def test_what_changes_something_is_waited_for_by_itself() -> None:
    """Calls that may change something run after one another and after the reads before them. (S2-40)"""
    found = evaluate(_same(Step(FOUR)), predictor)
    assert found.wait_s == 240.0
    reads = Launching(read_only=READS - {"b"})
    assert evaluate(_same(Step(FOUR)), predictor, launching=reads).wait_s == 60 * 3.0


def test_errors_are_not_kept() -> None:
    """A read that fails answers no later one, and is not saved by being launched. (S2-40)"""
    failing = Step((Called("status", {"order": 7}, "gone", failed=True),))
    found = evaluate(_same(failing, failing), predictor, launching=LOOKS)
    assert found.hits > 0
    assert (found.first_reads, found.wait_s) == (120, 120.0)
    assert (found.kept_hits, found.saved_s) == (0, 0)


SESSIONS = st.lists(
    st.lists(st.tuples(st.sampled_from(["status", "a", "poke"]), st.integers(1, 3)), max_size=6),
    min_size=10,
    max_size=40,
)


@given(SESSIONS, st.lists(st.floats(0, 3), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_no_more_is_in_vain_than_allowed_at_any_time(
    drawn: list[list[tuple[str, int]]], allowed: list[float]
) -> None:
    """However sessions go, and whenever they end, no more calls were in vain than are allowed for each
    real call so far. (S2-40)"""
    made = [
        Trajectory(str(n), (Said("go"), *(step(name, 1, order=key) for name, key in calls)), str(n))
        for n, calls in enumerate([*drawn, *drawn])
    ]
    ways = [Launching(READS, extra_calls=each, least=0.0) for each in allowed]
    for count in (len(drawn), len(made)):
        for found, way in zip(evaluate_each(made[:count], predictor, ways), ways, strict=True):
            assert found.extra_calls * found.calls <= way.extra_calls * found.calls + 1e-6


def test_what_is_in_vain_is_bounded_from_the_first_call_on() -> None:
    """Where what was learnt is wrong all at once, calls in vain end with what the real calls allow, and
    go on with more of these. (S2-40)"""
    before = _same(step("status", 1, order=7), step("a", 1, order=7), count=40)
    silent = [Trajectory(f"n{n}", (Said("go"), step("poke")), f"n{n}") for n in range(40)]
    way = Launching(READS, extra_calls=0.1, least=0.0)
    for count in range(0, 40, 4):
        found = evaluate([*before, *silent[:count]], predictor, launching=way)
        assert found.extra_calls * found.calls <= 0.1 * found.calls + 1e-6
        assert found.hits > 0


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
