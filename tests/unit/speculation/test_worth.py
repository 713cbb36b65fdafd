"""What calls ahead were worth decides where habits are learnt, and what did not run costs nothing."""

import asyncio
from typing import Any

import pytest

from paceline.call import Source
from tests.unit.speculation.worlds import GENEROUS, Follows, World, runs_clean, shop, sure

WRONG = [("stock", {"item": "bolt"}), ("stock", {"item": "nut"}), ("stock", {"item": "saw"})]


async def be_wrong(runtime: Any, user: str, minutes: int) -> None:
    """Sessions of a user for whom calls are run ahead, and who never asks for one."""
    async with runtime.session(model=Follows([]), user=user) as session:
        for _ in range(minutes):
            await session.send("go")
            await asyncio.sleep(601)  # results are kept for ten minutes


@pytest.mark.parametrize("share", ["user", "all"])
def test_who_is_always_wrong_is_left_alone_and_others_are_not(
    monkeypatch: pytest.MonkeyPatch, share: str
) -> None:
    """A user for whom all calls ahead are in vain has none after a while, and the next user has them;
    where habits are shared by all neither has (S2-40)."""
    sure(monkeypatch, reply=WRONG)

    async def main() -> None:
        async with shop(**GENEROUS, share=share) as runtime:
            world = World(runtime)
            predictions = await runtime._parts.predictions()
            for _ in range(99):  # pays for what is in vain
                predictions.speculator._budget.real("user ada")
                predictions.speculator._budget.real("user bob")
            await be_wrong(runtime, "ada", 12)
            wrong = world.ran["stock"]
            assert wrong < 12 * len(WRONG)
            model = Follows([[WRONG[0]]])
            async with runtime.session(model=model, user="bob") as session:
                turn = await session.send("go")
            assert (turn.tool_calls[0].source == Source.SPECULATED) is (share == "user")
            found = predictions.figures()["stock"]
            assert (found.state, found.launched) == ("off", wrong + 3 * (share == "user"))

    runs_clean(main())


@pytest.mark.parametrize("limit", ["launches", "tool_launches", "session_launches"])
def test_what_is_there_already_uses_up_no_limit(
    monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    """However often a call ahead finds its result there, others may be launched in that minute
    (S2-40)."""
    proposed = [WRONG[0]]
    sure(monkeypatch, reply=proposed)

    async def main() -> None:
        async with shop(**{**GENEROUS, f"{limit}_per_minute": 2}) as runtime:
            world = World(runtime)
            async with runtime.session(model=Follows([]), user="ada") as session:
                for _ in range(6):
                    await session.send("go")
                assert world.ran["stock"] == 1
                proposed[:] = [WRONG[1]]
                await session.send("go")
                assert world.ran["stock"] == 2

    runs_clean(main())
