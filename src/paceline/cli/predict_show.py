"""`paceline predict show` and `forget`: what was learnt, and what would be called next."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from paceline.call import Effect, Plan
from paceline.cli.cache import counted
from paceline.cli.output import OK, json_line, line, note, paragraph, table
from paceline.cli.place import Place
from paceline.cli.predict_figures import figures_of, ledger_of, show_figures
from paceline.cli.predict_sessions import own_session
from paceline.cli.predict_tools import KnownTools, known_tools
from paceline.clock import Clock, SystemClock
from paceline.errors import PacelineError, StorageError, UsageError
from paceline.predict.arguments import ArgumentModel
from paceline.predict.evaluation import Launching
from paceline.predict.events import Proposal
from paceline.predict.moments import Moment
from paceline.predict.predictor import PerformancePredictor
from paceline.predict.session import Session
from paceline.sessions.recorded import caller_of
from paceline.speculation.kept import KeptPredictions, Learnt, peek
from paceline.speculation.learnt import LearntOf, learnt_of, public_of
from paceline.speculation.messages import Messages, heard_of
from paceline.speculation.scopes import circles_of, is_shared, said, user_of
from paceline.tools.spec import ToolSpec

__all__ = ["Wanted", "forget", "predictor_of", "show"]

_MOST: Final = 10
_LEAST_SAID: Final = 0.005
"""What is less likely would be said to come with 0%."""
_MOST_TOOLS: Final = 5
_WHEN: Final = {
    Moment.REPLY: "when the model answers",
    Moment.IDLE: "when the user writes again",
}
_ROOM: Final = 10_000_000
"""Patterns and circles: looking forgets nothing."""
_NOTHING: Final = "nothing was learnt here yet"
_YES: Final = "yes"
_IF_KEPT: Final = "if its results are kept"


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Of whom, and the beginning of the id of a session whose next calls are wanted."""

    session: str | None = None
    user: str | None = None
    agents: Sequence[Path] | None = None
    as_json: bool = False


class _Next(msgspec.Struct, frozen=True):
    """A call that may come, whether it would be launched ("yes" and "if ...", else why not), and
    where it is from."""

    name: str
    arguments: object
    probability: float
    launched: str
    why: str


class _Here(NamedTuple):
    """What there is to know of tools; those that are off, with the reason; whether those may be
    launched that reach outside."""

    tools: KnownTools
    off: Mapping[str, str]
    outside: bool


def show(place: Place, wanted: Wanted) -> int:
    """Shows what was learnt, or what a session is thought to call next."""
    learnt = peek(place.home.predictions)
    if wanted.session is not None:
        return _show_session(place, wanted, wanted.session, learnt)
    circles = [one for one in _circles(learnt) if wanted.user in (None, user_of(one.circle))]
    figures = figures_of(learnt)
    if wanted.as_json:
        json_line({"version": 1, **_file(place, learnt), "circles": circles, "tools": figures})
        return OK
    if learnt is None or not circles:
        line(_NOTHING if wanted.user is None else f"nothing was learnt of {wanted.user}")
        return OK
    at = datetime.fromtimestamp(learnt.at_ns / 1e9, UTC).astimezone()
    line(f"{place.home.predictions} ({learnt.size / 1024:,.0f} KiB), written {at:%Y-%m-%d %H:%M}")
    line()
    heard = any(one.messages for one in circles)
    table(
        ["of", "calls", "patterns", *(["messages"] if heard else []), "tools"],
        [_row(one, heard=heard) for one in circles],
        whole=["calls", "patterns", "messages"],
    )
    show_figures(figures)
    return OK


def forget(place: Place, *, user: str | None, everything: bool, clock: Clock | None = None) -> int:
    """Deletes what was learnt of a user, or all of it. Raises UsageError where it is not said which."""
    if everything == (user is not None):
        raise UsageError(
            "say what is to be forgotten",
            next_step="Give --user NAME, or --all for all that was learnt.",
        )
    kept = KeptPredictions(
        place.home.predictions,
        clock or SystemClock(),
        on_trouble=lambda error: note(f"note: {error}"),
    )
    if user is None:
        told = kept.forget() if place.home.path.is_dir() else True
        line("all that was learnt is forgotten")
        if not told:
            note(
                "note: the disk is full, so running programs cannot be told: what they know may be"
                " kept again; when there is space, forget once more"
            )
        return OK
    _see_readable(place.home.predictions, user)
    learnt = kept.load()
    circles = _circles(learnt)
    ledger = ledger_of(learnt)
    known = {*[one.circle for one in circles], *ledger.circles()}
    theirs = [circle for circle in known if user_of(circle) == user]
    if learnt is not None and theirs:
        predictor = predictor_of(learnt)
        messages = Messages(SystemClock(), scopes=_ROOM)
        if learnt.messages is not None:
            messages.load(learnt.messages)
        for circle in theirs:
            predictor.forget(circle)
            messages.forget(circle)
            ledger.forget(circle)
        kept.forget(
            msgspec.structs.replace(
                learnt,
                predictor=predictor.save(),
                messages=None if learnt.messages is None else messages.save(),
                ledger=ledger.save(),
            )
        )
    line(f"what was learnt of {user} is forgotten" if theirs else f"nothing was learnt of {user}")
    if shared := [one.circle for one in circles if is_shared(one.circle)]:
        names = ", ".join(map(said, shared))
        note(f"note: what {names} share is not taken apart by user; --all forgets it too")
    if learnt is not None and (public := public_of(learnt.predictor)):
        names = ", ".join(list(public)[:_MOST_TOOLS])
        note(
            f"note: what all learn from of tools that are the same for everybody ({names}) stays: which"
            " was called when, stems of words, and values that several used; --all forgets it too"
        )
    if kept.aside.exists():
        note(f"note: {kept.aside}, which was moved aside, may tell of {user} too; --all removes it")
    return OK


def _see_readable(path: Path, user: str) -> None:
    """Raises StorageError where it cannot be known what was learnt of the user."""
    try:
        peek(path)
    except StorageError as exc:
        raise StorageError(
            f"nothing was forgotten of {user}: {exc}",
            next_step=exc.next_step,
            category=exc.category,
        ) from exc


def predictor_of(learnt: Learnt | None, clock: Clock | None = None) -> PerformancePredictor:
    """A predictor that knows all that is kept. Raises CodecError for what it cannot read."""
    predictor = PerformancePredictor(
        clock=clock or SystemClock(), arguments=ArgumentModel, patterns=_ROOM, scopes=_ROOM
    )
    if learnt is not None:
        predictor.load(learnt.predictor)
    return predictor


def _file(place: Place, learnt: Learnt | None) -> dict[str, object]:
    return {
        "file": str(place.home.predictions),
        "bytes": 0 if learnt is None else learnt.size,
        "at_ns": None if learnt is None else learnt.at_ns,
    }


def _circles(learnt: Learnt | None) -> list[LearntOf]:
    """Of whom something was learnt, with how many of their messages."""
    if learnt is None:
        return []
    heard = {} if learnt.messages is None else dict(heard_of(learnt.messages))
    circles = [
        msgspec.structs.replace(one, messages=heard.pop(one.circle, 0))
        for one in learnt_of(learnt.predictor)
    ]
    return circles + [LearntOf(circle, {}, 0, count) for circle, count in heard.items()]


def _row(one: LearntOf, *, heard: bool) -> tuple[str, ...]:
    names = ", ".join(list(one.calls)[:_MOST_TOOLS])
    more = len(one.calls) - _MOST_TOOLS
    tools = f"{names} and {more} more" if more > 0 else names
    messages = [f"{one.messages:,}"] if heard else []
    calls = f"{sum(one.calls.values()):,}"
    return said(one.circle), calls, f"{one.patterns:,}", *messages, tools or "-"


def _show_session(place: Place, wanted: Wanted, begin: str, learnt: Learnt | None) -> int:
    kept, trajectory = own_session(place, begin, wanted.user)
    circle = _circle(learnt, circles_of(caller_of(kept)))
    found: list[_Next] = []
    moment, outside = Moment.IDLE, place.settings().predict.outside
    if learnt is not None and circle is not None:
        tools = known_tools(place, wanted.agents, learnt.effects)
        predictor = predictor_of(learnt)
        session = predictor.session(circle, tools.schemas())
        for event in trajectory.events:
            session.hear(event)
        moment = Moment.REPLY if session.awaits_reply else Moment.IDLE
        here = _Here(tools, ledger_of(learnt).off(circle), outside)
        found = list(_next(predictor, session, moment, here))
    if wanted.as_json:
        of = None if circle is None else said(circle)
        json_line({"version": 1, "session": kept.id, "of": of, "moment": moment, "next": found})
        return OK
    found = [one for one in found if one.probability >= _LEAST_SAID]
    if circle is None:
        line(_NOTHING if learnt is None else "nothing was learnt of whom this session is of")
        return OK
    line(f"{kept.id}, by {counted(len(trajectory.events), 'event')} and what {said(circle)} did")
    line(f"The first calls {_WHEN[moment]}:")
    line()
    table(
        ["tool", "arguments", "probability", "launched"],
        [(one.name, _json(one.arguments), f"{one.probability:.0%}", one.launched) for one in found],
        empty="no call is likely enough to be named",
        whole=["tool", "probability"],
    )
    for number, one in enumerate(found, start=1):
        head = f"{number}. "
        if number == 1:
            line()
        for text in paragraph(one.why, head):
            line(text)
    return OK


def _circle(learnt: Learnt | None, circles: Sequence[str]) -> str | None:
    """The narrowest of them in which something was learnt."""
    known = [] if learnt is None else [one.circle for one in learnt_of(learnt.predictor)]
    return next((circle for circle in circles if circle in known), None)


def _next(
    predictor: PerformancePredictor, session: Session, moment: Moment, here: _Here
) -> Iterator[_Next]:
    proposals = predictor.propose(session, _MOST, moment=moment)
    if moment is Moment.IDLE:  # what is said of it is said of this moment too
        session.courses = session.courses.idle()
    for proposal in proposals:
        known = predictor.known(session, proposal, moment=moment)
        yield _Next(
            proposal.name,
            proposal.arguments,
            proposal.probability,
            _launched(proposal, here, known=known),
            predictor.explain(session, proposal),
        )


def _launched(proposal: Proposal, here: _Here, *, known: bool) -> str:
    """Whether it would be launched now; if not, the first reason why."""
    return (
        _unspeculable(proposal, here)
        or ("" if known else "no: still tried in shadow")
        or _not_worth(proposal, here.off)
        or (_YES if proposal.name in here.tools.there else _IF_KEPT)
    )


def _unspeculable(proposal: Proposal, here: _Here) -> str:
    """What the tool itself says against it; "" if nothing."""
    tools = here.tools
    tool = tools.there.get(proposal.name)
    try:
        if tool is None:
            kind = tools.effect(proposal.name)
            if kind is None:
                return "no: its effect is not known here"
            plan = Plan(Effect(kind))
        elif isinstance(tool, ToolSpec):
            plan = tool.plan(tool.check(proposal.arguments))
        else:
            plan = tool.plan(str(proposal.arguments.get("query", "")), {})
    except PacelineError as exc:
        return f"no: its arguments are none of the tool's ({exc})"
    if not plan.effect.repeatable:
        return f"no: it is of effect {plan.effect.kind.value}"
    if not plan.cacheable:
        return "no: its results are not kept"
    asks = isinstance(tool, ToolSpec) and (tool.approval or tool.question)
    told = "no: it tells others what is asked" if plan.outside and not here.outside else ""
    return "no: a person is asked first" if asks else told


def _not_worth(proposal: Proposal, off: Mapping[str, str]) -> str:
    """What figures say against it; "" if nothing."""
    if why := off.get(proposal.name):
        return f"no: {why}"
    least = Launching().least
    if proposal.probability < least:
        return f"no: below {least:.0%} a call in vain costs more than a hit saves"
    return ""


def _json(value: object) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()
