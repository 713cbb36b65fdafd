"""Sessions over processes, and over what a runtime keeps: killed and gone on with, seen in the history."""

import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from paceline import Runtime
from paceline.call import Kind, ScopeLevel
from paceline.config import load
from paceline.engine.states import ToolStatus, TurnStatus
from paceline.errors import UsageError
from paceline.history.sqlite import SqliteReader
from paceline.home import Home
from paceline.messages import ModelRequest, ToolMessage, UserMessage
from paceline.sessions.models import FleetModel
from tests.unit.sessions.quiet import BYE, Said, a_runtime, asks

PROCESS = Path(__file__).with_name("session_process.py")


@contextmanager
def a_process(home: Path, what: str) -> Generator[subprocess.Popen[str]]:
    """One that runs a session, and is killed there; or is ended after this."""
    home.mkdir(exist_ok=True)
    command = [sys.executable, str(PROCESS), str(home), what]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    with process:
        try:
            yield process
        finally:
            process.kill()


async def resumed(home: Path, *replies: Any) -> tuple[Said, list[str], Any]:
    """The session, gone on with here: what the model is asked, which tools ran, and the turn."""
    ran: list[str] = []

    async def look() -> str:
        ran.append("look")
        return "seen"

    async def pay() -> str:
        ran.append("pay")
        return "paid"

    model = Said(*replies)
    async with a_runtime(home) as runtime:
        runtime.tool(effect="read")(look)
        runtime.tool(effect="write")(pay)
        async with runtime.session("s1", model=model, user="ada", resume=True) as session:
            return model, ran, await session.resume()


def told(request: ModelRequest) -> list[str]:
    """What the model is told that tools gave."""
    return [one.text for one in request.messages if isinstance(one, ToolMessage)]


@pytest.mark.parametrize("what", ["tool", "answer"])
async def test_a_session_whose_process_is_killed_goes_on(tmp_path: Path, what: str) -> None:
    """After kill -9, in a tool that writes or when that has ended, the turn goes on in another process:
    what it wrote is not done again, and the model is told what is known of it (S2-42, S2-52)."""
    with a_process(tmp_path, what) as process:
        assert process.wait(60) == -signal.SIGKILL
    model, ran, turn = await resumed(tmp_path, BYE)
    assert (tmp_path / "paid").read_text() == "x"
    assert "pay" not in ran
    assert (turn.status, turn.user_message) == (TurnStatus.COMPLETED, "Buy bolts")
    look, pay = turn.tool_calls
    assert look.result == "seen"
    if what == "answer":
        assert (pay.result, pay.status) == ("paid", ToolStatus.COMPLETED)
    else:
        assert "may or may not" in pay.result
    assert told(model.requests[0]) == [look.result, pay.result]


async def test_a_session_is_open_in_one_process(tmp_path: Path) -> None:
    """What is open in a process cannot be resumed in another, until that process ends, however it
    does (S2-42)."""
    with a_process(tmp_path, "hold") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        with pytest.raises(UsageError, match="elsewhere"):
            await resumed(tmp_path, BYE)
        process.kill()
        process.wait(60)
        _, _, turn = await resumed(tmp_path, BYE)
    assert turn is None


async def test_secrets_of_the_settings_are_not_kept(tmp_path: Path) -> None:
    """A secret of the environment that is said in a session is in no file of its home (S2-42)."""
    secret = "tok-9f8e7d6c5b4a39281706"
    settings = load(
        overrides={
            "agents": {"watch": False}, "hostexec": {"mode": "off"}, "alerts": {"enabled": False},
        }
    )  # fmt: skip
    environ = {"SERVICE_TOKEN": secret}
    async with (
        Runtime(settings, agents=[], home=tmp_path, environ=environ) as runtime,
        runtime.session("s1", model=Said(BYE), user="ada") as session,
    ):
        await session.send(f"My token is {secret}")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "sessions.db" for path in files)
    assert [path for path in files if secret.encode() in path.read_bytes()] == []


async def test_a_turn_is_in_the_history(tmp_path: Path) -> None:
    """The history has a turn as a call, with the model's and the tools' calls of it in its trace, each
    on behalf of its user (S2-38, S2-39)."""

    async def look() -> str:
        return "seen"

    async with a_runtime(tmp_path) as runtime:
        runtime.tool(effect="read")(look)
        model = Said(asks("look"), BYE)
        async with runtime.session("s1", model=model, user="ada", keep=False) as session:
            await session.send("go")
    records = SqliteReader(Home(tmp_path).history).query(user="ada")
    by_kind = {record.kind: record for record in records}
    assert len(records) == 4
    turn = by_kind[Kind.AGENT]
    assert (turn.name, turn.parent, turn.session) == ("session", None, "s1")
    assert {record.trace for record in records} == {turn.id} == {session.turns[0].id}
    assert {record.parent for record in records if record is not turn} == {turn.id}
    assert {record.scope for record in records} == {ScopeLevel.USER}


async def test_no_two_turns_have_one_id(tmp_path: Path) -> None:
    """Turns of sessions with the same id that are not kept are apart in the history, and those of one
    that is kept are counted on (S2-38, S2-56)."""
    ids: list[str] = []
    for _ in range(2):
        async with a_runtime(tmp_path) as runtime:
            for keep in (False, False, True):
                name = "kept" if keep else "s1"
                again: Any = {"resume": len(ids) > 2} if keep else {}
                async with runtime.session(name, model=Said(BYE), keep=keep, **again) as session:
                    ids.append((await session.send("go")).id)
            [kept] = await runtime.sessions.stored()
            assert (kept.id, kept.turns) == ("kept", len(ids) // 3)
    assert len(set(ids)) == 6
    assert [one for one in ids if one.startswith("kept")] == ["kept.1", "kept.2"]
    written = {record.id for record in SqliteReader(Home(tmp_path).history).query()}
    assert written.issuperset(ids)


async def test_the_host_agent_is_a_tool(tmp_path: Path) -> None:
    """A session that names `host_exec` runs host commands by their policy: what reads is run, what is
    not allowed is refused, and the model is told why (S2-29, V-36)."""
    (tmp_path / "work").mkdir()
    settings = load(
        overrides={
            "agents": {"watch": False},
            "alerts": {"enabled": False},
            "hostexec": {"workspace": str(tmp_path / "work")},
        }
    )
    model = Said(asks("host_exec", query="uname -s"), asks("host_exec", query="rm -rf /"), BYE)
    home = tmp_path / "home"
    async with (
        Runtime(settings, agents=[], home=home, persist=False, environ={}) as runtime,
        runtime.session(model=model, tools=["host_exec"], user="ada") as session,
    ):
        turn = await session.send("Which system is it?")
    first, second = turn.tool_calls
    assert (first.status, "Linux" in first.result) == (ToolStatus.COMPLETED, True)
    assert second.status in {ToolStatus.FAILED, ToolStatus.REJECTED}
    assert second.error


async def test_a_fleet_of_servers_is_a_model() -> None:
    """A server of the settings is a fleet whose calls are those of a model, with its limit of time; a
    fleet that has no settings as a model keeps its own (S2-41)."""
    server = {"kind": "openai", "url": "http://127.0.0.1:9/v1", "model": "m"}
    settings: dict[str, Any] = {
        "models": {"one": {**server}, "two": {**server, "timeout_s": 7}},
        "fleets": {"many": {"instances": [server], "timeout_s": 300}},
    }
    async with a_runtime(**settings) as runtime:
        assert {"one", "two", "many", "embedded"} == set(runtime.sessions.models())
        assert set(await runtime.sessions.tools()) == set()
        limits: dict[str, float] = {}
        for name in ("one", "two", "many"):
            model = await runtime.sessions._models.get(name)
            assert isinstance(model, FleetModel)
            _, plan, job = model.call(ModelRequest((UserMessage("hi"),)))
            limits[name] = plan.timeout_s or job.timeout_s
            assert job.dispatch is not None
            assert runtime.registry.get(name).kind is Kind.MODEL
        assert limits == {"one": 120, "two": 7, "many": 300}
