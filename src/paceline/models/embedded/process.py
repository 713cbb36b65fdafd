"""Where the embedded model runs: a process of its own, started at the first use.

What is native there can hang or crash, writes to standard error as it likes, and cannot be stopped
within a step; as a process it can be ended at any time, and takes nothing else with it.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol, final

import msgspec

from paceline.clock import Clock
from paceline.errors import AgentError, Category, ConfigError, PacelineError, RuntimeClosedError

__all__ = ["LanguageModel", "ModelProcess", "Said"]

_WORKER: Final = Path(__file__).with_name("worker.py")
_LONGEST: Final = 16 * 1024**2
_WITHOUT: Final = "Give a real model in the settings; the embedded one is only for a first try."


class Said(msgspec.Struct, frozen=True):
    """What a language model answered: `words` with the logarithms of their chances, or `text`;
    `read` and `wrote` are tokens, `memory` the bytes that it has taken at most."""

    words: dict[str, float] = {}
    text: str = ""
    read: int = 0
    wrote: int = 0
    memory: int = 0
    error: str = ""


class LanguageModel(Protocol):
    """Something that knows how texts go on."""

    async def next_words(self, prompt: str, *, most: int) -> Said:
        """The likeliest next words, at most so many. Raises PacelineError."""
        ...

    async def write(self, prompt: str, schema: Mapping[str, object], *, most: int) -> Said:
        """How it goes on: JSON after a schema, at most so many tokens. Raises PacelineError."""
        ...

    async def aclose(self) -> None:
        """Frees what it holds."""
        ...


@final
class ModelProcess:
    """A language model from a GGUF file, in a process of its own.

    It does one thing after the other. Whoever is cancelled while it works for them ends the process,
    so nothing goes on; the next use starts another one.
    """

    def __init__(
        self, path: Path, *, clock: Clock, threads: int = 1, program: Path = _WORKER
    ) -> None:
        """Starts nothing. `threads` work on one token: more than one is faster on an idle machine
        only, as they wait for each other. `program` is what runs in the process."""
        self._path = path
        self._clock = clock
        self._threads = threads
        self._program = program
        self._turn = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._place = ""
        self._closed = False
        self.load_ns = 0
        """How long the last start took."""
        self.memory_bytes = 0
        """What the process has taken at most."""

    @property
    def pid(self) -> int | None:
        """The number of the process, None while there is none."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Has the model loaded. Raises ConfigError where it cannot be used here, AgentError where
        its process cannot be started."""
        async with self._turn:
            await self._started()

    async def next_words(self, prompt: str, *, most: int) -> Said:
        """The likeliest next words. Raises ConfigError and AgentError."""
        return await self._ask({"prompt": prompt, "most": most})

    async def write(self, prompt: str, schema: Mapping[str, object], *, most: int) -> Said:
        """How it goes on, after a JSON schema. Raises ConfigError and AgentError."""
        return await self._ask({"prompt": prompt, "schema": schema, "most": most})

    async def aclose(self) -> None:
        """Ends the process. What it is used for afterwards raises RuntimeClosedError."""
        self._closed = True
        await self._end()

    async def _ask(self, order: Mapping[str, object]) -> Said:
        async with self._turn:
            process = await self._started()
            said = await self._exchange(process, order)
        if said.error:
            raise AgentError(
                f"the embedded model failed: {said.error}",
                next_step="Ask for something shorter, or with simpler arguments.",
                category=Category.TOO_LONG if "exceed_context" in said.error else Category.INVALID,
            )
        return said

    async def _started(self) -> asyncio.subprocess.Process:
        self._expect_open()
        if self._process is not None:
            return self._process
        begun_ns = self._clock.monotonic_ns()
        # Short, as the name of a socket has to be; only this user can enter it.
        self._place = tempfile.mkdtemp(prefix="paceline-")
        try:
            self._process = process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                str(self._program),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                env={},
                limit=_LONGEST,
                start_new_session=True,
            )
            self._expect_open()  # it may have been closed meanwhile
        except BaseException as exc:
            await self._end()
            if isinstance(exc, OSError):
                raise AgentError(
                    f"the process of the embedded model cannot be started: {exc.strerror}",
                    next_step="See what the system has left of processes and memory.",
                    category=Category.UNAVAILABLE,
                ) from exc
            raise
        order = {
            "path": str(self._path),
            "threads": self._threads,
            "search": sys.path,
            "place": self._place,
        }
        said = await self._exchange(process, order)
        if said.error:
            await self._end()
            raise ConfigError(
                f"the embedded model cannot be loaded from {self._path.name}: {said.error}",
                next_step=_WITHOUT,
            )
        self.load_ns = self._clock.monotonic_ns() - begun_ns
        return process

    def _expect_open(self) -> None:
        if self._closed:
            raise RuntimeClosedError(
                "the embedded model is closed", next_step="Use it inside `async with`."
            )

    async def _exchange(
        self, process: asyncio.subprocess.Process, order: Mapping[str, object]
    ) -> Said:
        """One order, one answer; anything else ends the process."""
        try:
            said = _said(await self._line(process, order))
        except BaseException:
            await self._end()
            raise
        self.memory_bytes = max(self.memory_bytes, said.memory)
        return said

    async def _line(
        self, process: asyncio.subprocess.Process, order: Mapping[str, object]
    ) -> bytes:
        line = b""
        if process.stdin is not None and process.stdout is not None:
            with contextlib.suppress(ConnectionError):
                process.stdin.write(msgspec.json.encode(order) + b"\n")
                await process.stdin.drain()
            try:
                line = await process.stdout.readline()
            except ValueError as exc:  # there is no end of it
                raise _babble(exc) from exc
        if not line.endswith(b"\n"):
            await process.wait()
            raise self._gone(process)
        return line

    def _gone(self, process: asyncio.subprocess.Process) -> PacelineError:
        code = process.returncode
        if code == -signal.SIGILL:
            return ConfigError(
                "the embedded model needs a processor with AVX2, which this one has not",
                next_step=_WITHOUT,
            )
        how = "" if code is None else f" ({_name(code)})"
        return AgentError(
            f"the process of the embedded model has ended{how}",
            next_step="Ask again: it is started anew.",
            category=Category.UNAVAILABLE,
        )

    async def _end(self) -> None:
        """Kills the process, at once; waits until it is gone."""
        process, self._process = self._process, None
        place, self._place = self._place, ""
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        if place:
            shutil.rmtree(place, ignore_errors=True)
        if process is not None:
            await asyncio.shield(_reaped(process))


def _said(line: bytes) -> Said:
    try:
        return msgspec.json.decode(line, type=Said)
    except (msgspec.DecodeError, UnicodeError) as exc:
        raise _babble(exc) from exc


def _babble(exc: Exception) -> AgentError:
    return AgentError(f"the process of the embedded model answered what cannot be read: {exc}")


async def _reaped(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    await process.wait()


def _name(code: int) -> str:
    """What it ended with, for people."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
