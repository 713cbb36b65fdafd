"""What the history of calls advises, rule by rule."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.advise.advice import LEAST, Change, Confidence, confidence, ordered
from paceline.advise.advisor import advise
from paceline.advise.calls import NS, by_callee
from paceline.advise.concurrency import waited_ns
from paceline.advise.declared import Declared, Known
from paceline.advise.lifetimes import TTLS_S, Renewals, renewals, reuse
from paceline.advise.time_limits import LEAST_FOR_P99
from paceline.call import EffectKind, Kind, ScopeLevel, Source
from paceline.config import load
from paceline.errors import Category
from paceline.history.record import Record
from paceline.history.sqlite import SqliteReader
from paceline.home import Home
from paceline.runtime import Runtime
from paceline.settings import Settings
from paceline.testing.virtual_time import VirtualClock, run
from tests.advised_calls import Calls, Scene, advised

READ = Declared(effect=EffectKind.READ, cacheable=True, ttl_s=60.0)
UNCACHED = Declared(effect=EffectKind.READ, cacheable=True, ttl_s=0.0)
ECHO = Calls({"error_type": "builtins.TimeoutError"})
call, answer, timed_out = ECHO.call, ECHO.answer, ECHO.timed_out
repeats, expiries, changes, late, flaky = (
    ECHO.repeats,
    ECHO.expiries,
    ECHO.changes,
    ECHO.late,
    ECHO.flaky,
)
OVERLOADED: dict[str, Any] = {
    "category": Category.EXHAUSTED,
    "error_type": "paceline.errors.OverloadedError",
    "message": "agent echo is at its limit of 2 at once, with 9 waiting",
    "attempts": 0,
}


def known(settings: dict[str, dict[str, object]] | None = None, **declared: Any) -> Known:
    """What is known of `echo`, which reads, with results valid for a minute, save what is said."""
    echo = msgspec.structs.replace(READ, **declared)
    return Known(load(environ={}, overrides=settings or {}), {"echo": echo})


def evictions(n: int) -> list[Record]:
    """Two thousand results in turn, of which some that came first are asked for once more."""
    first = [call(i / 100, f"{i}", "A") for i in range(2_000)]
    return first + [call(21 + i / 100, f"{i}", "A") for i in range(n)]


def from_file(n: int) -> list[Record]:
    first = [call(i / 100, f"{i}") for i in range(2_000)]
    warm = [answer(21 + i / 100, f"{i}", source=Source.WARM) for i in range(n)]
    return first + [msgspec.structs.replace(one, total_ns=5_000_000) for one in warm] + hot()


def hot() -> list[Record]:
    return [answer(25, "5", id=f"h{n}") for n in range(LEAST)]


def queued(n: int) -> list[Record]:
    """Two at once, of which `n` wait for the others."""
    return [
        call(10 * i + 1 + late, f"{i}{late}{side}", queue_s=late)
        for i in range(n // 2 + n % 2)
        for late in (0, 1)
        for side in range(2 if 2 * i + 1 < n or not late else 1)
    ]


def rejected(n: int) -> list[Record]:
    ran = [call(50, f"{i}") for i in range(2)]
    return ran + [call(49.1, f"r{i}", took_s=0, **OVERLOADED) for i in range(n)]


def hanging(n: int) -> list[Record]:
    good = [call(10 * i, f"{i}", took_s=0.05) for i in range(5 * n)]
    return [*good, timed_out(5_000)]


def rescued(n: int) -> list[Record]:
    first = [call(i, f"{i}") for i in range(n)]
    return first + [call(600 + i, f"{i}", category=Category.UNAVAILABLE) for i in range(n)]


def ttl(seconds: float) -> Change:
    return Change("agent", "CACHE_TTL", seconds)


NO_FILE: dict[str, dict[str, object]] = {"cache": {"warm_bytes": 0}}
SCENES = [
    Scene("not_cached", repeats, known(ttl_s=0.0), (ttl(900.0),)),
    Scene("ttl_short", expiries, known(), (ttl(3_600.0),)),
    Scene("ttl_long", changes, known(), (ttl(1.0),)),
    Scene(
        "cache_off",
        lambda n: [call(10 * i, f"{i // 2}") for i in range(2 * n)],
        known({"cache": {"enabled": False}}),
        (Change("settings", "cache.enabled", value=True),),
    ),
    Scene("size", evictions, known(NO_FILE), (Change("settings", "cache.hot_entries", 2_000),)),
    Scene("size", from_file, known(), (Change("settings", "cache.hot_entries", 2_000),)),
    Scene(
        "concurrency",
        queued,
        known(max_concurrency=2),
        (Change("agent", "MAX_CONCURRENCY", 4),),
    ),
    Scene("time_limit_short", late, known(timeout_s=5.0), (Change("agent", "TIMEOUT", 10.0),)),
    Scene("time_limit_long", hanging, known(timeout_s=5.0), (Change("agent", "TIMEOUT", 1.0),)),
    Scene(
        "retry",
        flaky,
        known(effect=EffectKind.UNKNOWN),
        (Change("agent", "EFFECT", "read"),),
    ),
    Scene(
        "retry",
        flaky,
        known({"run": {"max_attempts": 1}}),
        (Change("settings", "run.max_attempts", 3),),
    ),
    Scene("stale_if_error", rescued, known(), (Change("agent", "STALE_IF_ERROR", 900.0),)),
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.rule)
def test_a_rule_needs_enough_calls(scene: Scene) -> None:
    """Each rule says what to change to what once enough calls show it, and nothing before.
    (S1-60)"""
    enough = advised(scene.records(3 * LEAST), scene.known)
    assert list(enough) == [scene.rule]
    assert enough[scene.rule].changes == scene.changes
    assert enough[scene.rule].evidence
    assert scene.rule in advised(scene.records(LEAST), scene.known)
    assert advised(scene.records(LEAST - 1), scene.known) == {}


def test_all_that_keeps_results_out_is_named() -> None:
    """Who is not cached for several reasons is told of each. (S1-60)"""
    by = known({"cache": {"enabled": False}}, cacheable=False)
    changes = advised(repeats(50), by)["not_cached"].changes
    assert [change.name for change in changes] == ["cache.enabled", "CACHEABLE", "CACHE_TTL"]


def test_refused_calls_ask_for_more_room() -> None:
    """Calls that were refused because the queue was full are a reason for more at once. (S1-60)"""
    found = advised(rejected(LEAST), known(max_concurrency=2))
    assert found["concurrency"].evidence["refused"] == LEAST
    assert not advised(rejected(LEAST - 1), known(max_concurrency=2))


def test_figures_and_savings_are_of_the_calls() -> None:
    """The evidence counts what was recorded, and the saving is the time and money of the
    executions that would not have been. (S1-60)"""
    records = [call(100 * i, cost_usd=0.5) for i in range(51)]
    advice = advised(records, known(ttl_s=0.0))["not_cached"]
    assert advice.evidence == {"executions": 51, "repeated": 45, "same": 45, "ttl_s": 900.0}
    assert (advice.saved_s, advice.saved_usd) == (45.0, 22.5)
    assert advice.confidence is Confidence.LOW


@pytest.mark.parametrize("declared", [{"EFFECT": "unknown"}, None])
def test_no_effect_is_no_reason_to_cache(declared: object) -> None:
    """Who declares no effect is told to declare one first, and never that caching alone will do.
    (S1-60)"""
    by = known(effect=EffectKind.UNKNOWN) if declared else Known()
    advice = advised(repeats(50), by)["not_cached"]
    assert advice.changes[0] == Change("agent", "EFFECT", "read")
    assert "only if it changes nothing" in advice.first


@pytest.mark.parametrize("scenario", [repeats, flaky])
def test_what_writes_is_left_alone(scenario: Callable[[int], list[Record]]) -> None:
    """An agent that declares to write is advised neither to be cached nor to be tried again.
    (S1-60)"""
    assert not advised(scenario(50), known(effect=EffectKind.WRITE, cacheable=False))


@pytest.mark.parametrize(
    "scenario", [repeats, expiries, changes, evictions, late, hanging, flaky, rescued]
)
def test_who_decides_for_each_call_is_left_alone(
    scenario: Callable[[int], list[Record]],
) -> None:
    """Of an agent with plans of its own no rule claims to know what they say. (S1-60)"""
    assert not advised(scenario(50), known(per_call=True, timeout_s=5.0))


def test_who_is_not_here_but_cached_is_not_told_to_cache() -> None:
    """An agent that is not known here, and is answered from the cache, is cached. (S1-60)"""
    assert not advised([*repeats(50), answer(6_000)], Known())


def test_changed_results_are_not_worth_caching() -> None:
    """What returned something else each time is not advised to be cached, however often it was
    asked for; nor are results that others may not see. (S1-60)"""
    differing = [call(100 * i, said=f"{i}") for i in range(200)]
    strangers = [call(100 * i, scope=ScopeLevel.USER, user=f"u{i}", id=f"{i}") for i in range(200)]
    failed = [call(100 * i, category=Category.EXECUTION) for i in range(200)]
    for records in (differing, strangers, failed):
        assert not advised(records, known(ttl_s=0.0))


def test_a_lifetime_ends_before_results_change() -> None:
    """The lifetime that is advised is one in which what was returned stayed the same. (S1-60)"""
    # The replay with 60 s happens to serve nothing wrong; a moment later it would have.
    steadily = [call(50 * i, said=f"{i // 20}") for i in range(400)]
    assert not advised(steadily, known(ttl_s=0.0))
    often = [call(1_000 * n + 5 * i, said=f"{n}") for n in range(50) for i in range(10)]
    (change,) = advised(often, known(ttl_s=0.0))["not_cached"].changes
    assert change == ttl(60.0)


def test_one_change_at_the_wrong_moment_is_enough() -> None:
    """A lifetime that would have gone on serving what had changed once is not advised. (S1-60)"""
    once = [call(10 * i, said="A" if i == 0 else "B") for i in range(400)]
    assert not advised(once, known(ttl_s=0.0))


def test_shorter_lifetimes_are_round() -> None:
    """The lifetime that keeps 5 % of the answers out of date is rounded down. (S1-60)"""
    half = [
        each
        for i in range(100)
        for each in (call(400 * i, said=f"{i // 2}"), answer(400 * i + 9, said=f"{i // 2}"))
    ]
    advice = advised(half, known(ttl_s=300.0))["ttl_long"]
    assert advice.changes == (ttl(50.0),)
    assert (advice.evidence["renewed"], advice.evidence["changed"]) == (99, 49)
    assert advice.evidence["out_of_date"] == pytest.approx(0.22, abs=0.01)


def test_what_was_invalidated_is_not_expired() -> None:
    """Executions before a result expired say nothing for a longer lifetime, nor against the one of
    now: somebody invalidated it, or there was no room. (S1-60)"""
    same = [each for i in range(60) for each in (call(30 * i), answer(30 * i + 2))]
    other = [
        each
        for i in range(60)
        for each in (call(30 * i, said=f"{i}"), answer(30 * i + 2, said=f"{i}"))
    ]
    assert not advised(same, known())
    assert not advised(other, known())


def test_made_ahead_is_not_asked_for() -> None:
    """Results that were made ahead or anew while the old one was served count as no repetition.
    (S1-60)"""
    records = [call(100 * i, id=f"{i}-ahead") for i in range(60)]
    assert not advised(records, known(ttl_s=0.0))


def test_only_what_had_to_go_needs_room() -> None:
    """Results that changed, had expired, or were made anew unasked are no reason for more room, nor
    are fewer lost than would show it. (S1-60)"""
    by, first = known(NO_FILE), evictions(0)
    lost = evictions(60)
    assert advised(lost, by)["size"].evidence["kept_more"] == 60
    expired = [call(200 + i / 100, f"{i + 100}") for i in range(60)]
    assert advised(lost + expired, by)["size"].evidence["kept_more"] == 60
    changed = [msgspec.structs.replace(one, output_hash="B") for one in lost[2_000:]]
    unasked = [msgspec.structs.replace(one, id=f"{one.id}-refresh") for one in lost[2_000:]]
    others = [answer(25 + i / 100, f"{i + 100}") for i in range(60)]
    for calls in (changed, unasked, lost[2_000:2_005] + others):
        assert "size" not in advised(first + calls, by)


def test_room_saves_no_more_than_was_lost_for_want_of_it() -> None:
    """Of results that were computed again, those that a larger cache would have lost too are not
    counted as saved. (S1-60)"""
    cleared = [call(40 + i, "last", took_s=0.5) for i in range(41)]
    advice = advised(evictions(60) + cleared, known(NO_FILE))["size"]
    assert (advice.evidence["lost"], advice.evidence["kept_more"]) == (100, 60)
    assert advice.saved_s == pytest.approx(0.6 * 80)


@pytest.mark.parametrize(
    ("settings", "size", "change"),
    [
        ({"cache": {"warm_bytes": 0}}, 1, "cache.hot_entries"),
        ({"cache": {"warm_bytes": 0, "hot_entries": 9_000}}, 65_536, "cache.hot_bytes"),
        ({"cache": {"warm_bytes": 1_000 * 100}}, 100, "cache.warm_bytes"),
    ],
)
def test_the_limit_that_was_short_is_named(
    settings: dict[str, dict[str, object]], size: int, change: str
) -> None:
    """The tier that keeps results longest is to be larger, in the unit it was short of. (S1-60)"""
    records = [msgspec.structs.replace(one, output_bytes=size) for one in evictions(60)]
    advice = advised(records, known(settings))["size"]
    limit = change.partition(".")[2]
    now = getattr(load(environ={}, overrides=settings).cache, limit)
    assert advice.changes == (Change("settings", change, 2 * now),)


def test_memory_pays_where_the_file_is_slower() -> None:
    """More memory saves the time that answers from the file took longer, for no more answers than
    came from there; nothing where they took no longer. (S1-60)"""
    advice = advised(from_file(60), known())["size"]
    assert advice.saved_s == pytest.approx(60 * 0.004)
    elsewhere = [answer(30 + i / 100, f"{i + 100}") for i in range(60)]
    advice = advised(from_file(60) + elsewhere, known())["size"]
    assert advice.evidence["kept_more"] == 120
    assert advice.saved_s == pytest.approx(60 * 0.004)
    as_quick = [msgspec.structs.replace(one, total_ns=1_000_000) for one in from_file(60)]
    assert not advised(as_quick, known())


def test_those_at_once_would_have_waited_for_the_first() -> None:
    """Calls that came while the first one ran save only the rest of its time. (S1-60)"""
    (agent,) = by_callee([call(2.0, took_s=2.0), call(3.5, took_s=2.0)])
    assert reuse(agent.results, 60.0).saved_ns == 1.5 * NS


def fell_back(record: Record) -> Record:
    """The same call where a fallback answered in place of its error; its text is no result."""
    if record.category is None:
        return record
    sorry = {"instead_of": record.category, "category": None, "output_hash": "sorry"}
    return msgspec.structs.replace(record, **sorry)


@pytest.mark.parametrize("failing", [flaky, rescued])
def test_fallbacks_hide_no_failures(failing: Callable[[int], list[Record]]) -> None:
    """What is advised of failures is the same where fallbacks answered in their place. (S1-60,
    S0-81)"""
    by = known() if failing is rescued else known(effect=EffectKind.UNKNOWN)
    failed = failing(60)
    expected = advised(failed, by)
    assert expected
    assert advised([fell_back(one) for one in failed], by) == expected


def test_what_a_fallback_answered_is_no_result() -> None:
    """A fixed text in place of an error neither saves work when it comes again, nor says that a
    result has changed. (S1-60, S0-81)"""
    texts = [call(10 * n, said="sorry", instead_of=Category.NETWORK) for n in range(5)]
    (agent,) = by_callee([*texts, call(60), call(70)])
    assert reuse(agent.results, 600.0) == reuse([[call(60), call(70)]], 600.0)
    assert [one.at_ns for one in agent.done] == [call(60).at_ns, call(70).at_ns]
    instead = {"instead_of": Category.NETWORK}
    lost = [msgspec.structs.replace(one, **instead) for one in evictions(60)]
    assert "size" in advised(evictions(60), known(NO_FILE))
    assert "size" not in advised(lost, known(NO_FILE))


def test_a_slow_agent_gets_no_more_at_once() -> None:
    """An agent that takes longer when it is busy is not advised to run more at once, nor is one
    whose waiting its own limit does not explain. (S1-60)"""
    slower = [
        msgspec.structs.replace(one, execute_ns=3 * NS) if one.queue_ns else one
        for one in queued(100)
    ]
    assert not advised(slower, known(max_concurrency=2))
    elsewhere = [call(10 * i, f"{i}", queue_s=1.0) for i in range(100)]
    assert not advised(elsewhere, known(max_concurrency=2))


def test_waiting_that_the_limit_does_not_explain() -> None:
    """Where a replay with the limit explains little of the waiting, they waited for something else,
    and the limit is left alone; so it is when what was called was refused. (S1-60)"""
    mostly = [call(100 * i, f"{i}{n}", queue_s=5.0) for i in range(50) for n in range(3)]
    assert not advised(mostly, known(max_concurrency=2))
    inner = [call(50, f"{i}", **(OVERLOADED | {"attempts": 1})) for i in range(100)]
    assert not advised(inner, known(max_concurrency=2))


def test_each_process_has_limits_of_its_own() -> None:
    """Calls of several processes do not wait for each other in the replay. (S1-60)"""
    together = [call(50, f"{i}", queue_s=0.5 * (i % 2)) for i in range(100)]
    assert advised(together, known(max_concurrency=2))
    apart = [msgspec.structs.replace(one, instance=f"local:{i}") for i, one in enumerate(together)]
    assert not advised(apart, known(max_concurrency=2))


def test_limits_of_all_agents_are_advised_on() -> None:
    """Synchronous agents wait for threads, all of them for places of the runtime; calls in the
    course of others use those of these. (S1-60)"""
    waiting = [call(50 + i // 4, f"{i}", queue_s=i // 4) for i in range(120)]
    threads = known({"run": {"threads": 4}}, in_threads=True)
    changes = advised(waiting, threads)["concurrency"].changes
    assert changes[0].name == "run.threads"
    assert not advised(waiting, known({"run": {"threads": 4}}))
    places = known({"run": {"max_concurrency": 4}})
    changes = advised(waiting, places)["concurrency"].changes
    assert changes[0].name == "run.max_concurrency"
    nested = [msgspec.structs.replace(one, parent="p") for one in waiting]
    assert not advised(nested, places)


@pytest.mark.parametrize(
    "fields",
    [
        {"error_type": "paceline.errors.CallTimeoutError"},
        {"took_s": 2},
        {"attempts": 0},
        {"category": Category.EXECUTION},
    ],
)
def test_only_the_limit_of_the_agent_counts(fields: dict[str, Any]) -> None:
    """Deadlines of callers, time-outs of the agent's own and waiting in vain do not count as
    having come to the limit. (S1-60)"""
    good = [call(10 * i, f"{i}", took_s=3 + i % 2) for i in range(LEAST_FOR_P99)]
    ended = [timed_out(5_000 + i, **fields) for i in range(50)]
    assert not advised(good + ended, known(timeout_s=5.0))


def test_a_limit_that_nobody_set_or_reached_is_left_alone() -> None:
    """The default limit is no trouble as long as nothing hangs. (S1-60)"""
    quick = [call(10 * i, f"{i}", took_s=0.05) for i in range(200)]
    assert not advised(quick, known())
    assert "time_limit_long" in advised(quick, known(timeout_s=60.0))
    hung = advised([*quick, timed_out(9_000, took_s=60)], known())["time_limit_long"]
    assert hung.saved_s == 59.0


def test_a_limit_leaves_room_for_the_slowest() -> None:
    """A limit is not lowered to where an execution that succeeded would have been ended; what was
    tried again took that long only in all. (S1-60)"""
    quick = [call(10 * i, f"{i}", took_s=0.05) for i in range(200)]
    assert not advised([*quick, call(9_000, took_s=4)], known(timeout_s=5.0))
    again = [call(10 * i, f"{i}", took_s=0.4, attempts=2) for i in range(200)]
    assert "time_limit_long" in advised(again, known(timeout_s=5.0))
    hung = [*quick, timed_out(9_000, took_s=10, attempts=2)]
    assert advised(hung, known(timeout_s=5.0))["time_limit_long"].saved_s == 8.0


def test_what_is_down_is_not_asked_more() -> None:
    """Failures one after the other are no reason to try again. (S1-60)"""
    down = [call(i, f"{i}", category=Category.UNAVAILABLE) for i in range(100)]
    assert not advised(down, known(effect=EffectKind.UNKNOWN))


def test_what_is_tried_again_already_is_left_alone() -> None:
    """Who may be tried again, was, or is not known here is not advised to be. (S1-60)"""
    unknown = known(effect=EffectKind.UNKNOWN)
    twice = [msgspec.structs.replace(one, attempts=2) for one in flaky(50)]
    assert "retry" in advised(flaky(50), unknown)
    assert not advised(twice, unknown)
    assert not advised(flaky(50), known())
    assert not advised(flaky(50), Known())


@pytest.mark.parametrize(
    ("after_s", "category"),
    [(30, Category.NETWORK), (100_000, Category.NETWORK), (600, Category.INVALID)],
)
def test_old_results_help_in_trouble_that_passes(after_s: float, category: Category) -> None:
    """A failure while the last result was valid, a day after it expired, or for the request itself
    is no reason to serve an old one. (S1-60)"""
    first = [call(i / 100, f"{i}") for i in range(50)]
    failed = [call(after_s + i / 100, f"{i}", category=category) for i in range(50)]
    assert not advised(first + failed, known())


def test_models_are_left_out() -> None:
    """Models have no such declarations, and nothing is said of them. (S1-60)"""
    records = [msgspec.structs.replace(one, kind=Kind.MODEL) for one in repeats(50)]
    assert advise(records, Known()).calls == 0


def test_one_agent_alone() -> None:
    """Advice on one agent leaves out others and what is about all; the rest is counted. (S1-60)"""
    records = [*repeats(50), *(msgspec.structs.replace(one, name="other") for one in repeats(5))]
    everything = advise(records, Known())
    assert (everything.calls, everything.agents, everything.too_few) == (57, 2, 1)
    assert [one.agent for one in advise(records, Known(), agent="echo").advice] == ["echo"]
    other = advise(records, Known(), agent="other")
    assert (other.advice, other.calls, other.agents, other.too_few) == ((), 6, 1, 1)


def test_what_saves_most_comes_first() -> None:
    """Advice is in falling order of seconds saved, then money, then certainty. (S1-60)"""
    (one,) = advised(repeats(50), known(ttl_s=0.0)).values()
    mixed = [
        msgspec.structs.replace(one, saved_s=s, saved_usd=usd, confidence=Confidence(sure))
        for s, usd, sure in ((0, 0, "low"), (0, 0, "high"), (0, 2, "low"), (9, 0, "low"))
    ]
    assert ordered(mixed) == [mixed[3], mixed[2], mixed[1], mixed[0]]


def test_certainty_grows_with_calls() -> None:
    """More calls make advice more certain, up to what it can be at most. (S1-60)"""
    grown = [confidence(n) for n in (LEAST, 59, 60, 199, 200)]
    assert grown == ["low", "low", "medium", "medium", "high"]
    assert confidence(200, Confidence.MEDIUM) is Confidence.MEDIUM
    assert confidence(LEAST, Confidence.MEDIUM) is Confidence.LOW


histories = st.lists(st.tuples(st.integers(1, 4_000), st.sampled_from("AB")), max_size=60)


@given(histories, st.sampled_from(TTLS_S), st.sampled_from(TTLS_S))
def test_longer_lifetimes_answer_more(
    told: list[tuple[int, str]], one_s: float, other_s: float
) -> None:
    """A longer lifetime never answers less, and what it saves is no more than executing took.
    (S1-60)"""
    at_s, records = 0, []
    for gap_s, said in told:
        at_s += gap_s + 1
        records.append(call(at_s, said=said))
    short, long = (reuse([records], ttl_s) for ttl_s in sorted((one_s, other_s)))
    assert short.hits <= long.hits <= max(0, len(records) - 1)
    assert long.saved_ns == (long.hits - long.wrong) * NS
    beyond = reuse([records], max(one_s, other_s), beyond_s=max(one_s, other_s))
    assert beyond.hits == 0


@given(st.integers(1, 50), st.data())
def test_estimated_staleness_is_a_share(count: int, data: st.DataObject) -> None:
    """The estimated share of answers out of date lies between 0 and 1, grows with the lifetime and
    with the changes seen, and is 5 % at the lifetime that is right. (S1-60)"""
    changed = data.draw(st.integers(1, count))
    seen = Renewals(count, changed, 100.0, count)
    assert 0 < seen.out_of_date(10) < seen.out_of_date(100) < 1
    assert seen.out_of_date(100) > Renewals(count, changed - 1, 100.0, count).out_of_date(100)
    assert seen.out_of_date(seen.right_s) == pytest.approx(0.05, abs=0.002)


def test_renewals_are_of_what_served_its_lifetime() -> None:
    """Only results that answered somebody and then expired are looked at for changes. (S1-60)"""
    unused = [call(0), call(100, said="B")]
    early = [call(0), answer(5), call(30, said="B")]
    full = [call(0), answer(5), answer(6), answer(7, source=Source.JOINED), call(101, said="B")]
    seen = renewals([unused, early, full], 60.0)
    assert seen == Renewals(1, 1, 100.0, 2)
    assert renewals([], 60.0).changes_per_s == 0.0


arrivals = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 30)), max_size=40).map(sorted)


@given(arrivals, st.integers(1, 8))
def test_more_room_never_means_more_waiting(calls: list[tuple[int, int]], room: int) -> None:
    """Replayed with more at once, calls wait no longer; with room for all, not at all; with room
    for one, each as long as those before it still take. (S1-60)"""
    assert waited_ns(calls, room + 1) <= waited_ns(calls, room)
    assert waited_ns(calls, max(1, len(calls))) == 0
    free = waited = 0
    for at, took in calls:
        waited += max(0, free - at)
        free = max(free, at) + took
    assert waited_ns(calls, 1) == waited


# -- on what a runtime really records -----------------------------------------------------------


def recorded(
    home: Path, settings: Settings, work: Callable[[Runtime], Any]
) -> tuple[list[Record], Known]:
    async def main() -> dict[str, Declared]:
        runtime = Runtime(settings, home=home, agents=[], environ={}, clock=VirtualClock())
        async with runtime:
            await work(runtime)
            return {
                spec.name: Declared(
                    effect=spec.effect.kind,
                    cacheable=spec.cacheable,
                    ttl_s=spec.ttl_s,
                    timeout_s=spec.timeout_s,
                    max_concurrency=spec.max_concurrency,
                )
                for spec in runtime.registry.snapshot().values()
            }

    declared = run(main())
    records = SqliteReader(Home(home).history).query(limit=10_000)
    return records, Known(settings, declared)


def settings_of(**sections: dict[str, object]) -> Settings:
    quiet: dict[str, dict[str, object]] = {"agents": {"watch": False}, "hostexec": {"mode": "off"}}
    return load(environ={}, overrides=quiet | sections)


def test_a_busy_runtime_is_advised(tmp_path: Path) -> None:
    """What a runtime records of waiting and of refused calls is understood: the limit of the agent
    is to be raised. (S1-60)"""

    async def work(runtime: Runtime) -> None:
        @runtime.agent("busy", max_concurrency=2)
        async def busy(query: str) -> str:
            await asyncio.sleep(1)
            return query

        await asyncio.gather(*(runtime.run("busy", f"{n}") for n in range(100)))

    records, by = recorded(tmp_path, settings_of(run={"max_queue": 60}), work)
    advice = advised(records, by)["concurrency"]
    assert advice.agent == "busy"
    assert advice.evidence["waited"] == 60
    assert advice.evidence["refused"] == 38
    waited_s = sum(record.queue_ns for record in records) / NS
    assert 0.8 * waited_s < advice.saved_s < waited_s


def test_hanging_calls_of_a_runtime_are_seen(tmp_path: Path) -> None:
    """What a runtime records of executions ended at the agent's limit is understood, and told from
    a deadline of the caller. (S1-60)"""

    async def work(runtime: Runtime) -> None:
        @runtime.agent("hangs", timeout=30)
        async def hangs(query: str) -> str:
            await asyncio.sleep(100 if query.startswith("hang") else 0.01)
            return query

        for n in range(LEAST_FOR_P99):
            await runtime.run("hangs", f"{n}")
        for n in range(3):
            await runtime.run("hangs", f"hang {n}")
        await runtime.run("hangs", "hang", timeout=5)

    records, by = recorded(tmp_path, settings_of(), work)
    advice = advised(records, by)["time_limit_long"]
    assert advice.evidence["timed_out"] == 3
    assert advice.saved_s == pytest.approx(3 * 29)


def test_expired_results_of_a_runtime_are_seen(tmp_path: Path) -> None:
    """What a runtime records of results that expire and come out the same is understood: a longer
    lifetime would have answered. (S1-60)"""

    async def work(runtime: Runtime) -> None:
        @runtime.agent("steady", effect="read", cache_ttl=10)
        async def steady(query: str) -> str:
            await asyncio.sleep(0.5)
            return query

        for _ in range(40):
            await runtime.run("steady", "a", user="ada")
            await runtime.run("steady", "a", user="ada")
            await asyncio.sleep(20)

    records, by = recorded(tmp_path, settings_of(), work)
    advice = advised(records, by)["ttl_short"]
    assert advice.evidence["expired"] == 37
    assert advice.changes == (ttl(300.0),)
