"""The tool uses of one answer, cancelled at any moment."""

import asyncio
import contextlib
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.call import Effect
from paceline.engine.hooks import Hooks
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.protocols import Preparation
from paceline.engine.states import ToolCall, ToolStatus
from paceline.testing.virtual_time import run
from tests.unit.engine.fakes import CONTEXT, FakeTool, FakeTools, pipeline_of, tasks, use

READ, WRITE = Effect.read("a"), Effect.write("a")
USES = [
    use("read", 1),
    use("read", 2),
    use("careful", 3),
    use("none", 4),
    use("write", 5),
    use("read", 6),
    use("slow", 7),
]
STEPS = 14  # of the loop, after which nothing moves until time does
SECONDS = 12


class Course:
    """A batch with everything in it, and what was told of it."""

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.told: dict[str, list[ToolStatus]] = {}
        self.pipeline, self.tools = self.made()
        hooks = Hooks(approve=self.approve, begin=self.begin, changed=self.changed, ended=self.over)
        self.batch = self.pipeline.batch(CONTEXT, hooks=hooks)

    def made(self) -> tuple[ToolPipeline, FakeTools]:
        return pipeline_of(
            2,
            read=FakeTool(READ, 2),
            careful=FakeTool(WRITE, 1, approval=True),
            write=FakeTool(WRITE, 1),
            slow=FakeTool(READ, 9, timeout_s=2, inside=lambda _: self.linger()),
        )

    async def linger(self) -> None:
        """Takes a moment to stop."""
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            await asyncio.sleep(1)
            raise

    async def approve(self, call_id: str, preparation: Preparation) -> str | None:
        await asyncio.sleep(1)
        return None

    async def begin(self, call_id: str, preparation: Preparation) -> None:
        await asyncio.sleep(0)

    def changed(self, call: ToolCall) -> None:
        self.told.setdefault(call.id, []).append(call.status)

    def over(self, preparation: Preparation, call: ToolCall) -> None:
        self.ended[call.id] += 1

    async def go(self) -> list[ToolCall]:
        for one in USES[:2]:
            self.batch.add(one)
            await asyncio.sleep(0.5)
        self.batch.complete(USES)
        return await self.batch.results()

    def check(self) -> None:
        """Whether all is over, each in one way."""
        assert not tasks()
        assert self.pipeline.running == self.pipeline.waiting == 0
        assert not self.pipeline._floor.live
        assert not self.tools.running
        assert all(call.status.terminal for call in self.batch.calls)
        assert all(count == 1 for count in self.ended.values())
        for told in self.told.values():
            assert [status.terminal for status in told] == [False] * (len(told) - 1) + [True]
        prepared = {call.id for call in self.batch.calls if call.tool_name != "none"}
        assert set(self.ended) == prepared


def test_the_course_takes_as_long_as_is_cancelled_below() -> None:
    """Undisturbed, the course ends within the moments at which it is cancelled (S2-34)."""

    async def main() -> None:
        course = Course()
        calls = await course.go()
        assert [call.status.value for call in calls] == [
            "completed",
            "completed",
            "completed",
            "rejected",
            "completed",
            "completed",
            "timed_out",
        ]
        assert asyncio.get_running_loop().time() < SECONDS
        course.check()

    run(main())


@pytest.mark.parametrize("half_seconds", range(2 * SECONDS))
def test_cancelled_at_any_moment_nothing_is_left(half_seconds: int) -> None:
    """Cancelled at any step of any moment, no task, place or open call is left, and only then is
    the cancelled task over (S2-30, S2-44)."""

    async def main(steps: int) -> None:
        course = Course()
        going = asyncio.create_task(course.go())
        await asyncio.sleep(half_seconds / 2)
        for _ in range(steps):
            await asyncio.sleep(0)
        cancelled = going.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await going
        assert going.cancelled() is cancelled
        if not course.batch._complete:  # the answer was still coming in: its turn stops the batch
            await course.batch.cancel()
        course.check()

    for steps in range(STEPS):
        run(main(steps))


@given(st.integers(0, 2 * SECONDS), st.integers(0, STEPS), st.integers(0, 3), st.booleans())
@settings(max_examples=60)
def test_cancelled_twice_it_stops_all_the_same(
    half_seconds: int, steps: int, later: int, closes: bool
) -> None:
    """A second cancellation, or a pipeline that closes, while all is being stopped changes
    nothing, and neither does cancelling what is over (S2-30)."""

    async def main() -> None:
        course = Course()
        going = asyncio.create_task(course.go())
        await asyncio.sleep(half_seconds / 2)
        for _ in range(steps):
            await asyncio.sleep(0)
        going.cancel()
        for _ in range(later):
            await asyncio.sleep(0)
        going.cancel()
        if closes:
            await course.pipeline.aclose()
        with contextlib.suppress(asyncio.CancelledError):
            await going
        await course.batch.cancel()
        await course.batch.cancel()
        course.check()

    run(main())


def test_an_answer_that_breaks_off_stops_what_it_had_started() -> None:
    """`cancel` before any result stops all, and `results` after it has all calls CANCELLED
    (S2-08)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(read=FakeTool(READ, 5), write=FakeTool(WRITE))
        batch = pipeline.batch(CONTEXT)
        batch.add(use("read", 1))
        batch.add(use("write", 2))
        await asyncio.sleep(1)
        await batch.cancel()
        assert tools.cancelled == ["read-1"]
        batch.add(use("read", 3))
        batch.complete([use("read", 4)])
        calls = await batch.results()
        assert [(call.status, call.result) for call in calls] == [
            (ToolStatus.CANCELLED, "Cancelled: cancelled before it ended"),
            (ToolStatus.CANCELLED, "Cancelled: cancelled before it began"),
        ]
        assert not tasks()

    run(main())


def test_a_stopped_write_may_have_taken_effect() -> None:
    """The model is told that a write that was stopped may have done its work (S2-08)."""

    async def main() -> None:
        pipeline, _ = pipeline_of(write=FakeTool(WRITE, 5))
        batch = pipeline.batch(CONTEXT)
        batch.complete([use("write", 1), use("write", 2)])
        going = asyncio.create_task(batch.results())
        await asyncio.sleep(1)
        going.cancel()
        await asyncio.wait([going])
        assert [call.result for call in batch.calls] == [
            "Cancelled: cancelled before it ended; it may have taken effect all the same",
            "Cancelled: cancelled before it began",
        ]

    run(main())


def test_an_agreement_that_comes_while_all_is_stopped_runs_nothing() -> None:
    """A person who agrees as the batch is cancelled has nothing run (S2-08)."""

    async def main() -> None:
        async def approve(call_id: str, preparation: Preparation) -> str | None:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
            return None

        pipeline, tools = pipeline_of(
            one=FakeTool(READ, approval=True), other=FakeTool(READ, approval=True)
        )
        batch = pipeline.batch(CONTEXT, hooks=Hooks(approve=approve))
        batch.complete([use("one"), use("other")])
        going = asyncio.create_task(batch.results())
        await asyncio.sleep(1)
        await batch.cancel()
        calls = await going
        assert {call.status for call in calls} == {ToolStatus.CANCELLED}
        assert tools.began == []
        assert not tasks()

    run(main())


def test_a_second_cancellation_waits_for_the_end_too() -> None:
    """Cancelled again while its calls take their time to stop, `results` is over only when they
    are (S2-30)."""

    async def main() -> None:
        course = Course()
        batch = course.pipeline.batch(CONTEXT)
        batch.complete([use("slow", 1), use("slow", 2)])
        going = asyncio.create_task(batch.results())
        await asyncio.sleep(0.5)
        for _ in range(3):
            going.cancel()
            await asyncio.sleep(0.1)
        await asyncio.wait([going])
        assert going.cancelled()
        assert not tasks()
        assert asyncio.get_running_loop().time() == 1.5

    run(main())
