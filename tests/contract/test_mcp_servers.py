"""Tools of servers in processes: one made with the official SDK, and one that misbehaves."""

import asyncio
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from paceline.call import Effect, EffectKind
from paceline.clock import SystemClock
from paceline.errors import (
    AgentError,
    CallTimeoutError,
    Category,
    ConfigError,
    InvalidInputError,
    RuntimeClosedError,
)
from paceline.session_settings import McpSettings
from paceline.tools.mcp import McpServer
from paceline.tools.spec import ToolSpec
from tests.unit.sessions.quiet import BYE, Said, a_runtime, asks

HERE = Path(__file__).parent
ENVIRON = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/nowhere",
    "LANG": "C.UTF-8",
    "NOTES_TOKEN": "token-of-notes-1",
    "SHELL": "/bin/sh",
    "OTHER": "other",
}


class StoppedClock:
    """Time stands still until it is set."""

    now_ns = 0

    def monotonic_ns(self) -> int:
        return self.now_ns

    def wall_ns(self) -> int:
        return self.now_ns


def server(
    *,
    clock: Any = None,
    most_bytes: int = 1_000_000,
    progress: Any = None,
    grace_s: float = 5,
    **more: Any,
) -> McpServer:
    """The SDK's server, not started yet."""
    settings: dict[str, Any] = {"command": (sys.executable, str(HERE / "mcp_server.py"))} | more
    return McpServer(
        "notes",
        McpSettings(**settings),
        environ=ENVIRON,
        clock=clock or SystemClock(),
        most_bytes=most_bytes,
        progress=progress,
        grace_s=grace_s,
    )


def misbehaving(tmp_path: Path, *words: str, **more: Any) -> McpServer:
    """The other one."""
    script = str(HERE / "mcp_misbehaving.py")
    options = {"most_bytes": 50_000} | {
        key: more.pop(key) for key in ("clock", "most_bytes", "grace_s") if key in more
    }
    return server(
        command=(sys.executable, script, str(tmp_path / "starts"), *words), **options, **more
    )


def starts(tmp_path: Path) -> int:
    return len((tmp_path / "starts").read_text().split())


async def named(server: McpServer) -> dict[str, ToolSpec]:
    return {spec.name: spec for spec in await server.tools()}


async def call(spec: ToolSpec, **arguments: object) -> Any:
    """As a session runs it."""
    run: Any = spec.run
    return await run(**spec.check(arguments))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 (nothing tells of it)
            await asyncio.sleep(0)


def gone(pid: int | None) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def expect_values(tools: dict[str, ToolSpec]) -> None:
    """Tools of the SDK's server are as it announces them, and give what they return."""
    read, write, clear = (tools[f"notes_{name}"] for name in ("read_note", "write_note", "clear"))
    assert read.effect == Effect.read("mcp:notes")
    assert write.effect == Effect.write("mcp:notes", idempotent=True)
    assert tools["notes_slow"].effect.kind is EffectKind.UNKNOWN
    assert [spec.approval for spec in (read, write, clear)] == [False, False, True]
    assert (read.source, read.is_async, read.timeout_s) == ("mcp", True, 60.0)
    assert read.definition.description == "The text of a note."
    assert await call(read, name="a") == "first"
    assert await call(write, name="b", text="xy", copies=2) == {"characters": 4}
    assert await call(clear) == ["a", "b"]
    assert await call(tools["notes_picture"]) == "[image, image/png, 30 bytes]"
    names = set(await call(tools["notes_environment"]))
    assert {"PATH", "HOME", "LANG", "NOTES_TOKEN"} <= names
    assert not {"SHELL", "OTHER"} & names


async def expect_refusals(tools: dict[str, ToolSpec]) -> None:
    """Wrong arguments, failures and floods are errors that say so."""
    read, write = tools["notes_read_note"], tools["notes_write_note"]
    with pytest.raises(InvalidInputError, match="'name' is a required property") as wrong:
        read.check({})
    assert wrong.value.next_step == "Its parameters are: name (required)."
    with pytest.raises(InvalidInputError, match="copies: 'two' is not of type 'integer'"):
        write.check({"name": "a", "text": "b", "copies": "two"})
    with pytest.raises(InvalidInputError, match="cannot be sent"):
        await call(read, name="\ud800")
    with pytest.raises(AgentError, match="read_note") as failed:  # there is no such note
        await call(read, name="gone")
    assert (failed.value.category, failed.value.may_have_started) == (Category.EXECUTION, True)
    with pytest.raises(AgentError, match=r"more than 100,000 bytes") as much:
        await call(tools["notes_huge"], characters=200_000)
    assert much.value.category is Category.EXHAUSTED


async def expect_cancellation(slow: ToolSpec, file: Path) -> None:
    """The tool learns that nobody waits for it any more."""
    waiting = asyncio.create_task(call(slow, path=str(file)))
    await until(lambda: file.exists() and file.read_text() == "started")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: file.read_text() == "cancelled")


async def expect_growth(there: McpServer, tools: dict[str, ToolSpec]) -> None:
    """Tools that come are listed at the next use, and those there were are the same."""
    assert await named(there) == tools
    assert await call(tools["notes_grow"]) == "grown"
    await until(lambda: bool(there._connection and there._connection.changed))
    more = await named(there)
    assert set(more) - set(tools) == {"notes_grown"}
    assert more["notes_read_note"] is tools["notes_read_note"]
    assert await call(more["notes_grown"]) == "here"


async def expect_crash(crash: ToolSpec) -> None:
    """A server that ends is told with its last words, and no secret in them."""
    with pytest.raises(AgentError, match="out of notes") as crashed:
        await call(crash)
    error = crashed.value
    assert (error.category, error.may_have_started) == (Category.UNAVAILABLE, True)
    assert "server notes ended before it answered: its status is 3" in error.message
    assert ENVIRON["NOTES_TOKEN"] not in f"{error.message} {error.next_step}"
    assert "\x1b" not in error.message


async def test_a_server_of_the_sdk(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Tools of a server in a process are listed with the effects it announces, give data and text,
    say what they lack, learn of cancellation, come and go, and end with it. (S2-35, S2-37, V-36)"""
    heard: list[tuple[object, ...]] = []
    async with server(
        env=("NOTES_TOKEN",), progress=lambda *said: heard.append(said), most_bytes=100_000
    ) as there:
        tools = await named(there)
        await expect_values(tools)
        await expect_refusals(tools)
        await expect_cancellation(tools["notes_slow"], tmp_path / "slow")
        await expect_growth(there, tools)
        assert heard == [("grow", 1, 2, "half")]
        pid = there.pid
        await expect_crash(tools["notes_crash"])
        assert gone(pid)
    assert capfd.readouterr() == ("", "")


async def test_settings_choose_tools(tmp_path: Path) -> None:
    """Patterns choose the tools; nothing is known of those of a server that is not trusted, and a
    person is asked before each of them. (S2-35)"""
    async with misbehaving(tmp_path, tools=("e*",), trust=False) as there:
        tools = await named(there)
        assert set(tools) == {"notes_echo", "notes_endless"}
        assert all(spec.approval for spec in tools.values())
        assert await call(tools["notes_echo"], n=3) == '{"n": 3}'


async def test_what_is_no_message_is_passed_over(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Lines that are no messages, and answers that nobody asked for, change nothing, and do not reach
    the terminal; a tool whose schema is none is left out. (S2-53)"""
    async with misbehaving(tmp_path) as there:
        tools = await named(there)
        assert "notes_unusable" not in tools
        assert len(tools) == 10
        assert await call(tools["notes_nonsense"]) == "{}"
        assert there._process is not None
        assert "2 lines that it wrote are no messages, such as: {}]]]" in there._process.story
        assert await call(tools["notes_echo"]) == "{}"
        assert starts(tmp_path) == 1
    assert capfd.readouterr() == ("", "")


async def test_answers_are_bounded_and_checked(tmp_path: Path) -> None:
    """An answer that is too long, or none by the protocol, fails its own call alone, with an error that
    names the server. (S2-53)"""
    async with misbehaving(tmp_path) as there:
        tools = await named(there)
        with pytest.raises(AgentError, match=r"server notes answered with more than 50,000 bytes"):
            await call(tools["notes_long"])
        with pytest.raises(AgentError, match="server notes gave no answer that can be used") as bad:
            await call(tools["notes_wrong"])
        assert "[mcp.notes]" in bad.value.next_step
        with pytest.raises(AgentError, match="n is unlucky") as refused:
            await call(tools["notes_refuse"], n=13)
        assert refused.value.category is Category.INVALID
        assert await call(tools["notes_echo"]) == "{}"
        assert starts(tmp_path) == 1


async def test_older_revisions(tmp_path: Path) -> None:
    """A server of an older revision of the protocol is told of a cancelled call too, and tells of changes
    of its tools by itself. (V-36)"""
    async with misbehaving(tmp_path) as there:
        tools = await named(there)
        waiting = asyncio.create_task(call(tools["notes_endless"]))
        await until(lambda: bool(there._connection and there._connection._requests))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until((tmp_path / "cancelled").exists)
        connection: Any = there._connection
        assert not connection.changed
        await call(tools["notes_change"])
        assert connection.changed
        assert await named(there) == tools
        assert not connection.changed


async def test_calls_have_a_limit(tmp_path: Path) -> None:
    """A call that is not answered in time fails as late, and the session goes on. (S2-52)"""
    async with misbehaving(tmp_path, timeout_s=20) as there:
        tools = await named(there)
        assert there._connection is not None
        there._connection._limit_s = 0.05
        with pytest.raises(
            CallTimeoutError, match=r"did not answer a call of endless within"
        ) as late:
            await call(tools["notes_endless"])
        assert late.value.may_have_started
        await until((tmp_path / "cancelled").exists)
        assert "timeout_s of [mcp.notes]" in late.value.next_step


async def test_a_server_that_never_begins(tmp_path: Path) -> None:
    """A server that does not answer the first message fails as late, and is gone afterwards. (S2-52)"""
    async with misbehaving(tmp_path, "silent", timeout_s=0.5) as there:
        with pytest.raises(CallTimeoutError, match=r"first message within 0.5 s") as late:
            await there.tools()
        assert not late.value.may_have_started
        assert gone(there.pid)


async def test_pauses_grow(tmp_path: Path) -> None:
    """A server that ends is started again by the next call; when that does not help it is left alone
    for longer and longer, and calls are refused at once with what it said. (S2-53)"""
    clock = StoppedClock()
    async with misbehaving(tmp_path, "fail at once", clock=clock) as there:
        for _ in range(2):
            with pytest.raises(
                AgentError, match=r"status is 2; its last words are: no licence"
            ) as ended:
                await there.tools()
            assert not ended.value.may_have_started
        waits: list[float | None] = []
        for _ in range(3):
            with pytest.raises(AgentError, match="no licence") as refused:
                await there.tools()
            assert "left alone" in refused.value.message
            waits.append(refused.value.retry_after_s)
            clock.now_ns += round((refused.value.retry_after_s or 0) * 1e9)
            with pytest.raises(AgentError, match="ended before"):
                await there.tools()
        assert waits == [1.0, 2.0, 4.0]
        assert starts(tmp_path) == 5


async def test_a_tool_that_always_crashes(tmp_path: Path) -> None:
    """A tool that ends its server each time cannot have it started without pause, and calls that are
    answered between make up for it."""
    clock = StoppedClock()
    async with misbehaving(tmp_path, clock=clock) as there:
        tools = await named(there)
        for _ in range(3):
            with pytest.raises(AgentError, match="last words"):
                await call(tools["notes_die"])
            assert await call(tools["notes_echo"]) == "{}"
        for _ in range(2):
            with pytest.raises(AgentError, match="last words"):
                await call(tools["notes_die"])
        with pytest.raises(AgentError, match=r"left alone for a while: .*status is 7"):
            await call(tools["notes_die"])


async def test_all_that_wait_are_told(tmp_path: Path) -> None:
    """When a server ends, every call that waits for it fails with how it ended; and they all share the
    one that is started next."""
    async with misbehaving(tmp_path, timeout_s=20) as there:
        tools = await named(there)
        waiting = [asyncio.create_task(call(tools["notes_endless"])) for _ in range(3)]
        await until(lambda: bool(there._connection and len(there._connection._requests) == 3))
        with pytest.raises(AgentError, match="status is 7"):
            await call(tools["notes_die"])
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, AgentError)
            assert "status is 7" in error.message
        both = await asyncio.gather(*(call(tools["notes_echo"], n=n) for n in (1, 2)))
        assert both == ['{"n": 1}', '{"n": 2}']
        assert starts(tmp_path) == 2


async def test_leaving_ends_what_waits(tmp_path: Path) -> None:
    """A server that is left ends, and so do calls that wait for it and those that come later; one that
    cannot be found says so. (S2-53)"""
    async with misbehaving(tmp_path) as there:
        tools = await named(there)
        waiting = asyncio.create_task(call(tools["notes_endless"]))
        await until(lambda: bool(there._connection and there._connection._requests))
    with pytest.raises(AgentError, match="closed"):
        await waiting
    assert gone(there.pid)
    with pytest.raises(RuntimeClosedError):
        await there.tools()
    async with server(command=("/nowhere/server",)) as missing:
        with pytest.raises(AgentError, match="cannot be started") as caught:
            await missing.tools()
        assert caught.value.next_step == "Correct `command` of [mcp.notes]."


async def test_what_does_not_end_is_killed(tmp_path: Path) -> None:
    """A server that goes on when it is left is killed, with what it started."""
    async with misbehaving(tmp_path, "stubborn", grace_s=0.05) as there:
        await there.tools()
        child = int((tmp_path / "child").read_text())
        assert not gone(child)
    assert gone(there.pid)
    await until(lambda: gone(child))


async def test_lists_end(tmp_path: Path) -> None:
    """A list of tools that has no end is an error."""
    async with misbehaving(tmp_path, "endless list") as there:
        with pytest.raises(AgentError, match="lists tools without end"):
            await there.tools()


async def test_who_begins_it_may_leave(tmp_path: Path) -> None:
    """A caller that is cancelled while the session begins leaves it to the others."""
    async with misbehaving(tmp_path) as there:
        first = asyncio.create_task(there._ready())
        second = asyncio.create_task(there._ready())
        await until(lambda: there._starting is not None)
        first.cancel()
        assert (await second).usable
        assert first.cancelled()
        assert starts(tmp_path) == 1


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "neither a command and a url"),
        ({"command": ("a",), "url": "http://b"}, "both a command and a url"),
        ({"url": "ftp://b"}, "http or https"),
        ({"url": "http://b", "token_env": "NONE"}, "NONE is not set"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], said: str) -> None:
    """Settings that name no server, or two, or a token that is not there, are refused with what to
    correct."""
    with pytest.raises(ConfigError, match=said) as caught:
        server(**({"command": ()} | settings))
    assert "[mcp.notes]" in caught.value.next_step


def test_the_sdk_is_not_heard() -> None:
    """What the SDK logs does not reach the terminal of a program that set up no logging."""
    import paceline.tools.mcp.sdk  # noqa: F401

    assert logging.getLogger("mcp").hasHandlers()


async def test_a_session_has_what_a_server_grows() -> None:
    """A tool that a server adds while it is called is offered to the model with the next request, and
    can be used. (S2-35)"""
    command = [sys.executable, str(HERE / "mcp_server.py")]
    async with a_runtime(mcp={"notes": {"command": command, "approve": "none"}}) as runtime:
        model = Said(asks("notes_grow"), asks("notes_grown"), BYE)
        async with runtime.session(model=model) as session:
            turn = await session.send("grow")
        assert [call.result for call in turn.tool_calls] == ["grown", "here"]
        assert "notes_grown" not in {tool.name for tool in model.requests[0].tools}
        assert "notes_grown" in {tool.name for tool in model.requests[1].tools}


async def test_results_are_checked_in_bounded_time(tmp_path: Path) -> None:
    """A server whose schemas would take for ever to check data by holds nobody up: what it answers is
    taken, but for what is plainly not as it says. (S2-35, V-36)"""
    async with misbehaving(tmp_path) as there:
        tools = await named(there)
        assert (await call(tools["notes_slow"]))["n"].endswith("!")
        with pytest.raises(AgentError, match="p: 1 is not of type 'string'") as caught:
            await call(tools["notes_misfit"])
        assert caught.value.may_have_started
        assert await call(tools["notes_echo"], n=1)
