"""What the embedded model says: results as they are, or that it has nothing for a question. Pure."""

from collections.abc import Sequence
from typing import Final

from paceline.messages import AssistantMessage, Message, ToolDefinition, ToolMessage, UserMessage

__all__ = ["asked", "nothing", "shown"]

_REAL: Final = "For answers in words, give a real model in the settings."
_MOST_NAMED: Final = 10


def asked(messages: Sequence[Message]) -> tuple[str, tuple[ToolMessage, ...]]:
    """What the user asked last, and the results that have come since."""
    question = ""
    results: list[ToolMessage] = []
    for message in messages:
        if isinstance(message, UserMessage):
            question = message.text.encode(errors="replace").decode()  # lone surrogates
            results.clear()
        elif isinstance(message, ToolMessage):
            results.append(message)
    return question, tuple(results)


def shown(messages: Sequence[Message], results: Sequence[ToolMessage]) -> str:
    """Results as they are, each below the tool and the arguments it was called with."""
    uses = {
        use.id: use
        for message in messages
        if isinstance(message, AssistantMessage)
        for use in message.uses
    }
    return "\n\n".join(
        f"{_label(result, uses[result.use_id].arguments if result.use_id in uses else '')}\n"
        f"{result.text.rstrip()}"
        for result in results
    )


def nothing(tools: Sequence[ToolDefinition]) -> str:
    """Says that no tool fits, and which there are."""
    if not tools:
        return f"I can only choose tools, and I have none. {_REAL}"
    names = ", ".join(tool.name for tool in tools[:_MOST_NAMED])
    more = len(tools) - _MOST_NAMED
    return (
        "I am a very small model: I choose tools and show what they return, no more. None of mine "
        f"fits that: {names}{f' and {more} more' if more > 0 else ''}. {_REAL}"
    )


def _label(result: ToolMessage, arguments: str) -> str:
    given = "" if arguments in {"", "{}"} else f" {arguments}"
    return f"{result.name}{given}{' failed' if result.failed else ''}:"
