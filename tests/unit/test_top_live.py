"""Live views, kept up to date with a history that grows."""

import asyncio
import contextlib
import io
import os
import sys
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from paceline.cli import live
from paceline.cli.board import Sort
from paceline.cli.live import frames
from paceline.cli.live_commands import completed
from paceline.cli.live_views import StatsView, TopView
from paceline.cli.screen import Screen, can_move, marks_for
from paceline.cli.views import ASCII, BLOCKS, Line, Shape
from paceline.database import connect
from paceline.errors import StorageError
from paceline.history.follow import Follower
from paceline.history.layout import SCHEMA
from paceline.metrics.report import report
from paceline.testing.virtual_time import VirtualClock, run
from tests.live_calls import S
from tests.recorded import row, write

SCREEN = Shape(80, 24, BLOCKS, keys=True)


class Scene:
    """A history, a clock, and a view of them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.clock = VirtualClock()
        self.clock.advance(10_000)
        self.view = TopView(Follower(path), self.clock, Sort.CALLS, "5m")
        self.count = 0

    def record(self, *names: str, ago_s: float = 0, **fields: object) -> None:
        at_ns = self.clock.wall_ns() - round(ago_s * S)
        first = self.count
        self.count += len(names)
        write(
            self.path,
            [row(f"call-{first + n}", at_ns, name=name, **fields) for n, name in enumerate(names)],
        )

    def seen(self) -> str:
        while self.view.refresh():
            pass
        return shown(self.view.lines(SCREEN))


def shown(lines: list[Line]) -> str:
    return "\n".join(line.text for line in lines)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path / "history.db")


def test_an_empty_home_says_what_to_do(scene: Scene) -> None:
    """Without a history the view says how to get one, and goes on to show it."""
    assert "no calls yet; make one with `paceline run`" in scene.seen()
    scene.record("echo")
    assert "1 agent " in scene.seen()


def test_what_is_recorded_is_seen_at_the_next_refresh(scene: Scene) -> None:
    """Each refresh adds what was recorded since, once; what leaves the window is seen no more."""
    scene.record("echo", "echo")
    assert "calls 2 " in scene.seen()
    scene.record("other")
    assert "calls 3 " in scene.seen()
    assert "calls 3 " in scene.seen()
    scene.clock.advance(600)
    text = scene.seen()
    assert "no calls in the last 5m, the latest 10m ago; w: wider" in text


def test_a_window_can_be_widened(scene: Scene) -> None:
    """The key for it goes through the windows; figures of the old one stay until the new is
    read."""
    scene.record("old", ago_s=1_800)
    scene.record("new")
    assert "calls 1 " in scene.seen()
    assert scene.view.key("w")
    assert "last 5m" in shown(scene.view.lines(SCREEN))
    text = scene.seen()
    assert "last 1h" in text
    assert "calls 2 " in text
    for _ in range(3):
        assert scene.view.key("w")
    assert "last 5m" in scene.seen()


def test_keys_sort_and_explain(scene: Scene) -> None:
    """Each key has its order; the help goes away at any key, which then does nothing else."""
    scene.record("echo", "zeta", "zeta")
    assert "by calls" in scene.seen()
    for key, order in {
        "n": "name",
        "s": "slowest",
        "e": "errors",
        "$": "cost",
        "c": "calls",
    }.items():
        assert not scene.view.key(key)
        assert f"by {order}" in shown(scene.view.lines(SCREEN))
    assert not scene.view.key("?")
    assert "any key: back" in shown(scene.view.lines(SCREEN))
    scene.view.key("n")
    assert "by calls" in shown(scene.view.lines(SCREEN))
    assert not scene.view.key("x")


def test_slow_calls_are_shown_with_what_they_were_asked(scene: Scene) -> None:
    """The slowest calls have their inputs beside them: the query alone where that is all, else the
    arguments, and nothing where none was kept."""
    scene.record("one", input='{"query": "the question"}')
    scene.record("two", input='{"a": 1, "b": 2}')
    scene.record("three", "four", input="not json")
    scene.record("five")
    text = scene.seen()
    for part in ("  the question", '{"a": 1, "b": 2}', "three  not json"):
        assert part in text


def test_errors_are_shown_as_they_were_recorded(scene: Scene) -> None:
    """Messages come from the history, where secrets are masked already."""
    scene.record("echo", category="execution", message="bad token ***")
    assert "execution  echo  bad token ***" in scene.seen()


def test_trouble_with_the_history_is_said_and_gets_over(scene: Scene) -> None:
    """A file that is damaged, gone or replaced while it is watched is said to be; the figures stay,
    and the view goes on with whatever comes."""
    scene.record("echo")
    scene.seen()
    whole = scene.path.read_bytes()
    scene.path.write_bytes(b"this is no database " * 500)
    text = scene.seen()
    assert "is damaged: file is not a database" in " ".join(text.split())
    assert "next:" in text
    assert "calls 1 " in text
    assert isinstance(scene.view.problem, StorageError)
    scene.path.write_bytes(whole)
    assert "next:" not in scene.seen()
    scene.path.unlink()
    text = scene.seen()
    assert "the history is gone" in text
    assert "calls 1 " in text
    scene.record("fresh", "fresh", "fresh")
    text = scene.seen()
    assert "calls 3 " in text
    assert "echo" not in text


def test_records_of_another_version_are_counted(scene: Scene) -> None:
    """Records that cannot be read are said to be left out."""
    scene.record("echo", "echo")
    db = connect(scene.path, SCHEMA)
    db.execute("UPDATE calls SET kind = 'unheard of' WHERE id = 'call-0'")
    db.close()
    assert "1 records are left out" in scene.seen()


def test_a_long_history_is_read_in_parts(tmp_path: Path) -> None:
    """While there is more to be read the view says so, and shows what there is."""
    scene = Scene(tmp_path / "history.db")
    scene.view = TopView(Follower(scene.path, most=10), scene.clock, Sort.CALLS, "5m")
    scene.record(*["echo"] * 25)
    assert scene.view.refresh()
    text = shown(scene.view.lines(SCREEN))
    assert "reading the history: 10 calls so far" in text
    assert "calls 10 " in text
    assert "calls 25 " in scene.seen()


def test_statistics_are_those_of_the_command(scene: Scene) -> None:
    """The watched text is that of `paceline stats`, of all calls, and follows what is recorded."""
    view = StatsView(Follower(scene.path), scene.clock, report)
    view.refresh()
    assert "no calls yet" in shown(view.lines(SCREEN))
    scene.record("echo", "echo", ago_s=5_000)
    view.refresh()
    text = shown(view.lines(SCREEN))
    assert "**echo**" in text
    assert "Calls: 2 (cached: 0)" in text
    scene.record("echo")
    view.refresh()
    assert "Calls: 3 (cached: 0)" in shown(view.lines(SCREEN))
    scene.path.unlink()
    view.refresh()
    assert "the history is gone" in shown(view.lines(SCREEN))
    assert not view.key("n")


def made_of(scene: Scene, looks: int) -> int:
    """How often the text is made in so many looks at a history that does not change."""
    made = 0

    def text(snapshot: object) -> str:
        nonlocal made
        made += 1
        return ""

    view = StatsView(Follower(scene.path), scene.clock, text)
    for _ in range(looks):
        view.refresh()
        scene.clock.advance(0.5)
    return made


def test_statistics_are_made_anew_only_when_they_can_differ(scene: Scene) -> None:
    """Nobody recounts what has not changed: without calls, only where windows move."""
    scene.record("echo")
    assert made_of(scene, 40) <= 6


def test_more_text_than_lines_is_counted(scene: Scene) -> None:
    """Statistics that are longer than the screen end with how much more there is."""
    scene.record(*[f"agent-{n}" for n in range(20)])
    view = StatsView(Follower(scene.path), scene.clock, report)
    view.refresh()
    lines = view.lines(SCREEN)
    assert len(lines) == 24
    whole = len(view.lines(Shape(80)))
    assert lines[-1].text == f"and {whole - 22} more lines"


def test_a_pipe_gets_one_frame(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a time between frames there is one, of plain text."""
    scene.record("echo")
    assert run(frames(scene.view, io.StringIO(), None)) == 0
    out = capsys.readouterr().out
    assert out.count("paceline top") == 1
    assert "\x1b" not in out
    assert "sort:" not in out


def test_a_pipe_gets_a_frame_every_so_often(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a time between frames they come until it is interrupted."""

    async def watched() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(frames(scene.view, io.StringIO(), 2.0), 9.0)
        return asyncio.get_running_loop().time()

    assert run(watched()) == 9.0
    assert capsys.readouterr().out.count("paceline top") == 5


def test_one_frame_of_a_damaged_history_is_an_error(scene: Scene) -> None:
    """Where one frame is all, a history that cannot be read is an error, as it is for other
    commands; watched on, it is said in the frame."""
    scene.path.write_bytes(b"this is no database " * 500)
    with pytest.raises(StorageError):
        run(frames(scene.view, io.StringIO(), None))


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        (["--watch"], ["--watch", "0"]),
        (["--watch", "5", "-v"], ["--watch", "5", "-v"]),
        (["--watch", "-v"], ["--watch", "0", "-v"]),
        (["-v"], ["-v"]),
        (["--watch=3"], ["--watch=3"]),
    ],
)
def test_watching_needs_no_number(words: list[str], whole: list[str]) -> None:
    """`--watch` stands alone, or with seconds after it."""
    assert completed(words) == whole


class _Output(io.StringIO):
    def __init__(self, encoding: str, *, terminal: bool) -> None:
        super().__init__()
        self._encoding, self._terminal = encoding, terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return self._terminal


def test_only_a_terminal_that_can_is_drawn_on() -> None:
    """A pipe, and a terminal without a cursor to move, get plain text; blocks are drawn where the
    output has them."""
    terminal, pipe = _Output("utf-8", terminal=True), _Output("ascii", terminal=False)
    assert can_move({"TERM": "xterm"}, terminal)
    for environ in ({"TERM": "dumb"}, {"TERM": ""}, {}):
        assert not can_move(environ, terminal)
    assert not can_move({"TERM": "xterm"}, pipe)
    assert marks_for(terminal) is BLOCKS
    assert marks_for(pipe) is ASCII
    assert marks_for(_Output("no such", terminal=False)) is ASCII


class _Paper:
    """A screen that keeps what was drawn, on which keys are typed by a test."""

    def __init__(self, height: int = 24) -> None:
        self.marks, self.size = BLOCKS, (80, height)
        self.keys: int | None = None
        self.drawn: list[str] = []
        self.anew = asyncio.Event()
        self.taken = 0

    def __enter__(self) -> Self:
        self.taken += 1
        return self

    def __exit__(self, *_: object) -> None:
        self.taken -= 1

    def draw(self, lines: list[Line]) -> None:
        self.drawn.append(shown(lines))
        self.anew.set()

    def read_keys(self) -> str | None:
        assert self.keys is not None
        return os.read(self.keys, 100).decode() or None


class _Broken:
    problem = None

    def refresh(self) -> bool:
        raise RuntimeError("a bug")

    def lines(self, shape: Shape) -> list[Line]:
        return [Line("x")]

    def key(self, key: str) -> bool:
        return False


def given_back() -> bool:
    """Whether a terminal has its modes and its cursor again after a bug in the middle of a view."""
    terminal, theirs = os.openpty()
    before = termios.tcgetattr(theirs)
    with (
        os.fdopen(os.dup(theirs)) as keys,
        os.fdopen(theirs, "w") as out,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", keys)
        with contextlib.suppress(ZeroDivisionError), Screen({}, out) as screen:
            assert termios.tcgetattr(theirs) != before
            screen.draw([Line("x" * 80, "bad"), Line("y")])
            _ = 1 / 0
        said = os.read(terminal, 10_000).decode()
        restored = termios.tcgetattr(theirs) == before
    os.close(terminal)
    return restored and said.endswith("\x1b[?25h\x1b[?1049l")


def test_a_terminal_is_given_back_after_a_bug() -> None:
    """Whatever goes wrong while it is taken over, a terminal gets back its modes and its cursor; a
    screen that forgot to would be found out."""
    assert given_back()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Screen, "_restore_keys", lambda self: None)
        assert not given_back()


@pytest.fixture
def paper() -> Iterator[_Paper]:
    paper = _Paper()
    yield paper
    assert paper.taken == 0


async def test_a_bug_of_ours_ends_the_view_and_gives_the_screen_back(paper: _Paper) -> None:
    """What goes wrong on the reading thread is raised where the view was started, after the screen
    was given back."""
    with pytest.raises(RuntimeError, match="a bug"):
        await live.live(_Broken(), paper, 1.0)  # type: ignore[arg-type]
    assert paper.drawn


def test_a_bug_while_drawing_gives_the_screen_back(paper: _Paper, scene: Scene) -> None:
    """The screen is given back when drawing fails, too."""

    def fail(lines: list[Line]) -> None:
        raise OSError("no terminal any more")

    paper.draw = fail  # type: ignore[method-assign]
    with pytest.raises(OSError, match="no terminal"):
        asyncio.run(live.live(scene.view, paper, 1.0))  # type: ignore[arg-type]


class _Locked:
    """A view of a history that another process holds locked."""

    problem = None

    def __init__(self) -> None:
        self.typed = ""
        self.free = threading.Event()

    def refresh(self) -> bool:
        self.free.wait()
        return False

    def lines(self, shape: Shape) -> list[Line]:
        return [Line(f"typed {self.typed}")]

    def key(self, key: str) -> bool:
        self.typed += key
        return False


@pytest.mark.parametrize(("end", "code"), [("q", 0), ("", 143)])
async def test_keys_are_answered_while_the_history_is_read(
    paper: _Paper, end: str, code: int
) -> None:
    """A history that is locked or slow keeps no key waiting: they are answered, and `q` ends the
    view, as does a terminal that is gone."""
    paper.keys, typing = os.pipe()
    view = _Locked()
    watching = asyncio.ensure_future(live.live(view, paper, 1.0))  # type: ignore[arg-type]
    os.write(typing, b"ns")
    while "typed ns" not in paper.drawn:
        paper.anew.clear()
        await paper.anew.wait()
    if end:
        os.write(typing, end.encode())
    os.close(typing)
    assert await watching == code
    os.close(paper.keys)
    view.free.set()
