"""A function of this process that does the work of an instance."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Final, Protocol, Self, TypeVar, TypeVarTuple, final

from paceline.call import Call
from paceline.clock import Clock
from paceline.errors import ConfigError, PacelineError
from paceline.instances.arguments import query_and_context
from paceline.instances.limits import late, left_s
from paceline.instances.raised import raised

if TYPE_CHECKING:
    from paceline.balance.lease import Lease

__all__ = ["FunctionTarget", "Threads"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_LONGEST_S: Final = 1e9


class Threads(Protocol):
    """Where synchronous functions run: `paceline.agents.threads.ThreadPool`, or the like."""

    async def run(self, fn: Callable[[*Ts], T], *args: *Ts) -> T:
        """The function's value, or what it raises, from a thread."""
        ...


@final
class FunctionTarget:
    """Runs a function of this process: one that takes the call, or by `of` one of your own.

    It is always there, so that a probe finds nothing to complain of.
    """

    __slots__ = ("_clock", "_run", "_trusted")

    def __init__(
        self,
        run: Callable[[Call], Awaitable[object]],
        *,
        clock: Clock,
        trusted: bool = False,
    ) -> None:
        """`run` does a call. What it raises becomes an AgentError, unless it is an error of ours:
        that may be of something it called, and know nothing of its own doings. Unless it is
        `trusted`, it may have started whatever its errors say."""
        self._run = run
        self._clock = clock
        self._trusted = trusted

    @classmethod
    def of(
        cls, function: Callable[..., object], *, clock: Clock, threads: Threads | None = None
    ) -> Self:
        """Runs `function(query, **context)`, on the event loop if it is async, else in `threads`.

        A cancelled synchronous function goes on in its thread, as threads cannot be stopped.
        Raises ConfigError for a synchronous function without threads.
        """
        if threads is None and not inspect.iscoroutinefunction(function):
            raise ConfigError(
                "a synchronous function would hold up everything else",
                next_step="Pass threads=, or make the function async.",
            )

        async def run(call: Call) -> object:
            query, context = query_and_context(call)
            try:
                if threads is None or inspect.iscoroutinefunction(function):
                    value = function(query, **context)
                else:
                    value = await threads.run(_in_thread, call.name, function, query, context)
                return await value if inspect.isawaitable(value) else value
            except PacelineError as exc:
                exc.may_have_started = True
                raise

        return cls(run, clock=clock, trusted=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass

    async def execute(self, call: Call, lease: "Lease") -> object:
        """The function's value. Raises PacelineError."""
        limit_s = left_s(call, self._clock, _LONGEST_S)
        limit = asyncio.timeout(limit_s)
        try:
            async with limit:
                value = await self._run(call)
        except PacelineError as exc:
            exc.may_have_started = exc.may_have_started or not self._trusted
            raise
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt):
            raise
        # SystemExit too: in a task of its own it would end the whole program.
        except BaseException as exc:
            if limit.expired() and isinstance(exc, TimeoutError):
                raise late(call.name, limit_s) from exc
            raise raised(call.name, exc) from exc
        lease.first_token()
        return value

    async def probe(self) -> None:
        """It is there."""


def _in_thread(
    name: str, function: Callable[..., object], query: object, context: dict[str, object]
) -> object:
    try:
        return function(query, **context)
    except Exception:
        raise
    except BaseException as exc:
        # On the loop it would cancel the wrong task, or end the program.
        raise raised(name, exc) from exc
