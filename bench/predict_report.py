"""The report on predictions: ours beside the table of the requirements."""

from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from bench import speculation, verdicts
from bench.predict import (
    COMPLETE,
    FREE_TEXT,
    LAUNCHABLE,
    NEXT,
    RECORDED,
    SHORT,
    Figures,
)
from bench.verdicts import Bar, Results, Section, Table, at_least, at_most, part, percent
from paceline.predict.evaluation import Evaluation

__all__ = ["REPORT", "TITLE", "sections", "write"]

TITLE: Final = "Prediction"
REPORT: Final = Path(__file__).parent / "results" / "predict.md"

_LEAST_US: Final = 500.0
_ASYNCIO_US: Final = 13.0  # a bare task group with a timeout, on the machine of the bars


class _Row(NamedTuple):
    """What the requirements ask of a set, in per cent: next tool among the first 1 and 3; the exact
    call among 1, 3 and 10; read-only hits, at so many extra calls."""

    tool: tuple[float, ...]
    call: tuple[float, ...]
    hits: float | None = None
    extra: float = 0.35


_BARS: Final = {
    "tau_airline_gpt4o": _Row((54, 75), (36, 41), 38),
    "bfcl_multi_turn": _Row((42, 55), (27, 33, 39), 30),
    "apibank": _Row((27, 43), (15, 21, 26)),
}


def sections(results: Results, *, only_run: bool = False) -> list[Section]:
    """The report; `only_run` leaves out what was not run."""
    parts = {
        "predict": [
            part(results, "On recorded sessions", "predict", _recorded),
            part(results, "What a prediction costs", "predict", _cost),
            part(results, "By other constants", "predict", _others),
        ],
        "speculation": [
            part(results, "End to end, in virtual time", "speculation", speculation.section)
        ],
    }
    return [
        each for name, some in parts.items() for each in some if name in results or not only_run
    ]


def write(results: Results, command: str, path: Path = REPORT) -> list[Section]:
    """Writes the report and, beside it, the figures it was made of."""
    parts = sections(results)
    verdicts.write(TITLE, results, parts, command, path)
    return parts


def _recorded(title: str, data: Any) -> Section:
    sets = _figures(data).sets
    bars = [bar for name, row in _BARS.items() for bar in _judged(name, row, sets[name])]
    extra = max(sets[FREE_TEXT].extra_calls, sets[FREE_TEXT].kept_extra_calls)
    bars.append(at_most("free text: extra calls for a real call", extra, 0.05, _ratio))
    columns = [
        "set", "sessions", "calls", "next tool 1 / 3", "exact call 1 / 3 / 10",
        "read-only hits at extra", "the same, kept", "Brier", "calibration error", "wait hidden",
    ]  # fmt: skip
    rows = [
        [
            name, str(one.sessions), str(one.calls), _tops(one.tool_top), _tops(one.call_top),
            f"{one.hits:.1%} at {one.extra_calls:.2f}",
            f"{one.kept_hits:.1%} at {one.kept_extra_calls:.2f}",
            f"{one.brier:.3f}", f"{one.calibration_error:.3f}", f"{one.hidden:.1%}",
        ]
        for name, one in sets.items()
    ]  # fmt: skip
    notes = [
        (
            "Each call is predicted from sessions of other tasks and other customers that come "
            "before it in the file, and from its own session so far. A hit is a read-only call of "
            "the next step that would have been launched; an extra call was launched and is not in "
            "that step. All replies of the model count, those that call nothing too. The threshold "
            "follows from what was scored before, never from what is judged."
        ),
        (
            "Kept: what is launched stays until something is changed, as in the cache; it is a hit "
            "if a later step asks for it, and extra if none does. What a session has read before is "
            "not run again, launched or not, and is no hit. Wait hidden: with 3.5 s of the model before "
            "each answer and 1 s of each tool; those of an answer that only read run side by side."
        ),
        (
            "What a model says and what it calls in the same answer are one event: no call is predicted "
            "from the words that come with it."
        ),
    ]
    return Section(title, bars, [Table(columns, rows)], notes)


def _judged(name: str, row: _Row, one: Evaluation) -> list[Bar]:
    bars = [
        at_least(f"{name}: {what} among {rank}", 100 * top[rank], least, percent)
        for what, top, leasts in (
            ("next tool", one.tool_top, row.tool),
            ("exact call", one.call_top, row.call),
        )
        for rank, least in zip(sorted(top), leasts, strict=False)
    ]
    if row.hits is not None:
        bars.append(at_least(f"{name}: read-only hits", 100 * one.hits, row.hits, percent))
        bars.append(at_most(f"{name}: extra calls", one.extra_calls, row.extra, _ratio))
    return bars


def _cost(title: str, data: Any) -> Section:
    cost = _figures(data).cost
    bars = [
        _beside(f"{what}, {where}: {kind}", us, ratio, cost.reference_us)
        for where, each in cost.sessions.items()
        for what in (NEXT, LAUNCHABLE, COMPLETE)
        for kind, us, ratio in (
            ("mean", each[what].mean_us, each[what].mean),
            ("95 %", each[what].most_us, each[what].most),
        )
    ]
    columns = ["sessions", "what", "moments", "mean", "95 %", "mean, times", "95 %, times"]
    rows = [
        [
            where, what, str(one.moments), _micro(one.mean_us), _micro(one.most_us),
            f"{one.mean:.1f}", f"{one.most:.1f}",
        ]
        for where, each in cost.sessions.items()
        for what, one in each.items()
    ]  # fmt: skip
    notes = [
        (
            "Time of the processor, as a multiple of the limit: one task in a bare asyncio task group "
            f"with a timeout, timed right after each moment. It takes {_micro(cost.reference_us)} here "
            f"and {_ASYNCIO_US:g} us on the machine of the bars, where {_LEAST_US:g} us are allowed."
        ),
        (
            "Each moment of a session is timed as it comes, once what came before it was learnt; the "
            "median of three runs counts. Calls that may be launched are those with a probability of "
            "0.1 or more, as sessions ask seven times of eight; complete calls are all ten; next tools "
            f"have no arguments. {SHORT}: made-up sessions of 200 tools and 12 calls, with "
            f"{cost.contexts:,} contexts and {cost.features:,} features of {cost.patterns:,} learnt, "
            f"which take {cost.saved_bytes / 1e6:.1f} MB to keep; the long session has 600 calls, and "
            "its last 150 events are timed. "
            f"{RECORDED}: the last eighth of its sessions, all before learnt. To `observe` is to learn "
            "of one event: it is no prediction, and has no bar."
        ),
    ]
    return Section(title, bars, [Table(columns, rows)], notes=notes)


def _beside(what: str, us: float, ratio: float, reference_us: float) -> Bar:
    most = _LEAST_US / _ASYNCIO_US
    bar = f"{most:.1f} times ({_LEAST_US:g} us there)"
    limit = f"asyncio {_micro(reference_us)}"
    return Bar(what, _micro(us), limit, f"{ratio:.1f}", bar, ratio <= most)


def _others(title: str, data: Any) -> Section:
    columns = ["constant", "value", "set", "exact call 1 / 3 / 10", "read-only hits at extra"]
    rows = [
        [
            each.constant, f"{each.value:g}", each.name, _tops(each.evaluation.call_top),
            f"{each.evaluation.hits:.1%} at {each.evaluation.extra_calls:.2f}",
        ]
        for each in _figures(data).tuned
    ]  # fmt: skip
    notes = [
        (
            "One constant was tuned on these sets: `least`, 0.15, below which nothing would be launched "
            "(predict/evaluation.py). Limits that keep a prediction cheap, such as how many candidates are looked "
            "at, were tried on these sets too, so that no figure here is of sessions that nothing was chosen on."
        )
    ]
    return Section(title, [], [Table(columns, rows)], notes)


def _figures(data: Any) -> Figures:
    return msgspec.convert(data, Figures, strict=False)


def _tops(top: dict[int, float]) -> str:
    return " / ".join(f"{100 * rate:.1f}" for _, rate in sorted(top.items()))


def _ratio(number: float) -> str:
    return f"{number:.2f}"


def _micro(number: float) -> str:
    return f"{number:,.0f} us"
