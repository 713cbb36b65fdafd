"""One rule of the policy, and whether it allows a command. Pure."""

from typing import Annotated, Literal, final

import msgspec
from msgspec import Meta

from paceline.call import ScopeLevel
from paceline.hostexec.policy.words import MAX_TOKENS, Kind
from paceline.hostexec.sandbox.command import View

__all__ = ["GrantedCommand", "Operands", "Refusal", "Rule", "match"]

Operands = Literal["dashed", "last", "first"]
"""Where a command has its operands: behind its options and `--`; behind its options, for programs
that do not know `--`; before its options."""


Text = Annotated[str, Meta(min_length=1, max_length=4096)]
ExitCode = Annotated[int, Meta(ge=0, le=255)]


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What one kind of command may look like, and what it is granted: a table of the policy."""

    id: str
    argv: Annotated[tuple[Text, ...], Meta(min_length=1)]
    """The words that its commands begin with, the program's name first."""
    about: str = ""
    """What comes of it, in a few words. Models choose by it, and are not told of rules without."""
    exe: tuple[Text, ...] = ()
    """Absolute paths of the program; the first that is there is run. Empty: the name of the
    program in the system's directories."""
    i_understand: str = ""
    """Why it is safe here to allow a program that runs others."""
    flags: tuple[Text, ...] = ()
    """Words allowed exactly so: no abbreviations, no clusters of others."""
    options: dict[Text, Kind] = {}
    """Words that take a value: `-n` the next word, `--count=` the rest of the same word."""
    heads: tuple[Kind, ...] = ()
    """Operands before a given `--`, where the program tells them from those behind it."""
    args: tuple[Kind, ...] = ()
    """Operands in their order; the last kind is that of all further ones."""
    min_args: Annotated[int, Meta(ge=0)] = 0
    max_args: Annotated[int, Meta(ge=0, le=MAX_TOKENS)] = 20
    operands: Operands = "dashed"
    insert: tuple[Text, ...] = ()
    """Our own words, right behind the program."""
    append: tuple[Text, ...] = ()
    """Our own words, behind the options."""
    env: dict[str, str] = {}
    workspace: bool = False
    """It sees the workspace."""
    effect: Literal["read", "write"] = "read"
    reads: Literal["named", "all"] = "named"
    """What of the workspace its output depends on: the files it names, or any."""
    view: View = "none"
    network: bool = False
    ttl_s: Annotated[float, Meta(ge=0)] = 0.0
    """How long a result may be used again, in seconds; 0 never."""
    scope: ScopeLevel | None = None
    """Who may see each other's results."""
    slow: bool = False
    success: Annotated[tuple[ExitCode, ...], Meta(min_length=1)] = (0,)
    """Exit codes that are no failure."""
    allow: tuple[Text, ...] = ()
    """Commands that this rule must allow; tried when the policy is loaded."""
    deny: tuple[Text, ...] = ()
    """Commands that no rule may allow."""
    program: str = ""
    """What is run, of `exe`; empty where none is there. Found when the policy is loaded."""
    line: int = 0
    """Where it begins in the policy. Found when the policy is loaded."""

    @property
    def words(self) -> str:
        """How its commands begin."""
        return " ".join(self.argv)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """Of everything it takes from a command."""
        return (*self.options.values(), *self.heads, *self.args)


class GrantedCommand(msgspec.Struct, frozen=True, kw_only=True):
    """An allowed command."""

    argv: tuple[str, ...]
    """What is run: the program's absolute path first, and the rule's own arguments."""
    given: tuple[str, ...]
    """What was asked for."""
    rule: Rule
    reads: tuple[str, ...] = ()
    """Paths it was told to read, relative to the workspace."""
    writes: tuple[str, ...] = ()
    """Paths it was told to change, relative to the workspace."""


class Refusal(msgspec.Struct, frozen=True):
    """Why a rule does not allow a command."""

    at: int
    """The word of the command at fault, from 0."""
    reason: str
    detail: str
    message: str
    advice: str


def match(rule: Rule, argv: tuple[str, ...]) -> GrantedCommand | Refusal:
    """The command as this rule runs it, or why it does not.

    `argv` begins with the rule's own words. Every word after them must be a listed flag, a listed
    option with a value of its kind, or an operand of its kind: nothing is skipped over.
    """
    found = _Found()
    at = len(rule.argv)
    while at < len(argv):
        step = _take(rule, argv, at, found)
        if isinstance(step, Refusal):
            return step
        at += step
    if len(found.args) < rule.min_args:
        kind = rule.args[min(len(found.args), len(rule.args) - 1)]
        message = f"`{rule.words}` needs {rule.min_args} operand(s), and has {len(found.args)}"
        return Refusal(at, "argument_missing", rule.words, message, f"Add {kind.says}.")
    return found.granted(rule, argv)


@final
class _Found:
    """The words of a command by their part in it."""

    __slots__ = ("args", "dashes", "heads", "options", "reads", "writes")

    def __init__(self) -> None:
        self.options: list[str] = []
        self.heads: list[str] = []
        self.args: list[str] = []
        self.dashes = False
        self.reads: list[str] = []
        self.writes: list[str] = []

    def note(self, kind: Kind, value: str) -> None:
        if kind.touches == "read":
            self.reads.append(value)
        elif kind.touches == "write":
            self.writes.append(value)

    def granted(self, rule: Rule, argv: tuple[str, ...]) -> GrantedCommand:
        options = (*self.options, *rule.append)
        dashed = rule.operands == "dashed" and (self.dashes if rule.heads else self.args)
        operands = (*self.heads, *(("--",) if dashed else ()), *self.args)
        last = (*operands, *options) if rule.operands == "first" else (*options, *operands)
        return GrantedCommand(
            argv=(rule.program, *rule.insert, *rule.argv[1:], *last),
            given=argv,
            rule=rule,
            reads=tuple(self.reads),
            writes=tuple(self.writes),
        )


def _take(rule: Rule, argv: tuple[str, ...], at: int, found: _Found) -> int | Refusal:
    """How many words from here on are accounted for."""
    word = argv[at]
    name, equals, attached = word.partition("=")
    if found.dashes:
        return _operand(rule, word, at, found)
    if word in rule.flags:
        found.options.append(word)
        return 1
    if not word.endswith("=") and (kind := rule.options.get(word)):
        value = argv[at + 1] if at + 1 < len(argv) else ""
        return _option(kind, (word, value), value, at, found)
    if equals and (kind := rule.options.get(f"{name}=")):
        return _option(kind, (word,), attached, at, found)
    if word == "--" and rule.args:
        found.dashes = True
        return 1
    return _operand(rule, word, at, found)


def _option(
    kind: Kind, words: tuple[str, ...], value: str, at: int, found: _Found
) -> int | Refusal:
    if not kind.accepts(value):
        message = f"the value {value!r} is not allowed in `{' '.join(words)}`"
        return Refusal(at, "bad_option_value", words[0], message, f"It has to be {kind.says}.")
    found.note(kind, value)
    found.options += words
    return len(words)


def _operand(rule: Rule, word: str, at: int, found: _Found) -> int | Refusal:
    if word.startswith("-") and not found.dashes:
        message = f"`{rule.words}` is allowed, but not with {word}"
        return Refusal(at, "flag_not_allowed", word, message, _flags(rule))
    in_head = bool(rule.heads) and not found.dashes
    kinds, taken = (rule.heads, found.heads) if in_head else (rule.args, found.args)
    if not kinds:
        message = f"`{rule.words}` takes no operands, such as {word!r}"
        return Refusal(at, "argument_not_allowed", word, message, _flags(rule))
    if len(found.heads) + len(found.args) >= rule.max_args:
        message = f"{word!r} is one operand too many for `{rule.words}`"
        advice = f"It takes at most {rule.max_args}."
        return Refusal(at, "argument_not_allowed", word, message, advice)
    kind = kinds[min(len(taken), len(kinds) - 1)]
    if not kind.accepts(word):
        message = f"`{rule.words}` is allowed, but not with the operand {word!r}"
        advice = f"It has to be {kind.says}, and not begin with a dash."
        return Refusal(at, "argument_not_allowed", word, message, advice)
    found.note(kind, word)
    taken.append(word)
    return 1


def _flags(rule: Rule) -> str:
    options = [f"{key}{'' if key.endswith('=') else ' '}..." for key in rule.options]
    known = [*rule.flags, *options]
    if not known:
        return f"Run `{rule.words}` without options."
    return f"With `{rule.words}` there are, exactly so: {', '.join(known)}."
