"""One process from its start to its end: bounded output, a time limit, nothing left behind.

The process is started and watched here and not by asyncio, which on cancellation kills the one
process it knows of: a sandbox half set up is several, and they share only their group.
"""

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
from pathlib import Path
from typing import Final, Literal, final

import msgspec

from paceline.errors import Category, InvalidInputError, SandboxError
from paceline.hostexec.sandbox.command import Launch
from paceline.hostexec.sandbox.room import Room

__all__ = ["Ended", "run"]

_CHUNK: Final = 64 * 1024
_STOP_ROUNDS: Final = 200
_STOP_ROUND_S: Final = 0.001
_KILLED_WITHIN_S: Final = 5.0
_LOOK_EVERY_S: Final = 0.02
"""A killed process is gone after this; only one stuck in the kernel is not."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """What a process left."""

    code: int
    """Exit code; negative: the signal that ended it."""
    stopped: Literal["", "timeout", "output_limit", "disk_limit"]
    """Why we ended it; empty if it ended by itself."""
    stdout: bytes
    stderr: bytes
    truncated: bool
    """It printed more than was kept."""


async def run(
    launch: Launch,
    *,
    timeout_s: float,
    output_bytes: int,
    drain_s: float,
    room: Room | None = None,
) -> Ended:
    """Runs the process to its end, to `timeout_s`, or until it prints over `output_bytes` or
    has taken all the `room` there is for it on the disk.

    However this ends, cancellation included, the process and its group are gone and reaped
    when it returns. Output still held open by others is read for at most `drain_s` seconds.

    Raises InvalidInputError where the arguments cannot be handed to a process, SandboxError
    (category unavailable) where the program is missing or the host starts no more processes.
    """
    process = _Process(*_start(launch), output_bytes)
    stopped: Literal["", "timeout", "output_limit", "disk_limit"] = ""
    interrupted = False
    try:
        full = await process.wait(timeout_s, room)
        if not process.exited.done() and not process.over.done():
            stopped = "disk_limit" if full else "timeout"
    finally:
        interrupted = await process.end(launch.grace_s, drain_s)
    if interrupted:
        raise asyncio.CancelledError
    if not stopped and process.over.done():
        stopped = "output_limit"
    return Ended(
        code=process.code(),
        stopped=stopped,
        stdout=bytes(process.stdout),
        stderr=bytes(process.stderr),
        truncated=process.over.done(),
    )


def _start(launch: Launch) -> tuple[subprocess.Popen[bytes], int]:
    """The process, and a handle that becomes readable when it ends."""
    try:
        started = subprocess.Popen(
            launch.argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=launch.env,
            cwd=launch.cwd,
            close_fds=True,
            start_new_session=True,
        )
    except ValueError as exc:
        raise InvalidInputError(
            "an argument holds a character that no argument of a process can hold",
            next_step="Remove null bytes and lone surrogates from the command.",
        ) from exc
    except OSError as exc:
        if exc.errno == errno.E2BIG:
            raise InvalidInputError(
                "the command is longer than the host accepts", next_step="Shorten the command."
            ) from exc
        raise SandboxError(
            f"{launch.argv[0]} cannot be started: {exc.strerror}", category=Category.UNAVAILABLE
        ) from exc
    try:
        return started, os.pidfd_open(started.pid)
    except OSError as exc:
        with started:  # closes and reaps
            os.killpg(started.pid, signal.SIGKILL)
        raise SandboxError(
            f"a process cannot be watched (Linux 5.3 is needed): {exc.strerror}",
            category=Category.UNAVAILABLE,
        ) from exc


@final
class _Process:
    """Watches a started process: keeps the first bytes of both streams, tells when things happen.

    It is reaped last of all: until then nobody else gets its number, so that signals to it and
    to its group reach nobody else.
    """

    def __init__(self, started: subprocess.Popen[bytes], handle: int, keep_bytes: int) -> None:
        self._loop = loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.over: asyncio.Future[None] = loop.create_future()
        self.drained: asyncio.Future[None] = loop.create_future()
        self.stdout, self.stderr = bytearray(), bytearray()
        self._started = started
        self._handle = handle
        self._keep_bytes = keep_bytes
        self._open: set[int] = set()
        for stream, kept in ((started.stdout, self.stdout), (started.stderr, self.stderr)):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._open.add(stream.fileno())
                loop.add_reader(stream.fileno(), self._read, stream.fileno(), kept)
        loop.add_reader(handle, self._exit)

    def _read(self, file: int, kept: bytearray) -> None:
        try:
            data = os.read(file, _CHUNK)
        except BlockingIOError:
            return  # woken for nothing
        if not data:
            self._loop.remove_reader(file)
            self._open.discard(file)
            if not self._open:
                _set(self.drained)
        room = self._keep_bytes - len(kept)
        kept += data[:room]
        if len(data) > room:
            _set(self.over)

    def _exit(self) -> None:
        self._loop.remove_reader(self._handle)
        _set(self.exited)

    async def wait(self, timeout_s: float, room: Room | None) -> bool:
        """Until it ends, prints too much, or the time is up; True if the room was up before."""
        end = self._loop.time() + timeout_s
        while (left_s := end - self._loop.time()) > 0:
            slice_s = left_s if room is None else min(left_s, _LOOK_EVERY_S)
            done, _ = await asyncio.wait(
                (self.exited, self.over), timeout=slice_s, return_when=asyncio.FIRST_COMPLETED
            )
            if done:
                return False
            if room is not None and room.used_up():
                return True
        return False

    def code(self) -> int:
        """Its exit code, once it has ended; that of a killed process if even that failed."""
        code = self._started.poll()
        return -signal.SIGKILL if code is None else code

    async def end(self, grace_s: float, drain_s: float) -> bool:
        """Ends, drains, closes and reaps. True if it was cancelled meanwhile, which does not hold
        it up."""
        interrupted = False
        if not self.exited.done() and grace_s:
            os.kill(self._started.pid, signal.SIGTERM)
            interrupted |= await self._wait_out(self.exited, grace_s)
        if not self.exited.done():
            interrupted |= await self._kill_children()
        # also after an end of its own, for what it may have left in its group
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._started.pid, signal.SIGKILL)
        interrupted |= await self._wait_out(self.exited, _KILLED_WITHIN_S)
        interrupted |= await self._wait_out(self.drained, drain_s)
        for file in (*self._open, self._handle):
            self._loop.remove_reader(file)
        os.close(self._handle)
        for stream in (self._started.stdout, self._started.stderr):
            if stream is not None:
                stream.close()
        self._started.poll()
        return interrupted

    async def _kill_children(self) -> bool:
        """A sandbox that is just being set up has a child that has left the group already and does
        not yet die with its parent. The parent is stopped, so that it makes no other meanwhile."""
        pid, interrupted = self._started.pid, False
        os.kill(pid, signal.SIGSTOP)
        for _ in range(_STOP_ROUNDS):
            if _at_rest(pid):
                break
            interrupted |= await self._wait_out(self.exited, _STOP_ROUND_S)
        try:
            children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()  # noqa: ASYNC240
        except OSError:
            children = []  # it has ended, or this kernel does not tell
        for child in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(int(child), signal.SIGKILL)
        return interrupted

    async def _wait_out(self, happened: asyncio.Future[None], limit_s: float) -> bool:
        end, interrupted = self._loop.time() + limit_s, False
        while not happened.done() and (left := end - self._loop.time()) > 0:
            try:
                await asyncio.wait((happened,), timeout=left)
            except asyncio.CancelledError:
                interrupted = True
        return interrupted


def _at_rest(pid: int) -> bool:
    """Whether a child of ours is stopped or over; it is not reaped."""
    states = os.WSTOPPED | os.WEXITED
    return os.waitid(os.P_PID, pid, states | os.WNOHANG | os.WNOWAIT) is not None


def _set(happened: asyncio.Future[None]) -> None:
    if not happened.done():
        happened.set_result(None)
