"""Looking ahead keeps nobody waiting: whoever answers at once, whoever needs a place, whoever is idle."""

import asyncio
import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline import AgentInstance, Runtime
from paceline.balance.rate import Rates
from paceline.engine.states import PerformanceHints
from paceline.messages import Hear, ModelReply, ModelRequest, ToolUse
from paceline.predict.predictor import PerformancePredictor
from paceline.speculation.pace import Pace
from paceline.testing.virtual_time import VirtualClock
from tests.unit.far import Far
from tests.unit.speculation.worlds import (
    GENEROUS,
    ITEMS,
    Follows,
    World,
    foretelling,
    runs_clean,
    shop,
    sure,
)

Step = list[tuple[str, dict[str, Any]]]
CALLS: Step = [
    *[("stock", {"item": item}) for item in ITEMS],
    *[("buy", {"item": item}) for item in ITEMS],
    ("total", {}),
    ("shake", {}),
    ("now", {}),
]
STEPS = st.lists(
    st.lists(st.sampled_from(CALLS), min_size=1, max_size=3, unique_by=str), min_size=1, max_size=4
)
WRONG: Step = [("stock", {"item": f"w{n}"}) for n in range(4)] + [("ask_a_friend", {})]


class AtOnce:
    """A model that asks for the same again and again, and never takes any time."""

    name = "at once"

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        del hear
        steps = sum(bool(getattr(message, "uses", ())) for message in request.messages)
        if steps % 3 == 2:
            return ModelReply("done")
        return ModelReply(uses=(ToolUse(f"call{steps}", "count", f'{{"of": {steps}}}'),))


def timers() -> list[asyncio.TimerHandle]:
    """What the loop would wake up for, because of prediction."""
    scheduled: list[Any] = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
    ours = ("Foresight.", "Predictions.", "Speculator.")
    due = [each for each in scheduled if not each.cancelled()]
    return [each for each in due if each._callback.__qualname__.startswith(ours)]


def counted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """How often predictors are asked for this."""
    asked: list[str] = []
    plain = getattr(PerformancePredictor, name)

    def ask(*args: Any, **options: Any) -> Any:
        asked.append(name)
        return plain(*args, **options)

    monkeypatch.setattr(PerformancePredictor, name, ask)
    return asked


def test_who_answers_at_once_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a session whose model and tools take no time nothing is observed or proposed, however long
    it is, and no timer is left (S2-28, S2-40, P-02)."""
    observed, proposed = counted(monkeypatch, "observe"), counted(monkeypatch, "propose")

    async def main() -> None:
        async with shop() as runtime:

            @runtime.tool(effect="read", ttl_s=60)
            async def count(of: int) -> int:
                return of

            async with runtime.session(model=AtOnce(), user="ada") as session:
                for _ in range(200):
                    await session.send("go")
                assert len(timers()) == 1
            assert timers() == []
        assert observed == proposed == []

    runs_clean(main())


def test_idle_sessions_wake_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """While nobody says anything, and nothing was run ahead, sessions and their runtime have no timer
    at all, once what was learnt is brought up to date (S2-43, S2-48)."""
    sure(monkeypatch)

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            World(runtime)
            model = Follows([[("stock", {"item": "bolt"})]])
            async with (
                runtime.session(model=model, user="ada") as session,
                runtime.session(model=model, user="bob") as silent,
            ):
                await session.send("go")
                await asyncio.sleep(40)
                assert timers() == []
                assert silent.hints.cache_warming_candidates == ()

    runs_clean(main())


def fails_looking(pace: Pace, clock: VirtualClock) -> None:
    with pace.looking():
        clock.advance(1)
        raise ValueError("broken")


def test_looking_takes_a_tenth_of_the_time() -> None:
    """After a look nobody looks for nine times as long as it took, in whatever session; that holds
    too for one that failed (S2-40, S2-43)."""
    clock = VirtualClock()
    pace = Pace(clock)
    assert pace.wait_s() == 0
    with pace.looking():
        clock.advance(0.02)
    assert pace.wait_s() == pytest.approx(0.18)
    clock.advance(0.18)
    assert pace.wait_s() == 0
    with pytest.raises(ValueError, match="broken"):
        fails_looking(pace, clock)
    assert pace.wait_s() == pytest.approx(9)


def test_slow_looks_make_others_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a look takes 0.1 s, ten sessions together look once a second (S2-40, S2-43)."""
    at: list[float] = []
    clock = VirtualClock()
    sure(monkeypatch)
    propose = PerformancePredictor.propose

    def slow(*args: Any, **options: Any) -> Any:
        at.append(asyncio.get_running_loop().time())
        clock.advance(0.1)
        return propose(*args, **options)

    monkeypatch.setattr(PerformancePredictor, "propose", slow)

    async def main() -> None:
        async with shop(clock=clock, **GENEROUS) as runtime:
            World(runtime)

            async def one(number: int) -> None:
                async with runtime.session(model=Follows([]), user=f"u{number}") as session:
                    await session.send("go")

            await asyncio.gather(*map(one, range(10)))
        apart = [after - before for before, after in itertools.pairwise(at)]
        assert 3 <= len(at) <= 5
        assert min(apart) == pytest.approx(0.9)

    runs_clean(main())


async def _times(
    turns: list[list[Step]],
    *,
    learn: bool,
    people: int = 1,
    places: int | None = None,
    most: int = 9,
) -> list[float]:
    """How long each turn takes of sessions of so many people at the same time."""
    predict = {**GENEROUS, "learn": learn}
    async with shop(run={"max_concurrency": most}, **predict) as runtime:
        World(runtime, places=places)
        loop = asyncio.get_running_loop()

        async def one(user: str, after_s: float) -> list[float]:
            took: list[float] = []
            model = Follows([])
            await asyncio.sleep(after_s)
            async with runtime.session(model=model, user=user) as session:
                for steps in turns:
                    model.steps = [tuple(step) for step in steps]
                    began = loop.time()
                    await session.send("go")
                    took.append(loop.time() - began)
                    await asyncio.sleep(1.25)
            return took

        found = await asyncio.gather(*[one(f"u{n}", 0.3 * n) for n in range(people)])
    return [each for took in found for each in took]


@settings(max_examples=25)
@given(
    turns=st.lists(STEPS, min_size=1, max_size=2),
    seed=st.integers(0, 2**16),
    places=st.sampled_from((None, 1)),
    most=st.sampled_from((1, 2, 8)),
)
def test_wrong_predictions_take_no_time(
    turns: list[list[Step]], seed: int, places: int | None, most: int
) -> None:
    """Where every prediction is wrong each turn takes just as long as without, also where a tool has one
    place and the machine hardly more (S2-40, P-01, P-02)."""
    without = runs_clean(_times(turns, learn=False, people=2, places=places, most=most))
    with pytest.MonkeyPatch.context() as patch:
        foretelling(patch, random.Random(seed), WRONG)
        assert runs_clean(_times(turns, learn=True, people=2, places=places, most=most)) == without


@settings(max_examples=25)
@given(turns=st.lists(STEPS, min_size=1, max_size=2), seed=st.integers(0, 2**16))
def test_no_turn_takes_longer(turns: list[list[Step]], seed: int) -> None:
    """Whatever is proposed, right or wrong, no turn takes longer than without (S2-40, P-01)."""
    without = runs_clean(_times(turns, learn=False))
    with pytest.MonkeyPatch.context() as patch:
        foretelling(patch, random.Random(seed), CALLS)
        ahead = runs_clean(_times(turns, learn=True))
    assert all(after <= before + 1e-9 for after, before in zip(ahead, without, strict=True))


def test_rate_limits_are_left_to_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an instance may be sent in a minute is not used up by calls that nobody asked for: a real
    call waits no longer than without (S2-40, P-01, S0-64)."""
    sure(monkeypatch, reply=[("far", {"query": f"wrong {number}"}) for number in range(4)])

    async def main(learn: bool) -> float:
        steps = [[("far", {"query": f"q{number}"})] for number in range(4)]
        async with shop(learn=learn, **GENEROUS) as runtime:
            await add_far(runtime)
            async with runtime.session(model=Follows(steps), user="ada", tools=["far"]) as session:
                began = asyncio.get_running_loop().time()
                await session.send("go")
                return asyncio.get_running_loop().time() - began

    assert runs_clean(main(learn=True)) == runs_clean(main(learn=False))


async def add_far(runtime: Runtime) -> None:
    """An agent that one instance does, four times a minute."""

    @runtime.agent("far", effect="read", cache_ttl=60)
    async def _(query: str) -> str:
        raise AssertionError(query)

    guards = (Rates(runtime._clock, requests=4),)
    await runtime.add_instance(AgentInstance("a", "far", target=Far("a", 1.0), guards=guards))


def test_without_learning_there_is_nothing() -> None:
    """With `learn = false` nobody looks ahead: there are no hints, no timer and no file (S2-10,
    S2-43)."""

    async def main() -> None:
        async with shop(learn=False) as runtime:
            World(runtime)
            model = Follows([[("stock", {"item": "bolt"})]])
            async with runtime.session(model=model, user="ada") as session:
                await session.send("go")
                await asyncio.sleep(1)
                assert timers() == []
                assert session.hints == PerformanceHints()

    runs_clean(main())
