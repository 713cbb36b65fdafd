"""What `paceline doctor` finds."""

from collections.abc import Callable
from typing import Literal

import msgspec

from paceline.errors import PacelineError

__all__ = ["Finding", "State", "broken", "checked"]

State = Literal["ok", "warning", "broken"]


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    what: str
    state: State
    detail: str
    next_step: str = ""


def checked(what: str, look: Callable[[], str]) -> Finding:
    """What `look` says, or the error of ours that it raises."""
    try:
        return Finding(what, "ok", look())
    except PacelineError as exc:
        return broken(what, exc)


def broken(what: str, error: PacelineError) -> Finding:
    """An error as a finding."""
    return Finding(what, "broken", error.message, error.next_step)
