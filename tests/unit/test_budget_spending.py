"""Spending: what was spent is counted where it belongs, and what is used up is refused."""

import logging
import threading
from typing import Any, NamedTuple, final

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.balance import spending as module
from paceline.balance.budget import NOTHING, Amount, Budget, Verdict
from paceline.balance.spending import Admission, Spending
from paceline.call import Call, Caller, Kind, Plan, Tokens
from paceline.errors import BudgetExceededError, CallError, Category
from paceline.testing.history_suite import a_call
from paceline.testing.virtual_time import VirtualClock
from paceline.usage import Spent

USD = 1_000_000_000
DAY_S = 86_400


def call_of(
    name: str = "echo",
    user: str | None = "ada",
    *,
    price: float = 0.0,
    run: str = "run",
    **more: Any,
) -> Call:
    call = a_call("1", name, caller=Caller(user, None, more.pop("tenant", None)))
    return msgspec.structs.replace(call, plan=Plan(cost_usd=price), trace_id=run, **more)


def dollars(amount: float, tokens: int = 0) -> Spent:
    return Spent(Tokens(tokens), amount, amount, 1)


def spending(*budgets: Budget, clock: VirtualClock | None = None) -> Spending:
    return Spending(budgets, clock or VirtualClock())


def is_refused(sums: Spending, call: Call) -> bool:
    return sums.refusal(call) is not None


def test_calls_that_cost_are_refused_once_a_budget_is_used_up() -> None:
    """Who has cost before, or will, is refused when nothing is left, with an error that says when
    there is again. (S0-26, V-40)"""
    clock = VirtualClock()
    sums = spending(Budget("daily", USD), clock=clock)
    sums.admit(call_of())
    sums.note(call_of(), dollars(1.0))
    with pytest.raises(
        BudgetExceededError, match=r"echo would cost.*daily a day.*\$1.00"
    ) as caught:
        sums.admit(call_of())
    error = caught.value
    assert isinstance(error, CallError)
    assert error.category is Category.EXHAUSTED
    assert error.budget == "daily"
    assert not error.may_have_started
    assert error.resets_at is not None
    assert error.resets_at.isoformat() == "2023-11-15T00:00:00+00:00"
    assert error.retry_after_s == pytest.approx(DAY_S - VirtualClock.EPOCH_NS // USD % DAY_S)
    assert "2023-11-15 00:00 UTC" in error.next_step
    clock.advance(error.retry_after_s or 0)
    sums.admit(call_of())


def test_calls_that_cost_nothing_go_on() -> None:
    """A call that is not known to cost is admitted; one with a price, of a model, or that was seen
    to cost is not. (S0-26)"""
    sums = spending(Budget("daily", USD))
    sums.note(call_of("paid"), dollars(1.0))
    assert not is_refused(sums, call_of("free"))
    assert is_refused(sums, call_of("paid"))
    assert is_refused(sums, call_of("dear", price=0.001))
    assert is_refused(sums, call_of("model", kind=Kind.MODEL))
    sums.note(call_of("free"), Spent())
    assert not is_refused(sums, call_of("free"))


def test_money_counts_without_discounts() -> None:
    """A budget in dollars counts what had been paid without discounts. (V-40)"""
    sums = spending(Budget("daily", USD))
    sums.note(call_of(), Spent(Tokens(5), 0.1, 1.0))
    assert is_refused(sums, call_of())


def test_tokens_have_budgets_too() -> None:
    """A budget in tokens counts all of them, those of unknown price as well. (S0-26)"""
    sums = spending(Budget("daily", None, 100))
    sums.note(call_of(), Spent(Tokens(60, 39), unpriced=1))
    assert not is_refused(sums, call_of())
    sums.note(call_of(), Spent(Tokens(0, 1), unpriced=1))
    assert is_refused(sums, call_of())


def test_each_user_agent_and_run_has_its_own() -> None:
    """Budgets for each user, agent or run are used by that one alone; users of two tenants are two.
    (S0-26)"""
    for per, window, other in (
        ("user", "day", call_of(user="bob")),
        ("user", "day", call_of(tenant="acme")),
        ("user", "month", call_of(user=None)),
        ("agent", "day", call_of("other")),
        ("all", "run", call_of(run="other")),
        ("agent", "run", call_of("other")),
    ):
        sums = spending(Budget("b", USD, None, window, per))  # type: ignore[arg-type]
        sums.note(call_of(), dollars(1.0))
        sums.note(other, dollars(0.5))
        assert is_refused(sums, call_of())
        assert not is_refused(sums, other)


def test_the_budget_of_a_run_has_no_end() -> None:
    """The budget of a run is not renewed while the run lasts. (S0-26)"""
    clock = VirtualClock()
    sums = spending(Budget("b", USD, window="run"), clock=clock)
    sums.note(call_of(), dollars(1.0))
    clock.advance(40 * DAY_S)
    error = sums.refusal(call_of())
    assert error is not None
    assert error.resets_at is None
    assert error.retry_after_s is None
    assert "another run" in error.next_step
    assert sums.since_ns is None
    assert sums.standings() == ()


def test_a_budget_counts_the_agents_it_names() -> None:
    """What other agents spend does not use a budget, and they are not refused by it. (S0-26)"""
    sums = spending(Budget("b", USD, agents=("re*",)))
    sums.note(call_of("echo"), dollars(5.0))
    assert not is_refused(sums, call_of("research", price=1.0))
    sums.note(call_of("research"), dollars(5.0))
    assert is_refused(sums, call_of("research"))
    assert not is_refused(sums, call_of("echo"))


def test_declared_prices_of_calls_in_flight_are_held() -> None:
    """Calls with a price do not exceed a budget together: what runs is held until it is over.
    (S0-26)"""
    sums = spending(Budget("b", USD))
    first = sums.admit(call_of(price=0.6))
    assert is_refused(sums, call_of(price=0.6))
    assert not is_refused(sums, call_of(price=0.4))
    first.settle(measured=False)
    assert sums.standings()[0].spent == Amount(600_000_000)
    assert is_refused(sums, call_of(price=0.6))


def test_a_measured_cost_takes_the_place_of_the_price() -> None:
    """What an execution really cost counts instead of its price. (S0-26)"""
    sums = spending(Budget("b", USD))
    admission = sums.admit(call_of(price=0.6))
    sums.note(call_of(price=0.6), dollars(0.1))
    admission.settle(measured=True)
    assert sums.standings()[0].spent == Amount(100_000_000)


def test_a_refused_call_holds_nothing() -> None:
    """A refused call leaves no trace in any budget. (S0-26)"""
    sums = spending(Budget("wide", 5 * USD), Budget("narrow", USD))
    for _ in range(3):
        with pytest.raises(BudgetExceededError, match="narrow"):
            sums.admit(call_of(price=2.0))
    sums.admit(call_of(price=1.0))
    assert [each.spent for each in sums.standings()] == [Amount(), Amount()]


def test_who_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A budget that gets low, and then used up, is told once each, without names. (S0-26)"""
    sums = spending(Budget("daily", 10 * USD, None, "day", "user"))
    for _ in range(12):
        sums.note(call_of("secret_agent", "ada"), dollars(1.0))
    told = [entry.getMessage() for entry in caplog.records]
    assert told == [
        "the budget daily a day for each user is used: $8.00 of $10.00",
        "the budget daily a day for each user is used: $10.00 of $10.00",
    ]


def test_without_budgets_nothing_is_kept() -> None:
    """Without budgets every call is admitted. (S0-26)"""
    sums = spending()
    admission = sums.admit(call_of(price=1e9))
    sums.note(call_of(), dollars(1e9))
    admission.settle(measured=False)
    assert sums.standings() == ()
    assert sums.refusal(call_of(price=1.0)) is None


class Past(NamedTuple):
    name: str
    user: str | None
    tenant: str | None
    tokens: int
    raw_usd: float
    at_ns: int


def test_spending_survives_a_restart() -> None:
    """What the history has of the present day and month counts, where it did before. (S0-26)"""
    clock = VirtualClock()
    earlier = [
        Past("echo", "ada", None, 10**6, 100.0, clock.wall_ns() - 14 * DAY_S * USD),
        Past("echo", "ada", None, 15, 1.0, clock.wall_ns()),
    ]
    clock.advance(DAY_S)
    today = [
        Past("echo", "ada", None, 15, 2.0, clock.wall_ns()),
        Past("echo", "bob", None, 15, 0.5, clock.wall_ns()),
        Past("free", None, None, 0, 0.0, clock.wall_ns()),
    ]
    budgets = (
        Budget("day", 10 * USD),
        Budget("month", None, 10**6, "month"),
        Budget("users", USD, None, "day", "user"),
        Budget("runs", USD, None, "run"),
    )
    sums = spending(*budgets, clock=clock)
    assert sums.since_ns is not None
    assert earlier[0].at_ns < sums.since_ns <= earlier[1].at_ns
    for each in [*earlier, *today]:
        sums.restore(each)
    found = {(each.budget.name, each.whose): each.spent for each in sums.standings()}
    assert found == {
        ("day", ""): Amount(2_500_000_000, 30),
        ("month", ""): Amount(3_500_000_000, 45),
        ("users", "ada"): Amount(2_000_000_000, 15),
        ("users", "bob"): Amount(500_000_000, 15),
    }
    assert is_refused(sums, call_of())
    assert not is_refused(sums, call_of(user="bob"))
    assert not is_refused(sums, call_of("free"))


def test_standings_say_how_far_budgets_are_used() -> None:
    """Every budget stands somewhere, its most used accounts first. (S0-26)"""
    sums = spending(Budget("users", 4 * USD, None, "day", "user"), Budget("all", USD))
    for user, amount in (("ada", 1.0), ("bob", 3.0)):
        sums.note(call_of(user=user, tenant="acme"), dollars(amount))
    found = [(each.budget.name, each.whose, each.share) for each in sums.standings()]
    assert found == [("users", "acme/bob", 0.75), ("users", "acme/ada", 0.25), ("all", "", 4.0)]
    assert spending(Budget("new", USD)).standings()[0].share == 0


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users beyond the bound share one account, and of runs the oldest is forgotten. (S0-26)"""
    monkeypatch.setattr(module, "_MOST_ACCOUNTS", 2)
    monkeypatch.setattr(module, "_MOST_RUNS", 2)
    monkeypatch.setattr(module, "_MOST_NAMES", 1)
    sums = spending(Budget("u", USD, None, "day", "user"), Budget("r", USD, None, "run"))
    for number in range(4):
        sums.note(call_of(user=f"u{number}", run=f"r{number}"), dollars(0.5))
    found = {each.whose: each.spent.nano_usd for each in sums.standings()}
    assert found == {"u0": USD // 2, "u1": USD // 2, "(other)": USD}
    assert is_refused(sums, call_of(user="u9", run="new"))
    sums.note(call_of("late", "u0", run="new"), dollars(0.5))
    assert not is_refused(sums, call_of("late", "u0", run="other"))


def test_a_clock_that_is_set_back_renews_nothing() -> None:
    """A budget begins anew when a later window begins, not when the clock jumps back. (S0-26)"""
    clock = VirtualClock()
    sums = spending(Budget("daily", USD), clock=clock)
    sums.note(call_of(), dollars(1.0))
    clock.advance(-2 * DAY_S)
    assert is_refused(sums, call_of())


def test_threads_lose_no_spending() -> None:
    """What several threads spend at once is all counted, and held amounts are all let go. (S0-26)"""
    sums = spending(Budget("b", 10**6 * USD))

    def work() -> None:
        for _ in range(300):
            call = call_of(price=0.5)
            admission = sums.admit(call)
            sums.note(call, dollars(0.001, 3))
            admission.settle(measured=True)
            sums.standings()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sums.standings()[0].spent == Amount(2_400_000_000, 7_200)
    assert sums.refusal(call_of(price=10**6 - 2.4)) is None


def test_the_log_is_written_outside_the_lock() -> None:
    """Who writes the log may itself ask how budgets stand. (S0-26)"""
    sums = spending(Budget("b", USD))
    seen: list[float] = []

    class Asking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            seen.append(sums.standings()[0].share)

    handler, log = Asking(), logging.getLogger("paceline")
    log.addHandler(handler)
    try:
        sums.note(call_of(), dollars(1.0))
    finally:
        log.removeHandler(handler)
    assert seen == [1.0]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["admit", "report", "settle"]),
        st.integers(0, 5),
        st.integers(0, 400_000_000),
    ),
    max_size=60,
)


def check_limit(sums: Spending, limit: int, steps: list[tuple[str, int, int]], price: int) -> None:
    """Drives calls of one agent; at each moment what is spent beyond the limit was spent by calls
    that were in flight when it was reached."""
    running: list[tuple[Admission, list[int]]] = []
    total, beyond = 0, 0
    call = call_of(price=price / USD)
    sums.note(call, Spent(Tokens(1)))  # it is known to cost
    for what, which, amount in steps:
        if what == "admit":
            try:
                admission = sums.admit(call)
            except BudgetExceededError:
                continue
            assert total < limit
            running.append((admission, []))
        elif running and what == "report" and not price:
            sums.note(call, dollars(amount / USD))
            running[which % len(running)][1].append(amount)
            beyond += amount if total >= limit else max(0, total + amount - limit)
            total += amount
        elif running and what == "settle":
            admission, reports = running.pop(which % len(running))
            admission.settle(measured=bool(reports))
            total += 0 if reports else price
    assert sums.standings()[0].spent.nano_usd == total
    assert total <= limit + beyond
    if price:
        assert total + price * len(running) <= max(limit, 0)


@given(STEPS, st.integers(0, USD), st.integers(0, 300_000_000))
def test_no_call_is_admitted_beyond_the_limit(
    steps: list[tuple[str, int, int]], limit: int, price: int
) -> None:
    """A budget is exceeded by no more than what calls in flight cost, and not at all where prices
    are known. (S0-26, V-40)"""
    check_limit(spending(Budget("b", limit)), limit, steps, price)


@final
class _Late(msgspec.Struct, frozen=True):
    """The mistake of a budget that is used up only when it is exceeded."""

    limit_nano_usd: int
    name: str = "b"
    window: str = "day"
    per: str = "all"
    limit_tokens: int | None = None

    def covers(self, agent: str) -> bool:
        return True

    def share(self, spent: Amount) -> float:
        return 0.0

    def check(self, spent: Amount, expected: Amount = NOTHING) -> Verdict:
        return Verdict.USED_UP if spent.nano_usd > self.limit_nano_usd else Verdict.FREE


def _holding_nothing(sums: Spending) -> None:
    """The mistake of asking for room without holding it."""
    admit = sums.admit

    def forgetful(call: Call) -> Admission:
        admission = admit(call)
        for book in sums._books:
            for account in book.accounts.values():
                account.held_nano_usd = 0
        return admission

    sums.admit = forgetful  # type: ignore[method-assign]


def test_wrong_budgets_are_seen() -> None:
    """The law does not hold for a budget that is asked too late, or holds nothing. (S0-26)"""
    price = 300_000_000
    steps = [("admit", 0, 0)] * 5 + [("settle", 0, 0)] * 5
    late = Spending([_Late(USD)], VirtualClock())  # type: ignore[list-item]
    with pytest.raises(AssertionError):
        check_limit(late, USD, steps, price)
    forgetful = spending(Budget("b", USD))
    _holding_nothing(forgetful)
    with pytest.raises(AssertionError):
        check_limit(forgetful, USD, steps, price)
    check_limit(spending(Budget("b", USD)), USD, steps, price)
