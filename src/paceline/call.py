"""What is run and what comes of it: Call, Outcome, and the words that describe a call."""

from collections.abc import Mapping
from contextvars import ContextVar
from enum import IntEnum, StrEnum
from typing import Final, Self

import msgspec

from paceline.errors import PacelineError

__all__ = [
    "SPECULATED",
    "UNKNOWN",
    "Call",
    "Caller",
    "Effect",
    "EffectKind",
    "Kind",
    "Outcome",
    "Plan",
    "Priority",
    "Scope",
    "ScopeLevel",
    "Source",
    "Tokens",
    "current_call",
]


SPECULATED: Final = "-speculated"
"""How the ids of calls end that nobody has asked for: those at `Priority.SPECULATIVE`."""


class Kind(StrEnum):
    """What a call runs."""

    AGENT = "agent"
    TOOL = "tool"
    MODEL = "model"


class Priority(IntEnum):
    """Who goes first when capacity is short; higher goes first.

    `SPECULATIVE` is for what nobody has asked for yet: it never waits, is tried once, must be
    `pure` or `read` and cacheable, and is cancelled when somebody else needs its place. Who asks
    for the same joins it or finds its result. It counts as nobody's call.
    """

    SPECULATIVE = 0
    LOW = 1
    NORMAL = 2
    HIGH = 3


class Source(StrEnum):
    """Where an outcome came from."""

    EXECUTED = "executed"
    HOT = "hot"
    WARM = "warm"
    COLD = "cold"
    SHARED = "shared"
    JOINED = "joined"
    STALE = "stale"
    SPECULATED = "speculated"

    @property
    def cached(self) -> bool:
        """Whether the outcome was delivered without an execution of its own."""
        return self is not Source.EXECUTED


class ScopeLevel(StrEnum):
    """Who may see each other's results."""

    GLOBAL = "global"
    TENANT = "tenant"
    USER = "user"
    SESSION = "session"


# Asking an enum for a member takes longer than comparing with it.
_GLOBAL, _TENANT = ScopeLevel.GLOBAL, ScopeLevel.TENANT
_USER, _SESSION = ScopeLevel.USER, ScopeLevel.SESSION


class Caller(msgspec.Struct, frozen=True, gc=False):
    """On whose behalf a call is made."""

    user: str | None = None
    session: str | None = None
    tenant: str | None = None


class Scope(msgspec.Struct, frozen=True, gc=False):
    """The circle in which a result may be shared. Part of every cache key.

    Fields below the level are None, so two calls share a result exactly if their scopes are
    equal. Levels nest: a session belongs to a user, a user to a tenant.
    """

    level: ScopeLevel
    tenant: str | None = None
    user: str | None = None
    session: str | None = None

    @classmethod
    def of(cls, caller: Caller, level: ScopeLevel | None) -> Self:
        """The scope of a caller's call.

        Without a level, results stay with the user when one is known, else with the session.
        A level that the caller has no name for narrows to the session.
        """
        if level is _GLOBAL:
            return cls(_GLOBAL)
        if level is _TENANT and caller.tenant is not None:
            return cls(_TENANT, caller.tenant)
        if level in (None, _USER) and caller.user is not None:
            return cls(_USER, caller.tenant, caller.user)
        return cls(_SESSION, caller.tenant, caller.user, caller.session)


class EffectKind(StrEnum):
    """What running something does to the world."""

    PURE = "pure"
    READ = "read"
    WRITE = "write"
    UNKNOWN = "unknown"


_PURE, _READ, _WRITE = EffectKind.PURE, EffectKind.READ, EffectKind.WRITE


class Effect(msgspec.Struct, frozen=True, gc=False):
    """What a call does to the world: the one declaration that everything else follows from.

    Effects alone decide what may be cached, joined, run in parallel, retried, hedged and
    speculated, and what a write invalidates. `tags` name the resources that are read or
    written (for files see `paceline.tags`); a write to a tag invalidates every result that
    was read under it. A write that is `idempotent` changes nothing more when it is made again.
    """

    kind: EffectKind
    tags: tuple[str, ...] = ()
    idempotent: bool = False

    @classmethod
    def pure(cls) -> "Effect":
        """The result depends on the arguments alone."""
        return cls(EffectKind.PURE)

    @classmethod
    def read(cls, *tags: str) -> "Effect":
        """The result depends on the world, which the call leaves as it is."""
        return cls(EffectKind.READ, tags)

    @classmethod
    def write(cls, *tags: str, idempotent: bool = False) -> "Effect":
        """The call changes the named resources; an `idempotent` one may be made again where nobody
        knows whether it was, and is a write in all else."""
        return cls(EffectKind.WRITE, tags, idempotent)

    @classmethod
    def unknown(cls) -> "Effect":
        """Nothing is known: never cached, joined, speculated, or repeated once it may have run."""
        return UNKNOWN

    @property
    def repeatable(self) -> bool:
        """Whether running it twice, or for nothing, does no harm."""
        return self.kind is _READ or self.kind is _PURE

    @property
    def retryable(self) -> bool:
        """Whether running it again does no harm, where it is wanted at all."""
        return self.repeatable or (self.idempotent and self.kind is _WRITE)


UNKNOWN = Effect(EffectKind.UNKNOWN)


class Plan(msgspec.Struct, frozen=True, gc=False):
    """How one call is to be treated, derived from its agent and arguments before it runs.

    `ttl_s`: seconds a result stays valid, 0 for never stored, None for the default of the
    cache. `scope` None: user when known, else session. `timeout_s`: the limit of one
    execution. `signature` names the class of calls whose figures belong together.

    `stale_s`: seconds after `ttl_s` in which the result is still served while it is computed
    anew; `stale_if_error_s`: in which it is served if that fails (None: the settings). `files`
    are absolute paths the result depends on: changing one, by whomever, makes it stale.
    `world` names the state a sandbox or replay starts from: sessions that made the same writes
    in it share results, and no other. `cost_usd` is the price of one execution. Running it may tell
    somebody `outside` what is asked, who would not hear of it otherwise.
    """

    effect: Effect = UNKNOWN
    ttl_s: float | None = None
    scope: ScopeLevel | None = None
    timeout_s: float | None = None
    signature: str = ""
    stale_s: float | None = None
    stale_if_error_s: float | None = None
    files: tuple[str, ...] = ()
    world: str | None = None
    cost_usd: float = 0.0
    outside: bool = False

    @property
    def cacheable(self) -> bool:
        """Whether a result of this call may be stored and shared."""
        kind = self.effect.kind
        return self.ttl_s != 0 and (kind is _READ or kind is _PURE)


class Call(msgspec.Struct, frozen=True):
    """One thing to run, on somebody's behalf, by a deadline.

    `arguments` are bound by name. `deadline_ns` is a moment of the runtime's monotonic clock.
    `parent_id` is the call in whose course this one was made; a trace is a tree of calls that
    share `trace_id`. `tracked_id` is the span of the tracked function, nearer than that call, in
    which it was made.
    """

    id: str
    kind: Kind
    name: str
    arguments: Mapping[str, object]
    caller: Caller
    scope: Scope
    plan: Plan
    priority: Priority = Priority.NORMAL
    deadline_ns: int | None = None
    parent_id: str | None = None
    trace_id: str = ""
    tracked_id: str | None = None


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """Model tokens of one call, by kind.

    `input` is all of the input: `cached_input` of it was read from the provider's cache, and
    `cache_write` written to it. `reasoning` is a part of `output`.
    """

    input: int = 0
    output: int = 0
    cached_input: int = 0
    cache_write: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        """All tokens."""
        return self.input + self.output

    def plus(self, other: "Tokens") -> "Tokens":
        """Both together."""
        return Tokens(
            self.input + other.input,
            self.output + other.output,
            self.cached_input + other.cached_input,
            self.cache_write + other.cache_write,
            self.reasoning + other.reasoning,
        )


class Outcome(msgspec.Struct, frozen=True):
    """What came of a call: a value or a typed error, where it came from and what it took.

    Durations are nanoseconds: `queue_ns` waiting for capacity, `execute_ns` in the agent,
    `total_ns` from the request to this outcome. `attempts` is 0 when nothing was executed.
    `saved_ns` is what executing took when a result that is served again was made. `link` is the
    id of the call whose work this one joined, or whose result it got that was made ahead or anew.

    `tokens` and `cost_usd` are what its model calls used, as far as that is known: of `unpriced`
    of them nobody knows the price. `raw_usd` is the cost without discounts for cached tokens.
    `saved_usd` is what a result that is served again had cost when it was made. `instead_of` is the
    error in place of which a fallback answered. `ahead_usd` and `ahead_tokens` are what it took to
    make ahead what this call is the first to use: that was counted when it was made, and is part of
    no sum of calls, but somebody has asked for it only now.
    """

    call_id: str
    name: str
    source: Source
    value: object = None
    error: PacelineError | None = None
    instance: str = ""
    attempts: int = 0
    queue_ns: int = 0
    execute_ns: int = 0
    total_ns: int = 0
    tokens: Tokens | None = None
    cost_usd: float | None = None
    saved_ns: int = 0
    link: str = ""
    raw_usd: float | None = None
    unpriced: int = 0
    saved_usd: float | None = None
    instead_of: PacelineError | None = None
    ahead_usd: float | None = None
    ahead_tokens: Tokens | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a value."""
        return self.error is None

    def unwrap(self) -> object:
        """The value; raises the error if there is one."""
        if self.error is not None:
            raise self.error
        return self.value


current_call: ContextVar[Call | None] = ContextVar("paceline_current_call", default=None)
"""The call in whose course the running code runs; nested calls take their parent from it."""
