"""Calls of a runtime made in functions that are tracked."""

import asyncio
from pathlib import Path

import pytest

from paceline import Call, Outcome, Runtime, Settings, track_performance
from paceline.call import current_call
from paceline.config import load
from paceline.history.sqlite import SqliteReader
from paceline.metrics.figures import Ending
from paceline.metrics.profile.tree import tree_of
from paceline.metrics.span import Span, span_of
from paceline.path import calls as module
from paceline.testing.virtual_time import VirtualClock
from paceline.testing.virtual_time import run as run_virtual

QUIET = load(overrides={"agents": {"watch": False}, "hostexec": {"mode": "off"}})
ALONE = load(
    overrides={
        "agents": {"watch": False},
        "hostexec": {"mode": "off"},
        "run": {"max_concurrency": 1},
    }
)


class Seen:
    """A runtime's calls and tracked calls, by name."""

    def __init__(self, settings: Settings = QUIET, home: Path | None = None) -> None:
        self.clock = VirtualClock()
        self.runtime = Runtime(
            settings,
            agents=[],
            home=home,
            persist=home is not None,
            environ={},
            clock=self.clock,
        )
        self.called: list[Span] = []

    def watch(self) -> None:
        """Takes notice of every outcome from here on."""
        self.runtime._parts.path._observers = (*self.runtime._parts.path._observers, self._note)

    def _note(self, call: Call, outcome: Outcome) -> None:
        self.called.append(span_of(call, outcome, self.clock.wall_ns(), ending=Ending.SUCCESS))

    def tracked(self, name: str) -> track_performance:
        return track_performance(name, self.runtime.metrics)

    @property
    def spans(self) -> dict[str, Span]:
        every = [*self.runtime.metrics.trace.spans(), *self.called]
        return {span.name: span for span in every}


async def _run_tree(seen: Seen) -> None:
    runtime = seen.runtime
    async with runtime:
        seen.watch()

        @runtime.agent()
        async def leaf(query: str) -> None:
            with seen.tracked("in leaf"):
                await asyncio.sleep(1)

        @runtime.agent()
        async def inner(query: str) -> None:
            (await runtime.run("leaf", "x")).unwrap()

        @runtime.agent()
        async def later(query: str) -> None:
            return None

        @seen.tracked("step")
        async def step() -> None:
            (await asyncio.create_task(runtime.run("inner", "x"))).unwrap()

        @runtime.agent()
        async def outer(query: str) -> None:
            await step()
            await asyncio.sleep(1)

        @seen.tracked("main")
        async def main() -> None:
            (await runtime.run("outer", "x")).unwrap()

        await main()
        await runtime.run("later", "x")


def check_tree(seen: Seen) -> None:
    run_virtual(_run_tree(seen))
    after = seen.called.pop()
    spans = seen.spans
    assert {name: span.parent_id for name, span in spans.items()} == {
        "main": None,
        "outer": spans["main"].id,
        "step": spans["outer"].id,
        "inner": spans["step"].id,
        "leaf": spans["inner"].id,
        "in leaf": spans["leaf"].id,
    }
    assert {span.trace_id for span in spans.values()} == {spans["main"].id}
    assert (after.parent_id, after.trace_id) == (None, after.id)


def test_calls_are_children_of_the_tracked_functions_they_are_made_in() -> None:
    """A runtime's call made in a tracked function is its child and in its trace, and what is made
    in that call is a child of the call; one made after the function is neither. (S0-01)"""
    seen = Seen()
    check_tree(seen)


def test_the_test_of_the_tree_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Were calls the siblings of the functions they are made in, it would be noticed."""
    monkeypatch.setattr(module, "made_in", lambda around, outer, call: call)
    with pytest.raises(AssertionError):
        check_tree(Seen())


def test_the_profile_shows_one_tree() -> None:
    """Calls and tracked functions are one tree without a flaw. (S0-01)"""
    seen = Seen()
    run_virtual(_run_tree(seen))
    seen.called.pop()
    tree = tree_of(seen.spans.values())
    assert [node.span.name for node in tree.nodes] == [
        "main", "outer", "step", "inner", "leaf", "in leaf",
    ]  # fmt: skip
    assert not [node for node in tree.nodes if node.flaws]


def test_a_tracked_function_takes_no_second_place() -> None:
    """A call made in a tracked function of an agent runs in that agent's place: a runtime that is
    full with the agent does not wait for itself. (S0-01)"""
    seen = Seen(ALONE)

    async def main() -> None:
        async with seen.runtime as runtime:

            @runtime.agent()
            async def inner(query: str) -> str:
                return query

            @runtime.agent()
            @seen.tracked("step")
            async def outer(query: str) -> object:
                return (await runtime.run("inner", query)).unwrap()

            assert (await runtime.run("outer", "x", timeout=60)).unwrap() == "x"

    run_virtual(main())


def test_the_history_names_calls_alone(tmp_path: Path) -> None:
    """In the history, which has no tracked functions, the parent of a call is the call it was made
    in; those of one tracked function are one run. (S0-01)"""
    seen = Seen(home=tmp_path)
    run_virtual(_run_tree(seen))
    reader = SqliteReader(tmp_path / "history.db")
    main = seen.spans["main"].id
    by_name = {record.name: record for record in reader.trace(main)}
    assert {name: record.parent for name, record in by_name.items()} == {
        "outer": None,
        "inner": by_name["outer"].id,
        "leaf": by_name["inner"].id,
    }


def test_what_is_made_anew_is_of_the_call_that_was_served_the_old() -> None:
    """A result that is made anew while the old one is served has the call it was served to as its
    parent, also where that was made in a tracked function. (S0-01)"""
    seen = Seen()

    async def main() -> None:
        async with seen.runtime as runtime:
            seen.watch()

            @runtime.agent(effect="pure", cache_ttl=10, stale_while_revalidate=100)
            async def fact(query: str) -> str:
                assert current_call.get() is not None
                return query

            await runtime.run("fact", "x")
            await asyncio.sleep(20)
            with seen.tracked("step"):
                await runtime.run("fact", "x")
                await asyncio.sleep(1)

    run_virtual(main())
    first, served, anew = sorted(seen.called, key=lambda span: span.id)
    assert (served.parent_id, anew.parent_id) == (seen.spans["step"].id, served.id)
    assert first.parent_id is None
