"""Errors: the most frequent kinds, in bounded memory, without what must not be shown."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import Category
from paceline.metrics.troubles import Forms, Troubles, form
from paceline.redaction import Redactor, Secret


@given(st.lists(st.integers(0, 12), max_size=200), st.integers(1, 8))
def test_counts_are_bounds(kinds: list[int], most: int) -> None:
    """A count is never below the true one, and above it by no more than it says. (S0-09)"""
    troubles, true = Troubles(most), Counter(kinds)
    for at, kind in enumerate(kinds):
        troubles.note(Category.NETWORK, str(kind), "", at)
    top = troubles.top()
    assert len(top) == min(most, len(true))
    assert sum(trouble.count for trouble in top) == len(kinds)
    for trouble in top:
        assert trouble.count - trouble.too_many <= true[int(trouble.type)] <= trouble.count
    # Whatever is more frequent than one in `most` is among them.
    kept = {trouble.type for trouble in top}
    assert kept >= {str(kind) for kind, count in true.items() if count > len(kinds) / most}


def test_the_most_frequent_first_with_first_and_last_seen() -> None:
    """Errors are ranked, with when each was first and last seen. (S0-09, S0-72)"""
    troubles = Troubles()
    for at, kind in ((0, "a"), (4, "b"), (2, "b"), (3, "a"), (1, "b")):
        troubles.note(Category.TIMEOUT, kind, "late", at)
    assert [
        (each.type, each.count, each.first_ns, each.last_ns, each.too_many)
        for each in troubles.top()
    ] == [("b", 3, 1, 4, 0), ("a", 2, 0, 3, 0)]


def test_categories_and_types_are_kept_apart() -> None:
    """Two modules' errors of one name, and one of two categories, are not one. (S0-09, V-31)"""
    troubles = Troubles()
    troubles.note(Category.TIMEOUT, "a.TimeoutError", "", 1)
    troubles.note(Category.TIMEOUT, "b.TimeoutError", "", 1)
    troubles.note(Category.NETWORK, "a.TimeoutError", "", 1)
    assert [trouble.count for trouble in troubles.top()] == [1, 1, 1]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("timed out after 3.5 s", "timed out after 12 s"),
        ("no file '/etc/x y'", "no file '/srv/z'"),
        ("cannot read /var/lib/a.db: locked", "cannot read /var/lib/b/c.db: locked"),
        ('agent "ada" not found', 'agent "bob the builder" not found'),
        ("at 0xdeadbeef", "at 0x1f"),
        (
            "request 3f2b8c1e-7d7a-4b52-9c1b-1d2e3f4a5b6c failed",
            "request 0a2b8c1e-7d7a-4b52-9c1b-1d2e3f4a5b6d failed",
        ),
        ("id req_8a7f6e5d4c3b2a10 refused", "id req_118a7f6e5d4c3b2a refused"),
        ("connect to 10.0.0.1:80 refused", "connect to 192.168.1.77:8080 refused"),
        ('input "' + "a" * 500, 'input "' + "b" * 700),
    ],
)
def test_messages_of_one_form_are_one(one: str, other: str) -> None:
    """Messages that differ in numbers, names and ids have one form. (S0-72)"""
    assert form(one) == form(other)
    assert "*" in form(one)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cannot connect", "cannot read"),
        ("the model's answer can't be read", "the model's state can't be read"),
        ("timed out after 3 s", "cancelled after 3 s"),
    ],
)
def test_messages_of_two_forms_stay_two(one: str, other: str) -> None:
    """Messages that differ in their words are told apart."""
    assert form(one) != form(other)


@given(st.text(max_size=2_000))
def test_a_form_is_short(message: str) -> None:
    """Whatever a message is, its form has at most 200 characters."""
    assert len(form(message)) <= 200


def test_no_secret_is_in_a_form() -> None:
    """Secrets are masked before anything is kept, also in a long message. (S0-72)"""
    secret = Secret("correct horse battery")
    forms = Forms(Redactor([secret]).text)
    shown = [
        forms.of(ValueError(f"login with {secret.reveal()} and password=hunter2 refused")),
        forms.of(ValueError("x " * 4_090 + secret.reveal())),
    ]
    for text in shown:
        assert "horse" not in text
        assert "hunter" not in text
    assert shown[0].startswith("login with [redacted] and password=[redacted]")
    assert "horse" not in repr(forms._known)


def test_the_same_message_is_read_once() -> None:
    """A flood of one error is redacted once, and what is remembered is bounded. (S0-09)"""
    seen: list[str] = []

    def redact(text: str) -> str:
        seen.append(text)
        return text

    forms = Forms(redact)
    for _ in range(100):
        forms.of(ValueError("again"))
    assert seen == ["again"]
    for number in range(1_000):
        forms.of(ValueError(str(number)))
    assert len(forms._known) <= 256


class _MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no message")


def test_an_error_that_fails_to_tell_its_message_has_none() -> None:
    """An exception whose text cannot be had is counted without one. (S0-23)"""
    assert Forms(str).of(_MuteError()) == ""


def test_lost_bounds_are_found() -> None:
    """A list that lets a new kind begin at one again breaks the bounds."""

    class Forgetful(Troubles):  # type: ignore[misc]
        def note(self, category: Category, kind: str, message: str, at_ns: int) -> None:
            if len(self._kinds) >= self._most and (category, kind, message) not in self._kinds:
                self._kinds.popitem()
            super().note(category, kind, message, at_ns)

    troubles = Forgetful(1)
    for kind in "abab":
        troubles.note(Category.NETWORK, kind, "", 0)
    assert sum(trouble.count for trouble in troubles.top()) != 4
