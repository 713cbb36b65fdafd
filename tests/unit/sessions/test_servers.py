"""The tools of MCP servers in sessions: whose a name is, and who waits for whom."""

import asyncio
from collections.abc import Callable
from typing import Self

import pytest

import paceline.tools.mcp
from paceline import Runtime
from paceline.errors import AgentError, PacelineError, UnknownAgentError
from paceline.testing.virtual_time import run
from paceline.tools.function import function_tool
from paceline.tools.spec import ToolSpec
from tests.unit.sessions.quiet import BYE, Said, a_runtime, asks


class Server:
    """One that tells its tools after a while."""

    def __init__(self, name: str, names: tuple[str, ...], after_s: float = 0) -> None:
        self.name = name
        self.after_s = after_s
        self.told: list[ToolSpec] = []
        self.when_changed: Callable[[], object] = bool
        self.asked = 0
        self.opened = 0
        self.trouble: PacelineError | None = None
        self.tell(*names)

    def tell(self, *names: str) -> None:
        """Has these tools from now on."""

        async def of_server() -> str:
            return "done"

        known = {tool.name: tool for tool in self.told}
        self.told = [known.get(each) or function_tool(of_server, name=each) for each in names]

    async def __aenter__(self) -> Self:
        self.opened += 1
        await asyncio.sleep(1)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.opened -= 1

    async def tools(self) -> list[ToolSpec]:
        self.asked += 1
        await asyncio.sleep(self.after_s)
        if self.trouble is not None:
            raise self.trouble
        return self.told


Serve = Callable[..., Runtime]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """A runtime whose settings name these servers, beside which there are no others."""

    def served(*servers: Server) -> Runtime:
        by_name = {one.name: one for one in servers}
        monkeypatch.setattr(paceline.tools.mcp, "McpServer", lambda name, *_, **__: by_name[name])
        return a_runtime(mcp={one.name: {"command": ["x"]} for one in servers})

    return served


def test_one_name_is_one_tool(serve: Serve) -> None:
    """A name belongs to a registered tool, then to an agent, then to the first server in the settings;
    the tools of others are left out, and somebody is told once who has it (S2-35)."""

    async def main() -> None:
        one = Server("one", ("taken", "ask", "same", "a"))
        two = Server("two", ("same", "b"))
        async with serve(one, two) as runtime:

            @runtime.tool(effect="read")
            async def taken() -> None: ...

            @runtime.agent(name="ask")
            async def ask(query: str) -> str:
                return query

            await runtime.sessions.tools()
            tools = await runtime.sessions.tools()
            assert set(tools) == {"taken", "ask", "same", "a", "b"}
            assert tools["taken"].run is taken
            assert tools["ask"] is runtime.registry.get("ask")
            assert [tools["same"], tools["b"]] == [one.told[2], two.told[1]]
            assert [notice.partition(", as ")[0] for notice in runtime.notices] == [
                "the MCP server one: its tool taken is left out",
                "the MCP server one: its tool ask is left out",
                "the MCP server two: its tool same is left out",
            ]
            assert "as the MCP server one has" in runtime.notices[2]

    run(main())


def test_a_silent_server_holds_up_nobody(serve: Serve) -> None:
    """Sessions wait a moment for a server that is silent, once, and go on with what is known of it;
    when it answers its tools are there (S2-25, S2-53)."""

    async def main() -> None:
        quick, silent = Server("quick", ("q",)), Server("silent", ("s",), after_s=50)
        async with serve(quick, silent) as runtime:
            now = asyncio.get_running_loop().time
            began = now()
            async with asyncio.timeout(20):
                both = [runtime.sessions.tools() for _ in range(2)]
                assert [set(each) for each in await asyncio.gather(*both)] == [{"q"}, {"q"}]
            waited = now()
            assert set(await runtime.sessions.tools()) == {"q"}
            assert now() == waited
            assert waited - began < 20
            assert [silent.asked, len(runtime.notices)] == [1, 1]
            assert "silent" in runtime.notices[0]
            async with runtime.session(model=Said(BYE), tools=["q"]) as session:
                await session.send("go")
            with pytest.raises(UnknownAgentError):
                async with runtime.session(model=Said(BYE), tools=["s"]):
                    pass
            await asyncio.sleep(50)
            assert set(await runtime.sessions.tools()) == {"q", "s"}  # and is asked again
            assert set(await runtime.sessions.tools()) == {"q", "s"}
        assert [quick.opened, silent.opened] == [0, 0]
        assert len(asyncio.all_tasks()) == 1

    run(main())


def test_who_opens_them_may_be_cancelled(serve: Serve) -> None:
    """A server is open once, though whoever opened the servers first was cancelled (S2-25)."""

    async def main() -> None:
        one, two = Server("one", ("a",)), Server("two", ("b",))
        async with serve(one, two) as runtime:
            opening = asyncio.create_task(runtime.sessions.tools())
            await asyncio.sleep(1.5)
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
            assert set(await runtime.sessions.tools()) == {"a", "b"}
            assert one.opened == 1
        assert one.opened == 0

    run(main())


def test_a_server_in_trouble_has_no_tools(serve: Serve) -> None:
    """A server that cannot be used leaves the tools of the others, somebody is told once, and it is asked
    again the next time (S2-53)."""

    async def main() -> None:
        one, two = Server("one", ("a",)), Server("two", ("b",))
        one.trouble = AgentError("out of order", next_step="Mend it.")
        async with serve(one, two) as runtime:
            for _ in range(2):
                assert set(await runtime.sessions.tools()) == {"b"}
            assert len(runtime.notices) == 1
            assert "out of order" in runtime.notices[0]
            one.trouble = None
            assert set(await runtime.sessions.tools()) == {"a", "b"}

    run(main())


def offered(model: Said, at: int) -> list[str]:
    """The tools that a model was offered with one request."""
    return [tool.name for tool in model.requests[at].tools]


def test_a_running_session_has_the_tools_there_are_now(serve: Serve) -> None:
    """When a server says that its tools changed the next request of a running session offers those
    there are then, in the turn that changed them too; what did not change stays in its place, and is
    the same object while nothing does (S2-35)."""

    async def main() -> None:
        one, two = Server("one", ("a", "b"), after_s=1), Server("two", ("z",))
        async with serve(one, two) as runtime:

            @runtime.tool()
            async def change() -> None:
                one.tell("b", "c")
                one.when_changed()

            model = Said(asks("change"), BYE)
            async with runtime.session(model=model, tools=["*", change]) as session:
                await session.send("go")
                assert offered(model, 0) == ["a", "b", "z", "change"]
                assert offered(model, 1) == ["b", "z", "change", "c"]
                await session.send("go on")
                assert model.requests[2].tools is model.requests[1].tools
                one.tell()
                one.when_changed()
                await asyncio.sleep(2)
                await session.send("go on")
                assert offered(model, 3) == ["z", "change"]

    run(main())


def test_a_tool_that_is_gone_is_unknown(serve: Serve) -> None:
    """A model that asks for a tool which its server has no longer is told that there is none of that
    name, and nothing is run (S2-35)."""

    async def main() -> None:
        one = Server("one", ("a", "b"))
        async with serve(one) as runtime:
            model = Said(BYE, asks("a", "b"), BYE)
            async with runtime.session(model=model) as session:
                await session.send("hello")
                one.tell("b")
                one.when_changed()
                await asyncio.sleep(1)
                turn = await session.send("go")
            assert [call.status for call in turn.tool_calls] == ["rejected", "completed"]
            assert "there is no tool 'a'" in turn.tool_calls[0].result

    run(main())


def test_a_session_has_no_more_tools_than_it_was_given(serve: Serve) -> None:
    """Of new tools a session gets those that it would have been given, and a tool of its own keeps its
    name (S2-35)."""

    async def main() -> None:
        one = Server("one", ("x_a",))
        async with serve(one) as runtime:

            async def x_own() -> None: ...

            some, none = Said(BYE), Said(BYE)
            async with (
                runtime.session(model=some, tools=["x_*", x_own]) as first,
                runtime.session(model=none, tools=[x_own]) as second,
            ):
                one.tell("x_a", "x_own", "x_new", "y")
                one.when_changed()
                await asyncio.sleep(1)
                for session in (first, second):
                    await session.send("go")
                assert offered(some, 0) == ["x_a", "x_own", "x_new"]
                assert offered(none, 0) == ["x_own"]

    run(main())


@pytest.mark.parametrize("fails", [False, True])
def test_a_server_that_does_not_tell_what_changed_holds_nobody_up(
    serve: Serve, fails: bool
) -> None:
    """A server that says that its tools changed, and then fails or is silent, leaves those it had, and
    holds up one call for two seconds at most (S2-35)."""

    async def main() -> None:
        one = Server("one", ("a",))
        async with serve(one) as runtime:
            model = Said(BYE, asks("a"), asks("a"), BYE)
            async with runtime.session(model=model) as session:
                await session.send("hello")
                if fails:
                    one.trouble = AgentError("gone")
                one.after_s = 30
                one.when_changed()
                now = asyncio.get_running_loop().time
                began = now()
                turn = await session.send("go")
                assert [call.status for call in turn.tool_calls] == ["completed"] * 2
                assert now() - began == 2
                await asyncio.sleep(60)
                await session.send("go on")
                assert offered(model, -1) == ["a"]

    run(main())


def test_changes_that_come_while_it_is_asked_are_asked_for(serve: Serve) -> None:
    """What changes while a server is asked is asked for after that, once, and nothing is asked once
    the runtime is closed (S2-35, S2-48)."""

    async def main() -> None:
        one = Server("one", ("a",))
        async with serve(one) as runtime:
            model = Said(BYE)
            async with runtime.session(model=model) as session:
                one.after_s, one.asked = 5, 0
                one.when_changed()
                await asyncio.sleep(1)
                one.tell("a", "b")
                for _ in range(3):
                    one.when_changed()
                await asyncio.sleep(20)
                await session.send("go")
                assert (one.asked, offered(model, 0)) == (2, ["a", "b"])
                one.when_changed()
                await asyncio.sleep(1)
        one.when_changed()
        assert len(asyncio.all_tasks()) == 1

    run(main())
