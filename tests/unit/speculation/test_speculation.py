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
    ITEMS,
    Follows,
    World,
    foretelling,
    runs_clean,
    shop,
    timeless,
    told,
    with_prediction,
)

CALLS: list[tuple[str, dict[str, Any]]] = [
    *[("stock", {"item": item}) for item in ITEMS],
    *[("buy", {"item": item}) for item in ITEMS],
    ("total", {}),
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
    for name in ("buy", "shake", "ask_a_friend", "secret", "now"):
        assert ran_ahead[name] == ran[name]


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
