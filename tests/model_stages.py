"""Models on stages of their own: scripted, recorded, behind a real server, and of pydantic-ai."""

import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from aiohttp import web
from pydantic_ai import messages as theirs
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

from paceline.call import Call
from paceline.clock import SystemClock
from paceline.errors import InvalidInputError
from paceline.hearing import Floor, current_floor
from paceline.instances.openai import OpenAITarget
from paceline.messages import Hear, ModelReply, ModelRequest
from paceline.models.model import Model
from paceline.models.openai import arguments_of, calls_of, reply_of
from paceline.models.parts import parts_of
from paceline.models.pydantic_ai import PydanticAIModel
from paceline.models.replay import Recording, ReplayModel
from paceline.models.scripted import ScriptedModel
from paceline.redaction import Redactor, Secret
from paceline.testing.model_suite import play
from paceline.testing.target_suite import a_call, a_lease
from tests.far_sides import SECRET, served

__all__ = ["STAGES", "Endpoint", "ModelStage", "asking", "with_script"]

CLOCK: Final = SystemClock()


class ModelStage:
    """A model, and how many requests its far side is busy with."""

    def __init__(
        self,
        model: Model,
        *,
        busy: Callable[[], int] = lambda: 0,
        counts: bool = False,
        secrets: Sequence[str] = (),
        cannot: Collection[str] = (),
    ) -> None:
        self.model = model
        self.busy = busy
        self.counts = counts
        self.secrets = secrets
        self.cannot = cannot


class Playing:
    """Plays, and counts what it is busy with."""

    def __init__(self) -> None:
        self.busy = 0

    async def reply(self, asked: str) -> ModelReply:
        self.busy += 1
        try:
            return await play(asked)
        finally:
            self.busy -= 1

    async def to_request(self, request: ModelRequest) -> ModelReply:
        return await self.reply(request.messages[-1].text)


def scripted(playing: Playing) -> ScriptedModel:
    """A scripted model that plays, however often it is asked."""
    return ScriptedModel(iter(lambda: playing.to_request, None))


@asynccontextmanager
async def with_script() -> AsyncIterator[ModelStage]:
    """A scripted model."""
    playing = Playing()
    yield ModelStage(scripted(playing), busy=lambda: playing.busy)


@asynccontextmanager
async def with_recording() -> AsyncIterator[ModelStage]:
    """A model that is recorded."""
    playing = Playing()
    with TemporaryDirectory() as folder:
        recording = Recording(scripted(playing), Path(folder) / "said.jsonl", clock=CLOCK)
        yield ModelStage(recording, busy=lambda: playing.busy)


class Replayed:
    """Plays what was recorded; what is not, is recorded first."""

    def __init__(self, path: Path) -> None:
        self.name = "scripted"
        self.path = path
        self.recording = Recording(scripted(Playing()), path, clock=CLOCK)

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        try:
            return await ReplayModel(self.path).complete(request, hear)
        except InvalidInputError:
            await self.recording.complete(request, lambda _: None)
            return await ReplayModel(self.path).complete(request, hear)


@asynccontextmanager
async def with_replay() -> AsyncIterator[ModelStage]:
    """A recorded model."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "said.jsonl"
        path.touch()
        yield ModelStage(Replayed(path), cannot=("hang",))


def asking(request: ModelRequest, *, deadline_ns: int | None = None) -> Call:
    """A call of an instance that asks this."""
    arguments: Any = arguments_of(request)
    return a_call(None, deadline_ns=deadline_ns, **arguments)


class Endpoint:
    """A target as a model, asked as sessions do."""

    name = "small"

    def __init__(self, target: OpenAITarget) -> None:
        self.target = target

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        token = current_floor.set(Floor(hear))
        try:
            value: Any = await self.target.execute(asking(request), a_lease(CLOCK))
        finally:
            current_floor.reset(token)
        return reply_of(value)


async def a_server(request: web.Request) -> web.StreamResponse:
    """A server of models, which streams; arguments in small pieces, and its errors repeat the key."""
    told = await request.json()
    for message in told["messages"]:
        for call in message.get("tool_calls", ()):
            json.loads(call["function"]["arguments"])  # as templates do
    try:
        reply = await play(told["messages"][-1]["content"])
    except RuntimeError as exc:
        said = f"{exc}: {request.headers['Authorization']}"
        return web.json_response({"error": {"message": said}}, status=500)
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for delta in _deltas(reply):
        await _event(answer, {"choices": [{"index": 0, "delta": delta}]})
    finish = "tool_calls" if reply.uses else "stop"
    await _event(answer, {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    await answer.write(b"data: [DONE]\n\n")
    return answer


def _deltas(reply: ModelReply) -> list[dict[str, Any]]:
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": part.text} for part in parts_of(reply) if hasattr(part, "text")]
    for index, call in enumerate(calls_of(reply.uses)):
        function: Any = call["function"]
        begun = {"index": index, **call, "function": {**function, "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        for at in range(0, len(function["arguments"]), 5):
            piece = {"arguments": function["arguments"][at : at + 5]}
            deltas.append({"tool_calls": [{"index": index, "function": piece}]})
    return deltas


async def _event(answer: web.StreamResponse, data: object) -> None:
    await answer.write(f"data: {json.dumps(data)}\n\n".encode())


@asynccontextmanager
async def with_server() -> AsyncIterator[ModelStage]:
    """A model behind a server that speaks chat completions."""
    async with served(a_server) as side:
        target = OpenAITarget(f"{side.url}/v1", "small", clock=CLOCK, token=Secret(SECRET))
        side.aim(target, ())
        async with target:
            yield ModelStage(Endpoint(target), busy=side.busy, secrets=(SECRET,))


def _asked(messages: list[theirs.ModelMessage]) -> str:
    part: Any = messages[-1].parts[-1]
    return str(part.content)


def _response(reply: ModelReply) -> theirs.ModelResponse:
    """A reply as theirs; arguments as dicts, as some providers have them."""
    uses = [theirs.ToolCallPart(u.name, json.loads(u.arguments), u.id) for u in reply.uses]
    text = [theirs.TextPart(reply.text)] if reply.text else []
    return theirs.ModelResponse([*text, *uses])


@asynccontextmanager
async def with_pydantic_ai() -> AsyncIterator[ModelStage]:
    """A model of pydantic-ai that streams."""
    playing = Playing()

    async def stream(
        messages: list[theirs.ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        try:
            reply = await playing.reply(_asked(messages))
        except RuntimeError as exc:
            raise RuntimeError(f"{exc}: {SECRET}") from exc
        for part in parts_of(reply):
            if hasattr(part, "text"):
                yield part.text
        for index, use in enumerate(reply.uses):
            yield {index: DeltaToolCall(use.name, tool_call_id=use.id)}
            for at in range(0, len(use.arguments), 5):
                yield {index: DeltaToolCall(json_args=use.arguments[at : at + 5])}

    model = PydanticAIModel(
        FunctionModel(stream_function=stream),
        redactor=Redactor([Secret(SECRET)]),
    )
    async with model:
        yield ModelStage(model, busy=lambda: playing.busy, counts=True, secrets=(SECRET,))


@asynccontextmanager
async def with_whole_pydantic_ai() -> AsyncIterator[ModelStage]:
    """A model of pydantic-ai that does not stream."""
    playing = Playing()

    async def answer(messages: list[theirs.ModelMessage], info: AgentInfo) -> theirs.ModelResponse:
        return _response(await playing.reply(_asked(messages)))

    model = PydanticAIModel(FunctionModel(answer), stream=False, name="whole")
    yield ModelStage(model, busy=lambda: playing.busy, counts=True)


STAGES: Final[tuple[Callable[[], AbstractAsyncContextManager[ModelStage]], ...]] = (
    with_script,
    with_recording,
    with_replay,
    with_server,
    with_pydantic_ai,
    with_whole_pydantic_ai,
)
