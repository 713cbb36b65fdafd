"""The board that `paceline top` shows: calls of a window, by agent."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.call import Source
from paceline.cli import board as boards
from paceline.cli.board import SLOTS, Board, Look, Row, Sort
from paceline.errors import Category
from paceline.history.record import Record
from paceline.metrics.windows import WINDOWS
from tests.live_calls import MS, NOW, S, busy, hit, seen


def look_at(calls: list[Record], window: str = "5m", sort: Sort = Sort.CALLS) -> Look:
    board = Board(window)
    board.add(calls, NOW)
    return board.look(NOW, sort)


def row_of(calls: list[Record], window: str = "5m") -> Row:
    return look_at(calls, window).rows[0]


def test_a_row_says_how_calls_ended() -> None:
    """Hits, errors, time-outs and refusals are counted apart; a cancelled call is in no rate and
    no distribution. (V-31)"""
    calls = [
        *[seen(n, n) for n in range(5)],
        *[hit(10 + n, n, "echo") for n in range(5)],
        seen(20, category=Category.EXECUTION, message="broken"),
        seen(21, category=Category.TIMEOUT),
        seen(22, category=Category.POLICY, attempts=0),
        seen(23, category=Category.POLICY, attempts=1),
        seen(24, category=Category.CANCELLED),
    ]
    row = row_of(calls)
    assert (row.calls, row.errors, row.timeouts, row.rejected) == (15, 2, 1, 1)
    assert row.hit_rate == pytest.approx(5 / 14)
    assert row.failed == 4
    assert sum(row.curve) == 15
    assert row.max_ns == 10 * MS


def test_times_are_of_what_was_executed() -> None:
    """Percentiles are of executed successes, in a hundredth: no hit makes them faster."""
    row = row_of(
        [*[seen(n, took_ms=1 + n) for n in range(100)], *[hit(n, 1, "echo") for n in range(300)]]
    )
    assert row.p50_ns == pytest.approx(50 * MS, rel=0.01)
    assert row.p95_ns == pytest.approx(95 * MS, rel=0.01)


def test_shares_of_time_come_to_the_whole() -> None:
    """The shares of all agents are of the time spent executing, and add up to one."""
    rows = {row.name: row for row in look_at(busy()).rows}
    assert sum(row.share for row in rows.values()) == pytest.approx(1)
    assert rows["unlucky"].share == 0


def test_tokens_and_money_of_executions_only() -> None:
    """What a result had cost is not counted again when it is served again; an execution that did
    not say costs what its plan says, for each attempt. (S0-26)"""
    row = row_of(
        [
            seen(1, tokens_input=100, tokens_output=10, cost_usd=0.5, price_usd=9.0),
            seen(2, attempts=3, price_usd=0.25),
            seen(3, source=Source.HOT, attempts=0, tokens_input=100, cost_usd=0.5, price_usd=1.0),
        ]
    )
    assert (row.tokens_in, row.tokens_out) == (100, 10)
    assert row.cost_usd == pytest.approx(1.25)


@pytest.mark.parametrize("window", WINDOWS)
@given(st.lists(st.tuples(st.integers(0, 100_000), st.sampled_from("abc")), max_size=60))
@settings(deadline=None, max_examples=25)
def test_a_window_has_the_calls_that_ended_in_it(window: str, calls: list[tuple[int, str]]) -> None:
    """Whatever the order in which calls come, those within the window are counted and those
    before it are not, within one slot; agents without any have no row."""
    width_s = WINDOWS[window] / S / SLOTS
    look = look_at([seen(n, ago, name=name) for n, (ago, name) in enumerate(calls)], window)
    for name in "abc":
        agos = [ago for ago, each in calls if each == name]
        least = sum(ago <= width_s * (SLOTS - 1) for ago in agos)
        most = sum(ago <= width_s * SLOTS for ago in agos)
        found = sum(row.calls for row in look.rows if row.name == name)
        assert least <= found <= most
    assert all(row.calls for row in look.rows)
    assert look.agents == len(look.rows)


@given(st.lists(st.integers(0, 900), max_size=80), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_looking_now_and_then_changes_nothing(ends: list[int], every: int) -> None:
    """A board that was looked at while calls came shows in the end what one shows that got all of
    them at once."""
    calls = [seen(n, 900 - end, name="ab"[n % 2]) for n, end in enumerate(sorted(ends))]
    watched, fresh = Board("5m"), Board("5m")
    for at, call in enumerate(calls):
        watched.add([call], call.at_ns)
        if at % every == 0:
            watched.look(call.at_ns, Sort.SLOWEST)
    fresh.add(calls, NOW)
    assert watched.look(NOW, Sort.NAME) == fresh.look(NOW, Sort.NAME)


def test_the_rate_is_of_the_last_minute() -> None:
    """Calls a second are of the last minute, whatever the window."""
    calls = [seen(n, n / 10) for n in range(600)] + [seen(n, 120) for n in range(600, 900)]
    for window in ("5m", "24h"):
        assert row_of(calls, window).per_s == pytest.approx(10, rel=0.05)


def test_a_call_from_the_future_ended_now() -> None:
    """A clock that was set back does not hide the calls it moved into the future."""
    row = row_of([seen(1, -3_600)])
    assert (row.calls, row.last_ns) == (1, NOW)
    assert row.curve[-1] == 1


@pytest.mark.parametrize(
    ("sort", "first"),
    [
        (Sort.CALLS, "research"),
        (Sort.SLOWEST, "a_name_that_is_longer_than_any_column_ever_will_be"),
        (Sort.ERRORS, "flaky\x1b[31m"),
        (Sort.COST, "research"),
        (Sort.NAME, "a_name_that_is_longer_than_any_column_ever_will_be"),
    ],
)
def test_the_first_is_that_with_most(sort: Sort, first: str) -> None:
    """Each order has the agent with most of it first, and equals by name; so few rows are the
    first of all."""
    look = look_at(busy(), sort=sort)
    assert look.rows[0].name == first
    board = Board("5m")
    board.add(random.Random(1).sample(busy(), len(busy())), NOW)
    assert board.look(NOW, sort, 3).rows == look.rows[:3]


def test_the_slowest_calls_are_of_the_last_minute() -> None:
    """The slowest calls of the last minute are listed, longest first; older ones are not."""
    calls = [seen(n, n, took_ms=n) for n in range(1, 200)]
    slow = look_at(random.Random(2).sample(calls, len(calls))).slow
    assert [call.id for call in slow] == [f"call-{n}" for n in range(60, 40, -1)]


def test_errors_of_one_kind_are_one_entry() -> None:
    """Errors of the same agent and message are one entry with their number, the latest first;
    there are no more than fifty, and none from before the window."""
    calls = [seen(n, 60 - n / 10, category=Category.EXECUTION, message="same") for n in range(500)]
    calls += [seen(n, 1, category=Category.TIMEOUT, message=f"m{n}") for n in range(600, 700)]
    calls += [seen(701, 5, category=Category.CANCELLED, message="nobody waits")]
    calls += [seen(702, 2, category=Category.EXECUTION, message="same")]
    found = look_at(calls).troubles
    assert len(found) == 50
    assert all(one.at_ns >= two.at_ns for one, two in itertools.pairwise(found))
    assert [one.count for one in look_at([*calls[:500], calls[-1]]).troubles] == [501]
    later = Board("1m")
    later.add(calls, NOW)
    assert later.look(NOW + 62 * S, Sort.CALLS).troubles == ()


def keeps_little() -> bool:
    """Whether an hour of calls leaves no more behind than its last window has."""
    board = Board("1m")
    for minute in range(60):
        now = NOW + minute * 60 * S
        board.add(
            [seen(minute * 50 + n, -minute * 60, name=f"agent-{minute}-{n}") for n in range(50)],
            now,
        )
        board.look(now, Sort.CALLS)
    held = len(board._agents) + len(board._slow) + len(board._all.fine) + len(board._all.slots)
    return held < 50 * 2 + 30 + 2 * SLOTS


def test_what_left_the_window_is_forgotten() -> None:
    """A board keeps no agent, slot or call that left its window; one that forgot to would be
    found out."""
    assert keeps_little()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boards.Board, "_forget", lambda self, now_ns: None)
        assert not keeps_little()
