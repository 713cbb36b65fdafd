"""How large the cache should be: what other sizes would have kept."""

from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Final, NamedTuple

from paceline.advise.advice import LEAST, Advice, Change, confidence
from paceline.advise.calls import NS, Callee, cost_usd, executed
from paceline.advise.declared import Known
from paceline.cache.policies.curve import MissRatioCurve
from paceline.call import Kind, Source
from paceline.history.record import Record

__all__ = ["file_size", "memory_size"]

_STEPS: Final = (1, 2, 4, 8)
_ENOUGH: Final = 0.9
_Weigh = Callable[[Record], int]


class _Access(NamedTuple):
    """A call that was, or could have been, answered with a result that is named by what it was
    asked for and how often that changed or expired before. `lost`: it was there and had to go."""

    call: Record
    result: tuple[Kind, str, int, int]
    lost: bool


class _Larger(NamedTuple):
    """A size, how many accesses more it would have answered, and how many there were."""

    size: int
    more: int
    accesses: int


def file_size(callees: Sequence[Callee], known: Known) -> Iterator[Advice]:
    """Results that were computed again, the same, although they were still valid: there was no
    room for them. Tells the size of the last tier: the file, or memory where there is no file."""
    accesses = _cached(callees, known)
    lost = [access.call for access in accesses if access.lost]
    if len(lost) < LEAST:
        return
    cache = known.settings.cache
    limits: list[tuple[str, int, _Weigh]]
    if cache.warm_bytes:
        limits = [("cache.warm_bytes", cache.warm_bytes, _bytes)]
    else:
        limits = [
            ("cache.hot_entries", cache.hot_entries, _one),
            ("cache.hot_bytes", cache.hot_bytes, _bytes),
        ]
    for name, size, weigh in limits:
        larger = _larger(accesses, size, weigh)
        if larger is None:
            continue
        # Nothing shows which ones it would have been; no more than were lost.
        share = min(1.0, larger.more / len(lost))
        yield Advice(
            rule="size",
            agent=None,
            what=f"let {name} be {larger.size:,}, not {size:,}",
            why=f"{len(lost):,} results were computed again, and came out the same, while they"
            f" were still valid; {larger.size // size} times the room would have kept"
            f" {larger.more:,} more of {larger.accesses:,}",
            changes=(Change("settings", name, larger.size),),
            evidence={
                "lost": len(lost),
                "kept_more": larger.more,
                "accesses": larger.accesses,
                "size": size,
            },
            confidence=confidence(min(len(lost), larger.more)),
            saved_s=share * sum(call.total_ns for call in lost) / NS,
            saved_usd=share * sum(map(cost_usd, lost)),
        )


def memory_size(callees: Sequence[Callee], known: Known) -> Iterator[Advice]:
    """Results that came from the file because memory had no room for them."""
    accesses = _cached(callees, known)
    size = known.settings.cache.hot_entries
    took = {
        source: [access.call.total_ns for access in accesses if access.call.source is source]
        for source in (Source.HOT, Source.WARM)
    }
    if not known.settings.cache.warm_bytes or min(map(len, took.values())) < LEAST:
        return
    larger = _larger(accesses, size, _one)
    if larger is None:
        return
    warm = took[Source.WARM]
    from_memory = min(larger.more, len(warm))
    hot_ns, warm_ns = median(took[Source.HOT]), median(warm)
    if warm_ns <= hot_ns:
        return
    yield Advice(
        rule="size",
        agent=None,
        what=f"let cache.hot_entries be {larger.size:,}, not {size:,}",
        why=f"{len(warm):,} answers came from the file, in {warm_ns / 1e6:.3g} ms and not"
        f" {hot_ns / 1e6:.3g} ms; {larger.size // size} times the entries would have kept"
        f" {larger.more:,} more of {larger.accesses:,} in memory",
        changes=(Change("settings", "cache.hot_entries", larger.size),),
        evidence={
            "from_file": len(warm),
            "from_memory": len(took[Source.HOT]),
            "file_s": warm_ns / NS,
            "memory_s": hot_ns / NS,
            "kept_more": larger.more,
            "size": size,
        },
        confidence=confidence(from_memory),
        saved_s=from_memory * (warm_ns - hot_ns) / NS,
    )


def _cached(callees: Sequence[Callee], known: Known) -> list[_Access]:
    """What was asked of the cache, in that order, as far as the lifetimes of results are known."""
    if not known.settings.cache.enabled:
        return []
    found = [
        access
        for callee in callees
        if known.of(callee).cached and not known.of(callee).per_call
        for access in _accesses(callee, known.ttl_s(callee))
    ]
    return sorted(found, key=lambda access: access.call.start_ns)


def _accesses(callee: Callee, ttl_s: float) -> Iterator[_Access]:
    for number, calls in enumerate(callee.results):
        kept: Record | None = None
        version = 0
        for call in calls:
            if call.output_hash is None or call.trouble is not None:
                continue
            lost = False
            if executed(call):
                lost = kept is not None and _is_lost(call, kept, ttl_s)
                version += not lost
                kept = call
            yield _Access(call, (callee.kind, callee.name, number, version), lost and call.asked)


def _is_lost(call: Record, kept: Record, ttl_s: float) -> bool:
    """Whether what was computed again was there before, the same and still valid."""
    same = call.output_hash == kept.output_hash
    return same and 0 <= call.start_ns - kept.at_ns < ttl_s * NS


def _larger(accesses: Sequence[_Access], size: int, weigh: _Weigh) -> _Larger | None:
    """The smallest of a few larger sizes that would have answered nearly as much as any; None
    where none is of use."""
    if not size:
        return None
    curve = MissRatioCurve([size * step for step in _STEPS], share=1.0)
    for access in accesses:
        curve.note(access.result, weigh(access.call))
    now, *others = [(at, round(ratio * len(accesses))) for at, ratio in curve.points()]
    most = now[1] - others[-1][1]
    if most < LEAST:
        return None
    at, missed = next(point for point in others if now[1] - point[1] >= _ENOUGH * most)
    return _Larger(at, now[1] - missed, len(accesses))


def _one(_: Record) -> int:
    return 1


def _bytes(call: Record) -> int:
    return max(1, call.output_bytes or 1)
