"""What changed since figures that were kept: ratios, old and new. Pure.

Only ratios to a limit of the same run are compared: times depend on the machine and its load.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import msgspec

from bench.verdicts import Results, Section, Table

__all__ = ["Change", "as_table", "changes", "ratios"]

_COLUMNS: Final = ["ratio", "old", "new", "change"]


class Change(msgspec.Struct, frozen=True):
    """One ratio; None where it was not measured."""

    what: str
    old: float | None
    new: float | None

    def row(self) -> list[str]:
        """Its cells."""
        if self.old is None or self.new is None:
            change = "new" if self.old is None else "gone"
        else:
            change = f"{self.new / self.old - 1:+.0%}" if self.old else ""
        return [self.what, _text(self.old), _text(self.new), change]


def ratios(parts: Iterable[Section], results: Results) -> dict[str, float]:
    """The ratios of the bars, and those that benchmarks return as `ratio`, by what they are of."""
    found = {
        f"{part.title}: {bar.what}": float(bar.ratio)
        for part in parts
        for bar in part.bars
        if bar.ratio
    }
    for name, figures in results.items():
        found.update(_returned(name, figures))
    return found


def _returned(where: str, figures: object) -> Iterator[tuple[str, float]]:
    """What is called `ratio` in the figures of a benchmark: a number, or several by name."""
    if not isinstance(figures, Mapping):
        return
    for key, value in figures.items():
        if key != "ratio":
            yield from _returned(f"{where}: {key}", value)
            continue
        several: Mapping[str, object] = value if isinstance(value, Mapping) else {"": value}
        for what, ratio in several.items():
            if isinstance(ratio, (int, float)):
                yield (f"{where}: {what}" if what else where), float(ratio)


def changes(old: Mapping[str, float], new: Mapping[str, float]) -> list[Change]:
    """Every ratio that is in one of them, those of now first, in their order."""
    return [Change(what, old.get(what), new.get(what)) for what in {**new, **old}]


def as_table(found: Iterable[Change]) -> Table:
    """One row a ratio."""
    return Table(_COLUMNS, [change.row() for change in found])


def _text(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
