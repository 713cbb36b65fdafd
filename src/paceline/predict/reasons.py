"""Where the arguments of a proposed call are from, in words: made only when somebody asks."""

from collections.abc import Mapping, Sequence
from typing import Final, final

from paceline.predict.completions import Completion
from paceline.predict.places import PROJECTED, RETYPED, SHIFTED, WHOLE
from paceline.predict.sources import ABSENT, Candidate
from paceline.predict.values import canonical
from paceline.predict.weights import Feature

__all__ = ["Reason", "said_of"]

_TEXTS: Final = {"u": "the user's message", "a": "the assistant's message"}


@final
class Reason:
    """Why a call was put together: `str` of it says it in words. It holds what the call was put
    together from, nothing that was learnt later changes it."""

    __slots__ = ("_arguments", "_found", "_names", "_offered")

    def __init__(
        self,
        names: Sequence[str],
        arguments: Mapping[str, object],
        found: Sequence[Completion],
        offered: Sequence[Sequence[Candidate]],
    ) -> None:
        self._names = names
        self._arguments = arguments
        self._found = found
        self._offered = offered

    def __str__(self) -> str:
        given = self._arguments
        keys = tuple([canonical(given[n]) if n in given else ABSENT for n in self._names])
        kept = next((each.kept for each in self._found if each.keys == keys), None)
        filled = {} if kept is None else {name: pattern for name, pattern, _ in kept.template}
        parts: list[str] = []
        for name, key, some in zip(self._names, keys, self._offered, strict=True):
            pattern = filled.get(name)
            if pattern is not None:
                parts.append(f"{name}: {said_of(pattern)}")
            elif key != ABSENT:
                candidate = next((each for each in some if each.key == key), None)
                source = candidate.evidence[0].own[0] if candidate is not None else ""
                parts.append(f"{name}: {said_of(source)}")
        together = ", together from one object" if len(filled) > 1 else ""
        return "; ".join(parts) + together

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Reason) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))


def said_of(source: Feature) -> str:
    """What a source is, in words: a pattern (see `Batch`), or the feature that speaks for it."""
    if not isinstance(source, str):
        sort = source[0] if isinstance(source, tuple) else ""
        return "words that go with it" if sort == "word" else "a value it often had"
    if source.startswith(WHOLE):
        return f"all of {said_of(source[1:])}"
    if source.startswith(RETYPED):
        return said_of(source[1:])
    if source.startswith(SHIFTED):
        more, _, base = source[1:].partition(" ")
        return (
            f"{more.removeprefix('-')} {'less' if more[0] == '-' else 'more'} than {said_of(base)}"
        )
    base, mark, fields = source.rpartition(PROJECTED)
    if mark:
        return f"{fields.replace(',', ', ')} of {said_of(base)}"
    role, _, rest = source.partition(" ")
    return _TEXTS.get(role) or _said_of_call(role, rest)


def _said_of_call(role: str, rest: str) -> str:
    if "~" in rest:
        return f"the text that {rest.partition('~')[0]} returned"
    tool, dot, path = rest.partition(".")
    if role == "c":
        return f"the argument {path} of {tool} before"
    return f"{path} of the result of {tool}" if dot else f"the result of {tool}"
