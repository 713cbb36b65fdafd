"""What a result in the call path is kept under: files, sandboxes, agents; and what it says itself."""

import asyncio
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from paceline.balance.gate import Gate
from paceline.balance.retry import RetryPolicy
from paceline.cache.disk.tier import DiskTier
from paceline.cache.entry import About
from paceline.cache.generations import Generations
from paceline.cache.hints import mcp_hints
from paceline.cache.memory.tier import MemoryTier
from paceline.cache.snapshot import Snapshot
from paceline.cache.tiered import ResultCache, scope_text
from paceline.cache.write_history import WriteHistory
from paceline.call import Call, Caller, Effect, Kind, Outcome, Plan, Scope, ScopeLevel, Source
from paceline.errors import StorageError
from paceline.path import Attempts, CallPath, Identity, Job, agent_tag
from paceline.testing.virtual_time import VirtualClock, run


def _unexpected(exc: StorageError) -> None:
    raise exc


class World:
    """A call path over a little state that tools read and write, one copy for each session."""

    def __init__(self, disk: DiskTier | None = None) -> None:
        self.clock = VirtualClock()
        self.cache = ResultCache(
            MemoryTier[bytes, Snapshot](100, clock=self.clock), disk, clock=self.clock
        )
        self.generations = Generations(None, on_trouble=_unexpected)
        self.identity = Identity(self.generations, clock=self.clock)
        attempts = Attempts(
            clock=self.clock,
            gate=Gate("the test", 8, 8),
            retry=RetryPolicy(1),
            rng=random.Random(1),
            identity=self.identity,
        )
        self.path = CallPath(
            clock=self.clock,
            cache=self.cache,
            identity=self.identity,
            attempts=attempts,
            observers=[],
            began=lambda _: None,
            instance="test",
        )
        self.state: dict[str, dict[str, str]] = {}
        self.calls = 0

    async def ask(
        self,
        name: str,
        query: str,
        plan: Plan,
        work: Callable[[Call], Any],
        caller: Caller | None = None,
        *,
        hints: Any = None,
    ) -> Outcome:
        self.calls += 1
        caller = caller or Caller("ada")

        async def execute(call: Call) -> object:
            value = work(call)
            return await value if asyncio.iscoroutine(value) else value

        call = Call(
            id=f"c{self.calls}",
            kind=Kind.TOOL,
            name=name,
            arguments={"query": query},
            caller=caller,
            scope=Scope.of(caller, plan.scope),
            plan=plan,
        )
        return await self.path.run(call, Job(execute, hints=hints))

    def begin(self, session: str) -> None:
        self.state[session] = {"a": "0", "b": "0"}
        self.identity.begin("start", session)

    async def read(self, session: str, name: str) -> Outcome:
        plan = Plan(Effect.read(name), ttl_s=60, scope=ScopeLevel.SESSION, world="start")
        caller = Caller(session=session)
        return await self.ask("read", name, plan, lambda _: self.state[session][name], caller)

    async def write(self, session: str, name: str, value: str) -> Outcome:
        plan = Plan(Effect.write(name), ttl_s=0, world="start")
        return await self.ask(
            "write",
            f"{name}={value}",
            plan,
            lambda _: self.state[session].__setitem__(name, value),
            Caller(session=session),
        )


async def _replays_share_and_never_mix(world: World) -> int:
    """The hits of two replays that part; every read is checked against the session's own state."""
    hits = 0
    for session in ("one", "two", "three"):
        world.begin(session)
        steps = [("r", "a"), ("w", "a", "1"), ("r", "a"), ("r", "b")]
        steps += [("w", "b", "2" if session == "three" else "1"), ("r", "b"), ("r", "a")]
        for kind, name, *value in steps:
            if kind == "w":
                await world.write(session, name, *value)
                continue
            outcome = await world.read(session, name)
            assert outcome.value == world.state[session][name]
            hits += outcome.source is Source.HOT
    return hits


def test_replays_of_one_start_share_results() -> None:
    """Sessions of one world that made the same writes share results; one that wrote something
    else gets none of what came of that. (S0-78, S1-53)"""

    async def main() -> None:
        assert await _replays_share_and_never_mix(World()) >= 7

    run(main())


def test_a_path_that_forgets_writes_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check above fails for a history that does not note writes."""

    def nothing(*_: object, **__: object) -> None: ...

    monkeypatch.setattr(WriteHistory, "start", nothing)

    async def main() -> None:
        with pytest.raises(AssertionError):
            await _replays_share_and_never_mix(World())

    run(main())


def test_a_read_across_a_write_is_not_kept() -> None:
    """What was read while the same session wrote is returned to its caller and not stored. (S1-53)"""

    async def main() -> None:
        world = World()
        world.begin("one")
        started, go = asyncio.Event(), asyncio.Event()

        async def slow(_: Call) -> str:
            value = world.state["one"]["a"]
            started.set()
            await go.wait()
            return value

        plan = Plan(Effect.read("a"), ttl_s=60, scope=ScopeLevel.SESSION, world="start")
        reading = asyncio.create_task(world.ask("read", "a", plan, slow, Caller(session="one")))
        await started.wait()
        await world.write("one", "a", "1")
        go.set()
        assert (await reading).value == "0"
        assert (await world.read("one", "a")).value == "1"

    run(main())


def test_a_file_changed_by_anybody_is_not_served_stale(tmp_path: Path) -> None:
    """A result that depends on a file is computed anew when the file changed, whoever changed it,
    even to the same size. (S0-78, T24)"""
    file = tmp_path / "notes"

    async def main() -> None:
        world = World()
        plan = Plan(Effect.read(), ttl_s=60, files=(str(file),))

        async def read() -> Outcome:
            return await world.ask("cat", str(file), plan, lambda _: file.read_text())

        for text in ("one", "two", "six"):
            file.write_text(text)
            assert (await read()).value == text
            world.clock.advance(3)  # the file has settled: its stat vouches for it
        world.clock.advance(3)
        await read()
        assert (await read()).source is Source.HOT
        file.unlink()
        assert not (await read()).ok

    run(main())


def test_a_hit_waits_for_nothing() -> None:
    """A hot hit ends without giving up the event loop once: no thread, no lock, no reading.
    (S1-03, S0-52)"""

    async def main() -> None:
        world = World()
        plan = Plan(Effect.pure(), ttl_s=60)
        await world.ask("a", "q", plan, lambda _: "v")
        asking = world.ask("a", "q", plan, lambda _: "v")
        with pytest.raises(StopIteration) as ended:
            asking.send(None)
        assert ended.value.value.source is Source.HOT

    run(main())


def test_clearing_one_agent_clears_no_other() -> None:
    """Writing the tag of an agent makes all of its results stale and nobody else's. (T17, S1-53)"""

    async def main() -> None:
        world = World()
        plan = Plan(Effect.pure(), ttl_s=60)
        for name in ("one", "two"):
            await world.ask(name, "q", plan, lambda _: "v")
        world.identity.forget(agent_tag("one"))
        sources = [
            (await world.ask(name, "q", plan, lambda _: "v")).source for name in ("one", "two")
        ]
        assert sources == [Source.EXECUTED, Source.HOT]

    run(main())


@pytest.mark.parametrize(
    ("result", "level", "later", "kept"),
    [
        ({"ttlMs": 10_000}, ScopeLevel.USER, 9, True),
        ({"ttlMs": 10_000}, ScopeLevel.USER, 10, False),
        ({"ttlMs": 0}, ScopeLevel.USER, 0, False),
        ({"ttlMs": 900_000}, ScopeLevel.USER, 60, False),
        ({"cacheScope": "private"}, ScopeLevel.GLOBAL, 0, False),
        ({"cacheScope": "private"}, ScopeLevel.USER, 0, True),
        ({"cacheScope": "public"}, ScopeLevel.GLOBAL, 0, True),
        ({"isError": True}, ScopeLevel.USER, 0, False),
        ({"resultType": "input_required"}, ScopeLevel.USER, 0, False),
    ],
)
def test_what_a_result_says_of_its_caching_holds(
    result: Mapping[str, object], level: ScopeLevel, later: float, kept: bool
) -> None:
    """`ttlMs` and `cacheScope` of a result shorten, narrow or forbid; they never lengthen or
    widen what was declared. (T15, X-04)"""

    async def main() -> None:
        world = World()
        plan = Plan(Effect.read(), ttl_s=60, scope=level)

        async def ask() -> Outcome:
            return await world.ask("tool", "q", plan, lambda _: dict(result), hints=mcp_hints)

        await ask()
        world.clock.advance(later)
        assert (await ask()).source is (Source.HOT if kept else Source.EXECUTED)

    run(main())


def test_a_private_result_is_not_handed_to_who_joined() -> None:
    """A result that turns out to be private goes to its own caller; others who waited for it under
    a shared key have their own computed. (X-04, D75)"""

    async def main() -> None:
        world = World()
        plan = Plan(Effect.read(), ttl_s=60, scope=ScopeLevel.GLOBAL)
        count = 0

        async def work(_: Call) -> object:
            nonlocal count
            count += 1
            mine = count
            await asyncio.sleep(1)
            return {"cacheScope": "private", "mine": mine}

        outcomes = await asyncio.gather(
            *[
                world.ask("tool", "q", plan, work, Caller(user), hints=mcp_hints)
                for user in ("ada", "grace", "alan")
            ]
        )
        assert len({outcome.value["mine"] for outcome in outcomes}) == 3  # type: ignore[index]

    run(main())


def test_a_value_stored_for_another_scope_is_a_miss(tmp_path: Path) -> None:
    """A stored value that says it belongs to another scope than its key's is not used, and is
    counted. (D73)"""
    clock = VirtualClock()
    disk = DiskTier(tmp_path / "c.db", clock=clock, max_bytes=4_000_000, on_trouble=_unexpected)
    cache = ResultCache(MemoryTier[bytes, Snapshot](0, clock=clock), disk, clock=clock)
    key, ada = b"k" * 32, Scope(ScopeLevel.USER, user="ada")
    cache.put(key, "hers", about=About(scope=scope_text(ada)))
    assert disk.flush(30)
    assert cache.get(key, None, Scope(ScopeLevel.USER, user="grace")) is None
    assert cache.foreign == 1
    hit = cache.get(key, None, ada)
    assert hit is not None
    assert hit.value == "hers"
    disk.close()


def test_secrets_of_an_input_are_not_kept_with_its_result() -> None:
    """What a result shows of its input has been through the redactor. (D78)"""
    clock = VirtualClock()
    cache = ResultCache(
        MemoryTier[bytes, Snapshot](10, clock=clock),
        None,
        clock=clock,
        redact=lambda text: text.replace("hunter2", "***"),
    )
    about = cache.about(About(summary="log in with hunter2" + "x" * 500))
    assert about.summary.startswith("log in with ***x")
    assert len(about.summary) == 120
