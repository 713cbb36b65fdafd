"""What happens in a chat, as lines of text."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from paceline.call import Source, Tokens
from paceline.cli.chat.column import place_after
from paceline.cli.chat.lines import (
    ASCII,
    approval_lines,
    arguments,
    error_lines,
    question_lines,
    tool_lines,
    trouble_line,
    turn_line,
)
from paceline.cli.chat.status import Status
from paceline.cli.views import Line
from paceline.engine.events import (
    ApprovalNeeded,
    Event,
    QuestionAsked,
    StateChanged,
    TextDelta,
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
from paceline.errors import (
    BudgetExceededError,
    Category,
    PacelineError,
    StorageError,
    UsageError,
)
from tests.drawn import drawn

S = 1_000_000_000
ENDED = ToolChanged(
    "s.1", "stock", '{"item": "bolts"}', ToolStatus.COMPLETED, "3", "", Source.EXECUTED, 12_300_000
)


def moved(to: AgentState) -> StateChanged:
    return StateChanged(
        StateTransition(AgentState.IDLE, to, TransitionTrigger.USER_INPUT, at_ns=0, in_state_ns=0)
    )


def test_a_tool_that_delivered_is_one_line() -> None:
    """A tool that delivered is told in one line: its sign, name, short arguments, time and source."""
    assert tool_lines(ENDED) == [Line('  ✓ stock  item="bolts"  12.3ms  executed')]
    hot = msgspec.structs.replace(
        ENDED, status=ToolStatus.CACHED, source=Source.HOT, execution_ns=0
    )
    assert tool_lines(hot, ASCII) == [Line('  ok stock  item="bolts"  hot')]


@pytest.mark.parametrize(
    ("status", "word"),
    [
        (ToolStatus.FAILED, "failed"),
        (ToolStatus.TIMED_OUT, "timed out"),
        (ToolStatus.CANCELLED, "cancelled"),
        (ToolStatus.REJECTED, "rejected"),
    ],
)
def test_a_tool_that_did_not_says_why(status: ToolStatus, word: str) -> None:
    """One that did not deliver says how it ended, and below that why, in one line of bounded
    length."""
    failed = msgspec.structs.replace(ENDED, status=status, error="no\nsuch item", source="")
    assert tool_lines(failed) == [
        Line(f'  ✗ stock  item="bolts"  12.3ms  {word}', "bad"),
        Line("    no such item", "dim"),
    ]
    refused = msgspec.structs.replace(failed, error="", result="Not run: " + "x" * 1_000)
    assert tool_lines(refused)[1].text.startswith("    Not run: xxx")
    assert len(tool_lines(refused)[1].text) < 410


@pytest.mark.parametrize(
    ("args", "short"),
    [
        ("", ""),
        ("{}", ""),
        ('{"query": "df -h"}', 'query="df -h"'),
        ('{"item": "bolts", "most": 3, "of": [1, 2]}', 'item="bolts", most=3, of=[1,2]'),
        ('{"query": "a\\n  b"}', 'query="a b"'),
        ("{not json", "{not json"),
        ("[1]", "[1]"),
        ('{"query": "' + "x" * 99 + '"}', 'query="' + "x" * 52 + "…"),
        ('{"query": "' + "some words " * 9 + '"}', 'query="' + "some words " * 4 + "some…"),
    ],
)
def test_arguments_are_told_shortly(args: str, short: str) -> None:
    """Arguments are told in at most sixty characters on one line, cut at a space where
    there is one."""
    assert arguments(args) == short


@given(st.text())
def test_any_arguments_can_be_told(args: str) -> None:
    """Whatever a model writes as arguments has a short form and a full one."""
    assert len(arguments(args)) <= 60
    assert approval_lines(ApprovalNeeded("1", "pay", args))


def test_an_approval_shows_the_call_in_full() -> None:
    """Who is asked sees all of the call, line by line, however long it is."""
    asked = approval_lines(ApprovalNeeded("1", "pay", '{"to": "ada", "note": "a\\nb", "usd": 3}'))
    assert [line.text for line in asked] == [
        "  pay wants to run:",
        "    to = ada",
        "    note = a",
        "      b",
        "    usd = 3",
    ]
    assert approval_lines(ApprovalNeeded("1", "pay", ""))[1].text == "    without arguments"
    long = approval_lines(ApprovalNeeded("1", "pay", "{" + "x" * 999))
    assert long[1].text == "    {" + "x" * 999
    assert [line.text for line in question_lines(QuestionAsked("1", "Who?\nWhen?"))] == [
        "  Who?",
        "  When?",
    ]


def test_a_turn_says_what_it_took() -> None:
    """The end of a turn tells time, steps, tokens and money, as far as they are known."""
    turn = ConversationTurn("s.1", "hi", execution_ns=3_200_000_000, steps=2)
    assert turn_line(turn) == "3.20s, 2 steps"
    paid = msgspec.structs.replace(turn, steps=1, tokens=Tokens(1234, 56), cost_usd=0.0012)
    assert turn_line(paid) == "3.20s, 1 step, 1,234 tokens in, 56 out, $0.0012"
    cancelled = msgspec.structs.replace(turn, status=TurnStatus.CANCELLED, execution_ns=5 * S)
    assert turn_line(cancelled) == "cancelled after 5.0 s"


def test_trouble_is_told_where_it_is_tried_again() -> None:
    """What went wrong is told with its attempt if it is tried again; what is not is told elsewhere."""
    origin = AgentState.PROCESSING_PROMPT
    trouble = Trouble(Category.EXECUTION, "a\nb", retryable=True, origin=origin, attempt=2)
    move = StateTransition(
        origin, AgentState.ERROR, TransitionTrigger.INTERNAL_ERROR, 0, 0, trouble=trouble
    )
    assert trouble_line(move) == Line("  attempt 2 failed: a b", "dim")
    for after_s, words in ((1.6, "in 2 s"), (0.2, "at once"), (0.0, "at once")):
        again = msgspec.structs.replace(trouble, again_s=after_s)
        assert trouble_line(msgspec.structs.replace(move, trouble=again)) == Line(
            f"  attempt 2 failed: a b; tried again {words}", "dim"
        )
    memory = msgspec.structs.replace(move, trigger=TransitionTrigger.RESOURCE_LIMIT)
    assert trouble_line(memory) == Line("  a b", "dim")
    final = msgspec.structs.replace(trouble, retryable=False)
    assert trouble_line(msgspec.structs.replace(move, trouble=final)) is None
    assert trouble_line(msgspec.structs.replace(move, trouble=None)) is None


@pytest.mark.parametrize(
    ("error", "message", "advice"),
    [
        (UsageError("no", next_step="do"), "no", "do"),
        (BudgetExceededError("late", budget="timeout_s"), "late", "--timeout SECONDS"),
        (
            StorageError("f: database or disk is full", category=Category.EXHAUSTED),
            "no space left: f: database or disk is full",
            "--no-keep",
        ),
        (StorageError("f: No space left on device"), "f: No space left on device", "--no-keep"),
        (StorageError("f: disk I/O error"), "f: disk I/O error", "space left; --no-keep"),
        (StorageError("f: locked", next_step="wait"), "f: locked", "wait"),
    ],
)
def test_errors_name_the_option_that_helps(error: PacelineError, message: str, advice: str) -> None:
    """An error is told with what to do about it, and where an option of the chat helps, with that."""
    first, then = error_lines(error)
    assert first == Line(f"error: {message}", "bad")
    assert advice in then.text


def test_the_state_is_told_with_its_seconds_and_tools() -> None:
    """While a turn runs there is one line: the state, whole seconds in it, and the tools that run;
    there is none before, after, or while a person is asked."""
    status = Status()
    running = msgspec.structs.replace(ENDED, status=ToolStatus.RUNNING)
    other = msgspec.structs.replace(running, call_id="s.2", tool_name="weather")
    asked = ApprovalNeeded("s.2", "weather", "{}")
    told: list[tuple[Event | None, str]] = [
        (None, ""),
        (moved(AgentState.PROCESSING_PROMPT), "waiting for the model 0s"),
        (TextDelta("a"), "waiting for the model 2s"),
        (moved(AgentState.GENERATING_RESPONSE), "answering 0s"),
        (moved(AgentState.EXECUTING_TOOLS), "running tools 0s"),
        (running, "running tools 2s: stock"),
        (other, "running tools 4s: stock, weather"),
        (ENDED, "running tools 6s: weather"),
        (asked, "running tools 8s: weather"),
        (moved(AgentState.AWAITING_APPROVAL), ""),
        (moved(AgentState.ERROR), "trying again 0s: weather"),
        (TurnEnded(ConversationTurn("s.1", "hi")), ""),
        (moved(AgentState.PROCESSING_PROMPT), "waiting for the model 0s"),
    ]
    for second, (event, line) in enumerate(told):
        now_ns = 2 * second * S
        if event is not None:
            status.event(event, now_ns)
        assert status.line(now_ns) == line
    status.cancelling(99 * S)
    assert status.line(100 * S) == "cancelling 1s"
    status.event(TurnEnded(ConversationTurn("s.1", "hi")), 101 * S)
    status.event(moved(AgentState.PROCESSING_PROMPT), 101 * S)
    assert status.line(101 * S) == "waiting for the model 0s"


@given(st.lists(st.text("ab \n", max_size=40)), st.integers(2, 20))
def test_the_column_of_the_cursor_is_known(texts: list[str], width: int) -> None:
    """After any text, in any pieces, the cursor is in the row and column where the next character would be written."""
    row = column = 0
    for text in texts:
        down, column = place_after(text, column, width)
        row += down
    lines = drawn("".join(texts) + "|", width)
    assert lines[-1].index("|") == column % width
    assert len(lines) - 1 == row + column // width


def test_wide_characters_and_tabs_count_as_they_are_shown() -> None:
    """A character of two columns that has no room begins the next line; a tab goes to the next stop,
    but not beyond the edge."""
    assert cell_len("漢") == 2
    assert place_after("漢字", 0, 10) == (0, 4)
    assert place_after("漢", 9, 10) == (1, 2)
    assert place_after("a\tb", 0, 80) == (0, 9)
    assert place_after("\t", 6, 8) == (0, 7)
