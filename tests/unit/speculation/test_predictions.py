"""What a runtime has learnt, kept from one start to the next."""

import asyncio
import errno
import math
import os
import random
import threading
from pathlib import Path
from typing import Any

import pytest

from paceline.call import EffectKind, Source
from paceline.engine.session import Session
from paceline.engine.states import ExecutionContext, ToolCall, ToolStatus
from paceline.errors import PacelineError
from paceline.messages import ToolUse
from paceline.predict.ledger import Ledger
from paceline.redaction import Redactor
from paceline.session_settings import PredictSettings
from paceline.speculation.foresight import Foresight
from paceline.speculation.kept import KeptPredictions, peek
from paceline.speculation.learnt import learnt_of, public_of
from paceline.speculation.messages import heard_of
from paceline.speculation.predictions import Predictions
from paceline.testing.virtual_time import VirtualClock
from tests.unit.predict.sessions import orders
from tests.unit.sessions.quiet import BYE, Said, a_runtime, asks
from tests.unit.speculation.worlds import runs_clean


class NoTools:
    """Tools of a session, none of which is run here."""

    def definitions(self) -> tuple[Any, ...]:
        return ()

    def ahead(self, use: ToolUse) -> None:
        del use

    def text(self, outcome: Any) -> str:
        raise AssertionError(outcome)

    def public(self) -> frozenset[str]:
        return frozenset()

    def effects(self) -> dict[str, EffectKind]:
        return {"look": EffectKind.READ}

    def call(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("nothing is run")


class Stage:
    """Predictions with a file, and what was told."""

    def __init__(self, folder: Path) -> None:
        self.clock = VirtualClock()
        self.path = folder / "predictions"
        self.told: list[str] = []
        self.writes: list[float] = []
        self.held = threading.Event()
        self.held.set()

    def kept(self) -> KeptPredictions:
        return KeptPredictions(self.path, self.clock, on_trouble=lambda exc: self._tell("", exc))

    async def open(self, **settings: Any) -> Predictions:
        async def run(*_: Any) -> Any:
            raise AssertionError("nothing is run")

        made = Predictions(
            PredictSettings(**settings),
            run=run,
            left_s=lambda *_: math.inf,
            clock=self.clock,
            rng=random.Random(1),
            redactor=Redactor(),
            kept=self.kept(),
            notice=self._tell,
        )
        await made.open()
        return made

    def _tell(self, what: str, exc: PacelineError) -> None:
        self.told.append(f"{what}: {exc}")

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Notes when something is written; and has the disk be as slow as `held` says."""
        save, loop = KeptPredictions.save, asyncio.get_running_loop()

        def noted(kept: KeptPredictions, *args: Any) -> bool:
            self.writes.append(loop.time())
            self.held.wait(5)
            return save(kept, *args)

        monkeypatch.setattr(KeptPredictions, "save", noted)

    def circles(self) -> list[str]:
        learnt = peek(self.path)
        return [] if learnt is None else [one.circle for one in learnt_of(learnt.predictor)]

    def heard(self) -> dict[str, int] | None:
        """How many messages were learnt of, by circle; None where they are not in the file."""
        learnt = peek(self.path)
        if learnt is None or learnt.messages is None:
            return None
        return dict(heard_of(learnt.messages))


def session(predictions: Predictions, user: str | None = "ada", id_: str = "s") -> Foresight:
    return predictions.foresight(NoTools(), ExecutionContext(id_, user, None))


async def news(foresight: Foresight, words: str = "look around") -> None:
    """One turn of a session, and a blink after it."""
    foresight.began(words)
    foresight.asking()
    await asyncio.sleep(0.1)
    foresight.replied("", [ToolUse("1", "look", '{"at": 1}')])
    await asyncio.sleep(0.1)
    foresight.stepped([ToolCall("1", "look", '{"at": 1}', ToolStatus.COMPLETED, "1")])
    foresight.asking()
    await asyncio.sleep(0.1)
    foresight.replied("done", [])
    foresight.ended()
    await asyncio.sleep(0.1)


async def until(done: Any) -> None:
    """Lets the thread that writes go on, in real time."""
    while not done():
        await asyncio.to_thread(lambda: None)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has what blocks done in the loop, so that no virtual time passes meanwhile."""

    async def here(function: Any, *args: Any) -> Any:
        return function(*args)

    monkeypatch.setattr(asyncio, "to_thread", here)


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.mark.usefixtures("at_once")
def test_news_are_written_every_half_minute(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """While there is news it is written every 30 s, a tenth more or less; without news nothing is
    written and no timer runs, and what is closed without news writes nothing (S2-43, S2-48)."""

    async def main() -> None:
        stage.watch(monkeypatch)
        predictions = await stage.open()
        foresight = session(predictions)
        for _ in range(300):
            await news(foresight)
            await asyncio.sleep(1)
        await asyncio.sleep(100)
        apart = [b - a for a, b in zip([0.0, *stage.writes], stage.writes, strict=False)]
        assert len(stage.writes) == 14
        assert all(26.9 < each < 35 for each in apart)
        assert len({round(each, 2) for each in apart}) > 3
        count = len(stage.writes)
        await asyncio.sleep(100_000)
        assert predictions._timer is None
        foresight.close()
        await predictions.close()
        assert len(stage.writes) == count

    runs_clean(main())


def test_what_was_learnt_since_is_written_at_the_end(stage: Stage) -> None:
    """Closing writes what was learnt since the last time (S2-48, S2-49)."""

    async def main() -> None:
        predictions = await stage.open()
        await news(session(predictions))
        await predictions.close()
        assert stage.circles() == ["user ada"]
        assert predictions._timer is None
        again = await stage.open()
        assert again.predictor.save() == predictions.predictor.save()
        await again.close()

    runs_clean(main())


@pytest.mark.usefixtures("at_once")
def test_habits_of_one_session_alone_are_not_kept(stage: Stage) -> None:
    """What a session without a user learns for itself is in no file, also while it lasts (S2-51)."""

    async def main() -> None:
        predictions = await stage.open()
        nobody = session(predictions, None, "s-secret")
        await news(nobody)
        await news(session(predictions))
        assert len(learnt_of(predictions.predictor.save())) == 2
        await asyncio.sleep(40)
        assert stage.circles() == ["user ada"]
        assert b"s-secret" not in stage.path.read_bytes()
        nobody.close()
        await predictions.close()
        assert stage.circles() == ["user ada"]

    runs_clean(main())


@pytest.mark.usefixtures("at_once")
def test_a_full_disk_is_told_once_and_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk sessions go on and a notice says so, once; what was learnt is written as soon as
    there is room, at the latest when the runtime is closed (S2-48, S2-51)."""

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def main() -> None:
        stage.watch(monkeypatch)
        predictions = await stage.open()
        foresight = session(predictions)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fsync", full)
            for _ in range(4):
                await news(foresight)
                await asyncio.sleep(40)
        assert len(stage.writes) == 4
        (told,) = stage.told
        assert "cannot be kept" in told
        assert stage.circles() == []
        await predictions.close()
        assert stage.circles() == ["user ada"]

    runs_clean(main())


def test_one_writes_at_a_time(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a disk that takes minutes a second write waits for the first, and closing for both
    (S2-48)."""

    async def main() -> None:
        stage.watch(monkeypatch)
        stage.held.clear()
        predictions = await stage.open()
        foresight = session(predictions)
        for _ in range(10):
            await news(foresight)
            await asyncio.sleep(30)
        assert len(stage.writes) == 1
        closing = asyncio.create_task(predictions.close())
        await asyncio.sleep(1)
        assert not closing.done()
        stage.held.set()
        await closing
        assert len(stage.writes) == 2
        assert stage.circles() == ["user ada"]

    runs_clean(main())


def test_a_file_that_cannot_be_read_is_told_and_learning_begins_anew(stage: Stage) -> None:
    """A damaged file, and one whose content is of something else, are told of and moved aside; sessions
    go on (S2-49, S2-51)."""

    async def main() -> None:
        for content in ({"version": 1}, {"version": 99, "shared": {}, "scopes": {}}):
            stage.told.clear()
            stage.kept().save(content)
            predictions = await stage.open()
            assert len(stage.told) == 1
            assert "moved aside" in stage.told[0]
            await news(session(predictions))
            await predictions.close()
            assert stage.circles() == ["user ada"]

    runs_clean(main())


@pytest.mark.usefixtures("at_once")
def test_what_another_process_forgot_is_dropped(stage: Stage) -> None:
    """When something is forgotten by another process, a running one drops what it knew, figures
    included, at its next write, and does not write it back (S2-51)."""

    async def main() -> None:
        predictions = await stage.open()
        foresight = session(predictions)
        await news(foresight)
        predictions.speculator.proposed("look")
        await asyncio.sleep(40)
        assert stage.circles() == ["user ada"]
        stage.clock.advance(1)
        stage.kept().forget()
        bob = session(predictions, "bob")
        await news(bob)
        await asyncio.sleep(40)
        assert stage.circles() == []
        assert learnt_of(predictions.predictor.save()) == []
        assert predictions.figures() == {}
        await news(bob)
        await predictions.close()
        assert stage.circles() == ["user bob"]

    runs_clean(main())


@pytest.mark.usefixtures("at_once")
def test_what_launches_were_worth_for_one_session_is_not_kept(stage: Stage) -> None:
    """Of what launches were worth the file tells by circle, but for what sessions of nobody came to,
    which is a part of the totals alone (S2-40, S2-49)."""

    async def main() -> None:
        predictions = await stage.open()
        ledger = predictions._ledger
        await news(session(predictions))
        for circle in ("user ada", "session s"):
            ledger.launched(circle, "look", stage.clock.monotonic_ns(), 1.0, circle=circle)
        await predictions.close()
        again = await stage.open()
        assert again.figures()["look"].launched == 2
        circles = [place.circle for place, _ in again._ledger._accounts.items()]
        assert circles == ["user ada"]
        await again.close()

    runs_clean(main())


def test_what_nobody_used_by_the_end_is_kept_as_in_vain(stage: Stage) -> None:
    """What ran ahead shortly before the end, and was not asked for, is in vain in what is kept, also
    where there is no other news. (S2-40, S2-49)"""

    async def main() -> None:
        made = await stage.open()
        made._ledger.launched("1", "look", stage.clock.monotonic_ns(), 0.5)
        await made.close()
        learnt = peek(stage.path)
        assert learnt is not None
        ledger = Ledger(stage.clock, rng=random.Random(1))
        ledger.load(learnt.ledger)
        found = ledger.figures()["look"]
        assert (found.launched, found.used, found.wasted_s, found.precision) == (1, 0, 0.5, 0.0)

    runs_clean(main())


def test_an_interrupt_in_the_course_of_a_write_leaves_a_whole_file(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is interrupted (Ctrl-C) while something is written finds a file that is complete
    (S2-48, S2-51)."""

    async def main() -> None:
        stage.watch(monkeypatch)
        predictions = await stage.open()
        await news(session(predictions))
        stage.held.clear()
        closing = asyncio.create_task(predictions.close())
        await until(lambda: stage.writes)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert stage.circles() == []
        stage.held.set()
        await until(stage.path.exists)
        assert stage.circles() == ["user ada"]

    runs_clean(main())


def test_habits_outlive_the_runtime(tmp_path: Path) -> None:
    """What sessions of one runtime taught is there in the next with the same home (S2-16, S2-49,
    S2-51)."""

    async def main() -> None:
        async with a_runtime(tmp_path) as runtime:
            predictions = await runtime._parts.predictions()
            model = predictions.predictor
            for trajectory in orders(40, scope="user ada"):
                known = model.session("user ada")
                for event in trajectory.events:
                    model.propose(known)
                    model.observe(known, event, took_s=[1.0])
            predictions._news()
        async with a_runtime(tmp_path) as runtime:

            @runtime.tool(effect="read", ttl_s=600)
            async def get_order(order_id: int) -> dict[str, Any]:
                return {"order_id": order_id, "state": "sent"}

            held = asyncio.Event()

            class Thinks(Said):
                async def complete(self, request: Any, hear: Any) -> Any:
                    if len(self.requests) == 0:
                        await held.wait()
                    return await super().complete(request, hear)

            replies = Thinks(asks("get_order", order_id="7654"), BYE)
            async with runtime.session(model=replies, user="ada") as session:
                going = asyncio.create_task(session.send("Where is my parcel order 7654?"))
                await hinted(session)
                held.set()
                turn = await going
            assert turn.tool_calls[0].source == Source.SPECULATED

    asyncio.run(main())


async def hinted(session: Session) -> None:
    """Until something was foreseen, in real time."""
    while not session.hints.cache_warming_candidates:
        await asyncio.to_thread(threading.Event().wait, 0.005)
    await asyncio.to_thread(threading.Event().wait, 0.02)


def test_the_worst_effect_of_a_name_is_kept(stage: Stage) -> None:
    """Of a tool that sessions declare in several ways the file says the worst (S2-51)."""

    class Writes(NoTools):
        def effects(self) -> dict[str, EffectKind]:
            return {"look": EffectKind.WRITE}

    async def main() -> None:
        predictions = await stage.open()
        foresight = session(predictions)
        predictions.foresight(Writes(), ExecutionContext("t", "ada", None))
        session(predictions)
        await news(foresight)
        await predictions.close()
        learnt = peek(stage.path)
        assert learnt is not None
        assert learnt.effects == {"look": EffectKind.WRITE}

    runs_clean(main())


def test_habits_of_messages_are_kept_while_models_are_asked_ahead(stage: Stage) -> None:
    """With `models` what users write is kept with all else, also in a file from before, but for what a
    session without a user learns; without `models` it is taken out at the next write (S2-49, S2-51)."""

    async def main() -> None:
        plain = await stage.open()
        await news(session(plain))
        await plain.close()
        assert stage.heard() is None
        asked = await stage.open(models=True)
        for _ in range(2):
            await news(session(asked), "the open bugs?")
        await news(session(asked, None, "s-alone"), "nobody's words")
        await asked.close()
        assert stage.heard() == {"user ada": 2}
        assert b"the open bugs?" in stage.path.read_bytes()
        assert b"nobody" not in stage.path.read_bytes()
        again = await stage.open(models=True)
        await news(session(again), "the open bugs?")
        await again.close()
        assert stage.heard() == {"user ada": 3}
        without = await stage.open()
        await news(session(without))
        await without.close()
        assert stage.heard() is None
        assert stage.told == []

    runs_clean(main())


def test_damaged_habits_of_messages_are_told_of(stage: Stage) -> None:
    """A file of which the habits of messages cannot be read is told of and moved aside, and learning
    begins anew; without `models` nobody looks at them (S2-49, S2-51)."""

    async def main() -> None:
        empty = (await stage.open()).predictor.save()
        stage.kept().save(empty, None, {}, {"version": 1})
        await (await stage.open()).close()
        assert stage.told == []
        predictions = await stage.open(models=True)
        (told,) = stage.told
        assert "moved aside" in told
        await news(session(predictions))
        await predictions.close()
        assert stage.heard() == {"user ada": 1}

    runs_clean(main())


@pytest.mark.usefixtures("at_once")
def test_what_another_process_forgot_of_messages_is_dropped(stage: Stage) -> None:
    """When something is forgotten by another process, a running one drops what it knew of messages too,
    and does not write it back (S2-51)."""

    async def main() -> None:
        predictions = await stage.open(models=True)
        foresight = session(predictions)
        for _ in range(2):
            await news(foresight, "the open bugs?")
        await asyncio.sleep(40)
        assert stage.heard() == {"user ada": 2}
        stage.clock.advance(1)
        stage.kept().forget()
        await news(session(predictions, "bob"), "words of bob")
        await asyncio.sleep(40)
        await news(session(predictions, "bob"), "words of bob")
        await predictions.close()
        assert stage.heard() == {"user bob": 1}
        assert b"bugs" not in stage.path.read_bytes()

    runs_clean(main())


@pytest.mark.usefixtures("at_once")
def test_a_tool_that_is_public_no_more_teaches_no_others(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a tool of a session is replaced by one that is not the same for everybody, calls from then
    on are nobody else's, also when it comes back (S2-51)."""
    public = {"look"}
    monkeypatch.setattr(NoTools, "public", lambda _: frozenset(public))

    async def main() -> None:
        predictions = await stage.open()
        known: list[int] = []
        foresight = session(predictions)
        for names in ({"look"}, set[str](), {"look"}):
            public.clear()
            public.update(names)
            await news(foresight)
            known.append(public_of(predictions.predictor.save()).get("look", 0))
        assert known == [1, 1, 1]
        await news(session(predictions))
        assert public_of(predictions.predictor.save()) == {"look": 2}
        await predictions.close()

    runs_clean(main())
