"""Sessions whose process is killed, and that this one goes on with: real processes, a real file."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from tests.e2e.crashing_session import live

SCRIPT: Final = Path(__file__).parent / "crashing_session.py"
UNCERTAIN: Final = "may or may not have taken effect"
ORDER, PAY = "order bolt", "pay bill"

POINTS: Final[
    tuple[tuple[str, dict[str, int], str | None], ...]
] = (  # where it dies; how often things were done by then; what the next one cannot know
    ("asked 0", {}, None),  # PROCESSING_PROMPT
    ("generating 0", {}, None),  # GENERATING_RESPONSE
    ("heard 1", {}, None),  # and a read may have been started
    ("look price", {}, None),  # EXECUTING_TOOLS, before the write
    ("before the order", {}, "order"),  # inside it
    ("after the order", {ORDER: 1}, "order"),
    ("look bill", {ORDER: 1}, None),  # after it
    ("asked 2", {ORDER: 1}, None),
    ("error", {}, None),  # ERROR, in the pause of a recovery
    ("waiting_for_user", {ORDER: 1}, None),
    ("awaiting_approval", {ORDER: 1}, None),
    ("before the payment", {ORDER: 1}, "pay"),
    ("after the payment", {ORDER: 1, PAY: 1}, "pay"),
    ("generating 3", {ORDER: 1, PAY: 1}, None),
)


class Shop:
    """A place where processes live one after another."""

    def __init__(self, place: Path) -> None:
        self.home = place / "home"
        self.ledger = place / "ledger"

    def die(self, point: str, *, resume: bool = False) -> None:
        """A process lives to that point, and is killed."""
        done = subprocess.run(
            [sys.executable, SCRIPT, self.home, self.ledger, point, *["resume"][:resume]],
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == -signal.SIGKILL, done.stderr

    async def resume(self, **more: str) -> dict[str, Any]:
        """This process goes on; what it tells."""
        return await live(self.home, self.ledger, resume=True, **more)

    def done(self, what: str) -> int:
        """How often that was done."""
        lines = self.ledger.read_text().splitlines() if self.ledger.exists() else []
        return lines.count(what)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def expect_complete(told: dict[str, Any], uncertain: Sequence[str]) -> None:
    """The turn ended with its answer, all of it is in the conversation, and the model was told of the
    calls that nobody knows the end of, and of no other."""
    assert told["state"] == "idle"
    [turn] = told["turns"]
    assert (turn["status"], turn["agent_response"]) == ("completed", "All is done.")
    names = ["look", "look", "order", "look", "ask", "pay"]
    calls = turn["tool_calls"]
    assert [call["tool_name"] for call in calls] == names
    assert len({call["id"] for call in calls}) == len(names)
    assert [c["tool_name"] for c in calls if UNCERTAIN in c["result"]] == list(uncertain)
    assert [c["tool_name"] for c in calls if c["status"] == "cancelled"] == list(uncertain)
    messages = told["messages"]
    told_of = ["assistant", "tool", "assistant", *["tool"] * 3, "assistant", *["tool"] * 2]
    assert [m["role"] for m in messages] == ["user", *told_of, "assistant"]
    assert messages[0]["text"] == "Order a bolt."
    results = [m for m in messages if m["role"] == "tool"]
    assert [m["use_id"] for m in results] == list("abcdef")
    assert [m["name"] for m in results if UNCERTAIN in m["text"]] == list(uncertain)
    assert [m["name"] for m in results if m["failed"]] == list(uncertain)
    assert results[4]["text"] == "in cash"
    if told["requests"]:
        assert told["requests"][-1] == messages[:-1]


@pytest.mark.parametrize(("point", "before", "uncertain"), POINTS)
async def test_a_killed_session_goes_on(
    shop: Shop, point: str, before: dict[str, int], uncertain: str | None
) -> None:
    """Whatever state the process of a session is killed in, the next one ends the turn: what must not
    be done twice is done once, or if it is not known whether it was, not again, and the model is told
    so (case 98, S2-56, V-37)."""
    shop.die(point)
    assert {what: n for what in (ORDER, PAY) if (n := shop.done(what))} == before
    told = await shop.resume()
    assert told["turn"] == told["turns"][0]
    expect_complete(told, [uncertain] if uncertain else [])
    for name, what in (("order", ORDER), ("pay", PAY)):
        assert shop.done(what) == (before.get(what, 0) if uncertain == name else 1)


async def test_a_session_that_is_killed_again_goes_on_again(shop: Shop) -> None:
    """Killed in one life after another, the turn ends in the last, with nothing done twice (case 98,
    S2-56)."""
    shop.die("after the order")
    for point in ("asked 2", "waiting_for_user", "after the payment"):
        shop.die(point, resume=True)
    expect_complete(await shop.resume(), ["order", "pay"])
    assert (shop.done(ORDER), shop.done(PAY)) == (1, 1)


async def test_a_turn_that_was_over_is_not_gone_on_with(shop: Shop) -> None:
    """Killed when the turn was over, a session has nothing to resume, and all that was said (case 98,
    S2-56)."""
    shop.die("over")
    told = await shop.resume()
    assert (told["turn"], told["requests"]) == (None, [])
    expect_complete(told, [])
    assert (shop.done(ORDER), shop.done(PAY)) == (1, 1)


async def test_a_killed_turn_may_be_left(shop: Shop) -> None:
    """A session that was killed takes another message: the turn before is cancelled, nothing of it is
    done any more, and the model is told which call may have taken effect (case 98, S2-56)."""
    shop.die("after the order")
    told = await shop.resume(text="Never mind.")
    assert [turn["status"] for turn in told["turns"]] == ["cancelled", "completed"]
    assert told["turn"]["agent_response"] == "Ask me tomorrow."
    assert (shop.done(ORDER), shop.done(PAY)) == (1, 0)
    [request] = told["requests"]
    assert [m["name"] for m in request if UNCERTAIN in m["text"]] == ["order"]
    assert [m["text"] for m in request if m["role"] == "user"] == ["Order a bolt.", "Never mind."]
