"""A server in a process of its own, spoken to by its standard input and output.

The SDK has such a transport too. Ours hands the process nothing of the environment but what was
asked for, keeps what it writes on standard error to itself, and bounds how much it reads.
"""

import asyncio
import os
import re
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, final

from paceline.errors import Category
from paceline.tools.mcp.failures import Failures, broken
from paceline.tools.mcp.sdk import (
    MemoryObjectReceiveStream,
    MemoryObjectSendStream,
    SessionMessage,
    anyio,
    types,
)

__all__ = ["Lines", "ServerProcess", "TooLong"]

_CHUNK: Final = 65_536
_TAIL: Final = 4_096
_SHOWN: Final = 500
_ANSWER: Final = re.compile(
    rb'\s*\{\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"id"\s*:\s*(?:(\d{1,18})|"([^"\\]{1,99})")\s*,'
    rb'\s*(?:"jsonrpc"\s*:\s*"2\.0"\s*,\s*)?"(?:result|error)"'
)
"""The beginning of an answer, with the number of what it answers."""


class TooLong(bytes):
    """The first bytes of a line of which the rest was thrown away."""

    __slots__ = ()


@final
class Lines:
    """Cuts what comes in pieces into lines of at most so many bytes."""

    __slots__ = ("_held", "_length", "_most", "_skipping")

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: list[bytes] = []
        self._length = 0
        self._skipping = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The lines that are whole with this piece, and the beginnings of those that are too long,
        as TooLong."""
        *whole, rest = piece.split(b"\n")
        for end in whole:
            yield from self._add(end)
            if not self._skipping:
                yield b"".join(self._held)
            self._drop(skipping=False)
        yield from self._add(rest)

    def _add(self, part: bytes) -> Iterator[bytes]:
        if self._skipping or not part:
            return
        self._held.append(part)
        self._length += len(part)
        if self._length > self._most:
            head = b"".join(self._held)[:_SHOWN]
            self._drop(skipping=True)
            yield TooLong(head)

    def _drop(self, *, skipping: bool) -> None:
        self._held.clear()
        self._length = 0
        self._skipping = skipping


@final
class ServerProcess:
    """A transport as the SDK has it: entered, it starts the process and gives the two streams."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        *,
        failures: Failures,
        most_bytes: int,
        grace_s: float,
        ended: Callable[[], None],
    ) -> None:
        """`env` is all of its environment. A message may have `most_bytes`. When it is left, the
        process has `grace_s` seconds to end, and as many again after SIGTERM. `ended` is called when
        it writes no more."""
        self._command = command
        self._env = env
        self._failures = failures
        self._most_bytes = most_bytes
        self._grace_s = grace_s
        self._ended = ended
        self._process: asyncio.subprocess.Process | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._errors = bytearray()
        self._noise = 0
        self._last_noise = b""
        self._killed = False
        self._read_in: MemoryObjectSendStream[SessionMessage | Exception]
        self._read: MemoryObjectReceiveStream[SessionMessage | Exception]
        self._read_in, self._read = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        self._write: MemoryObjectSendStream[SessionMessage]
        self._write_out: MemoryObjectReceiveStream[SessionMessage]
        self._write, self._write_out = anyio.create_memory_object_stream[SessionMessage](0)

    @property
    def pid(self) -> int | None:
        """The number of the process, once it was started."""
        return None if self._process is None else self._process.pid

    @property
    def story(self) -> str:
        """How it ended, and what it wrote that is no message; not fit to be shown as it is."""
        told: list[str] = []
        status = None if self._process is None or self._killed else self._process.returncode
        if status is not None:
            told.append(f"its status is {status}" if status >= 0 else f"signal {-status} killed it")
        if words := self._errors[-_SHOWN:].decode("utf-8", "replace").strip():
            told.append(f"its last words are: {words}")
        if self._noise:
            words = self._last_noise[:_SHOWN].decode("utf-8", "replace")
            told.append(f"{self._noise} lines that it wrote are no messages, such as: {words}")
        return "; ".join(told) or "it did not say why"

    async def __aenter__(
        self,
    ) -> tuple[
        MemoryObjectReceiveStream[SessionMessage | Exception],
        MemoryObjectSendStream[SessionMessage],
    ]:
        pipe = asyncio.subprocess.PIPE
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=pipe,
                stdout=pipe,
                stderr=pipe,
                env=self._env,
                start_new_session=True,
            )
        except (OSError, ValueError) as exc:
            self._close_streams()
            raise self._failures.failed(
                f"cannot be started: {exc}",
                Category.UNAVAILABLE,
                next_step=f"Correct `command` of [mcp.{self._failures.name}].",
            ) from exc
        self._process = process
        jobs = self._hear(process), self._say(process), self._keep_errors(process)
        self._tasks = [asyncio.create_task(job) for job in jobs]
        return self._read, self._write

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """The process is gone when this returns, with all that it started and that did not leave
        its group."""
        assert self._process is not None  # noqa: S101 (it was entered)
        self._close_streams()
        try:
            await self._stop(self._process)
        finally:
            self._signal(self._process, signal.SIGKILL)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _close_streams(self) -> None:
        for stream in (self._read_in, self._read, self._write, self._write_out):
            stream.close()

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None  # noqa: S101 (it is a pipe)
        process.stdin.close()
        if not await self._gone(process):
            self._killed = process.returncode is None
            self._signal(process, signal.SIGTERM)
            if not await self._gone(process):
                self._signal(process, signal.SIGKILL)
                await self._gone(process)

    async def _gone(self, process: asyncio.subprocess.Process) -> bool:
        """Whether it ends in time, and nobody writes in its place any more."""
        readers = [self._tasks[0], self._tasks[2]]
        ended = asyncio.create_task(process.wait())
        await asyncio.wait([ended, *readers], timeout=self._grace_s)
        ended.cancel()
        return process.returncode is not None and all(task.done() for task in readers)

    def _signal(self, process: asyncio.subprocess.Process, number: signal.Signals) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)

    async def _hear(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None  # noqa: S101 (it is a pipe)
        lines = Lines(self._most_bytes)
        try:
            while piece := await process.stdout.read(_CHUNK):
                for line in lines.feed(piece):
                    message = self._message(line)
                    if message is not None:
                        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
                            await self._read_in.send(SessionMessage(message))
        finally:
            self._read_in.close()
            self._ended()

    def _message(self, line: bytes) -> types.JSONRPCMessage | None:
        if isinstance(line, TooLong):
            begun = _ANSWER.match(line)
            if begun is not None:
                number, text = begun.groups()
                error = broken(
                    f"answered with more than {self._most_bytes:,} bytes", Category.EXHAUSTED
                )
                return types.JSONRPCError(
                    jsonrpc="2.0", id=int(number) if number else text.decode(), error=error
                )
        elif not line.strip():
            return None
        else:
            with suppress(ValueError):
                return types.jsonrpc_message_adapter.validate_json(line, by_name=False)
        self._noise += 1
        self._last_noise = bytes(line[:_SHOWN])
        return None

    async def _say(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None  # noqa: S101 (it is a pipe)
        try:
            async for message in self._write_out:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                process.stdin.write(text.encode() + b"\n")
                await process.stdin.drain()
        except (OSError, anyio.ClosedResourceError):
            self._ended()

    async def _keep_errors(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None  # noqa: S101 (it is a pipe)
        while piece := await process.stderr.read(_TAIL):
            self._errors += piece
            del self._errors[:-_TAIL]
