"""What a session does not let happen: waiting for itself, spending without end, writes that overlap."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from paceline.call import Effect, Tokens
from paceline.engine.conversation import Conversation
from paceline.engine.journal import (
    MASKED,
    Entry,
    Replied,
    Restoration,
    StepEnded,
    ToolBegan,
    ToolEnded,
    TurnBegan,
    TurnEnded,
    restore,
    write,
)
from paceline.engine.session import Session
from paceline.engine.states import ResourceLimits, ToolCall, ToolStatus, TurnStatus
from paceline.errors import BudgetExceededError, CorruptStoreError, IllegalTransitionError
from paceline.messages import ToolUse, UsePart
from paceline.redaction import MASK
from paceline.testing.virtual_time import run
from tests.unit.engine.acting import Act, Acts, Pages, Says, Script, session, use
from tests.unit.engine.fakes import FakeTool, pipeline_of, results
from tests.unit.engine.fakes import use as use_number

WRITE, OTHER, READ = Effect.write("db"), Effect.write("mail"), Effect.read("db")

Doing = Callable[[Session], Coroutine[Any, Any, object]]


async def shut_down(one: Session) -> None:
    await one.shutdown(drain=False)


async def sent(one: Session) -> None:
    await one.send("inner")


async def streamed(one: Session) -> None:
    async for _ in one.stream("inner"):
        pass


async def in_a_task(one: Session) -> None:
    await asyncio.create_task(one.send("inner"))


# -- waiting for itself ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "doing",
    [
        shut_down,
        Session.resume,
        sent,
        streamed,
        in_a_task,
    ],
)
@pytest.mark.parametrize("watched", [False, True])
def test_a_tool_cannot_wait_for_its_own_turn(doing: Doing, watched: bool) -> None:
    """A tool that shuts its own session down, or sends it a message, in a task or not, is refused at
    once, and the turn goes on (S2-25, S2-58)."""

    async def main() -> None:
        refused: list[Exception] = []

        async def does() -> None:
            try:
                await doing(one)
            except IllegalTransitionError as exc:
                refused.append(exc)

        script = Script(Says("", (use("read"),)), Says("done"), Says("again"))
        one = session(script, Acts(read=Act(does=does)))
        async with asyncio.timeout(60):
            if watched:
                async for _ in one.stream("go"):
                    pass
            else:
                await one.send("go")
        assert len(refused) == 1
        assert one.turns[-1].agent_response == "done"
        assert (await one.send("more")).agent_response == "again"
        await one.shutdown()

    run(main())


def test_a_turn_through_another_session_cannot_wait_for_itself() -> None:
    """A session that a tool runs may be waited for, but no tool of that may wait for the first
    (S2-25)."""

    async def main() -> None:
        async def outer_does() -> None:
            assert (await inner.send("b")).agent_response == "inner done"

        async def inner_does() -> None:
            with pytest.raises(IllegalTransitionError):
                await outer.send("c")
            refused.append(True)

        refused: list[bool] = []
        said = Says("", (use("read"),))
        outer = session(Script(said, Says("done")), Acts(read=Act(does=outer_does)))
        inner = session(Script(said, Says("inner done")), Acts(read=Act(does=inner_does)))
        async with asyncio.timeout(60):
            assert (await outer.send("a")).agent_response == "done"
        assert refused

    run(main())


def test_a_task_that_outlives_its_turn_may_send() -> None:
    """What a tool leaves running may talk to the session once that turn is over, and who reads a
    stream may shut it down in between (S2-25)."""

    async def main() -> None:
        later: list[asyncio.Task[Any]] = []

        async def follow_up() -> str:
            await asyncio.sleep(10)
            return (await one.send("b")).agent_response

        async def does() -> None:
            later.append(asyncio.create_task(follow_up()))

        script = Script(Says("", (use("read"),)), Says("done"), Says("later"), Says("x", after_s=9))
        one = session(script, Acts(read=Act(does=does)))
        await one.send("a")
        assert await later[0] == "later"
        stream = one.stream("c")
        await anext(stream)
        assert one.cancel()
        await stream.aclose()
        await one.shutdown(drain=False)

    run(main())


# -- what is masked --------------------------------------------------------------------------------


def test_a_masked_use_is_not_run_on_resume() -> None:
    """A use whose arguments lost a secret in the journal is not run after a crash, and the model is
    told why; the others are (S2-56)."""
    masked = ToolUse("m1", "login", f'{{"password":"{MASK}"}}')
    entries: list[Entry] = [
        TurnBegan("s.1", "go", 1),
        Replied("s.1", "", (masked, ToolUse("m2", "read", "{}"))),
    ]

    async def main() -> None:
        acts = Acts(login=Act(WRITE), read=Act())
        pages = Pages([write(entry) for entry in entries])
        one = session(Script(Says("done")), acts, journal=pages)
        turn = await one.resume()
        assert turn is not None
        assert [name for name, _ in acts.begun] == ["read"]
        login, read = turn.tool_calls
        assert (login.status, login.result) == (ToolStatus.REJECTED, MASKED)
        assert read.status is ToolStatus.COMPLETED
        assert login.id != read.id

    run(main())


# -- budgets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fan_out", [0, 64])
def test_calls_are_bounded_whatever_the_fan_out(fan_out: int) -> None:
    """Without a bound on the uses of one answer that on the calls of a turn holds (S2-57)."""

    async def main() -> None:
        acts = Acts(write=Act(WRITE))
        uses = tuple(use("write", f'{{"i":{i}}}', str(i)) for i in range(20))
        limits = ResourceLimits(max_fan_out=fan_out, max_tool_calls=5)
        one = session(Script(Says("", uses), Says("ok")), acts, limits=limits)
        with pytest.raises(BudgetExceededError) as caught:
            await one.send("go")
        assert caught.value.budget == "max_tool_calls"
        assert acts.begun == []

    run(main())


def test_calls_beyond_the_limit_are_not_started_early() -> None:
    """Of an answer that streams in no more reads are started than the turn has calls left
    (S2-57)."""

    async def main() -> None:
        acts = Acts(read=Act(takes_s=0.1))
        uses = tuple(use("read", f'{{"i":{i}}}', str(i)) for i in range(20))
        parts = tuple((1.0, UsePart(one)) for one in uses)
        limits = ResourceLimits(max_tool_calls=5)
        script = Script(Says("", (use("read"),)), Says("", uses, parts=parts))
        with pytest.raises(BudgetExceededError):
            await session(script, acts, limits=limits).send("go")
        assert len(acts.begun) == 5

    run(main())


@pytest.mark.parametrize("act", [Act(cost_usd=1.0), Act(price_usd=1.0), Act(WRITE, cost_usd=1.0)])
@pytest.mark.parametrize("durable", [False, True])
def test_tools_cost_money_too(act: Act, durable: bool) -> None:
    """What tools cost, measured or by their price, counts for the turn, its limit and its journal
    (S2-57)."""

    async def main() -> None:
        pages = Pages() if durable else None
        answers = [Says("", (use("dear", f'{{"i":{i}}}'),), cost_usd=0.25) for i in range(5)]
        limits = ResourceLimits(max_turn_usd=1.6)
        one = session(Script(*answers), Acts(dear=act), limits=limits, journal=pages)
        with pytest.raises(BudgetExceededError) as caught:
            await one.send("go")
        assert caught.value.budget == "max_turn_usd"
        assert one.turns[-1].cost_usd == 2.5
        if pages is not None:
            assert restore(pages.entries).cost_usd == 2.5

    run(main())


def test_what_a_tool_cost_before_a_crash_counts() -> None:
    """A tool that ended before a crash is paid for when the turn goes on (S2-56, S2-57)."""
    entries = (
        TurnBegan("s.1", "go", 1), Replied("s.1", "", (use("pay"),), None, 0.25),
        ToolBegan("s.1", 0, "s.1.1"), ToolEnded("s.1", 0, "paid", cost_usd=2.0),
    )  # fmt: skip

    async def main() -> None:
        one = session(
            Script(Says("done")),
            Acts(pay=Act(WRITE)),
            journal=Pages([write(entry) for entry in entries]),
        )
        turn = await one.resume()
        assert turn is not None
        assert turn.cost_usd == 2.25

    run(main())


@pytest.mark.parametrize(
    ("limits", "budget"),
    [
        (ResourceLimits(max_session_tokens=30), "max_session_tokens"),
        (ResourceLimits(max_session_usd=0.3), "max_session_usd"),
    ],
)
def test_a_session_has_a_budget(limits: ResourceLimits, budget: str) -> None:
    """Once the turns of a session, restored ones and such as are no longer kept included, used what
    it may, no message is answered and nothing is asked (S2-57)."""

    async def main() -> None:
        pages = Pages()
        says = Says("a", tokens=Tokens(4, 6), cost_usd=0.1)
        script = Script(says, says, says, says)
        first = session(script, limits=limits, journal=pages)
        for _ in range(2):
            await first.send("q")
        await first.shutdown()
        second = session(script, limits=limits, journal=pages)
        await second.send("q")
        before = len(pages.entries)
        for one in (second, session(script, limits=limits, journal=pages)):
            with pytest.raises(BudgetExceededError) as caught:
                await one.send("q")
            assert caught.value.budget == budget
        assert (len(script.asked), len(pages.entries)) == (3, before)

    run(main())


def test_a_model_that_does_not_hear_is_stopped() -> None:
    """When twice as many calls were refused as loop detection lets be the turn ends, with all that was
    done in it (S2-58, V-35)."""

    async def main() -> None:
        acts = Acts(write=Act(WRITE))
        script = Script(always=lambda _: Says("", (use("write"),)))
        one = session(script, acts)
        with pytest.raises(BudgetExceededError) as caught:
            await one.send("go")
        assert caught.value.budget == "loop_detection"
        calls = one.turns[-1].tool_calls
        assert [call.status for call in calls].count(ToolStatus.REJECTED) == 6
        assert len(calls) == len(script.asked) == 8
        assert one.machine.state == "idle"
        one._means.models.always = lambda _: Says("ok")  # type: ignore[attr-defined]
        assert (await one.send("something else")).agent_response == "ok"

    run(main())


# -- writes that overlap ---------------------------------------------------------------------------


def test_nothing_is_written_beside_what_may_still_write() -> None:
    """After a write that timed out the later uses of the answer that touch the same are not run, and
    say why; the others are (S2-52, S2-08)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(
            slow=FakeTool(WRITE, 5, timeout_s=1),
            write=FakeTool(WRITE),
            asked=FakeTool(WRITE, approval=True),
            read=FakeTool(READ),
            other=FakeTool(OTHER),
        )
        names = ("read", "slow", "write", "asked", "other", "read")
        calls = await results(
            pipeline, *(use_number(name, number) for number, name in enumerate(names))
        )
        assert tools.began == ["read-0", "other-4", "slow-1"]
        assert [call.status for call in calls] == [
            "completed", "timed_out", "rejected", "rejected", "completed", "rejected",
        ]  # fmt: skip
        assert calls[2].result.startswith("Not run: slow, asked for before it, was given up")

    run(main())


def test_after_something_unknown_was_given_up_only_what_touches_nothing_runs() -> None:
    """What is unknown may be at work on anything, and what only reads is over when it is given up
    (S2-52)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(
            slow=FakeTool(Effect.unknown(), 5, timeout_s=1),
            look=FakeTool(READ, 5, timeout_s=1),
            write=FakeTool(WRITE),
            pure=FakeTool(Effect.pure()),
        )
        await results(pipeline, *map(use_number, ("look", "write")))
        assert tools.began == ["look-0", "write-0"]
        await results(pipeline, *map(use_number, ("slow", "write", "pure")))
        assert tools.began[2:] == ["slow-0", "pure-0"]

    run(main())


# -- a long journal --------------------------------------------------------------------------------


def journal(turns: int) -> list[bytes]:
    entries: list[bytes] = []
    for number in range(1, turns + 1):
        turn_id = f"s.{number}"
        call = ToolCall(f"{turn_id}.1", "read", "{}", ToolStatus.COMPLETED, "r")
        for entry in (
            TurnBegan(turn_id, f"q{number}", 1),
            Replied(turn_id, "", (use("read"),), Tokens(1, 1), 0.5),
            StepEnded(turn_id, (call,)),
            Replied(turn_id, f"a{number}"),
            TurnEnded(turn_id, TurnStatus.COMPLETED),
        ):
            entries.append(write(entry))
    return entries


def test_of_a_long_journal_the_last_turns_are_kept() -> None:
    """However many are kept, turns are counted, and what all of them used (S2-56, S2-57)."""
    restoration = Restoration(keep=3)
    for entry in journal(50):
        restoration.add(entry)
    restored, full = restoration.restored(), restore(journal(50))
    assert restored.turns == full.turns[-3:]
    assert restored.messages == full.messages[-12:]
    assert (restored.begun, restored.tokens, restored.cost_usd) == (50, Tokens(50, 50), 25.0)
    with pytest.raises(CorruptStoreError):
        restoration.add(write(Replied("s.50", "more")))


def test_a_long_journal_keeps_nobody_waiting() -> None:
    """Others go on while it is read, and the conversation is as if it had all been read at once
    (S2-56)."""

    async def main() -> None:
        entries = journal(300)
        rounds = 0

        async def beside() -> None:
            nonlocal rounds
            while True:
                rounds += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(beside())
        limits = ResourceLimits(max_turns_kept=10)
        async with session(Script(Says("done")), journal=Pages(entries), limits=limits) as one:
            assert rounds >= 15
            other.cancel()
            conversation = Conversation(max_turns=10)
            for turn_id, message in restore(entries).messages:
                conversation.add(message, turn_id)
            assert one.conversation.messages() == conversation.messages()
            assert [turn.id for turn in one.turns] == [f"s.{n}" for n in range(291, 301)]
            assert (await one.send("q")).id == "s.301"

    run(main())
