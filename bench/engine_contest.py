"""One engine on the task, each figure beside that of asyncio alone right before it.

Run in an environment that has the engine, by `bench.engine`: `python -m bench.engine_contest agno
few`. It takes a process of its own, so that what one engine leaves behind is no cost of another.
"""

import asyncio
import gc
import importlib
import sys
import tracemalloc
from collections.abc import Awaitable, Callable, Mapping
from time import perf_counter_ns, process_time_ns
from typing import Final

import msgspec

from bench.engine_limit import bare
from bench.engine_task import DONE, Make, Opener, Run, Task, nothing
from bench.timing import LIMIT, Case, Timed, measure

__all__ = ["EFFORTS", "Effort", "Figures", "checked", "contest", "main"]

_FAN: Final = 8
_WAIT_S: Final = 0.05
_LIMIT: Final = f"{LIMIT}asyncio"
_SHORT: Final = 10
_LONG: Final = 200


_STARTED: Final = 1_000
_PATIENCE_S: Final = 60


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How often what is measured: rounds, in each so many short runs and long ones; how often tools
    run at once; how often so many runs are started at once, told as for 1,000; and how many runs the
    memory is taken of."""

    rounds: int
    short: int
    long: int
    fans: int
    starts: int
    started: int
    traced: int


EFFORTS: Final = {
    "many": Effort(rounds=15, short=20, long=2, fans=15, starts=5, started=1_000, traced=1_000),
    "some": Effort(rounds=2, short=4, long=1, fans=5, starts=2, started=100, traced=50),
    "few": Effort(rounds=1, short=2, long=1, fans=2, starts=1, started=1_000, traced=100),
}


class Figures(msgspec.Struct):
    """What an engine takes, beside asyncio alone: CPU of a step in runs of 10 and of 200; wall time
    of 8 tools that wait 50 ms, over the 50; CPU until 1,000 runs wait in a tool, which is all that
    it takes there; bytes of a run that waits, and of asyncio's."""

    short: Timed
    long: Timed
    fan: Timed
    start: Timed
    traced: float
    traced_limit: float

    @property
    def growth(self) -> Timed:
        """A step in a run of 200 beside one in a run of 10, in the same round."""
        return Timed(self.long.ns, self.short.ns)


def contest(opener: Opener, effort: Effort) -> Figures:
    """The figures of one engine. Raises RuntimeError for one that does not do the task."""
    with asyncio.Runner() as runner:
        loop, opened = runner.get_loop(), opener()
        make = runner.run(opened.__aenter__())
        gc.freeze()  # so that what was loaded is not looked through in every round
        try:
            return _figures(loop, make, effort)
        finally:
            gc.unfreeze()
            runner.run(opened.__aexit__(None, None, None))


def _figures(loop: asyncio.AbstractEventLoop, make: Make, effort: Effort) -> Figures:
    one, many = Task(_SHORT, 1, nothing), Task(_LONG, 1, nothing)
    limit = _case(loop, _LIMIT, bare(one), effort.short, _SHORT)
    short = _case(loop, "short", make(one), effort.short, _SHORT)
    long = _case(loop, "long", make(many), effort.long, _LONG)
    cpu = measure([limit, short, long], effort.rounds, clock=process_time_ns)
    fan = Task(1, _FAN, _wait, together=True)
    traced, traced_limit = (
        loop.run_until_complete(_traced(each, effort.traced)) for each in (make, bare)
    )
    return Figures(
        short=cpu["short"],
        long=cpu["long"],
        fan=_beside(loop, _over(bare(fan)), _over(make(fan)), effort.fans),
        start=_beside(
            loop, _started(bare, effort.started), _started(make, effort.started), effort.starts
        ),
        traced=traced,
        traced_limit=traced_limit,
    )


def _case(loop: asyncio.AbstractEventLoop, name: str, run: Run, runs: int, steps: int) -> Case:
    """So many runs, of which each step is an operation."""

    async def turn() -> None:
        for _ in range(runs):
            await checked(run)

    return name, lambda: loop.run_until_complete(turn()), runs * steps


async def checked(run: Run) -> None:
    """A run. Raises RuntimeError if it does not end as the task does."""
    said = await run()
    if said != DONE:
        raise RuntimeError(f"the run ended with {said!r:.100}")


_Took = Callable[[], Awaitable[float]]
"""Does something, and says how many nanoseconds that took."""


def _beside(loop: asyncio.AbstractEventLoop, limit: _Took, ours: _Took, rounds: int) -> Timed:
    """Both in each round."""

    async def pair() -> tuple[float, float]:
        least = await limit()
        return await ours(), least

    pairs: list[tuple[float, float]] = []
    for _ in range(rounds):
        gc.collect()
        pairs.append(loop.run_until_complete(pair()))
    return Timed.of(pairs)


async def _wait(n: int) -> str:
    await asyncio.sleep(_WAIT_S)
    return str(n)


def _over(run: Run) -> _Took:
    """What a run takes besides the wait of its tools."""

    async def timed() -> float:
        began_ns = perf_counter_ns()
        await checked(run)
        return perf_counter_ns() - began_ns - _WAIT_S * 1e9

    return timed


# --- many runs


class _Door:
    """A tool in which runs wait until all of them are there, and the door is opened."""

    def __init__(self, runs: int) -> None:
        self._missing = runs
        self._full, self._open = asyncio.Event(), asyncio.Event()

    async def tool(self, n: int) -> str:
        """Waits."""
        self._missing -= 1
        if not self._missing:
            self._full.set()
        await self._open.wait()
        return str(n)

    async def full(self) -> None:
        """Returns when all are there."""
        await asyncio.wait_for(self._full.wait(), _PATIENCE_S)

    def open(self) -> None:
        """Lets them go on."""
        self._open.set()


class _Doorway:
    """The tool of runs that are set up once: whatever door there is."""

    def __init__(self) -> None:
        self.door = _Door(0)

    async def tool(self, n: int) -> str:
        """Waits at it."""
        return await self.door.tool(n)


def _started(make: Make, runs: int = _STARTED) -> _Took:
    """From the first of so many runs until all wait in a tool, as if they had been 1,000."""
    doorway = _Doorway()
    run = make(Task(1, 1, doorway.tool))

    async def timed() -> float:
        door = doorway.door = _Door(runs)
        began_ns = process_time_ns()
        started = [asyncio.ensure_future(checked(run)) for _ in range(runs)]
        await door.full()
        took_ns = process_time_ns() - began_ns
        door.open()
        await asyncio.gather(*started)
        return took_ns * (_STARTED / runs)

    return timed


async def _traced(make: Make, runs: int) -> float:
    """Bytes that Python has for one of so many runs which wait in a tool."""
    doorway = _Doorway()
    run = make(Task(1, 1, doorway.tool))
    doorway.door = _Door(1)
    doorway.door.open()
    await checked(run)  # what is made once is made
    door = doorway.door = _Door(runs)
    gc.collect()
    tracemalloc.start()
    try:
        waiting = [asyncio.ensure_future(checked(run)) for _ in range(runs)]
        await door.full()
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    door.open()
    await asyncio.gather(*waiting)
    return size / runs


def main(arguments: list[str]) -> None:
    """Prints the figures of the engines of a module, by name."""
    module, effort = arguments
    engines: Mapping[str, Opener] = importlib.import_module(f"bench.{module}").ENGINES
    figures = {name: contest(opener, EFFORTS[effort]) for name, opener in engines.items()}
    print(msgspec.json.encode(figures).decode())


if __name__ == "__main__":
    main(sys.argv[1:])
