"""What prediction learns from, and predicts from: what was said and called in a session."""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

__all__ = ["Called", "Proposal", "Said", "Step", "Trajectory"]


class Said(msgspec.Struct, frozen=True, tag="said"):
    """A message: of the user, or of the assistant to the user."""

    text: str
    by_user: bool = True


class Called(msgspec.Struct, frozen=True, tag="called"):
    """A call that was made. `result` is decoded from JSON where it is that, else text, None as long as
    it is not there."""

    name: str
    arguments: Mapping[str, object]
    result: object = None
    failed: bool = False


class Step(msgspec.Struct, frozen=True, tag="step", omit_defaults=True):
    """The calls that one answer of a model asked for. `said` is what else is in that answer: nobody knows
    it before the calls."""

    calls: tuple[Called, ...]
    said: str = ""


Event: TypeAlias = Said | Step


class Trajectory(msgspec.Struct, frozen=True):
    """One session, in order. `task` groups trials of one task; `scope` is whose it is: nothing that is
    learnt of one scope is seen in another, but for tools that are public."""

    id: str
    events: tuple[Event, ...]
    task: str = ""
    scope: str = ""


class Proposal(msgspec.Struct, frozen=True):
    """A call that may come next. `probability` is the joint one, of the tool and all its arguments;
    `str(why)` says in words where its arguments are from; they are made only when asked for."""

    name: str
    arguments: Mapping[str, object]
    probability: float
    why: object = ""


Tools = Mapping[str, Mapping[str, object]]
"""JSON schemas of the tools' parameters, by name, where they are known."""
Effects = Mapping[str, str]
Sequences = Sequence[str]
