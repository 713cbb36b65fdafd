"""What a result is kept under, and whether it still holds when it is stored.

A key holds what is run, for whom, and the world it was run on: the generations of the tags it
reads, the fingerprints of its files, or in a sandbox the writes made before. So a change of any
of these needs no search for what it makes stale: that is never found again.
"""

import asyncio
import functools
import logging
from typing import Final, final

import msgspec

from paceline.cache.fingerprint import Fingerprints
from paceline.cache.generations import Generations
from paceline.cache.keys import CallKeys
from paceline.cache.write_history import Seal, Write, WriteHistory, write_entry
from paceline.call import Call, Effect, EffectKind, Scope, ScopeLevel
from paceline.clock import Clock
from paceline.errors import UnkeyableError

__all__ = ["ANYTHING", "Identified", "Identity", "agent_tag"]

ANYTHING: Final = "*"
"""The tag of writes that do not say what they write; every read depends on it."""

_log = logging.getLogger("paceline")
# Asking an enum for a member takes longer than comparing with it.
_WRITE: Final = EffectKind.WRITE


def agent_tag(name: str) -> str:
    """The tag that all results of an agent are kept under: to write it is to clear the agent."""
    return f"agent:{name}"


class Identified(msgspec.Struct, frozen=True, gc=False):
    """A key, who may have what is kept under it, and what it took for granted of the world."""

    key: bytes
    scope: Scope
    seal: Seal | None = None
    files: bytes = b""


@final
class Identity:
    """Makes keys of calls, and notes what calls change."""

    def __init__(self, generations: Generations, *, clock: Clock) -> None:
        self._generations = generations
        self._histories = WriteHistory()
        self._fingerprints = Fingerprints(clock=clock)
        self._keys = CallKeys()

    def of(self, call: Call, version: str) -> Identified | None:
        """What the result is kept under; None where it cannot be kept or found.

        That is for arguments with no canonical form, while a write runs in the same sandbox,
        and for files that cannot be looked at.
        """
        plan = call.plan
        try:
            tags = _read_by(call.name, plan.effect)
            if plan.world is not None or plan.files:
                return self._of_world(call, version, tags)
            key = self._keys.key(call, version, self._generations.read(tags))
            return Identified(key, call.scope)
        except UnkeyableError as exc:
            _log.info("%s is not cached: %s", call.name, exc)
        except Exception:  # noqa: BLE001 (arguments can be of classes whose attributes are code)
            _log.warning("%s is not cached: its arguments fail", call.name, exc_info=True)
        return None

    def holds(self, call: Call, identified: Identified) -> bool:
        """Whether the world is still what the key says: what was computed may be stored."""
        if identified.seal is not None and not self._histories.unbroken(identified.seal):
            return False
        files = call.plan.files
        return not files or self._fingerprints.of(files) == identified.files

    def ended(self, loop: asyncio.AbstractEventLoop, call: Call) -> None:
        """A synchronous agent has really ended, in its thread. If it wrote, that is only now over."""
        if call.plan.effect.kind is not _WRITE:
            return
        try:
            loop.call_soon_threadsafe(self.changed, call)
        except RuntimeError:  # the loop is closed: only other processes can still read
            self.changed(call)

    def changed(self, call: Call) -> None:
        """Makes stale what a write may have changed. From any thread."""
        self._bump(call)
        if (write := self._write(call)) is not None:
            self._histories.finish(write, None)

    def start(self, call: Call) -> Write | None:
        """To be told before a call runs, which may die in its course."""
        self._bump(call)
        return self._write(call) if call.plan.world is not None else None

    def finish(
        self, call: Call, version: str, write: Write | None, value: object, *, ok: bool
    ) -> None:
        """To be told when it has ended, for what was read meanwhile."""
        self._bump(call)
        if write is not None:
            entry = write_entry(call, version, value) if ok else None
            self._histories.finish(write, entry)

    def begin(self, world: str, session: str) -> None:
        """Says that this session's sandbox stands at the start state of its world now."""
        self._histories.begin(world, session)

    def forget(self, *tags: str) -> None:
        """Makes stale every result that was read under one of these tags."""
        self._generations.bump(tags)

    def forget_all(self) -> None:
        """Makes every result stale."""
        self._generations.bump_all()

    def _bump(self, call: Call) -> None:
        effect = call.plan.effect
        if effect.kind is _WRITE:
            self._generations.bump(effect.tags or (ANYTHING,))

    def _of_world(self, call: Call, version: str, tags: tuple[str, ...]) -> Identified | None:
        plan, seal, files = call.plan, None, b""
        if plan.world is not None and plan.effect.kind is EffectKind.READ:
            seal = self._histories.seal(plan.world, _session(call), plan.effect.tags)
            if seal is None:
                return None
            # In place of the generations of what is read: those differ from session to session.
            stamps = self._generations.read((agent_tag(call.name),)) + seal.stamp
        else:
            stamps = self._generations.read(tags)
        if plan.files:
            found = self._fingerprints.of(plan.files)
            if found is None:
                return None
            files = found
        if plan.world is not None and call.scope.level is ScopeLevel.SESSION:
            # The world stands for the session, else no two replays would ever meet.
            scope = msgspec.structs.replace(call.scope, session=None)
            call = msgspec.structs.replace(call, scope=scope)
        key = self._keys.key(call, version, stamps + files)
        return Identified(key, call.scope, seal, files)

    def _write(self, call: Call) -> Write | None:
        plan = call.plan
        if plan.world is None or plan.effect.repeatable:
            return None
        return self._histories.start(plan.world, _session(call), plan.effect.tags)


@functools.lru_cache(maxsize=4_096)
def _read_by(name: str, effect: Effect) -> tuple[str, ...]:
    """The tags that results of an agent with this effect depend on."""
    tags = (agent_tag(name), *effect.tags)
    return (ANYTHING, *tags) if effect.kind == EffectKind.READ else tags


def _session(call: Call) -> str:
    return call.caller.session or call.caller.user or ""
