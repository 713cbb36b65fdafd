"""Calls of agents, made of what is asked for."""

import reprlib
from collections.abc import Mapping
from typing import Final, cast, final

from msgspec.structs import replace

from paceline.agents.spec import AgentSpec
from paceline.call import Call, Caller, Plan, Priority, Scope, current_call
from paceline.clock import Clock
from paceline.errors import InvalidInputError, PacelineError
from paceline.metrics.trace import current_span, made_in
from paceline.path.job import Execution

__all__ = ["Calls", "check_request", "deadline_ns"]

_NS: Final = 1_000_000_000
_LONGEST_S: Final = 366 * 86_400


@final
class Calls:
    """Makes the calls of one runtime."""

    __slots__ = ("_made", "_session")

    def __init__(self, session: str) -> None:
        """`session` names callers without a name, and begins the ids of calls."""
        self._session = session
        self._made = 0

    def caller(self, caller: Caller | None, user: str | None, around: Execution | None) -> Caller:
        """On whose behalf: who is named, else who made the call around this one, else nobody but
        this runtime's own session, so that no two nameless callers share results."""
        parent = current_call.get() if around is not None else None
        if caller is None:
            caller = parent.caller if parent is not None and user is None else Caller(user or None)
        if caller.user or caller.session:
            return caller
        return Caller(session=self._session, tenant=caller.tenant)

    def next_id(self) -> str:
        """An id that no other call has."""
        self._made += 1
        return f"{self._session}-{self._made}"

    def make(
        self,
        spec: AgentSpec,
        query: str,
        context: Mapping[str, object],
        caller: Caller,
        *,
        priority: Priority,
        deadline_ns: int | None,
    ) -> tuple[Call, PacelineError | None]:
        """The call, and what speaks against running it at all. Its parent is the call in whose
        course this code runs."""
        try:
            plan, error = spec.plan(query, context), None
        except PacelineError as exc:
            plan, error = Plan(), exc
        parent, around = current_call.get(), current_span.get()
        call_id = self.next_id()
        call = Call(
            call_id,
            spec.kind,
            spec.name,
            {**context, "query": query} if context else {"query": query},
            caller,
            Scope.of(caller, plan.scope),
            plan,
            priority,
            deadline_ns,
            parent.id if parent is not None else None,
            parent.trace_id if parent is not None else call_id,
        )
        return call if around is None else made_in(around, parent, call), error

    def instead_of(self, failed: Call, spec: AgentSpec) -> Call:
        """The call of another agent with the input of one that failed. Raises PacelineError."""
        context = dict(failed.arguments)
        query = str(context.pop("query"))
        call, error = self.make(
            spec,
            query,
            context,
            failed.caller,
            priority=failed.priority,
            deadline_ns=failed.deadline_ns,
        )
        if error is not None:
            raise error
        # Its parent is that of the failed one, which runs no more: the places to use are those.
        return replace(
            call,
            parent_id=failed.parent_id,
            trace_id=failed.trace_id,
            tracked_id=failed.tracked_id,
        )


def deadline_ns(around: Execution | None, timeout_s: float | None, clock: Clock) -> int | None:
    """The earlier of the caller's own limit and the deadline of the call it is made in.

    Not inside a call whose result others may get: they may have more time, and would get what
    came of having less. Such a call ends its inner ones by being cancelled.
    """
    shared = around is not None and around.call.plan.cacheable
    outer_ns = around.deadline_ns if around is not None and not shared else None
    if timeout_s is None:
        return outer_ns
    own_ns = clock.monotonic_ns() + round(timeout_s * _NS)
    return own_ns if outer_ns is None else min(own_ns, outer_ns)


def check_request(  # noqa: PLR0917 (on the path of every call)
    name: object,
    text: object,
    user: object,
    caller: object,
    context: object,
    priority: object,
    timeout: object,
) -> None:
    """Raises InvalidInputError for what no call can be made of."""
    if not isinstance(name, str):
        raise _wrong("the name of an agent", name, "a text")
    if not isinstance(text, str):
        raise _wrong(f"the input of {name}", text, "a text")
    if not text.strip():
        raise InvalidInputError(f"the input of {name} is empty", next_step="Say what to do.")
    if user is not None and not isinstance(user, str):
        raise _wrong("user", user, "a text")
    if caller is not None and not isinstance(caller, Caller):
        raise _wrong("caller", caller, "a Caller")
    if context is not None and not isinstance(context, Mapping):
        raise _wrong("context", context, "a mapping of names to values")
    if not isinstance(priority, Priority):
        raise _wrong("priority", priority, "a Priority")
    if timeout is None:
        return
    number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
    if not number or not 0 < cast("float", timeout) <= _LONGEST_S:
        raise _wrong("timeout", timeout, "a number of seconds, more than 0 and at most a year")


def _wrong(what: str, value: object, wanted: str) -> InvalidInputError:
    return InvalidInputError(
        f"{what} is {reprlib.repr(value)}, not {wanted}", next_step=f"Give {wanted}."
    )
