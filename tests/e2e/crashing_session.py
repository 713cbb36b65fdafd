"""A life of a session that is kept. As a program it kills itself at a point.

    python crashing_session.py HOME LEDGER POINT [resume]

`LEDGER` is the file that its tools write to: a line for each thing that is done. Its model knows from
the messages how far it is.
"""

import asyncio
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from paceline import Runtime
from paceline.config import load
from paceline.engine.session import Session
from paceline.engine.states import AgentState, StateTransition
from paceline.errors import CallError, Category, IllegalTransitionError
from paceline.messages import (
    AssistantMessage,
    Hear,
    Message,
    ModelReply,
    ModelRequest,
    TextPart,
    ToolUse,
    UsePart,
    UserMessage,
)
from paceline.tools.function import function_tool
from paceline.tools.spec import ToolSpec

QUIET: dict[str, dict[str, Any]] = {
    "agents": {"watch": False},
    "hostexec": {"mode": "off"},
    "alerts": {"enabled": False},
}
ORDER = "Order a bolt."
STEPS = (
    ModelReply("First I look. ", (ToolUse("a", "look", '{"item": "shelf"}'),)),
    ModelReply(
        "Then I order. ",
        (
            ToolUse("b", "look", '{"item": "price"}'),
            ToolUse("c", "order", '{"item": "bolt"}'),
            ToolUse("d", "look", '{"item": "bill"}'),
        ),
    ),
    ModelReply(
        "Then I pay. ",
        (ToolUse("e", "ask", '{"text": "How?"}'), ToolUse("f", "pay", '{"item": "bill"}')),
    ),
    ModelReply("All is done."),
)


class Life:
    """One process: what it does, and where it ends."""

    def __init__(self, ledger: Path, point: str) -> None:
        self._ledger = ledger
        self._point = point
        self.requests: list[tuple[Message, ...]] = []

    def at(self, point: str) -> None:
        """The end, if it is here."""
        if point == self._point:
            os.kill(os.getpid(), signal.SIGKILL)

    def write(self, line: str) -> None:
        """A thing that is done, and stays so."""
        handle = os.open(self._ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(handle, f"{line}\n".encode())
        os.close(handle)

    @property
    def name(self) -> str:
        """Of the model."""
        return "scripted"

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """The next step; the model is a process's own, as it is where it ends."""
        self.requests.append(request.messages)
        last = max(n for n, one in enumerate(request.messages) if isinstance(one, UserMessage))
        step = sum(isinstance(one, AssistantMessage) for one in request.messages[last:])
        self.at(f"asked {step}")
        if request.messages[last].text != ORDER:
            return ModelReply("Ask me tomorrow.")
        if step == 1 and self._point == "error":
            raise CallError("slow down", category=Category.RATE_LIMIT, retry_after_s=60)
        reply = STEPS[step]
        hear(TextPart(reply.text))
        await asyncio.sleep(0)
        self.at(f"generating {step}")
        for use in reply.uses:
            hear(UsePart(use))
            await asyncio.sleep(0)
        self.at(f"heard {step}")
        return reply

    def tools(self) -> list[ToolSpec]:
        """What reads, what must not be done twice, and what asks people."""

        async def look(item: str) -> str:
            self.at(f"look {item}")
            self.write(f"look {item}")
            return f"{item} is there"

        async def order(item: str) -> str:
            self.at("before the order")
            self.write(f"order {item}")
            self.at("after the order")
            return f"{item} is ordered"

        async def pay(item: str) -> str:
            self.at("before the payment")
            self.write(f"pay {item}")
            self.at("after the payment")
            return f"{item} is paid"

        async def ask(text: str) -> str:
            raise AssertionError(text)

        return [
            function_tool(look, effect="read", tags=("shop",)),
            function_tool(order, effect="write", tags=("shop",)),
            function_tool(pay, approval=True),
            function_tool(ask, question=True),
        ]

    def tend(self, session: Session) -> None:
        """A person beside it, who agrees to everything; or the end, in a state."""

        def say() -> None:
            asked = session.pending
            try:
                if session.state is AgentState.AWAITING_APPROVAL and asked is not None:
                    session.approve(asked.call_id)
                elif session.state is AgentState.WAITING_FOR_USER:
                    session.answer("in cash")
            except IllegalTransitionError:
                return

        def moved(move: StateTransition) -> None:
            loop = asyncio.get_running_loop()
            loop.call_soon(self.at, str(move.to_state))
            loop.call_soon(say)

        session.machine.observe(moved)


async def live(
    home: Path, ledger: Path, point: str = "", *, text: str = ORDER, resume: bool = False
) -> dict[str, Any]:
    """What there is to tell in the end, as plain data. With `resume` it is not the first life; then
    what was interrupted is gone on with, unless there is another text."""
    life = Life(ledger, point)
    runtime = Runtime(load(overrides=QUIET), agents=[], home=home, environ={}, rng=random.Random(1))
    async with runtime:
        opened = runtime.session("s", model=life, tools=life.tools(), user="ada", resume=resume)
        async with opened as session:
            life.tend(session)
            again = resume and text == ORDER
            turn = await session.resume() if again else await session.send(text)
            life.at("over")
            told = {
                "turn": turn,
                "turns": session.turns,
                "messages": session.conversation.messages(),
                "requests": life.requests,
                "state": session.state,
            }
            plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(told))
            return plain


if __name__ == "__main__":
    place, written, ending, *more = sys.argv[1:]
    asyncio.run(live(Path(place), Path(written), ending, resume=more == ["resume"]))
    sys.exit("it was not killed")
