"""What a worker and the process that started it say to each other. Pure.

A frame is its length, four bytes, then a message in MessagePack. Arguments and values are in
`paceline.codec`'s form, so that they come out as they went in.
"""

from collections.abc import Iterator
from typing import Final, Generic, TypeVar, final

import msgspec

from paceline.call import Tokens
from paceline.errors import AgentError, Category, PacelineError
from paceline.resources import ResourceUsage

__all__ = [
    "MOST_ARGUMENTS",
    "MOST_BYTES",
    "Answer",
    "Cancel",
    "Done",
    "Failed",
    "Frames",
    "Order",
    "Ping",
    "Pong",
    "Ready",
    "Run",
    "Unusable",
    "Used",
    "failed",
    "frame",
]

T = TypeVar("T")
MOST_BYTES: Final = 64 * 1024**2
"""Of one message."""
MOST_ARGUMENTS: Final = MOST_BYTES - 65_536
"""Of the arguments in one."""
_PREFIX: Final = 4
_encode = msgspec.msgpack.Encoder().encode


class Run(msgspec.Struct, frozen=True, tag=True):
    """Run the function with these arguments; `id` names this run. `by_name`: it has no query, and
    takes the arguments as its annotations have them."""

    id: int
    name: str
    arguments: bytes
    by_name: bool = False


class Cancel(msgspec.Struct, frozen=True, tag=True):
    """Nobody waits for this run any more."""

    id: int


class Ping(msgspec.Struct, frozen=True, tag=True):
    """Are you there?"""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """The function is there."""


class Unusable(msgspec.Struct, frozen=True, tag=True):
    """It is not, and will not be."""

    why: str


class Pong(msgspec.Struct, frozen=True, tag=True):
    """I am."""


class Used(msgspec.Struct, frozen=True, tag=True):
    """A call of a model in this run used so much."""

    id: int
    model: str
    tokens: Tokens
    cost_usd: float | None = None


class Done(msgspec.Struct, frozen=True, tag=True):
    """The run is over; this is its value. `usage` is what the process took meanwhile, if it was
    run by name and nothing else ran."""

    id: int
    value: bytes
    usage: ResourceUsage | None = None


class Failed(msgspec.Struct, frozen=True, tag=True):
    """The run is over, without a value."""

    id: int
    message: str
    next_step: str
    category: Category
    retry_after_s: float | None = None
    usage: ResourceUsage | None = None

    def error(self) -> PacelineError:
        """What is raised for it."""
        return AgentError(
            self.message,
            next_step=self.next_step,
            category=self.category,
            may_have_started=True,
            retry_after_s=self.retry_after_s,
        )


Order = Run | Cancel | Ping
"""What a worker is told."""
Answer = Ready | Unusable | Pong | Used | Done | Failed
"""What it tells."""


def failed(run: int, error: PacelineError) -> Failed:
    """The message for an error."""
    text = (error.message or type(error).__name__).encode("utf-8", "backslashreplace").decode()
    return Failed(run, text, error.next_step, error.category, error.retry_after_s)


def frame(message: Order | Answer) -> bytes:
    """A message as it is sent. Raises ValueError for one that is too large."""
    body = _encode(message)
    if len(body) > MOST_BYTES:
        raise ValueError(f"a message of {len(body)} bytes is larger than {MOST_BYTES}")
    return len(body).to_bytes(_PREFIX) + body


@final
class Frames(Generic[T]):
    """Makes messages of bytes, however those are cut."""

    __slots__ = ("_buffer", "_decode")

    def __init__(self, kind: type[T]) -> None:
        """`kind` is Order or Answer."""
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[T]:
        """Each message that is complete now. Raises ValueError for what is none."""
        buffer = self._buffer
        buffer += data
        while len(buffer) >= _PREFIX:
            end = _PREFIX + int.from_bytes(buffer[:_PREFIX])
            if end > _PREFIX + MOST_BYTES:
                raise ValueError("a message is too large, or is none")
            if len(buffer) < end:
                return
            body = bytes(buffer[_PREFIX:end])
            del buffer[:end]
            try:
                message = self._decode(body)
            except (msgspec.DecodeError, UnicodeDecodeError) as exc:
                raise ValueError("a message cannot be understood") from exc
            yield message
