"""What a session wants to be asked and told while its tools run."""

from collections.abc import Awaitable, Callable
from typing import Final, Protocol, final

import msgspec

from paceline.engine.protocols import Preparation
from paceline.engine.states import ToolCall

__all__ = ["NO_HOOKS", "Hooked", "Hooks", "Screening"]


class Screening(Protocol):
    """What loop detection says of a call (see `engine.loops`)."""

    @property
    def text(self) -> str | None:
        """What the model is told instead of running it; None to go on."""
        ...

    @property
    def refused(self) -> bool:
        """Whether that text says why it is not run, and is not a result of it."""
        ...


class Hooked(Protocol):
    """`Hooks`, or what has the same of its own: a turn is asked itself, without an object for it."""

    @property
    def screen(self) -> Callable[[Preparation], Screening] | None: ...

    @property
    def approve(self) -> Callable[[str, Preparation], Awaitable[str | None]] | None: ...

    @property
    def ask(self) -> Callable[[str, Preparation], Awaitable[str]] | None: ...

    @property
    def begin(self) -> Callable[[str, Preparation], Awaitable[None]] | None: ...

    @property
    def changed(self) -> Callable[[ToolCall], object] | None: ...

    @property
    def ended(self) -> Callable[[Preparation, ToolCall], object] | None: ...


@final
class Hooks(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """Each may be left out. Calls are named by the id of their `ToolCall`.

    `screen` is asked once for each call, before anybody else. `approve` returns None if a person
    agrees to a call, else why not, maybe ""; `ask` the user's answer to a question. Without them
    such calls are rejected. `begin` is awaited last before a tool runs, which does so only if it
    returns. `changed` is told of every change of a call, and `ended` once of each that could have
    been run, with what came of it; both return at once, and what they raise is logged.
    """

    screen: Callable[[Preparation], Screening] | None = None
    approve: Callable[[str, Preparation], Awaitable[str | None]] | None = None
    ask: Callable[[str, Preparation], Awaitable[str]] | None = None
    begin: Callable[[str, Preparation], Awaitable[None]] | None = None
    changed: Callable[[ToolCall], object] | None = None
    ended: Callable[[Preparation, ToolCall], object] | None = None


NO_HOOKS: Final = Hooks()
