"""The forms of a profile: a waterfall in text, folded stacks, Chrome's trace events."""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.metrics.profile import chrome as chrome_module
from paceline.metrics.profile.chrome import chrome_trace
from paceline.metrics.profile.folded import folded
from paceline.metrics.profile.profile import profile
from paceline.metrics.profile.tree import Tree, tree_of
from paceline.metrics.profile.waterfall import ASCII, BLOCKS, Marks, duration, waterfall
from paceline.metrics.span import Span
from tests.spans import a_run, a_span, runs

GOLDEN = Path(__file__).parents[1] / "golden"


def columns(text: str) -> int:
    return sum(
        0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )


def written(spans: list[Span]) -> Any:
    return json.loads(msgspec.json.encode(chrome_trace(profile(spans))))


@pytest.mark.parametrize(
    ("file", "width", "marks"),
    [
        ("profile_80.txt", 80, BLOCKS),
        ("profile_120.txt", 120, BLOCKS),
        ("profile_ascii.txt", 80, ASCII),
    ],
)
def test_the_waterfall_is_as_it_was(file: str, width: int, marks: Marks) -> None:
    """The waterfall of a run with everything in it, as a file that a person has checked. (S0-01)"""
    text = "\n".join(waterfall(profile(a_run()), width, marks)) + "\n"
    assert text == (GOLDEN / file).read_text(encoding="utf-8")


def test_the_other_forms_are_as_they_were() -> None:
    """Folded stacks and trace events of that run, as files that a person has checked. (S0-01)"""
    stacks = "\n".join(folded(tree_of(a_run()))) + "\n"
    assert stacks == (GOLDEN / "profile_folded.txt").read_text(encoding="utf-8")
    assert written(a_run()) == json.loads((GOLDEN / "profile_chrome.json").read_bytes())


@given(runs(), st.integers(1, 200), st.sampled_from([BLOCKS, ASCII]), st.integers(1, 9))
def test_no_line_is_too_wide(spans: list[Span], width: int, marks: Marks, most: int) -> None:
    """Whatever the spans, no line of a waterfall is wider than asked for (80 at least), and at most
    so many calls are shown, each below its parent."""
    odd = [msgspec.structs.replace(s, name=s.name + "漢\n\x1b[31mé" * 9) for s in spans]
    for given_spans in (spans, odd):
        lines = list(waterfall(profile(given_spans), width, marks, most))
        assert all(columns(line) <= max(80, width) for line in lines[2:] if line[0:1] != "?")
        assert all(line.isprintable() for line in lines)
        rows = lines[3 : lines.index("", 3)]
        shown = [row for row in rows if not row.startswith(f"   {marks.more} ")]
        assert len(shown) <= most


def test_a_plain_terminal_gets_plain_text() -> None:
    """With marks of ASCII, nothing but names needs more."""
    spans = [msgspec.structs.replace(span, name=f"n{span.id}") for span in a_run()]
    assert all(line.isascii() for line in waterfall(profile(spans), 80, ASCII))


def test_the_calls_that_matter_are_shown() -> None:
    """Of too many calls, those on the critical path come before longer ones beside it."""
    spans = [a_span("1", 0, 1_000), a_span("deep", 0, 1_000, "1"), a_span("leaf", 0, 1_000, "deep")]
    spans += [a_span(f"beside{n}", 0, 900, "1") for n in range(50)]
    lines = list(waterfall(profile(spans), most=5))
    assert [line[3:].split()[0] for line in lines[3:6]] == ["1", "deep", "leaf"]
    assert lines[8].split() == ["…", "48", "more", "calls"]
    assert list(waterfall(profile([]))) == []


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0ns"),
        (999, "999ns"),
        (1_000, "1.00us"),
        (999_499, "999us"),
        (999_500, "1.00ms"),
        (9_994_999, "9.99ms"),
        (12_345_678, "12.3ms"),
        (1_240_000_000, "1.24s"),
        (3_600_000_000_000, "3600s"),
        (10**15, "11.6d"),
    ],
)
def test_times_have_three_figures(ns: int, text: str) -> None:
    """A duration is told in the unit in which it has three figures."""
    assert duration(ns) == text


@given(st.integers(0, 10**17))
def test_times_fit_their_column(ns: int) -> None:
    """No duration up to three years takes more than seven characters."""
    assert len(duration(ns)) <= 7


STACK = re.compile(r"^(\S(?:.*\S)?) (\d+)$")
"""What the readers of folded stacks take for a line: frames, a space, a number."""


@given(runs(), st.text(max_size=5))
def test_stacks_can_be_read(spans: list[Span], name: str) -> None:
    """Every line is a stack and a whole number, each stack once, whatever the names are; weights
    are microseconds of self time."""
    spans = [
        msgspec.structs.replace(
            s,
            name=s.name + name,
            start_ns=s.start_ns * 1_000,
            end_ns=s.end_ns * 1_000,
        )
        for s in spans
    ]
    tree = tree_of(spans)
    lines = list(folded(tree))
    matches = [STACK.match(line) for line in lines]
    assert all(matches)
    assert all(line.isprintable() for line in lines)
    stacks = [match[1] for match in matches if match]
    assert len(set(stacks)) == len(stacks)
    depths = {node.depth + 1 for node in tree.nodes}
    assert {stack.count(";") + 1 for stack in stacks} <= depths
    weights = sum(int(match[2]) for match in matches if match)
    assert weights * 1_000 == sum(node.self_ns for node in tree.nodes)


def test_a_deep_stack_stays_readable() -> None:
    """Beyond 256 frames a stack goes on as one frame, and no time is lost."""
    spans = [
        a_span(str(n), n * 1_000, 1_000_000 - n * 1_000, str(n - 1) if n else None)
        for n in range(400)
    ]
    lines = list(folded(tree_of(spans)))
    assert max(line.count(";") for line in lines) == 256
    assert sum(int(line.rsplit(" ", 1)[1]) for line in lines) == 1_000


def check_events(trace: Any, spans: list[Span]) -> None:
    """What viewers of trace events rely on."""
    events = trace["traceEvents"]
    assert {event["ph"] for event in events} <= set("MXsf")
    moments = [event["ts"] for event in events]
    assert moments == sorted(moments)
    calls = [event for event in events if event["ph"] == "X" and event["cat"] != "queue"]
    assert Counter(e["args"]["id"] for e in calls) == Counter(span.id for span in spans)
    zero_ns = min(span.start_ns for span in spans)
    times = Counter((round(e["ts"] * 1_000), round(e["dur"] * 1_000)) for e in calls)
    assert times == Counter((span.start_ns - zero_ns, span.took_ns) for span in spans)
    under_way: dict[int, list[tuple[int, int]]] = {}
    for event in events:
        if event["ph"] != "X":
            continue
        begin = round(event["ts"] * 1_000)
        end = begin + round(event["dur"] * 1_000)
        stack = under_way.setdefault(event["tid"], [])
        while stack and stack[-1][1] <= begin:
            stack.pop()
        assert not stack or end <= stack[-1][1], "events of one track overlap without nesting"
        stack.append((begin, end))
    flows = [event for event in events if event["ph"] in "sf"]
    for flow in flows:
        pair = [other for other in flows if other["id"] == flow["id"]]
        assert [(e["ph"], e.get("bp")) for e in pair] == [("s", None), ("f", "e")]
        assert len({(e["name"], e["cat"]) for e in pair}) == 1
        at = round(flow["ts"] * 1_000)
        assert any(
            event["tid"] == flow["tid"]
            and round(event["ts"] * 1_000) <= at <= round((event["ts"] + event["dur"]) * 1_000)
            for event in calls
        )


@given(runs())
def test_trace_events_are_sound(spans: list[Span]) -> None:
    """Whatever the spans: each is one complete event with its exact times, events are in order, on
    each track one is inside the other or they do not overlap, and flows come in pairs. (S0-01)"""
    check_events(written(spans), spans)


@given(runs())
def test_a_call_is_drawn_in_no_strangers(spans: list[Span]) -> None:
    """On its track, a call is inside nothing but what it was called by."""
    tree = tree_of(spans)
    lanes = chrome_module.tracks(tree)
    for place, node in enumerate(tree.nodes):
        for other, around in enumerate(tree.nodes):
            if lanes[place] != lanes[other] or place == other:
                continue
            begin, end = node.span.start_ns, node.span.start_ns + node.span.took_ns
            if around.span.start_ns < end and begin < around.span.start_ns + around.span.took_ns:
                assert place in tree.below(other) or other in tree.below(place)


def test_a_link_is_an_arrow() -> None:
    """Who joined another's work has an arrow from there; a link out of the run has none."""
    spans = [
        a_span("1", 0, 100),
        a_span("2", 10, 50, "1"),
        a_span("3", 20, 50, "1", links=("2", "elsewhere")),
    ]
    flows = [e for e in written(spans)["traceEvents"] if e["ph"] in "sf"]
    tracks = {e["args"]["id"]: e["tid"] for e in written(spans)["traceEvents"] if e["ph"] == "X"}
    assert [(e["ph"], e["ts"], e["tid"]) for e in flows] == [
        ("s", 0.01, tracks["2"]),
        ("f", 0.02, tracks["3"]),
    ]


def _one_track(tree: Tree) -> list[int]:
    return [1] * len(tree.nodes)


def _by_depth(tree: Tree) -> list[int]:
    return [node.depth + 1 for node in tree.nodes]


@pytest.mark.parametrize("fault", [_one_track, _by_depth])
def test_seeded_faults_show(
    fault: Callable[[Tree], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Putting calls that overlap on one track is found."""
    spans = [a_span("1", 0, 100), a_span("2", 10, 50, "1"), a_span("3", 20, 60, "1")]
    check_events(written(spans), spans)
    monkeypatch.setattr(chrome_module, "tracks", fault)
    with pytest.raises(AssertionError):
        check_events(written(spans), spans)
