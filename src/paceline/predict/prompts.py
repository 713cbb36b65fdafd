"""What kind of message it is, by its words: no more of it is kept than that."""

import re
from functools import lru_cache
from typing import Final

__all__ = ["name_stems", "stems"]

MOST: Final = 24
"""The words of one message that are looked at."""

_STEM: Final = 6  # letters; cuts most endings off, and needs no list of them
_WORD: Final = re.compile(r"[a-z]+")
_PART: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SCANNED: Final = 2_000  # letters, at most, of a message
_EMPTY: Final = frozenset(
    ["the", "a", "an", "to", "of", "and", "or", "i", "you", "my", "me", "is", "are", "am", "it", "in", "for", "on", "at", "by", "that", "this", "with", "from", "your", "be", "have", "has", "can", "could", "would", "please"]
)  # fmt: skip


def stems(text: str, *, most: int = MOST) -> tuple[str, ...]:
    """The last words of a message, each once, cut to their first letters, in order.

    Words that say nothing and what is not made of letters, such as ids, are left out.
    """
    words = _WORD.findall(text[-_SCANNED:].lower())
    found = dict.fromkeys(word[:_STEM] for word in reversed(words) if word not in _EMPTY)
    return tuple(found)[:most][::-1]


@lru_cache(maxsize=4_096)
def name_stems(name: str) -> frozenset[str]:
    """The words that the name of a tool is made of, such as `get` and `weathe` of `getWeather`."""
    words = (part.lower() for part in _PART.findall(name))
    return frozenset(word[:_STEM] for word in words if word not in _EMPTY)
