"""What commands have in common: options, and the way to where they work."""

from pathlib import Path
from typing import Annotated, cast

import typer

from paceline.cli.place import Place

__all__ = ["AgentDirs", "AsJson", "end", "place_of"]

AgentDirs = Annotated[
    list[Path] | None,
    typer.Option("--agents", metavar="DIR", help="Directory of agent modules (default: ./agents)."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def place_of(context: typer.Context) -> Place:
    """Where the command works."""
    return cast("Place", context.obj)


def end(code: int) -> None:
    """Ends the command with this exit code."""
    raise typer.Exit(code)
