"""What a session promises to whoever talks to it."""

import asyncio
import contextlib
import logging
from typing import Any, Final

import pytest

from paceline.call import Caller, Effect
from paceline.engine.conversation import Conversation
from paceline.engine.durable import DurableTools, Notes
from paceline.engine.events import (
    ApprovalNeeded,
    Event,
    QuestionAsked,
    StateChanged,
    TextDelta,
    ToolChanged,
    TurnEnded,
)
from paceline.engine.journal import Record, TurnBegan, read, restore
from paceline.engine.states import (
    AgentState,
    PerformanceHints,
    ResourceLimits,
    ToolStatus,
    TransitionTrigger,
    TurnStatus,
)
from paceline.errors import (
    BudgetExceededError,
    CallCancelledError,
    CorruptStoreError,
    IllegalTransitionError,
    InvalidInputError,
    PacelineError,
    StorageError,
)
from paceline.messages import AssistantMessage, SystemMessage, ToolMessage, UsePart, UserMessage
from paceline.testing.virtual_time import run
from tests.unit.engine.acting import NS, Act, Acts, Foretells, Pages, Says, Script, session, use

_S, _T = AgentState, TransitionTrigger
READ = Says("let me see", (use("read"),))


def now() -> float:
    return asyncio.get_running_loop().time()


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_messages_are_answered_one_after_another() -> None:
    """Messages sent at once are turns in the order of their sending, each of which sees those
    before it (S2-25, S2-27)."""

    async def main() -> None:
        script = Script(Says("1", after_s=1), Says("2", after_s=1), Says("3", after_s=1))
        one = session(script)
        turns = await asyncio.gather(*(one.send(text) for text in "abc"))
        assert [(turn.user_message, turn.agent_response) for turn in turns] == [
            ("a", "1"), ("b", "2"), ("c", "3"),
        ]  # fmt: skip
        assert [turn.id for turn in one.turns] == ["s.1", "s.2", "s.3"]
        assert now() == 3
        assert script.asked[2][:4] == (
            UserMessage("a"), AssistantMessage("1"), UserMessage("b"), AssistantMessage("2"),
        )  # fmt: skip

    run(main())


def test_one_who_leaves_the_queue_leaves_the_turn_alone() -> None:
    """Who is cancelled before his turn began takes no part in it (S2-25)."""

    async def main() -> None:
        one = session(Script(Says("1", after_s=1), Says("3")))
        first, second, third = (asyncio.ensure_future(one.send(text)) for text in "abc")
        await asyncio.sleep(0.5)
        second.cancel()
        assert (await first).agent_response == "1"
        assert (await third).agent_response == "3"
        assert second.cancelled()
        assert len(one.turns) == 2

    run(main())


def test_everything_is_told_in_order() -> None:
    """A stream tells states, text, tools and the end of one turn, and nothing else
    (S2-15, S2-31, S2-39)."""

    async def main() -> None:
        one = session(Script(READ, Says("done")), Acts(read=Act(takes_s=1)))
        told = [event async for event in one.stream("go")]
        assert isinstance(told[-1], TurnEnded)
        assert told[-1].turn == one.turns[-1]
        assert [event.text for event in told if isinstance(event, TextDelta)] == [
            "let me see", "done",
        ]  # fmt: skip
        states = [event.transition for event in told if isinstance(event, StateChanged)]
        assert states == list(one.machine.history)
        tools = [event for event in told if isinstance(event, ToolChanged)]
        assert [event.status for event in tools] == [
            ToolStatus.QUEUED, ToolStatus.RUNNING, ToolStatus.COMPLETED,
        ]  # fmt: skip
        assert (tools[-1].result, tools[-1].call_id) == ("done", "s.1.1")

    run(main())


def test_leaving_a_stream_cancels_its_turn() -> None:
    """Who stops to listen gets the turn cancelled, and all that ran in it (S2-25)."""

    async def main() -> None:
        acts = Acts(read=Act(takes_s=100))
        one = session(Script(READ), acts)
        async with contextlib.aclosing(one.stream("go")) as events:
            async for event in events:
                if isinstance(event, ToolChanged) and event.status is ToolStatus.RUNNING:
                    break
        assert one.turns[-1].status is TurnStatus.CANCELLED
        assert (one.state, acts.running, now()) == (_S.IDLE, 0, 0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


def test_a_stream_ends_with_the_error_of_its_turn() -> None:
    """After the end is told, a stream raises what ended the turn (S2-33)."""

    async def main() -> None:
        one = session(Script(READ, READ), Acts(read=Act()), limits=ResourceLimits(max_steps=1))
        told: list[Event] = []

        async def listen() -> None:
            async for event in one.stream("go"):
                told.append(event)

        with pytest.raises(BudgetExceededError):
            await listen()
        assert isinstance(told[-1], TurnEnded)
        assert told[-1].turn.status is TurnStatus.FAILED

    run(main())


def test_a_slow_reader_gets_the_end_all_the_same() -> None:
    """A stream keeps so many events as it was told, and loses the oldest, never the last
    (S2-24)."""

    async def main() -> None:
        one = session(Script(*[READ] * 1, Says("done")), Acts(read=Act()))
        events = one.stream("go", most=2)
        first = await anext(events)
        await settle()
        rest = [event async for event in events]
        assert len([first, *rest]) == 3
        assert isinstance(rest[-1], TurnEnded)

    run(main())


def test_many_can_watch() -> None:
    """Any number watch a session, each from when it began to and until it stops (S2-15, S2-24)."""

    async def main() -> None:
        one = session(Script(Says("1"), Says("2")))
        early, left = one.watch(), one.watch()
        await one.send("a")
        left.close()
        late = one.watch()
        await one.send("b")
        await one.shutdown()
        ends = [
            [event.turn.id for event in [e async for e in watch] if isinstance(event, TurnEnded)]
            for watch in (early, left, late, one.watch())
        ]
        assert ends == [["s.1", "s.2"], ["s.1"], ["s.2"], []]
        assert not one._scene.watches

    run(main())


def test_a_turn_is_cancelled_from_outside() -> None:
    """`cancel` stops what runs; who waits for the turn is told that it was cancelled, as is the
    model of the next one (S2-25)."""

    async def main() -> None:
        acts = Acts(write=Act(Effect.unknown(), takes_s=9))
        script = Script(Says("", (use("write"),)), Says("sorry"))
        one = session(script, acts)
        assert one.cancel() is False
        sending = asyncio.ensure_future(one.send("go"))
        await asyncio.sleep(1)
        assert one.active_tools["s.1.1"].status is ToolStatus.RUNNING
        assert one.turn is not None
        assert one.turn.status is TurnStatus.RUNNING
        assert one.cancel()
        assert one.cancel()
        with pytest.raises(CallCancelledError):
            await sending
        assert one.cancel() is False
        assert (one.state, acts.running, now()) == (_S.IDLE, 0, 1)
        [call] = one.turns[-1].tool_calls
        assert call.status is ToolStatus.CANCELLED
        await one.send("and now?")
        told = script.asked[1][2]
        assert isinstance(told, ToolMessage)
        assert told.failed
        assert "may have taken effect" in told.text

    run(main())


def test_a_turn_is_cancelled_with_its_sender() -> None:
    """Whoever stops to wait for his turn ends it, and goes on when it has ended (S2-25)."""

    async def main() -> None:
        acts = Acts(read=Act(takes_s=100))
        one = session(Script(READ), acts)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await one.send("go")
        assert (one.state, one.turns[-1].status) == (_S.IDLE, TurnStatus.CANCELLED)
        assert (now(), acts.running) == (1, 0)

    run(main())


def test_what_was_seen_of_a_cut_off_answer_is_kept() -> None:
    """The text that the user saw before he cancelled is the turn's answer, and the model knows it
    said so (S2-31)."""

    async def main() -> None:
        script = Script(Says("one two", after_s=9), Says("fine"))
        one = session(script, journal=(pages := Pages()))
        sending = asyncio.ensure_future(one.send("count"))
        await asyncio.sleep(1)
        one.cancel()
        with pytest.raises(CallCancelledError):
            await sending
        assert one.turns[-1].agent_response == "one two"
        assert one.conversation.messages() == (UserMessage("count"), AssistantMessage("one two"))
        assert restore(pages.entries).turns == tuple(one.turns)

    run(main())


def test_a_tool_waits_for_approval() -> None:
    """A tool that needs it runs only after somebody agreed; the time that takes is not the turn's
    (S2-32)."""

    async def main() -> None:
        acts = Acts(pay=Act(Effect.write("money"), approval=True, takes_s=1))
        acts.acts["read"] = Act(Effect.read("weather"), takes_s=1)
        script = Script(Says("", (use("pay", "5"), use("read"))), Says("paid"))
        one = session(script, acts, limits=ResourceLimits(max_execution_s=10))
        watch = one.watch()
        sending = asyncio.ensure_future(one.send("go"))
        await asyncio.sleep(1_000)
        assert one.state is _S.AWAITING_APPROVAL
        assert one.pending == ApprovalNeeded("s.1.1", "pay", "5")
        assert [name for name, _ in acts.begun] == ["read"]
        with pytest.raises(IllegalTransitionError):
            one.approve("s.1.2")
        with pytest.raises(IllegalTransitionError):
            one.answer("yes")
        one.approve("s.1.1")
        with pytest.raises(IllegalTransitionError):
            one.approve("s.1.1")
        turn = await sending
        assert [call.status for call in turn.tool_calls] == [ToolStatus.COMPLETED] * 2
        assert now() == 1_001
        watch.close()
        assert ApprovalNeeded("s.1.1", "pay", "5") in [event async for event in watch]

    run(main())


def test_a_refusal_is_told_with_its_reason() -> None:
    """A tool that is refused does not run, and the model is told why (S2-32)."""

    async def main() -> None:
        acts = Acts(pay=Act(Effect.write("money"), approval=True))
        script = Script(Says("", (use("pay"),)), Says("a pity"))
        one = session(script, acts)
        sending = asyncio.ensure_future(one.send("go"))
        await asyncio.sleep(1)
        one.approve("s.1.1", yes=False, reason="too dear")
        assert (await sending).tool_calls[0].status is ToolStatus.REJECTED
        assert "too dear" in str(script.asked[1][-1])
        assert not acts.begun

    run(main())


def test_a_person_is_not_waited_for_for_ever() -> None:
    """Without an answer in time a tool counts as refused, and what waits behind it is asked next
    (S2-32)."""

    async def main() -> None:
        acts = Acts(
            pay=Act(Effect.write("money"), approval=True),
            call=Act(Effect.write("phone"), approval=True),
        )
        script = Script(Says("", (use("pay"), use("call"))), Says("a pity"))
        one = session(script, acts, limits=ResourceLimits(approval_timeout_s=30))
        turn = await one.send("go")
        assert [call.status for call in turn.tool_calls] == [ToolStatus.REJECTED] * 2
        assert "Nobody answered within 30 s" in turn.tool_calls[0].result
        assert now() == 60

    run(main())


def test_the_callers_patience_includes_that_of_persons() -> None:
    """The time a caller gave ends a turn that waits for a person (S2-32)."""

    async def main() -> None:
        acts = Acts(pay=Act(Effect.write("money"), approval=True))
        one = session(Script(Says("", (use("pay"),))), acts)
        with pytest.raises(BudgetExceededError) as caught:
            await one.send("go", timeout_s=40)
        assert (caught.value.budget, now(), one.pending) == ("timeout_s", 40, None)
        assert one.machine.history[-2].from_state is _S.AWAITING_APPROVAL

    run(main())


def test_a_decision_in_the_last_moment_is_no_fault(caplog: pytest.LogCaptureFixture) -> None:
    """A person who decides in the moment that the time of the turn is over lets it end
    (S2-32)."""

    async def main() -> None:
        acts = Acts(
            pay=Act(Effect.write("money"), approval=True),
            call=Act(Effect.write("phone"), approval=True),
        )
        one = session(Script(Says("", (use("pay"), use("call")))), acts)
        # Nearer than the clock can tell, so that both happen in one round of the loop.
        asyncio.get_running_loop().call_at(30 - 1e-10, lambda: one.approve("s.1.1"))
        with pytest.raises(BudgetExceededError):
            await one.send("go", timeout_s=30)
        assert (round(now()), one.state) == (30, _S.IDLE)

    run(main())
    assert all(one.levelno < logging.ERROR for one in caplog.records)


def test_a_tool_asks_the_user() -> None:
    """A question waits for its answer, which is the result of the tool (S2-32)."""

    async def main() -> None:
        script = Script(Says("", (use("who"),)), Says("hello Ada"))
        one = session(script, Acts(who=Act(question="Who are you?")))
        sending = asyncio.ensure_future(one.send("go"))
        await asyncio.sleep(1)
        assert one.state is _S.WAITING_FOR_USER
        assert one.pending == QuestionAsked("s.1.1", "Who are you?")
        with pytest.raises(IllegalTransitionError):
            one.approve("s.1.1")
        one.answer("Ada")
        assert (await sending).tool_calls[0].result == "Ada"
        with pytest.raises(IllegalTransitionError):
            one.answer("Ada")

    run(main())


def test_nothing_happens_in_a_session_without_a_turn() -> None:
    """An idle session has no task and no timer (S2-25, S2-27, S2-60)."""

    async def main() -> None:
        acts = Acts(read=Act(takes_s=1))
        async with session(Script(READ, Says("done")), acts, journal=Pages()) as one:
            await one.send("go")
            await settle()
            loop: Any = asyncio.get_running_loop()
            assert asyncio.all_tasks() == {asyncio.current_task()}
            timers = [timer for timer in loop._scheduled if not timer.cancelled()]
            assert (timers, len(loop._ready)) == ([], 0)

    run(main())


def test_shutting_down_lets_the_turn_end() -> None:
    """The turn that runs may end in time, those that wait are refused, and what comes later too
    (S2-18, S2-25, S2-48)."""

    async def main() -> None:
        one = session(Script(Says("1", after_s=3)))
        first, second = asyncio.ensure_future(one.send("a")), asyncio.ensure_future(one.send("b"))
        watch = one.watch()
        await asyncio.sleep(1)
        await one.shutdown()
        assert now() == 3
        assert (await first).agent_response == "1"
        for late in (second, one.send("c"), one.resume(), anext(one.stream("d"))):
            with pytest.raises(IllegalTransitionError):
                await late
        assert one.state is _S.SHUTDOWN
        assert watch.closed
        await one.shutdown()
        assert one.cancel() is False
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(main())


@pytest.mark.parametrize(("drain", "ends_s"), [(True, 6.0), (False, 1.0)])
def test_shutting_down_has_an_end(drain: bool, ends_s: float) -> None:
    """A turn that takes longer than it is given is cancelled, at once if it is given nothing
    (S2-25)."""

    async def main() -> None:
        acts = Acts(read=Act(takes_s=100))
        one = session(Script(READ), acts)
        sending = asyncio.ensure_future(one.send("a"))
        await asyncio.sleep(1)
        await one.shutdown(drain=drain, timeout_s=5.0)
        assert (now(), one.state, acts.running) == (ends_s, _S.SHUTDOWN, 0)
        with pytest.raises(CallCancelledError):
            await sending
        assert [moved.trigger for moved in one.machine.history][-2:] == [
            _T.CANCELLED, _T.SHUTDOWN,
        ]  # fmt: skip

    run(main())


def test_who_is_cancelled_while_shutting_down_leaves_it_done() -> None:
    """A shutdown that is cancelled while it waits cancels the turn, and the session is over
    (S2-25)."""

    async def main() -> None:
        one = session(Script(Says("1", after_s=100)))
        sending = asyncio.ensure_future(one.send("a"))
        await asyncio.sleep(1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await one.shutdown(timeout_s=50)
        with pytest.raises(CallCancelledError):
            await sending
        assert one.turns[-1].status is TurnStatus.CANCELLED
        await one.shutdown()
        assert one.state is _S.SHUTDOWN

    run(main())


def test_leaving_a_session_in_trouble_does_not_wait() -> None:
    """The end of its block shuts a session down, without draining where an error left the block
    (S2-18)."""

    async def main() -> None:
        one = session(Script(Says("1", after_s=100)))
        sending = asyncio.ensure_future(one.send("a"))

        async def stumble() -> None:
            async with one:
                await asyncio.sleep(1)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await stumble()
        assert (one.state, now()) == (_S.SHUTDOWN, 1)
        with pytest.raises(CallCancelledError):
            await sending

    run(main())


def test_an_empty_message_is_refused() -> None:
    """A message without text begins no turn (S2-25)."""

    async def main() -> None:
        one = session(Script())
        with pytest.raises(InvalidInputError):
            await one.send("")
        assert (one.state, len(one.turns)) == (_S.IDLE, 0)

    run(main())


def test_turns_and_moves_are_bounded() -> None:
    """A session keeps so many turns as its limits say, and of its moves 500 once it is idle
    (S2-06, S2-23)."""

    async def main() -> None:
        one = session(Script(always=lambda _: Says("x")), limits=ResourceLimits(max_turns_kept=3))
        for n in range(200):
            await one.send(str(n))
        assert [turn.id for turn in one.turns] == ["s.198", "s.199", "s.200"]
        assert len(one.machine.history) == 500

    run(main())


def test_a_session_goes_on_where_the_journal_ends() -> None:
    """What was said in an earlier life of the session is what the model is asked with, and turns
    are numbered on (S2-56)."""

    async def main() -> None:
        pages = Pages()
        first = session(Script(READ, Says("1")), Acts(read=Act()), journal=pages)
        async with first:
            turn = await first.send("a")
        script = Script(Says("2"))
        async with session(script, Acts(read=Act()), journal=pages, system="be kind") as second:
            assert list(second.turns) == [turn]
            assert await second.resume() is None
            assert (await second.send("b")).id == "s.2"
        assert script.asked[0] == (
            SystemMessage("be kind"), *first.conversation.messages(), UserMessage("b"),
        )  # fmt: skip

    run(main())


def test_a_new_message_gives_up_what_was_interrupted() -> None:
    """A turn that was cut off by a crash, and is not resumed, counts as cancelled once something
    else is said, in this life and in later ones (S2-56)."""

    async def main() -> None:
        pages = Pages()
        first = session(
            Script(Says("", (use("w"),))), Acts(w=Act(Effect.unknown(), takes_s=9)), journal=pages
        )
        sending = asyncio.ensure_future(first.send("a"))
        await asyncio.sleep(1)
        pages.crashed = True
        sending.cancel()
        await asyncio.wait((sending,))
        pages.crashed = False
        script = Script(Says("2"))
        second = session(script, journal=pages)
        await second.send("b")
        told = script.asked[0][2]
        assert isinstance(told, ToolMessage)
        assert "may or may not have taken effect" in told.text
        restored = restore(pages.entries)
        assert restored.turns == tuple(second.turns)
        assert [turn.status for turn in restored.turns] == [
            TurnStatus.CANCELLED, TurnStatus.COMPLETED,
        ]  # fmt: skip

    run(main())


@pytest.mark.parametrize("idempotent", [True, False])
def test_only_what_may_be_made_again_is_after_a_crash(idempotent: bool) -> None:
    """A write that was under way when the process died is made again when the session goes on if it
    is idempotent, without a word to the model, and is not otherwise (S2-56)."""

    async def main() -> None:
        pages = Pages()
        act = Act(Effect.write("shelf", idempotent=idempotent), takes_s=9)
        first = session(Script(Says("", (use("w"),))), Acts(w=act), journal=pages)
        sending = asyncio.ensure_future(first.send("a"))
        await asyncio.sleep(1)
        pages.crashed = True
        sending.cancel()
        await asyncio.wait((sending,))
        pages.crashed = False
        acts, script = Acts(w=act), Script(Says("2"))
        second = session(script, acts, journal=pages)
        await second.resume()
        assert len(acts.ended) == idempotent
        told = script.asked[0][2]
        assert ("may or may not have taken effect" in told.text) is not idempotent

    run(main())


def test_an_idempotent_write_is_a_write() -> None:
    """A write that may be made again waits for the end of the answer, and for other writes of the same
    (S2-29, S2-56)."""

    async def main() -> None:
        act = Act(Effect.write("shelf", idempotent=True), takes_s=1)
        parts = ((0.0, UsePart(use("a"))), (5.0, UsePart(use("b"))))
        script = Script(Says("", (use("a"), use("b")), parts=parts), Says("done"))
        acts = Acts(a=act, b=act)
        await session(script, acts).send("go")
        assert acts.begun == [("a", 5), ("b", 6)]

    run(main())


def test_a_journal_that_cannot_be_written_ends_the_turn() -> None:
    """Without its journal a turn fails, with the journal's error, and the session goes on when it
    is there again (S2-56)."""

    async def main() -> None:
        pages = Pages()
        pages.error = StorageError("the disk is full")
        one = session(Script(Says("1"), Says("2")), journal=pages)
        with pytest.raises(StorageError):
            await one.send("a")
        assert (one.state, one.turns[-1].status) == (_S.IDLE, TurnStatus.FAILED)
        pages.error = None
        assert (await one.send("b")).agent_response == "1"
        assert [turn.id for turn in restore(pages.entries).turns] == ["s.2"]

    run(main())


def test_an_end_that_cannot_be_written_is_no_success() -> None:
    """A turn whose answer is there, but not its end in the journal, fails with the journal's error
    (S2-56)."""

    async def main() -> None:
        class Full(Pages):
            def refuses(self, entry: bytes) -> Exception | None:
                return StorageError("the disk is full") if len(self.entries) == 2 else None

        one = session(Script(Says("1"), Says("2")), journal=Full())
        with pytest.raises(StorageError):
            await one.send("a")
        assert (one.state, one.turns[-1].status) == (_S.IDLE, TurnStatus.FAILED)
        assert one.machine.history[-1].trigger is _T.GAVE_UP

    run(main())


def test_a_tool_whose_beginning_cannot_be_noted_does_not_run() -> None:
    """A tool that must not run twice is in the journal first, or it does not run; one whose end
    cannot be noted has run all the same, and no other one does; and the turn fails (S2-56)."""

    class Full(Pages):
        def __init__(self, at: bytes) -> None:
            super().__init__()
            self.at = at

        def refuses(self, entry: bytes) -> Exception | None:
            return StorageError("the disk is full") if self.at in entry else None

    async def main() -> None:
        for at, runs in ((b"tool_began", 0), (b"tool_ended", 1)):
            acts = Acts(w=Act(Effect.unknown()))
            script = Script(Says("", (use("w"),)), Says("", (use("w"),)), Says("x"))
            one = session(script, acts, journal=Full(at))
            with pytest.raises(StorageError):
                await one.send("a")
            call = one.turns[-1].tool_calls[0]
            if runs:
                assert call.status is ToolStatus.COMPLETED
            else:
                assert call.error == "the disk is full"
            assert (len(acts.begun), len(script.asked)) == (runs, 1)

    run(main())


def test_durable_tools_are_the_tools_they_wrap() -> None:
    """What is noted of the tools of a turn changes nothing of what they are (S2-56)."""
    acts = Acts(read=Act())
    notes = Notes(Record(TurnBegan("t", "go", 0)), Conversation(), None, "s")
    tools = DurableTools(acts, notes)
    assert tools.definitions() is acts.definitions()
    assert tools.prepare(use("read")) == acts.prepare(use("read"))


def test_a_journal_that_cannot_be_read_opens_no_session() -> None:
    """A damaged journal is an error when the session is entered, and no turn begins
    (S2-56)."""

    async def main() -> None:
        pages = Pages()
        async with session(Script(Says("1")), journal=pages) as one:
            await one.send("a")
        pages.entries.pop(0)
        with pytest.raises(CorruptStoreError):
            async with session(Script(), journal=pages):
                pass
        with pytest.raises(CorruptStoreError):
            await session(Script(), journal=pages).send("b")

    run(main())


def test_who_looks_ahead_is_told_of_each_turn() -> None:
    """A foresight hears what a journal would, in its order, and when the model is asked, without any
    journal too (S2-10, S2-28)."""
    ahead = Foretells()

    async def main() -> None:
        script = Script(READ, Says("done"), Says(error=PacelineError("no")))
        async with session(script, Acts(read=Act()), foresight=ahead) as one:
            await one.send("go")
            with pytest.raises(PacelineError):
                await one.send("on")

    run(main())
    assert ahead.told == [
        *("TurnBegan", "asking", "Replied", "StepEnded", "asking", "Replied", "TurnEnded"),
        *("TurnBegan", "asking", "TurnEnded"),
    ]


def test_a_session_says_who_it_is_for() -> None:
    """Models and tools are told the session, its user and tenant, its directory, and the turn
    (S2-38)."""
    contexts = []

    class Curious(Script):
        async def ask(self, request, context, **kwargs):
            contexts.append(context)
            return await super().ask(request, context, **kwargs)

    hints = PerformanceHints(resource_intensive_tools=("read",))

    async def main() -> None:
        one = session(
            Curious(Says("1")),
            caller=Caller(user="ada", tenant="acme"),
            workspace="/data",
            conversation=Conversation("mine"),
            foresight=Foretells(hints),
        )
        await one.send("go")
        [context] = contexts
        assert (context.session_id, context.user_id, context.tenant) == ("s", "ada", "acme")
        assert (context.turn_id, context.workspace) == ("s.1", "/data")
        assert one.conversation.messages()[0] == SystemMessage("mine")
        assert one.hints is one.context.performance_hints is hints

    run(main())


def test_the_life_of_a_session_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """The beginning, the end and, for who wants it, every move of a session are logged
    (S2-55)."""

    async def main() -> None:
        async with session(Script(Says("1"))) as one:
            await one.send("go")

    caplog.set_level(logging.DEBUG, "paceline")
    run(main())
    assert "Starting optimized agent engine" in caplog.text
    assert "State transition: idle -> processing_prompt (trigger: user_input)" in caplog.text
    assert "Agent shutdown requested" in caplog.text


def test_a_broken_listener_harms_nobody() -> None:
    """What a listener to the states raises stops neither the turn nor others (S2-46)."""

    async def main() -> None:
        one = session(Script(Says("1")))
        one.machine.observe(lambda _: 1 / 0)
        assert (await one.send("go")).agent_response == "1"
        assert one.turns[-1].execution_ns == 0 * NS

    run(main())


def test_a_step_waits_for_what_must_not_be_forgotten() -> None:
    """A turn waits for its journal where it begins and ends, before each tool that must not run twice
    and when that is over; all else is only noted (S2-56)."""

    class Waits(Pages):
        waited: Final[list[str]] = []

        async def append(self, session_id: str, entry: bytes) -> None:
            self.waited.append(type(read(entry)).__name__)
            await super().append(session_id, entry)

    async def main() -> None:
        acts = Acts(w=Act(Effect.unknown()), read=Act())
        script = Script(
            Says("", (use("w", '{"n": 1}'),)), READ, Says("", (use("w", '{"n": 2}'),)), Says("x")
        )
        one = session(script, acts, journal=(pages := Waits()))
        await one.send("a")
        tool = ["ToolBegan", "ToolEnded"]
        assert pages.waited == ["TurnBegan", *tool, *tool, "TurnEnded"]
        kinds = [type(read(entry)).__name__ for entry in pages.entries]
        assert kinds == [
            "TurnBegan",
            *("Replied", "ToolBegan", "ToolEnded", "StepEnded"),
            *("Replied", "StepEnded"),
            *("Replied", "ToolBegan", "ToolEnded", "StepEnded"),
            *("Replied", "TurnEnded"),
        ]

    run(main())
