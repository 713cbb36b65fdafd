"""Lines that are edited as they are typed, with what was typed before; prompt_toolkit does the work.

Imported only where a person types at a terminal: it loads a lot.
"""

import select
import signal
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, TextIO, final

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.data_structures import Size
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.input.typeahead import get_typeahead
from prompt_toolkit.input.vt100 import Vt100Input
from prompt_toolkit.key_binding import KeyBindings, KeyPress, KeyPressEvent
from prompt_toolkit.keys import Keys
from prompt_toolkit.output import ColorDepth
from prompt_toolkit.output.vt100 import Vt100_Output
from prompt_toolkit.shortcuts import CompleteStyle

from paceline.cli.screen import size_of

if TYPE_CHECKING:
    from prompt_toolkit.application import Application

__all__ = ["Editor"]

_ENDS: Final = frozenset({Keys.ControlM, Keys.ControlJ})
_CONTINUED: Final = "  "


@final
class Editor:
    """Asks at a terminal, one thing at a time.

    Once something is typed, or is not waited for any longer, nothing of it is left on the screen.
    """

    def __init__(
        self,
        keys: TextIO,
        screen: TextIO,
        *,
        commands: Sequence[str],
        typed: Sequence[str],
        keep: Callable[[str], object],
    ) -> None:
        """`typed` was typed before, oldest first, and `keep` is told of each message. `commands` are
        completed."""
        self._terminal = keys.fileno()
        self._keep = keep
        self._input = Vt100Input(keys)
        self._output = Vt100_Output(
            screen,
            lambda: _size(screen),
            default_color_depth=ColorDepth.DEPTH_1_BIT,
            enable_bell=False,
            enable_cpr=False,  # the answer would be taken for something that was typed
        )
        self._messages = self._session(InMemoryHistory(typed))
        self._messages.completer = WordCompleter(list(commands), sentence=True)
        self._answers = self._session(InMemoryHistory())
        self._prompt = ""
        self._asked = self._messages
        self._running: Application[str] | None = None

    @property
    def asks(self) -> bool:
        """Whether something is waited for right now."""
        return self._running is not None

    @property
    def begun(self) -> bool:
        """Whether something stands on the line that is waited for."""
        return self._running is not None and bool(self._asked.default_buffer.text)

    def prepare(self, prompt: str, *, message: bool) -> None:
        """What is asked next. Only a message can be one of those that were typed before."""
        self._prompt = prompt
        self._asked = self._messages if message else self._answers

    async def edited(self, begun: str) -> str | None:
        """What is typed; None at the end of input. It begins with what was `begun` before."""
        asked = self._asked
        self._running = asked.app
        try:
            text = await asked.prompt_async(
                self._prompt, default=begun, set_exception_handler=False, handle_sigint=False
            )
        except EOFError:
            return None
        finally:
            self._running = None
        return text.encode(errors="surrogateescape").decode(errors="replace").rstrip("\n")

    def shown(self, text: str | None) -> str:
        """What stands on the screen of a line that was typed, and of the end of input."""
        return self._prompt if text is None else f"{self._prompt}{text}\n"

    def remember(self, text: str) -> None:
        """Keeps what was typed, if it is a message."""
        if self._asked is not self._messages or not text.strip():
            return
        history = self._messages.history
        if history.get_strings()[-1:] != [text]:  # it was not typed to the editor
            history.append_string(text)
        self._keep(text)

    def ahead(self) -> str:
        """What was read behind the end of a line."""
        return "".join(_character(press) for press in get_typeahead(self._input))

    @contextmanager
    def lifted(self) -> Generator[bool]:
        """Takes what is typed off the screen, so that something can be written above it, and puts
        it back; whether there was anything to be put back."""
        running = self._running
        if running is None:
            yield False
            return
        running.renderer.erase()
        try:
            yield True
        finally:
            running.invalidate()

    def _session(self, history: InMemoryHistory) -> "PromptSession[str]":
        session: PromptSession[str] = PromptSession(
            history=history,
            key_bindings=self._bindings(),
            complete_style=CompleteStyle.READLINE_LIKE,
            complete_while_typing=False,
            reserve_space_for_menu=0,
            prompt_continuation=_CONTINUED,
            enable_suspend=True,
            erase_when_done=True,
            input=self._input,
            output=self._output,
        )
        session.app.terminal_size_polling_interval = None  # it is told by a signal
        return session

    def _bindings(self) -> KeyBindings:
        keys = KeyBindings()

        @keys.add("c-c", eager=True)
        def _(_: KeyPressEvent) -> None:
            signal.raise_signal(signal.SIGINT)  # as the terminal itself has it

        @keys.add("enter", filter=Condition(self._more_comes), eager=True)
        @keys.add("escape", "enter")
        def _(event: KeyPressEvent) -> None:
            event.current_buffer.insert_text("\n")

        return keys

    def _more_comes(self) -> bool:
        """Whether text stands right behind, as in what is pasted at a terminal that does not say so."""
        queue = self._asked.app.key_processor.input_queue
        if queue:
            return bool(_character(queue[0]))
        return bool(select.select([self._terminal], [], [], 0)[0])


def _character(press: KeyPress) -> str:
    """The text of a key; nothing for one that has none."""
    if press.key in _ENDS:
        return "\n"
    if press.key == Keys.BracketedPaste:
        return press.data.replace("\r\n", "\n").replace("\r", "\n")
    return press.key if len(press.key) == 1 else ""


def _size(screen: TextIO) -> Size:
    columns, rows = size_of(screen)
    return Size(rows=rows, columns=columns)
