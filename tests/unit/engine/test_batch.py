"""The tool uses of one answer: which run when, and in which order they are answered."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.call import Effect, EffectKind, current_call
from paceline.engine.hooks import Hooks
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.schedule import Schedule
from paceline.engine.states import ResourceLimits, ToolCall, ToolStatus
from paceline.errors import Category
from paceline.testing.virtual_time import VirtualClock, run
from tests.unit.engine.fakes import (
    CONTEXT,
    FakeTool,
    FakeTools,
    pipeline_of,
    results,
    tasks,
    use,
)

NS = 1_000_000_000
READ, WRITE = Effect.read("a"), Effect.write("a")


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def test_reads_run_together_and_are_answered_in_the_order_of_calling() -> None:
    """Three reads that take 3, 1 and 2 s take 3 s together, and their results stand in call order
    (S2-29, S2-34)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(
            slow=FakeTool(READ, 3), fast=FakeTool(READ, 1), middle=FakeTool(READ, 2)
        )
        calls = await results(pipeline, use("slow"), use("fast"), use("middle"))
        assert now_s() == 3
        assert tools.ended == ["fast-0", "middle-0", "slow-0"]
        assert [(call.id, call.tool_name, call.result) for call in calls] == [
            ("t1.1", "slow", "slow: done"),
            ("t1.2", "fast", "fast: done"),
            ("t1.3", "middle", "middle: done"),
        ]
        assert {call.status for call in calls} == {ToolStatus.COMPLETED}
        assert not tasks()

    run(main())


def test_one_call_alone_runs_in_the_task_that_awaits_it() -> None:
    """A call that nothing runs beside costs no task, and neither does a row of them (S2-34)."""

    async def main() -> None:
        ran_in: list[object] = []
        pipeline, _ = pipeline_of(
            run=FakeTool(inside=lambda _: ran_in.append(asyncio.current_task()))
        )
        await results(pipeline, *(use("run", n) for n in range(3)))
        assert ran_in == [asyncio.current_task()] * 3

    run(main())


EFFECTS = st.builds(
    Effect,
    st.sampled_from(EffectKind),
    st.lists(st.sampled_from("ab"), max_size=2, unique=True).map(tuple),
)


def together(effects: list[Effect], one: int, other: int) -> bool:
    """Whether these two may run together."""
    schedule = Schedule()
    schedule.add(effects[min(one, other)])
    return schedule.free(effects[max(one, other)])


@settings(max_examples=150)
@given(
    st.lists(st.tuples(EFFECTS, st.integers(0, 5), st.integers(0, 3)), max_size=8),
    st.integers(1, 4),
    st.data(),
)
def test_whatever_is_called_ends_and_nothing_conflicting_overlaps(
    calls: list[tuple[Effect, int, int]], most: int, data: st.DataObject
) -> None:
    """For all effects, durations, pauses of the stream and limits: no two calls that conflict
    overlap, writes keep their order, nothing is left out and results are in call order (S2-29,
    S2-30)."""
    effects = [effect for effect, _, _ in calls]
    heard = data.draw(st.integers(0, len(calls)))

    async def main() -> None:
        pipeline, tools = pipeline_of(
            most, **{f"t{n}": FakeTool(e, s) for n, (e, s, _) in enumerate(calls)}
        )
        uses = [use(f"t{n}") for n in range(len(calls))]
        batch = pipeline.batch(CONTEXT)
        for one, (_, _, pause_s) in zip(uses[:heard], calls, strict=False):
            batch.add(one)
            await asyncio.sleep(pause_s)
        assert all(effects[int(began[1:-2])].repeatable for began in tools.began)
        batch.complete(uses)
        found = await batch.results()
        assert [call.tool_name for call in found] == [one.name for one in uses]
        assert all(call.status is ToolStatus.COMPLETED for call in found)
        assert tools.most <= most
        assert sorted(tools.began) == sorted(one.id for one in uses)
        for pair in tools.together:
            assert together(effects, *(int(name[1:-2]) for name in pair))
        for later in range(len(calls)):
            for earlier in range(later):
                if not together(effects, earlier, later):
                    first, second = f"t{earlier}-0", f"t{later}-0"
                    assert tools.ended.index(first) < tools.ended.index(second)
                    assert tools.began.index(first) < tools.began.index(second)
        assert pipeline.running == pipeline.waiting == 0
        assert not tasks()

    run(main())


def test_what_does_no_harm_starts_while_the_answer_streams_in() -> None:
    """A read starts at once, a write or a call that waits for it only when the answer is complete
    (S2-29)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(read=FakeTool(READ), write=FakeTool(WRITE))
        batch = pipeline.batch(CONTEXT)
        batch.add(use("read", 1))
        await turns(1)
        assert tools.began == ["read-1"]
        batch.add(use("write", 2))
        batch.add(use("read", 3))
        await asyncio.sleep(5)
        assert tools.began == ["read-1"]
        batch.complete([use("read", 1), use("write", 2), use("read", 3)])
        calls = await batch.results()
        assert tools.began == ["read-1", "write-2", "read-3"]
        assert [call.id for call in calls] == ["t1.1", "t1.2", "t1.3"]
        assert now_s() == 7

    run(main())


def test_an_early_call_is_no_part_of_the_model_call_that_asked_for_it() -> None:
    """What is started while an answer is heard runs in the context of the turn (S2-38)."""

    async def main() -> None:
        seen: list[object] = []
        pipeline, _ = pipeline_of(
            read=FakeTool(READ, inside=lambda _: seen.append(current_call.get()))
        )
        batch = pipeline.batch(CONTEXT)
        token = current_call.set("the model's")  # type: ignore[arg-type]
        batch.add(use("read"))
        current_call.reset(token)
        await batch.results()
        assert seen == [None]

    run(main())


def test_an_answer_made_anew_keeps_what_was_started_for_the_same() -> None:
    """After a restart the same read is not run again, and what nobody asks for any more is stopped
    (S2-29)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(read=FakeTool(READ, 3), fast=FakeTool(READ, 1))
        told: list[ToolCall] = []
        batch = pipeline.batch(CONTEXT, hooks=Hooks(changed=told.append))
        for one in (use("fast", 1), use("read", 2), use("read", 3, '{"a": 1}'), use("nothing", 4)):
            batch.add(one)
        await asyncio.sleep(2)
        batch.restarted()
        assert batch.calls == []
        batch.add(use("read", 5))
        batch.add(use("fast", 6))
        calls = await batch.results()
        assert now_s() == 3
        assert tools.began == ["fast-1", "read-2", "read-3"]
        assert tools.cancelled == ["read-3"]
        assert [(call.id, call.status) for call in calls] == [
            ("t1.2", ToolStatus.COMPLETED),
            ("t1.1", ToolStatus.COMPLETED),
        ]
        assert [call.id for call in told if call.status is ToolStatus.CANCELLED] == ["t1.3"]
        assert batch.made == 4
        assert not tasks()

    run(main())


def test_what_was_read_before_a_write_does_not_answer_a_read_after_it() -> None:
    """A read that a new answer places behind a write is run again (S2-29)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(read=FakeTool(READ), write=FakeTool(WRITE))
        batch = pipeline.batch(CONTEXT)
        batch.add(use("read", 1))
        await asyncio.sleep(2)
        batch.complete([use("write", 2), use("read", 3)])
        calls = await batch.results()
        assert tools.began == ["read-1", "write-2", "read-3"]
        assert [call.tool_name for call in calls] == ["write", "read"]

    run(main())


def test_a_write_waits_until_stopped_reads_have_stopped() -> None:
    """What an answer does not ask for any more has stopped before its writes begin (S2-29)."""

    async def main() -> None:
        async def slow_to_stop() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(1)

        pipeline, tools = pipeline_of(
            read=FakeTool(READ, inside=lambda _: slow_to_stop()), write=FakeTool(WRITE)
        )
        batch = pipeline.batch(CONTEXT)
        batch.add(use("read"))
        await turns()
        batch.complete([use("write")])
        await batch.results()
        assert not tools.together
        assert tools.cancelled == ["read-0"]

    run(main())


def test_one_that_was_dropped_before_its_task_ran_gives_its_place_back() -> None:
    """A read that is cancelled before its first step never runs, and keeps nobody waiting (S2-08)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(1, read=FakeTool(READ), write=FakeTool(WRITE))
        batch = pipeline.batch(CONTEXT)
        batch.add(use("read"))
        batch.restarted()
        batch.add(use("write", 1))
        batch.add(use("write", 2))
        calls = await batch.results()
        assert tools.began == ["write-1", "write-2"]
        assert {call.status for call in calls} == {ToolStatus.COMPLETED}
        assert not tasks()

    run(main())


def test_only_the_late_one_is_stopped() -> None:
    """A tool beyond its time is TIMED_OUT with a text for the model, and the others go on (S2-37,
    S2-39, S2-52)."""

    async def main() -> None:
        pipeline, _ = pipeline_of(
            slow=FakeTool(READ, 50, timeout_s=2),
            write=FakeTool(WRITE, 9, timeout_s=1),
            ok=FakeTool(Effect.pure(), 4),
        )
        slow, ok, write = await results(pipeline, use("slow"), use("ok"), use("write"))
        assert now_s() == 4
        assert slow.status is write.status is ToolStatus.TIMED_OUT
        assert slow.result == "Timed out: no answer in 2 s"
        assert write.result == "Timed out: no answer in 1 s; it may have taken effect all the same"
        assert slow.category is Category.TIMEOUT
        assert ok.status is ToolStatus.COMPLETED

    run(main())


def test_no_tool_has_more_time_than_the_turn() -> None:
    """The limit of a call is the lesser of its tool's and what is left of the turn, and none is
    run when nothing is left (S2-12, S2-37)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(
            a=FakeTool(seconds=4, timeout_s=60), b=FakeTool(seconds=1, timeout_s=2), c=FakeTool()
        )
        batch = pipeline.batch(CONTEXT, deadline_ns=5 * NS)
        batch.complete([use("a"), use("b"), use("c"), use("c", 1)])
        found = await batch.results()
        assert tools.limits_s == {
            "a-0": 5,
            "b-0": 1,
        }
        assert [call.status for call in found[:2]] == [ToolStatus.COMPLETED] * 2
        assert [call.result for call in found[2:]] == [
            "Timed out: there was no time left for it"
        ] * 2
        later = pipeline.batch(CONTEXT, deadline_ns=6 * NS)
        assert later.deadline_ns == 6 * NS
        later.deadline_ns = 9 * NS
        later.complete([use("c", 2), use("a", 2)])
        await later.results()
        assert tools.limits_s["c-2"] == 4
        assert (await results(pipeline, use("c", 3)))[0].status is ToolStatus.COMPLETED
        assert tools.limits_s["c-3"] == ResourceLimits().max_execution_s

    run(main())


def test_what_cannot_be_run_tells_the_model_why() -> None:
    """Unknown tools and wrong arguments are REJECTED with a text to correct them by, and the
    others run (S2-35, V-36)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(read=FakeTool(READ))
        calls = await results(pipeline, use("raed"), use("read", 1, "{"), use("read"))
        assert [call.status for call in calls] == [
            ToolStatus.REJECTED,
            ToolStatus.REJECTED,
            ToolStatus.COMPLETED,
        ]
        assert calls[0].result == "Not run: there is no tool raed; did you mean read?"
        assert calls[0].category is Category.NOT_FOUND
        assert calls[1].result == "Not run: the arguments of read are no JSON"
        assert calls[1].args == "{"
        assert tools.began == ["read-0"]

    run(main())


def test_more_uses_than_allowed_are_not_run() -> None:
    """An answer that asks for 792 calls gets 64 of them and is told so for the others, and never
    do more than 4 run or exist as tasks (S2-12, S2-19)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(read=FakeTool(READ, 0.5))
        batch = pipeline.batch(CONTEXT)
        batch.complete([use("read", n) for n in range(792)])
        seen: list[int] = []

        async def watch() -> None:
            while True:
                seen.append(len(tasks()))
                await asyncio.sleep(0.1)

        watching = asyncio.create_task(watch())
        calls = await batch.results()
        watching.cancel()
        assert len(calls) == 792
        assert len(tools.began) == 64
        assert tools.most == 4
        assert max(seen) <= 4 + 1  # and the main task
        assert {call.status for call in calls[64:]} == {ToolStatus.REJECTED}
        assert "64 tool calls at most" in calls[64].result
        assert calls[64].category is Category.EXHAUSTED

    run(main())


@pytest.mark.parametrize("effect", [Effect.pure(), READ, WRITE, Effect.unknown()])
def test_any_number_of_uses_runs_a_few_at_a_time(effect: Effect) -> None:
    """Where their number has no limit, 792 uses of any effect all run, four at once at most
    (S2-19)."""

    async def main() -> None:
        tools = FakeTools({"tool": FakeTool(effect, 0.01)})
        limits = ResourceLimits(max_fan_out=0)
        pipeline = ToolPipeline(tools, clock=VirtualClock(), limits=limits)
        calls = await results(pipeline, *(use("tool", n) for n in range(792)))
        assert {call.status for call in calls} == {ToolStatus.COMPLETED}
        assert len(tools.began) == 792
        assert tools.most == (4 if effect.repeatable else 1)

    run(main())
