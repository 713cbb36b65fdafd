"""The options of live views."""

from typing import Annotated, Any, Final, Literal, final

import typer
from typer.core import TyperCommand

from paceline.cli.options import end, place_of

__all__ = ["Watch", "WatchCommand", "add", "completed"]

_LEAST_S: Final = 0.1
_MOST_S: Final = 3_600.0
_DEFAULT: Final = "0"
_HELP: Final = """Watch what all agents do now: rates, times, hit rates, errors, the slowest calls.

On a terminal: c s e $ n sort, w widens the window, ? explains, q or Ctrl-C ends it.
In a pipe, and where the terminal cannot move its cursor: one frame as plain text, or one every
--interval SECONDS.

  paceline top --window 1h --sort slowest
"""


def _pause_or_default(seconds: float | None) -> float | None:
    return seconds if seconds == float(_DEFAULT) else _pause(seconds)


def _pause(seconds: float | None) -> float | None:
    if seconds is not None and not _LEAST_S <= seconds <= _MOST_S:  # false for nan, too
        raise typer.BadParameter(f"{seconds:g} is not between {_LEAST_S} and {_MOST_S:g} seconds")
    return seconds


Watch = Annotated[
    float | None,
    typer.Option(
        "--watch",
        metavar="[SECONDS]",
        callback=_pause_or_default,
        help="Refresh it in place (default: every 2), until q or Ctrl-C.",
    ),
]


@final
class WatchCommand(TyperCommand):
    """A command whose option `--watch` may stand without its number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As every command does."""
        return super().parse_args(ctx, completed(args))


def completed(args: list[str]) -> list[str]:
    """The words with the number that `--watch` lacks: 0, for as often as is usual."""
    whole: list[str] = []
    for at, word in enumerate(args):
        whole.append(word)
        if word == "--watch" and not _is_number(args[at + 1 : at + 2]):
            whole.append(_DEFAULT)
    return whole


def _is_number(words: list[str]) -> bool:
    try:
        float("".join(words))
    except ValueError:
        return False
    return True


def add(app: typer.Typer) -> None:
    """Adds `top` to the application."""
    app.command("top", help=_HELP)(_top)


def _top(
    context: typer.Context,
    *,
    sort: Annotated[
        Literal["calls", "slowest", "errors", "cost", "name"],
        typer.Option(help="Which agents come first."),
    ] = "calls",
    window: Annotated[
        Literal["1m", "5m", "1h", "24h"], typer.Option(help="Of how long figures are.")
    ] = "5m",
    interval: Annotated[
        float | None,
        typer.Option(
            "--interval",
            "-i",
            metavar="SECONDS",
            callback=_pause,
            help="From one look to the next (default: 1; in a pipe: one look only).",
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Print one frame, and end.")] = False,
) -> None:
    from paceline.cli.board import Sort  # noqa: PLC0415 (each command loads its own)
    from paceline.cli.live import Wanted, top  # noqa: PLC0415

    wanted = Wanted(sort=Sort(sort), window=window, interval_s=interval, once=once)
    end(top(place_of(context), wanted))
