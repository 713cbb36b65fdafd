"""Elements of a list that one step asks for together."""

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.errors import CodecError
from paceline.predict.arguments import ArgumentModel
from paceline.predict.context import Context
from paceline.predict.events import Called, Event, Proposal, Said, Step, Tools
from paceline.predict.fans import Fans
from paceline.predict.predictor import PerformancePredictor
from paceline.predict.session import Session
from paceline.predict.values import canonical
from tests.unit.predict.sessions import call, predictor

Make = Callable[[random.Random], list[Event]]
"""The events of a session; the last of them is the step that is to be foreseen."""
NO_DOCS: list[str] = []


def code(chance: random.Random) -> str:
    return "".join(chance.choices("ABCDEFGHKLMNPQ", k=4) + chance.choices("23456789", k=4))


def opened(ids: Sequence[object], read: Iterable[object]) -> list[Event]:
    """Documents are listed, and some are read in one step."""
    listed = Step((call("list_docs", [{"id": each, "title": "x"} for each in ids]),))
    return [Said("open the docs"), listed, Step(tuple(call("read_doc", "", id=i) for i in read))]


def opening(most: int | None = None, count: int = 5) -> Make:
    def make(chance: random.Random) -> list[Event]:
        ids = [code(chance) for _ in range(count)]
        return opened(ids, ids[:most])

    return make


def shuffled(chance: random.Random) -> list[Event]:
    ids = [code(chance) for _ in range(5)]
    return opened(ids, chance.sample(ids, 5))


def one_of_them(chance: random.Random) -> list[Event]:
    ids = [code(chance) for _ in range(5)]
    return opened(ids, chance.sample(ids, 1))


def trips(chance: random.Random) -> list[Event]:
    """Several arguments are of one row; in most lists some rows have one of them in common."""
    rows = [
        {"a": chance.choice(["Oslo", "Rome"]), "b": code(chance), "n": chance.random()}
        for _ in range(4)
    ]
    calls = [call("search", [], start=r["a"], end=r["b"], mode="fast") for r in rows]
    return [Said("search"), Step((call("trips", {"rows": rows}),)), Step(tuple(calls))]


def weather(chance: random.Random) -> list[Event]:
    """The elements are what three calls of one step returned."""
    cities = [code(chance) for _ in range(3)]
    places = [{"lat": chance.random(), "lon": chance.random()} for _ in cities]
    found = [call("locate", at, city=city) for city, at in zip(cities, places, strict=True)]
    calls = [call("weather", "sun", **at) for at in places]
    return [Said("weather in " + " and ".join(cities)), Step(tuple(found)), Step(tuple(calls))]


def looked_at_before(chance: random.Random) -> list[Event]:
    """Another tool had the same values under the same name."""
    ids = [code(chance) for _ in range(4)]
    sizes = Step(tuple(call("size", 7, id=each) for each in ids))
    return [*opened(ids, [])[:2], sizes, Step(tuple(call("read_doc", "", id=i) for i in ids))]


def live(model: PerformancePredictor, make: Make, count: int, seed: int = 1) -> None:
    """Sessions in which each event was waited for, as at run time."""
    for number in range(count):
        session = model.session()
        for event in make(random.Random(1_000 * seed + number)):
            model.propose(session)
            model.observe(session, event)


def lived(make: Make, count: int = 30) -> PerformancePredictor:
    model = predictor(arguments=ArgumentModel)
    live(model, make, count)
    return model


def before_last(
    model: PerformancePredictor, make: Make, tools: Tools | None = None
) -> tuple[Session, list[Called]]:
    """A new session up to its last step, and the calls of that."""
    *events, last = make(random.Random(77))
    session = model.session("", tools)
    for event in events:
        session.hear(event)
    assert isinstance(last, Step)
    return session, list(last.calls)


def asked(proposals: Iterable[Proposal]) -> set[str]:
    return {each.name + canonical(each.arguments) for each in proposals}


def came(calls: Iterable[Called]) -> set[str]:
    return {each.name + canonical(each.arguments) for each in calls}


@pytest.mark.parametrize(
    "make", [opening(), opening(count=9), shuffled, trips, weather, looked_at_before]
)
def test_all_elements_are_proposed_at_once(make: Make) -> None:
    """Where a step asks for all elements of a list, or for something of all results of the step before,
    all these calls are proposed whole, each almost sure and known to be, best first.
    (S2-10, S2-50, P-01)"""
    model = lived(make)
    session, calls = before_last(model, make)
    proposals = model.propose(session)
    likely = [each for each in proposals if each.probability > 0.9]
    assert asked(likely) == came(calls)
    assert all(model.known(session, each) for each in likely)
    chances = [each.probability for each in proposals]
    assert chances == sorted(chances, reverse=True)


@pytest.mark.parametrize("make", [opening(1), one_of_them])
def test_a_habit_of_one_stays_one(make: Make) -> None:
    """Who opens one document of a list at a time is proposed no others for that, though another time all
    were opened. (S2-50, P-01)"""
    model = lived(opening(), 3)
    live(model, make, 40, seed=2)
    session, _ = before_last(model, make)
    first, *others = model.propose(session)
    assert sum(each.probability for each in others) < (0.05 if make is not one_of_them else 1.0)
    plain = lived(make, 40)
    session, _ = before_last(plain, make)
    assert first.probability == pytest.approx(plain.propose(session)[0].probability, abs=0.1)


def test_a_habit_that_changes_is_forgotten() -> None:
    """After a few sessions in which only the first was opened the others are not launched any more, and
    after a few of the old kind they are proposed again. (S2-40, S2-50)"""
    model = lived(opening())
    live(model, opening(1), 10, seed=2)
    session, _ = before_last(model, opening())
    assert [each for each in model.propose(session) if each.probability > 0.3][1:] == []
    live(model, opening(), 15, seed=3)
    session, calls = before_last(model, opening())
    assert asked(each for each in model.propose(session) if each.probability > 0.5) == came(calls)


def test_a_fan_reaches_as_far_as_it_did() -> None:
    """Where always the first three are opened, three are likely, and no others. (S2-50, P-01)"""
    model = lived(opening(3))
    session, calls = before_last(model, opening(3))
    proposals = model.propose(session)
    assert asked(each for each in proposals if each.probability > 0.9) == came(calls)
    assert all(each.probability < 0.05 for each in proposals[3:])


def test_one_session_is_no_habit() -> None:
    """What was asked for together once is proposed with little confidence. (S2-50)"""
    model = lived(opening(1), 20)
    live(model, opening(), 1, seed=2)
    session, _ = before_last(model, opening())
    model.propose(session)
    first, second, *_ = session.proposed
    assert first.confidence > 0.9
    assert 0.01 < second.confidence < 0.5


def heard(
    ids: Sequence[object], read: Iterable[object], tools: Tools | None = None
) -> tuple[list[Called], Context]:
    """The calls of the last step, and what they come after."""
    context = Context(tools=tools or {})
    *events, last = opened(ids, read)
    for event in events:
        context.hear(event)
    assert isinstance(last, Step)
    return list(last.calls), context


def learnt(reach: int, *, first: object = 0, times: int = 20) -> Fans:
    """Of sessions in which so many elements were read, the values of a kind."""
    fans = Fans()
    for number in range(times):
        ids = [number if isinstance(first, int) else f"{first}{number}" for number in range(7)]
        fans.learn(*heard(ids, [ids[(number + each) % 7] for each in range(reach)]))
    return fans


def spread(fans: Fans, context: Context, **chances: float) -> dict[object, float]:
    proposed: list[tuple[Any, float]] = [({"id": key}, each) for key, each in chances.items()]
    found = fans.spread("read_doc", proposed, context)
    ids = [arguments["id"] for arguments, _ in found]
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, [chance for _, chance in found], strict=True))


def test_what_was_called_before_is_left_out() -> None:
    """Elements that this tool was called with are not proposed again, those that another was called
    with are, and where none is left nothing comes with a call. (S2-50, P-01)"""
    fans = learnt(7, first="k")
    _, context = heard(["a", "b", "c"], NO_DOCS)
    context.hear(Step((call("read_doc", "", id="b"), call("size", 3, id="c"))))
    assert list(spread(fans, context, a=0.9)) == ["a", "c"]
    context.hear(Step((call("read_doc", "", id="c"),)))
    proposed: list[tuple[Any, float]] = [({"id": "a"}, 0.9)]
    assert fans.spread("read_doc", proposed, context) is proposed


def test_what_is_called_again_brings_others() -> None:
    """A call that was made before brings the elements that are left. (S2-50)"""
    _, context = heard(["a", "b", "c"], NO_DOCS)
    context.hear(Step((call("read_doc", "", id="a"),)))
    assert list(spread(learnt(7, first="k"), context, a=0.9)) == ["a", "b", "c"]


def test_what_stands_second_brings_others_too() -> None:
    """Where the best call is for no element and the next one is, that brings the others; and what is
    hardly likely brings none. (S2-50)"""
    _, context = heard(["a", "b", "c"], NO_DOCS)
    fans = learnt(7, first="k")
    assert spread(fans, context, z=0.5, a=0.4).keys() == set("zabc")
    assert spread(fans, context, a=0.0015) == {"a": 0.0015}


def test_what_was_called_before_does_not_count() -> None:
    """Whoever reads all that he has not read yet reads all. (S2-50)"""
    fans = Fans()
    for number in range(20):
        ids = [f"{number}{each}" for each in "abcde"]
        calls, context = heard(ids, ids[:2])
        context.hear(Step(tuple(calls)))
        fans.learn([call("read_doc", "", id=each) for each in ids[2:]], context)
    _, context = heard(["a", "b", "c"], NO_DOCS)
    assert min(spread(fans, context, a=1.0).values()) > 0.9


def test_the_first_is_never_outranked() -> None:
    """However likely it is that others come with several, what is best stays best. (S2-50)"""
    _, context = heard(["a", "b", "c", "d"], NO_DOCS)
    found = spread(learnt(2, first="k"), context, a=0.35, b=0.34)
    assert next(iter(found)) == "a"
    assert max(found.values()) == found["a"] < 0.4


def test_a_chance_is_that_of_all_ways_to_it() -> None:
    """Where all are read whichever is the first, each is as likely as that any of them is. (S2-50)"""
    _, context = heard(["a", "b", "c"], NO_DOCS)
    found = spread(learnt(7, first="k"), context, a=0.4, b=0.3, z=0.2)
    assert found["z"] == 0.2
    assert all(found[each] == pytest.approx(0.7, abs=0.05) for each in "abc")


def test_elements_have_the_types_of_the_first() -> None:
    """A whole number is a float where the first one is; what is of another type is left out. (S2-50)"""
    _, context = heard([1, 2, "x", True, 3.5, None], NO_DOCS)
    found = learnt(7).spread("read_doc", [({"id": 1.0}, 0.9)], context)
    assert [arguments["id"] for arguments, _ in found] == [1, 2, 3.5]
    assert all(isinstance(arguments["id"], float) for arguments, _ in found)


def test_a_schema_says_which_elements_may_be() -> None:
    """What is none of the values that a schema allows is left out. (S2-50)"""
    tools: Tools = {"read_doc": {"properties": {"id": {"enum": ["a", "c"]}}}}
    _, context = heard(["a", "b", "c"], NO_DOCS, tools)
    assert list(spread(learnt(7, first="k"), context, a=0.9)) == ["a", "c"]


def test_a_day_without_a_year_is_no_element() -> None:
    """Where a text names days, those without a year are not proposed as they stand. (S2-50)"""
    fans = Fans()
    for number in range(10, 28):
        context = Context()
        context.hear(Said(f"on 2024-05-{number} or 2024-06-{number} or 2024-07-{number}"))
        days = [f"2024-0{month}-{number}" for month in "567"]
        fans.learn([call("book", day=day) for day in days], context)
    context = Context()
    context.hear(Said("on Feb 3, 2024 or Mar 7 or Feb 5, 2024"))
    found = fans.spread("book", [({"day": "2024-02-03"}, 0.9)], context)
    assert [arguments for arguments, _ in found] == [{"day": "2024-02-03"}, {"day": "2024-02-05"}]


def test_only_so_many_are_proposed() -> None:
    """Of a long list a dozen, from the first one on, and no more than were asked for. (S2-50)"""
    ids = [f"k{number}" for number in range(40)]
    _, context = heard(ids, NO_DOCS)
    fans = learnt(7, first="k")
    for _ in range(10):
        fans.learn(*heard(ids, ids))
    found = fans.spread("read_doc", [({"id": "k20"}, 0.9)], context, 20)
    assert [arguments["id"] for arguments, _ in found] == ids[20:32]
    assert len(fans.spread("read_doc", [({"id": "k20"}, 0.9)], context, 3)) == 3


def test_nothing_is_made_of_other_calls() -> None:
    """A tool that was never called for several elements, and a call that is for none, are proposed as
    they were. (S2-50)"""
    fans = learnt(7, first="k")
    fans.learn(*heard(["a", "b"], ["a"]))
    _, context = heard(["a", "b"], NO_DOCS)
    for name, arguments in (("size", {"id": "a"}), ("read_doc", {"id": "z"}), ("read_doc", {})):
        proposed: list[tuple[Any, float]] = [(arguments, 0.9)]
        assert fans.spread(name, proposed, context) is proposed
    assert fans.reason("read_doc", context, {"id": "b"}) is None


def test_calls_that_no_list_explains_are_no_fan() -> None:
    """Calls with other arguments, or with values that stood nowhere or in lists of their own, teach
    nothing. (S2-50)"""
    fans = Fans()
    _, context = heard(["a", "b"], NO_DOCS)
    fans.learn([call("read_doc", "", id="a"), call("read_doc", "", id="z")], context)
    fans.learn([call("read_doc", "", id="a"), Called("read_doc", {"name": "b"})], context)
    fans.learn([call("read_doc", "", id="a"), call("read_doc", "", id="a")], context)
    twice = [call("read_doc", "", id=each) for each in "aaz"]
    fans.learn(twice, context)
    context.hear(Step((call("list_docs", [{"id": "c"}]),)))
    fans.learn([call("read_doc", "", id="a"), call("read_doc", "", id="c")], context)
    assert fans.save() == {}


def test_a_call_in_between_does_not_hide_a_fan() -> None:
    """Elements that were asked for together are seen beside a call that is for none. (S2-50)"""
    fans = Fans()
    fans.learn(*heard(["a", "b"], ["a", "z", "b"]))
    assert list(saved(fans)) == ["read_doc"]


def test_rows_with_a_value_in_common_are_told_apart() -> None:
    """The next row is the one after that of which all fields fit. (S2-50, P-01)"""
    fans = Fans()
    rows = [{"a": each, "b": f"b{n}"} for n, each in enumerate("xyxz")]
    for start in [0, 1, 2] * 5:
        context = Context()
        context.hear(Step((call("trips", rows),)))
        fans.learn([call("go", **row) for row in rows[start : start + 2]], context)
    context = Context()
    context.hear(Step((call("trips", rows),)))
    assert [each for each, _ in fans.spread("go", [(rows[2], 0.9)], context)[:2]] == rows[2:]


def test_rows_do_not_mix() -> None:
    """Where several arguments come from a row, calls with fields of two rows are no fan, and a call of
    that kind brings no others. (S2-50, P-01)"""
    rows = [{"a": f"a{n}", "b": f"b{n}"} for n in range(4)]
    context = Context()
    context.hear(Step((call("trips", rows),)))
    fans = Fans()
    fans.learn([call("go", a="a0", b="b1"), call("go", a="a1", b="b2")], context)
    assert fans.save() == {}
    for _ in range(9):
        fans.learn([call("go", **row) for row in rows], context)
    assert len(fans.spread("go", [(rows[1], 0.9)], context)) == 4
    assert len(fans.spread("go", [({"a": "a1", "b": "b2"}, 0.9)], context)) == 1


def test_it_says_why() -> None:
    """An element is said to come with others, and where it is from; the first is not. (S2-50)"""
    model = lived(opening())
    session, _ = before_last(model, opening())
    first, second, *_ = model.propose(session)
    assert str(second.why).startswith("id: id of the result of list_docs")
    assert str(second.why).endswith("one of several that are asked for at once")
    assert str(second.why) in model.explain(session, second)
    assert "at once" not in str(first.why)


@pytest.mark.parametrize("least", [0.1, 0.5, 0.95])
@pytest.mark.parametrize("count", [2, 30])
def test_what_is_likely_enough_is_the_same_sooner(least: float, count: int) -> None:
    """Whoever launches nothing below some probability is proposed the same above it. (S2-50, S2-52)"""
    model = lived(opening(), count)
    live(model, opening(2), 3, seed=4)
    session, _ = before_last(model, opening())

    def above(proposals: list[Proposal]) -> list[tuple[object, float]]:
        return [(p.arguments, p.probability) for p in proposals if p.probability >= least]

    assert above(model.propose(session, least=least)) == above(model.propose(session))


def test_others_learn_of_public_tools_alone() -> None:
    """What is the same for all is asked for at once by whoever is new; of others' tools nothing is known
    to him. (S2-49, S2-50)"""
    model = predictor(arguments=ArgumentModel, public={"list_docs", "read_doc"})
    live(model, opening(), 30)
    live(model, weather, 30)
    session = model.session("new")
    *events, last = opening()(random.Random(5))
    for event in events:
        session.hear(event)
    assert isinstance(last, Step)
    assert asked(model.propose(session)) == came(last.calls)
    own: Any = model._knowledge("").fans.save()
    assert model._prior.knowledge.fans.save() == {"read_doc": own["read_doc"]}


def saved(fans: Fans) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(fans.save()))


def test_it_is_bounded() -> None:
    """However many tools and lists there are, the latest tools are kept, and a few lists of each.
    (S2-51)"""
    fans = Fans()
    for number in range(300):
        context = Context()
        context.hear(Step((call(f"list{number}", ["a", "b"]), call(f"more{number}", ["a", "b"]))))
        some = [call(name, id=each) for name in (f"read{number}", "read") for each in "ab"]
        often = [call("often", id=each) for each in ("a" if number else "ab")]
        fans.learn([*often, *some], context)
    kept = saved(fans)
    assert len(kept) == 200
    assert {"read299", "often"} <= kept.keys()
    assert "read0" not in kept
    assert len(kept["read"]) == 4
    assert any("list299" in pattern for ((_, pattern),), *_ in kept["read"])
    again = Fans()
    again.load({f"t{number}": kept["read"] * 3 for number in range(300)})
    assert len(saved(again)) == 200
    assert {len(each) for each in saved(again).values()} == {4}


def test_a_fan_that_is_of_use_stays() -> None:
    """A list of which elements are asked for together outlives those of which that was once so.
    (S2-51)"""
    fans = Fans()
    for number in range(20):
        context = Context()
        context.hear(Step((call(f"list{number}", ["a", "b"]),)))
        fans.learn([call("read_doc", id=each) for each in "ab"], context)
        if number == 2:
            for _ in range(9):
                fans.learn(*heard(["a", "b"], ["a", "b"]))
        assert number < 2 or any(
            "list_docs" in pattern for ((_, pattern),), *_ in saved(fans)["read_doc"]
        )


GOOD: list[object] = [[["id", "r list_docs[*].id"]], 3, [[1.0, 0.5]]]


@pytest.mark.parametrize(
    "wrong",
    [
        7,
        {"read_doc": 7},
        {"read_doc": [[[], 3, []]]},
        {"read_doc": [[[["id", "list"]], 3, []]]},
        {"read_doc": [[GOOD[0], -1, []]]},
        {"read_doc": [[GOOD[0], 3, [[1.0, 2.0]]]]},
        {"read_doc": [[GOOD[0], 3, [[1.0, -1.0]]]]},
        {"read_doc": [[GOOD[0], 3, [[1.0, 1.0]] * 12]]},
        {"read_doc": [GOOD, [GOOD[0], 3, [[1.0, 2.0]]]]},
    ],
)
def test_what_cannot_be_is_refused(wrong: object) -> None:
    """What nothing is learnt as is refused, and nothing changes. (S2-49)"""
    fans = learnt(3, first="k")
    before = saved(fans)
    with pytest.raises(CodecError):
        fans.load(wrong)
    assert saved(fans) == before
    fans.load({"read_doc": [GOOD]})
    assert saved(fans) == {"read_doc": [GOOD]}


def test_older_files_have_none() -> None:
    """What was saved before there were fans is taken as it is; what has other parts is not. (S2-49)"""
    model = lived(opening())
    data: Any = msgspec.msgpack.decode(msgspec.msgpack.encode(model.save()))
    again = predictor(arguments=ArgumentModel)
    again.load(data)
    session, calls = before_last(again, opening())
    assert asked(again.propose(session)) == came(calls)
    for each in (data["shared"]["knowledge"], *data["scopes"].values()):
        del each["parts"]["fans"]
    again.load(data)
    session, calls = before_last(again, opening())
    assert asked(again.propose(session)) == came(calls[:1])
    live(again, opening(), 20, seed=2)
    session, calls = before_last(again, opening())
    assert asked(again.propose(session)) == came(calls)
    data["shared"]["knowledge"]["parts"]["fan"] = {}
    with pytest.raises(CodecError):
        again.load(data)


LISTS = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8)
STEPS = st.lists(st.sampled_from("abcdefgh"), max_size=5)


@settings(max_examples=60, deadline=None)
@given(
    learnt_of=st.lists(st.tuples(LISTS, STEPS), max_size=6),
    ids=LISTS,
    done=STEPS,
    own=st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0.01, 0.12), max_size=8),
)
def test_laws(
    learnt_of: list[tuple[list[str], list[str]]],
    ids: list[str],
    done: list[str],
    own: dict[str, float],
) -> None:
    """Whatever was learnt, what is added are elements of the list that were not used, none twice, none
    likelier than what brings it; nothing that was proposed is less likely than it was; together they
    promise no more than each of the list at once; and what was saved and loaded proposes the same.
    (S2-49, S2-50, P-01)"""
    fans = Fans()
    for some, read in learnt_of:
        fans.learn(*heard(some, read))
    _, context = heard(ids, NO_DOCS)
    context.hear(Step(tuple(call("read_doc", "", id=each) for each in done)))
    own = dict(sorted(own.items(), key=lambda item: -item[1]))
    found = spread(fans, context, **own)
    assert all(each in ids and each not in done for each in found.keys() - own.keys())
    assert found.keys() >= own.keys()
    assert list(found.values()) == sorted(found.values(), reverse=True)
    mass = sum(own.values()) + 1e-9
    best = max((found[each] for each in own), default=0.0)
    assert all(chance <= min(best, mass) for chance in found.values())
    again = Fans()
    again.load(saved(fans))
    assert spread(again, context, **own) == found
