"""One connection to a Redis server: commands out, replies and pushes in, in order.

Nobody waits on the connection itself. Every command leaves a `Waiting` behind in a queue, and
every reply belongs to the oldest of them, whoever still wants it: a caller who is cancelled, or
whose time is up, takes nothing out of the queue and can never meet another's reply. Anything that
does not fit (a reply nobody asked for, bytes that are no protocol) ends the connection.
"""

import asyncio
import re
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, cast, final

from paceline.extras import missing

try:
    import hiredis
except ImportError as exc:
    raise missing("a shared cache needs", "hiredis", "redis", "set no shared cache") from exc

__all__ = ["LOST", "Ask", "Lost", "Waiting", "Wire", "is_error", "items", "pack_command"]

_MAX_UNREAD: Final = 256 * 1024 * 1024
"""A single reply larger than this is taken for nonsense."""

_MAX_UNSENT: Final = 16 * 1024 * 1024
_MAX_WAITING: Final = 100_000
_UNFIT: Final = re.compile(r"(LOADING|READONLY|MASTERDOWN|NOAUTH|NOPERM|CLUSTERDOWN)\b")
_INCOMPLETE: Final = object()

# Its annotation says a tuple of one; it is not wrapped, for each call would pay for that.
pack_command: Callable[[tuple[Any, ...]], bytes] = cast("Any", hiredis).pack_command


@final
class Lost:
    """Stands for the reply of a command whose connection ended first: it may have been run."""


LOST: Final = Lost()


class Waiting(Protocol):
    """What a command leaves behind. It is told once how it ended, and before that, perhaps,
    that it is late."""

    def settle(self, reply: Any) -> None:
        """The reply, which may be an error of the server (`is_error`), or LOST."""
        ...

    def late(self) -> None:
        """The time is up; the reply may still come."""
        ...


@final
class Ask:
    """Waits with a future for one reply; None when it is late."""

    __slots__ = ("future",)

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.future: asyncio.Future[Any] = loop.create_future()

    def settle(self, reply: Any) -> None:
        if not self.future.done():
            self.future.set_result(reply)

    def late(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


def is_error(reply: object) -> bool:
    """Whether the server refused the command."""
    return isinstance(reply, hiredis.ReplyError)


def items(reply: Any, count: int) -> list[Any] | None:
    """The parts of a reply that has to have so many; None if it has not."""
    fits = type(reply) is list and len(reply) == count  # pyright: ignore[reportUnknownArgumentType]
    return reply if fits else None  # pyright: ignore[reportUnknownVariableType]


@final
class Wire(asyncio.Protocol):
    """An open connection. `on_push` gets every push, `on_late` is called for every command not
    answered within `patience_s` seconds, `on_reply` for each answer in time, all in the loop.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        patience_s: float,
        on_push: Callable[[list[Any]], None],
        on_late: Callable[[], None],
        on_reply: Callable[[], None],
    ) -> None:
        self.closed: asyncio.Future[None] = loop.create_future()
        self._loop = loop
        self._patience_s = patience_s
        self._on_push = on_push
        self._on_late = on_late
        self._on_reply = on_reply
        self._reader = hiredis.Reader(notEnoughData=_INCOMPLETE)
        self._transport: asyncio.Transport | None = None
        self._queue: deque[tuple[float, Waiting]] = deque()
        self._told_late = 0  # how many at the head of the queue know that they are late
        self._unsent: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._full = False

    @property
    def usable(self) -> bool:
        """Whether commands are taken: it is open, and the server keeps up."""
        return self._transport is not None and not self._full and len(self._queue) < _MAX_WAITING

    def expect(self, patience_s: float) -> None:
        """From now on commands are late after so many seconds. Nobody may be waiting."""
        self._patience_s = patience_s
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def send(self, command: bytes, waiting: Waiting | None) -> None:
        """Sends a packed command with all others of this turn of the loop, in order.

        `waiting` None: for a command that is answered by a push.
        """
        if self._transport is None:
            if waiting is not None:
                waiting.settle(LOST)
            return
        if not self._unsent:
            self._loop.call_soon(self.flush)
        self._unsent.append(command)
        if waiting is not None:
            self._queue.append((self._loop.time() + self._patience_s, waiting))
            if self._timer is None:
                self._timer = self._loop.call_later(self._patience_s, self._look_for_late)

    def flush(self) -> None:
        """Sends at once what waits for the end of the turn."""
        if self._unsent and self._transport is not None:
            commands, self._unsent = self._unsent, []
            self._transport.write(b"".join(commands) if len(commands) > 1 else commands[0])

    async def ask(self, *command: str | bytes | float) -> Any:
        """The reply to one command; None when it is late."""
        waiting = Ask(self._loop)
        self.send(pack_command(command), waiting)
        return await waiting.future

    def close(self) -> None:
        """Ends the connection now; whoever waits is told LOST."""
        if self._transport is not None:
            self._transport.abort()
            self._end()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (what makes connections makes these)
        transport.set_write_buffer_limits(_MAX_UNSENT)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            for reply in iter(self._reader.gets, _INCOMPLETE):
                if isinstance(reply, hiredis.PushNotification):
                    if len(reply) > 1:
                        self._on_push(reply)
                else:
                    self._answer(reply)
                if self._transport is None:
                    return
        except hiredis.ProtocolError:
            self.close()
            return
        if self._reader.len() > _MAX_UNREAD:
            self.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        self._end()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False

    def _answer(self, reply: Any) -> None:
        if not self._queue:
            self.close()
            return
        _, waiting = self._queue.popleft()
        if self._told_late:
            self._told_late -= 1
        else:
            self._on_reply()
        if isinstance(reply, hiredis.ReplyError) and _UNFIT.match(str(reply)):
            waiting.settle(reply)
            self.close()
            return
        waiting.settle(reply)

    def _look_for_late(self) -> None:
        self._timer = None
        now = self._loop.time()
        for due, waiting in _from(self._queue, self._told_late):
            if due > now:
                self._timer = self._loop.call_at(due, self._look_for_late)
                return
            self._told_late += 1
            waiting.late()
            self._on_late()
            if self._transport is None:  # that was the last it may do
                return

    def _end(self) -> None:
        if self._transport is None:
            return
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        queue, self._queue = self._queue, deque()
        for _, waiting in queue:
            waiting.settle(LOST)
        self._unsent.clear()
        if not self.closed.done():
            self.closed.set_result(None)


def _from(queue: deque[tuple[float, Waiting]], start: int) -> Iterable[tuple[float, Waiting]]:
    """What stands in the queue from a place on; being told may change it."""
    return [queue[place] for place in range(start, len(queue))]
