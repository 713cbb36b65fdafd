"""Rate limits, held before the other side has to; and what its headers say of them."""

import random
from collections import deque
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.balance.quotas import Quantity, Quota, asked_to_wait_s, quotas
from paceline.balance.rate import Bucket, Rates
from paceline.balance.request import Request
from paceline.call import Tokens
from paceline.retry_after import LONGEST_S
from paceline.testing.virtual_time import VirtualClock

NS = 1_000_000_000
MINUTE = 60 * NS
REQUESTS, TOKENS, INPUT, OUTPUT = Quantity


def _ask(tokens: int = 0, output: int = 0) -> Request:
    return Request(input_tokens=tokens, output_tokens=output)


def _lease(tokens: Tokens | None = None, *, sent: bool = True) -> Any:
    return SimpleNamespace(tokens=tokens, started_ns=1 if sent else 0)


def _open_in_s(rates: Rates, clock: VirtualClock) -> float:
    return max(0, rates.opens_ns() - clock.monotonic_ns()) / NS


def test_exactly_the_limit_passes_at_once() -> None:
    """Of eleven requests at once under a limit of ten a minute ten are admitted, and the next at
    the very nanosecond at which there is one again. (S0-81, V-29)"""
    clock = VirtualClock()
    rates = Rates(clock, requests=10)
    assert [rates.admit(_ask()) is not None for _ in range(11)] == [True] * 10 + [False]
    assert rates.opens_ns() == 6 * NS
    clock.advance(6 - 1e-9)
    assert rates.admit(_ask()) is None
    clock.advance(1e-9)
    assert rates.opens_ns() <= clock.monotonic_ns()
    assert rates.admit(_ask()) is not None
    assert rates.admit(_ask()) is None


@given(
    limit=st.integers(1, 10**12),
    period_ns=st.sampled_from([1, 1_000, MINUTE, 86_400 * NS]),
    steps=st.lists(st.integers(0, 10**10), max_size=30),
)
def test_refilling_is_exact_however_often_it_is_done(
    limit: int, period_ns: int, steps: list[int]
) -> None:
    """Looking at a bucket in between changes nothing of what it holds in the end: nothing is
    rounded away and nothing drifts. (V-29)"""
    watched, alone = (Bucket(limit, 0, period_ns=period_ns) for _ in range(2))
    for bucket in (watched, alone):
        bucket.take(2 * limit, 0)
    now_ns = 0
    for step_ns in steps:
        now_ns += step_ns
        watched.left(now_ns)
    assert watched.left(now_ns) == alone.left(now_ns)
    exact = (now_ns * limit - limit * period_ns) // period_ns
    assert alone.left(now_ns) == min(limit, exact)


@given(limit=st.integers(1, 10**9), amount=st.integers(1, 10**9), taken=st.integers(0, 10**9))
def test_the_moment_of_enough_is_the_first(limit: int, amount: int, taken: int) -> None:
    """At the moment that a bucket names there is enough, and a nanosecond before there is not.
    (V-29)"""
    bucket = Bucket(limit, 0)
    bucket.take(taken, 0)
    moment_ns = bucket.when_ns(amount)
    if moment_ns > 0:
        assert not bucket.has(amount, moment_ns - 1)
    assert bucket.has(amount, moment_ns)


@given(seed=st.integers(0, 10**6))
def test_tokens_of_a_minute_hold_whatever_is_estimated(seed: int) -> None:
    """With many in flight at once whose output nobody knows, what was used in the end is never more
    than what was there and came in since, and what is estimated wrongly. (S0-81, V-29)"""
    rng, clock = random.Random(seed), VirtualClock()
    rates = Rates(clock, tokens=10_000, output_guess=100)
    flying: deque[tuple[Any, Tokens]] = deque()
    used = late = 0
    for _ in range(300):
        request = Request(input_tokens=rng.randint(1, 300))
        permit = rates.admit(request)
        if permit is not None:
            flying.append((permit, Tokens(request.input_tokens, rng.randint(0, 400))))
        if flying and (permit is None or rng.random() < 0.5):
            permit, tokens = flying.popleft()
            rates.ended(permit, _lease(tokens))
            used += tokens.total
            late += max(0, tokens.output - 100)
        clock.advance(rng.random())
        assert used <= 10_000 + 10_000 * clock.monotonic_ns() // MINUTE + late


def test_what_was_not_used_is_given_back() -> None:
    """A reservation is corrected by the tokens that were used, more or fewer; work that was never
    sent gives everything back, and of what does not say the reservation counts. (S0-64, S0-81)"""
    clock = VirtualClock()
    rates = Rates(clock, requests=9, tokens=1_000, input_tokens=900, output_tokens=500)
    buckets = rates._buckets

    def left() -> list[int]:
        return [bucket.left(0) for bucket in buckets.values()]

    permit = rates.admit(_ask(300, 200))
    assert left() == [8, 500, 600, 300]
    rates.ended(permit, _lease(Tokens(310, 20)))
    assert left() == [8, 670, 590, 480]
    rates.ended(rates.admit(_ask(100, 100)), _lease(sent=False))
    assert left() == [8, 670, 590, 480]
    rates.ended(rates.admit(_ask(100, 100)), _lease())
    assert left() == [7, 470, 490, 380]
    rates.ended(rates.admit(_ask(100, 100)), _lease(Tokens(100, 900)))
    assert left() == [6, -530, 390, -520]


def test_all_or_nothing_is_reserved() -> None:
    """A request for which there are too few tokens takes no request either. (S0-81)"""
    rates = Rates(VirtualClock(), requests=5, tokens=100)
    assert rates.admit(_ask(60)) is not None
    assert rates.admit(_ask(60)) is None
    assert [bucket.left(0) for bucket in rates._buckets.values()] == [4, 40]


def test_a_refused_request_is_what_is_waited_for() -> None:
    """After a refusal the guard opens when there is enough for that very request, sooner if some is
    given back, and then for anything. (S0-64)"""
    clock = VirtualClock()
    rates = Rates(clock, tokens=6_000)
    permit = rates.admit(_ask(5_900))
    assert _open_in_s(rates, clock) == 0
    assert rates.admit(_ask(1_100)) is None
    assert _open_in_s(rates, clock) == 10
    rates.ended(permit, _lease(Tokens(5_400)))
    assert _open_in_s(rates, clock) == 5
    clock.advance(5)
    assert rates.admit(_ask(1_100)) is not None
    assert _open_in_s(rates, clock) == 0.01


def test_a_request_larger_than_the_limit_passes_when_all_is_there() -> None:
    """What is more than a minute's tokens is not kept waiting for ever; it is paid for afterwards.
    (S0-64)"""
    clock = VirtualClock()
    rates = Rates(clock, tokens=1_000)
    assert rates.admit(_ask(2_500)) is not None
    assert _open_in_s(rates, clock) == pytest.approx(90.06)
    assert rates.admit(_ask(2_500)) is None
    assert _open_in_s(rates, clock) == pytest.approx(150)


def test_without_limits_everything_passes() -> None:
    """A guard that knows no limit is open. (S0-81)"""
    rates = Rates(VirtualClock())
    assert rates.opens_ns() == 0
    assert rates.admit(_ask(10**9)) is not None


@pytest.mark.parametrize("bad", [0, -1])
def test_a_limit_of_nothing_is_refused(bad: int) -> None:
    """A limit below one is an error when it is set, not a guard that never opens."""
    with pytest.raises(ValueError, match="at least 1"):
        Rates(VirtualClock(), requests=bad)
    with pytest.raises(ValueError, match="at least 1"):
        Bucket(1, 0, period_ns=bad)


def _stamp(clock: VirtualClock, seconds: float) -> str:
    return datetime.fromtimestamp(clock.wall_ns() / NS + seconds, UTC).isoformat()


OPENAI = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-limit-tokens": "150000",
    "X-RateLimit-Remaining-Requests": "59",
    "X-RateLimit-Remaining-Tokens": "149984",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-reset-tokens": "6m0s",
}
ABSURD = [
    *("0", "-1", "1", "60", "9" * 22, "1e9", "nan", "6m0s", "0s", "99999999h", "r=0;t=1e9"),
    *('"a";q=0;w=0', '"a";r=-5;t=5', "2999-01-01T00:00:00Z", "0001-01-01T00:00:00+14:00"),
]
WALL_NS = VirtualClock.EPOCH_NS  # 2023-11-14T22:13:20Z


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (OPENAI, [Quota(REQUESTS, 60, 59, 1.0), Quota(TOKENS, 150_000, 149_984, 360.0)]),
        (
            {
                "anthropic-ratelimit-requests-limit": "1000",
                "anthropic-ratelimit-requests-remaining": "999",
                "anthropic-ratelimit-requests-reset": "2023-11-14T22:13:21Z",
                "anthropic-ratelimit-input-tokens-limit": "80000",
                "anthropic-ratelimit-input-tokens-remaining": "0",
                "anthropic-ratelimit-input-tokens-reset": "2023-11-14T23:14:20+01:00",
                "anthropic-ratelimit-output-tokens-limit": "16000",
            },
            [Quota(REQUESTS, 1000, 999, 1.0), Quota(INPUT, 80_000, 0, 60.0), Quota(OUTPUT, 16_000)],
        ),
        (
            {
                "RateLimit-Limit": "100, 100;w=10",
                "RateLimit-Remaining": "7",
                "RateLimit-Reset": "4",
            },
            [Quota(REQUESTS, 100, 7, 4.0, 10.0, at_once=True)],
        ),
        (
            {"RateLimit": "limit=100, remaining=7, reset=4"},
            [Quota(REQUESTS, 100, 7, 4.0, at_once=True)],
        ),
        (
            {
                "RateLimit-Policy": '"hour";q=1000;w=3600, "burst";q=100;w=60, "b";qu="bytes";q=5',
                "RateLimit": '"hour";r=300;t=1800, "burst";r=50;t=30, "b";r=0;t=9',
            },
            [Quota(REQUESTS, 100, 50, 30.0, 60.0, at_once=True)],
        ),
        (
            {
                "anthropic-ratelimit-tokens-remaining": "5",
                "anthropic-ratelimit-tokens-reset": "2023-11-14T22:13:21",  # where?
            },
            [Quota(TOKENS, None, 5)],
        ),
        ({"content-type": "text/html", "x-ratelimit-reset-requests": "1s"}, []),
    ],
)
def test_headers_of_providers_are_understood(
    headers: dict[str, str], expected: list[Quota]
) -> None:
    """The limits in the headers of OpenAI, Anthropic and the drafts of the IETF are read, whatever
    the case of their names. (S0-81, V-32)"""
    assert quotas(headers, WALL_NS) == expected


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("6m0s", 360),
        ("20ms", 0.02),
        ("1h2m3.5s", 3_723.5),
        ("250us", 0.00025),
        ("250\u00b5s", 0.00025),
        ("12", 12),
        ("999999999999h", LONGEST_S),
        ("-1s", None),
        ("soon", None),
        ("1s later", None),
        ("", None),
    ],
)
def test_durations_are_understood(text: str, seconds: float | None) -> None:
    """Durations of hours to microseconds are read, bounded to a day; others say nothing. (V-29)"""
    headers = {"x-ratelimit-remaining-requests": "1", "x-ratelimit-reset-requests": text}
    reset_s = quotas(headers, WALL_NS)[0].reset_s
    assert reset_s == (None if seconds is None else pytest.approx(seconds))


@given(
    st.dictionaries(
        st.sampled_from(
            [
                *OPENAI,
                *(f"anthropic-ratelimit-{q}-{w}" for q in Quantity for w in ("limit", "reset")),
                *("RateLimit", "RateLimit-Policy", "RateLimit-Limit", "RateLimit-Remaining"),
                *("RateLimit-Reset", "Retry-After", "retry-after-ms"),
            ]
        ),
        st.text(max_size=20) | st.sampled_from(ABSURD),
    ),
    st.sampled_from([200, 400, 429, 500, 503, 529]),
)
def test_absurd_headers_do_no_harm(headers: dict[str, str], status: int) -> None:
    """Whatever the headers say, the guard works on and is open again within a day and what it
    takes to fill up. (V-29, E94)"""
    clock = VirtualClock()
    rates = Rates(clock, requests=60, tokens=1_000)
    rates.told(headers, status)
    assert 0 <= rates.opens_ns() <= 2 * 86_400 * NS
    clock.advance(2 * 86_400)
    assert rates.admit(_ask(1)) is not None


def test_limits_are_learnt_from_answers() -> None:
    """Limits that nobody set come from the first answer, with what is left of them, also for what
    others used; what the other side no longer counts is not given back. (S0-81)"""
    clock = VirtualClock()
    rates = Rates(clock, tokens=100)
    rates.told(OPENAI, 200)
    left = {quantity: bucket.left(0) for quantity, bucket in rates._buckets.items()}
    assert left == {REQUESTS: 59, TOKENS: 149_984}
    rates.told({"x-ratelimit-remaining-requests": "2"}, 200)
    rates.told({"x-ratelimit-remaining-requests": "50"}, 200)
    assert [rates.admit(_ask()) is not None for _ in range(3)] == [True, True, False]


def test_a_longer_period_than_a_minute_is_found_out() -> None:
    """Where filling up takes longer than a minute the limit is not one of a minute; the time that
    little takes says nothing. (S0-81)"""
    clock = VirtualClock()
    rates = Rates(clock)
    said = {"limit": "200", "remaining": "100", "reset": "12h"}
    rates.told({f"x-ratelimit-{what}-requests": text for what, text in said.items()}, 200)
    assert rates._buckets[REQUESTS].period_ns == 86_400 * NS
    for _ in range(100):
        assert rates.admit(_ask()) is not None
    assert _open_in_s(rates, clock) == 432
    rates.told(OPENAI, 200)  # 16 of 150,000 tokens, back in six minutes
    assert rates._buckets[TOKENS].period_ns == MINUTE


def test_another_limit_leaves_what_was_used_used() -> None:
    """When a limit or its period changes, what was used of the old one is used of the new.
    (S0-81)"""
    bucket = Bucket(60, 0)
    bucket.take(40, 0)
    bucket.resize(60, 86_400 * NS, 0)
    assert bucket.left(0) == 20
    bucket.resize(100, MINUTE, 0)
    assert bucket.left(0) == 60
    bucket.resize(30, MINUTE, 0)
    assert bucket.left(0) == -10


def test_an_empty_window_is_waited_for() -> None:
    """Where all of a limit comes back at one moment, nothing is sent before it. (S0-81)"""
    clock = VirtualClock()
    rates = Rates(clock)
    rates.told({"RateLimit-Limit": "60", "RateLimit-Remaining": "0", "RateLimit-Reset": "40"}, 200)
    assert rates.admit(_ask()) is None
    assert _open_in_s(rates, clock) == 40


@pytest.mark.parametrize(
    ("headers", "pause_s"),
    [
        ({"Retry-After": "7"}, 7),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30),
        ({"Retry-After": "7", "retry-after-ms": "250"}, 0.25),
        ({"Retry-After": "99999999"}, LONGEST_S),
        ({"Retry-After": "-7"}, 0),
        ({"Retry-After": "soon"}, 1),
        ({}, 1),
    ],
)
def test_a_pause_that_is_asked_for_is_kept(headers: dict[str, str], pause_s: float) -> None:
    """After 429 nothing is sent for as long as the answer asks, a second if it does not say.
    (V-32, X-18, E94)"""
    clock = VirtualClock()
    rates = Rates(clock, requests=1_000)
    rates.told(headers, 429)
    assert _open_in_s(rates, clock) == pytest.approx(pause_s)
    assert (rates.admit(_ask()) is None) == (pause_s > 0)
    clock.advance(pause_s)
    assert rates.admit(_ask()) is not None


def test_refusals_without_a_word_are_waited_out_longer_and_longer() -> None:
    """Each 429 after a pause doubles the next, up to a minute; those of requests that were in
    flight together count as one, and a success starts anew. (V-32, X-18)"""
    clock = VirtualClock()
    rates = Rates(clock)
    pauses = list[float]()
    for _ in range(8):
        for _ in range(5):
            rates.told({}, 429)
        pauses.append(_open_in_s(rates, clock))
        clock.advance(pauses[-1])
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    rates.told({}, 200)
    rates.told({}, 429)
    assert _open_in_s(rates, clock) == 1


def test_other_troubles_close_only_if_they_ask() -> None:
    """A 503 or 529 closes the guard where it says for how long; a 500 never does. (E94, E95)"""
    clock = VirtualClock()
    rates = Rates(clock)
    for status, headers in ((500, {"Retry-After": "9"}), (503, {}), (529, {})):
        rates.told(headers, status)
        assert rates.opens_ns() == 0
    rates.told({"Retry-After": "9"}, 503)
    assert _open_in_s(rates, clock) == 9
    assert asked_to_wait_s({}, 0) is None
