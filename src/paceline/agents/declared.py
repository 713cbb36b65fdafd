"""What an agent declares about itself: attributes with typed values, and errors that say which."""

import re
import reprlib
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast, final

import msgspec

from paceline.agents.spec import ResultHints, TtlRule
from paceline.call import Effect, EffectKind, ScopeLevel
from paceline.errors import AgentLoadError

__all__ = ["ATTRIBUTES", "Declared"]

E = TypeVar("E", EffectKind, ResultHints, ScopeLevel)

ATTRIBUTES: Final = (
    "CACHEABLE",
    "CACHE_TTL",
    "CAPABILITIES",
    "COST_USD",
    "DESCRIPTION",
    "EFFECT",
    "EXAMPLES",
    "MAX_CONCURRENCY",
    "OUTSIDE",
    "RESULT_HINTS",
    "SCOPE",
    "STALE_IF_ERROR",
    "STALE_WHILE_REVALIDATE",
    "TIMEOUT",
    "TTL_RULES",
    "VERSION",
)
"""What an agent may declare, all of it optional."""

_LONGEST_S: Final = 1e10


@final
class Declared:
    """The declarations of one agent, checked as they are read.

    Every method raises AgentLoadError naming the attribute, what it is and what it should be.
    A value of None counts as not declared.
    """

    __slots__ = ("_read", "_spell", "_where")

    def __init__(
        self,
        where: str,
        read: Callable[[str], object],
        spell: Callable[[str], str] = str,
    ) -> None:
        """`read` gives the value of an attribute or None, `spell` how its author wrote its name."""
        self._where = where
        self._read = read
        self._spell = spell

    def get(self, attribute: str) -> Any:
        """The value, unchecked; None when there is none."""
        try:
            return self._read(attribute)
        except Exception as exc:  # an attribute can be code of the agent
            raise AgentLoadError(
                f"{self._where}: reading {attribute} failed: {type(exc).__name__}"
            ) from exc

    def wrong(self, attribute: str, value: object, wanted: str, example: str) -> AgentLoadError:
        """The error for a value that cannot be used."""
        name = self._spell(attribute)
        return AgentLoadError(
            f"{self._where}: {name} is {reprlib.repr(value)} ({type(value).__name__}); "
            f"it should be {wanted}",
            next_step=f"Write for example {name} = {example}, or leave it out.",
        )

    def text(self, attribute: str) -> str | None:
        """A text."""
        value = self.get(attribute)
        if value is not None and not isinstance(value, str):
            raise self.wrong(attribute, value, "a text", '"1.0"')
        return value

    def flag(self, attribute: str) -> bool | None:
        """True or False."""
        value = self.get(attribute)
        if value is not None and not isinstance(value, bool):
            raise self.wrong(attribute, value, "True or False", "True")
        return value

    def seconds(self, attribute: str, *, zero: bool) -> float | None:
        """A finite number of seconds, more than 0, or also 0."""
        value = self.get(attribute)
        if value is None or _is_seconds(value, zero=zero):
            return None if value is None else float(value)
        least = "0 or more" if zero else "more than 0"
        raise self.wrong(attribute, value, f"a number of seconds, {least}", "60")

    def price(self, attribute: str) -> float:
        """A finite amount, 0 or more; 0 if there is none."""
        value = self.get(attribute)
        if value is not None and not _is_seconds(value, zero=True):
            raise self.wrong(attribute, value, "an amount of US dollars, 0 or more", "0.002")
        return float(value or 0.0)

    def result_hints(self) -> ResultHints | None:
        """RESULT_HINTS: the word for how results speak of their own caching."""
        value = self.get("RESULT_HINTS")
        return None if value is None else self._word("RESULT_HINTS", value, ResultHints)

    def count(self, attribute: str) -> int | None:
        """A whole number from 1."""
        value = self.get(attribute)
        if value is not None and (type(value) is not int or value < 1):
            raise self.wrong(attribute, value, "a whole number, 1 or more", "4")
        return value

    def words(self, attribute: str) -> tuple[str, ...]:
        """Texts, of a list, tuple or set."""
        value = self.get(attribute)
        try:
            words = msgspec.convert(() if value is None else value, tuple[str, ...])
        except msgspec.ValidationError as exc:
            raise self.wrong(attribute, value, "a list of texts", '["network"]') from exc
        return tuple(sorted(words))

    def examples(self) -> dict[str, str]:
        """EXAMPLES: a mapping of texts to texts."""
        value = self.get("EXAMPLES")
        try:
            return msgspec.convert({} if value is None else value, dict[str, str])
        except msgspec.ValidationError as exc:
            wanted = "a mapping of queries to what they are for"
            raise self.wrong(
                "EXAMPLES", value, wanted, '{"Oslo": "the weather in a city"}'
            ) from exc

    def effect(self) -> Effect | None:
        """EFFECT: an Effect or the word for one."""
        value = self.get("EFFECT")
        if value is None or isinstance(value, Effect):
            return value
        return Effect(self._word("EFFECT", value, EffectKind))

    def scope(self) -> ScopeLevel | None:
        """SCOPE: a level or the word for one."""
        value = self.get("SCOPE")
        return None if value is None else self._word("SCOPE", value, ScopeLevel)

    def _word(self, attribute: str, value: object, words: type[E]) -> E:
        try:
            return words(cast("str", value))
        except ValueError as exc:
            known = ", ".join(repr(word.value) for word in words)
            first = f'"{next(iter(words)).value}"'
            raise self.wrong(attribute, value, f"one of {known}", first) from exc

    def ttl_rules(self) -> tuple[TtlRule, ...]:
        """TTL_RULES: pairs, or a mapping, of a command prefix or compiled pattern and seconds."""
        value = self.get("TTL_RULES")
        if value is None:
            return ()
        wanted = "pairs of a command prefix (or compiled regular expression) and seconds"
        wrong = self.wrong("TTL_RULES", value, wanted, '[("df", 60), ("ls", 0)]')
        try:
            rules: dict[Any, Any] = dict(value)
        except (TypeError, ValueError) as exc:
            raise wrong from exc
        return tuple(_rule(start, ttl_s, wrong) for start, ttl_s in rules.items())


def _rule(start: Any, ttl_s: Any, wrong: AgentLoadError) -> TtlRule:
    if not _is_seconds(ttl_s, zero=True):
        raise wrong
    if isinstance(getattr(start, "pattern", None), str):
        return start, float(ttl_s)
    if not isinstance(start, str) or not start.strip():
        raise wrong
    # "cp" must not match "cpufreq-info"; "/var/log/" is meant to match what is below.
    prefix = start.strip()
    end = r"(?!\S)" if prefix[-1].isalnum() else ""
    return re.compile(re.escape(prefix) + end), float(ttl_s)


def _is_seconds(value: object, *, zero: bool) -> bool:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return (value >= 0 if zero else value > 0) and value <= _LONGEST_S  # not infinite, not NaN
