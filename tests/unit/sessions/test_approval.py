"""What of a tool a person is asked about, however a session is given it."""

import functools
import math
from typing import Any

import pytest

from paceline import Runtime
from paceline.agent_engine import AgentEngine
from paceline.call import EffectKind
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.states import ResourceLimits, ToolStatus
from paceline.errors import AgentLoadError, UsageError
from paceline.testing.virtual_time import VirtualClock, run
from paceline.tools.function import function_tool
from tests.unit.engine.fakes import FakeTool, FakeTools
from tests.unit.sessions.quiet import BYE, Said, a_runtime, asks

BRIEF = ResourceLimits(approval_timeout_s=1)


async def status(runtime: Runtime, name: str, **options: Any) -> ToolStatus:
    """What became of a tool, where nobody says yes."""
    model = Said(asks(name), BYE)
    async with runtime.session(model=model, limits=BRIEF, **options) as session:
        (call,) = (await session.send("go")).tool_calls
    return call.status


def test_options_travel_with_the_function() -> None:
    """A function that was declared a tool is the same tool wherever a session is given it: by name, as
    a function, wrapped, or by an engine with a runtime of its own (S2-35)."""

    async def main() -> None:
        ran: list[str] = []
        async with a_runtime() as runtime:

            @runtime.tool(effect="write", tags=("db",), approval=True)
            async def drop() -> str:
                ran.append("drop")
                return "dropped"

            @functools.wraps(drop)
            async def wrapped() -> str:
                return await drop()

            for given in ("drop", drop, wrapped):
                assert await status(runtime, "drop", tools=[given]) is ToolStatus.REJECTED
            spec = function_tool(drop)
            assert spec is runtime.sessions._catalogue.tools["drop"]
            around = function_tool(wrapped)
            assert (around.run, around.approval) == (wrapped, True)
            assert around.plan({}).effect == spec.plan({}).effect
        engine = AgentEngine("e", model=Said(asks("drop"), BYE), tools=[drop], limits=BRIEF)
        async with engine:
            (call,) = (await engine.submit("go")).tool_calls
        assert (call.status, ran) == (ToolStatus.REJECTED, [])

    run(main())


def test_methods_carry_their_options_too() -> None:
    """A method is the tool it was declared to be, of any object; what has no place to note options is
    refused with them, and is a tool without (S2-35)."""

    class Store:
        def drop(self) -> str:
            raise AssertionError

    class Sealed:
        __slots__ = ()
        __name__ = "sealed"

        def __call__(self) -> None: ...

    one, other, sealed = Store(), Store(), Sealed()
    runtime = a_runtime()
    runtime.tool(effect="write", approval=True)(one.drop)
    assert function_tool(one.drop) is function_tool(one.drop)
    found = function_tool(other.drop)
    assert (found.run, found.approval, found.effect.kind) == (other.drop, True, EffectKind.WRITE)
    with pytest.raises(AgentLoadError, match="cannot carry its options"):
        runtime.tool(approval=True)(sealed)
    runtime.tool()(sealed)


def test_the_latest_declaration_counts() -> None:
    """Options that are given count; without any the function is what it was last declared to be
    (S2-35)."""

    def count() -> int:
        return math.inf  # type: ignore[return-value]

    runtime = a_runtime()
    runtime.tool(effect="read", ttl_s=5)(count)
    runtime.tool(effect="write")(count)
    assert function_tool(count, effect="pure").effect.kind is EffectKind.PURE
    assert function_tool(count).effect.kind is EffectKind.WRITE


@pytest.mark.parametrize(
    ("setting", "option", "asked"),
    [
        ([], None, set()),
        (["ask"], None, {"ask"}),
        (["*"], None, {"ask", "look"}),
        (["*"], [], set()),
        ([], ["l*k", "nothing"], {"look"}),
    ],
)
def test_agents_and_tools_are_approved_by_pattern(
    setting: list[str],
    option: list[str] | None,
    asked: set[str],
) -> None:
    """A person is asked about the tools and agents that the settings name, or the session does in
    their place, and about what asks itself always (S2-35)."""

    async def main() -> None:
        async with a_runtime(chat={"approve": setting}) as runtime:

            @runtime.agent(name="ask")
            async def ask(query: str) -> str:
                return query

            @runtime.tool(effect="read")
            async def look(query: str) -> str:
                return query

            @runtime.tool(approval=True)
            async def drop(query: str) -> None: ...

            found: set[str] = set()
            for name in ("ask", "look", "drop"):
                model = Said(asks(name, query="x"), BYE)
                async with runtime.session(
                    model=model, tools=["*"], approve=option, limits=BRIEF
                ) as session:
                    (call,) = (await session.send("go")).tool_calls
                if call.status is ToolStatus.REJECTED:
                    found.add(name)
            assert found == asked | {"drop"}

    run(main())


@pytest.mark.parametrize("options", [{"tools": []}, {"tools": ["x"]}, {"approve": ["x"]}], ids=str)
def test_a_pipeline_takes_no_tools(options: dict[str, Any]) -> None:
    """A session with a pipeline of others is refused tools and approvals of its own (S2-18)."""

    async def main() -> None:
        pipeline = ToolPipeline(FakeTools({"look": FakeTool()}), clock=VirtualClock())
        async with a_runtime() as runtime, pipeline:
            with pytest.raises(UsageError, match="tools of its own"):
                async with runtime.session(model=Said(BYE), pipeline=pipeline, **options):
                    pass
            async with runtime.session(model=Said(BYE), pipeline=pipeline) as session:
                await session.send("go")

    run(main())
