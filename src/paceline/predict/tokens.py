"""What a text says that may be the value of an argument: ids, numbers, dates, quoted words."""

import re
from bisect import bisect_left
from collections.abc import Iterator
from typing import Final, NamedTuple

from paceline.predict.shapes import shape_of_word

__all__ = ["Token", "tokens", "words"]

_MONTHS: Final = {
    name: month
    for month, names in enumerate(
        (
            ("jan", "january"),
            ("feb", "february"),
            ("mar", "march"),
            ("apr", "april"),
            ("may",),
            ("jun", "june"),
            ("jul", "july"),
            ("aug", "august"),
            ("sep", "sept", "september"),
            ("oct", "october"),
            ("nov", "november"),
            ("dec", "december"),
        ),
        start=1,
    )
    for name in names
}
_MONTH: Final = "(?P<month{0}>" + "|".join(sorted(_MONTHS, key=len, reverse=True)) + r")\.?"
_DAY: Final = r"(?P<day{0}>\d{{1,2}})(?:st|nd|rd|th)?"
_YEAR: Final = r"(?P<year{0}>(?:19|20)\d\d)"
_TIME: Final = (
    r"(?P<hour>\d{1,2})(?::(?P<minute>\d\d))?(?::(?P<second>\d\d))?\s?(?P<half>[ap]\.?m\b\.?)?"
)
_MONTH_FIRST: Final = (_MONTH + r"\s+" + _DAY + r"(?:(?:,|\s+of|\s+in)?\s+" + _YEAR + ")?").format(
    1
)
_DAY_FIRST: Final = (
    _DAY + r"\s+(?:day\s+)?(?:of\s+)?" + _MONTH + r"(?:,?\s+(?:in\s+)?" + _YEAR + ")?"
).format(2)
_date = re.compile(
    rf"\b(?:{_MONTH_FIRST}|{_DAY_FIRST}|(?P<iso>\d{{4}}-\d\d-\d\d))\b"
    rf"(?:(?:,|\s+at|\s+from|T)?\s*{_TIME})?",
    re.IGNORECASE,
)
_clock = re.compile(r"\b" + _TIME, re.IGNORECASE)
_quoted = re.compile(
    r"\"([^\"\n]{1,300})\"|\u201c([^\u201d\n]{1,300})\u201d|`([^`\n]{1,300})`"
    r"|(?<!\w)'((?:[^'\n]|'(?=\w)){1,300})'(?!\w)"
)
_word = re.compile(r"[#@$€£]?\w(?:[\w./:@+-]*\w)?(?:,\d{3}\b)*", re.ASCII)
_name = re.compile(r"\b[A-Z][\w'&.-]*(?:\s+(?:of\s+|the\s+|and\s+)?[A-Z][\w'&-]*){1,5}")
_plain = re.compile(r"[A-Za-z]+")
_SIGNS: Final = "#@$€£"
_NEAR: Final = 4  # words before a token are kept
_MOST: Final = 600  # tokens of a text
_NOON: Final = 12


class Token(NamedTuple):
    """One part of a text that may be a value.

    `looks` says what it looks like, from the finest form to the coarsest; `before` are the words
    before it, the last one nearest, `after` is the word after it.
    """

    value: object
    looks: tuple[str, ...]
    before: tuple[str, ...]
    after: str


class _Part(NamedTuple):
    start: int
    end: int
    value: object
    looks: tuple[str, ...]


def words(text: str) -> list[str]:
    """The words of a text in lower case."""
    return [word.lower() for word in _plain.findall(text)]


def tokens(text: str, year: int | None = None) -> list[Token]:
    """The tokens of a text, in order. `year` is that of dates which say none; if it is not known
    either, these read `--MM-DD`."""
    parts = sorted(
        (*_dates(text, year), *_times(text), *_quotes(text), *_names(text), *_words(text)),
        key=lambda part: (part.start, part.looks),
    )
    starts: list[int] = []
    around: list[str] = []
    for found in _plain.finditer(text):
        starts.append(found.start())
        around.append(found.group().lower())
    result: list[Token] = []
    for start, end, value, looks in parts[:_MOST]:
        here, there = bisect_left(starts, start), bisect_left(starts, end)
        before = tuple(around[max(0, here - _NEAR) : here])
        after = around[there] if there < len(around) else ""
        if looks[0] in {"a", "Aa"}:
            # Any word may be one of these: only what stands beside it tells them apart.
            near = (f"{looks[0]}|{before[-1] if before else ''}", f"{looks[0]}<{after}")
            result.append(Token(value, near, before, after))
        else:
            result.append(Token(value, looks, before, after))
    return result


def _dates(text: str, year: int | None) -> Iterator[_Part]:
    for found in _date.finditer(text):
        if found["iso"]:
            date = found["iso"]
        else:
            month = _MONTHS[(found["month1"] or found["month2"]).lower()]
            said = found["year1"] or found["year2"] or year or "-"
            date = f"{said}-{month:02}-{int(found['day1'] or found['day2']):02}"
        yield _Part(found.start(), found.end(), date, ("date",))
        time = _time_of(found)
        if time is not None:
            yield _Part(found.start(), found.end(), f"{date} {time}", ("moment",))


def _times(text: str) -> Iterator[_Part]:
    for found in _clock.finditer(text):
        time = _time_of(found)
        if time is not None:
            yield _Part(found.start(), found.end(), time, ("time",))
            yield _Part(found.start(), found.end(), time[:5], ("clock",))


def _time_of(found: re.Match[str]) -> str | None:
    """HH:MM:SS, None if it is only a number."""
    if found["hour"] is None or (found["minute"] is None and found["half"] is None):
        return None
    hour, half = int(found["hour"]), (found["half"] or " ").lower()[0]
    if half == "p" and hour < _NOON:
        hour += 12
    elif half == "a" and hour == _NOON:
        hour = 0
    return f"{hour:02}:{int(found['minute'] or 0):02}:{int(found['second'] or 0):02}"


def _quotes(text: str) -> Iterator[_Part]:
    for found in _quoted.finditer(text):
        value = found[found.lastindex or 0]
        yield _Part(found.start(), found.end(), value, ("quoted",))
        bare = value.strip(" .,!?")
        if bare and bare != value:
            yield _Part(found.start(), found.end(), bare, ("quoted bare",))


def _names(text: str) -> Iterator[_Part]:
    for found in _name.finditer(text):
        yield _Part(found.start(), found.end(), found.group(), ("name",))


def _words(text: str) -> Iterator[_Part]:
    for found in _word.finditer(text):
        word = found.group()
        start, end = found.span()
        yield _Part(start, end, word, _looks(word))
        bare = word.lstrip(_SIGNS)
        if bare != word and bare:
            yield _Part(start, end, bare, (f"bare {shape_of_word(bare)}",))
        number = _number(bare)
        if number is not None:
            yield _Part(start, end, number, ("number",))


def _looks(word: str) -> tuple[str, ...]:
    shape = shape_of_word(word)
    kind = _kind(word)
    return (shape, kind) if kind else (shape,)


def _kind(word: str) -> str:
    """What sort of word it is at all; empty for one that is plain."""
    if word[0] in _SIGNS:
        return "~" + word[0]
    has_digit = any(letter.isdigit() for letter in word)
    if has_digit:
        return "~id" if any(letter.isalpha() for letter in word) else "~digits"
    if "." in word or "/" in word:
        return "~dotted"
    return "~upper" if word.isupper() and len(word) > 1 else ""


def _number(word: str) -> int | float | None:
    plain = word.replace(",", "")
    try:
        return float(plain) if "." in plain else int(plain)
    except ValueError:
        return None
