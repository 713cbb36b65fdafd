"""Running predicted calls ahead, seen from outside: nothing but time may differ."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.call import Source
from tests.unit.speculation.worlds import (
    GENEROUS,
    ITEMS,
    Follows,
    World,
    foretelling,
    runs_clean,
    shop,
    sure,
    timeless,
    told,
    with_prediction,
)

CALLS: list[tuple[str, dict[str, Any]]] = [
    *[("stock", {"item": item}) for item in ITEMS],
    *[("buy", {"item": item}) for item in ITEMS],
    ("total", {}),
    ("look_round", {}),
    *[("swap", {"item": item, "other": "saw"}) for item in ("bolt", "nut")],
    ("shake", {}),
    ("ask_a_friend", {}),
    ("secret", {}),
    ("now", {}),
]


def seldom(steps: list[list[tuple[str, dict[str, Any]]]]) -> list[list[tuple[str, dict[str, Any]]]]:
    """Each call twice at most: what is told of more depends on how long ago the others were."""
    seen: Counter[str] = Counter()
    kept: list[list[tuple[str, dict[str, Any]]]] = []
    for step in steps:
        seen.update(map(str, step))
        kept.append([call for call in step if seen[str(call)] <= 2])
    return [step for step in kept if step]


STEPS = st.lists(
    st.lists(
        st.sampled_from([call for call in CALLS if call[0] != "secret"]),
        min_size=1,
        max_size=3,
        unique_by=str,
    ),
    min_size=1,
    max_size=5,
).map(seldom)


async def played(
    turns: list[list[list[tuple[str, dict[str, Any]]]]], *, speculate: bool
) -> tuple[list[Any], Counter[str], list[str]]:
    """What a session shows, what ran, and where results came from."""
    async with shop(**with_prediction(speculate)) as runtime:
        world = World(runtime)
        shown: list[Any] = []
        sources: list[str] = []
        model = Follows([])
        async with runtime.session("s", model=model, user="ada") as session:
            for number, steps in enumerate(turns):
                model.steps = [tuple(step) for step in steps]
                turn = await session.send(f"go {number}")
                shown.append((told(turn), [timeless(text) for text in model.told]))
                sources += [call.source for call in turn.tool_calls if call.source]
                await asyncio.sleep(5)
        return shown, world.ran, sources


@settings(max_examples=40)
@given(turns=st.lists(STEPS, min_size=1, max_size=3), seed=st.integers(0, 2**16))
def test_sessions_show_the_same_with_and_without(
    turns: list[list[list[tuple[str, dict[str, Any]]]]], seed: int
) -> None:
    """Whatever is proposed ahead, right or wrong, a session shows the same as without, and what may
    not be run ahead is run as often as it was asked for (S2-40, P-02, case 97)."""
    without, ran, _ = runs_clean(played(turns, speculate=False))
    with pytest.MonkeyPatch.context() as patch:
        foretelling(patch, random.Random(seed), CALLS)
        ahead, ran_ahead, _ = runs_clean(played(turns, speculate=True))
    assert ahead == without
    for name in ("buy", "swap", "shake", "ask_a_friend", "secret", "now"):
        assert ran_ahead[name] == ran[name]


@pytest.mark.parametrize("change", [("buy", {"item": "bolt"}), ("shake", {})])
def test_who_changes_something_sees_it(
    change: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was made ahead for another session of the same user is not told to one that has changed
    something since, though nobody knows whether that was read (S2-40, P-02, case 97)."""
    sure(monkeypatch, idle=[("look_round", {})])

    async def main() -> str:
        async with shop(**GENEROUS) as runtime:
            world = World(runtime)
            async with runtime.session("other", model=Follows([]), user="ada"):
                await asyncio.sleep(2)
                assert world.ran["look_round"] == 1
                model = Follows([[change], [("look_round", {})]])
                async with runtime.session("own", model=model, user="ada") as session:
                    turn = await session.send("go")
                    assert int(turn.tool_calls[1].result) == sum(world.counts.values())
                    return turn.tool_calls[1].source

    assert runs_clean(main()) == Source.EXECUTED


@pytest.mark.parametrize("change", [("shake", {}), ("buy", {"item": "bolt"})])
def test_what_others_may_have_changed_is_seen(
    monkeypatch: pytest.MonkeyPatch, change: tuple[str, dict[str, object]]
) -> None:
    """What was made ahead for one user is not told to him once another has run a tool of unknown
    effect, or one that writes, as what it reads has no tags (S2-40, P-02, case 97)."""
    sure(monkeypatch, idle=[("look_round", {})])

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            world = World(runtime)
            model = Follows([[("look_round", {})]])
            async with runtime.session(model=model, user="ada") as own:
                await asyncio.sleep(2)
                assert world.ran["look_round"] == 1
                theirs = Follows([[change]])
                async with runtime.session(model=theirs, user="bob") as other:
                    await other.send("go")
                turn = await own.send("go")
                assert int(turn.tool_calls[0].result) == sum(world.counts.values())

    runs_clean(main())


def test_a_launch_that_lost_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a tool is about to change is not read ahead any longer, and once it has been changed only
    what is read from then on is told (S2-40, P-01, case 97)."""
    sure(monkeypatch, reply=[("slow", {})])
    log: list[tuple[str, float]] = []

    async def main() -> str:
        now = asyncio.get_running_loop().time
        async with shop(**GENEROUS) as runtime:
            world = World(runtime)

            @runtime.tool(effect="read", ttl_s=600, tags=("item:bolt",))
            async def slow() -> int:
                began, seen = now(), world.counts["bolt"]
                try:
                    await asyncio.sleep(20)
                except asyncio.CancelledError:
                    log.append(("cancelled", round(now() - began, 1)))
                    raise
                return seen

            steps: list[list[tuple[str, dict[str, Any]]]]
            steps = [[("buy", {"item": "bolt"})], [("slow", {})]]
            async with runtime.session(model=Follows(steps), user="ada") as session:
                turn = await session.send("go")
        return turn.tool_calls[1].result

    assert runs_clean(main()) == "1"
    assert log == [("cancelled", 3.0)]


def test_a_foretold_call_costs_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result of a call that was run ahead is there when the model asks for it, and is said to be
    speculated (S2-10, S2-40, P-01)."""
    steps: list[list[tuple[str, dict[str, Any]]]]
    steps = [[("stock", {"item": "bolt"})], [("total", {})]]
    rng = random.Random(1)
    monkeypatch.setattr(rng, "randint", lambda _, most: most)
    foretelling(monkeypatch, rng, [("stock", {"item": "bolt"}), ("total", {})])

    async def main() -> None:
        shown, ran, sources = await played([steps], speculate=True)
        assert sources == [Source.SPECULATED, Source.SPECULATED]
        assert ran == {"stock": 1, "total": 1}
        assert shown

    runs_clean(main())
