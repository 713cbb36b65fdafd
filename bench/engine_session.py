"""What sessions promise besides: steps that outlast the process, tools that start while the answer
still comes in, and no work while nothing happens."""

import asyncio
import contextlib
import gc
import selectors
import sqlite3
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns, process_time_ns
from typing import Final, final

import msgspec

from bench.engine_contest import checked
from bench.engine_paceline import ScriptModel, open_runtime, quiet_runtime
from bench.engine_task import DONE, PROMPT, TOOL, Task, arguments, named, nothing
from bench.timing import Timed
from paceline import Runtime
from paceline.call import Effect
from paceline.engine.session import Session
from paceline.instances.completion import Completion
from paceline.messages import Hear, ModelReply, ModelRequest, UsePart
from paceline.tools.function import function_tool

__all__ = ["Eager", "Idle", "durable", "eager", "idle"]

_STEPS: Final = 50
_OPEN: Final = 100
_IDLE_S: Final = 2.0
_OWN_WAKES: Final = 2
"""Of the sleep that is measured in: its timer, and the task that it wakes."""


# --- durable


def durable(rounds: int) -> Timed:
    """Wall time of a step in a run that is kept on disk, beside one commit of bare SQLite as it is
    set up there. A step is an answer, and a tool that may not run twice; the last entries of a run are
    waited for too, as a turn does not end before they are there."""
    with tempfile.TemporaryDirectory() as home, asyncio.Runner() as runner:
        path = Path(home)
        return runner.run(_durable(path, rounds))


async def _durable(home: Path, rounds: int) -> Timed:
    pairs: list[tuple[float, float]] = []
    bare = home / "bare.db"
    async with open_runtime(str(home / "state"))() as make:
        run = make(Task(_STEPS, 1, nothing))
        await checked(run)
        with contextlib.closing(sqlite3.connect(bare, isolation_level=None)) as db:
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=NORMAL")
            db.execute("CREATE TABLE entries (seq INTEGER PRIMARY KEY, entry BLOB)")
            for _ in range(rounds):
                began_ns = perf_counter_ns()
                for _ in range(_STEPS):
                    db.execute("INSERT INTO entries (entry) VALUES (?)", (bytes(200),))
                between_ns = perf_counter_ns()
                await checked(run)
                ended_ns = perf_counter_ns()
                pairs.append(((ended_ns - between_ns) / _STEPS, (between_ns - began_ns) / _STEPS))
    return Timed.of(pairs)


# --- eager


@final
class _Streaming:
    """A model whose answer goes on after its tool use is complete, until the tool has begun."""

    name = "streaming"

    def __init__(self) -> None:
        self.closed_ns: list[int] = []
        self.begun_ns: list[int] = []
        self._began = asyncio.Event()

    async def tool(self, n: int) -> str:
        """Notes when it starts."""
        self.begun_ns.append(perf_counter_ns())
        self._began.set()
        return str(n)

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """Reads the chunks in which a server writes them; notes when the last one of the arguments
        is there."""
        answered = len(request.messages) - 1
        if answered:
            return ModelReply(DONE)
        self._began.clear()
        use, completion = None, Completion()
        written = arguments(len(self.closed_ns))
        for last, piece in ((False, written[:-1]), (True, written[-1:])):
            chunk = _chunk(piece)
            if last:
                self.closed_ns.append(perf_counter_ns())
            for part in completion.add(chunk):
                hear(part)
                if isinstance(part, UsePart):
                    use = part.use
        await self._began.wait()
        if use is None:
            raise RuntimeError("the tool use was not told")
        return ModelReply(uses=(use,))


def _chunk(piece: str) -> bytes:
    function = {"name": TOOL, "arguments": piece}
    call = {"index": 0, "id": "1", "function": function}
    return msgspec.json.encode({"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]})


class Eager(msgspec.Struct):
    """Wall time from the chunk that closes a tool's arguments until the tool runs, while the answer
    goes on: the median, and what one in twenty takes longer than."""

    times: int
    median_ns: float
    p95_ns: float


def eager(times: int) -> Eager:
    """See `Eager`; of so many."""
    took_ns = asyncio.run(_eager(times))
    return Eager(times, statistics.median(took_ns), statistics.quantiles(took_ns, n=20)[-1])


async def _eager(times: int) -> list[int]:
    model = _Streaming()
    tool = function_tool(named(model.tool), effect=Effect.pure(), ttl_s=0)
    async with quiet_runtime() as runtime:
        for _ in range(times + 1):
            async with runtime.session(model=model, tools=[tool]) as session:
                await session.send(PROMPT)
    both = zip(model.closed_ns, model.begun_ns, strict=True)
    return [begun - closed for closed, begun in both][1:]


# --- idle


class Idle(msgspec.Struct):
    """Of 100 sessions that are open, and have answered: how often the loop woke in 2 s, and the CPU
    time of that. `empty` is what the runtime does by itself then."""

    wakes: int
    cpu_ns: int
    empty_wakes: int
    empty_cpu_ns: int


@final
class _Counting(selectors.DefaultSelector):
    """Counts how often the loop was woken."""

    woken = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(timeout)
        self.woken += 1
        return found


def idle() -> Idle:
    """With 100 sessions and with none."""
    (empty_wakes, empty_cpu_ns), (wakes, cpu_ns) = (_idle(sessions) for sessions in (0, _OPEN))
    return Idle(wakes, cpu_ns, empty_wakes, empty_cpu_ns)


def _idle(sessions: int) -> tuple[int, int]:
    selector = _Counting()
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:
        return runner.run(_waiting(sessions, lambda: selector.woken))


async def _waiting(sessions: int, woken: Callable[[], int]) -> tuple[int, int]:
    task = Task(1, 1, nothing)
    async with quiet_runtime() as runtime, contextlib.AsyncExitStack() as stack:
        for _ in range(sessions):
            await (await _opened(stack, runtime, task)).send(PROMPT)
        gc.collect()
        await asyncio.sleep(0.1)  # what follows the turns is over
        wakes, cpu_ns = woken(), process_time_ns()
        await asyncio.sleep(_IDLE_S)
        return woken() - wakes - _OWN_WAKES, process_time_ns() - cpu_ns


async def _opened(stack: contextlib.AsyncExitStack, runtime: Runtime, task: Task) -> Session:
    tool = function_tool(named(task.tool))
    session = runtime.session(model=ScriptModel(task), tools=[tool])
    return await stack.enter_async_context(session)
