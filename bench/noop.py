"""The least that a coroutine costs: what costs of ours and of peers are measured beside."""

from collections.abc import Coroutine
from typing import Any, Final

from bench.timing import LIMIT, Case

__all__ = ["AWAIT", "await_case"]

AWAIT: Final = f"{LIMIT}await of a no-op"


def await_case(turn: int) -> Case:
    """So many of them in a turn."""

    async def noop() -> None: ...

    async def work() -> None:
        for _ in range(turn):
            await noop()

    return AWAIT, lambda: _drive(work()), turn


def _drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs what never waits, without an event loop."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("a no-op waited")
