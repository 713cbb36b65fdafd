"""Which tool uses of one answer may run together, by what they do to the world. Pure.

What only looks runs beside what only looks. A write waits for every earlier use that touches what
it changes, and every later use that touches that waits for it; one without tags may touch
anything. Of what is unknown nothing is known: it runs alone. So the effect is that of one use after
the other in the order of the answer, at the least time.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final, final

import msgspec

from paceline.call import Effect, EffectKind

__all__ = ["Schedule", "conflicting"]

_PURE: Final = EffectKind.PURE
_READ: Final = EffectKind.READ
_UNKNOWN: Final = EffectKind.UNKNOWN
_AHEAD: Final = 64
"""Uses that are looked at, so that an answer with many costs no time in the square of them."""
_NODE: Final = "node:/"
_TREE: Final = "tree:/"


@final
class Schedule(msgspec.Struct, eq=False):
    """The uses of one answer that are not over, in its order."""

    _open: dict[int, Effect] = {}
    _added: int = 0
    _started: int = 0  # a bit for each that is
    _running: int = 0  # so many are

    def add(self, effect: Effect) -> int:
        """Puts a use behind the others; its number, from 0."""
        index = self._added
        self._added = index + 1
        self._open[index] = effect
        return index

    def ready(self) -> list[int]:
        """Those that are not started and need not wait for an earlier one, in order. Of many only
        the first 64 that are not over are looked at, and those behind have to wait."""
        if self._running == len(self._open):
            return []
        if len(self._open) == 1:
            return list(self._open)
        found: list[int] = []
        earlier = _Touched()
        for index, effect in islice(self._open.items(), _AHEAD):
            if not self._started >> index & 1 and not earlier.conflicts(effect):
                found.append(index)
            if effect.kind is _UNKNOWN:
                break  # everything behind waits for it
            earlier.add(effect)
        return found

    def free(self, effect: Effect) -> bool:
        """Whether a use that is added now would be ready."""
        earlier = _Touched()
        for other in self._open.values():
            if other.kind is _UNKNOWN:
                return False
            earlier.add(other)
        return not earlier.conflicts(effect)

    def start(self, index: int) -> None:
        """One that is ready runs from now on."""
        self._started |= 1 << index
        self._running += 1

    def wait(self, index: int) -> None:
        """One that was started has not begun after all, and is ready again."""
        self._started ^= 1 << index
        self._running -= 1

    def done(self, index: int) -> None:
        """One is over, or will not run; nothing waits for it any more."""
        del self._open[index]
        if self._started >> index & 1:
            self.wait(index)


def conflicting(earlier: Effect, later: Effect) -> bool:
    """Whether the later use would have to wait for the earlier one."""
    if earlier.kind is _UNKNOWN:
        return later.kind is not _PURE
    touched = _Touched()
    touched.add(earlier)
    return touched.conflicts(later)


@final
class _Touched:
    """What several uses touch together, none of which is unknown."""

    __slots__ = ("_any", "_touched", "_written")

    def __init__(self) -> None:
        self._any = False
        self._touched = _Tags()
        self._written = _Tags()

    def add(self, effect: Effect) -> None:
        self._any = True
        if effect.kind is _READ:
            self._touched.add(effect.tags)
        elif effect.kind is not _PURE:
            self._touched.add(_as_reads(effect.tags))
            self._written.add(effect.tags)

    def conflicts(self, effect: Effect) -> bool:
        """Whether a later use has to wait."""
        if effect.kind is _PURE:
            return False
        if effect.kind is _READ:
            return self._written.meets(effect.tags)
        return self._any if effect.kind is _UNKNOWN else self._touched.meets(effect.tags)


@final
class _Tags:
    """Tags of several effects; one without tags stands for all there are."""

    __slots__ = ("_all", "_names")

    def __init__(self) -> None:
        self._all = False
        self._names: set[str] = set()

    def add(self, tags: tuple[str, ...]) -> None:
        self._names.update(tags)
        self._all = self._all or not tags

    def meets(self, tags: tuple[str, ...]) -> bool:
        if self._all:
            return True
        return not self._names.isdisjoint(tags) if tags else bool(self._names)


def _as_reads(tags: tuple[str, ...]) -> tuple[str, ...]:
    """The tags that a read of what a write with these tags changes would have.

    Writes of two files share the tags of the directories above both, and may run together all the
    same; the tags of a read and a write are made to meet only if one path contains the other (see
    `paceline.tags`).
    """
    return tuple(_mirrored(tags))


def _mirrored(tags: tuple[str, ...]) -> Iterator[str]:
    for tag in tags:
        if tag.startswith(_NODE):
            yield f"tree:{tag[5:]}"
            continue
        yield tag
        if tag.startswith(_TREE):
            yield f"node:{tag[5:]}"
