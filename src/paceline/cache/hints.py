"""What a result says of its own caching, and what follows from it.

A result can ask to be kept for less long or by fewer than its agent declared, never for longer or
by more: the agent's author is trusted with who may see what, the far end of a wire is not.
"""

import math
from collections.abc import Mapping
from typing import Final

import msgspec

from paceline.call import ScopeLevel

__all__ = ["SILENT", "Hints", "may_share", "mcp_hints", "narrow"]

_MAX_TTL_MS: Final = 10 * 365 * 86_400_000
"""More is cut to this, so that moments stay numbers that can be computed with."""

_LEVELS: Final = {"public": ScopeLevel.GLOBAL, "private": ScopeLevel.USER}
_WIDTH: Final = {
    ScopeLevel.SESSION: 0,
    ScopeLevel.USER: 1,
    ScopeLevel.TENANT: 2,
    ScopeLevel.GLOBAL: 3,
}


class Hints(msgspec.Struct, frozen=True, gc=False):
    """What a result says: the longest it may be kept, the widest circle, whether at all.

    None where it says nothing.
    """

    ttl_s: float | None = None
    scope: ScopeLevel | None = None
    storable: bool = True


SILENT: Final = Hints()
_FORBIDDEN: Final = Hints(0.0, None, storable=False)


def mcp_hints(result: Mapping[str, object], params: Mapping[str, object] | None = None) -> Hints:
    """The hints of a result of the Model Context Protocol, by its revision 2026-07-28.

    `ttlMs` and `cacheScope` stand on the result itself (server/utilities/caching). Not to be
    kept are a result that asks for input (`resultType` other than "complete"), one that was made
    with the answers (`inputResponses` or `requestState` among the request's `params`), and a
    tool's error (`isError`). A negative `ttlMs` counts as 0. A hint that is not as the protocol
    has it forbids keeping the result, as nobody knows what was meant; an absent one says
    nothing, as in older revisions.
    """
    asked = params or {}
    if (
        result.get("resultType", "complete") != "complete"
        or result.get("isError", False) is not False
        or "inputResponses" in asked
        or "requestState" in asked
    ):
        return _FORBIDDEN
    ttl_s = scope = None
    if "ttlMs" in result:
        ttl_s = _seconds(result["ttlMs"])
        if ttl_s is None:
            return _FORBIDDEN
    if "cacheScope" in result:
        named = result["cacheScope"]
        scope = _LEVELS.get(named) if isinstance(named, str) else None
        if scope is None:
            return _FORBIDDEN
    return Hints(ttl_s, scope)


def narrow(ttl_s: float | None, scope: ScopeLevel, hints: Hints) -> float | None:
    """For how many seconds a result may be kept under a key of this scope; 0 is not at all.

    `ttl_s` is what was declared, the cache's default included; None has no end. The key was made
    before there was a result, so one that is for fewer than those who have the key is not kept.
    """
    if not hints.storable or not may_share(scope, hints):
        return 0.0
    if hints.ttl_s is None:
        return ttl_s
    return hints.ttl_s if ttl_s is None else min(ttl_s, hints.ttl_s)


def may_share(scope: ScopeLevel, hints: Hints) -> bool:
    """Whether all within this scope may have the result, those too who wait for it already."""
    return hints.scope is None or _WIDTH[scope] <= _WIDTH[hints.scope]


def _seconds(ttl_ms: object) -> float | None:
    """None for what is no time in milliseconds."""
    if isinstance(ttl_ms, bool) or not isinstance(ttl_ms, int | float):
        return None
    if isinstance(ttl_ms, float) and not math.isfinite(ttl_ms):
        return None
    return min(max(ttl_ms, 0), _MAX_TTL_MS) / 1_000
