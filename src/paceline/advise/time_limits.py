"""How long an execution should be allowed to take."""

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Final, NamedTuple

from paceline.advise.advice import LEAST, Advice, Change, Confidence, confidence
from paceline.advise.calls import NS, Callee, executed, quantile
from paceline.advise.declared import Known
from paceline.call import Kind
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
_BEYOND: Final = 1.1
"""So many times the limit at most is what was ended there: it takes a moment to end."""
_MOSTLY: Final = 0.5
"""The part of the time-outs that has to be of one length: others are of turns that were over."""
_CAUSE: Final = f"{TimeoutError.__module__}.{TimeoutError.__qualname__}"


def time_limit(callee: Callee, known: Known) -> Iterator[Advice]:
    """A limit that executions come up against although most of the others nearly take as long, or
    that is far beyond what they take: where it was reached, or is declared for it alone. None for
    agents that set it for each call, and where the limit is not known."""
    declared = known.of(callee)
    if declared.per_call or not (known.has(callee) or callee.kind is Kind.TOOL):
        return
    limit_s = known.timeout_s(callee) if declared.whole else _seen_s(callee.calls, known)
    done = callee.done
    took = sorted(call.execute_ns // call.attempts for call in done)
    if len(took) < LEAST_FOR_P99:
        return
    reached = _reached if callee.kind is Kind.AGENT else _reached_by_tool
    late = [call for call in callee.calls if reached(call, limit_s)]
    p99_s, longest_s = quantile(took, 0.99) / NS, took[-1] / NS
    if not declared.whole and longest_s > _BEYOND * limit_s:
        return  # it is another limit
    limit = _Limit(callee, known, limit_s, late)
    if p99_s >= _NEAR * limit_s and len(late) >= LEAST:
        yield _longer(limit, p99_s)
    elif p99_s <= _FAR * limit_s and (late or declared.timeout_s is not None):
        new_s = _rounded(max(_LEAST_S, _ROOM * p99_s, 1.5 * longest_s))
        if new_s <= limit_s / 2:
            yield _shorter(limit, new_s, p99_s)


class _Limit(NamedTuple):
    """How long one may take, in seconds, and what was ended there."""

    callee: Callee
    known: Known
    now_s: float
    late: Sequence[Record]

    def changed(self, to_s: float) -> Change:
        return self.known.change(self.callee, "TIMEOUT", to_s)

    @property
    def first(self) -> str:
        server = self.known.of(self.callee).server
        return f"It is the limit of all tools of {server}." if server else ""


def _longer(limit: _Limit, p99_s: float) -> Advice:
    new_s = 2 * limit.now_s
    vain_s = sum(call.execute_ns for call in limit.late) / NS
    return Advice(
        rule="time_limit_short",
        agent=limit.callee.name,
        kind=limit.callee.kind,
        what=f"allow it {new_s:g} s, not {limit.now_s:g} s",
        why=f"{len(limit.late):,} executions were ended at the limit, after {vain_s:.3g} s in all,"
        f" and of those that succeeded one in a hundred took {p99_s:.3g} s or more",
        changes=(limit.changed(new_s),),
        first=limit.first,
        evidence={
            "successes": len(limit.callee.done),
            "timed_out": len(limit.late),
            "p99_s": p99_s,
            "limit_s": limit.now_s,
            "in_vain_s": vain_s,
        },
        # How long they would have taken nobody knows.
        confidence=confidence(len(limit.late), Confidence.MEDIUM),
    )


def _shorter(limit: _Limit, new_s: float, p99_s: float) -> Advice:
    done, late = len(limit.callee.done), limit.late
    return Advice(
        rule="time_limit_long",
        agent=limit.callee.name,
        kind=limit.callee.kind,
        what=f"allow it {new_s:g} s, not {limit.now_s:g} s",
        why=f"of {done:,} executions that succeeded 99 % took {p99_s:.3g} s or less; "
        + (f"{len(late):,} hung until the limit" if late else "one that hangs is ended late"),
        changes=(limit.changed(new_s),),
        first=limit.first,
        evidence={
            "successes": done,
            "timed_out": len(late),
            "p99_s": p99_s,
            "limit_s": limit.now_s,
        },
        confidence=confidence(done, Confidence.HIGH if len(late) >= LEAST else Confidence.LOW),
        saved_s=sum(call.attempts for call in late) * (limit.now_s - new_s),
    )


def _reached(call: Record, limit_s: float) -> bool:
    """Whether its last execution was ended at the limit: not by its caller, nor by a time-out of
    its own."""
    ended = executed(call) and call.trouble is Category.TIMEOUT and call.error_type == _CAUSE
    return ended and call.execute_ns >= _FIRED * limit_s * NS


def _reached_by_tool(call: Record, limit_s: float) -> bool:
    """The same of a tool's execution. Its limit is also its deadline, and that is what the error of
    one in a thread names; what is ended because the turn is over has taken another time."""
    if not executed(call) or call.trouble is not Category.TIMEOUT:
        return False
    return _FIRED <= _each_ns(call) / (limit_s * NS) <= _BEYOND


def _seen_s(calls: Sequence[Record], known: Known) -> float:
    """The limit of a tool of a program: where enough of its executions ended, all at nearly the same
    time, else the one in the settings."""
    ends = [_each_ns(call) for call in calls if executed(call) and call.trouble is Category.TIMEOUT]
    middle_ns = median(ends) if ends else 0
    there = [end for end in ends if _FIRED * middle_ns <= end <= middle_ns / _FIRED]
    if not middle_ns or len(there) < max(LEAST, _MOSTLY * len(ends)):
        return known.settings.chat.tool_timeout_s
    return float(f"{min(there) / NS:.3g}")


def _each_ns(call: Record) -> float:
    """How long one of its executions took."""
    return call.execute_ns / call.attempts


def _rounded(seconds: float) -> float:
    """Up to a number that is easily read."""
    size = 1.0
    while size * 10 < seconds:
        size *= 10
    return size * next(digit for digit in (1, 2, 3, 5, 10) if digit * size >= seconds)
