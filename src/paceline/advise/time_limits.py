"""How long an execution should be allowed to take."""

from collections.abc import Iterator
from typing import Final

from paceline.advise.advice import LEAST, Advice, Change, Confidence, confidence
from paceline.advise.calls import NS, AgentCalls, executed, quantile
from paceline.advise.declared import Known
from paceline.errors import Category
from paceline.history.record import Record

__all__ = ["LEAST_FOR_P99", "time_limit"]

LEAST_FOR_P99: Final = 100
"""Successes without which a p99 is only a maximum."""
_NEAR: Final = 0.5
"""A p99 at this part of the limit or beyond: what timed out may have been nearly there."""
_FAR: Final = 0.05
"""A p99 at this part of the limit or before: what comes to the limit hangs."""
_ROOM: Final = 3
_LEAST_S: Final = 1.0
_FIRED: Final = 0.99
_CAUSE: Final = f"{TimeoutError.__module__}.{TimeoutError.__qualname__}"


def time_limit(agent: AgentCalls, known: Known) -> Iterator[Advice]:
    """A limit that executions come up against although most of the others nearly take as long, or
    that is far beyond what they take: where it was reached, or the agent declares it itself. None
    for agents that set it for each call."""
    declared = known.of(agent.name)
    if not known.has(agent.name) or declared.per_call:
        return
    limit_s = known.timeout_s(agent.name)
    done = agent.done
    took = sorted(call.execute_ns // call.attempts for call in done)
    if len(took) < LEAST_FOR_P99:
        return
    late = [call for call in agent.calls if _reached(call, limit_s)]
    p99_s, longest_s = quantile(took, 0.99) / NS, took[-1] / NS
    if p99_s >= _NEAR * limit_s and len(late) >= LEAST:
        yield _longer(agent, late, limit_s, p99_s)
    elif p99_s <= _FAR * limit_s and (late or declared.timeout_s is not None):
        new_s = _rounded(max(_LEAST_S, _ROOM * p99_s, 1.5 * longest_s))
        if new_s <= limit_s / 2:
            yield _shorter(agent, late, (limit_s, new_s), p99_s)


def _longer(agent: AgentCalls, late: list[Record], limit_s: float, p99_s: float) -> Advice:
    new_s = 2 * limit_s
    vain_s = sum(call.execute_ns for call in late) / NS
    return Advice(
        rule="time_limit_short",
        agent=agent.name,
        what=f"allow it {new_s:g} s, not {limit_s:g} s",
        why=f"{len(late):,} executions were ended at the limit, after {vain_s:.3g} s in all, and of"
        f" those that succeeded one in a hundred took {p99_s:.3g} s or more",
        changes=(Change("agent", "TIMEOUT", new_s),),
        evidence={
            "successes": len(agent.done),
            "timed_out": len(late),
            "p99_s": p99_s,
            "limit_s": limit_s,
            "in_vain_s": vain_s,
        },
        # How long they would have taken nobody knows.
        confidence=confidence(len(late), Confidence.MEDIUM),
    )


def _shorter(
    agent: AgentCalls, late: list[Record], limits_s: tuple[float, float], p99_s: float
) -> Advice:
    limit_s, new_s = limits_s
    done = len(agent.done)
    return Advice(
        rule="time_limit_long",
        agent=agent.name,
        what=f"allow it {new_s:g} s, not {limit_s:g} s",
        why=f"of {done:,} executions that succeeded 99 % took {p99_s:.3g} s or less; "
        + (f"{len(late):,} hung until the limit" if late else "one that hangs is ended late"),
        changes=(Change("agent", "TIMEOUT", new_s),),
        evidence={
            "successes": done,
            "timed_out": len(late),
            "p99_s": p99_s,
            "limit_s": limit_s,
        },
        confidence=confidence(done, Confidence.HIGH if len(late) >= LEAST else Confidence.LOW),
        saved_s=sum(call.attempts for call in late) * (limit_s - new_s),
    )


def _reached(call: Record, limit_s: float) -> bool:
    """Whether its last execution was ended at the limit: not by its caller, nor by a time-out of
    its own."""
    ended = executed(call) and call.trouble is Category.TIMEOUT and call.error_type == _CAUSE
    return ended and call.execute_ns >= _FIRED * limit_s * NS


def _rounded(seconds: float) -> float:
    """Up to a number that is easily read."""
    size = 1.0
    while size * 10 < seconds:
        size *= 10
    return size * next(digit for digit in (1, 2, 3, 5, 10) if digit * size >= seconds)
