"""`paceline predict`: its commands and their options."""

from shlex import quote
from typing import Annotated, Final

import typer

from paceline.cli.options import AgentDirs, AsJson, end, place_of
from paceline.errors import UsageError

__all__ = ["build"]

_EVAL_HELP: Final = """Say what making calls ahead would be worth, by recorded sessions.

Each session is predicted from those of other tasks and other customers. Nothing is run, and nothing is
learnt for good. Without a file the sessions are those that are kept here.

  paceline predict eval

  paceline predict eval runs.jsonl.gz --read-only "get_*" --tool-s 1.0 --tool-s search=2.5
"""
_SHOW_HELP: Final = """Show what was learnt of sessions, or the next calls of one and why.

  paceline predict show

  paceline predict show 3f9a02
"""
_FORGET_HELP: Final = "Forget what was learnt of a user, or all of it; running processes too."

User = Annotated[str | None, typer.Option(help="Of this user only.")]


def build(*, drawn: bool) -> typer.Typer:
    """The sub-application."""
    app = typer.Typer(
        name="predict",
        help="What sessions will call next: how good that is, what was learnt, forgetting it.",
        no_args_is_help=True,
        rich_markup_mode="rich" if drawn else None,
    )
    app.command("eval", help=_EVAL_HELP)(_eval)
    app.command("show", help=_SHOW_HELP)(_show)
    app.command("forget", help=_FORGET_HELP)(_forget)
    return app


def _eval(
    context: typer.Context,
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[TRAJECTORIES]", help="Sessions, one a line, gzipped or not; - reads input."
        ),
    ] = None,
    *,
    model_s: Annotated[
        float, typer.Option(min=0, max=3_600, help="Seconds of the model before each answer.")
    ] = 3.5,
    tool_s: Annotated[
        list[str] | None,
        typer.Option(metavar="[NAME=]SECONDS", help="Of all tools (1.0) or one; repeatable."),
    ] = None,
    read_only: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="Tools that change nothing (* and ?); repeatable."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="So many sessions at most.")
    ] = None,
    agents: AgentDirs = None,
    as_json: AsJson = False,
) -> None:
    from paceline.cli.predict_eval import Wanted, show_evaluation  # noqa: PLC0415 (loads its own)

    wanted = Wanted(
        file=file,
        model_s=model_s,
        tool_s=tool_s or (),
        read_only=read_only,
        limit=limit,
        agents=agents,
        as_json=as_json,
    )
    end(show_evaluation(place_of(context), wanted))


def _show(
    context: typer.Context,
    session: Annotated[
        str | None,
        typer.Argument(metavar="[SESSION]", help="A kept session; its first letters will do."),
    ] = None,
    *,
    user: User = None,
    agents: AgentDirs = None,
    as_json: AsJson = False,
) -> None:
    from paceline.cli.predict_show import Wanted, show  # noqa: PLC0415 (as above)

    wanted = Wanted(session=session, user=user, agents=agents, as_json=as_json)
    end(show(place_of(context), wanted))


def _forget(
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(hidden=True)] = None,
    *,
    user: User = None,
    everything: Annotated[bool, typer.Option("--all", help="All that was learnt.")] = False,
) -> None:
    from paceline.cli.predict_show import forget  # noqa: PLC0415 (as above)

    if name is not None:
        raise UsageError(
            "say whether that is a user", next_step=f"paceline predict forget --user {quote(name)}"
        )
    end(forget(place_of(context), user=user, everything=everything))
