"""Which key an entry has among those of all tables."""

from paceline.cache.entry import Entry

__all__ = ["mark_of"]


def mark_of(entry: Entry) -> int:
    """A number for the key of an entry: policies remember keys that are gone by it.

    Two functions have tables of their own and may use the same keys. A number holds on to no
    arguments and to no table; should two keys share one, a guess is a little worse.
    """
    return hash((entry.key, entry.table))
