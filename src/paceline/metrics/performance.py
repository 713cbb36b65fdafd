"""`@track_performance`: the figures of any function, with no runtime around it."""

import functools
import inspect
import logging
from asyncio import CancelledError
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import aclosing
from types import TracebackType
from typing import Any, Final, TypeVar, cast, final

from paceline.call import Source
from paceline.errors import Category, PacelineError
from paceline.metrics.collector import MetricsCollector

__all__ = ["track_performance"]

F = TypeVar("F", bound=Callable[..., Any])

_log = logging.getLogger("paceline")

_KINDS: Final[tuple[tuple[type[BaseException], Category], ...]] = (
    (CancelledError, Category.CANCELLED),
    (GeneratorExit, Category.CANCELLED),  # the consumer of a stream left early
    (KeyboardInterrupt, Category.CANCELLED),
    (TimeoutError, Category.TIMEOUT),
    (ConnectionError, Category.NETWORK),
)


def track_performance(name: str, collector: MetricsCollector) -> Callable[[F], F]:
    """Decorates a function so that each call is recorded in `collector` under `name`.

    For functions, coroutine functions, generators and asynchronous generators; the time of a
    generator is the whole stream, from the first value asked for to its end. What the function
    returns or raises is not touched. Cancelling a call, or leaving a stream early, is recorded
    as cancelled, not as an error. Works on the inner function under @staticmethod and
    @classmethod.
    """

    def decorate(function: F) -> F:
        timed = functools.partial(_Timed, name, collector)
        wrapped = functools.wraps(function)(_wrapper(function, timed))
        return cast("F", wrapped)

    return decorate


@final
class _Timed:
    """Times a block and records how it ended."""

    __slots__ = ("_collector", "_name", "_start_ns")

    def __init__(self, name: str, collector: MetricsCollector) -> None:
        self._name = name
        self._collector = collector

    def __enter__(self) -> None:
        self._start_ns = self._collector.clock.monotonic_ns()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            took_ns = self._collector.clock.monotonic_ns() - self._start_ns
            self._collector.add(
                self._name,
                source=Source.EXECUTED,
                category=None if error is None else _category(error),
                queue_ns=0,
                execute_ns=took_ns,
                total_ns=took_ns,
            )
        except Exception:  # noqa: BLE001 (measuring must never change what is measured)
            _log.warning("a call of %s was not recorded", self._name, exc_info=True)


def _category(error: BaseException) -> Category:
    if isinstance(error, PacelineError):
        return error.category
    for kind, category in _KINDS:
        if isinstance(error, kind):
            return category
    return Category.EXECUTION


def _wrapper(function: Callable[..., Any], timed: Callable[[], _Timed]) -> Callable[..., Any]:
    if _is(inspect.isasyncgenfunction, function):
        return _stream(function, timed)
    if _is(inspect.iscoroutinefunction, function):

        async def call_async(*args: Any, **kwargs: Any) -> Any:
            with timed():
                return await function(*args, **kwargs)

        return call_async
    if _is(inspect.isgeneratorfunction, function):

        def iterate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with timed():
                inner: Generator[Any, Any, Any] = function(*args, **kwargs)
                return (yield from inner)

        return iterate

    def call(*args: Any, **kwargs: Any) -> Any:
        with timed():
            return function(*args, **kwargs)

    return call


def _is(kind: Callable[[object], bool], function: Callable[..., Any]) -> bool:
    """Whether a function, or what makes an object callable, is of this kind."""
    return kind(function) or kind(getattr(function, "__call__", None))  # noqa: B004 (its kind)


def _stream(
    function: Callable[..., AsyncGenerator[Any, Any]], timed: Callable[[], _Timed]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """An asynchronous generator that passes on all that is sent or thrown into it."""

    async def stream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        with timed():
            async with aclosing(function(*args, **kwargs)) as inner:
                step = inner.asend(None)
                while True:
                    try:
                        item = await step
                    except StopAsyncIteration:
                        return
                    try:
                        sent = yield item
                    except GeneratorExit:
                        raise
                    except BaseException as exc:  # noqa: BLE001 (thrown in: the inner one decides)
                        step = inner.athrow(exc)
                    else:
                        step = inner.asend(sent)

    return stream
