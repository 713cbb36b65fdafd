"""What a runtime has learnt of its sessions: read when it begins, kept while it goes on."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Generator, Mapping
from typing import Final, final

from paceline.call import Call, Caller, EffectKind, Outcome
from paceline.clock import Clock
from paceline.engine.states import ExecutionContext
from paceline.errors import CodecError, CorruptStoreError, PacelineError, StorageError
from paceline.path.job import Job
from paceline.predict.arguments import ArgumentModel
from paceline.predict.budget import Budget
from paceline.predict.ledger import Figures, Ledger
from paceline.predict.predictor import UPDATE_S, Bits, PerformancePredictor
from paceline.redaction import Redactor
from paceline.session_settings import PredictSettings
from paceline.speculation.foresight import Foresight
from paceline.speculation.kept import KeptPredictions
from paceline.speculation.messages import Messages, fitting
from paceline.speculation.outlook import Habits
from paceline.speculation.pace import Pace
from paceline.speculation.rehearsal import Talk
from paceline.speculation.scopes import circle_of, lasting, lasts
from paceline.speculation.speculator import Speculator, Tools

__all__ = ["Predictions"]

_log = logging.getLogger("paceline")
_JITTER: Final = 0.1
_WORST: Final = (EffectKind.PURE, EffectKind.READ, EffectKind.WRITE, EffectKind.UNKNOWN)
"""The worst is last."""


@final
class Predictions:
    """The predictor and the speculator of a runtime, and the file in which they are kept.

    What was learnt is taken into account, and written, every 30 seconds while there is news, and at the end. While there is
    none, nothing of this runs.
    """

    def __init__(
        self,
        settings: PredictSettings,
        *,
        run: Callable[[Call, Job], Awaitable[Outcome]],
        left_s: Callable[[Call, Job], float],
        clock: Clock,
        rng: random.Random,
        redactor: Redactor,
        kept: KeptPredictions | None,
        notice: Callable[[str, PacelineError], object],
    ) -> None:
        """`run` is the call path, `left_s` says for how much longer what it has for a call is valid;
        `kept` is None where nothing is kept."""
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._kept = kept
        self._notice = notice
        self._redactor = redactor
        self._failures: set[type[Exception]] = set()
        """Kinds of failures that were told."""
        self.predictor = PerformancePredictor(
            clock=clock,
            arguments=ArgumentModel,
            patterns=settings.patterns,
            scopes=settings.scopes,
        )
        self._ledger = Ledger(clock, rng=rng, usd_an_hour=settings.usd_an_hour)
        self._nothing = self.predictor.save(), self._ledger.save()
        self.speculator = Speculator(
            run=run,
            ledger=self._ledger,
            budget=Budget(
                clock,
                launches_per_minute=settings.launches_per_minute,
                tool_launches_per_minute=settings.tool_launches_per_minute,
                session_launches_per_minute=settings.session_launches_per_minute,
                work_s_per_minute=settings.work_s_per_minute,
                usd_a_day=settings.usd_a_day,
                extra_calls=settings.extra_calls,
            ),
            clock=clock,
            launches=settings.speculate,
            at_once=settings.at_once,
            outside=settings.outside,
            share=settings.share,
        )
        self._messages = Messages(clock, scopes=settings.scopes) if settings.models else None
        self._habits = Habits(
            predictor=self.predictor,
            messages=self._messages,
            speculator=self.speculator,
            left_s=left_s,
            redactor=redactor,
            pace=Pace(clock),
            news=self._news,
            trouble=self._failed,
        )
        self._effects: dict[str, EffectKind] = {}
        """Of tools by name; of one that is declared in several ways the worst."""
        self._unwritten = False
        self._troubled = False
        """Whether the last try to write failed, which was told then."""
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Reads what was learnt before. What cannot be read is told, and learnt anew."""
        if self._kept is None:
            return
        learnt = await asyncio.to_thread(self._kept.load)
        if learnt is None:
            return
        try:
            self.predictor.load(learnt.predictor)
            if learnt.ledger is not None:
                self._ledger.load(learnt.ledger)
            if self._messages is not None and learnt.messages is not None:
                self._messages.load(learnt.messages)
        except CodecError as exc:
            aside = CorruptStoreError(str(exc), next_step=exc.next_step)
            await asyncio.to_thread(self._kept.set_aside, aside)
        self._effects = {**learnt.effects, **self._effects}

    def foresight(
        self,
        tools: Tools,
        context: ExecutionContext,
        talk: Talk | None = None,
    ) -> Foresight:
        """For one session. Without its `talk` no model is asked ahead in it."""
        for name, kind in tools.effects().items():
            self._effects[name] = max(self._effects.get(name, kind), kind, key=_WORST.index)
        caller = Caller(context.user_id, context.session_id, context.tenant)
        circle = circle_of(caller, self._settings.share)
        return Foresight(self._habits, tools, context, circle, talk)

    def figures(self) -> Mapping[str, Figures]:
        """What predictions and launches were worth, by tool."""
        return self._ledger.figures()

    async def close(self) -> None:
        """Stops what runs ahead, and writes what was learnt."""
        await self.speculator.close()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is not None:
            await self._writing
        self._unwritten = self._ledger.end() or self._unwritten
        await self._write()

    def _failed(self, exc: Exception) -> None:
        """Learning or looking went wrong, which is a fault of ours: told once for each kind."""
        if type(exc) in self._failures:
            return
        self._failures.add(type(exc))
        told = PacelineError(
            self._redactor.text(f"{type(exc).__qualname__}: {exc}"),
            next_step="Report this, with the log. `learn = false` in `[predict]` turns prediction off.",
        )
        self._notice("prediction goes on without what it failed on", told)
        _log.warning("what prediction failed on", exc_info=exc)

    def _news(self) -> None:
        self._unwritten = True
        if self._timer is None:
            after_s = UPDATE_S * (1.0 + self._rng.uniform(-_JITTER, _JITTER))
            self._timer = asyncio.get_running_loop().call_later(after_s, self._update)

    def _update(self) -> None:
        self._timer = None
        if self._writing is not None and not self._writing.done():
            self._news()  # the disk is slow
            return
        self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        kept = self._kept
        self.predictor.update_predictions()
        if not self._unwritten or kept is None:
            return
        self._unwritten = False
        predictor = await _saved(self.predictor.saving())
        messages = None if self._messages is None else await _saved(self._messages.saving())
        ledger, effects = self._ledger.save(lasts), dict(self._effects)
        try:
            if not await asyncio.to_thread(_save, kept, predictor, ledger, effects, messages):
                self._forget()  # somebody said so meanwhile
                await self.open()
        except (CodecError, StorageError) as exc:
            self._unwritten = True  # the next time, if it can be then
            if not self._troubled:
                self._notice("what was learnt of sessions cannot be kept", exc)
            self._troubled = True
        else:
            self._troubled = False

    def _forget(self) -> None:
        predictor, ledger = self._nothing
        self.predictor.load(predictor)
        self._ledger.load(ledger)
        if self._messages is not None:
            self._messages.load(Messages(self._clock).save())


async def _saved(saving: Generator[None, None, object]) -> object:
    """What comes of it, with a pause after each bit: others are not kept waiting for all of it."""
    bits = Bits(saving)
    for _ in bits:
        await asyncio.sleep(0)
    return bits.whole


def _save(
    kept: KeptPredictions,
    predictor: object,
    ledger: object,
    effects: Mapping[str, EffectKind],
    messages: object,
) -> bool:
    """Writes what may outlast sessions; as `KeptPredictions.save`."""
    messages = None if messages is None else fitting(messages)
    return kept.save(lasting(predictor), ledger, effects, messages)
