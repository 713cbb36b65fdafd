"""`track_performance`: the figures of any function or block, with no runtime around it."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast, final

from paceline.call import Kind, current_call
from paceline.metrics.awaitables import followed
from paceline.metrics.cell import FULL
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.streams import async_stream, stream
from paceline.metrics.trace import Id, above, current_span
from paceline.metrics.tracking import Begun, Tracking

__all__ = ["track_performance"]

F = TypeVar("F", bound=Callable[..., Any])

_NO_LABELS: Final[Mapping[str, str]] = {}
_NONE: Final[dict[object, int]] = {}
_VALUES: Final = frozenset({bool, bytes, dict, float, int, list, str, tuple, type(None)})
"""What is certainly not to be awaited."""


@final
class track_performance:  # noqa: N801 (used as a decorator is)
    """Records calls under a name in a collector: a decorator, or `with` and `async with`.

    For coroutine functions, functions, generators and asynchronous generators, callable objects,
    and functions that return something to await, which is timed until it is done. Of a stream
    the time to the first item, between items and in all is recorded; one that its consumer
    leaves early is recorded as cancelled. Works on methods, above or below @staticmethod and
    @classmethod. Each call is a span of `collector.trace`, in the span or call it is made in.

    What a function returns or raises is not touched, and a collector that fails changes nothing:
    a call that cannot be recorded is counted in `Snapshot.refused`. Cancelled, timed out and
    rejected calls are counted as such, not as errors.
    """

    __slots__ = ("_open", "_tracking")

    def __init__(
        self,
        agent_name: str,
        collector: MetricsCollector,
        *,
        kind: Kind = Kind.AGENT,
        labels: Mapping[str, str] = _NO_LABELS,
    ) -> None:
        """`labels` tell series of one name apart."""
        self._tracking = Tracking(agent_name, collector, kind, labels)
        self._open: dict[int, Begun] = {}

    def __call__(self, function: F) -> F:
        if isinstance(function, (classmethod, staticmethod)):
            method = cast("classmethod[Any, ..., Any] | staticmethod[..., Any]", function)
            return cast("F", type(method)(self(method.__func__)))
        return cast("F", functools.wraps(function)(_wrapper(function, self._tracking)))

    def __enter__(self) -> Self:
        begun = self._tracking.begin()
        if begun is not None:
            self._open[begun.id] = begun
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # One object may be entered many times at once: what ends is what runs here.
        around = current_span.get()
        begun = self._open.pop(cast("int", around[0]), None) if around is not None else None
        if begun is None and self._open:
            begun = self._open.popitem()[1]
        self._tracking.end(begun, error)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)


def _wrapper(function: Callable[..., Any], tracking: Tracking) -> Callable[..., Any]:
    if _is(inspect.isasyncgenfunction, function):
        return async_stream(function, tracking)
    if _is(inspect.iscoroutinefunction, function):
        return _coroutine(function, tracking)
    if _is(inspect.isgeneratorfunction, function) and not _is(_to_await, function):
        return stream(function, tracking)
    return _function(function, tracking)


def _is(kind: Callable[[object], bool], function: Callable[..., Any]) -> bool:
    """Whether a function, or what makes an object callable, is of this kind."""
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004 (its kind)


def _to_await(function: Any) -> bool:
    """Whether it is a generator function of `types.coroutine`."""
    while not hasattr(function, "__code__") and hasattr(function, "func"):  # partial
        function = function.func
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & inspect.CO_ITERABLE_COROUTINE)


def _coroutine(  # noqa: C901 (one straight way, in which calls would take their time)
    function: Callable[..., Any], tracking: Tracking
) -> Callable[..., Any]:
    """`Tracking.begin` and `end` written out, because here every nanosecond counts."""
    recorder, success = tracking.recorder, tracking.success
    kept = recorder.trace
    now, next_id, keep = recorder.clock.monotonic_ns, kept.next_id, kept.keep
    span_around, call_around = current_span.get, current_call.get
    enter, leave, full = current_span.set, current_span.reset, FULL

    async def call(*args: Any, **kwargs: Any) -> Any:  # noqa: C901 (as above)
        number, start_ns, parent, outer, token = 0, 0, None, None, None
        trace: Id = 0
        running = _NONE
        try:
            if tracking.resets != recorder.resets:
                tracking.renew()
            number = trace = next_id()
            around, outer = span_around(), call_around()
            if around is not None or outer is not None:
                parent, trace = above(around, outer, number, kept)
            running = tracking.running
            running[number] = start_ns = now()
            token = enter((number, trace, outer, kept))
        except Exception:  # noqa: BLE001 (what measures must not change what is measured)
            running.pop(number, None)
            tracking.lost()
        try:
            result = await function(*args, **kwargs)
        except BaseException as error:
            if token is not None:
                begun = Begun(number, parent, trace, start_ns, running, outer, token)
                tracking.end(begun, error)
            raise
        if token is None:
            return result
        try:
            end_ns = now()
            leave(token)
            del running[number]
            if tracking.resets != recorder.resets:
                tracking.renew()
            took_ns = end_ns - start_ns
            pending = tracking.pending
            pending.extend((end_ns, took_ns, took_ns, 0, 0))
            if len(pending) >= full:
                tracking.settle()
            keep((number, parent, trace, start_ns, end_ns, took_ns, success))
        except ValueError:  # it ends in another context than it began in: `end` copes with that
            tracking.end(Begun(number, parent, trace, start_ns, running, outer, token))
        except Exception:  # noqa: BLE001 (as above)
            tracking.drop(Begun(number, parent, trace, start_ns, running, outer, token))
        return result

    return call


def _function(function: Callable[..., Any], tracking: Tracking) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        begun = tracking.begin()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:
            tracking.end(begun, error)
            raise
        if begun is None:
            return result
        if type(result) in _VALUES:
            tracking.end(begun)
            return result
        return followed(result, tracking, begun)

    return call
