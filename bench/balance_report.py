"""The report on balancing: how near each strategy comes to an oracle, and what a choice costs."""

from collections.abc import Callable, Iterable
from operator import sub
from pathlib import Path
from typing import Any, Final

import msgspec

from bench import resilience, verdicts
from bench.balance import POLICIES, Cell
from bench.picks import Figures
from bench.scenarios import AGENTS, CONVERSATION, FAILING, ORACLE
from bench.timing import Timed
from bench.verdicts import (
    AWAIT_NS,
    Bar,
    Results,
    Section,
    Table,
    against,
    at_most,
    beside,
    counted,
    part,
    percent,
    time,
)
from paceline.balance.strategy import LoadBalancingStrategy

__all__ = ["REPORT", "TITLE", "sections", "write"]

TITLE: Final = "Balancing"
REPORT: Final = Path(__file__).parent / "results" / "balance.md"

_OURS: Final = LoadBalancingStrategy.LEARNED_WORK
_LEAST: Final = LoadBalancingStrategy.LEAST_LOADED
_TALK: Final = 1.25
_AGENTS: Final = 1.1
_PICK_US: Final = {"8": 5.0, "100": 15.0}
_TWO_US: Final = 3.0
_PATH_US: Final = 30.0


def sections(results: Results, *, only_run: bool = False) -> list[Section]:
    """The report; `only_run` leaves out what was not run."""
    return [
        part(results, title, needed, make)
        for title, needed, make in (
            ("In simulation", "policies", _tuned),
            ("In simulation, settings that nothing was tuned on", "policies", _held_out),
            ("What a choice costs", "picks", _picks),
            ("What keeping a call alive costs", "resilience", _resilience),
        )
        if needed in results or not only_run
    ]


# --- simulation


def _tuned(title: str, data: Any) -> Section:
    cells = _cells(data, held_out=False)
    bars = [_near(cells, name, _TALK) for name in CONVERSATION if (name, _OURS) in cells]
    bars += [_near(cells, name, _AGENTS) for name in AGENTS if (name, _OURS) in cells]
    failed = [cell.failed for cell in cells.values() if cell.scenario == FAILING]
    if failed:
        bars.append(at_most(f"failed requests of all policies, {FAILING}", max(failed), 0, counted))
    bars.append(_never_worse(cells))
    notes = [
        (
            "8 servers of speeds 2, 2, 1, 1, 1, 1, 0.5 and 0.5 with caches of prefixes, and the "
            "balancer's own code. The oracle is greedy with true queues, caches, speeds and lengths "
            "of answers: it can be beaten. Its cost and that of `learned_work` are alike in form, "
            "and like the simulator's: a real engine has to confirm them."
        ),
        (
            f"Strategies know no speeds but where it is said. Of {data['seeds']} seeds for the "
            "oracle and `learned_work`, else of one. The first tenth of the work is left out."
        ),
        (
            "The lowest mean latency, of the last ten answers and whatever is in flight, and peak "
            "EWMA of two by chance are what others ship, written anew for the simulation."
        ),
    ]
    return Section(title, bars, [_ratios(cells), *_details(cells)], notes)


def _held_out(title: str, data: Any) -> Section:
    cells = _cells(data, held_out=True)
    if not cells:
        return Section(title, notes=["Not measured: it was left out."])
    names = dict.fromkeys(name for name, _ in cells)
    bars = [_near(cells, name, _AGENTS if "agents" in name else _TALK) for name in names]
    bars.append(_never_worse(cells))
    notes = [
        (
            "But for the large caches: how quickly the index of prefixes grows was chosen with them in "
            "view, when 1.27 had been measured there."
        )
    ]
    return Section(title, bars, [_ratios(cells), *_details(cells)], notes)


_Cells = dict[tuple[str, str], Cell]


def _cells(data: Any, *, held_out: bool) -> _Cells:
    cells = msgspec.convert(data["cells"], list[Cell])
    return {(cell.scenario, cell.policy): cell for cell in cells if cell.held_out is held_out}


def _near(cells: _Cells, scenario: str, most: float) -> Bar:
    ours, best = cells[scenario, _OURS], cells[scenario, ORACLE]
    return beside(f"mean of {_OURS}, {_short(scenario)}", _means(ours, best), ORACLE, most)


def _never_worse(cells: _Cells) -> Bar:
    """Of all scenarios, in the one where it does worst."""
    pairs = [
        (cell, cells[scenario, _LEAST])
        for (scenario, policy), cell in cells.items()
        if policy == _OURS
    ]
    ours, least = max(pairs, key=lambda pair: pair[0].mean_s / pair[1].mean_s)
    what = f"mean of {_OURS} where it is worst, {_short(ours.scenario)}"
    return beside(what, _means(ours, least), _LEAST, 1.0)


def _means(ours: Cell, other: Cell) -> Timed:
    return Timed([1e9 * ours.mean_s], [1e9 * other.mean_s])


def _ratios(cells: _Cells) -> Table:
    """Means over the oracle's, by policy and scenario; the nearest first."""
    names = list(dict.fromkeys(name for name, _ in cells))
    policies = [policy for policy in POLICIES if (names[0], policy) in cells]

    def total(policy: str) -> float:
        return sum(cells[name, policy].ratio for name in names)

    rows = [
        [policy, *(_times(cells[name, policy].ratio) for name in names)]
        for policy in sorted(policies, key=total)
    ]
    return Table(["mean over the oracle's", *(_short(name) for name in names)], rows)


def _details(cells: _Cells) -> Iterable[Table]:
    """Seconds of every policy, a table for each scenario."""
    for name in dict.fromkeys(name for name, _ in cells):
        found = [cell for cell in cells.values() if cell.scenario == name]
        rows = [
            [
                cell.policy,
                *(_seconds(s) for s in (cell.p50_s, cell.p95_s, cell.p99_s, cell.mean_s)),
                _seconds(cell.first_p99_s),
                percent(100 * cell.hit_share),
                counted(cell.failed),
                _times(cell.ratio),
            ]
            for cell in sorted(found, key=lambda cell: cell.mean_s)
        ]
        columns = ["p50", "p95", "p99", "mean", "first token p99", "cached", "failed", "x oracle"]
        yield Table([_short(name), *columns], rows)


def _short(name: str) -> str:
    return name.removeprefix("held out: ")


def _times(number: float) -> str:
    return f"{number:.2f}"


def _seconds(number: float) -> str:
    return f"{number:,.1f} s"


# --- cost


def _picks(title: str, data: Any) -> Section:
    figures = msgspec.convert(data, Figures)
    bars: list[Bar] = []
    for size, most_us in _PICK_US.items():
        name, times = _extreme(max, figures.plain, size)
        what = f"pick, lease and release, {size} instances, the dearest ({name})"
        bars.append(_within(what, times[size], most_us))
        name, told = _extreme(max, figures.told, size)
        bars.append(_within(f"the same, all told, the dearest ({name})", told[size], most_us))
        two = LoadBalancingStrategy.POWER_OF_TWO
        bars.append(_within(f"the same of {two}", figures.plain[two][size], _TWO_US))
        if figures.peers:
            peer, theirs = _extreme(min, figures.peers, size)
            what = f"our dearest beside its cheapest, {size}"
            bars.append(against(what, times[size], (f"LiteLLM {peer}", theirs[size]), 1.0))
    sizes = sorted(next(iter(figures.plain.values())), key=int)
    rows = [
        [name, *_times_of(plain), *_times_of(figures.told[name])]
        for name, plain in figures.plain.items()
    ]
    columns = ["strategy", *(f"{n} instances" for n in sizes), *(f"{n}, all told" for n in sizes)]
    tables = [Table(columns, rows)]
    if figures.peers:
        columns = ["LiteLLM, a choice", *(f"{n} deployments" for n in sizes)]
        rows = [[name, *_times_of(theirs)] for name, theirs in figures.peers.items()]
        tables.append(Table(columns, rows))
    notes = [
        (
            f"{figures.rounds} rounds: an instance is picked, held and given back, two being in "
            "flight at each. All told: the strategy hears of the first token and of the tokens "
            "used, too."
        ),
        (
            "LiteLLM's Router only chooses (`async_get_available_deployment`), of deployments that "
            "are not cooled down, and keeps its counts elsewhere."
        ),
        *(f"Failed: {name}: {why}" for name, why in figures.failed.items()),
    ]
    return Section(title, bars, tables, notes)


def _resilience(title: str, data: Any) -> Section:
    figures = msgspec.convert(data, resilience.Figures)
    added = {
        name: Timed(list(map(sub, timed.ns, timed.limit_ns)), timed.limit_ns)
        for name, timed in figures.calls.items()
    }
    bars = [
        _within(f"added to a no-op {name}", added[name], _PATH_US)
        for name in (resilience.BALANCER, resilience.RUNTIME)
    ]
    rows = [[name, time(timed.median), f"{timed.ratio:.0f}"] for name, timed in added.items()]
    notes = [
        (
            "The no-op is at eight instances with a circuit, outlier detection, rates and, by the "
            "balancer, an adaptive limit; it has a deadline and is counted in the figures."
        )
    ]
    return Section(title, bars, [Table(["added to a no-op", "takes", "x await"], rows)], notes)


_Times = dict[str, Timed]


def _within(what: str, ours: Timed, most_us: float) -> Bar:
    return beside(what, ours, "await no-op", 1e3 * most_us / AWAIT_NS, f"{most_us:.0f} us there")


def _extreme(
    least_or_most: Callable[..., tuple[str, _Times]], times: dict[str, _Times], size: str
) -> tuple[str, _Times]:
    return least_or_most(times.items(), key=lambda item: item[1][size].ratio)


def _times_of(times: _Times) -> list[str]:
    return [time(times[size].median) for size in sorted(times, key=int)]


def write(results: Results, command: str, path: Path = REPORT) -> list[Section]:
    """Writes the report and, beside it, the figures it was made of."""
    parts = sections(results)
    verdicts.write(TITLE, results, parts, command, path)
    return parts
