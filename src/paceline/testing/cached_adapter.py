"""How the checks of caching decorators drive one, whosever it is."""

import contextlib
import gc
import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

__all__ = ["FORMS", "LOOKALIKES", "NOTHINGS", "PATIENCE_S", "Adapter", "at_once", "live"]

R = TypeVar("R")

PATIENCE_S: Final = 5.0
"""A caller that waits longer than this is taken to hang."""

NOTHINGS: Final[tuple[Any, ...]] = (None, 0, "", [], {}, False)
LOOKALIKES: Final[tuple[Any, ...]] = (
    1, "1", 1.0, True, None, "None", (1, 2), "(1, 2)", ("1", 2), (1.0, 2), b"1", "", 0, 0.0, False,
)  # fmt: skip
"""Arguments that are easily taken for one another."""

FORMS: Final[tuple[tuple[tuple[int, ...], dict[str, int]], ...]] = (
    ((1,), {}), ((1, 2), {}), ((), {"x": 1}), ((1,), {"y": 2}), ((), {"y": 2, "x": 1}),
)  # fmt: skip
"""The ways to write one call of `f(x, y=2)`."""


class Adapter(NamedTuple):
    """A caching decorator.

    `decorator()` is one with a new, empty cache. `invalidate(decorated, *args)` removes what is
    kept of one call, at once or as an awaitable; None if there is no way to. `pause_s` is how
    long others are let run where more than a few turns of the event loop are needed.
    """

    decorator: Callable[[], Callable[[Any], Any]]
    invalidate: Callable[..., Any] | None = None
    pause_s: float = 0.0

    def make(self, function: Callable[..., Any]) -> Any:
        """The function, with a new cache in front."""
        return self.decorator()(function)

    async def invalidate_async(self, decorated: Any, *args: Any) -> None:
        """Invalidates, awaiting it if need be."""
        assert self.invalidate is not None, "there is no way to remove the result of one call"
        done = self.invalidate(decorated, *args)
        if isinstance(done, Awaitable):
            await done


def at_once(works: Sequence[Callable[[], R]]) -> list[R | Exception]:
    """What each of these gives or raises in a thread of its own; fails if one hangs."""
    results: dict[int, R | Exception] = {}

    def play(number: int) -> None:
        try:
            results[number] = works[number]()
        except Exception as exc:  # noqa: BLE001 (a result like any other)
            results[number] = exc

    threads = [threading.Thread(target=play, args=(n,), daemon=True) for n in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    hanging = len(works) - len(results)
    assert not hanging, f"{hanging} of {len(works)} callers hang"
    return [results[number] for number in range(len(works))]


@contextlib.contextmanager
def live(kind: type[object]) -> Generator[Callable[[], int]]:
    """Tells how many more objects of a kind there are than at the beginning."""

    def count() -> int:
        gc.collect()
        return sum(issubclass(type(thing), kind) for thing in gc.get_objects())

    before = count()
    yield lambda: count() - before
