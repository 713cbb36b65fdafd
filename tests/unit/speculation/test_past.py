"""What hints decide of calls ahead: which wait for a result, and which need not wait for a call."""

import asyncio
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline import Runtime
from paceline.call import Call, Source
from paceline.engine.states import ConversationTurn
from paceline.path.job import Job
from paceline.predict.events import Called
from paceline.predict.moments import Moment
from paceline.predict.predictor import PerformancePredictor
from paceline.predict.session import Session
from paceline.speculation.outlook import Outlook
from paceline.speculation.speculator import Chance, Speculator
from tests.unit.speculation.test_speculation import CALLS, STEPS, played
from tests.unit.speculation.worlds import (
    GENEROUS,
    Follows,
    World,
    foretelling,
    runs_clean,
    shop,
    sure,
    told,
)

Steps = list[list[tuple[str, dict[str, Any]]]]
REPORTS = ("sales", "stock", "staff")
MODEL_S = 3.0  # of `Follows`


def add_reports(runtime: Runtime, took_s: float) -> list[str]:
    """Three tools that take so long, none of which needs another; what runs of them."""
    ran: list[str] = []

    def tool(name: str) -> None:
        @runtime.tool(effect="read", ttl_s=600, name=name)
        async def _(day: int) -> str:
            """A report of a day."""
            ran.append(name)
            await asyncio.sleep(took_s)
            return f"{name} were fine"

    for name in REPORTS:
        tool(name)
    return ran


async def mornings(
    took_s: float, *, sessions: int = 30
) -> tuple[list[float], list[ConversationTurn], list[str]]:
    """How long each session waited for three reports that are always asked for one after another."""
    waited: list[float] = []
    turns: list[ConversationTurn] = []
    async with shop() as runtime:
        ran, model = add_reports(runtime, took_s), Follows([])
        now = asyncio.get_running_loop().time
        for day in range(1_000, 1_000 + 7 * sessions, 7):
            model.steps = [((name, {"day": day}),) for name in REPORTS]
            async with runtime.session(f"s{day}", model=model, user="ada") as session:
                began = now()
                turns.append(await session.send(f"The reports of {day}, please"))
                waited.append(now() - began - 4 * MODEL_S)
            await asyncio.sleep(60)
    return waited, turns, ran


@pytest.mark.parametrize(
    ("took_s", "before", "after"),
    [
        pytest.param(4.5, 3.0, 1.5, id="slower than the model"),
        pytest.param(6.0, 6.0, 3.0, id="slow enough to leave places to others"),
        pytest.param(2.0, 0.0, 0.0, id="quicker than the model"),
    ],
)
def test_slow_reports_are_made_beside_one_another(
    took_s: float, before: float, after: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three slow reports asked for one after another, each is begun while the one before it still
    runs or is asked for, as it needs nothing of it: the wait falls from every other report to the
    first, nothing runs twice, and what is told is the same (S2-10, S2-40, P-01)."""
    supposed: list[str] = []
    plain_session = Session.supposing

    def supposing(self: Session, call: Called) -> Session:
        supposed.append(call.name)
        return plain_session(self, call)

    monkeypatch.setattr(Session, "supposing", supposing)
    past, turns, ran = runs_clean(mornings(took_s))
    assert bool(supposed) == (took_s > MODEL_S)
    assert past[-5:] == pytest.approx([after] * 5, abs=0.1)
    assert len(ran) == 3 * len(turns)
    with monkeypatch.context() as patch:
        patch.setattr(Outlook, "_look_past", lambda *_: None)
        plain, other, _ = runs_clean(mornings(took_s))
    assert plain[-5:] == pytest.approx([before] * 5, abs=0.1)
    assert [told(turn) for turn in turns] == [told(turn) for turn in other]


def test_what_was_looked_past_to_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was said to come after a call is scored as soon as it is known what did, though nobody
    looked while that call ran, as its result was there already (S2-40, S2-50)."""
    scored: list[tuple[Moment, str]] = []
    plain = PerformancePredictor.score

    def score(self: PerformancePredictor, scope: str, proposed: Any, event: Any, **at: Any) -> None:
        scored.extend((at["moment"], guess.proposal.name) for guess in proposed)
        plain(self, scope, proposed, event, **at)

    monkeypatch.setattr(PerformancePredictor, "score", score)
    runs_clean(mornings(6.0))
    reply = [(Moment.REPLY, name) for name in REPORTS]
    assert set(scored[-5:]) == {*reply, (Moment.TOOLS, "stock"), (Moment.TOOLS, "staff")}


@pytest.mark.parametrize("known", [True, False])
def test_only_companions_that_are_known_are_looked_past_to(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a call that is run ahead, others of its group that are known to come are too, with the chance
    that both do; the same call, others in no group with it, and what is not known yet are not (S2-10,
    S2-40)."""
    sure(
        monkeypatch,
        reply=[("sales", {"day": 1})],
        tools=[("sales", {"day": 1}), ("total", {}), ("staff", {"day": 1}), ("stock", {"day": 1})],
    )
    monkeypatch.setattr(PerformancePredictor, "takes_s", lambda *_: 4.0)
    monkeypatch.setattr(
        PerformancePredictor,
        "known",
        lambda *_, moment: known or moment is Moment.REPLY,
    )
    groups = [("sales", "staff"), ("sales", "sales"), ("staff", "stock", "total")]
    monkeypatch.setattr(PerformancePredictor, "parallel_groups", lambda *_: groups)
    launched: list[tuple[str, float]] = []
    plain = Speculator.launch

    def launch(self: Speculator, call: Call, job: Job, chance: Chance) -> str:
        launched.append((call.name, chance.probability))
        return plain(self, call, job, chance)

    monkeypatch.setattr(Speculator, "launch", launch)

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            add_reports(runtime, 4.0)
            runtime.tool(effect="read", ttl_s=600)(total)
            async with runtime.session(model=Follows([]), user="ada") as session:
                await session.send("go")

    async def total() -> int:
        return 1

    runs_clean(main())
    both = [("staff", pytest.approx(0.95 * 0.95))]
    assert launched == [("sales", 0.95), *(both if known else [])]


def test_a_habit_that_breaks_off_is_not_looked_past_for_long() -> None:
    """Once the second report is never asked for any more, few are made in vain, and then none
    (S2-40, P-01)."""

    async def main() -> None:
        async with shop() as runtime:
            ran, model = add_reports(runtime, 6.0), Follows([])
            made: list[int] = []
            for number in range(60):
                day = 1_000 + 7 * number
                names = REPORTS if number < 30 else REPORTS[:1]
                model.steps = [((name, {"day": day}),) for name in names]
                async with runtime.session(model=model, user="ada") as session:
                    await session.send(f"The reports of {day}, please")
                await asyncio.sleep(60)
                made.append(len(ran))
            in_vain = made[-1] - made[29] - 30
            assert 0 < in_vain <= 20
            assert made[-1] - made[-10] == 9

    runs_clean(main())


def held(monkeypatch: pytest.MonkeyPatch, **needs: str) -> None:
    """Has predictors know that these tools need those, and say that `total` comes next as soon as
    something was asked for."""
    sure(monkeypatch, tools=[("total", {})], reply=[("total", {})])
    plain = PerformancePredictor.propose

    def propose(self: PerformancePredictor, session: Any, *args: Any, **options: Any) -> Any:
        return plain(self, session, *args, **options) if session.course.turn else []

    monkeypatch.setattr(PerformancePredictor, "propose", propose)
    monkeypatch.setattr(
        PerformancePredictor, "needs", lambda _, __, name, others: needs.get(name) in others
    )


@pytest.mark.parametrize(("needed", "early"), [("stock", 0), ("buy", 1), ("total", 1)])
def test_what_needs_a_result_waits_for_it(
    needed: str, early: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a tool runs whose result a likely call needs, that is not run ahead; it is once the result
    is there, and calls that need another tool's at once (S2-10, S2-40)."""
    held(monkeypatch, total=needed)

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            world = World(runtime)
            steps: Steps = [[("stock", {"item": "bolt"})], [("total", {})]]
            async with runtime.session(model=Follows(steps), user="ada") as session:
                going = asyncio.create_task(session.send("go"))
                await asyncio.sleep(3.5)  # half of the first tool
                assert world.ran["total"] == early
                await asyncio.sleep(1)
                assert world.ran["total"] == 1
                turn = await going
        assert turn.tool_calls[1].source == Source.SPECULATED

    runs_clean(main())


def test_hints_are_there_from_the_first_look() -> None:
    """In a session in which the user speaks at once, the first look knows how long tools take, which
    take much and which never needed one another (S2-10, V-38)."""

    async def main() -> None:
        async with shop() as runtime:
            add_reports(runtime, 6.0)
            model = Follows([])
            for day in range(5):
                model.steps = [((name, {"day": day}),) for name in REPORTS]
                async with runtime.session(model=model, user="ada") as session:
                    await session.send("go")
                    await asyncio.sleep(60)
            async with runtime.session(model=model, user="ada") as session:
                going = asyncio.create_task(session.send("go"))
                await asyncio.sleep(1)
                hints = session.hints
                await going
            assert hints.expected_ns == dict.fromkeys(REPORTS, 6_000_000_000)
            assert set(hints.resource_intensive_tools) == set(REPORTS)
            assert hints.parallel_execution_groups == (tuple(sorted(REPORTS)),)

    runs_clean(main())


@pytest.mark.parametrize(("at_once", "slow", "quick"), [(3, 2, 1), (2, 1, 1), (1, 1, 0), (9, 4, 1)])
def test_slow_launches_leave_a_place_to_the_others(
    at_once: int, slow: int, quick: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is run ahead for one session at once, tools that take much leave one place to the
    others, if there are several (S2-10, S2-40)."""
    days: list[tuple[str, Any]] = [("sales", {"day": day}) for day in range(4)]
    sure(monkeypatch, idle=[*days, ("total", {})])
    monkeypatch.setattr(
        PerformancePredictor, "takes_s", lambda *args: 1.0 if args[-1] == "total" else 60.0
    )

    async def main() -> None:
        async with shop(**{**GENEROUS, "at_once": at_once}) as runtime:
            world, ran = World(runtime), add_reports(runtime, 60.0)
            async with runtime.session(model=Follows([]), user="ada"):
                await asyncio.sleep(1)
                assert (len(ran), world.ran["total"]) == (slow, quick)

    runs_clean(main())


def test_the_same_launch_twice_takes_the_place_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes much and is run ahead once more while it runs counts once, so that its companion is
    run ahead beside it (S2-10, S2-40)."""
    sales: list[tuple[str, Any]] = [("sales", {"day": 1})]
    sure(monkeypatch, idle=sales, reply=sales, tools=[("stock", {"day": 1})])
    monkeypatch.setattr(PerformancePredictor, "takes_s", lambda *_: 60.0)
    monkeypatch.setattr(PerformancePredictor, "parallel_groups", lambda *_: [REPORTS])

    async def main() -> None:
        async with shop(**{**GENEROUS, "at_once": 3}) as runtime:
            ran = add_reports(runtime, 60.0)
            async with runtime.session(model=Follows([]), user="ada") as session:
                await asyncio.sleep(1)
                assert ran == ["sales"]
                await session.send("go")
                assert ran == ["sales", "stock"]

    runs_clean(main())


@settings(max_examples=30)
@given(turns=st.lists(STEPS, min_size=1, max_size=3), seed=st.integers(0, 2**16))
def test_hints_change_nothing_that_is_seen(turns: list[Steps], seed: int) -> None:
    """Where every tool takes much by experience and all that only reads is beside one another, so that
    all is looked past, started in another order and bounded, a session shows the same as without, and
    what may not be run ahead is run as often as it was asked for (S2-10, S2-40, P-02)."""
    without, ran, _ = runs_clean(played(turns, speculate=False))
    with pytest.MonkeyPatch.context() as patch:
        rng = random.Random(seed)
        foretelling(patch, rng, CALLS)
        patch.setattr(PerformancePredictor, "takes_s", lambda *_: rng.choice((1.0, 9.0)))
        patch.setattr(
            PerformancePredictor,
            "parallel_groups",
            lambda *args: [(*args[-1], *args[-1])],
        )
        ahead, ran_ahead, _ = runs_clean(played(turns, speculate=True))
    assert ahead == without
    for name in ("buy", "swap", "shake", "ask_a_friend", "secret", "now"):
        assert ran_ahead[name] == ran[name]
