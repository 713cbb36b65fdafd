"""`cached` does what a caching decorator must; decorators with seeded bugs do not."""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import pytest

from paceline import LRUCache, cached
from paceline.testing.cached_adapter import Adapter
from paceline.testing.cached_async_checks import ASYNC_CHECKS, AsyncCheck
from paceline.testing.cached_sync_checks import SYNC_CHECKS, SyncCheck

OURS = Adapter(
    lambda: cached(LRUCache(1000, 300)),
    lambda decorated, *args: decorated.invalidate(*args),
)


def _name(check: AsyncCheck | SyncCheck) -> str:
    return check.__name__


def test_there_are_as_many_checks_as_agreed() -> None:
    """There are twelve checks for async and nine for synchronous functions. (S0-40)"""
    assert (len(set(ASYNC_CHECKS)), len(set(SYNC_CHECKS))) == (12, 9)


@pytest.mark.parametrize("check", ASYNC_CHECKS, ids=_name)
def test_cached_passes_every_async_check(check: AsyncCheck) -> None:
    """`cached` in front of an async function passes all twelve checks. (S0-31, S0-34, S0-40,
    S0-41, S0-42, S0-44, S0-50)"""
    check(OURS)


@pytest.mark.parametrize("check", SYNC_CHECKS, ids=_name)
def test_cached_passes_every_sync_check(check: SyncCheck) -> None:
    """`cached` in front of a synchronous function passes all nine checks. (S0-31, S0-34, S0-40,
    S0-41, S0-42, S0-44, S0-50)"""
    check(OURS)


def _naive_sync(function: Callable[..., Any]) -> Any:
    """A decorator as it is often written: a dictionary, and None for what is not there."""
    kept: dict[Any, Any] = {}

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        key = (args, tuple(kwargs.items()))
        if not kept.get(key):
            try:
                kept[key] = function(*args, **kwargs)
            except ValueError as exc:
                kept[key] = exc
        return kept[key]

    call.invalidate = lambda *args: kept.pop((args, ()), None)  # type: ignore[attr-defined]
    return call


def _naive_async(function: Callable[..., Any]) -> Any:
    """The same, keeping the task of the first caller."""
    kept: dict[Any, Any] = {}

    @functools.wraps(function)
    async def call(*args: Any, **kwargs: Any) -> Any:
        key = (args, tuple(kwargs.items()))
        if key in kept and kept[key].done() and not kept[key].cancelled():
            return kept[key].result()
        if key not in kept or not kept[key].result:
            kept[key] = asyncio.ensure_future(function(*args, **kwargs))
        return await kept[key]

    call.invalidate = lambda *args: None  # type: ignore[attr-defined]
    return call


NAIVE_SYNC = Adapter(lambda: _naive_sync, OURS.invalidate)
NAIVE_ASYNC = Adapter(lambda: _naive_async, OURS.invalidate)
NO_CACHE = Adapter(lambda: lambda function: function)

_PASS_ANYWAY = {
    "async_nothing_is_a_result",
    "fifty_callers_share_one_call",
    "twenty_waiters_share_a_failure",
}


@pytest.mark.parametrize(
    "check", [c for c in ASYNC_CHECKS if _name(c) not in _PASS_ANYWAY], ids=_name
)
def test_a_naive_async_decorator_fails(check: AsyncCheck) -> None:
    """A decorator that keeps the first caller's task fails every check that is about more than
    sharing it. (S0-41)"""
    with pytest.raises((AssertionError, TypeError)):
        check(NAIVE_ASYNC)


@pytest.mark.parametrize("check", SYNC_CHECKS, ids=_name)
def test_a_naive_sync_decorator_fails(check: SyncCheck) -> None:
    """A dictionary in front of a function, empty meaning absent, fails every check. (S0-34)"""
    with pytest.raises((AssertionError, TypeError)):
        check(NAIVE_SYNC)


@pytest.mark.parametrize(
    "name",
    ["async_nothing_is_a_result", "fifty_callers_share_one_call", "twenty_waiters_share_a_failure"],
)
def test_no_cache_at_all_fails(name: str) -> None:
    """A decorator that keeps nothing fails what the naive one passes. (S0-41)"""
    check = next(check for check in ASYNC_CHECKS if _name(check) == name)
    with pytest.raises(AssertionError):
        check(NO_CACHE)
