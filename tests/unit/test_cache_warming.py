"""What is worth computing ahead, and the file of the warm tier seen from outside."""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.cache.disk.reader import DiskReader
from paceline.cache.disk.tier import DiskTier
from paceline.cache.entry import About
from paceline.cache.generations import SLOTS, Generations
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.snapshot import Snapshot
from paceline.cache.warm_start import warm_start
from paceline.cache.warming import Candidate, Use, ranked
from paceline.errors import StorageError
from paceline.testing.virtual_time import VirtualClock
from paceline.testing.virtual_time import run as run_virtual

SECOND = 1_000_000_000
Ranked = Callable[[list[Use]], list[Candidate]]


def use(result: str, place: int, took_s: float = 0.0, *, asked: bool = True) -> Use:
    return Use(("agent", result), place, round(took_s * SECOND), asked)


def check_worth_is_uses_times_time(rank: Ranked) -> None:
    """A candidate is worth how often it was asked for times what executing it took on average; the
    most worth comes first. (S1-52)"""
    uses = [use("rare", 0, 9.0), *(use("often", n, 1.0 if n == 1 else 0.0) for n in range(1, 13))]
    uses += [use("slow", 20, 4.0), use("slow", 21, 2.0)]
    assert [(c.place, c.worth_s) for c in rank(uses)] == [(12, 12.0), (0, 9.0), (21, 6.0)]


def check_what_nobody_asked_for_weighs_nothing(rank: Ranked) -> None:
    """Calls that were made ahead tell what executing takes, and are no uses: else what is warmed
    once would be warmed for ever. (S1-52)"""
    uses = [use("a", 0), use("a", 1, 2.0, asked=False), use("b", 2, 5.0, asked=False)]
    assert [(c.place, c.worth_s) for c in rank(uses)] == [(1, 2.0)]


CHECKS = (check_worth_is_uses_times_time, check_what_nobody_asked_for_weighs_nothing)


@pytest.mark.parametrize("check", CHECKS)
def test_ranking(check: Callable[[Ranked], None]) -> None:
    """Candidates are ranked by the time their results would have saved. (S1-52)"""
    check(ranked)


def _by_uses(uses: list[Use]) -> list[Candidate]:
    return sorted(ranked(uses), key=lambda one: -one.uses)


def _by_time(uses: list[Use]) -> list[Candidate]:
    return sorted(ranked(uses), key=lambda one: -one.cost_ns)


def _all_asked(uses: list[Use]) -> list[Candidate]:
    return ranked([Use(u.result, u.place, u.took_ns) for u in uses])


@pytest.mark.parametrize("mutant", [_by_uses, _by_time, _all_asked])
def test_the_checks_notice_a_wrong_ranking(mutant: Ranked) -> None:
    """Ranking by uses alone, by time alone, or counting what was made ahead is noticed."""
    failed = 0
    for check in CHECKS:
        try:
            check(mutant)
        except AssertionError:
            failed += 1
    assert failed


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.integers(0, 10), st.booleans())
    )
)
def test_every_result_that_was_asked_for_is_a_candidate_once(
    told: list[tuple[str, int, int, bool]],
) -> None:
    """Each result that somebody asked for is one candidate, with all its uses, in falling worth."""
    uses = [
        Use((name, str(n)), place, took, asked) for place, (name, n, took, asked) in enumerate(told)
    ]
    found = ranked(uses)
    asked = [u.result for u in uses if u.asked]
    assert len(found) == len(set(asked))
    assert sum(one.uses for one in found) == len(asked)
    assert [one.worth_s for one in found] == sorted((c.worth_s for c in found), reverse=True)


# -- the file from outside ----------------------------------------------------------------------


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


def _raise(exc: StorageError) -> None:
    raise exc


def _tier(path: Path, clock: VirtualClock) -> DiskTier:
    return DiskTier(path, clock=clock, max_bytes=1 << 20, on_trouble=_raise)


def test_a_file_is_read_while_it_is_written(tmp_path: Path, clock: VirtualClock) -> None:
    """What is in the file is listed by order and agent, found by digits, counted by agent and read;
    what has expired, or is damaged, is not."""
    tier, reader = _tier(tmp_path / "c", clock), DiskReader(tmp_path / "c", clock=clock)
    key = {name: bytes([n]) * 32 for n, name in enumerate(("old", "dear", "large", "short"), 0xA0)}
    tier.put(key["old"], b"1", 90 * SECOND, About(name="a"))
    clock.advance(1)
    tier.put(key["dear"], b"22", 80 * SECOND, About(name="a", cost_ns=5 * SECOND))
    clock.advance(1)
    tier.put(key["large"], b"3" * 100, 70 * SECOND, About(name="b"))
    tier.put(key["short"], b"4", SECOND, About(name="b"))
    assert tier.flush(10)
    clock.advance(2)
    by = {
        order: [row.key for row in reader.entries(10, order)]
        for order in ("stored", "expiry", "size", "cost")
    }
    old, dear, large = key["old"], key["dear"], key["large"]
    assert by["stored"] == [large, dear, old]
    assert by["expiry"] == [large, dear, old]
    assert by["size"] == [large, dear, old]
    assert by["cost"][0] == dear
    assert [row.key for row in reader.entries(10, name="b")] == [large]
    assert len(reader.entries(1)) == 1
    assert [row.key for row in reader.find("a0a")] == [old]
    assert [row.key for row in reader.find("a")] == [old, dear]
    assert reader.find_all([dear, b"?"]).keys() == {dear}
    assert [(s.name, s.entries, s.bytes, s.cost_s) for s in reader.shares()] == [
        ("a", 2, 3, 5.0),
        ("b", 1, 100, 0.0),
    ]
    assert reader.names("b") == ["b"]
    assert (found := reader.get(dear)) is not None
    assert found.value == b"22"
    assert reader.get(key["short"]) is None
    tier.close()
    with closing(sqlite3.connect(tmp_path / "c")) as db, db:
        db.execute("UPDATE results SET payload = x'00' WHERE key = ?", (dear,))
    db.close()
    assert reader.get(dear) is None
    assert [k for part in reader.hottest(1) for k, _ in part] == [large, old]


def test_a_file_that_is_not_there_holds_nothing(tmp_path: Path, clock: VirtualClock) -> None:
    """Reading a file that does not exist finds nothing, and makes none."""
    reader = DiskReader(tmp_path / "c", clock=clock)
    assert not any((reader.entries(), reader.find(""), reader.shares(), reader.names()))
    assert reader.sizes() == (0, 0)
    assert list(reader.hottest(5)) == []
    assert not (tmp_path / "c").exists()


def test_memory_is_filled_no_further_than_it_has_room(tmp_path: Path, clock: VirtualClock) -> None:
    """A warm start loads the newest results, evicts nobody, prolongs no lifetime, and brings back
    nothing that is removed while it goes on. (S1-52)"""

    async def main() -> None:
        tier = _tier(tmp_path / "c", clock)
        for n in range(200):
            tier.put(
                bytes([n]) * 32, b"\x01\x01", 90 * SECOND, About(name="a", stale_ns=30 * SECOND)
            )
        assert tier.flush(10)
        reader = DiskReader(tmp_path / "c", clock=clock)
        memory = MemoryTier[bytes, Snapshot](150, clock=clock)
        memory.put(b"mine", Snapshot.take(1), SECOND)
        assert await warm_start(memory, reader, 1_000) == 149
        assert memory.peek(b"mine") is not None
        assert memory.peek(bytes([199]) * 32) is not None
        assert memory.peek(bytes([0]) * 32) is None
        last = memory.find(bytes([199]) * 32)
        assert last is not None
        assert last.fresh_ns - clock.monotonic_ns() == 60 * SECOND
        assert await warm_start(memory, reader, 1_000) == 0

        empty = MemoryTier[bytes, Snapshot](150, clock=clock)
        assert (
            await warm_start(empty, reader, 50, flush=lambda: empty.delete(bytes([199]) * 32)) == 50
        )
        assert empty.peek(bytes([199]) * 32) is None
        assert await warm_start(empty, reader, 50, stopped=lambda: True) == 0
        tier.close()

    run_virtual(main())


def test_all_results_are_made_stale_at_once(tmp_path: Path) -> None:
    """`bump_all` changes every stamp, for every process, as a write that servers are told of. (S0-78)"""
    here, there = (Generations(tmp_path / "g", on_trouble=_raise) for _ in range(2))
    told: list[int] = []
    here.attach(lambda: told.append(len(here.written())))
    tags = [f"tag {n}" for n in range(20_000)]
    before = [there.read((tag,)) for tag in tags]
    here.bump_all()
    assert all(there.read((tag,)) != old for tag, old in zip(tags, before, strict=True))
    assert told == [SLOTS]
    here.close()
    there.close()
