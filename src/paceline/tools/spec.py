"""What there is to know of one tool."""

import enum
import hashlib
import itertools
import math
import string
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast, final
from urllib.parse import quote

import msgspec

from paceline.call import Effect, Plan, ScopeLevel
from paceline.errors import AgentLoadError, InvalidInputError
from paceline.messages import ToolDefinition

__all__ = ["ToolSpec"]

_MOST_TAGS: Final = 1_000
_LONGEST: Final = 200
"""Characters of an argument in a tag; a longer one is there by its digest."""

_Piece = tuple[str, str]
"""Text, and the name of the argument that follows it, or nothing."""


@final
@dataclass(frozen=True, slots=True, weakref_slot=True, kw_only=True, eq=False)
class ToolSpec:
    """One version of one tool: how a model sees it, how it is run, and what it does to the world.

    `check` makes of arguments as decoded from JSON those that `run` takes, by name; it raises
    InvalidInputError saying what is wrong, and where. `effect` is declared; its tags may name
    arguments in braces, such as "orders:{order_id}". `ttl_s` is asked for results that can be
    served again, None for the default of the cache. `memory_mb` and `killable` have it run in a
    process of its own (see `sessions.killable`). `approval` asks a person before each run.
    `max_result_chars` bounds what the model is told. It reaches `outside` where others than the user
    learn what is asked; such calls are not made ahead (see `[predict] outside`). `version` changes with its code.

    Raises AgentLoadError for a tag that cannot be filled.
    """

    definition: ToolDefinition
    run: Callable[..., object]
    check: Callable[[Mapping[str, object]], dict[str, object]]
    effect: Effect
    is_async: bool = False
    ttl_s: float | None = 0.0
    scope: ScopeLevel | None = None
    timeout_s: float | None = None
    max_concurrency: int | None = None
    memory_mb: int | None = None
    killable: bool = False
    approval: bool = False
    question: bool = False
    max_result_chars: int = 20_000
    cost_usd: float = 0.0
    outside: bool = False
    version: str = ""
    source: str = "function"
    result_type: Any = None
    wants: frozenset[str] = field(default_factory=frozenset[str])
    """Parameters that the call fills: "session", "user", "tenant", "cancelled"."""
    _tags: tuple[tuple[_Piece, ...], ...] = field(default=(), init=False)
    _every: Plan | None = field(default=None, init=False)
    """The plan of all its calls, where it does not depend on the arguments."""

    def __post_init__(self) -> None:
        known = cast("Mapping[str, object]", self.definition.parameters.get("properties") or {})
        tags = tuple(_pieces(self.name, tag, known) for tag in self.effect.tags)
        object.__setattr__(self, "_tags", tags)
        if not any(name for tag in tags for _, name in tag):
            every = self._plan(tuple("".join(text for text, _ in tag) for tag in tags))
            object.__setattr__(self, "_every", every)

    @property
    def name(self) -> str:
        """What it is called by."""
        return self.definition.name

    def plan(self, arguments: Mapping[str, object]) -> Plan:
        """How a call of it with these arguments is to be treated.

        In a tag the text of an argument is quoted as in a URL, so that no value can pass for
        another one together with what stands beside it; a list makes one tag of each of its items.
        Raises InvalidInputError for arguments that make more than 1,000 tags.
        """
        if self._every is not None:
            return self._every
        tags: dict[str, None] = {}  # each once, in their order
        for pieces in self._tags:
            parts = [_parts(text, name, arguments) for text, name in pieces]
            if len(parts) == 1 == len(parts[0]):  # most of them, and the product takes longer
                tags[parts[0][0]] = None
                continue
            if math.prod(map(len, parts)) + len(tags) > _MOST_TAGS:
                raise InvalidInputError(
                    f"one call of {self.name} names more than {_MOST_TAGS} things",
                    next_step="Call it for fewer at a time.",
                )
            tags.update(dict.fromkeys(map("".join, itertools.product(*parts))))
        return self._plan(tuple(tags))

    def _plan(self, tags: tuple[str, ...]) -> Plan:
        return Plan(
            msgspec.structs.replace(self.effect, tags=tags),
            self.ttl_s if self.effect.repeatable else 0.0,
            self.scope,
            self.timeout_s,
            cost_usd=self.cost_usd,
            outside=self.outside,
        )


def _pieces(tool: str, tag: str, known: Collection[str]) -> tuple[_Piece, ...]:
    """A tag, taken apart. Raises AgentLoadError for braces around anything but a parameter."""
    names = ", ".join(known) or "none"
    try:
        parsed = list(string.Formatter().parse(tag))
    except ValueError as exc:
        raise AgentLoadError(
            f"tool {tool}: the tag {tag!r} cannot be read: {exc}",
            next_step="Write the name of a parameter in braces, or double the braces.",
        ) from exc
    for _, name, layout, conversion in parsed:
        if name is not None and (name not in known or layout or conversion):
            raise AgentLoadError(
                f"tool {tool}: the tag {tag!r} names {name!r}, which is no parameter of it",
                next_step=f"Its parameters are: {names}.",
            )
    return tuple((text, name or "") for text, name, _, _ in parsed)


def _parts(text: str, name: str, arguments: Mapping[str, object]) -> list[str]:
    """What this piece of a tag can be."""
    if not name:
        return [text]
    value = arguments.get(name)
    if type(value) is int or type(value) is str:
        return [text + _quoted(value)]
    if isinstance(value, (list, tuple, set, frozenset)):
        items = list(cast("Collection[object]", value)) or [None]
    else:
        items = [value]
    return list(dict.fromkeys(text + _quoted(item) for item in items))


def _quoted(value: object) -> str:
    if type(value) is int:
        return str(value)
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None:
        return ""
    if not isinstance(value, str):
        value = msgspec.json.encode(value, enc_hook=str, order="deterministic").decode()
    if len(value) <= _LONGEST and value.isascii() and value.isalnum():
        return value
    text = quote(value, safe="", errors="surrogatepass")
    if len(text) <= _LONGEST:
        return text
    # No quoted text has two such signs side by side.
    return "%%" + hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
