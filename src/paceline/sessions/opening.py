"""A session as it is asked for: what it is given, checked before anything is opened."""

import difflib
import reprlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Final, NamedTuple, NoReturn, cast, final

from paceline.engine.pipeline import ToolPipeline
from paceline.engine.session import Session
from paceline.engine.states import ResourceLimits
from paceline.errors import InvalidInputError, UsageError
from paceline.models.model import is_model

__all__ = ["OpeningSession", "check_options"]


@final
class OpeningSession:
    """A session that is opened by `async with`, and shut down when that is left."""

    __slots__ = ("_opened",)

    def __init__(self, opened: AbstractAsyncContextManager[Session]) -> None:
        """`opened` opens it and shuts it down."""
        self._opened = opened

    async def __aenter__(self) -> Session:
        """Raises what `Sessions.open` raises."""
        return await self._opened.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool | None:
        return await self._opened.__aexit__(kind, error, trace)

    def __enter__(self) -> NoReturn:
        """Raises UsageError: it is opened by `async with`."""
        raise _not_open()

    def __exit__(self, *_: object) -> None:
        """For `with`, which asks for it before it calls `__enter__`."""

    def __await__(self) -> NoReturn:
        """Raises UsageError, as `__enter__`."""
        raise _not_open()

    def send(self, *_: object, **__: object) -> NoReturn:
        """Raises UsageError: messages are sent to what `async with` gives."""
        raise _not_open()

    stream = send


class _Wanted(NamedTuple):
    """What an option has to be."""

    fits: Callable[[object], bool]
    words: str


def check_options(session_id: object, options: Mapping[str, object]) -> None:
    """Raises InvalidInputError for an option that there is not, or that is of another type."""
    for name, value in (("session_id", session_id), *options.items()):
        wanted = _OPTIONS.get(name)
        if wanted is None:
            near = difflib.get_close_matches(name, _OPTIONS, 1)
            meant = f"Did you mean {near[0]}? " if near else ""
            raise InvalidInputError(
                f"a session has no option {name!r}",
                next_step=f"{meant}There are: {', '.join(_OPTIONS)}.",
            )
        if not wanted.fits(value):
            raise InvalidInputError(
                f"{name} is {reprlib.repr(value)}, of type {type(value).__name__}",
                next_step=f"Give {wanted.words}.",
            )


def _any_of(*kinds: type) -> Callable[[object], bool]:
    return lambda value: value is None or isinstance(value, kinds)


def _texts(value: object) -> bool:
    if value is None:
        return True
    return _several(value) and all(isinstance(one, str) for one in cast("Sequence[object]", value))


def _several(value: object) -> bool:
    return value is None or (isinstance(value, Sequence) and not isinstance(value, (str, bytes)))


def _answers(value: object) -> bool:
    return value is None or isinstance(value, str) or is_model(value)


_TEXT: Final = _Wanted(_any_of(str), "a text")
_YES: Final = _Wanted(_any_of(bool), "True or False")
_OPTIONS: Final = {
    "session_id": _TEXT,
    "model": _Wanted(_answers, "the name of a model, or a paceline.models.Model itself"),
    "fallback": _Wanted(_texts, "a list of names of models"),
    "tools": _Wanted(_several, "a list of names, functions and tools"),
    "approve": _Wanted(_texts, "a list of names or patterns of tools"),
    "system": _TEXT,
    "user": _TEXT,
    "tenant": _TEXT,
    "limits": _Wanted(_any_of(ResourceLimits), "ResourceLimits(max_steps=..., ...)"),
    "keep": _YES,
    "resume": _YES,
    "workspace": _TEXT,
    "pipeline": _Wanted(_any_of(ToolPipeline), "a ToolPipeline"),
}


def _not_open() -> UsageError:
    return UsageError(
        "the session is not open",
        next_step="Write `async with runtime.session(...) as session:`, and use `session`.",
    )
