"""How one tool use is carried out, and what the model and the session are told of it."""

import asyncio
import logging

import pytest

from paceline.call import Effect, Priority, Source
from paceline.engine.hooks import Hooks
from paceline.engine.loops import Screened
from paceline.engine.protocols import Preparation
from paceline.engine.states import ExecutionPriority, ToolCall, ToolStatus
from paceline.errors import (
    AgentError,
    BudgetExceededError,
    CallCancelledError,
    CallTimeoutError,
    InvalidInputError,
    OverloadedError,
    PacelineError,
    Shortage,
    StorageError,
)
from paceline.resources import ResourceUsage, current_resources
from paceline.testing.virtual_time import VirtualClock, run
from tests.unit.engine.fakes import CONTEXT, FakeTool, pipeline_of, results, tasks, use

NS = 1_000_000_000
READ, WRITE = Effect.read("a"), Effect.write("a")


def test_a_call_says_what_came_of_it() -> None:
    """A finished call has its id, tool, arguments, result, attempts, source and durations (S2-09,
    V-08)."""

    async def main() -> None:
        pipeline, _ = pipeline_of(1, read=FakeTool(READ, 2, value="text"))
        first, second = await results(pipeline, use("read", 1, '{"b": 2}'), use("read", 2))
        assert first == ToolCall(
            "t1.1",
            "read",
            '{"b": 2}',
            ToolStatus.COMPLETED,
            "read: text",
            attempts=1,
            source="executed",
            execution_ns=2 * NS,
        )
        assert (second.queue_ns, second.execution_ns) == (2 * NS, 2 * NS)

    run(main())


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (AgentError("it broke"), ToolStatus.FAILED, "Failed: it broke"),
        (
            AgentError("it broke", may_have_started=True),
            ToolStatus.FAILED,
            "Failed: it broke; it may have taken effect all the same",
        ),
        (CallTimeoutError("too slow"), ToolStatus.TIMED_OUT, "Timed out: too slow"),
        (CallCancelledError("stopped"), ToolStatus.CANCELLED, "Cancelled: stopped"),
        (OverloadedError("full"), ToolStatus.REJECTED, "Not run: full"),
        (
            OverloadedError("late", reason=Shortage.LATE),
            ToolStatus.TIMED_OUT,
            "Timed out: late",
        ),
        (BudgetExceededError("no money", budget="b"), ToolStatus.REJECTED, "Not run: no money"),
    ],
)
def test_every_error_has_one_final_state_and_a_text(
    error: PacelineError, status: ToolStatus, text: str
) -> None:
    """What a tool failed with decides its status, and the model is told of it (S2-08, S2-39)."""

    async def main() -> None:
        pipeline, _ = pipeline_of(write=FakeTool(WRITE, error=error, attempts=0))
        (call,) = await results(pipeline, use("write"))
        assert (call.status, call.result) == (status, text)
        assert (call.error, call.category) == (error.message, error.category)
        assert call.status.terminal

    run(main())


@pytest.mark.parametrize(
    "error",
    [
        OverloadedError("inner busy"),
        OverloadedError("inner late", reason=Shortage.LATE),
        BudgetExceededError("inner money", budget="b"),
        InvalidInputError("inner input"),
    ],
)
def test_what_a_tool_that_ran_was_refused_is_its_failure(error: PacelineError) -> None:
    """A tool that ran and raised that something had no capacity, money or sense failed: the model is
    not told that it did not run (S2-08, S2-39)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(write=FakeTool(WRITE, error=error))
        (call,) = await results(pipeline, use("write"))
        assert len(tools.began) == call.attempts == 1
        assert call.status is ToolStatus.FAILED
        assert call.result.startswith(f"Failed: {error.message}")

    run(main())


@pytest.mark.parametrize("source", list(Source))
def test_a_call_without_an_execution_is_cached(source: Source) -> None:
    """What was executed is COMPLETED, and what was served, shared or joined CACHED (S2-08)."""

    async def main() -> None:
        pipeline, _ = pipeline_of(read=FakeTool(READ, source=source))
        (call,) = await results(pipeline, use("read"))
        assert call.cached is source.cached
        assert call.status is (ToolStatus.CACHED if source.cached else ToolStatus.COMPLETED)
        assert call.source == source

    run(main())


def test_a_tool_that_breaks_the_rules_breaks_nothing_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An exception that should not be there fails its own call, is logged, and the others go on
    (S2-39)."""

    async def main() -> None:
        pipeline, _ = pipeline_of(
            bad=FakeTool(READ, raises=KeyError("secret")),
            ours=FakeTool(READ, raises=StorageError("disk full")),
            stops=FakeTool(READ, raises=asyncio.CancelledError()),
            ok=FakeTool(READ, 2),
        )
        bad, ours, stops, ok = await results(
            pipeline, use("bad"), use("ours"), use("stops"), use("ok")
        )
        assert bad.status is ToolStatus.FAILED
        assert bad.result == "Failed: there is a fault in how it is run (KeyError)"
        assert ours.result == "Failed: disk full"
        assert stops.status is ToolStatus.CANCELLED
        assert ok.status is ToolStatus.COMPLETED
        (alone,) = await results(pipeline, use("stops"))
        assert alone.status is ToolStatus.CANCELLED
        assert pipeline.running == 0

    with caplog.at_level(logging.WARNING, "paceline"):
        run(main())
    assert [record.getMessage() for record in caplog.records] == [
        "Tool execution failed: bad",
        "Tool execution failed: ours: disk full",
    ]


def test_a_check_that_breaks_fails_its_call(caplog: pytest.LogCaptureFixture) -> None:
    """A tool whose check of arguments has a fault fails with a text, and does not run (V-36)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(read=FakeTool(READ))
        tools.prepare = lambda use: 1 / 0  # type: ignore[method-assign,assignment,return-value]
        (call,) = await results(pipeline, use("read"))
        assert call.status is ToolStatus.FAILED
        assert "ZeroDivisionError" in call.result
        assert tools.began == []

    run(main())
    assert "Tool execution failed: read" in caplog.text


def test_a_call_that_needs_a_person_runs_once_they_agree() -> None:
    """A call that needs approval holds no place while it waits for it, and what may run beside it
    does (V-36)."""

    async def main() -> None:
        asked: list[str] = []

        async def approve(call_id: str, preparation: Preparation) -> str | None:
            asked.append(call_id)
            await asyncio.sleep(10)
            return None

        pipeline, tools = pipeline_of(
            1, careful=FakeTool(WRITE, approval=True), read=FakeTool(Effect.read("b"))
        )
        careful, read = await results(
            pipeline, use("careful"), use("read"), hooks=Hooks(approve=approve)
        )
        assert asked == ["t1.1"]
        assert tools.began == ["read-0", "careful-0"]
        assert careful.status is read.status is ToolStatus.COMPLETED
        assert careful.queue_ns == 0

    run(main())


def test_agreed_calls_keep_to_the_limit() -> None:
    """Calls that were agreed to at once still run only as many at a time as allowed (S2-12)."""

    async def main() -> None:
        async def approve(call_id: str, preparation: Preparation) -> str | None:
            await asyncio.sleep(1)
            return None

        pipeline, tools = pipeline_of(4, read=FakeTool(READ, approval=True))
        batch = pipeline.batch(
            CONTEXT,
            limits=pipeline.limits.__class__(max_concurrent_tools=2),
            hooks=Hooks(approve=approve),
        )
        batch.complete([use("read", n) for n in range(6)])
        calls = await batch.results()
        assert {call.status for call in calls} == {ToolStatus.COMPLETED}
        assert tools.most == 2
        assert len(tools.began) == 6

    run(main())


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("", "Not run: the user refused it."),
        ("Not today.", "Not run: the user refused it. Not today."),
    ],
)
def test_a_refused_call_is_not_run(why: str, text: str) -> None:
    """Refused by a person, a call is REJECTED with their reason, and the next ones run (S2-08)."""

    async def main() -> None:
        async def approve(call_id: str, preparation: Preparation) -> str | None:
            return why

        pipeline, tools = pipeline_of(careful=FakeTool(WRITE, approval=True), read=FakeTool(READ))
        careful, read = await results(
            pipeline, use("careful"), use("read"), hooks=Hooks(approve=approve)
        )
        assert (careful.status, careful.result) == (ToolStatus.REJECTED, text)
        assert read.status is ToolStatus.COMPLETED
        assert tools.began == ["read-0"]

    run(main())


def test_a_question_is_answered_by_the_user() -> None:
    """A tool that is a question is asked and not run; its result is the answer (V-36)."""

    async def main() -> None:
        async def ask(call_id: str, preparation: Preparation) -> str:
            await asyncio.sleep(5)
            return f"{preparation.question} Blue."

        pipeline, tools = pipeline_of(ask=FakeTool(question="Which colour?"))
        (call,) = await results(pipeline, use("ask"), hooks=Hooks(ask=ask))
        assert (call.status, call.result) == (ToolStatus.COMPLETED, "Which colour? Blue.")
        assert call.source == "user"
        assert tools.began == []

    run(main())


def test_nobody_to_ask_is_a_refusal() -> None:
    """Where nobody can be asked, what needs approval or an answer is REJECTED (S2-08)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(
            careful=FakeTool(approval=True), ask=FakeTool(question="Which?")
        )
        calls = await results(pipeline, use("careful"), use("ask"))
        assert [call.status for call in calls] == [ToolStatus.REJECTED] * 2
        assert tools.began == []

    run(main())


def test_loop_detection_comes_before_everybody_else() -> None:
    """A screened call is answered or refused without a person, a place or a run, and each call is
    screened once (V-36)."""

    async def main() -> None:
        screened: list[str] = []

        def screen(preparation: Preparation) -> Screened:
            screened.append(preparation.use.id)
            return {
                "careful-1": Screened("the same as before"),
                "careful-2": Screened("loop_detected", refused=True),
            }.get(preparation.use.id, Screened())

        async def approve(call_id: str, preparation: Preparation) -> str | None:
            return None

        pipeline, tools = pipeline_of(careful=FakeTool(WRITE, approval=True))
        calls = await results(
            pipeline,
            *(use("careful", n) for n in (1, 2, 3)),
            hooks=Hooks(screen=screen, approve=approve),
        )
        assert screened == ["careful-1", "careful-2", "careful-3"]
        assert tools.began == ["careful-3"]
        assert [(call.status, call.result) for call in calls[:2]] == [
            (ToolStatus.CACHED, "the same as before"),
            (ToolStatus.REJECTED, "loop_detected"),
        ]
        assert [call.source for call in calls] == ["reused", "", "executed"]

    run(main())


def test_nothing_runs_before_its_beginning_is_on_record() -> None:
    """A tool starts only after `begin` has returned, within a place, and not if it raised
    (S2-39)."""

    async def main() -> None:
        async def begin(call_id: str, preparation: Preparation) -> None:
            assert preparation.use.id not in tools.began
            await asyncio.sleep(1)
            if preparation.use.id == "write-2":
                raise StorageError("the journal cannot be written")

        pipeline, tools = pipeline_of(write=FakeTool(WRITE))
        first, second = await results(
            pipeline, use("write", 1), use("write", 2), hooks=Hooks(begin=begin)
        )
        assert tools.began == ["write-1"]
        assert first.status is ToolStatus.COMPLETED
        assert (second.status, second.result) == (
            ToolStatus.FAILED,
            "Failed: the journal cannot be written",
        )
        assert pipeline.running == 0

    run(main())


def test_every_change_of_a_call_is_told_in_order() -> None:
    """Listeners hear QUEUED, RUNNING and the final state of each call, once each, and the end of
    what could have been run (S2-39)."""

    async def main() -> None:
        told: list[tuple[str, ToolStatus]] = []
        ended: list[tuple[str, str]] = []
        pipeline, _ = pipeline_of(read=FakeTool(READ), slow=FakeTool(READ, 9, timeout_s=1))
        hooks = Hooks(
            changed=lambda call: told.append((call.tool_name, call.status)),
            ended=lambda preparation, call: ended.append((preparation.use.id, call.result)),
        )
        await results(pipeline, use("read"), use("slow"), use("none"), hooks=hooks)
        by_tool = {name: [s.value for n, s in told if n == name] for name, _ in told}
        assert by_tool == {
            "read": ["queued", "running", "completed"],
            "slow": ["queued", "running", "timed_out"],
            "none": ["rejected"],
        }
        assert sorted(ended) == [
            ("read-0", "read: done"),
            ("slow-0", "Timed out: no answer in 1 s"),
        ]

    run(main())


def test_a_listener_that_fails_is_no_part_of_the_call(caplog: pytest.LogCaptureFixture) -> None:
    """What listeners raise is logged, and the call goes on (S2-39)."""

    async def main() -> None:
        def fail(*_: object) -> None:
            raise ValueError("a fault of the listener")

        pipeline, _ = pipeline_of(read=FakeTool(READ))
        (call,) = await results(pipeline, use("read"), hooks=Hooks(changed=fail, ended=fail))
        assert call.status is ToolStatus.COMPLETED

    run(main())
    assert caplog.text.count("A listener to tool calls failed") == 4


def test_what_a_tool_takes_of_the_machine_is_its_own() -> None:
    """Resources that are measured while a tool runs stand in its call, and in no other
    (S2-07)."""

    async def main() -> None:
        def take(preparation: Preparation) -> None:
            found = current_resources.get()
            assert found is not None
            found.add(ResourceUsage(cpu_ns=int(preparation.use.id[-1])))

        pipeline, _ = pipeline_of(read=FakeTool(READ, inside=take), idle=FakeTool(READ))
        first, second, idle = await results(pipeline, use("read", 1), use("read", 2), use("idle"))
        assert first.resources == ResourceUsage(cpu_ns=1)
        assert second.resources == ResourceUsage(cpu_ns=2)
        assert idle.resources is None
        assert (await results(pipeline, use("read", 3)))[0].resources == ResourceUsage(cpu_ns=3)
        assert current_resources.get() is None

    run(main())


def test_a_call_can_be_looked_at_while_it_runs() -> None:
    """Its record has when it was queued, began, may be over and ended, by the wall (S2-07,
    S2-44)."""

    async def main() -> None:
        pipeline, _ = pipeline_of(1, read=FakeTool(READ, 3))
        pipeline._floor.expected_ns = {"read": 4 * NS}.get
        batch = pipeline.batch(CONTEXT)
        batch.complete([use("read", 1), use("read", 2), use("none")])
        waiting = asyncio.create_task(batch.results())
        await asyncio.sleep(1)
        epoch_ns = VirtualClock.EPOCH_NS
        running, queued, rejected = batch.states()
        assert (running.call_id, running.tool_name) == ("t1.1", "read")
        assert running.status is ToolStatus.RUNNING
        assert (running.queued_ns, running.started_ns) == (epoch_ns, epoch_ns)
        assert (running.estimated_ns, running.ended_ns) == (epoch_ns + 4 * NS, None)
        assert (queued.status, queued.started_ns) == (ToolStatus.QUEUED, None)
        assert (rejected.status, rejected.ended_ns) == (ToolStatus.REJECTED, epoch_ns)
        assert [call.status for call in batch.calls][:2] == [running.status, queued.status]
        await waiting
        after = batch.states()
        assert [state.ended_ns for state in after[:2]] == [epoch_ns + 3 * NS, epoch_ns + 6 * NS]
        assert after[0].estimated_ns is None
        assert set(pipeline.recent) == set(after)
        for n in range(60):
            await results(pipeline, use("none", n), use("none", n))
        assert len(pipeline.recent) == 100

    run(main())


def test_the_session_and_its_urgency_reach_the_tool() -> None:
    """A tool runs with the context and the priority of its turn (S2-36, S2-38)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(read=FakeTool(READ))
        for priority in ExecutionPriority:
            batch = pipeline.batch(CONTEXT, priority=priority)
            batch.complete([use("read")])
            await batch.results()
        assert tools.contexts == [CONTEXT] * 4
        assert tools.priorities == [Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.HIGH]
        assert not tasks()

    run(main())
