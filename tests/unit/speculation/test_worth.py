"""What calls ahead were worth decides where habits are learnt, and what did not run costs nothing."""

import asyncio
from typing import Any

import pytest

from paceline.call import Source
from paceline.engine.states import PredictedCall
from paceline.usage import report_usage
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


def test_what_launches_really_take_and_cost_is_what_is_wasted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The seconds and dollars in vain are those that calls ahead took, not those that were expected; a
    tool of which each takes 20 s in place of 1 s is turned off after six (S2-40)."""
    sure(monkeypatch, reply=[("slow", {})])

    async def main() -> None:
        async with shop(**GENEROUS, usd_a_day=100.0, usd_an_hour=1e6) as runtime:

            @runtime.tool(effect="read", ttl_s=30, cost_usd=0.001)
            async def slow() -> int:
                await asyncio.sleep(20)
                report_usage(cost_usd=0.01)
                return 1

            async with runtime.session(model=Follows([]), user="ada") as session:
                predictions = await runtime._parts.predictions()
                for _ in range(99):
                    predictions.speculator._budget.real("user ada")
                for count in range(1, 7):
                    await session.send("go")
                    await asyncio.sleep(100)
                    found = predictions.figures()["slow"]
                    assert found.wasted_s == pytest.approx(20 * count)
                    assert found.wasted_usd == pytest.approx(0.01 * count)
                    assert found.state == ("off" if count >= 6 else "on")

    runs_clean(main())


def test_what_gave_way_is_wasted_as_far_as_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    """A launch that is stopped wastes the time that it ran, however short it was expected to be (S2-40)."""
    sure(monkeypatch, reply=[("slow", {})])

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:

            @runtime.tool(effect="read", ttl_s=30)
            async def slow() -> None:
                await asyncio.sleep(1_000)

            async with runtime.session(model=Follows([]), user="ada") as session:
                await session.send("go")
                await asyncio.sleep(17)
            await asyncio.sleep(1)
            found = (await runtime._parts.predictions()).figures()["slow"]
            assert found.cancelled == 1
            assert found.wasted_s == pytest.approx(20, abs=0.01)

    runs_clean(main())


def test_hints_say_what_calls_cost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A predicted call says what it costs: its price if it has one, else what one cost last (S2-10)."""
    sure(monkeypatch, reply=[("dear", {}), ("measured", {}), ("stock", {"item": "nut"})])

    async def main() -> None:
        async with shop() as runtime:
            World(runtime)

            @runtime.tool(effect="read", ttl_s=600, cost_usd=0.25)
            async def dear() -> int:
                return 1

            @runtime.tool(effect="write")
            async def measured() -> int:
                report_usage(cost_usd=0.5)
                return 1

            def costs(session: Any) -> list[float]:
                hints = session.hints.predicted_tool_sequence
                assert all(isinstance(each, PredictedCall) for each in hints)
                return [each.expected_usd for each in hints]

            model = Follows([[("measured", {})]])
            async with runtime.session(model=model, user="ada") as session:
                going = asyncio.create_task(session.send("go"))
                await asyncio.sleep(1)
                assert costs(session) == [0.25, 0.0, 0.0]
                await going
                assert costs(session) == [0.25, 0.5, 0.0]

    runs_clean(main())
