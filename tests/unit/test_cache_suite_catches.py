"""The conformance suite of cache backends: passes what is right, names what is not."""

import asyncio
import contextvars
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from paceline.clock import Clock
from paceline.testing import BrokenPromisesError, check_cache_backend
from paceline.testing.cache_backend import Manners
from paceline.testing.cache_model import check_model

ROOM = 100
SECOND_NS = 1_000_000_000


class Kept(NamedTuple):
    """A value and its remaining lifetime."""

    value: bytes
    remaining_ns: int


class Plain:
    """A right backend: a dictionary with expiry, whose oldest entry makes room."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.now = clock.monotonic_ns
        self.table: dict[bytes, tuple[bytes, int]] = {}
        self.lock = threading.RLock()

    def get(self, key: bytes) -> Kept | None:
        value, expires_ns = self.table.get(key, (b"", 0))
        remaining_ns = expires_ns - self.now()
        return Kept(value, remaining_ns) if remaining_ns > 0 else None

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        with self.lock:
            if ttl_ns <= 0:
                self.table.pop(key, None)
                return
            if key not in self.table:
                self.make_room()
            self.table[key] = (value, self.now() + ttl_ns)

    def make_room(self) -> None:
        while len(self.table) >= ROOM:
            del self.table[next(iter(self.table))]

    def delete(self, key: bytes) -> object:
        return self.table.pop(key, None)

    def clear(self) -> None:
        self.table.clear()


class Late(Plain):
    """A right one that writes later: reads see what was put after `flush`."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(directory, clock)
        self.queue: list[tuple[bytes, bytes, int]] = []

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        with self.lock:
            self.queue.append((key, value, self.now() + ttl_ns))

    def flush(self) -> bool:
        with self.lock:
            queue, self.queue = self.queue, []
            for key, value, expires_ns in queue:
                super().put(key, value, expires_ns - self.now())
        return True

    def delete(self, key: bytes) -> object:
        with self.lock:
            self.queue = [row for row in self.queue if row[0] != key]
            return super().delete(key)

    def clear(self) -> None:
        with self.lock:
            self.queue.clear()
            super().clear()


class Tiers(Plain):
    """A right one of two tiers: hits are promoted to the upper one."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(directory, clock)
        self.upper = Plain(directory, clock)

    def get(self, key: bytes) -> Kept | None:
        with self.lock:
            found = self.upper.get(key)
            if found is None and (found := super().get(key)) is not None:
                self.upper.put(key, found.value, self.promoted_ns(found))
            return found

    def promoted_ns(self, found: Kept) -> int:
        return found.remaining_ns

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        with self.lock:
            self.upper.delete(key)
            super().put(key, value, ttl_ns)

    def delete(self, key: bytes) -> object:
        with self.lock:
            self.upper.delete(key)
            return super().delete(key)

    def clear(self) -> None:
        with self.lock:
            self.upper.clear()
            super().clear()


class Lasting(Plain):
    """A right one whose table outlives it."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(directory, clock)
        self.file = directory / "table"
        if self.file.exists():
            for line in self.file.read_text().splitlines():
                key, value, expires_ns = line.split(",")
                self.load(bytes.fromhex(key), bytes.fromhex(value), int(expires_ns))

    def load(self, key: bytes, value: bytes, expires_ns: int) -> None:
        self.table[key] = (value, expires_ns)

    def close(self) -> None:
        rows = (f"{k.hex()},{v.hex()},{until}" for k, (v, until) in self.table.items())
        self.file.write_text("\n".join(rows))


class Async:
    """A right one whose methods are awaited."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.plain = Plain(directory, clock)

    async def get(self, key: bytes) -> Kept | None:
        return self.plain.get(key)

    async def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        self.plain.put(key, value, ttl_ns)

    async def delete(self, key: bytes) -> object:
        return self.plain.delete(key)

    async def clear(self) -> None:
        self.plain.clear()


async def _made_async(directory: Path, clock: Clock) -> Async:
    return Async(directory, clock)


@pytest.mark.parametrize(
    ("right", "manners"),
    [
        (Plain, {}),
        (Plain, {"real_time": True}),
        (Late, {"eventual": True}),
        (Tiers, {}),
        (Lasting, {"persistent": True}),
        (Async, {}),
        (_made_async, {}),
        (_made_async, {"real_time": True}),
    ],
)
def test_right_backends_pass(right: Any, manners: dict[str, bool]) -> None:
    """A backend that keeps its promises passes, be it synchronous, async, late, lasting, or in
    real time, and is told which checks were left out."""
    result = check_cache_backend(right, examples=10, **manners)
    expected = set()
    if not manners.get("persistent"):
        expected.add("what_is_written_outlives_closing")
    if manners.get("real_time"):
        expected.add("a_lifetime_is_kept_to_the_nanosecond")
    assert set(result.left_out) == expected
    assert "any_sequence_of_steps" in result.kept
    assert len(result.kept) + len(result.left_out) == 24


class EmptyIsAbsent(Plain):
    def get(self, key: bytes) -> Kept | None:
        found = super().get(key)
        return found if found is not None and found.value else None


class NullIsAbsent(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        if value != b"null":
            super().put(key, value, ttl_ns)


class ZeroIsDefault(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        super().put(key, value, ttl_ns or 300 * SECOND_NS)


class ZeroLeavesTheOld(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        if ttl_ns:
            super().put(key, value, ttl_ns)


class LivesATickLonger(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        super().put(key, value, ttl_ns and ttl_ns + 1)


class DiesATickEarly(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        super().put(key, value, ttl_ns and ttl_ns - 1)


class NeverEnds(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        super().put(key, value, ttl_ns and 2**62)


class HitProlongs(Plain):
    def get(self, key: bytes) -> Kept | None:
        found = super().get(key)
        if found is not None:
            super().put(key, found.value, 10 * SECOND_NS)
        return found


class FirstLifetimeHolds(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        found = self.get(key)
        super().put(key, value, found.remaining_ns if found and ttl_ns else ttl_ns)


class FirstPutHolds(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        if self.get(key) is None or not ttl_ns:
            super().put(key, value, ttl_ns)


class ForEverOverflows(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        super().put(key, value, ttl_ns % 2**55)


class SweepTakesTheNewer(Plain):
    """Sweeps by a list of expiries, and does not look whether the entry is still the same."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(directory, clock)
        self.expiries: list[tuple[int, bytes]] = []

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        with self.lock:
            for expires_ns, old in list(self.expiries):
                if expires_ns <= self.now():
                    self.table.pop(old, None)
                    self.expiries.remove((expires_ns, old))
            super().put(key, value, ttl_ns)
            self.expiries.append((self.now() + ttl_ns, key))


class TellsTheWholeLifetime(Plain):
    def get(self, key: bytes) -> Kept | None:
        found = super().get(key)
        return found and Kept(found.value, 10 * SECOND_NS)


class KeysWithoutTheLastByte(Plain):
    def get(self, key: bytes) -> Kept | None:
        return super().get(key[:31])

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        super().put(key[:31], value, ttl_ns)

    def delete(self, key: bytes) -> object:
        return super().delete(key[:31])


class Text(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        super().put(key, value.decode("utf-8", "replace").encode(), ttl_ns)


class CStrings(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        super().put(key, value.rstrip(b"\x00") or value, ttl_ns)


class LastByteLost(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        super().put(key, value[:-1] if len(value) > 127 else value, ttl_ns)


class CutAt64K(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        super().put(key, value[:65_536], ttl_ns)


class UpdateEvicts(Plain):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        with self.lock:
            self.make_room()
            super().put(key, value, ttl_ns)


class DeleteForgets(Plain):
    def delete(self, key: bytes) -> object:
        return False


class DeleteMinds(Plain):
    def delete(self, key: bytes) -> object:
        return self.table.pop(key)


class ClearForgets(Plain):
    def clear(self) -> None:
        self.table.pop(next(iter(self.table), b""), None)


class DeleteOfExpiredSticks(Plain):
    """Who deletes what has expired finds nothing under that key afterwards."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(directory, clock)
        self.gone: set[bytes] = set()

    def get(self, key: bytes) -> Kept | None:
        return None if key in self.gone else super().get(key)

    def delete(self, key: bytes) -> object:
        if key in self.table and self.get(key) is None:
            self.gone.add(key)
        return super().delete(key)


class CopyPerThread(Plain):
    """Each thread keeps what it read."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(directory, clock)
        self.copies: dict[int, dict[bytes, Kept]] = {}

    def mine(self) -> dict[bytes, Kept]:
        return self.copies.setdefault(threading.get_ident(), {})

    def get(self, key: bytes) -> Kept | None:
        mine = self.mine()
        found = mine.get(key) or super().get(key)
        if found is not None and threading.current_thread() is not threading.main_thread():
            mine[key] = found
        return found

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        super().put(key, value, ttl_ns)
        self.mine().pop(key, None)

    def delete(self, key: bytes) -> object:
        self.mine().pop(key, None)
        return super().delete(key)


def _let_others_run() -> None:
    threading.Event().wait(0.0005)


class ReadsThenWrites(Plain):
    """A put writes back the table as it was read."""

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        read = dict(self.table)
        if threading.current_thread() is not threading.main_thread():
            _let_others_run()
        self.table = read
        super().put(key, value, ttl_ns)


class WritesInHalves(Plain):
    """A put shows half of the new value with half of the old one for a moment."""

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        old = self.get(key)
        if old is not None and threading.current_thread() is not threading.main_thread():
            super().put(key, value[: len(value) // 2] + old.value[len(value) // 2 :], ttl_ns)
            _let_others_run()
        super().put(key, value, ttl_ns)


class ListOfUses(Plain):
    """Keeps the order of use in a list, without a lock."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(directory, clock)
        self.order: list[bytes] = []

    def get(self, key: bytes) -> Kept | None:
        found = super().get(key)
        if found is not None:
            self.order.remove(key)
            if threading.current_thread() is not threading.main_thread():
                _let_others_run()
            self.order.append(key)
        return found

    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        super().put(key, value, ttl_ns)
        if key not in self.order:
            self.order.append(key)


class CopyPerTask(Async):
    """Each task keeps what it read."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(directory, clock)
        self.mine = contextvars.ContextVar[dict[bytes, Kept] | None]("mine", default=None)

    async def get(self, key: bytes) -> Kept | None:
        mine = self.mine.get()
        if mine is None:
            self.mine.set(mine := {})
        found = mine.get(key) or await super().get(key)
        if found is not None and key not in mine:
            mine[key] = found
        return found

    async def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        (self.mine.get() or {}).pop(key, None)
        await super().put(key, value, ttl_ns)


class AwaitsBetween(Async):
    """A put writes back the table as it was read before it awaited."""

    async def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        read = dict(self.plain.table)
        await asyncio.sleep(0)
        self.plain.table = read
        await super().put(key, value, ttl_ns)


class PromotionProlongs(Tiers):
    def promoted_ns(self, found: Kept) -> int:
        return 300 * SECOND_NS


class DeletesTheLowerTier(Tiers):
    def delete(self, key: bytes) -> object:
        return self.table.pop(key, None)


class DeletesTheUpperTier(Tiers):
    def delete(self, key: bytes) -> object:
        return self.upper.delete(key)


class PutsBelowTheOld(Tiers):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        Plain.put(self, key, value, ttl_ns)


class ClearKeepsTheQueue(Late):
    def clear(self) -> None:
        self.table.clear()


class LateWriteResurrects(Late):
    def delete(self, key: bytes) -> object:
        return self.table.pop(key, None)


class RemovalOutlivesThePut(Late):
    """What was deleted once is dropped from all that is written until the next flush."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        super().__init__(directory, clock)
        self.dead: set[bytes] = set()

    def delete(self, key: bytes) -> object:
        self.dead.add(key)
        return super().delete(key)

    def flush(self) -> bool:
        self.queue = [row for row in self.queue if row[0] not in self.dead]
        self.dead.clear()
        return super().flush()


class LifetimeBeginsWhenWritten(Late):
    def put(self, key: bytes, value: bytes, ttl_ns: int) -> None:
        self.queue.append((key, value, ttl_ns))

    def flush(self) -> bool:
        self.queue = [(key, value, self.now() + ttl_ns) for key, value, ttl_ns in self.queue]
        return super().flush()


class NewestFirst(Late):
    """Writes its queue in the wrong order."""

    def flush(self) -> bool:
        with self.lock:
            self.queue.reverse()
            return super().flush()


class FlushGivesUp(Late):
    def flush(self) -> bool:
        return False


class LifetimeBeginsAgain(Lasting):
    def load(self, key: bytes, value: bytes, expires_ns: int) -> None:
        self.table[key] = (value, self.now() + 10 * SECOND_NS)


class RemovalIsForgotten(Lasting):
    """Nothing that was removed is removed from the file."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self.removed: dict[bytes, tuple[bytes, int]] = {}
        super().__init__(directory, clock)

    def delete(self, key: bytes) -> object:
        if key in self.table:
            self.removed[key] = self.table[key]
        return super().delete(key)

    def close(self) -> None:
        self.table = self.removed | self.table
        super().close()


BUGS: list[tuple[Callable[..., object], str, dict[str, bool]]] = [
    (EmptyIsAbsent, "an_empty_value_is_a_value", {}),
    (NullIsAbsent, "an_empty_value_is_a_value", {}),
    (ZeroIsDefault, "a_lifetime_of_zero_stores_nothing", {}),
    (ZeroLeavesTheOld, "a_lifetime_of_zero_stores_nothing", {}),
    (LivesATickLonger, "a_lifetime_is_kept_to_the_nanosecond", {}),
    (DiesATickEarly, "a_lifetime_is_kept_to_the_nanosecond", {}),
    (NeverEnds, "a_value_ends_with_its_lifetime", {}),
    (NeverEnds, "a_value_ends_with_its_lifetime", {"real_time": True}),
    (HitProlongs, "a_hit_prolongs_nothing", {}),
    (FirstLifetimeHolds, "the_last_put_holds", {}),
    (FirstPutHolds, "the_last_put_holds", {}),
    (ForEverOverflows, "for_ever_is_long", {}),
    (SweepTakesTheNewer, "expiry_takes_no_newer_value", {}),
    (TellsTheWholeLifetime, "what_remains_is_told_truly", {}),
    (KeysWithoutTheLastByte, "keys_count_to_the_last_byte", {}),
    (Text, "values_keep_every_byte", {}),
    (CStrings, "values_keep_every_byte", {}),
    (LastByteLost, "values_keep_every_byte", {}),
    (CutAt64K, "a_big_value_is_kept_whole", {}),
    (UpdateEvicts, "an_update_loses_no_neighbour", {}),
    (DeleteForgets, "what_is_deleted_is_gone_at_once", {}),
    (DeleteMinds, "what_is_deleted_is_gone_at_once", {}),
    (ClearForgets, "what_is_cleared_is_gone_at_once", {}),
    (CopyPerThread, "callers_at_once_fit_one_order", {}),
    (ReadsThenWrites, "callers_at_once_lose_nothing", {}),
    (WritesInHalves, "callers_at_once_lose_nothing", {}),
    (ListOfUses, "callers_at_once_lose_nothing", {}),
    (CopyPerTask, "callers_at_once_fit_one_order", {}),
    (AwaitsBetween, "callers_at_once_lose_nothing", {}),
    (PromotionProlongs, "a_hit_prolongs_nothing", {}),
    (DeletesTheLowerTier, "what_is_deleted_is_gone_at_once", {}),
    (DeletesTheUpperTier, "what_is_deleted_is_gone_at_once", {}),
    (PutsBelowTheOld, "the_last_put_holds", {}),
    (ClearKeepsTheQueue, "what_is_cleared_is_gone_at_once", {"eventual": True}),
    (LateWriteResurrects, "a_delete_takes_what_is_still_to_be_written", {"eventual": True}),
    (RemovalOutlivesThePut, "a_put_after_a_removal_holds", {"eventual": True}),
    (LifetimeBeginsWhenWritten, "a_lifetime_begins_with_the_put", {"eventual": True}),
    (NewestFirst, "the_last_put_holds", {"eventual": True}),
    (FlushGivesUp, "what_is_put_is_found", {"eventual": True}),
    (LifetimeBeginsAgain, "what_is_written_outlives_closing", {"persistent": True}),
    (RemovalIsForgotten, "what_is_written_outlives_closing", {"persistent": True}),
]


@pytest.mark.parametrize(
    ("bug", "check", "manners"), BUGS, ids=[f"{bug.__name__}-{len(m)}" for bug, _, m in BUGS]
)
def test_seeded_bugs_are_named(
    bug: Callable[..., object], check: str, manners: dict[str, bool]
) -> None:
    """A backend with any of the seeded bugs fails, and the check that is about it says so. (D93)"""
    with pytest.raises(BrokenPromisesError) as caught:
        check_cache_backend(bug, examples=0, **manners)
    assert check in caught.value.broken
    assert check in str(caught.value)
    assert len(caught.value.broken) < 24


def test_a_broken_promise_is_told_with_what_was_seen() -> None:
    """What only the model check finds is told with the promise and the few steps that led
    there. (D93)"""
    with pytest.raises(BrokenPromisesError) as caught:
        check_cache_backend(DeleteOfExpiredSticks)
    told = str(caught.value)
    assert told.startswith("1 broken promises\n\nany_sequence_of_steps: Any sequence of steps")
    steps = re.findall(r"state\.(\w+)\(", told)
    assert "remove" in steps
    assert steps[-1] == "teardown"
    assert len(steps) <= 20  # of 40: how far they are shortened is up to hypothesis, and its Python


def test_the_model_finds_sequential_bugs_by_itself() -> None:
    """A few keys and lifetimes are enough for the model check to meet bugs of lifetimes. (D93)"""
    with pytest.raises(AssertionError, match=r"found b'\d+', expected None"):
        check_model(PromotionProlongs, Manners(), examples=100)


def test_a_backend_that_cannot_be_made_breaks_every_promise() -> None:
    """What the factory raises is told, not raised."""

    def broken(directory: Path, clock: Clock) -> Plain:
        raise OSError("no such server")

    with pytest.raises(BrokenPromisesError, match="OSError: no such server"):
        check_cache_backend(broken, examples=1)
