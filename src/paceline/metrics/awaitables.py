"""Calls that return something to await: timed until that is done."""

import asyncio
import concurrent.futures
import functools
import inspect
from asyncio import CancelledError
from collections.abc import Awaitable, Generator
from types import CoroutineType, GeneratorType
from typing import Any, Final, TypeGuard, final

from paceline.metrics.tracking import Begun, Tracking

__all__ = ["followed"]

_OF_MORE_USE: Final = ("__aenter__", "__aiter__", "__enter__", "__iter__")
"""What has one of these may be meant for something else than to be awaited."""

_COROUTINES: Final = frozenset({CoroutineType, GeneratorType})

_Future = asyncio.Future[Any] | concurrent.futures.Future[Any]


def followed(result: object, tracking: Tracking, begun: Begun) -> object:
    """What to return for what a function returned; the call ends when that is done.

    A future is returned as it is, and a coroutine as a coroutine. If it is neither and can be
    used in other ways than by awaiting it, it is returned as it is, and the call over.
    """
    if _is_future(result):
        tracking.leave(begun)
        result.add_done_callback(functools.partial(_done, tracking, begun._replace(token=None)))
        return result
    if inspect.isawaitable(result):
        now_ns = tracking.now_ns()
        spent_ns = None if now_ns is None else now_ns - begun.start_ns
        if type(result) in _COROUTINES:
            return _awaited(result, tracking, tracking.pause(begun), spent_ns)
        if not any(hasattr(type(result), name) for name in _OF_MORE_USE):
            return _Followed(result, tracking, tracking.pause(begun), spent_ns)
    tracking.end(begun)
    return result


def _is_future(result: object) -> TypeGuard[_Future]:
    return isinstance(result, asyncio.Future | concurrent.futures.Future)


def _done(tracking: Tracking, begun: Begun, future: _Future) -> None:
    # Not by `exception()`: then nobody would hear of one that is never asked for.
    error = CancelledError() if future.cancelled() else getattr(future, "_exception", None)
    tracking.end(begun, error)


async def _awaited(
    inner: Awaitable[Any],
    tracking: Tracking,
    paused: Begun,
    spent_ns: int | None,
) -> Any:
    begun = tracking.resume(paused, spent_ns)
    try:
        result = await inner
    except BaseException as error:
        tracking.end(begun, error)
        raise
    tracking.end(begun)
    return result


@final
class _Followed:
    """Something to await, and all that it was."""

    def __init__(
        self, inner: Awaitable[Any], tracking: Tracking, paused: Begun, spent_ns: int | None
    ) -> None:
        self._inner = inner
        self._call = (tracking, paused, spent_ns)

    def __await__(self) -> Generator[Any, Any, Any]:
        return _awaited(self._inner, *self._call).__await__()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
