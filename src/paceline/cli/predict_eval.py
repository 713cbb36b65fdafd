"""`paceline predict eval`: what launching ahead would have been worth on recorded sessions."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from paceline.call import EffectKind
from paceline.cli.cache import counted, short_time
from paceline.cli.output import OK, json_line, line, note, paragraph, table
from paceline.cli.place import Place
from paceline.cli.predict_sessions import own_sessions, read_sessions, said_of
from paceline.cli.predict_tools import known_tools, matching
from paceline.cli.ticking import ticking
from paceline.clock import Clock, SystemClock
from paceline.errors import InvalidInputError, StorageError
from paceline.predict.arguments import ArgumentModel
from paceline.predict.evaluation import Evaluation, Launching, evaluate, groups
from paceline.predict.events import Called, Step, Trajectory
from paceline.predict.predictor import PerformancePredictor
from paceline.speculation.kept import peek

__all__ = ["Wanted", "show_evaluation"]

_LEAST: Final = 20
"""Of less no share is told: it may be chance."""
_ENOUGH: Final = 100
"""Calls, before it is said whether launching is worth it."""
_WORTH: Final = 0.1
_LITTLE: Final = 0.02
"""Of the wait for tools, hidden."""
_MOST_NAMED: Final = 8
_LONGEST_S: Final = 86_400.0
_HERE: Final = "recorded here"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Of which sessions (None for our own, "-" for standard input), and what they are taken to wait
    for: seconds of the model before each answer, and of tools, as "1.0" or "NAME=0.3"."""

    file: str | None = None
    model_s: float = 3.5
    tool_s: Sequence[str] = ()
    read_only: Sequence[str] | None = None
    extra_calls: float = 0.3
    limit: int | None = None
    agents: Sequence[Path] | None = None
    as_json: bool = False


class _Tools(msgspec.Struct, frozen=True):
    """The tools that were called, and those that are known to change nothing. Of the `unknown` it is
    not known whether they do; they were not launched."""

    calls: Mapping[str, int]
    read_only: frozenset[str]
    unknown: Sequence[str] = ()


class _Own(msgspec.Struct, frozen=True):
    """What habits of each customer's own would have hidden, as they are learnt by default: each session
    predicted from earlier ones of the same. Calls in vain are for one that reads."""

    wait_s: float
    saved_s: float
    extra_calls: float

    @property
    def hidden(self) -> float:
        """The share of the wait for tools."""
        return self.saved_s / self.wait_s if self.wait_s else 0.0


class _Found(msgspec.Struct, frozen=True):
    """What came out, and of what: `where` they are is said for people, `apart` are groups of sessions
    that share nothing, `customers` those that are told apart; `own` is None where there are no several."""

    figures: Evaluation
    where: str
    tools: _Tools
    apart: int
    customers: int
    launching: Launching
    own: _Own | None

    @property
    def trained(self) -> bool:
        """Whether there is anything to predict from."""
        return self.apart > 1 and self.figures.calls > 0

    @property
    def launches(self) -> bool:
        """Whether there is anything that may be launched."""
        return self.trained and bool(self.tools.read_only)

    def in_vain(self, per_call: float) -> float:
        """For a call that reads, as the budget has it, what there is for a call of any kind."""
        figures = self.figures
        reads = figures.read_only_calls
        return per_call * figures.calls / reads if reads else 0.0


def show_evaluation(place: Place, wanted: Wanted) -> int:
    """Predicts recorded sessions from one another and shows how good that was."""
    try:
        found = _evaluated(place, wanted)
    except KeyboardInterrupt:
        note("note: stopped before it was done; nothing was changed. --limit takes fewer sessions")
        raise
    if wanted.as_json:
        json_line(_data(found))
    else:
        _show(found)
    return OK


def _evaluated(place: Place, wanted: Wanted) -> _Found:
    clock = SystemClock()
    sessions = _sessions(place, wanted, clock)
    calls = Counter(call.name for each in sessions for call in _calls(each))
    launching = _launching(wanted, calls)
    tools = _tools(place, wanted, calls)
    reads = sum(count for name, count in calls.items() if name in tools.read_only)
    launching = msgspec.structs.replace(
        launching,
        read_only=tools.read_only,
        extra_calls=launching.extra_calls * reads / max(calls.total(), 1),  # of a call of any kind
    )
    customers = len({each.scope for each in sessions if each.scope})
    apart = _task_and_scope if customers > 1 else _task
    shown = f"predicting {counted(calls.total(), 'call')} of {counted(len(sessions), 'session')}"
    with ticking(shown, clock, place.environ) as far:
        figures = evaluate(sessions, _predictor, launching=launching, apart=apart, far=far)
        own = _own(sessions, launching, reads) if customers > 1 else None
    where = _HERE if wanted.file is None else f"in {said_of(wanted.file)}"
    return _Found(figures, where, tools, len(groups(sessions, apart)), customers, launching, own)


def _own(sessions: Sequence[Trajectory], launching: Launching, reads: int) -> _Own:
    of_customers: defaultdict[tuple[str, int], list[Trajectory]] = defaultdict(list)
    for number, each in enumerate(sessions):
        of_customers[each.scope, 0 if each.scope else number].append(each)  # nobody's is alone
    found = [
        evaluate(theirs, _predictor, launching=launching, apart=_task)
        for theirs in of_customers.values()
    ]
    return _Own(
        sum(each.wait_s for each in found),
        sum(each.saved_s for each in found),
        sum(each.kept_extra_calls * each.calls for each in found) / max(reads, 1),
    )


def _sessions(place: Place, wanted: Wanted, clock: Clock) -> list[Trajectory]:
    if wanted.file is not None:
        with ticking(f"reading {said_of(wanted.file)}", clock, place.environ) as far:
            return read_sessions(wanted.file, wanted.limit, far)
    with ticking("reading the sessions that are kept here", clock, place.environ) as far:
        found, troubles = own_sessions(place, wanted.limit, far)
    for trouble in troubles[:_MOST_NAMED]:
        note(f"note: left out: {trouble}")
    return found


def _calls(trajectory: Trajectory) -> Iterator[Called]:
    for event in trajectory.events:
        if isinstance(event, Step):
            yield from event.calls


def _predictor() -> PerformancePredictor:
    return PerformancePredictor(clock=SystemClock(), arguments=ArgumentModel)


def _task(trajectory: Trajectory) -> Iterator[str]:
    if trajectory.task:
        yield f"task {trajectory.task}"


def _task_and_scope(trajectory: Trajectory) -> Iterator[str]:
    yield from _task(trajectory)
    if trajectory.scope:
        yield f"scope {trajectory.scope}"


def _launching(wanted: Wanted, calls: Mapping[str, int]) -> Launching:
    """Raises InvalidInputError for times that are none, and of tools that were not called."""
    other, named = Launching().other_tool_s, dict[str, float]()
    for given in wanted.tool_s:
        name, _, text = given.rpartition("=")
        if name:
            named |= dict.fromkeys(matching(calls, [name]), _seconds(given, text))
        else:
            other = _seconds(given, text)
    return Launching(
        extra_calls=wanted.extra_calls, model_s=wanted.model_s, tool_s=named, other_tool_s=other
    )


def _seconds(given: str, text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found <= _LONGEST_S:
        raise InvalidInputError(
            f"--tool-s {given}: {text!r} is no time of 0 to {_LONGEST_S:g} seconds",
            next_step="Write --tool-s 1.0 for all tools, or --tool-s NAME=0.3 for one.",
        )
    return found


def _tools(place: Place, wanted: Wanted, calls: Mapping[str, int]) -> _Tools:
    if wanted.read_only is not None:
        return _Tools(calls, matching(calls, wanted.read_only))
    if not calls:
        return _Tools(calls, frozenset())
    known = known_tools(place, wanted.agents, _effects(place))
    return _Tools(calls, known.read_only(calls), known.unknown(calls))


def _effects(place: Place) -> Mapping[str, EffectKind]:
    try:
        learnt = peek(place.home.predictions)
    except StorageError as exc:
        note(f"note: what was learnt cannot be read: {exc}")
        return {}
    return {} if learnt is None else learnt.effects


def _show(found: _Found) -> None:
    for text in paragraph(_verdict(found)):
        line(text)
    figures = found.figures
    if not figures.calls:
        return
    line()
    for text in paragraph(_told(found)):
        line(text)
    line()
    table(["what", "figure", "of"], list(_rows(found)), whole=["what", "figure"])
    if found.trained:
        line()
        table(["said", "came true", "proposals"], list(_reliability(figures)))
    if found.tools.unknown:
        names = ", ".join(found.tools.unknown[:_MOST_NAMED])
        more = len(found.tools.unknown) - _MOST_NAMED
        note(
            f"note: not launched, as it is not known whether they change anything: {names}"
            + (f" and {more} more" if more > 0 else "")
            + "; name those that do not with --read-only"
        )


def _verdict(found: _Found) -> str:
    """Whether it is worth turning on, in one sentence."""
    figures = found.figures
    if why := _unsaid(found):
        return why
    hidden, saved_s, whose = figures.hidden, figures.saved_s, ""
    in_vain = found.in_vain(figures.kept_extra_calls)
    if (own := found.own) is not None and own.hidden > hidden:
        whose = f", by each user's own habits, and {hidden:.0%} by those of others alone"
        hidden, saved_s, in_vain = own.hidden, own.saved_s, own.extra_calls
    elif own is not None:
        whose = f", by habits of other users, and {own.hidden:.0%} by each user's own"
    gain = (
        f"launching ahead would have hidden {hidden:.0%} of the wait for tools"
        f" ({short_time(saved_s)} of {short_time(figures.wait_s)}), for {in_vain:.2f} calls in vain"
        f" for each real one that reads{whose}."
    )
    if hidden >= _WORTH:
        return f"Worth turning on: {gain}"
    return f"{'Worth little' if hidden >= _LITTLE else 'Not worth turning on'}: {gain}"


def _unsaid(found: _Found) -> str:
    """Why it cannot be said whether it is worth it; "" if it can."""
    figures, tools = found.figures, found.tools
    if not figures.sessions:
        made = "" if found.where != _HERE else "; those of `paceline chat` and of programs are kept"
        return f"There is nothing to go by: no sessions are {found.where}{made}."
    if not figures.calls:
        return "There is nothing to predict: no tool was called in these sessions."
    unsaid = "Whether it is worth turning on cannot be said"
    if not found.trained:
        alone = "there is one session only, and none to predict it from"
        alike = "all sessions are of one task or one customer, so that none can be predicted from others"
        return f"{unsaid}: {alone if figures.sessions == 1 else alike}."
    if figures.calls < _ENOUGH:
        return (
            f"{unsaid} yet: {counted(figures.calls, 'call')}"
            f" {'is' if figures.calls == 1 else 'are'} recorded, and from {_ENOUGH} on there is"
            " something to go by."
        )
    if not tools.read_only:
        return (
            f"{unsaid}: of none of the {counted(len(tools.calls), 'tool')} is it known that it"
            " changes nothing, and only such ones are launched; name them with --read-only."
        )
    return ""


def _told(found: _Found) -> str:
    figures, launching = found.figures, found.launching
    others = "other tasks and other customers" if found.customers > 1 else "other tasks"
    tools = f"{launching.other_tool_s:g} s of each tool"
    if launching.tool_s:
        tools += f" ({', '.join(f'{name} {s:g} s' for name, s in launching.tool_s.items())})"
    return (
        f"{counted(figures.sessions, 'session')} with {counted(figures.calls, 'call')} of"
        f" {counted(len(found.tools.calls), 'tool')}, each predicted from earlier sessions of"
        f" {others} only. With {launching.model_s:g} s of the model before each answer and {tools}."
    )


def _rows(found: _Found) -> Iterator[Sequence[str]]:
    figures, data = found.figures, _data(found)

    def share(value: object) -> str:
        return f"{value:.1%}" if isinstance(value, float) else "-"

    def number(value: object) -> str:
        return f"{value:.2f}" if isinstance(value, float) else "-"

    calls, steps = f"{figures.calls:,} calls", f"{figures.steps:,} answers of the model"
    read = f"{figures.read_only_calls:,} calls that change nothing"
    first = f"{figures.first_reads:,} of these that are no repeat"
    for rank, top in data["next_tool"].items():
        yield f"next tool among the first {rank}", share(top), calls
    for rank, top in data["exact_call"].items():
        yield f"exact call among the first {rank}", share(top), steps
    yield "hits right before the call", share(data["hits"]), read
    yield "launched in vain for a call that reads", number(data["extra_calls"]), read
    yield "hits, if results are kept", share(data["kept_hits"]), first
    yield "launched in vain, the same", number(data["kept_extra_calls"]), read
    yield "wait for tools that is hidden", share(data["hidden"]), short_time(figures.wait_s)
    yield "distance of what was said from what came", number(data["calibration_error"]), "0 is best"


def _reliability(figures: Evaluation) -> Iterator[Sequence[str]]:
    for tenth, each in enumerate(figures.reliability):
        if each.seen:
            enough = each.seen >= _LEAST
            yield (
                f"{each.said / each.seen:.0%}" if enough else f"{tenth * 10} to {tenth * 10 + 10}%",
                f"{each.right / each.seen:.0%}" if enough else "-",
                f"{each.seen:,}",
            )


def _data(found: _Found) -> dict[str, Any]:
    """For programs; None is what there is too little of, or nothing known."""
    figures, tools = found.figures, found.tools

    def if_enough(value: float, of: int, *, known: bool = True) -> float | None:
        return value if known and of >= _LEAST else None

    calls, read, launches = figures.calls, figures.read_only_calls, found.launches
    scored = sum(each.seen for each in figures.reliability)
    return {
        "version": 1,
        "verdict": _verdict(found),
        "sessions": figures.sessions,
        "sessions_apart": found.apart,
        "customers": found.customers,
        "calls": calls,
        "tools": dict(tools.calls),
        "read_only": sorted(tools.read_only),
        "unknown": list(tools.unknown),
        "next_tool": {
            rank: if_enough(top, calls, known=found.trained)
            for rank, top in figures.tool_top.items()
        },
        "exact_call": {
            rank: if_enough(top, figures.steps, known=found.trained)
            for rank, top in figures.call_top.items()
        },
        "read_only_calls": read,
        "hits": if_enough(figures.hits, read, known=launches),
        "extra_calls": if_enough(found.in_vain(figures.extra_calls), read, known=launches),
        "first_reads": figures.first_reads,
        "kept_hits": if_enough(figures.kept_hits, figures.first_reads, known=launches),
        "kept_extra_calls": if_enough(
            found.in_vain(figures.kept_extra_calls), read, known=launches
        ),
        "brier": if_enough(figures.brier, scored),
        "calibration_error": if_enough(figures.calibration_error, scored),
        "reliability": [
            {"proposals": each.seen, "said": each.said / each.seen, "came": each.right / each.seen}
            for each in figures.reliability
            if each.seen
        ],
        "model_s": found.launching.model_s,
        "tool_s": {"": found.launching.other_tool_s, **found.launching.tool_s},
        "wait_s": figures.wait_s,
        "saved_s": if_enough(figures.saved_s, read, known=launches),
        "hidden": if_enough(figures.hidden, calls, known=launches),
        "hidden_by_own": None
        if found.own is None
        else if_enough(found.own.hidden, calls, known=bool(tools.read_only)),
    }
