"""Computing results anew in the background: by one of all processes, and not over and over."""

import asyncio
import contextlib
import itertools
import random
import threading
from collections.abc import Awaitable, Callable, Generator
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
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.snapshot import Snapshot
from paceline.cache.tiered import Freshness, ResultCache
from paceline.call import Call, Caller, Effect, Kind, Outcome, Plan, Scope, Source
from paceline.errors import AgentError, Category, StorageError
from paceline.path import Attempts, CallPath, Execution, Identity, Job
from paceline.path.pauses import Pauses
from paceline.testing.virtual_time import VirtualClock, run

KEY = b"k" * 32
STALE = Plan(Effect.read("r"), ttl_s=60, stale_s=600)
EARLY = Freshness(early=1_000)  # due from the beginning, but for one time in a hundred
Check = Callable[[Path], None]


def _unexpected(exc: StorageError) -> None:
    raise exc


class Server:
    """What machines share: values, leases, and how long it takes to answer."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.connected = True
        self.takes_s: dict[str, list[float]] = {"get": [], "lease": []}
        self.rows: dict[bytes, tuple[bytes, int, About]] = {}
        self.holders: dict[bytes, object] = {}

    async def get(self, key: bytes) -> Found | None:
        row = self.rows.get(key)
        await self._answer("get")
        return None if row is None else Found(row[0], row[1] - self.clock.monotonic_ns(), row[2])

    async def put(self, key: bytes, payload: bytes, ttl_ns: int, about: About = PLAIN) -> None:
        self.rows[key] = payload, self.clock.monotonic_ns() + ttl_ns, about

    async def delete(self, key: bytes) -> None:
        self.rows.pop(key, None)

    async def clear(self) -> None:
        self.rows.clear()

    async def lease(self, key: bytes, ttl_s: float) -> "ServerLease | None":
        await self._answer("lease")
        if key in self.holders or not self.connected:
            return None
        lease = self.holders[key] = ServerLease(self, key)
        return lease

    async def wait(self, key: bytes, timeout_s: float) -> Found | None:
        async with asyncio.timeout(timeout_s):
            while key in self.holders:  # noqa: ASYNC110 (as slow as a server)
                await asyncio.sleep(0.05)
        return await self.get(key)

    async def _answer(self, what: str) -> None:
        times_s = self.takes_s[what]
        await asyncio.sleep(times_s.pop(0) if times_s else 0)


class ServerLease:
    def __init__(self, server: Server, key: bytes) -> None:
        self.server = server
        self.key = key

    async def release(self) -> None:
        if self.server.holders.get(self.key) is self:
            del self.server.holders[self.key]


class Backend:
    """What all processes ask: counts, takes its time, and fails when it is told to."""

    def __init__(self) -> None:
        self.runs = 0
        self.takes_s = 0.0
        self.fails = False
        self.generations = Generations(None, on_trouble=_unexpected)

    async def __call__(self, _: Call) -> object:
        self.runs += 1
        number = self.runs
        await asyncio.sleep(self.takes_s)
        if self.fails:
            raise AgentError("away", category=Category.NETWORK)
        return [number]


class Process:
    """One process: its own memory and call path, and what it shares with the others."""

    def __init__(
        self,
        clock: VirtualClock,
        backend: Backend,
        freshness: Freshness | None = None,
        *,
        disk: DiskTier | None = None,
        leases: FileLeases | None = None,
        server: Server | None = None,
    ) -> None:
        memory = MemoryTier[bytes, Snapshot](100, clock=clock, rng=random.Random(1))
        self.memory, self.disk, self.backend = memory, disk, backend
        self.cache = ResultCache(memory, disk, server, leases, clock=clock, freshness=freshness)
        self.identity = Identity(backend.generations, clock=clock)
        self.seen: list[Outcome] = []
        self.path = CallPath(
            clock=clock,
            cache=self.cache,
            identity=self.identity,
            attempts=Attempts(
                clock=clock,
                gate=Gate("the test", 8, 8),
                retry=RetryPolicy(1),
                rng=random.Random(1),
                identity=self.identity,
            ),
            observers=[lambda _, outcome: self.seen.append(outcome)],
            began=lambda _: None,
            instance="test",
        )

    def call(self, plan: Plan) -> Call:
        return Call(
            id=f"c{len(self.seen)}",
            kind=Kind.AGENT,
            name="agent",
            arguments={"query": "q"},
            caller=Caller("ada"),
            scope=Scope.of(Caller("ada"), plan.scope),
            plan=plan,
        )

    async def ask(self, plan: Plan = STALE) -> Outcome:
        return await self.path.run(self.call(plan), Job(self.backend))

    def key(self, plan: Plan = STALE) -> bytes:
        identified = self.identity.of(self.call(plan), "")
        assert identified is not None
        return identified.key

    def written(self) -> None:
        """Waits until all is in the file and the leases that waited for that are free."""
        if self.disk is not None:
            free = threading.Event()
            self.disk.after_written(free.set)
            assert self.disk.flush(30)
            assert free.wait(30)


@contextlib.contextmanager
def neighbours(
    path: Path, clock: VirtualClock, backend: Backend, count: int, freshness: Freshness | None
) -> Generator[list[Process]]:
    """Processes with one file, and its leases."""
    with contextlib.ExitStack() as stack:
        made: list[Process] = []
        for _ in range(count):
            disk = DiskTier(path / "c.db", clock=clock, max_bytes=4_000_000, on_trouble=_unexpected)
            stack.callback(disk.close)
            leases = FileLeases(path / "l", on_trouble=_unexpected, rng=random.Random(1))
            stack.callback(leases.close)
            made.append(Process(clock, backend, freshness, disk=disk, leases=leases))
        yield made


@contextlib.contextmanager
def machines(
    _: Path, clock: VirtualClock, backend: Backend, count: int, freshness: Freshness | None
) -> Generator[list[Process]]:
    """Processes that have nothing in common but a server."""
    server = Server(clock)
    yield [Process(clock, backend, freshness, server=server) for _ in range(count)]


# -- one of all ----------------------------------------------------------------------------------


def _one_refreshes(path: Path, group: Any, freshness: Freshness | None = None) -> None:
    """Four processes with one result, which is to be computed anew, are asked for it for 5 s."""

    async def main() -> None:
        clock, backend = VirtualClock(), Backend()
        backend.takes_s = 1
        with group(path, clock, backend, 4, freshness) as processes:
            for process in processes:
                assert (await process.ask()).value == [1]
                await asyncio.sleep(0)
                process.written()
            clock.advance(30 if freshness else 70)
            backend.takes_s = 5
            for _ in range(10):
                for process in processes:
                    outcome = await process.ask()
                    assert (outcome.value, outcome.total_ns) == ([1], 0)
                await asyncio.sleep(0.4)
            assert backend.runs == 2
            await asyncio.sleep(2)
            for process in processes:
                process.written()
            backend.takes_s = 1_000
            for process in processes:
                await process.ask()  # which may find it for those to come
            await asyncio.sleep(1.1)
            assert [(await process.ask()).value for process in processes] == [[2]] * 4
            assert sum(process.cache.totals.refreshes for process in processes) == backend.runs - 1
            for process in processes:
                await process.path.close()

    run(main())


@pytest.mark.parametrize("group", [neighbours, machines])
def test_of_processes_with_a_stale_result_one_computes_it_anew(tmp_path: Path, group: Any) -> None:
    """While one process or machine computes a stale result anew, the others serve the old one
    and compute nothing; then they find the new one. (S0-41, S1-51)"""
    _one_refreshes(tmp_path, group)


def test_of_processes_with_a_result_that_is_due_one_computes_it(tmp_path: Path) -> None:
    """Of processes whose result is due before its end one computes it, and the others take the
    newer one from the file though theirs is valid yet. (S0-41)"""
    _one_refreshes(tmp_path, neighbours, EARLY)


@pytest.mark.parametrize("group", [neighbours, machines])
def test_refreshing_without_a_lease_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: Any
) -> None:
    """The test above fails where whose turn it is does not matter."""

    async def always(*_: object) -> bool:
        return True

    monkeypatch.setattr(Claims, "_is_free", always)
    with pytest.raises(AssertionError):
        _one_refreshes(tmp_path, group)


@pytest.mark.parametrize("group", [neighbours, machines])
def test_a_newer_result_below_is_taken(tmp_path: Path, group: Any) -> None:
    """A result that is due is not computed when the file or the shared tier has a newer one,
    which is served from then on; nothing of that is seen as a call or counted. (S0-41)"""
    _a_newer_one_is_taken(tmp_path, group)


def _a_newer_one_is_taken(path: Path, group: Any) -> None:
    async def main() -> None:
        clock, backend = VirtualClock(), Backend()
        backend.takes_s = 1
        with group(path, clock, backend, 2, EARLY) as (one, two):
            await one.ask()
            one.written()
            assert (await two.ask()).value == [1]
            await asyncio.sleep(20)
            await one.ask()
            await asyncio.sleep(2)
            one.written()
            assert backend.runs == 2
            await two.ask()
            await asyncio.sleep(0.1)
            outcome = await two.ask()
            assert (outcome.value, outcome.source, backend.runs) == ([2], Source.HOT, 2)
            assert len(two.seen) == 3
            totals = two.cache.totals
            assert (totals.requests, totals.hot_hits, totals.misses) == (3, 2, 0)
            assert totals.refreshes == 0

    run(main())


@pytest.mark.parametrize("group", [neighbours, machines])
def test_not_looking_below_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: Any
) -> None:
    """The test above fails where what is below is not looked at, or only at whether it is fresh."""

    async def no_fetch(*_: object) -> None:
        """Finds nothing."""

    monkeypatch.setattr(ResultCache, "_look_below", lambda *_: None)
    monkeypatch.setattr(ResultCache, "_fetch", no_fetch)
    with pytest.raises(AssertionError):
        _a_newer_one_is_taken(tmp_path, group)


@pytest.mark.parametrize("group", [neighbours, machines])
def test_ones_own_result_is_not_newer(tmp_path: Path, group: Any) -> None:
    """What memory has too does not keep a result that is due from being computed. (S0-41)"""
    _computes_what_is_due(tmp_path, group)


def _computes_what_is_due(path: Path, group: Any) -> None:
    async def main() -> None:
        clock, backend = VirtualClock(), Backend()
        backend.takes_s = 1
        with group(path, clock, backend, 2, EARLY) as (one, two):
            await one.ask()
            one.written()
            await two.ask()
            clock.advance(20)
            await two.ask()
            await asyncio.sleep(2)
            assert (backend.runs, two.cache.totals.refreshes) == (2, 1)

    run(main())


@pytest.mark.parametrize("group", [neighbours, machines])
def test_taking_ones_own_result_for_newer_is_caught(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: Any
) -> None:
    """The test above fails where any fresh result below will do."""
    monkeypatch.setattr("paceline.cache.tiered._NEWER_NS", -60_000_000_000)
    with pytest.raises(AssertionError):
        _computes_what_is_due(tmp_path, group)


def test_a_result_stored_just_before_the_lease_got_free_is_found(tmp_path: Path) -> None:
    """Who gets the lease right after another has computed does not compute again. (S0-41)"""

    async def main() -> None:
        leases = FileLeases(tmp_path / "l", on_trouble=_unexpected, rng=random.Random(1))
        claims = Claims[str](None, leases, None, patience_s=1, clock=VirtualClock())
        looks = iter([None, "value"])

        async def fetch() -> None:
            """Finds nothing."""

        async with claims.take(KEY, lambda: next(looks), fetch) as ours:
            assert not ours
        assert leases.acquire(KEY) is not None
        leases.close()

    run(main())


def test_a_server_that_is_away_keeps_nobody_from_refreshing() -> None:
    """Without a connection to the shared tier each machine computes its results anew. (X-10)"""

    async def main() -> None:
        clock, backend = VirtualClock(), Backend()
        server = Server(clock)
        process = Process(clock, backend, server=server)
        await process.ask()
        clock.advance(70)
        server.connected = False
        assert (await process.ask()).value == [1]
        await asyncio.sleep(0.1)
        assert (await process.ask()).value == [2]

    run(main())


def test_what_is_removed_meanwhile_is_not_taken() -> None:
    """A newer result that is removed while the shared tier is asked for it is not brought back,
    but computed. (S0-46)"""
    _what_is_removed_is_computed()


def test_bringing_back_what_was_removed_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails where removals while a tier is asked are not looked at."""
    monkeypatch.setattr(ResultCache, "_is_outdated", lambda *_: False)
    with pytest.raises(AssertionError):
        _what_is_removed_is_computed()


def _what_is_removed_is_computed() -> None:
    async def main() -> None:
        clock, backend = VirtualClock(), Backend()
        server = Server(clock)
        one, two = (Process(clock, backend, server=server) for _ in range(2))
        for process in (one, two):
            await process.ask()
        clock.advance(70)
        await one.ask()
        await asyncio.sleep(0.1)
        server.takes_s["get"] = [1]
        await two.ask()
        await asyncio.sleep(0.9)
        two.cache.delete(two.key())
        await asyncio.sleep(0.5)
        assert (backend.runs, (await two.ask()).value) == (3, [3])

    run(main())


# -- who joins -----------------------------------------------------------------------------------


def _who_joins_gets_a_result() -> None:
    async def main() -> None:
        clock, backend = VirtualClock(), Backend()
        server = Server(clock)
        process = Process(clock, backend, server=server)
        plan = Plan(Effect.read("r"), ttl_s=60, stale_s=30)
        await process.ask(plan)
        await asyncio.sleep(0)
        clock.advance(89.5)
        other = await server.lease(process.key(plan), 30)
        assert other is not None
        server.takes_s["lease"] = [1]
        assert (await process.ask(plan)).source is Source.STALE
        await asyncio.sleep(0.7)
        waiting = asyncio.ensure_future(process.ask(plan))
        await asyncio.sleep(5)
        await other.release()
        outcome = await waiting
        assert (outcome.value, backend.runs) == ([2], 2)
        assert len(process.seen) == 3

    run(main())


def test_who_joins_a_needless_refresh_gets_a_result() -> None:
    """A call that joined a refresh which then was left to another machine waits for that one, and
    is observed once. (S0-41)"""
    _who_joins_gets_a_result()


def test_handing_out_a_needless_refresh_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above fails where a refresh that did nothing is shared like another."""
    nothing = property(lambda _: False, lambda _, value: None)
    monkeypatch.setattr(Execution, "needless", nothing)
    with pytest.raises(AssertionError):
        _who_joins_gets_a_result()


# -- pauses --------------------------------------------------------------------------------------


def _a_failing_backend_is_spared() -> None:
    async def main() -> None:
        clock, backend = VirtualClock(), Backend()
        process = Process(clock, backend)
        plan = Plan(Effect.read("r"), ttl_s=20, stale_s=600)
        await process.ask(plan)
        clock.advance(30)
        backend.fails, backend.takes_s = True, 0.2
        began: list[float] = []
        loop = asyncio.get_running_loop()
        start_s = loop.time()
        while loop.time() < start_s + 20:
            before = backend.runs
            assert (await process.ask(plan)).value == [1]
            await asyncio.sleep(0.05)
            if backend.runs > before:
                began.append(loop.time() - start_s)
        pauses = [after - before for before, after in itertools.pairwise(began)]
        assert pauses == pytest.approx([1.2, 2.2, 4.2, 8.2], abs=0.11)
        backend.fails = False
        await asyncio.sleep(16)
        await process.ask(plan)
        await asyncio.sleep(1)
        assert (await process.ask(plan)).source is Source.HOT
        clock.advance(30)
        backend.fails, before = True, backend.runs
        for _ in range(30):
            await process.ask(plan)
            await asyncio.sleep(0.1)
        assert backend.runs == before + 2  # at once, and after a second

    run(main())


def test_a_failing_backend_is_asked_less_and_less() -> None:
    """After a refresh that failed none begins for a second, then for twice as long each time,
    however often the stale result is asked for; after a success it begins anew. (S0-41)"""
    _a_failing_backend_is_spared()


def _never_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pauses, "over", lambda *_: True)


def _never_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pauses, "lengthen", Pauses.begin)


def _never_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Pauses, "end", lambda *_: None)


@pytest.mark.parametrize("bug", [_never_over, _never_longer, _never_ended])
def test_refreshing_over_and_over_is_caught(
    monkeypatch: pytest.MonkeyPatch, bug: Callable[[pytest.MonkeyPatch], None]
) -> None:
    """The test above fails without pauses, with short ones, and with such as never end."""
    bug(monkeypatch)
    with pytest.raises(AssertionError):
        _a_failing_backend_is_spared()


def test_pauses_grow_to_a_minute_and_are_forgotten() -> None:
    """Pauses double from 1 to 60 s; a minute after the last of them the next is short again, and
    one for another process that is at it is short and lengthens none."""
    clock = VirtualClock()
    pauses = Pauses(clock)

    def length_s() -> float:
        start_ns = clock.monotonic_ns()
        while not pauses.over(KEY):
            clock.advance(0.5)
        return (clock.monotonic_ns() - start_ns) / 1e9

    assert pauses.over(KEY)
    lengths: list[float] = []
    for _ in range(8):
        pauses.lengthen(KEY)
        pauses.begin(KEY)
        assert length_s() == 1
        pauses.lengthen(KEY)
        lengths.append(length_s())
    assert lengths == [2, 8, 32, 60, 60, 60, 60, 60]
    clock.advance(59)
    pauses.lengthen(KEY)
    assert length_s() == 60
    clock.advance(60)
    pauses.lengthen(KEY)
    assert length_s() == 1
    pauses.lengthen(KEY)
    pauses.end(KEY)
    assert pauses.over(KEY)


def test_pauses_take_bounded_memory() -> None:
    """Of more keys than 1,024 the one that was paused longest ago is forgotten."""
    pauses = Pauses(VirtualClock())
    keys = [number.to_bytes(2, "big") for number in range(1_025)]
    for key in keys[:1_024]:
        pauses.lengthen(key)
    pauses.lengthen(keys[0])
    pauses.lengthen(keys[1_024])
    assert [key for key in keys if pauses.over(key)] == [keys[1]]
    assert len(pauses._pauses) == 1_024


# -- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "takes_s", "leases_held"),
    [("get", [1_000], 0), ("lease", [1_000], 1), ("get", [0, 1_000], 2), ("agent", [], 2)],
)
def test_a_refresh_that_is_cut_short_leaves_nothing(
    tmp_path: Path, where: str, takes_s: list[float], leases_held: int
) -> None:
    """Closing while a refresh asks for the lease, looks for another's result or computes ends it,
    and no lease stays behind here or at the server. (S0-41)"""

    async def main() -> None:
        clock, backend = VirtualClock(), Backend()
        server = Server(clock)
        mine, theirs = (
            FileLeases(tmp_path / "l", on_trouble=_unexpected, rng=random.Random(1))
            for _ in range(2)
        )
        process = Process(clock, backend, leases=mine, server=server)
        await process.ask()
        clock.advance(70)
        if where == "agent":
            backend.takes_s = 1_000
        else:
            server.takes_s[where] = list(takes_s)
        await process.ask()
        await asyncio.sleep(1)
        at_server = len(server.holders)
        free = theirs.acquire(process.key())
        assert (free is None) + at_server == leases_held
        if free is not None:
            free.release()
        await process.path.close()
        await process.cache.settle()
        await asyncio.sleep(0)
        assert theirs.acquire(process.key()) is not None
        assert not server.holders
        assert len(asyncio.all_tasks()) == 1
        for leases in (mine, theirs):
            leases.close()

    run(main())


@pytest.mark.parametrize("where", ["look", "fetch", "lease", "block"])
def test_a_step_that_raises_leaves_no_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Whatever a step of taking the right to compute raises, all leases are given back."""

    def fail(step: str) -> None:
        if step == where:
            raise RuntimeError

    async def fetch() -> None:
        fail("fetch")

    async def main() -> None:
        clock = VirtualClock()
        server = Server(clock)
        leases = FileLeases(tmp_path / "l", on_trouble=_unexpected, rng=random.Random(1))
        claims = Claims[None](None, leases, server, patience_s=1, clock=clock)
        lease: Callable[[bytes, float], Awaitable[ServerLease | None]] = server.lease

        async def checked(key: bytes, ttl_s: float) -> ServerLease | None:
            fail("lease")
            return await lease(key, ttl_s)

        monkeypatch.setattr(server, "lease", checked)

        async def take() -> None:
            async with claims.take(KEY, lambda: fail("look"), fetch) as ours:
                assert ours
                fail("block")

        with pytest.raises(RuntimeError):
            await take()
        await asyncio.sleep(0)
        assert leases.acquire(KEY) is not None
        assert not server.holders
        leases.close()

    run(main())


def test_a_lease_that_comes_free_finds_what_its_last_holder_computed() -> None:
    """Who gets the lease of all machines just after another ended takes that one's result instead
    of computing it again. (S0-41, S1-51)"""

    async def claim() -> object:
        clock = VirtualClock()
        server = Server(clock)
        claims = Claims[Found](None, None, server, patience_s=5, clock=clock)
        await server.put(KEY, b"of another", 10**9)  # after the caller had looked
        async with claims.hold(KEY, lambda: None, lambda: server.get(KEY)) as kept:
            return kept

    kept = run(claim())
    assert isinstance(kept, Found)
    assert kept.value == b"of another"
