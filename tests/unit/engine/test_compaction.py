"""What is shown of a conversation that is too long, how a model sums up the rest, and what of it
outlives the process."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from paceline.call import Tokens
from paceline.engine.conversation import Conversation, Summary, estimate_tokens
from paceline.engine.journal import Compacted, read, restore
from paceline.engine.states import AgentState, ResourceLimits
from paceline.errors import AgentError, CallError, Category
from paceline.messages import (
    AssistantMessage,
    Message,
    ModelRequest,
    SystemMessage,
    ToolMessage,
    ToolUse,
    UserMessage,
)
from paceline.testing.virtual_time import run
from tests.unit.engine.acting import Act, Acts, Pages, Says, Script, session, use

TOO_LONG = AgentError("maximum context length is 9 tokens", category=Category.TOO_LONG)


def talk(conversation: Conversation, turns: int, *, words: str = "", first: int = 0) -> None:
    for number in range(first, first + turns):
        conversation.add(UserMessage(f"question {number}{words}"), f"t{number}")
        conversation.add(AssistantMessage(f"answer {number}{words}"), f"t{number}")


def call(conversation: Conversation, name: str, text: str, turn_id: str) -> None:
    conversation.add(AssistantMessage("", (ToolUse(name, name, "{}"),)), turn_id)
    conversation.add(ToolMessage(name, name, text), turn_id)


def weight(conversation: Conversation) -> int:
    return sum(map(estimate_tokens, conversation.messages()))


def limited(characters: int) -> Callable[[ModelRequest], Says]:
    """A model that reads no more than so many characters."""

    def reply(request: ModelRequest) -> Says:
        if sum(len(message.text) for message in request.messages) > characters:
            return Says(error=TOO_LONG)
        return Says(f"answer {len(request.messages)}")

    return reply


# -- showing less ----------------------------------------------------------------------------------


def test_about_half_gives_way_and_never_a_part_of_a_step() -> None:
    """A conversation that is too long is shown at about half its length: whole turns give way, the
    oldest first, with a line for each; pinned items and the system's message stay (S2-42)."""
    conversation = Conversation("be brief")
    pinned = UserMessage("never say never")
    conversation.pin(pinned)
    talk(conversation, 20, words=" and so on" * 20)
    before = weight(conversation)
    assert conversation.shorten()
    shown = conversation.messages()
    assert weight(conversation) <= 0.7 * before
    assert shown[:2] == (SystemMessage("be brief"), pinned)
    assert shown[-1].text.startswith("answer 19")
    assert (conversation.dropped + conversation.turns, len(shown) - 3) == (
        20, 2 * conversation.turns,
    )  # fmt: skip
    assert "question" in conversation.summary


def test_what_was_refused_is_not_shown_again() -> None:
    """What a model refused is a bound from then on: however long the session goes on, it is shown
    less than that (S2-42)."""
    conversation = Conversation()
    talk(conversation, 20, words=" and so on" * 20)
    refused = weight(conversation)
    conversation.shorten()
    for number in range(20, 60):
        talk(conversation, 1, words=" and so on" * 20, first=number)
        assert weight(conversation) < refused


def test_results_of_one_step_are_shortened() -> None:
    """Where the results of one answer's tools are too long by themselves, each loses its middle, the
    longest most; the question, the uses and what stands first and last stay (S2-42)."""
    conversation = Conversation()
    conversation.add(UserMessage("go"), "t")
    call(conversation, "old", "o" * 4_000, "t")
    call(conversation, "short", "brief", "t")
    call(conversation, "long", "begin " + "x" * 100_000 + " end", "t")
    assert conversation.shorten()
    go, summary, uses, told = (
        conversation.messages()[1:2] + conversation.messages()[:1] + (conversation.messages()[2:])
    )
    assert (go.text, "tools: old" in summary.text) == ("go", True)
    assert isinstance(uses, AssistantMessage)
    assert uses.uses[0].name == "long"
    assert 20_000 < len(told.text) < 60_000
    assert told.text.startswith("begin ")
    assert told.text.endswith(" end")
    assert "characters left out" in told.text


def test_what_cannot_be_shorter_is_not_shortened() -> None:
    """A single message of the user is never cut: there is nothing to leave out (S2-42)."""
    conversation = Conversation("system")
    conversation.add(UserMessage("w" * 100_000), "t")
    assert not conversation.shorten()
    assert conversation.messages()[1].text == "w" * 100_000


def test_a_summary_of_what_is_too_long_is_short() -> None:
    """After a model refused what it was shown, the summary takes a small part of what is left,
    whatever there is to tell (S2-42)."""
    conversation = Conversation()
    talk(conversation, 100, words=" and so on" * 10)
    refused = weight(conversation)
    conversation.shorten()
    assert len(conversation.summary) < refused * 4 / 2 / 4 + 300


@pytest.mark.parametrize("turns", [1, 3, 40])
@pytest.mark.parametrize("characters", [30, 3_000])
def test_a_conversation_is_restored_as_it_was_shown(turns: int, characters: int) -> None:
    """What is known of a shortened conversation, with what was said since, shows the same messages
    again (S2-42, S2-56)."""
    conversation = Conversation("system")
    for number in range(turns):
        conversation.add(UserMessage(f"question {number}"), f"t{number}")
        for step in range(3):
            call(conversation, f"tool{step}", "x" * characters, f"t{number}")
    conversation.shorten()
    compaction = conversation.compaction
    again = Conversation("system")
    again.restore(compaction)
    shown = conversation.messages()[1 + bool(conversation.summary) :]
    for message in shown:
        again.add(message, compaction.first)
    assert again.messages() == conversation.messages()


# -- a turn that is too long -----------------------------------------------------------------------


def test_a_turn_goes_on_with_less() -> None:
    """A model that cannot read it all is asked once more with about half, within the same turn, and
    every later message is answered too (S2-33, S2-42)."""

    async def main() -> None:
        script = Script(always=limited(2_000))
        async with session(script) as one:
            for number in range(60):
                turn = await one.send(f"message {number} " + "w" * 100)
                assert turn.agent_response.startswith("answer")
            assert one.state is AgentState.IDLE
        refused = [at for at, asked in enumerate(script.asked) if length(asked) > 2_000]
        assert 0 < len(refused) < 10
        assert all(length(script.asked[at + 1]) < 0.75 * length(script.asked[at]) for at in refused)

    run(main())


def length(messages: tuple[Message, ...]) -> int:
    return sum(len(message.text) for message in messages)


def test_a_second_refusal_ends_the_turn_and_no_later_one() -> None:
    """A message that is too long however short the rest is ends its turn, after two tries, with an
    error that says what to do; the next message is answered (S2-33, S2-42)."""

    async def main() -> None:
        script = Script(always=limited(2_000))
        async with session(script) as one:
            await one.send("hello " * 100)
            with pytest.raises(AgentError, match="even shortened") as caught:
                await one.send("w" * 5_000)
            assert caught.value.category is Category.TOO_LONG
            assert "max_result_chars" in caught.value.next_step
            assert len(script.asked) == 3
            assert script.asked[1] != script.asked[2]
            assert one.state is AgentState.IDLE
            assert (await one.send("still there?")).agent_response.startswith("answer")

    run(main())


def test_results_that_are_too_long_do_not_end_a_turn() -> None:
    """A tool that returns more than the model can read has its result shortened, and the turn is
    answered, each time anew (S2-33, S2-42)."""

    answers = [Says("", (use("read", f'{{"page": {page}}}'),)) for page in range(9)]
    answers.append(Says("done"))

    def reply(request: ModelRequest) -> Says:
        if length(request.messages) > 5_000:
            return Says(error=TOO_LONG)
        return answers.pop(0)

    async def main() -> None:
        script = Script(always=reply)
        async with session(script, Acts(read=Act(text="r" * 9_000))) as one:
            turn = await one.send("go")
        assert (turn.agent_response, turn.steps) == ("done", 10)
        assert all(call.result.startswith("r" * 9_000) for call in turn.tool_calls)

    run(main())


def test_what_was_left_out_stays_so_after_a_crash() -> None:
    """A session that goes on shows its model what it showed before: what was too long is not shown
    again, and a journal that was read is one that can be read (S2-42, S2-56)."""

    async def main() -> None:
        pages = Pages()
        script = Script(always=limited(2_000))
        async with session(script, journal=pages) as one:
            for number in range(25):
                await one.send(f"message {number} " + "w" * 100)
            before = one.conversation.messages()
        kinds = [type(read(entry)) for entry in pages.entries]
        assert kinds.count(Compacted) >= 1
        again = Script(always=limited(2_000))
        async with session(again, journal=pages) as one:
            shown = one.conversation.messages()
            assert [m.text for m in shown[1:]] == [m.text for m in before[1:]]
            await one.send("and now?")
        assert len(again.asked) == 1

    run(main())


def test_results_that_were_shortened_stay_so_after_a_crash() -> None:
    """Steps of a turn that were left out, and results that lost their middle, are so again when the
    session goes on, in the turn that the crash interrupted too (S2-42, S2-56)."""

    async def main(crash: int, size: int) -> None:
        pages = Pages()
        answers = [Says("", (use("read", f'{{"page": {page}}}'),)) for page in range(6)]
        shown: tuple[Message, ...] = ()

        def reply(request: ModelRequest) -> Says:
            nonlocal shown
            if length(request.messages) > 5_000:
                return Says(error=TOO_LONG)
            if len(answers) == crash:
                pages.crashed, shown = True, request.messages
            return answers.pop(0) if answers else Says("done")

        script, acts = Script(always=reply), Acts(read=Act(text="r" * size))
        async with session(script, acts, journal=pages) as one:
            await one.send("go")
        pages.crashed = False
        async with session(Script(Says("")), acts, journal=pages) as one:
            again = one.conversation.messages()
        if pages.entries:
            assert again[: len(shown)] == shown
            assert len(again) <= len(shown) + 1

    for crash in range(7):
        for size in (2_200, 9_000):
            run(main(crash, size))


# -- a summary by a model --------------------------------------------------------------------------


class Sums:
    """Sums up, in its time; remembers what."""

    def __init__(self, *, takes_s: float = 0.0, fails: int = 0) -> None:
        self.takes_s = takes_s
        self.fails = fails
        self.given: list[tuple[str, tuple[str, ...]]] = []

    async def __call__(self, earlier: str, dropped: tuple[Message, ...]) -> Summary:
        self.given.append((earlier, tuple(m.text for m in dropped)))
        await asyncio.sleep(self.takes_s)
        if len(self.given) <= self.fails:
            raise CallError("no model")
        return Summary(f"summary {len(self.given)}", Tokens(10, 1), 0.25)


def summed(sums: Sums, *, turns: int = 1, **more: Any) -> Any:
    conversation = Conversation(max_turns=turns, summarise=sums)
    script = Script(always=lambda request: Says(f"a{len(request.messages)}", cost_usd=1.0))
    return session(script, conversation=conversation, **more), script


def test_a_summary_is_made_between_turns() -> None:
    """No turn waits for a summary: it is made when the turn is over that made it needed, the plain
    lines stand meanwhile, and what it took is that turn's and the session's (S2-42, S2-57)."""

    async def main() -> None:
        sums = Sums(takes_s=5)
        one, _ = summed(sums)
        now = asyncio.get_running_loop().time
        async with one:
            await one.send("first")
            await one.send("second")
            assert now() == 0
            assert "user: first" in one.conversation.summary
            await asyncio.sleep(6)
            assert "summary 1" in one.conversation.summary
            assert "user: first" not in one.conversation.summary
            assert [(t.cost_usd, t.tokens) for t in one.turns] == [
                (1.0, None), (1.25, Tokens(10, 1)),
            ]  # fmt: skip
            assert one._budget.cost_usd == 2.25
            began = now()
            await one.send("third")
            assert now() == began
            await asyncio.sleep(6)
        assert sums.given == [("", ("first", "a1")), ("summary 1", ("second", "a2"))]

    run(main())


def test_a_summary_that_fails_ends_nothing() -> None:
    """Where no summary can be made the plain lines stay, the turns are answered, and the next one is
    given all that was left out (S2-42)."""

    async def main() -> None:
        sums = Sums(fails=1)
        one, _ = summed(sums)
        async with one:
            for text in ("first", "second"):
                await one.send(text)
            await asyncio.sleep(1)
            assert "user: first" in one.conversation.summary
            await one.send("third")
            await asyncio.sleep(1)
            assert "summary 2" in one.conversation.summary
        assert sums.given[1][1][:1] == ("first",)

    run(main())


def test_a_model_that_cannot_sum_up_is_left_alone_longer_and_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where no summary can be made it is asked for after one turn more, two, four, and so on up to 64,
    and that is told once; once there is one it is as at first (S2-42, S2-57)."""

    async def main() -> None:
        sums = Sums(fails=9)
        one, _ = summed(sums)
        asked: list[int] = []

        async def turns(numbers: range) -> None:
            for number in numbers:
                before = len(sums.given)
                await one.send(f"question {number}")
                await asyncio.sleep(1)
                asked.extend([number] * (len(sums.given) - before))

        async with one:
            await turns(range(260))
            assert asked == [1, 2, 4, 8, 16, 32, 64, 128, 192, 256, 257, 258, 259]
            told = [each for each in caplog.records if "No summary" in each.message]
            assert len(told) == 1
            sums.fails = len(sums.given) + 2
            asked.clear()
            await turns(range(260, 266))
            assert asked == [260, 261, 263, 264, 265]
            told = [each for each in caplog.records if "No summary" in each.message]
            assert len(told) == 2

    run(main())


def test_a_summary_outlives_the_process() -> None:
    """A session that goes on has the summary that was made, with what it took, and asks for no second
    one of the same (S2-42, S2-56, S2-57)."""

    async def main() -> None:
        pages, sums = Pages(), Sums()
        one, _ = summed(sums, turns=2, journal=pages)
        async with one:
            for number in range(4):
                await one.send(f"question {number}")
                await asyncio.sleep(1)
            before = one.conversation.messages()
            spent = one._budget.cost_usd
        assert len(sums.given) == 2
        again = Sums()
        other, script = summed(again, turns=2, journal=pages)
        async with other:
            assert other.conversation.messages() == before
            assert other._budget.cost_usd == spent == 4.5
            assert [turn.cost_usd for turn in other.turns] == [1, 1, 1.25, 1.25]
        assert (again.given, script.asked) == ([], [])
        assert restore(pages.entries).begun == 4

    run(main())


@pytest.mark.parametrize(("takes_s", "kept"), [(3, True), (30, False)])
def test_leaving_a_session_waits_for_its_summary(takes_s: float, kept: bool) -> None:
    """A session that is left waits for a summary as long as for a turn, and leaves no task behind;
    one that is not ready is made when the session goes on (S2-42, S2-48)."""

    async def main() -> None:
        pages, sums = Pages(), Sums(takes_s=takes_s)
        one, _ = summed(sums, journal=pages)
        async with one:
            await one.send("first")
            await one.send("second")
        assert len(asyncio.all_tasks()) == 1
        again = Sums()
        other, _ = summed(again, journal=pages)
        async with other:
            assert ("summary 1" in other.conversation.summary) is kept
            await other.send("third")
            await asyncio.sleep(1)
            assert again.given[0][1][:1] == (("second",) if kept else ("first",))

    run(main())


def test_summaries_are_made_for_several_turns_at_once() -> None:
    """Of a conversation of many turns a summary is asked for when a quarter of what is shown, twenty
    turns at most, was left out since the last, not after each turn (S2-42, S2-57)."""

    async def main() -> None:
        sums = Sums()
        one, _ = summed(sums, turns=8)
        async with one:
            for number in range(20):
                await one.send(f"question {number}")
                await asyncio.sleep(1)
        assert [len(dropped) for _, dropped in sums.given] == [4] * 6

    run(main())


def test_a_session_without_money_asks_for_no_summary() -> None:
    """Once what a session may spend is used up, no summary is asked for either (S2-57)."""

    async def main() -> None:
        sums = Sums()
        one, _ = summed(sums, limits=ResourceLimits(max_session_usd=2.0))
        async with one:
            await one.send("first")
            await one.send("second")
            await asyncio.sleep(1)
        assert sums.given == []

    run(main())


def test_a_summary_does_not_undo_what_was_shortened_meanwhile() -> None:
    """A summary that is ready only after the conversation was shortened is kept with all that was
    left out by then (S2-42, S2-56)."""

    async def main() -> None:
        pages, sums = Pages(), Sums(takes_s=5)
        conversation = Conversation(max_turns=4, summarise=sums)
        script = Script(always=limited(1_500))
        async with session(script, journal=pages, conversation=conversation) as one:
            for number in range(5):
                await one.send(f"question {number} " + "w" * 200)
            for number in range(5, 7):
                await one.send(f"question {number} " + "w" * 500)
            await asyncio.sleep(10)
            before = one.conversation.messages()
        conversation = Conversation(max_turns=4, summarise=Sums())
        async with session(script, journal=pages, conversation=conversation) as one:
            assert [m.text for m in one.conversation.messages()[1:]] == [m.text for m in before[1:]]
            assert "summary 1" in one.conversation.summary

    run(main())
