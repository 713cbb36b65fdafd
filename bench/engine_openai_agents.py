"""The OpenAI Agents SDK on the task, without its tracing."""

import importlib
from collections.abc import Mapping
from typing import Any, Final

from bench.engine_task import DONE, PROMPT, TOOL, Opener, Run, Task, always, arguments, asked, named

__all__ = ["ENGINES", "IMPORTS"]

IMPORTS: Final = "agents"


def agent(task: Task) -> Run:
    """An agent with a model of its own and a function tool."""
    sdk = importlib.import_module("agents")
    types = importlib.import_module("openai.types.responses")
    sdk.set_tracing_disabled(True)
    base: Any = sdk.Model

    class Script(base):  # type: ignore[misc]  # it is not installed where types are checked
        """Says what the task has a model say."""

        async def get_response(self, **given: Any) -> Any:
            last = given["input"][-1]
            done = isinstance(last, dict) and last.get("type") == "function_call_output"
            numbers = asked(task, int(last["call_id"]) + 1 if done else 0)
            output = [
                types.ResponseFunctionToolCall(
                    arguments=arguments(n), call_id=str(n), name=TOOL, type="function_call"
                )
                for n in numbers
            ] or [_message()]
            return sdk.ModelResponse(output=output, usage=sdk.Usage(), response_id=None)

        def stream_response(self, *_: object, **__: object) -> Any:
            raise NotImplementedError

    def _message() -> Any:
        text = types.ResponseOutputText(text=DONE, type="output_text", annotations=[])
        return types.ResponseOutputMessage(
            id="m", content=[text], role="assistant", status="completed", type="message"
        )

    made = sdk.Agent(name="agent", model=Script(), tools=[sdk.function_tool(named(task.tool))])

    async def run() -> object:
        return (await sdk.Runner.run(made, PROMPT, max_turns=task.steps + 2)).final_output

    return run


ENGINES: Final[Mapping[str, Opener]] = {"OpenAI Agents SDK": always(agent)}
