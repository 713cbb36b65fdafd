"""What engines before ours did, and what stands here in its place."""

import asyncio
import itertools
import json
import os
import random
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from paceline import Effect, Runtime
from paceline.agents.threads import ThreadPool
from paceline.balance.gate import Gate
from paceline.call import Call, Caller, Kind, Plan, Scope, Source
from paceline.clock import SystemClock
from paceline.engine.machine import Machine, next_state
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.requests import ToolRequest
from paceline.engine.states import (
    AgentState,
    ExecutionPriority,
    ResourceLimits,
    ToolStatus,
    TransitionTrigger,
)
from paceline.errors import BudgetExceededError
from paceline.hostexec.effects import plan
from paceline.hostexec.sandbox.workspace import Workspace
from paceline.instances.openai import OpenAITarget
from paceline.sessions.killable import KillableTools
from paceline.settings import Settings
from paceline.tags import file_reads, file_writes
from paceline.testing.target_suite import a_call, a_lease
from paceline.testing.virtual_time import VirtualClock, run
from paceline.tools.function import function_tool
from tests import tool_functions
from tests.far_sides import a_model, served
from tests.security.policies import default
from tests.unit.engine import fakes
from tests.unit.engine.acting import Act, Acts, Says, Script, session, use
from tests.unit.engine.fakes import CONTEXT, FakeTool, pipeline_of
from tests.unit.sessions.quiet import BYE, Said, a_runtime, asks

_T = TransitionTrigger
HOUR_S: Final = 3_600
READ: Final = Effect.read("a")
CORE: Final = (
    "paceline.engine.session",
    "paceline.engine.pipeline",
    "paceline.engine.journal",
    "paceline.engine.loops",
    "paceline.engine.watchdog",
)
BROUGHT: Final = """
import importlib, json, sys
before = set(sys.modules)
for name in sys.argv[1:]:
    importlib.import_module(name)
tops = {name.partition(".")[0] for name in set(sys.modules) - before}
json.dump(sorted(tops - sys.stdlib_module_names), sys.stdout)
"""


def now() -> float:
    return asyncio.get_running_loop().time()


def request(name: str, number: int = 0, **fields: Any) -> ToolRequest:
    return ToolRequest(fakes.use(name, number), CONTEXT, **fields)


# -- what is used again, in place of pools of objects ---------------------------------------------


async def test_connections_are_used_again() -> None:
    """Strings and values are not pooled, as an allocation costs less than a pool does; connections
    to a server of models are: calls one after the other use the same one, as do probes
    (V-05, V-07)."""
    ports: list[int] = []

    async def handler(asked: web.Request) -> web.StreamResponse:
        assert asked.transport is not None
        ports.append(asked.transport.get_extra_info("peername")[1])
        if asked.method != "POST":
            return web.json_response({"data": []})
        return await a_model(asked)

    clock = SystemClock()
    async with served(handler) as side:
        side.aim(OpenAITarget(f"{side.url}/v1", "small", clock=clock), ())
        async with side.target:
            for _ in range(5):
                await side.target.execute(a_call("Hello"), a_lease(clock))
    assert len(ports) == 5
    assert len(set(ports)) == 1


@given(most=st.integers(1, 64), shares=st.lists(st.tuples(st.floats(0, 2), st.floats(0, 5))))
def test_what_tunes_itself_stays_within_what_was_asked_for(
    most: int, shares: list[tuple[float, float]]
) -> None:
    """There are no pools whose sizes tune themselves; how many tools run at once does. However memory
    was, that is between one and the limit configured, and the limit again once there is enough
    memory for long enough (V-06)."""
    clock = VirtualClock()
    limits = ResourceLimits(max_concurrent_tools=most)
    pipeline = ToolPipeline(fakes.FakeTools({}), clock=clock, limits=limits)
    for share, pause_s in shares:
        clock.advance(pause_s)
        assert 1 <= pipeline.observe_memory(share) <= most
    for _ in range(most):
        clock.advance(1)
        pipeline.observe_memory(0.5)
    assert pipeline.concurrency == most


async def test_threads_are_used_again() -> None:
    """Synchronous work gets a thread that is there, and however much comes at once, no more threads
    are started than were configured (V-05, V-07)."""
    pool = ThreadPool(Gate("the threads", 3, 1_000))
    try:
        one_by_one = {await pool.run(threading.current_thread) for _ in range(20)}
        at_once = set(
            await asyncio.gather(*(pool.run(threading.current_thread) for _ in range(60)))
        )
    finally:
        pool.close()
    assert len(one_by_one) == 1
    assert len(one_by_one | at_once) <= 3


async def test_worker_processes_are_used_again() -> None:
    """A tool that runs in a process of its own has one that is kept: the second call is not preceded
    by the start of a Python (V-07)."""
    spec = function_tool(tool_functions.pid, killable=True)
    caller = Caller("ada", "s-1", None)
    call = Call("c-1", Kind.TOOL, "pid", {}, caller, Scope.of(caller, None), Plan())
    there = KillableTools(clock=SystemClock(), rng=random.Random(1), environ=os.environ)
    async with there:
        pids = {await there.run(spec, call) for _ in range(3)}
        assert pids == set(there.processes)
    assert len(pids) == 1
    assert os.getpid() not in pids


def test_nothing_is_compiled_for_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoders, decoders, regular expressions and the schemas of tools are made once: a turn that calls
    a tool makes none, and tells the model of the same definitions as the one before (V-07)."""

    def look(item: str) -> str:
        """What is there."""
        return f"{item} is there"

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("made anew for a turn")

    async def main() -> None:
        async with a_runtime() as runtime:
            runtime.tool(effect="read", ttl_s=60)(look)
            model = Said(asks("look", item="a"), BYE, asks("look", item="b"), BYE)
            async with runtime.session(model=model, tools=["look"], user="ada") as one:
                await one.send("first")
                with monkeypatch.context() as patch:
                    for module, name in (
                        (msgspec.json, "Decoder"), (msgspec.json, "Encoder"),
                        (msgspec.msgpack, "Decoder"), (msgspec.msgpack, "Encoder"),
                        (re, "compile"), (msgspec.json, "schema"),
                    ):  # fmt: skip
                        patch.setattr(module, name, refuse)
                    turn = await one.send("second")
            (call,) = turn.tool_calls
            assert call.result == "b is there"
            first, *others = [asked.tools for asked in model.requests]
            assert first
            assert all(tools is first for tools in others)

    run(main())


# -- no batches ------------------------------------------------------------------------------------


def test_nobody_waits_for_a_batch_to_be_over() -> None:
    """There is no batch that has to end before the next begins: a place that becomes free is taken at
    once, by the most urgent and then by the first that came, while a slow call goes on (V-09)."""

    async def main() -> None:
        tools = {"slow": FakeTool(READ, 60), "quick": FakeTool(READ, 1)}
        pipeline, seen = pipeline_of(2, **tools)
        slow = pipeline.submit(request("slow"))
        quick = [pipeline.submit(request("quick", number)) for number in range(3)]
        await asyncio.sleep(0)
        urgent = pipeline.submit(request("quick", 9, priority=ExecutionPriority.CRITICAL))
        ended = []
        for handle in (quick[0], urgent, *quick[1:]):
            await handle
            ended.append(now())
        assert ended == [1, 2, 3, 4]
        assert seen.began == ["slow-0", "quick-0", "quick-9", "quick-1", "quick-2"]
        assert slow.state.status is ToolStatus.RUNNING
        assert (await slow).status is ToolStatus.COMPLETED
        assert now() == 60

    run(main())


@pytest.mark.parametrize("count", [1, 2, 4])
def test_a_call_is_not_held_back_for_company(count: int) -> None:
    """Batching is off where it was before us, and does not exist here: a request that finds a place
    begins at once, alone or not, and nothing is added to what its tool takes (V-11)."""

    async def main() -> None:
        began: list[float] = []
        tool = FakeTool(READ, 1, inside=lambda _: began.append(now()))
        pipeline, _ = pipeline_of(4, read=tool)
        await asyncio.sleep(10)
        handles = [pipeline.submit(request("read", number)) for number in range(count)]
        for handle in handles:
            await handle
        assert began == [10] * count
        assert now() == 11

    run(main())


@pytest.mark.parametrize(("effect", "seconds"), [(Effect.write("a"), 5), (READ, 4)])
def test_a_turn_takes_what_its_model_and_tools_take(effect: Effect, seconds: float) -> None:
    """No delay is added between the steps of a turn: with a model that takes two seconds an answer and
    a tool that takes one it is over in five, or four, as a read need not wait for the end of the
    answer that asks for it (V-11)."""

    async def main() -> None:
        script = Script(Says("", (use("read"),), after_s=2), Says("done", after_s=2))
        async with session(script, Acts(read=Act(effect, takes_s=1))) as one:
            turn = await one.send("go")
        assert (turn.agent_response, now()) == ("done", seconds)

    run(main())


# -- idle, and defaults ----------------------------------------------------------------------------


def test_an_idle_hour_wakes_nobody() -> None:
    """There is no idle back-off to set, no monitor that looks every 100 ms: in an hour without a turn
    the event loop goes round for the hour's end alone, and a message is heard when it comes
    (V-15)."""

    async def main() -> None:
        loop: Any = asyncio.get_running_loop()
        rounds = 0
        once = loop._run_once

        def counted() -> None:
            nonlocal rounds
            rounds += 1
            once()

        script = Script(Says("", (use("read"),)), Says("done"), Says("there"))
        async with session(script, Acts(read=Act(takes_s=1))) as one:
            await one.send("go")
            for _ in range(20):
                await asyncio.sleep(0)
            over = loop.create_future()
            loop.call_later(HOUR_S, over.set_result, None)
            loop._run_once = counted
            await over
            del loop._run_once
            assert rounds <= 3
            heard = now()
            assert (await one.send("still there?")).agent_response == "there"
            assert now() == heard == HOUR_S + 1

    run(main())


def test_a_turn_may_take_five_minutes_and_a_gigabyte() -> None:
    """What is not configured is as it was: a turn has 300 s, then it ends however its model hangs; the
    process may take 1024 MiB before fewer tools run at once (V-15)."""
    limits, chat = ResourceLimits(), Settings().chat
    assert (limits.max_execution_s, limits.max_memory_mb) == (300, 1024)
    assert (chat.max_execution_s, chat.max_memory_mb) == (300, 1024)

    async def main() -> None:
        async with session(Script(Says("late", after_s=HOUR_S))) as one:
            with pytest.raises(BudgetExceededError) as caught:
                await one.send("go")
        assert (caught.value.budget, now()) == ("max_execution_s", 300)

    run(main())


def test_the_latest_moves_are_remembered() -> None:
    """Of what a session did its latest thousand moves stay, however many there were (V-15)."""
    machine = Machine(clock=VirtualClock())
    moves = ((AgentState.IDLE, _T.USER_INPUT), (AgentState.PROCESSING_PROMPT, _T.RESPONSE_READY))
    for turn in range(1_000):
        for state, trigger in moves:
            machine.move(state, trigger, turn_id=str(turn))
    assert len(machine.history) == 1_000
    assert [machine.history[at].turn_id for at in (0, -1)] == ["500", "999"]


def test_four_tools_run_at_once_unless_said_otherwise() -> None:
    """Of ten calls at a time four run, in a session as in a pipeline of one's own (V-16)."""
    assert Settings().chat.max_concurrent_tools == ResourceLimits().max_concurrent_tools == 4

    async def main() -> None:
        tools = fakes.FakeTools({"read": FakeTool(READ, 1)})
        pipeline = ToolPipeline(tools, clock=VirtualClock())
        for handle in [pipeline.submit(request("read", number)) for number in range(10)]:
            await handle
        assert (tools.most, now()) == (4, 3)

    run(main())


@pytest.mark.parametrize(
    ("own", "asked", "ended"), [(None, None, 300), (180, None, 180), (180, 7, 7)]
)
def test_every_tool_has_a_time_limit(own: float | None, asked: float | None, ended: float) -> None:
    """A tool that hangs is stopped: at its own limit, at that of its request, and in any case when a
    turn would be over, in place of 180 s for all (V-16)."""

    async def main() -> None:
        pipeline, tools = pipeline_of(hangs=FakeTool(READ, HOUR_S, timeout_s=own))
        call = await pipeline.submit(request("hangs", timeout_s=asked))
        assert (call.status, now()) == (ToolStatus.TIMED_OUT, ended)
        assert not tools.running

    run(main())


# -- what is kept for how long ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "ttl_s"),
    [
        ("ls", 0), ("rg x", 0), ("git status", 0), ("git diff --stat", 0), ("cat README.md", 0),
        ("df -h", 60), ("ps aux", 60), ("uname -a", 3_600), ("nproc", 3_600),
    ],
)  # fmt: skip
def test_commands_are_kept_by_how_soon_they_change(line: str, ttl_s: float) -> None:
    """Not two seconds for a list of commands: what tells of files, `ls` and `git status` too, is never
    kept, as anybody may write them meanwhile; disks and processes are for a minute, and what only
    changes with the machine for an hour (V-17)."""
    policy, space = default(), Workspace(Path("/usr"))
    treated = plan(policy.decide_line(line), space, resolve=str)
    assert (treated.ttl_s, treated.cacheable) == (ttl_s, ttl_s > 0)


def test_what_was_read_of_a_file_is_kept_until_it_is_written(tmp_path: Path) -> None:
    """A tool's result of a file is kept as long as it says, and no longer than until a call writes that
    file; a write to its neighbour, whose name begins alike, does nothing to it (V-17)."""
    file, neighbour = tmp_path / "a", tmp_path / "ab"

    async def main() -> None:
        async with Runtime(agents=[], persist=False, environ={}) as runtime:

            @runtime.agent(effect=Effect.read(*file_reads(file)), cache_ttl=300)
            async def show(query: str) -> str:
                return query

            @runtime.agent(effect=Effect.write(*file_writes(file)))
            async def change(query: str) -> None: ...

            @runtime.agent(effect=Effect.write(*file_writes(neighbour)))
            async def change_another(query: str) -> None: ...

            async def source() -> Source:
                return (await runtime.run("show", "it", user="ada")).source

            sources = [await source(), await source()]
            await runtime.run("change_another", "it")
            sources.append(await source())
            await runtime.run("change", "it")
            sources.append(await source())
            assert sources == ["executed", "hot", "hot", "executed"]

    asyncio.run(main())


# -- what the header says --------------------------------------------------------------------------


def test_a_turn_is_a_walk_through_one_table() -> None:
    """A session is the state machine that was announced: whatever a turn does, each of its moves is in
    the table, follows on the one before, and ends where it began; what is known ahead is part of
    what can be seen of it (S2-01)."""

    async def main() -> None:
        acts = Acts(read=Act(takes_s=1), ask=Act(question="which?"), buy=Act(approval=True))
        asked = [Says("", (use(name),)) for name in ("read", "ask", "buy")]
        async with session(Script(*asked, Says("done")), acts) as one:
            turn = asyncio.ensure_future(one.send("go"))
            await asyncio.sleep(2)
            one.answer("the blue one")
            await asyncio.sleep(1)
            assert one.pending is not None
            one.approve(one.pending.call_id)
            assert (await turn).agent_response == "done"
            moves = list(one.machine.history)
            assert one.context.performance_hints is one.hints
        assert moves[0].from_state is moves[-1].to_state is AgentState.IDLE
        for before, after in itertools.pairwise(moves):
            assert before.to_state is after.from_state
        for move in moves:
            assert next_state(move.from_state, move.trigger) is move.to_state
        states = {move.to_state for move in moves}
        assert {AgentState.WAITING_FOR_USER, AgentState.AWAITING_APPROVAL} <= states

    run(main())


def test_the_core_of_the_engine_needs_no_third_party() -> None:
    """Sessions, tools in parallel, journal and watchdog run on asyncio and logging; beside ourselves
    they bring msgspec along, for structured values, with what that brings itself, and nothing else
    (S2-02)."""

    def brought(*modules: str) -> set[str]:
        command = [sys.executable, "-c", BROUGHT, *modules]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return set(json.loads(done.stdout))

    assert brought(*CORE) == {"paceline"} | brought("msgspec")
