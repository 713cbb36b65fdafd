"""One process of a worker, from its start to its end: what it is told, and what it tells."""

import asyncio
import contextlib
import contextvars
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Final, Self, cast, final

from paceline.codec import decode
from paceline.errors import AgentError, AgentLoadError, Category, CodecError, PacelineError
from paceline.instances.frames import (
    Answer,
    Cancel,
    Done,
    Failed,
    Frames,
    Order,
    Ping,
    Pong,
    Ready,
    Run,
    Unusable,
    Used,
    frame,
)
from paceline.instances.metering import used
from paceline.resources import current_resources

if TYPE_CHECKING:
    from paceline.balance.lease import Lease

__all__ = ["WorkerProcess"]

_CHUNK: Final = 65_536
_MAIN: Final = "paceline.instances.worker_main"


@final
class _Running:
    """A run that somebody waits for, or waited for."""

    __slots__ = ("context", "lease", "outcome", "over", "patience", "wanted")

    def __init__(self, lease: "Lease | None") -> None:
        self.lease = lease
        self.context = contextvars.copy_context()
        """Of who asked: what it uses is charged there, though another task hears of it."""
        self.outcome: asyncio.Future[Done | Failed | PacelineError]
        self.outcome = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
        """Set when it has really ended."""
        self.wanted = True
        self.patience: asyncio.TimerHandle | None = None


@final
class WorkerProcess:
    """Runs a function in a process with a group of its own.

    It gets no new run once it is `spent`: because it has ended, or because a run of it that was
    cancelled does not end. Then it is killed as soon as nobody waits for any other of its runs.
    """

    def __init__(self, process: asyncio.subprocess.Process, function: str, grace_s: float) -> None:
        """`start` makes them."""
        self._process = process
        self._function = function
        self._grace_s = grace_s
        self._numbers = count(1)
        self._running: dict[int, _Running] = {}
        loop = asyncio.get_running_loop()
        self._ready: asyncio.Future[PacelineError | None] = loop.create_future()
        self._pongs: list[asyncio.Future[None]] = []
        self._stopping = False
        self.spent = False
        self.crashed = False
        """Whether it ended and nobody had ended it."""
        self.ended = asyncio.create_task(self._listen())
        """Done when the process and all that it started are gone."""

    @classmethod
    async def start(cls, arguments: Sequence[str], env: Mapping[str, str], grace_s: float) -> Self:
        """A new process, not yet ready; `arguments` are those of its `main`, the function first.
        Raises AgentError where the system starts none."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                _MAIN,
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env=env,
                start_new_session=True,
            )
        except OSError as exc:
            raise AgentError(
                f"the process for {arguments[0]} cannot be started: {exc.strerror}",
                next_step="See what the system has left of processes and memory.",
                category=Category.UNAVAILABLE,
            ) from exc
        return cls(process, arguments[0], grace_s)

    @property
    def pid(self) -> int:
        """Its number, which is also that of its group."""
        return self._process.pid

    @property
    def in_flight(self) -> int:
        """Runs that are not over."""
        return len(self._running)

    async def ready(self, limit_s: float) -> None:
        """Until the function is imported. Raises PacelineError where that fails."""
        done, _ = await asyncio.wait((self._ready,), timeout=limit_s)
        error = (
            self._ready.result()
            if done
            else AgentError(
                f"{self._function} was not imported within {limit_s:g} s",
                category=Category.UNAVAILABLE,
            )
        )
        if error is not None:
            raise error

    async def run(
        self, name: str, arguments: bytes, lease: "Lease | None", *, by_name: bool = False
    ) -> object:
        """The function's value. Raises PacelineError. Cancelled, it cancels the run, and has what
        does not end killed; it does not wait for that. What the run took is added to
        `current_resources` of who asked."""
        number, running = next(self._numbers), _Running(lease)
        self._send(Run(number, name, arguments, by_name))
        self._running[number] = running
        try:
            outcome = await running.outcome
        except asyncio.CancelledError:
            self._leave(number, running)
            raise
        if isinstance(outcome, PacelineError):
            raise outcome
        if isinstance(outcome, Failed):
            raise outcome.error()
        try:
            return decode(outcome.value)
        except CodecError as exc:
            exc.may_have_started = True
            raise

    async def settled(self) -> None:
        """Until all runs have ended, also those that nobody waits for, and the process, if it is to
        have no others."""
        while self._running:
            await next(iter(self._running.values())).over.wait()
        if self.spent:
            await asyncio.shield(self.ended)

    async def ping(self, limit_s: float) -> bool:
        """Whether it answers."""
        if self.spent:
            return False
        pong: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pongs.append(pong)
        self._send(Ping())
        await asyncio.wait((pong,), timeout=limit_s)
        return pong.done() and not pong.cancelled()

    async def stop(self) -> None:
        """Ends it: orderly if it can, within the time of grace. Waits until it is gone."""
        self._stopping = self.spent = True
        if self._process.stdin is not None:
            self._process.stdin.close()
        timer = asyncio.get_running_loop().call_later(self._grace_s, self.kill)
        try:
            await asyncio.shield(self.ended)
        except asyncio.CancelledError:
            self.kill()
            raise
        finally:
            timer.cancel()

    def kill(self) -> None:
        """Ends it and all that it has started, now."""
        self.spent = True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def _send(self, order: Order) -> None:
        if self._process.stdin is not None and not self._process.stdin.is_closing():
            self._process.stdin.write(frame(order))

    def _leave(self, number: int, running: _Running) -> None:
        """Nobody waits for this run any more."""
        if self._running.get(number) is not running:
            return
        running.wanted = False
        self._send(Cancel(number))
        loop = asyncio.get_running_loop()
        running.patience = loop.call_later(self._grace_s, self._overdue, number, running)

    def _overdue(self, number: int, running: _Running) -> None:
        """A cancelled run had time to end."""
        if self._running.get(number) is running:
            self.spent = True
            self._kill_if_unwanted()

    def _kill_if_unwanted(self) -> None:
        if self.spent and not any(running.wanted for running in self._running.values()):
            self.kill()

    async def _listen(self) -> None:
        """Hears what it says until it ends, and clears up after it."""
        try:
            await self._hear()
        finally:
            self.crashed = not self.spent
            self.kill()  # also what it left in its group
            await self._process.wait()
            lost, self._running = self._running, {}
            for running in lost.values():
                _end(running, self._crash(started=True))
            for pong in self._pongs:
                pong.cancel()
            if not self._ready.done():
                self._ready.set_result(self._crash(started=False))

    async def _hear(self) -> None:
        frames = Frames[Answer](cast("type[Answer]", Answer))
        output = self._process.stdout
        while output is not None and (data := await output.read(_CHUNK)):
            try:
                for answer in frames.feed(data):
                    self._take(answer)
            except ValueError:
                return  # whatever it is, it is no worker of ours any more

    def _take(self, answer: Answer) -> None:
        if isinstance(answer, (Ready, Unusable)):
            if not self._ready.done():
                self._ready.set_result(_unusable(answer) if isinstance(answer, Unusable) else None)
        elif isinstance(answer, Pong):
            pongs, self._pongs = self._pongs, []
            for pong in pongs:
                if not pong.done():
                    pong.set_result(None)
        elif isinstance(answer, Used):
            running = self._running.get(answer.id)
            if running is not None and running.wanted:
                running.context.run(
                    used, running.lease, answer.model, answer.tokens, answer.cost_usd
                )
        else:
            running = self._running.pop(answer.id, None)
            if running is not None:
                running.context.run(_charge, answer)
                _end(running, answer)
            self._kill_if_unwanted()

    def _crash(self, *, started: bool) -> PacelineError:
        code = self._process.returncode
        if self._stopping:
            what = "was closed"
        elif code is not None and code < 0:
            what = f"was ended by {signal.Signals(-code).name}"
        else:
            what = f"ended with exit code {code}"
        return AgentError(
            f"the process of {self._function} {what}",
            next_step="What it printed on standard error says more.",
            category=Category.UNAVAILABLE,
            may_have_started=started,
        )


def _end(running: _Running, outcome: Done | Failed | PacelineError) -> None:
    if running.patience is not None:
        running.patience.cancel()
    running.over.set()
    if not running.outcome.done():
        running.outcome.set_result(outcome)


def _charge(answer: Done | Failed) -> None:
    """In the context of who asked."""
    resources = current_resources.get()
    if resources is not None and answer.usage is not None:
        resources.add(answer.usage)


def _unusable(answer: Unusable) -> PacelineError:
    return AgentLoadError(answer.why, next_step="Correct `function`, or what it imports.")
