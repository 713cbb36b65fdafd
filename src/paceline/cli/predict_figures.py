"""What running calls ahead was worth, by tool, as `paceline predict show` tells it."""

import random
from collections.abc import Mapping
from typing import Final

from paceline.cli.output import line, paragraph, table
from paceline.clock import SystemClock
from paceline.predict.ledger import Figures, Ledger
from paceline.speculation.kept import Learnt

__all__ = ["figures_of", "ledger_of", "show_figures"]

_COLUMNS: Final = ("tool", "state", "launched", "used", "foreseen", "saved", "in vain")
_LONG_S: Final = 100.0


def ledger_of(learnt: Learnt | None) -> Ledger:
    """A ledger that knows all that is kept. Raises CodecError for what it cannot read."""
    ledger = Ledger(SystemClock(), rng=random.Random())  # noqa: S311 (it is only looked at)
    if learnt is not None and learnt.ledger is not None:
        ledger.load(learnt.ledger)
    return ledger


def figures_of(learnt: Learnt | None) -> Mapping[str, Figures]:
    """The figures that are kept, by tool; none where nothing was launched or tried. Raises CodecError
    for what cannot be read."""
    return ledger_of(learnt).figures()


def show_figures(figures: Mapping[str, Figures]) -> None:
    """A table of them, after an empty line, and why each tool is in its state; nothing if there are
    none."""
    if not figures:
        return
    line()
    found = sorted(figures.items())
    table(list(_COLUMNS), [_row(tool, each) for tool, each in found], whole=_COLUMNS[1:])
    line()
    for tool, each in found:
        paid = f"; ${each.wasted_usd:,.2f} paid in vain" if each.wasted_usd else ""
        for text in paragraph(f"{tool}: {each.why}{paid}"):
            line(text)


def _row(tool: str, each: Figures) -> tuple[str, ...]:
    return (
        tool,
        each.state,
        f"{each.launched:,}",
        _share(each.precision),
        _share(each.recall),
        _seconds(each.saved_s),
        _seconds(each.wasted_s),
    )


def _seconds(count: float) -> str:
    return f"{count:,.1f} s" if count < _LONG_S else f"{count:,.0f} s"


def _share(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:.0%}"
