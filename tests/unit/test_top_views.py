"""The screen of `paceline top`, drawn from a board."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len

from paceline.cli import views
from paceline.cli.board import Board, Look, Sort
from paceline.cli.views import ASCII, BLOCKS, KEYS, Line, Shape, frame, help_lines
from paceline.errors import Category
from tests.live_calls import NOW, S, busy, seen

GOLDEN = Path(__file__).parents[1] / "golden"
INPUTS = {f"call-{seq}": f"what was asked {seq}, at some length, 日本語で" for seq in range(1_000)}
SCREENS = {
    "80x24": (Shape(80, 24, BLOCKS, keys=True), Sort.CALLS),
    "120x40": (Shape(120, 40, BLOCKS, keys=True), Sort.SLOWEST),
    "40x24": (Shape(40, 24, BLOCKS, keys=True), Sort.ERRORS),
    "80x12": (Shape(80, 12, BLOCKS, keys=True), Sort.COST),
    "ascii": (Shape(80, None, ASCII), Sort.NAME),
}


def a_look(sort: Sort = Sort.CALLS, most: int | None = None) -> Look:
    board = Board("5m")
    board.add(busy(), NOW)
    return board.look(NOW, sort, most)


def drawn(name: str) -> str:
    shape, sort = SCREENS[name]
    lines = frame(a_look(sort, shape.height), shape, up_ns=75 * S, inputs=INPUTS)
    return "".join(f"{line.text}\n" for line in lines)


def texts(lines: list[Line]) -> list[str]:
    return [line.text for line in lines]


@pytest.mark.parametrize("name", SCREENS)
def test_screens_are_as_they_were_agreed_on(name: str) -> None:
    """The screens at 80, 120 and 40 columns, of little height, and without blocks, are those in
    the golden files. (S0-17, K-09)"""
    assert drawn(name) == (GOLDEN / f"top_{name}.txt").read_text()


def aligned(shape: Shape) -> bool:
    """Whether a figure stands in the same column of the screen in every row of agents."""
    lines = texts(frame(a_look(), shape, up_ns=0))
    top = next(at for at, line in enumerate(lines) if line.startswith("agent"))
    end = cell_len(lines[top].partition("CALLS")[0] + "CALLS")
    ends = {
        line[at]
        for line in lines[top + 1 : top + 7]
        for at in range(len(line))
        if cell_len(line[: at + 1]) == end
    }
    return len(lines[top + 1 : top + 7]) == 6 and all(
        mark.isdigit() or mark in "kM" for mark in ends
    )


def test_wide_characters_keep_columns_in_line() -> None:
    """Names with characters that are two columns wide do not push figures aside; a width counted
    in characters would."""
    assert aligned(Shape(80))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views, "cell_len", len)
        patch.setattr(views, "set_cell_size", lambda text, width: text[:width].ljust(width))
        assert not aligned(Shape(80))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(max_size=30), max_size=12),
    st.builds(
        Shape,
        st.integers(1, 200),
        st.integers(1, 60),
        st.sampled_from([BLOCKS, ASCII]),
        st.booleans(),
    ),
    st.sampled_from(Sort),
)
def test_no_screen_is_larger_than_there_is_room(names: list[str], shape: Shape, sort: Sort) -> None:
    """Whatever names and messages are made of, no line is wider than the screen, there are no more
    lines than it has, and nothing in them moves the cursor."""
    board = Board("5m")
    board.add([seen(n, n, name=name, message=name) for n, name in enumerate(names)], NOW)
    lines = frame(board.look(NOW, sort, shape.height), shape, up_ns=0, notes=[*names])
    for text in texts(lines):
        assert cell_len(text) <= shape.width
        assert text.isprintable()
        assert shape.marks is not ASCII or text.isascii()
    assert len(lines) <= (shape.height or 0)


@pytest.mark.parametrize("height", range(6, 40))
def test_agents_that_have_no_row_are_counted(height: int) -> None:
    """Rows shown and the number after "and" come to the number of agents, at every height."""
    board = Board("5m")
    board.add([seen(n, n, name=f"agent-{n:02}") for n in range(30)], NOW)
    lines = texts(frame(board.look(NOW, Sort.CALLS, height), Shape(80, height), up_ns=0))
    rows = sum(line.startswith("agent-") for line in lines)
    hidden = [int(line.split()[1]) for line in lines if line.startswith("and ")]
    assert rows + sum(hidden) == 30


def test_with_more_room_there_is_more_to_see() -> None:
    """What is shown at one width is shown at every larger one."""
    before: set[str] = set()
    for width in range(30, 160):
        heading = next(
            line for line in texts(frame(a_look(), Shape(width), up_ns=0)) if "agent " in line
        )
        columns = set(heading.split())
        assert before - {"5"} <= columns | {"la", "las", "last"}, width
        before = columns
    assert {"/s", "CALLS", "p50", "p95", "max", "hit", "err", "t/o", "rej", "time"} <= before


@pytest.mark.parametrize(("key", "sort"), KEYS.items())
def test_the_column_of_the_order_stands_out(key: str, sort: Sort) -> None:
    """The title of the column that agents are sorted by is in capitals, and it is there however
    narrow the screen. The key for it is explained."""
    for width in (40, 80, 120):
        heading = next(
            line.text for line in frame(a_look(sort), Shape(width), up_ns=0) if line.style == "head"
        )
        assert sum(word.isupper() for word in heading.split()) == 1
    assert any(f"{key}  " in text for text in texts(help_lines(Shape(80))))


def test_agents_that_fail_stand_out() -> None:
    """The row of an agent of whose calls one in twenty failed is marked as bad, others are not."""
    board = Board("5m")
    board.add([seen(n, name="good") for n in range(20)], NOW)
    board.add(
        [seen(30 + n, name="bad", category=None if n else Category.EXECUTION) for n in range(20)],
        NOW,
    )
    styles = {line.text.split()[0]: line.style for line in frame(
        board.look(NOW, Sort.NAME), Shape(80), up_ns=0) if line.text.startswith(("good", "bad"))}  # fmt: skip
    assert styles == {"good": "", "bad": "bad"}


def test_notes_are_shown_before_figures() -> None:
    """What is to be said of the history stands above the table, and an empty one is no error."""
    look = Board("5m").look(NOW, Sort.CALLS)
    lines = frame(look, Shape(80, 24, keys=True), up_ns=0, notes=["no calls yet"])
    assert Line("no calls yet", "bad") in lines
    assert len(lines) == 24
    assert lines[-1].text.startswith("sort:")


@given(st.integers(0, 10**15 - 10**12))
def test_counts_are_short(number: int) -> None:
    """A count takes at most four characters up to a thousand million millions, and is within six
    per cent."""
    text = views._count(number)
    assert len(text) <= 4
    scale = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}.get(text[-1])
    value = float(text[:-1]) * scale if scale else float(text)
    assert value == pytest.approx(number, rel=0.06)


@given(st.floats(0, 1e15), st.integers(0, 10**17))
def test_figures_fit_their_columns(number: float, ns: int) -> None:
    """Rates, shares, ages and money are no wider than their columns."""
    assert len(views._rate(number)) <= 5
    assert len(views._share(min(number, 1.0))) <= 4
    assert len(views.ago(min(ns, 86_400 * 999 * S))) <= 4
    assert len(views._money(number)) <= 7


def test_a_curve_has_no_mark_where_there_was_no_call() -> None:
    """A curve has a mark for every slot with a call, and blanks where none was."""
    row = msgspec.structs.replace(a_look().rows[0], curve=(0, 1, 0, 100) + (0,) * 26)
    assert views._curve(row.curve, 30, BLOCKS) == " ▁ █" + " " * 26
    assert views._curve(row.curve, 10, BLOCKS) == "▁█" + " " * 8
    assert views._curve((0,) * 30, 10, ASCII) == " " * 10
