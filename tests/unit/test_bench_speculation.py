"""The harness that plays recorded sessions with prediction and without."""

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import pytest

from bench import speculation
from bench.speculation import Figures, section
from paceline.call import Effect, Priority
from paceline.engine.session import Session
from paceline.engine.states import ExecutionContext
from paceline.messages import ModelReply, ToolUse
from paceline.predict.events import Called, Event, Said, Step, Trajectory

EFFECTS = {"read": Effect.read("world"), "change": Effect.write("world")}
BY_US = Said("There.", by_user=False)


def call(name: str, result: object, **arguments: object) -> Step:
    return Step((Called(name, arguments, result),))


RECORDED = [
    Trajectory(
        str(number),
        (
            Said("Look."),
            call("read", f"{number} before", x=1),
            call("change", "done", x=2),
            call("read", f"{number} after", x=1),
            BY_US,
            Said("And?"),
            call("read", {"y": number}, x=3),
        ),
    )
    for number in range(3)
]


class Ahead:
    """Launches calls while the model is asked, where prediction is on: those that come next, or
    others."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, wrong: bool) -> None:
        self.wrong = wrong
        self.on = False
        self.session: Session | None = None
        self.tasks: list[asyncio.Task[Any]] = []
        play, turn, complete = speculation._play, speculation._turn, speculation._Replay.complete

        async def playing(each: Any, predict: Any) -> Any:
            self.on = "speculate" not in predict
            return await play(each, predict)

        async def turning(session: Session, *rest: Any) -> None:
            self.session = session
            await turn(session, *rest)

        async def completing(model: Any, *rest: Any) -> ModelReply:
            replies = list(model._replies)
            model._replies = iter(replies)
            if self.on:
                self.launch(replies[0].uses)
            return await complete(model, *rest)

        monkeypatch.setattr(speculation, "_WITH", {"learn": False})  # nothing else launches
        monkeypatch.setattr(speculation, "_play", playing)
        monkeypatch.setattr(speculation, "_turn", turning)
        monkeypatch.setattr(speculation._Replay, "complete", completing)

    def launch(self, uses: Sequence[ToolUse]) -> None:
        assert self.session is not None
        assert self.session.turn is not None
        tools = self.session._means.tools or self.session._means.pipeline.tools
        context = ExecutionContext(self.session.id, turn_id=self.session.turn.id)
        for use in uses:
            if use.name == "read":
                arguments = '{"x": 99}' if self.wrong else use.arguments
                prepared = tools.prepare(ToolUse("ahead", use.name, arguments))
                ran = tools.run(prepared, context, priority=Priority.SPECULATIVE, timeout_s=None)
                self.tasks.append(asyncio.ensure_future(ran))


def played() -> Figures:
    ((name, figures),) = speculation._compared(speculation._Set("made up", RECORDED, EFFECTS))
    assert name == "made up"
    return figures


def test_without_prediction_nothing_is_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Played twice the same way, sessions wait the same and say the same. (S2-40)"""
    monkeypatch.setattr(speculation, "_WITH", speculation._WITHOUT)
    figures = played()
    assert (figures.sessions, figures.calls) == (3, 12)
    assert 12 * 0.5 <= figures.without_s <= 12 * 2
    assert figures.hidden == figures.extra_calls == figures.slower_ms == figures.different == 0
    assert 0.5 < figures.reads < 1


def test_what_is_made_ahead_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every call that reads is launched while the model is asked, all waits for it are hidden,
    none is extra, and all texts are equal. (S2-40)"""
    Ahead(monkeypatch, wrong=False)
    figures = played()
    assert figures.hidden == pytest.approx(figures.reads)
    assert figures.extra_calls == figures.slower_ms == figures.different == 0


def test_wrong_launches_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches that nobody asks for are run, and counted as extra; they hide nothing. (S2-40)"""
    Ahead(monkeypatch, wrong=True)
    figures = played()
    assert figures.hidden == figures.slower_ms == figures.different == 0
    assert figures.extra_calls == pytest.approx(6 / 12)  # what is found nowhere is kept too


def test_tools_return_what_was_recorded() -> None:
    """What a tool returns is what was recorded for its arguments in that session, as its world is at
    that moment. (S2-40)"""
    found = speculation._played(speculation._Set("made up", RECORDED, EFFECTS), {})
    texts = [each.texts for each in found]
    assert texts[1] == ["1 before", "done", "1 after", "There.", '{"y":1}', "Done."]


def test_other_texts_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result that is not the same when sessions are played again is counted as different. (S2-40)"""
    numbers = itertools.count()
    monkeypatch.setattr(speculation._World, "_found", lambda *_: next(numbers))
    assert played().different == 12


def test_turns_are_those_of_the_recording() -> None:
    """Each message is answered as recorded: what was said with a call is in the same reply, and a
    message that nobody answered is not sent. (S2-40)"""
    events: list[Event] = [
        Said("Hi"),
        Step((Called("read", {"x": 1}, 1),), "Looking."),
        Said("Bye"),
    ]
    ((said, replies),) = speculation._turns(events)
    assert said == "Hi"
    assert [each.text for each in replies] == ["Looking.", "Done."]
    assert [use.arguments for use in replies[0].uses] == ['{"x":1}']
    assert list(speculation._turns([])) == []


def test_made_up_sets_are_what_they_say() -> None:
    """A habit that ends is one in which each call is given what the one before returned, until none
    is. (S2-51)"""
    sessions = list(speculation._drift(10))
    follows = [
        calls[1].arguments["id"] == calls[0].result["id"]  # type: ignore[index]
        for calls in (list(speculation._calls(each)) for each in sessions)
    ]
    assert follows == [True] * 5 + [False] * 5
    texts = [call.arguments["query"] for each in speculation._free_text(9)
             for call in speculation._calls(each)]  # fmt: skip
    assert len(set(texts)) == len(texts)


def test_the_verdicts() -> None:
    """A set that hides too little, is slower or says something else misses its bar. (S2-40)"""
    good = {"sessions": 1, "calls": 2, "reads": 0.9, "without_s": 10.0, "with_s": 6.0,
            "extra_calls": 0.1, "speculated": 1, "slower_ms": 0.0, "different": 0}  # fmt: skip
    assert all(bar.met for bar in section("t", {"tau": good, "other": good}).bars)
    for worse in ({"with_s": 8.0}, {"slower_ms": 3.0}, {"different": 1}):
        bars = section("t", {"tau": {**good, **worse}}).bars
        assert [bar.met for bar in bars].count(False) == 1
