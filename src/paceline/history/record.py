"""What a history keeps of a call, and how it is taken without holding the call up.

`capture` runs where calls run and takes what could change later; `Capture.record` does the
costly rest (hashing, redaction) and may run on another thread. A short value that nobody can
change is kept as it is; any other is encoded at once, and if its encoding is long, of that only
the hash is kept: captures may wait in great numbers. What is so large that encoding it would be
felt is not encoded at all.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Final, cast

import msgspec

from paceline.call import SPECULATED, Call, Kind, Outcome, ScopeLevel, Source, Tokens
from paceline.clock import Clock
from paceline.codec import IMMUTABLE, decode, encode
from paceline.errors import Category, CodecError, PacelineError
from paceline.redaction import Redactor

__all__ = [
    "AHEAD",
    "REFRESH",
    "Bill",
    "Capture",
    "Facts",
    "Record",
    "capture",
    "record",
    "storable",
]

AHEAD: Final = "-ahead"
"""How the ids of calls end that were made ahead, by nobody's request."""
REFRESH: Final = "-refresh"
"""How those end that compute a result anew which is still served."""

_MAX_PARTS: Final = 2_000
"""A value is encoded while its call waits if it has no more parts than this, each 1,024 characters
of text being one (a millisecond or two of work)."""
_MAX_INPUT: Final = 16 * 1024
"""Longer inputs are not shown; longer values and encodings are not kept until they are hashed."""
_MAX_MESSAGE: Final = 2_000
_TEXT_PER_PART: Final = 1_024
_SHARERS: Final[dict[ScopeLevel, tuple[str, ...]]] = {
    ScopeLevel.GLOBAL: (),
    ScopeLevel.TENANT: ("tenant",),
    ScopeLevel.USER: ("tenant", "user"),
    ScopeLevel.SESSION: ("tenant", "user", "session"),
}


class _Encoded(msgspec.Struct, frozen=True, gc=False):
    """What is known of a value: its encoding's hash and size, and if it is short the encoding."""

    hash: str | None = None
    size: int | None = None
    data: bytes | None = None


_Later = Callable[[], _Encoded]
_NO_ARGUMENTS: Final[Mapping[str, object]] = {}


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What statistics need to know of a recorded call; the words are those of `Record`."""

    name: str
    kind: Kind
    source: Source
    category: Category | None
    instead_of: Category | None
    attempts: int
    queue_ns: int
    execute_ns: int
    total_ns: int
    saved_ns: int
    error_type: str | None
    message: str | None
    tokens: Tokens | None
    cost_usd: float | None
    price_usd: float
    at_ns: int
    raw_usd: float | None
    unpriced: int
    saved_usd: float | None
    speculated: bool


class Bill(msgspec.Struct, frozen=True, gc=False):
    """What calls of one agent for one user cost on one day of UTC: tokens of input and output, and
    money without discounts. `at_ns` is when the last of them ended, by the wall clock."""

    name: str
    user: str | None
    tenant: str | None
    tokens: int
    raw_usd: float
    at_ns: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """One call. Times in nanoseconds; secrets are masked in `input` and `message`.

    `input` is the arguments as a JSON object; None if inputs are not kept, or this one is over
    16 KiB or not plain data. Hashes are BLAKE2b (128 bits, hex) of the encoded value, and with
    `output_bytes`, its encoded size, None where it has no encoding or is too large to take one
    in passing. `category`, `message` and `error_type` (the qualified name of what caused it) are
    of the error, None for a value. Where a fallback answered in place of an error, `instead_of` is its
    category, and message and type are of that one. `link` is the call whose work or result this one got;
    `saved_ns` what executing that took; `price_usd` what one execution costs by its plan.
    """

    id: str
    trace: str
    parent: str | None
    kind: Kind
    name: str
    user: str | None
    session: str | None
    tenant: str | None
    scope: ScopeLevel
    input: str | None
    input_hash: str | None
    output_hash: str | None
    output_bytes: int | None
    source: Source
    instance: str
    attempts: int
    queue_ns: int
    execute_ns: int
    total_ns: int
    category: Category | None
    message: str | None
    tokens_input: int | None
    tokens_output: int | None
    tokens_cached: int | None
    cost_usd: float | None
    at_ns: int
    """When the outcome was there, by the wall clock."""
    link: str | None = None
    error_type: str | None = None
    saved_ns: int = 0
    price_usd: float = 0.0
    tokens_written: int | None = None
    tokens_reasoning: int | None = None
    raw_usd: float | None = None
    unpriced: int = 0
    saved_usd: float | None = None
    instead_of: Category | None = None

    @property
    def start_ns(self) -> int:
        """When it was asked for, by the wall clock."""
        return self.at_ns - self.total_ns

    @property
    def asked(self) -> bool:
        """Whether somebody waited for it: it was not made ahead, nor anew while the old one
        served."""
        return not self.id.endswith((AHEAD, REFRESH, SPECULATED))

    @property
    def speculated(self) -> bool:
        """Whether it was made because somebody might ask for the same."""
        return self.id.endswith(SPECULATED)

    @property
    def sharers(self) -> tuple[str | None, ...]:
        """What those who share its result have in common, and with others not."""
        return (self.scope, *[getattr(self, field) for field in _SHARERS[self.scope]])

    @property
    def run(self) -> str:
        """The id of the run it is part of: its trace; its own where it has none."""
        return self.trace or self.id

    @property
    def tokens(self) -> Tokens | None:
        """Model tokens, by kind; None where no model said."""
        if self.tokens_input is None:
            return None
        return Tokens(
            self.tokens_input,
            self.tokens_output or 0,
            self.tokens_cached or 0,
            self.tokens_written or 0,
            self.tokens_reasoning or 0,
        )

    @property
    def facts(self) -> Facts:
        """What statistics need to know of it."""
        return Facts(*[getattr(self, name) for name in Facts.__struct_fields__])

    @property
    def trouble(self) -> Category | None:
        """What kind of error it came to, also where a fallback answered in its place."""
        return self.category or self.instead_of

    @property
    def failed(self) -> bool:
        """Whether it ended in an error other than being cancelled."""
        return self.category not in (None, Category.CANCELLED)


class Capture(msgspec.Struct, frozen=True):
    """A finished call from which a record can be made at any later time, on any thread."""

    call: Call
    """With its arguments only if nobody can change them."""
    outcome: Outcome
    """With its value only if nobody can change it, and without its error."""
    at_ns: int
    arguments: _Later | None
    value: _Later | None
    """What is to be known of them; None where they are still there."""
    category: Category | None
    message: str | None
    error_type: str | None
    instead_of: Category | None = None

    def record(self, redactor: Redactor, *, keep_inputs: bool) -> Record:
        """The record of the call."""
        call, outcome = self.call, self.outcome
        arguments = _read(dict(call.arguments)) if self.arguments is None else self.arguments()
        value = _read(outcome.value) if self.value is None else self.value()
        tokens = outcome.tokens
        return Record(
            id=storable(call.id),
            trace=storable(call.trace_id),
            parent=_optional(call.parent_id),
            kind=call.kind,
            name=storable(call.name),
            user=_optional(call.caller.user),
            session=_optional(call.caller.session),
            tenant=_optional(call.caller.tenant),
            scope=call.scope.level,
            input=_shown(arguments.data, redactor) if keep_inputs else None,
            input_hash=arguments.hash,
            output_hash=value.hash,
            output_bytes=value.size,
            source=outcome.source,
            instance=storable(outcome.instance),
            attempts=outcome.attempts,
            queue_ns=outcome.queue_ns,
            execute_ns=outcome.execute_ns,
            total_ns=outcome.total_ns,
            category=self.category,
            message=None if self.message is None else _masked(self.message, redactor),
            tokens_input=None if tokens is None else tokens.input,
            tokens_output=None if tokens is None else tokens.output,
            tokens_cached=None if tokens is None else tokens.cached_input,
            cost_usd=outcome.cost_usd,
            at_ns=self.at_ns,
            link=storable(outcome.link) or None,
            error_type=_optional(self.error_type),
            saved_ns=outcome.saved_ns,
            price_usd=call.plan.cost_usd,
            tokens_written=None if tokens is None else tokens.cache_write,
            tokens_reasoning=None if tokens is None else tokens.reasoning,
            raw_usd=outcome.raw_usd,
            unpriced=outcome.unpriced,
            saved_usd=outcome.saved_usd,
            instead_of=self.instead_of,
        )


def capture(call: Call, outcome: Outcome, clock: Clock) -> Capture:
    """What `Capture.record` needs, whatever is done to arguments and value from now on."""
    error = outcome.error
    seen = error or outcome.instead_of
    if seen is None and _can_wait(outcome.value) and _can_wait(*call.arguments.values()):
        return Capture(call, outcome, clock.wall_ns(), None, None, None, None, None)
    return Capture(
        msgspec.structs.replace(call, arguments=_NO_ARGUMENTS),
        msgspec.structs.replace(outcome, value=None, error=None, instead_of=None),
        clock.wall_ns(),
        _hold_arguments(call.arguments),
        _hold(outcome.value) if error is None else _Encoded,
        None if error is None else error.category,
        None if seen is None else _bounded(seen),
        None if seen is None else _type_of(seen),
        None if seen is error or seen is None else seen.category,
    )


def record(
    call: Call, outcome: Outcome, *, clock: Clock, redactor: Redactor, keep_inputs: bool
) -> Record:
    """The record of a call that has just finished; see `capture` to make it later."""
    return capture(call, outcome, clock).record(redactor, keep_inputs=keep_inputs)


def storable(text: str) -> str:
    """The text with what UTF-8 has no form for (lone surrogates) written out."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _optional(text: str | None) -> str | None:
    return None if text is None else storable(text)


def _hold_arguments(arguments: Mapping[str, object]) -> _Later:
    held = dict(arguments)
    if _can_wait(*held.values()):
        return partial(_read, held)
    return _hold(held)


def _hold(value: object) -> _Later:
    """What is to be known of a value: found out later if that can wait, else now."""
    if _can_wait(value):
        return partial(_read, value)
    data = _encode(value) if _is_small(value) else None
    if data is None or len(data) <= _MAX_INPUT:
        return partial(_known, data)
    known = _known(data)
    return lambda: known


def _can_wait(*values: object) -> bool:
    """Whether nobody can change these values, and they are short."""
    length = 0
    for value in values:
        kind = type(value)
        if kind is str or kind is bytes:
            length += len(cast("str", value))
        elif kind not in IMMUTABLE:
            return False
    return length <= _MAX_INPUT


def _read(value: object) -> _Encoded:
    return _known(_encode(value))


def _known(data: bytes | None) -> _Encoded:
    if data is None:
        return _Encoded()
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    return _Encoded(digest, len(data), data if len(data) <= _MAX_INPUT else None)


def _encode(value: object) -> bytes | None:
    kind = type(value)
    record = issubclass(kind, msgspec.Struct) or dataclasses.is_dataclass(kind)
    try:
        return encode(value, kind if record else None)
    except CodecError:
        return None


def _is_small(value: object) -> bool:
    left = _MAX_PARTS
    waiting = [value]
    while waiting:
        part = waiting.pop()
        parts: Iterable[object] = ()
        if isinstance(part, dict):
            items = cast("dict[object, object]", part)
            parts = (*items.keys(), *items.values()) if len(items) <= left else ()
            left -= 2 * len(items)
        elif isinstance(part, (list, tuple, set, frozenset)):
            parts = cast("Iterable[object]", part)
            left -= len(part)  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(part, (str, bytes)):
            left -= len(part) // _TEXT_PER_PART
        if left < 0:
            return False
        waiting.extend(parts)
    return True


def _shown(arguments: bytes | None, redactor: Redactor) -> str | None:
    """The arguments as JSON. Masked before they become JSON: escapes could hide a secret."""
    if arguments is None:
        return None
    try:
        return msgspec.json.encode(redactor.data(decode(arguments))).decode()
    except (CodecError, TypeError, ValueError, OverflowError):
        return None


def _bounded(error: PacelineError) -> str:
    text = f"{error.message}"
    return text if len(text) <= _MAX_INPUT else f"(a message of {len(text):,} characters)"


def _type_of(error: PacelineError) -> str:
    """What it is at the bottom: an agent's own exception says more than that it was an agent's."""
    cause = type(error.__cause__ or error)
    return f"{cause.__module__}.{cause.__qualname__}"


def _masked(message: str, redactor: Redactor) -> str:
    """Masked in full before it is cut: half a secret has no form to know it by."""
    return redactor.text(storable(message))[:_MAX_MESSAGE]
