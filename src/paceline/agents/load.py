"""Imports one agent from the bytes of its files.

A module is compiled from the bytes that were read, never from `.pyc` files or by reloading, so
that what runs is exactly what its digest stands for. It has a name of its own in `sys.modules`
for every version. Old and new versions exist side by side: calls in flight go on with the old
code, imports that it makes late included; it is forgotten after the last user of its spec.

Agents are code of their author and run in this process. A hanging import is given up after a
time; whatever else a module does while it is imported is reported, not prevented.
"""

import contextlib
import ctypes
import itertools
import sys
import threading
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from importlib.abc import ExecutionLoader, PathEntryFinder
from importlib.machinery import ModuleSpec
from importlib.util import decode_source, module_from_spec
from pathlib import PurePosixPath
from types import ModuleType
from typing import Final, final

from paceline.agents.files import Source
from paceline.agents.module import read_spec
from paceline.agents.spec import AgentSpec
from paceline.agents.surroundings import AGENT_MODULES, Surroundings
from paceline.errors import AgentLoadError, Category

__all__ = ["Loader"]

_ENDING_S: Final = 0.2
"""How long an import that was told to end is waited for, in seconds."""
_TELLINGS: Final = 4
"""How often it is told."""


@final
class Loader:
    """Imports agents, and forgets the modules of versions that ended."""

    def __init__(self, *, timeout_s: float, legacy_default_cacheable: bool = False) -> None:
        """`timeout_s` bounds the import of one agent, in seconds."""
        self._timeout_s = timeout_s
        self._legacy = legacy_default_cacheable
        self._ended: deque[_Code] = deque()

    def load(self, source: Source) -> AgentSpec:
        """The agent that these files define. Blocks for little more than the time limit.

        Raises AgentLoadError, with file and line where there is one, whatever the module does:
        syntax errors, exceptions of any kind, an import that does not end, wrong declarations.
        """
        code = _Code(source)
        spec = self._imported(source, code)
        # Only noted here: finalizers run at any moment, also while others iterate sys.modules.
        weakref.finalize(spec, self._ended.append, code).atexit = False
        return spec

    def forget_ended(self) -> None:
        """Removes the modules of versions whose spec nobody holds any more."""
        while self._ended:
            self._ended.popleft().forget()

    def _imported(self, source: Source, code: "_Code") -> AgentSpec:
        def work() -> AgentSpec:
            before = Surroundings()
            module = code.execute()
            return read_spec(
                source.files.name,
                module,
                source="module",
                legacy_default_cacheable=self._legacy,
                path=source.files.main,
                digest=source.digest,
                warnings=tuple(before.changes()),
            )

        outcome: AgentSpec | BaseException | None = None
        try:
            outcome = _Import(work, source.files.name).outcome(self._timeout_s)
        finally:
            if not isinstance(outcome, AgentSpec):
                code.forget()
        if isinstance(outcome, AgentSpec):
            return outcome
        if isinstance(outcome, AgentLoadError):
            raise outcome
        if outcome is not None:
            raise _load_error(source, outcome) from outcome
        raise AgentLoadError(
            f"{source.files.main} was not imported within {self._timeout_s:g} s",
            next_step="Move slow work (network, models, waiting) from the top of the module into"
            " `run`, or raise agents.import_timeout_s.",
            category=Category.TIMEOUT,
        )


@final
class _Code(ExecutionLoader, PathEntryFinder):
    """The modules of one version of an agent: finds and loads them from the bytes it holds."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._stem = f"{AGENT_MODULES}{source.files.name.replace('-', '_')}_{source.digest[:8]}"
        self._name = ""
        self._paths: dict[str, str] = {}  # of files, by full name of the module
        self._data: dict[str, bytes] = {}
        self._place = ""  # stands in `__path__` of packages for this finder

    def execute(self) -> ModuleType:
        """Imports the agent's main module."""
        module = self._register()
        if self._place:
            sys.path_importer_cache[self._place] = self
        self.exec_module(module)
        return module

    def forget(self) -> None:
        """Removes its modules from `sys.modules`; code that still runs them is not disturbed."""
        for name in sys.modules.copy():
            if self._name and (name == self._name or name.startswith(f"{self._name}.")):
                sys.modules.pop(name, None)
        sys.path_importer_cache.pop(self._place, None)

    def _register(self) -> ModuleType:
        """A module under a name that no other version has, of this registry or of another."""
        for number in itertools.count():
            self._index(f"{self._stem}_{number}")
            module = module_from_spec(self._spec(self._name))
            if sys.modules.setdefault(self._name, module) is module:
                return module
        raise AssertionError  # numbers do not end

    def _index(self, name: str) -> None:
        files = self._source.files
        self._name = name
        self._place = str(files.base / f"<{name}>") if files.is_package else ""
        self._paths, self._data = {}, {}
        for relative, data in self._source.texts.items():
            path = str(files.base / relative)
            parts = PurePosixPath(relative).with_suffix("").parts if files.is_package else ()
            below = parts[:-1] if parts[-1:] == ("__init__",) else parts
            self._paths[".".join((name, *below))] = path
            self._data[path] = data

    def _spec(self, fullname: str) -> ModuleSpec:
        path = self._paths[fullname]
        spec = ModuleSpec(fullname, self, origin=path)
        spec.has_location = True
        if PurePosixPath(path).name == "__init__.py":
            spec.submodule_search_locations = [self._place]
        return spec

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:  # noqa: ARG002
        """For importlib, about modules of the package."""
        return self._spec(fullname) if fullname in self._paths else None

    def get_filename(self, fullname: str) -> str:
        """For importlib."""
        return self._paths[fullname]

    def get_source(self, fullname: str) -> str:
        """For importlib, which compiles it."""
        return decode_source(self._data[self._paths[fullname]])


@final
class _ImportAbandonedError(BaseException):
    """Raised inside an import that took too long; agents' `except Exception` lets it pass."""


@final
class _Import(threading.Thread):
    """Runs an import aside, so that it can be left behind."""

    def __init__(self, work: Callable[[], AgentSpec], name: str) -> None:
        super().__init__(name=f"paceline-import-{name}", daemon=True)
        self._work = work
        self._ending = threading.Lock()
        self._ended = False
        self._outcome: AgentSpec | BaseException | None = None

    def outcome(self, timeout_s: float) -> AgentSpec | BaseException | None:
        """Runs it: the agent, or what was raised, or None when it did not end in time."""
        self.start()
        self.join(timeout_s)
        if self.is_alive():
            self._abandon()
            return None
        return self._outcome

    def run(self) -> None:
        """The import; told to end while it ends by itself, it ends all the same."""
        with contextlib.suppress(_ImportAbandonedError):
            try:
                self._outcome = self._work()
            # Modules raise whatever they like, SystemExit and KeyboardInterrupt included.
            except BaseException as exc:  # noqa: BLE001
                self._outcome = exc
            with self._ending:
                self._ended = True

    def _abandon(self) -> None:
        """Ends it if it runs Python code; what blocks in C code stays behind as a daemon."""
        for _ in range(_TELLINGS):  # one can be lost in code that ignores errors, as finalizers do
            with self._ending:  # once it has ended, its identity may be another thread's
                if not self._ended and self.ident is not None:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(
                        ctypes.c_ulong(self.ident), ctypes.py_object(_ImportAbandonedError)
                    )
            self.join(_ENDING_S / _TELLINGS)


def _load_error(source: Source, error: BaseException) -> AgentLoadError:
    """What a module raised, in our words."""
    paths = {str(source.files.base / name) for name in source.texts}
    where = str(source.files.main)
    if isinstance(error, SyntaxError) and error.filename in paths:
        where, text = f"{error.filename}:{error.lineno}", error.msg
    else:
        text = _text(error)
        for frame, line in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_filename in paths:
                where = f"{frame.f_code.co_filename}:{line}"
    kind = type(error).__name__
    return AgentLoadError(
        f"{where}: {kind}: {text}" if text else f"{where}: {kind}", next_step=_advice(error)
    )


def _advice(error: BaseException) -> str | None:
    if isinstance(error, ModuleNotFoundError) and error.name:
        return f"Install what provides {error.name!r}, or correct the import."
    if isinstance(error, ImportError) and "relative import" in _text(error):
        return "Make the agent a package (NAME/__init__.py): the files in it can be imported."
    if isinstance(error, MemoryError):
        return "The module is nested too deep, or too large, to be compiled."
    return None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 (the module's own class, and only its text is lost)
        return ""
