"""A runtime whose agent `far` is done by instances, in virtual time, and what they do there."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Literal, Self

from paceline import AgentInstance, Call, Outcome, Runtime
from paceline.balance.lease import Lease
from paceline.config import load
from paceline.errors import AgentError, Category
from paceline.testing.virtual_time import VirtualClock
from paceline.testing.virtual_time import run as run_virtual

__all__ = ["DOWN", "QUIET", "Far", "Steps", "far_runtime", "in_runtime", "many"]

QUIET: dict[str, dict[str, Any]] = {
    "agents": {"watch": False},
    "hostexec": {"mode": "off"},
    "alerts": {"enabled": False},
}
DOWN = AgentError("connection refused", category=Category.NETWORK)


class Far:
    """What does the work of an instance: takes its time, and fails while it is told to."""

    def __init__(self, name: str, takes_s: float = 0.0, error: Exception | None = None) -> None:
        self.name = name
        self.takes_s = takes_s
        self.error = error
        self.calls: list[Call] = []
        self.cancelled = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def probe(self) -> None:
        pass

    async def execute(self, call: Call, lease: Lease) -> object:
        assert lease.instance.id == self.name
        self.calls.append(call)
        try:
            await asyncio.sleep(self.takes_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error
        return f"{self.name} of {call.arguments['query']}"


Steps = Callable[[Runtime], Awaitable[None]]


@contextlib.asynccontextmanager
async def far_runtime(
    *far: Far,
    fleet: dict[str, Any] | None = None,
    capacity: int = 10,
    effect: Literal["read", "write"] = "read",
    others: tuple[str, ...] = (),
    **settings: dict[str, Any],
) -> AsyncIterator[Runtime]:
    """An open runtime with an agent `far` that is done by the instances given, and `others`."""
    options: dict[str, Any] = {**QUIET, **settings, "fleets": {"far": fleet or {}}}
    runtime = Runtime(
        load(overrides=options),
        agents=[],
        persist=False,
        environ={},
        clock=VirtualClock(),
        rng=random.Random(7),
    )
    async with runtime:

        @runtime.agent("far", effect=effect, cache_ttl=60)
        async def _(query: str) -> str:
            return f"the module of {query}"

        for name in others:

            @runtime.agent(name, effect="pure")
            async def _(query: str, name: str = name) -> str:
                return f"{name} of {query}"

        for one in far:
            await runtime.add_instance(
                AgentInstance(one.name, "far", max_capacity=capacity, target=one)
            )
        yield runtime


def in_runtime(steps: Steps, *far: Far, **options: Any) -> None:
    """Runs `steps` in such a runtime; for the options see `far_runtime`."""

    async def main() -> None:
        async with far_runtime(*far, **options) as runtime:
            await steps(runtime)

    run_virtual(main())


async def many(runtime: Runtime, count: int, **options: Any) -> list[Outcome]:
    """So many different calls at once."""
    return await asyncio.gather(
        *[runtime.run("far", f"q{number}", **options) for number in range(count)]
    )
