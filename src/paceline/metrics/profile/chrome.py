"""A run in the Trace Event Format of Chrome, which Perfetto opens. Pure.

Every call is a complete event ("X"). Viewers draw the events of one thread inside each other, so
calls that overlap without one being inside the other go to threads ("tracks") of their own. A flow
("s", "f") leads from a call to each that got its result. Times are microseconds since the earliest
span began, with three places: exact to the nanosecond.
"""

from collections.abc import Sequence
from heapq import heappop, heappush
from typing import Final

from paceline.metrics.profile.profile import Profile
from paceline.metrics.profile.tree import Node, Tree

__all__ = ["chrome_trace", "tracks"]

_NS_PER_US: Final = 1_000
_PROCESS: Final = 1

Event = dict[str, object]


def chrome_trace(found: Profile) -> dict[str, object]:
    """The run as an object to be written as JSON; events in the order of their time."""
    nodes = found.tree.nodes
    lanes = tracks(found.tree)
    zero_ns = min([node.span.start_ns for node in nodes], default=0)
    on_path = {piece.place for piece in found.path}
    events: list[Event] = []
    for place in _in_time(nodes):
        events.append(_call(nodes[place], lanes[place], zero_ns, on_path=place in on_path))
        if (waiting := _waiting(nodes, place, zero_ns)) is not None:
            events.append(waiting | {"tid": lanes[place]})
    events += _flows(found.tree, lanes, zero_ns)
    events.sort(key=_moment)  # stable: what is around another stays before it
    run = "" if found.root is None else f" {found.root.span.trace_id}"
    return {
        "traceEvents": [*_names(f"paceline{run}", max(lanes, default=0)), *events],
        "displayTimeUnit": "ms",
    }


def tracks(tree: Tree) -> list[int]:
    """For each node the track it is drawn on, from 1: that of its parent where that has room for
    it, else the first that is free. On one track, each span is inside what it overlaps."""
    nodes = tree.nodes
    lanes = [0] * len(nodes)
    open_on: list[list[int]] = [[]]  # what is under way on each track, outermost first
    busy: list[tuple[int, int]] = []  # when each track in use will be free
    free: list[int] = []
    for place in _in_time(nodes):
        node = nodes[place]
        start_ns, end_ns = _bounds(node)
        while busy and busy[0][0] <= start_ns:
            heappush(free, heappop(busy)[1])
        lane = lanes[node.parent] if node.parent is not None else 0
        under_way = open_on[lane]
        while under_way and _bounds(nodes[under_way[-1]])[1] <= start_ns:
            under_way.pop()
        inside = bool(under_way) and under_way[-1] == node.parent
        if not inside or end_ns > _bounds(nodes[under_way[-1]])[1]:
            if not free:
                free.append(len(open_on))
                open_on.append([])
            lane = heappop(free)
            open_on[lane].clear()
            heappush(busy, (end_ns, lane))
        open_on[lane].append(place)
        lanes[place] = lane
    return lanes


def _in_time(nodes: Sequence[Node]) -> list[int]:
    """Places by begin, of those that begin together the longest first."""

    def key(place: int) -> tuple[int, int, int]:
        start_ns, end_ns = _bounds(nodes[place])
        return start_ns, -end_ns, place

    return sorted(range(len(nodes)), key=key)


def _bounds(node: Node) -> tuple[int, int]:
    return node.span.start_ns, node.span.start_ns + node.span.took_ns


def _call(node: Node, lane: int, zero_ns: int, *, on_path: bool) -> Event:
    span = node.span
    args: dict[str, object] = {
        "id": span.id,
        "parent": span.parent_id,
        "source": span.source,
        "ending": span.ending,
        "category": span.category,
        "queue_us": span.queue_ns / _NS_PER_US,
        "execute_us": span.execute_ns / _NS_PER_US,
        "self_us": node.self_ns / _NS_PER_US,
        "on_critical_path": on_path,
        "links": list(span.links),
        "flaws": [str(flaw) for flaw in node.flaws],
    }
    return {
        "name": span.name,
        "cat": span.kind,
        "ph": "X",
        "ts": (span.start_ns - zero_ns) / _NS_PER_US,
        "dur": span.took_ns / _NS_PER_US,
        "pid": _PROCESS,
        "tid": lane,
        "args": {key: value for key, value in args.items() if value not in (None, [])},
    }


def _waiting(nodes: Sequence[Node], place: int, zero_ns: int) -> Event | None:
    """The time that a call waited for capacity, as an event inside its own; None if it did not, or
    has children at that time, which an event may not cut."""
    span = nodes[place].span
    until_ns = span.start_ns + min(span.queue_ns, span.took_ns)
    begun_ns = min(
        [nodes[child].span.start_ns for child in nodes[place].children], default=until_ns
    )
    if until_ns <= span.start_ns or begun_ns < until_ns:
        return None
    return {
        "name": "(waiting for capacity)",
        "cat": "queue",
        "ph": "X",
        "ts": (span.start_ns - zero_ns) / _NS_PER_US,
        "dur": (until_ns - span.start_ns) / _NS_PER_US,
        "pid": _PROCESS,
    }


def _flows(tree: Tree, lanes: Sequence[int], zero_ns: int) -> list[Event]:
    """An arrow for each link to a call of the same run that had begun before this one ended."""
    events: list[Event] = []
    for place, node in enumerate(tree.nodes):
        for link in node.span.links:
            target = tree.places.get(link)
            if target is None or target == place:
                continue
            from_ns = tree.nodes[target].span.start_ns
            to_ns = max(from_ns, node.span.start_ns)
            if to_ns > _bounds(node)[1]:
                continue
            event: Event = {"name": node.span.source, "cat": "link", "pid": _PROCESS}
            event["id"] = len(events) // 2 + 1
            ends = (("s", from_ns, target), ("f", to_ns, place))
            for phase, at_ns, at in ends:
                moment = {"ph": phase, "ts": (at_ns - zero_ns) / _NS_PER_US, "tid": lanes[at]}
                events.append(event | moment | ({"bp": "e"} if phase == "f" else {}))
    return events


def _names(process: str, threads: int) -> list[Event]:
    event: Event = {"ph": "M", "pid": _PROCESS, "ts": 0}
    named = [event | {"name": "process_name", "args": {"name": process}}]
    for lane in range(1, threads + 1):
        args = {"name": "calls" if lane == 1 else f"in parallel {lane}"}
        named.append(event | {"name": "thread_name", "tid": lane, "args": args})
    return named


def _moment(event: Event) -> float:
    moment = event["ts"]
    return moment if isinstance(moment, float) else 0.0
