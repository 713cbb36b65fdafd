"""What was spent, and whether there is anything left for one more call."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol, final

from paceline.balance.budget import NOTHING, Amount, Budget, Verdict, nano_usd, span_of, usd
from paceline.call import Call, Kind
from paceline.clock import Clock
from paceline.errors import BudgetExceededError
from paceline.usage import Spent

__all__ = ["Admission", "Past", "Spending", "Standing"]

_log = logging.getLogger("paceline")
_NS: Final = 1_000_000_000
_MOST_ACCOUNTS: Final = 100_000
_MOST_RUNS: Final = 10_000
_MOST_NAMES: Final = 10_000
_OTHERS: Final = ("(other)",)

_Key = tuple[str, ...]
"""What an account is of: all, an agent, a tenant and its user; in runs, the run first."""


class Past(Protocol):
    """What was spent before, by one agent for one user on one day of UTC."""

    @property
    def name(self) -> str:
        """The agent's name."""
        ...

    @property
    def user(self) -> str | None:
        """For whom."""
        ...

    @property
    def tenant(self) -> str | None:
        """Whose user that is."""
        ...

    @property
    def tokens(self) -> int:
        """Input and output together."""
        ...

    @property
    def raw_usd(self) -> float:
        """Money without discounts."""
        ...

    @property
    def at_ns(self) -> int:
        """When, by the wall clock."""
        ...


class Standing(NamedTuple):
    """How a budget stands. `whose` is a user (after its tenant) or agent, "" for all together."""

    budget: Budget
    whose: str
    spent: Amount
    share: float
    resets_ns: int | None
    """By the wall clock; None for a run."""


@final
class _Account:
    """What one budget says of all, of one user or one agent, in one window or run."""

    __slots__ = ("held_nano_usd", "nano_usd", "tokens", "told")

    def __init__(self) -> None:
        self.nano_usd = 0
        self.tokens = 0
        self.held_nano_usd = 0
        """The declared prices of calls in flight."""
        self.told = Verdict.FREE

    @property
    def spent(self) -> Amount:
        return Amount(self.nano_usd, self.tokens)

    @property
    def taken(self) -> Amount:
        """With what is held for calls in flight."""
        return Amount(self.nano_usd + self.held_nano_usd, self.tokens)


@final
class _Book:
    """The accounts of one budget in the present window."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.accounts: OrderedDict[_Key, _Account] = OrderedDict()
        self.start_ns = 0
        self.end_ns: int | None = None

    def turn(self, now_ns: int) -> None:
        """Opens the window of now, if that is a later one."""
        window = self.budget.window
        if window != "run" and (self.end_ns is None or now_ns >= self.end_ns):
            self.accounts.clear()
            self.start_ns, self.end_ns = span_of(window, now_ns)

    def account(self, name: str, user: _Key, run: str) -> _Account:
        """Where a call counts; that of others once there are too many."""
        one: _Key = ("",)
        if self.budget.per != "all":
            one = user if self.budget.per == "user" else (name,)
        if self.budget.window == "run":
            return self._of_run((run, *one))
        account = self.accounts.get(one)
        if account is None:
            if len(self.accounts) >= _MOST_ACCOUNTS:
                one = _OTHERS
            account = self.accounts.setdefault(one, _Account())
        return account

    def _of_run(self, run: _Key) -> _Account:
        """Of runs, those are forgotten that nothing was heard of for longest."""
        account = self.accounts.setdefault(run, _Account())
        self.accounts.move_to_end(run)
        if len(self.accounts) > _MOST_RUNS:
            self.accounts.popitem(last=False)
        return account


@final
class Admission:
    """A call that was admitted; to be settled once when its execution is over."""

    __slots__ = ("_accounts", "_call", "_held", "_spending")

    def __init__(
        self, spending: "Spending", call: Call, accounts: Sequence[_Account], held: int
    ) -> None:
        self._spending = spending
        self._call = call
        self._accounts = accounts
        self._held = held

    def settle(self, *, measured: bool) -> None:
        """Lets go of what was held. It is spent, unless what the execution really cost was
        measured, and so has been noted."""
        self._spending.settle(self._call, self._accounts, self._held, measured=measured)


@final
class Spending:
    """Keeps the sums of all budgets, from any thread, and refuses calls for which nothing is left.

    Asked are calls that are about to be executed; those are refused that are known to cost: the
    plan has a price, it is a model's, or the same was seen to cost before. Calls in flight are not
    stopped, so a budget can be exceeded by what they cost, as far as no plan says it in advance.
    """

    def __init__(
        self,
        budgets: Sequence[Budget],
        clock: Clock,
        *,
        tell: Callable[[str], object] | None = None,
    ) -> None:
        """`tell` is given a sentence when a budget gets low or is used up; the log, if left out."""
        self._clock = clock
        self._tell_one = tell or _warn
        self._books = [_Book(budget) for budget in budgets]
        self.limited = bool(budgets)
        """Whether there is any budget."""
        self._costly: set[str] = set()
        self._lock = threading.Lock()
        self._turn(clock.wall_ns())

    @property
    def since_ns(self) -> int | None:
        """The wall-clock moment from which on calls of before count; None if none do."""
        starts = [book.start_ns for book in self._books if book.end_ns is not None]
        return min(starts, default=None)

    def admit(self, call: Call) -> Admission:
        """Lets a call be executed. Raises BudgetExceededError if it costs and a budget is used up."""
        if not self._books:
            return Admission(self, call, (), 0)
        expected = Amount(nano_usd(call.plan.cost_usd))
        with self._lock:
            found = self._accounts(call)
            refusal = self._refusal(call, found, expected)
            if refusal is not None:
                raise refusal
            accounts = [account for _, account in found]
            for account in accounts:
                account.held_nano_usd += expected.nano_usd
        return Admission(self, call, accounts, expected.nano_usd)

    def refusal(self, call: Call) -> BudgetExceededError | None:
        """Why a call would be refused now; None if it would not."""
        if not self._books:
            return None
        with self._lock:
            return self._refusal(call, self._accounts(call), Amount(nano_usd(call.plan.cost_usd)))

    def note(self, call: Call, spent: Spent) -> None:
        """Counts what a call has spent; money without discounts."""
        amount = Amount(nano_usd(spent.raw_usd or 0.0), spent.tokens.total)
        if not self._books or amount == NOTHING:
            return
        with self._lock:
            news = self._spend(call.name, self._accounts(call), amount)
        self._tell(news)

    def settle(
        self, call: Call, accounts: Sequence[_Account], held: int, *, measured: bool
    ) -> None:
        """See `Admission.settle`."""
        if not held:
            return
        with self._lock:
            for account in accounts:
                account.held_nano_usd -= held
            found = [] if measured else self._accounts(call)
            news = self._spend(call.name, found, Amount(held))
        self._tell(news)

    def restore(self, past: Past) -> None:
        """Counts what was spent before, by the history, if it was in the present day or month."""
        amount = Amount(nano_usd(past.raw_usd), past.tokens)
        if amount == NOTHING:
            return
        user = past.tenant or "", past.user or ""
        with self._lock:
            self._turn(self._clock.wall_ns())
            found = [
                (book, book.account(past.name, user, ""))
                for book in self._books
                if book.end_ns is not None
                and past.at_ns >= book.start_ns
                and book.budget.covers(past.name)
            ]
            news = self._spend(past.name, found, amount)
        self._tell(news)

    def standings(self) -> tuple[Standing, ...]:
        """How the budgets stand, the most used accounts of each first; those of runs are left out."""
        with self._lock:
            self._turn(self._clock.wall_ns())
            return tuple(
                [
                    standing
                    for book in self._books
                    if book.budget.window != "run"
                    for standing in sorted(_standings(book), key=lambda one: -one.share)
                ]
            )

    def _accounts(self, call: Call) -> list[tuple[_Book, _Account]]:
        self._turn(self._clock.wall_ns())
        user = call.caller.tenant or "", call.caller.user or ""
        run = call.trace_id or call.id
        return [
            (book, book.account(call.name, user, run))
            for book in self._books
            if book.budget.covers(call.name)
        ]

    def _turn(self, now_ns: int) -> None:
        for book in self._books:
            book.turn(now_ns)

    def _refusal(
        self, call: Call, found: Sequence[tuple[_Book, _Account]], expected: Amount
    ) -> BudgetExceededError | None:
        if not (expected.nano_usd or call.kind is Kind.MODEL or call.name in self._costly):
            return None
        for book, account in found:
            if book.budget.check(account.taken, expected) is Verdict.USED_UP:
                return self._error(call, book, account)
        return None

    def _error(self, call: Call, book: _Book, account: _Account) -> BudgetExceededError:
        budget, end_ns = book.budget, book.end_ns
        message = f"{call.name} would cost, and {_described(budget, account)}"
        if end_ns is None:
            return BudgetExceededError(
                message,
                budget=budget.name,
                next_step=f"Start another run, or raise the limit of budgets.{budget.name}.",
            )
        resets_at = datetime.fromtimestamp(end_ns // _NS, UTC)
        return BudgetExceededError(
            message,
            budget=budget.name,
            resets_at=resets_at,
            retry_after_s=max(0, end_ns - self._clock.wall_ns()) / _NS,
            next_step=(
                f"It is renewed at {resets_at:%Y-%m-%d %H:%M} UTC; until then results that are"
                f" cached are served. Or raise the limit of budgets.{budget.name}."
            ),
        )

    def _tell(self, news: Iterable[str]) -> None:
        """Not under the lock: who is told may take time, or ask."""
        for text in news:
            self._tell_one(text)

    def _spend(
        self, name: str, found: Sequence[tuple[_Book, _Account]], amount: Amount
    ) -> list[str]:
        """Counts it; returns what there is to be told."""
        if len(self._costly) < _MOST_NAMES:
            self._costly.add(name)
        news: list[str] = []
        for book, account in found:
            account.nano_usd += amount.nano_usd
            account.tokens += amount.tokens
            verdict = book.budget.check(account.spent)
            if verdict is not Verdict.FREE and verdict is not account.told:
                account.told = verdict
                news.append(_described(book.budget, account))
        return news


def _warn(text: str) -> None:
    _log.warning("%s", text)


def _standings(book: _Book) -> Iterator[Standing]:
    accounts = book.accounts or {("",): _Account()}
    for whose, account in accounts.items():
        yield Standing(
            book.budget,
            "/".join([part for part in whose if part]),
            account.spent,
            book.budget.share(account.spent),
            book.end_ns,
        )


def _described(budget: Budget, account: _Account) -> str:
    """A budget and how far it is used, without names: who is told may be somebody else."""
    limits = [
        f"{used} of {limit}"
        for used, limit, given in (
            (f"${usd(account.nano_usd):,.2f}", f"${usd(budget.limit_nano_usd or 0):,.2f}",
             budget.limit_nano_usd),
            (f"{account.tokens:,}", f"{budget.limit_tokens or 0:,} tokens", budget.limit_tokens),
        )
        if given is not None
    ]  # fmt: skip
    each = "" if budget.per == "all" else f" for each {budget.per}"
    return f"the budget {budget.name} a {budget.window}{each} is used: {', '.join(limits)}"
