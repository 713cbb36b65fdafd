"""What changes while a result is computed, fetched or moved, and how that is counted."""

import asyncio
import contextlib
import datetime as dt
import errno
import fcntl
import math
import random
import re
from collections.abc import Awaitable, Callable, Generator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from paceline.balance.gate import Gate
from paceline.balance.retry import RetryPolicy
from paceline.cache.claims import Claims
from paceline.cache.disk.leases import FileLeases
from paceline.cache.disk.rows import Found
from paceline.cache.disk.tier import DiskTier
from paceline.cache.entry import PLAIN, About
from paceline.cache.generations import Generations
from paceline.cache.hints import Hints
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.snapshot import Snapshot
from paceline.cache.statistics import Totals
from paceline.cache.tiered import Freshness, ResultCache
from paceline.call import Call, Caller, Effect, Kind, Outcome, Plan, Scope, ScopeLevel, Source
from paceline.errors import AgentError, Category, PacelineError, StorageError
from paceline.home import Home
from paceline.path import Attempts, CallPath, Identity, Job, agent_tag
from paceline.redaction import Redactor
from paceline.settings import CacheSettings, Settings
from paceline.state import State
from paceline.testing.virtual_time import VirtualClock, run

KEY = b"k" * 32
Agent = Callable[[Call], Awaitable[object]]


def _unexpected(exc: StorageError) -> None:
    raise exc


class Shared:
    """A tier of several machines that takes a second to answer; nobody has its leases."""

    connected = True

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}

    async def get(self, key: bytes) -> Found | None:
        row = self.rows.get(key)
        await asyncio.sleep(1)
        return None if row is None else Found(row, 10**12)

    async def put(self, key: bytes, payload: bytes, ttl_ns: int, about: About = PLAIN) -> None:
        self.rows[key] = payload

    async def delete(self, key: bytes) -> None:
        self.rows.pop(key, None)

    async def clear(self) -> None:
        self.rows.clear()

    async def lease(self, key: bytes, ttl_s: float) -> None:
        """Nobody gets it."""

    async def wait(self, key: bytes, timeout_s: float) -> None:
        await asyncio.sleep(timeout_s)


class House:
    """A call path with the tiers it is given, whose agent does what it is told."""

    def __init__(
        self,
        disk: DiskTier | None = None,
        leases: FileLeases | None = None,
        clock: VirtualClock | None = None,
    ) -> None:
        self.clock = clock or VirtualClock()
        self.memory = MemoryTier[bytes, Snapshot](100, clock=self.clock)
        self.cache = ResultCache(self.memory, disk, leases=leases, clock=self.clock)
        self.identity = Identity(Generations(None, on_trouble=_unexpected), clock=self.clock)
        self.seen: list[Outcome] = []
        self.path = CallPath(
            clock=self.clock,
            cache=self.cache,
            identity=self.identity,
            attempts=Attempts(
                clock=self.clock,
                gate=Gate("the test", 8, 8),
                retry=RetryPolicy(1),
                rng=random.Random(1),
                identity=self.identity,
            ),
            observers=[lambda _, outcome: self.seen.append(outcome)],
            began=lambda _: None,
            instance="test",
        )
        self.value: object = ["first"]
        self.fails = False
        self.takes_s = 0.0
        self.runs = 0

    async def agent(self, _: Call) -> object:
        self.runs += 1
        value = self.value
        await asyncio.sleep(self.takes_s)
        if self.fails:
            raise AgentError("away", category=Category.NETWORK)
        return value

    def call(self, plan: Plan, session: str = "s", timeout_s: float | None = None) -> Call:
        caller = Caller("ada", session)
        deadline_ns = None
        if timeout_s is not None:
            deadline_ns = self.clock.monotonic_ns() + round(timeout_s * 1e9)
        return Call(
            id=f"c{len(self.seen)}{session}",
            kind=Kind.AGENT,
            name="agent",
            arguments={"query": "q"},
            caller=caller,
            scope=Scope.of(caller, plan.scope),
            plan=plan,
            deadline_ns=deadline_ns,
        )

    async def ask(
        self, plan: Plan, session: str = "s", timeout_s: float | None = None, **job: Any
    ) -> Outcome:
        return await self.path.run(self.call(plan, session, timeout_s), Job(self.agent, **job))

    def key(self, plan: Plan) -> bytes:
        identified = self.identity.of(self.call(plan), "")
        assert identified is not None
        return identified.key


def _plan(**more: Any) -> Plan:
    return Plan(Effect.read("r"), ttl_s=60, **more)


@contextlib.contextmanager
def _file(path: Path, clock: VirtualClock) -> Generator[DiskTier]:
    disk = DiskTier(path / "c.db", clock=clock, max_bytes=4_000_000, on_trouble=_unexpected)
    try:
        yield disk
    finally:
        disk.close()


@pytest.mark.parametrize("everything", [False, True])
@pytest.mark.parametrize("refreshed", [False, True])
def test_what_is_removed_while_it_is_computed_is_not_stored(
    *, refreshed: bool, everything: bool
) -> None:
    """A result that was removed while it is computed, for a caller or ahead of any, reaches who
    waits for it and nobody after. (S0-78)"""

    async def main() -> None:
        house, plan = House(), _plan(stale_s=30)
        house.takes_s = 5
        if refreshed:
            await house.ask(plan)
            house.clock.advance(70)
        asking = asyncio.create_task(house.ask(plan))
        await asyncio.sleep(1)
        if everything:
            house.cache.clear()
        else:
            house.cache.delete(house.key(plan))
        house.value = ["second"]
        assert (await asking).value == ["first"]
        await asyncio.sleep(10)
        assert (await house.ask(plan)).value == ["second"]

    run(main())


def test_removing_others_is_no_hindrance() -> None:
    """Removing thousands of other results while one is computed does not keep it from being
    stored. (S0-78)"""

    async def main() -> None:
        house = House()
        house.takes_s = 5
        asking = asyncio.create_task(house.ask(_plan()))
        await asyncio.sleep(1)
        for number in range(5_000):
            house.cache.dropped_elsewhere(number.to_bytes(32, "big"))
        await asking
        assert (await house.ask(_plan())).source is Source.HOT

    run(main())


def test_what_is_removed_while_it_is_fetched_is_not_kept() -> None:
    """A result of the cold tier that was removed while it was on its way is kept nowhere. (S1-51)"""

    async def main() -> None:
        clock, shared = VirtualClock(), Shared()
        cache = ResultCache(MemoryTier(10, clock=clock), None, shared, clock=clock)
        cache.put(KEY, ["first"])
        await cache.settle()
        cache.dropped_elsewhere(KEY)
        assert cache.get(KEY) is None
        fetching = asyncio.create_task(cache.fetch(KEY))
        await asyncio.sleep(0.5)
        cache.delete(KEY)
        assert await fetching is not None
        assert cache.get(KEY) is None

    run(main())


@pytest.mark.parametrize("now", [None, b"\xc4\x03new"])
def test_the_file_follows_what_other_machines_do(tmp_path: Path, now: bytes | None) -> None:
    """What another machine removed or replaced is not found in this one's file either; what is
    as it was stays there. (S1-51)"""

    async def main() -> None:
        clock, shared = VirtualClock(), Shared()
        with _file(tmp_path, clock) as disk:
            cache = ResultCache(MemoryTier(10, clock=clock), disk, shared, clock=clock)
            cache.put(KEY, ["first"])
            await cache.settle()
            assert disk.flush(30)
            cache.dropped_elsewhere(KEY)
            await cache.settle()
            hit = cache.get(KEY)
            assert hit is not None
            assert hit.source is Source.WARM
            if now is None:
                del shared.rows[KEY]
            else:
                shared.rows[KEY] = now
            cache.dropped_elsewhere(KEY)
            await cache.settle()
            assert cache.get(KEY) is None

    run(main())


def test_a_value_of_memory_alone_replaces_what_machines_share() -> None:
    """A value that cannot be encoded leaves no older one in the cold tier. (S1-51)"""

    async def main() -> None:
        clock, shared = VirtualClock(), Shared()
        cache = ResultCache(MemoryTier(10, clock=clock), None, shared, clock=clock)
        cache.put(KEY, ["first"])
        cache.put(KEY, _opaque())
        await cache.settle()
        assert not shared.rows

    run(main())


def _opaque() -> object:
    """What can be copied and has no encoding."""
    return re.compile("x")


def test_the_cold_tier_can_be_the_only_one() -> None:
    """Without memory and file, results are kept in the cold tier. (S1-51)"""

    async def main() -> None:
        clock, shared = VirtualClock(), Shared()
        cache = ResultCache(MemoryTier(0, clock=clock), None, shared, clock=clock)
        cache.put(KEY, ["first"])
        await cache.settle()
        kept = await cache.fetch(KEY)
        assert kept is not None
        assert kept.hit.value == ["first"]

    run(main())


def test_a_rescue_without_end_leaves_the_lifetime_alone(tmp_path: Path) -> None:
    """A result that may be served for ever after an error is fresh in the file as long as in
    memory."""
    clock = VirtualClock()
    with _file(tmp_path, clock) as disk:
        freshness = Freshness(stale_if_error_s=math.inf)
        cache = ResultCache(MemoryTier(10, clock=clock), disk, clock=clock, freshness=freshness)
        cache.put(KEY, ["first"], 60, about=cache.about(PLAIN))
        assert disk.flush(30)
        cache.dropped_elsewhere(None)
        clock.advance(59)
        hit = cache.get(KEY)
        assert hit is not None
        assert (hit.value, hit.source) == (["first"], Source.WARM)
        clock.advance(2)
        assert cache.get(KEY) is None
        rescued = cache.rescue(KEY)
        assert rescued is not None
        assert rescued.value == ["first"]


def test_a_rescue_of_another_type_is_none(tmp_path: Path) -> None:
    """A result in the file that is not of the declared type any more cannot stand in for an error,
    which the caller gets as its outcome."""

    async def main() -> None:
        clock = VirtualClock()
        with _file(tmp_path, clock) as disk:
            house, plan = House(disk, clock=clock), _plan(stale_if_error_s=600)
            await house.ask(plan)
            assert disk.flush(30)
            house.memory.clear()
            clock.advance(70)
            house.fails = True
            outcome = await house.ask(plan, result_type=dict[str, int])
            assert isinstance(outcome.error, AgentError)

    run(main())


def test_what_is_invalidated_is_not_rescued() -> None:
    """When computing fails, an older result is not served if it was invalidated meanwhile. (S0-78)"""

    async def main() -> None:
        house, plan = House(), _plan(stale_if_error_s=600)
        await house.ask(plan)
        house.clock.advance(70)
        house.fails, house.takes_s = True, 5
        asking = asyncio.create_task(house.ask(plan))
        await asyncio.sleep(1)
        house.identity.forget(agent_tag("agent"))
        assert (await asking).error is not None

    run(main())


def test_sessions_of_one_world_share_through_the_file(tmp_path: Path) -> None:
    """A result of one session of a world is found in the file by the others that made the same
    writes. (S0-75)"""

    async def main() -> None:
        clock = VirtualClock()
        with _file(tmp_path, clock) as disk:
            house = House(disk, clock=clock)
            plan = _plan(scope=ScopeLevel.SESSION, world="start")
            for session in ("a", "b"):
                house.identity.begin("start", session)
            await house.ask(plan, "a")
            assert disk.flush(30)
            house.memory.clear()
            assert (await house.ask(plan, "b")).source is Source.WARM
            assert house.cache.foreign == 0

    run(main())


def test_a_result_that_became_private_replaces_the_shared_one() -> None:
    """When a result is computed anew and may not be shared any more, the older one is not served
    either. (S0-78)"""

    async def main() -> None:
        house, plan = House(), _plan(scope=ScopeLevel.GLOBAL, stale_s=600)
        said: list[Hints] = [Hints(), Hints(scope=ScopeLevel.USER), Hints(scope=ScopeLevel.USER)]
        await house.ask(plan, hints=lambda _: said.pop(0))
        house.clock.advance(70)
        assert (await house.ask(plan, hints=lambda _: said.pop(0))).source is Source.STALE
        await asyncio.sleep(1)
        assert (await house.ask(plan, hints=lambda _: said.pop(0))).source is Source.EXECUTED

    run(main())


def test_a_refresh_that_fails_says_so_and_counts_as_nothing() -> None:
    """A refresh that fails is seen as failed, and no request is counted for it."""

    async def main() -> None:
        house, plan = House(), _plan(stale_s=30, stale_if_error_s=600)
        await house.ask(plan)
        house.clock.advance(70)
        house.fails = True
        await house.ask(plan)
        await asyncio.sleep(1)
        assert isinstance(house.seen[-1].error, AgentError)
        totals = house.cache.totals
        assert (totals.requests, totals.hits, totals.stale, totals.refreshes) == (2, 1, 1, 1)

    run(main())


def test_each_who_is_rescued_counts_once() -> None:
    """A result in place of an error is a hit past its lifetime, one for each who gets it, and each
    gets a value of his own."""

    async def main() -> None:
        house, plan = House(), _plan(stale_if_error_s=600)
        await house.ask(plan)
        house.clock.advance(70)
        house.fails, house.takes_s = True, 5
        one, two = await asyncio.gather(house.ask(plan), house.ask(plan))
        assert (one.source, two.source, house.runs) == (Source.STALE, Source.STALE, 2)
        assert one.value == two.value == ["first"]
        assert one.value is not two.value
        assert (one.attempts, two.attempts) == (1, 0)
        totals = house.cache.totals
        assert (totals.misses, totals.hits, totals.stale, totals.joins) == (1, 2, 2, 0)

    run(main())


def test_joining_saves_what_computing_takes() -> None:
    """Who joins a computation saves what it takes, in seconds and in money. (S0-76)"""

    async def main() -> None:
        house, plan = House(), _plan(cost_usd=0.5)
        house.takes_s = 5
        await asyncio.gather(house.ask(plan), house.ask(plan))
        assert (house.cache.totals.saved_s, house.cache.totals.saved_usd) == (5, 0.5)

    run(main())


def test_figures_of_a_window_are_not_negative() -> None:
    """A request that was still a miss at a mark, and was found further down after it, does not
    make the misses of a window negative. (S0-76)"""
    before, after = Totals(misses=1), Totals(cold_hits=1)
    assert after.since(before) == Totals(cold_hits=1)


def test_a_deadline_ends_waiting_for_another_process(tmp_path: Path) -> None:
    """A call that waits for another process to compute its result ends at its own deadline, and
    leaves no lease behind. (S0-41)"""

    async def main() -> None:
        house = House(None)
        mine, theirs = (
            FileLeases(tmp_path / "l", on_trouble=_unexpected, rng=random.Random(1))
            for _ in range(2)
        )
        house = House(leases=mine)
        held = theirs.acquire(house.key(_plan()))
        assert held is not None
        outcome = await house.ask(_plan(), timeout_s=1)
        assert outcome.error is not None
        assert outcome.error.category is Category.TIMEOUT
        assert outcome.total_ns == 10**9
        held.release()
        assert mine.acquire(house.key(_plan())) is not None
        for leases in (mine, theirs):
            leases.close()

    run(main())


def test_a_look_that_fails_leaves_no_lease(tmp_path: Path) -> None:
    """Whatever looking for another's result raises, the lease is given back. (S0-41)"""

    def look() -> None:
        raise RuntimeError

    async def fetch() -> None:
        """Never asked."""

    async def main() -> None:
        clock = VirtualClock()
        leases = FileLeases(tmp_path / "l", on_trouble=_unexpected, rng=random.Random(1))
        claims = Claims[None](None, leases, None, patience_s=1, clock=clock)
        with pytest.raises(RuntimeError):
            async with claims.hold(KEY, look, fetch):
                pass
        assert leases.acquire(KEY) is not None
        leases.close()

    run(main())


def test_patience_is_for_processes_and_machines_together(tmp_path: Path) -> None:
    """Waiting for processes of this machine and then for others takes no longer than was allowed
    in all. (S0-41)"""

    async def main() -> None:
        clock = VirtualClock()
        mine, theirs = (
            FileLeases(tmp_path / "l", on_trouble=_unexpected, rng=random.Random(1))
            for _ in range(2)
        )
        held = theirs.acquire(KEY)
        assert held is not None
        shared = Shared()
        claims = Claims[None](None, mine, shared, patience_s=10, clock=clock)
        start_ns = clock.monotonic_ns()
        async with claims.hold(KEY, lambda: None, lambda: shared.lease(KEY, 1)):
            assert clock.monotonic_ns() - start_ns <= 10.1e9
        for leases in (mine, theirs):
            leases.close()

    run(main())


def test_what_another_process_removed_does_not_sink_back(tmp_path: Path) -> None:
    """What has to make room in memory does not go back into the file when another process may
    have removed it there. (S0-78)"""

    async def main() -> None:
        settings = Settings(cache=CacheSettings(hot_entries=1, policy="lru"))
        one, two = (_state(Home(tmp_path), settings) for _ in range(2))
        assert one.disk is not None
        assert two.disk is not None
        about = About(name="agent")
        one.cache.put(KEY, ["first"], about=about)
        assert one.disk.flush(30)
        two.cache.delete(KEY)
        assert two.disk.flush(30)
        two.removed()
        one.cache.put(b"j" * 32, ["other"], about=about)
        assert one.disk.flush(30)
        assert one.cache.get(KEY) is None
        for state in (one, two):
            state.disk.close()  # type: ignore[union-attr]
            state.generations.close()

    run(main())


@pytest.mark.parametrize("value", [dt.date(2026, 1, 2), Decimal(1), "text", ["a"]])
def test_making_room_in_memory_damages_nothing_in_the_file(tmp_path: Path, value: Any) -> None:
    """A value of a declared type that has to leave memory is found in the file as it was put, and
    one that the file could not take as that type does not get there. (S0-48)"""
    clock = VirtualClock()
    with _file(tmp_path, clock) as disk:
        memory = MemoryTier[bytes, Snapshot](
            1,
            clock=clock,
            on_evict=lambda entry: cache.demote(entry),  # noqa: PLW0108 (is made below)
        )
        cache = ResultCache(memory, disk, clock=clock)
        about = About(name="agent")
        cache.put(KEY, value, None, type(value), about)
        cache.put(b"i" * 32, 1, None, float, about)
        cache.put(b"j" * 32, "other", None, str, about)
        assert disk.flush(30)
        hit = cache.get(KEY, type(value))
        assert hit is not None
        assert (hit.value, hit.source) == (value, Source.WARM)
        assert cache.get(b"i" * 32, float) is None


def test_a_file_system_without_locks_ends_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where files cannot be locked, generations are of one process, which is told once, and writes
    invalidate without an error. (S0-78)"""

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    told: list[StorageError] = []
    generations = Generations(tmp_path / "g", on_trouble=told.append)
    before = generations.read(["r"])
    generations.bump(["r"])
    assert generations.read(["r"]) != before
    assert len(told) == 1


def test_opening_that_is_cut_short_leaves_nothing_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When opening the cold tier is cancelled, the file is closed again."""

    async def main() -> None:
        state = _state(Home(tmp_path), Settings())
        assert state.disk is not None
        shared = _Never()
        monkeypatch.setattr(state, "_shared", shared)
        with pytest.raises(asyncio.CancelledError):
            await state.__aenter__()
        assert not state.disk.usable

    run(main())


class _Never:
    """A tier that is cancelled while it opens."""

    async def __aenter__(self) -> None:
        raise asyncio.CancelledError


def _state(home: Home, settings: Settings) -> State:
    return State(
        settings,
        home,
        clock=VirtualClock(),
        redactor=Redactor(),
        rng=random.Random(1),
        notice=_notice,
    )


def _notice(what: str, error: PacelineError) -> None:
    raise AssertionError(what) from error
