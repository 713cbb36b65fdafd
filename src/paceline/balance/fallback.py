"""What answers instead when a call has failed everywhere it could go. Pure: the path does it."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from paceline.call import Effect
from paceline.errors import Category, ConfigError, PacelineError

__all__ = ["STALE", "Answer", "Fallback", "fallbacks_of", "falls_back"]

_OF_THE_REQUEST: Final = frozenset(
    {
        Category.AUTHENTICATION,
        Category.CANCELLED,
        Category.INVALID,
        Category.TOO_LONG,
        Category.NOT_FOUND,
        Category.POLICY,
        Category.SANDBOX,
    }
)


class Answer(StrEnum):
    """Where an answer comes from."""

    AGENT = "agent"
    """Another agent, or the same work at another model."""
    STALE = "stale"
    """The cache: a result that is no longer valid."""
    TEXT = "text"
    """The configuration: always the same."""


_ANSWERS: Final = frozenset(Answer)


class Fallback(msgspec.Struct, frozen=True):
    """One step of a chain; `value` is the name of the agent, or the text."""

    answer: Answer
    value: str = ""

    def __str__(self) -> str:
        return f"{self.answer} {self.value}".rstrip()


STALE: Final = Fallback(Answer.STALE)


def fallbacks_of(name: str, steps: Iterable[str]) -> tuple[Fallback, ...]:
    """The chain of an agent as it is configured: "agent NAME", "stale", "text ...".

    Raises ConfigError for a step that is none of these, or that leads to the agent itself.
    """
    chain = tuple(_step(name, step) for step in steps)
    for step in chain:
        if step.answer is Answer.AGENT and step.value == name:
            raise ConfigError(f"fleets.{name}.fallback leads back to {name}")
    return chain


def falls_back(error: PacelineError, effect: Effect, to: Fallback) -> bool:
    """Whether a call that ended so may be answered by this step.

    Errors that say something of the request stay: another agent would be asked the same. What may
    have been done is not done again by another unless doing it twice does no harm.
    """
    if to.answer is not Answer.AGENT:
        return error.category not in _OF_THE_REQUEST
    if error.category in _OF_THE_REQUEST - {Category.AUTHENTICATION}:
        return False
    return effect.repeatable or not error.may_have_started


def _step(name: str, text: str) -> Fallback:
    kind, _, value = text.strip().partition(" ")
    value = value.strip()
    if kind not in _ANSWERS or (kind == Answer.STALE) is bool(value):
        raise ConfigError(
            f'fleets.{name}.fallback: "{text}" is no step',
            next_step='Steps are "agent NAME", "stale" and "text WHAT TO ANSWER".',
        )
    return Fallback(Answer(kind), value)
