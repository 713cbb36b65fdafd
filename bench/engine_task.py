"""The task that every engine is given: a model that says what it was told to, and tools to run.

The model never waits, and asks for so many tools in each of so many answers; then it says that it is
done. What an engine takes for it is its own.
"""

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple

__all__ = [
    "DONE",
    "PROMPT",
    "TOOL",
    "Make",
    "Opener",
    "Run",
    "Task",
    "Tool",
    "always",
    "arguments",
    "asked",
    "named",
    "nothing",
]

PROMPT: Final = "go"
TOOL: Final = "step"
DONE: Final = "done"

Tool = Callable[[int], Coroutine[Any, Any, str]]
"""What the model asks for, by a number: the tool of all engines has one parameter, `n`."""


class Task(NamedTuple):
    """So many answers that ask for tools, and how many tools each asks for. `together`, if the
    engine is told that they may run beside each other."""

    steps: int
    at_once: int
    tool: Tool
    together: bool = False


Run = Callable[[], Awaitable[object]]
"""One whole run of a task, in a conversation of its own."""

Make = Callable[[Task], Run]
"""What is set up once for a task, however often it is run."""

Opener = Callable[[], AbstractAsyncContextManager[Make]]
"""What is set up once for all tasks."""


async def nothing(n: int) -> str:  # noqa: ARG001 (the parameter of all tools)
    """A trivial tool."""
    return "ok"


def asked(task: Task, answered: int) -> range:
    """The numbers of the tools that the model asks for when so many have been answered; none when
    it is done."""
    most = task.steps * task.at_once
    return range(answered, min(answered + task.at_once, most))


def arguments(n: int) -> str:
    """Of one tool call, as a model writes them."""
    return f'{{"n": {n}}}'


def named(tool: Tool) -> Tool:
    """As a function such as people write them, with the name and the description that the model
    knows it by."""

    async def step(n: int) -> str:
        """Takes a step."""
        return await tool(n)

    return step


def always(make: Make) -> Opener:
    """Of an engine that needs nothing to be opened."""

    @contextlib.asynccontextmanager
    async def opened() -> AsyncGenerator[Make]:
        yield make

    return opened
