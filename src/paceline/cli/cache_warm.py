"""`paceline cache warm`: results computed ahead of being asked."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from paceline.call import Caller
from paceline.cli.cache import short_time
from paceline.cli.completed import completed
from paceline.cli.execute import system_user
from paceline.cli.output import FAILED, OK, json_line, line, note
from paceline.cli.place import Place
from paceline.errors import UsageError
from paceline.results import WarmCall, WarmReport
from paceline.runtime import Runtime

__all__ = ["Wanted", "warm"]


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be computed: inputs of an agent, or past calls that are worth most."""

    agent: str | None = None
    inputs: Sequence[str] = ()
    from_history: int | None = None
    window_s: float = 0.0
    user: str | None = None
    agents: Sequence[Path] | None = None
    as_json: bool = False


def warm(place: Place, wanted: Wanted) -> int:
    """Computes it, and says what came of it; 1 if something failed."""
    if (wanted.from_history is None) != bool(wanted.agent and wanted.inputs) or (
        wanted.from_history is not None and wanted.agent
    ):
        raise UsageError(
            "it is not clear what to compute",
            next_step='Write `paceline cache warm AGENT "input" ...`, or --from-history N.',
        )
    if wanted.from_history is not None and wanted.user is not None:
        raise UsageError(
            "past calls are made again for those who made them",
            next_step="Leave out --user, or name an agent and its inputs.",
        )
    report, notices = completed(_warmed(place, wanted))
    for notice in notices:
        note(f"note: {notice}")
    if wanted.as_json:
        json_line(report)
    else:
        line(
            f"{report.warmed:,} computed, {report.present:,} there already,"
            f" {report.refused:,} refused, {report.failed:,} failed, in {short_time(report.took_s)}"
        )
        if report.refused:
            note("refused: what writes, or may, and what is not kept, is not run ahead")
    for text in report.trouble:
        note(f"failed: {text}")
    return FAILED if report.failed else OK


async def _warmed(place: Place, wanted: Wanted) -> tuple[WarmReport, list[str]]:
    settings = place.settings({"agents": {"watch": False}})
    runtime = Runtime(
        settings,
        agents=place.agent_dirs(settings, wanted.agents),
        home=place.home.path,
        config=place.config,
        environ=place.environ,
    )
    async with runtime:
        if wanted.from_history is not None:
            report = await runtime.results.warm_from_history(wanted.from_history, wanted.window_s)
        else:
            agent = wanted.agent or ""
            runtime.registry.get(agent)  # one that is not there is an error of usage
            caller = Caller(wanted.user or system_user())
            calls = [WarmCall(agent, text, caller) for text in wanted.inputs]
            report = await runtime.results.warm(calls)
    return report, runtime.notices
