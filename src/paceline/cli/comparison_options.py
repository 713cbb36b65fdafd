"""The options of `paceline profile` that are about two runs."""

from typing import Any, Final, NamedTuple, final

import typer
from typer.core import TyperCommand, TyperOption

__all__ = ["ComparingCommand", "Wish", "wish_of"]

_KEY: Final = "paceline.comparison"
_MOST: Final = 1_000_000.0


class Wish(NamedTuple):
    """What a run is to be compared with, and by how many percent it may be slower."""

    against: str | None = None
    fail_above: float | None = None


def wish_of(context: typer.Context) -> Wish:
    """What was asked for on the command line."""
    return Wish(*context.meta.get(_KEY, ()))


@final
class ComparingCommand(TyperCommand):
    """A command that takes `--against` and `--fail-above` beside the options of its function,
    which asks for them with `wish_of`."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        """As every command."""
        super().__init__(*arguments, **named)
        self.params += [
            TyperOption(
                param_decls=["--against"],
                type=str,
                metavar="OTHER",
                help="Show what changed since this run instead: its id, or the beginning.",
            ),
            TyperOption(
                param_decls=["--fail-above"],
                type=float,
                metavar="PERCENT",
                callback=_percent,
                help="With --against: exit with 1 if the run, or a p95, grew by more.",
            ),
        ]

    def invoke(self, ctx: Any) -> Any:
        """As every command does, the two options kept where `wish_of` finds them."""
        ctx.meta[_KEY] = Wish(ctx.params.pop("against"), ctx.params.pop("fail_above"))
        return super().invoke(ctx)


def _percent(_context: Any, _option: Any, percent: float | None) -> float | None:
    if percent is not None and not 0 <= percent <= _MOST:  # false for nan, too
        raise typer.BadParameter(f"{percent:g} is not between 0 and {_MOST:g} percent")
    return percent
