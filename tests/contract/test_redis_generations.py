"""Stamps of all hosts: a write anywhere puts what was read before out of reach everywhere."""

import asyncio
import contextlib
import functools
import random
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from paceline.cache.generations import Generations
from paceline.cache.redis.generations import RedisGenerations
from paceline.cache.redis.tier import RedisTier
from paceline.errors import StorageError
from paceline.testing.fault_proxy import FaultProxy, Faults
from tests.redis_server import RedisServer
from tests.redis_tiers import key, open_tier, until

TAGS = ["a", "b", "c"]


def _unexpected(exc: StorageError) -> None:
    raise exc


def _stamps(path: Path | None = None) -> Generations:
    return Generations(path, on_trouble=_unexpected)


def _differs(host: Generations, tag: str, before: bytes) -> bool:
    return host.read([tag]) != before


@contextlib.asynccontextmanager
async def _hosts(url: str, count: int) -> AsyncIterator[tuple[list[Generations], list[RedisTier]]]:
    """So many hosts, each with stamps of its own, connected."""
    generations = [_stamps() for _ in range(count)]
    async with contextlib.AsyncExitStack() as stack:
        tiers = [
            await stack.enter_async_context(open_tier(url, generations=one)) for one in generations
        ]
        await until(lambda: all(tier.shares_stamps for tier in tiers))
        yield generations, tiers


async def test_hosts_read_the_same_stamps(server: RedisServer) -> None:
    """Connected hosts read equal stamps, and after a write on any of them equal new ones.
    (S0-78, S1-51)"""
    async with _hosts(server.url, 3) as (hosts, _):
        before = hosts[0].read(TAGS)
        assert {host.read(TAGS) for host in hosts} == {before}
        for host in hosts:
            before = host.read(["a"])
            rest = host.read(["b", "c"])
            host.bump(["a"])
            assert host.read(["a"]) != before
            await until(lambda: len({host.read(["a"]) for host in hosts}) == 1)
            assert hosts[0].read(["a"]) != before
            assert {h.read(["b", "c"]) for h in hosts} == {rest}


async def test_stamps_outlive_the_last_host(server: RedisServer) -> None:
    """What was stored is found again by hosts that come later, and a write made just before
    the end of its process is not lost. (S0-78)"""
    async with _hosts(server.url, 1) as (hosts, _):
        hosts[0].bump(["a"])
        first = hosts[0]
    kept = first.read(["b"])
    async with _hosts(server.url, 1) as (hosts, _):
        assert hosts[0].read(["b"]) != kept  # its own host alone forgets: it hears nothing more
        shared = hosts[0].read(TAGS)
    async with _hosts(server.url, 2) as (hosts, _):
        assert {host.read(TAGS) for host in hosts} == {shared}


@pytest.mark.parametrize("seed", range(6))
async def test_no_stamp_ever_comes_back(server: RedisServer, seed: int) -> None:
    """Hosts that write the same tags at once see new stamps only, none reads one that anybody
    had before its own last write, and all end with equal ones. (S0-78, D93)"""
    rng = random.Random(seed)
    async with (
        FaultProxy("127.0.0.1", server.port) as proxy,
        _hosts(server.url, 2) as (near, _),
        _hosts(f"redis://127.0.0.1:{proxy.port}", 1) as (far, _),
    ):
        proxy.faults = Faults(delay_s=0.001)  # it hears of everything a little later
        hosts = [*near, *far]
        seen: list[list[bytes]] = [[host.read(["a"])] for host in hosts]
        gone: list[set[bytes]] = [set() for _ in hosts]  # what each host's own writes ended

        def look() -> None:
            for host, history, ended in zip(hosts, seen, gone, strict=True):
                now = host.read(["a"])
                assert now not in ended
                if now != history[-1]:
                    assert now not in history
                    history.append(now)

        for _ in range(300):
            if rng.random() < 0.2:
                number = rng.randrange(3)
                gone[number].update(*seen)
                hosts[number].bump(["a"])
            look()
            await asyncio.sleep(0)
            look()
        await until(lambda: not any(host.written() for host in hosts))
        await until(lambda: len({host.read(TAGS) for host in hosts}) == 1)
        look()


async def test_writes_of_threads_are_told(server: RedisServer) -> None:
    """A write on any thread reaches the other hosts."""
    async with _hosts(server.url, 2) as (hosts, _):
        for number in range(20):
            before = hosts[1].read([str(number)])
            await asyncio.to_thread(hosts[0].bump, [str(number)])
            await until(functools.partial(_differs, hosts[1], str(number), before))


_PROCESS = """
import asyncio, pathlib, sys
sys.path.insert(0, sys.argv[3])
from paceline.cache.generations import Generations
from paceline.cache.redis.tier import RedisTier
from paceline.clock import SystemClock

async def main():
    generations = Generations(pathlib.Path(sys.argv[2]), on_trouble=print)
    async with RedisTier(sys.argv[1], clock=SystemClock(), budget_s=5, on_trouble=print,
                         on_invalidated=lambda key: None, generations=generations) as tier:
        assert tier.shares_stamps
        loop = asyncio.get_running_loop()
        while (line := await loop.run_in_executor(None, sys.stdin.readline)):
            if line.startswith("bump"):
                generations.bump(line.split()[1:])
            print(generations.read(["a", "b"]).hex(), flush=True)

asyncio.run(main())
"""


async def test_processes_of_two_hosts_agree(server: RedisServer, tmp_path: Path) -> None:
    """Two processes of one host, which share a file, and one of another: a write in any is seen
    by all, at once on its own host. (S0-78)"""
    source = str(Path(__file__).parents[2] / "src")
    paths = [tmp_path / "one", tmp_path / "one", tmp_path / "other"]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROCESS, server.url, str(path), source,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )
        for path in paths
    ]  # fmt: skip

    async def say(number: int, line: str) -> str:
        stdin, stdout = processes[number].stdin, processes[number].stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(line.encode() + b"\n")
        return (await stdout.readline()).decode().strip()

    async def agreed() -> str:
        while True:
            seen = {await say(number, "read") for number in range(3)}
            if len(seen) == 1:
                return seen.pop()

    try:
        last = await agreed()
        for writer in range(3):
            mine = await say(writer, "bump a")
            assert mine[:16] != last[:16]
            assert mine[16:] == last[16:]
            if writer < 2:
                assert (await say(1 - writer, "read"))[:16] != last[:16]
            last = await agreed()
            assert last[:16] != mine[:0]
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
            assert await process.wait() == 0


async def test_without_a_connection_nothing_of_before_is_found(server: RedisServer) -> None:
    """A host that hears nothing of the others any more reads other stamps at once; when it hears
    again it reads those of all, and its own writes of meanwhile are told. (D92)"""
    async with FaultProxy("127.0.0.1", server.port) as proxy, _hosts(server.url, 1) as (far, _):
        near = _stamps()
        async with open_tier(f"redis://127.0.0.1:{proxy.port}", generations=near) as tier:
            await until(lambda: tier.shares_stamps)
            shared = near.read(TAGS)
            assert shared == far[0].read(TAGS)
            proxy.faults = Faults(refuse=True)
            await proxy.reset()
            await until(lambda: not tier.shares_stamps)
            alone = near.read(TAGS)
            assert all(alone[n : n + 8] != shared[n : n + 8] for n in (0, 8, 16))
            near.bump(["a"])
            far[0].bump(["b"])
            assert near.read(["b"]) == alone[8:16]
            proxy.faults = Faults()
            await until(lambda: tier.shares_stamps and not near.written())
            await until(lambda: near.read(TAGS) == far[0].read(TAGS))
            now = near.read(TAGS)
            assert now[:8] not in {shared[:8], alone[:8]}
            assert now[8:16] not in {shared[8:16], alone[8:16]}
            assert now[16:] == shared[16:]


async def test_a_server_that_forgot_is_not_believed() -> None:
    """After a restart from nothing, or from an old copy of its data, nothing of before is found
    on any host. (D92)"""
    with RedisServer() as server:
        async with _hosts(server.url, 2) as (hosts, tiers):
            before = hosts[0].read(TAGS)
            copy = server.command("DUMP", "paceline:g")
            hosts[0].bump(["a"])
            await until(lambda: not hosts[0].written())
            server.stop()
            await until(lambda: not any(tier.shares_stamps for tier in tiers))
            server.start()
            body = copy[copy.index(b"\r\n") + 2 : -2]
            server.command("RESTORE", "paceline:g", "0", body, "REPLACE")
            await until(lambda: all(tier.shares_stamps for tier in tiers))
            await until(lambda: hosts[0].read(TAGS) == hosts[1].read(TAGS))
            after = hosts[0].read(TAGS)
            assert all(after[n : n + 8] != before[n : n + 8] for n in (0, 8, 16))


async def test_stamps_removed_while_in_use_are_made_anew(server: RedisServer) -> None:
    """Somebody removes the stamps from the server: the next write makes new ones, and all hosts
    agree again."""
    async with _hosts(server.url, 2) as (hosts, _):
        server.flush()
        before = hosts[0].read(["a"])
        hosts[0].bump(["a"])
        await until(lambda: not hosts[0].written())
        await until(lambda: hosts[0].read(TAGS) == hosts[1].read(TAGS))
        assert hosts[1].read(["a"]) != before


async def test_a_neighbour_without_a_connection_is_spoken_for(
    server: RedisServer, tmp_path: Path
) -> None:
    """What a process of this host writes that is not connected, as a short command, is told to
    the others by one that is. (S0-78)"""
    path = tmp_path / "generations"
    mine, far, neighbour = _stamps(path), _stamps(), _stamps(path)
    async with (
        open_tier(server.url, generations=mine) as one,
        open_tier(server.url, generations=far) as other,
    ):
        await until(lambda: one.shares_stamps and other.shares_stamps)
        before = far.read(["a"])
        neighbour.bump(["a"])
        assert mine.read(["a"]) != before
        await until(lambda: far.read(["a"]) != before)
        await until(lambda: far.read(["a"]) == mine.read(["a"]))
        neighbour.forget()  # as it does when it loses a connection
        await until(lambda: far.read(TAGS) == mine.read(TAGS))
    mine.close()
    neighbour.close()


async def test_a_mirror_that_believes_the_last_message_is_caught(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taking every stamp as it comes, whatever stands there, brings old stamps back, and the
    check for it sees that. (D93)"""

    def learn(self: Generations, slot: int, stamp: bytes) -> bool:
        at = 8 + slot * 8
        self._slots[at : at + 8] = stamp
        return True

    monkeypatch.setattr(Generations, "learn", learn)

    async def check() -> None:
        for seed in range(20):
            await test_no_stamp_ever_comes_back(server, seed)

    with pytest.raises(AssertionError):
        await check()


async def test_a_mirror_that_tells_nothing_is_caught(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host whose writes stay at home is noticed by the check that hosts agree. (D93)"""
    monkeypatch.setattr(RedisGenerations, "tell", lambda self: None)

    async def check() -> None:
        async with _hosts(server.url, 2) as (hosts, tiers):
            before = hosts[1].read(["a"])
            hosts[0].bump(["a"])
            await tiers[1].get(key(1))
            await tiers[1].get(key(1))
            assert hosts[1].read(["a"]) != before

    with pytest.raises(AssertionError):
        await check()
