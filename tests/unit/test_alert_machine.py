"""The life of an alert: inactive, pending, firing, resolved; who is told of what."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import Phase as HypothesisPhase
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from paceline.metrics.alerts.alert import Silence, Status, fingerprint
from paceline.metrics.alerts.machine import (
    NOTHING,
    Evaluation,
    Phase,
    Standing,
    State,
    evaluate,
)
from paceline.metrics.alerts.rules import Condition, Per, Rule
from paceline.metrics.figures import Series, Snapshot
from tests.alert_figures import EPOCH_NS, figures, loaded, series, snapshot

FOR_S, KEEP_S, REPEAT_S = 60, 30, 300
FAILING: Final = Rule(
    name="Failing",
    conditions=(Condition(metric="error_rate", above=0.5, resolve=0.2, min_count=20),),
    for_s=FOR_S,
    keep_s=KEEP_S,
)
FULL: Final = Rule(
    name="Full",
    conditions=(Condition(metric="load", above=0.8, resolve=0.7),),
    for_s=FOR_S,
    keep_s=KEEP_S,
    per=Per.INSTANCE,
)
SEEN: Final[dict[str, tuple[Series, ...]]] = {
    "bad": (series("web", figures(bad=40)),),
    "between": (series("web", figures(good=28, bad=12)),),
    "good": (series("web", figures(good=40)),),
    "few, bad": (series("web", figures(bad=5)),),
    "no calls": (series("web"),),
    "gone": (),
}
OFTEN_BAD: Final = [*sorted(SEEN), *["bad"] * 6]
GOES_ON: Final = {"bad", "between", "few, bad"}
Evaluate = Callable[..., Evaluation]


def at(
    seconds: float,
    seen: Snapshot,
    state: State = NOTHING,
    *,
    rules: Iterable[Rule] = (FULL,),
    **o: Any,
) -> Evaluation:
    """What comes of a look at this second."""
    return evaluate(rules, seen, state, round(seconds * 1e9), **o)


def through(
    loads: Mapping[int, float], rules: Iterable[Rule] = (FULL,), **o: Any
) -> list[Evaluation]:
    """What comes of one look after the other; loads by seconds."""
    state, found = NOTHING, []
    for seconds, load in loads.items():
        found.append(at(seconds, loaded(load, seconds), state, rules=rules, **o))
        state = found[-1].state
    return found


def phases(found: list[Evaluation]) -> list[str]:
    """The phase after each look."""
    return [next((s.phase.value for s in one.state.values()), "inactive") for one in found]


def test_it_waits_before_it_fires() -> None:
    """An alert is pending until its rule has held for `for_s` at every look, then fires; a look at
    which it does not hold starts anew. (S0-73)"""
    found = through({0: 0.9, 59: 0.9, 60: 0.9})
    assert phases(found) == ["pending", "pending", "firing"]
    assert [one.notices != () for one in found] == [False, False, True]
    assert phases(through({0: 0.9, 59: 0.5, 60: 0.9, 119: 0.9, 120: 0.9})) == [
        "pending",
        "inactive",
        "pending",
        "pending",
        "firing",
    ]


def test_without_a_wait_it_fires_at_once() -> None:
    """A rule without `for_s` fires at the first look, one without `keep_s` is resolved at the
    first. (S0-73)"""
    now = msgspec.structs.replace(FULL, for_s=0.0, keep_s=0.0)
    found = through({0: 0.9, 1: 0.5}, [now])
    assert phases(found) == ["firing", "inactive"]
    assert [(t.before, t.after) for one in found for t in one.transitions] == [
        (Phase.INACTIVE, Phase.FIRING),
        (Phase.FIRING, Phase.RESOLVED),
    ]


def test_it_is_resolved_at_the_other_bound() -> None:
    """A firing alert goes on between the bounds, and is resolved once it has been beyond the
    other one for `keep_s` without a break. (S0-73)"""
    found = through({0: 0.9, 60: 0.9, 70: 0.75, 80: 0.7, 100: 0.75, 110: 0.7, 139: 0.7, 140: 0.7})
    assert phases(found)[1:] == [*["firing"] * 6, "inactive"]
    (resolved,) = found[-1].notices
    assert resolved.status is Status.RESOLVED
    assert (resolved.starts_ns, resolved.ends_ns) == (EPOCH_NS + 60 * 10**9, EPOCH_NS + 140 * 10**9)


def test_one_alert_is_told_once() -> None:
    """An alert that goes on is told of once, and again when `repeat_s` have passed, with the
    figure of that moment. (S0-73)"""
    found = through({0: 0.9, 60: 0.9, 61: 0.91, 3_659: 0.92, 3_660: 0.93}, repeat_s=3_600)
    told = [[notice.value for notice in one.notices] for one in found]
    assert told == [[], [0.9], [], [], [0.93]]
    assert len({n.fingerprint for one in found for n in one.notices}) == 1
    assert {n.starts_ns for one in found for n in one.notices} == {EPOCH_NS + 60 * 10**9}


def test_silence() -> None:
    """Nobody is told of an alert that a silence covers; when the silence ends, of what still
    fires. (S0-73)"""
    hush = Silence(until_ns=EPOCH_NS + 100 * 10**9, rule="Fu*", labels={"instance": "on?"})
    found = through({0: 0.9, 60: 0.9, 99: 0.9, 100: 0.9}, silences=[hush])
    assert [len(one.notices) for one in found] == [0, 0, 0, 1]
    for other in ({"rule": "Other"}, {"labels": {"instance": "two"}}, {"labels": {"agent": "*x"}}):
        quiet = Silence(until_ns=2**62, **other)
        assert through({0: 0.9, 60: 0.9}, silences=[quiet])[-1].notices


def test_who_was_told_is_told_of_the_end() -> None:
    """That an alert is resolved is told exactly if it was told that it fires, silence or not.
    (S0-73)"""
    loads = {0: 0.9, 60: 0.9, 70: 0.1, 100: 0.1}
    assert not any(one.notices for one in through(loads, silences=[Silence(until_ns=2**62)]))
    *before, firing = through({0: 0.9, 60: 0.9})
    assert not any(one.notices for one in before)
    hush = [Silence(until_ns=2**62)]
    clear = at(70, loaded(0.1, 70), firing.state, silences=hush)
    last = at(100, loaded(0.1, 100), clear.state, silences=hush)
    assert [notice.status for notice in last.notices] == [Status.RESOLVED]


def test_what_is_gone_is_resolved() -> None:
    """An alert whose subject or rule is there no more is resolved at once, one that was pending is
    dropped without a word. (S0-73)"""
    state = through({0: 0.9, 60: 0.9})[-1].state
    for last in (at(61, snapshot(at_s=61), state), at(61, loaded(0.9, 61), state, rules=())):
        assert [notice.status for notice in last.notices] == [Status.RESOLVED]
        assert not last.state
    pending = through({0: 0.9})[-1].state
    gone = at(1, snapshot(at_s=1), pending)
    assert (gone.notices, gone.state) == ((), {})
    assert gone.transitions[0][:2] == (Phase.PENDING, Phase.INACTIVE)


def test_each_subject_has_an_alert_of_its_own() -> None:
    """Alerts of several instances live their own lives. (S0-73)"""
    first = at(0, snapshot(loads={"a": 0.9}))
    second = at(60, snapshot(at_s=60, loads={"a": 0.9, "b": 0.9}), first.state)
    assert {s.alert.labels["instance"]: s.phase for s in second.state.values()} == {
        "a": Phase.FIRING,
        "b": Phase.PENDING,
    }


def test_the_wall_clock_may_jump() -> None:
    """Durations do not follow the wall clock, and an alert never ends before it began. (S0-73)"""
    state = at(0, loaded(0.9, 1e6)).state
    firing = at(60, loaded(0.9, -1e6), state)
    assert phases([firing]) == ["firing"]
    clear = at(61, loaded(0.1, -2e6), firing.state)
    (resolved,) = at(91, loaded(0.1, -2e6), clear.state).notices
    assert resolved.ends_ns == resolved.starts_ns


def test_evaluate_changes_nothing() -> None:
    """The state that is handed in stays as it is: the same question has the same answer. (S0-73)"""
    state = through({0: 0.9, 60: 0.9})[-1].state
    before = dict(state)
    assert at(400, loaded(0.1, 400), state) == at(400, loaded(0.1, 400), state)
    assert dict(state) == before


def test_fingerprint_is_prometheus() -> None:
    """The fingerprint of labels is the one that Prometheus' own tests expect of theirs, whatever
    the order of labels. (S0-73)"""
    labels = {"name": "garland, briggs", "fear": "love is not enough"}
    assert int(fingerprint(labels), 16) == 5799056148416392346
    assert fingerprint(dict(reversed(labels.items()))) == fingerprint(labels)
    assert fingerprint({}) == "cbf29ce484222325"


# -- any course of events ------------------------------------------------------------------------


class Lives(RuleBasedStateMachine):
    """An alert through any course of events, beside what its rule says in words."""

    evaluate: Evaluate = staticmethod(evaluate)

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0
        self.state: State = NOTHING
        self.silenced_until_s = 0
        self.bad_since_s: int | None = None
        self.clear_since_s: int | None = None
        self.firing = False
        self.told_s: int | None = None

    @rule(seconds=st.sampled_from([30, 100, 5_000]))
    def silence(self, seconds: int) -> None:
        """From now on for this long."""
        self.silenced_until_s = self.now_s + seconds

    @rule(after_s=st.sampled_from([0, 5, 15, 30, 60, 299, 300]), seen=st.sampled_from(OFTEN_BAD))
    def looked(self, after_s: int, seen: str) -> None:
        """At figures of some kind."""
        self.look(after_s, seen)

    def look(self, after_s: int, seen: str) -> None:
        """Compares what comes of it with what is expected."""
        self.now_s += after_s
        was_told, expected = self.told_s is not None, self._expected(seen)
        found = self.evaluate(
            [FAILING],
            snapshot(*SEEN[seen], at_s=self.now_s),
            self.state,
            self.now_s * 10**9,
            silences=[Silence(until_ns=EPOCH_NS + self.silenced_until_s * 10**9)],
            repeat_s=REPEAT_S,
        )
        self.state = found.state
        phase = next((one.phase for one in found.state.values()), Phase.INACTIVE)
        assert phase is expected
        assert len(found.state) <= 1
        told = [notice.status for notice in found.notices]
        assert told == self._to_be_told(was_told=was_told)

    @rule(quiet=st.booleans())
    def incident(self, quiet: bool) -> None:
        """One from its beginning to its end, which looks at random seldom see."""
        if quiet:
            self.silenced_until_s = self.now_s + 1_000
        for after_s, seen in ((1, "bad"), (60, "bad"), (5, "good"), (30, "good")):
            self.look(after_s, seen)

    def _expected(self, seen: str) -> Phase:
        self.ended = False
        if self.firing:
            if seen == "gone":
                self.ended = True
            elif seen in GOES_ON:
                self.clear_since_s = None
            else:
                since_s = self.now_s if self.clear_since_s is None else self.clear_since_s
                self.clear_since_s = since_s
                self.ended = self.now_s - since_s >= KEEP_S
            if self.ended:
                self.firing, self.clear_since_s, self.bad_since_s = False, None, None
            return Phase.FIRING if self.firing else Phase.INACTIVE
        if seen != "bad":
            self.bad_since_s = None
            return Phase.INACTIVE
        self.bad_since_s = self.now_s if self.bad_since_s is None else self.bad_since_s
        self.firing = self.now_s - self.bad_since_s >= FOR_S
        return Phase.FIRING if self.firing else Phase.PENDING

    def _to_be_told(self, *, was_told: bool) -> list[Status]:
        if self.ended:
            self.told_s = None
            return [Status.RESOLVED] if was_told else []
        due = self.told_s is None or self.now_s - self.told_s >= REPEAT_S
        if self.firing and due and self.now_s >= self.silenced_until_s:
            self.told_s = self.now_s
            return [Status.FIRING]
        return []


def lives(how: Evaluate) -> None:
    """Any course of events is as its rule says in words."""

    class Tried(Lives):
        evaluate = staticmethod(how)

    run_state_machine_as_test(
        Tried,
        settings=settings(
            max_examples=40,
            stateful_step_count=40,
            derandomize=True,
            database=None,
            phases=[HypothesisPhase.generate],
        ),
    )


def test_any_course_of_events() -> None:
    """Whatever is seen, whenever, silenced or not, an alert is in the phase that its rule asks
    for, and those are told who are to be. (S0-73)"""
    lives(evaluate)


def _with_rule(**changes: Any) -> Evaluate:
    def changed(rules: Iterable[Rule], *rest: Any, **options: Any) -> Evaluation:
        return evaluate([msgspec.structs.replace(r, **changes) for r in rules], *rest, **options)

    return changed


def _with_condition(**changes: Any) -> Evaluate:
    (condition,) = FAILING.conditions
    return _with_rule(conditions=(msgspec.structs.replace(condition, **changes),))


def _with_options(**changes: Any) -> Evaluate:
    def changed(*arguments: Any, **options: Any) -> Evaluation:
        return evaluate(*arguments, **{**options, **changes})

    return changed


def _forgets_who_was_told(*arguments: Any, **options: Any) -> Evaluation:
    found = evaluate(*arguments, **options)
    state = {k: msgspec.structs.replace(v, told_ns=None) for k, v in found.state.items()}
    return found._replace(state=state)


def _tells_of_no_end(*arguments: Any, **options: Any) -> Evaluation:
    found = evaluate(*arguments, **options)
    kept = tuple(one for one in found.notices if one.status is Status.FIRING)
    return found._replace(notices=kept)


def _tells_everybody_of_the_end(*arguments: Any, **options: Any) -> Evaluation:
    found = evaluate(*arguments, **options)
    ends = tuple(t.alert for t in found.transitions if t.after is Phase.RESOLVED)
    firing = tuple(one for one in found.notices if one.status is Status.FIRING)
    return found._replace(notices=(*ends, *firing))


def _never_starts_anew(
    rules: Any, seen: Any, state: State, *rest: Any, **options: Any
) -> Evaluation:
    """What was pending stays so, whatever is seen."""
    found = evaluate(rules, seen, state, *rest, **options)
    pending: dict[str, Standing] = {k: v for k, v in state.items() if v.phase is Phase.PENDING}
    return found._replace(state={**pending, **found.state})


@pytest.mark.parametrize(
    "bug",
    [
        _with_rule(for_s=0.0),
        _with_rule(keep_s=0.0),
        _with_rule(keep_s=1e6),
        _with_condition(resolve=None),
        _with_condition(min_count=0),
        _with_options(silences=()),
        _with_options(repeat_s=1e6),
        _with_options(repeat_s=0.0),
        _forgets_who_was_told,
        _tells_of_no_end,
        _tells_everybody_of_the_end,
        _never_starts_anew,
    ],
    ids=[
        "fires without a wait",
        "is resolved without a wait",
        "is never resolved",
        "has one bound only",
        "fires on few calls",
        "hears no silence",
        "never repeats",
        "repeats at every look",
        "forgets who was told",
        "tells nobody of the end",
        "tells everybody of the end",
        "counts time that was good",
    ],
)
def test_seeded_bugs_are_caught(bug: Evaluate) -> None:
    """The check of any course of events fails on each of these bugs. (S0-73)"""
    with pytest.raises(AssertionError):
        lives(bug)
