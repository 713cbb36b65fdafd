"""What is known of a call of a model before it is sent: how long it is, and how it begins. Pure."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, cast

import msgspec

from paceline.balance.request import ANYTHING, Needs, Request
from paceline.balance.strategies.prefixes import BLOCK_TOKENS
from paceline.call import Call
from paceline.errors import InvalidInputError

__all__ = ["CHARACTERS_A_TOKEN", "blocks_of", "messages_of", "request_of"]

CHARACTERS_A_TOKEN: Final = 4
"""Of English text, on average, with the vocabularies of large models."""

_BLOCK: Final = BLOCK_TOKENS * CHARACTERS_A_TOKEN
_OTHER_TOKENS: Final = 512
"""An image, a sound or a file, roughly."""
_SMALL_WINDOW: Final = 4_096
"""Every model has room for so much."""
_KEY: Final = b"paceline prompt blocks"
_KINDS: Final = {
    "image_url": "image",
    "input_image": "image",
    "image": "image",
    "input_audio": "audio",
    "file": "file",
}

Message = Mapping[str, object]


def messages_of(call: Call) -> list[Message]:
    """The messages of a call: its `messages`, or one of its `query`, after one of its `system` if
    there is that. Raises InvalidInputError where there is neither, or both."""
    given, query = call.arguments.get("messages"), call.arguments.get("query")
    if (given is None) == (query is None):
        raise InvalidInputError(
            f"the call of {call.name} needs either a query or messages",
            next_step='Pass arguments={"query": "..."} or {"messages": [{"role": ...}]}.',
        )
    if given is None:
        found: list[Message] = [{"role": "user", "content": query}]
    elif _are_messages(given):
        found = list(cast("Sequence[Message]", given))
    else:
        raise InvalidInputError(
            f"the messages of the call of {call.name} are not a list of dicts with a role"
        )
    system = call.arguments.get("system")
    return found if system is None else [{"role": "system", "content": system}, *found]


def request_of(call: Call) -> Request:
    """What choosing an instance for a call of a model goes by.

    Tokens are estimated. A context window is asked for in powers of two, and rather too small a one
    than too large: an estimate must not keep a call from what can do it. Calls of a session belong
    together. A call that is none of a model has the affinity alone.
    """
    affinity = call.caller.session or ""
    try:
        messages = messages_of(call)
    except InvalidInputError:
        return Request(affinity=affinity)
    text, others = _text(messages, _tools(call))
    tokens = -(-len(text) // CHARACTERS_A_TOKEN) + _OTHER_TOKENS * len(others)
    most = call.arguments.get("max_completion_tokens", call.arguments.get("max_tokens"))
    output = most if isinstance(most, int) and most > 0 else None
    return Request(
        needs=_needs(tokens + (output or 0), others),
        affinity=affinity,
        blocks=_blocks(text),
        input_tokens=tokens,
        # A limit is not a guess: most answers are far shorter.
        output_tokens=None,
    )


def blocks_of(messages: Iterable[Message], tools: object = None) -> tuple[int, ...]:
    """Hashes of the prompt's blocks of about `BLOCK_TOKENS` tokens, each of all that is before it
    too: prompts have as many of the first in common as they have blocks. What is left of it after
    the last whole block has none. The same in every process."""
    return _blocks(_text(messages, tools)[0])


def _are_messages(given: object) -> bool:
    return isinstance(given, (list, tuple)) and all(
        isinstance(message, dict) and "role" in message for message in cast("list[object]", given)
    )


def _tools(call: Call) -> object:
    return call.arguments.get("tools")


def _needs(tokens: int, others: Sequence[str]) -> Needs:
    window = 0 if tokens <= _SMALL_WINDOW else 1 << (tokens.bit_length() - 1)
    modalities = frozenset({"text", *others}) if others else frozenset[str]()
    return Needs(window, modalities) if window or modalities else ANYTHING


def _blocks(text: str) -> tuple[int, ...]:
    digest = hashlib.blake2b(key=_KEY, digest_size=8)
    found: list[int] = []
    for start in range(0, len(text) - _BLOCK + 1, _BLOCK):
        digest.update(text[start : start + _BLOCK].encode("utf-8", "surrogatepass"))
        found.append(int.from_bytes(digest.copy().digest()))
    return tuple(found)


def _text(messages: Iterable[Message], tools: object) -> tuple[str, list[str]]:
    """The prompt about as a model gets it, tools first; and what is in it that is no text, of which
    the prompt has a short mark."""
    others: list[str] = []
    parts = [] if not tools else [_json(tools)]
    for message in messages:
        parts.append(f"\0{message.get('role')}\0")
        parts.extend(_contents(message.get("content"), others))
        parts.extend(_json(message[name]) for name in ("tool_calls", "name") if message.get(name))
    return "".join(parts), others


def _contents(content: object, others: list[str]) -> Iterator[str]:
    if isinstance(content, str):
        yield content
    elif isinstance(content, (list, tuple)):
        for part in cast("Sequence[object]", content):
            fields: Message = cast("Message", part) if isinstance(part, dict) else {}
            text, kind = fields.get("text"), str(fields.get("type"))
            if isinstance(text, str):
                yield text
            elif fields:
                others.append(_KINDS.get(kind, kind))
                mark = hashlib.blake2b(
                    _json(fields).encode("utf-8", "surrogatepass"), digest_size=16
                )
                yield f"\0{kind}\0{mark.hexdigest()}"


def _json(value: object) -> str:
    """Only compared with itself: what has no form in JSON is as good in any other."""
    try:
        return msgspec.json.encode(value, order="sorted").decode()
    except (TypeError, ValueError, RecursionError, OverflowError):
        return repr(type(value))
