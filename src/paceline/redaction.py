"""Keeping secrets out of everything that is logged, stored or shown.

Two nets. `Secret` wraps a value so that no rendering shows it. `Redactor` masks, in any text,
the exact secrets it was told of and everything that has the form of a credential, or is called a
password, PIN, secret, token or API key in a sentence and looks like no ordinary word.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, cast, final

__all__ = ["MASK", "Redactor", "Secret", "environment_secrets"]

MASK: Final = "[redacted]"
_SHORTEST: Final = 4
_SHORTEST_IN_ENVIRONMENT: Final = 8
_MOST_KEYS: Final = 1_000
_PLAIN: Final = frozenset({type(None), bool, int, float})
"""Types of values that hold no text."""

_NAMES: Final = (
    # The look behind keeps this linear: a name is only looked for where its word begins.
    r"(?:(?<![A-Za-z0-9_.-])[A-Za-z0-9_.-]*(?:passw(?:or)?d|passwd|passphrase|passcode|secret|token|api[_-]?key|apikey|access[_-]?key"
    r"|private[_-]?key|credential|authorization|cookie|session[_-]?key))"
)
_VALUE: Final = r"(?:\"[^\"]++\"|'[^']++'|[\"']?+[^\s\"',;&}\])]++)"

# What people write: "my password for the shop is hunter2". Behind such words an ordinary word says
# something of the secret ("is wrong"), so what is masked has to look like none. Every repetition has
# a bound, so that looking takes linear time.
_GAP: Final = r"\s{1,8}"
_IS: Final = (
    rf"(?:{_GAP}(?:for|of|to|on|at|from|in)(?:{_GAP}[^\s:=]{{1,40}}){{1,4}}?)?"
    rf"(?:(?:['\u2019]s|{_GAP}(?:is|are|was|were))(?:{_GAP}(?:now|still|just|currently|set{_GAP}to)){{0,2}}"
    rf"(?:\s{{0,8}}[:=])?{_GAP}|\s{{0,8}}[:=]\s{{0,8}})"
)
_OPEN: Final = r"[\"'`\u201c\u2018]?"
_COUNTED: Final = (
    rf"(?!\w|{_GAP}(?:(?:char|letter|digit|word|token|bit|byte|day|hour|minute|second|year|time|user|request"
    r"|volt|pixel)(?:acter)?s?|[kmgt]i?b|[mk]?[vmsg]|mm|cm|px|per)\b)"
)
_NO_NAME: Final = (  # of a method; nor "12-character", "2nd"
    r"(?!(?i:base|sha|md|utf|aes|rsa|hs|rs|oauth|argon|bcrypt|pbkdf|rot|x\.?509)[-_]?\d"
    r"|\d{1,6}(?:-[A-Za-z]|st\b|nd\b|rd\b|th\b|[A-Za-z%]{1,2}\b))"
)
_MIXED: Final = r"(?=\S{0,60}\d)(?=\S{0,60}[^\W\d])[^\s\"'`,;\u201d\u2019]{1,200}"
_SIGNED: Final = r"(?=\S{0,60}\w[!@#$%^&+~|]\w)[^\s\"'`,;\u201d\u2019]{4,200}"
_QUOTED: Final = (
    r"(?:\"[^\"\n]{1,200}\"|'[^'\n]{1,200}'|`[^`\n]{1,200}`|\u201c[^\u201d\n]{1,200}\u201d)"
)
_WORD: Final = (
    rf"(?:{_QUOTED}|{_OPEN}(?:{_NO_NAME}(?=\S{{4}})(?:{_MIXED}|{_SIGNED})"
    rf"|\d{{4}}[\d-]{{0,60}}{_COUNTED}))"
)
_KEY: Final = rf"{_OPEN}{_NO_NAME}(?=\S{{6}})(?:{_MIXED}|\d{{6,60}}{_COUNTED})"
_PIN: Final = rf"{_OPEN}\d{{4,12}}{_COUNTED}"


# Each pattern keeps its named group and masks the rest of the match.
_FORMS: Final = re.compile(
    "|".join(
        (
            # a named credential: password=x, "api_key": "x", token x1, X-Exec-Token: x
            (
                rf"(?P<named>(?i:{_NAMES})[\"']?(?:\s*[:=]\s*|\s++(?=\S*\d))(?i:bearer\s+|basic\s+)?)"
                rf"{_VALUE}"
            ),
            # behind an option any word is its value: --password x
            rf"(?P<option>(?<!\S)(?=-)(?i:{_NAMES})\s++(?!-)){_VALUE}",
            # short names, where nothing but a value can be meant; PWD=/home is a directory
            rf"(?P<short>(?<![A-Za-z0-9_.-])(?i:pass|pwd)\s*+=\s*+(?!/)){_VALUE}",
            r"(?P<user>(?<!\S)(?:-u|--user)(?:\s++|=)[^\s:/]++:)\S++",
            r"(?P<bearer>(?i:bearer|basic)\s++)[A-Za-z0-9._~+/=-]{8,}+",
            # userinfo of an address: scheme://user:password@host
            r"(?P<url>[a-z][a-z0-9+.-]{0,30}://[^\s/:@]*+:)[^\s/@]++(?=@)",
            r"(?P<pem>-----BEGIN [A-Z ]*PRIVATE KEY-----)[\s\S]*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
            # keys that announce their maker
            (
                r"(?P<maker>\b(?:sk-(?:ant-|proj-)?|gh[pousr]_|github_pat_|xox[abeprs]-|glpat-|hf_|AIza|npm_))"
                r"[A-Za-z0-9_-]{10,}+"
            ),
            r"(?P<aws>\b(?:AKIA|ASIA))[A-Z0-9]{16}\b",
            # Looked for only where its word begins, as the names are.
            (
                r"(?P<jwt>(?<![A-Za-z0-9_-])eyJ)"
                r"[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]{8,}+\.[A-Za-z0-9_-]*+"
            ),
        )
    )
)


def _told(group: str, name: str, value: str) -> str:
    """Where a secret of this name is told, and others after it: "are x1 and y2"."""
    gap = rf"(?:\s{{0,8}},{_GAP}(?:(?:and|or){_GAP})?|{_GAP}(?:and|or){_GAP})"
    return rf"(?P<{group}>{name}(?i:{_IS})){value}(?:{gap}{value}){{0,8}}"


_BEGINS: Final = r"(?<![A-Za-z0-9_-].)"  # behind its first letter: so where to look is soon found


def _changed(group: str, name: str, value: str) -> str:
    """Where somebody has a secret of this name changed: "set my password for the shop to x"."""
    return (
        rf"(?P<{group}>[CRSUcrsu]{_BEGINS}(?i:hange|eset|et|pdate)(?:{_GAP}[^\s:=]{{1,40}}){{0,3}}?{_GAP}"
        rf"(?i:{name}(?:{_GAP}(?:for|of|on|at|in)(?:{_GAP}[^\s:=]{{1,40}}){{1,4}}?)?"
        rf"{_GAP}to(?:{_GAP}be)?:?{_GAP})){value}"
    )


_PROSE: Final = re.compile(
    "|".join(
        (
            _changed("word_to", r"pass[ -]?(?:word|phrase|code)s?", _WORD),
            _changed("pin_to", r"pin(?:[ -](?:code|number))?", _PIN),
            # several words, up to the end of what is said
            rf"(?P<phrase>[Pp]{_BEGINS}(?i:ass[ -]?phrase)\s{{0,8}}:\s{{0,8}})[^\n\"',;]{{1,200}}",
            _told("word", rf"[Pp]{_BEGINS}(?i:ass[ -]?(?:word|phrase|code)s?)", _WORD),
            _told(
                "pin", rf"[Pp]{_BEGINS}(?i:ins?(?=[ :='\u2019-])(?:[ -](?:code|number)s?)?)", _PIN
            ),
            _told("token", rf"[Tt]{_BEGINS}(?i:oken)", _KEY),
            _told("secret", rf"[Ss]{_BEGINS}(?i:ecret(?:{_GAP}key)?)", _KEY),
            _told("key", rf"[AaPp]{_BEGINS}(?i:(?:pi|ccess|rivate)[ _-]?keys?)", _KEY),
        )
    )
)
_PLAIN_WORD: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}+[:=]?+")
_SECRET_NAME: Final = re.compile(rf"(?i)^{_NAMES}$")
_MARKS: Final = (
    "key", "token", "secret", "pass", "pwd", "credential", "authorization", "cookie", "-u", "bearer",
    "basic", "://", "-----begin", "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "xox",
    "glpat-", "hf_", "aiza", "npm_", "akia", "asia", "eyj", "pin ", "pin:", "pin=", "pin-", "pin'", "pins",
)  # fmt: skip
"""Each form has one of them, in whatever case: to look for words takes a hundredth of the time."""


def _mask(match: re.Match[str]) -> str:
    return match[match.lastgroup or 0] + MASK


def _masked(text: str) -> str:
    return _PROSE.sub(_mask, _FORMS.sub(_mask, text))


def _may_hold(text: str) -> bool:
    """Whether it is worth looking for forms. Only of ASCII is it known what else matches a letter."""
    if not text.isascii():
        return True
    lowered = text.lower()
    for mark in _MARKS:  # noqa: SIM110 (it takes half the time of `any`)
        if mark in lowered:
            return True
    return False


@final
class Secret:
    """A value that only `reveal()` shows; `str`, `repr` and formatting show a mask."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself; the only way to it."""
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __str__(self) -> str:
        return MASK

    __repr__ = __str__

    def __format__(self, spec: str) -> str:
        return MASK

    def __reduce__(self) -> str:
        raise TypeError("a Secret is not copied out of the process")


@final
class Redactor:
    """Masks secrets in text and in plain data.

    `known` are exact secrets, masked wherever they stand; those under four characters would
    mask ordinary words and are left to the forms.
    """

    __slots__ = ("_clean", "_known")

    def __init__(self, known: Iterable[Secret] = ()) -> None:
        values = sorted(
            {s.reveal() for s in known if len(s.reveal()) >= _SHORTEST}, key=len, reverse=True
        )
        self._known = re.compile("|".join(map(re.escape, values))) if values else None
        self._clean: set[str] = set()
        """Keys that are, and give nothing away: there are few of them, again and again."""

    def text(self, text: str) -> str:
        """The text with every secret in it masked."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        return _masked(text) if _may_hold(text) else text

    def words(self, argv: Sequence[str]) -> list[str]:
        """The words of a command, as many as there are, with every secret in them masked.

        Each is judged alone, or whole by the one word before it, so that none can hide those
        that follow.
        """
        shown: list[str] = []
        before = ""
        for word in argv:
            if word in ("=", ":") and _PLAIN_WORD.fullmatch(before + word):
                shown.append(word)  # name = value
                before += word
                continue
            shown.append(self._word(before, word))
            before = word
        return shown

    def _word(self, before: str, word: str) -> str:
        if _PLAIN_WORD.fullmatch(before):
            pair, kept = self.text(f"{before} {word}"), f"{before} "
            if pair != kept + word and pair.startswith(kept):
                shown = pair.removeprefix(kept)
                return MASK if shown.startswith(MASK) else shown
        return self.text(word)

    def data(self, value: object) -> object:
        """Plain data with every secret in it masked, also where only the key gives it away.

        Sequences and sets come back as lists, bytes that hold a secret as masked text.
        """
        if isinstance(value, (str, Secret)):
            return MASK if isinstance(value, Secret) else self.text(value)
        if type(value) in _PLAIN:
            return value
        if isinstance(value, Mapping):
            return self._mapping(cast("Mapping[object, object]", value))
        if isinstance(value, (list, tuple, set, frozenset)):
            return [self.data(item) for item in cast("Iterable[object]", value)]
        if isinstance(value, bytes):
            plain = value.decode("utf-8", "backslashreplace")
            masked = self.text(plain)
            return value if masked == plain else masked
        return value

    def _mapping(self, value: Mapping[object, object]) -> dict[object, object]:
        masked: dict[object, object] = {}
        for key, item in value.items():
            if type(key) is str and key in self._clean:
                masked[key] = self.data(item)
                continue
            secret = isinstance(key, str) and _SECRET_NAME.match(key)
            shown = self._key(key)
            masked[shown] = MASK if secret else self.data(item)
            if type(key) is str and not secret and shown == key and len(self._clean) < _MOST_KEYS:
                self._clean.add(key)
        return masked

    def _key(self, key: object) -> object:
        """A key of several parts stays as it is if all are clean, else it becomes text."""
        masked = self.data(key)
        if not isinstance(key, (tuple, frozenset)):
            return masked
        parts = cast("tuple[object, ...] | frozenset[object]", key)
        return parts if masked == list(parts) else str(masked)


def environment_secrets(environ: Mapping[str, str]) -> list[Secret]:
    """Values of environment variables whose names say that they are secrets.

    Short values are left out: masking them everywhere would mask ordinary words.
    """
    return [
        Secret(value)
        for name, value in environ.items()
        if _SECRET_NAME.match(name) and len(value) >= _SHORTEST_IN_ENVIRONMENT
    ]
