"""A whole reply in the parts in which it could have come. Pure."""

import re
from collections.abc import Iterator
from typing import Final

from paceline.messages import ModelReply, TextPart, UsePart

__all__ = ["parts_of"]

_WORD: Final = re.compile(r"\s*\S+\s*|\s+")


def parts_of(reply: ModelReply) -> Iterator[TextPart | UsePart]:
    """The text word by word, of which the sum is the text, and then each tool use."""
    for word in _WORD.finditer(reply.text):
        yield TextPart(word[0])
    for use in reply.uses:
        yield UsePart(use)
