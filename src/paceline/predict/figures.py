"""What calls of a tool took lately, and came to."""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from paceline.predict.events import Called
from paceline.predict.outcomes import outcome_class

__all__ = ["Figures", "measure"]

_SMOOTHING: Final = 0.1
_MOST_FIGURES: Final = 2_000


class Figures(msgspec.Struct):
    """What calls of one tool took, lately, and came to."""

    seconds: float = 0.0
    success: float = 1.0
    used: dict[str, float] = {}
    came: str = "object"
    seen: Annotated[int, msgspec.Meta(ge=0)] = 0


def measure(
    figures: dict[str, Figures],
    call: Called,
    seconds: float | None,
    used: Mapping[str, float] | None,
) -> None:
    """Takes one call into the running means of its tool."""
    each = figures.get(call.name)
    if each is None:
        if len(figures) >= _MOST_FIGURES:
            del figures[min(figures, key=lambda name: figures[name].seen)]
        each = figures[call.name] = Figures()
    each.seen += 1
    share = max(_SMOOTHING, 1.0 / each.seen)
    each.came = outcome_class(call)
    each.success += share * ((each.came != "error") - each.success)
    if seconds is not None:
        each.seconds += share * (seconds - each.seconds)
    for name, amount in (used or {}).items():
        before = each.used.get(name, amount)
        each.used[name] = before + share * (amount - before)
