"""LangGraph on the task: a graph of two nodes, and its ready-made agent."""

import asyncio
import importlib
from collections.abc import Mapping
from operator import add
from typing import Annotated, Any, Final, TypedDict

from bench.engine_task import DONE, PROMPT, TOOL, Opener, Run, Task, always, asked, named

__all__ = ["ENGINES", "IMPORTS"]

IMPORTS: Final = "langgraph.graph, langgraph.prebuilt, langchain_core.language_models"
_NAME: Final = "fake"


class _State(TypedDict):
    """Tool calls are lists of numbers, results pairs of a number and a text."""

    messages: Annotated[list[Any], add]


def plain(task: Task) -> Run:
    """A graph that a person writes: a node for the model, one for tools, and messages in the state."""
    graphs = importlib.import_module("langgraph.graph")
    tool = named(task.tool)

    async def model(state: _State) -> dict[str, list[Any]]:
        last = state["messages"][-1]
        numbers = asked(task, last[0] + 1 if isinstance(last, tuple) else 0)
        return {"messages": [list(numbers) or DONE]}

    async def tools(state: _State) -> dict[str, list[Any]]:
        numbers = state["messages"][-1]
        texts = await asyncio.gather(*map(tool, numbers))
        return {"messages": list(zip(numbers, texts, strict=True))}

    def after(state: _State) -> str:
        return str(graphs.END) if state["messages"][-1] == DONE else "tools"

    graph = graphs.StateGraph(_State)
    graph.add_node("model", model)
    graph.add_node("tools", tools)
    graph.add_edge(graphs.START, "model")
    graph.add_conditional_edges("model", after, ["tools", graphs.END])
    graph.add_edge("tools", "model")
    agent, config = graph.compile(), _config(task)

    async def run() -> object:
        state = await agent.ainvoke({"messages": [PROMPT]}, config)
        return state["messages"][-1]

    return run


def react(task: Task) -> Run:
    """`create_react_agent`, with a chat model that is asked nothing over the network."""
    models = importlib.import_module("langchain_core.language_models")
    messages = importlib.import_module("langchain_core.messages")
    outputs = importlib.import_module("langchain_core.outputs")
    base: Any = models.BaseChatModel

    class Script(base):  # type: ignore[misc]  # it is not installed where types are checked
        """Says what the task has a model say."""

        @property
        def _llm_type(self) -> str:
            return _NAME

        def bind_tools(self, tools: object, **_: object) -> Any:  # noqa: ARG002 (it knows them)
            return self

        def _generate(self, messages_: list[Any], *_: object, **__: object) -> Any:
            last = messages_[-1]
            numbers = asked(task, int(last.tool_call_id) + 1 if last.type == "tool" else 0)
            calls = [
                {"name": TOOL, "args": {"n": n}, "id": str(n), "type": "tool_call"} for n in numbers
            ]
            said = messages.AIMessage(content="" if calls else DONE, tool_calls=calls)
            return outputs.ChatResult(generations=[outputs.ChatGeneration(message=said)])

        async def _agenerate(self, messages_: list[Any], *_: object, **__: object) -> Any:
            return self._generate(messages_)

    make = importlib.import_module("langgraph.prebuilt").create_react_agent
    agent, config = make(Script(), [named(task.tool)]), _config(task)

    async def run() -> object:
        state = await agent.ainvoke({"messages": [("user", PROMPT)]}, config)
        return state["messages"][-1].content

    return run


def _config(task: Task) -> dict[str, Any]:
    return {"recursion_limit": 3 * task.steps + 10}


ENGINES: Final[Mapping[str, Opener]] = {
    "LangGraph, plain": always(plain),
    "LangGraph, create_react_agent": always(react),
}
