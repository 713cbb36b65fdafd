"""The session so far."""

from paceline.predict.context import Context
from paceline.predict.events import Called, Said, Step
from paceline.predict.values import canonical


def heard(*events: Said | Step, values: int = 20_000) -> Context:
    context = Context(values=values)
    for event in events:
        context.hear(event)
    return context


def step(name: str, result: object = None, *, failed: bool = False, **arguments: object) -> Step:
    return Step((Called(name, arguments, result, failed),))


def patterns(context: Context, value: object) -> set[str]:
    return {batch.pattern for batch, _ in context.holders(value)}


def test_a_value_is_found_wherever_it_stands() -> None:
    """A value is found in messages, arguments and results, by role and path (S2-50, P-01)."""
    context = heard(
        Said("it is ab_12"),
        Said("ab_12, I see", by_user=False),
        step("get", {"rows": [{"id": "ab_12"}]}, key="ab_12"),
    )
    assert {"u a_9", "a a_9", "c get.key", "r get.rows[*].id"} <= patterns(context, "ab_12")


def test_words_of_an_answer_that_calls_are_found_after_it() -> None:
    """What a model said in the answer that called is found like any other message of its (S2-50, P-01)."""
    context = heard(Step((Called("get", {"key": 1}),), "then ab_12"))
    assert patterns(context, "ab_12") == patterns(heard(Said("then ab_12", by_user=False)), "ab_12")
    assert "a a_9" in patterns(context, "ab_12")


def test_a_list_is_found_in_a_wider_one() -> None:
    """A list of objects is found where the same objects have more fields (P-01)."""
    context = heard(step("get", {"rows": [{"id": 1, "of": 2}, {"id": 3, "of": 4}]}))
    (found,) = context.holders([{"id": 1}, {"id": 3}])
    assert found[1].value == [{"id": 1}, {"id": 3}]
    assert context.batches(found[0].pattern)[0].places[0].value == found[1].value


def test_all_of_a_kind_are_found_as_a_list() -> None:
    """A list of all that one message has of a pattern is found there (P-01)."""
    context = heard(Said("tag it #Fun and #Sun"))
    assert "*u ~#" in patterns(context, ["#Fun", "#Sun"])
    assert "*u ~#" not in patterns(context, ["#Sun"])


def test_a_date_is_found_without_its_year() -> None:
    """A date is found where a text gives month and day alone (P-01)."""
    assert "u date" in patterns(heard(Said("on May 27")), "2024-05-27")


def test_it_knows_what_was_called() -> None:
    """A call made before is known, by whom, whether it failed and whether it was just now
    (S2-50)."""
    context = heard(step("get", key=1), step("find", key=2, failed=True))
    assert context.made("get", canonical({"key": 1})) == "o"
    assert context.made("find", canonical({"key": 2})) == "of0"
    assert context.made("get", canonical({"key": 2})) == "x0"
    assert context.made("get", canonical({"key": 3})) == "n"


def test_what_is_asked_for_counts_once() -> None:
    """A call that was asked for is known at once, and not twice when its result comes (S2-50)."""
    context = Context()
    call = Called("get", {"key": 1})
    context.ask(call)
    assert len(context.own("get")) == 1
    context.step(Step((call,)))
    assert len(context.own("get")) == 1
    assert (context.last, context.asked, context.steps) == (call, [], 1)


def test_it_is_bounded() -> None:
    """A session may go on for ever: what is kept of it stays the same (S2-50)."""
    context = Context(values=100)
    for number in range(500):
        context.say(Said(f"look at id_{number}"))
        context.step(Step((Called(f"get_{number}", {"key": number}, {"id": number}),)))
    assert len(context.calls) == 64
    assert len(context._holders) <= 100
    assert len(context._objects) <= 100
    assert not context.holders("id_3")
    assert context.holders("id_499")


def test_a_new_message_begins_a_turn() -> None:
    """Steps are counted in the session and in the turn, messages by who spoke (S2-50)."""
    context = heard(Said("a"), step("get"), step("get"), Said("b"), step("get"))
    assert (context.turn, context.steps, context.steps_in_turn) == (2, 3, 1)
    assert list(context.texts) == ["a", "b"]


def year_after(*texts: str, year: int | None = None) -> int | None:
    context = Context(year=year)
    for text in texts:
        context.say(Said(text))
    return context.year


def test_the_year_of_a_session_is_the_scopes() -> None:
    """A date that says no year is of the year of the scope's last date, or of the next once that was
    spoken of; birthdays and what expires far ahead do not move it. (S2-50, P-01)"""
    assert year_after(year=2024) == 2024
    assert year_after("born 1980-02-03", "the card expires 2030-01-31", year=2024) == 2024
    assert year_after("from 2023-12-30", year=2024) == 2024
    assert year_after("on 2025-01-02", year=2024) == 2025
    assert year_after("on 2025-01-02", "and 2026-01-02", year=2024) == 2026


def test_without_a_year_the_latest_seen_is_taken() -> None:
    """Where no year is known the latest of those that were seen counts. (S2-50, P-01)"""
    assert year_after("hello") is None
    assert year_after("born 1980-02-03") == 1980
    assert year_after("born 1980-02-03", "on 2024-05-17", "born 1979-01-01") == 2024


def test_a_date_of_a_result_tells_the_year() -> None:
    """What tools return counts like what is said, and dates without a year are read by it. (S2-50, P-01)"""
    context = heard(step("today", {"now": "2024-05-17 10:00"}), Said("on May 27"))
    assert "u date" in patterns(context, "2024-05-27")
    known = Context(year=2022)
    known.hear(step("profile", {"born": "1980-02-03"}))
    known.say(Said("on May 27"))
    assert [place.value for place in known.batches("u date")[0].places] == ["2022-05-27"]
