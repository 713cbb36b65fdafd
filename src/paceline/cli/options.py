"""What commands have in common: options, and the way to where they work."""

import re
from pathlib import Path
from typing import Annotated, Final, cast

import typer

from paceline.cli.place import Place

__all__ = ["AgentDirs", "AsJson", "Timeout", "end", "is_time", "place_of", "seconds"]

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_LEAST_S: Final = 0.001
_YEAR_S: Final = 366 * 86_400
_TIME: Final = re.compile(r"([0-9]{1,9})([smhd]?)")

AgentDirs = Annotated[
    list[Path] | None,
    typer.Option("--agents", metavar="DIR", help="Directory of agent modules (default: ./agents)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _limit(seconds: float | None) -> float | None:
    if seconds is not None and not _LEAST_S <= seconds <= _YEAR_S:  # false for nan, too
        raise typer.BadParameter(f"{seconds:g} is not between {_LEAST_S} and {_YEAR_S} (a year)")
    return seconds


Timeout = Annotated[
    float | None,
    typer.Option(metavar="SECONDS", callback=_limit, help="Limit, waiting included."),
]


def seconds(text: str) -> float:
    """A time such as 90s, 15m, 24h or 7d; seconds, if it has no unit. Raises BadParameter for what
    is none."""
    found = _TIME.fullmatch(text)
    if found is None:
        raise typer.BadParameter(f"{text!r} is no time; write 90s, 15m, 24h or 7d")
    return float(int(found[1]) * _UNITS[found[2]])


def is_time(text: str | None) -> str | None:
    """Refuses what is no time, as the callback of an option that takes one."""
    if text is not None:
        seconds(text)
    return text


def place_of(context: typer.Context) -> Place:
    """Where the command works."""
    return cast("Place", context.obj)


def end(code: int) -> None:
    """Ends the command with this exit code."""
    raise typer.Exit(code)
