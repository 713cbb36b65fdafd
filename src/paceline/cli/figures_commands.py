"""The commands that show figures, and tell others of them: their options."""

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from paceline.cli import live_commands
from paceline.cli.comparison_options import ComparingCommand, Wish, wish_of
from paceline.cli.live_commands import Watch, WatchCommand
from paceline.cli.options import AgentDirs, AsJson, end, place_of
from paceline.errors import UsageError

__all__ = ["add"]

_ALERTS_HELP: Final = """Alerts: what is watched, where it stands, who is told.

  paceline alerts                       each rule, by the calls of the history
  paceline alerts test --sink webhook   sends a test alert
  paceline alerts export > rules.yml    the rules for Prometheus
"""
_DISCORD_HELP: Final = """Answer slash commands in Discord: statistics, agents, runs.

The bot's token is taken from $PACELINE_DISCORD_TOKEN; who may use which command is in the section
[discord] of the settings.
"""
_PROFILE_HELP: Final = """Show what a run spent its time on, and what held it up.

  paceline profile                          the last run
  paceline profile 3f9a --chrome run.json   for https://ui.perfetto.dev
  paceline profile 3f9a --folded            for flame graphs
  paceline profile --top                    the names of all runs
  paceline profile 3f9a --against 81c2 --fail-above 20   exit code 1 if it is slower
"""

_METRICS_HELP: Final = """Print the figures of the history for Prometheus, or serve them.

  paceline metrics
  paceline metrics --serve --listen 127.0.0.1:9464

Served are /metrics, and as JSON /health, /performance, /performance/AGENT and /slow-operations.
"""


def add(app: typer.Typer, *, drawn: bool) -> None:
    """Adds them to the application."""
    app.command("stats", cls=WatchCommand)(_stats)
    live_commands.add(app)
    app.command("budget")(_budget)
    app.command("profile", help=_PROFILE_HELP, cls=ComparingCommand)(_profile)
    app.command("metrics", help=_METRICS_HELP)(_metrics)
    alerts = typer.Typer(
        name="alerts", help=_ALERTS_HELP, rich_markup_mode="rich" if drawn else None
    )
    alerts.callback(invoke_without_command=True)(_alerts)
    alerts.command("test")(_alerts_test)
    alerts.command("export")(_alerts_export)
    app.add_typer(alerts)
    app.command("discord", help=_DISCORD_HELP)(_discord)


def _stats(
    context: typer.Context,
    *,
    verbose: Annotated[
        bool,
        typer.Option("--verbose", "-v", help="With windows, percentiles, sources and errors."),
    ] = False,
    agent: Annotated[list[str] | None, typer.Option(help="Of this agent only; repeatable.")] = None,
    sort: Annotated[
        Literal["name", "calls", "slowest", "errors", "hit rate", "cost"],
        typer.Option(help="Which agents come first."),
    ] = "name",
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="So many agents.")
    ] = None,
    watch: Watch = None,
    as_json: AsJson = False,
) -> None:
    """Show how agents perform: calls, hit rate, times, errors."""
    from paceline.cli.record import Shown, stats, watched  # noqa: PLC0415 (each command loads its own)

    shown = Shown(in_full=verbose, as_json=as_json, agents=agent, sort=sort, limit=limit)
    if watch is None:
        end(stats(place_of(context), shown))
    else:
        end(watched(place_of(context), shown, watch))


def _budget(context: typer.Context, as_json: AsJson = False) -> None:
    """Show how far the budgets of this day and month are used."""
    from paceline.cli.budget import budget  # noqa: PLC0415 (as above)

    end(budget(place_of(context), as_json=as_json))


def _profile(
    context: typer.Context,
    run: Annotated[
        str,
        typer.Argument(metavar="[RUN]", help="Id of a run or a call, or its beginning; or last."),
    ] = "last",
    *,
    top: Annotated[
        bool, typer.Option("--top", help="The names of all recorded runs instead.")
    ] = False,
    by: Annotated[
        Literal["path", "total", "self", "p95"], typer.Option(help="What names are ranked by.")
    ] = "path",
    names: Annotated[int, typer.Option("--names", "-n", min=1, help="Names in the table.")] = 10,
    folded: Annotated[bool, typer.Option("--folded", help="Print folded stacks.")] = False,
    chrome: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a trace that Perfetto opens.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    from paceline.cli.profile import Wanted, profile_names, profile_run  # noqa: PLC0415
    from paceline.metrics.profile.totals import Rank  # noqa: PLC0415

    wanted = Wanted(folded=folded, chrome=chrome, as_json=as_json, by=Rank(by), names=names)
    place, wish = place_of(context), wish_of(context)
    if wish != Wish():
        from paceline.cli.compare import compare_runs  # noqa: PLC0415

        if top:
            raise UsageError(
                "--top is about all runs, --against about two", next_step="Leave one of them out."
            )
        end(compare_runs(place, run, wish, wanted))
    end(profile_names(place, wanted) if top else profile_run(place, run, wanted))


def _metrics(
    context: typer.Context,
    *,
    serve: Annotated[bool, typer.Option("--serve", help="Serve them until interrupted.")] = False,
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where to serve them.")
    ] = "127.0.0.1:9464",
    host: Annotated[
        list[str] | None, typer.Option(help="A further name requests may use; repeatable.")
    ] = None,
    open_metrics: Annotated[
        bool, typer.Option("--openmetrics", help="Print them as OpenMetrics.")
    ] = False,
    sel_names: Annotated[
        bool, typer.Option("--sel-names", help="With the names of an earlier service, too.")
    ] = False,
) -> None:
    from paceline.cli import metrics  # noqa: PLC0415

    place = place_of(context)
    if serve:
        end(metrics.serve(place, listen=listen, hosts=host or (), sel_names=sel_names))
    end(metrics.metrics(place, open_metrics=open_metrics, sel_names=sel_names))


def _alerts(
    context: typer.Context,
    *,
    metrics: Annotated[
        bool, typer.Option("--metrics", help="List what rules can watch instead.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from paceline.cli.alerts import alerts  # noqa: PLC0415
    from paceline.cli.alerts import metrics as what_there_is  # noqa: PLC0415

    place = place_of(context)
    if metrics:
        end(what_there_is(as_json=as_json))
    end(alerts(place, place.settings().alerts, as_json=as_json))


def _alerts_test(
    context: typer.Context,
    sink: Annotated[str | None, typer.Option(help="Through this one only.")] = None,
    as_json: AsJson = False,
) -> None:
    """Send a test alert through each sink, and say what came back."""
    from paceline.cli.alerts import try_sinks  # noqa: PLC0415

    end(try_sinks(place_of(context).settings().alerts, sink=sink, as_json=as_json))


def _alerts_export(context: typer.Context) -> None:
    """Print the rules as a rule file for Prometheus."""
    from paceline.cli.alerts import export  # noqa: PLC0415

    end(export(place_of(context).settings().alerts))


def _discord(context: typer.Context, agents: AgentDirs = None) -> None:
    from paceline.cli.discord import discord  # noqa: PLC0415

    end(discord(place_of(context), agents))
