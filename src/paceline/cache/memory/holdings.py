"""What a memory tier holds, and what leaves it: pure, without clock and lock."""

from collections import deque
from typing import Final, Literal, final, get_args

from paceline.cache.entry import Entry, Table
from paceline.cache.memory.expiry import Expiries
from paceline.cache.policies.policy import MakePolicy

__all__ = ["Holdings", "Reason", "ended", "name_of"]

Reason = Literal["capacity", "bytes", "expired", "deleted", "replaced", "cleared"]

_SWEEP: Final = 2
_TRIES: Final = 64


def ended(entry: Entry, now_ns: int) -> bool:
    """Whether an entry is of no use any more, not even in place of an error."""
    terms = entry.terms
    return now_ns >= (entry.fresh_ns if terms is None else terms.rescue_ns)


def name_of(entry: Entry) -> str:
    """What an entry is called: what was run, else its table, else its key if that is text."""
    name = entry.terms.about.name if entry.terms is not None else ""
    return name or entry.table.name or (entry.key if isinstance(entry.key, str) else "")


@final
class Holdings:
    """Entries in tables, in the order of a policy, by expiry and by tag, and why others left.

    At most `max_entries`, of no more than `max_bytes` together if that is given; times are given.
    """

    def __init__(self, max_entries: int, max_bytes: int | None, policy: MakePolicy) -> None:
        self.max_entries = max_entries
        self.policy = policy(max_entries if max_bytes is None else max_bytes)
        self.count = 0
        self.stored = 0
        self.weight = 0
        """Bytes; 0 unless they are bounded."""
        self._weighs = max_bytes is not None
        self._max_weight = max_bytes or 0
        self.past_hits = 0
        """Hits of entries that left."""
        self.removed: dict[str, int] = dict.fromkeys(get_args(Reason), 0)
        self.tags: dict[str, set[Entry]] = {}
        self.expiries = Expiries(lambda: self.count)
        # A policy's methods do not change; a call through a name of ours is the quicker one.
        self._add, self._use, self._evict = self.policy.add, self.policy.use, self.policy.evict

    def insert(
        self, entry: Entry, now_ns: int, ends_ns: int, ttl_ns: int, tags: tuple[str, ...]
    ) -> list[Entry] | None:
        """Takes in an entry, in place of one with its key; those that had to make room, if any.

        `ends_ns` 0 is never; `tags` are those of its terms. A little of what is past its time
        goes each time.
        """
        entries, key = entry.table.entries, entry.key
        old = entries.get(key)
        if old is not None:
            self.remove(old, "expired" if ended(old, now_ns) else "replaced")
        entries[key] = entry
        self._add(entry)
        if old is not None:
            self._use(entry)  # writing what is there is a use of it
        self.count += 1
        self.stored += 1
        # Asking a lean entry for what only full ones have takes long: it is done if it matters.
        if self._weighs:
            self.weight += entry.weight
        for tag in tags:
            tagged = self.tags.get(tag)
            if tagged is None:
                self.tags[tag] = {entry}
            else:
                tagged.add(entry)
        expiries = self.expiries
        if ends_ns:
            expiries.add(entry, ends_ns, ttl_ns)
        if expiries.first_ns <= now_ns:
            self.sweep(now_ns, _SWEEP)
        if self.count > self.max_entries or self.weight > self._max_weight:
            return self._make_room(now_ns)
        return None

    def use(self, touches: deque[Entry]) -> None:
        """Tells the policy of hits, and forgets them."""
        use, next_touch = self._use, touches.popleft
        for _ in range(len(touches)):
            entry = next_touch()
            if entry.fresh_ns:
                use(entry)

    def sweep(self, now_ns: int, limit: int) -> None:
        """Removes entries that are past their time, looking at `limit` at the most."""
        for _ in range(limit):
            entry = self.expiries.overdue(now_ns, 1)
            if entry is not None:
                self.remove(entry, "expired")

    def bury(self, orphans: deque[Table]) -> None:
        """Removes all that tables hold which nobody can ask any more."""
        while orphans:
            for entry in list(orphans.popleft().entries.values()):
                self.remove(entry, "deleted")

    def remove(self, entry: Entry, reason: Reason) -> None:
        """Removes an entry that is held."""
        self.policy.remove(entry)
        self._leave(entry, reason)

    def _make_room(self, now_ns: int) -> list[Entry]:
        """Removes what is too much, first what is past its time; returns the rest of it."""
        victims: list[Entry] = []
        while (many := self.count > self.max_entries) or self.weight > self._max_weight:
            if self.expiries.first_ns <= now_ns:
                dead = self.expiries.overdue(now_ns, _TRIES)
                if dead is not None:
                    self.remove(dead, "expired")
                    continue
            victim = self._evict()
            self._leave(victim, "capacity" if many else "bytes")
            victims.append(victim)
        return victims

    def _leave(self, entry: Entry, reason: Reason) -> None:
        """Closes the books on an entry that the policy has let go."""
        entry.fresh_ns = 0  # who still has it in hand sees a miss
        del entry.table.entries[entry.key]
        self.count -= 1
        if self._weighs:
            self.weight -= entry.weight
        self.removed[reason] += 1
        uses = entry.uses
        if uses:
            self.past_hits += uses
            entry.table.ledger.hits += uses
        if self.tags and entry.terms is not None:
            for tag in entry.terms.about.tags:
                tagged = self.tags[tag]
                tagged.discard(entry)
                if not tagged:
                    del self.tags[tag]
