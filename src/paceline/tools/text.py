"""What a model is told of a tool's value. Pure."""

import json
from typing import Final, Protocol, cast, runtime_checkable

import msgspec

__all__ = ["Readable", "shortened", "told"]

_encode = msgspec.json.Encoder().encode
_HEAD: Final = 0.7
"""The share of what is kept that is from the beginning: most of what tools say stands there."""


@runtime_checkable
class Readable(Protocol):
    """A value that says itself how it reads."""

    def for_model(self) -> str:
        """As a model is told it."""
        ...


def told(value: object, most: int) -> str:
    """The value as text of at most `most` characters, 0 for no limit.

    A text is itself, and a Readable what it says of itself; all else is JSON; what has no form in JSON
    is what Python writes for it. Too long a text loses its middle, and says so there.
    """
    return shortened(_text(value), most)


def shortened(text: str, most: int) -> str:
    """Its head and tail with a note between them of how much is left out, `most` characters in all;
    0 is no limit. Where there is no room for the note it is the head alone."""
    if not 0 < most < len(text):
        return text
    # The number has no more digits than that of all characters.
    room = most - len(_note(len(text)))
    if room <= 0:
        return text[:most]
    head = int(room * _HEAD)
    tail = len(text) - (room - head)
    return f"{text[:head]}{_note(tail - head)}{text[tail:]}"


def _note(characters: int) -> str:
    return f"\n[... {characters:,} characters left out ...]\n"


def _text(value: object) -> str:
    if not isinstance(value, str):
        value = _said(value) or _json(value)
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a pair, which no model can be sent
        return value.encode("utf-8", "backslashreplace").decode()
    return value


def _said(value: object) -> str:
    """What the value says of itself; nothing if that is no text."""
    try:
        # As isinstance(value, Readable), which takes longer than all else here.
        say: object = getattr(value, "for_model", None)
        if say is None or isinstance(value, type):
            return ""
        said: object = cast("Readable", value).for_model()
    # Values are of any type, and this runs their own code.
    except Exception:  # noqa: BLE001
        return ""
    return said if isinstance(said, str) else ""


def _json(value: object) -> str:
    try:
        return _encode(value).decode()
    # Values are of any type, and reading them runs their own code.
    except Exception:  # noqa: BLE001
        return _other(value)


def _other(value: object) -> str:
    """JSON with the parts that have no form there as Python writes them; else the type's name."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=repr)
    # As above; besides, a value can contain itself.
    except Exception:  # noqa: BLE001
        return f"<{type(value).__qualname__}>"
