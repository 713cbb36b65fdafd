"""What is done for one message."""

import asyncio
import logging
from collections.abc import Sequence

import pytest

from paceline.call import Effect, Tokens
from paceline.engine.events import TextDelta, TextRestarted
from paceline.engine.session import Session
from paceline.engine.states import (
    AgentState,
    ResourceLimits,
    ToolCall,
    ToolStatus,
    TransitionTrigger,
    TurnStatus,
)
from paceline.errors import (
    AgentError,
    BudgetExceededError,
    CallError,
    CallTimeoutError,
    Category,
    InvalidInputError,
    OverloadedError,
    PacelineError,
    RuntimeClosedError,
    Shortage,
)
from paceline.messages import (
    AssistantMessage,
    Restarted,
    SystemMessage,
    TextPart,
    ToolMessage,
    UsePart,
    UserMessage,
)
from paceline.testing.virtual_time import run
from tests.unit.engine.acting import NS, Act, Acts, Says, Script, means, session, use

_S, _T = AgentState, TransitionTrigger
MIB = 1024**2


def limited(retry_after_s: float | None = None) -> CallError:
    return CallError("slow down", category=Category.RATE_LIMIT, retry_after_s=retry_after_s)


def triggers(one: Session) -> list[TransitionTrigger]:
    return [moved.trigger for moved in one.machine.history]


def results(messages: Sequence[object]) -> list[str]:
    return [one.text for one in messages if isinstance(one, ToolMessage)]


async def failing(one: Session) -> PacelineError:
    """What ends a turn; the session is idle after it, and the next turn can begin."""
    with pytest.raises(PacelineError) as caught:
        await one.send("go")
    assert one.state is _S.IDLE
    assert one.turns[-1].status is TurnStatus.FAILED
    assert one.turns[-1].error == caught.value.message
    assert triggers(one)[-1] is _T.GAVE_UP
    return caught.value


def test_an_answer_without_tools_ends_the_turn() -> None:
    """A model that only answers takes one step; no time passes that it did not take
    (S2-26..S2-28, S2-31, S2-60)."""

    async def main() -> None:
        script = Script(Says("hello", tokens=Tokens(3, 2), cost_usd=0.5))
        one = session(script, system="be kind")
        turn = await one.send("hi")
        assert (turn.agent_response, turn.status, turn.steps) == (
            "hello", TurnStatus.COMPLETED, 1,
        )  # fmt: skip
        assert (turn.tokens, turn.cost_usd, turn.models) == (Tokens(3, 2), 0.5, ("fake",))
        assert (turn.execution_ns, turn.at_ns) == (0, 1_700_000_000 * NS)
        assert script.asked == [(SystemMessage("be kind"), UserMessage("hi"))]
        assert triggers(one) == [_T.USER_INPUT, _T.RESPONSE_STARTED, _T.RESPONSE_READY]
        assert one.conversation.messages()[1:] == (UserMessage("hi"), AssistantMessage("hello"))

    run(main())


def test_tools_are_run_and_their_results_told_in_order() -> None:
    """The model is told each result, in the order of its uses and whichever is ready first, until
    it answers; tokens and money add up (S2-28, S2-29, S2-57)."""

    async def main() -> None:
        both = (use("slow"), use("fast"))
        script = Script(
            Says("wait", both, tokens=Tokens(1, 1), cost_usd=1.0),
            Says("done", tokens=Tokens(2, 2), cost_usd=2.0),
        )
        acts = Acts(slow=Act(takes_s=2, text="s"), fast=Act(takes_s=1, text="f"))
        one = session(script, acts)
        turn = await one.send("go")
        assert script.asked[1] == (
            UserMessage("go"),
            AssistantMessage("wait", both),
            ToolMessage("m-slow", "slow", "s"),
            ToolMessage("m-fast", "fast", "f"),
        )
        assert [call.result for call in turn.tool_calls] == ["s", "f"]
        assert (turn.steps, turn.execution_ns) == (2, 2 * NS)
        assert (turn.tokens, turn.cost_usd) == (Tokens(3, 3), 3.0)
        assert triggers(one)[2:4] == [_T.TOOLS_REQUESTED, _T.TOOL_COMPLETION]

    run(main())


def test_a_tool_starts_while_the_answer_streams() -> None:
    """A tool that may be repeated runs from the moment its arguments are complete, one that may not
    only once the answer is (V-36)."""

    async def main() -> None:
        parts = (
            (1.0, UsePart(use("read"))),
            (1.0, UsePart(use("write"))),
            (5.0, TextPart("and so on")),
        )
        script = Script(Says("", (use("read"), use("write")), parts=parts), Says("done"))
        acts = Acts(read=Act(takes_s=3), write=Act(Effect.unknown(), takes_s=1))
        turn = await session(script, acts).send("go")
        assert acts.begun == [("read", 1.0), ("write", 7.0)]
        assert turn.execution_ns == 8 * NS

    run(main())


def test_an_answer_made_anew_counts_alone() -> None:
    """What was heard of an answer that is made anew is not told, and its tools run once
    (S2-41)."""

    async def main() -> None:
        again = (
            (1.0, TextPart("wrong")),
            (0.0, UsePart(use("read"))),
            (1.0, Restarted()),
            (1.0, TextPart("right")),
            (0.0, UsePart(use("read"))),
        )
        script = Script(Says("right", (use("read"),), parts=again), Says("done"))
        acts = Acts(read=Act(takes_s=5))
        one = session(script, acts)
        told = [event async for event in one.stream("go")]
        words = [event for event in told if isinstance(event, (TextDelta, TextRestarted))]
        assert words[:3] == [TextDelta("wrong"), TextRestarted(), TextDelta("right")]
        assert acts.begun == [("read", 1.0)]
        assert one.conversation.messages()[1] == AssistantMessage("right", (use("read"),))

    run(main())


def test_an_answer_that_nobody_told_in_parts_is_told_whole() -> None:
    """Who watches sees the text of a model that does not stream (S2-31)."""

    async def main() -> None:
        one = session(Script(Says("whole", parts=())))
        assert TextDelta("whole") in [event async for event in one.stream("go")]
        assert _T.RESPONSE_STARTED not in triggers(one)

    run(main())


@pytest.mark.parametrize(
    ("limits", "limit"),
    [
        (ResourceLimits(max_steps=2), "max_steps"),
        (ResourceLimits(max_tool_calls=2), "max_tool_calls"),
        (ResourceLimits(max_execution_s=2.5), "max_execution_s"),
        (ResourceLimits(max_turn_tokens=20), "max_turn_tokens"),
        (ResourceLimits(max_turn_usd=0.2), "max_turn_usd"),
    ],
)
def test_every_limit_ends_the_turn(limits: ResourceLimits, limit: str) -> None:
    """A turn that reaches a limit ends with an error that names it and what was used, and what was
    done until then stays in the conversation, results with their uses
    (S2-12, S2-21, S2-57, V-37)."""

    async def main() -> None:
        steps = [
            Says(f"{n}", (use("read", f"[{n}]"),), tokens=Tokens(5, 5), cost_usd=0.1)
            for n in range(9)
        ]
        one = session(Script(*steps), Acts(read=Act(takes_s=1)), limits=limits)
        error = await failing(one)
        assert isinstance(error, BudgetExceededError)
        assert error.budget == limit
        assert limit in error.message
        assert "2 steps" in error.message or "3 steps" in error.message
        assert not one.conversation.unanswered()
        assert results(one.conversation.messages())[0] == "done"

    run(main())


def test_the_callers_patience_is_a_limit_too() -> None:
    """A turn ends when its caller waits no longer, whatever it does then (S2-21)."""

    async def main() -> None:
        acts = Acts(read=Act(takes_s=100))
        one = session(Script(Says("", (use("read"),))), acts)
        with pytest.raises(BudgetExceededError) as caught:
            await one.send("go", timeout_s=3)
        assert caught.value.budget == "timeout_s"
        assert asyncio.get_running_loop().time() == 3
        assert (one.state, acts.running) == (_S.IDLE, 0)

    run(main())


def test_a_clock_behind_the_timer_is_no_way_out() -> None:
    """The timer ends a turn even if the clock says that there is time left (S2-21)."""

    async def main() -> None:
        one = session(Script(Says("late", after_s=400)))
        one._means.clock.monotonic_ns = lambda: 0  # type: ignore[method-assign]
        error = await failing(one)
        assert isinstance(error, BudgetExceededError)
        assert error.budget == "max_execution_s"

    run(main())


def test_a_rate_limit_is_waited_for_and_the_turn_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """After a rate limit the same question is asked again when the other side said; the turn is not
    lost (S2-33, S2-54, S2-55)."""

    async def main() -> None:
        script = Script(
            Says(error=limited(20.0), parts=((0.0, TextPart("I")),)),
            Says(error=limited(), tokens=Tokens(7, 0), cost_usd=0.1),
            Says("here", tokens=Tokens(1, 1), cost_usd=0.2),
        )
        one = session(script)
        turn = await one.send("go")
        assert turn.agent_response == "here"
        assert turn.tokens == Tokens(8, 1)
        assert turn.cost_usd == pytest.approx(0.3)
        assert script.asked[0] == script.asked[1] == script.asked[2]
        assert 20 + 5 <= asyncio.get_running_loop().time() <= 22 + 20
        assert triggers(one)[2:4] == [_T.RATE_LIMIT, _T.RECOVERED]
        origins = [moved.trouble.origin for moved in one.machine.history if moved.trouble]
        assert origins == [_S.GENERATING_RESPONSE, _S.PROCESSING_PROMPT]
        attempts = [moved.trouble.attempt for moved in one.machine.history if moved.trouble]
        assert attempts == [1, 2]

    run(main())
    assert "Recovering from rate limit" in caplog.text
    assert "Handling error state: slow down" in caplog.text


def test_recovery_has_an_end() -> None:
    """Trouble of one kind is recovered from so often in a turn, then its error ends it
    (S2-33)."""

    async def main() -> None:
        script = Script(*[Says(error=CallTimeoutError("late"))] * 9)
        one = session(script, limits=ResourceLimits(max_recoveries=2))
        assert isinstance(await failing(one), CallTimeoutError)
        assert len(script.asked) == 3
        assert (await one_answer(one, script)) == "fine"

    async def one_answer(one: Session, script: Script) -> str:
        script.answers = [Says("fine")]
        return (await one.send("again")).agent_response

    run(main())


def test_a_model_that_was_never_there_is_not_waited_for() -> None:
    """A model that cannot be reached and never answered is asked once more, two seconds later at most,
    and who watches is told when; one that was there is asked as often as any (S2-33, S2-54)."""

    async def main() -> None:
        gone = AgentError("refused", category=Category.NETWORK)
        alone = OverloadedError(
            "1 unhealthy", reason=Shortage.UNHEALTHY, category=Category.UNAVAILABLE
        )
        for second in (gone, alone):
            script = Script(Says(error=gone), *[Says(error=second)] * 9)
            script.answered = False
            one, began_s = session(script), asyncio.get_running_loop().time()
            assert await failing(one) is gone
            assert len(script.asked) == 2
            waited_s = asyncio.get_running_loop().time() - began_s
            assert 0 < waited_s <= 2
            troubles = [moved.trouble for moved in one.machine.history if moved.trouble]
            assert [each.again_s for each in troubles][:2] == [pytest.approx(waited_s), None]
        script = Script(*[Says(error=gone)] * 9)
        assert await failing(session(script)) is gone
        assert len(script.asked) == 4
        script = Script(*[Says(error=CallTimeoutError("late"))] * 9)  # it may be loading
        script.answered = False
        assert isinstance(await failing(session(script)), CallTimeoutError)
        assert len(script.asked) == 4

    run(main())


def test_the_error_of_a_turn_names_the_cause() -> None:
    """Where the model is left alone after it failed, the turn ends with what it failed with, and not
    with that it is left alone; without a failure before, that is what it says (S2-33, S2-54)."""

    async def main() -> None:
        alone = OverloadedError(
            "1 circuit open", reason=Shortage.CIRCUIT_OPEN, category=Category.UNAVAILABLE
        )
        broken = AgentError("answered 500", category=Category.UNAVAILABLE)
        one = session(Script(Says(error=broken), *[Says(error=alone)] * 9))
        assert await failing(one) is broken
        full = OverloadedError("all are at work", category=Category.UNAVAILABLE)
        for last in (alone, full):
            assert await failing(session(Script(*[Says(error=last)] * 9))) is last
        assert await failing(session(Script(Says(error=broken), *[Says(error=full)] * 9))) is full

    run(main())


def test_a_pause_that_would_outlast_the_turn_is_not_made() -> None:
    """A wish to wait beyond the turn's time ends it at once (S2-54)."""

    async def main() -> None:
        one = session(Script(Says(error=limited(1_000.0))))
        assert (await failing(one)).retry_after_s == 1_000
        assert asyncio.get_running_loop().time() == 0

    run(main())


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (AgentError("a bug"), AgentError, "a bug"),
        (RuntimeError("whoops"), CallError, "the turn failed: RuntimeError: whoops"),
        (TimeoutError("of others"), CallError, "the turn failed: TimeoutError: of others"),
    ],
)
def test_unknown_errors_reach_the_caller(
    raised: Exception, kind: type[PacelineError], text: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that nothing is known to help against is what `send` raises, and the session goes on
    to the next message (S2-25, S2-33, S2-55)."""

    async def main() -> None:
        script = Script(Says(error=raised), Says("fine"))
        one = session(script)
        error = await failing(one)
        assert type(error) is kind
        assert error.message == text
        assert error is raised or error.__cause__ is raised
        assert _T.INTERNAL_ERROR in triggers(one)
        assert (await one.send("again")).agent_response == "fine"
        assert script.asked[1] == (UserMessage("go"), UserMessage("again"))

    run(main())
    assert f"Handling error state: {text}" in caplog.text
    assert "Unknown error type: execution" in caplog.text


def test_what_is_no_answer_is_an_error() -> None:
    """A model call whose value is no reply ends the turn with an error that says so (S2-41)."""

    class Odd(Script):
        async def ask(self, *args, **kwargs):
            outcome = await super().ask(*args, **kwargs)
            return type(outcome)(outcome.call_id, outcome.name, outcome.source, "text")

    async def main() -> None:
        assert "str" in (await failing(session(Odd(Says("x"))))).message

    run(main())


def test_trouble_while_listening_is_the_turns() -> None:
    """What fails while a part of the answer is heard reaches the caller, not the model's code
    (S2-25)."""

    async def main() -> None:
        parts = ((0.0, UsePart(use("read"))), (0.0, UsePart(use("read"))))
        script = Script(Says("x", (use("read"),), parts=parts))
        one = session(script, Acts(read=Act()))
        await one._means.pipeline.aclose()
        assert isinstance(await failing(one), RuntimeClosedError)

    run(main())


def test_parts_that_come_too_late_are_not_heard() -> None:
    """A part told after the answer was complete changes nothing (S2-46)."""
    kept = []

    class Late(Script):
        async def ask(self, *args, hear, **kwargs):
            kept.append(hear)
            return await super().ask(*args, hear=hear, **kwargs)

    async def main() -> None:
        acts = Acts(read=Act())
        one = session(Late(Says("x")), acts)
        turn = await one.send("go")
        moves = len(one.machine.history)
        kept[0](TextPart("more"))
        kept[0](UsePart(use("read")))
        await asyncio.sleep(1)
        assert len(one.machine.history) == moves
        assert one.turns == [turn]
        assert not acts.begun

    run(main())


def test_only_the_tool_that_is_late_ends(caplog: pytest.LogCaptureFixture) -> None:
    """A tool that times out is stopped, the others go on, the model is told, and the turn
    continues (S2-52, S2-55)."""

    async def main() -> None:
        acts = Acts(late=Act(takes_s=100, timeout_s=1), slow=Act(takes_s=5))
        script = Script(Says("", (use("late"), use("slow"))), Says("done"))
        one = session(script, acts)
        turn = await one.send("go")
        statuses = [call.status for call in turn.tool_calls]
        assert statuses == [ToolStatus.TIMED_OUT, ToolStatus.COMPLETED]
        assert turn.agent_response == "done"
        assert "Timed out" in results(script.asked[1])[0]
        assert [m.failed for m in script.asked[1] if isinstance(m, ToolMessage)] == [True, False]
        assert triggers(one)[3:6] == [_T.TIMEOUT, _T.RECOVERED, _T.TOOL_COMPLETION]
        assert acts.ended == [("slow", 5.0)]

    run(main())
    assert "Recovering from tool timeout" in caplog.text


def test_the_failure_of_a_tool_is_told_to_the_model(caplog: pytest.LogCaptureFixture) -> None:
    """A tool that fails is a result for the model, and in the history a failure that the session
    recovered from; however often, it ends no turn (S2-14, S2-39, S2-55)."""

    async def main() -> None:
        acts = Acts(bad=Act(error=AgentError("broken"), effect=Effect.unknown()))
        steps = [Says("", (use("bad", f"[{n}]"),)) for n in range(3)]
        script = Script(*steps, Says(error=limited(1.0)), Says("done"))
        one = session(script, acts, limits=ResourceLimits(max_recoveries=1))
        turn = await one.send("go")
        assert [call.error for call in turn.tool_calls] == ["broken"] * 3
        assert "broken" in results(script.asked[1])[0]
        assert triggers(one).count(_T.TOOL_FAILURE) == 3

    run(main())
    assert "Tool execution failed: bad: broken" in caplog.text


def test_short_memory_is_given_back_and_less_runs_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A process that takes too much between two steps sheds and runs fewer tools at once, so often
    as the limit of recoveries says, and says how many bytes that was; the turn goes on all the same
    (S2-20, S2-45, S2-53, S2-55)."""
    taken = iter([100, 1_024, 1_023, 2_000, 2_000, 2_000])
    shed: list[int] = []

    script = Script(*[Says("", (use("read", f"[{n}]"),)) for n in range(5)], Says("done"))

    def relieve() -> int:
        shed.append(len(script.asked))
        return 1_234_567

    async def main() -> None:
        one = session(
            script,
            Acts(read=Act(takes_s=10)),
            memory=lambda: next(taken) * MIB,
            relieve=relieve,
            limits=ResourceLimits(max_recoveries=2),
        )
        assert one._means.pipeline.concurrency == 4
        assert (await one.send("go")).agent_response == "done"
        assert one._means.pipeline.concurrency == 1
        assert shed == [1, 3]
        assert triggers(one).count(_T.RESOURCE_LIMIT) == 2
        said = [each.trouble.message for each in one.machine.history if each.trouble]
        assert len(said) == 2
        assert all("; 1,234,567 bytes of results were let go of" in each for each in said)

    run(main())
    assert caplog.text.count("Recovering from memory limit: 1234567 bytes freed") == 2


def test_a_session_that_repeats_itself_gets_the_recent_result() -> None:
    """A model that asks for the very same thing again and again is answered with what it was told,
    without running it, and a new message forgets that (S2-58, V-35)."""

    async def main() -> None:
        acts = Acts(read=Act(text="same"))
        same = [Says("", (use("read"),)) for _ in range(4)]
        one = session(Script(*same, Says("done"), same[0], Says("done")), acts)
        turn = await one.send("go")
        assert len(acts.begun) < 4
        assert turn.tool_calls[-1].cached
        assert "loop_detected" in turn.tool_calls[-1].result
        before = len(acts.begun)
        await one.send("again")
        assert len(acts.begun) == before + 1

    run(main())


def test_warnings_are_told_with_the_result() -> None:
    """What loop detection warns of stands behind the result of the tool (S2-58, V-35)."""

    async def main() -> None:
        pages = [f'{{"path": "a", "offset": {n}}}' for n in range(9)]
        steps = [Says("", (use("read", page), use("nowhere"))) for page in pages]
        one = session(Script(*steps, Says("done")), Acts(read=Act(text="nothing")))
        turn = await one.send("go")
        warned = [call.result for call in turn.tool_calls if call.result.startswith("nothing\n\n")]
        assert warned
        assert results(one.conversation.messages()) == [call.result for call in turn.tool_calls]

    run(main())


def test_bad_arguments_are_told_to_the_model() -> None:
    """A tool that is not there, or cannot take the arguments, is a result that lets the model
    correct itself (S2-35)."""

    class Strict(Acts):
        def prepare(self, use):
            if use.name == "read":
                raise InvalidInputError("'path' is missing")
            return super().prepare(use)

    async def main() -> None:
        script = Script(Says("", (use("read"), use("nowhere"))), Says("done"))
        turn = await session(script, Strict(read=Act())).send("go")
        assert [call.status for call in turn.tool_calls] == [ToolStatus.REJECTED] * 2
        assert "'path' is missing" in results(script.asked[1])[0]
        assert "nowhere" in results(script.asked[1])[1]

    run(main())


def test_two_sessions_share_one_pipeline() -> None:
    """Sessions that share a pipeline share its places, and each has its own state
    (S2-18, S2-59)."""

    async def main() -> None:
        acts = Acts(read=Act(takes_s=1))
        shared = means(
            Script(*[Says("", (use("read", "[1]"), use("read", "[2]")))] * 2, *[Says("x")] * 2),
            acts,
            limits=ResourceLimits(max_concurrent_tools=2),
        )
        one, other = Session("one", shared), Session("other", shared)
        await asyncio.gather(one.send("go"), other.send("go"))
        assert asyncio.get_running_loop().time() == 2
        assert one.turns[0].id != other.turns[0].id
        ids = [call.id for turn in (*one.turns, *other.turns) for call in turn.tool_calls]
        assert len(set(ids)) == 4

    run(main())


def test_a_turn_without_trouble_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    """A turn without trouble logs nothing above debug but that the session began (S2-55)."""
    caplog.set_level(logging.INFO, "paceline")

    async def main() -> ToolCall:
        one = session(Script(Says("", (use("read"),)), Says("x")), Acts(read=Act()))
        return (await one.send("go")).tool_calls[0]

    assert run(main()).status is ToolStatus.COMPLETED
    assert [one.levelno for one in caplog.records] == [logging.INFO]
