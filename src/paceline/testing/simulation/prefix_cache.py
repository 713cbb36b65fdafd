"""What a server of a language model remembers of prompts that it has read."""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import final

__all__ = ["PrefixCache"]


@final
class PrefixCache:
    """The blocks that were used last, at most `capacity` of them.

    A block stands for all of the prompt before it too. Ends of prompts are forgotten before their
    beginnings, so what is left of a prompt is a beginning of it.
    """

    __slots__ = ("_blocks", "capacity")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._blocks)

    def __contains__(self, block: int) -> bool:
        return block in self._blocks

    def matched(self, blocks: Iterable[int]) -> int:
        """How many blocks of this prompt's beginning are there."""
        known = self._blocks
        count = 0
        for block in blocks:
            if block not in known:
                break
            count += 1
        return count

    def read(self, blocks: Sequence[int]) -> None:
        """The prompt was read: its blocks are there now, its beginning used last."""
        known, refresh = self._blocks, self._blocks.move_to_end
        for block in reversed(blocks[: self.capacity]):
            if block in known:
                refresh(block)
            else:
                known[block] = None
        while len(known) > self.capacity:
            known.popitem(last=False)

    def clear(self) -> None:
        """Forgets everything, as a restart does."""
        self._blocks.clear()
