"""What all sessions learn from together, and what is in none of it."""

import random
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.predict.arguments import ArgumentModel
from paceline.predict.context import Context
from paceline.predict.events import Event, Said, Step, Trajectory
from paceline.predict.session import Session
from tests.unit.predict.sessions import call, predictor, step


def taught(events: Callable[[int], tuple[Event, ...]]) -> str:
    """What all have learnt of a dozen sessions with other numbers each, `fetch` and `lookup` being public."""
    model = predictor(arguments=ArgumentModel, public=["fetch", "lookup"])
    for number in range(500, 512):
        session = model.session("anna")
        for event in events(number):
            model.propose(session)
            model.observe(session, event)
    return repr(model.save()["shared"])  # type: ignore[index]


def held(words: tuple[str, ...], text: str) -> list[str]:
    """Which of these words a text has."""
    return [word for word in words if word in text]


def test_the_words_of_a_private_turn_are_not_learnt_by_all() -> None:
    """Of a turn that led to no public tool no word is learnt by all, whoever said it: not even right before
    a value that a public tool is called with later. (S2-51)"""
    text = taught(
        lambda n: (
            Said(f"my chemotherapy is {n} today"),
            Step((call("mine", {"oncology": n}),), said=f"so quizzical {n}"),
            Said(f"you owe bartholomew {n} dollars", by_user=False),
            Said("thanks, fetch it"),
            step("fetch", "done", account=n),
            Said("fine", by_user=False),
        )
    )
    private = ("chemo", "oncology", "quizzi", "barthol", "dollar", "mine")
    assert held(private, text) == []
    assert held(("thanks", "fetch"), text) == ["thanks", "fetch"]


def test_the_words_of_a_public_turn_are_learnt_by_all() -> None:
    """What stands right before the value of a public tool in the turn of its call is learnt by all, also
    where a private tool was called in between. (S2-51)"""
    text = taught(
        lambda n: (
            Said(f"account {n}, please"),
            step("mine", {"ward": n}),
            step("fetch", "done", number=n),
        )
    )
    assert "account" in text
    assert held(("mine", "ward"), text) == []


def test_the_results_of_a_private_tool_are_not_learnt_by_all() -> None:
    """Neither the name of a private tool nor the keys of what it returned are learnt by all, though a value
    in it was given to a public tool. (S2-51)"""
    text = taught(
        lambda n: (
            Said("do"),
            step("contacts", {"jane": {"balance": n}}),
            step("fetch", "done", account=n),
        )
    )
    assert held(("contacts", "jane", "balance"), text) == []
    assert "account" in text


def test_keys_that_are_data_are_not_learnt_by_all() -> None:
    """Of what a public tool returns the names of fields are learnt, and no key that is an address or a
    name. (S2-51)"""
    text = taught(
        lambda n: (
            Said("do"),
            step("lookup", {"by_person": {"jane@corp": {"account": n}, "Al Doe": {"due": n}}}),
            step("fetch", "done", account=n),
        )
    )
    assert "by_person" in text
    assert held(("jane", "corp", "Al Doe"), text) == []


def test_of_results_all_learn_the_flags_alone() -> None:
    """Words in what a public tool returned are learnt by nobody but who was told them; that something in it
    is true or false may be. (S2-51)"""
    result = {"status": "bankrupt", "open": True, "jane@corp": False}
    text = taught(
        lambda n: (
            Said("do"),
            step("lookup", result, id=n),
            step("fetch", "done", account=n),
        )
    )
    assert "ropen=True" in text
    assert held(("bankrupt", "jane"), text) == []


def test_of_a_private_value_no_distance_is_learnt() -> None:
    """How much more or less a private argument is than another would tell what it is. (S2-51)"""
    for private in (False, True):
        model = ArgumentModel()
        for number in range(8):
            context = Context()
            context.step(step("lookup", {"limit": 500 + 7 * number}))
            given = call("fetch", limit=503 + 7 * number)
            model.observe(given, context, ["limit"] if private else [])
        assert ("+3 r lookup.limit" in repr(model.save())) is not private


def test_a_scope_that_is_dropped_used_nothing() -> None:
    """Of a scope that is no longer remembered it is not known either which values it used, so none is
    missed where it is forgotten. (S2-51, S2-53)"""
    model = predictor(public=["fetch"], scopes=2)
    for scope in ("anna", "bert", "carl"):
        model.learn(Trajectory("1", (Said("do"), step("fetch", "x", of=scope)), scope=scope))
    model.update_predictions()
    saved = model.save()
    assert list(saved["scopes"]) == ["bert", "carl"]  # type: ignore[index]
    assert len(saved["shared"]["used_by"]) == 2  # type: ignore[index]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32))
def test_all_hear_what_public_turns_held(seed: int) -> None:
    """However a session goes, the public context has heard the messages of turns with a public call and
    the public calls, in order, and nothing else. (S2-51)"""
    rng = random.Random(seed)
    session = predictor(public=["fetch"]).session("anna")
    calls: list[str] = []
    said: list[str] = []
    for turn in range(6):
        texts = [f"asked {turn}"]
        session.hear(Said(texts[0]))
        led = False
        for number in range(rng.randrange(4)):
            names = rng.choices(("fetch", "mine"), k=rng.randint(1, 3))
            some = tuple(call(name, n=f"{turn} {number} {at}") for at, name in enumerate(names))
            told = rng.random() < 0.5
            for each in some if told else ():
                session.ask(each)
            words = f"words {turn} {number}"
            session.hear(Step(some, words))
            public = [str(each.arguments["n"]) for each in some if each.name == "fetch"]
            calls += public
            texts += [words] if public else []
            led = led or bool(public)
        session.hear(Said(f"answer {turn}", by_user=False))
        said += [*texts, f"answer {turn}"] if led else []
    heard = _heard(session)
    assert heard == (calls, said)


def _heard(session: Session) -> tuple[list[str], list[str]]:
    """The calls and messages of the public context, in a turn that nothing was said in."""
    session.hear(Said("asked"))
    session.hear(step("fetch", n="last"))
    context = session.contexts.lead()
    calls = [str(each.arguments["n"]) for each in context.calls]
    said = [each.text for each in context.said]
    assert (calls.pop(), said.pop()) == ("last", "asked")
    return calls, said
