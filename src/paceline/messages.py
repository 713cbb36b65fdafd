"""What is said between a session and a model: messages, requests, replies, and the parts they come in."""

from collections.abc import Callable, Mapping

import msgspec

from paceline.call import Tokens

__all__ = [
    "AssistantMessage",
    "Hear",
    "Message",
    "ModelReply",
    "ModelRequest",
    "Part",
    "Restarted",
    "SystemMessage",
    "TextPart",
    "ToolDefinition",
    "ToolMessage",
    "ToolUse",
    "UsePart",
    "UserMessage",
]


class ToolUse(msgspec.Struct, frozen=True):
    """One call of a tool that a model asks for. `arguments` are JSON as the model wrote it, which
    may be no JSON at all. `id` is the model's own, and may not be unique over a session."""

    id: str
    name: str
    arguments: str


class SystemMessage(msgspec.Struct, frozen=True, tag_field="role", tag="system"):
    """What the model is told before everything else."""

    text: str


class UserMessage(msgspec.Struct, frozen=True, tag_field="role", tag="user"):
    """What a person said."""

    text: str


class AssistantMessage(msgspec.Struct, frozen=True, tag_field="role", tag="assistant"):
    """What the model said, and the tools it wants called."""

    text: str = ""
    uses: tuple[ToolUse, ...] = ()


class ToolMessage(msgspec.Struct, frozen=True, tag_field="role", tag="tool"):
    """What came of one tool use. `failed` if `text` says what went wrong."""

    use_id: str
    name: str
    text: str
    failed: bool = False


Message = SystemMessage | UserMessage | AssistantMessage | ToolMessage


class ToolDefinition(msgspec.Struct, frozen=True):
    """A tool as a model sees it; `parameters` is a JSON schema of type object."""

    name: str
    description: str
    parameters: Mapping[str, object]


class ModelRequest(msgspec.Struct, frozen=True):
    """What a model is asked. None leaves a choice to the model's own settings."""

    messages: tuple[Message, ...]
    tools: tuple[ToolDefinition, ...] = ()
    temperature: float | None = None
    max_tokens: int | None = None
    seed: int | None = None


class ModelReply(msgspec.Struct, frozen=True):
    """All that a model answered. `finish` is what it stopped for: "stop", "tools", "length" or
    what else the server said; `tokens` where it said how many; `model` its own name."""

    text: str = ""
    uses: tuple[ToolUse, ...] = ()
    tokens: Tokens | None = None
    finish: str = "stop"
    model: str = ""


class TextPart(msgspec.Struct, frozen=True):
    """More of the answer's text."""

    text: str


class UsePart(msgspec.Struct, frozen=True):
    """A tool use whose arguments are complete, though the answer may go on."""

    use: ToolUse


class Restarted(msgspec.Struct, frozen=True):
    """What was heard of the answer so far does not count: it is made anew."""


Part = TextPart | UsePart | Restarted
Hear = Callable[[Part], None]
"""Is told the parts of an answer as they come. Called on the event loop; returns at once."""
