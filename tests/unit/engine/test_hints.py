"""What is known of tools ahead decides which begins first and which waits, and nothing else."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.call import Effect
from paceline.engine.batch import Batch
from paceline.engine.hooks import Hooks
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.protocols import Preparation
from paceline.engine.schedule import conflicting
from paceline.engine.states import (
    ExecutionContext,
    PerformanceHints,
    ResourceLimits,
    ToolCall,
    ToolStatus,
)
from paceline.testing.virtual_time import run
from tests.unit.engine.acting import Act, Acts, Foretells, Says, Script, session
from tests.unit.engine.acting import use as asked
from tests.unit.engine.fakes import FakeTool, FakeTools, pipeline_of, use

NS = 1_000_000_000
READ = Effect.read("a")
SLOW = PerformanceHints(resource_intensive_tools=("slow",))


def now_s() -> float:
    return asyncio.get_running_loop().time()


def takes(**seconds: float) -> PerformanceHints:
    """Hints that say how long tools take."""
    return PerformanceHints(expected_ns={name: round(s * NS) for name, s in seconds.items()})


def batch_of(
    pipeline: ToolPipeline, hints: PerformanceHints, session: str = "s", **options: Any
) -> Batch:
    """For the uses of one answer of a session that is told this."""
    course = pipeline.course(ExecutionContext(session, turn_id=session), **options)
    course.foresight = Foretells(hints)
    return pipeline.follow(course)


async def answer(
    pipeline: ToolPipeline, hints: PerformanceHints, *names: str, session: str = "s"
) -> list[ToolCall]:
    batch = batch_of(pipeline, hints, session)
    batch.complete([use(name, number) for number, name in enumerate(names)])
    return await batch.results()


def shared(most: int = 4, **tools: FakeTool) -> tuple[ToolPipeline, FakeTools]:
    """A pipeline that two sessions use."""
    pipeline, fakes = pipeline_of(most, **tools)
    pipeline.join("s")
    pipeline.join("t")
    return pipeline, fakes


# -- order ----------------------------------------------------------------------------------------


def test_the_longest_is_started_first_where_places_are_few() -> None:
    """Three reads of 1 s and one of 3 s, asked for last, are over after 3 s on two places, and not
    after 4; results stand in call order all the same (S2-10, S2-34)."""

    async def main(hints: PerformanceHints) -> float:
        pipeline, tools = pipeline_of(2, quick=FakeTool(READ, 1), long=FakeTool(READ, 3))
        calls = await answer(pipeline, hints, "quick", "quick", "quick", "long")
        assert [call.tool_name for call in calls] == ["quick", "quick", "quick", "long"]
        assert [call.id for call in calls] == [f"s.{n}" for n in range(1, 5)]
        assert tools.most == 2
        return now_s()

    assert run(main(takes(quick=1, long=3))) == 3
    assert run(main(takes(long=3))) == 3
    assert run(main(PerformanceHints())) == 4


def test_what_the_pipeline_knows_itself_comes_first() -> None:
    """Where a pipeline says how long a tool takes, that counts, and hints only for the others
    (S2-10, S2-07)."""

    async def main() -> list[str]:
        pipeline, tools = pipeline_of(
            1, a=FakeTool(READ, 1), b=FakeTool(READ, 2), c=FakeTool(READ, 3)
        )
        pipeline._floor.expected_ns = {"a": 9 * NS}.get
        await answer(pipeline, takes(a=1, b=2, c=3), "b", "a", "c")
        return [name[0] for name in tools.began]

    assert run(main()) == ["a", "c", "b"]


def test_equals_are_started_as_they_were_asked_for() -> None:
    """Uses of which the same is known begin in call order, and so do all where there are places
    for them (S2-10, S2-34)."""

    async def main(most: int, hints: PerformanceHints) -> list[str]:
        pipeline, tools = pipeline_of(most, a=FakeTool(READ, 1), b=FakeTool(READ, 1))
        await answer(pipeline, hints, "a", "b", "a", "b")
        return tools.began

    plain = ["a-0", "b-1", "a-2", "b-3"]
    assert run(main(2, takes(a=1, b=1))) == plain
    assert run(main(4, takes(a=1, b=2))) == plain
    assert run(main(2, takes(a=1, b=2))) == ["b-1", "b-3", "a-0", "a-2"]


def test_places_that_others_have_count_too() -> None:
    """Where a session may run more at once than the pipeline has places left, its longest is the first
    to get one (S2-10, S2-59)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(4, a=FakeTool(READ, 1), b=FakeTool(READ, 5))
        others = asyncio.create_task(answer(pipeline, takes(), *["a"] * 3, session="t"))
        await asyncio.sleep(0.5)
        tools.began.clear()
        await answer(pipeline, takes(a=1, b=5), "a", "a", "b")
        assert tools.began == ["b-2", "a-0", "a-1"]
        await others

    run(main())


def test_people_are_asked_in_the_order_of_calling() -> None:
    """What a person has to agree to is asked for in call order, however long it takes (S2-10)."""
    asked: list[str] = []

    async def approve(call_id: str, _: Preparation) -> str | None:
        asked.append(call_id)
        return None

    async def main() -> None:
        tools = {name: FakeTool(READ, 1, approval=True) for name in "abc"}
        pipeline, _ = pipeline_of(1, **tools)
        batch = batch_of(pipeline, takes(a=1, b=2, c=3), hooks=Hooks(approve=approve))
        batch.complete([use(name) for name in "abc"])
        await batch.results()

    run(main())
    assert asked == ["s.1", "s.2", "s.3"]


EFFECTS = (
    Effect.pure(),
    READ,
    Effect.read("b"),
    Effect.write("a"),
    Effect.write(),
    Effect.unknown(),
)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(EFFECTS), st.integers(1, 4)), min_size=1, max_size=8),
    st.lists(st.integers(0, 9), min_size=8, max_size=8),
    st.sets(st.integers(0, 7)),
    st.integers(1, 4),
    st.booleans(),
)
def test_hints_loosen_nothing(
    tools: list[tuple[Effect, int]],
    expected: list[int],
    intensive: set[int],
    most: int,
    streamed: bool,
) -> None:
    """Whatever is said of tools ahead, right or wrong, each runs once, none beside one that it must
    wait for, no more at once than may, and texts are the same in the same order (S2-10, S2-19, S2-29)."""

    async def main(hints: PerformanceHints) -> list[tuple[str, ToolStatus]]:
        pipeline, fakes = shared(
            most, **{f"t{n}": FakeTool(effect, s) for n, (effect, s) in enumerate(tools)}
        )
        uses = [use(f"t{n}", n) for n in range(len(tools))]
        batch = batch_of(pipeline, hints)
        for one in uses if streamed else ():
            batch.add(one)
        batch.complete(uses)
        calls = await batch.results()
        assert sorted(fakes.began) == sorted(one.id for one in uses)
        for pair in fakes.together:
            first, second = sorted(int(name.rpartition("-")[2]) for name in pair)
            assert not conflicting(tools[first][0], tools[second][0])
        assert fakes.most <= most
        assert (pipeline.running, pipeline._floor.intensive.in_use) == (0, 0)
        return [(call.result, call.status) for call in calls]

    hints = PerformanceHints(
        expected_ns={f"t{n}": expected[n] * NS for n in range(len(tools))},
        resource_intensive_tools=tuple(f"t{n}" for n in sorted(intensive)),
    )
    assert run(main(hints)) == run(main(PerformanceHints()))


# -- places ---------------------------------------------------------------------------------------


def test_slow_tools_leave_a_place_to_the_others() -> None:
    """Of four places slow tools of all sessions together hold three, so that a quick tool of another
    session begins at once (S2-10, K-05)."""

    async def main() -> None:
        pipeline, tools = shared(slow=FakeTool(READ, 60), quick=FakeTool(READ, 1))
        going = [
            asyncio.create_task(answer(pipeline, SLOW, "slow", "slow", "slow", session=name))
            for name in ("s", "t")
        ]
        await asyncio.sleep(1)
        assert (len(tools.running), pipeline.running, pipeline.waiting) == (3, 3, 3)
        for _ in range(3):
            (call,) = await answer(pipeline, SLOW, "quick", session="u")
            assert (call.status, call.queue_ns) == (ToolStatus.COMPLETED, 0)
        await asyncio.gather(*going)
        assert now_s() == 120
        assert (pipeline.running, pipeline.waiting, pipeline._floor.intensive.in_use) == (0, 0, 0)

    run(main())


def test_who_is_alone_has_all_places() -> None:
    """As long as one session uses a pipeline its slow tools take every place; when another one comes,
    and until it goes, they leave one, and what runs goes on (S2-10, K-05)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(slow=FakeTool(READ, 10))
        pipeline.join("s")
        going = asyncio.create_task(answer(pipeline, SLOW, *["slow"] * 12))
        await asyncio.sleep(1)
        assert len(tools.running) == 4
        pipeline.join("t")
        pipeline.join("t")
        assert tools.cancelled == []
        await asyncio.sleep(10)
        assert len(tools.running) == 3
        pipeline.part("t")
        pipeline.part("t")
        await asyncio.sleep(0)
        assert len(tools.running) == 4
        assert {call.status for call in await going} == {ToolStatus.COMPLETED}

    run(main())


@pytest.mark.parametrize(("most", "intensive"), [(1, 1), (2, 1), (3, 2)])
def test_one_place_is_everybodys(most: int, intensive: int) -> None:
    """Slow tools have all places but one, and the only one where there are no more (S2-10)."""

    async def main() -> None:
        pipeline, tools = shared(most, slow=FakeTool(READ, 5))
        calls = await answer(pipeline, SLOW, *["slow"] * 4)
        assert tools.most == intensive
        assert {call.status for call in calls} == {ToolStatus.COMPLETED}

    run(main())


def test_while_memory_is_short_slow_tools_have_fewer_places() -> None:
    """What slow tools may hold follows the places there are (S2-10, S2-53)."""

    async def main() -> None:
        pipeline, tools = shared(slow=FakeTool(READ, 2), quick=FakeTool(READ, 1))
        assert pipeline.observe_memory(1.5) == 2
        going = asyncio.create_task(answer(pipeline, SLOW, *["slow"] * 6))
        await asyncio.sleep(1)
        assert len(tools.running) == 1
        assert (await answer(pipeline, SLOW, "quick", session="t"))[0].queue_ns == 0
        for _ in range(2):
            pipeline.observe_memory(0.5)
            await asyncio.sleep(2)
        assert len(tools.running) == 3
        await going

    run(main())


def test_quick_tools_of_an_answer_do_not_wait_for_its_slow_ones() -> None:
    """Of an answer with five slow reads and two quick ones the quick ones are over first, as no more
    slow ones are started than have places (S2-10)."""

    async def main() -> None:
        hints = PerformanceHints(
            resource_intensive_tools=("slow",), expected_ns={"slow": 9 * NS, "quick": NS}
        )
        pipeline, tools = shared(slow=FakeTool(READ, 9), quick=FakeTool(READ, 1))
        await answer(pipeline, hints, *["slow"] * 5, "quick", "quick")
        assert tools.ended[:2] == ["quick-5", "quick-6"]
        assert now_s() == 18

    run(main())


def test_a_slow_tool_lends_its_places_to_those_it_runs() -> None:
    """Slow and quick tools that run slow and quick ones, with all places taken, come to an end, and
    give back what they took (S2-10, S2-19)."""

    async def main() -> None:
        async def deeper(preparation: Preparation) -> None:
            depth = int(preparation.use.arguments)
            if depth:
                batch = batch_of(pipeline, SLOW)
                arguments = str(depth - 1)
                batch.complete([use(name, 0, arguments) for name in ("slow", "quick", "slow")])
                assert {call.status for call in await batch.results()} == {ToolStatus.COMPLETED}

        pipeline, _ = shared(
            2, slow=FakeTool(READ, 1, inside=deeper), quick=FakeTool(READ, 1, inside=deeper)
        )
        batch = batch_of(pipeline, SLOW)
        batch.complete([use(name, n, "3") for n, name in enumerate(["quick", "quick", "slow"])])
        assert {call.status for call in await batch.results()} == {ToolStatus.COMPLETED}
        assert (pipeline.running, pipeline._floor.intensive.in_use) == (0, 0)

    run(main())


def test_a_slow_tool_that_is_given_up_leaves_both_places() -> None:
    """Whoever is cancelled while a slow tool runs, or waits, gives back all that was taken (S2-10)."""

    async def main() -> None:
        pipeline, _ = shared(slow=FakeTool(READ, 9))
        batch = batch_of(pipeline, SLOW)
        batch.complete([use("slow", n) for n in range(5)])
        going = asyncio.create_task(batch.results())
        await asyncio.sleep(1)
        going.cancel()
        await asyncio.wait([going])
        assert (pipeline.running, pipeline.waiting, pipeline._floor.intensive.in_use) == (0, 0, 0)

    run(main())


def test_a_session_whose_end_is_cancelled_leaves_its_pipeline() -> None:
    """Whoever is cancelled while he shuts a session down leaves nobody behind who shares the pipeline
    (S2-10, S2-25)."""

    async def main() -> None:
        one = session(Script(Says("1", after_s=100)))
        sending = asyncio.ensure_future(one.send("go"))
        await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await one.shutdown(timeout_s=50)
        assert one._means.pipeline._sessions == set()
        await asyncio.wait((sending,))

    run(main())


def test_sessions_join_their_pipeline_while_they_last() -> None:
    """A session counts as one that shares the pipeline from its first message until it is shut down;
    without anybody who looks ahead none of its tools is slow (S2-10)."""

    async def main() -> None:
        one = session(Script(Says(uses=(asked("read"),)), Says("1")), foresight=Foretells(SLOW))
        pipeline = one._means.pipeline
        assert pipeline._sessions == set()
        await one.send("go")
        assert pipeline._sessions == {"s"}
        await one.shutdown()
        assert pipeline._sessions == set()
        await one.shutdown()
        other = session(Script(Says("1")))
        await other.shutdown()
        assert other._means.pipeline._sessions == set()

    run(main())


def test_hints_of_the_session_reach_its_tools() -> None:
    """What a session is told ahead holds for the tools of its turns, as it is when they begin
    (S2-10, V-38)."""

    async def main() -> None:
        ahead = Foretells(PerformanceHints(resource_intensive_tools=("read",)))
        seen: list[int] = []
        acts = Acts(read=Act())
        script = Script(Says(uses=(asked("read"),)), Says(uses=(asked("read"),)), Says("1"))
        one = session(script, acts, foresight=ahead)
        floor = one._means.pipeline._floor
        plain = acts.run

        def watched(*args: Any, **options: Any) -> Any:
            seen.append(floor.intensive.in_use)
            ahead.hints = PerformanceHints()
            return plain(*args, **options)

        acts.run = watched  # type: ignore[method-assign]
        await one.send("go")
        assert seen == [1, 0]
        assert floor.intensive.in_use == 0

    run(main())


def test_a_limit_of_the_session_is_its_own() -> None:
    """A session that may run two tools at once runs its two longest first, slow or not (S2-10,
    S2-12)."""

    async def main() -> list[str]:
        pipeline, tools = shared(
            8, a=FakeTool(READ, 1), b=FakeTool(READ, 3), slow=FakeTool(READ, 9)
        )
        hints = PerformanceHints(
            resource_intensive_tools=("slow",),
            expected_ns={"a": NS, "b": 3 * NS, "slow": 9 * NS},
        )
        batch = batch_of(pipeline, hints, limits=ResourceLimits(max_concurrent_tools=2))
        batch.complete([use(name) for name in ("a", "b", "slow")])
        await batch.results()
        return tools.began

    assert run(main()) == ["slow-0", "b-0", "a-0"]
