"""Models asked on the call path: fallbacks, what is heard, what is kept and for whom."""

import asyncio
import contextlib
from typing import Any

import pytest

from paceline.call import Kind, Source, Tokens
from paceline.engine.events import TextDelta, TextRestarted
from paceline.engine.states import ExecutionContext
from paceline.errors import (
    AgentError,
    BudgetExceededError,
    CallTimeoutError,
    Category,
    PacelineError,
)
from paceline.messages import Hear, ModelReply, ModelRequest, TextPart, UsePart, UserMessage
from paceline.sessions.models import Sampling
from paceline.testing.virtual_time import VirtualClock, run
from paceline.usage import report_usage
from tests.unit.sessions.quiet import BYE, Said, a_runtime, asks, seen

GONE = AgentError("gone", category=Category.NETWORK)
KEPT = Sampling(temperature=0)


async def told(session: Any, text: str = "go") -> list[str]:
    """What a listener has heard of a turn, in pieces."""
    pieces: list[str] = []
    async for event in session.stream(text):
        match event:
            case TextDelta():
                pieces.append(event.text)
            case TextRestarted():
                pieces.append("|")
            case _:
                pass
    return pieces


def test_a_model_that_never_answered_is_given_up_sooner() -> None:
    """What cannot be reached is asked again once by a session as long as it never answered in this
    process, and as often as any afterwards, by every session (S2-54)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            model = Said(*[GONE] * 6, ModelReply("hi"), *[GONE] * 40, name="a")
            runtime.add_model(model)
            asked: list[int] = []
            for _ in range(3):
                async with runtime.session(model="a") as session:
                    before = len(model.requests)
                    with contextlib.suppress(AgentError):
                        await session.send("go")
                    asked.append(len(model.requests) - before)
            assert asked[0] == 6
            assert asked[1] == 1
            assert asked[2] > 6

    run(main())


def test_the_next_model_is_asked() -> None:
    """If a model cannot answer the next one is, and heard at once: what was heard of the first does not
    count, and the turn says who answered (S2-54, S2-41)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            first, second = Said(GONE, name="a"), Said(ModelReply("bye", model="b-1"), name="b")
            runtime.add_model(first, fallback=["b"])
            runtime.add_model(second)
            found = seen(runtime)
            async with runtime.session(model="a") as session:
                assert await told(session) == [
                    "broken ",
                    "|",
                    "broken ",
                    "|",
                    "broken ",
                    "|",
                    "bye",
                ]
                turn = session.turns[-1]
            assert (turn.agent_response, turn.models) == ("bye", ("b-1",))
            outcomes = {call.name: outcome for call, outcome in found}
            assert outcomes["a"].attempts == 3
            assert outcomes["session"].ok

    run(main())


@pytest.mark.parametrize(
    "error", [AgentError(c, category=c) for c in (Category.INVALID, Category.POLICY)], ids=str
)
def test_what_another_could_not_do_either_is_not_asked(error: PacelineError) -> None:
    """An error that the request is to blame for ends it: no other model is asked (S2-54)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            other = Said(BYE, name="b")
            runtime.add_model(other)
            async with runtime.session(model=Said(error, name="a"), fallback=["b"]) as session:
                with pytest.raises(type(error)):
                    await session.send("go")
            assert other.requests == []

    run(main())


def test_a_broken_fallback_hides_nothing() -> None:
    """Where no model can answer the turn goes by what was wrong with the first: it waits as long as
    that one asks, and asks it again (S2-52, S2-54)."""

    async def main() -> None:
        clock = VirtualClock()
        async with a_runtime(clock=clock, run={"max_attempts": 1}) as runtime:
            limited = AgentError("slow down", category=Category.RATE_LIMIT, retry_after_s=40)
            broken = AgentError("no key", category=Category.AUTHENTICATION)
            model = Said(limited, limited, BYE, name="a")
            runtime.add_model(model, fallback=["b", "c"])
            others = [Said(broken, name=name) for name in "bc"]
            for other in others:
                runtime.add_model(other)
            found = seen(runtime)
            now = asyncio.get_running_loop().time
            began = now()
            async with runtime.session(model="a") as session:
                turn = await session.send("go")
            assert turn.agent_response == "bye"
            assert now() - began >= 80
            assert [len(one.requests) for one in (model, *others)] == [3, 2, 2]
            errors = [outcome.error for call, outcome in found if call.name == "b"]
            assert errors == [broken, broken]  # which everybody else is told

    run(main())


def test_no_model_is_asked_when_the_time_is_over() -> None:
    """A model that took all the time there was leaves none for another (S2-54, S2-21)."""

    class Slow(Said):
        async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
            await asyncio.sleep(60)
            raise AssertionError

    async def main() -> None:
        async with a_runtime() as runtime:
            runtime.add_model(other := Said(BYE, name="b"))
            async with runtime.session(model=Slow(BYE), fallback=["b"]) as session:
                outcome = await session._means.models.ask(
                    ModelRequest((UserMessage("go"),)),
                    ExecutionContext(session.id, turn_id="t1"),
                    hear=None,
                    timeout_s=5,
                )
            assert isinstance(outcome.error, CallTimeoutError)
            assert other.requests == []
            names = [series.name for series in runtime.metrics.snapshot().series]
            assert names == ["said"]

    run(main())


def test_what_failed_models_used_is_counted() -> None:
    """The tokens of a turn are those of all models that were asked, those that failed too (S2-54,
    S2-06)."""

    class Costly(Said):
        async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
            report_usage("a", input=100, output=1)
            return await super().complete(request, hear)

    async def main() -> None:
        async with a_runtime(run={"max_attempts": 1}) as runtime:
            reply = ModelReply("bye", tokens=Tokens(10, 5))
            runtime.add_model(Said(reply, name="b"))
            async with runtime.session(model=Costly(GONE, name="a"), fallback=["b"]) as session:
                turn = await session.send("go")
            assert turn.tokens == Tokens(110, 6)

    run(main())


def test_who_is_asked_no_more_is_not_heard() -> None:
    """What a cancelled turn's model still says starts no tool and is no part of what comes next
    (S2-21, S2-41)."""
    late: list[Hear] = []

    class Stubborn(Said):
        async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
            if not late:
                late.append(hear)
                hear(TextPart("one "))
                await asyncio.sleep(60)
            late[0](TextPart("late "))
            late[0](UsePart(asks("look").uses[0]))
            return await super().complete(request, hear)

    async def main() -> None:
        async with a_runtime() as runtime:
            ran: list[str] = []

            @runtime.tool(effect="read")
            async def look() -> str:
                ran.append("look")
                return "seen"

            async with runtime.session(model=Stubborn(BYE)) as session:
                first = asyncio.create_task(session.send("go"))
                await asyncio.sleep(1)
                assert session.cancel()
                with pytest.raises(PacelineError):
                    await first
                assert await told(session) == ["bye"]
            assert ran == []

    run(main())


def test_a_tool_that_starts_early_is_no_part_of_the_model_call() -> None:
    """A tool that starts while the answer comes has its own place and the turn as its parent, and what
    it says to others is not heard as the answer (S2-21, S2-34)."""

    class Streams(Said):
        async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
            reply = await super().complete(request, hear)
            await asyncio.sleep(10)
            return reply

    async def main() -> None:
        async with a_runtime() as runtime:
            runtime.add_model(Said(ModelReply("inner words"), name="inner"))

            @runtime.tool(effect="read")
            async def look() -> str:
                report_usage("a", input=1_000)
                async with runtime.session(model="inner") as inside:
                    return (await inside.send("go")).agent_response

            found = seen(runtime)
            async with runtime.session("s", model=Streams(asks("look"), BYE)) as session:
                assert await told(session) == ["bye"]
            by_name = {call.name: call for call, _ in found}
            of = session.turns[0].id
            assert (by_name["look"].parent_id, by_name["look"].trace_id) == (of, of)
            models = [outcome for call, outcome in found if call.name == "said"]
            assert [outcome.tokens for outcome in models] == [None, None]

    run(main())


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(), False),
        (Sampling(temperature=0.7), False),
        (Sampling(temperature=0), True),
        (Sampling(temperature=0, cache=False), False),
        (Sampling(cache=True), True),
        (Sampling(temperature=0.7, cache=True), True),
    ],
)
def test_answers_are_kept_only_as_asked(sampling: Sampling, kept: bool) -> None:
    """The same request is asked once only where its answer cannot differ, or where that is wanted; an
    answer that is served again is heard whole (V-13, V-14)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            model = Said(BYE)
            runtime.add_model(model, sampling=sampling)
            found = seen(runtime)
            for _ in range(2):
                async with runtime.session(user="ada") as session:
                    assert await told(session) == ["bye"]
            assert len(model.requests) == 2 - kept
            sources = [outcome.source for call, outcome in found if call.kind is Kind.MODEL]
            assert (sources[1] is not Source.EXECUTED) is kept

    run(main())


OTHERS: list[dict[str, Any]] = [
    {"user": "bob"},
    {"user": None},
    {"user": ""},
    {"user": "ada", "tenant": "acme"},
    {"user": "ada", "system": "be brief"},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_answers_are_kept_for_one_user(other: dict[str, Any]) -> None:
    """An answer that is kept is served to its user's sessions, and never to another user, tenant,
    nameless session, or for another request (V-13, S2-38)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            model = Said(BYE)
            runtime.add_model(model, sampling=KEPT)
            for options in ({"user": "ada"}, other, {"user": "ada"}):
                async with runtime.session(**options) as session:
                    await session.send("go")
            assert len(model.requests) == 2

    run(main())


def test_models_of_one_name_share_nothing() -> None:
    """Two models that sessions bring along are two, though they have one name (S2-41)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            models = [Said(ModelReply(text)) for text in ("one", "two")]
            for model in models:
                async with runtime.session(model=model, user="ada") as session:
                    turn = await session.send("go")
                    assert turn.agent_response == model.replies[0].text  # type: ignore[union-attr]

    run(main())


def test_a_model_is_open_while_it_is_asked() -> None:
    """A model that is brought along is opened once, however many sessions ask it, and closed with the
    last of them; one that was registered is open until the runtime is closed (S2-18, S2-41)."""

    async def main() -> None:
        brought, registered = Said(BYE), Said(BYE, name="known")
        async with a_runtime() as runtime:
            runtime.add_model(registered)
            async with runtime.session(model=brought) as one:
                async with runtime.session(model=brought) as two, runtime.session(model="known"):
                    await asyncio.gather(one.send("go"), two.send("go"))
                assert (brought.open, brought.opened) == (1, 1)
                await one.send("go")
            assert (brought.open, registered.open) == (0, 1)
            async with runtime.session(model=brought) as one:
                await one.send("go")
            assert (brought.opened, registered.opened) == (2, 1)
        assert (brought.open, registered.open) == (0, 0)

    run(main())


def test_a_model_that_keeps_failing_is_left_alone() -> None:
    """After some failures in a row a model is not asked for a while, by no session, and another
    answers at once (S2-54)."""

    async def main() -> None:
        async with a_runtime(balance={"circuit_failures": 3}, run={"max_attempts": 1}) as runtime:
            model = Said(GONE, name="a")
            runtime.add_model(model, fallback=["b"])
            runtime.add_model(Said(BYE, name="b"))
            for _ in range(8):
                async with runtime.session(model="a") as session:
                    assert (await session.send("go")).agent_response == "bye"
            assert len(model.requests) == 3

    run(main())


def test_a_budget_refuses_a_model_call() -> None:
    """Once a user's budget is used up no model is asked on their behalf, and the turn says so; others
    go on (V-37, S2-12)."""

    async def main() -> None:
        settings: dict[str, Any] = {"budgets": {"each": {"per": "user", "limit_usd": 1.0}}}
        price = {"from": "2020-01-01", "input": 10.0, "output": 40.0}
        async with a_runtime(**settings, prices={"m": price}) as runtime:
            reply = ModelReply("bye", tokens=Tokens(1_000_000, 0), model="m")
            runtime.add_model(model := Said(reply))
            async with runtime.session(user="ada") as session:
                turn = await session.send("go")
                assert turn.cost_usd == pytest.approx(10)
                with pytest.raises(BudgetExceededError, match="each"):
                    await session.send("go")
                assert session.turns[-1].category is Category.EXHAUSTED
                assert "each" in session.turns[-1].error
            async with runtime.session(user="bob") as session:
                await session.send("go")
            assert len(model.requests) == 2

    run(main())


@pytest.mark.parametrize(("limit_s", "took_s"), [(None, 120), (7.0, 7)])
def test_an_answer_has_a_limit(limit_s: float | None, took_s: float) -> None:
    """A model that does not answer is given up after its limit, two minutes if none is set (S2-21)."""

    class Silent(Said):
        async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
            await asyncio.sleep(10_000)
            raise AssertionError

    async def main() -> None:
        async with a_runtime(run={"max_attempts": 1}) as runtime:
            runtime.add_model(Silent(BYE), sampling=Sampling(timeout_s=limit_s))
            found = seen(runtime)
            async with runtime.session() as session:
                with pytest.raises(PacelineError):
                    await session.send("go")
            call, outcome = found[0]
            assert isinstance(outcome.error, CallTimeoutError)
            assert (call.kind, outcome.total_ns / 1e9) == (Kind.MODEL, pytest.approx(took_s))

    run(main())
