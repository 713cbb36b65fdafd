"""What a cache of tool results would have answered in recorded runs, judged by what was true.

Every read of a run is looked up with the key that a rule gives it, by the parts that Paceline
keys with. A hit whose value is not the recorded result is wrong. A set says of which state its
runs began; a recorded result that is another call's, as tau-bench has some, proves nothing and
is counted apart. Errors are never kept.
"""

import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from time import perf_counter_ns
from typing import Protocol, final

import msgspec

from bench.peers import ROOT, peer_python
from bench.tool_effects import effect_of
from bench.tool_runs import Run, Runs, Step, bfcl_full, bfcl_given, tau_airline
from paceline.cache.generations import Generations
from paceline.cache.keys import call_key
from paceline.cache.write_history import WriteHistory, write_entry
from paceline.call import Call, Caller, EffectKind, Kind, Plan, Scope, ScopeLevel
from paceline.errors import StorageError

__all__ = ["Figures", "Rule", "main", "rules", "run", "score"]

ROUNDS = 3
_ALL = Scope(ScopeLevel.GLOBAL)


class Rule(Protocol):
    """How reads are keyed."""

    def begin(self, run: Run) -> None:
        """A run begins, in its start state."""
        ...

    def key(self, run: Run, call: Call) -> bytes | None:
        """The key of a read."""
        ...

    def ran(self, run: Run, call: Call, result: object) -> None:
        """A call was run, or its result was in the cache."""
        ...


class Figures(msgspec.Struct):
    """Of one set under one rule. `unproven` are hits of which a recorded result says nothing."""

    reads: int = 0
    hits: int = 0
    wrong: int = 0
    unproven: int = 0
    us_per_call: float = 0.0

    @property
    def hit_rate(self) -> float:
        """Hits over reads."""
        return self.hits / self.reads


class _Stateless:
    """Rules that do not look at what happens."""

    def begin(self, run: Run) -> None:
        pass

    def ran(self, run: Run, call: Call, result: object) -> None:
        pass


@final
class ToolAndArguments(_Stateless):
    """What most caches of tools do."""

    def key(self, run: Run, call: Call) -> bytes:  # noqa: ARG002 (what the rule overlooks)
        return call_key(_scoped(call, _ALL), "", b"")


@final
class StartState(_Stateless):
    """For each start state apart; what happened since is not looked at."""

    def key(self, run: Run, call: Call) -> bytes:
        return call_key(_scoped(call, _world(run)), "", b"")


@final
class Writes:
    """The start state and the writes since; with their `results`, or with `reads` among them."""

    def __init__(self, *, results: bool = False, reads: bool = False) -> None:
        self._history = WriteHistory()
        self._results = results
        self._reads = reads

    def begin(self, run: Run) -> None:
        self._history.begin(run.start, run.id)

    def key(self, run: Run, call: Call) -> bytes:
        seal = self._history.seal(run.start, run.id)
        assert seal is not None  # one call after the other
        return call_key(_scoped(call, _world(run)), "", seal.stamp)

    def ran(self, run: Run, call: Call, result: object) -> None:
        if self._reads or not call.plan.effect.repeatable:
            write = self._history.start(run.start, run.id)
            self._history.finish(write, write_entry(call, "", result if self._results else None))


@final
class WritesByTag:
    """The start state and the writes to what is read; what depends on no state is for all."""

    def __init__(self) -> None:
        self._history = WriteHistory()

    def begin(self, run: Run) -> None:
        self._history.begin(run.start, run.id)

    def key(self, run: Run, call: Call) -> bytes:
        if call.plan.effect.kind is EffectKind.PURE:
            return call_key(_scoped(call, _ALL), "", b"")
        seal = self._history.seal(run.start, run.id, call.plan.effect.tags)
        assert seal is not None
        return call_key(_scoped(call, _world(run)), "", seal.stamp)

    def ran(self, run: Run, call: Call, result: object) -> None:  # noqa: ARG002 (see Writes)
        if not call.plan.effect.repeatable:
            write = self._history.start(run.start, run.id, call.plan.effect.tags)
            self._history.finish(write, write_entry(call, "", None))


@final
class LiveGenerations:
    """Every run in a world of its own that nobody can set back: random generations of what is
    read. Nothing but what depends on no state is shared with other runs."""

    def __init__(self) -> None:
        self._generations = Generations(None, on_trouble=_unexpected)

    def begin(self, run: Run) -> None:
        pass

    def key(self, run: Run, call: Call) -> bytes:
        effect = call.plan.effect
        if effect.kind is EffectKind.PURE:
            return call_key(_scoped(call, _ALL), "", b"")
        stamps = self._generations.read((f"{run.id} *", *self._tags(run, call)))
        return call_key(_scoped(call, Scope(ScopeLevel.SESSION, None, None, run.id)), "", stamps)

    def ran(self, run: Run, call: Call, result: object) -> None:  # noqa: ARG002 (changes all the same)
        if not call.plan.effect.repeatable:
            self._generations.bump(self._tags(run, call) or (f"{run.id} *",))

    @staticmethod
    def _tags(run: Run, call: Call) -> tuple[str, ...]:
        return tuple(f"{run.id} {tag}" for tag in call.plan.effect.tags)


def rules() -> Iterator[tuple[str, Callable[[], Rule]]]:
    """The rules, by name."""
    yield "tool and arguments", ToolAndArguments
    yield "start state", StartState
    yield "start state, all calls", lambda: Writes(reads=True)
    yield "start state, writes", Writes
    yield "start state, writes and results", lambda: Writes(results=True)
    yield "start state, writes by tag", WritesByTag
    yield "own state, generations", LiveGenerations


def score(runs: Runs, rule: Rule) -> Figures:
    """What the rule's cache would have answered in these runs, one after the other."""
    figures = Figures()
    kept: dict[bytes, Step] = {}
    numbers = itertools.count()
    spent_ns = calls = 0
    for run_ in runs.runs:
        rule.begin(run_)
        for step in run_.steps:
            call = _call(runs, step, next(numbers))
            begun_ns = perf_counter_ns()
            key = rule.key(run_, call) if call.plan.effect.repeatable else None
            rule.ran(run_, call, step.result)
            spent_ns += perf_counter_ns() - begun_ns
            calls += 1
            if key is not None:
                figures.reads += 1
                _judge(figures, kept, key, step)
    figures.us_per_call = spent_ns / calls / 1e3
    return figures


def _judge(figures: Figures, kept: dict[bytes, Step], key: bytes, step: Step) -> None:
    found = kept.get(key)
    if found is None:
        if not (step.true and _failed(step.result)):
            kept[key] = step
        return
    figures.hits += 1
    if not step.true or not found.true:
        figures.unproven += 1
        kept[key] = step if step.true else found
    elif found.result != step.result:
        figures.wrong += 1


def _failed(result: object) -> bool:
    """How these tools say that they failed."""
    if isinstance(result, dict):
        return "error" in result
    return isinstance(result, str) and result.startswith("Error")


def _call(runs: Runs, step: Step, number: int) -> Call:
    plan = Plan(effect_of(runs.effects, step.name, step.arguments))
    return Call(str(number), Kind.TOOL, step.name, step.arguments, Caller(), _ALL, plan)


def _scoped(call: Call, scope: Scope) -> Call:
    return msgspec.structs.replace(call, scope=scope)


def _world(run: Run) -> Scope:
    return Scope(ScopeLevel.TENANT, run.start)


def _unexpected(exc: StorageError) -> None:
    raise exc


def _sets() -> Iterator[tuple[str, Runs]]:
    yield "tau_airline", tau_airline()
    given = bfcl_given()
    yield "bfcl_200", given
    yield "bfcl_200_replayed", Runs(given.effects, [*given.runs, *_again(given.runs, 2)])
    full = bfcl_full()
    if full is not None:
        yield "bfcl_full", full


def _again(runs: list[Run], times: int) -> Iterator[Run]:
    """The same runs from the same states: what the whole set's variants mostly are."""
    for number in range(times):
        for run_ in runs:
            yield msgspec.structs.replace(run_, id=f"{run_.id} {number}")


def run(rounds: int = ROUNDS, *, peers: bool = True) -> dict[str, object]:
    """By set and rule: reads, hit rate, wrong and unproven hits, microseconds a call.

    With `peers` in their environment, which has the simulators of the whole of BFCL.
    """
    if not peers:
        return _figures(rounds)
    done = subprocess.run(
        [peer_python(), "-m", "bench.tool_results", "--json", str(rounds)],
        cwd=ROOT, check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=dict[str, object])


def _figures(rounds: int) -> dict[str, object]:
    figures: dict[str, object] = {}
    for name, runs in _sets():
        rows: dict[str, object] = {}
        for title, make in rules():
            tries = [score(runs, make()) for _ in range(rounds)]
            best = min(tries, key=lambda scored: scored.us_per_call)
            rows[title] = {**msgspec.structs.asdict(best), "hit_rate": round(best.hit_rate, 4)}
        unproven = sum(not step.true for run_ in runs.runs for step in run_.steps)
        figures[name] = {"runs": len(runs.runs), "results_of_other_calls": unproven, "rules": rows}
    return figures


def main(arguments: list[str]) -> None:
    """Prints the figures; with arguments, what `run` asks of a process of its own."""
    if arguments:
        print(msgspec.json.encode(_figures(int(arguments[1]))).decode())
        return
    for name, runs in _sets():
        print(f"{name}: {len(runs.runs)} runs")
        for title, make in rules():
            scored = score(runs, make())
            print(
                f"  {title:34}{scored.hits:6} of {scored.reads:5} reads{scored.hit_rate:8.1%}"
                f"{scored.wrong:6} wrong ({scored.wrong / max(scored.hits, 1):.1%} of hits), "
                f"{scored.unproven} unproven, {scored.us_per_call:.1f} us a call"
            )


if __name__ == "__main__":
    main(sys.argv[1:])
