"""`paceline top` and `paceline stats --watch` on a terminal, and without one."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.command_line import Cli, Said, process
from tests.e2e.terminal import LEFT, Session
from tests.recorded import row, write


@pytest.fixture
def history(place: Path) -> Path:
    path = place / ".paceline" / "history.db"
    path.parent.mkdir(exist_ok=True)
    now = time.time_ns()
    write(path, [row(f"a{n}", now, name="busy") for n in range(3)])
    write(path, [row("b", now, name="apt", category="timeout", message="too long")])
    return path


@pytest.fixture
def start(place: Path) -> Iterator[Any]:
    sessions: list[Session] = []

    def call(*arguments: str, **environ: str) -> Session:
        sessions.append(Session(place, *arguments, **environ))
        return sessions[-1]

    yield call
    for session in sessions:
        session.close()


def test_top_lives_on_a_terminal(start: Any, history: Path) -> None:
    """On a terminal there is a first screen, calls that are recorded later appear on it, keys sort
    and explain, a wider terminal shows more, and `q` gives the terminal back with code 0. (S0-17)"""
    top = start("top", "--interval", "0.1")
    screen = top.until("by calls", "2 agents", "too long", "busy", "apt")
    assert screen.index("busy") < screen.index("apt")
    assert " rej " not in screen
    write(history, [row("c", time.time_ns(), name="newcomer")])
    top.until("3 agents", "newcomer")
    top.type("n")
    screen = top.until("by name", "busy", "apt")
    assert screen.index("apt") < screen.index("busy")
    top.type("?")
    top.until("any key: back")
    top.type("x")
    top.until("by name")
    top.resize(120, 40)
    top.until(" rej ")
    top.type("q")
    assert top.ended() == 0
    assert top.restored


@pytest.mark.parametrize(("how", "code"), [("\x03", 0), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("command", [["top"], ["stats", "--watch"], ["stats", "--watch", "0.2"]])
def test_the_terminal_is_given_back_however_it_ends(
    start: Any, history: Path, command: list[str], how: str | signal.Signals, code: int
) -> None:
    """Ctrl-C is the ordinary end of a live view, and a termination is told by its code; both give
    the terminal back, without a traceback."""
    session = start(*command)
    session.until("busy")
    if isinstance(how, str):
        session.type(how)
    else:
        session.process.send_signal(how)
    assert session.ended() == code
    assert "Traceback" not in session.said
    session.said = session.said.replace("terminated", "")
    assert session.restored


def test_a_view_can_be_stopped_and_goes_on(start: Any, history: Path) -> None:
    """Ctrl-Z gives the terminal back to the shell; brought to the foreground, the view is drawn
    again."""
    top = start("top")
    top.until("busy")
    top.type("\x1a")
    _, status = os.waitpid(top.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    while LEFT not in top.said:
        top.read()
    assert top.restored
    top.said = ""
    top.process.send_signal(signal.SIGCONT)
    top.until("busy", "by calls")
    top.type("q")
    assert top.ended() == 0
    assert top.restored


def test_a_view_ends_with_its_terminal(start: Any, history: Path) -> None:
    """When the terminal is closed the view ends, and does not go on alone."""
    top = start("top")
    top.until("busy")
    top.hang_up()
    assert top.process.wait(60) != 0


@pytest.mark.parametrize(("environ", "colours"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_can_be_left_out(
    start: Any, history: Path, environ: dict[str, str], colours: bool
) -> None:
    """With NO_COLOR nothing is coloured; all else is the same."""
    top = start("top", **environ)
    top.until("too long")
    top.type("q")
    assert top.ended() == 0
    assert ("\x1b[31m" in top.said) is colours


def test_a_terminal_that_cannot_move_its_cursor_gets_text(start: Any, history: Path) -> None:
    """With TERM=dumb there is one frame without an escape code, and the end."""
    top = start("top", TERM="dumb")
    assert top.ended() == 0
    assert "busy" in top.said
    assert "\x1b" not in top.said


def test_statistics_are_refreshed_in_place(start: Any, history: Path) -> None:
    """`stats --watch` shows the text of `stats`, and what is recorded later."""
    watch = start("stats", "--watch", "0.1")
    watch.until("**busy**", "Calls: 3 (cached: 0)")
    write(history, [row("c", time.time_ns(), name="busy")])
    watch.until("Calls: 4 (cached: 0)")
    watch.type("q")
    assert watch.ended() == 0
    assert watch.restored


def test_a_pipe_gets_one_frame_as_text(place: Path, history: Path) -> None:
    """In a pipe there is one frame: plain text, at the width of $COLUMNS or 80."""
    said = process(place, "top")
    assert said.code == 0
    assert "\x1b" not in said.out
    assert said.out.count("paceline top") == 1
    assert "busy" in said.out
    assert max(map(len, said.out.splitlines())) <= 80


def test_a_pipe_gets_frames_until_it_is_interrupted(place: Path, history: Path) -> None:
    """With an interval a pipe gets frames, each as soon as it is made, until Ctrl-C, with code 0."""
    top = subprocess.Popen(
        [sys.executable, "-m", "paceline", "top", "--interval", "0.1"],
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with top:
        assert top.stdout is not None
        assert top.stderr is not None
        frames = 0
        while frames < 3:
            text = top.stdout.readline()
            assert text, "it has ended"
            frames += "paceline top" in text
        top.send_signal(signal.SIGINT)
        top.stdout.read()
        assert "Traceback" not in top.stderr.read()
    assert top.returncode == 0


def test_an_empty_home_says_what_to_do(cli: Cli) -> None:
    """Where nothing was recorded yet, a live view says how to change that."""
    for command in (["top", "--once"], ["stats", "--watch"]):
        said = cli(*command)
        assert (said.code, said.err) == (0, "")
        assert "no calls yet; make one with `paceline run`" in said.out


def refused(said: Said) -> bool:
    return said.code == 2 and said.out == "" and "Traceback" not in said.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("top", "--sort", "luck"),
        ("top", "--window", "2m"),
        ("top", "--interval", "0"),
        ("top", "--interval", "nan"),
        ("stats", "--watch", "-1"),
        ("stats", "--watch", "--json"),
    ],
)
def test_wrong_options_are_refused(place: Path, arguments: tuple[str, ...]) -> None:
    """An order, window or time that does not exist is wrong usage, as is JSON that is watched."""
    assert refused(process(place, *arguments))


def test_an_agent_that_was_run_is_seen(cli: Cli, place: Path) -> None:
    """What `paceline run` records is what `paceline top` shows."""
    assert cli("run", "echo", "hello").code == 0
    said = cli("top", "--once", "--window", "1h", "--sort", "slowest")
    assert said.code == 0
    assert "echo" in said.out
    assert "hello" in said.out
