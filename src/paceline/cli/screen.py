"""A terminal taken over for a live view, and given back as it was, whatever happens."""

import contextlib
import os
import sys
import termios
import tty
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self, TextIO, final

from paceline.cli.views import ASCII, BLOCKS, Line, Marks

__all__ = ["Screen", "can_move", "marks_for", "size_of"]

_ENTER: Final = "\x1b[?1049h\x1b[?25l"
_LEAVE: Final = "\x1b[?25h\x1b[?1049l"
_ERASE_LINE: Final = "\x1b[2K"
_PLAIN: Final = "\x1b[0m"
_STYLES: Final = {"title": "\x1b[1m", "head": "\x1b[1m", "dim": "\x1b[2m", "bad": "\x1b[31m"}
_ESCAPE: Final = "\x1b"
_MOST_KEYS: Final = 256


def can_move(environ: Mapping[str, str], out: TextIO) -> bool:
    """Whether this is a terminal whose cursor can be moved."""
    return out.isatty() and environ.get("TERM", "dumb") not in ("", "dumb", "unknown")


def marks_for(out: TextIO) -> Marks:
    """Blocks where the output can show them."""
    try:
        (BLOCKS.steps + BLOCKS.cut).encode(out.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return ASCII
    return BLOCKS


def size_of(out: TextIO) -> tuple[int, int]:
    """Columns and lines of a terminal; those of old where it does not say."""
    try:
        columns, lines = os.get_terminal_size(out.fileno())
    except OSError:
        return 80, 24
    return columns or 80, lines or 24


@final
class Screen:
    """The whole of a terminal, as a context: keys come one by one and are not shown.

    Leaving it, in whatever way, brings back what was there. Where standard input is no terminal
    there are no keys.
    """

    def __init__(self, environ: Mapping[str, str], out: TextIO) -> None:
        self._out = out
        self._colours = not environ.get("NO_COLOR")
        self._marks = marks_for(out)
        self._before: list[Any] | None = None
        self.keys: int | None = sys.stdin.fileno() if _is_terminal(sys.stdin) else None
        """Where keys are read from."""

    @property
    def marks(self) -> Marks:
        """What is drawn with."""
        return self._marks

    @property
    def size(self) -> tuple[int, int]:
        """Columns and lines."""
        return size_of(self._out)

    def __enter__(self) -> Self:
        """Takes the terminal over."""
        self.enter()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Gives it back."""
        self.leave()

    def enter(self) -> None:
        """Takes the terminal over."""
        if self.keys is not None:
            self._before = termios.tcgetattr(self.keys)
            tty.setcbreak(self.keys)
        try:
            self._write(_ENTER)
        except BaseException:
            self._restore_keys()
            raise

    def leave(self) -> None:
        """Gives the terminal back; one that is gone by now needs nothing."""
        try:
            with contextlib.suppress(OSError):
                self._write(_LEAVE)
        finally:
            self._restore_keys()

    def draw(self, lines: Sequence[Line]) -> None:
        """Shows these lines in place of what is there."""
        _, height = self.size
        shown = [*lines, *[Line("")] * (height - len(lines))][:height]
        # Erased before they are written: behind a line as wide as the screen, its end would be.
        drawn = "\r\n".join([_ERASE_LINE + self._styled(line) for line in shown])
        self._write(f"\x1b[H{drawn}")

    def read_keys(self) -> str | None:
        """The characters that were typed; None once no more will come."""
        if self.keys is None:
            return None
        try:
            typed = os.read(self.keys, _MOST_KEYS)
        except OSError:  # the terminal is gone
            return None
        # A key that is no character is told by several, of which the first is this.
        return typed.decode(errors="ignore").partition(_ESCAPE)[0] if typed else None

    def _styled(self, line: Line) -> str:
        style = _STYLES.get(line.style, "")
        if not style or (line.style == "bad" and not self._colours):
            return line.text
        return f"{style}{line.text}{_PLAIN}"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()

    def _restore_keys(self) -> None:
        if self.keys is not None and self._before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self.keys, termios.TCSADRAIN, self._before)


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()
