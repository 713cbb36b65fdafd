"""How long a target may take for a call."""

from typing import Final

from paceline.call import Call
from paceline.clock import Clock
from paceline.errors import CallTimeoutError

__all__ = ["PROBE_S", "late", "left_s"]

PROBE_S: Final = 5.0
"""How long something may take to say that it is there."""

_NS: Final = 1_000_000_000


def left_s(call: Call, clock: Clock, longest_s: float) -> float:
    """Seconds until the deadline of the call, `longest_s` at most.

    Raises CallTimeoutError where it has passed: nothing was started then.
    """
    if call.deadline_ns is None:
        return longest_s
    seconds = (call.deadline_ns - clock.monotonic_ns()) / _NS
    if seconds <= 0:
        raise CallTimeoutError(f"the deadline of {call.name} passed before it was started")
    return min(seconds, longest_s)


def late(who: str, limit_s: float, *, started: bool = True) -> CallTimeoutError:
    """The error for what took too long."""
    return CallTimeoutError(
        f"{who} did not answer within {round(limit_s, 3):g} s", may_have_started=started
    )
