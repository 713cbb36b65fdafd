"""Which tool is next."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.errors import CodecError
from paceline.predict.course import Course
from paceline.predict.events import Event, Said, Step
from paceline.predict.sequence import END, SequenceModel
from tests.unit.predict.sessions import call, step


def learn(model: SequenceModel, *events: Event) -> Course:
    """Takes a session in, as its predictor would."""
    course = Course()
    for event in events:
        if isinstance(event, Step):
            for each in event.calls:
                model.observe(course, each.name)
                course.ask(each)
        elif not event.by_user:
            model.observe(course, END)
        course.hear(event)
    return course


def heard(*events: Event) -> Course:
    course = Course()
    for event in events:
        course.hear(event)
    return course


def first(model: SequenceModel, course: Course) -> str:
    return model.predict(course)[0][0]


ENDED = Said("Done.", by_user=False)


def test_what_followed_follows() -> None:
    """A tool that always followed another is expected after it, the end of the turn too. (S2-50)"""
    model = SequenceModel()
    for _ in range(8):
        learn(model, Said("go"), step("a", 1), step("b", 1), ENDED)
    assert first(model, heard(Said("go"))) == "a"
    assert first(model, heard(Said("go"), step("a", 1))) == "b"
    assert first(model, heard(Said("go"), step("a", 1), step("b", 1))) == END


def test_the_longer_context_decides() -> None:
    """Where what came before the last tool matters, it is heeded. (S2-50)"""
    model = SequenceModel()
    for _ in range(12):
        learn(model, Said("go"), step("a", 1), step("x", 1), step("p", 1), ENDED)
        learn(model, Said("go"), step("b", 1), step("x", 1), step("q", 1), ENDED)
    assert first(model, heard(Said("go"), step("a", 1), step("x", 1))) == "p"
    assert first(model, heard(Said("go"), step("b", 1), step("x", 1))) == "q"


def test_an_unknown_context_backs_off() -> None:
    """After calls never seen together, the last of them decides. (S2-50)"""
    model = SequenceModel()
    for _ in range(8):
        learn(model, Said("go"), step("a", 1), step("b", 1), ENDED)
        learn(model, Said("go"), step("c", 1), ENDED)
    assert first(model, heard(Said("go"), step("c", 1), step("c", 1), step("a", 1))) == "b"


def test_what_came_of_the_last_call_matters() -> None:
    """After an error another tool is expected than after success. (S2-50)"""
    model = SequenceModel()
    for _ in range(10):
        learn(model, Said("go"), step("find", [1]), step("open", 1), ENDED)
        learn(model, Said("go"), step("find", "Error: no"), step("create", 1), ENDED)
    assert first(model, heard(Said("go"), step("find", [7]))) == "open"
    assert first(model, heard(Said("go"), step("find", "Error: away"))) == "create"


def test_what_the_user_says_matters() -> None:
    """The kind of the user's message tells which tool is next. (S2-28, S2-50)"""
    model = SequenceModel()
    for _ in range(10):
        learn(model, Said("is it going to rain tomorrow"), step("alpha", 1), ENDED)
        learn(model, Said("play some music"), step("beta", 1), ENDED)
    assert first(model, heard(Said("will it rain"))) == "alpha"
    assert first(model, heard(Said("I want music"))) == "beta"


def test_a_named_tool_is_expected_before_it_was_called() -> None:
    """A declared tool whose name is said is thought of though it was never called. (S2-50)"""
    model = SequenceModel()
    for _ in range(3):
        learn(model, Said("go"), step("a", 1), ENDED)
    course = Course(["get_weather_forecast", "book_flight"])
    course.hear(Said("Please book a flight"))
    ranked = [name for name, _ in model.predict(course)]
    assert "book_flight" in ranked
    assert "get_weather_forecast" not in ranked


def test_a_pattern_that_flips_is_unlearnt() -> None:
    """When what follows changes, the new soon takes the place of the old. (S2-51)"""
    model = SequenceModel()
    for _ in range(200):
        learn(model, Said("go"), step("a", 1), step("old", 1), ENDED)
    for _ in range(40):
        learn(model, Said("go"), step("a", 1), step("new", 1), ENDED)
    assert first(model, heard(Said("go"), step("a", 1))) == "new"


def test_calls_of_one_step_are_told_apart() -> None:
    """Within a step the calls that were already asked for are known, their results are not. (S2-50)"""
    model = SequenceModel()
    for _ in range(8):
        learn(model, Said("go"), Step((call("a", 1), call("b", 2))), ENDED)
    course = heard(Said("go"))
    course.ask(call("a"))
    assert first(model, course) == "b"


def wild(rng: random.Random, tools: int, turns: int) -> list[Event]:
    events: list[Event] = []
    for _ in range(turns):
        events.append(Said(" ".join(f"{chr(97 + rng.randrange(26))}word" for _ in range(5))))
        for _ in range(rng.randrange(4)):
            events.append(step(f"tool{rng.randrange(tools)}", [0] * rng.randrange(3)))
        events.append(Said("ok", by_user=False))
    return events


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 60))
def test_probabilities_are_of_one_whole(seed: int, tools: int) -> None:
    """Probabilities are ordered, between 0 and 1, and sum to 1, whatever was learnt. (S2-50)"""
    rng = random.Random(seed)
    model = SequenceModel()
    learn(model, *wild(rng, tools, 12))
    course = Course()
    for event in wild(rng, tools, 3):
        chances = [chance for _, chance in model.predict(course)]
        assert math.isclose(sum(chances), 1.0)
        assert chances == sorted(chances, reverse=True)
        assert all(0 <= chance <= 1 for chance in chances)
        course.hear(event)


def test_memory_is_bounded() -> None:
    """It never keeps more patterns than it may, however much it sees. (S2-51)"""
    model = SequenceModel(patterns=120)
    rng = random.Random(1)
    for _ in range(60):
        learn(model, *wild(rng, 300, 4))
    saved = model.save()
    assert isinstance(saved, dict)
    assert len(saved["contexts"]) <= 120
    assert len(saved["features"]) <= 120
    assert max(len(followers) for _, followers in saved["contexts"].values()) <= 64


def test_old_sights_fade() -> None:
    """However often a context was seen, it counts no more than its last few hundred times. (S2-51)"""
    model = SequenceModel()
    for _ in range(1_500):
        model.observe(heard(Said("go")), "a")
    assert 100 < model.seen(heard(Said("go"))) < 250


def test_it_does_not_grow_with_the_session() -> None:
    """What it looks at for one prediction stays the same however long the session is. (S2-50)"""
    short, long = Course(), Course()
    rng = random.Random(1)
    for event in wild(rng, 500, 10):
        short.hear(event)
    for event in wild(rng, 500, 1000):
        long.hear(event)
    assert len(long.recent) == len(short.recent) == 3
    assert len(long.so_far) <= 12
    assert len(long.turn) <= 4


def test_names_of_tools_are_bounded() -> None:
    """However many tools come and go, and however many are only thought of, no more names are kept
    than there is room for, those used last; and others learn as if there had been no more. (S2-51)"""
    rng = random.Random(11)
    model = SequenceModel(patterns=1_000)
    most = 0
    for number in range(1_500):
        declared = [f"made{number}_{word}" for word in ("order", "parcel", "money")]
        course = Course(declared)
        course.hear(Said("an order, a parcel, my money"))
        name = "steady" if number % 3 else f"tool{number}_{rng.choice('abc')}"
        model.observe(course, name)
        most = max(most, len(model._tools))
    tools = model._tools
    assert most <= 205
    assert len(tools.called) <= most
    assert "steady" in tools
    assert "tool0_a" not in tools
    assert sum(map(len, tools._by_stem.values())) < 4 * most
    assert all(max(each.tools) < len(tools) for each in model._weights.values() if each.tools)
    course = Course()
    course.hear(Said("an order, a parcel, my money"))
    assert max(model.predict(course), key=lambda each: each[1])[0] == "steady"


@pytest.mark.parametrize("tools", [1, 200])
def test_forgotten_names_survive_a_restart(tools: int) -> None:
    """A model that was saved forgets the same names as one that went on, of called tools and of such
    as were only thought of. (S2-49, S2-51)"""
    model, other = SequenceModel(patterns=500), SequenceModel(patterns=500)

    def lived(each: SequenceModel, number: int) -> None:
        course = Course([f"made_order{number}"])
        course.hear(Said(f"order {number % 7}"))
        each.observe(course, f"get_{'abcdefg'[number % tools % 7]}{number % tools}")

    for number in range(150):
        lived(model, number)
    other.load(model.save())
    for number in range(150, 200):
        lived(model, number)
        lived(other, number)
        assert other.save() == model.save()


def test_what_begins_a_turn_is_learnt_apart() -> None:
    """What an idle session expects is learnt beside what is expected once the user spoke, which it
    does not change. (S2-50)"""
    one, other = SequenceModel(), SequenceModel()
    rng = random.Random(2)
    course = Course()
    for number in range(60):
        course = Course()
        before = course.idle()
        name = rng.choice(["weather", "news"])
        course.hear(Said(f"{name} please {number}"))
        for model in (one, other):
            model.observe(course, name)
        one.observe(before, "weather")
    assert dict(one.predict(course)) == pytest.approx(dict(other.predict(course)))
    assert one.predict(Course().idle())[0][0] == "weather"


def test_what_was_learnt_is_kept() -> None:
    """What is saved and loaded predicts the same. (S2-49, S2-51)"""
    model, other = SequenceModel(), SequenceModel()
    course = learn(model, *wild(random.Random(3), 9, 20))
    other.load(model.save())
    assert other.predict(course) == model.predict(course)
    assert other.observed == model.observed


def test_the_same_is_predicted_of_the_same() -> None:
    """Two models that saw the same say the same, to the last digit. (S2-50)"""
    events = wild(random.Random(5), 9, 30)
    one, other = SequenceModel(), SequenceModel()
    assert one.predict(learn(one, *events)) == other.predict(learn(other, *events))


def test_what_is_not_ours_is_refused() -> None:
    """What `save` did not return is refused, and nothing is lost by it. (S2-49)"""
    model = SequenceModel()
    course = learn(model, Said("go"), step("a", 1), ENDED)
    before = model.predict(course)
    with pytest.raises(CodecError):
        model.load({"contexts": 7})
    strange = model.save()
    assert isinstance(strange, dict)
    strange["tools"] = {}
    with pytest.raises(CodecError):
        model.load(strange)
    assert model.predict(course) == before
