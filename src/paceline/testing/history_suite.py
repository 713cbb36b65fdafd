"""What every history store must do, as checks to run on one's own.

::

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_store(check):
        clock = VirtualClock()
        check(MyStore(clock=clock, redactor=Redactor([Secret(SECRET)])), clock)

Each check wants a store of its own, empty and open, that keeps inputs and at least a hundred
records; it raises AssertionError where the store breaks a promise.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import msgspec

from paceline.call import UNKNOWN, Call, Caller, Kind, Outcome, Plan, Scope, Source, Tokens
from paceline.errors import (
    AgentError,
    CallCancelledError,
    CallTimeoutError,
    Category,
    PacelineError,
    UsageError,
)
from paceline.history.record import Facts, record
from paceline.history.store import HistoryStore
from paceline.redaction import MASK, Redactor
from paceline.testing.virtual_time import VirtualClock

__all__ = [
    "CHECKS",
    "SECRET",
    "Check",
    "a_call",
    "a_fallback_hides_no_error",
    "a_moment_in_the_life_of_a_value",
    "an_outcome",
    "any_text_can_be_kept",
    "bills_what_was_executed",
    "cancelled_is_no_error",
    "closes_once",
    "filters_narrow",
    "finds_whole_runs",
    "folds_every_record",
    "found_by_prefix",
    "keeps_everything",
    "newest_first",
    "prunes_the_oldest",
    "secrets_stay_out",
]

SECRET: Final = "correct-horse-battery"  # noqa: S105 (made up)
"""The secret that the store's redactor must know."""

Check = Callable[[HistoryStore, VirtualClock], None]


def a_call(
    id: str,  # noqa: A002 (what it is)
    name: str = "echo",
    *,
    caller: Caller | None = None,
    arguments: Mapping[str, object] | None = None,
) -> Call:
    """A call to observe."""
    caller = caller or Caller("ada")
    return Call(
        id,
        Kind.AGENT,
        name,
        {"query": "hello"} if arguments is None else arguments,
        caller,
        Scope.of(caller, None),
        Plan(UNKNOWN),
        parent_id="parent",
        trace_id="trace",
    )


def an_outcome(
    call: Call,
    value: object = "world",
    *,
    error: PacelineError | None = None,
    source: Source = Source.EXECUTED,
) -> Outcome:
    """What came of it."""
    return Outcome(
        call.id,
        call.name,
        source,
        value if error is None else None,
        error,
        "local:1",
        2,
        3_000,
        4_000_000,
        5_000_000_000,
        Tokens(7, 8, 9, 10, 11),
        0.25,
        1_000,
        "another",
        0.5,
        2,
        0.125,
    )


def keeps_everything(store: HistoryStore, clock: VirtualClock) -> None:
    """A record says all there is to know of its call."""
    call = a_call("1", caller=Caller("ada", "s", "t"), arguments={"query": "é", "n": [1, 2]})
    clock.advance(60)
    outcome = an_outcome(call, {"answer": 42})
    expected = record(call, outcome, clock=clock, redactor=Redactor(), keep_inputs=True)
    assert expected.input_hash is not None
    assert expected.output_hash is not None
    store.observe(call, outcome)
    clock.advance(60)  # the moment is when the call finished, not when it is written
    store.flush()
    assert store.query() == [expected]
    assert store.get("1") == expected


def newest_first(store: HistoryStore, clock: VirtualClock) -> None:
    """Records come newest first, and no more than asked for."""
    _observe_many(store, clock, [(f"call-{n}", "echo", "ada", None) for n in range(20)])
    newest = [f"call-{n}" for n in reversed(range(20))]
    assert [found.id for found in store.query()] == newest
    assert [found.id for found in store.query(limit=5)] == newest[:5]
    assert store.query(limit=0) == []


def filters_narrow(store: HistoryStore, clock: VirtualClock) -> None:
    """Each filter leaves out what does not fit, and filters combine."""
    error = AgentError("it broke")
    _observe_many(
        store,
        clock,
        [
            ("1", "a", "ada", None),
            ("2", "b", "ada", error),
            ("3", "a", "bob", error),
            ("4", "a", "ada", error),
        ],
    )
    since_ns = store.get("3").at_ns
    assert [found.id for found in store.query(name="a")] == ["4", "3", "1"]
    assert [found.id for found in store.query(user="ada")] == ["4", "2", "1"]
    assert [found.id for found in store.query(errors_only=True)] == ["4", "3", "2"]
    assert [found.id for found in store.query(since_ns=since_ns)] == ["4", "3"]
    assert [found.id for found in store.query(name="a", user="ada", errors_only=True)] == ["4"]
    assert store.query(name="a' OR 'x'='x") == []
    assert store.query(user="%") == []


def cancelled_is_no_error(store: HistoryStore, clock: VirtualClock) -> None:
    """A cancelled call is recorded as such, and is not among the errors."""
    _observe_many(store, clock, [("1", "echo", "ada", CallCancelledError("gone"))])
    assert store.query(errors_only=True) == []
    assert store.query()[0].category is Category.CANCELLED
    assert store.query()[0].message == "gone"


def a_fallback_hides_no_error(store: HistoryStore, clock: VirtualClock) -> None:
    """A call that a fallback answered is no error; the error it answered in place of is kept."""
    clock.advance(1)
    call = a_call("1")
    outcome = msgspec.structs.replace(
        an_outcome(call, "sorry"), instead_of=CallTimeoutError("too slow")
    )
    store.observe(call, outcome)
    store.flush()
    found = store.get("1")
    assert store.query(errors_only=True) == []
    assert (found.category, found.instead_of) == (None, Category.TIMEOUT)
    assert found.trouble is Category.TIMEOUT
    assert found.message == "too slow"
    assert found.error_type == "paceline.errors.CallTimeoutError"
    assert found.output_hash is not None
    seen: list[Facts] = []
    store.fold(seen.append)
    assert seen == [found.facts]


def found_by_prefix(store: HistoryStore, clock: VirtualClock) -> None:
    """A record is found by its id or an unambiguous beginning; else the error says what is wrong."""
    _observe_many(store, clock, [(id, "echo", "ada", None) for id in ("ab", "abc", "b%d")])  # noqa: A001
    assert store.get("ab").id == "ab"
    assert store.get("abc").id == "abc"
    assert store.get("b").id == "b%d"
    for asked, category in (
        ("a", Category.INVALID),
        ("", Category.INVALID),
        ("%", Category.NOT_FOUND),
        ("abcd", Category.NOT_FOUND),
        ("B", Category.NOT_FOUND),
    ):
        assert _refused(partial(store.get, asked)) is category


def secrets_stay_out(store: HistoryStore, clock: VirtualClock) -> None:
    """No secret that the redactor knows, and nothing that looks like one, is in a record."""
    del clock
    arguments = {"query": f'say "{SECRET}"', "api_key": "k-1", "parts": [{SECRET: [SECRET]}]}
    call = a_call("1", arguments=arguments)
    store.observe(call, an_outcome(call, error=AgentError(f"{SECRET} password=hunter2")))
    store.flush()
    found = store.get("1")
    assert found.input is not None
    assert MASK in found.input
    for secret in (SECRET, "k-1", "hunter2"):
        assert secret not in repr(found)


def a_moment_in_the_life_of_a_value(store: HistoryStore, clock: VirtualClock) -> None:
    """What the caller does to arguments and value later changes no record."""
    arguments: dict[str, object] = {"query": ["as asked"]}
    value = {"answer": ["as given"]}
    call = a_call("1", arguments=arguments)
    outcome = an_outcome(call, value)
    expected = record(call, outcome, clock=clock, redactor=Redactor(), keep_inputs=True)
    store.observe(call, outcome)
    value["answer"].append("changed")
    arguments["query"] = "changed"
    store.flush()
    assert store.get("1") == expected


def any_text_can_be_kept(store: HistoryStore, clock: VirtualClock) -> None:
    """No text, however odd, keeps a call or its neighbours from being recorded."""
    odd = ["", "\x00", "\ud800", "'; DROP TABLE calls; --", "\U0010ffff", "é" * 1_000]
    errors = [AgentError(text) for text in odd]
    _observe_many(
        store, clock, [(f"{n}{text}", text, text, errors[n]) for n, text in enumerate(odd)]
    )
    assert len(store.query()) == len(odd)
    assert store.lost == 0
    for text in odd:
        assert len(store.query(name=text.encode("utf-8", "backslashreplace").decode())) == 1


def folds_every_record(store: HistoryStore, clock: VirtualClock) -> None:
    """Folding gives the figures of each record since a moment exactly once."""
    _observe_many(
        store,
        clock,
        [("1", "a", "x", None), ("2", "a", "x", AgentError("no")), ("3", "b", "x", None)],
    )
    seen: Counter[Facts] = Counter()

    def add(facts: Facts) -> None:
        seen[facts] += 1

    expected = Counter(found.facts for found in store.query())
    assert [facts.name for facts in expected] == ["b", "a", "a"]
    assert store.fold(add) == 3
    assert seen == expected
    seen.clear()
    last = store.get("3")
    assert store.fold(add, since_ns=last.at_ns) == 1
    assert seen == Counter([last.facts])


def bills_what_was_executed(store: HistoryStore, clock: VirtualClock) -> None:
    """Bills are what calls cost since a moment: what was measured, else the price of each attempt;
    what was not executed cost nothing."""
    clock.advance(1)
    since_ns = clock.wall_ns()
    priced = msgspec.structs.replace(a_call("2"), plan=Plan(UNKNOWN, cost_usd=0.25))
    unknown = {"tokens": None, "cost_usd": None, "raw_usd": None}
    for call, more in (
        (a_call("1"), {}),
        (priced, unknown),
        (msgspec.structs.replace(priced, id="3", name="hit"), {"source": Source.HOT, **unknown}),
        (a_call("4", "plain"), unknown),
        (a_call("5", caller=Caller("bob", None, "acme")), {"raw_usd": None}),
    ):
        store.observe(call, msgspec.structs.replace(an_outcome(call), **more))
    store.flush()
    sums: dict[tuple[str, str | None, str | None], tuple[int, float]] = {}
    for bill in store.bills(since_ns):
        tokens, raw_usd = sums.get((bill.name, bill.user, bill.tenant), (0, 0.0))
        who = bill.name, bill.user, bill.tenant
        sums[who] = tokens + bill.tokens, raw_usd + bill.raw_usd
        assert bill.at_ns == clock.wall_ns()
    spent = {who: amount for who, amount in sums.items() if amount != (0, 0.0)}
    assert spent == {("echo", "ada", None): (15, 1.0), ("echo", "bob", "acme"): (15, 0.25)}
    assert store.bills(clock.wall_ns() + 1) == []


def finds_whole_runs(store: HistoryStore, clock: VirtualClock) -> None:
    """A run is found by its id, that of any of its calls, or the beginning of one; all of its calls
    come, and no other, in the order in which they began; what is no run, or too long, is said."""
    made = [("run-1", "x"), ("run-2", "y"), ("deep", "x"), ("odd%", "z"), ("alone", "")]
    for place, (id, trace) in enumerate(made):  # noqa: A001
        call = msgspec.structs.replace(a_call(id), trace_id=trace)
        clock.advance(1)
        # The later they end, the earlier they began.
        outcome = msgspec.structs.replace(an_outcome(call), total_ns=place * 3_000_000_000)
        store.observe(call, outcome)
    store.flush()
    for asked in ("x", "run-1", "deep", "de"):
        assert [found.id for found in store.trace(asked)] == ["deep", "run-1"]
    for asked in ("alone", "al"):
        assert [found.id for found in store.trace(asked)] == ["alone"]
    assert [found.id for found in store.trace("o")] == ["odd%"]
    assert len(store.trace("x", limit=2)) == 2
    for asked, limit, category in (
        ("run-", 9, Category.INVALID),
        ("", 9, Category.INVALID),
        ("%", 9, Category.NOT_FOUND),
        ("xx", 9, Category.NOT_FOUND),
        ("x", 1, Category.INVALID),
    ):
        assert _refused(partial(store.trace, asked, limit=limit)) is category


def prunes_the_oldest(store: HistoryStore, clock: VirtualClock) -> None:
    """Pruning removes what is older than the age, then the oldest beyond the number, only."""
    _observe_many(store, clock, [(f"{n}", "echo", "ada", None) for n in range(10)])
    assert store.prune() == 0
    assert store.prune(max_age_s=1_000, max_records=10) == 0
    assert store.prune(max_age_s=4.5) == 5
    assert [found.id for found in store.query()] == ["9", "8", "7", "6", "5"]
    assert store.prune(max_records=2) == 3
    assert [found.id for found in store.query()] == ["9", "8"]
    assert store.prune(max_records=0) == 2
    assert store.query() == []


def closes_once(store: HistoryStore, clock: VirtualClock) -> None:
    """Closing keeps what was observed, may be repeated, and later calls count as lost."""
    _observe_many(store, clock, [("1", "echo", "ada", None)])
    store.close()
    store.close()
    call = a_call("2")
    store.observe(call, an_outcome(call))
    assert store.flush()
    assert [found.id for found in store.query()] == ["1"]
    assert store.lost == 1


CHECKS: Final[tuple[Check, ...]] = (
    keeps_everything,
    newest_first,
    filters_narrow,
    cancelled_is_no_error,
    a_fallback_hides_no_error,
    found_by_prefix,
    secrets_stay_out,
    a_moment_in_the_life_of_a_value,
    any_text_can_be_kept,
    folds_every_record,
    bills_what_was_executed,
    finds_whole_runs,
    prunes_the_oldest,
    closes_once,
)


def _observe_many(
    store: HistoryStore,
    clock: VirtualClock,
    calls: list[tuple[str, str, str, PacelineError | None]],
) -> None:
    """Observes calls given as (id, name, user, error), a second apart."""
    for id, name, user, error in calls:  # noqa: A001
        clock.advance(1)
        call = a_call(id, name, caller=Caller(user))
        store.observe(call, an_outcome(call, error=error))
    store.flush()


def _refused(ask: Callable[[], object]) -> Category | None:
    try:
        ask()
    except UsageError as exc:
        return exc.category
    return None
