"""Habits of real sessions: learnt, tried in silence, used, lost, and never anybody else's."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline import Runtime
from paceline.call import Call, Outcome, Priority, Source
from paceline.engine.session import Session
from paceline.engine.states import ConversationTurn, ResourceLimits, ToolStatus
from paceline.predict.events import Said
from paceline.predict.ledger import Figures
from paceline.predict.moments import Moment
from paceline.predict.predictor import PerformancePredictor
from paceline.resources import ResourceUsage
from paceline.speculation.learnt import learnt_of
from paceline.tools.measured import charge
from tests.unit.sessions.quiet import a_runtime, seen
from tests.unit.speculation.worlds import (
    GENEROUS,
    Follows,
    World,
    runs_clean,
    shop,
    sure,
)

Step = list[tuple[str, dict[str, Any]]]


class Orders:
    """Customers ask for their orders: each is looked up, and then one thing of it."""

    def __init__(self, runtime: Runtime) -> None:
        self.ran: Counter[str] = Counter()
        self.model = Follows([])
        self.runtime = runtime
        self.number = itertools.count(1_000, 7)
        for name in ("parcel", "refund", "invoice"):
            runtime.tool(effect="read", ttl_s=600, name=name)(self._tool(name))

        @runtime.tool(effect="read", ttl_s=600)
        async def order(number: int) -> dict[str, int]:
            """An order."""
            self.ran["order"] += 1
            await asyncio.sleep(1)
            return {"number": number, "parcel": number * 3, "refund": number * 5}

    def _tool(self, name: str) -> Callable[..., Any]:
        async def work(id: int) -> str:  # noqa: A002 (what it is called by)
            self.ran[name] += 1
            await asyncio.sleep(1)
            return f"{name} {id}"

        return work

    async def served(self, then: str, *, user: str | None = "ada") -> ConversationTurn:
        """A session in which one customer asks for one order."""
        async with self.runtime.session(model=self.model, user=user) as session:
            return await self.asked(session, then)

    async def asked(self, session: Session, then: str) -> ConversationTurn:
        """The same in a session that is open."""
        number = next(self.number)
        times = 3 if then == "parcel" else 5
        self.model.steps = [
            (("order", {"number": number}),),
            ((then, {"id": number * times}),),
        ]
        return await session.send(f"What about order {number}?")

    async def figures(self) -> dict[str, Figures]:
        return dict((await self.runtime._parts.predictions()).figures())


@asynccontextmanager
async def orders(**predict: Any) -> AsyncIterator[Orders]:
    async with shop(**predict) as runtime:
        yield Orders(runtime)


def launched(found: list[tuple[Call, Outcome]]) -> list[str]:
    return [call.name for call, _ in found if call.priority is Priority.SPECULATIVE]


def test_a_habit_is_tried_in_silence_and_then_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before enough proposals were scored to know what they are worth nothing is launched; then the
    habit's calls are there when they are asked for, and each session is seconds shorter (S2-40,
    S2-50, S2-51, P-01)."""
    known: list[bool] = []
    plain = PerformancePredictor.known

    def noted(*args: Any, **options: Any) -> bool:
        known.append(plain(*args, **options))
        return known[-1]

    monkeypatch.setattr(PerformancePredictor, "known", noted)

    async def main() -> None:
        async with orders() as world:
            found = seen(world.runtime)
            sources: list[list[str | None]] = []
            for _ in range(30):
                turn = await world.served("parcel")
                sources.append([call.source for call in turn.tool_calls])
                assert not launched(found) or any(known)
            assert not any(known[:5])
            assert sources[0] == sources[1] == [Source.EXECUTED] * 2
            assert sources[-1] == [Source.SPECULATED] * 2
            figures = await world.figures()
            assert figures["parcel"].state == "on"
            assert figures["parcel"].used >= 15
            assert figures["parcel"].saved_s == pytest.approx(figures["parcel"].used)
            assert figures["parcel"].recall is not None
            assert 0.5 < figures["parcel"].recall < 1

    runs_clean(main())


def test_shadow_mode_scores_and_launches_nothing() -> None:
    """With `speculate = false` nothing is ever launched, while proposals are counted and scored: the
    hints say what would come, and the figures how much of it was foreseen (S2-10, S2-40)."""

    async def main() -> None:
        async with orders(learn=True, speculate=False) as world:
            found = seen(world.runtime)
            for _ in range(30):
                await world.served("parcel")
            assert launched(found) == []
            assert world.ran == {"order": 30, "parcel": 30}
            figures = (await world.figures())["parcel"]
            assert (figures.state, figures.launched) == ("shadow", 0)
            assert figures.proposed >= 25
            assert figures.recall is not None
            assert figures.recall > 0.5
            async with world.runtime.session(model=world.model, user="ada") as session:
                world.model.steps = []
                asking = asyncio.create_task(session.send("What about order 4242?"))
                await asyncio.sleep(1)
                best = session.hints.predicted_tool_sequence[0]
                assert (best.tool_name, best.arguments) == ("order", '{"number":4242}')
                assert best.probability > 0.7
                await asking

    runs_clean(main())


MOST_IN_VAIN = 4


def test_a_habit_that_flips_is_soon_left_alone_and_found_again() -> None:
    """After 60 sessions of one habit it flips: of the old one 4 calls at most are made in vain, and
    none any more once it is known to be over; when it returns it is launched again (S2-40, S2-51,
    P-01)."""

    async def main() -> None:
        async with orders() as world:
            for _ in range(60):
                await world.served("parcel")
            assert world.ran["parcel"] == 60
            for _ in range(40):
                await world.served("invoice")
                await asyncio.sleep(5)
            in_vain = world.ran["parcel"] - 60
            assert 0 < in_vain <= MOST_IN_VAIN
            before, sources = world.ran["parcel"], []
            for _ in range(30):
                turn = await world.served("parcel")
                sources.append(turn.tool_calls[1].source)
                await asyncio.sleep(5)
            assert sources[-5:] == [Source.SPECULATED] * 5
            assert world.ran["parcel"] - before == 30

    runs_clean(main())


def test_a_tool_that_loses_is_off_and_probed_until_it_pays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where what is proposed as sure never comes, the tool is off after a bounded loss, is tried again by
    5 launches at most after each pause, and is on again when it comes true (S2-40, P-01)."""
    wrong = itertools.count()
    calls: list[tuple[str, Any]] = []
    sure(monkeypatch, reply=calls)

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            world, model = World(runtime), Follows([])
            predictions = await runtime._parts.predictions()
            states: list[str] = []
            async with runtime.session(model=model, user="ada") as session:

                async def turn(proposed: str, asked: str) -> None:
                    calls[:] = [("stock", {"item": proposed})]
                    model.steps = [(("stock", {"item": asked}),)]
                    await session.send("go")
                    await asyncio.sleep(30)
                    states.append(predictions.figures()["stock"].state)

                for _ in range(40):
                    await turn(f"wrong {next(wrong)}", f"right {next(wrong)}")
                off = states.index("off")
                in_vain = world.ran["stock"] - 40
                assert off <= 18
                assert in_vain <= off + 1 + 5 * 8
                assert states[off:] == ["off"] * (40 - off)
                for _ in range(40):
                    item = f"right {next(wrong)}"
                    await turn(item, item)
                assert states[-1] == "on"

    runs_clean(main())


def test_habits_are_ones_own() -> None:
    """What ada's sessions did is proposed and launched in none of bob's, nor in hers once it is
    forgotten (S2-51, P-01)."""

    async def main() -> None:
        async with orders() as world:
            for _ in range(30):
                await world.served("parcel")
            found = seen(world.runtime)
            async with world.runtime.session(model=world.model, user="bob") as session:
                for _ in range(2):
                    world.model.steps = []
                    await session.send("What about order 4242?")
                    await asyncio.sleep(5)
                    assert session.hints.predicted_tool_sequence == ()
            predictions = await world.runtime._parts.predictions()
            for one in learnt_of(predictions.predictor.save()):
                predictions.predictor.forget(one.circle)
            async with world.runtime.session(model=world.model, user="ada") as session:
                await session.send("What about order 4242?")
                await asyncio.sleep(5)
                assert session.hints.predicted_tool_sequence == ()
            assert launched(found) == []

    runs_clean(main())


@pytest.mark.parametrize("share", ["tenant", "all"])
def test_habits_are_shared_where_that_is_wanted(share: str) -> None:
    """With `share` wider than a user, what colleagues did is there for a new one, and their results are
    not (S2-51)."""

    async def main() -> None:
        async with shop(share=share) as runtime:
            world = Orders(runtime)
            options: dict[str, Any] = {"model": world.model, "tenant": "acme"}
            for number in range(30):
                async with runtime.session(user=f"u{number % 3}", **options) as session:
                    await world.asked(session, "parcel")
            async with runtime.session(user="new", **options) as session:
                turn = await world.asked(session, "parcel")
            assert [call.source for call in turn.tool_calls] == [Source.SPECULATED] * 2
            assert world.ran["order"] == 31

    runs_clean(main())


def test_sessions_of_nobody_learn_for_themselves_alone() -> None:
    """A session without a user learns while it lasts, and uses that; when it is over nothing of it is
    left, not even where what was learnt is kept (S2-51)."""

    async def main() -> None:
        async with orders() as world:
            predictions = await world.runtime._parts.predictions()
            async with world.runtime.session(model=world.model) as session:
                sources: list[str | None] = []
                for _ in range(30):
                    turn = await world.asked(session, "parcel")
                    sources += [call.source for call in turn.tool_calls]
                assert sources[-1] == Source.SPECULATED
                (one,) = learnt_of(predictions.predictor.save())
                assert one.circle == f"session {session.id}"
            assert learnt_of(predictions.predictor.save()) == []
            async with world.runtime.session(model=world.model) as session:
                world.model.steps = []
                await session.send("What about order 4242?")
                await asyncio.sleep(5)
                assert session.hints.predicted_tool_sequence == ()

    runs_clean(main())


# -- moments ------------------------------------------------------------------------------------


def test_the_next_is_launched_while_a_slow_tool_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """While tools run, what the model is likely to ask for after them is run ahead (S2-40, P-01)."""
    said = sure(monkeypatch, tools=[("total", {})])

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            world = World(runtime)
            steps: list[Step] = [[("stock", {"item": "bolt"})], [("total", {})]]
            async with runtime.session(model=Follows(steps), user="ada") as session:
                going = asyncio.create_task(session.send("go"))
                await asyncio.sleep(3.5)
                assert world.ran == {"stock": 1, "total": 1}
                turn = await going
        assert [call.source for call in turn.tool_calls] == [Source.EXECUTED, Source.SPECULATED]
        assert (Moment.TOOLS, "total") in said

    runs_clean(main())


def test_a_session_begins_with_its_habits() -> None:
    """What sessions of a user always begin with is run ahead before the first word is said (S2-40,
    S2-43)."""

    async def main() -> None:
        async with shop() as runtime:
            world, model = World(runtime), Follows([])
            for _ in range(30):
                model.steps = [(("total", {}),), (("buy", {"item": "bolt"}),)]
                async with runtime.session(model=model, user="ada") as session:
                    await asyncio.sleep(1)
                    await session.send("Good morning")
            before = world.ran["total"]
            async with runtime.session(model=model, user="ada") as session:
                await asyncio.sleep(2)
                assert world.ran["total"] == before + 1
                model.steps = [(("total", {}),)]
                turn = await session.send("Good morning")
                assert turn.tool_calls[0].source == Source.SPECULATED
                assert world.ran["total"] == before + 1

    runs_clean(main())


def test_what_waits_for_the_user_is_made_anew_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the user is silent, what was run ahead is made anew before it is too old to be served, twice
    at most; after that there is no timer, and in between there is one (S2-40, S2-43)."""
    sure(monkeypatch, idle=[("total", {})])

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            world, model = World(runtime), Follows([])
            async with runtime.session(model=model, user="ada") as session:
                ran: list[int] = []
                for _ in range(30):
                    await asyncio.sleep(100)
                    ran.append(world.ran["total"])
                assert ran == [1] * 5 + [2] * 6 + [3] * 19
                await session.send("go")
                await asyncio.sleep(5)
                assert world.ran["total"] == 4

    runs_clean(main())


def test_a_refreshed_result_is_there_after_the_first_is_too_old(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who writes again after more than the lifetime of a result finds the new one (S2-40, S2-43)."""
    sure(monkeypatch, idle=[("total", {})])

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            World(runtime)
            model = Follows([[("total", {})]])
            async with runtime.session(model=model, user="ada") as session:
                await asyncio.sleep(900)
                turn = await session.send("go")
            assert turn.tool_calls[0].source == Source.SPECULATED

    runs_clean(main())


@given(
    ttl_s=st.integers(5, 60),
    takes_s=st.floats(0.1, 2.0),
    slower=st.floats(0.5, 1.4),
    asked=st.booleans(),
    thought=st.floats(0.5, 1.5),
)
@settings(max_examples=40, deadline=None)
def test_what_waits_for_the_user_is_never_gone_before_it_is_made_anew(
    ttl_s: int, takes_s: float, slower: float, asked: bool, thought: float
) -> None:
    """What was run ahead is there at each moment until it was made anew twice, and what a turn asked
    for as well: each is served until the next is there, also where that takes longer than mostly, or
    than is thought (S2-40, S2-43)."""

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            loop = asyncio.get_running_loop()
            made: list[float] = []

            @runtime.tool(effect="read", ttl_s=ttl_s)
            async def look() -> int:
                await asyncio.sleep(takes_s * (slower if made else 1.0))
                made.append(loop.time())
                return len(made)

            async with runtime.session(model=Follows([[("look", {})]]), user="ada") as session:
                if asked:
                    await session.send("go")
                left_s = ttl_s - 3 if asked else ttl_s
                await asyncio.sleep(300)
            gaps = [after - there - ttl_s for there, after in itertools.pairwise(made)]
            if asked and left_s < 1.5 * max(1.0, thought) * takes_s:
                gaps = gaps[1:]  # there was no time for it
            assert 3 <= len(made) <= 3 + asked
            assert max(gaps) <= 0, made

    with pytest.MonkeyPatch.context() as patch:
        sure(patch, idle=[("look", {})])
        patch.setattr(PerformancePredictor, "takes_s", lambda *_: thought * takes_s)
        runs_clean(main())


def test_who_writes_again_is_looked_at_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was run ahead for the next message, and is to be made anew much later, keeps nobody from
    looking ahead in the turn that follows (S2-40, S2-43)."""
    said = sure(monkeypatch, idle=[("total", {})], reply=[("stock", {"item": "bolt"})])

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            World(runtime)
            model = Follows([])
            async with runtime.session(model=model, user="ada") as session:
                for _ in range(3):
                    await asyncio.sleep(5)
                    model.steps = [(("stock", {"item": "bolt"}),)]
                    turn = await session.send("go")
                    assert turn.tool_calls[0].source in {Source.HOT, Source.SPECULATED}
                await asyncio.sleep(5)
        moments = [moment for moment, _ in said]
        assert moments == [Moment.IDLE, Moment.REPLY, Moment.REPLY] * 3 + [Moment.IDLE]

    runs_clean(main())


# -- hints --------------------------------------------------------------------------------------


def test_hints_say_all_four_things() -> None:
    """Hints name the calls that are likely to come with arguments, probability and time, those of
    them that may be run ahead, tools that never needed one another, and those that take long; the
    session and its context tell the same (S2-10, V-38)."""

    async def main() -> None:
        async with shop() as runtime:
            World(runtime)

            @runtime.tool(effect="read", ttl_s=1)
            async def report(of: str) -> str:
                await asyncio.sleep(9)
                return of

            steps: list[Step] = [
                [("stock", {"item": "bolt"}), ("total", {})],
                [("report", {"of": "all"})],
                [("buy", {"item": "bolt"})],
            ]
            model = Follows([])
            async with runtime.session(model=model, user="ada") as session:
                for _ in range(12):
                    model.steps = [tuple(step) for step in steps]
                    await session.send("The usual, please")
                    await asyncio.sleep(60)
                model.steps = [tuple(step) for step in steps]
                going = asyncio.create_task(session.send("The usual, please"))
                await asyncio.sleep(1)
                first = session.hints
                assert session.context.performance_hints is first
                likely = {each.tool_name: each for each in first.predicted_tool_sequence}
                assert likely["stock"].arguments == '{"item":"bolt"}'
                assert likely["stock"].expected_ns == 1_000_000_000
                assert 0.3 < likely["stock"].probability <= 1
                assert likely["stock"] in first.cache_warming_candidates
                names: list[str] = []
                while "buy" not in names and not going.done():
                    await asyncio.sleep(0.5)  # until the model is asked what is bought
                    names = [each.tool_name for each in session.hints.predicted_tool_sequence]
                    warm = [each.tool_name for each in session.hints.cache_warming_candidates]
                    assert "buy" not in warm
                assert "buy" in names
                await going
                await asyncio.sleep(1)
                groups = session.hints.parallel_execution_groups
                assert any({"stock", "total"} <= set(group) for group in groups)
                assert session.hints.resource_intensive_tools == ("report",)

    runs_clean(main())


def test_what_sessions_did_tells_how_good_tools_are() -> None:
    """Of live sessions is learnt which calls follow which, how long they take, and how many of them
    succeed (S2-16, S2-17, V-38)."""

    async def main() -> None:
        async with shop() as runtime:
            World(runtime)
            times = itertools.count()

            @runtime.tool(effect="read")
            async def shaky() -> str:
                await asyncio.sleep(2)
                if next(times) % 2:
                    raise ValueError("broken")
                return "fine"

            model = Follows([])
            for _ in range(20):
                model.steps = [(("now", {}),), (("shaky", {}),)]
                limits = ResourceLimits(max_tool_retries=0)
                async with runtime.session(model=model, user="ada", limits=limits) as session:
                    await session.send("How is it?")
                    await asyncio.sleep(1)
            predictor = (await runtime._parts.predictions()).predictor
            known = predictor.session("user ada")
            known.hear(Said("How is it?"))
            pattern = predictor.predict_execution_pattern(known)
            assert pattern is not None
            assert pattern.tool_sequence == ("now", "shaky")
            assert pattern.avg_execution_time == pytest.approx(3, abs=0.1)
            assert pattern.success_rate == pytest.approx(0.5, abs=0.2)
            assert pattern.frequency >= 10

    runs_clean(main())


def test_a_session_says_what_is_likely_until_its_turn_ends() -> None:
    """`session.pattern` has the calls to come, and what they took of the machine: added up, but for the
    memory, which is that of the largest (S2-17, S2-50)."""

    async def main() -> None:
        async with shop() as runtime:

            @runtime.tool(effect="read")
            async def look() -> str:
                await asyncio.sleep(2)
                charge(ResourceUsage(2 * 10**9, 5_000_000, 100))
                return "fine"

            @runtime.tool(effect="read")
            async def dig() -> str:
                await asyncio.sleep(1)
                charge(ResourceUsage(10**9, 3_000_000, None, 70))
                return "deep"

            model = Follows([])
            async with runtime.session(model=model, user="ada") as session:
                patterns = [session.pattern]
                for _ in range(20):
                    model.steps = [(("look", {}),), (("dig", {}),)]
                    await session.send("How is it?")
                    await asyncio.sleep(1)
                going = asyncio.create_task(session.send("How is it?"))
                await asyncio.sleep(1)
                patterns.append(session.pattern)
                await going
            first, pattern = patterns
            assert first is None
            assert pattern is not None
            assert pattern.tool_sequence == ("look", "dig")
            assert pattern.avg_execution_time == pytest.approx(3, abs=0.1)
            assert pattern.success_rate == pytest.approx(1)
            assert pattern.frequency >= 10
            assert pattern.resource_usage == {
                "cpu_s": pytest.approx(3),
                "peak_memory_bytes": pytest.approx(5_000_000),
                "disk_io_bytes": pytest.approx(100),
                "network_bytes": pytest.approx(70),
            }

    runs_clean(main())


def test_a_tool_that_runs_says_when_it_may_be_over() -> None:
    """Of a tool that ran before it is known how long it takes: while it runs, `session.active_tools` has
    when it may be over; of one that never ran it has not (S2-07, S2-50)."""

    async def main() -> None:
        async with shop() as runtime:

            @runtime.tool(effect="read")
            async def rates(day: str) -> str:
                del day
                await asyncio.sleep(4)
                return "rates"

            model, left_s = Follows([]), list[float | None]()
            for day in range(5):
                model.steps = [(("rates", {"day": f"d{day}"}),)]
                async with runtime.session(model=model, user="ada") as session:
                    going = asyncio.create_task(session.send("Rates?"))
                    await asyncio.sleep(4)  # the model says which for three
                    (one,) = session.active_tools.values()
                    assert (one.status, one.started_ns is None) == (ToolStatus.RUNNING, False)
                    if one.estimated_ns is None or one.started_ns is None:
                        left_s.append(None)
                    else:
                        left_s.append((one.estimated_ns - one.started_ns) / 1e9)
                    await going
            assert left_s[0] is None
            assert left_s[-1] == pytest.approx(4, abs=0.1)

    runs_clean(main())


def test_what_nobody_keeps_is_brought_up_to_date_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that keeps nothing takes its news into account every 30 seconds as others do, and
    without news does nothing (S2-10, S2-51)."""
    updated: list[float] = []
    update = PerformancePredictor.update_predictions

    def noted(predictor: PerformancePredictor) -> bool:
        updated.append(asyncio.get_running_loop().time())
        return update(predictor)

    monkeypatch.setattr(PerformancePredictor, "update_predictions", noted)

    async def main() -> None:
        async with shop() as runtime:
            World(runtime)
            async with runtime.session(model=Follows([]), user="ada") as session:
                for _ in range(10):
                    await session.send("Hello")
                    await asyncio.sleep(7)
                predictor = (await runtime._parts.predictions()).predictor
                assert len(updated) in {2, 3}
                await asyncio.sleep(40)
                assert not predictor.update_due
                before = len(updated)
                await asyncio.sleep(1_000)
                assert len(updated) == before

    runs_clean(main())


def test_each_result_is_kept_for_as_long_as_its_tool_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made ahead is served for the time that its tool declares, and not a second longer than
    any other result (P-03, S2-40)."""
    proposed: list[tuple[str, dict[str, Any]]] = [("short", {}), ("long", {})]
    sure(monkeypatch, reply=proposed)

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:

            @runtime.tool(effect="read", ttl_s=10)
            async def short() -> str:
                await asyncio.sleep(1)
                return "short"

            @runtime.tool(effect="read", ttl_s=600)
            async def long() -> str:
                await asyncio.sleep(1)
                return "long"

            model = Follows([])
            async with runtime.session(model=model, user="ada") as session:
                await session.send("go")
                proposed.clear()
                await asyncio.sleep(30)
                model.steps = [(("short", {}), ("long", {}))]
                turn = await session.send("go")
            found = {call.tool_name: call.source for call in turn.tool_calls}
            assert found == {"short": Source.EXECUTED, "long": Source.SPECULATED}

    runs_clean(main())


def test_what_is_there_already_is_in_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call that is proposed again while its result is there runs nothing, costs nothing and is told
    to no observer (S2-40, P-02)."""
    sure(monkeypatch, reply=[("total", {})])

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            World(runtime)
            found = seen(runtime)
            async with runtime.session(model=Follows([]), user="ada") as session:
                for _ in range(5):
                    await session.send("go")
            assert launched(found) == ["total"]
            figures = (await runtime._parts.predictions()).figures()["total"]
            assert (figures.proposed, figures.launched) == (5, 1)

    runs_clean(main())


def test_what_is_public_is_known_to_who_is_new() -> None:
    """A habit of several with tools whose results are the same for everybody is used for a user who
    never had a session; one with other tools is not (S2-51)."""

    async def sources(scope: str | None) -> list[str]:
        async with shop(**GENEROUS) as runtime:

            async def rates(day: str) -> str:
                """The rates of a day."""
                await asyncio.sleep(1)
                return f"rates of {day}"

            options: dict[str, Any] = {} if scope is None else {"scope": scope}
            runtime.tool(effect="read", ttl_s=5, **options)(rates)
            model = Follows([])

            async def served(user: str) -> ConversationTurn:
                model.steps = [(("rates", {"day": "today"}),)]
                async with runtime.session(model=model, user=user) as session:
                    turn = await session.send("what are the rates?")
                await asyncio.sleep(60)  # nothing is kept for the next
                return turn

            for number in range(30):
                await served(("ada", "eve")[number % 2])
            return [call.source for call in (await served("bob")).tool_calls]

    async def main() -> None:
        assert await sources("global") == ["speculated"]
        assert await sources(None) == ["executed"]

    runs_clean(main())


def test_a_name_that_is_public_elsewhere_is_ones_own_here() -> None:
    """What a user gives to a tool of his own is never run ahead for another, though a tool of the same
    name is the same for everybody in the other's sessions and was in earlier ones (S2-51)."""

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            others = a_runtime()

            @others.tool(effect="read", ttl_s=5, name="lookup")
            async def own(key: str) -> str:
                await asyncio.sleep(1)
                return f"secret of {key}"

            @runtime.tool(effect="read", ttl_s=5, scope="global", name="lookup")
            async def lookup(key: str) -> str:
                await asyncio.sleep(1)
                return f"what all know of {key}"

            found = seen(runtime)
            model = Follows([])

            async def served(user: str, key: str, **tools: Any) -> ConversationTurn:
                model.steps = [(("lookup", {"key": key}),)]
                async with runtime.session(model=model, user=user, **tools) as session:
                    turn = await session.send("look it up")
                await asyncio.sleep(60)
                return turn

            await served("eve", "paris")
            for _ in range(30):
                await served("bob", "iban-12", tools=[own])
            turn = await served("bob", "iban-12", tools=[own])
            assert [call.source for call in turn.tool_calls] == ["speculated"]
            for _ in range(5):
                await served("carol", "rome")
            ahead = [call for call, _ in found if call.priority is Priority.SPECULATIVE]
            assert {call.caller.user for call in ahead} == {"bob"}

    runs_clean(main())
