"""What is likely to be called until a turn ends, as one pattern, and what it takes."""

from collections.abc import Mapping
from typing import Final

import msgspec

from paceline.predict.courses import Courses
from paceline.predict.sequence import END
from paceline.predict.view import View

__all__ = ["ExecutionPattern", "pattern_of"]

_LEAST: Final = 0.2  # below this nothing is said of what comes next
_LONGEST: Final = 8


class ExecutionPattern(msgspec.Struct, frozen=True):
    """The calls that are likely to come, in order, and what they take by experience: seconds, the
    share of times that all succeed, resources by name, and how often this moment was seen."""

    tool_sequence: tuple[str, ...]
    avg_execution_time: float
    success_rate: float
    resource_usage: Mapping[str, float]
    frequency: int


def pattern_of(view: View, courses: Courses) -> ExecutionPattern | None:
    """The likeliest calls until the turn ends, one after the other; None if nothing is likely."""
    ahead = courses.copy()
    names: list[str] = []
    while len(names) < _LONGEST:
        name, chance = next(iter(view.next_tools(ahead)), (END, 0.0))
        if name == END or chance < _LEAST:
            break
        names.append(name)
        ahead.suppose(name, view.came(name))
    if not names:
        return None
    figures = [view.figures(name) for name in names]
    success = 1.0
    usage: dict[str, float] = {}
    for each in figures:
        success *= each.success
        for resource, amount in each.used.items():
            before = usage.get(resource, 0.0)
            peak = resource.startswith("peak_")
            usage[resource] = max(before, amount) if peak else before + amount
    return ExecutionPattern(
        tuple(names),
        sum(each.seconds for each in figures),
        success,
        usage,
        round(view.seen(courses)),
    )
