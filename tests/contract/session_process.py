"""A process with a session: `session_process.py HOME WHAT`, where `WHAT` is where it is killed.

"tool": in a tool that writes, "answer": while the model is asked again, "hold": it says "open" and waits
for its end with the session open.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

from paceline import Runtime
from paceline.config import load
from paceline.messages import Hear, ModelReply, ModelRequest, ToolUse

QUIET = load(
    overrides={
        "agents": {"watch": False},
        "hostexec": {"mode": "off"},
        "alerts": {"enabled": False},
    }
)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Model:
    name = "scripted"

    def __init__(self, what: str) -> None:
        self.what = what
        self.asked = 0

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        self.asked += 1
        if self.asked == 1 and self.what != "hold":
            return ModelReply(uses=(ToolUse("m1", "look", "{}"), ToolUse("m2", "pay", "{}")))
        if self.what == "answer":
            die()
        return ModelReply("bye")


async def main(home: Path, what: str) -> None:
    async def look() -> str:
        return "seen"

    async def pay() -> str:
        with (home / "paid").open("a") as file:
            file.write("x")
        if what == "tool":
            die()
        return "paid"

    async with Runtime(QUIET, agents=[], home=home, environ={}) as runtime:
        runtime.tool(effect="read")(look)
        runtime.tool(effect="write")(pay)
        async with runtime.session("s1", model=Model(what), user="ada") as session:
            await session.send("Buy bolts")
            sys.stdout.write("open\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
