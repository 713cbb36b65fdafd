"""The arguments of a call, as agents take them: a query and what belongs to it."""

from paceline.call import Call
from paceline.errors import InvalidInputError

__all__ = ["query_and_context"]


def query_and_context(call: Call) -> tuple[object, dict[str, object]]:
    """The query of a call and its other arguments by name. Raises InvalidInputError without one."""
    context = dict(call.arguments)
    if "query" not in context:
        raise InvalidInputError(
            f"the call of {call.name} has no query", next_step='Pass arguments={"query": ...}.'
        )
    return context.pop("query"), context
