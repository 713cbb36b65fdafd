"""What was learnt, in figures: of whom, of which tools, how much."""

from collections.abc import Mapping, Sized
from typing import Any

import msgspec

from paceline.errors import CodecError

__all__ = ["LearntOf", "learnt_of", "public_of"]


class LearntOf(msgspec.Struct, frozen=True):
    """One circle: calls by tool, most first, and the patterns of what follows what. `messages` is how
    many were learnt of, where their habits are."""

    circle: str
    calls: Mapping[str, int]
    patterns: int
    messages: int = 0


def learnt_of(saved: object) -> list[LearntOf]:
    """The circles in what `PerformancePredictor.save` returned, those used last first.

    Raises CodecError for anything else.
    """
    data = _read(saved)
    return [_of(circle, data.scopes[circle]) for circle in reversed(data.scopes)]


def public_of(saved: object) -> Mapping[str, int]:
    """The calls of public tools that all learn from, by tool, most first; raises as `learnt_of`."""
    knowledge = _read(saved).shared.knowledge
    return {} if knowledge is None else _calls(knowledge)


def _read(saved: object) -> "_Saved":
    try:
        return msgspec.convert(saved, _Saved)
    except msgspec.ValidationError as exc:
        raise CodecError(f"saved predictions cannot be read: {exc}") from exc


class _Figures(msgspec.Struct):
    seen: int = 0


class _Sequence(msgspec.Struct):
    contexts: Any = None


class _Parts(msgspec.Struct):
    sequence: _Sequence = msgspec.field(default_factory=_Sequence)


class _Knowledge(msgspec.Struct):
    figures: dict[str, _Figures]
    parts: _Parts


class _Shared(msgspec.Struct):
    knowledge: _Knowledge | None = None


class _Saved(msgspec.Struct):
    scopes: dict[str, _Knowledge]
    shared: _Shared = msgspec.field(default_factory=_Shared)


def _of(circle: str, knowledge: _Knowledge) -> LearntOf:
    contexts = knowledge.parts.sequence.contexts
    patterns = len(contexts) if isinstance(contexts, Sized) else 0
    return LearntOf(circle, _calls(knowledge), patterns)


def _calls(knowledge: _Knowledge) -> dict[str, int]:
    calls = {name: each.seen for name, each in knowledge.figures.items()}
    return dict(sorted(calls.items(), key=lambda item: (-item[1], item[0])))
