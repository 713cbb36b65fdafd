"""Turns that are gone through before the user begins them."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline import Runtime
from paceline.call import Call, Outcome, Priority, Tokens
from paceline.engine.session import Session
from paceline.messages import AssistantMessage, Hear, ModelReply, ModelRequest, ToolUse, UserMessage
from paceline.predict.ledger import Figures
from paceline.sessions.models import Sampling
from paceline.speculation.messages import NextMessage
from tests.unit.sessions.quiet import a_runtime, seen
from tests.unit.speculation.worlds import GENEROUS, World, runs_clean, shop, sure, told

if TYPE_CHECKING:
    from paceline.engine.states import ConversationTurn

KEPT: Final = Sampling(cache=True, cache_ttl_s=600.0)
Uses = list[tuple[str, dict[str, Any]]]
BOLTS: Final[Uses] = [("stock", {"item": "bolt"})]
BLINK_S: Final = 0.002
SAID: Final = ("standup", "and the bolts?")


class Clerk:
    """A model that does what its book says of a message, a step of it each three seconds, and answers
    with all that it was told since."""

    name = "clerk"

    def __init__(self, book: dict[str, list[Uses]]) -> None:
        self.book = book
        self.asked: list[str] = []

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        """The same to the same."""
        del hear
        began = max(n for n, each in enumerate(request.messages) if isinstance(each, UserMessage))
        since = request.messages[began:]
        said = since[0].text
        done = sum(isinstance(each, AssistantMessage) for each in since)
        self.asked.append(f"{said} {done}")
        await asyncio.sleep(3)
        steps = self.book.get(said, [])
        if done < len(steps):
            uses = [
                ToolUse(f"use{done}{n}", name, json.dumps(given))
                for n, (name, given) in enumerate(steps[done])
            ]
            return ModelReply(uses=tuple(uses))
        return ModelReply(" ".join(each.text for each in since))


class Found:
    """How long turns took and what they showed, and what was done for them."""

    world: World
    calls: list[tuple[Call, Outcome]]
    figures: Mapping[str, Figures]
    turns: "list[ConversationTurn]"

    def __init__(self, clerk: Clerk) -> None:
        self.clerk = clerk
        self.took: list[float] = []
        self.turns = []

    async def send(self, session: Session, text: str) -> None:
        """One more."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self.turns.append(await session.send(text))
        self.took.append(round(loop.time() - began, 3))

    def shown(self) -> list[Any]:
        """What anybody can see of them."""
        return [told(turn) for turn in self.turns]

    def launched(self) -> list[Call]:
        """The calls that nobody had asked for."""
        return [call for call, _ in self.calls if call.priority is Priority.SPECULATIVE]


async def habit(
    book: dict[str, list[Uses]],
    count: int = 1,
    *,
    between: Callable[[Runtime, Session], Awaitable[object]] | None = None,
    silent_s: float = 30.0,
    last: str = SAID[1],
    **options: Any,
) -> Found:
    """So many sessions in which the same is said, with some silence before the last of it."""
    found = Found(Clerk(book))
    async with shop(**options) as runtime:
        found.world, found.calls = World(runtime), seen(runtime)
        runtime.add_model(found.clerk, sampling=KEPT)
        for number in range(count):
            async with runtime.session(f"s{number}", model="clerk", user="ada") as session:
                await session.send(SAID[0])
                await asyncio.sleep(silent_s)
                if between is not None:
                    await between(runtime, session)
                await found.send(session, last)
                await asyncio.sleep(700)  # nothing of this session serves the next
        found.figures = (await runtime._parts.predictions()).figures()
    return found


def plain(*args: Any, **options: Any) -> Found:
    """The same without prediction."""
    return runs_clean(habit(*args, **options, learn=False))


def ahead(*args: Any, **options: Any) -> Found:
    """The same with models asked ahead."""
    return runs_clean(habit(*args, **options, models=True))


@pytest.fixture
def sure_(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known that the second message follows the first, and nothing else is."""
    sure(monkeypatch)
    last: dict[int, str] = {}
    monkeypatch.setattr(NextMessage, "said", lambda self, text: last.update({id(self): text}))

    def likely(self: NextMessage) -> tuple[str, float] | None:
        return (SAID[1], 0.95) if last.get(id(self)) == SAID[0] else None

    monkeypatch.setattr(NextMessage, "likely", likely)


def test_a_turn_of_habit_waits_for_nothing() -> None:
    """Where a user always writes the same, the model then looks the same up and says what came of it,
    all of that is there when he writes, within the default limits: the turn takes no time at all, and
    shows what it shows without (S2-40, S2-43)."""
    found, slow = ahead({SAID[1]: [BOLTS]}, 22), plain({SAID[1]: [BOLTS]}, 2)
    assert slow.took == [7.0] * 2
    assert found.took[0] == 7.0
    assert found.took[-3:] == [0.0] * 3
    assert found.shown() == slow.shown() * 11


STEPS: Final[dict[str, list[Uses]]] = {
    "two steps": [[("stock", {"item": "bolt"}), ("stock", {"item": "nut"})], [("total", {})]],
    "more tools than are run ahead at once": [
        [("stock", {"item": item}) for item in ("bolt", "nut", "saw", "key", "pin")]
    ],
    "the same twice": [[*BOLTS, *BOLTS]],
}


@pytest.mark.usefixtures("sure_")
@pytest.mark.parametrize("steps", STEPS.values(), ids=STEPS)
def test_all_steps_of_a_turn_are_rehearsed(steps: list[Uses]) -> None:
    """However many tools an answer asks for, and whatever is asked after them, nothing of it is waited
    for (S2-40, S2-43)."""
    found, slow = ahead({SAID[1]: steps}), plain({SAID[1]: steps})
    assert slow.took[0] >= 7.0
    assert found.took == [0.0]
    assert found.shown() == slow.shown()
    assert {found.figures[name].recall for name in ("stock", "total") if name in found.figures} == {
        1
    }


@pytest.mark.usefixtures("sure_")
def test_a_turn_that_goes_round_in_circles_shows_the_same() -> None:
    """Where the session would tell the model that it repeats itself, the rehearsal ends: what the model is
    told depends on the moment then (S2-40)."""
    steps = [BOLTS] * 5
    found, slow = ahead({SAID[1]: steps}), plain({SAID[1]: steps})
    assert found.shown() == slow.shown()
    assert 0.0 < found.took[0] < slow.took[0]


@pytest.mark.usefixtures("sure_")
def test_what_changes_something_is_not_rehearsed() -> None:
    """Where the model would go on to change something the rehearsal ends: what it reads before is there,
    the change is made by the turn itself, once, and what it asks after it is asked then (S2-40, P-02,
    security case 97)."""
    steps: list[Uses] = [
        BOLTS,
        [("total", {}), ("buy", {"item": "bolt"}), ("stock", {"item": "saw"})],
    ]
    found, slow = ahead({SAID[1]: steps}), plain({SAID[1]: steps})
    assert [call.name for call in found.launched()] == ["clerk", "stock", "clerk", "total"]
    assert found.world.ran == slow.world.ran
    assert found.world.counts["bolt"] == 1
    assert found.shown() == slow.shown()
    assert (slow.took, found.took) == ([3 + 1 + 3 + 1.5 + 3], [1 + 3])


@pytest.mark.usefixtures("sure_")
@pytest.mark.parametrize("name", ["ask_a_friend", "secret", "now", "shake", "nobody"])
def test_a_rehearsal_ends_where_nothing_may_be_run(name: str) -> None:
    """What reaches outside, what a person has to agree to, what is not kept, what may change anything and
    what is not there are not run ahead, and nothing that would follow them (S2-40, security case 97)."""
    found = runs_clean(rehearsed({SAID[1]: [[(name, {})], BOLTS]}))
    assert [call.name for call in found.launched()] == ["clerk"]
    assert not found.world.ran


async def rehearsed(book: dict[str, list[Uses]], silent_s: float = 60.0, **options: Any) -> Found:
    """A session in which the second message does not come."""
    found = Found(Clerk(book))
    async with shop(**{**GENEROUS, "models": True, **options}) as runtime:
        found.world, found.calls = World(runtime), seen(runtime)
        runtime.add_model(found.clerk, sampling=KEPT)
        async with runtime.session(model="clerk", user="ada") as session:
            await session.send(SAID[0])
            await asyncio.sleep(silent_s)
    return found


@pytest.mark.usefixtures("sure_")
@pytest.mark.parametrize(("after_s", "most"), [(1.5, 1), (3.0, 1), (3.5, 2), (4.5, 3)])
def test_a_session_that_is_left_ends_its_rehearsal(after_s: float, most: int) -> None:
    """Whoever leaves a session while its next turn is rehearsed leaves nothing behind that runs, and
    nothing more is begun for it (S2-40, S2-48)."""
    found = runs_clean(rehearsed({SAID[1]: [BOLTS]}, silent_s=after_s))
    assert len(found.launched()) == most
    assert found.launched()[-1].name == ("stock" if most == 2 else "clerk")


@pytest.mark.usefixtures("sure_")
def test_what_is_too_old_is_rehearsed_anew() -> None:
    """While the user stays silent a turn is gone through again before the first of it is not kept any
    more, twice at most: until half an hour later it is there, and then no more is asked (S2-40, S2-48)."""
    once = ["clerk", "stock", "clerk"]
    found = runs_clean(rehearsed({SAID[1]: [BOLTS]}, silent_s=5_000.0))
    assert [call.name for call in found.launched()] == once * 3


@pytest.mark.usefixtures("sure_")
@pytest.mark.parametrize(
    "silent_s", [595.0, 602.0, 604.5, 607.5, 610.0, 1190.0, 1201.0, 1207.0, 1500.0]
)
def test_a_rehearsed_turn_is_never_gone(silent_s: float) -> None:
    """At whatever moment the user goes on, the whole of his turn is there, also while it is gone through
    again and when what it took first ends (S2-40, S2-43)."""
    assert ahead({SAID[1]: [BOLTS]}, silent_s=silent_s, **GENEROUS).took == [0.0]


@pytest.mark.usefixtures("sure_")
def test_four_answers_are_rehearsed() -> None:
    """However long a turn would go on, the model is asked four times ahead at most (S2-40, P-02)."""
    steps: list[Uses] = [[("stock", {"item": f"i{number}"})] for number in range(9)]
    found = runs_clean(rehearsed({SAID[1]: steps}))
    assert [call.name for call in found.launched()] == ["clerk", "stock"] * 4


@pytest.mark.usefixtures("sure_")
@pytest.mark.parametrize("after_s", [1.5, 3.5, 5.5])
@pytest.mark.parametrize("last", [SAID[1], "something else"])
def test_who_writes_in_the_course_of_it_joins_it(after_s: float, last: str) -> None:
    """A message that comes while its turn is rehearsed waits for the rest of it alone; one that is
    another takes no longer than without, and nothing more is begun for the one that did not come
    (S2-40, P-01)."""
    book = {SAID[1]: [BOLTS], "something else": [[("total", {})]]}
    found = ahead(book, silent_s=after_s, last=last)
    slow = plain(book, silent_s=after_s, last=last)
    assert found.shown() == slow.shown()
    left_s = 7.0 - (after_s - BLINK_S if last == SAID[1] else 0.0)
    assert found.took == [pytest.approx(left_s)]
    rehearsed = [call.name for call in found.launched()]
    assert rehearsed == ["clerk", "stock", "clerk"][: 1 + (after_s > 3) + (after_s > 4)]


@pytest.mark.usefixtures("sure_")
@pytest.mark.parametrize(("tool", "who"), [("buy", "bob"), ("buy", "ada"), ("shake", "ada")])
def test_a_write_in_between_drops_what_it_touches(tool: str, who: str) -> None:
    """What was looked up ahead is not told once something was changed that it depends on, and what the
    model said to it neither: the turn shows what is then (S2-40, P-02, security case 97)."""

    async def change(runtime: Runtime, session: Session) -> None:
        if who == "ada":
            await session.send("change it")
        else:
            async with runtime.session("other", model="clerk", user=who) as other:
                await other.send("change it")

    given = {"item": "bolt"} if tool == "buy" else {}
    book = {SAID[1]: [BOLTS], "change it": [[(tool, given)]]}
    found, slow = ahead(book, between=change), plain(book, between=change)
    assert found.shown() == slow.shown()
    assert found.turns[0].tool_calls[0].result == ("1" if tool == "buy" else "10")
    if who == "bob":
        assert found.took == [1.0 + 3.0]


CALLS: Final[Uses] = [
    *[("stock", {"item": item}) for item in ("bolt", "nut")],
    *[("buy", {"item": item}) for item in ("bolt", "nut")],
    *[(name, {}) for name in ("total", "shake", "now", "ask_a_friend", "stock", "nobody")],
]
BOOK: Final = st.fixed_dictionaries(
    dict.fromkeys(
        ("one", "two", "three"),
        st.lists(st.lists(st.sampled_from(CALLS), min_size=1, max_size=4), max_size=5),
    )
)


async def talk(
    book: dict[str, list[Uses]], said: list[tuple[str, float]], **options: Any
) -> tuple[Found, dict[str, int]]:
    """A session in which this is said, each after so much silence."""
    found = Found(Clerk(book))
    async with shop(**GENEROUS, **options) as runtime:
        found.world, found.calls = World(runtime), seen(runtime)
        runtime.add_model(found.clerk, sampling=KEPT)
        async with runtime.session(model="clerk", user="ada") as session:
            for text, silent_s in said:
                await asyncio.sleep(silent_s)
                await found.send(session, text)
    return found, found.world.counts


@settings(max_examples=25)
@given(
    book=BOOK,
    said=st.lists(
        st.tuples(
            st.sampled_from(("one", "two", "three", "four")), st.sampled_from((0.0, 1.5, 3.5, 60.0))
        ),
        min_size=1,
        max_size=5,
    ),
    seed=st.integers(0, 2**16),
)
def test_rehearsing_changes_nothing_and_shows_the_same(
    book: dict[str, list[Uses]], said: list[tuple[str, float]], seed: int
) -> None:
    """Whatever is thought to be written next, right or wrong, and whatever the model would ask for then:
    what is run ahead changes nothing and is kept, sessions show what they show without, change what they
    change without, and take no longer (S2-40, P-01, P-02, security case 97)."""
    rng = random.Random(seed)
    plain_, counts = runs_clean(talk(book, said, learn=False))
    with pytest.MonkeyPatch.context() as patch:
        sure(patch)
        patch.setattr(NextMessage, "likely", lambda _: (rng.choice([*book, "four"]), 0.95))
        found, same = runs_clean(talk(book, said, models=True))
    assert found.shown() == plain_.shown()
    assert same == counts
    assert all(a <= b + 1e-6 for a, b in zip(found.took, plain_.took, strict=True))
    for call in found.launched():
        assert call.plan.effect.repeatable
        assert call.plan.cacheable
        assert not call.plan.outside


PRICES: Final = {"m": {"from": "2020-01-01", "input": 10.0, "output": 40.0}}


class Dear(Clerk):
    """One whose answers cost a cent each."""

    async def complete(self, request: ModelRequest, hear: Hear) -> ModelReply:
        reply = await super().complete(request, hear)
        return ModelReply(reply.text, reply.uses, tokens=Tokens(1_000, 0), model="m")


@pytest.mark.usefixtures("sure_")
@pytest.mark.parametrize(("usd_a_day", "most"), [(0.0, 0), (0.06, 1), (0.1, 2), (1.0, 3)])
def test_models_are_asked_ahead_for_what_they_may_cost(usd_a_day: float, most: int) -> None:
    """A model that costs money is asked ahead as long as what its answers cost last is within
    `usd_a_day`, a quarter of it at once: a rehearsal ends where the money does. A turn has used the
    same however many of its answers were there (P-02, S2-40)."""
    steps: list[Uses] = [BOLTS, [("stock", {"item": "nut"})]]

    async def main() -> list[str]:
        dear = Dear({SAID[1]: steps})
        predict = {**GENEROUS, "models": True, "usd_a_day": usd_a_day, "usd_an_hour": 1e6}
        async with a_runtime(predict=predict, prices=PRICES) as runtime:
            World(runtime)
            found = seen(runtime)
            runtime.add_model(dear, sampling=KEPT)
            async with runtime.session(model="clerk", user="ada") as session:
                await session.send(SAID[0])
                await asyncio.sleep(60)
                ahead = [call for call, _ in found if call.priority is Priority.SPECULATIVE]
                turn = await session.send(SAID[1])
                assert turn.tokens == Tokens(3_000, 0)
                assert turn.cost_usd == pytest.approx(0.03)
        return [call.name for call in ahead if call.name == "clerk"]

    assert runs_clean(main()) == ["clerk"] * most


@pytest.mark.usefixtures("sure_")
def test_who_is_always_wrong_of_messages_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where what is rehearsed never comes, no more of it is run than the allowance of calls in vain, and
    the model is left alone for a while (P-02, S2-40)."""
    monkeypatch.setattr(NextMessage, "likely", lambda _: ("never", 0.95))
    steps: list[Uses] = [[("stock", {"item": "saw"})], [("total", {})]]
    count = 20

    async def main() -> Found:
        found = Found(Clerk({"never": steps}))
        async with shop(models=True, extra_calls=1.0) as runtime:
            found.world, found.calls = World(runtime), seen(runtime)
            runtime.add_model(found.clerk, sampling=KEPT)
            for number in range(count):
                async with runtime.session(model="clerk", user="ada") as session:
                    await session.send(f"hello {number}")
                    await asyncio.sleep(700)
            figures = (await runtime._parts.predictions()).figures()
            assert figures["clerk"].state == "off"
        return found

    found = runs_clean(main())
    assert 6 <= len(found.launched()) <= 8 + count
