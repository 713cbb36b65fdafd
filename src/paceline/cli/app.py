"""The commands and their options."""

import io
import logging
import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TextIO, final

import typer
from typer.core import TyperCommand

from paceline.cli import (
    cache_commands,
    figures_commands,
    instances_commands,
    predict_commands,
)
from paceline.cli.chat import commands as chat_commands
from paceline.cli.options import AgentDirs, AsJson, Timeout, end, is_time, place_of, seconds
from paceline.cli.output import FAILED, INTERRUPTED, TERMINATED, exit_code, line, note, problem
from paceline.cli.place import Place
from paceline.errors import ConfigError, PacelineError

__all__ = ["build", "run"]

_RUN_HELP: Final = """Run an agent.

Exit codes: 0 ok, 1 the agent failed, 2 wrong usage, 3 refused by policy, 4 timed out,
130 interrupted, 143 terminated.

  paceline run host_exec "uname -a"
"""
_BENCH_HELP: Final = """Measure Paceline beside what is possible and beside its peers.

Needs a checkout of the repository. Without a name, lists what there is.

  paceline bench cache
"""
_ADVISE_HELP: Final = """Say what to change, by the history of calls, with the evidence for it.

  paceline advise                 what saves most first
  paceline advise --agent search --last 24h
"""
_QUOTE: Final = 'Is it part of the input? Then quote that: paceline run host_exec "uname -a"'
_STOPPED: Final = {INTERRUPTED: "interrupted", TERMINATED: "terminated"}


def run(arguments: list[str]) -> int:
    """Runs the command line and returns the exit code."""
    # What matters of it is shown by the command itself.
    logging.getLogger("paceline").addHandler(logging.NullHandler())
    if not _can_write():
        return FAILED
    try:
        code = _finished(arguments)
        if code in _STOPPED:
            note(_STOPPED[code])
        sys.stdout.flush()
    except OSError as exc:
        # Nothing more can be written, neither by us nor at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(exc, BrokenPipeError):  # then who read us has had enough (`| head`)
            note(f"error: {exc.strerror or exc}" + (f": {exc.filename}" if exc.filename else ""))
        return FAILED
    return code


def _finished(arguments: list[str]) -> int:
    try:
        build(drawn=sys.stdout.isatty())(arguments, prog_name="paceline")
    except SystemExit as exc:
        return exc.code if isinstance(exc.code, int) else FAILED
    except PacelineError as exc:
        problem(exc)
        return exit_code(exc)
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def _can_write() -> bool:
    """Makes the standard streams take every text; False where there is no standard output."""
    out, err = _stream("stdout"), _stream("stderr")
    if err is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 (until we end)
    if out is None:
        note("error: standard output is closed")
    for stream in (out, err):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return out is not None


def _stream(name: str) -> TextIO | None:
    """A standard stream, or None where it was closed before we were started."""
    stream: TextIO | None = getattr(sys, name)
    return stream


def build(*, drawn: bool) -> typer.Typer:
    """The application; `drawn` for help with frames and colours."""
    app = typer.Typer(
        name="paceline",
        help="The performance layer for AI agents: measures, caches and balances every call.",
        no_args_is_help=True,
        add_completion=True,
        rich_markup_mode="rich" if drawn else None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_where)
    app.command("run", help=_RUN_HELP, cls=_RunCommand)(_run)
    chat_commands.add(app)
    app.command("agents")(_agents)
    app.command("reload")(_reload)
    app.command("history")(_history)
    app.command("advise", help=_ADVISE_HELP)(_advise)
    app.command("doctor")(_doctor)
    app.command("bench", help=_BENCH_HELP)(_bench)
    host = typer.Typer(
        name="hostexec",
        help="Host commands: the policy, the service, the audit log.",
        no_args_is_help=True,
        rich_markup_mode="rich" if drawn else None,
    )
    host.command("serve")(_serve)
    host.command("rules")(_rules)
    host.command("check")(_check)
    host.command("explain")(_explain)
    host.command("audit")(_audit)
    app.add_typer(host)
    app.add_typer(cache_commands.build(drawn=drawn))
    app.add_typer(instances_commands.build(drawn=drawn))
    app.add_typer(predict_commands.build(drawn=drawn))
    figures_commands.add(app, drawn=drawn)
    return app


@final
class _RunCommand(TyperCommand):
    """Says what to do where the options of a command were taken for ours."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As every command does."""
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as exc:
            if type(exc).__name__ == "NoSuchOption":
                exc.message += f". {_QUOTE}"
            raise


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        line(f"paceline {version('paceline')}")
        raise typer.Exit


def _where(
    context: typer.Context,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings (default: ./paceline.toml).")
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="State (default: $PACELINE_HOME, else ./.paceline)."),
    ] = None,
    version: Annotated[  # noqa: ARG001 (its callback does it)
        bool,
        typer.Option("--version", "-V", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    try:
        cwd = Path.cwd()
    except FileNotFoundError as exc:
        raise ConfigError(
            "the working directory does not exist any more", next_step="Change to one that does."
        ) from exc
    context.obj = Place(os.environ, cwd, config=config, home=home)


def _run(
    context: typer.Context,
    agent: Annotated[str, typer.Argument(help="Its name; `paceline agents` lists them.")],
    text: Annotated[
        str,
        typer.Argument(metavar="INPUT", help="What to do, in quotes; - reads standard input."),
    ],
    *,
    agents: AgentDirs = None,
    user: Annotated[
        str | None, typer.Option(help="On whose behalf (default: the system's user).")
    ] = None,
    timeout: Timeout = None,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Run it even if the result is known.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    from paceline.cli.execute import Request, run  # noqa: PLC0415 (each command loads its own)

    request = Request(
        agent=agent,
        text=text,
        agents=agents,
        user=user,
        timeout_s=timeout,
        cache=not no_cache,
        as_json=as_json,
    )
    end(run(place_of(context), request))


def _agents(context: typer.Context, agents: AgentDirs = None, as_json: AsJson = False) -> None:
    """List agents, and modules that cannot be used."""
    from paceline.cli.listing import list_agents  # noqa: PLC0415

    end(list_agents(place_of(context), agents, as_json=as_json))


def _reload(context: typer.Context, agents: AgentDirs = None) -> None:
    """Check all agent modules, and make running processes load them again."""
    from paceline.cli.listing import reload  # noqa: PLC0415

    end(reload(place_of(context), agents))


def _history(
    context: typer.Context,
    call: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="Show this call in full.")
    ] = None,
    *,
    agent: Annotated[str | None, typer.Option(help="Of this agent only.")] = None,
    user: Annotated[str | None, typer.Option(help="Of this user only.")] = None,
    errors: Annotated[bool, typer.Option("--errors", help="Failed calls only.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=100_000)] = 20,
    as_json: AsJson = False,
) -> None:
    """Show past calls, the newest first."""
    from paceline.cli.record import Filter, history  # noqa: PLC0415

    wanted = Filter(call=call, agent=agent, user=user, errors=errors, limit=limit)
    end(history(place_of(context), wanted, as_json=as_json))


def _advise(
    context: typer.Context,
    *,
    agent: Annotated[str | None, typer.Option(help="About this agent or tool only.")] = None,
    last: Annotated[
        str, typer.Option(metavar="TIME", callback=is_time, help="How far to look back.")
    ] = "7d",
    form: Annotated[
        Literal["text", "json"], typer.Option("--format", help="For people or for programs.")
    ] = "text",
    agents: AgentDirs = None,
    as_json: AsJson = False,
) -> None:
    from paceline.cli.advise import Wanted, show_advice  # noqa: PLC0415

    wanted = Wanted(
        agent=agent, last_s=seconds(last), agents=agents, form="json" if as_json else form
    )
    end(show_advice(place_of(context), wanted))


def _doctor(context: typer.Context, agents: AgentDirs = None, as_json: AsJson = False) -> None:
    """Check settings, files, agents and sandbox, and say what to do about what is wrong."""
    from paceline.cli.doctor import doctor  # noqa: PLC0415

    end(doctor(place_of(context), agents, as_json=as_json))


def _bench(
    context: typer.Context,
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...")] = None,
    *,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few rounds, no peers; writes no report.")
    ] = False,
) -> None:
    from paceline.cli.bench import bench  # noqa: PLC0415

    end(bench(place_of(context), names or (), quick=quick))


def _serve(
    context: typer.Context,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535)] = 9000,
    allow_remote: Annotated[
        bool, typer.Option("--allow-remote", help="Allow an address others can reach.")
    ] = False,
) -> None:
    """Serve host commands over HTTP, for other processes of this machine."""
    from paceline.cli.hostexec import serve  # noqa: PLC0415

    end(serve(place_of(context), host=host, port=port, allow_remote=allow_remote))


def _rules(context: typer.Context, as_json: AsJson = False) -> None:
    """List what the policy allows."""
    from paceline.cli.hostexec import rules  # noqa: PLC0415

    end(rules(place_of(context), as_json=as_json))


def _check(
    context: typer.Context,
    file: Annotated[Path | None, typer.Argument(help="A policy (default: the one in use).")] = None,
) -> None:
    """Check a policy file and run its self-tests."""
    from paceline.cli.hostexec import check  # noqa: PLC0415

    end(check(place_of(context), file))


def _explain(
    context: typer.Context,
    command: Annotated[str, typer.Argument(help="A command line; it is not run.")],
) -> None:
    """Say whether a command is allowed, by which rule, and how it is treated."""
    from paceline.cli.hostexec import explain  # noqa: PLC0415

    end(explain(place_of(context), command))


def _audit(context: typer.Context) -> None:
    """Check that each line of the audit log still follows from the one before it."""
    from paceline.cli.hostexec import audit  # noqa: PLC0415

    end(audit(place_of(context)))
