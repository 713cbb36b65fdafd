"""What the demo shows: a progress bar on a terminal, plain lines in a pipe."""

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from examples.demo.workload import Step
from paceline import PacelineError, Source
from paceline.metrics.figures import Snapshot
from paceline.metrics.report import report

__all__ = ["Screen"]

_SOURCES = {
    Source.EXECUTED: "really run",
    Source.HOT: "from memory",
    Source.WARM: "from disk (another process stored it)",
    Source.JOINED: "shared with a call that was running already",
}


class Screen:
    """Where the demo writes."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False, width=None if out.isatty() else 160)

    def _line(self, text: str = "", style: str = "") -> None:
        self._console.print(Text(text, style=style))

    def _title(self, text: str) -> None:
        self._line()
        self._line(text, "bold")

    def start(self, calls: int, at_once: int, agents: Mapping[str, int], *, again: bool) -> None:
        """What is going to happen."""
        kinds = ", ".join(f"{name} {count}" for name, count in sorted(agents.items()))
        self._line(f"{calls} calls of four users, {at_once} at a time: {kinds}", "bold")
        known = "results of an earlier run are on disk" if again else "nothing is stored yet"
        self._line(f"Real commands, searches and requests on this machine; {known}.")
        self._line()

    @contextlib.contextmanager
    def progress(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """Shows how far a pass has come; yields what to call after each call."""
        if not self._console.is_terminal:
            self._line(f"{what} ...")
            yield lambda: None
            return
        columns = (
            TextColumn("{task.description:16}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self._console) as bar:
            task = bar.add_task(what, total=total)
            yield lambda: bar.advance(task)

    def statistics(self, snapshot: Snapshot) -> None:
        """The text of `paceline stats`."""
        self._line()
        self._line(report(snapshot))

    def sources(self, counts: Counter[Source], *, without: int) -> None:
        """Where values came from, and how many calls brought none."""
        self._title("Where results came from")
        rows = [(f"{n}", _SOURCES.get(source, source)) for source, n in counts.most_common()]
        self._table([*rows, (f"{without}", "no result: failed or refused, see below")])

    def saved(self, paced_s: float, bare_s: float, executed: int, executed_bare: int) -> None:
        """Time and executions, against the same calls without a cache."""
        self._title("What that saved")
        self._table(
            (
                (
                    "with Paceline",
                    f"{paced_s:.2f} s",
                    f"{executed} executions, failed ones included",
                ),
                ("without a cache", f"{bare_s:.2f} s", f"{executed_bare} executions"),
            )
        )
        if paced_s < bare_s:
            share = (bare_s - paced_s) / bare_s
            self._line(
                f"{bare_s - paced_s:.2f} s saved ({share:.0%}): {bare_s / paced_s:.1f} times as"
                " fast, measured by making the same calls again uncached",
                "green",
            )
        else:
            self._line("nothing saved this time: other work on this machine was in the way")

    def failures(self, failures: Sequence[tuple[Step, PacelineError]]) -> None:
        """Calls that brought no value, which the others did not notice."""
        self._title("What went wrong, and did not disturb the rest")
        alike = Counter((step.agent, error.category) for step, error in failures)
        for step, error in failures:
            if times := alike.pop((step.agent, error.category), 0):
                more = f", and {times - 1} like it" if times > 1 else ""
                self._line(f"{step.agent} {step.query!r} ({step.user}{more}): {error}")
                self._line(f"  next: {error.next_step}", "dim")

    def notices(self, notices: Sequence[str]) -> None:
        """What is not as it should be on this machine."""
        for notice in notices:
            self._line(f"note: {notice}", "yellow")

    def next_steps(self, *, again: bool) -> None:
        """What to try after this."""
        self._title("Try next")
        steps = [
            ('.venv/bin/paceline run host_exec "uname -a" --json', "twice: the second is warm"),
            (".venv/bin/paceline stats --verbose", "percentiles and sources"),
            (".venv/bin/paceline profile", "what the last run waited for"),
            (".venv/bin/paceline history --errors", "what failed, and why"),
            (".venv/bin/paceline doctor", "sandbox, files, agents of this machine"),
        ]
        if not again:
            steps.insert(0, ("make demo", "again: now some results come from disk"))
        self._table(steps)

    def _table(self, rows: Sequence[tuple[str, ...]] | Iterator[tuple[str, ...]]) -> None:
        grid = Table.grid(padding=(0, 2))
        for row in rows:
            grid.add_row("", *(Text(cell) for cell in row))
        self._console.print(grid)
