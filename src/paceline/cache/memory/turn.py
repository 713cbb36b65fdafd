"""A lock that knows when its holder asks for it again."""

import threading
from typing import final

__all__ = ["Turn"]


@final
class Turn:
    """Mutual exclusion of threads, where code may run that nobody called.

    A finalizer or a signal handler may run in the middle of anything, in the same thread, and ask
    for the lock: a plain one would wait for ever, a reentrant one would show it things half
    done. This one lets it in and says that it is not its turn.
    """

    __slots__ = ("depth", "lock")

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.depth = 0
        """For who holds the lock: how often he does."""

    def __enter__(self) -> bool:
        """Whether it is the caller's turn; if not, he is to change nothing."""
        self.lock.acquire()
        self.depth += 1
        return self.depth == 1

    def __exit__(self, *_: object) -> None:
        self.depth -= 1
        self.lock.release()
