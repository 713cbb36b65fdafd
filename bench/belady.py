"""The best any cache could have done, knowing what comes."""

import heapq
from collections.abc import Hashable, Sequence

__all__ = ["hits"]


def hits(keys: Sequence[Hashable], capacity: int) -> int:
    """How many accesses hit when what is needed last, or never again, always goes.

    Belady, A study of replacement algorithms for a virtual-storage computer, 1966. What comes
    in may be what goes.
    """
    following = [0] * len(keys)
    latest: dict[Hashable, int] = {}
    for moment in range(len(keys) - 1, -1, -1):
        following[moment] = latest.get(keys[moment], len(keys))
        latest[keys[moment]] = moment
    count = 0
    due: dict[Hashable, int] = {}
    order: list[tuple[int, int]] = []  # the farthest first; may name moments that are past
    for moment, key in enumerate(keys):
        count += key in due
        due[key] = following[moment]
        heapq.heappush(order, (-following[moment], moment))
        while len(due) > capacity:
            when, since = heapq.heappop(order)
            if due.get(keys[since]) == -when:
                del due[keys[since]]
    return count
