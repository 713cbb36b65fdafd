"""`SyncRuntime.results`: the results of a runtime, for scripts."""

import inspect
import threading
from pathlib import Path

import pytest

from paceline import Runtime, Source, SyncRuntime
from paceline.config import load
from paceline.errors import RuntimeClosedError, UsageError
from paceline.results import Results, WarmCall
from paceline.sync import SyncResults


def make(home: Path) -> Runtime:
    settings = load(overrides={"agents": {"watch": False}, "hostexec": {"mode": "off"}})
    runtime = Runtime(settings, agents=[], home=home, environ={})

    @runtime.agent(effect="read", cache_ttl=60, scope="global")
    async def reads(query: str) -> str:
        return query.upper()

    return runtime


def public(kind: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(value)
        for name, value in vars(kind).items()
        if callable(value) and not name.startswith("_")
    }


def test_it_has_the_names_of_the_asynchronous_one() -> None:
    """Every method of `runtime.results` is there, with the same parameters, defaults and result,
    and a docstring that names it; there are no others. (S0-76, S0-78, S1-52)"""
    assert public(SyncResults) == public(Results)
    for name in public(SyncResults):
        assert inspect.getdoc(getattr(SyncResults, name)).startswith(f"Results.{name}: ")  # type: ignore[union-attr]
        assert not inspect.iscoroutinefunction(getattr(SyncResults, name))


def test_results_are_looked_at_taken_away_and_made_ahead(tmp_path: Path) -> None:
    """What `runtime.results` does happens when the call returns, without `await`, from any thread.
    (S0-76, S0-78, S1-52)"""
    with SyncRuntime(make(tmp_path)) as runtime:
        results = runtime.results
        report = results.warm([("reads", "a"), WarmCall("reads", "b")], concurrency=2)
        assert (report.warmed, report.failed) == (2, 0)
        assert runtime.run("reads", "a").source is Source.HOT
        assert results.stats().totals.requests == 1
        one = results.entries(1, "size", agent="reads")[0]
        assert results.get(one.key[:16]).value == one.summary.upper()
        assert results.remove(key=one.key) == 1
        assert len(results.entries()) == 1
        assert results.clear("reads") == 1
        assert runtime.run("reads", "a").source is Source.EXECUTED
        results.invalidate("agent:reads")
        assert runtime.run("reads", "a").source is Source.EXECUTED
        assert results.free("agent:reads") >= 1
        results.begin("world", "session")
        seen: list[int] = []
        thread = threading.Thread(target=lambda: seen.append(results.clear()))
        thread.start()
        thread.join()
        assert seen == [0]
        assert results.warm_from_history(1).warmed == 1
        with pytest.raises(UsageError, match="no key"):
            results.get("")


def test_a_closed_runtime_has_no_results(tmp_path: Path) -> None:
    """Before it is opened and after it is closed the results of a runtime are an error."""
    runtime = SyncRuntime(make(tmp_path))
    with pytest.raises(RuntimeClosedError):
        _ = runtime.results
    with runtime:
        results = runtime.results
    for use in (results.stats, results.clear, lambda: results.invalidate("tag")):
        with pytest.raises(RuntimeClosedError):
            use()
