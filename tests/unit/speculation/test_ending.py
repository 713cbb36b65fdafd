"""However a turn, a tool, a session or a runtime ends: nothing of what was run ahead is left."""

import asyncio
import json
from typing import Any

import pytest

from paceline import Runtime
from paceline.call import Source
from paceline.engine.session import Session
from paceline.engine.states import ToolStatus
from paceline.errors import CallCancelledError
from paceline.messages import ToolUse
from paceline.predict.events import Said, Step
from paceline.predict.predictor import PerformancePredictor
from paceline.speculation.speculator import Speculator
from tests.unit.speculation.worlds import (
    GENEROUS,
    Follows,
    World,
    runs_clean,
    shop,
    sure,
)

SLOW = [("slow", {"item": "a"}), ("slow", {"item": "b"})]


class Slow:
    """A tool that takes half a minute, and knows how it ended."""

    def __init__(self, runtime: Runtime) -> None:
        self.began = 0
        self.cancelled = 0
        runtime.tool(effect="read", ttl_s=600, max_concurrency=4)(self.slow)

    async def slow(self, item: str) -> str:
        """Slow."""
        self.began += 1
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return item


async def speculator(runtime: Runtime) -> Speculator:
    return (await runtime._parts.predictions()).speculator


def free(runtime: Runtime) -> tuple[int, int]:
    """Places of the runtime, and all of them."""
    gate = runtime._parts.path._attempts._gate
    return gate.free, gate.capacity


def test_a_cancelled_turn_leaves_what_runs_ahead_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A turn that is cancelled while calls ahead run ends as ever; they go on for the next turn, which
    finds them, and all places are free after it (S2-40, S2-48)."""
    sure(monkeypatch, reply=SLOW)

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            world = Slow(runtime)
            model = Follows([[("slow", {"item": "a"})]])
            async with runtime.session(model=model, user="ada") as session:
                going = asyncio.create_task(session.send("go"))
                await asyncio.sleep(1)
                assert world.began == 2
                assert session.cancel()
                with pytest.raises(CallCancelledError):
                    await going
                assert world.cancelled == 0
                turn = await session.send("go on")
                assert turn.tool_calls[0].source == Source.SPECULATED
                assert free(runtime)[0] == free(runtime)[1]
            assert len(await speculator(runtime)) == 0

    runs_clean(main())


def test_a_session_that_is_left_stops_what_runs_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a session is over nothing runs ahead for it any more and no place is taken; what somebody
    else has joined goes on for them (S2-40, S2-48)."""
    proposed = list(SLOW)
    sure(monkeypatch, reply=proposed)

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            world = Slow(runtime)
            asked = Follows([[("slow", {"item": "a"})]])
            async with runtime.session(model=asked, user="ada") as other:
                async with runtime.session(model=Follows([]), user="ada") as session:
                    await session.send("go")
                    assert world.began == 2
                    proposed.clear()
                    going = asyncio.create_task(other.send("go"))
                    await asyncio.sleep(4)
                await asyncio.sleep(1)
                assert world.cancelled == 1
                turn = await going
                assert turn.tool_calls[0].result == "a"
                assert turn.tool_calls[0].source in {Source.SPECULATED, Source.JOINED}
            assert len(await speculator(runtime)) == 0
            assert free(runtime)[0] == free(runtime)[1]

    runs_clean(main())


@pytest.mark.parametrize("at_s", [0.001, 0.0021, 0.5, 2.9999, 3.0, 3.5])
def test_a_runtime_that_is_closed_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, at_s: float
) -> None:
    """A runtime that is closed while calls run ahead, and those that were launched this very moment,
    ends them all: no task is left, no timer, no place taken (S2-40, S2-48)."""
    sure(monkeypatch, reply=SLOW, idle=SLOW)

    async def main() -> None:
        async with shop(**GENEROUS, run={"drain_s": 0}) as runtime:
            world = Slow(runtime)
            opened = runtime.session(model=Follows([]), user="ada")
            session = await opened.__aenter__()
            going = asyncio.create_task(session.send("go"))
            await asyncio.sleep(at_s)
        await asyncio.gather(going, return_exceptions=True)
        await opened.__aexit__(None, None, None)
        assert world.began == world.cancelled
        assert len(await speculator(runtime)) == 0
        assert free(runtime)[0] == free(runtime)[1]

    runs_clean(main())


def test_a_launch_that_is_stopped_before_it_began_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A call ahead that is cancelled in the moment of its launch is counted as cancelled, and holds
    nothing (S2-40)."""
    launch = Speculator.launch

    def stop(self: Speculator, call: Any, job: Any, chance: Any) -> str:
        said = launch(self, call, job, chance)
        self.leave(call.caller.session or "")
        return said

    monkeypatch.setattr(Speculator, "launch", stop)
    sure(monkeypatch, reply=SLOW)

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            world = Slow(runtime)
            async with runtime.session(model=Follows([]), user="ada") as session:
                await session.send("go")
                assert world.began == 0
                assert len(await speculator(runtime)) == 0
                figures = (await runtime._parts.predictions()).figures()["slow"]
                assert (figures.launched, figures.cancelled, figures.wasted_s) == (2, 2, 0)

    runs_clean(main())


def test_a_tool_that_fails_ahead_fails_again_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What fails ahead is not kept, told to nobody and counted as in vain: the model that asks gets a
    run of its own (S2-40, security case 97)."""
    sure(monkeypatch, reply=[("shaky", {})])
    failing = [True]

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:

            @runtime.tool(effect="read", ttl_s=600)
            async def shaky() -> str:
                await asyncio.sleep(0.5)
                if failing[0]:
                    raise ValueError("broken")
                return "fine"

            async with runtime.session(model=Follows([[("shaky", {})]]), user="ada") as session:
                going = asyncio.create_task(session.send("go"))
                await asyncio.sleep(2)
                assert (await runtime._parts.predictions()).figures()["shaky"].wasted_s == 0.5
                failing[0] = False
                turn = await going
            assert turn.tool_calls[0].status is ToolStatus.COMPLETED
            assert turn.tool_calls[0].result == "fine"
            assert free(runtime)[0] == free(runtime)[1]

    runs_clean(main())


@pytest.mark.parametrize(
    "what", ["session", "propose", "observe", "asked", "predict_execution_pattern", "forget"]
)
@pytest.mark.parametrize("user", ["ada", None])
def test_what_fails_in_prediction_costs_nobody_anything(
    what: str, user: str | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever of the predictor fails, while a session goes on and when it is closed: its turns are as
    without it, and once of each kind it is told what is wrong and what to do (S2-40, P-02)."""
    faults: list[str] = []

    def broken(*_: object, **__: object) -> None:
        faults.append(what)
        raise LookupError("a fault of ours")

    monkeypatch.setattr(PerformancePredictor, what, broken)

    async def main() -> None:
        async with shop() as runtime:
            World(runtime)
            model = Follows([])
            async with runtime.session(model=model, user=user) as session:
                for _ in range(2):
                    model.steps = [(("stock", {"item": "bolt"}),)]
                    turn = await session.send("go")
                    assert [call.result for call in turn.tool_calls] == ["0"]
                    await asyncio.sleep(5)
                assert session.pattern is None or what != "predict_execution_pattern"
                await session.send("at the end of this there is something left to learn of")
            told = [one for one in runtime.notices if "a fault of ours" in one]
            assert len(told) == bool(faults)
            assert all("[predict]" in one for one in told)
            assert ("Traceback" in caplog.text) == bool(faults)
        assert faults or user  # only what was learnt for a session alone is forgotten

    runs_clean(main())


def test_what_cannot_be_learnt_of_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event that prediction fails on is dropped, and those around it are learnt of (S2-40)."""
    heard: list[str] = []
    plain = PerformancePredictor.observe

    def observe(self: PerformancePredictor, session: Any, event: Any, **more: Any) -> None:
        if isinstance(event, Said) and event.by_user:
            heard.append(event.text)
            if event.text == "1":
                raise OverflowError("too large")
        plain(self, session, event, **more)

    monkeypatch.setattr(PerformancePredictor, "observe", observe)

    async def main() -> None:
        async with shop() as runtime:
            World(runtime)
            async with runtime.session(model=Follows([]), user="ada") as session:
                for number in range(4):
                    await session.send(str(number))

    runs_clean(main())
    assert heard == ["0", "1", "2", "3"]


def observed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    events: list[object] = []
    plain = PerformancePredictor.observe

    def observe(self: PerformancePredictor, session: Any, event: Any, **more: Any) -> None:
        events.append(event)
        plain(self, session, event, **more)

    monkeypatch.setattr(PerformancePredictor, "observe", observe)
    return events


def test_tools_that_were_cancelled_are_known_to_have_been_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a turn that is cancelled while its tools run it is learnt that they were asked for and did
    not come to an end, and the turn after it is learnt as it was (S2-51)."""
    events = observed(monkeypatch)

    async def main() -> None:
        async with shop() as runtime:
            World(runtime)
            Slow(runtime)
            model = Follows([[("slow", {"item": "a"})]])
            async with runtime.session(model=model, user="ada") as session:
                going = asyncio.create_task(session.send("go"))
                await asyncio.sleep(5)
                session.cancel()
                with pytest.raises(CallCancelledError):
                    await going
                model.steps = [(("stock", {"item": "bolt"}),)]
                await session.send("go on")
                await asyncio.sleep(1)
        said = [each.text for each in events if isinstance(each, Said) and each.by_user]
        steps = [each for each in events if isinstance(each, Step)]
        assert said == ["go", "go on"]
        assert [(call.name, call.failed) for step in steps for call in step.calls] == [
            ("slow", True),
            ("stock", False),
        ]

    runs_clean(main())


STRANGE: list[Any] = [
    {"item": "\ud800"},
    {"item": 2**80},
    {"item": float("nan")},
    {"item": "x" * 100_000},
    {"item": json.loads("[" * 400 + "]" * 400)},
    {"": {}},
]


@pytest.mark.parametrize("arguments", STRANGE)
def test_strange_proposals_are_left_out(monkeypatch: pytest.MonkeyPatch, arguments: Any) -> None:
    """Arguments that no model could write, or that the tool would not take, are proposed in vain and
    harm nobody (S2-10, S2-40)."""
    sure(monkeypatch, reply=[("stock", arguments), ("total", {})])

    async def main() -> None:
        async with shop(**GENEROUS) as runtime:
            world = World(runtime)
            async with runtime.session(model=Follows([]), user="ada") as session:
                await session.send("go")
                assert world.ran["total"] == 1

    runs_clean(main())


@pytest.mark.parametrize(
    "text", ["half \ud800 a character", "[" * 5_000, "\x00\x1b[2J", "9" * 5_000, '{"a":' * 900]
)
def test_strange_words_and_results_are_learnt_of(text: str) -> None:
    """Whatever the user says and a tool returns, sessions go on and are looked at (S2-51)."""

    async def main() -> None:
        async with shop() as runtime:
            World(runtime)

            @runtime.tool(effect="read", ttl_s=60)
            async def echo(of: int) -> str:
                return text if of else "[" * 700 + "]" * 700

            model = Follows([])
            async with runtime.session(model=model, user="ada") as session:
                for number in range(6):
                    model.steps = [(("echo", {"of": number % 2}),)]
                    await session.send(text)
                    await asyncio.sleep(1)
                assert (await predicted(session))[:1] == ["echo"]

    runs_clean(main())


async def predicted(session: Session) -> list[str]:
    going = asyncio.create_task(session.send("and now?"))
    await asyncio.sleep(1)
    names = [each.tool_name for each in session.hints.predicted_tool_sequence]
    await going
    return names


def test_a_use_that_is_no_object_is_learnt_as_none() -> None:
    """A model that writes arguments that are no object is told so as ever, and looked at (S2-51)."""

    class Odd(Follows):
        async def complete(self, request: Any, hear: Any) -> Any:
            reply = await super().complete(request, hear)
            if not reply.uses:
                return reply
            return type(reply)(uses=(ToolUse("1", "stock", "[1"), ToolUse("2", "total", "")))

    async def main() -> None:
        async with shop() as runtime:
            World(runtime)
            async with runtime.session(model=Odd([[("total", {})]]), user="ada") as session:
                turn = await session.send("go")
                await asyncio.sleep(1)
            assert [call.status for call in turn.tool_calls] == [
                ToolStatus.REJECTED,
                ToolStatus.COMPLETED,
            ]

    runs_clean(main())
