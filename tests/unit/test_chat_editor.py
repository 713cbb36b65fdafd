"""Lines that are edited on a real terminal, and what is shown above them meanwhile."""

import asyncio
import codecs
import os
import pty
import signal
import termios
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from typing import TextIO

import pytest
import pytest_asyncio

from paceline.cli.chat.displays import Terminal
from paceline.cli.chat.editor import Editor
from paceline.cli.chat.keyboard import Keyboard
from paceline.clock import SystemClock
from paceline.engine.events import ApprovalNeeded, TextDelta
from tests.drawn import drawn

ASKED = ApprovalNeeded("s.1", "pay", '{"usd": 3}')
ALT_ENTER = "\x1b\r"
UP = "\x1b[A"
LEFT = "\x1b[D"
_ENDED = b"\x00"
MARKED, UNMARKED = "\x1b[?2004h", "\x1b[?2004l"
"""Whether what is pasted is marked."""
PASTED = "\x1b[200~{}\x1b[201~"


class Stage:
    """A person at a terminal, and a chat on it."""

    def __init__(self, person: int, keys: TextIO, screen: TextIO) -> None:
        self.person = person
        self.keys = keys
        self._screen = screen.fileno()
        self.kept: list[str] = []
        self.said = ""
        self._news = asyncio.Event()
        self.terminal = Terminal(screen, clock=SystemClock(), colours=True, moves=True)
        self.editor = Editor(
            keys,
            screen,
            commands=("/exit", "/help"),
            typed=["first", "second"],
            keep=self.kept.append,
        )
        self.terminal.edited_by(self.editor)
        self.keyboard = Keyboard(keys.fileno(), self.editor)
        self._loop = asyncio.get_running_loop()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        # A terminal takes only so much that nobody has read.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while _ENDED not in (some := os.read(self.person, 65_536)):
            self._loop.call_soon_threadsafe(self._hear, decoder.decode(some))

    def _hear(self, some: str) -> None:
        self.said += some
        self._news.set()

    async def close(self) -> None:
        os.write(self._screen, _ENDED)
        await asyncio.to_thread(self._reader.join)

    def type(self, keys: str | bytes) -> None:
        os.write(self.person, keys if isinstance(keys, bytes) else keys.encode())

    @property
    def lines(self) -> list[str]:
        return drawn(self.said)

    async def shows(self, *lines: str) -> None:
        """Waits until these are the last lines of the screen."""
        await self.until(lambda: self.lines[-len(lines) :] == list(lines))

    async def until(self, there: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not there():
                self._news.clear()
                await self._news.wait()

    def begun(self) -> bool:
        return self.keyboard.begun

    def asked(self, question: ApprovalNeeded | None = None) -> "asyncio.Task[str | None]":
        if question is None:
            self.terminal.prompt()
        else:
            self.terminal.ask(question)
        return asyncio.ensure_future(self._line())

    async def _line(self) -> str | None:
        text = await self.keyboard.line(self.terminal.unseen)
        self.terminal.typed()
        return text


@pytest.fixture
def ends() -> Iterator[tuple[int, TextIO, TextIO]]:
    """The person's end of a terminal of eighty columns, and ours to read from and to write to."""
    person, ours = pty.openpty()
    termios.tcsetwinsize(ours, (24, 80))
    with ExitStack() as files:
        files.callback(os.close, person)
        keys = files.enter_context(os.fdopen(ours, encoding="utf-8"))
        screen = files.enter_context(os.fdopen(os.dup(ours), "w", encoding="utf-8"))
        yield person, keys, screen


@pytest_asyncio.fixture
async def stage(ends: tuple[int, TextIO, TextIO]) -> AsyncIterator[Stage]:
    stage = Stage(*ends)
    with stage.keyboard:
        yield stage
    await stage.close()


async def test_a_line_can_be_edited(stage: Stage) -> None:
    """What is typed can be changed anywhere before it is a message, wide characters too, and stands at
    its prompt afterwards."""
    line = stage.asked()
    await stage.shows(">")
    stage.type("mony 字?" + LEFT * 4 + "e\x05\x7f!")
    await stage.shows("> money 字!")
    stage.type("\n")
    assert await line == "money 字!"
    await stage.shows("> money 字!")
    assert len(stage.lines) == 1
    assert stage.kept == ["money 字!"]


async def test_what_was_typed_before_is_found_again(stage: Stage) -> None:
    """Arrows go through what was typed, now and before, and Ctrl-R searches it; a line that ended before
    it was waited for is among it."""
    line = stage.asked()
    stage.type("third\n")
    assert await line == "third"
    line = stage.asked()
    await stage.shows("> third", ">")
    stage.type(UP * 2)
    await stage.shows("> second")
    stage.type("\x12fir")
    await stage.until(lambda: "(reverse-i-search)`fir'" in stage.lines[-1])
    stage.type("\r")
    await stage.shows("> first")
    stage.type("\n")
    assert await line == "first"
    assert stage.kept == ["third", "first"]


async def test_answers_to_questions_are_kept_nowhere(stage: Stage) -> None:
    """An answer to a question is not one of the messages that are found again, and those do not come up
    as answers."""
    answer = stage.asked(ASKED)
    await stage.shows("  Agree? [y/N, or say why not]")
    stage.type(UP + "because\n")
    assert await answer == "because"
    assert stage.kept == []
    line = stage.asked()
    await stage.shows("  Agree? [y/N, or say why not] because", ">")
    stage.type(UP)
    await stage.shows("  Agree? [y/N, or say why not] because", "> second")
    stage.type("\n")
    assert await line == "second"


async def test_commands_are_completed(stage: Stage) -> None:
    """Tab completes a command, or shows which there are; a message is left alone."""
    line = stage.asked()
    await stage.shows(">")
    stage.type("/\t")
    await stage.shows("/exit /help", "> /")
    stage.type("he\t")
    await stage.shows("> /help")
    stage.type("\n")
    assert await line == "/help"


@pytest.mark.parametrize(
    "keys",
    [
        PASTED.format("one\r\ntwo\n three\n") + "\n",
        PASTED.format("one\ntwo\n three") + "\r",
        "one\ntwo\n three\n",
        "one" + ALT_ENTER + "two" + ALT_ENTER + " three\n",
    ],
)
async def test_lines_that_are_pasted_are_one_message(stage: Stage, keys: str) -> None:
    """Lines that come at once are one message, whether the terminal says that they are pasted or not;
    so are those that are begun by Alt-Enter."""
    line = stage.asked()
    await stage.shows(">")
    stage.type(keys)
    assert await line == "one\ntwo\n three"


async def test_a_very_long_line_is_whole(stage: Stage) -> None:
    """A line of more characters than a terminal takes is not cut."""
    line = stage.asked()
    await stage.shows(">")
    text = "0123456789" * 2_000
    writing = asyncio.to_thread(stage.type, PASTED.format(text) + "\n")
    assert (await asyncio.gather(line, writing))[0] == text


async def test_what_is_pasted_cannot_move_the_cursor(stage: Stage) -> None:
    """Control characters in what was typed are shown as text, while it is edited and afterwards; what
    is no text at all is replaced."""
    line = stage.asked()
    await stage.shows(">")
    stage.type(PASTED.format("a\x1b[2Jb"))
    await stage.shows("> a^[[2Jb")
    stage.type(b"\xff\n")
    assert await line == "a\x1b[2Jb\ufffd"
    await stage.shows("> a\\x1b[2Jb\ufffd")
    assert len(stage.lines) == 1


async def test_an_interrupt_is_a_signal(stage: Stage) -> None:
    """Ctrl-C is the same interrupt as where the terminal makes it, and it is known whether something
    stands on the line; nothing of the line is left on the screen when it is not waited for any longer."""
    interrupted = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupted.set)
    try:
        line = stage.asked()
        await stage.shows(">")
        assert not stage.begun()
        stage.type("half")
        await stage.shows("> half")
        assert stage.begun()
        stage.type("\x03")
        await interrupted.wait()
        line.cancel()
        await asyncio.wait([line])
        assert not stage.begun()
        stage.terminal.note("Cleared.")
        await stage.shows("Cleared.")
        assert stage.lines == ["Cleared."]
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGINT)


async def test_the_end_of_input_is_the_end(stage: Stage) -> None:
    """Ctrl-D on an empty line is the end; within a line it is not."""
    line = stage.asked()
    await stage.shows(">")
    stage.type("a\x04\n")
    assert await line == "a"
    line = stage.asked()
    await stage.shows("> a", ">")
    stage.type("\x04")
    assert await line is None
    await stage.until(lambda: stage.said.endswith("\x1b[J> "))
    assert stage.lines == ["> a", ">"]


async def test_what_is_typed_ahead_can_be_edited(stage: Stage) -> None:
    """What is typed before it is waited for is not shown until then; lines are messages, and what has
    no end yet stands on the line that is edited."""
    stage.type("one\n")
    stage.type("tw")
    line = stage.asked()
    assert await line == "one"
    line = stage.asked()
    await stage.shows("> one", "> tw")
    stage.type("o\n")
    assert await line == "two"
    assert stage.kept == ["one", "two"]


async def test_what_was_typed_before_a_question_is_no_answer(stage: Stage) -> None:
    """What came together with a message, behind its end, is forgotten with all else that was typed
    before a question."""
    line = stage.asked()
    await stage.shows(">")
    stage.type("pay\n" + LEFT + "y\n")
    assert await line == "pay"
    stage.keyboard.forget()
    answer = stage.asked(ASKED)
    await stage.shows("> pay", "  Agree? [y/N, or say why not]")
    stage.type("no\n")
    assert await answer == "no"


async def test_what_agents_print_stands_above(stage: Stage) -> None:
    """Text that comes while a line is typed stands above it, whole lines at a time, and the line stays
    as it is."""
    line = stage.asked()
    await stage.shows(">")
    stage.type("half")
    await stage.shows("> half")
    for text in ("prin", "ted", "\n", "and "):
        stage.terminal.aside(text)
    await stage.shows("printed", "> half")
    stage.terminal.event(TextDelta("late"))
    await stage.shows("printed", "late", "> half")
    stage.type("way\n")
    assert await line == "halfway"
    stage.terminal.close()
    await stage.shows("printed", "late", "> halfway", "and")


async def test_the_terminal_is_given_back(stage: Stage) -> None:
    """Between lines the terminal is in the modes of before, but that it shows nothing, and no longer
    marks what is pasted; a question that is withdrawn leaves the next one its own line."""
    before = termios.tcgetattr(stage.keys)
    answer = stage.asked(ASKED)
    await stage.shows("  Agree? [y/N, or say why not]")
    stage.type("y")
    await stage.shows("  Agree? [y/N, or say why not] y")
    answer.cancel()
    line = stage.asked()
    await stage.shows(">")
    assert stage.lines == [">"]
    stage.type("\n")
    assert await line == ""
    assert termios.tcgetattr(stage.keys) == before
    await stage.until(lambda: stage.said.rfind(UNMARKED) > stage.said.rfind(MARKED))
    assert stage.kept == []
