"""Leases: one holder at a time, freed in every way, waited for with patience."""

import errno
import fcntl
import os
import random
import sqlite3
import zlib
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paceline.cache.disk.leases import FileLeases, Lease
from paceline.cache.disk.tier import DiskTier
from paceline.errors import StorageError
from paceline.testing.virtual_time import VirtualClock, run

_KEY, _OTHER = b"k" * 32, b"o" * 32
_HOUR = 3_600 * 1_000_000_000
Open = Callable[[], FileLeases]


def _unexpected(exc: StorageError) -> None:
    raise exc


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens the same leases, each time as another runtime would."""
    made: list[FileLeases] = []

    def open_them() -> FileLeases:
        made.append(
            FileLeases(tmp_path / "a" / "leases", on_trouble=_unexpected, rng=random.Random(1))
        )
        return made[-1]

    yield open_them
    for leases in made:
        leases.close()


def _taken(leases: FileLeases, key: bytes = _KEY) -> Lease:
    lease = leases.acquire(key)
    assert lease is not None
    return lease


@pytest.mark.parametrize("runtimes", [1, 2])
def test_a_lease_has_one_holder(opened: Open, runtimes: int) -> None:
    """While a lease is held nobody gets it, in the same runtime or another; then one does.
    (S1-51)"""
    mine = opened()
    theirs = opened() if runtimes == 2 else mine
    with _taken(mine):
        assert theirs.acquire(_KEY) is None
        with _taken(theirs, _OTHER):
            assert mine.acquire(_OTHER) is None
    with _taken(theirs):
        assert mine.acquire(_KEY) is None


def test_leases_that_keep_nobody_out_are_caught(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above fails without the lock of the file, and without the table of one runtime."""
    monkeypatch.setattr(FileLeases, "_set", lambda *_: None)
    with pytest.raises(AssertionError):
        test_a_lease_has_one_holder(opened, 2)
    monkeypatch.undo()

    class Forgetful(dict[int, Lease]):
        def __contains__(self, _: object) -> bool:
            return False

    leases = opened()
    leases._held = Forgetful()
    with pytest.raises(AssertionError):
        test_a_lease_has_one_holder(lambda: leases, 1)


def test_releasing_twice_frees_nobody_elses(opened: Open) -> None:
    """A second release does nothing, even when another holds the lease by then."""
    leases = opened()
    first = _taken(leases)
    first.release()
    second = _taken(leases)
    first.release()
    assert opened().acquire(_KEY) is None
    second.release()
    _taken(leases).release()


def test_closing_gives_everything_back(opened: Open) -> None:
    """After close others get what was held; a late release, and what is acquired later, holds
    nothing."""
    mine, theirs = opened(), opened()
    late = _taken(mine)
    mine.close()
    with _taken(theirs):
        late.release()
        _taken(mine).release()
        assert opened().acquire(_KEY) is None


def test_keys_of_one_slot_wait_for_each_other(opened: Open) -> None:
    """Of a million slots two keys may share one: then one waits, and no more than that."""
    leases = opened()
    slots: dict[int, list[bytes]] = {}
    rng = random.Random(1)
    for _ in range(20_000):
        key = rng.randbytes(32)
        slots.setdefault(zlib.crc32(key) % (1 << 20), []).append(key)
    first, key, *_ = next(keys for keys in slots.values() if len(keys) > 1)
    with _taken(leases, first):
        assert leases.acquire(key) is None
    _taken(leases, key).release()


def test_a_child_cannot_free_what_its_parent_holds(opened: Open) -> None:
    """In a forked child a lease of the parent's is not free and cannot be released, and other
    leases can be had. (D89)"""
    leases = opened()
    held = _taken(leases)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            held.release()
            got = [leases.acquire(_KEY) is None, leases.acquire(_OTHER) is not None]
            held.release()
            os.write(write, str(got).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as said:
        assert said.read() == "[True, True]"
    assert os.waitpid(child, 0)[1] == 0
    assert opened().acquire(_KEY) is None
    held.release()
    for key in (_KEY, _OTHER):
        _taken(opened(), key).release()


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EINVAL, errno.EOPNOTSUPP])
def test_without_locks_everybody_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """On a file system without such locks leases hold nothing, which is told once."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    told: list[StorageError] = []
    monkeypatch.setattr(fcntl, "fcntl", refuse)
    leases = FileLeases(tmp_path / "leases", on_trouble=told.append, rng=random.Random(1))
    for _ in range(3):
        _taken(leases)
    assert len(told) == 1
    assert os.strerror(code) in str(told[0])


def test_a_place_for_no_file_is_told_once(tmp_path: Path) -> None:
    """Where the file cannot be made leases hold nothing, which is told once. (D84)"""
    told: list[StorageError] = []
    leases = FileLeases(tmp_path, on_trouble=told.append, rng=random.Random(1))
    for _ in range(3):
        _taken(leases)
    assert len(told) == 1
    leases.close()


# -- waiting ------------------------------------------------------------------------------------


def _in_virtual_time(main: Callable[[VirtualClock], Coroutine[Any, Any, object]]) -> object:
    async def start() -> object:
        return await main(VirtualClock())

    return run(start())


def test_who_waits_gets_the_result(opened: Open) -> None:
    """Who waits gets the result soon after it can be read, though the lease is still held."""
    mine, theirs = opened(), opened()

    async def main(clock: VirtualClock) -> object:
        start_ns = clock.monotonic_ns()

        def found() -> str | None:
            return "value" if clock.monotonic_ns() - start_ns >= 1_000_000_000 else None

        got = await theirs.wait(_KEY, found, patience_s=60, clock=clock)
        assert clock.monotonic_ns() - start_ns < 1_060_000_000
        return got

    with _taken(mine):
        assert _in_virtual_time(main) == "value"


def test_who_waits_takes_over(opened: Open) -> None:
    """When the lease gets free without a result, who waits gets the lease."""
    mine, theirs = opened(), opened()
    held = _taken(mine)
    looks: list[int] = []

    def found() -> None:
        looks.append(1)
        if len(looks) == 10:
            held.release()

    async def main(clock: VirtualClock) -> object:
        return await theirs.wait(_KEY, found, patience_s=60, clock=clock)

    lease = _in_virtual_time(main)
    assert isinstance(lease, Lease)
    assert mine.acquire(_KEY) is None
    lease.release()


def test_a_result_stored_just_before_the_release_is_not_missed(opened: Open) -> None:
    """A result that comes between the look and the lease is found, and the lease is free again."""
    mine, theirs = opened(), opened()
    held = _taken(mine)
    stored: list[str] = []

    def found() -> str | None:
        if stored:
            return stored[0]
        stored.append("value")  # the holder's last two steps, right after this look
        held.release()
        return None

    async def main(clock: VirtualClock) -> object:
        return await theirs.wait(_KEY, found, patience_s=60, clock=clock)

    assert _in_virtual_time(main) == "value"
    _taken(mine).release()


def test_taking_the_lease_without_another_look_is_caught(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above fails for a wait that trusts its first look."""
    monkeypatch.setattr("paceline.cache.disk.leases._checked", lambda lease, _: lease)
    with pytest.raises(AssertionError):
        test_a_result_stored_just_before_the_release_is_not_missed(opened)


@pytest.mark.parametrize("patience_s", [0, 0.5, 30])
def test_patience_ends(opened: Open, patience_s: float) -> None:
    """With a holder that hangs, waiting ends when patience does, not before, and with few looks."""
    mine, theirs = opened(), opened()
    looks: list[int] = []

    async def main(clock: VirtualClock) -> object:
        start_ns = clock.monotonic_ns()
        got = await theirs.wait(_KEY, lambda: looks.append(1), patience_s=patience_s, clock=clock)
        assert abs(clock.monotonic_ns() - start_ns - patience_s * 1e9) < 1e6
        return got

    with _taken(mine):
        assert _in_virtual_time(main) is None
    assert len(looks) <= 20 + patience_s * 45


def test_a_look_that_fails_keeps_no_lease(opened: Open) -> None:
    """When looking for the result raises under the lease, that is free again."""
    leases = opened()
    looks = iter([None])

    async def main(clock: VirtualClock) -> object:
        return await leases.wait(_KEY, lambda: next(looks), patience_s=1, clock=clock)

    with pytest.raises(RuntimeError):  # what a generator makes of StopIteration
        _in_virtual_time(main)
    _taken(leases).release()


# -- with the warm tier -------------------------------------------------------------------------


def test_a_lease_is_free_when_the_result_can_be_read(tmp_path: Path, opened: Open) -> None:
    """A lease that is released after writing stays held while the result cannot be read."""
    path = tmp_path / "cache.db"
    tier = DiskTier(path, clock=VirtualClock(), max_bytes=4_000_000, on_trouble=_unexpected)
    assert tier.flush(30)
    mine, theirs = opened(), opened()
    lease = _taken(mine)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("BEGIN IMMEDIATE")
        tier.put(_KEY, b"value", _HOUR)
        tier.after_written(lease.release)
        assert tier.get(_KEY) is None
        assert theirs.acquire(_KEY) is None
    assert tier.flush(30)
    tier.close()
    _taken(theirs).release()


def test_releasing_before_writing_is_caught(
    tmp_path: Path, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check above fails for a tier that calls back at once."""
    monkeypatch.setattr(DiskTier, "after_written", lambda _, callback: callback())
    with pytest.raises(AssertionError):
        test_a_lease_is_free_when_the_result_can_be_read(tmp_path, opened)
