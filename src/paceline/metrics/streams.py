"""Tracked generators: what is sent, thrown and returned passes through as if nothing were there."""

import functools
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, Final, final

from paceline.metrics.tracking import Begun, Tracking

__all__ = ["async_stream", "stream"]

_GAPS: Final = 256
"""Times between items that are kept before they are added up: a stream may be endless."""


@final
class _Stream:
    """The times of one stream. It runs while an item is asked for, and else its consumer does."""

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking
        self._begun: Begun | None = None
        self._asked_ns: int | None = None
        self._took_ns = 0
        self._first_ns: int | None = None
        self._items = 0
        self._gaps_ns: list[int] = []

    def ask(self) -> None:
        """An item is asked for."""
        tracking = self._tracking
        if self._items == 0:
            self._begun = tracking.begin()
            self._asked_ns = None if self._begun is None else self._begun.start_ns
        elif self._begun is not None:
            self._begun = tracking.enter(self._begun)
            self._asked_ns = tracking.now_ns()

    def got(self) -> None:
        """The item has come."""
        self._items += 1
        if self._begun is None:
            return
        self._tracking.leave(self._begun)
        waited_ns = self._waited_ns()
        if self._items == 1:
            self._tracking.streamed(waited_ns, [])
        elif waited_ns is not None:
            self._gaps_ns.append(waited_ns)
            if len(self._gaps_ns) >= _GAPS:
                self._tracking.streamed(None, self._gaps_ns)
                self._gaps_ns = []

    def end(self, error: BaseException | None = None) -> None:
        """It is over: without an error, or by one."""
        if self._begun is None:
            return
        self._waited_ns()
        if self._gaps_ns:
            self._tracking.streamed(None, self._gaps_ns)
        self._tracking.end(self._begun, error, self._took_ns)

    def _waited_ns(self) -> int | None:
        now_ns = self._tracking.now_ns()
        if now_ns is None or self._asked_ns is None:
            return None
        waited_ns = now_ns - self._asked_ns
        self._took_ns += waited_ns
        return waited_ns


def stream(
    function: Callable[..., Generator[Any, Any, Any]], tracking: Tracking
) -> Callable[..., Generator[Any, Any, Any]]:
    """The generator function, its streams tracked."""

    def iterate(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        inner, times = function(*args, **kwargs), _Stream(tracking)
        step: Callable[[], Any] = functools.partial(next, inner)
        while True:
            times.ask()
            try:
                item = step()
            except StopIteration as stop:
                times.end()
                return stop.value
            except BaseException as error:
                times.end(error)
                raise
            times.got()
            try:
                sent = yield item
            except GeneratorExit as left:
                times.ask()
                _close(inner, times)
                times.end(left)
                raise
            except BaseException as error:  # noqa: BLE001 (thrown in: the inner one decides)
                step = functools.partial(inner.throw, error)
            else:
                step = functools.partial(inner.send, sent)

    return iterate


def async_stream(
    function: Callable[..., AsyncGenerator[Any, Any]], tracking: Tracking
) -> Callable[..., AsyncGenerator[Any, Any]]:
    """The asynchronous generator function, its streams tracked."""

    async def iterate(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        inner, times = function(*args, **kwargs), _Stream(tracking)
        step = inner.asend(None)
        while True:
            times.ask()
            try:
                item = await step
            except StopAsyncIteration:
                times.end()
                return
            except BaseException as error:
                times.end(error)
                raise
            times.got()
            try:
                sent = yield item
            except GeneratorExit as left:
                times.ask()
                await _aclose(inner, times)
                times.end(left)
                raise
            except BaseException as error:  # noqa: BLE001 (thrown in: the inner one decides)
                step = inner.athrow(error)
            else:
                step = inner.asend(sent)

    return iterate


def _close(inner: Generator[Any, Any, Any], times: _Stream) -> None:
    try:
        inner.close()
    except BaseException as error:
        times.end(error)
        raise


async def _aclose(inner: AsyncGenerator[Any, Any], times: _Stream) -> None:
    try:
        await inner.aclose()
    except BaseException as error:
        times.end(error)
        raise
