"""From what a history recorded to what statistics and profiles are made from."""

from paceline.clock import Clock
from paceline.errors import Category
from paceline.history.record import Facts, Record
from paceline.history.sqlite import SqliteReader
from paceline.metrics.collector import MetricsCollector
from paceline.metrics.figures import NO_USAGE, Usage, ending_of, usage_of
from paceline.metrics.span import Span
from paceline.metrics.troubles import form

__all__ = ["note_call", "replay", "span_of_record"]


def replay(
    reader: SqliteReader, *, clock: Clock | None = None, since_ns: int | None = None
) -> MetricsCollector:
    """A collector that has seen the recorded calls, when they were. Raises StorageError."""
    collector = MetricsCollector(clock=clock)
    # Moments are kept by the wall, and counted by the clock that never goes back.
    ahead_ns = collector.clock.wall_ns() - collector.clock.monotonic_ns()

    def add(facts: Facts) -> None:
        note_call(collector, facts, facts.at_ns - ahead_ns)

    reader.fold(add, since_ns=since_ns)
    return collector


def note_call(collector: MetricsCollector, facts: Facts, end_ns: int) -> None:
    """Puts a recorded call into a collector; `end_ns` is the moment of its end by the collector's
    clock that never goes back."""
    series = collector.series(facts.name, facts.kind)
    if facts.speculated:  # nobody's call, but somebody's money
        if (spent := _usage(facts)) is not None:
            series.spend(end_ns, spent)
        return
    ran = facts.attempts > 0 or facts.source.cached
    trouble = facts.category or facts.instead_of
    cell = series.cell(facts.source, trouble, ending_of(facts.category, ran=ran))
    cell.note_past(end_ns, facts.total_ns, facts.execute_ns, facts.queue_ns, facts.saved_ns)
    usage = _usage(facts)
    if usage is not None:
        cell.usages.append((end_ns, usage))
    if trouble not in (None, Category.CANCELLED):
        message = form(facts.message or "")
        series.failed(trouble, facts.error_type or "", message, facts.at_ns)


def span_of_record(record: Record) -> Span:
    """The span of a recorded call."""
    ran = record.attempts > 0 or record.source.cached
    return Span(
        record.id,
        record.run,
        record.name,
        record.start_ns,
        record.at_ns,
        record.parent,
        record.kind,
        record.queue_ns,
        record.execute_ns,
        record.source,
        record.category,
        ending_of(record.category, ran=ran),
        _usage(record.facts) or NO_USAGE,
        (record.link,) if record.link else (),
    )


def _usage(facts: Facts) -> Usage | None:
    """Tokens and money, as they are counted of a call that is observed; None where there is none."""
    known = facts.tokens, facts.cost_usd, facts.saved_usd
    if known == (None, None, None) and not facts.price_usd:
        return None
    return usage_of(facts, facts.price_usd)
