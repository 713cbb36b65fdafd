"""Timing beside a limit: in which order, and what is counted. No time is judged here."""

from collections.abc import Callable

from bench.timing import Case, Timed, measure, ratios


def noted(order: list[str], name: str, operations: int = 1) -> Case:
    """A case that notes when it runs."""
    return name, lambda: order.append(name), operations


def test_each_case_runs_right_after_its_limit() -> None:
    """In every round, the first of which is not counted, each case runs right after the limit that
    is listed before it, and what is listed before any limit runs alone. (V-42)"""
    order: list[str] = []
    cases = [noted(order, name) for name in ("alone", "limit: one", "a", "b", "limit: two", "c")]
    times = measure(cases, rounds=2)
    a_round = [
        "alone",
        "limit: one",
        *("limit: one", "a"),
        *("limit: one", "b"),
        "limit: two",
        *("limit: two", "c"),
    ]
    assert order == 3 * a_round
    assert list(times) == [case[0] for case in cases]
    assert {(len(timed.ns), len(timed.limit_ns)) for timed in times.values()} == {(2, 2)}


def test_the_loop_is_taken_off() -> None:
    """What an operation of the empty case takes is taken off the case and its limit, in the same
    round. (V-42)"""
    now_ns = 0

    def lasting(ns: int) -> Callable[[], None]:
        def work() -> None:
            nonlocal now_ns
            now_ns += ns

        return work

    cases = [("limit: l", lasting(700), 10), ("a", lasting(3_200), 20)]
    loop = ("a loop", lasting(2_000), 100)
    times = measure(cases, rounds=1, empty=loop, clock=lambda: now_ns)
    assert times == {"limit: l": Timed([50.0], [50.0]), "a": Timed([140.0], [50.0])}


def test_a_machine_that_changes_its_speed_changes_no_ratio() -> None:
    """However much slower the machine is in some rounds, the ratio is the one within the rounds, and
    one round that was disturbed does not move it. (V-42)"""
    speeds = (1.0, 2.0, 1.5, 7.0, 1.0)
    timed = Timed.of([(300 * speed, 100 * speed) for speed in speeds])
    assert timed.ratio == 3.0
    assert Timed.of([*zip(timed.ns, timed.limit_ns, strict=True), (9_000, 100)]).ratio == 3.0
    assert (timed.median, timed.limit) == (450.0, 150.0)
    assert ratios({"limit: l": Timed([1], [1]), "a": timed}) == {"a": 3.0}
