"""What every target must do, as checks to run on one's own.

::

    @pytest.mark.parametrize("check", CHECKS)
    async def test_my_target(check):
        async with my_stage() as stage:
            await check(stage)

A stage is a target, entered, and whatever does its work: that has to do what `play` does, which
plays by the query of each call. `check_target` runs all checks, each on a stage of its own. They
raise AssertionError where the target breaks a promise.
"""

import asyncio
import random
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

from paceline.balance.fleet import Fleet
from paceline.balance.instance import AgentInstance
from paceline.balance.lease import Lease
from paceline.balance.strategies import make
from paceline.call import Call, Caller, Kind, Plan, Scope, Tokens
from paceline.clock import Clock
from paceline.errors import CallTimeoutError, Category, InvalidInputError, PacelineError
from paceline.instances.protocol import Target
from paceline.pricing import PriceList
from paceline.usage import Metering, metered

__all__ = [
    "CHECKS",
    "Check",
    "Stage",
    "a_call",
    "a_lease",
    "calls_do_not_mix",
    "cancelled_leaves_nothing",
    "check_target",
    "closes_more_than_once",
    "errors_are_typed",
    "gives_the_value",
    "keeps_the_deadline",
    "looks_whether_it_is_there",
    "meters_what_was_used",
    "play",
    "refuses_what_is_late_or_senseless",
    "secrets_stay_out",
    "several_at_once",
]

_SOON_S: Final = 0.25
_PATIENCE_S: Final = 20.0
_LOOK_S: Final = 0.002
_AT_ONCE: Final = 5
_NS: Final = 1_000_000_000


async def play(query: str, **context: object) -> object:
    """What the far side of a target does: "echo" gives back the argument `value`, "hang" never
    ends, "fail" raises, and "refuse" finds the input wrong."""
    if query == "hang":
        await asyncio.get_running_loop().create_future()
    if query == "fail":
        raise RuntimeError("the far side failed")
    if query == "refuse":
        raise InvalidInputError("the far side does not take this")
    return context.get("value")


class Stage(Protocol):
    """A target, entered, with its far side."""

    @property
    def target(self) -> Target:
        """What is checked."""
        ...

    @property
    def clock(self) -> Clock:
        """The one that deadlines are of."""
        ...

    @property
    def values(self) -> Sequence[object]:
        """What "echo" gives back as it was."""
        ...

    @property
    def secrets(self) -> Sequence[str]:
        """What is shown nowhere."""
        ...

    @property
    def usage(self) -> Tokens | None:
        """What each "echo" says that it used; None if that cannot be said."""
        ...

    def busy(self) -> int:
        """Calls that are being worked on: at the far side, by open connections, in processes."""
        ...

    async def go_away(self) -> bool:
        """Ends the far side; False if that is not possible."""
        ...

    async def come_back(self) -> None:
        """Brings it back."""
        ...


Check = Callable[[Stage], Awaitable[None]]


async def check_target(make_stage: Callable[[], AbstractAsyncContextManager[Stage]]) -> None:
    """All checks, one after the other."""
    for check in CHECKS:
        async with make_stage() as stage:
            await check(stage)


def a_call(query: str | None = "echo", *, deadline_ns: int | None = None, **more: object) -> Call:
    """A call to execute."""
    caller = Caller("ada", "s-1", "acme")
    return Call(
        id="call-1",
        kind=Kind.AGENT,
        name="played",
        arguments=more if query is None else {"query": query, **more},
        caller=caller,
        scope=Scope.of(caller, None),
        plan=Plan(),
        deadline_ns=deadline_ns,
        trace_id="trace-1",
    )


def a_lease(clock: Clock) -> Lease:
    """A lease of an instance."""
    fleet = Fleet("played", make("round_robin", clock=clock, rng=random.Random(1)), clock=clock)  # noqa: S311 (a seeded one is meant)
    fleet.add(AgentInstance("one", "played"))
    return fleet.lease()


async def gives_the_value(stage: Stage) -> None:
    """Every value comes as it was, nothing and empty ones too; the lease is told of the beginning
    of the answer, and still held."""
    for value in stage.values:
        lease = a_lease(stage.clock)
        got = await stage.target.execute(a_call(value=value), lease)
        assert got == value, f"{got!r} instead of {value!r}"
        assert type(got) is type(value), f"{got!r} instead of {value!r}"
        assert lease.first_ns, "the lease was not told that the answer began"
        assert not lease.ended_ns, "the lease is not the target's to release"
        lease.release()
    await _until(stage, 0)


async def errors_are_typed(stage: Stage) -> None:
    """What goes wrong is an error of ours, which says that the work may have started; the target
    works on."""
    failed = await _error(stage, a_call("fail"))
    assert failed.may_have_started, "it had started"
    assert failed.category is not Category.INVALID
    refused = await _error(stage, a_call("refuse"))
    assert refused.category is Category.INVALID, refused.category
    await gives_the_value(stage)


async def refuses_what_is_late_or_senseless(stage: Stage) -> None:
    """A call whose deadline has passed, or that has nothing to do, is not started."""
    late = await _error(stage, a_call(deadline_ns=stage.clock.monotonic_ns() - 1))
    assert isinstance(late, CallTimeoutError), late
    assert not late.may_have_started
    senseless = await _error(stage, a_call(None))
    assert isinstance(senseless, InvalidInputError), senseless
    assert not senseless.may_have_started
    assert stage.busy() == 0


async def keeps_the_deadline(stage: Stage) -> None:
    """At the deadline of the call its work ends, and the error says that it may have started."""
    await _echo(stage)
    until_ns = stage.clock.monotonic_ns() + round(_SOON_S * _NS)
    error = await _error(stage, a_call("hang", deadline_ns=until_ns))
    assert isinstance(error, CallTimeoutError), error
    assert error.may_have_started
    assert stage.clock.monotonic_ns() >= until_ns
    await _until(stage, 0)
    await _echo(stage)


async def cancelled_leaves_nothing(stage: Stage) -> None:
    """Cancelling a call ends its work, and it is cancelled: no error takes the place of that."""
    await _echo(stage)
    task = asyncio.create_task(_hang(stage))
    await _until(stage, 1)
    task.cancel()
    done, _ = await asyncio.wait((task,), timeout=_PATIENCE_S)
    assert done, "it does not let itself be cancelled"
    assert task.cancelled(), "cancelled, it ended in another way"
    await _until(stage, 0)
    await _echo(stage)


async def several_at_once(stage: Stage) -> None:
    """Calls run beside each other; cancelling one leaves the others alone."""
    await _echo(stage)
    tasks = [asyncio.create_task(_hang(stage)) for _ in range(_AT_ONCE)]
    await _until(stage, _AT_ONCE)
    tasks[0].cancel()
    await _until(stage, _AT_ONCE - 1)
    await _echo(stage)
    assert not any(task.done() for task in tasks[1:])
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await _until(stage, 0)


async def calls_do_not_mix(stage: Stage) -> None:
    """Of many calls at once, each gets its own value."""
    values = [stage.values[n % len(stage.values)] for n in range(4 * _AT_ONCE)]
    got = await asyncio.gather(
        *(stage.target.execute(a_call(value=value), a_lease(stage.clock)) for value in values)
    )
    assert got == values


async def meters_what_was_used(stage: Stage) -> None:
    """What an answer says it used is told to the lease, and to the meter of the call."""
    if stage.usage is None:
        return
    lease = a_lease(stage.clock)
    with metered(Metering(PriceList({}), stage.clock).meter()) as meter:
        await stage.target.execute(a_call(value=stage.values[0]), lease)
    assert lease.tokens == stage.usage, lease.tokens
    assert meter.spent is not None, "the meter was told nothing"
    assert meter.spent.tokens == stage.usage, meter.spent.tokens


async def looks_whether_it_is_there(stage: Stage) -> None:
    """A probe finds nothing wrong while it is there, and says so when it is not; what is asked then
    was not started; once it is back, so are probes and calls."""
    await stage.target.probe()
    if not await stage.go_away():
        return
    found = await _found(stage)
    assert found is not None, "it is gone, and the probe found nothing wrong"
    assert found.category.transient, found.category
    error = await _error(stage, a_call())
    assert not error.may_have_started, "nobody was there who could have started it"
    assert error.category.transient, error.category
    await stage.come_back()
    await stage.target.probe()
    await _echo(stage)


async def closes_more_than_once(stage: Stage) -> None:
    """Leaving ends everything, also with work under way; leaving again is nothing; it can be
    entered again."""
    await _echo(stage)
    task = asyncio.create_task(_hang(stage))
    await _until(stage, 1)
    await stage.target.__aexit__(None, None, None)
    await stage.target.__aexit__(None, None, None)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await _until(stage, 0)
    async with stage.target:
        await _echo(stage)
    await stage.target.__aenter__()


async def secrets_stay_out(stage: Stage) -> None:
    """No secret is in an error, its causes, their tracebacks, or in what the target looks like."""
    shown = [repr(stage.target), str(stage.target)]
    soon_ns = stage.clock.monotonic_ns() + round(_SOON_S * _NS)
    calls = [a_call("fail"), a_call("refuse"), a_call("hang", deadline_ns=soon_ns)]
    errors = [await _error(stage, call) for call in calls]
    if await stage.go_away():
        errors.append(await _error(stage, a_call()))
        await stage.come_back()
    for error in errors:
        shown += traceback.format_exception(error)
        shown.append(error.next_step)
        shown += [repr(one) for one in _chain(error)]
    for secret in stage.secrets:
        assert not any(secret in text for text in shown), "a secret is shown"


CHECKS: Final[tuple[Check, ...]] = (
    gives_the_value,
    errors_are_typed,
    refuses_what_is_late_or_senseless,
    keeps_the_deadline,
    cancelled_leaves_nothing,
    several_at_once,
    calls_do_not_mix,
    meters_what_was_used,
    looks_whether_it_is_there,
    closes_more_than_once,
    secrets_stay_out,
)


async def _echo(stage: Stage) -> None:
    value = stage.values[0]
    assert await stage.target.execute(a_call(value=value), a_lease(stage.clock)) == value


async def _hang(stage: Stage) -> None:
    await stage.target.execute(a_call("hang"), a_lease(stage.clock))


async def _error(stage: Stage, call: Call) -> PacelineError:
    """What the call fails with."""
    lease = a_lease(stage.clock)
    try:
        value = await asyncio.wait_for(stage.target.execute(call, lease), _PATIENCE_S)
    except PacelineError as exc:
        assert not lease.ended_ns, "the lease is not the target's to release"
        return exc
    raise AssertionError(f"{value!r} instead of an error")


async def _found(stage: Stage) -> PacelineError | None:
    """What a probe finds wrong."""
    try:
        await stage.target.probe()
    except PacelineError as exc:
        return exc
    return None


async def _until(stage: Stage, busy: int) -> None:
    """Waits until so many calls are being worked on."""
    looks = round(_PATIENCE_S / _LOOK_S)
    for _ in range(looks):
        if stage.busy() == busy:
            return
        await asyncio.sleep(_LOOK_S)
    raise AssertionError(f"{stage.busy()} calls are being worked on instead of {busy}")


def _chain(error: BaseException | None) -> list[BaseException]:
    """An error, and all it came of."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found
