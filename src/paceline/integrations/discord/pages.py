"""Text in the form that a chat can show: short messages, and nothing in them that acts. Pure.

Sizes are counted in UTF-16 units, of which a text has at least as many as Discord counts
characters.
"""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from paceline.hostexec.text import shorten

__all__ = ["LIMIT", "MOST_PAGES", "Reply", "blocks_reply", "fenced", "pages", "size", "text_reply"]

LIMIT: Final = 2_000
"""Characters of a message."""
MOST_PAGES: Final = 5
"""Messages in one answer: more of them would be all that the channel shows."""

_ALONE: Final = re.compile("`(?=`)")
_APART: Final = "`\u200b"
_SHOWN: Final = frozenset("\n\t\u200d")
"""What is not printable and yet is seen as itself; the last one joins emoji."""
_FENCE: Final = "```"
_WRAP: Final = len(f"{_FENCE}\n\n{_FENCE}")
_REST: Final = "The rest is in the file."
_WHERE: Final = "all of it is in the file"
_NOWHERE: Final = "it is too long for a file, too"


class Reply(msgspec.Struct, frozen=True):
    """An answer: one message for each page, and what did not fit as a file of the first one."""

    pages: tuple[str, ...]
    file: str = ""
    file_name: str = "answer.txt"


def size(text: str) -> int:
    """How long Discord may find it."""
    return len(text) + sum([char > "\uffff" for char in text])


def pages(blocks: Sequence[str], *, limit: int = LIMIT) -> list[str] | None:
    """The blocks, a blank line between them, on as few pages of at most `limit` as their order
    allows.

    A block stays whole if one page can hold it; else it ends between two lines. None if a line
    is longer than a page, because lines are never cut.
    """
    found: list[str] = []
    for block in blocks:
        for part in _parts(block, limit):
            if size(part) > limit:
                return None
            joined = f"{found[-1]}\n\n{part}" if found else part
            if found and size(joined) <= limit:
                found[-1] = joined
            else:
                found.append(part)
    return found


def _parts(block: str, limit: int) -> list[str]:
    """The block if it fits on a page, else as many of its lines at a time as do."""
    if size(block) <= limit:
        return [block]
    parts: list[str] = []
    for line in block.split("\n"):
        joined = f"{parts[-1]}\n{line}" if parts else line
        if parts and size(joined) <= limit:
            parts[-1] = joined
        else:
            parts.append(line)
    return parts


def blocks_reply(blocks: Sequence[str], *, file_name: str) -> Reply:
    """The blocks as they are, over several pages if need be; what is more than `MOST_PAGES` takes
    is all in a file, and the first page beside it."""
    found = pages(blocks)
    if found is not None and len(found) <= MOST_PAGES:
        return Reply(tuple(found))
    first = (pages(blocks, limit=LIMIT - size(_REST) - 2) or [""])[0]
    return Reply((f"{first}\n\n{_REST}".strip(),), "\n\n".join(blocks), file_name)


def text_reply(text: str, *, file_name: str, file_bytes: int) -> Reply:
    """A text from elsewhere on one page, with its beginning and end if it is longer, and then all
    of it as a file, unless that had more than `file_bytes`."""
    whole = fenced(text, limit=None)
    if size(whole) <= LIMIT:
        return Reply((whole,))
    if len(text.encode("utf-8", "backslashreplace")) > file_bytes:
        return Reply((fenced(text, where=_NOWHERE),))
    return Reply((fenced(text, where=_WHERE),), text, file_name)


def fenced(text: str, *, limit: int | None = LIMIT, where: str = "") -> str:
    """The text as a block of code that it cannot end, in at most `limit`.

    Backticks that touch are set apart by a character that is not seen, and control characters
    are written out.
    """
    harmless = _ALONE.sub(_APART, _visible(text.replace("\r\n", "\n").strip("\n")))
    shown = harmless
    if limit is not None:
        room, most = limit - _WRAP, len(harmless)
        while (over := size(shown) - room) > 0:
            most = min(most, len(shown)) - over
            shown = shorten(harmless, most, where=where)
    return f"{_FENCE}\n{shown}\n{_FENCE}"


def _visible(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char in _SHOWN
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
