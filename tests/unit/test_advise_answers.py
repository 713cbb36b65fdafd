"""What kept sessions advise: calls for one answer, and arguments that tools refuse."""

from collections.abc import Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.advise.advice import LEAST, Change, Confidence
from paceline.advise.advisor import advise
from paceline.advise.answers import Answered, Event, Use, asked_for
from paceline.advise.calls import NS
from paceline.advise.declared import Declared, Known
from paceline.advise.failing import misused
from paceline.advise.places import places
from paceline.advise.side_by_side import Group, Run, runs, side_by_side
from paceline.call import EffectKind, Kind
from paceline.config import load
from paceline.predict.events import Called, Said

GROUPS: list[Group] = [("flights", "hotels", "weather"), ("track", "track")]
GO = Said("go to town")
ROOM = {"id": 4711}


def used(name: str, took_s: float = 1.0, result: object = "x", **arguments: object) -> Use:
    return Use(name, Called(name, arguments, result), round(took_s * NS))


def failed(name: str) -> Use:
    return Use(name, Called(name, {}, "no", failed=True), NS)


def one_by_one(*uses: Use) -> list[Event]:
    return [GO, *(Answered((use,)) for use in uses)]


def found(events: Sequence[Event], at_once: int = 4) -> list[Run]:
    return list(runs(events, GROUPS, at_once))


HOTELS, WEATHER, FLIGHTS = used("hotels", 3.0), used("weather", 2.0), used("flights", 1.5)


def test_answers_one_after_the_other_are_a_run() -> None:
    """Answers that asked for tools which never need one another are a run, which would have taken as
    long as its longest call. (V-38, S2-10)"""
    assert found(one_by_one(HOTELS, WEATHER, FLIGHTS)) == [
        Run(3, frozenset({"hotels", "weather", "flights"}), round(3.5 * NS))
    ]
    together: list[Event] = [GO, Answered((HOTELS, WEATHER)), Answered((FLIGHTS,))]
    assert found(together) == [Run(2, frozenset({"hotels", "weather", "flights"}), round(1.5 * NS))]


def test_a_run_is_as_quick_as_the_session_allows() -> None:
    """Of the calls of a run as many run at once as those of one answer may. (V-38)"""
    events = one_by_one(HOTELS, WEATHER, FLIGHTS)
    assert [run.saved_ns for run in found(events, 2)] == [3 * NS]
    assert [run.saved_ns for run in found(events, 1)] == [0]


def test_a_long_turn_is_runs_of_what_can_be_known() -> None:
    """Of a turn with thousands of answers, as many are a run as it is known of whether one needed
    another, and that takes no time to speak of. (V-38)"""
    alike = found(one_by_one(*(used("track", n=[number]) for number in range(5_000))))
    assert {run.answers for run in alike[:-1]} == {17}
    assert sum(run.answers for run in alike) == 5_000
    first = used("track", result={"next": "parcel4711"}, n=0)
    needs = used("track", n="parcel4711")
    for between in (3, 15, 16, 17, 30):
        some = [used("track", n=number) for number in range(1, between + 1)]
        made = found(one_by_one(first, *some, needs))
        assert between + 2 not in [run.answers for run in made]


@pytest.mark.parametrize(
    "between",
    [
        Said("no, wait"),
        Answered((used("book"),)),
        Answered((used("weather"), used("book"))),
        Answered((used("track"),)),
        Answered((failed("weather"),)),
        Answered((Use("weather", None),)),
        Answered(()),
    ],
)
def test_what_comes_between_ends_a_run(between: Event) -> None:
    """A message of the user, a tool that is of no group with those before, a failure and an answer of
    which nothing was run each end a run. (V-38, S2-10)"""
    assert found([GO, Answered((HOTELS,)), between, Answered((FLIGHTS,))]) == []
    whole: list[Event] = [
        GO,
        Answered((HOTELS,)),
        Said("Let me see.", by_user=False),
        Answered((FLIGHTS,)),
    ]
    assert len(found(whole)) == 1


def test_what_needs_an_earlier_result_is_no_part() -> None:
    """A call with an argument from what an earlier one gave begins another run, whatever was learnt of
    the tools. (V-38, S2-10)"""
    needs = used("weather", 2.0, at=4711)
    assert found(one_by_one(used("hotels", result=ROOM), needs)) == []
    assert found(one_by_one(used("hotels", result=ROOM), needs, FLIGHTS)) == [
        Run(2, frozenset({"weather", "flights"}), round(1.5 * NS))
    ]
    known = [Said("hotel 4711"), *one_by_one(used("hotels", result=ROOM), needs)[1:]]
    assert len(found(known)) == 1


def test_the_same_call_again_is_no_part() -> None:
    """What had been asked for before is a repetition, not something to run beside it; a tool runs
    beside itself only where that was learnt. (V-38)"""
    assert found(one_by_one(used("track", n=7), used("track", n=7))) == []
    assert found(one_by_one(used("track", n=7), used("track", n=8))) == [
        Run(2, frozenset({"track"}), NS)
    ]
    assert found(one_by_one(used("hotels", town="a"), used("hotels", town="b"))) == []


def told(count: int, *uses: Use) -> list[list[Event]]:
    return [one_by_one(*uses)] * count


def test_enough_runs_are_advice() -> None:
    """Tools that were often enough asked for one after the other are named with the seconds that this
    took and how many answers fewer there would have been, at medium confidence at most. (V-38,
    S2-10)"""
    sessions = told(LEAST, HOTELS, WEATHER)
    (advice,) = side_by_side(sessions, GROUPS, 4)
    assert (advice.rule, advice.agent) == ("side_by_side", None)
    assert advice.tools == ("hotels", "weather")
    assert advice.saved_s == 2.0 * LEAST
    assert advice.evidence == {
        "turns": LEAST,
        "runs": LEAST,
        "answers_fewer": LEAST,
        "at_once": 4,
    }
    assert advice.changes == ()
    assert "hotels and weather in one answer" in advice.what
    assert list(side_by_side(sessions[1:], GROUPS, 4)) == []
    (sure,) = side_by_side(sessions * 20, GROUPS, 4)
    assert sure.confidence is Confidence.MEDIUM
    (alone,) = side_by_side(told(LEAST, used("track", n=7), used("track", n=8)), GROUPS, 4)
    assert alone.what == "have the model ask for all calls of track in one answer"


def test_few_runs_of_a_group_are_added_up() -> None:
    """Runs of tools that are too few by themselves count for the group that they are all of, and none
    of them twice. (V-38, S2-10)"""
    half = LEAST // 2
    mixed = told(half, HOTELS, WEATHER) + told(half, WEATHER, FLIGHTS)
    (advice,) = side_by_side(mixed, GROUPS, 4)
    assert (advice.tools, advice.evidence["runs"]) == (("flights", "hotels", "weather"), LEAST)
    assert list(side_by_side(mixed[1:], GROUPS, 4)) == []
    both = list(side_by_side(told(LEAST, HOTELS, WEATHER) + mixed[half:], GROUPS, 4))
    assert [(one.tools, one.evidence["runs"]) for one in both] == [(("hotels", "weather"), LEAST)]


def test_of_many_sets_of_tools_a_few_are_told() -> None:
    """Where models ask for the tools of a group in ever new sets, those that save most are told by
    themselves, and all others as one. (V-38)"""
    group = ("a", "b", "c", "d", "e")
    sessions = [
        one_by_one(used(first, 2.0 if "a" in (first, second) else 1.0), used(second, 2.0))
        for first, second in combinations(group, 2)
        for _ in range(LEAST)
    ]
    advice = list(side_by_side(sessions, [group], 4))
    assert [one.saved_s for one in advice] == [2.0 * LEAST] * 4 + [1.0 * LEAST, 5.0 * LEAST]
    assert advice[-1].tools == ("b", "c", "d", "e")
    assert sum(one.evidence["runs"] for one in advice) == len(sessions)


def test_all_advice_comes_together() -> None:
    """What sessions advise stands beside what the calls do, of a tool that is named as well, with so
    many at once as the settings have. (V-38)"""
    sessions = told(LEAST, HOTELS, WEATHER)
    by = Known(load(environ={}, overrides={"chat": {"max_concurrent_tools": 1}}))
    assert advise([], Known(), sessions=sessions, groups=GROUPS).advice[0].saved_s == 2.0 * LEAST
    assert advise([], by, sessions=sessions, groups=GROUPS).advice[0].saved_s == 0
    assert advise([], by, sessions=sessions, groups=GROUPS, agent="weather").advice
    assert not advise([], by, sessions=sessions, groups=GROUPS, agent="flights").advice
    assert not advise([], by, sessions=sessions).advice


def test_all_names_are_found() -> None:
    """Whatever tools answers asked for are named, whether or not they were run. (V-38)"""
    assert asked_for([[GO, Answered((HOTELS, Use("gone", None)))], one_by_one(WEATHER)]) == {
        "gone",
        "hotels",
        "weather",
    }


times = st.lists(st.floats(0, 9), min_size=2, max_size=8)


@given(times, st.integers(1, 8))
def test_no_more_is_saved_than_was_waited(took_s: list[float], at_once: int) -> None:
    """A run of single calls saves no less than nothing and no more than all but its longest call, which
    is what room for all saves. (V-38)"""
    uses = [used("track", each, n=n) for n, each in enumerate(took_s)]
    took = [use.took_ns for use in uses]
    (run,) = found(one_by_one(*uses), at_once)
    assert 0 <= run.saved_ns <= sum(took) - max(took)
    (most,) = found(one_by_one(*uses), len(took))
    assert most.saved_ns == sum(took) - max(took)


# -- more than run at once -------------------------------------------------------------------------


def crowded(
    answers: int, calls: int = 8, *, queue_s: float = 0.5, name: str = "track"
) -> list[list[Event]]:
    """Answers that asked for so many calls of a second, of which each waited so long."""
    uses = [
        Use(name, Called(name, {"n": n}), NS, queue_ns=round(queue_s * NS)) for n in range(calls)
    ]
    return [[GO, Answered(tuple(uses))]] * answers


def tools(effect: EffectKind = EffectKind.READ) -> Known:
    return Known(tools={"track": Declared(effect=effect)})


def test_more_tools_at_once_are_advised() -> None:
    """Where answers often ask for more tools than run at once, and these waited for that, more room is
    advised, as much as is of use, with what it saves. (V-38)"""
    (advice,) = places(crowded(LEAST), tools())
    assert advice.changes == (Change("settings", "chat.max_concurrent_tools", 8),)
    assert advice.saved_s == 1.0 * LEAST
    assert advice.evidence == {"answers": LEAST, "queue_s": 4.0 * LEAST, "capacity": 4}
    with_room = crowded(LEAST, 4, queue_s=0.0)
    assert not list(places(crowded(LEAST - 1) + with_room, tools()))
    (more,) = places(crowded(LEAST, 100, queue_s=12), tools())
    assert [change.value for change in more.changes] == [17]  # 6 s of 25 s; 4 s at the least
    assert [one.rule for one in advise([], tools(), sessions=crowded(LEAST)).advice] == [
        "concurrency"
    ]


@pytest.mark.parametrize(
    "sessions",
    [
        crowded(50, 4),
        crowded(50, queue_s=2.0),
        crowded(50, queue_s=0.1),
        crowded(50, name="book"),
        [[GO, Answered((*(Use("track", None) for _ in range(9)),))]] * 50,
    ],
)
def test_waiting_for_other_things_is_no_reason_for_room(sessions: list[list[Event]]) -> None:
    """Answers with no more calls than may run, tools that may have waited for one another, waiting that
    the limit does not explain, and calls that were not run are no reason. (V-38)"""
    assert not list(places(sessions, tools()))


def test_what_writes_has_to_wait() -> None:
    """Tools that change something, or may, run one after the other however much room there is.
    (V-38)"""
    for effect in (EffectKind.WRITE, EffectKind.UNKNOWN):
        assert not list(places(crowded(50), tools(effect)))


def test_one_long_call_is_not_helped() -> None:
    """Where one call takes nearly all the time, more at once is not worth a change. (V-38)"""
    uses = [Use("track", Called("track", {}), 60 * NS, queue_ns=NS // 8)]
    uses += [Use("track", Called("track", {}), NS // 4, queue_ns=NS // 8) for _ in range(7)]
    assert not list(places([[GO, Answered(tuple(uses))]] * 50, tools()))


# -- arguments that are refused -----------------------------------------------------------------


def asked(refused: int, fine: int) -> list[list[Event]]:
    why = "the arguments of tool hotels are wrong: town: Expected `str`, got `int`; it is 3"
    bad = Answered((Use("hotels", Called("hotels", {"town": 3}), refused=why),))
    wrong: list[Event] = [GO, bad]
    return [wrong] * refused + [one_by_one(HOTELS)] * fine


def test_refused_arguments_are_told() -> None:
    """A tool of which models often get the arguments wrong is named with how often, and what the
    refusals have in common. (V-38)"""
    (advice,) = misused(asked(30, 30))
    assert (advice.rule, advice.agent, advice.kind) == ("misused", "hotels", Kind.TOOL)
    assert advice.evidence == {
        "asked": 60,
        "refused": 30,
        "share_low": 0.377,
        "share_high": 0.623,
    }
    assert "30 of them: the arguments of tool hotels are wrong" in advice.why
    assert advice.saved_s == 0
    assert list(misused(asked(LEAST, 0)))
    assert not list(misused(asked(LEAST - 1, 0)))
    assert not list(misused(asked(LEAST, 400)))
