"""What a value looks like: an id like others of its argument, a date, a number of so many digits."""

from typing import Final

__all__ = ["shape_of", "shape_of_word"]

_SIGNS: Final = frozenset("-_.:/@#$€£+,")
_FEW_DIGITS: Final = 3
_LONGEST_CODE: Final = 12
_LONGEST: Final = 32


def shape_of_word(word: str) -> str:
    """The classes of its characters, runs as one, and usual signs as they are; how long it is where
    digits mix with capitals."""
    if word.isdigit():
        return f"9{len(word)}" if len(word) < _FEW_DIGITS else "9"
    runs: list[str] = []
    for letter in word:
        if letter.isdigit():
            run = "9"
        elif letter.isalpha():
            run = "A" if letter.isupper() else "a"
        else:
            run = letter if letter in _SIGNS else "?"
        if not runs or runs[-1] != run:
            runs.append(run)
    if len(word) <= _LONGEST_CODE and "9" in runs and all(run in "9A" for run in runs):
        return f"X{len(word)}"
    return "".join(runs[:_LONGEST_CODE])


def shape_of(key: str) -> str:
    """The shape of a value, given by its canonical text: of a text that of a word, or that it is
    several or long; of a number how long it is; else what type it is of."""
    sort = key[:1]
    if sort == '"':
        if len(key) > _LONGEST:
            return "long"
        return "words" if " " in key else shape_of_word(key[1:])
    if sort in "[{":
        return sort
    return f"n{len(key)}" if sort.isdigit() or sort == "-" else key
