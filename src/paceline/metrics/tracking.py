"""How one tracked call is noted, whatever kind of function it is a call of. Nothing here raises:
what measures must never change what is measured."""

import functools
import logging
from asyncio import CancelledError
from collections.abc import Callable, Mapping
from contextvars import Token
from typing import Any, Final, NamedTuple, Protocol, cast, final

from paceline.call import Call, Kind, Source, current_call
from paceline.clock import Clock
from paceline.errors import Category, PacelineError
from paceline.metrics.cell import FULL
from paceline.metrics.figures import Ending, ending_of
from paceline.metrics.live import LiveSeries
from paceline.metrics.trace import Around, Id, Trace, What, above, current_span

__all__ = ["Begun", "Recorder", "Tracking", "category_of"]

_log = logging.getLogger("paceline")

_KINDS: Final[tuple[tuple[type[BaseException], Category], ...]] = (
    (CancelledError, Category.CANCELLED),
    (GeneratorExit, Category.CANCELLED),  # the consumer of a stream left early
    (KeyboardInterrupt, Category.CANCELLED),
    (TimeoutError, Category.TIMEOUT),
    (ConnectionError, Category.NETWORK),
)


class Recorder(Protocol):
    """What is needed of a collector; `resets` changes when series given out become invalid."""

    clock: Clock
    trace: Trace
    resets: int

    def series(self, name: str, kind: Kind, labels: Mapping[str, str], /) -> LiveSeries:
        """Where calls of this name are noted."""
        ...

    def note_error(
        self, series: LiveSeries, category: Category, error: BaseException | str | None, /
    ) -> None:
        """Notes what an error was."""
        ...

    def refuse(self) -> None:
        """Counts a call that could not be recorded."""
        ...


class Begun(NamedTuple):
    """A tracked call that runs. `token` is None while it does not own the context."""

    id: int
    parent: Id | None
    trace: Id
    start_ns: int
    running: dict[object, int]
    outer: Call | None
    token: Token[Around | None] | None


# A third of the time that Begun(...) takes.
_begun: Callable[[tuple[object, ...]], Begun] = functools.partial(cast("Any", tuple).__new__, Begun)


def category_of(error: BaseException) -> Category:
    """What kind of trouble an exception is."""
    if isinstance(error, PacelineError):
        return error.category
    for kind, category in _KINDS:
        if isinstance(error, kind):
            return category
    return Category.EXECUTION


@final
class Tracking:
    """Notes the calls of one name. The series is asked for again only after a reset."""

    __slots__ = (
        "_labels", "_logged", "_series", "kind", "name", "pending", "recorder", "resets",
        "running", "settle", "success",
    )  # fmt: skip

    def __init__(
        self, name: str, recorder: Recorder, kind: Kind, labels: Mapping[str, str]
    ) -> None:
        self.name = name
        self.recorder = recorder
        self.kind = kind
        self.resets: object = None
        self.running: dict[object, int]
        """Of the present series."""
        self.pending: list[int]
        """Where successes are noted: see `Cell.pending`."""
        self.settle: Callable[[], None]
        self.success = What(name, kind, None, Ending.SUCCESS)
        self._labels = dict(labels)
        self._series: LiveSeries
        self._logged = False

    def renew(self) -> None:
        """Asks for the series. Raises what the collector raises."""
        recorder = self.recorder
        resets = recorder.resets  # before the series: a reset in between is seen next time
        series = recorder.series(self.name, self.kind, self._labels)
        cell = series.cell(Source.EXECUTED, None, Ending.SUCCESS)
        self.pending, self.settle = cell.pending, cell.settle
        self.running = series.running
        self._series = series
        self.resets = resets

    def begin(self) -> Begun | None:
        """A call begins, and becomes the parent of what it calls; None if that went wrong."""
        running: dict[object, int] | None = None
        parent: Id | None = None
        trace: Id = 0
        number = 0
        try:
            recorder = self.recorder
            if self.resets != recorder.resets:
                self.renew()
            kept = recorder.trace
            number = trace = kept.next_id()
            around, outer = current_span.get(), current_call.get()
            if around is not None or outer is not None:
                parent, trace = above(around, outer, number, kept)
            running = self.running
            running[number] = start_ns = recorder.clock.monotonic_ns()
            token = current_span.set((number, trace, outer, kept))
        except Exception:  # noqa: BLE001 (see above)
            if running is not None:
                running.pop(number, None)
            self.lost()
            return None
        return _begun((number, parent, trace, start_ns, running, outer, token))

    def leave(self, begun: Begun | None) -> None:
        """What runs next is not in this call any more; the call goes on."""
        if begun is None or begun.token is None:
            return
        try:
            current_span.reset(begun.token)
        except (RuntimeError, ValueError):
            # It ends in another context than it began in, as what is collected as garbage does:
            # there is nobody in that one who would take it for the parent.
            return

    def enter(self, begun: Begun) -> Begun:
        """The call goes on here, after `leave`."""
        around = (begun.id, begun.trace, begun.outer, self.recorder.trace)
        return begun._replace(token=current_span.set(around))

    def now_ns(self) -> int | None:
        """The moment; None if the clock fails."""
        try:
            return self.recorder.clock.monotonic_ns()
        except Exception:  # noqa: BLE001 (see above)
            return None

    def end(
        self, begun: Begun | None, error: BaseException | None = None, took_ns: int | None = None
    ) -> None:
        """The call is over; `took_ns` is the time in the function, all if left out."""
        if begun is None:
            return
        number, parent, trace, start_ns, running, _, token = begun
        if token is not None:
            self.leave(begun)
        running.pop(number, None)
        recorder = self.recorder
        try:
            end_ns = recorder.clock.monotonic_ns()
            if self.resets != recorder.resets:
                self.renew()
            total_ns = end_ns - start_ns
            ran_ns = total_ns if took_ns is None else took_ns
            if error is None:
                self.pending.extend((end_ns, total_ns, ran_ns, 0, 0))
                if len(self.pending) >= FULL:
                    self.settle()
                what = self.success
            else:
                what = self._failed(error, end_ns, total_ns, ran_ns)
            recorder.trace.keep((number, parent, trace, start_ns, end_ns, ran_ns, what))
        except Exception:  # noqa: BLE001 (see above)
            self.drop(begun)

    def pause(self, begun: Begun) -> Begun:
        """The call waits to be awaited: it neither runs nor is it a parent."""
        self.leave(begun)
        begun.running.pop(begun.id, None)
        return begun._replace(token=None)

    def resume(self, begun: Begun, spent_ns: int | None) -> Begun | None:
        """The call goes on after `pause`, having taken so long before."""
        now_ns = self.now_ns()
        if now_ns is None or spent_ns is None:
            self.lost()
            return None
        begun.running[begun.id] = now_ns - spent_ns
        return self.enter(begun._replace(start_ns=now_ns - spent_ns))

    def drop(self, begun: Begun) -> None:
        """The call is over, and could not be recorded."""
        self.leave(begun)
        begun.running.pop(begun.id, None)
        self.lost()

    def streamed(self, first_ns: int | None, gaps_ns: list[int]) -> None:
        """Notes times to the first item and from one to the next."""
        try:
            self._series.streamed(first_ns, gaps_ns)
        except Exception:  # noqa: BLE001 (see above)
            self.lost()

    def lost(self) -> None:
        """Counts a call that could not be recorded; the first is logged with its reason."""
        try:
            if not self._logged:
                self._logged = True
                _log.warning("a call of %s was not recorded", self.name, exc_info=True)
            self.recorder.refuse()
        except Exception:  # noqa: BLE001 (see above)
            return

    def _failed(self, error: BaseException, end_ns: int, total_ns: int, ran_ns: int) -> What:
        category = category_of(error)
        # What our own errors say never started was refused; of others that is not known.
        ran = not isinstance(error, PacelineError) or error.may_have_started
        ending = ending_of(category, ran=ran)
        series = self._series
        series.cell(Source.EXECUTED, category, ending).note(end_ns, total_ns, ran_ns, 0, 0)
        self.recorder.note_error(series, category, error)
        return What(self.name, self.kind, category, ending)
