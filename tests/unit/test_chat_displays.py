"""Where a chat is shown."""

import io
import json

import pytest

from paceline.call import Source
from paceline.cli.chat.displays import Display, Json, Plain, Terminal, signs_for
from paceline.cli.chat.lines import ASCII, SIGNS
from paceline.engine.events import (
    ApprovalNeeded,
    QuestionAsked,
    StateChanged,
    TextDelta,
    TextRestarted,
    ToolChanged,
    TurnEnded,
)
from paceline.engine.states import (
    AgentState,
    ConversationTurn,
    StateTransition,
    ToolStatus,
    TransitionTrigger,
    Trouble,
    TurnStatus,
)
from paceline.errors import Category, UsageError
from paceline.testing.virtual_time import VirtualClock
from tests.drawn import drawn

TOOL = ToolChanged("s.1", "stock", '{"item": "bolts"}', ToolStatus.RUNNING)
DONE = ToolChanged(
    "s.1", "stock", '{"item": "bolts"}', ToolStatus.COMPLETED, "3", "", Source.EXECUTED, 12_300_000
)
FAILED = ToolChanged("s.1", "stock", "{}", ToolStatus.FAILED, error="it broke")
END = TurnEnded(
    ConversationTurn(
        "s.1",
        "hi",
        "There are 3.",
        status=TurnStatus.COMPLETED,
        execution_ns=2_000_000_000,
        steps=2,
    )
)
ASKED = ApprovalNeeded("s.2", "pay", '{"usd": 3}')


def moved(to: AgentState) -> StateChanged:
    return StateChanged(
        StateTransition(AgentState.IDLE, to, TransitionTrigger.USER_INPUT, at_ns=0, in_state_ns=0)
    )


def broken(why: str) -> StateChanged:
    origin = AgentState.GENERATING_RESPONSE
    trouble = Trouble(Category.EXECUTION, why, retryable=True, origin=origin)
    trigger = TransitionTrigger.INTERNAL_ERROR
    return StateChanged(StateTransition(origin, AgentState.ERROR, trigger, 0, 0, trouble=trouble))


class Screen(io.StringIO):
    """A terminal of eighty columns, and what stands on it."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True

    @property
    def lines(self) -> list[str]:
        return drawn(self.getvalue())


@pytest.fixture
def screen() -> Screen:
    return Screen()


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
def terminal(screen: Screen, clock: VirtualClock) -> Terminal:
    return Terminal(screen, clock=clock, colours=True, moves=True)


def test_the_state_is_below_the_text_and_leaves_nothing(
    terminal: Terminal, screen: Screen, clock: VirtualClock
) -> None:
    """While a turn runs the line of state is the last one, below what came of the answer, also in
    the middle of a line; when the turn has ended only the conversation is left."""
    terminal.event(moved(AgentState.PROCESSING_PROMPT))
    assert screen.lines == ["waiting for the model 0s"]
    clock.advance(2)
    terminal.refresh()
    assert screen.lines == ["waiting for the model 2s"]
    written = screen.getvalue()
    clock.advance(0.5)
    terminal.refresh()
    assert screen.getvalue() == written
    terminal.event(moved(AgentState.GENERATING_RESPONSE))
    for text in ("Let ", "me ", "see\nif "):
        terminal.event(TextDelta(text))
    assert screen.lines == ["Let me see", "if", "answering 0s"]
    terminal.event(TextDelta("so."))
    terminal.event(moved(AgentState.EXECUTING_TOOLS))
    terminal.event(TOOL)
    clock.advance(3)
    terminal.refresh()
    assert screen.lines == ["Let me see", "if so.", "running tools 3s: stock"]
    terminal.event(DONE)
    assert screen.lines[2:] == ['  ✓ stock  item="bolts"  12.3ms  executed', "running tools 3s"]
    terminal.event(TextDelta("There are 3."))
    terminal.event(END)
    terminal.prompt()
    assert screen.lines == [
        "Let me see",
        "if so.",
        '  ✓ stock  item="bolts"  12.3ms  executed',
        "There are 3.",
        "  2.00s, 2 steps",
        ">",
    ]


def test_text_as_wide_as_the_screen_is_not_written_over(terminal: Terminal, screen: Screen) -> None:
    """Text that fills lines to the very edge stays whole, whatever its pieces."""
    terminal.event(moved(AgentState.GENERATING_RESPONSE))
    text = "".join(chr(ord("a") + n % 26) for n in range(203))
    for piece in (text[:79], text[79:80], text[80:160], text[160:]):
        terminal.event(TextDelta(piece))
        terminal.refresh()
    assert screen.lines == [text[:80], text[80:160], text[160:], "answering 0s"]
    terminal.close()
    assert screen.lines == [text[:80], text[80:160], text[160:]]


def test_a_long_state_is_cut(terminal: Terminal, screen: Screen) -> None:
    """However many tools run, the line of state is one line."""
    terminal.event(moved(AgentState.EXECUTING_TOOLS))
    for number in range(30):
        terminal.event(ToolChanged(f"s.{number}", f"tool{number}", "{}", ToolStatus.RUNNING))
    assert len(screen.lines) == 1
    assert len(screen.lines[0]) == 79
    terminal.close()
    assert screen.lines == []


def test_what_is_asked_stands_where_it_is_answered(terminal: Terminal, screen: Screen) -> None:
    """A question is the last thing on the screen, without a line of state below."""
    terminal.event(moved(AgentState.EXECUTING_TOOLS))
    terminal.event(TextDelta("Well"))
    terminal.event(moved(AgentState.AWAITING_APPROVAL))
    terminal.event(ASKED)
    terminal.ask(ASKED)
    assert screen.lines == [
        "Well",
        "  pay wants to run:",
        "    usd = 3",
        "  Agree? [y/N, or say why not]",
    ]
    screen.write("y\n")
    terminal.typed()
    question = QuestionAsked("s.3", "Who are you?")
    terminal.event(question)
    terminal.ask(question)
    assert screen.lines[4:] == ["  Who are you?", "  >"]


def test_what_a_model_says_cannot_act_on_the_terminal(terminal: Terminal, screen: Screen) -> None:
    """Escape codes in answers, arguments, questions and errors are written out."""
    evil = "\x1b[2J\x07\rx"
    terminal.event(TextDelta(evil))
    terminal.event(ApprovalNeeded("1", "pay", json.dumps({"to": evil})))
    terminal.event(ToolChanged("1", "pay", evil, ToolStatus.FAILED, error=evil))
    terminal.note(evil)
    terminal.error(UsageError(evil))
    terminal.aside(evil)
    assert evil not in screen.getvalue()
    assert "\x07" not in screen.getvalue()
    assert "\x1b[2J" not in screen.getvalue()
    assert screen.getvalue().count("\\x1b[2J") == 7


def test_what_agents_print_stands_between(terminal: Terminal, screen: Screen) -> None:
    """What agents print while a turn runs has lines of its own, above the line of state."""
    terminal.event(moved(AgentState.EXECUTING_TOOLS))
    terminal.event(TextDelta("Well"))
    terminal.aside("half ")
    terminal.aside("of it")
    terminal.event(TextDelta("then"))
    terminal.aside("a")
    terminal.aside("\n")
    terminal.aside("b")
    terminal.aside("\n")
    terminal.event(DONE)
    assert screen.lines == [
        "Well",
        "half of it",
        "then",
        "a",
        "b",
        '  ✓ stock  item="bolts"  12.3ms  executed',
        "running tools 0s",
    ]


def test_cancelling_wipes_what_the_terminal_shows_of_it(terminal: Terminal, screen: Screen) -> None:
    """The ^C that a terminal shows itself is gone with the line of state, which says that the turn is
    being cancelled."""
    terminal.event(moved(AgentState.EXECUTING_TOOLS))
    screen.write("^C")
    terminal.cancelling()
    assert screen.lines == ["cancelling 0s"]


def test_an_answer_that_begins_anew_says_so(terminal: Terminal, screen: Screen) -> None:
    """What was shown of an answer that does not count is taken back, however many lines it has, and
    what went wrong stays; where something else stands below, it stays, and that is said."""
    terminal.note("before")
    terminal.event(moved(AgentState.GENERATING_RESPONSE))
    for _ in range(2):
        terminal.event(TextDelta("Wro\n" + "n" * 170))
        terminal.event(broken("no\nanswer"))
        assert screen.lines[-2:] == ["  attempt 1 failed: no answer", "trying again 0s: no answer"]
        terminal.event(moved(AgentState.PROCESSING_PROMPT))
        terminal.event(TextRestarted())
    assert screen.lines == [
        "before",
        "  attempt 1 failed: no answer",
        "  attempt 1 failed: no answer",
        "waiting for the model 0s",
    ]
    terminal.event(TextDelta("Wro"))
    terminal.event(DONE)
    terminal.event(TextRestarted())
    terminal.event(TextDelta("Right"))
    assert screen.lines[3] == "Wro"
    assert screen.lines[5:-1] == ["  (the answer begins anew)", "Right"]


def test_an_answer_longer_than_the_screen_stays(terminal: Terminal, screen: Screen) -> None:
    """What has left the screen cannot be taken back."""
    terminal.event(TextDelta("\n" * 23))
    terminal.event(TextRestarted())
    assert screen.lines[-1] == "  (the answer begins anew)"


def test_an_answer_is_taken_back_where_the_cursor_moves(clock: VirtualClock) -> None:
    """Where the cursor cannot be moved the answer stays."""
    screen = Screen()
    terminal = Terminal(screen, clock=clock, colours=True, moves=False)
    terminal.event(TextDelta("Wro"))
    terminal.event(TextRestarted())
    assert screen.lines == ["Wro", "  (the answer begins anew)"]


def test_what_was_typed_ahead_is_shown_at_the_prompt(terminal: Terminal, screen: Screen) -> None:
    """A line that was typed before the prompt is shown behind it."""
    terminal.prompt()
    terminal.unseen("sure?\n")
    terminal.typed()
    terminal.event(TextDelta("Yes."))
    assert screen.lines == ["> sure?", "Yes."]


def test_attempts_that_failed_are_told_in_a_pipe() -> None:
    """Beside the answer it is said why it takes so long."""
    out, err = io.StringIO(), io.StringIO()
    plain = Plain(out, err)
    plain.event(broken("answered 500"))
    plain.unseen("x")
    assert (out.getvalue(), err.getvalue()) == ("", "  attempt 1 failed: answered 500\nx")


@pytest.mark.parametrize("colours", [True, False])
def test_colours_can_be_left_out(screen: Screen, clock: VirtualClock, colours: bool) -> None:
    """Without colours nothing is red."""
    terminal = Terminal(screen, clock=clock, colours=colours, moves=True)
    terminal.event(FAILED)
    assert ("\x1b[31m" in screen.getvalue()) is colours


def test_a_terminal_that_cannot_move_gets_text(screen: Screen, clock: VirtualClock) -> None:
    """Where the cursor cannot be moved there is no line of state, and no escape code."""
    terminal = Terminal(screen, clock=clock, colours=True, moves=False)
    terminal.event(moved(AgentState.EXECUTING_TOOLS))
    terminal.event(TextDelta("Well"))
    terminal.refresh()
    terminal.event(FAILED)
    terminal.error(UsageError("no"))
    terminal.close()
    assert "\x1b" not in screen.getvalue()
    assert screen.lines[:2] == ["Well", "  ✗ stock  failed"]


def test_a_pipe_gets_whole_answers_and_nothing_else() -> None:
    """In a pipe standard output is the answers, each once and whole; all else is beside them."""
    out, err = io.StringIO(), io.StringIO()
    plain = Plain(out, err)
    for event in (
        moved(AgentState.GENERATING_RESPONSE),
        TextDelta("Wro"),
        TextRestarted(),
        TextDelta("There "),
        DONE,
        ASKED,
        END,
    ):
        plain.event(event)
    plain.ask(ASKED)
    plain.prompt()
    plain.note("a note")
    plain.error(UsageError("no", next_step="do"))
    assert out.getvalue() == "There are 3.\n"
    assert 'stock  item="bolts"' in err.getvalue()
    assert "usd = 3" in err.getvalue()
    assert err.getvalue().endswith(
        "  Agree? [y/N, or say why not] > a note\nerror: no\n  next: do\n"
    )
    failed = TurnEnded(ConversationTurn("s.2", "hi", "half", status=TurnStatus.FAILED))
    plain.event(failed)
    assert out.getvalue() == "There are 3.\n"


def test_programs_get_an_object_for_each_event() -> None:
    """As JSON every event is one object on one line, errors too; notes are beside them."""
    out, err = io.StringIO(), io.StringIO()
    shown = Json(out, err)
    shown.data({"event": "session", "id": "s"})
    for event in (TextDelta("a\ud800"), DONE, ASKED, END):
        shown.event(event)
    shown.error(UsageError("no", next_step="do"))
    shown.note("a note")
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [one["event"] for one in told] == [
        "session",
        "text",
        "tool",
        "approval_needed",
        "turn_ended",
        "error",
    ]
    assert (told[-1]["type"], told[-1]["next_step"]) == ("UsageError", "do")
    assert err.getvalue() == "a note\n"


def test_displays_that_do_not_move_ignore_time() -> None:
    """What is no terminal shows nothing of time passing, of a prompt answered, or of its own end."""
    out, err = io.StringIO(), io.StringIO()
    displays: list[Display] = [Plain(out, err), Json(out, err)]
    for display in displays:
        display.refresh()
        display.typed()
        display.cancelling()
        display.close()
    displays[1].prompt()
    displays[1].unseen("x")
    displays[1].ask(ASKED)
    assert (out.getvalue(), err.getvalue()) == ("", "")


def test_signs_are_those_that_can_be_shown() -> None:
    """Signs that an encoding does not have are words."""
    assert signs_for(io.TextIOWrapper(io.BytesIO(), "ascii")) == ASCII
    assert signs_for(io.TextIOWrapper(io.BytesIO(), "utf-8")) == SIGNS
