"""The command policy: the rules of a TOML file, and the decision on one command.

A command is a list of words and is never seen by a shell. Nothing is allowed that a rule does not
list: the program, each option in its exact spelling, and each value by its kind. The first rule
that allows a command decides what it is granted, so special rules stand before general ones.
"""

import difflib
import hashlib
import shlex
from collections.abc import Sequence
from importlib import resources
from typing import Final, Self, final

from paceline.errors import CommandDeniedError, InvalidInputError, PolicyError
from paceline.hostexec.policy.loader import Look, read_rules
from paceline.hostexec.policy.programs import look as look_at_host
from paceline.hostexec.policy.rule import GrantedCommand, Refusal, Rule, match
from paceline.hostexec.policy.words import check_tokens
from paceline.hostexec.text import split

__all__ = ["Policy"]

_DEFAULT: Final = "default.toml"
_SHOWN: Final = 60


@final
class Policy:
    """Decides what may run. Immutable."""

    __slots__ = ("_by_program", "_text", "digest", "name", "rules", "writes")

    def __init__(self, rules: tuple[Rule, ...], text: str, *, name: str, writes: bool) -> None:
        """Use `load`: it checks what is taken for granted here."""
        self.rules = rules
        self.name = name
        self.writes = writes
        """Rules that change the workspace are in force."""
        self.digest = hashlib.sha256(f"writes={writes}\n{text}".encode()).hexdigest()
        """Names the text, and whether writes are on."""
        self._text = text
        self._by_program: dict[str, list[Rule]] = {}
        for rule in rules:
            self._by_program.setdefault(rule.argv[0], []).append(rule)

    @classmethod
    def load(cls, text: str, *, name: str, writes: bool = False, look: Look = look_at_host) -> Self:
        """The policy of a TOML text; `name` is what errors call it, `look` finds its programs.

        Raises PolicyError, naming rule and line, for anything unknown, contradictory or unsafe
        in it, and for an example of its own (`allow`, `deny`) that it decides otherwise.
        """
        policy = cls(read_rules(text, name=name, look=look), text, name=name, writes=writes)
        policy._check_examples()
        return policy

    @classmethod
    def default(cls, *, writes: bool = False, look: Look = look_at_host) -> Self:
        """The policy that comes with Paceline: looking at the system and the workspace, and with
        `writes` the basic changes of files."""
        text = resources.files("paceline.hostexec.policy").joinpath(_DEFAULT).read_text("utf-8")
        return cls.load(text, name=_DEFAULT, writes=writes, look=look)

    def split(self, text: str, /) -> tuple[str, ...]:
        """The words of a command line. See `paceline.hostexec.text.split`."""
        return split(text)

    def decide_line(self, text: str, /) -> GrantedCommand:
        """Decides on a command line."""
        return self.decide(split(text))

    def decide(self, argv: Sequence[str], /) -> GrantedCommand:
        """The command as it is to be run.

        Raises InvalidInputError for what cannot be a command, and CommandDeniedError with one of
        the reasons bad_character, no_rule, flag_not_allowed, bad_option_value,
        argument_not_allowed, argument_missing, writes_off, not_installed.
        """
        found = self.understand(argv)
        rule = found.rule
        if rule.effect == "write" and not self.writes:
            raise CommandDeniedError(
                f"`{rule.words}` changes the workspace, and changes are not allowed",
                reason="writes_off",
                detail=rule.id,
                next_step="Set hostexec.writes = true to allow them.",
            )
        if not rule.program:
            raise CommandDeniedError(
                f"`{rule.words}` is allowed, but {rule.argv[0]} is not installed:"
                f" there is no {' and no '.join(rule.exe)}",
                reason="not_installed",
                detail=rule.argv[0],
                next_step=f"Install {rule.argv[0]} and load the policy again.",
            )
        return found

    def understand(self, argv: Sequence[str], /) -> GrantedCommand:
        """The command as its rule has it, whether or not it can be run here and now: changes may
        be switched off, and the program not installed. Otherwise like `decide`."""
        return self._match(check_tokens(argv))

    def _match(self, argv: tuple[str, ...]) -> GrantedCommand:
        refusals: list[Refusal] = []
        for rule in self._by_program.get(argv[0], ()):
            if argv[: len(rule.argv)] == rule.argv:
                found = match(rule, argv)
                if isinstance(found, GrantedCommand):
                    return found
                refusals.append(found)
        if not refusals:
            raise self._no_rule(argv)
        # The rule that understood most of the command knows best what is wrong with it; of
        # several the last, which is the most general.
        worst = max(reversed(refusals), key=lambda refusal: refusal.at)
        raise CommandDeniedError(
            worst.message, reason=worst.reason, detail=worst.detail, next_step=worst.advice
        )

    def _no_rule(self, argv: tuple[str, ...]) -> CommandDeniedError:
        program = argv[0]
        rules = self._by_program.get(program)
        bare = program.rpartition("/")[2]
        if rules:
            advice = f"There are: {', '.join(sorted({rule.words for rule in rules}))}."
        elif bare != program and bare in self._by_program:
            advice = f"Name the program without a directory: {bare}."
        elif close := difflib.get_close_matches(program[:_SHOWN], self._by_program, 1):
            advice = f"Did you mean {close[0]}?"
        else:
            advice = f"There are rules for: {', '.join(sorted(self._by_program)) or 'nothing'}."
        shown = shlex.join(argv[:2])[:_SHOWN]
        return CommandDeniedError(
            f"no rule allows `{shown}`", reason="no_rule", detail=program, next_step=advice
        )

    def _check_examples(self) -> None:
        for rule in self.rules:
            for line in rule.allow:
                if problem := self._not_allowed(rule, line):
                    raise self._failed(rule, "allow", line, f"has to be allowed, but {problem}")
            for line in rule.deny:
                if (granting := self._granting(line)) is not None:
                    raise self._failed(rule, "deny", line, f"is allowed, by rule {granting.id}")

    def _not_allowed(self, rule: Rule, line: str) -> str:
        try:
            granting = self._match(check_tokens(split(line))).rule
        except (CommandDeniedError, InvalidInputError) as exc:
            return exc.message
        return "" if granting is rule else f"is so by rule {granting.id}, which stands before it"

    def _granting(self, line: str) -> Rule | None:
        try:
            return self._match(check_tokens(split(line))).rule
        except (CommandDeniedError, InvalidInputError):
            return None

    def _failed(self, rule: Rule, key: str, line: str, problem: str) -> PolicyError:
        lines = self._text.splitlines()
        start = rule.line
        while start < len(lines) and not lines[start].lstrip().startswith(key):
            start += 1
        quoted = (f'"{line}"', f"'{line}'")
        places = (n for n in range(start, len(lines)) if any(q in lines[n] for q in quoted))
        return PolicyError(
            f"{self.name}, line {next(places, rule.line - 1) + 1}: rule {rule.id}:"
            f" its example `{line}` {problem}",
            next_step="Correct the rule, or its example.",
        )
