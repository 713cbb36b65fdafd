"""A run as lines of text: each call with its name, source, time, and a bar where it was. Pure.

The time of the run goes from left to right; a bar tells waiting from running, and what was on the
critical path from what was not. What ran before or after the run is cut at the edge.
"""

import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import itemgetter
from typing import Final, final

import msgspec

from paceline.errors import Category
from paceline.metrics.profile.profile import Profile
from paceline.metrics.profile.tree import Node, Tree
from paceline.metrics.span import Span

__all__ = ["ASCII", "BLOCKS", "NARROWEST", "Marks", "duration", "waterfall"]

NARROWEST: Final = 80
_MOST: Final = 100
_TIME: Final = 7
_NAME, _WIDEST_NAME = 12, 40
_SOURCE, _WIDEST_SOURCE = 8, 17
_DEEPEST: Final = 10
_NOTES: Final = 8
_ID: Final = 6


class Marks(msgspec.Struct, frozen=True):
    """What bars are drawn with."""

    waiting: str
    running: str
    waiting_on_path: str
    running_on_path: str
    before: str
    after: str
    path: str
    link: str
    more: str

    @property
    def all(self) -> str:
        """Every one, to see whether an encoding has them."""
        return "".join(msgspec.structs.astuple(self))


BLOCKS: Final = Marks("░", "▒", "▓", "█", "«", "»", "●", "→", "…")
ASCII: Final = Marks(".", "-", ":", "#", "<", ">", "*", "->", "~")


def waterfall(
    found: Profile, width: int = NARROWEST, marks: Marks = BLOCKS, most: int = _MOST
) -> Iterator[str]:
    """The lines; those of calls have at most `width` columns (at least 80), and are of the `most`
    calls that say most."""
    root = found.root
    if root is None:
        return
    drawing = _Drawing(found, root, max(width, NARROWEST), marks, _chosen(found, most))
    yield drawing.headline()
    yield ""
    yield drawing.axis()
    for place in drawing.places:
        yield drawing.row(place)
    if hidden := len(found.tree.nodes) - len(drawing.places):
        yield f"   {marks.more} {hidden:,} more calls"
    yield ""
    yield drawing.legend()
    yield from _notes(found.tree, marks)


def duration(ns: int) -> str:
    """A time with three figures, in at most seven characters."""
    for unit, size in (("ns", 1), ("us", 1_000), ("ms", 1_000_000)):
        value = ns / size
        if value < 999.5:  # noqa: PLR2004 (then it has four figures)
            return f"{_three(value) if size > 1 else ns}{unit}"
    seconds = ns / 1_000_000_000
    return f"{_three(seconds)}s" if seconds < 99_999.5 else f"{seconds / 86_400:.1f}d"  # noqa: PLR2004


def _three(value: float) -> str:
    places = 2 if value < 9.995 else 1 if value < 99.95 else 0  # noqa: PLR2004 (three figures)
    return f"{value:.{places}f}"


@final
class _Drawing:
    """What the lines of one run have in common."""

    def __init__(
        self, found: Profile, root: Node, width: int, marks: Marks, places: Sequence[int]
    ) -> None:
        self.places = places
        self._tree, self._root, self._marks = found.tree, root, marks
        self._pieces: dict[int, list[tuple[int, int]]] = {}
        for piece in found.path:
            self._pieces.setdefault(piece.place, []).append((piece.start_ns, piece.end_ns))
        self._labels = {place: self._label(found.tree.nodes[place]) for place in places}
        self._sources = {place: self._source(found.tree.nodes[place].span) for place in places}
        self._name = _room([*self._labels.values()], _NAME, min(_WIDEST_NAME, width * 3 // 10))
        self._from = _room([*self._sources.values()], _SOURCE, _WIDEST_SOURCE)
        self._bar = width - (3 + self._name + 1 + self._from + 1 + _TIME + 1)

    def headline(self) -> str:
        span = self._root.span
        counts = Counter([node.span.source for node in self._tree.nodes])
        sources = ", ".join(f"{n:,} {source}" for source, n in counts.most_common())
        return (
            f"{_visible(span.name)}  {duration(span.took_ns)}"
            f"  run {_visible(span.trace_id)}  ({sources})"
        )

    def axis(self) -> str:
        took_ns = self._root.span.took_ns
        middle, end = duration(took_ns // 2), duration(took_ns)
        scale = f"{'0'.ljust(self._bar // 2)}{middle}"
        scale = f"{scale.ljust(self._bar - len(end))}{end}"
        head = f"   {'call'.ljust(self._name)} {'from'.ljust(self._from)}"
        return f"{head} {'time'.rjust(_TIME)} {scale}"

    def legend(self) -> str:
        m = self._marks
        return (
            f"on the critical path ({m.path}): {m.running_on_path} running, {m.waiting_on_path}"
            f" waiting for capacity; beside it: {m.running} {m.waiting}"
        )

    def row(self, place: int) -> str:
        node = self._tree.nodes[place]
        mark = self._marks.path if place in self._pieces else " "
        flaw = "?" if node.flaws else " "
        name = _fitted(self._labels[place], self._name, self._marks.more)
        source = _fitted(self._sources[place], self._from, self._marks.more)
        time = duration(node.span.took_ns).rjust(_TIME)
        return f"{mark}{flaw} {name} {source} {time} {self._drawn(place)}".rstrip()

    def _label(self, node: Node) -> str:
        depth = node.depth
        indent = "  " * depth if depth <= _DEEPEST else f"{'  ' * (_DEEPEST - 2)}({depth}) "
        return f"{indent}{_visible(node.span.name) or '(no name)'}"

    def _source(self, span: Span) -> str:
        links = "".join(
            f" {self._marks.link}{_short(link, self._marks)}" for link in span.links[:1]
        )
        if span.category in (None, Category.CANCELLED):
            return f"{span.category or span.source}{links}"
        return f"!{span.category}{links}"

    def _drawn(self, place: int) -> str:
        node, span = self._tree.nodes[place], self._tree.nodes[place].span
        zero_ns, took_ns = self._root.start_ns, self._root.end_ns - self._root.start_ns
        start_ns, end_ns = span.start_ns - zero_ns, span.start_ns + span.took_ns - zero_ns
        if end_ns < 0 or start_ns > took_ns:
            edge = self._marks.before if end_ns < 0 else self._marks.after
            return edge if end_ns < 0 else edge.rjust(self._bar)
        # All in whole numbers: the bars of calls that follow each other must not overlap by one.
        scale = max(1, took_ns)
        first = min(max(start_ns, 0) * self._bar // scale, self._bar - 1)
        last = max(first + 1, min(-(-min(end_ns, took_ns) * self._bar // scale), self._bar))
        cells: list[str] = []
        for cell in range(first, last):
            begin_ns = max(start_ns, cell * scale // self._bar)
            until_ns = min(end_ns, (cell + 1) * scale // self._bar)
            cells.append(self._cell(place, node, zero_ns + (begin_ns + until_ns) // 2))
        if start_ns < 0:
            cells[0] = self._marks.before
        if end_ns > took_ns:
            cells[-1] = self._marks.after
        return " " * first + "".join(cells)

    def _cell(self, place: int, node: Node, at_ns: int) -> str:
        pieces = self._pieces.get(place, [])
        index = bisect_right(pieces, at_ns, key=itemgetter(0)) - 1
        on_path = index >= 0 and at_ns < pieces[index][1]
        m = self._marks
        if at_ns < node.span.start_ns + node.span.queue_ns:
            return m.waiting_on_path if on_path else m.waiting
        return m.running_on_path if on_path else m.running


def _chosen(found: Profile, most: int) -> list[int]:
    """The places to show: those on the critical path, then the longest, each with all above it."""
    nodes = found.tree.nodes
    if len(nodes) <= most:
        return list(range(len(nodes)))
    on_path: Counter[int] = Counter()
    for piece in found.path:
        on_path[piece.place] += piece.took_ns
    order = sorted(range(len(nodes)), key=lambda p: (-on_path[p], -nodes[p].span.took_ns, p))
    chosen: set[int] = set()
    for place in order:
        missing: list[int] = []
        at: int | None = place
        while at is not None and at not in chosen and len(chosen) + len(missing) <= most:
            missing.append(at)
            at = nodes[at].parent
        if len(chosen) + len(missing) <= most:
            chosen.update(missing)
        if len(chosen) == most:
            break
    return sorted(chosen)


def _notes(tree: Tree, marks: Marks) -> Iterator[str]:
    flawed = [node for node in tree.nodes if node.flaws]
    for node in flawed[:_NOTES]:
        said = ", ".join(node.flaws)
        yield f"? {_visible(node.span.name)} ({_short(node.span.id, marks)}): {said}"
    if len(flawed) > _NOTES:
        yield f"? {marks.more} and {len(flawed) - _NOTES:,} more calls"


def _short(id_: str, marks: Marks) -> str:
    text = _visible(id_)
    return text if len(text) <= _ID + 2 else f"{marks.more}{text[-_ID:]}"


def _visible(text: str) -> str:
    """Without what moves a cursor."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def _columns(text: str) -> int:
    """How many columns of a terminal a text takes: some characters take two, some none."""
    if text.isascii():
        return len(text)
    return sum(
        [
            0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
            for c in text
        ]
    )


def _room(texts: Sequence[str], least: int, most: int) -> int:
    return max(least, min(most, max([_columns(text) for text in texts], default=0)))


def _fitted(text: str, room: int, more: str) -> str:
    if _columns(text) > room:
        while _columns(text) > room - len(more):
            text = text[:-1]
        text += more
    return text + " " * (room - _columns(text))
