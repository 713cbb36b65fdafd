"""Pydantic AI on the task."""

import importlib
from collections.abc import Mapping
from typing import Any, Final

from bench.engine_task import DONE, PROMPT, TOOL, Opener, Run, Task, always, asked, named

__all__ = ["ENGINES", "IMPORTS"]

IMPORTS: Final = "pydantic_ai, pydantic_ai.models.function"


def agent(task: Task) -> Run:
    """An agent with its own model for tests, a function, and a plain tool."""
    ai = importlib.import_module("pydantic_ai")
    said = importlib.import_module("pydantic_ai.messages")
    function_model = importlib.import_module("pydantic_ai.models.function").FunctionModel

    async def model(messages: list[Any], _: object) -> Any:
        last = messages[-1].parts[-1]
        numbers = asked(task, int(last.tool_call_id) + 1 if last.part_kind == "tool-return" else 0)
        parts = [said.ToolCallPart(TOOL, {"n": n}, tool_call_id=str(n)) for n in numbers]
        return said.ModelResponse(parts=parts or [said.TextPart(DONE)])

    made = ai.Agent(function_model(model))
    made.tool_plain(named(task.tool))
    limits = ai.UsageLimits(request_limit=None)

    async def run() -> object:
        return (await made.run(PROMPT, usage_limits=limits)).output

    return run


ENGINES: Final[Mapping[str, Opener]] = {"Pydantic AI": always(agent)}
