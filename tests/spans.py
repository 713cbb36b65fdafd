"""Runs to profile: one that a person can check by eye, and any that can be."""

from hypothesis import strategies as st

from paceline.call import Kind, Source
from paceline.errors import Category
from paceline.metrics.figures import Ending
from paceline.metrics.span import Span

__all__ = ["BEGIN_NS", "MS", "a_run", "a_span", "runs"]

MS = 1_000_000
BEGIN_NS = 1_700_000_000_000_000_000


def a_span(
    id: str,  # noqa: A002 (what it is)
    start: int,
    end: int,
    parent: str | None = None,
    name: str = "",
    **others: object,
) -> Span:
    """A span from `start` to `end`, in nanoseconds from the beginning."""
    return Span(
        id,
        "run",
        name or id,
        BEGIN_NS + start,
        BEGIN_NS + end,
        parent,
        **others,  # type: ignore[arg-type]
    )


def a_run() -> list[Span]:
    """A run with everything in it: waiting, work that is shared, a result that is made anew, a
    call whose parent is not recorded, a wide name."""

    def span(
        own: str, name: str, start: int, end: int, parent: str | None = "1", **o: object
    ) -> Span:
        return a_span(own, start * MS, end * MS, parent, name, **o)

    return [
        span("1", "answer", 0, 1_240, None),
        span("2", "plan", 10, 300, kind=Kind.MODEL),
        span("3", "search", 310, 900, queue_ns=150 * MS, execute_ns=440 * MS),
        span("4", "fetch", 470, 880, "3"),
        span("5", "weather", 310, 620),
        span("6", "weather", 320, 620, source=Source.JOINED, links=("5",)),
        span("7", "rates", 905, 906, source=Source.HOT),
        span("7-refresh", "rates", 906, 3_000, "7"),
        span("8", "write 漢字; twice", 910, 1_230, kind=Kind.MODEL),
        span("9", "late", 1_000, 1_200, "gone", category=Category.TIMEOUT, ending=Ending.TIMEOUT),
    ]


_moments = st.integers(0, 12)


@st.composite
def runs(draw: st.DrawFn, most: int = 8) -> list[Span]:
    """Any spans: overlapping, nested or not, with parents that are missing, later or themselves."""
    ids = st.sampled_from([str(n) for n in range(most)])
    count = draw(st.integers(1, most))
    return [
        a_span(
            draw(ids),
            draw(_moments),
            draw(_moments),
            draw(st.none() | ids),
            draw(st.sampled_from("abc")),
            queue_ns=draw(_moments),
            links=tuple(draw(st.lists(ids, max_size=2))),
        )
        for _ in range(count)
    ]
