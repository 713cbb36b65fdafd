"""What a text offers as values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.predict.tokens import tokens, words


@pytest.mark.parametrize(
    ("text", "look", "value"),
    [
        ("my id is mia_li_3668.", "a_a_9", "mia_li_3668"),
        ("cancel 4OG6T3, please", "X6", "4OG6T3"),
        ("that cost $1,500", "number", 1500),
        ("about 2.5 miles", "number", 2.5),
        ("from San Francisco to", "name", "San Francisco"),
        ('add "Meeting with Ann" to it', "quoted", "Meeting with Ann"),
        ("named 'a.txt'.", "quoted", "a.txt"),
        ("on 2024-05-21", "date", "2024-05-21"),
        ("on May 27, 2023", "date", "2023-05-27"),
        ("on the 6th day of October in 2026", "date", "2026-10-06"),
        ("Dec 15 at 2:00 PM", "moment", "2024-12-15 14:00:00"),
        ("at 12am", "clock", "00:00"),
        ("tag it #Fun", "bare Aa", "Fun"),
        ("mention @Ann", "~@", "@Ann"),
        ("see report.txt", "~dotted", "report.txt"),
        ("from DEN", "~upper", "DEN"),
        ("the archive folder", "a<folder", "archive"),
        ("the archive folder", "a|the", "archive"),
    ],
)
def test_a_text_has_tokens(text: str, look: str, value: object) -> None:
    """Ids, numbers, dates, quoted words and names of a text are found by what they look like
    (S2-50, P-01)."""
    assert value in [token.value for token in tokens(text, 2024) if look in token.looks]


def test_a_date_without_a_year_waits_for_one() -> None:
    """A date that says no year where none is known keeps its month and day (P-01)."""
    assert "--05-27" in [token.value for token in tokens("on May 27")]


def test_a_token_knows_the_words_around_it() -> None:
    """A token has up to four words before it and the one after it (P-01)."""
    (token,) = [
        each for each in tokens("please fly me there from DEN today") if each.value == "DEN"
    ]
    assert token.before == ("fly", "me", "there", "from")
    assert token.after == "today"


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    """No text makes it fail, and its words are in lower case (P-01)."""
    tokens(text)
    assert all(word == word.lower() for word in words(text))
