"""A turn that is cancelled, or whose process dies, at any moment there is."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.call import Effect, Outcome, Source
from paceline.engine.journal import restore
from paceline.engine.session import Session
from paceline.engine.states import AgentState, StateTransition, ToolStatus, TurnStatus
from paceline.errors import (
    BudgetExceededError,
    CallCancelledError,
    CallError,
    Category,
    IllegalTransitionError,
    StorageError,
)
from paceline.messages import (
    AssistantMessage,
    Message,
    ModelReply,
    ModelRequest,
    TextPart,
    ToolMessage,
    UsePart,
    UserMessage,
)
from paceline.testing.virtual_time import VirtualTimeLoop, run
from tests.unit.engine.acting import Act, Acts, Pages, Says, Script, Suspensions, session, use

LIMITED = CallError("slow down", category=Category.RATE_LIMIT)
STEPS = (
    Says(
        "first I look",
        (use("look"), use("peek")),
        parts=(
            (0.1, TextPart("first ")),
            (0.1, UsePart(use("look"))),
            (0.1, TextPart("I look")),
            (0.1, UsePart(use("peek"))),
        ),
    ),
    Says("then I act", (use("write"), use("look", "[1]"), use("pay"), use("who"))),
    Says("bye"),
)


def acts() -> Acts:
    """Tools of all kinds: what reads takes its time, what writes must not run twice."""
    return Acts(
        look=Act(takes_s=1),
        peek=Act(takes_s=0.5),
        write=Act(Effect.unknown(), takes_s=1),
        pay=Act(Effect.write("money"), takes_s=1, approval=True),
        who=Act(question="Who are you?"),
    )


def policy() -> Callable[[ModelRequest], Says]:
    """A model that knows from the messages how far it is, and is refused once on the way."""
    refused = False

    def answer(request: ModelRequest) -> Says:
        nonlocal refused
        last = max(n for n, one in enumerate(request.messages) if isinstance(one, UserMessage))
        done = sum(isinstance(one, AssistantMessage) for one in request.messages[last:])
        if done == 1 and not refused:
            refused = True
            return Says(error=LIMITED, parts=((0.1, TextPart("then")),))
        return STEPS[done]

    return answer


def tended(of: Session) -> Session:
    """The session with a person beside it who agrees to everything, a moment later."""

    def say() -> None:
        with contextlib.suppress(IllegalTransitionError):
            if of.state is AgentState.AWAITING_APPROVAL and of.pending is not None:
                of.approve(of.pending.call_id)
            elif of.state is AgentState.WAITING_FOR_USER:
                of.answer("me")

    def moved(transition: StateTransition) -> None:
        if transition.to_state in (AgentState.AWAITING_APPROVAL, AgentState.WAITING_FOR_USER):
            asyncio.get_running_loop().call_later(0.5, say)

    of.machine.observe(moved)
    return of


def expect_pairs(messages: Sequence[Message]) -> None:
    """Each use is followed by its result before anything else is said."""
    left = [one for one in messages if not isinstance(one, UserMessage)]
    while left:
        said = left.pop(0)
        assert isinstance(said, AssistantMessage)
        results, left = left[: len(said.uses)], left[len(said.uses) :]
        assert [one.use_id for one in results if isinstance(one, ToolMessage)] == [
            one.id for one in said.uses
        ]


def expect_idle(one: Session, tools: Acts) -> None:
    """Nothing is left of a turn."""
    assert one.state is AgentState.IDLE
    assert asyncio.all_tasks() == {asyncio.current_task()}
    pipeline = one._means.pipeline
    assert (pipeline.running, pipeline.waiting, tools.running) == (0, 0, 0)
    assert one.turn is None
    assert not one.active_tools
    assert one.pending is None
    expect_pairs(one.conversation.messages())


async def cancelled_at(at: int, how: str, *, soon: bool, journal: Pages | None) -> bool:
    """Whether the turn had a suspension of that number, to be cancelled at."""
    tools = acts()
    one = tended(session(Script(always=policy()), tools, journal=journal))
    sending: list[asyncio.Task[object]] = []
    accepted: list[bool] = []

    def cancel() -> None:
        accepted.append(one.cancel() if how == "session" else sending[0].cancel())

    with Suspensions(at, cancel, soon=soon) as suspensions:
        sending.append(asyncio.ensure_future(one.send("go")))
        ended = (await asyncio.gather(*sending, return_exceptions=True))[0]
    expect_idle(one, tools)
    if accepted == [True]:
        assert isinstance(ended, (CallCancelledError, asyncio.CancelledError))
    if one.turns:
        last = one.turns[-1]
        if isinstance(ended, CallCancelledError):
            assert last.status is TurnStatus.CANCELLED
        assert last.status in (TurnStatus.CANCELLED, TurnStatus.COMPLETED)
        assert all(call.status.terminal for call in last.tool_calls)
    assert one.cancel() is False
    if journal is not None:
        restored = restore(journal.entries)
        assert restored.interrupted is None
        assert tuple(message for _, message in restored.messages) == one.conversation.messages()
        assert restored.turns == tuple(one.turns)
    assert (await one.send("again")).agent_response == "bye"
    return suspensions.reached


@pytest.mark.parametrize("how", ["session", "sender"])
@pytest.mark.parametrize("soon", [True, False])
@pytest.mark.parametrize("durable", [True, False])
def test_a_turn_can_be_cancelled_at_every_await(how: str, soon: bool, durable: bool) -> None:
    """Cancelled at any suspension of any of its tasks, a turn ends once: the session is idle, the
    turn cancelled, nothing runs or holds a place, no use is without its result, the journal says
    the same, a second cancel does nothing, and the next turn works (S2-25, S2-30, S2-52)."""

    async def main() -> None:
        at = 1
        while await cancelled_at(at, how, soon=soon, journal=Pages() if durable else None):
            at += 1
        assert at > 15

    run(main())


def process(
    entries: Sequence[bytes], tools: Acts, crash_at: int, *, lags: bool
) -> tuple[list[bytes], bool]:
    """One life of a process: it reads the journal, goes on with what was interrupted or sends the
    message, and crashes. What is durable then, and whether it crashed before it was done."""
    pages = Pages(entries, lags=lags)
    tools.gone = False

    def crash() -> None:
        pages.crashed = tools.gone = True

    async def main() -> bool:
        with Suspensions(crash_at, crash) as suspensions:
            one = tended(session(Script(always=policy()), tools, journal=pages))

            async def live() -> None:
                if await one.resume() is None and not one.turns:
                    await one.send("go")

            await asyncio.ensure_future(live())
        expect_idle(one, tools)
        return suspensions.reached

    crashed = run(main())
    return pages.entries, crashed


def expect_done(entries: Sequence[bytes], tools: Acts) -> None:
    """The turn is complete, and nothing happened twice that must not."""
    restored = restore(entries)
    assert restored.interrupted is None
    [turn] = restored.turns
    assert (turn.status, turn.agent_response) == (TurnStatus.COMPLETED, "bye")
    expect_pairs([message for _, message in restored.messages])
    names = [call.tool_name for call in turn.tool_calls]
    assert names == ["look", "peek", "write", "look", "pay", "who"]
    assert len({call.id for call in turn.tool_calls}) == len(names)
    for call in turn.tool_calls:
        if call.tool_name not in ("write", "pay"):
            assert call.status in (ToolStatus.COMPLETED, ToolStatus.CACHED)
            continue
        begun = sum(name == call.tool_name for name, _ in tools.begun)
        assert begun <= 1
        if call.status is ToolStatus.COMPLETED:
            assert begun == 1
        else:
            assert "may or may not have taken effect" in call.result


def test_a_crash_at_every_moment_resumes() -> None:
    """Wherever the process dies, in every state and around every entry of the journal, the next one
    completes the turn, and no tool that must not run twice does (S2-56, V-37)."""
    moments = 0
    for lags in (False, True):  # whether what was only noted is in the journal
        at, crashed = 0, True
        while crashed:
            at += 1
            tools = acts()
            entries, crashed = process((), tools, at, lags=lags)
            entries, _ = process(entries, tools, 1_000_000, lags=lags)
            expect_done(entries, tools)
        moments += at
    assert moments > 50


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=2, max_size=5))
def test_crash_after_crash_resumes(crashes: list[tuple[int, bool]]) -> None:
    """A process that dies while it goes on after a crash is no harm either (S2-56)."""
    tools = acts()
    entries: Sequence[bytes] = ()
    for at, lags in [*crashes, (1_000_000, False)]:
        entries, _ = process(entries, tools, at, lags=lags)
    expect_done(entries, tools)


def test_every_state_can_be_cancelled() -> None:
    """In each state of a running turn, cancelling leads to IDLE (S2-25, S2-32, S2-54)."""

    async def main(state: AgentState) -> None:
        tools = acts()
        one = tended(session(Script(always=policy()), tools, journal=Pages(takes_s=0.1)))
        sending = asyncio.ensure_future(one.send("go"))
        one.machine.observe(lambda moved: moved.to_state is state and one.cancel())
        with pytest.raises(CallCancelledError):
            await sending
        expect_idle(one, tools)
        assert one.machine.history[-1].from_state is state

    for state in AgentState:
        if state not in (AgentState.IDLE, AgentState.SHUTDOWN):
            run(main(state))


def test_a_foreign_end_of_all_tasks_leaves_no_turn_open() -> None:
    """A loop that is closed under a session cancels its turn once, and ends (S2-48)."""
    tools = acts()
    pages = Pages(takes_s=0.1)

    async def main() -> None:
        one = session(Script(always=policy()), tools, journal=pages)
        sending = asyncio.ensure_future(one.send("go"))
        await asyncio.sleep(0.65)
        assert not sending.done()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        runner.run(main())
    assert tools.running == 0
    assert restore(pages.entries).turns[0].status is TurnStatus.CANCELLED


class Instant(Script):
    """A model that answers without being waited for, after the session was cancelled."""

    def __init__(self, error: CallError | None) -> None:
        super().__init__()
        self.error = error
        self.session: Session | None = None

    async def ask(self, *args, **kwargs):
        assert self.session is not None
        assert self.session.cancel()
        return Outcome("c", "fake", Source.EXECUTED, ModelReply("bye"), self.error)


@pytest.mark.parametrize("durable", [True, False])
def test_a_cancel_in_the_last_step_counts(durable: bool) -> None:
    """A turn that is cancelled by its own last step is cancelled, and one that fails in that step
    fails; the journal says the same, and whoever sent the message is not cancelled (S2-25)."""

    async def main(error: CallError | None, expected: type[CallError], status: TurnStatus) -> None:
        pages = Pages() if durable else None
        script = Instant(error)
        one = script.session = session(script, journal=pages)
        with pytest.raises(expected) as caught:
            await one.send("go")
        assert type(caught.value) is expected
        expect_idle(one, Acts())
        assert one.turns[-1].status is status
        if pages is not None:
            assert restore(pages.entries).turns == tuple(one.turns)

    run(main(None, CallCancelledError, TurnStatus.CANCELLED))
    run(main(CallError("broken"), CallError, TurnStatus.FAILED))


def test_a_cancelled_turn_stays_cancelled_without_its_journal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A turn whose cancellation cannot be written is cancelled, and the log says why it will look
    interrupted (S2-56)."""

    async def main() -> None:
        pages = Pages()
        one = session(Script(Says("x", after_s=9)), journal=pages)
        sending = asyncio.ensure_future(one.send("go"))
        await asyncio.sleep(1)
        pages.error = StorageError("the disk is full")
        one.cancel()
        with pytest.raises(CallCancelledError):
            await sending
        assert one.turns[-1].status is TurnStatus.CANCELLED
        expect_idle(one, Acts())

    run(main())
    assert "not in its journal: the disk is full" in caplog.text


def test_a_turn_that_never_began_is_none() -> None:
    """A turn whose own task is cancelled from outside before its first step leaves nothing, and its
    reader is cancelled (S2-25)."""

    async def main() -> None:
        one = session(Script(Says("x")))

        async def read() -> None:
            async with contextlib.aclosing(one.stream("go")) as events:
                assert [event async for event in events] == []

        reading = asyncio.ensure_future(read())
        await asyncio.sleep(0)
        [task] = asyncio.all_tasks() - {asyncio.current_task(), reading}
        task.cancel()
        await asyncio.wait((reading,))
        assert reading.cancelled()
        assert (len(one.turns), one.conversation.messages()) == (0, ())
        expect_idle(one, Acts())

    run(main())


@pytest.mark.parametrize("durable", [True, False])
def test_a_sender_stays_as_cancelled_as_it_was(durable: bool) -> None:
    """A cancelled turn leaves no request to cancel at the task that sent the message, nor does a
    turn that is late; one from elsewhere stays, and is raised once all is over (S2-25)."""

    async def main() -> None:
        tools = Acts(slow=Act(takes_s=9))
        said = Says("", (use("slow"),))
        one = session(
            Script(said, said, said), tools, journal=Pages(takes_s=1) if durable else None
        )

        async def send(timeout_s: float | None) -> int:
            with pytest.raises((CallCancelledError, BudgetExceededError)):
                await one.send("go", timeout_s=timeout_s)
            await asyncio.sleep(1)
            task = asyncio.current_task()
            assert task is not None
            return task.cancelling()

        sending = asyncio.ensure_future(send(None))
        await asyncio.sleep(6)
        assert one.cancel()
        assert await sending == 0
        assert await send(6) == 0
        sending = asyncio.ensure_future(send(6))
        await asyncio.sleep(6)  # late, and cancelled in the same moment
        sending.cancel()
        await asyncio.wait((sending,))
        assert sending.cancelled()
        expect_idle(one, tools)

    run(main())
