"""Single requests to the tool pipeline."""

import asyncio

from paceline.call import Effect, Priority
from paceline.engine.requests import ToolRequest
from paceline.engine.states import ExecutionContext, ExecutionPriority, ResourceLimits, ToolStatus
from paceline.testing.virtual_time import run
from tests.unit.engine.fakes import CONTEXT, FakeTool, pipeline_of, tasks, use

READ = Effect.read("a")


def request(name: str, number: int = 0, **fields: object) -> ToolRequest:
    return ToolRequest(use(name, number), CONTEXT, **fields)  # type: ignore[arg-type]


def test_a_handle_is_the_call_once_it_is_over() -> None:
    """Whoever awaits a handle, at once or later or several at a time, gets the call with its
    result (S2-03, S2-34, V-10)."""

    async def main() -> None:
        pipeline, _ = pipeline_of(read=FakeTool(READ, 2), bad=FakeTool(raises=KeyError()))
        handle, bad = pipeline.submit(request("read")), pipeline.submit(request("bad"))
        statuses = [handle.state.status]
        await asyncio.sleep(1)
        statuses.append(handle.state.status)
        assert statuses == [ToolStatus.QUEUED, ToolStatus.RUNNING]
        first, second = await asyncio.gather(handle, handle)
        assert first is second is await handle
        assert (first.status, first.result) == (ToolStatus.COMPLETED, "read: done")
        assert first.id == handle.call_id == "s1.request-1"
        assert bad.call_id == "s1.request-2"
        assert (await bad).status is ToolStatus.FAILED
        assert not handle.cancel()
        assert not tasks()

    run(main())


def test_who_stops_waiting_does_not_stop_the_call() -> None:
    """A request goes on when the task that awaits it is cancelled (S2-34)."""

    async def main() -> None:
        pipeline, _ = pipeline_of(read=FakeTool(READ, 2))
        handle = pipeline.submit(request("read"))

        async def wait() -> None:
            await handle

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        assert (await handle).status is ToolStatus.COMPLETED

    run(main())


def test_a_cancelled_request_really_stops() -> None:
    """Cancelled before it began, while it waits, or while it runs, a request ends CANCELLED and
    its tool has stopped (S2-08)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(1, read=FakeTool(READ, 9))
        running, waiting = pipeline.submit(request("read", 1)), pipeline.submit(request("read", 2))
        await asyncio.sleep(1)
        fresh = pipeline.submit(request("read", 3))
        assert (pipeline.running, pipeline.waiting) == (1, 1)
        for handle in (fresh, waiting, running):
            assert handle.cancel()
            assert (await handle).status is ToolStatus.CANCELLED
            assert handle.state.status is ToolStatus.CANCELLED
        assert tools.began == tools.cancelled == ["read-1"]
        unheard = pipeline.submit(request("read", 4))
        unheard.cancel()
        for _ in range(3):
            await asyncio.sleep(0)
        assert unheard.state.status is ToolStatus.CANCELLED
        assert (pipeline.running, pipeline.waiting) == (0, 0)
        assert not tasks()

    run(main())


def test_the_wait_for_a_place_is_part_of_the_time() -> None:
    """The time limit of a request counts from when it is made, so the queue is bounded by it too
    (S2-37, V-10)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(1, slow=FakeTool(seconds=5), read=FakeTool(READ, 4))
        pipeline.submit(request("slow"))
        late, cut = (pipeline.submit(request("read", n, timeout_s=s)) for n, s in ((1, 3), (2, 7)))
        call = await late
        assert asyncio.get_running_loop().time() == 3
        assert (call.status, tools.began) == (ToolStatus.TIMED_OUT, ["slow-0"])
        assert "before the deadline" in call.result
        assert (await cut).status is ToolStatus.TIMED_OUT
        assert tools.limits_s["read-2"] == 2
        assert tools.limits_s["slow-0"] == ResourceLimits().max_execution_s

    run(main())


def test_the_urgent_go_first_and_the_patient_get_their_turn() -> None:
    """Waiting requests start by priority, in order within one, and a LOW one that waits long
    enough is not overtaken for ever (S2-36, V-10)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(1, read=FakeTool(READ, 1))
        urgency = ExecutionPriority
        order = [urgency.NORMAL, urgency.LOW, urgency.NORMAL, urgency.CRITICAL, urgency.HIGH]
        handles = [pipeline.submit(request("read", n, priority=p)) for n, p in enumerate(order)]
        for handle in handles:
            await handle
        assert tools.began == ["read-0", "read-3", "read-4", "read-2", "read-1"]
        assert tools.priorities[-1] is Priority.LOW
        patient = pipeline.submit(request("read", 99, priority=urgency.LOW))
        rush = [
            pipeline.submit(request("read", 100 + n, priority=urgency.NORMAL)) for n in range(60)
        ]
        await patient
        assert tools.began.index("read-99") < len(order) + 40
        for handle in rush:
            await handle

    run(main())


def test_requests_have_sessions_of_their_own() -> None:
    """A request runs for the session and the workspace that it names (S2-38)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(read=FakeTool(READ))
        context = ExecutionContext("s9", user_id="u1", workspace="/w", parent_id="p")
        await pipeline.submit(ToolRequest(use("read"), context))
        assert tools.contexts == [context]

    run(main())
