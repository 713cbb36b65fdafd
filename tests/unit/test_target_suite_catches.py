"""The suite for targets finds what is wrong with one: each broken promise by its check."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from paceline.call import Call, Tokens
from paceline.clock import SystemClock
from paceline.errors import AgentError, Category, InvalidInputError, PacelineError
from paceline.instances.function import FunctionTarget
from paceline.testing import target_suite as suite
from paceline.testing.target_suite import Check, check_target, play
from tests.far_sides import FarSide, with_function

SECRET = "tok-4f9a8b7c6d5e4f3a"


class Broken:
    """A target that keeps all promises but one."""

    def __init__(self, how: str, target: Any) -> None:
        self.how = how
        self.target = target

    def __repr__(self) -> str:
        return SECRET if self.how == "shows its secret" else "Broken()"

    async def __aenter__(self) -> Any:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.how == "closes once":
            assert not getattr(self, "closed", False), "closed"
            self.closed = True

    async def probe(self) -> None:
        if self.how == "is never there":
            raise AgentError("away")

    async def execute(self, call: Call, lease: Any) -> Any:
        query = call.arguments.get("query")
        if self.how == "raises anything" and query == "fail":
            raise RuntimeError(SECRET)
        if self.how == "knows no late" and call.deadline_ns:
            return None
        if self.how == "leaves work behind" and query == "hang":
            self.left = asyncio.ensure_future(self.target.execute(call, lease))
            return await asyncio.shield(self.left)
        try:
            value = await self.target.execute(call, lease)
        except asyncio.CancelledError:
            if self.how == "swallows cancellation":
                return None
            raise
        except PacelineError as exc:
            if self.how == "denies having started":
                exc.may_have_started = False
            if self.how == "tells its secret":
                raise AgentError(SECRET, category=exc.category, may_have_started=True) from exc
            raise
        return self.changed(value, lease)

    def changed(self, value: object, lease: Any) -> object:
        if self.how == "releases":
            lease.release()
        return str(value) if self.how == "makes text of it" else value


BREACHES: list[tuple[str, Check]] = [
    ("makes text of it", suite.gives_the_value),
    ("releases", suite.gives_the_value),
    ("raises anything", suite.errors_are_typed),
    ("denies having started", suite.errors_are_typed),
    ("denies having started", suite.keeps_the_deadline),
    ("knows no late", suite.refuses_what_is_late_or_senseless),
    ("knows no late", suite.keeps_the_deadline),
    ("swallows cancellation", suite.cancelled_leaves_nothing),
    ("leaves work behind", suite.cancelled_leaves_nothing),
    ("leaves work behind", suite.several_at_once),
    ("makes text of it", suite.calls_do_not_mix),
    ("keeps its usage to itself", suite.meters_what_was_used),
    ("is never there", suite.looks_whether_it_is_there),
    ("closes once", suite.closes_more_than_once),
    ("shows its secret", suite.secrets_stay_out),
    ("tells its secret", suite.secrets_stay_out),
]


@asynccontextmanager
async def broken(how: str) -> AsyncIterator[FarSide]:
    """A stage for a target that is broken in this way."""
    async with with_function() as side:
        side.target = Broken(how, side.target)
        side.secrets = (SECRET,)
        if how == "keeps its usage to itself":
            side.usage = Tokens(1)
        yield side


@pytest.mark.parametrize(("how", "check"), BREACHES)
async def test_every_breach_is_found(
    how: str, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A target with one fault fails the check for it, while the sound one passes."""
    monkeypatch.setattr(suite, "_PATIENCE_S", 0.3)
    async with broken("not at all") as side:
        await check(side)
    async with broken(how) as side:
        with pytest.raises((AssertionError, RuntimeError, AgentError)):
            await check(side)
        left = getattr(side.target, "left", None)
        if left is not None:
            left.cancel()


async def test_all_checks_in_one() -> None:
    """A sound target passes the whole suite, with a stage of its own for each check."""
    stages = 0

    def make() -> Any:
        nonlocal stages
        stages += 1
        return with_function()

    await check_target(make)
    assert stages == len(suite.CHECKS)


async def test_the_far_side_plays() -> None:
    """What the far side does for each query is what the suite takes it to do."""
    function: Callable[..., Any] = play
    assert await function("echo", value=3) == 3
    with pytest.raises(InvalidInputError) as caught:
        await function("refuse")
    assert caught.value.category is Category.INVALID
    async with FunctionTarget.of(play, clock=SystemClock()) as target:
        await target.probe()
