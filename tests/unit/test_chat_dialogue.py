"""A person and a session: messages, questions in between, Ctrl-C."""

import asyncio
import os
import pty
import select
import termios
import tty
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from paceline.call import Effect
from paceline.cli.chat.dialogue import Dialogue
from paceline.cli.chat.keyboard import Keyboard
from paceline.engine.events import ApprovalNeeded, Event, QuestionAsked, TextDelta, TurnEnded
from paceline.engine.journal import TurnBegan, write
from paceline.engine.session import Session
from paceline.engine.states import ResourceLimits, TurnStatus
from paceline.errors import CallCancelledError, InvalidInputError, PacelineError, UsageError
from paceline.messages import ToolMessage
from paceline.testing.virtual_time import run
from tests.unit.engine.acting import Act, Acts, Pages, Says, Script, session, use

HANGS = 10_000.0


class Shown:
    """A display that remembers."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.said: list[str] = []
        self.refreshed = 0
        self.on_event: Callable[[Event], object] = lambda _: None

    def event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, TextDelta):
            self.said.append(event.text)
        self.on_event(event)

    def note(self, text: str) -> None:
        self.said.append(f"note {text}")

    def error(self, error: PacelineError) -> None:
        self.said.append(f"error {error}")

    def prompt(self) -> None:
        self.said.append(">")

    def ask(self, question: ApprovalNeeded | QuestionAsked) -> None:
        self.said.append("?")

    def unseen(self, text: str) -> None:
        self.said.append(f"unseen {text}")

    def typed(self) -> None:
        self.said.append("typed")

    def cancelling(self) -> None:
        self.said.append("cancelling")

    def refresh(self) -> None:
        self.refreshed += 1

    def close(self) -> None:
        self.said.append("closed")

    @property
    def ended(self) -> list[TurnStatus]:
        return [event.turn.status for event in self.events if isinstance(event, TurnEnded)]


class Person:
    """Types these lines, one when it is waited for; None is the end, and then nothing comes."""

    def __init__(self, *lines: str | None) -> None:
        self.lines = list(lines)
        self.forgotten = 0
        self.begun = False
        self.waiting = 0

    async def line(self, _: Callable[[str], object]) -> str | None:
        await asyncio.sleep(0)
        if self.lines:
            return self.lines.pop(0)
        self.waiting += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.waiting -= 1
        raise AssertionError

    def forget(self) -> None:
        self.forgotten += 1


def paying(approval_timeout_s: float = 0.0) -> tuple[Session, Script, Acts]:
    script = Script(Says("Well. ", (use("pay"),)), Says("So."))
    acts = Acts(pay=Act(Effect.write("money"), approval=True))
    limits = ResourceLimits(approval_timeout_s=approval_timeout_s)
    return session(script, acts, limits=limits), script, acts


def told(script: Script) -> str:
    """What the model was told of the tool."""
    message = script.asked[-1][-1]
    assert isinstance(message, ToolMessage)
    return message.text


def test_messages_are_answered_until_no_more_come() -> None:
    """Each line is a message, empty ones are none, and the end of input is the end."""

    async def main() -> None:
        script, shown = Script(Says("One."), Says("Two.")), Shown()
        dialogue = Dialogue(session(script), shown, typed=Person("first", "  ", " second ", None))
        await dialogue.talk()
        assert shown.said == [
            ">", "typed", "One.", ">", "typed", ">", "typed", "Two.", ">",
        ]  # fmt: skip
        assert [asked[-1].text for asked in script.asked] == ["first", "second"]
        assert shown.ended == [TurnStatus.COMPLETED] * 2
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_nobody_to_type_is_the_end() -> None:
    """Without a person there is nothing to talk about."""

    async def main() -> None:
        shown = Shown()
        await Dialogue(session(Script()), shown, typed=None).talk()
        assert shown.said == [">"]

    run(main())


@pytest.mark.parametrize(
    ("said", "ran", "why"),
    [
        ("y", True, "done"),
        (" YES ", True, "done"),
        ("", False, "Not run: the user refused it."),
        ("n", False, "Not run: the user refused it."),
        (None, False, "Not run: the user refused it."),
        ("only 2 usd", False, "Not run: the user refused it. only 2 usd"),
    ],
)
def test_a_tool_runs_if_a_person_agrees(said: str | None, ran: bool, why: str) -> None:
    """A tool that needs approval runs for "y" and nothing else; other words are the reason that the
    model is told; what was typed before the question does not answer it."""

    async def main() -> None:
        one, script, acts = paying()
        person, shown = Person(said), Shown()
        assert await Dialogue(one, shown, typed=person).turn("pay") is None
        assert bool(acts.ended) is ran
        assert told(script) == why
        assert person.forgotten == 1
        assert shown.said.count("?") == 1

    run(main())


@pytest.mark.parametrize(
    ("yes", "why"),
    [(True, "done"), (False, "Not run: the user refused it. Nobody is there to be asked.")],
)
def test_without_a_person_yes_decides(yes: bool, why: str) -> None:
    """Where nobody can be asked tools run if that was agreed to beforehand, and are refused else."""

    async def main() -> None:
        one, script, _ = paying()
        assert await Dialogue(one, Shown(), typed=None, yes=yes).turn("pay") is None
        assert told(script) == why

    run(main())


def test_agreeing_beforehand_asks_nothing() -> None:
    """Who agreed to everything is not asked whether a tool may run, but still answers questions."""

    async def main() -> None:
        script = Script(Says("", (use("pay"), use("who"))), Says("So."))
        acts = Acts(pay=Act(Effect.write("m"), approval=True), who=Act(question="Who?"))
        shown = Shown()
        dialogue = Dialogue(session(script, acts), shown, typed=Person("Ada"), yes=True)
        assert await dialogue.turn("pay") is None
        assert shown.said.count("?") == 1
        assert [m.text for m in script.asked[1][-2:]] == ["done", "Ada"]

    run(main())


@pytest.mark.parametrize("yes", [True, False])
def test_a_question_without_a_person_is_told_so(yes: bool) -> None:
    """A question of a tool that nobody can answer is answered with that, whatever was agreed to."""

    async def main() -> None:
        script = Script(Says("", (use("who"),)), Says("So."))
        one = session(script, Acts(who=Act(question="Who?")))
        assert await Dialogue(one, Shown(), typed=None, yes=yes).turn("hi") is None
        assert told(script) == "Nobody is there to be asked."

    run(main())


def test_a_question_that_is_withdrawn_waits_for_no_line() -> None:
    """A question that has waited too long is given up, and what is typed after that is the next
    message."""

    async def main() -> None:
        one, script, acts = paying(approval_timeout_s=5.0)
        person, shown = Person(), Shown()
        assert await Dialogue(one, shown, typed=person).turn("pay") is None
        assert "Nobody answered" in told(script)
        assert acts.ended == []
        await asyncio.sleep(0)
        assert person.waiting == 0
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_an_interrupt_cancels_the_turn_and_then_ends_it_all() -> None:
    """Ctrl-C in a turn cancels it, which is no error, and there is the prompt again; there the first
    one clears the line and says so, and the second one ends the dialogue."""

    async def main() -> None:
        script = Script(Says("Wait", after_s=HANGS), Says("Two."))
        shown = Shown()
        person = Person("first", "second")
        dialogue = Dialogue(session(script), shown, typed=person)
        shown.on_event = lambda event: dialogue.interrupt() if event == TextDelta("Wait") else None
        talking = asyncio.create_task(dialogue.talk())
        await asyncio.sleep(1)
        assert shown.ended == [TurnStatus.CANCELLED, TurnStatus.COMPLETED]
        assert shown.said[:5] == [">", "typed", "Wait", "cancelling", ">"]
        assert dialogue.interrupt()
        await asyncio.sleep(1)
        assert shown.said[-2:] == ["note Ctrl-C again or Ctrl-D ends", ">"]
        assert (person.forgotten, talking.done()) == (1, False)
        assert dialogue.interrupt()
        await talking
        assert (dialogue.over, dialogue.cut_off) == (True, False)
        assert not dialogue.interrupt()

    run(main())


def test_a_second_interrupt_in_a_turn_ends_it_all() -> None:
    """Ctrl-C twice in one turn cancels the turn, and there is no prompt after it."""

    async def main() -> None:
        shown = Shown()
        dialogue = Dialogue(
            session(Script(Says("", after_s=HANGS))), shown, typed=Person("first", "second")
        )
        talking = asyncio.create_task(dialogue.talk())
        await asyncio.sleep(1)
        assert dialogue.interrupt()
        assert dialogue.interrupt()
        assert not dialogue.interrupt()
        await talking
        assert shown.ended == [TurnStatus.CANCELLED]
        assert shown.said.count(">") == 1
        assert dialogue.cut_off

    run(main())


def test_an_interrupt_while_a_person_is_asked_cancels_the_turn() -> None:
    """Ctrl-C at a question cancels the turn, runs nothing, and leaves nobody waiting for a line."""

    async def main() -> None:
        one, _, acts = paying()
        person, shown = Person(), Shown()
        dialogue = Dialogue(one, shown, typed=person)
        turn = asyncio.create_task(dialogue.turn("pay"))
        await asyncio.sleep(1)
        assert person.waiting == 1
        dialogue.interrupt()
        assert isinstance(await turn, CallCancelledError)
        await asyncio.sleep(0)
        assert (person.waiting, acts.begun) == (0, [])

    run(main())


def test_being_cancelled_ends_the_turn_first() -> None:
    """A dialogue that is cancelled from outside has ended its turn before it raises."""

    async def main() -> None:
        one = session(Script(Says("", after_s=HANGS)))
        dialogue = Dialogue(one, Shown(), typed=None)
        turn = asyncio.create_task(dialogue.turn("hi"))
        await asyncio.sleep(1)
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        assert one.turn is None
        assert one.turns[0].status is TurnStatus.CANCELLED
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_the_display_is_refreshed_while_a_turn_runs() -> None:
    """While a turn runs it is told four times a second that time passes; before and after that nothing
    wakes up."""

    async def main() -> None:
        shown = Shown()
        dialogue = Dialogue(session(Script(Says("So.", after_s=5.6))), shown, typed=None)
        await asyncio.sleep(3)
        await dialogue.turn("hi")
        await asyncio.sleep(3)
        assert shown.refreshed == 22

    run(main())


def test_errors_are_shown_and_returned() -> None:
    """What ends a turn is shown, and what talks goes on; a message that cannot be one is such an
    error, and so is the limit of time."""

    async def main() -> None:
        shown = Shown()
        script = Script(Says(error=UsageError("no such thing")), Says("", after_s=HANGS))
        dialogue = Dialogue(session(script), shown, typed=None, timeout_s=7)
        error = await dialogue.turn("hi")
        assert isinstance(error, UsageError)
        assert f"error {error}" in shown.said
        assert isinstance(await dialogue.turn(""), InvalidInputError)
        assert await dialogue.turn("hi") is not None
        assert 7 <= asyncio.get_running_loop().time() < 8

    run(main())


def test_an_interrupted_turn_is_gone_on_with() -> None:
    """What was interrupted is named before it is gone on with, once; where nothing was, nothing is
    said."""

    async def main() -> None:
        pages = Pages([write(TurnBegan("s.1", "count them", 0))])
        one, shown = session(Script(Says("Three.")), journal=pages), Shown()
        dialogue = Dialogue(one, shown, typed=None)
        assert await dialogue.resume() is None
        assert shown.said == ["note going on with what was interrupted: count them", "Three."]
        assert shown.ended == [TurnStatus.COMPLETED]
        assert await dialogue.resume() is None
        assert len(shown.said) == 2

    run(main())


def test_what_is_typed_after_a_warning_takes_it_back() -> None:
    """A line between two Ctrl-C at the prompt makes the second one a first one."""

    async def main() -> None:
        shown, person = Shown(), Person()
        dialogue = Dialogue(session(Script(Says("One."))), shown, typed=person)
        talking = asyncio.create_task(dialogue.talk())
        await asyncio.sleep(1)
        person.lines.append("first")
        assert dialogue.interrupt()
        await asyncio.sleep(1)
        assert shown.ended == [TurnStatus.COMPLETED]
        assert dialogue.interrupt()
        await asyncio.sleep(1)
        assert not talking.done()
        assert dialogue.interrupt()
        await talking

    run(main())


@pytest.mark.parametrize("word", ["exit", "quit", "/exit", " /quit "])
def test_words_that_end_it_are_not_sent(word: str) -> None:
    """What people type to leave ends the chat, and /help is answered here: no model is asked."""

    async def main() -> None:
        script, shown = Script(), Shown()
        await Dialogue(session(script), shown, typed=Person("/help", word, "hi")).talk()
        assert script.asked == []
        assert "note What you type is a message" in shown.said[2]
        assert shown.said.count(">") == 2

    run(main())


def test_a_command_that_there_is_not_is_no_message() -> None:
    """A word behind a slash that is no command is not sent, and it is said how to send it; a path, and
    what stands behind a space, are messages; /help says what it was told to say, too."""

    async def main() -> None:
        script, shown = Script(*[Says("Well.")] * 2), Shown()
        person = Person("/hepl me", "/etc/passwd?", " /hepl", "/help", None)
        await Dialogue(session(script), shown, typed=person, advice=" So.").talk()
        assert [asked[-1].text for asked in script.asked] == ["/etc/passwd?", "/hepl"]
        notes = [said for said in shown.said if said.startswith("note ")]
        assert notes[0].startswith("note no command /hepl; /help says what there is.")
        assert notes[1].startswith("note What you type is a message")
        assert notes[1].endswith(" So.")
        assert len(notes) == 2

    run(main())


def test_what_stands_on_the_line_is_cleared_before_it_all_ends() -> None:
    """Ctrl-C ends the chat only on an empty line, however often it cleared one before."""

    async def main() -> None:
        shown, person = Shown(), Person()
        dialogue = Dialogue(session(Script()), shown, typed=person)
        talking = asyncio.create_task(dialogue.talk())
        person.begun = True
        for _ in range(3):
            await asyncio.sleep(1)
            assert dialogue.interrupt()
        await asyncio.sleep(1)
        assert not talking.done()
        person.begun = False
        assert dialogue.interrupt()
        await talking

    run(main())


@pytest.mark.parametrize(("yes", "words"), [(True, "agreed"), (False, "nobody can be asked here")])
def test_what_was_decided_without_a_person_is_said(yes: bool, words: str) -> None:
    """Where nobody is asked whether a tool may run it is said what was decided, and by what option."""

    async def main() -> None:
        one, _, _ = paying()
        shown = Shown()
        await Dialogue(one, shown, typed=None, yes=yes).turn("pay")
        (note,) = [said for said in shown.said if said.startswith("note ")]
        assert words in note
        assert "--yes" in note

    run(main())


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: the person's, and ours."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    for end in (ours, theirs):
        try:
            os.close(end)
        except OSError:
            assert end == ours, "closed by the test"


def unshown(text: str) -> None:
    raise AssertionError(text)


async def test_lines_are_read_as_they_are_typed(terminal: tuple[int, int]) -> None:
    """A line comes when it is ended, pasted ones together, and the end of input once and for all,
    though it comes at once with the last line."""
    person, ours = terminal
    keyboard = Keyboard(ours)
    waiting = asyncio.create_task(keyboard.line(unshown))
    await asyncio.sleep(0)
    os.write(person, b"hel")
    assert not waiting.done()
    os.write(person, b"lo\n")
    assert await waiting == "hello"
    os.write(person, b"one\ntwo\n")
    assert await keyboard.line(unshown) == "one\ntwo"
    os.write(person, b"last\n\x04")
    assert await keyboard.line(unshown) == "last"
    assert await keyboard.line(unshown) is None
    os.write(person, b"on")
    os.write(person, b"\x04")
    os.write(person, b"e\n")
    assert await Keyboard(ours).line(unshown) == "one"


async def test_who_stops_waiting_takes_nothing(terminal: tuple[int, int]) -> None:
    """A line that nobody waits for any more is left to who waits next, unless it is forgotten."""
    person, ours = terminal
    keyboard = Keyboard(ours)
    waiting = asyncio.create_task(keyboard.line(unshown))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not asyncio.get_running_loop().remove_reader(ours)
    os.write(person, b"one\n")
    assert await keyboard.line(unshown) == "one"
    os.write(person, b"two\n")
    keyboard.forget()
    os.write(person, b"three\n")
    assert await keyboard.line(unshown) == "three"


async def test_a_terminal_that_is_gone_is_the_end(terminal: tuple[int, int]) -> None:
    """When the terminal is closed no more lines come, and there is nothing to forget."""
    person, ours = terminal
    keyboard = Keyboard(ours)
    os.close(person)
    assert await keyboard.line(unshown) is None
    assert await keyboard.line(unshown) is None
    keyboard.forget()


async def until_read(terminal: int) -> None:
    """Lets others run until nothing is left to be read."""
    for _ in range(1_000):
        await asyncio.sleep(0)
        if not select.select([terminal], [], [], 0)[0]:
            return
    raise AssertionError


async def test_what_is_typed_ahead_is_kept_and_shown_later(terminal: tuple[int, int]) -> None:
    """What is typed while no line is waited for is not shown then; each line is a message of its own,
    shown when its turn comes, and what was begun is gone on with; the end comes after them."""
    person, ours = terminal
    before = termios.tcgetattr(ours)
    shown: list[str] = []
    with Keyboard(ours) as keyboard:
        for line in (b"one\n", b"two\ntwo\n"):
            os.write(person, line)
            await until_read(ours)
        os.write(person, b"thr")
        assert not select.select([person], [], [], 0)[0]
        assert await keyboard.line(shown.append) == "one"
        assert await keyboard.line(shown.append) == "two\ntwo"
        waiting = asyncio.create_task(keyboard.line(shown.append))
        await asyncio.sleep(0)
        assert shown == ["one\n", "two\ntwo\n", "thr"]
        assert termios.tcgetattr(ours) == before
        os.write(person, b"ee\n")
        assert await waiting == "three"
        assert os.read(person, 99) == b"ee\r\n"
        os.write(person, b"four\nfi")
        keyboard.forget()
        os.write(person, b"six\n\x04")
        await until_read(ours)
        assert await keyboard.line(shown.append) == "six"
        assert await keyboard.line(shown.append) is None
    assert termios.tcgetattr(ours) == before


async def test_a_line_that_comes_while_the_terminal_changes_is_a_line(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is typed in the moment in which waiting begins is not held back until more is typed: whole
    lines are the next, and what was begun is gone on with."""
    person, ours = terminal
    change = termios.tcsetattr
    for typed, lines in ((b"one\n", ["one"]), (b"two\nthree\nfo", ["two\nthree", "four"])):
        shown: list[str] = []

        def changing(*given: Any, typed: bytes = typed) -> None:
            change(*given)
            if not given[2][3] & termios.ICANON:  # the first of two changes
                os.write(person, typed)
                assert select.select([ours], [], [], 5)[0]

        with Keyboard(ours) as keyboard:
            monkeypatch.setattr(termios, "tcsetattr", changing)
            async with asyncio.timeout(5):
                first = await keyboard.line(shown.append)
            monkeypatch.setattr(termios, "tcsetattr", change)
            found = [first]
            if len(lines) > 1:
                os.write(person, b"ur\n")
                found.append(await keyboard.line(shown.append))
            assert found == lines


async def test_a_terminal_that_shows_nothing_is_left_so(terminal: tuple[int, int]) -> None:
    """A terminal that did not show what is typed does not after us, nor while a line is waited for."""
    _, ours = terminal
    modes = termios.tcgetattr(ours)
    modes[3] &= ~termios.ECHO
    termios.tcsetattr(ours, termios.TCSANOW, modes)
    with Keyboard(ours):
        assert termios.tcgetattr(ours) == modes
    assert termios.tcgetattr(ours) == modes


async def test_a_terminal_may_go_while_nothing_is_waited_for(terminal: tuple[int, int]) -> None:
    """When the terminal is closed there is nothing to give back, and no line."""
    person, ours = terminal
    with Keyboard(ours) as keyboard:
        os.close(person)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await keyboard.line(unshown) is None
    assert not asyncio.get_running_loop().remove_reader(ours)


async def test_the_terminal_stays_as_it_was(terminal: tuple[int, int], tmp_path: Path) -> None:
    """Nothing about the terminal is changed to read from it, so there is nothing to give back."""
    person, ours = terminal
    tty.setcbreak(ours)
    before = termios.tcgetattr(ours)
    keyboard = Keyboard(ours)
    waiting = asyncio.create_task(keyboard.line(unshown))
    await asyncio.sleep(0)
    assert termios.tcgetattr(ours) == before
    os.write(person, b"x\n")
    assert await waiting == "x"
    assert termios.tcgetattr(ours) == before
