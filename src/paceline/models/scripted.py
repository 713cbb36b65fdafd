"""A model that says what it was told to say: for tests and demonstrations."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable
from typing import final

from paceline.errors import AgentError, Category, PacelineError
from paceline.messages import Hear, ModelReply, ModelRequest
from paceline.models.parts import parts_of

__all__ = ["Reply", "ScriptedModel"]

Reply = ModelReply | Exception | Callable[[ModelRequest], "ModelReply | Awaitable[ModelReply]"]
"""What comes next: a reply, an error that is raised, or what makes one of the request."""


@final
class ScriptedModel:
    """Answers one request after another with the replies it was given, in their order.

    ::

        model = ScriptedModel([
            ModelReply(uses=(ToolUse("1", "weather", '{"city": "Oslo"}'),)),
            lambda request: ModelReply(f"It is {request.messages[-1].text}."),
        ])

    `requests` are those it was asked.
    """

    def __init__(self, replies: Iterable[Reply], *, name: str = "scripted") -> None:
        """`replies` may have no end: each is taken when it is asked for."""
        self._replies = iter(replies)
        self._name = name
        self.requests: list[ModelRequest] = []

    @property
    def name(self) -> str:
        """As it was given."""
        return self._name

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """The next reply; its text is heard word by word.

        Raises the error that is next, an AgentError for one that is none of ours, and an AgentError
        if there is no reply left.
        """
        self.requests.append(request)
        reply = await self._next(request)
        for place, part in enumerate(parts_of(reply)):
            if place:
                await asyncio.sleep(0)  # others may run in between, as with a real one
            hear(part)
        return reply

    async def _next(self, request: ModelRequest) -> ModelReply:
        try:
            reply = next(self._replies)
        except StopIteration:
            raise AgentError(
                f"{self._name} has no reply left: it was asked {len(self.requests)} times",
                next_step="Give it a reply for each step of each turn.",
                category=Category.INVALID,
            ) from None
        if isinstance(reply, ModelReply):
            return reply
        try:
            return await _made(reply, request)
        except PacelineError:
            raise
        except Exception as exc:
            raise AgentError(
                f"{self._name} failed: {type(exc).__qualname__}: {exc}", may_have_started=True
            ) from exc


async def _made(
    reply: Exception | Callable[[ModelRequest], ModelReply | Awaitable[ModelReply]],
    request: ModelRequest,
) -> ModelReply:
    if isinstance(reply, Exception):
        raise reply
    made = reply(request)
    return await made if inspect.isawaitable(made) else made
