"""Words of a command: what may be in one, and the kinds of values that a rule can ask for.

===============  ===============================================================================
kind             values
===============  ===============================================================================
`int:LO..HI`     a whole number in ASCII digits, without a sign
`enum:a,b,c`     one of the words
`list:a,b,c`     several of the words, joined by commas
`re:PATTERN`     text that the whole pattern matches
`text`           any text
`rev`            a git revision, a range of two, or `revision:path`
`path`           a file to read, relative to the workspace and inside it
`target`         the same, of a file that the command changes; nothing of a `.git`
===============  ===============================================================================

No value begins with `-`: what does is an option, and options are listed by name.
"""

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Final, Literal, final

from paceline.errors import CommandDeniedError, InvalidInputError

__all__ = ["MAX_BYTES", "MAX_TOKENS", "Kind", "check_tokens", "parse_kind"]

MAX_TOKENS: Final = 64
MAX_BYTES: Final = 4096
"""Of one token in UTF-8."""

_UNSEEN: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
"""Characters that one reader sees and another does not: controls, formats, lone surrogates, line
and paragraph separators."""
_INT: Final = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_REV: Final = re.compile(r"[A-Za-z0-9_@][A-Za-z0-9_@./~^-]*+(?::[A-Za-z0-9_.][^:]*+)?+")
_COUNTED: Final = re.compile(r"\{([0-9]*)(,[0-9]*)?\}")

Touch = Literal["", "read", "write"]


@final
class Kind:
    """A kind of value. Immutable by intent; not a Struct, so that policies are read into it."""

    __slots__ = ("_test", "name", "says", "touches")

    def __init__(
        self, name: str, says: str, test: Callable[[str], bool], touches: Touch = ""
    ) -> None:
        self.name = name
        """As the policy writes it."""
        self.says = says
        """In words: a value has to be ..."""
        self.touches: Touch = touches
        """What happens to the file that a value names."""
        self._test = test

    def __str__(self) -> str:
        return self.name

    def accepts(self, value: str) -> bool:
        """Whether it is a value of this kind."""
        return value != "" and not value.startswith("-") and self._test(value)


def check_tokens(argv: Sequence[str]) -> tuple[str, ...]:
    """The command, if it can be one at all.

    Raises InvalidInputError where it is not a list of 1 to 64 non-empty texts of at most 4 KiB;
    CommandDeniedError (`bad_character`) for a character that cannot be seen.
    """
    if isinstance(argv, str | bytes) or not isinstance(argv, Sequence):
        raise InvalidInputError(
            "a command is a list of words, not one text",
            next_step='Write it like ["git", "status"].',
        )
    if not argv:
        raise InvalidInputError("the command is empty", next_step="Name a program to run.")
    if len(argv) > MAX_TOKENS:
        raise InvalidInputError(
            f"the command has {len(argv)} words, more than {MAX_TOKENS}",
            next_step="Split it into several commands, or name a directory instead of files.",
        )
    for place, token in enumerate(argv):
        _check(place, token)
    return tuple(argv)


def _check(place: int, token: object) -> None:
    if not isinstance(token, str) or not token:
        raise InvalidInputError(
            f"word {place} of the command is {'empty' if token == '' else 'not text'}",
            next_step="Every word of a command is a text of at least one character.",
        )
    if len(token) > MAX_BYTES or len(token.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise InvalidInputError(
            f"word {place} of the command is longer than {MAX_BYTES} bytes",
            next_step="Shorten it.",
        )
    if token.isprintable():
        return
    for char in token:
        if unicodedata.category(char) in _UNSEEN:
            raise CommandDeniedError(
                f"word {place} of the command has the character U+{ord(char):04X},"
                " which cannot be seen",
                reason="bad_character",
                detail=f"U+{ord(char):04X}",
                next_step="Leave the character out.",
            )


def parse_kind(text: str) -> Kind:
    """The kind that a policy writes so. Raises ValueError saying what is wrong with it."""
    name, _, detail = text.partition(":")
    if name in _PLAIN:
        if text != name:
            raise ValueError(f"{name!r} takes nothing after it, but {text!r} has something")
        return _PLAIN[name]
    if name not in _DETAILED:
        known = ", ".join([*_PLAIN, *(f"{key}:..." for key in _DETAILED)])
        raise ValueError(f"there is no kind {text!r}; there are: {known}")
    says, test = _DETAILED[name](detail)
    return Kind(text, says, test)


def _inside(value: str) -> bool:
    return value[0] not in "/~" and ".." not in value.split("/")


def _changeable(value: str) -> bool:
    # Also the repositories inside the workspace: their hooks and settings name programs to run.
    return _inside(value) and ".git" not in value.casefold().split("/")


def _revision(value: str) -> bool:
    # One that happens to name a file names it inside the workspace.
    return _REV.fullmatch(value) is not None and ".." not in re.split("[/:]", value)


_INSIDE: Final = "a path inside the workspace, relative to it and without `..`"
_PLAIN: Final = {
    "text": Kind("text", "text", lambda value: True),  # noqa: ARG005
    "rev": Kind("rev", "a revision (files come after `--`)", _revision),
    "path": Kind("path", _INSIDE, _inside, "read"),
    "target": Kind("target", f"{_INSIDE}, and in no `.git`", _changeable, "write"),
}


def _int(detail: str) -> tuple[str, Callable[[str], bool]]:
    bounds = _INT.fullmatch(detail)
    low, high = (int(bounds[1]), int(bounds[2])) if bounds else (1, 0)
    if low > high:
        raise ValueError(f"int:{detail} is not of the form int:LOW..HIGH")

    def test(value: str) -> bool:
        digits = value.isascii() and value.isdecimal() and len(value) <= 9  # noqa: PLR2004
        return digits and low <= int(value) <= high

    return f"a whole number from {low} to {high}", test


def _enum(detail: str) -> tuple[str, Callable[[str], bool]]:
    words = _words("enum", detail)
    return f"one of {', '.join(sorted(words))}", words.__contains__


def _list(detail: str) -> tuple[str, Callable[[str], bool]]:
    words = _words("list", detail)
    says = f"some of {', '.join(sorted(words))}, joined by commas"
    return says, lambda value: words.issuperset(value.split(","))


def _words(name: str, detail: str) -> frozenset[str]:
    words = detail.split(",")
    if not all(words) or len(set(words)) < len(words) or any(w.startswith("-") for w in words):
        raise ValueError(f"{name}:{detail} is not a list of different words, none of them -...")
    return frozenset(words)


def _re(detail: str) -> tuple[str, Callable[[str], bool]]:
    if problem := _backtracking(detail):
        raise ValueError(
            f"re:{detail} could take for ever: {problem}. Repeat with *+ ++ ?+ or {{m,n}}+"
        )
    try:
        pattern = re.compile(detail)
    except re.error as exc:
        raise ValueError(f"re:{detail} is not a pattern: {exc}") from exc
    return f"text of the form {detail}", lambda value: pattern.fullmatch(value) is not None


def _backtracking(pattern: str) -> str:
    """What lets this pattern take more than linear time; empty if nothing does.

    A repetition that never gives back what it took cannot multiply the ways to fail.
    """
    at = 0
    while at < len(pattern):
        char, rest = pattern[at], pattern[at:]
        counted = _COUNTED.match(rest)
        if char == "\\":
            if rest[1:2].isdigit():
                return f"{rest[:2]} refers back"
            at += 2
        elif char == "[":
            at += _class_length(rest)
        elif rest.startswith("(?"):
            if not rest.startswith("(?:"):
                return f"{rest[:3]} is not a plain group"
            at += 3
        elif char in "*+?" or (counted and counted[2]):
            length = counted.end() if counted else 1
            if rest[length : length + 1] != "+":
                return f"{rest[:length]} gives back what it took"
            at += length + 1
        else:
            at += 1
    return ""


def _class_length(rest: str) -> int:
    """Of the set of characters that the text begins with."""
    at = 2 if rest[1:2] == "^" else 1
    at += rest[at : at + 1] == "]"
    while at < len(rest) and rest[at] != "]":
        at += 2 if rest[at] == "\\" else 1
    return at + 1


_DETAILED: Final[dict[str, Callable[[str], tuple[str, Callable[[str], bool]]]]] = {
    "int": _int,
    "enum": _enum,
    "list": _list,
    "re": _re,
}
