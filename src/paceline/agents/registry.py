"""The agents there are, kept in memory and renewed when their files change."""

import asyncio
import difflib
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import final

import msgspec
from msgspec.structs import replace

from paceline.agents.files import AgentFiles, read, settled
from paceline.agents.load import Loader
from paceline.agents.module import check_name, read_spec
from paceline.agents.spec import AgentSpec
from paceline.clock import Clock
from paceline.errors import AgentLoadError, Category, UnknownAgentError

__all__ = ["AgentRegistry", "Changes"]

_log = logging.getLogger("paceline")


class Changes(msgspec.Struct, frozen=True):
    """Names of agents that a reload changed; false when it changed nothing.

    `broken` are modules that were tried and failed; where there was a good version it stays.
    """

    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed or self.broken)


class _Module(msgspec.Struct, frozen=True):
    """What is known of one agent's files: as last looked at, and their last good version.

    `tried` is the digest of the code that was last imported, with or without success; `sure`
    whether looking again is of no use while the files stay the same.
    """

    files: AgentFiles
    sure: bool = False
    tried: str = ""
    good: str = ""
    spec: AgentSpec | None = None
    error: AgentLoadError | None = None


class _Snapshot(msgspec.Struct, frozen=True):
    agents: Mapping[str, AgentSpec]
    broken: Mapping[str, AgentLoadError]
    warnings: tuple[str, ...] = ()


@final
class AgentRegistry:
    """Agents by name: those of the modules in `dirs`, and those that were added.

    What it knows is one immutable snapshot, replaced at once by a reload: a look-up never
    waits, never touches the file system and never sees half a reload. A module that breaks
    keeps its last good version and shows its error in `broken`. In two directories the earlier
    one counts; an added agent counts more than a module of the same name. Used from any thread.
    """

    def __init__(
        self,
        dirs: Sequence[Path],
        *,
        clock: Clock,
        import_timeout_s: float = 10.0,
        legacy_default_cacheable: bool = False,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """Reads nothing; `reload` does. A directory need not exist.

        `import_timeout_s` bounds the import of one module. `clock` must have the wall time of
        the file system; `pause` waits for files that are being written.
        """
        # Absolute, so that an agent that changes the working directory takes none away.
        self.dirs = tuple(path.absolute() for path in dirs)
        self._clock = clock
        self._loader = Loader(
            timeout_s=import_timeout_s, legacy_default_cacheable=legacy_default_cacheable
        )
        self._legacy = legacy_default_cacheable
        self._pause = pause
        self._lock = threading.Lock()
        self._swap = threading.Lock()
        self._added: dict[str, AgentSpec] = {}
        self._modules: dict[str, _Module] = {}
        self._notes: tuple[str, ...] = ()
        self._snapshot = _Snapshot({}, {})

    # -- look up --------------------------------------------------------------------------------

    def get(self, name: str) -> AgentSpec:
        """The agent of this name.

        Raises AgentLoadError when its module is broken and never was good, UnknownAgentError
        with the nearest names when there is none.
        """
        snapshot = self._snapshot
        spec = snapshot.agents.get(name)
        if spec is not None:
            return spec
        error = snapshot.broken.get(name)
        if error is not None:
            raise _kept(error)
        near = difflib.get_close_matches(name, snapshot.agents, 3)
        raise UnknownAgentError(
            f"there is no agent {name!r}",
            next_step=f"Did you mean {' or '.join(near)}?" if near else None,
        )

    def snapshot(self) -> Mapping[str, AgentSpec]:
        """All agents by name, in the order of their names; never changes."""
        return self._snapshot.agents

    @property
    def broken(self) -> Mapping[str, AgentLoadError]:
        """Errors of modules that cannot be used as they are now, by name."""
        return self._snapshot.broken

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is not as it should be with directories, names and agents, in words."""
        return self._snapshot.warnings

    def list_agents(self, force_reload: bool = False) -> list[AgentSpec]:  # noqa: FBT001, FBT002 (the name and form bots know)
        """All agents; with `force_reload` after a reload that also tries broken modules again."""
        if force_reload:
            self.reload(retry_broken=True)
        return list(self._snapshot.agents.values())

    # -- change ---------------------------------------------------------------------------------

    def add(self, spec: AgentSpec) -> None:
        """Adds an agent, in place of what was added under its name before."""
        check_name(spec.name, f"agent {spec.name}")
        with self._swap:
            self._added = {**self._added, spec.name: spec}
            self._publish()

    def add_object(self, name: str, obj: object) -> None:
        """Adds an object with the agent protocol. Raises AgentLoadError for what is wrong with it."""
        self.add(read_spec(name, obj, legacy_default_cacheable=self._legacy))

    async def reload_async(self, *, retry_broken: bool = False) -> Changes:
        """`reload` in a thread."""
        return await asyncio.to_thread(self.reload, retry_broken=retry_broken)

    def reload(self, *, retry_broken: bool = False) -> Changes:
        """Looks at the directories, and imports what is new or has changed. Blocks.

        Code that was imported before is not imported again, unless it is broken and
        `retry_broken` says to try. One reload runs at a time. Raises nothing for what is wrong
        with modules or directories.
        """
        with self._lock:
            self._loader.forget_ended()
            listing = settled(self.dirs, clock=self._clock, pause=self._pause)
            old = self._modules
            modules: dict[str, _Module] = {}
            for name, files in listing.agents.items():
                known = old.get(name) or _Module(files)
                if name in self._added:
                    modules[name] = _Module(files)
                elif name in listing.unsettled:
                    modules[name] = _unsettled(known)
                else:
                    modules[name] = self._renewed(known, files, retry_broken=retry_broken)
            # Who cannot be seen is not gone.
            for name, module in old.items():
                if module.files.root in listing.unreadable:
                    modules.setdefault(name, module)
            with self._swap:
                self._modules = modules
                self._notes = listing.notes
                self._publish()
        changes = _changes(old, modules)
        for name in changes.broken:
            _log.error("agent %s: %s", name, modules[name].error)
        return changes

    def _renewed(self, known: _Module, files: AgentFiles, *, retry_broken: bool) -> _Module:
        """The module after a look at its files."""
        if known.files.main != files.main:
            known = _Module(files, spec=known.spec)
        again = retry_broken and known.error is not None
        if known.sure and known.files == files and not again:
            return known
        try:
            source = read(files)
        except AgentLoadError as exc:
            sure = exc.category is not Category.UNAVAILABLE
            return replace(known, files=files, sure=sure, tried="", error=_kept(exc))
        known = replace(known, files=files, sure=True)
        if source.digest == known.good:
            return replace(known, tried=source.digest, error=None)
        if source.digest == known.tried and not again:
            return known
        try:
            spec = self._loader.load(source)
        except AgentLoadError as exc:
            return replace(known, tried=source.digest, error=_kept(exc))
        return _Module(files, True, source.digest, source.digest, spec)

    def _publish(self) -> None:
        """Replaces the snapshot; to be called with `_swap` held."""
        agents = {n: m.spec for n, m in self._modules.items() if m.spec is not None}
        broken = {n: m.error for n, m in self._modules.items() if m.error is not None}
        taken = {n: _taken(m.files) for n, m in self._modules.items() if n in self._added}
        agents.update(self._added)
        broken.update(taken)
        warnings = [
            *self._notes,
            *(str(error) for error in taken.values()),
            *(f"{name}: {text}" for name in agents for text in agents[name].warnings),
        ]
        new = [text for text in warnings if text not in self._snapshot.warnings]
        self._snapshot = _Snapshot(
            MappingProxyType(dict(sorted(agents.items()))),
            MappingProxyType(dict(sorted(broken.items()))),
            tuple(sorted(warnings)),
        )
        for text in new:
            _log.warning("%s", text)


def _kept(error: AgentLoadError) -> AgentLoadError:
    """Without the frames it was raised through, which would keep all that they held alive."""
    kept = AgentLoadError(error.message, next_step=error.next_step, category=error.category)
    cause = error.__cause__
    kept.__cause__ = None if cause is None else cause.with_traceback(None)
    return kept


def _taken(files: AgentFiles) -> AgentLoadError:
    return AgentLoadError(
        f"{files.main} is not used: {files.name} is the name of a built-in or added agent",
        next_step=f"Rename {files.base if files.is_package else files.main}.",
    )


def _unsettled(known: _Module) -> _Module:
    error = AgentLoadError(
        f"{known.files.main} is still being written",
        next_step="It is read with the next reload after that.",
        category=Category.UNAVAILABLE,
    )
    return replace(known, sure=False, tried="", error=error)


def _changes(old: Mapping[str, _Module], new: Mapping[str, _Module]) -> Changes:
    before = {name: module.spec for name, module in old.items() if module.spec is not None}
    after = {name: module.spec for name, module in new.items() if module.spec is not None}
    return Changes(
        added=tuple(sorted(after.keys() - before.keys())),
        changed=tuple(sorted(n for n in after.keys() & before.keys() if after[n] is not before[n])),
        removed=tuple(sorted(before.keys() - after.keys())),
        broken=tuple(
            sorted(
                name
                for name, module in new.items()
                if module.error is not None
                and (name not in old or old[name].error is not module.error)
            )
        ),
    )
