"""Lines that a person types, waited for without a thread.

The terminal edits the line itself, unless there is an editor. All that is changed about the terminal
here is whether it shows what is typed.
"""

import asyncio
import contextlib
import os
import select
import termios
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol, Self, final

__all__ = ["Edits", "Keyboard", "Typed"]

_MOST: Final = 65_536
_LOCAL: Final = 3
"""Where `termios` has the modes that these are of."""


class Typed(Protocol):
    """Where lines come from."""

    async def line(self, unseen: Callable[[str], object], /) -> str | None:
        """What is typed next; None once no more will come. `unseen` is told what of it was typed
        before now, and has not been shown."""
        ...

    def forget(self) -> None:
        """Takes no account of what was typed before now."""
        ...

    @property
    def begun(self) -> bool:
        """Whether something is known to stand on the line that is waited for."""
        ...


class Edits(Protocol):
    """An editor of lines, as `paceline.cli.chat.editor` has it."""

    @property
    def begun(self) -> bool:
        """Whether something stands on the line that is waited for."""
        ...

    async def edited(self, begun: str, /) -> str | None:
        """What is typed, from what was begun before; None at the end of input."""
        ...

    def shown(self, text: str | None, /) -> str:
        """What is to stand on the screen of a line that was typed, or of the end of input."""
        ...

    def remember(self, text: str, /) -> None:
        """Keeps what was typed."""
        ...

    def ahead(self) -> str:
        """What was read behind the end of a line."""
        ...


@final
class Keyboard:
    """A terminal, by its file descriptor. One line is waited for at a time.

    As a context it takes in what is typed while no line is waited for, and does not have it shown
    then, as it would mix with what is written meanwhile. Left, the terminal is as it was.
    """

    def __init__(self, terminal: int, editor: Edits | None = None) -> None:
        """`editor` has the lines that are waited for edited."""
        self._terminal = terminal
        self._editor = editor
        self._one = asyncio.Lock()
        self._ended = False
        self._ahead: deque[str] = deque()
        self._open = False
        self._silenced = False
        self._begun = ""

    def __enter__(self) -> Self:
        """Has nothing shown from now on, but while a line is waited for."""
        self._open = True
        self._hide()
        return self

    def __exit__(self, *_: object) -> None:
        """Has all shown again."""
        self._open = False
        self._show()

    @property
    def begun(self) -> bool:
        """As promised; of a line that the terminal edits nothing is known."""
        return self._editor is not None and self._editor.begun

    async def line(self, unseen: Callable[[str], object], /) -> str | None:
        """Lines that come at once, as pasted ones do, are one. Cancelled, it waits no more and
        leaves what is typed to the next; not what stands in an editor."""
        async with self._one:  # who was cancelled may still be giving the terminal back
            self._show()
            try:
                text = await self._line(unseen)
            finally:
                self._hide()
        return text

    async def _line(self, unseen: Callable[[str], object]) -> str | None:
        if self._editor is not None:
            return await self._edited(self._editor, unseen)
        if self._ahead:
            text = self._ahead.popleft()
            unseen(text)
            return text.removesuffix("\n")
        begun, self._begun = self._begun, ""
        if begun:
            unseen(begun)
        text = begun + await self._read()
        return text.removesuffix("\n") if text else None

    async def _edited(self, editor: Edits, unseen: Callable[[str], object]) -> str | None:
        text = None
        if self._ahead:
            text = self._ahead.popleft().removesuffix("\n")
        elif not self._ended:
            begun, self._begun = self._begun, ""
            try:
                text = await editor.edited(begun)
            finally:
                self._gather(editor.ahead())
        unseen(editor.shown(text))
        if text is not None:
            editor.remember(text)
        return text

    def forget(self) -> None:
        """As promised; a terminal that is gone holds nothing."""
        self._ahead.clear()
        self._begun = ""
        with contextlib.suppress(termios.error):
            termios.tcflush(self._terminal, termios.TCIFLUSH)

    async def _read(self) -> str:
        loop = asyncio.get_running_loop()
        typed = bytearray()
        while not self._ended:
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(self._terminal, _wake, ready)
            try:
                await ready
            finally:
                loop.remove_reader(self._terminal)
            if self._took(typed):
                break
        return typed.decode(errors="replace")

    def _took(self, typed: bytearray) -> bool:
        """Adds what is there; whether that is all of it."""
        some = self._bytes()
        typed += some
        if not some:
            # The end within a line is the end of that line.
            self._ended = not typed or typed.endswith(b"\n")
            return True
        return typed.endswith(b"\n") and not self._more()

    def _hide(self) -> None:
        """What is typed from now on is taken in line by line, and not shown."""
        if not self._open or self._silenced or not self._is_ours():
            return
        with contextlib.suppress(termios.error):  # the terminal is gone
            modes = termios.tcgetattr(self._terminal)
            if not modes[_LOCAL] & termios.ECHO:  # then we would not know what to give back
                return
            modes[_LOCAL] &= ~termios.ECHO
            termios.tcsetattr(self._terminal, termios.TCSANOW, modes)
            self._silenced = True
            if self._editor is not None:
                # What came between its end and now is no line yet.
                while not self._ended and self._more() and (some := self._bytes()):
                    self._gather(some.decode(errors="replace"))
            asyncio.get_running_loop().add_reader(self._terminal, self._take_in)

    def _show(self) -> None:
        """What is typed from now on is shown."""
        if not self._silenced:
            return
        self._silenced = False
        asyncio.get_running_loop().remove_reader(self._terminal)
        with contextlib.suppress(termios.error):
            while not self._ended and self._more():
                self._take_in()
            modes = termios.tcgetattr(self._terminal)
            local = modes[_LOCAL] | termios.ECHO
            for modes[_LOCAL] in (local & ~termios.ICANON, local):
                termios.tcsetattr(self._terminal, termios.TCSANOW, modes)
            # So what was typed of a line that has no end yet can be read.
            if not self._ended and self._more():
                self._gather(self._bytes().decode(errors="replace"))

    def _take_in(self) -> None:
        typed = bytearray()
        while not self._took(typed) and self._more():
            pass
        if self._ended:
            asyncio.get_running_loop().remove_reader(self._terminal)
        text, self._begun = self._begun + typed.decode(errors="replace"), ""
        if text:
            self._ahead.append(text if text.endswith("\n") else f"{text}\n")

    def _gather(self, text: str) -> None:
        """Takes in text that may end within a line."""
        lines, end, self._begun = (self._begun + text).rpartition("\n")
        if end:
            self._ahead.append(lines + end)

    def _is_ours(self) -> bool:
        """Whether we are not in the background, where changing the terminal would stop us."""
        try:
            return os.tcgetpgrp(self._terminal) == os.getpgrp()
        except OSError:  # nobody's, or gone
            return True

    def _bytes(self) -> bytes:
        try:
            return os.read(self._terminal, _MOST)
        except OSError:  # the terminal is gone
            return b""

    def _more(self) -> bool:
        return bool(select.select([self._terminal], [], [], 0)[0])


def _wake(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
