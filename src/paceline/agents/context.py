"""Which keywords are further arguments of an agent, and which are options gone astray."""

import difflib
import functools
from collections.abc import Iterable
from typing import Final

from paceline.errors import InvalidInputError

__all__ = ["NO_ARGUMENTS", "check_context"]

_TTL: Final = "Write ttl_seconds=, where a result is stored or looked up."
_WHOSE: Final = "Write user= or scope=."
_PARAMETERS: Final = ("agent_name", "input_data", "is_success", "scope", "ttl_seconds", "user")
_ALIKE: Final = 0.85
"""Of 1: a letter too many or too few, not another word."""

NO_ARGUMENTS: Final = {
    "agent": "Write agent_name=.",
    "caller": _WHOSE,
    "tenant": "Write scope=Scope(...).",
    "default_ttl": "Write AgentCache(default_ttl=...).",
    "max_size": "Write AgentCache(max_entries=...).",
    **{
        name: f"Write AgentCache({name}=...)."
        for name in ("clock", "collector", "enable_metrics", "max_entries", "shared")
    },
    **dict.fromkeys(
        (
            "cacheable", "cold", "cold_size", "condition", "cost_usd", "early", "effect", "fn",
            "generation_tags", "hot_size", "ignore", "is_success", "jitter", "key", "max_bytes",
            "max_concurrency", "policy", "priority", "result_hints", "stale",
            "stale_if_error", "stale_while_revalidate", "tags", "timeout", "ttl_rules",
            "ttl_seconds", "use_cache", "values", "warm_size",
        ),
        "",
    ),
}  # fmt: skip
"""Names that mean something to the other caches or to the runtime, and what to write instead;
nothing where there is no such option here."""


def check_context(names: Iterable[str]) -> None:
    """Refuses what is an option elsewhere or nearly one here: as an argument it would be part of
    the key and do nothing else. Raises InvalidInputError that says what to write."""
    for name in names:
        instead = _instead(name)
        if instead is not None:
            raise InvalidInputError(
                f"{name!r} is an option, not a further argument of an agent",
                next_step=(
                    f"{instead} If it is an argument, give it another name, such as"
                    f" {name}_argument."
                ).strip(),
            )


@functools.lru_cache(maxsize=1_024)  # pure: bots ask for the same few names at every call
def _instead(name: str) -> str | None:
    """What to write instead of this keyword; None if it is an argument."""
    known = NO_ARGUMENTS.get(name)
    if known is not None:
        return known
    if "ttl" in name.split("_"):
        return _TTL
    close = difflib.get_close_matches(name, _PARAMETERS, 1, _ALIKE)
    return f"Write {close[0]}=." if close else None
