"""The check of arguments and results by a JSON schema, in words that a model can act on.

Schemas are anybody's. Regular expressions are left to the server that made them: matched here, a bad
one would hold up everything. So would references that lead to one another over and over: a check
that takes too many steps is given up, and finds nothing.
"""

from collections.abc import Callable, Iterable, Mapping, Sized
from itertools import islice
from typing import Any, Final, Protocol, cast, final

from paceline.errors import InvalidInputError
from paceline.tools.mcp.sdk import Unresolvable, json_schema, no_references

__all__ = ["Check", "Finder", "checker", "finder"]

Check = Callable[[Mapping[str, object]], dict[str, object]]
Finder = Callable[[object], list[str]]
"""Says in words what is wrong with data."""
_MOST: Final = 10
_MOST_STEPS: Final = 100_000
_LONGEST: Final = 200


class _Problem(Protocol):
    """What `jsonschema` found."""

    @property
    def message(self) -> str: ...
    @property
    def json_path(self) -> str: ...


class _Validator(Protocol):
    """What it finds it with."""

    def iter_errors(self, instance: object) -> Iterable[_Problem]: ...


def checker(tool: str, schema: Mapping[str, object]) -> Check:
    """Checks arguments of this tool, but for regular expressions. Raises ValueError for what is no
    schema."""
    find = finder(schema)

    def check(arguments: Mapping[str, object]) -> dict[str, object]:
        given = dict(arguments)
        found = find(given)
        if not found:
            return given
        raise InvalidInputError(
            f"the arguments of tool {tool} are wrong: {'; '.join(found)}",
            next_step=f"Its parameters are: {_parameters(schema)}.",
        )

    return check


def finder(schema: Mapping[str, object]) -> Finder:
    """Finds what is wrong with data by this schema, not all if it is much, and nothing where the
    schema cannot be followed. Raises ValueError for what is no schema."""
    made_for = json_schema.validators.validator_for(
        schema, default=json_schema.Draft202012Validator
    )
    try:
        made_for.check_schema(schema)
    except json_schema.SchemaError as exc:
        raise ValueError(str(exc.message)[:_LONGEST]) from exc
    except RecursionError as exc:
        raise ValueError("it is nested too deeply") from exc
    steps = _Steps()
    keywords = {**made_for.VALIDATORS, **_without_patterns(made_for)}
    bounded = {name: steps.counted(keyword) for name, keyword in keywords.items()}
    plain = json_schema.validators.extend(made_for, bounded)
    validator = cast("_Validator", plain(_of_one_dialect(schema), registry=no_references))

    def find(data: object) -> list[str]:
        steps.left = _MOST_STEPS
        try:
            found = list(islice(validator.iter_errors(data), _MOST + 1))
        except (Unresolvable, RecursionError, _TooManyStepsError):
            return []  # the schema is at fault
        return [_words(problem) for problem in found[:_MOST]] + ["and more"] * (len(found) > _MOST)

    return find


class _TooManyStepsError(Exception):
    """A check would take too long."""


@final
class _Steps:
    """Counts what a check does: keywords that are applied, and all they have to compare with."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = 0

    def counted(self, keyword: Any) -> Any:
        """The same, unless it is too much."""

        def apply(validator: Any, value: object, instance: Any, schema: Any) -> Any:
            self.left -= 1 + (len(value) if isinstance(value, Sized) else 0)
            if self.left < 0:
                raise _TooManyStepsError
            return keyword(validator, value, instance, schema)

        return apply


def _without_patterns(made_for: Any) -> dict[str, Any]:
    """The keywords that match regular expressions, depend on what others match, or compare all with
    all."""
    others = made_for.VALIDATORS.get("additionalProperties")

    def additional(validator: Any, value: Any, instance: Any, schema: Any) -> Any:
        return () if "patternProperties" in schema else others(validator, value, instance, schema)

    return {
        "pattern": _anything,
        "patternProperties": _anything,
        "unevaluatedProperties": _anything,
        "unevaluatedItems": _anything,
        "uniqueItems": _anything,
        "additionalProperties": additional,
    }


def _anything(*_: object) -> tuple[()]:
    """Nothing is wrong."""
    return ()


def _of_one_dialect(schema: object) -> Any:
    """The schema, where no part of it names a dialect: that would be checked by all its keywords."""
    if isinstance(schema, Mapping):
        parts = cast("Mapping[str, object]", schema).items()
        return {
            key: _of_one_dialect(part)
            for key, part in parts
            if key != "$schema" or not isinstance(part, str)
        }
    if isinstance(schema, list):
        return [_of_one_dialect(part) for part in cast("list[object]", schema)]
    return schema


def _words(problem: _Problem) -> str:
    message = problem.message
    if len(message) > _LONGEST:
        half = _LONGEST // 2
        message = f"{message[:half]} ... {message[-half:]}"
    where = problem.json_path.removeprefix("$").removeprefix(".")
    return f"{where}: {message}" if where else message


def _parameters(schema: Mapping[str, object]) -> str:
    properties = schema.get("properties")
    required = schema.get("required")
    needed = cast("list[object]", required) if isinstance(required, list) else []
    names = list(cast("dict[str, object]", properties)) if isinstance(properties, dict) else []
    told = [f"{name} (required)" if name in needed else name for name in names]
    return ", ".join(told) or "none"
