"""What a caching decorator of synchronous functions must do: nine checks."""

import threading
from collections.abc import Callable
from typing import Any, Final

from paceline.testing.cached_adapter import (
    FORMS,
    LOOKALIKES,
    NOTHINGS,
    PATIENCE_S,
    Adapter,
    at_once,
)

__all__ = [
    "SYNC_CHECKS",
    "SyncCheck",
    "dicts_can_be_arguments",
    "eight_threads_share_a_failure",
    "eight_threads_share_one_call",
    "exceptions_are_not_kept",
    "forms_of_a_call_are_one",
    "lookalike_arguments_differ",
    "nothing_is_a_result",
    "results_are_nobodys_else",
    "what_was_invalidated_stays_away",
]

SyncCheck = Callable[[Adapter], None]

_THREADS: Final = 8
_GRACE_S: Final = 0.05
"""How long more calls than one are waited for; a right decorator makes none, however long."""


def nothing_is_a_result(adapter: Adapter) -> None:
    """None, 0, "", [], {} and False are kept like any other result. (S0-34, T1)"""
    calls: list[int] = []

    def work(number: int) -> Any:
        calls.append(number)
        return NOTHINGS[number]

    decorated = adapter.make(work)
    for number, value in enumerate(NOTHINGS):
        results = [decorated(number), decorated(number)]
        assert results == [value, value], f"{value!r} comes back as {results}"
        assert calls.count(number) == 1, f"{value!r} is not kept"


def eight_threads_share_one_call(adapter: Adapter) -> None:
    """Eight threads that ask at once get the result of one call. (S0-41, T5)"""
    calls, results = _eight(adapter, lambda: "result")
    assert results == ["result"] * _THREADS, f"callers get {results}"
    assert calls == 1, f"{calls} calls"


def exceptions_are_not_kept(adapter: Adapter) -> None:
    """An exception reaches its caller, is not kept, and the next call works. (T15)"""
    calls: list[int] = []

    def work(x: int) -> str:
        calls.append(x)
        if len(calls) == 1:
            raise ValueError("the first one fails")
        return "fine"

    decorated = adapter.make(work)
    first, *_ = at_once([lambda: decorated(1)])
    assert isinstance(first, ValueError), f"the first caller gets {first!r}"
    for _ in range(2):
        (later,) = at_once([lambda: decorated(1)])
        assert later == "fine", f"a later caller gets {later!r}"
    assert len(calls) == 2, f"{len(calls)} calls"


def eight_threads_share_a_failure(adapter: Adapter) -> None:
    """An exception of the one call reaches all eight threads, and the next call works. (S0-41,
    T5)"""
    failing = [True]

    def fail() -> str:
        if failing:
            raise ValueError("all of you")
        return "fine"

    calls, results = _eight(adapter, fail, then=failing.clear)
    *waiting, last = results
    assert all(isinstance(r, ValueError) for r in waiting), f"callers get {waiting}"
    assert last == "fine", f"the next caller gets {last!r}"
    assert calls == 2, f"{calls - 1} calls for one failure"


def what_was_invalidated_stays_away(adapter: Adapter) -> None:
    """What was computed before an invalidation is not served after it, not even when it comes in
    later. (S0-50)"""
    invalidate = adapter.invalidate
    assert invalidate is not None, "there is no way to remove the result of one call"
    version = [1]
    inside, gate, after = threading.Event(), threading.Event(), threading.Event()

    def work(_: int) -> int:
        seen = version[0]
        if seen == 1:
            inside.set()
            gate.wait(PATIENCE_S)
        return seen

    decorated = adapter.make(work)

    def let_the_old_one_go() -> None:
        after.wait(_GRACE_S)  # where the new one waits for it, it would wait for ever
        gate.set()

    def invalidate_and_ask() -> Any:
        inside.wait(PATIENCE_S)
        version[0] = 2
        invalidate(decorated, 1)
        threading.Thread(target=let_the_old_one_go, daemon=True).start()
        try:
            return decorated(1)
        finally:
            after.set()

    old, new = at_once([lambda: decorated(1), invalidate_and_ask])
    assert old in (1, 2), f"who asked before gets {old!r}"
    kept = decorated(1)
    assert (new, kept) == (2, 2), f"who asks after gets version {new}, then {kept}, not 2"


def lookalike_arguments_differ(adapter: Adapter) -> None:
    """Arguments that look alike or are equal, such as 1, "1", 1.0 and True, are different calls.
    (S0-31, T4)"""

    def work(x: Any) -> str:
        return repr(x)

    decorated = adapter.make(work)
    mixed = {repr(x): found for x in LOOKALIKES if (found := decorated(x)) != repr(x)}
    assert not mixed, f"taken for one another: {mixed}"


def forms_of_a_call_are_one(adapter: Adapter) -> None:
    """f(1), f(1, 2), f(x=1), f(1, y=2) and f(y=2, x=1) are one call where y is 2 by default.
    (S0-31, T4)"""
    calls: list[int] = []

    def work(x: int, y: int = 2) -> int:
        calls.append(x)
        return x + y

    decorated = adapter.make(work)
    results = [decorated(*args, **kwargs) for args, kwargs in FORMS]
    assert results == [3] * len(FORMS), f"results are {results}"
    assert len(calls) == 1, f"{len(calls)} calls"


def dicts_can_be_arguments(adapter: Adapter) -> None:
    """Dictionaries and lists are arguments like any other; equal ones are one call. (S0-31)"""
    calls: list[object] = []

    def work(x: Any) -> int:
        calls.append(x)
        return len(calls)

    decorated = adapter.make(work)
    first = decorated({"a": [1, 2], "b": {"c": None}})
    assert decorated({"b": {"c": None}, "a": [1, 2]}) == first, "equal dictionaries are two calls"
    assert decorated({"a": [1, 3], "b": {"c": None}}) != first, "different ones are one call"


def results_are_nobodys_else(adapter: Adapter) -> None:
    """What a caller does to its result no other caller sees. (S0-42, T6)"""

    def work(x: int) -> dict[str, list[int]]:
        return {"items": [x]}

    decorated = adapter.make(work)
    for _ in range(3):
        result = decorated(1)
        assert result == {"items": [1]}, f"a later caller gets {result}"
        result["items"].append(99)


SYNC_CHECKS: Final[tuple[SyncCheck, ...]] = (
    nothing_is_a_result,
    eight_threads_share_one_call,
    exceptions_are_not_kept,
    eight_threads_share_a_failure,
    what_was_invalidated_stays_away,
    lookalike_arguments_differ,
    forms_of_a_call_are_one,
    dicts_can_be_arguments,
    results_are_nobodys_else,
)


def _eight(
    adapter: Adapter, result: Callable[[], str], then: Callable[[], object] | None = None
) -> tuple[int, list[str | Exception]]:
    """Lets eight threads ask while the first call is held, and one more after `then`."""
    calls: list[int] = []
    more, barrier = threading.Event(), threading.Barrier(_THREADS)

    def work(x: int) -> str:
        calls.append(x)
        if len(calls) > 1:
            more.set()
        else:
            more.wait(_GRACE_S)
        return result()

    decorated = adapter.make(work)

    def ask() -> Any:
        barrier.wait(PATIENCE_S)
        return decorated(1)

    results = at_once([ask] * _THREADS)
    if then is not None:
        then()
        results += at_once([lambda: decorated(1)])
    return len(calls), results
