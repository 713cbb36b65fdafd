"""Several sessions that share a model behind a server, and turns that are cancelled there: over real
sockets, in virtual time."""

import asyncio
from typing import Any, Final

import pytest

from paceline.engine.events import Event, TextDelta, ToolChanged, TurnEnded
from paceline.engine.session import Session
from paceline.engine.states import AgentState, StateTransition, TurnStatus
from paceline.errors import CallCancelledError
from paceline.metrics.figures import Ending
from paceline.testing.virtual_time import run
from tests.contract.scripted_server import answer, calling, said, stream
from tests.contract.session_stage import BYE, LOOK, NOTE, Stage, stage
from tests.far_sides import Handler

ASK: Final = ("c3", "ask", '{"text": "Which one?"}')
PAY: Final = ("c4", "pay", '{"item": "bill"}')
SAME: Final = {"temperature": 0}


async def second() -> None:
    await asyncio.sleep(1)


async def silent() -> None:
    await asyncio.get_running_loop().create_future()


async def heard(session: Session, text: str) -> list[Event]:
    """All that a turn tells of."""
    return [event async for event in session.stream(text)]


def words(events: list[Event]) -> str:
    """What one answer said."""
    return "".join(event.text for event in events if isinstance(event, TextDelta))


def tasks(but: set[asyncio.Task[Any]] | None = None) -> set[asyncio.Task[Any]]:
    """Those that are none of the servers', but for these."""
    ours = {t for t in asyncio.all_tasks() if "RequestHandler" not in t.get_coro().__qualname__}  # type: ignore[union-attr]
    return ours - (but or set())


def test_two_sessions_at_once_do_not_meet() -> None:
    """Sessions whose answers come at the same time hear their own, run their own tools and keep their
    own conversations (S2-59)."""

    async def main() -> None:
        async def echo(request: Any) -> Any:
            messages = (await request.json())["messages"]
            if len(messages) == 1:
                name = messages[0]["content"]
                use = ("c1", "look", f'{{"item": "{name}"}}')
                return await stream([second, *calling(use, text=f"{name}? ", size=2)])(request)
            events = [second, *said(f"so {messages[-1]['content']}")]
            return await stream(events)(request)

        async with stage(echo) as at, at.session("one") as one, at.session("two") as two:
            told = await asyncio.gather(heard(one, "bolt"), heard(two, "nut"))
            assert [words(events) for events in told] == [
                "bolt? so bolt is there ",
                "nut? so nut is there ",
            ]
            assert sorted(zip(at.shop.begun, at.shop.sessions, strict=True)) == [
                ("look bolt", "one"),
                ("look nut", "two"),
            ]
            assert [len(s.conversation.messages()) for s in (one, two)] == [4, 4]
            assert asyncio.get_running_loop().time() < 5
            at.expect_free()

    run(main())


def test_the_same_prompt_at_one_moment_is_one_request() -> None:
    """At temperature 0 two sessions of one user that ask the same at once, or one a little later, make
    one request, whose whole text both hear; another user's makes its own (S0-41, S2-41)."""

    async def main() -> None:
        reply = stream([second, *said("all of it")])
        async with (
            stage(reply, model=SAME) as at,
            at.session("one", user="ada") as one,
            at.session("two", user="ada") as two,
            at.session("three", user="bob") as three,
        ):
            both = await asyncio.gather(heard(one, "go"), heard(two, "go"))
            assert [words(events) for events in both] == ["all of it ", "all of it "]
            assert [s.turns[-1].agent_response for s in (one, two)] == ["all of it ", "all of it "]
            assert len(at.server.requests) == 1
            async with at.session("four", user="ada") as four:
                assert words(await heard(four, "go")) == "all of it "
            assert len(at.server.requests) == 1
            assert words(await heard(three, "go")) == "all of it "
            assert len(at.server.requests) == 2

    run(main())


def test_who_asked_first_may_leave() -> None:
    """When of two sessions that share an answer the first is cancelled, the other one hears all of it,
    from one request; the first hears no more of it, and runs no tool (S0-41, S2-30)."""

    async def main() -> None:
        events = [*calling(LOOK, text="Let me see ")]
        reply = stream([events[0], second, second, *events[1:]])
        async with (
            stage(reply, BYE, model=SAME) as at,
            at.session("one", user="ada") as one,
            at.session("two", user="ada") as two,
        ):
            with one.watch() as watch:
                first = asyncio.ensure_future(one.send("go"))
                await asyncio.sleep(0.5)
                other = asyncio.ensure_future(heard(two, "go"))
                await asyncio.sleep(0.5)
                assert one.cancel()
                with pytest.raises(CallCancelledError):
                    await first
                assert words(await other) == "Let me see bye "
                watch.close()
                told = [event async for event in watch]
            assert len(at.server.requests) == 2
            assert isinstance(told[-1], TurnEnded)
            assert not any(isinstance(event, ToolChanged) for event in told)
            assert at.shop.sessions == ["two"]
            at.expect_free()

    run(main())


def test_when_all_have_left_the_server_is_let_go() -> None:
    """The request that sessions share ends with the last of them, and not before (S0-41)."""

    async def main() -> None:
        async with (
            stage(stream([*said("one two")[:1], silent]), model=SAME) as at,
            at.session("one", user="ada") as one,
            at.session("two", user="ada") as two,
        ):
            sending = [asyncio.ensure_future(session.send("go")) for session in (one, two)]
            for session, left in ((one, 1), (two, 0)):
                await asyncio.sleep(0.5)
                assert session.cancel()
                await asyncio.sleep(0.5)
                assert at.server.busy == left
            ends = await asyncio.gather(*sending, return_exceptions=True)
            assert [type(end) for end in ends] == [CallCancelledError, CallCancelledError]
            assert len(at.server.requests) == 1
            at.expect_free()

    run(main())


async def reached(session: Session, state: AgentState) -> None:
    """Returns a moment after the session has come to this state."""
    there = asyncio.Event()

    def moved(move: StateTransition) -> None:
        if move.to_state is state:
            there.set()

    forget = session.machine.observe(moved)
    await there.wait()
    forget()
    await asyncio.sleep(0.1)
    assert session.state is state


STATES: Final[tuple[tuple[AgentState, Handler], ...]] = (
    (AgentState.PROCESSING_PROMPT, stream([silent])),
    (AgentState.GENERATING_RESPONSE, stream([*said("one two")[:1], silent])),
    (AgentState.GENERATING_RESPONSE, stream([*calling(LOOK)[:2], silent])),
    (AgentState.EXECUTING_TOOLS, stream(calling(LOOK, NOTE))),
    (AgentState.AWAITING_APPROVAL, stream(calling(PAY))),
    (AgentState.WAITING_FOR_USER, stream(calling(ASK, LOOK))),
    (AgentState.ERROR, answer(429, "{}", Retry_After="60")),
)


async def cancelled(at: Stage, session: Session, state: AgentState, how: str) -> None:
    """Cancels a turn in this state, twice."""
    sending = asyncio.ensure_future(session.send("go"))
    await reached(session, state)
    if how == "sender":
        sending.cancel()
        await asyncio.wait((sending,))
        assert sending.cancelled()
    elif how == "shutdown":
        await session.shutdown(drain=False)
        assert isinstance(sending.exception(), CallCancelledError)
    else:
        assert session.cancel()
        session.cancel()
        with pytest.raises(CallCancelledError):
            await sending
    assert not session.cancel()
    await asyncio.sleep(0.1)  # the server learns of it by its connection
    assert at.server.busy == 0


@pytest.mark.parametrize("how", ["session", "sender", "shutdown"])
@pytest.mark.parametrize(("state", "reply"), STATES)
def test_a_turn_is_cancelled_in_every_state(how: str, state: AgentState, reply: Handler) -> None:
    """Cancelled in any state, by the session, its sender or a shutdown, and twice, a turn ends once as
    cancelled: nothing is in flight, all places are free, no task is left, the server is let go, and
    the next turn works; after its end nothing happens (case 96, S2-25, S2-30)."""

    async def main() -> None:
        async with stage(reply) as at, at.session() as session:
            before = tasks()
            await cancelled(at, session, state, how)
            [turn] = session.turns
            assert turn.status is TurnStatus.CANCELLED
            assert all(call.status.terminal for call in turn.tool_calls)
            ends = [m for m in session.machine.history if m.to_state is AgentState.IDLE]
            assert len(ends) == 1
            at.expect_free()
            assert not tasks(before)
            assert not session.active_tools
            assert session.pending is None
            assert "note nut" not in at.shop.ended
            [shown] = [s for s in at.runtime.metrics.snapshot().series if s.name == "session"]
            assert shown.ever.by_ending == {Ending.CANCELLED: 1}
            if how != "shutdown":
                at.server.answers = [BYE]
                assert (await session.send("again")).agent_response == "bye "
                assert not session.cancel()
                assert [one.status for one in session.turns] == [
                    TurnStatus.CANCELLED,
                    TurnStatus.COMPLETED,
                ]
                at.expect_free()

    run(main())
