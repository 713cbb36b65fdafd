"""Where a chat is shown: on a terminal, as text in a pipe, or as JSON for a program."""

from contextlib import AbstractContextManager, nullcontext
from typing import Final, Protocol, TextIO, final

import msgspec
from rich.cells import cell_len, set_cell_size

from paceline.cli.chat.column import place_after
from paceline.cli.chat.lines import (
    ASCII,
    SIGNS,
    Signs,
    approval_lines,
    error_lines,
    question_lines,
    tool_lines,
    trouble_line,
    turn_line,
)
from paceline.cli.chat.status import Status
from paceline.cli.output import as_text, harmless, plain, problem_data
from paceline.cli.screen import size_of
from paceline.cli.views import Line
from paceline.clock import Clock
from paceline.engine.events import (
    ApprovalNeeded,
    Event,
    QuestionAsked,
    StateChanged,
    TextDelta,
    TextRestarted,
    ToolChanged,
    TurnEnded,
)
from paceline.engine.states import AgentState, TurnStatus
from paceline.errors import PacelineError

__all__ = ["Above", "Display", "Json", "Plain", "Terminal", "signs_for"]

_PROMPT: Final = "> "
_AGREE: Final = "  Agree? [y/N, or say why not] "
_ANSWER: Final = "  > "
_WIDTH: Final = 80
_PLAIN: Final = "\x1b[0m"
_ERASE_BELOW: Final = "\x1b[J"
_STYLES: Final = {"head": "\x1b[1m", "dim": "\x1b[2m", "bad": "\x1b[31m"}


class Display(Protocol):
    """Shows what happens."""

    def event(self, event: Event) -> None:
        """Something happened in the session."""
        ...

    def note(self, text: str) -> None:
        """Something beside the conversation."""
        ...

    def error(self, error: PacelineError) -> None:
        """Something went wrong; the chat may go on."""
        ...

    def prompt(self) -> None:
        """A message is waited for."""
        ...

    def ask(self, question: ApprovalNeeded | QuestionAsked) -> None:
        """A person's answer is waited for."""
        ...

    def unseen(self, text: str) -> None:
        """This was typed before it was waited for, and not shown then."""
        ...

    def typed(self) -> None:
        """A line was typed, and its end with it."""
        ...

    def cancelling(self) -> None:
        """The turn is being cancelled."""
        ...

    def refresh(self) -> None:
        """Time has passed."""
        ...

    def close(self) -> None:
        """Nothing more is shown."""
        ...


class Above(Protocol):
    """Lines that are edited at the bottom of what is shown, as `paceline.cli.chat.editor` has them."""

    @property
    def asks(self) -> bool:
        """Whether one is waited for right now."""
        ...

    def prepare(self, prompt: str, /, *, message: bool) -> None:
        """What is asked next, and whether a message is."""
        ...

    def lifted(self) -> AbstractContextManager[bool]:
        """Takes it off the screen, and puts it back; whether there was anything."""
        ...


@final
class Terminal:
    """Text as it comes, and below it, while a turn runs, one line that says what goes on.

    The cursor stays where the text ends, so that erasing what is below it leaves nothing behind.
    """

    def __init__(self, out: TextIO, *, clock: Clock, colours: bool, moves: bool) -> None:
        """`moves` is whether its cursor can be moved; if not, there is text and nothing else."""
        self._out = out
        self._clock = clock
        self._colours = colours
        self.moves = moves
        """Whether its cursor can be moved."""
        self._signs = signs_for(out)
        self._status = Status()
        self._column = self._before = 0  # now, and when all was written the last time
        self._width = _WIDTH
        self._printing = False
        self._drawn = ""
        self._row = 0
        self._answer: tuple[int, int] | None = None
        self._troubles: list[Line] = []
        self._edited: Above | None = None
        self._held: str = ""
        self._anew = True  # what comes of an answer is its beginning

    def edited_by(self, editor: Above) -> None:
        """Has what is typed shown by it, with the prompts."""
        self._edited = editor

    def event(self, event: Event) -> None:
        """As promised. An answer that does not count is taken back if it is still on the screen, with
        nothing below it but what went wrong."""
        self._status.event(event, self._clock.monotonic_ns())
        if isinstance(event, TextDelta):
            begin = self._lines([]) if self._printing else ""
            if self._anew:
                self._anew, self._troubles = False, []
                self._answer = None if self._column else (self._row, size_of(self._out)[0])
            self._write(begin + self._text(event.text), goes_on=True)
        elif isinstance(event, TextRestarted) and (up := self._up()) is not None:
            self._column = 0
            back = f"\x1b[{up}A" if up else ""
            self._write(f"\r{back}{_ERASE_BELOW}{self._lines(self._troubles)}")
            self._anew = True
        else:
            lines = _lines_of(event, self._signs)
            goes_on = not lines or isinstance(event, StateChanged)
            self._troubles += lines if goes_on else []
            self._write(self._lines(lines), goes_on=goes_on)
            self._anew |= isinstance(event, TextRestarted) or _asks_model(event)

    def note(self, text: str) -> None:
        """Dimmed."""
        self._write(self._lines([Line(text, "dim")]))

    def error(self, error: PacelineError) -> None:
        """In words, with what to do about it."""
        self._write(self._lines(error_lines(error)))

    def prompt(self) -> None:
        """On a line of its own."""
        self._wait(_PROMPT, message=True)

    def ask(self, question: ApprovalNeeded | QuestionAsked) -> None:
        """As promised; what is asked was shown as an event."""
        self._wait(_asks(question), message=False)

    def unseen(self, text: str) -> None:
        """As if the terminal had shown it."""
        self._write(self._text(text))

    def typed(self) -> None:
        """The terminal has shown it."""
        self._column = 0

    def aside(self, text: str) -> None:
        """What agents print, which goes on where the last of it ended."""
        text = self._held + text
        self._held = ""
        if self._edited is not None and self._edited.asks:  # there is room for whole lines
            whole = text.rfind("\n") + 1
            text, self._held = text[:whole], text[whole:]
        begin = "" if self._printing else self._lines([])
        text = begin + self._text(text)
        self._printing = True
        self._write(text)

    def cancelling(self) -> None:
        """In place of the state."""
        self._status.cancelling(self._clock.monotonic_ns())
        self._write("")

    def refresh(self) -> None:
        """The seconds, if there are more."""
        if self.moves and self._state() != self._drawn:
            self._write("")

    def close(self) -> None:
        """Leaves the cursor on a line of its own, with nothing below."""
        self._status = Status()
        if self._held:
            self.aside("")
        self._write(self._lines([]))

    def _wait(self, prompt: str, *, message: bool) -> None:
        if self._edited is None:
            self._write(self._lines([]) + self._text(prompt))
        else:
            self._write(self._lines([]))
            self._edited.prepare(prompt, message=message)

    def _up(self) -> int | None:
        """How many rows up the answer began; None where it cannot be taken back."""
        if self._answer is None or not self.moves:
            return None
        width, height = size_of(self._out)
        up = self._row - self._answer[0]
        return up if width == self._answer[1] and up < height - 1 else None

    def _write(self, text: str, *, goes_on: bool = False) -> None:
        if text and not goes_on:
            self._answer = None
        with nullcontext(False) if self._edited is None else self._edited.lifted() as lifted:
            if lifted and self._column:
                text += self._text("\n")
            self._put(text)

    def _put(self, text: str) -> None:
        if self.moves:
            # At the beginning of a line there may be the ^C that the terminal shows.
            text = ("" if self._before else "\r") + _ERASE_BELOW + text + self._below()
            self._before = self._column
        self._out.write(text)
        self._out.flush()

    def _text(self, text: str) -> str:
        text = harmless(text.replace("\r\n", "\n"))
        self._width = size_of(self._out)[0]
        rows, self._column = place_after(text, self._column, self._width)
        self._row += rows
        return text

    def _lines(self, lines: list[Line]) -> str:
        self._printing = False
        begin = self._text("\n") if self._column else ""
        return begin + "".join(self._styled(line) for line in lines)

    def _styled(self, line: Line) -> str:
        text = self._text(f"{line.text}\n")
        style = _STYLES.get(line.style, "")
        if not self.moves or not style or (line.style == "bad" and not self._colours):
            return text
        return f"{style}{text[:-1]}{_PLAIN}\n"

    def _state(self) -> str:
        if self._edited is not None and self._edited.asks:  # it is its place
            return ""
        return self._status.line(self._clock.monotonic_ns())

    def _below(self) -> str:
        """The line of state below the text, and the way back."""
        state = self._drawn = self._state()
        if not state or self._column >= self._width:  # then nobody knows where the cursor is
            return ""
        if cell_len(state) >= self._width:
            state = set_cell_size(state, self._width - 1)
        styled = f"{_STYLES['dim']}{state}{_PLAIN}\r"
        if not self._column:
            return styled
        return f"\n{styled}\x1b[A\x1b[{self._column}C"


@final
class Plain:
    """The answers, each when it is whole, for who reads them; all else on the other stream."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err
        self._signs = signs_for(err)

    def event(self, event: Event) -> None:
        """As promised."""
        if isinstance(event, TurnEnded) and event.turn.status is TurnStatus.COMPLETED:
            answer = as_text(event.turn.agent_response).rstrip("\n")
            self._out.write(f"{harmless(answer) if self._out.isatty() else answer}\n")
            self._out.flush()
        self._say(_lines_of(event, self._signs))

    def note(self, text: str) -> None:
        """As promised."""
        self._say([Line(text)])

    def error(self, error: PacelineError) -> None:
        """As promised."""
        self._say(error_lines(error))

    def prompt(self) -> None:
        """As promised."""
        self._err.write(_PROMPT)
        self._err.flush()

    def ask(self, question: ApprovalNeeded | QuestionAsked) -> None:
        """As promised."""
        self._err.write(_asks(question))
        self._err.flush()

    def unseen(self, text: str) -> None:
        """As promised."""
        self._err.write(as_text(text))
        self._err.flush()

    def typed(self) -> None:
        """Needs nothing."""

    def cancelling(self) -> None:
        """Its end is told."""

    def refresh(self) -> None:
        """There is nothing that moves."""

    def close(self) -> None:
        """Nothing is left open."""

    def _say(self, lines: list[Line]) -> None:
        for line in lines:
            text = as_text(line.text)
            self._err.write(f"{harmless(text) if self._err.isatty() else text}\n")
        self._err.flush()


@final
class Json:
    """One JSON object a line for all that happens; notes on the other stream."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self._out = out
        self._err = err

    def data(self, value: object) -> None:
        """One object."""
        self._out.write(f"{msgspec.json.encode(plain(value)).decode()}\n")
        self._out.flush()

    def event(self, event: Event) -> None:
        """As it is."""
        self.data(event)

    def note(self, text: str) -> None:
        """As promised."""
        self._err.write(f"{as_text(text)}\n")
        self._err.flush()

    def error(self, error: PacelineError) -> None:
        """As an event of its own."""
        self.data({"event": "error", **problem_data(error)})

    def prompt(self) -> None:
        """Programs need none."""

    def ask(self, question: ApprovalNeeded | QuestionAsked) -> None:
        """It was told as an event."""

    def unseen(self, text: str) -> None:
        """Programs need none."""

    def typed(self) -> None:
        """Needs nothing."""

    def cancelling(self) -> None:
        """Its end is told."""

    def refresh(self) -> None:
        """There is nothing that moves."""

    def close(self) -> None:
        """Nothing is left open."""


def signs_for(out: TextIO) -> Signs:
    """Those that the stream can show."""
    try:
        "".join(msgspec.structs.astuple(SIGNS)).encode(out.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return SIGNS


def _lines_of(event: Event, signs: Signs) -> list[Line]:
    """What there is to say of an event, but for the text of answers."""
    if isinstance(event, ToolChanged):
        return tool_lines(event, signs) if event.status.terminal else []
    if isinstance(event, ApprovalNeeded):
        return approval_lines(event)
    if isinstance(event, QuestionAsked):
        return question_lines(event)
    if isinstance(event, StateChanged):
        trouble = trouble_line(event.transition)
        return [] if trouble is None else [trouble]
    if isinstance(event, TextRestarted):
        return [Line("  (the answer begins anew)", "dim")]
    return [Line(f"  {turn_line(event.turn)}", "dim")] if isinstance(event, TurnEnded) else []


def _asks_model(event: Event) -> bool:
    return (
        isinstance(event, StateChanged)
        and event.transition.to_state is AgentState.PROCESSING_PROMPT
        and event.transition.from_state is not AgentState.ERROR
    )


def _asks(question: ApprovalNeeded | QuestionAsked) -> str:
    return _AGREE if isinstance(question, ApprovalNeeded) else _ANSWER
