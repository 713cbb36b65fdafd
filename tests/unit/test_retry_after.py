"""How long the other side asks us to wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.retry_after import LONGEST_S, retry_after_s

NOW_NS = 784_111_777_000_000_000  # the moment of RFC 9110's example, Sun, 06 Nov 1994 08:49:37 GMT

PARTS = [
    *("Sun,", "Sunday,", "06", "99", "0", "-1", "Nov", "06-Nov-94", "1994", "0001", "9999"),
    *("99999999999", "08:49:37", "25:99", "GMT", "+9999", "-"),
]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("7", 7),
        (" 120 ", 120),
        ("1.5", 1.5),
        ("-5", 0),
        ("+3", 3),
        ("86401", LONGEST_S),
        ("9" * 400, LONGEST_S),
        ("Sun, 06 Nov 1994 08:50:37 GMT", 60),
        ("Sunday, 06-Nov-94 08:50:37 GMT", 60),
        ("Sun Nov  6 08:50:37 1994", 60),
        ("Sun, 06 Nov 1994 09:50:37 +0100", 60),
        ("Sun, 06 Nov 1994 08:49:00 GMT", 0),
        ("Fri, 31 Dec 2999 23:59:59 GMT", LONGEST_S),
    ],
)
def test_seconds_and_dates_are_understood(value: str, seconds: float) -> None:
    """Seconds and the dates of RFC 9110 are understood, the past is now, and no wait is longer than
    a day. (V-32, X-18, E94)"""
    assert retry_after_s(value, NOW_NS) == seconds


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "soon",
        "nan",
        "inf",
        "1e3",
        "1_000",
        "\u0661\u0662",
        "5 s",
        "2024-01-01",
        "Sun, 99 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 99999999999 08:49:37 GMT",
        "1" * 1_001,
    ],
)
def test_what_cannot_be_understood_says_nothing(value: str | None) -> None:
    """Words, other notations of numbers and impossible dates are as if the header were missing.
    (E94)"""
    assert retry_after_s(value, NOW_NS) is None


@given(st.text(max_size=60) | st.lists(st.sampled_from(PARTS), max_size=7).map(" ".join))
def test_no_answer_breaks_it(value: str) -> None:
    """Whatever a header says, the wait is between nothing and a day, or unknown. (E94)"""
    seconds = retry_after_s(value, NOW_NS)
    assert seconds is None or 0 <= seconds <= LONGEST_S
