"""What an agent's step costs: our engine beside asyncio alone and other engines.

All are given the task of `bench/engine_task.py`. Each runs in a process of its own, the peers in an
environment of their own, see `bench/peers.py`; there it is measured beside asyncio alone.
"""

import os
import statistics
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from time import perf_counter_ns
from typing import Final

import msgspec

from bench import engine_contest, engine_session
from bench.engine_session import Eager, Idle
from bench.peers import ENGINES, ROOT, peer_python
from bench.timing import Timed

__all__ = ["OURS", "Figures", "main", "run"]

OURS: Final = "paceline"
_TIMEOUT_S: Final = 200
_IMPORTS: Final = 3
"""Of ours; a peer is imported once, as the first is not counted and some take many seconds."""
_QUIET: Final = {
    "AGNO_TELEMETRY": "false",
    "ENABLE_INSTRUMENTATION": "false",
    "LANGSMITH_TRACING": "false",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",
}
"""Turns off what peers would tell others."""


class Figures(msgspec.Struct):
    """By engine what it takes for the task, and what importing it takes over a bare interpreter; of
    ours a durable step, an eager start of a tool, and 2 s without work. `failed` are peers that
    could not be installed, or did not do the task."""

    engines: dict[str, engine_contest.Figures]
    import_ms: dict[str, float]
    durable: Timed
    eager: Eager
    idle: Idle
    failed: dict[str, str]


def run(rounds: int = 10, *, peers: bool = True) -> dict[str, object]:
    """See `Figures`. `rounds` are those of durable steps; few of them have all else measured a few
    times only."""
    effort = "many" if rounds >= 10 else "few"
    figures = Figures(
        engines={},
        import_ms={},
        durable=engine_session.durable(rounds),
        eager=engine_session.eager(30 * rounds),
        idle=engine_session.idle(),
        failed={},
    )
    _add(figures, OURS, Path(sys.executable), effort)
    for kind in ENGINES if peers else ():
        try:
            _add(figures, kind, peer_python(kind), "some")
        except (RuntimeError, subprocess.SubprocessError) as exc:
            figures.failed[kind] = str(exc)
    return msgspec.to_builtins(figures)  # type: ignore[no-any-return]


def _add(figures: Figures, kind: str, python: Path, effort: str) -> None:
    """Measures the engines of a module. Raises RuntimeError or SubprocessError."""
    module = f"engine_{kind.replace('-', '_')}"
    said = _output([python, "-m", "bench.engine_contest", module, effort])
    found = msgspec.json.decode(said.splitlines()[-1], type=dict[str, engine_contest.Figures])
    figures.engines |= found
    times = _IMPORTS if kind == OURS else 1
    took_ms = _import_ms(python, import_module(f"bench.{module}").IMPORTS, times)
    figures.import_ms |= dict.fromkeys(found, took_ms)


def _import_ms(python: Path, modules: str, times: int) -> float:
    """Over the same interpreter without them. The first of each is not counted: it may have to
    compile."""

    def took_ms(program: str) -> float:
        began_ns = perf_counter_ns()
        _output([python, "-c", program])
        return (perf_counter_ns() - began_ns) / 1e6

    pairs = [(took_ms("pass"), took_ms(f"import {modules}")) for _ in range(times + 1)]
    return statistics.median(loaded - bare for bare, loaded in pairs[1:])


def _output(command: list[str | Path]) -> bytes:
    """What it prints. Raises RuntimeError with the last that it complained of, and TimeoutExpired."""
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **_QUIET}, capture_output=True,
        timeout=_TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise RuntimeError(f"it ended with status {done.returncode}: {' '.join(last)[:200]}")
    return done.stdout


def main() -> None:
    """Prints the figures; with `--own` without the peers."""
    figures = run(peers="--own" not in sys.argv)
    sys.stdout.write(f"{msgspec.json.format(msgspec.json.encode(figures)).decode()}\n")


if __name__ == "__main__":
    main()
