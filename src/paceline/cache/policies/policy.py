"""What every replacement policy does."""

from collections.abc import Iterator
from typing import Protocol

from paceline.cache.entry import Entry

__all__ = ["MakePolicy", "Policy"]


class Policy(Protocol):
    """The order in which the entries of a cache go.

    Holds exactly the entries that were added and neither evicted nor removed since. Knows no
    clock and no lock: whoever calls it holds his own. `capacity` is in units of weight, 1 an
    entry when entries are counted; the caller evicts while the weights added exceed it, so a
    policy holds more than its capacity for a moment. The weight of an entry does not change
    while it is held.
    """

    def add(self, entry: Entry) -> None:
        """Takes in an entry under a key that is not held: a miss that was stored."""
        ...

    def use(self, entry: Entry) -> None:
        """Notes a hit of an entry that is held."""
        ...

    def evict(self) -> Entry:
        """Takes out the entry that is to go, and returns it. Only while one is held."""
        ...

    def remove(self, entry: Entry) -> None:
        """Takes out an entry that is held and leaves for another reason than want of room."""
        ...

    def __len__(self) -> int:
        """How many entries are held."""
        ...

    def __iter__(self) -> Iterator[Entry]:
        """The entries held, roughly the one to go first, first. Not while others change them."""
        ...


class MakePolicy(Protocol):
    """A kind of policy: what makes one for a capacity."""

    def __call__(self, capacity: int) -> Policy:
        """An empty policy of this kind."""
        ...
