"""A session as it is asked for: what it is given, checked before anything is opened."""

import difflib
import reprlib
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Final,
    Literal,
    NamedTuple,
    NoReturn,
    Protocol,
    TypedDict,
    cast,
    final,
)

from paceline.engine.pipeline import ToolPipeline
from paceline.engine.session import Session
from paceline.engine.states import ResourceLimits
from paceline.errors import InvalidInputError, UsageError
from paceline.models.model import is_model
from paceline.tools.spec import ToolSpec

if TYPE_CHECKING:
    from paceline.models.model import Model

__all__ = ["Host", "OpeningSession", "SessionOptions", "check_options"]


class SessionOptions(TypedDict, total=False):
    """Options of a session.

    `model` is the name of one or the model itself, and `fallback` the names of those that are asked
    in turn when it cannot answer; by default those of the settings. `tools` are names (patterns with
    `*` and `?`) of tools and agents, functions, or tools themselves; by default all tools that were
    registered or are of MCP servers, and no agents. `approve` are patterns of those that a person is
    asked about before each run, besides those that say so themselves; by default those of the
    settings. `system` is told to the model before everything else. `compact` says what stands for turns
    that it is no longer shown: "digest", or "model" for a summary that it is asked for; by default as in
    the settings. `keep` says whether the session can be gone on with later; `resume` that it is to go on with
    what was said before in the one of this id. `workspace` is the directory that relative paths of
    tools belong to. A `pipeline` is one that is shared with others, and has tools of its own: `tools`
    and `approve` are not for it.
    """

    model: "str | Model | None"
    fallback: Sequence[str] | None
    tools: Sequence[str | Callable[..., object] | ToolSpec] | None
    approve: Sequence[str] | None
    system: str | None
    compact: Literal["digest", "model"] | None
    user: str | None
    tenant: str | None
    limits: ResourceLimits | None
    keep: bool | None
    resume: bool
    workspace: str
    pipeline: ToolPipeline | None


class Host(Protocol):
    """What opens sessions, and shuts them down."""

    async def enter(self, session_id: str | None, options: SessionOptions) -> Session:
        """A session, opened. Raises PacelineError."""
        ...

    async def leave(self, session: Session, *, drain: bool) -> None:
        """Shuts down one that it opened; the turn that runs may end before if `drain`."""
        ...


@final
class OpeningSession:
    """A session that is opened by `async with`, and shut down when that is left."""

    __slots__ = ("_host", "_options", "_session", "_session_id")

    def __init__(self, host: Host, session_id: str | None, options: SessionOptions) -> None:
        """Opens nothing yet."""
        self._host = host
        self._session_id = session_id
        self._options: SessionOptions | None = options
        self._session: Session | None = None

    async def __aenter__(self) -> Session:
        """Raises what `Sessions.open` raises, and UsageError where it was entered before."""
        options, self._options = self._options, None
        if options is None:
            raise UsageError("the session was opened before", next_step="Open another one.")
        session = self._session = await self._host.enter(self._session_id, options)
        return session

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._session is not None:
            session, self._session = self._session, None
            await self._host.leave(session, drain=error is None)

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


def _compacts(value: object) -> bool:
    return value is None or value in ("digest", "model")


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
    "compact": _Wanted(_compacts, '"digest" or "model"'),
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
