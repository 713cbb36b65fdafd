"""What every cache backend promises: each check is one promise, in its docstring."""

import random
from collections.abc import Callable
from typing import Final

from paceline.testing.cache_backend import FOREVER_NS, Do, Script, Step, Subject
from paceline.testing.linearizability import Event, disordered, record

__all__ = [
    "CHECKS",
    "Check",
    "a_big_value_is_kept_whole",
    "a_delete_takes_what_is_still_to_be_written",
    "a_hit_prolongs_nothing",
    "a_lifetime_begins_with_the_put",
    "a_lifetime_is_kept_to_the_nanosecond",
    "a_lifetime_of_zero_stores_nothing",
    "a_put_after_a_removal_holds",
    "a_value_ends_with_its_lifetime",
    "an_empty_value_is_a_value",
    "an_update_loses_no_neighbour",
    "callers_at_once_fit_one_order",
    "callers_at_once_lose_nothing",
    "expiry_takes_no_newer_value",
    "for_ever_is_long",
    "keys_count_to_the_last_byte",
    "many_values_keep_apart",
    "the_last_put_holds",
    "values_keep_every_byte",
    "what_is_cleared_is_gone_at_once",
    "what_is_deleted_is_gone_at_once",
    "what_is_put_is_found",
    "what_is_written_outlives_closing",
    "what_remains_is_told_truly",
]

Check = Callable[[Subject], None]

KEY: Final = bytes(range(32))
OTHER: Final = bytes(reversed(KEY))
FULL: Final = 100
"""Values that every backend under examination has room for."""
_WORKERS: Final = 8
_OPERATIONS: Final = 60


def what_is_put_is_found(subject: Subject) -> None:
    """A value is found under its key and under no other. (S0-33)"""
    subject.put(KEY, b"value")
    subject.expect(KEY, b"value")
    subject.expect(KEY, b"value")
    subject.expect(OTHER, None)


def an_empty_value_is_a_value(subject: Subject) -> None:
    """A value of no bytes, or of bytes that mean nothing, is found like any other. (S0-34)"""
    for value in (b"", b"0", b"\x00", b"null", b"None"):
        subject.put(KEY, value)
        subject.expect(KEY, value)


def values_keep_every_byte(subject: Subject) -> None:
    """Any bytes come back as they were, whatever their number."""
    every = bytes(range(256))
    for value in (every * 4, every[::-1], b"\r\n$-1\r\n", b"\x00" * 9, "é\ud800".encode("utf-16", "surrogatepass")):  # fmt: skip
        subject.put(KEY, value)
        subject.expect(KEY, value)
    for length in (1, 31, 32, 33, 127, 128, 255, 256, 1_000):
        subject.put(KEY, (every * 4)[:length])
        subject.expect(KEY, (every * 4)[:length])


def a_big_value_is_kept_whole(subject: Subject) -> None:
    """A value of 100,000 bytes comes back whole."""
    value = random.Random(1).randbytes(100_000)  # noqa: S311 (any bytes will do)
    subject.put(KEY, value)
    subject.expect(KEY, value)


def keys_count_to_the_last_byte(subject: Subject) -> None:
    """Keys that differ in any one byte are different keys."""
    keys = [bytes(32)] + [bytes(n) + b"\x01" + bytes(31 - n) for n in range(32)]
    for number, key in enumerate(keys):
        subject.begin_put(key, b"%d" % number)
    subject.settle()
    for number, key in enumerate(keys):
        subject.expect(key, b"%d" % number)


def many_values_keep_apart(subject: Subject) -> None:
    """A hundred values are each found under their own key; none makes room for another."""
    keys = _fill(subject)
    for number, key in enumerate(keys):
        subject.expect(key, _text(number))


def a_value_ends_with_its_lifetime(subject: Subject) -> None:
    """A value is found before its lifetime is over, and not after it. (S0-28)"""
    subject.put(KEY, b"value", 10)
    subject.put(OTHER, b"other", 30)
    subject.advance(9)
    subject.expect(KEY, b"value")
    subject.advance(1)
    subject.expect(KEY, None)
    subject.expect(OTHER, b"other")


def a_lifetime_is_kept_to_the_nanosecond(subject: Subject) -> None:
    """A value is valid while its age is less than its lifetime, to the nanosecond. (S0-28)"""
    subject.put(KEY, b"value", 10)
    subject.advance(10 - 1e-9)
    subject.expect(KEY, b"value")
    subject.advance(1e-9)
    subject.expect(KEY, None)


def a_lifetime_begins_with_the_put(subject: Subject) -> None:
    """What is written later does not live longer for it."""
    subject.begin_put(KEY, b"value", 10)
    subject.advance(6)
    subject.settle()
    subject.expect(KEY, b"value")
    subject.advance(4)
    subject.expect(KEY, None)


def a_hit_prolongs_nothing(subject: Subject) -> None:
    """Reading a value does not move its expiry, however often and late. (S0-47, T7)"""
    subject.put(KEY, b"value", 10)
    for _ in range(3):
        subject.advance(3)
        subject.expect(KEY, b"value")
    subject.advance(1)
    subject.expect(KEY, None)


def the_last_put_holds(subject: Subject) -> None:
    """A put replaces value and lifetime of the one before. (S0-36, S0-49)"""
    subject.put(KEY, b"old", 1)
    subject.expect(KEY, b"old")  # what is read may be copied elsewhere
    subject.put(KEY, b"new", 8)
    subject.advance(2)
    subject.expect(KEY, b"new")
    for value in (b"1", b"2", b"short"):
        subject.begin_put(KEY, value, 1)
    subject.settle()
    subject.expect(KEY, b"short")
    subject.advance(1)
    subject.expect(KEY, None)


def expiry_takes_no_newer_value(subject: Subject) -> None:
    """What is stored in place of an expired value lives its own life."""
    subject.put(KEY, b"old", 1)
    subject.advance(1)
    subject.put(KEY, b"new", 10)
    subject.expect(KEY, b"new")
    subject.put(OTHER, b"old", 2)
    subject.put(OTHER, b"new", 10)
    subject.advance(3)
    subject.expect(OTHER, b"new")
    _fill(subject, FULL // 2)  # whatever sweeps when room is made must leave both alone
    subject.expect(KEY, b"new")
    subject.expect(OTHER, b"new")


def a_lifetime_of_zero_stores_nothing(subject: Subject) -> None:
    """With a lifetime of 0 nothing is stored, and what was there is gone. (S0-37, T2)"""
    subject.put(KEY, b"value", 0)
    subject.expect(KEY, None)
    subject.put(KEY, b"value")
    subject.expect(KEY, b"value")
    subject.put(KEY, b"newer", 0)
    subject.expect(KEY, None)


def for_ever_is_long(subject: Subject) -> None:
    """The longest lifetime is accepted, and outlasts a century where time is virtual. (S0-37)"""
    subject.put(KEY, b"value", FOREVER_NS / subject.unit_ns)
    subject.expect(KEY, b"value")
    if not subject.manners.real_time:
        subject.advance(100 * 365 * 86_400)
        subject.expect(KEY, b"value")


def what_remains_is_told_truly(subject: Subject) -> None:
    """Where the rest of a lifetime is told, it is what remains, never more. (S0-47)"""
    subject.put(KEY, b"value", 10)
    subject.advance(4)
    found = subject.look(KEY)
    remaining_ns = getattr(found, "remaining_ns", None)
    if found is None:
        subject.expect(KEY, b"value")
    elif remaining_ns is not None:
        units = remaining_ns / subject.unit_ns
        assert 0 < units <= 6, f"{units} of the lifetime of 10 are said to remain after 4"
        assert units > 5 or subject.manners.real_time, f"{units} are said to remain, not 6"


def what_is_deleted_is_gone_at_once(subject: Subject) -> None:
    """A deleted value is found by no later read; others stay; what is absent can be deleted.
    (S0-50)"""
    subject.delete(KEY)
    subject.put(KEY, b"value")
    subject.put(OTHER, b"other")
    subject.expect(KEY, b"value")
    subject.delete(KEY)
    subject.expect(KEY, None)
    subject.settle()
    subject.expect(KEY, None)
    subject.expect(OTHER, b"other")


def a_delete_takes_what_is_still_to_be_written(subject: Subject) -> None:
    """A value that is deleted right after it was put does not come back. (S0-50)"""
    for key in (KEY, OTHER):
        subject.put(key, b"old")
    for key, number in ((KEY, 1), (OTHER, 2), (KEY, 3), (KEY, 4)):
        subject.begin_put(key, b"new %d" % number)
        subject.delete(key)
        subject.expect(key, None)
    subject.settle()
    subject.expect(KEY, None)
    subject.expect(OTHER, None)


def what_is_cleared_is_gone_at_once(subject: Subject) -> None:
    """After clear nothing of before is found, written or not; an empty backend can be cleared.
    (S0-38, S0-50)"""
    subject.clear()
    keys = _fill(subject, FULL - 1)
    subject.expect(keys[-1], _text(len(keys) - 1))
    subject.begin_put(KEY, b"value")
    subject.clear()
    for key in (KEY, *keys):
        subject.expect(key, None)
    subject.settle()
    for key in (KEY, *keys):
        subject.expect(key, None)


def a_put_after_a_removal_holds(subject: Subject) -> None:
    """What is put after a delete or a clear is found, though nothing was awaited in between.
    (S0-38, S0-50)"""
    for remove in (subject.clear, lambda: subject.delete(KEY), subject.clear):
        subject.begin_put(KEY, b"before")
        remove()
        subject.begin_put(KEY, b"after")
        subject.begin_put(OTHER, b"other")
        subject.settle()
        subject.expect(KEY, b"after")
        subject.expect(OTHER, b"other")


def an_update_loses_no_neighbour(subject: Subject) -> None:
    """Storing under a key that is there makes no room: nobody is evicted, even when full.
    (S0-36, T3)"""
    keys = _fill(subject)
    for count in (1, FULL):
        for number, key in list(enumerate(keys))[-count:]:  # the newest must not oust the oldest
            subject.begin_put(key, _text(number + FULL))
        subject.settle()
        for number, key in enumerate(keys):
            subject.expect(key, _text(number if number < FULL - count else number + FULL))


def callers_at_once_lose_nothing(subject: Subject) -> None:
    """Eight callers at once meet no error; each finds what it stored last, whole, and a key they
    share holds a value that one of them stored last. (S0-44, T9)"""
    lasts: list[dict[bytes, bytes]] = [{} for _ in range(_WORKERS)]
    subject.together([_caller(number, lasts[number]) for number in range(_WORKERS)])
    subject.settle()
    for last in lasts:
        for key, value in last.items():
            if key != KEY:
                subject.expect(key, value)
    found = subject.get(KEY)
    assert found in {last[KEY] for last in lasts}, f"found {found!r}, which nobody stored last"


def callers_at_once_fit_one_order(subject: Subject) -> None:
    """What callers at once see could have happened one after the other. (S0-44, D93)"""
    for seed in range(8):
        history = record(subject, random.Random(seed))  # noqa: S311 (a schedule, drawn by seed)
        for key, events in disordered(history).items():
            told = "\n".join(f"  {_told(event)}" for event in events)
            raise AssertionError(f"seed {seed}: no order of these on {key.hex()[:8]} fits:\n{told}")


def what_is_written_outlives_closing(subject: Subject) -> None:
    """Who opens it again finds what was written, for the rest of its lifetime, and nothing that
    was removed. (S0-45)"""
    subject.put(KEY, b"value", 10)
    subject.put(OTHER, b"other")
    subject.delete(OTHER)
    subject.reopen()
    subject.expect(KEY, b"value")
    subject.expect(OTHER, None)
    subject.advance(5)
    subject.reopen()
    subject.expect(KEY, b"value")
    subject.advance(5)
    subject.expect(KEY, None)


CHECKS: Final[tuple[Check, ...]] = (
    what_is_put_is_found,
    an_empty_value_is_a_value,
    values_keep_every_byte,
    a_big_value_is_kept_whole,
    keys_count_to_the_last_byte,
    many_values_keep_apart,
    a_value_ends_with_its_lifetime,
    a_lifetime_is_kept_to_the_nanosecond,
    a_lifetime_begins_with_the_put,
    a_hit_prolongs_nothing,
    the_last_put_holds,
    expiry_takes_no_newer_value,
    a_lifetime_of_zero_stores_nothing,
    for_ever_is_long,
    what_remains_is_told_truly,
    what_is_deleted_is_gone_at_once,
    a_delete_takes_what_is_still_to_be_written,
    what_is_cleared_is_gone_at_once,
    a_put_after_a_removal_holds,
    an_update_loses_no_neighbour,
    callers_at_once_lose_nothing,
    callers_at_once_fit_one_order,
    what_is_written_outlives_closing,
)


def _fill(subject: Subject, count: int = FULL) -> list[bytes]:
    keys = [number.to_bytes(32, "big") for number in range(1, count + 1)]
    for number, key in enumerate(keys):
        subject.begin_put(key, _text(number))
    subject.settle()
    return keys


def _text(number: int) -> bytes:
    return b"%d;" % number * 100


def _caller(number: int, last: dict[bytes, bytes]) -> Script:
    """One of the callers: keys of its own, and `KEY`, which all of them write."""
    rng = random.Random(number)  # noqa: S311 (what is done is drawn by seed)
    own = [rng.randbytes(32) for _ in range(4)]
    yield Step(Do.MEET)
    for turn in range(_OPERATIONS):
        key = rng.choice((KEY, *own))
        value = b"%d:%d;" % (number, turn) * 20
        if key != KEY and rng.random() < 0.2:
            yield Step(Do.DELETE, key)
            last.pop(key, None)
        else:
            yield Step(Do.PUT, key, value)
            last[key] = value
        found = yield Step(Do.GET, KEY)
        assert found is None or len(set(found.split(b";")[:-1])) == 1, f"found a mixture: {found!r}"
    yield Step(Do.PUT, KEY, b"%d:last;" % number)
    last[KEY] = b"%d:last;" % number


def _told(event: Event) -> str:
    what = "nothing" if event.value is None else event.value.decode()
    return f"{event.called:3} to {event.returned:3}: {'wrote' if event.writes else 'found'} {what}"
