"""Sessions that are gone on with: what is known of them."""

import asyncio
import math
import random
import threading
from pathlib import Path
from typing import Any, cast

import pytest

from paceline.call import Effect
from paceline.engine.journal import Replied, TurnBegan, TurnEnded, backwards, read, write
from paceline.engine.session import Session
from paceline.engine.states import ExecutionContext, TurnStatus
from paceline.predict.events import Called, Event, Said, Step
from paceline.predict.session import Session as Heard
from paceline.redaction import Redactor
from paceline.session_settings import PredictSettings
from paceline.sessions.talk import Talk
from paceline.speculation.foresight import Foresight
from paceline.speculation.predictions import Predictions
from paceline.testing.virtual_time import VirtualClock, run
from tests.kept_sessions import entries_of
from tests.unit.engine.acting import Act, Acts, Pages, Script, use
from tests.unit.engine.acting import Says as Spoken
from tests.unit.engine.acting import session as a_session
from tests.unit.sessions.quiet import BYE, a_runtime, asks
from tests.unit.sessions.quiet import Said as Says
from tests.unit.speculation.test_predictions import NoTools
from tests.unit.speculation.worlds import runs_clean


def ticket(number: int) -> list[Event]:
    """A turn in which a ticket is looked up."""
    opened = Called("get_ticket", {"id": str(number)}, {"owner": f"u{number * 7}"})
    found = Step((opened,), f"I open {number}")
    return [Said(f"open {number}"), found, Said("there", by_user=False)]


def owner(number: int) -> list[Event]:
    """A turn in which its owner is."""
    found = Step((Called("get_owner", {"name": f"u{number * 7}"}, "somebody"),))
    return [Said("and who?"), found, Said("somebody", by_user=False)]


def habit(predictions: Predictions, count: int = 40) -> None:
    """It is known that who looks up a ticket asks for its owner next."""
    predictor = predictions.predictor
    for number in range(count):
        session = predictor.session("user ada")
        for event in (*ticket(number + 100), *owner(number + 100)):
            predictor.propose(session)
            predictor.observe(session, event, took_s=[1.0])


def predictions(**settings: Any) -> Predictions:
    async def run(*_: Any) -> Any:
        raise AssertionError("nothing is run")

    return Predictions(
        PredictSettings(**settings),
        run=run,
        left_s=lambda *_: math.inf,
        clock=VirtualClock(),
        rng=random.Random(1),
        redactor=Redactor(),
        kept=None,
        notice=lambda *_: None,
    )


async def tell(foresight: Foresight, entries: list[bytes]) -> None:
    """Has it live through this, with time to look each time somebody waits."""
    for entry in map(read, entries):
        if isinstance(entry, Replied):
            foresight.asking()
            await asyncio.sleep(1)
        foresight.heard(entry)
        if isinstance(entry, Replied | TurnEnded):
            await asyncio.sleep(1)


def journal(events: list[Event]) -> list[bytes]:
    """The entries of a session in which this happened; it waits for the user."""
    *_, last = entries = entries_of(events)
    return [*entries, write(TurnEnded(read(last).turn_id, TurnStatus.COMPLETED))]


def expected(foresight: Foresight) -> list[tuple[str, str, float]]:
    """The calls that are thought to come."""
    return [
        (each.tool_name, each.arguments, each.probability)
        for each in foresight.hints.predicted_tool_sequence
    ]


def test_a_session_that_is_gone_on_with_is_predicted_as_one_that_never_stopped() -> None:
    """What is expected in a session that is resumed is what is expected in one that went on, when it is
    opened and when the user has written (S2-40, S2-49)."""

    async def main() -> None:
        known = predictions()
        habit(known)
        entries = journal([*ticket(5), *owner(5), *ticket(9)])
        context = ExecutionContext("s", "ada", None)
        went_on, resumed = (known.foresight(NoTools(), context) for _ in range(2))
        went_on.opened()
        await tell(went_on, entries)
        resumed.opened()
        await asyncio.sleep(1)  # the journal takes its time
        assert expected(resumed) == []
        resumed.recall(backwards(entries))
        await asyncio.sleep(1)
        assert expected(resumed) == expected(went_on) != []
        assert expected(resumed)[0][:2] == ("get_owner", '{"name":"u63"}')
        for each in (went_on, resumed):
            each.heard(TurnBegan("t", "and who?", 0))
            each.asking()
            await asyncio.sleep(1)
        assert expected(resumed)[0][:2] == ("get_owner", '{"name":"u63"}')
        went_on.close()
        resumed.close()
        await known.close()

    runs_clean(main())


def test_what_is_recalled_is_not_learnt_again() -> None:
    """To go on with a session any number of times teaches nothing, neither of calls nor of messages, and
    is no news (S2-49)."""

    async def main() -> None:
        known = predictions(models=True)
        habit(known)
        messages = known._messages
        assert messages is not None
        entries = journal([*ticket(5), *owner(5)])
        first = known.foresight(NoTools(), ExecutionContext("s", "ada", None))
        await tell(first, entries)
        first.close()
        before = known.predictor.save(), messages.save()
        known._unwritten = False
        for number in range(5):
            again = known.foresight(NoTools(), ExecutionContext(f"s{number}", "ada", None))
            again.recall(backwards(entries))
            await asyncio.sleep(1)
            assert expected(again) != []
            assert (known.predictor.save(), messages.save()) == before
            assert not known._unwritten
        await known.close()

    runs_clean(main())


def test_messages_follow_those_before_the_session_was_left() -> None:
    """What a user is likely to write next is known of a session that is gone on with as of one that went
    on (S2-40, S2-49)."""

    async def main() -> None:
        known = predictions(models=True)
        context = ExecutionContext("s", "ada", None)
        for _ in range(20):
            session = known.foresight(NoTools(), context)
            session.opened()
            for text in ("standup", "and the bugs?"):
                await asyncio.sleep(1)
                session.heard(TurnBegan("t", text, 0))
                session.asking()
                await asyncio.sleep(1)
                session.heard(Replied("t", "done"))
                session.heard(TurnEnded("t", TurnStatus.COMPLETED))
            await asyncio.sleep(1)
            session.close()
        resumed = known.foresight(NoTools(), context)
        resumed.recall(backwards(journal([Said("standup"), Said("done", by_user=False)])))
        await asyncio.sleep(1)
        assert resumed._next is not None
        likely = resumed._next.likely()
        assert likely is not None
        assert likely[0] == "and the bugs?"
        await known.close()

    runs_clean(main())


def test_no_turn_is_supposed_before_an_interrupted_one_is_over() -> None:
    """While a turn that was cut off waits to be gone on with, and while it is, no message is put to the
    model ahead: the results it waits for are not there (S2-40, S2-49)."""

    async def main() -> None:
        pages, act = Pages(), Act(takes_s=9)
        first = a_session(
            Script(Spoken("", (use("look"),))), Acts(look=Act(Effect.unknown(), 9)), journal=pages
        )
        sending = asyncio.ensure_future(first.send("a"))
        await asyncio.sleep(1)
        pages.crashed = True
        sending.cancel()
        await asyncio.wait((sending,))
        pages.crashed = False
        second = a_session(
            Script(Spoken("", (use("look"),)), Spoken("2")), Acts(look=act), journal=pages
        )
        talk = Talk(cast("Any", None), lambda: second, clock=VirtualClock())
        async with second:
            assert talk.suppose("b") is None
            resuming = asyncio.ensure_future(second.resume())
            await asyncio.sleep(1)
            assert talk.suppose("b") is None
            await resuming
            assert talk.suppose("b") is not None

    run(main())


def test_only_the_latest_is_recalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a long session the last 64 events are recalled, an answer's words and calls as one, those that
    say nothing not among them, and no more of its journal is read; what is there twice counts once
    (S2-48, S2-49)."""
    entries = journal([event for number in range(60) for event in ticket(number)])
    damaged = [b"damaged"] * 5 + [entry for entry in entries[-140:] for _ in range(2)]

    async def main() -> None:
        known = predictions()
        heard: list[Event] = []
        hear = Heard.hear

        def noted(session: Heard, event: Event) -> None:
            heard.append(event)
            hear(session, event)

        monkeypatch.setattr(Heard, "hear", noted)
        foresight = known.foresight(NoTools(), ExecutionContext("s", "ada", None))
        foresight.recall(backwards(damaged))
        await asyncio.sleep(5)
        events = [event for number in range(60) for event in ticket(number)]
        assert heard == events[-64:]
        await known.close()

    runs_clean(main())


def test_a_resumed_session_knows_what_was_before(tmp_path: Path) -> None:
    """A kept session that is resumed in another process expects, before anybody writes, what follows what
    was done in it before (S2-40, S2-49)."""

    async def main() -> None:
        for resume in (False, True):
            async with a_runtime(tmp_path, predict={"speculate": False}) as runtime:
                known = await runtime._parts.predictions()
                if not resume:
                    habit(known)
                    known._news()

                @runtime.tool(effect="read", ttl_s=600)
                async def get_ticket(id: str) -> dict[str, str]:  # noqa: A002 (as tools name it)
                    return {"owner": f"u{int(id) * 7}"}

                @runtime.tool(effect="read", ttl_s=600)
                async def get_owner(name: str) -> str:
                    return name

                model = Says(asks("get_ticket", id="9"), BYE)
                async with runtime.session(
                    "s", model=model, user="ada", keep=True, resume=resume
                ) as session:
                    if not resume:
                        await session.send("open 9")
                    else:
                        assert await hinted(session) == ("get_owner", '{"name":"u63"}')

    asyncio.run(main())


async def hinted(session: Session) -> tuple[str, str]:
    """What comes first of what is foreseen of the arguments of a call, in real time."""
    while not any("u63" in each.arguments for each in session.hints.predicted_tool_sequence):
        await asyncio.to_thread(threading.Event().wait, 0.005)
    first = session.hints.predicted_tool_sequence[0]
    return first.tool_name, first.arguments
