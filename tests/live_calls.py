"""Recorded calls for the tests of live views: a busy few minutes of a few agents."""

from typing import Any

from paceline.call import Source
from paceline.errors import Category
from paceline.history.record import Record
from paceline.testing.virtual_time import VirtualClock
from tests.recorded import row

MS = 1_000_000
S = 1_000 * MS
NOW = VirtualClock.EPOCH_NS + 1_000 * S


def seen(number: int = 1, ago_s: float = 0.0, **fields: Any) -> Record:
    """A call that was executed in 10 ms, save what is said of it."""
    took_ns = round(fields.pop("took_ms", 10.0) * MS)
    times = {"execute_ns": took_ns, "total_ns": took_ns}
    return row(f"call-{number}", NOW - round(ago_s * S), **(times | fields))


def hit(number: int, ago_s: float, name: str) -> Record:
    """A call that got a known result."""
    return seen(
        number, ago_s, name=name, source=Source.HOT, attempts=0, execute_ns=0, total_ns=2_000
    )


def busy() -> list[Record]:
    """Calls of the last four minutes: names of all kinds, hits, failures, tokens, money."""
    calls: list[Record] = []

    def add(call: Record) -> None:
        calls.append(call)

    for n in range(240):
        add(seen(len(calls), 240 - n, name="research", took_ms=20 + n % 50, tokens_input=900,
                 tokens_output=120, cost_usd=0.004))  # fmt: skip
        if n % 2:
            add(hit(len(calls), 240 - n, "research"))
        if n % 3 == 0:
            add(seen(len(calls), 240 - n, name="翻訳エージェント", took_ms=300 + n))
        if n % 5 == 0:
            add(seen(len(calls), (240 - n) / 4, name="🚀 launcher", took_ms=0.25))
        if n % 20 == 0:
            add(seen(len(calls), 240 - n, name="flaky\x1b[31m", category=Category.EXECUTION,
                     error_type="builtins.ValueError", message="no row 'x'\nin table"))  # fmt: skip
        if n % 60 == 0:
            add(seen(len(calls), 240 - n, name="flaky\x1b[31m", category=Category.TIMEOUT,
                     message="took longer than 2 s", took_ms=2_000))  # fmt: skip
    add(
        seen(len(calls), 30, name="a_name_that_is_longer_than_any_column_ever_will_be", took_ms=9e4)
    )
    add(seen(len(calls), 12, name="unlucky", category=Category.POLICY, attempts=0, execute_ns=0,
             message="'rm' is not allowed"))  # fmt: skip
    return calls
