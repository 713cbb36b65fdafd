"""What the history of calls and the kept sessions advise on tools of sessions."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from paceline.advise.advice import LEAST, Change, Confidence
from paceline.advise.advisor import advise
from paceline.advise.calls import by_callee
from paceline.advise.declared import Declared, Known
from paceline.advise.failing import form_of
from paceline.advise.lifetimes import oldest_s
from paceline.call import EffectKind, Kind, Source
from paceline.config import load
from paceline.errors import Category
from paceline.history.record import Record
from paceline.history.sessions import SessionReader
from paceline.history.sqlite import SqliteReader
from paceline.home import Home
from paceline.messages import ModelReply, ToolUse
from paceline.models.scripted import ScriptedModel
from paceline.runtime import Runtime
from paceline.sessions.recorded import answers_of
from paceline.testing.virtual_time import VirtualClock, run
from tests.advised_calls import Calls, Scene, advised

READS = Declared(effect=EffectKind.READ, cacheable=True, ttl_s=0.0, whole=False)
"""A tool of a program, of which only the effect was learnt."""
SERVED = Declared(effect=EffectKind.READ, cacheable=True, ttl_s=60.0, timeout_s=5.0, server="files")
UNCACHED = replace(SERVED, ttl_s=0.0)
DROPPED = replace(READS, effect=EffectKind.UNKNOWN)

LOOK = Calls(
    {
        "error_type": "paceline.errors.CallTimeoutError",
        "message": "look did not finish within its deadline",
    },
    kind=Kind.TOOL,
    name="look",
)
call, answer, timed_out = LOOK.call, LOOK.answer, LOOK.timed_out
repeats, expiries, changes, late, flaky = (
    LOOK.repeats,
    LOOK.expiries,
    LOOK.changes,
    LOOK.late,
    LOOK.flaky,
)


def known(declared: Declared | None, settings: dict[str, dict[str, object]] | None = None) -> Known:
    tools = {} if declared is None else {"look": declared}
    return Known(load(environ={}, overrides=settings or {}), tools=tools)


def hanging(n: int) -> list[Record]:
    good = [call(10 * i, f"{i}", took_s=0.05) for i in range(5 * n)]
    return [*good, *(timed_out(5_000 + i) for i in range(n))]


def rejected(n: int) -> list[Record]:
    full: dict[str, Any] = {
        "category": Category.EXHAUSTED,
        "error_type": "paceline.errors.OverloadedError",
        "message": "tool look is at its limit of 2 at once, with 9 waiting",
        "attempts": 0,
    }
    ran = [call(50, f"{i}") for i in range(2)]
    return ran + [call(49.1, f"r{i}", took_s=0, **full) for i in range(n)]


def in_sessions(n: int) -> list[Record]:
    """Each session asks twice for what another one is told differently."""
    return [
        call(10 * i + late_s, said=f"{i}", session=f"s{i}", id=f"{i}-{late_s}")
        for i in range(n)
        for late_s in (0, 5)
    ]


def ttl(seconds: float) -> Change:
    return Change("tool", "ttl_s", seconds)


def of_server(key: str, value: float) -> Change:
    return Change("settings", f"mcp.files.{key}", value)


KEPT_APART = (ttl(60.0), Change("tool", "scope", "session"))
SCENES = [
    Scene("not_cached", repeats, known(READS), (ttl(900.0),)),
    Scene("not_cached", repeats, known(UNCACHED), (of_server("ttl_s", 900.0),)),
    Scene("not_cached", repeats, known(None), (Change("tool", "effect", "read"), ttl(900.0))),
    Scene("ttl_short", expiries, known(SERVED), (of_server("ttl_s", 3_600.0),)),
    Scene("ttl_short", expiries, known(READS), (ttl(3_600.0),)),
    Scene("ttl_long", changes, known(SERVED), (of_server("ttl_s", 1.0),)),
    Scene("time_limit_short", late, known(SERVED), (of_server("timeout_s", 10.0),)),
    Scene("time_limit_short", late, known(READS), (Change("tool", "timeout_s", 10.0),)),
    Scene("time_limit_long", hanging, known(SERVED), (of_server("timeout_s", 1.0),)),
    Scene("time_limit_long", hanging, known(READS), (Change("tool", "timeout_s", 1.0),)),
    Scene("retry", flaky, known(DROPPED), (Change("tool", "effect", "read"),)),
    Scene(
        "retry",
        flaky,
        known(READS, {"chat": {"max_tool_retries": 0}}),
        (Change("settings", "chat.max_tool_retries", 3),),
    ),
    Scene("concurrency", rejected, known(READS), (Change("tool", "max_concurrency", 16),)),
    Scene("failing", flaky, known(SERVED), ()),
    Scene("repeated", in_sessions, known(READS), KEPT_APART),
    Scene("repeated", in_sessions, known(SERVED), ()),
    Scene("repeated", in_sessions, known(UNCACHED), ()),
]


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.rule)
def test_a_rule_needs_enough_calls(scene: Scene) -> None:
    """Of tools, too, each rule says what to change where once enough calls show it, and nothing
    before. (V-38)"""
    found = advised(scene.records(3 * LEAST), scene.known)[scene.rule]
    assert (found.kind, found.agent, found.tools) == (Kind.TOOL, "look", ())
    assert found.evidence
    assert found.changes == scene.changes
    assert scene.rule in advised(scene.records(LEAST), scene.known)
    assert scene.rule not in advised(scene.records(LEAST - 1), scene.known)


@pytest.mark.parametrize("scenario", [repeats, in_sessions])
def test_what_writes_is_left_alone(scenario: Callable[[int], list[Record]]) -> None:
    """A tool that writes is advised neither to be cached nor to be asked only once. (V-38)"""
    assert not advised(scenario(50), known(replace(READS, effect=EffectKind.WRITE)))
    assert not advised(scenario(50), known(replace(SERVED, effect=EffectKind.WRITE)))
    assert "retry" not in advised(flaky(50), known(replace(READS, effect=EffectKind.WRITE)))


@pytest.mark.parametrize(
    ("declared", "first"),
    [
        (READS, ""),
        (DROPPED, "It declares no effect"),
        (None, "What it declares is not known here"),
        (UNCACHED, "The lifetime is that of all tools of files"),
        (
            replace(UNCACHED, effect=EffectKind.UNKNOWN),
            "The lifetime is that of all tools of files",
        ),
    ],
)
def test_what_has_to_be_true_first_is_said(declared: Declared | None, first: str) -> None:
    """Who declares no effect is told to, of whom nothing is known to look, and that a server has one
    lifetime for all; the effect of a server's tool is none that could be set here. (V-38)"""
    found = advised(repeats(50), known(declared))["not_cached"]
    assert found.first.startswith(first)
    assert bool(found.first) == bool(first)
    unsure = declared is None or declared.effect is EffectKind.UNKNOWN
    most = advised(repeats(500), known(declared))["not_cached"].confidence
    assert most is (Confidence.MEDIUM if unsure else Confidence.HIGH)
    if declared is not None and declared.server:
        assert [change.where for change in found.changes] == ["settings"]
        assert "retry" not in advised(flaky(50), known(declared))


def test_a_cache_that_is_off_is_named() -> None:
    """Where the cache is off as a whole, that is to be changed too. (V-38)"""
    found = advised(repeats(50), known(READS, {"cache": {"enabled": False}}))["not_cached"]
    assert [change.name for change in found.changes] == ["cache.enabled", "ttl_s"]
    once = advised(in_sessions(50), known(READS, {"cache": {"enabled": False}}))["repeated"]
    assert once.changes == ()


def test_the_lifetime_of_a_program_is_seen_in_what_it_served() -> None:
    """Of a tool of a program the oldest result that was served stands for its lifetime, at low
    confidence, and never as a reason for a shorter one; who joined an execution was not served.
    (V-38)"""
    found = advised(expiries(200), known(READS))["ttl_short"]
    assert found.evidence["oldest_served_s"] == pytest.approx(9.999)
    assert found.confidence is Confidence.LOW
    assert "not known here" in found.first
    assert not advised(changes(200), known(READS))
    joined = [
        replace(one, source=Source.JOINED) if not one.attempts else one for one in expiries(50)
    ]
    assert "not_cached" in advised(joined, known(READS))
    assert "ttl_short" not in advised(joined, known(READS))
    stale = [answer(200 * i + 150, source=Source.STALE) for i in range(50)]
    (callee,) = by_callee([*expiries(50), *stale])
    assert oldest_s(callee.results, LEAST) == pytest.approx(9.999)
    (callee,) = by_callee(expiries(LEAST - 1))
    assert oldest_s(callee.results, LEAST + 1) is None
    assert oldest_s(callee.results, LEAST) == pytest.approx(9.999)


def test_a_tool_of_which_nothing_was_learnt_is_seen_all_the_same() -> None:
    """Lifetime and limit of a tool that is known from its calls alone are seen in these; what rests on its
    effect is left out. (V-38)"""
    assert advised(expiries(50), known(None))["ttl_short"].changes == (ttl(3_600.0),)
    assert "time_limit_long" in advised(hanging(50), known(None))
    assert "retry" not in advised(flaky(50), known(None))


def test_an_unknown_lifetime_needs_answers() -> None:
    """A few answers from memory do not say how long results are kept. (V-38)"""
    few = [*repeats(200), answer(20_010)]
    assert not advised(few, known(READS))


def test_ends_that_differ_are_no_limit() -> None:
    """Executions that were ended after different times came to no limit of their tool, nor did those
    that others outlasted. (V-38)"""
    apart = [*late(0), *(timed_out(5_000 + i, took_s=5 + i) for i in range(50))]
    assert "time_limit_short" not in advised(apart, known(READS))
    some = [*late(LEAST), *(timed_out(9_000 + i, took_s=20 + i) for i in range(LEAST + 2))]
    assert "time_limit_short" not in advised(some, known(READS))
    around = [timed_out(7_000 + i, took_s=4 if i < 15 else 6) for i in range(30)]
    assert "time_limit_short" in advised([*late(50), *around], known(READS))
    assert "time_limit_short" not in advised([*late(LEAST), *around], known(READS))
    outlasted = [*late(50), call(8_000, took_s=9)]
    assert "time_limit_short" not in advised(outlasted, known(READS))
    quick = [call(10 * i, f"{i}", took_s=0.05) for i in range(200)]
    hung = [timed_out(5_000 + i, took_s=60) for i in range(3)]
    assert advised([*quick, *hung], known(READS))["time_limit_long"].saved_s == 3 * 59
    of_turns = [timed_out(5_000 + i, took_s=90) for i in range(3)]
    assert "time_limit_long" not in advised([*quick, *of_turns], known(READS))


def test_ends_in_no_time_are_no_limit() -> None:
    """Time-outs that took no time that could be measured came to no limit of their tool. (V-38)"""
    at_once = [timed_out(9_000 + i, took_s=0) for i in range(50)]
    assert "time_limit_long" in advised([*hanging(50), *at_once[:9]], known(READS))
    quick = [call(10 * i, f"{i}", took_s=0.05) for i in range(200)]
    assert not advised([*quick, *at_once], known(READS)).keys() - {"failing"}


def test_a_limit_of_a_server_is_that_of_all_its_tools() -> None:
    """Who is told to change the time limit of a server is told whose it is besides. (V-38)"""
    assert "all tools of files" in advised(late(50), known(SERVED))["time_limit_short"].first
    assert "all tools of files" in advised(hanging(50), known(SERVED))["time_limit_long"].first
    assert advised(late(50), known(READS))["time_limit_short"].first == ""


# -- tools that fail ------------------------------------------------------------------------------


def test_what_fails_often_is_named_with_its_cost() -> None:
    """A tool that often fails is named with the interval of its share of failures, the commonest kind
    of error and what its messages have in common, and the seconds that were waited in vain. (V-38)"""
    told: dict[str, Any] = {"category": Category.NOT_FOUND, "took_s": 2.0}
    failed = [call(10 * i, f"{i}", message=f"no order {i}", **told) for i in range(30)]
    other = [call(10 * i + 1, f"{i}", category=Category.NETWORK) for i in range(10)]
    fine = [call(10 * i + 2, f"{i}") for i in range(60)]
    found = advised([*failed, *other, *fine], known(SERVED))["failing"]
    assert found.evidence == {
        "executions": 100,
        "failed": 40,
        "share_low": 0.309,
        "share_high": 0.498,
        "in_vain_s": 70.0,
        "failed_not_found": 30,
    }
    assert found.saved_s == 70.0
    assert found.what.startswith("say in its description what there is")
    assert "31% to 50%, with 95 % confidence" in found.why
    assert found.why.endswith("30 of them not_found, 30 of those: no order …")


def test_the_message_is_of_the_commonest_kind() -> None:
    """What is quoted of messages is of the commonest kind of error, though another has one message more
    often. (V-38)"""
    letters = [chr(97 + i % 26) * (1 + i // 26) for i in range(50)]
    failed = [
        call(10 * i, f"{i}", category=Category.INVALID, message=f"no {each}")
        for i, each in enumerate(letters)
    ]
    alike = [call(9_000 + i, f"b{i}", category=Category.NETWORK, message="gone") for i in range(40)]
    why = advised([*failed, *alike], known(SERVED))["failing"].why
    assert why.endswith("50 of them invalid, 1 of those: no a")


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": Kind.AGENT},
        {"category": Category.CANCELLED},
        {"attempts": 0},
        {"id": "1-speculated"},
        {"id": "1-ahead"},
    ],
)
def test_only_failures_that_were_waited_for_count(fields: dict[str, Any]) -> None:
    """Calls that were given up, never ran or nobody asked for make no tool a failing one, nor is an
    agent called one. (V-38)"""
    failed = [
        call(10 * i, f"{i}", **({"category": Category.EXECUTION} | fields)) for i in range(50)
    ]
    assert "failing" not in advised(failed, known(SERVED))


def test_a_rare_failure_is_no_reason() -> None:
    """Failures that may be fewer than one in twenty are left alone, however many. (V-38)"""
    fine = [call(10 * i, f"{i}") for i in range(940)]
    failed = [call(10 * i + 5, f"{i}", category=Category.EXECUTION) for i in range(60)]
    assert "failing" not in advised([*fine, *failed], known(SERVED))
    assert "failing" in advised([*fine[:700], *failed], known(SERVED))


@pytest.mark.parametrize(
    ("message", "form"),
    [
        ("no order 17 of 'ada'", "no order … of …"),
        ('/tmp/a.txt: "x y" is\n  missing', "… … is missing"),
        ("", ""),
        ("a" * 200, "a" * 99 + "…"),
        ("'a'/b1 c2:'d' \"e\"f `g`7", "…… … …f ……"),
    ],
)
def test_messages_that_say_the_same_have_one_form(message: str, form: str) -> None:
    """What is quoted, numbers and paths are left out of the form of a message, which is one short
    line. (V-38)"""
    assert form_of(message) == form


# -- calls that were made again ---------------------------------------------------------------


def test_what_a_session_was_told_is_counted() -> None:
    """Executions that told a session what it had been told are counted with their seconds, and where
    a lifetime is advised that answers them they are part of its evidence, and said once. (V-38)"""
    found = advised(in_sessions(50), known(DROPPED))["repeated"]
    assert found.evidence == {"executions": 100, "in_session": 50, "in_session_s": 50.0}
    assert found.saved_s == 50.0
    assert "[chat] system" in found.first
    alike = [replace(one, output_hash="A") for one in in_sessions(50)]
    both = advised(alike, known(READS))
    assert list(both) == ["not_cached"]
    assert both["not_cached"].evidence["in_session"] == 50
    assert "50 told a session what it had been told" in both["not_cached"].why
    assert set(advised(alike, known(DROPPED))) == {"not_cached", "repeated"}


@pytest.mark.parametrize(
    "fields",
    [
        {"session": None},
        {"output_hash": "other"},
        {"category": Category.NETWORK},
        {"attempts": 0, "source": Source.HOT},
        {"id": "1-speculated"},
        {"input_hash": "other"},
    ],
)
def test_only_the_same_again_counts(fields: dict[str, Any]) -> None:
    """What was asked differently, came out different, failed, was answered from the cache or nobody
    asked for is no repetition, nor is what is of no session, or of an agent. (V-38)"""
    records = [replace(one, **fields) if one.id.endswith("-5") else one for one in in_sessions(50)]
    assert "repeated" not in advised(records, known(READS))
    agents = [replace(one, kind=Kind.AGENT) for one in in_sessions(50)]
    assert "repeated" not in advised(agents, known(READS))
    apart = [replace(one, session=f"t{n}") for n, one in enumerate(in_sessions(50))]
    assert "repeated" not in advised(apart, known(READS))


# -- among other calls ------------------------------------------------------------------------


def test_turns_of_sessions_are_no_calls_of_an_agent() -> None:
    """Turns of sessions are recorded as calls, and advised on by no rule. (V-38)"""
    turns = [
        call(100 * i, kind=Kind.AGENT, name="session", session="s", id=f"s.{i}") for i in range(99)
    ]
    found = advise(turns, Known())
    assert (found.advice, found.calls, found.agents) == ((), 0, 0)
    others = [replace(one, session="t") for one in turns]
    assert advise(others, Known()).calls == 99


def test_calls_of_sessions_have_places_of_their_own() -> None:
    """Calls of turns, those of models too, take places of the runtime, and so explain who waited for
    them. (V-38)"""
    waiting = [
        call(50 + i // 4, f"{i}", queue_s=i // 4, parent="s.1", session="s", id=f"{i}")
        for i in range(120)
    ]
    places = known(READS, {"run": {"max_concurrency": 4}})
    assert advised(waiting, places)["concurrency"].changes[0].name == "run.max_concurrency"
    models = [
        replace(one, kind=Kind.MODEL, name="m") if n % 2 else one for n, one in enumerate(waiting)
    ]
    assert "concurrency" in advised(models, places)
    nested = [replace(one, parent="c1") for one in waiting]
    assert "concurrency" not in advised(nested, places)


def test_no_rule_is_of_models() -> None:
    """Models fail, repeat themselves and refuse calls as tools do, and no rule of tools says so. (V-38)"""
    everything = [*repeats(50), *flaky(50), *in_sessions(50), *hanging(50)]
    records = [replace(one, kind=Kind.MODEL) for one in everything]
    found = advise(records, Known())
    assert (found.advice, found.calls, found.agents, found.tools) == ((), 0, 0, 0)
    at_limit = "model look is at its limit of 2 at once"
    refused = [replace(one, kind=Kind.MODEL, message=at_limit) for one in rejected(50)]
    assert advise(refused, Known()).advice == ()


def test_a_tool_and_an_agent_of_one_name_are_two() -> None:
    """A tool is told from an agent that is called the same, and what is declared of one says nothing
    of the other. (V-38)"""
    agents = [replace(one, kind=Kind.AGENT) for one in repeats(50)]
    by = Known(load(environ={}), {"look": replace(SERVED, server="")}, {"look": READS})
    found = advise([*agents, *repeats(50)], by)
    assert (found.calls, found.agents, found.tools, found.too_few) == (102, 1, 1, 0)
    assert [(one.rule, one.kind) for one in found.advice] == [
        ("not_cached", Kind.TOOL),
        ("ttl_short", Kind.AGENT),
    ]
    assert len(advise([*agents, *repeats(50)], by, agent="look").advice) == 2
    assert not advise([*agents, *repeats(50)], by, agent="other").advice
    assert list(advised(repeats(50), replace(by, tools={}))) == ["not_cached"]


# -- on what sessions really record -----------------------------------------------------------


def test_what_sessions_record_is_understood(tmp_path: Path) -> None:
    """What sessions record of tools that answer the same again, hang, fail and are called wrongly is
    understood. (V-38, S2-10)"""

    def asked(name: str, **arguments: object) -> ModelReply:
        return ModelReply(uses=(ToolUse("1", name, json.dumps(arguments)),))

    async def main() -> None:
        quiet: dict[str, dict[str, object]] = {
            "agents": {"watch": False},
            "hostexec": {"mode": "off"},
        }
        settings = load(environ={}, overrides=quiet)
        runtime = Runtime(settings, home=tmp_path, agents=[], environ={}, clock=VirtualClock())
        async with runtime:

            @runtime.tool(effect="read")
            async def hotels(city: str) -> str:
                """Those there are."""
                await asyncio.sleep(1.0)
                return f"one in {city}"

            @runtime.tool(effect="read")
            async def weather(city: str) -> str:
                """As it is."""
                await asyncio.sleep(2.0)
                return f"rain in {city}"

            @runtime.tool(effect="read", timeout_s=20)
            async def lookup(number: int) -> int:
                """Mostly at once."""
                await asyncio.sleep(100 if number % 6 == 5 else 0.01)
                return number

            @runtime.tool(effect="write")
            async def book(number: int) -> int:
                """Never for what is no number."""
                if number % 4 == 1:
                    raise LookupError(f"no room {number}")
                return number

            for n in range(6 * LEAST):
                replies = [
                    asked("hotels", city=f"town {n % 2}"),
                    asked("weather", city=f"town {n % 2}"),
                    asked("book", number=n if n % 2 else "seven"),
                    asked("lookup", number=n),
                    ModelReply("done"),
                ]
                async with runtime.session(model=ScriptedModel(replies), user="ada") as session:
                    await session.send(f"See to town {n % 2}.")

    run(main())
    home = Home(tmp_path)
    records = SqliteReader(home.history).query(limit=10_000)
    reader = SessionReader(home.sessions)
    sessions = [list(answers_of(reader.load(kept.id))) for kept in reader.listed(limit=1_000)]
    tools = dict.fromkeys(("hotels", "weather", "lookup"), READS)
    by = Known(load(environ={}), tools={**tools, "book": replace(READS, effect=EffectKind.WRITE)})
    found = advise(records, by, sessions=sessions, groups=[("hotels", "weather")])
    assert (found.agents, found.tools) == (0, 4)
    rules = {(one.rule, one.agent): one for one in found.advice}
    assert set(rules) == {
        ("not_cached", "hotels"),
        ("not_cached", "weather"),
        ("side_by_side", None),
        ("time_limit_long", "lookup"),
        ("failing", "lookup"),
        ("failing", "book"),
        ("misused", "book"),
    }
    assert rules["time_limit_long", "lookup"].evidence["limit_s"] == 20.0
    assert rules["side_by_side", None].evidence["runs"] == len(sessions)
    assert rules["side_by_side", None].saved_s == pytest.approx(1.0 * len(sessions))
    assert rules["misused", "book"].evidence["refused"] == len(sessions) // 2
    assert "LookupError: no room …" in rules["failing", "book"].why
