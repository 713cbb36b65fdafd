"""`paceline cache`: its commands and their options."""

from typing import Annotated, Final, Literal

import typer

from paceline.cli.options import AgentDirs, AsJson, end, is_time, place_of, seconds

__all__ = ["build"]

_CLEAR_HELP: Final = (
    "Remove all results, or those of one agent. They are computed anew when asked for."
)
_INVALIDATE_HELP: Final = """Make results stale, in all running processes too.

  paceline cache invalidate file:/srv/docs      what was read under a tag
  paceline cache invalidate --agent weather     what an agent returned
  paceline cache invalidate --key 3f9a02        one result, see `paceline cache ls`
"""
_WARM_HELP: Final = """Compute results ahead of being asked. What writes, or may, is never run.

  paceline cache warm host_exec "uname -a" "df -h"
  paceline cache warm --from-history 20
"""


Window = Annotated[
    str | None,
    typer.Option(metavar="TIME", callback=is_time, help="Calls since then only, such as 24h."),
]


def build(*, drawn: bool) -> typer.Typer:
    """The sub-application."""
    app = typer.Typer(
        name="cache",
        help="Results that are kept: what there is, taking it away, making it ahead.",
        no_args_is_help=True,
        rich_markup_mode="rich" if drawn else None,
    )
    app.command("stats")(_stats)
    app.command("ls")(_ls)
    app.command("get")(_get)
    app.command("invalidate", help=_INVALIDATE_HELP)(_invalidate)
    app.command("clear", help=_CLEAR_HELP)(_clear)
    app.command("warm", help=_WARM_HELP)(_warm)
    return app


def _stats(context: typer.Context, window: Window = None, as_json: AsJson = False) -> None:
    """Show what is kept, how often it answered, and what that saved."""
    from paceline.cli.cache_figures import stats  # noqa: PLC0415 (each command loads its own)

    window_s = None if window is None else seconds(window)
    end(stats(place_of(context), window_s, as_json=as_json))


def _ls(
    context: typer.Context,
    *,
    agent: Annotated[str | None, typer.Option(help="Of this agent only.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000)] = 20,
    order: Annotated[
        Literal["stored", "expiry", "size", "cost"],
        typer.Option(help="Last stored, next to expire, largest or dearest first."),
    ] = "stored",
    as_json: AsJson = False,
) -> None:
    """List results that are kept in the state directory."""
    from paceline.cli.cache import ls  # noqa: PLC0415

    end(ls(place_of(context), agent=agent, limit=limit, order=order, as_json=as_json))


def _get(
    context: typer.Context,
    key: Annotated[str, typer.Argument(help="The beginning of a key, as `ls` shows it.")],
    as_json: AsJson = False,
) -> None:
    """Show one result in full."""
    from paceline.cli.cache import get  # noqa: PLC0415

    end(get(place_of(context), key, as_json=as_json))


def _invalidate(
    context: typer.Context,
    tags: Annotated[list[str] | None, typer.Argument(metavar="[TAG]...")] = None,
    *,
    agent: Annotated[list[str] | None, typer.Option(help="All results of this agent.")] = None,
    prefix: Annotated[
        list[str] | None, typer.Option(help="Those of all agents whose name begins so.")
    ] = None,
    key: Annotated[list[str] | None, typer.Option(help="The one whose key begins so.")] = None,
) -> None:
    from paceline.cli.cache import Unwanted, invalidate  # noqa: PLC0415

    unwanted = Unwanted(tags or (), agent or (), prefix or (), key or ())
    end(invalidate(place_of(context), unwanted))


def _clear(
    context: typer.Context, agent: Annotated[str | None, typer.Argument(help="Its name.")] = None
) -> None:
    from paceline.cli.cache import clear  # noqa: PLC0415

    end(clear(place_of(context), agent))


def _warm(
    context: typer.Context,
    agent: Annotated[str | None, typer.Argument(help="Its name.")] = None,
    inputs: Annotated[list[str] | None, typer.Argument(metavar="[INPUT]...")] = None,
    *,
    from_history: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=10_000, help="The N past calls worth most."),
    ] = None,
    window: Annotated[
        str, typer.Option(metavar="TIME", callback=is_time, help="How far to look back.")
    ] = "7d",
    user: Annotated[
        str | None, typer.Option(help="On whose behalf (default: the system's user).")
    ] = None,
    agents: AgentDirs = None,
    as_json: AsJson = False,
) -> None:
    from paceline.cli.cache_warm import Wanted, warm  # noqa: PLC0415

    wanted = Wanted(
        agent=agent,
        inputs=inputs or (),
        from_history=from_history,
        window_s=seconds(window),
        user=user,
        agents=agents,
        as_json=as_json,
    )
    end(warm(place_of(context), wanted))
