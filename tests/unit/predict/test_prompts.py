"""Words of messages and of names."""

from hypothesis import given
from hypothesis import strategies as st

from paceline.predict.prompts import name_stems, stems


def test_words_that_say_something_are_kept() -> None:
    """Of a message its words stay, in order, once each, without endings, ids and filler. (S2-28)"""
    assert stems("Please cancel the cancellation of order AB12 and order 77") == (
        "cancel",
        "ab",
        "order",
    )


def test_the_last_words_of_a_long_message_count() -> None:
    """A long message is told by its last words. (S2-28)"""
    assert stems("first " * 3000 + "then last", most=2) == ("then", "last")


def test_names_are_split_into_words() -> None:
    """Names in any usual style are made of the same words as messages. (S2-50)"""
    assert name_stems("get_stock_info") == name_stems("getStockInfo") == {"get", "stock", "info"}
    assert name_stems("GetHTTPResult") == {"get", "http", "result"}


@given(st.text(max_size=3000))
def test_any_message_has_few_words(text: str) -> None:
    """Whatever is said comes to at most two dozen words, each once. (S2-28)"""
    found = stems(text)
    assert len(found) <= 24
    assert len(set(found)) == len(found)
