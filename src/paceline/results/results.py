"""`runtime.results`: what is cached, to look at, take away and make ahead."""

import asyncio
from collections.abc import Callable, Collection, Iterable
from typing import Final, final

from paceline.cache.entry import About
from paceline.call import Call, Caller
from paceline.clock import Clock
from paceline.errors import InvalidInputError, PacelineError, UnknownAgentError, UsageError
from paceline.history.store import HistoryStore
from paceline.path import Identity, Job, agent_tag
from paceline.results.ahead import Ahead, WarmCall, Warmer, WarmReport, worth_most
from paceline.results.shelves import (
    OpenedResult,
    Order,
    ResultStats,
    Shelves,
    StoredResult,
    TierStats,
    the_result,
)
from paceline.state import State

__all__ = ["WEEK_S", "Results"]

_NS: Final = 1_000_000_000
WEEK_S: Final = 7 * 86_400.0
_MOST_RECORDS: Final = 20_000
_FLUSH_S: Final = 10.0


@final
class Results:
    """The results that a runtime keeps in memory and in its file.

    Coroutines do what may wait for the file, in a thread; use them on the runtime's event loop.
    """

    def __init__(
        self,
        state: State,
        identity: Identity,
        *,
        clock: Clock,
        names: Callable[[], Collection[str]] = tuple,
        ahead: Ahead | None = None,
    ) -> None:
        """`names` are those of the agents there are; without `ahead` nothing can be made."""
        self._state = state
        self._identity = identity
        self._clock = clock
        self._names = names
        self._ahead = ahead

    # -- looking --------------------------------------------------------------------------------

    async def stats(self, window_s: float | None = None) -> ResultStats:
        """What the cache has done since it was opened, or in about the last `window_s` seconds
        (an hour at most), and what it holds. Raises StorageError if the file cannot be read."""
        totals = self._state.cache.totals
        if window_s is not None:
            totals = self._state.windows.last(window_s, self._clock.monotonic_ns(), totals)
        memory = self._state.memory
        return ResultStats(
            window_s=window_s,
            totals=totals.copy(),
            hot=TierStats(len(memory), memory.bytes, dict(memory.removed)),
            warm=await asyncio.to_thread(self._warm_stats),
        )

    async def entries(
        self, limit: int = 100, order: Order = "stored", *, agent: str | None = None
    ) -> list[StoredResult]:
        """What is kept in memory and in the file, each once: the last "stored", next to "expiry",
        first by "size" or "cost". Raises StorageError if the file cannot be read.

        What was invalidated is in it until its room is needed or its time is over.
        """
        return await asyncio.to_thread(self._shelves().entries, limit, order, name=agent)

    async def get(self, key: str) -> OpenedResult:
        """The result whose key begins so (hexadecimal digits), and its value.

        Raises UsageError if there is none or more than one, StorageError if it cannot be read.
        """
        return await asyncio.to_thread(_opened, self._shelves(), key)

    # -- taking away ----------------------------------------------------------------------------

    def invalidate(self, *tags: str) -> None:
        """Makes every result stale that was read under one of these tags, whatever their number:
        nobody finds them from now on, in any process of this state directory and on any machine
        that shares results with it."""
        self._identity.forget(*tags)

    async def free(self, *tags: str) -> int:
        """Removes what has one of these tags and gives its room back; how many there were. After
        `invalidate`, which needs it not, for nobody finds them."""
        names = {tag.removeprefix("agent:") for tag in tags if tag.startswith("agent:")}
        wanted = frozenset(tags)
        return await self._remove(
            lambda about: about.name in names or not wanted.isdisjoint(about.tags)
        )

    async def clear(self, agent: str | None = None) -> int:
        """Makes all results stale, or all of one agent, as `invalidate` does, and removes those that
        are here; how many there were."""
        if agent is not None:
            self._identity.forget(agent_tag(agent))
            return await self._remove(lambda about: about.name == agent, name=agent)
        self._identity.forget_all()
        warm = await asyncio.to_thread(self._warm_stats)
        count = max(len(self._state.memory), warm.entries if warm is not None else 0)
        self._state.cache.clear()
        await asyncio.to_thread(self._flush)
        return count

    async def remove(self, *, prefix: str | None = None, key: str | None = None) -> int:
        """Clears all agents whose name begins with `prefix`, or removes the one result whose key
        begins with `key`; how many results there were.

        Other processes that have that one result in memory let go of it within some seconds.
        Raises UsageError as `get` does and for an empty prefix, StorageError if the file cannot be read.
        """
        if (prefix is None) == (key is None):
            raise InvalidInputError("either a prefix or a key is to be given")
        if prefix == "":
            raise UsageError(
                "every name begins with an empty prefix",
                next_step="Give its letters; to remove all results, use `clear`.",
            )
        if prefix is not None:
            names = await asyncio.to_thread(self._shelves().names, prefix)
            names.update(name for name in self._names() if name.startswith(prefix))
            self._identity.forget(*map(agent_tag, names))
            return await self._remove(lambda about: about.name in names)
        prefix = key or ""
        found = the_result(prefix, await asyncio.to_thread(self._shelves().find, prefix))
        self._state.cache.delete(bytes.fromhex(found.key))
        await asyncio.to_thread(self._flush)
        self._state.removed()  # after the file says so: others look there next
        return 1

    def begin(self, world: str, session: str) -> None:
        """Says that this session's sandbox stands at the start state of its world now: what it
        reads from here on it shares with every session that made the same writes since."""
        self._identity.begin(world, session)

    # -- making ahead ---------------------------------------------------------------------------

    async def warm(
        self,
        calls: Iterable[WarmCall | tuple[str, str]],
        *,
        concurrency: int = 4,
        user: str | None = None,
        caller: Caller | None = None,
    ) -> WarmReport:
        """Runs calls whose results are wanted ahead, `concurrency` at once and at the lowest
        priority; each is a WarmCall or (agent, input), then made for this `caller` or `user`.

        Only what may be kept is run: what writes, or may, is refused. A call for the same that
        comes meanwhile joins. Cancelling this ends it all. Raises InvalidInputError for a
        concurrency below 1; what is wrong with single calls is in the report.
        """
        if self._ahead is None:
            raise UsageError("nothing can be made ahead without a runtime")
        for_whom = caller if caller is not None else Caller(user) if user else None
        wanted = (
            call if isinstance(call, WarmCall) else WarmCall(call[0], call[1], for_whom)
            for call in calls
        )
        totals = self._state.cache.totals
        warmer = Warmer(self._ahead, self._is_there, totals=totals, clock=self._clock)
        return await warmer.run(wanted, concurrency)

    async def warm_from_history(
        self,
        top: int = 20,
        window_s: float = WEEK_S,
        *,
        concurrency: int = 4,
    ) -> WarmReport:
        """The same for the `top` calls of the last `window_s` seconds whose results would have
        saved most time, each for whom it was made. Raises UsageError where calls are not
        recorded, StorageError if the record cannot be read.

        Looks at the latest 20,000 calls; those whose input is masked cannot be made again. They
        are chosen among those that may be run: `refused` are only those that ceased to be.
        """
        history = self._state.history
        if history is None:
            raise UsageError(
                "calls are not recorded here, so none can be made again",
                next_step="Turn history.enabled on, or give a list of calls.",
            )
        since_ns = self._clock.wall_ns() - round(window_s * _NS)
        calls = await asyncio.to_thread(_worth_most, history, since_ns)
        return await self.warm(await self._chosen(calls, top), concurrency=concurrency)

    async def _chosen(self, calls: Iterable[WarmCall], top: int) -> list[WarmCall]:
        """The first `top` of those that may be made ahead, by agents that are still there."""
        chosen: list[WarmCall] = []
        for call in calls:
            if len(chosen) >= top:
                break
            if self._may_be_made(call):
                chosen.append(call)
            await asyncio.sleep(0)  # thousands may have to be passed over
        return chosen

    def _may_be_made(self, wanted: WarmCall) -> bool:
        if self._ahead is None:
            return False
        try:
            call, job = self._ahead.prepare(wanted)
        except UnknownAgentError:
            return False
        except PacelineError:
            return True  # to be told in the report
        return call.plan.cacheable and self._identity.of(call, job.version) is not None

    def _is_there(self, call: Call, job: Job) -> bool | None:
        identified = self._identity.of(call, job.version)
        if identified is None:
            return None
        if self._state.memory.peek(identified.key) is not None:
            return True
        found = self._state.disk.get(identified.key) if self._state.disk is not None else None
        if found is None:
            return False
        return found.remaining_ns > max(found.about.stale_ns, found.about.rescue_ns)

    # -- the file -------------------------------------------------------------------------------

    async def _remove(self, meant: Callable[[About], bool], *, name: str | None = None) -> int:
        held = self._state.memory.invalidate(
            predicate=lambda entry: entry.terms is not None and meant(entry.terms.about)
        )
        disk = self._state.disk
        if disk is None:
            return held
        stored = await asyncio.to_thread(
            disk.delete_where, name=name, predicate=None if name else lambda _, about: meant(about)
        )
        return max(held, stored)

    def _shelves(self) -> Shelves:
        disk = self._state.disk
        file = disk.path if disk is not None else None
        return Shelves(self._state.memory, file, clock=self._clock, flush=self._flush)

    def _warm_stats(self) -> TierStats | None:
        disk = self._state.disk
        if disk is None:
            return None
        self._flush()
        done = disk.snapshot()
        removed = {"capacity": done.evictions, "expired": done.expirations, "damaged": done.damaged}
        return TierStats(done.entries, done.bytes, removed)

    def _flush(self) -> None:
        if self._state.disk is not None:
            self._state.disk.flush(_FLUSH_S)


def _opened(shelves: Shelves, prefix: str) -> OpenedResult:
    found = the_result(prefix, shelves.find(prefix))
    return OpenedResult(found, shelves.value(bytes.fromhex(found.key)))


def _worth_most(history: HistoryStore, since_ns: int) -> Iterable[WarmCall]:
    history.flush(_FLUSH_S)
    return worth_most(history.query(since_ns=since_ns, limit=_MOST_RECORDS))
