"""Where the tools of all sessions run."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.call import Effect
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.protocols import Preparation
from paceline.engine.requests import ToolRequest
from paceline.engine.states import (
    ExecutionContext,
    ExecutionPriority,
    ResourceLimits,
    ToolCall,
    ToolStatus,
)
from paceline.errors import RuntimeClosedError
from paceline.testing.virtual_time import VirtualClock, run
from tests.unit.engine.fakes import CONTEXT, FakeTool, FakeTools, pipeline_of, results, tasks, use

READ = Effect.read("a")


async def answer(
    pipeline: ToolPipeline, session: str, number: int, name: str = "read"
) -> list[ToolCall]:
    """One answer of a session that asks for so many calls."""
    batch = pipeline.batch(ExecutionContext(session, turn_id=session))
    batch.complete([use(name, n) for n in range(number)])
    return await batch.results()


def test_four_run_at_once_by_default() -> None:
    """The limit of a session that says nothing is that of the pipeline: four (S2-12, S2-19)."""

    async def main() -> None:
        tools = FakeTools({"read": FakeTool(READ)})
        pipeline = ToolPipeline(tools, clock=VirtualClock())
        await answer(pipeline, "s", 20)
        assert (tools.most, pipeline.concurrency) == (4, 4)

    run(main())


@settings(max_examples=30)
@given(st.integers(1, 4), st.integers(1, 40), st.integers(1, 6))
def test_a_shared_pipeline_is_fair_to_every_session(most: int, many: int, few: int) -> None:
    """A session with few calls is done after its share, however many another one has asked for
    before (S2-59)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(most, read=FakeTool(READ))
        greedy = asyncio.create_task(answer(pipeline, "greedy", many))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        modest = asyncio.create_task(answer(pipeline, "modest", few))
        await modest
        # What runs already, then one for one; and the last of its own.
        assert asyncio.get_running_loop().time() <= 1 + -(-2 * few // most) + 1
        await greedy
        assert len(tools.began) == many + few
        assert tools.most <= most

    run(main())


def test_many_requests_of_one_session_leave_the_others_their_share() -> None:
    """A session that submits 40 requests at once does not keep one that comes later from its turn
    (S2-59)."""

    async def main() -> None:
        pipeline, _ = pipeline_of(1, read=FakeTool(READ))
        greedy = [
            pipeline.submit(ToolRequest(use("read", n), ExecutionContext("greedy")))
            for n in range(40)
        ]
        await asyncio.sleep(0.5)
        await answer(pipeline, "modest", 3)
        # Each of its calls joins the queue once the one before is over: two others at most first.
        assert asyncio.get_running_loop().time() <= 3 * 3 + 1
        for handle in greedy:
            await handle

    run(main())


def test_sessions_beyond_the_queue_are_told_so() -> None:
    """Where more would wait than the queue takes, calls are REJECTED with a text (V-10)."""

    async def main() -> None:
        tools = FakeTools({"read": FakeTool(READ)})
        limits = ResourceLimits(max_concurrent_tools=1)
        pipeline = ToolPipeline(tools, clock=VirtualClock(), limits=limits, max_queue=2)
        found = await asyncio.gather(*(answer(pipeline, f"s{n}", 1) for n in range(5)))
        statuses = [calls[0].status for calls in found]
        assert statuses.count(ToolStatus.REJECTED) == 2
        assert statuses.count(ToolStatus.COMPLETED) == 3
        rejected = next(calls[0] for calls in found if calls[0].status is ToolStatus.REJECTED)
        assert rejected.result.startswith("Not run: the tool pipeline is at its limit of 1")

    run(main())


def test_a_tool_that_runs_tools_does_not_wait_for_itself() -> None:
    """Tools that run tools of the same pipeline, to any depth and with all places taken, come to
    an end (S2-19)."""

    async def main() -> None:
        async def deeper(preparation: Preparation) -> None:
            depth = int(preparation.use.arguments)
            if depth:
                calls = await results(
                    pipeline, *(use("outer", n, str(depth - 1)) for n in range(2))
                )
                assert {call.status for call in calls} == {ToolStatus.COMPLETED}

        pipeline, _ = pipeline_of(2, outer=FakeTool(READ, 1, inside=deeper))
        calls = await results(pipeline, *(use("outer", n, "3") for n in range(4)))
        assert {call.status for call in calls} == {ToolStatus.COMPLETED}
        assert pipeline.running == 0

    run(main())


def test_while_memory_is_short_fewer_run() -> None:
    """Shortage halves what runs at once, live, without stopping anything, and health gives it
    back (S2-53)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(4, read=FakeTool(READ, 2))
        going = asyncio.create_task(answer(pipeline, "s", 40))
        await asyncio.sleep(1)
        assert pipeline.running == 4
        assert pipeline.observe_memory(1.5) == pipeline.concurrency == 2
        assert tools.cancelled == []
        await asyncio.sleep(2)
        assert pipeline.running == 2
        assert [pipeline.observe_memory(0.95), pipeline.observe_memory(0.5)] == [2, 3]
        await asyncio.sleep(1)
        assert pipeline.observe_memory(0.5) == 4
        await asyncio.sleep(0)
        assert pipeline.running == 4
        assert {call.status for call in await going} == {ToolStatus.COMPLETED}

    run(main())


def test_closing_stops_what_runs_and_takes_no_more() -> None:
    """A closed pipeline has no task left, every call in a final state, and refuses others with an
    error (S2-08, V-10)."""

    async def main() -> None:
        async with ToolPipeline(
            FakeTools({"read": FakeTool(READ, 50)}), clock=VirtualClock()
        ) as pipeline:
            handles = [
                pipeline.submit(ToolRequest(use("read", n), ExecutionContext("s")))
                for n in range(6)
            ]
            going = asyncio.create_task(answer(pipeline, "t", 6))
            streaming = pipeline.batch(CONTEXT)
            streaming.add(use("read"))
            await asyncio.sleep(1)
        calls = [*[await handle for handle in handles], *await going, *streaming.calls]
        assert {call.status for call in calls} == {ToolStatus.CANCELLED}
        assert (pipeline.running, pipeline.waiting) == (0, 0)
        assert not tasks()
        with pytest.raises(RuntimeClosedError):
            pipeline.batch(CONTEXT)
        with pytest.raises(RuntimeClosedError):
            pipeline.submit(ToolRequest(use("read"), CONTEXT))
        await pipeline.aclose()

    run(main())


def test_a_session_has_tools_and_limits_of_its_own() -> None:
    """A batch runs the tools of its session, as many at once as that may (S2-12)."""

    async def main() -> None:
        pipeline, shared = pipeline_of(8, read=FakeTool(READ))
        own = FakeTools({"mine": FakeTool(READ)})
        limits = ResourceLimits(max_concurrent_tools=2, max_fan_out=5)
        batch = pipeline.batch(CONTEXT, tools=own, limits=limits, first=7)
        batch.complete([use("mine", n) for n in range(6)])
        calls = await batch.results()
        assert [call.id for call in calls] == [f"t1.{n}" for n in range(8, 14)]
        assert [call.status for call in calls] == [ToolStatus.COMPLETED] * 5 + [ToolStatus.REJECTED]
        assert (own.most, shared.began) == (2, [])
        assert batch.made == 13

    run(main())


def test_every_priority_is_one_of_calls() -> None:
    """Priorities of requests keep their order among those of calls (S2-36, V-08)."""
    urgency = [one.priority for one in ExecutionPriority]
    assert urgency == sorted(urgency)
    assert [one.value for one in ExecutionPriority] == [0, 1, 2, 3]
