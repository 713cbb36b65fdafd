"""The engine by itself: a session without a runtime of one's own."""

import asyncio
from pathlib import Path

import pytest

from paceline.agent_engine import AgentEngine, OptimizedAgentEngine
from paceline.call import Caller
from paceline.engine.events import TurnEnded
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.states import AgentState, ToolStatus, TransitionTrigger
from paceline.errors import CallCancelledError, ConfigError, RuntimeClosedError, UsageError
from paceline.testing.virtual_time import VirtualClock, run
from tests.unit.engine.fakes import FakeTool, FakeTools
from tests.unit.sessions.quiet import BYE, Said, a_runtime, asks


async def stock(item: str) -> int:
    """How many there are."""
    await asyncio.sleep(len(item))
    return 7


def test_a_message_is_answered() -> None:
    """An engine answers with the help of its tools, and shows where it is and has been (S2-15, S2-18,
    S2-25)."""

    async def main() -> None:
        model = Said(asks("stock", item="bolt"), BYE)
        engine = AgentEngine("s1", model=model, tools=[stock])
        assert engine.state == AgentState.SHUTDOWN.value
        async with engine:
            assert (engine.state.value, engine.session_id) == ("idle", "s1")
            turn = asyncio.create_task(engine.submit("How many?"))
            await asyncio.sleep(1)
            assert engine.state.value == "executing_tools"
            (tool,) = engine.active_tools.values()
            assert (tool.tool_name, tool.status) == ("stock", ToolStatus.RUNNING)
            done = await turn
            assert (done.agent_response, done.tool_calls[0].result) == ("bye", "7")
            assert engine.active_tools == {}
            moves = [move.trigger for move in engine.state_history]
            assert moves[0] is TransitionTrigger.USER_INPUT
            assert moves[-1] is TransitionTrigger.RESPONSE_READY
            events = [event async for event in engine.stream("Again?")]
            assert isinstance(events[-1], TurnEnded)
        assert engine.state is AgentState.SHUTDOWN
        assert model.open == 0

    run(main())


def test_it_is_started_and_ended_in_order() -> None:
    """Starting twice is an error with the words of old, ending twice is none, and it can be started
    again, with nothing said (S2-18, S2-47)."""

    async def main() -> None:
        model = Said(BYE)
        engine = AgentEngine("s1", model=model)
        with pytest.raises(RuntimeClosedError):
            await engine.submit("too early")
        await engine.shutdown()
        for _ in range(2):
            await engine.start()
            with pytest.raises(UsageError, match="State monitor already started"):
                await engine.start()
            await engine.submit("one")
            assert len(model.requests[-1].messages) == 1
            await engine.shutdown()
            await engine.shutdown()
            with pytest.raises(RuntimeClosedError):
                await engine.submit("too late")

    run(main())


def test_several_start_it_at_once() -> None:
    """Of two that start it at the same moment one does (S2-18)."""

    async def main() -> None:
        engine = AgentEngine("s1", model=Said(BYE))
        ends = await asyncio.gather(engine.start(), engine.start(), return_exceptions=True)
        assert sorted(type(end).__name__ for end in ends) == ["NoneType", "UsageError"]
        await engine.shutdown()

    run(main())


def test_what_cannot_be_started_can_be_started_later() -> None:
    """A start that fails leaves nothing open (S2-18)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            engine = AgentEngine("s1", runtime=runtime, model="said")
            with pytest.raises(ConfigError):
                await engine.start()
            runtime.add_model(Said(BYE))
            async with engine:
                assert (await engine.submit("go")).agent_response == "bye"

    run(main())


def test_a_turn_is_cancelled() -> None:
    """A turn is cancelled with the tools that run; the engine is idle then, and goes on (S2-25)."""

    async def main() -> None:
        async with AgentEngine(
            "s", model=Said(asks("stock", item="x" * 50), BYE), tools=[stock]
        ) as it:
            assert not it.cancel_turn()
            turn = asyncio.create_task(it.submit("go"))
            await asyncio.sleep(1)
            assert it.cancel_turn()
            with pytest.raises(CallCancelledError):
                await turn
            assert it.state is AgentState.IDLE
            assert (await it.submit("go")).agent_response == "bye"

    run(main())


@pytest.mark.parametrize("drain", [True, False])
def test_it_waits_for_a_turn_when_it_ends(drain: bool) -> None:
    """Ending it lets the turn that runs end, or cancels it at once, as is asked for (S2-25)."""

    async def main() -> None:
        model = Said(asks("stock", item="xxx"), BYE)
        engine = OptimizedAgentEngine("s", model=model, tools=[stock])
        await engine.start()
        turn = asyncio.create_task(engine.submit("go"))
        await asyncio.sleep(1)
        await engine.shutdown(drain=drain, timeout_s=10)
        if drain:
            assert (await turn).agent_response == "bye"
        else:
            with pytest.raises(CallCancelledError):
                await turn

    run(main())


def test_a_pipeline_is_shared() -> None:
    """A pipeline that is given serves with its own tools, for any number of engines, and is theirs not
    to close (S2-18, S2-34)."""

    async def main() -> None:
        tools = FakeTools({"pay": FakeTool(value="paid")})
        async with ToolPipeline(tools, clock=VirtualClock()) as pipeline:
            for name in ("one", "two"):
                async with AgentEngine(name, pipeline, model=Said(asks("pay"), BYE)) as engine:
                    turn = await engine.submit("go")
                assert turn.tool_calls[0].result == "pay: paid"
        assert [context.session_id for context in tools.contexts] == ["one", "two"]

    run(main())


def test_it_uses_the_runtime_it_is_given() -> None:
    """In a runtime that is there it is a session of that one, and leaves it open (S2-15)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            async with AgentEngine("s", runtime=runtime, model=Said(BYE), user="ada") as engine:
                await engine.submit("go")
            names = {series.name for series in runtime.metrics.snapshot().series}
            assert "session" in names
            async with runtime.session("s", model=Said(BYE)) as session:
                await session.send("go")

    run(main())


async def test_alone_it_leaves_nothing_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a runtime nothing is written, wherever it is used (S2-15)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PACELINE_HOME", str(tmp_path / "home"))
    async with AgentEngine("s", model=Said(BYE), user="ada") as engine:
        turn = await engine.submit("go")
        assert (turn.agent_response, Caller("ada", "s").user) == ("bye", "ada")
    assert [path for path in tmp_path.rglob("*") if path.suffix == ".db"] == []
