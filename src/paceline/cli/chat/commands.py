"""The options of `paceline chat`."""

import inspect
from typing import Annotated, Any, Final, NamedTuple, get_type_hints

import typer

from paceline.cli.options import AgentDirs, AsJson, Timeout, end, place_of

__all__ = ["Options", "add"]

_HELP: Final = """Talk to a model that can use agents and tools.

Without a MESSAGE it is a conversation on the terminal: Ctrl-C stops an answer, Ctrl-D ends it. With
one, and where text is piped into it, it is one turn; text that is piped in is added to the MESSAGE.
Exit codes are those of `paceline run`.

  paceline chat "how much disk is free?"

  dmesg | paceline chat "what went wrong?"
"""


class Options(NamedTuple):
    """What can be asked for, each as an option of this name."""

    message: Annotated[
        str | None,
        typer.Argument(metavar="[MESSAGE]", help="What to say, in quotes; - reads standard input."),
    ] = None
    model: Annotated[str | None, typer.Option(metavar="NAME", help="Which model answers.")] = None
    tool: Annotated[
        list[str] | None,
        typer.Option(metavar="PATTERN", help="A tool or agent it may use (* and ?); repeatable."),
    ] = None
    system: Annotated[
        str | None, typer.Option(metavar="TEXT", help="What the model is told before all else.")
    ] = None
    user: Annotated[
        str | None, typer.Option(help="On whose behalf (default: the system's user).")
    ] = None
    resume: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Go on with this session; its first letters will do."),
    ] = None
    yes: Annotated[
        bool, typer.Option("--yes", help="Agree to every tool that a person is asked about.")
    ] = False
    timeout: Timeout = None
    no_keep: Annotated[
        bool, typer.Option("--no-keep", help="Keep nothing to go on with later.")
    ] = False
    sessions: Annotated[
        bool, typer.Option("--list", help="List the sessions that can be gone on with.")
    ] = False
    models: Annotated[bool, typer.Option("--models", help="List the models.")] = False
    tools: Annotated[
        bool, typer.Option("--tools", help="List tools and agents, or those of --tool.")
    ] = False
    agents: AgentDirs = None
    as_json: AsJson = False


def add(app: typer.Typer) -> None:
    """Adds `chat` to the application."""
    # Read by typer, which asks a function for its options.
    _chat.__annotations__ = {"context": typer.Context, **_HINTS}
    _chat.__signature__ = inspect.Signature(  # type: ignore[attr-defined] # pyright: ignore[reportFunctionMemberAccess]
        [
            inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD),
            *(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=_HINTS[name]
                )
                for name, default in Options._field_defaults.items()
            ),
        ]
    )
    app.command("chat", help=_HELP)(_chat)


_HINTS: Final = get_type_hints(Options, include_extras=True)


def _chat(context: typer.Context, **given: Any) -> None:
    options, place = Options(**given), place_of(context)
    for what in ("sessions", "models", "tools"):
        if given[what]:
            from paceline.cli.chat.listing import show  # noqa: PLC0415 (loads what it needs)

            end(show(place, what, options))
    if options.resume is not None and options.no_keep:
        raise typer.BadParameter("a session that is gone on with is kept; leave out --no-keep")
    from paceline.cli.chat.session import Request, chat  # noqa: PLC0415 (as above)

    request = Request(
        text=options.message,
        agents=options.agents,
        model=options.model,
        tools=options.tool,
        system=options.system,
        user=options.user,
        resume=options.resume,
        yes=options.yes,
        timeout_s=options.timeout,
        keep=False if options.no_keep else None,
        as_json=options.as_json,
    )
    end(chat(place, request))
