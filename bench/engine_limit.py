"""The least that an agent's loop can be: asyncio alone, a TaskGroup with a timeout for each step."""

import asyncio
from typing import Final

from bench.engine_task import DONE, PROMPT, Run, Task, asked

__all__ = ["bare"]

_TIMEOUT_S: Final = 60


def bare(task: Task) -> Run:
    """No states, no events, no retries, nothing counted."""
    tool = task.tool

    async def model(messages: list[tuple[int, object]]) -> tuple[str, range]:
        uses = asked(task, messages[-1][0] + 1)
        return ("" if uses else DONE), uses

    async def run() -> object:
        messages: list[tuple[int, object]] = [(-1, PROMPT)]
        while True:
            text, uses = await model(messages)
            if not uses:
                return text
            messages.append((-1, uses))
            async with asyncio.timeout(_TIMEOUT_S), asyncio.TaskGroup() as group:
                running = [group.create_task(tool(n)) for n in uses]
            messages += [(n, each.result()) for n, each in zip(uses, running, strict=True)]

    return run
