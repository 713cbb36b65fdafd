"""Where arguments come from, learnt call by call."""

import random
from collections.abc import Callable, Iterable, Mapping

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.errors import CodecError
from paceline.predict import arguments
from paceline.predict.arguments import ArgumentModel
from paceline.predict.context import Context
from paceline.predict.events import Called, Event, Said, Step, Tools, Trajectory
from paceline.predict.predictor import PerformancePredictor

Session = list[Event]
Make = Callable[[random.Random], Session]


def step(name: str, result: object = None, *, failed: bool = False, **arguments: object) -> Step:
    return Step((Called(name, arguments, result, failed),))


def code(chance: random.Random) -> str:
    return "".join(chance.choices("ABCDEFGHKLMNPQ", k=3) + chance.choices("23456789", k=3))


def train(model: ArgumentModel, sessions: Iterable[Session], tools: Tools | None = None) -> None:
    for session in sessions:
        context = Context(tools=tools or {})
        for event in session:
            if isinstance(event, Step):
                for call in event.calls:
                    model.observe(call, context)
            context.hear(event)


def trained(make: Make, count: int = 40) -> ArgumentModel:
    model = ArgumentModel()
    train(model, [make(random.Random(number)) for number in range(count)])
    return model


def before_last(session: Session) -> tuple[Context, Called]:
    """The session up to its last call, and that call."""
    context = Context()
    for event in session[:-1]:
        context.hear(event)
    last = session[-1]
    assert isinstance(last, Step)
    return context, last.calls[0]


def best(make: Make, seed: int = 1_000) -> tuple[Mapping[str, object], float, Called]:
    """What is proposed for the last call of a new session of a kind that was learnt."""
    context, call = before_last(make(random.Random(seed)))
    ((arguments, probability), *_) = trained(make).propose(call.name, context)
    return arguments, probability, call


def constant(chance: random.Random) -> Session:
    return [Said(code(chance)), step("start", mode="fast", level=3)]


def from_text(chance: random.Random) -> Session:
    mine, other = code(chance), code(chance)
    return [Said(f"my order is {mine}, not {other}"), step("order", id=mine)]


def passed_on(chance: random.Random) -> Session:
    token = code(chance)
    return [Said("hello"), step("login", {"token": token}), step("profile", access=token)]


def next_unused(chance: random.Random) -> Session:
    ids = [code(chance) for _ in range(5)]
    read = [step("read", {"size": chance.random()}, id=each) for each in ids]
    return [Said("read them"), step("list", {"files": ids}), *read[: chance.randint(2, 5)]]


def one_object(chance: random.Random) -> Session:
    rows = [
        {"a": code(chance), "b": code(chance), "day": f"2024-05-{chance.randint(10, 28)}"}
        for _ in range(4)
    ]
    calls = [step("search", [], start=r["a"], end=r["b"], date=r["day"]) for r in rows]
    return [Said("search"), step("trips", {"rows": rows}), *calls[: chance.randint(1, 4)]]


def list_of_objects(chance: random.Random) -> Session:
    rows = [{"no": code(chance), "price": chance.randint(1, 99)} for _ in range(3)]
    chosen = [{"no": row["no"]} for row in rows]
    return [Said("all of them"), step("find", {"rows": rows}), step("book", flights=chosen)]


def word_for_value(chance: random.Random) -> Session:
    town, port = chance.choice([("Denver", "DEN"), ("Boston", "BOS"), ("Austin", "AUS")])
    return [Said(f"is it raining in {town} now"), step("weather", airport=port)]


def left_out(chance: random.Random) -> Session:
    wanted = chance.random() < 0.5
    arguments = {"hidden": True} if wanted else {}
    return [Said("show hidden files too" if wanted else "show files"), step("ls", **arguments)]


KINDS = [
    constant,
    from_text,
    passed_on,
    next_unused,
    one_object,
    list_of_objects,
    word_for_value,
    left_out,
]


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize("seed", [1_000, 1_001, 1_002])
def test_arguments_are_learnt(make: Make, seed: int) -> None:
    """Constants, ids of a text, fields of results, the next unused element, all fields of the next
    object, lists of objects, values that words stand for and what is left out are learnt from
    examples with other values (S2-50, S2-51, P-01)."""
    arguments, probability, call = best(make, seed)
    assert arguments == call.arguments
    assert probability > 0.5


def test_what_remains_is_proposed_as_several_calls() -> None:
    """Where a list is read in any order, all elements that remain are proposed, and those that
    were read are not (P-01)."""

    def any_order(chance: random.Random) -> Session:
        ids = [code(chance) for _ in range(5)]
        read = [step("read", {"size": chance.random()}, id=each) for each in ids]
        chance.shuffle(read)
        return [Said("read them"), step("list", {"files": ids}), *read]

    ids = [code(random.Random(seed)) for seed in (1, 2, 3, 4)]
    context = Context()
    for event in (Said("read them"), step("list", {"files": ids}), step("read", {}, id=ids[1])):
        context.hear(event)
    proposed = trained(any_order).propose("read", context)
    assert {each["id"] for each, _ in proposed[:3]} == {ids[0], ids[2], ids[3]}
    assert all(chance > 0.1 for _, chance in proposed[:3])


def test_fields_of_one_object_stay_together() -> None:
    """Where any object of a list may be next, those that remain are proposed before any mixture of
    the fields of two (P-01)."""

    def any_row(chance: random.Random) -> Session:
        rows = [{"a": code(chance), "b": code(chance), "c": code(chance)} for _ in range(4)]
        calls = [step("search", [], start=row["a"], end=row["b"], via=row["c"]) for row in rows]
        chance.shuffle(calls)
        return [Said("search"), step("trips", {"rows": rows}), *calls[:2]]

    model = trained(any_row)
    context, _ = before_last(any_row(random.Random(1_000)))
    (trips, done) = context.calls
    assert isinstance(trips.result, dict)
    rows = [{"start": r["a"], "end": r["b"], "via": r["c"]} for r in trips.result["rows"]]
    proposed = [arguments for arguments, _ in model.propose("search", context)[:3]]
    assert all(row in proposed for row in rows if row != done.arguments)


def free_text(chance: random.Random) -> Session:
    thought = " ".join(code(chance) for _ in range(5))
    return [Said(f"what about {code(chance)}"), step("think", thought=thought)]


def test_free_text_is_not_guessed() -> None:
    """Of a tool whose argument is free text nothing is proposed with any confidence (S2-50)."""
    model = trained(free_text)
    for seed in range(1_000, 1_020):
        context, call = before_last(free_text(random.Random(seed)))
        assert all(chance < 0.05 for _, chance in model.propose(call.name, context))


def test_noise_lowers_the_probability() -> None:
    """Where an argument follows the pattern half of the time, so much is promised (S2-50)."""

    def half(chance: random.Random) -> Session:
        session = passed_on(chance)
        if chance.random() < 0.5:
            session[-1] = step("profile", access=code(chance))
        return session

    model = trained(half, 200)
    chances: list[float] = []
    for seed in range(1_000, 1_030):
        context, call = before_last(half(random.Random(seed)))
        chances.append(model.propose(call.name, context)[0][1])
    assert 0.3 < sum(chances) / len(chances) < 0.7


def test_a_pattern_that_flips_is_learnt_anew() -> None:
    """After the source of an argument changed, the new one is proposed (S2-51)."""

    def other(chance: random.Random) -> Session:
        new = code(chance)
        login = step("login", {"token": code(chance), "key": new})
        return [Said("hello"), login, step("profile", access=new)]

    model = trained(passed_on)
    train(model, [other(random.Random(number)) for number in range(40)])
    context, call = before_last(other(random.Random(1_000)))
    assert model.propose("profile", context)[0][0] == call.arguments


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 99)), max_size=12))
def test_probabilities_are_probabilities(mixed: list[tuple[Make, int]]) -> None:
    """Proposals differ from one another, come best first, and promise no more than 1 together
    (S2-50)."""
    model = ArgumentModel()
    train(model, [make(random.Random(seed)) for make, seed in mixed])
    for make in KINDS:
        context, call = before_last(make(random.Random(7)))
        proposed = model.propose(call.name, context, most=5)
        chances = [chance for _, chance in proposed]
        assert chances == sorted(chances, reverse=True)
        assert sum(chances) <= 1 + 1e-9
        assert len(proposed) <= 5
        assert all(
            arguments not in [a for a, _ in proposed[:n]]
            for n, (arguments, _) in enumerate(proposed)
        )


def proposals(model: ArgumentModel) -> list[object]:
    found: list[object] = []
    for make in KINDS:
        context, call = before_last(make(random.Random(7)))
        found.append(model.propose(call.name, context))
    return found


def mixed_model() -> ArgumentModel:
    model = ArgumentModel()
    train(model, [make(random.Random(number)) for number in range(12) for make in KINDS])
    return model


def test_it_is_deterministic() -> None:
    """Two models that learnt the same propose the same (S2-51)."""
    assert proposals(mixed_model()) == proposals(mixed_model())


def test_it_survives_a_restart() -> None:
    """What was saved and loaded through MessagePack proposes the same, and learns on the same
    (S2-49, S2-51)."""
    model, again = mixed_model(), ArgumentModel()
    again.load(msgspec.msgpack.decode(msgspec.msgpack.encode(model.save())))
    assert proposals(again) == proposals(model)
    more = [make(random.Random(number)) for number in range(50, 55) for make in KINDS]
    train(model, more)
    train(again, more)
    assert proposals(again) == proposals(model)


def test_it_is_bounded() -> None:
    """However many tools and arguments there are, only the latest are kept (S2-51)."""
    model = ArgumentModel(patterns=200)
    train(model, [[Step((Called(f"tool_{n}", {f"arg_{n}": n}),))] for n in range(200)])
    assert len(model._tools) == 10
    assert len(model._names) <= 20
    assert model.propose("tool_0", Context()) == []


def test_a_tool_with_few_arguments_outlives_one_with_many() -> None:
    """Names of arguments stay as long as a tool has them, however many others come. (S2-50, S2-51)"""
    model = ArgumentModel(patterns=60)
    for _ in range(5):
        model.observe(Called("small", {"x": 1}), Context())
    model.observe(Called("large", {f"y{n}": n for n in range(20)}), Context())
    assert model.propose("small", Context())[0][0] == {"x": 1}
    model.forget("large")
    assert list(model._names) == ["x"]


def test_all_tools_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tools know more than there is room for, those that were called last stay. (S2-51)"""
    monkeypatch.setattr(arguments, "_LEAST_SIZE", 6_000)
    model = ArgumentModel(patterns=20)
    model._most_tools = 1_000
    sizes: list[int] = []
    for number in range(1_024):
        context = Context()
        context.say(Said(f"{number} of {code(random.Random(number))}"))
        called = Called(f"tool_{number // 32}", {"id": number, f"of_{number // 32}": f"v{number}"})
        model.observe(called, context)
        if not model._observed % 64:
            tools = sum(tool.size() for tool in model._tools.values())
            sizes.append(tools + sum(known.size() for known in model._names.values()))
    assert max(sizes) <= 6_000
    assert "tool_31" in model._tools
    assert "tool_0" not in model._tools
    assert set(model._names) == {n for tool in model._tools.values() for n in tool.slots}


def test_looking_at_a_declared_tool_keeps_nothing() -> None:
    """What is proposed for a tool that was never called is not remembered. (S2-51)"""
    model = ArgumentModel()
    before = model.save()
    schema = {"properties": {"city": {"type": "string", "enum": ["Oslo"]}}, "required": ["city"]}
    model.propose("weather", Context(tools={"weather": schema}))
    assert model.save() == before


@pytest.mark.parametrize(
    ("part", "saved"),
    [
        ("weights", [[{}, 1.0, 1.0]]),
        ("weights", [["a", 1.0, -1.0]]),
        ("objects", [[[], 1.0]]),
        ("objects", [[[["a", "", "o"]], 1.0]]),
        ("slots", {"unknown": None}),
        ("slots", {"strange": {}}),
    ],
)
def test_parts_that_cannot_be_are_refused(part: str, saved: object) -> None:
    """A saved tool with a part that nothing is learnt as is refused, and nothing changes. (S2-49)"""
    model = ArgumentModel()
    train(model, [[Step((Called("get", {"id": n}),))] for n in range(3)])
    data = msgspec.to_builtins(model.save())
    data["tools"]["get"][part] = saved
    before = model.save()
    with pytest.raises(CodecError):
        model.load(data)
    assert model.save() == before


def test_one_tool_is_bounded() -> None:
    """However many values, words and sources one argument has, no more are kept (S2-51)."""
    model = ArgumentModel()
    for number in range(700):
        context = Context()
        context.say(
            Said(" ".join(f"{a}{b}" for a in "abcdefg" for b in [code(random.Random(number))]))
        )
        model.observe(Called("get", {"id": f"id_{number}"}), context)
    slot = model._tools["get"].slots["id"]
    assert len(slot._values) <= 256
    assert len(slot._patterns) <= 64
    assert len(slot.weights) <= 1_024


def test_a_tool_can_be_forgotten() -> None:
    """A tool that is forgotten is not proposed for (S2-51)."""
    model = trained(constant)
    model.forget("start")
    assert model.propose("start", Context()) == []


def test_a_call_without_arguments_is_certain() -> None:
    """A tool that never had arguments is proposed with none (S2-50)."""
    model = ArgumentModel()
    train(model, [[step("now")]])
    assert model.propose("now", Context()) == [({}, 1.0)]


def test_whole_numbers_stay_what_they_were() -> None:
    """A number of a text is proposed as a float for an argument that always had floats (S2-50)."""

    def fill(chance: random.Random) -> Session:
        liters = chance.randint(2, 90)
        return [Said(f"fill {liters} liters"), step("fill", liters=float(liters))]

    arguments, _, _ = best(fill)
    assert isinstance(arguments["liters"], float)


def test_a_schema_speaks_for_a_new_tool() -> None:
    """For a tool that was never called its schema tells the arguments, their types and values
    (S2-50)."""
    tools: Tools = {
        "fetch": {
            "properties": {"token": {"type": "string"}, "size": {"type": "string", "enum": ["s"]}},
            "required": ["token"],
        }
    }
    model = trained(passed_on)
    context = Context(tools=tools)
    context.hear(step("login", {"token": "abc", "size": "m"}))
    found = [arguments for arguments, _ in model.propose("fetch", context)]
    assert {"token": "abc"} in found
    assert all(arguments.get("size") != "m" for arguments in found)
    assert model.propose("unheard of", context) == []


def test_private_values_are_not_kept() -> None:
    """Of arguments that are private it is learnt where their values come from, as of others; the values
    themselves are in nothing that is kept, and never proposed by themselves. (S2-51)"""
    told, usual = ArgumentModel(), ArgumentModel()
    for number in range(30):
        context = Context()
        context.hear(Said(f"where is order A{4_000 + number}"))
        called = Called("track", {"order": f"A{4_000 + number}", "by": "dear-ada"})
        told.observe(called, context, ["order", "by"])
        usual.observe(called, context)
    kept = [repr(model.save()) for model in (told, usual)]
    assert ["A4007" in one for one in kept] == ["dear-ada" in one for one in kept] == [False, True]
    context = Context()
    context.hear(Said("where is order A9999"))
    assert usual.propose("track", context)[0][0] == {"order": "A9999", "by": "dear-ada"}
    assert all("by" not in arguments for arguments, _ in told.propose("track", context))
    context = Context()
    for number in range(30):
        called = Called("track", {"order": f"A{number}"})
        context.hear(Said(f"where is order A{number}"))
        told.observe(Called("find", {"order": f"A{number}"}), context, ["order"])
    assert told.propose("find", context)[0][0] == {"order": "A29"}


@pytest.mark.parametrize("place", range(6))
def test_one_place_of_a_list_is_learnt(place: int) -> None:
    """Of a list of six from which always the same place is taken, the first four after the first too,
    that one is proposed first. (S2-50, P-01)"""

    def always(chance: random.Random) -> Session:
        ids = [code(chance) for _ in range(6)]
        return [Said("go"), step("list", {"ids": ids}), step("read", key=ids[place])]

    model = trained(always)
    for seed in range(1_000, 1_010):
        context, call = before_last(always(random.Random(seed)))
        (arguments, chance), *_ = model.propose("read", context)
        assert arguments == call.arguments
        assert chance > 0.9


def test_a_place_in_the_middle_is_learnt_from_far_down() -> None:
    """Beyond the fifth all places of a list but the last are alike: none is more likely. (S2-50, P-01)"""

    def seventh(chance: random.Random) -> Session:
        ids = [code(chance) for _ in range(10)]
        return [Said("go"), step("list", {"ids": ids}), step("read", key=ids[6])]

    model = trained(seventh)
    context, _ = before_last(seventh(random.Random(1_000)))
    ids = list(context.batches("r list.ids[*]")[0].places)
    proposed = [(found["key"], chance) for found, chance in model.propose("read", context, most=4)]
    assert {key for key, _ in proposed} == {place.value for place in ids[5:9]}
    assert max(chance for _, chance in proposed) < 0.3


def test_huge_numbers_are_proposed_as_they_are() -> None:
    """A number that no float is large enough for is neither lost nor an error, where all others were
    floats, alone or in a list that is gone through. (S2-50)"""
    model = PerformancePredictor()
    ids: list[object] = [1.5, 2.5, 10**400]
    for number in range(12):
        events = (
            Said("go"),
            Step((Called("list", {}, [n + number for n in (1.5, 2.5, 3.5)]),)),
            Step(tuple(Called("get", {"id": n + number}) for n in (1.5, 2.5, 3.5))),
        )
        model.learn(Trajectory(str(number), events))
    session = model.session()
    for event in (Said("go"), Step((Called("list", {}, ids),))):
        model.observe(session, event)
    assert [each.arguments["id"] for each in model.propose(session)] == ids
