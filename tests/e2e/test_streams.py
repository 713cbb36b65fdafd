"""The command line where standard streams, texts and signals are not as one would wish."""

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from paceline.cli import main
from tests.e2e.command_line import Cli, Said

PACELINE = f"{sys.executable} -m paceline"


def shell(place: Path, script: str, **environ: str) -> Said:
    """Runs a line of shell in which `paceline` is ours."""
    done = subprocess.run(
        ["bash", "-c", script.replace("paceline", PACELINE, 1)],
        cwd=place,
        env={**os.environ, **environ},
        capture_output=True,
        timeout=60,
        check=False,
    )
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


def agent(place: Path, name: str, code: str) -> None:
    (place / "agents" / f"{name}.py").write_text(code)


@pytest.mark.parametrize(
    ("script", "code", "word"),
    [
        ("head -c 1048577 /dev/zero | tr '\\0' x | paceline run echo -", 2, "1,048,576"),
        ("paceline run echo - <&-", 2, "standard input is closed"),
        ("printf '\\377' | paceline run echo -", 2, "standard input cannot be read"),
        ("paceline run echo x >&-", 1, "standard output is closed"),
        ("paceline run echo x >/dev/full", 1, "No space left on device"),
        ("paceline agents >/dev/full", 1, "No space left on device"),
        ("mkdir gone; cd gone; rmdir ../gone; paceline agents", 2, "working directory"),
    ],
)
def test_streams_that_cannot_be_used(place: Path, script: str, code: int, word: str) -> None:
    """Input that is too long, closed or no text is refused, and output that cannot be written is
    an error: one message on standard error, no traceback."""
    said = shell(place, script, PYTHONUTF8="1", PYTHONIOENCODING=":strict")
    assert (said.code, said.out) == (code, "")
    assert word in said.err
    assert "Traceback" not in said.err
    assert "Exception ignored" not in said.err


def test_input_up_to_the_limit_is_taken_whole(place: Path) -> None:
    """An input of exactly the longest length reaches the agent unshortened."""
    agent(place, "length", "def run(query): return len(query)\n")
    said = shell(place, "head -c 1048576 /dev/zero | tr '\\0' x | paceline run length -")
    assert said == Said(0, "1048576\n", "")


def test_a_closed_standard_error_is_no_error(place: Path) -> None:
    """Without a standard error a result still comes, and a failure has its exit code."""
    assert shell(place, "paceline run echo x 2>&-") == Said(0, "X\n", "")
    assert shell(place, "paceline run failing x 2>&-") == Said(1, "", "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_output_that_knows_few_characters(place: Path, encoding: str) -> None:
    """What the encoding of standard output has no form for is written out."""
    agent(place, "snow", "def run(query): return 'a \\u2603'\n")
    said = shell(place, "paceline run snow x", PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert said == Said(0, "a \\u2603\n", "")


STRANGE = {
    "unspeakable": "class V:\n    def __str__(self): raise RuntimeError('no')\ndef run(q): return V()",
    "surrogate": "def run(q): return 'a\\ud800b'",
    "huge": "def run(q): return 10 ** 5000",
    "large": "def run(q): return {'n': 2 ** 70, 's': ['\\ud800']}",
    "cycle": "def run(q):\n    a = []\n    a.append(a)\n    return a",
    "nested": "class V:\n    def __str__(self): raise RuntimeError('no')\ndef run(q): return [1, V()]",
    "message": "def run(q): raise ValueError('a\\ud800b')",
}


@pytest.mark.parametrize("name", STRANGE)
def test_whatever_an_agent_returns_is_shown(cli: Cli, place: Path, name: str) -> None:
    """Values without a text, beyond JSON's integers or Unicode, or without an end are shown all
    the same, with --json as one object."""
    agent(place, name, STRANGE[name])
    code = 1 if name == "message" else 0
    said = cli("run", name, "x", "--no-cache")
    assert said.code == code
    assert (said.err if code else said.out).strip()
    said = cli("run", name, "x", "--no-cache", "--json")
    assert said.code == code
    assert isinstance(json.loads(said.out), dict)
    assert said.data["error" if code else "value"]


def test_json_keeps_what_is_beside_a_strange_part(cli: Cli, place: Path) -> None:
    """Only the part of a value that JSON cannot carry becomes text."""
    agent(place, "large", STRANGE["large"])
    data = cli("run", "large", "x", "--json").data
    assert data["value"] == {"n": str(2**70), "s": ["\\ud800"]}


@pytest.mark.parametrize(
    "arguments", [("run", "chatty", "x", "--json"), ("agents", "--json"), ("doctor", "--json")]
)
def test_json_is_all_that_is_printed(cli: Cli, place: Path, arguments: tuple[str, ...]) -> None:
    """What agents print, at import or at work, goes to standard error."""
    agent(place, "chatty", "print('loading')\ndef run(q):\n    print('working')\n    return q\n")
    said = cli(*arguments)
    assert isinstance(said.data, dict)
    assert "loading" in said.err


def on_terminal(place: Path, *arguments: str, columns: int = 80) -> str:
    """What a command writes to a terminal of this width."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "paceline", *arguments],
        cwd=place,
        env={**os.environ, "COLUMNS": str(columns), "TERM": "dumb"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    ) as child:
        os.close(theirs)
        text = b""
        try:
            while part := os.read(ours, 65_536):
                text += part
        except OSError:  # how a terminal tells its end
            child.wait()
        finally:
            os.close(ours)
    return text.decode()


def test_a_terminal_is_not_moved_by_values(cli: Cli, place: Path) -> None:
    """Control characters of values and of errors are written out on a terminal, and left as they
    are in a pipe."""
    agent(
        place,
        "bell",
        "def run(q):\n    if q == 'f': raise ValueError('\\x1b[2J')\n    return 'a\\tb\\n\\x1b]0;t\\x07'\n",
    )
    shown = on_terminal(place, "run", "bell", "x")
    assert "\x1b" not in shown
    assert "a\tb\r\n\\x1b]0;t\\x07" in shown
    assert "\x1b" not in on_terminal(place, "run", "bell", "f")
    assert cli("run", "bell", "x").out == "a\tb\n\x1b]0;t\x07\n"


def test_a_long_error_is_shortened(cli: Cli, place: Path) -> None:
    """Of an error over 2,000 characters, beginning and end are shown."""
    agent(place, "wordy", "def run(q): raise ValueError('begin' + 'x' * 50_000 + 'end')\n")
    said = cli("run", "wordy", "x")
    assert len(said.err) < 2_100
    assert "begin" in said.err
    assert "left out" in said.err


def test_a_narrow_terminal_keeps_ids_whole(cli: Cli, place: Path) -> None:
    """On a terminal of 60 columns a failed call is one line, with id, time and agent unbroken and
    the beginning of its reason."""
    cli("run", "failing", "x " * 50)
    call = json.loads(cli("history", "--json").out)
    lines = on_terminal(place, "history", "--errors", columns=60).splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"{call['id']}  20")
    assert "failing" in lines[1]
    assert "no such thing" in cli("history", "--errors").out


@pytest.mark.parametrize("limit", ["inf", "nan", "1e300", "0", "-1", "x"])
def test_a_time_limit_is_a_number_of_seconds(cli: Cli, limit: str) -> None:
    """--timeout takes a thousandth of a second to a year, and refuses all else."""
    said = cli("run", "echo", "x", "--timeout", limit)
    assert said.code == 2
    assert "--timeout" in said.err
    assert "Traceback" not in said.err


def test_a_terminated_call_is_recorded(place: Path, cli: Cli) -> None:
    """SIGTERM cancels the call, which the history knows, and ends with 143 and a word."""
    agent(
        place,
        "ready",
        "import asyncio, pathlib\n"
        "async def run(query):\n"
        "    pathlib.Path('ready').touch()\n"
        "    await asyncio.Event().wait()\n",
    )
    with subprocess.Popen(
        [sys.executable, "-m", "paceline", "run", "ready", "x"],
        cwd=place,
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        while not (place / "ready").exists():
            assert child.poll() is None
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=30)
    assert (child.returncode, err) == (143, "terminated\n")
    assert json.loads(cli("history", "--json").out)["category"] == "cancelled"


def test_an_interrupt_while_modules_load_says_no_traceback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C at any time, also before a command began, ends with 130."""

    def interrupted(arguments: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("paceline.cli.app.run", interrupted)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 130
