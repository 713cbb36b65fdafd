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
from typing import Final

from paceline.call import UNKNOWN, Call, Caller, Kind, Outcome, Plan, Scope, Source, Tokens
from paceline.errors import AgentError, CallCancelledError, Category, PacelineError, UsageError
from paceline.history.record import record
from paceline.history.store import HistoryStore
from paceline.redaction import MASK, Redactor
from paceline.testing.virtual_time import VirtualClock

__all__ = [
    "CHECKS",
    "SECRET",
    "Check",
    "a_call",
    "a_moment_in_the_life_of_a_value",
    "an_outcome",
    "any_text_can_be_kept",
    "cancelled_is_no_error",
    "closes_once",
    "filters_narrow",
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
        Tokens(7, 8, 9),
        0.25,
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
        assert _refusal(store, asked) is category


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
    seen: Counter[tuple[object, ...]] = Counter()

    def add(
        name: str,
        *,
        source: Source,
        category: Category | None,
        queue_ns: int,
        execute_ns: int,
        total_ns: int,
    ) -> None:
        seen[name, source, category, queue_ns, execute_ns, total_ns] += 1

    times = (3_000, 4_000_000, 5_000_000_000)
    assert store.fold(add) == 3
    assert seen == Counter(
        [
            ("a", Source.EXECUTED, None, *times),
            ("a", Source.EXECUTED, Category.EXECUTION, *times),
            ("b", Source.EXECUTED, None, *times),
        ]
    )
    seen.clear()
    assert store.fold(add, since_ns=store.get("3").at_ns) == 1
    assert seen == Counter([("b", Source.EXECUTED, None, *times)])


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
    found_by_prefix,
    secrets_stay_out,
    a_moment_in_the_life_of_a_value,
    any_text_can_be_kept,
    folds_every_record,
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


def _refusal(store: HistoryStore, asked: str) -> Category | None:
    try:
        store.get(asked)
    except UsageError as exc:
        return exc.category
    return None
