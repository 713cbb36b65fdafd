"""What came of a call, in a few classes: what is called next goes by it."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Final

from paceline.predict.events import Called
from paceline.predict.paths import is_data
from paceline.predict.values import is_list, is_object

__all__ = ["flags", "marks", "outcome_class"]

_TROUBLE: Final = ("error", "exception", "traceback", "fail", "invalid")
_MOST_MARKS: Final = 12
_MOST_ITEMS: Final = 2
_DEEPEST: Final = 4
_LONGEST: Final = 20


def outcome_class(call: Called) -> str:
    """One of error, nothing, empty, one, several, text, object, number, true and false.

    A list in a list of one counts as that list: some tools pack what they found once more.
    """
    result = call.result
    if call.failed or _is_trouble(result):
        return "error"
    if isinstance(result, bool):
        return "true" if result else "false"
    if result is None:
        return "nothing"
    return _form(result)


def marks(call: Called) -> list[str]:
    """What a result says in words of its own: flags and short names, at most a dozen.

    Ids, numbers and long texts are left out: they do not come again.
    """
    found = _marks(call.result, "", _DEEPEST)
    return [f"{name}={value}" for name, value in islice(found, _MOST_MARKS)]


def flags(call: Called) -> list[str]:
    """The marks that are true or false and have the name of a field: they say nothing of anybody."""
    found = (mark for mark in _marks(call.result, "", _DEEPEST) if isinstance(mark[1], bool))
    named = (f"{name}={value}" for name, value in found if not is_data(name))
    return list(islice(named, _MOST_MARKS))


def _form(result: object) -> str:
    if isinstance(result, int | float):
        return "number"
    if isinstance(result, str):
        return "text" if result.strip() else "empty"
    if is_list(result):
        return _count(result)
    return "object" if result else "empty"


def _is_trouble(result: object) -> bool:
    if isinstance(result, str):
        start = result[:80].strip().lower()
        return start.startswith(_TROUBLE) or "not found" in start
    return is_object(result) and any(result.get(key) for key in ("error", "exception"))


def _count(items: Sequence[object]) -> str:
    if len(items) == 1 and is_list(items[0]):
        items = items[0]
    return ("empty", "one", "several")[min(len(items), 2)]


def _marks(value: object, name: str, depth: int) -> Iterator[tuple[str, bool | str]]:
    if isinstance(value, bool):
        yield name, value
    elif isinstance(value, str):
        if len(value) <= _LONGEST and not any(map(str.isdigit, value)):
            yield name, value
    elif depth and is_object(value):
        for key in list(value)[:_MOST_MARKS]:
            yield from _marks(value[key], str(key), depth - 1)
    elif depth and is_list(value):
        for item in value[:_MOST_ITEMS]:
            yield from _marks(item, name, depth - 1)
