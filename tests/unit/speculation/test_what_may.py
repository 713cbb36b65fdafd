"""What may be run ahead, whoever proposes what; and who gets to see it."""

import asyncio
import random
from collections import Counter
from typing import Any, Final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline import Effect, Plan, Runtime
from paceline.call import Call, Caller, Outcome, Priority, Source
from paceline.engine.states import ResourceLimits
from paceline.errors import BudgetExceededError
from paceline.path import Job
from paceline.predict.budget import Budget
from paceline.predict.ledger import Ledger
from paceline.speculation.speculator import Chance, Speculator
from paceline.testing.virtual_time import run
from paceline.tools.function import ToolOptions
from tests.unit.sessions.quiet import seen
from tests.unit.speculation.worlds import (
    GENEROUS,
    Follows,
    World,
    runs_clean,
    shop,
    sure,
    with_prediction,
)
from tests.unit.test_call_path import Bench

CALM_S: Final = 5.0
TOOLS = st.lists(
    st.builds(
        ToolOptions,
        effect=st.sampled_from(("unknown", "pure", "read", "write")),
        ttl_s=st.sampled_from((0.0, 60.0, None)),
        approval=st.booleans(),
        outside=st.booleans(),
        cost_usd=st.sampled_from((0.0, 0.01)),
    ),
    min_size=1,
    max_size=6,
)
ARGUMENTS = st.sampled_from(
    [{"item": "bolt"}, {}, {"item": 7}, {"item": "bolt", "more": 1}, {"item": None}, {"x": [{}]}]
)


def tools_of(runtime: Runtime, options: list[ToolOptions]) -> Counter[str]:
    """Registers a tool for each; what ran."""
    ran: Counter[str] = Counter()

    def add(name: str, declared: ToolOptions) -> None:
        own = declared.copy()
        own["name"] = name
        if own.get("effect") in {"unknown", "write"}:
            own["ttl_s"] = 0.0

        @runtime.tool(**own)
        async def work(item: str) -> str:
            ran[name] += 1
            await asyncio.sleep(1)
            return item

    for number, each in enumerate(options):
        add(f"tool{number}", each)
    return ran


def launched(found: list[tuple[Call, Outcome]]) -> list[Call]:
    return [call for call, _ in found if call.priority is Priority.SPECULATIVE]


@given(
    options=TOOLS, arguments=ARGUMENTS, refused=st.sets(st.integers(0, 5)), outside=st.booleans()
)
def test_only_what_changes_nothing_and_is_kept_is_launched(
    options: list[ToolOptions], arguments: dict[str, Any], refused: set[int], outside: bool
) -> None:
    """Whatever is proposed, a call is launched if, and only if, it is pure or read, its result is kept,
    nobody has to approve it, it stays inside unless that is allowed, it costs nothing unless that is
    allowed, and the tool takes its arguments (S2-40, P-01, P-02, security case 97)."""
    proposed = [(f"tool{number}", arguments) for number in range(len(options))]
    proposed += [("nobody", {}), ("", {})]
    approve = [f"tool{number}" for number in refused]

    async def main() -> None:
        async with shop(**GENEROUS, outside=outside) as runtime:
            ran, found = tools_of(runtime, options), seen(runtime)
            async with runtime.session(model=Follows([]), user="ada", approve=approve) as session:
                await session.send("go")
                await asyncio.sleep(CALM_S)
        may = {
            f"tool{number}"
            for number, each in enumerate(options)
            if each.get("effect") in {"pure", "read"}
            and each.get("ttl_s") != 0
            and not each.get("approval")
            and number not in refused
            and (outside or not each.get("outside"))
            and not each.get("cost_usd")
            and arguments == {"item": "bolt"}
        }
        assert set(ran) == may
        for call in launched(found):
            assert call.name in may
            assert call.plan.effect.repeatable
            assert call.plan.cacheable

    with pytest.MonkeyPatch.context() as patch:
        sure(patch, idle=proposed[:6], reply=proposed)
        runs_clean(main())


class Files:
    """An agent that decides by call what it does."""

    def __init__(self, ran: list[str]) -> None:
        self.ran = ran

    def plan(self, query: str, **_: object) -> Plan:
        """By its words."""
        effect = Effect.write("x") if query == "change" else Effect.read("x")
        kept_s = 0.0 if query.endswith("now") else 60.0
        return Plan(effect, kept_s, outside="outside" in query)

    async def run(self, query: str, **_: object) -> str:
        """What was asked."""
        self.ran.append(query)
        return query


def test_what_an_agent_says_of_the_very_call_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of an agent that decides by call, those calls alone are launched of which it says that they
    change nothing and stay inside (S2-40, security case 97)."""
    queries = ["look", "look outside", "change", "look at it now"]
    sure(monkeypatch, reply=[("files", {"query": query}) for query in queries])
    ran: list[str] = []

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            runtime.registry.add_object("files", Files(ran))
            async with runtime.session(model=Follows([]), user="ada", tools=["files"]) as session:
                await session.send("go")
                await asyncio.sleep(CALM_S)
        assert ran == ["look"]

    runs_clean(main())


def test_a_question_is_never_put_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tool that is a question to the user is neither run ahead nor put to anybody (S2-40)."""
    sure(monkeypatch, reply=[("ask", {"text": "which?"})], idle=[("ask", {"text": "which?"})])

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:

            @runtime.tool(effect="read", ttl_s=60, question=True)
            async def ask(text: str) -> str:
                raise AssertionError(text)

            async with runtime.session(model=Follows([]), user="ada") as session:
                await session.send("go")
                await asyncio.sleep(CALM_S)
                assert session.pending is None

    runs_clean(main())


CALLERS: Final[list[dict[str, Any]]] = [
    {"user": "ada"},
    {"user": "bob"},
    {"user": "ada", "tenant": "acme"},
    {},
    {"tenant": "acme"},
]


@pytest.mark.parametrize("one", CALLERS)
@pytest.mark.parametrize("other", CALLERS)
def test_results_made_ahead_stay_with_their_own(
    monkeypatch: pytest.MonkeyPatch, one: dict[str, Any], other: dict[str, Any]
) -> None:
    """What was made ahead for one user, tenant or unnamed session is served to no other, with the
    same arguments of the same tool, at the same time or after (S2-40, P-02, security case 97)."""
    sure(monkeypatch, reply=[("whose", {"item": "bolt"})])

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            given: list[str] = []

            @runtime.tool(effect="read", ttl_s=600)
            async def whose(item: str, user: str, tenant: str) -> str:
                await asyncio.sleep(1)
                given.append(item)
                return f"{item} of {user} of {tenant}"

            async with (
                runtime.session("s1", model=Follows([]), **one) as first,
                runtime.session(
                    "s2", model=Follows([[("whose", {"item": "bolt"})]]), **other
                ) as second,
            ):
                await asyncio.gather(first.send("go"), second.send("go"))
                (call,) = second.turns[0].tool_calls
                assert f"of {other.get('user')}" in call.result
                assert f"of {other.get('tenant')}" in call.result
            same = one == other and "user" in one
            assert len(given) == (1 if same else 2)

    runs_clean(main())


def test_a_public_result_is_shared_as_it_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a tool's results are declared to be everybody's, what was made ahead for one is there for
    another, and is nobody's own time saved twice (S2-40)."""
    sure(monkeypatch, reply=[("capital", {"of": "Chile"})])

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            ran: list[str] = []

            @runtime.tool(effect="read", ttl_s=600, scope="global")
            async def capital(of: str) -> str:
                ran.append(of)
                await asyncio.sleep(1)
                return "Santiago"

            sources: list[str | None] = []
            for user in ("ada", "bob", "cy"):
                model = Follows([] if user == "ada" else [[("capital", {"of": "Chile"})]])
                async with runtime.session(model=model, user=user) as session:
                    turn = await session.send("go")
                    sources += [call.source for call in turn.tool_calls]
            assert len(ran) == 1
            assert sources == [Source.SPECULATED, Source.HOT]

    runs_clean(main())


def test_money_is_spent_as_far_as_it_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls ahead that cost are made once `usd_a_day` allows them, of one tool a quarter of it at once
    and no more (S2-40, P-02)."""
    proposed = [("dear", {"item": str(number)}) for number in range(6)]
    sure(monkeypatch, reply=proposed)
    ran: Counter[float] = Counter()

    async def main(usd_a_day: float) -> None:
        more = {**GENEROUS, "usd_a_day": usd_a_day, "usd_an_hour": 1e6}
        async with shop(**more) as runtime:

            @runtime.tool(effect="read", ttl_s=600, cost_usd=1.0)
            async def dear(item: str) -> str:
                ran[usd_a_day] += 1
                return item

            async with runtime.session(model=Follows([]), user="ada") as session:
                await session.send("go")
                await session.send("go on")

    for usd_a_day in (0.0, 8.0):
        runs_clean(main(usd_a_day))
    assert ran == {8.0: 2}


@pytest.mark.parametrize("takes_s", [1.0, 5.0])
def test_limits_of_money_hold_for_what_was_made_ahead(
    takes_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn costs, and is ended by its limit, as without: what was made ahead is paid by who uses it
    first, when it is there or while it runs, and is spent once (S2-40, P-02, S2-46)."""
    sure(monkeypatch, reply=[("dear", {"n": n}) for n in range(4)])

    async def main(speculate: bool) -> tuple[str, list[float | None], float]:
        more = {**with_prediction(speculate), "usd_a_day": 1e6, "usd_an_hour": 1e6}
        async with shop(**more) as runtime:
            ran: list[int] = []

            @runtime.tool(effect="read", ttl_s=600, cost_usd=1.0)
            async def dear(n: int) -> int:
                ran.append(n)
                await asyncio.sleep(takes_s)
                return n

            model = Follows([[("dear", {"n": n})] for n in (0, 0, 1, 2, 3)])
            limits = ResourceLimits(max_turn_usd=2.5)
            async with runtime.session(model=model, user="ada", limits=limits) as session:
                with pytest.raises(BudgetExceededError) as failed:
                    await session.send("go")
                turn = session.turns[-1]
            spent = runtime.metrics.snapshot().agents["dear"].ever.usage.cost_usd
            assert spent == len(ran)
            return str(failed.value.budget), [one.cost_usd for one in turn.tool_calls], spent

    budget, costs, _ = runs_clean(main(speculate=True))
    assert (budget, costs, 3.0) == runs_clean(main(speculate=False))


def test_a_friend_is_asked_where_that_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `outside` what reaches outside is run ahead as all else; without it never (S2-40)."""
    sure(monkeypatch, reply=[("ask_a_friend", {})])

    async def main(outside: bool) -> int:
        async with shop(**GENEROUS, outside=outside) as runtime:
            world = World(runtime)
            async with runtime.session(model=Follows([]), user="ada") as session:
                await session.send("go")
            return world.ran["ask_a_friend"]

    assert runs_clean(main(outside=False)) == 0
    assert runs_clean(main(outside=True)) == 1


def test_many_who_are_wrong_are_held_by_the_limits_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However many users are wrong at once, no more of a tool is launched than its limit a minute and
    what was left of the minute before, and nobody pays for others (S2-40, P-01)."""
    sure(monkeypatch, reply=[("stock", {"item": item}) for item in ("bolt", "nut", "saw")])
    made: list[Budget] = []
    begin = Budget.__init__

    def init(self: Budget, *args: Any, **options: Any) -> None:
        begin(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(Budget, "__init__", init)

    async def main() -> None:
        async with shop() as runtime:
            world = World(runtime)

            async def one(number: int) -> None:
                async with runtime.session(model=Follows([]), user=f"u{number}") as session:
                    for _ in range(3):
                        await session.send("go")

            await asyncio.gather(*map(one, range(20)))
            assert 8 < world.ran["stock"] <= 2 * 20 + 1
            assert min(made[0].allowance(f"user u{number}") for number in range(20)) >= 5

    runs_clean(main())


@pytest.mark.parametrize("learnt", ["by a call", "by being looked at"])
def test_what_is_known_to_cost_is_not_forgotten_while_it_is_used(learnt: str) -> None:
    """However many tools cost something: of one that does so again and again, or is foreseen again
    and again, it stays known, so that without money for it none is run ahead (S2-40)."""
    bench = Bench()

    async def main() -> None:
        async def never(*_: object) -> Outcome:
            raise AssertionError("nothing is run")

        speculator = Speculator(
            run=never,
            ledger=Ledger(bench.clock, rng=random.Random(1)),
            budget=Budget(bench.clock, usd_a_day=0.0),
            clock=bench.clock,
        )
        caller = Caller("ada", "s", None)
        call = msgspec.structs.replace(bench.call(), name="costly", caller=caller)

        def ran(name: str) -> None:
            paid = Outcome("id", name, Source.EXECUTED, cost_usd=0.5, attempts=1)
            speculator.observe(msgspec.structs.replace(call, name=name), paid)

        ran("costly")
        for number in range(3_000):
            if number % 900 == 0 and learnt == "by a call":
                ran("costly")
            elif number % 900 == 0:
                speculator.objection(call, Chance(0.99, 1.0, 1.0))
            ran(f"other {number}")
            assert len(vars(speculator)["_paid"]) <= 1_000
        refused = speculator.launch(call, Job(never), Chance(0.99, 1.0, 1.0))
        assert refused == "no more than 0 USD a day"
        assert len(speculator) == 0

    run(main())
