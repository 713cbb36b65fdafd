"""A function in a process of its own: what it does to its process, it does to nobody else's."""

import asyncio
import random
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self, TypedDict, Unpack, final

from paceline.breaker import Breaker
from paceline.call import Call
from paceline.clock import Clock
from paceline.codec import encode
from paceline.errors import (
    AgentError,
    Category,
    CodecError,
    ConfigError,
    InvalidInputError,
    PacelineError,
    RuntimeClosedError,
)
from paceline.instances.arguments import query_and_context
from paceline.instances.frames import MOST_ARGUMENTS
from paceline.instances.limits import PROBE_S, late, left_s
from paceline.instances.named import lowered
from paceline.instances.worker_process import WorkerProcess

if TYPE_CHECKING:
    from paceline.balance.lease import Lease

__all__ = ["Worker", "WorkerLimits"]

_HANDED_ON: Final = ("LANG", "PATH", "PYTHONPATH")
_LONGEST_S: Final = 1e9
_FIRST_WAIT_S: Final = 0.2
_LONGEST_WAIT_S: Final = 30.0


class WorkerLimits(TypedDict, total=False):
    """What a worker may take. `capacity` synchronous calls run at once (default 10); its data may
    have `memory_mb` MiB (default 1024, 0 for no limit): beyond that a call fails with MemoryError,
    and the process goes on. Starting may take `start_s` seconds (default 30), the end of a call
    that was cancelled `grace_s` (default 0.5)."""

    capacity: int
    memory_mb: int
    start_s: float
    grace_s: float


@final
class Worker:
    """Runs `function(query, **context)` in a process of its own, several calls at once.

    The process is started by the first call, and again by the first after it has crashed, at
    growing intervals. It has no environment but what it is given. A call that is cancelled and does
    not end within the time of grace has the process killed with all that it started, as soon as
    nobody waits for anything else in it; meanwhile there is a new one. The process ends with its
    parent, however that ends.
    """

    def __init__(
        self,
        function: str,
        *,
        clock: Clock,
        rng: random.Random,
        environ: Mapping[str, str],
        env: Mapping[str, str] | None = None,
        **limits: Unpack[WorkerLimits],
    ) -> None:
        """`function` is such as "package.module:function", sync or async. Of `environ`, the
        environment here, the process gets PATH, PYTHONPATH and LANG, and all of `env`.

        Raises ConfigError for what is no name of a function.
        """
        module, _, name = function.partition(":")
        if not all(part.isidentifier() for text in (module, name) for part in text.split(".")):
            raise ConfigError(
                f"{function!r} names no function", next_step='Write "package.module:function".'
            )
        self._function = function
        self._clock = clock
        self._env = {name: environ[name] for name in _HANDED_ON if name in environ} | dict(
            env or {}
        )
        self._capacity = limits.get("capacity", 10)
        self._memory_mb = limits.get("memory_mb", 1024)
        self._start_s = limits.get("start_s", 30.0)
        self._grace_s = limits.get("grace_s", 0.5)
        self._restarts = Breaker(
            clock, failures=1, wait_s=_FIRST_WAIT_S, longest_wait_s=_LONGEST_WAIT_S, dice=rng
        )
        self._open = False
        self._process: WorkerProcess | None = None
        self._starting: asyncio.Task[WorkerProcess] | None = None
        self._watches: dict[WorkerProcess, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._function!r})"

    @property
    def processes(self) -> tuple[int, ...]:
        """The numbers of its processes: one, none before the first call, or more while those end
        that are given up."""
        return tuple(process.pid for process in self._watches)

    @property
    def in_flight(self) -> int:
        """Runs in its processes that are not over, whether somebody waits for them or not."""
        return sum([process.in_flight for process in self._watches])

    async def __aenter__(self) -> Self:
        if self._open:
            raise ConfigError(f"{self!r} is open already", next_step="Use it in one place only.")
        self._open = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait((self._starting,))
        self._process = None
        watches = list(self._watches.items())
        await asyncio.gather(*(process.stop() for process, _ in watches))
        await asyncio.gather(*(watch for _, watch in watches))

    async def execute(self, call: Call, lease: "Lease") -> object:
        """The function's value. Raises PacelineError."""
        limit_s = left_s(call, self._clock, _LONGEST_S)
        arguments = _arguments(call)
        sent = False
        try:
            async with asyncio.timeout(limit_s):
                process = await self._ready()
                sent = True
                value = await process.run(call.name, arguments, lease)
        except TimeoutError as exc:
            raise late(call.name, limit_s, started=sent) from exc
        lease.first_token()
        return value

    async def call(self, name: str, arguments: Mapping[str, object]) -> object:
        """The value of `function(**arguments)`, for a call of `name`.

        Arguments are made into what the function's annotations say; a value that is no plain data
        comes as the plain data it is made of. Time limits are the caller's. What the run took is
        added to `paceline.resources.current_resources`, unless something else ran meanwhile.
        Raises PacelineError.
        """
        try:
            plain = lowered(dict(arguments))
        except CodecError as exc:
            raise _unsendable(name, exc) from exc
        process = await self._ready()
        return await process.run(name, _encoded(name, plain), None, by_name=True)

    async def settled(self) -> None:
        """Until nothing runs any more that nobody waits for, and what had to be killed is gone."""
        await asyncio.gather(*(process.settled() for process in tuple(self._watches)))

    async def probe(self) -> None:
        """Starts the process if there is none, and sees whether it answers. Raises PacelineError."""
        process = await self._ready()
        if not await process.ping(PROBE_S):
            raise AgentError(
                f"the process of {self._function} does not answer",
                next_step="See whether an async function of it blocks.",
                category=Category.UNAVAILABLE,
            )

    async def _ready(self) -> WorkerProcess:
        """The process that new calls go to."""
        if not self._open:
            raise RuntimeClosedError(f"{self!r} is not open", next_step="Use it in `async with`.")
        if self._process is not None and not self._process.spent:
            return self._process
        if self._starting is None:
            permit = self._restarts.admit()
            if not permit:
                raise AgentError(
                    f"the process of {self._function} ended, and is not started again yet",
                    next_step="What it printed on standard error says more.",
                    category=Category.UNAVAILABLE,
                    retry_after_s=self._restarts.remaining_ns() / 1e9,
                )
            self._starting = asyncio.create_task(self._start(permit))
            self._starting.add_done_callback(_look)
        waited = self._starting
        await asyncio.wait((waited,))  # whoever is cancelled meanwhile leaves the others theirs
        if waited.cancelled():
            raise RuntimeClosedError(f"{self!r} was closed", next_step="Use it in `async with`.")
        return waited.result()

    async def _start(self, permit: int) -> WorkerProcess:
        try:
            process = await WorkerProcess.start(
                (self._function, str(max(1, self._capacity)), str(self._memory_mb)),
                self._env,
                self._grace_s,
            )
            self._watches[process] = asyncio.create_task(self._watch(process))
            try:
                await process.ready(self._start_s)
            except BaseException:
                process.kill()
                raise
        except PacelineError:
            self._restarts.trip()
            raise
        finally:
            self._starting = None
        self._restarts.succeeded(permit)
        self._process = process
        return process

    async def _watch(self, process: WorkerProcess) -> None:
        await process.ended
        del self._watches[process]
        if process.crashed:
            self._restarts.trip()


def _look(started: asyncio.Task[WorkerProcess]) -> None:
    """Whoever waited may have been cancelled: then nobody else asks what came of it."""
    if not started.cancelled():
        started.exception()


def _arguments(call: Call) -> bytes:
    """The arguments of a call as they are sent. Raises InvalidInputError if they cannot be."""
    query, context = query_and_context(call)
    return _encoded(call.name, {"query": query, **context})


def _encoded(name: str, plain: object) -> bytes:
    try:
        arguments = encode(plain)
    except CodecError as exc:
        raise _unsendable(name, exc) from exc
    if len(arguments) > MOST_ARGUMENTS:
        raise InvalidInputError(
            f"the arguments of {name} have {len(arguments)} bytes, more than {MOST_ARGUMENTS}"
        )
    return arguments


def _unsendable(name: str, exc: CodecError) -> InvalidInputError:
    return InvalidInputError(
        f"an argument of {name} cannot be sent to another process: {exc}",
        next_step="Pass plain data (text, numbers, lists, dicts, dates).",
    )
