"""`paceline instances`: its commands and their options."""

import difflib
from typing import Annotated, Any, Final, Literal, final

import typer
from typer.core import TyperGroup

from paceline.cli.live_commands import Watch, WatchCommand
from paceline.cli.options import AsJson, end, place_of, seconds

__all__ = ["build"]

_NS: Final = 1_000_000_000
_SHOW: Final = "show"
_LIST: Final = "list"
"""What many try first."""
_HELP: Final = """Instances: how each stands, and taking them out of service and back.

\b
  paceline instances translator --watch         refreshed in place
  paceline instances drain translator http-2    so that it can be taken down
  paceline instances eject translator http-2 --for 10m
  paceline instances restore translator http-2

What is drained or ejected stays so in all processes of this state directory, also after a restart.
"""


@final
class _ShowsByDefault(TyperGroup):
    """Without the name of a command, the words are those of `show`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As every command does."""
        known = {*self.commands, *ctx.help_option_names}
        if args and args[0] in known:
            return super().parse_args(ctx, args)
        if len(args) > 1 and not any(word.startswith("-") for word in args[:2]):  # no agent alone
            there = sorted(self.commands.keys() - {_LIST})
            near = difflib.get_close_matches(args[0], there, 1)
            hint = f"Did you mean {near[0]}?" if near else f"There are: {', '.join(there)}."
            ctx.fail(f"there is no command {args[0]!r}. {hint}")
        return super().parse_args(ctx, [_SHOW, *args])


def _is_some_time(text: str | None) -> str | None:
    if text is not None and not seconds(text):
        raise typer.BadParameter("that is over at once; write 90s, 10m, 24h or 7d")
    return text


Agent = Annotated[str, typer.Argument(help="The agent that it is an instance of.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The instance, as `instances` shows it.")]


def build(*, drawn: bool) -> typer.Typer:
    """The sub-application."""
    app = typer.Typer(
        name="instances",
        cls=_ShowsByDefault,
        help=_HELP,
        rich_markup_mode="rich" if drawn else None,
    )
    app.command(_SHOW, cls=WatchCommand)(_show)
    app.command(_LIST, cls=WatchCommand, hidden=True)(_show)
    app.command("drain")(_drain)
    app.command("eject")(_eject)
    app.command("restore")(_restore)
    return app


def _show(
    context: typer.Context,
    agent: Annotated[str | None, typer.Argument(help="Those of this agent only.")] = None,
    *,
    watch: Watch = None,
    output: Annotated[
        Literal["text", "json"], typer.Option("--format", help="A table, or JSON by the line.")
    ] = "text",
    as_json: AsJson = False,
) -> None:
    """Show how instances stand; what is done without a command."""
    from paceline.cli.instances import show, watched  # noqa: PLC0415 (each command loads its own)

    place, as_json = place_of(context), as_json or output == "json"
    if watch is None:
        end(show(place, agent, as_json=as_json))
    else:
        end(watched(place, agent, watch, as_json=as_json))


def _drain(context: typer.Context, agent: Agent, instance: Id) -> None:
    """Give an instance nothing new, to take it down."""
    from paceline.cli.instances import drain  # noqa: PLC0415

    end(drain(place_of(context), agent, instance))


def _eject(
    context: typer.Context,
    agent: Agent,
    instance: Id,
    time: Annotated[
        str | None,
        typer.Option(
            "--for", metavar="TIME", callback=_is_some_time, help="So long only, such as 10m."
        ),
    ] = None,
) -> None:
    """Give an instance nothing new, as it does harm."""
    from paceline.cli.instances import eject  # noqa: PLC0415

    for_ns = None if time is None else round(seconds(time) * _NS)
    end(eject(place_of(context), agent, instance, for_ns))


def _restore(context: typer.Context, agent: Agent, instance: Id) -> None:
    """Take `drain` or `eject` back."""
    from paceline.cli.instances import restore  # noqa: PLC0415

    end(restore(place_of(context), agent, instance))
