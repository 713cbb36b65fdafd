"""Agno on the task, without its telemetry."""

import importlib
from collections.abc import Mapping
from typing import Any, Final

from bench.engine_task import DONE, PROMPT, TOOL, Opener, Run, Task, always, arguments, asked, named

__all__ = ["ENGINES", "IMPORTS"]

IMPORTS: Final = "agno.agent, agno.models.base"


def agent(task: Task) -> Run:
    """An agent with a model of its own and a function as a tool."""
    agents = importlib.import_module("agno.agent")
    response = importlib.import_module("agno.models.response").ModelResponse
    base: Any = importlib.import_module("agno.models.base").Model

    class Script(base):  # type: ignore[misc]  # it is not installed where types are checked
        """Says what the task has a model say."""

        async def ainvoke(self, messages: list[Any], *_: object, **__: object) -> Any:
            last = messages[-1]
            numbers = asked(task, int(last.tool_call_id) + 1 if last.role == "tool" else 0)
            calls = [
                {
                    "id": str(n),
                    "type": "function",
                    "function": {"name": TOOL, "arguments": arguments(n)},
                }
                for n in numbers
            ]
            return response(role="assistant", content=None if calls else DONE, tool_calls=calls)

        def invoke(self, *_: object, **__: object) -> Any:
            raise NotImplementedError

        def invoke_stream(self, *_: object, **__: object) -> Any:
            raise NotImplementedError

        def ainvoke_stream(self, *_: object, **__: object) -> Any:
            raise NotImplementedError

        def _parse_provider_response(self, response: Any, **_: object) -> Any:
            raise NotImplementedError

        def _parse_provider_response_delta(self, response: Any) -> Any:
            raise NotImplementedError

    made = agents.Agent(model=Script(id="script"), tools=[named(task.tool)], telemetry=False)

    async def run() -> object:
        return (await made.arun(PROMPT)).content

    return run


ENGINES: Final[Mapping[str, Opener]] = {"Agno": always(agent)}
