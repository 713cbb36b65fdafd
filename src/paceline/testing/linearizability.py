"""Whether what several callers saw at once could have happened one after the other.

A history fits if its operations can be put into one order that keeps to real time (what ended
before another began comes before it) and in which every read finds what the last write left.
The search is that of Wing and Gong with the memory of Lowe: a state reached twice by the same
operations is searched once. Keys are independent, so each is searched by itself.
"""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import NamedTuple

from paceline.testing.cache_backend import Do, Script, Step, Subject

__all__ = ["Event", "disordered", "record"]


class Event(NamedTuple):
    """One operation on one key: a write of `value` (None: a removal), or a read that found it.

    `called` and `returned` are stamps of one counter.
    """

    key: bytes
    writes: bool
    value: bytes | None
    called: int
    returned: int


def disordered(history: Iterable[Event]) -> dict[bytes, list[Event]]:
    """The keys, with their events, for which no order explains what was seen; empty is good.

    Every key is taken to hold nothing at first.
    """
    by_key: dict[bytes, list[Event]] = {}
    for event in sorted(history, key=lambda event: event.called):
        by_key.setdefault(event.key, []).append(event)
    return {key: events for key, events in by_key.items() if not _fits(events)}


def _fits(events: Sequence[Event]) -> bool:
    all_done = (1 << len(events)) - 1
    to_try: list[tuple[int, bytes | None]] = [(0, None)]
    seen = set(to_try)
    while to_try:
        done, state = to_try.pop()
        if done == all_done:
            return True
        for reached in _reachable(events, done, state):
            if reached not in seen:
                seen.add(reached)
                to_try.append(reached)
    return False


def _reachable(
    events: Sequence[Event], done: int, state: bytes | None
) -> list[tuple[int, bytes | None]]:
    """Where one more operation can lead: one that began before any other open one had ended."""
    still = [number for number in range(len(events)) if not done >> number & 1]
    first_end = min(events[number].returned for number in still)
    reached: list[tuple[int, bytes | None]] = []
    for number in still:
        event = events[number]
        if event.called >= first_end:
            continue
        if event.writes:
            reached.append((done | 1 << number, event.value))
        elif event.value == state:
            return [(done | 1 << number, state)]  # a read that fits is in nobody's way
    return reached


def record(
    subject: Subject, rng: random.Random, *, workers: int = 4, rounds: int = 10, keys: int = 2
) -> list[Event]:
    """What `workers` callers saw who each did up to `rounds` operations on some of `keys` keys.

    They go in rounds, in each of which those that the seed picked act at once. Where a backend
    shows a put only after a flush, put and flush are one operation: that is what it promises.
    """
    names = [rng.randbytes(32) for _ in range(keys)]
    values = count(1)
    stamp = count(1).__next__
    history: list[Event] = []
    scripts = [
        _script([_step(rng, names, values) for _ in range(rounds)], stamp, history)
        for _ in range(workers)
    ]
    subject.together(scripts)
    return history


def _step(rng: random.Random, keys: Sequence[bytes], values: Iterator[int]) -> Step | None:
    """What a caller does in a round: every fourth time nothing, else mostly reads and puts."""
    if rng.random() < 0.25:
        return None
    do = rng.choices([Do.GET, Do.PUT, Do.DELETE], [5, 4, 1])[0]
    return Step(do, rng.choice(keys), b"value %d" % next(values))


def _script(steps: Sequence[Step | None], stamp: Callable[[], int], history: list[Event]) -> Script:
    for step in steps:
        yield Step(Do.MEET)
        if step is None:
            continue
        called = stamp()
        found = yield step
        if step.do is not Do.GET:
            yield Step(Do.SETTLE)
        value = step.value if step.do is Do.PUT else found
        history.append(Event(step.key, step.do is not Do.GET, value, called, stamp()))
