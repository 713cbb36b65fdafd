"""A runtime whose model is a scripted server, with tools, in virtual time."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import pytest

from paceline import Runtime
from paceline.config import load
from paceline.engine.session import Session
from paceline.engine.states import AgentState, ConversationTurn, TurnStatus
from paceline.errors import PacelineError
from paceline.testing.virtual_time import VirtualClock
from paceline.tools.function import function_tool
from paceline.tools.spec import ToolSpec
from tests.contract.scripted_server import ScriptedServer, answering, said, stream
from tests.far_sides import Handler

__all__ = ["BYE", "LOOK", "NOTE", "Shop", "Stage", "stage"]

QUIET: Final[dict[str, dict[str, Any]]] = {
    "agents": {"watch": False},
    "hostexec": {"mode": "off"},
    "alerts": {"enabled": False},
}
LOOK: Final = ("c1", "look", '{"item": "bolt"}')
NOTE: Final = ("c2", "note", '{"item": "nut"}')
BYE: Final = stream(said("bye"))
MOST_REQUESTS: Final = 16
"""No turn asks one server more often than this, however it fails."""


class Shop:
    """Tools that write down when they begin and end, and for which session; most take a second."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.sessions: list[str] = []
        self.looked = asyncio.Event()

    def tools(self) -> list[ToolSpec]:
        async def done(what: str) -> None:
            self.begun.append(what)
            self.looked.set()
            await asyncio.sleep(1)
            self.ended.append(what)

        async def look(item: str, session: str) -> str:
            self.sessions.append(session)
            await done(f"look {item}")
            return f"{item} is there"

        async def note(item: str) -> str:
            await done(f"note {item}")
            return f"{item} noted"

        async def pay(item: str) -> str:
            await done(f"pay {item}")
            return f"{item} paid"

        async def ask(text: str) -> str:
            raise AssertionError(text)

        return [
            function_tool(look, effect="read"),
            function_tool(note, effect="write", tags=("notes",)),
            function_tool(pay, effect="write", approval=True),
            function_tool(ask, question=True),
        ]


class Stage:
    """A runtime whose model `m` is a server, with a second one, `f`, that answers always."""

    def __init__(self, server: ScriptedServer, other: ScriptedServer, runtime: Runtime) -> None:
        self.server = server
        self.other = other
        self.runtime = runtime
        self.shop = Shop()

    def session(
        self, session_id: str | None = None, **options: Any
    ) -> contextlib.AbstractAsyncContextManager[Session]:
        """One with all tools."""
        given: Any = {"model": "m", "tools": self.shop.tools(), **options}
        return self.runtime.session(session_id, **given)

    async def turn(self, text: str = "go", **options: Any) -> ConversationTurn:
        """That of a message in a session of its own."""
        async with self.session(**options) as session:
            return await session.send(text)

    async def failure(self, **options: Any) -> PacelineError:
        """What a turn ends with."""
        async with self.session(**options) as session:
            with pytest.raises(PacelineError) as caught:
                await session.send("go")
            assert session.state is AgentState.IDLE
            assert session.turns[-1].status is TurnStatus.FAILED
        assert len(self.server.requests) <= MOST_REQUESTS
        self.expect_free()
        return caught.value

    def results(self, at: int) -> list[str]:
        """What one request says that tools gave."""
        return [one["content"] for one in self.server.told(at) if one["role"] == "tool"]

    def expect_free(self) -> None:
        """Nothing is in flight and no place is taken."""
        runtime = self.runtime
        assert not any(series.in_flight for series in runtime.metrics.snapshot().series)
        assert not any(
            one.in_flight for ones in runtime.balancer.instances.values() for one in ones
        )
        gate = runtime._parts.path._attempts._gate
        assert (gate.in_use, gate.waiting) == (0, 0)
        pipeline = runtime.sessions._pipeline
        assert (pipeline.running, pipeline.waiting) == (0, 0)


@contextlib.asynccontextmanager
async def stage(
    *answers: Handler, model: Mapping[str, Any] | None = None, **settings: Any
) -> AsyncIterator[Stage]:
    """Opened on a server that answers so."""
    async with answering(*answers) as server, answering(stream(said("from afar"))) as other:
        models = {
            "m": {"kind": "openai", "url": server.url, "model": "small", **(model or {})},
            "f": {"kind": "openai", "url": other.url, "model": "large"},
        }
        runtime = Runtime(
            load(overrides={**QUIET, "models": models, **settings}),
            agents=[],
            persist=False,
            environ={},
            clock=VirtualClock(),
            rng=random.Random(1),
        )
        async with runtime:
            yield Stage(server, other, runtime)
