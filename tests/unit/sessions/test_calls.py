"""What the tools and agents of a session are as calls: whose, within what, and how treated."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from paceline.call import Caller, Effect, Source, current_call
from paceline.engine.states import ResourceLimits, ToolStatus
from paceline.errors import AgentError, Category, PacelineError, UnknownAgentError
from paceline.messages import ModelReply, ToolMessage, ToolUse
from paceline.metrics.performance import track_performance
from paceline.testing.virtual_time import run
from tests.unit.sessions.quiet import BYE, Said, a_runtime, asks, calls, seen

ONE: dict[str, Any] = {"run": {"max_concurrency": 1}}


def results(model: Said) -> list[str]:
    """What the last request says that tools gave."""
    return [one.text for one in model.requests[-1].messages if isinstance(one, ToolMessage)]


def test_what_a_turn_calls_is_within_it() -> None:
    """A turn is one call, and what it calls are calls in its course and trace, on behalf of its user
    and session (S2-38, S2-39)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            runtime.tool(effect="read")(look)
            runtime.agent(name="ask")(echo)
            found = seen(runtime)
            model = Said(asks("look", item="bolt"), asks("ask", query="why?"), BYE)
            tools = ["look", "ask"]
            async with runtime.session("s", model=model, tools=tools, user="ada") as session:
                await session.send("go")
            assert calls(found) == [
                ("model", "said", "session"),
                ("tool", "look", "session"),
                ("model", "said", "session"),
                ("agent", "ask", "session"),
                ("model", "said", "session"),
                ("agent", "session", None),
            ]
            assert results(model) == ["bolt is there", "why?"]
            callers = {call.caller for call, _ in found}
            assert callers == {Caller("ada", "s", None)}
            last, outcome = found[-1]
            assert {call.trace_id for call, _ in found} == {last.id} == {session.turns[0].id}
            assert (last.arguments, outcome.value) == ({"query": "go"}, "bye")
            assert outcome.tokens is None  # those are of the model's calls

    run(main())


@pytest.mark.parametrize("reply", [AgentError("it broke"), None], ids=["failed", "cancelled"])
def test_a_turn_that_fails_is_a_call_that_failed(reply: AgentError | None) -> None:
    """How a turn ended is seen in the figures, once (S2-39)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            found = seen(runtime)
            async with runtime.session(model=Said(reply or asks("wait"), BYE), tools=[wait]) as one:
                turn = asyncio.create_task(one.send("go"))
                await asyncio.sleep(1)
                assert one.cancel() is (reply is None)
                with pytest.raises(PacelineError):
                    await turn
            ((_, outcome),) = [pair for pair in found if pair[0].name == "session"]
            category = Category.CANCELLED if reply is None else Category.EXECUTION
            assert outcome.error is not None
            assert outcome.error.category is category
            series = runtime.metrics.snapshot().series
            assert not any(each.in_flight for each in series)

    run(main())


def test_a_session_in_an_agents_call() -> None:
    """A session that an agent uses is in its trace and within it, on behalf of its caller, and uses its
    places: one place for everything is enough (S2-34, S2-38)."""

    async def main() -> None:
        async with a_runtime(**ONE, chat={"max_concurrent_tools": 1}) as runtime:
            model = Said(asks("nested"), asks("look", item="bolt"), BYE)

            @runtime.agent(name="outer", max_concurrency=1)
            async def outer(query: str) -> str:
                async with runtime.session("s", model=model, tools=[nested, look]) as session:
                    return (await session.send(query)).agent_response

            async def nested() -> str:
                inner = Said(asks("look", item="nut"), BYE)
                async with runtime.session("t", model=inner, tools=[look]) as session:
                    return (await session.send("inner")).agent_response

            found = seen(runtime)
            outcome = await runtime.run("outer", "go", user="ada", timeout=100)
            assert outcome.unwrap() == "bye"
            assert {call.caller.user for call, _ in found} == {"ada"}
            assert len({call.trace_id for call, _ in found}) == 1
            ids = {call.id: call for call, _ in found}
            up = {call.id: ids.get(call.tracked_id or call.parent_id) for call, _ in found}
            s, t = (next(c for i, c in ids.items() if i.startswith(f"{name}.")) for name in "st")
            assert (up[s.id].name, up[t.id].name) == ("outer", "nested")  # type: ignore[union-attr]
            within = {call.name for call, _ in found if up[call.id] is s}
            assert within == {"said", "nested", "look"}
            within = {call.name for call, _ in found if up[call.id] is t}
            assert within == {"said", "look"}

    run(main())


def test_a_tool_that_calls_an_agent() -> None:
    """An agent that a tool calls is within the tool's call, on behalf of the session's user, and uses
    its place; when the turn's time is over it is cancelled with it (S2-34, S2-37, S2-38)."""

    async def main() -> None:
        async with a_runtime(**ONE) as runtime:
            ended: list[str] = []

            @runtime.agent(name="slow")
            async def slow(query: str) -> str:
                try:
                    await asyncio.sleep(float(query))
                finally:
                    ended.append(query)
                return query

            async def call(seconds: str) -> object:
                return (await runtime.run("slow", seconds)).unwrap()

            found = seen(runtime)
            model = Said(asks("call", seconds="1"), BYE, asks("call", seconds="50"), BYE)
            async with runtime.session("s", model=model, tools=[call], user="ada") as session:
                assert (await session.send("go")).tool_calls[0].result == "1"
                with pytest.raises(PacelineError):
                    await session.send("go", timeout_s=10)
            assert ended == ["1", "50"]
            slow_call = next(one for one, _ in found if one.name == "slow")
            names = {one.id: one.name for one, _ in found}
            assert names[slow_call.parent_id or ""] == "call"
            assert slow_call.caller == Caller("ada", "s", None)
            late = [one for one, _ in found if one.name == "slow"][-1]
            assert late.deadline_ns is not None

    run(main())


def test_a_session_in_a_tracked_function() -> None:
    """A turn within a tracked function is a part of its trace, with all that it calls (S2-38)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            found = seen(runtime)
            async with runtime.session(
                "s", model=Said(asks("look", item="a"), BYE), tools=[look]
            ) as s:

                @track_performance("work", runtime.metrics)
                async def work() -> None:
                    await s.send("go")

                await work()
            turn = next(call for call, _ in found if call.name == "session")
            assert turn.trace_id != turn.id
            assert turn.parent_id == turn.trace_id
            assert {call.trace_id for call, _ in found} == {turn.trace_id}
            assert {call.parent_id for call, _ in found if call is not turn} == {turn.id}

    run(main())


@pytest.mark.parametrize(
    ("scope", "shared"), [(None, False), ("session", False), ("user", True), ("global", True)]
)
@pytest.mark.parametrize("user", ["ada", None])
def test_results_of_tools_are_kept_in_their_scope(
    scope: Any,
    shared: bool,
    user: str | None,
) -> None:
    """A tool's result is served again to the sessions of its scope only: by default those of one user,
    and never to another user, or to nameless ones, unless the tool says it is for all (V-10, S2-38)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            ran: list[str] = []

            @runtime.tool(effect="read", ttl_s=60, scope=scope)
            async def count(item: str) -> int:
                ran.append(item)
                return len(ran)

            async def told(by: str | None) -> str:
                model = Said(asks("count", item="bolt"), BYE)
                async with runtime.session(model=model, user=by) as session:
                    (call,) = (await session.send("go")).tool_calls
                return call.result

            mine = scope != "session" and user is not None
            assert await told(user) == "1"
            assert await told(user) == ("1" if mine or scope == "global" else "2")
            assert (await told("eve") == "1") is (scope == "global")
            assert shared or scope != "global"

    run(main())


def test_a_write_makes_what_was_read_stale() -> None:
    """After a tool has written, what another has read under that tag is read anew (V-10, S2-29)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            stock = {"bolt": 1}

            @runtime.tool(effect="read", tags=("stock:{item}",), ttl_s=60)
            async def count(item: str) -> int:
                return stock[item]

            @runtime.tool(effect="write", tags=("stock:{item}",))
            async def buy(item: str) -> None:
                stock[item] += 1

            model = Said(asks("count", "count", "buy", "count", item="bolt"), BYE)
            async with runtime.session(model=model, user="ada") as session:
                turn = await session.send("go")
            first, second, _, third = turn.tool_calls
            assert (first.result, second.result, third.result) == ("1", "1", "2")
            assert second.source != Source.EXECUTED

    run(main())


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (ToolUse("1", "lock", "{}"), "look"),
        (ToolUse("1", "look", "{"), "JSON"),
        (ToolUse("1", "look", "[1]"), "object"),
        (ToolUse("1", "look", ""), "item"),
        (ToolUse("1", "look", '{"item": 1}'), "item"),
        (ToolUse("1", "look", '{"item": "a", "more": 1}'), "more"),
        (ToolUse("1", "ask", '{"query": " "}'), "query"),
        (ToolUse("1", "ask", '{"query": "a", "more": 1}'), "query"),
        (ToolUse("1", "ask", '{"query": 1}'), "query"),
    ],
    ids=str,
)
def test_what_cannot_be_run_is_told_to_the_model(use: ToolUse, says: str) -> None:
    """A use of no tool, or with arguments that are not the tool's, runs nothing, and the model is told
    what is wrong (S2-35, V-36)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            runtime.tool(effect="read")(look)
            runtime.agent(name="ask")(echo)
            model = Said(ModelReply(uses=(use,)), BYE)
            async with runtime.session(model=model, tools=["*"]) as session:
                (call,) = (await session.send("go")).tool_calls
            assert call.status is ToolStatus.REJECTED
            (told,) = results(model)
            assert says in told

    run(main())


@pytest.mark.parametrize(("limits", "attempts"), [(None, 4), (0, 1), (1, 2), (6, 7)])
def test_tools_are_tried_again_as_often_as_they_may(limits: int | None, attempts: int) -> None:
    """A read that fails for a while is tried as often as the settings, or the session's own limits, say
    (S2-12, S2-22)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            ran: list[int] = []

            async def flaky() -> None:
                ran.append(1)
                raise AgentError("away", category=Category.UNAVAILABLE)

            runtime.tool(effect="read")(flaky)
            own = None if limits is None else ResourceLimits(max_tool_retries=limits)
            async with runtime.session(model=Said(asks("flaky"), BYE), limits=own) as session:
                (call,) = (await session.send("go")).tool_calls
            assert (len(ran), call.attempts, call.status) == (attempts, attempts, ToolStatus.FAILED)

    run(main())


def test_a_write_that_may_be_made_again_is() -> None:
    """An idempotent write that failed in its course is tried again as a read is, and is a write in all
    else: not kept, and what was read of its tags before is read anew (S2-22, S2-35)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            ran: list[str] = []

            async def put(to: str) -> None:
                ran.append(f"put {to}")
                if len(ran) < 4:
                    raise AgentError("away", category=Category.NETWORK, may_have_started=True)

            async def get() -> int:
                ran.append("get")
                return len(ran)

            runtime.tool(effect=Effect.write("shelf", idempotent=True))(put)
            runtime.tool(effect="read", tags=("shelf",), ttl_s=60)(get)
            model = Said(asks("get"), asks("put", to="a"), asks("get"), asks("put", to="a"), BYE)
            async with runtime.session(model=model) as session:
                turn = await session.send("go")
            assert ran == ["get", "put a", "put a", "put a", "get", "put a"]
            assert [call.source for call in turn.tool_calls] == ["executed"] * 4

    run(main())


def test_tools_have_the_time_of_the_settings() -> None:
    """A tool that has no limit of its own is stopped at that of the settings (S2-37, V-16)."""

    async def main() -> None:
        async with a_runtime(chat={"tool_timeout_s": 7}) as runtime:

            async def hang() -> None:
                await asyncio.sleep(1_000)

            runtime.tool()(hang)
            async with runtime.session(model=Said(asks("hang"), BYE)) as session:
                (call,) = (await session.send("go")).tool_calls
            assert (call.status, call.execution_ns) == (ToolStatus.TIMED_OUT, 7_000_000_000)

    run(main())


async def test_a_write_that_goes_on_holds_up_what_touches_the_same() -> None:
    """A write that was given up, and goes on in its thread, is alone with what it touches until it is
    over, in later answers and turns too, and nothing of it is run ahead: the model is told, and other
    work goes on (S2-29, S2-35, S2-40)."""
    began: list[str] = []
    free = threading.Event()

    def save(to: str) -> str:
        began.append(f"save {to}")
        if len(began) == 1:
            free.wait(10)
        return "saved"

    def load(of: str) -> str:
        began.append(f"load {of}")
        return "loaded"

    async with a_runtime() as runtime:
        runtime.tool(effect="write", tags=("{to}",), timeout_s=0.2)(save)
        runtime.tool(effect="read", tags=("{of}",), ttl_s=60)(load)
        model = Said(
            asks("save", to="a"), asks("load", of="a"), asks("load", of="b"), asks("save", to="a"),
            BYE, asks("load", of="a"), BYE, asks("load", of="a"), BYE,
        )  # fmt: skip
        async with runtime.session(model=model) as session:
            turn = await session.send("go")
            statuses = [call.status.value for call in turn.tool_calls]
            assert statuses == ["timed_out", "rejected", "completed", "rejected"]
            assert "save was given up, and is still at work" in turn.tool_calls[1].result
            turn = await session.send("again")
            assert turn.tool_calls[0].status is ToolStatus.REJECTED
            tools: Any = session._means.tools
            assert tools.ahead(ToolUse("1", "load", '{"of": "a"}')) is None
            assert tools.ahead(ToolUse("2", "load", '{"of": "b"}')) is not None
            free.set()
            [(_, thread)] = tools._stuck
            for _ in range(1_000_000):
                if not thread.left_behind:
                    break
                await asyncio.sleep(0)
            turn = await session.send("and now?")
            assert turn.tool_calls[0].result == "loaded"
    assert began == ["save a", "load b", "load a"]


def test_a_write_that_may_have_happened_is_not_repeated() -> None:
    """A write that failed in its course is not tried again, however many attempts there are
    (S2-22)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            ran: list[int] = []

            async def pay() -> None:
                ran.append(1)
                raise AgentError("away", category=Category.UNAVAILABLE, may_have_started=True)

            runtime.tool(effect="write")(pay)
            model = Said(asks("pay"), BYE)
            async with runtime.session(model=model) as session:
                await session.send("go")
            assert ran == [1]
            assert "may have taken effect" in results(model)[0]

    run(main())


def test_tools_are_found_by_name() -> None:
    """A session gets the tools it names, by pattern too, each once; agents only where they are named;
    and a name that nothing has is an error with the nearest (S2-35)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            runtime.tool(effect="read")(look)
            runtime.tool(effect="read", name="look_up")(look)
            runtime.agent(name="ask")(echo)

            async def names(*tools: str | Callable[..., object]) -> list[str]:
                given: Any = {"tools": list(tools)} if tools else {}
                model = Said(BYE)
                async with runtime.session(model=model, **given) as session:
                    await session.send("go")
                return [tool.name for tool in model.requests[0].tools]

            assert await names() == ["look", "look_up"]
            assert sorted(await names("*")) == ["ask", "look", "look_up"]
            assert await names("look*", "look", "ask") == ["look", "look_up", "ask"]
            assert await names(wait) == ["wait"]
            with pytest.raises(UnknownAgentError) as caught:
                await names("loook")
            assert "look" in caught.value.message

    run(main())


async def look(item: str) -> str:
    return f"{item} is there"


async def wait() -> None:
    await asyncio.sleep(1_000)


async def echo(query: str) -> str:
    assert current_call.get() is not None
    return query


def test_nothing_is_imported_for_a_runtime_without_sessions() -> None:
    """A runtime in which no session is opened has none, and closes (S2-18)."""

    async def main() -> None:
        async with a_runtime() as runtime:
            assert runtime._parts._sessions is None

    run(main())


async def test_a_write_that_outlives_its_call_is_over_at_its_end() -> None:
    """A synchronous tool that writes and goes on in its thread after its time limit makes stale what
    others read meanwhile (S2-35, S2-40)."""
    go, world = threading.Event(), ["old"]
    async with a_runtime(run={"threads": 1}) as runtime:

        @runtime.tool(effect="write", tags=("world",), timeout_s=0.05)
        def change_it() -> None:
            assert go.wait(30)
            world[0] = "new"

        @runtime.tool(effect="read", tags=("world",), ttl_s=60)
        async def look_at() -> str:
            return world[0]

        writes = Said(asks("change_it"), BYE)
        reads = Said(asks("look_at"), BYE, asks("look_at"), BYE)
        async with runtime.session(model=writes) as one, runtime.session(model=reads) as other:
            turn = await one.send("go")
            assert turn.tool_calls[0].status is ToolStatus.TIMED_OUT
            turn = await other.send("what is it?")
            assert turn.tool_calls[0].result == "old"
            go.set()
            await runtime._parts.pool.run(lambda: None)  # the thread is free again
            turn = await other.send("and now?")
            assert turn.tool_calls[0].result == "new"
