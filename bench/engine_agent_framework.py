"""Microsoft's Agent Framework on the task, its core alone and without observability."""

import importlib
from collections.abc import Mapping
from typing import Any, Final

from bench.engine_task import DONE, PROMPT, TOOL, Opener, Run, Task, always, arguments, asked, named

__all__ = ["ENGINES", "IMPORTS"]

IMPORTS: Final = "agent_framework"


def agent(task: Task) -> Run:
    """An agent with a chat client of its own, made of the layers that call tools."""
    framework = importlib.import_module("agent_framework")
    calling: Any = framework.FunctionInvocationLayer
    base: Any = framework.BaseChatClient
    content, message = framework.Content, framework.Message

    class Script(calling, base):  # type: ignore[misc]  # not installed where types are checked
        """Says what the task has a model say."""

        async def _inner_get_response(self, *, messages: Any, **_: object) -> Any:
            last = messages[-1].contents[-1]
            done = last.type == "function_result"
            numbers = asked(task, int(last.call_id) + 1 if done else 0)
            calls = [
                content.from_function_call(str(n), TOOL, arguments=arguments(n)) for n in numbers
            ]
            said = message(role="assistant", contents=calls or [DONE])
            return framework.ChatResponse(messages=[said], response_id="r")

    client = Script(function_invocation_configuration={"max_iterations": task.steps + 2})
    made = framework.Agent(client, tools=[framework.tool(named(task.tool))])

    async def run() -> object:
        return (await made.run(PROMPT)).text

    return run


ENGINES: Final[Mapping[str, Opener]] = {"Microsoft Agent Framework": always(agent)}
