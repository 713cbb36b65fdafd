"""A policy's TOML text, read into rules. Whatever is not plainly right refuses the whole text."""

import re
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from paceline.errors import HostExecError, PolicyError
from paceline.hostexec.policy.programs import Program, runs_others
from paceline.hostexec.policy.rule import Rule, Text
from paceline.hostexec.policy.words import Kind, check_tokens, parse_kind

__all__ = ["Look", "read_rules"]

Look = Callable[[str], Program | None]
"""What program is at an absolute path, if any."""

_HEADER: Final = re.compile(r"^[ \t]*\[\[[ \t]*command[ \t]*\]\]", re.MULTILINE)
_ID: Final = re.compile(r"[a-z0-9]++(?:-[a-z0-9]++)*+")
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]*+")
_SEARCHED: Final = ("/usr/bin", "/bin", "/usr/sbin", "/sbin")
_FOUND_OUT: Final = frozenset({"program", "line"})
"""Fields of a rule that nobody writes."""


class _Shared(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What all rules of one program have in common."""

    exe: tuple[Text, ...] = ()
    insert: tuple[Text, ...] = ()
    env: dict[str, str] = {}


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    version: Literal[1]
    program: dict[str, _Shared] = {}
    command: tuple[dict[str, Any], ...] = ()


def read_rules(text: str, *, name: str, look: Look) -> tuple[Rule, ...]:
    """The rules in the order of the text. Raises PolicyError naming `name`, line and rule."""
    try:
        document = msgspec.convert(tomllib.loads(text), _Document)
    except tomllib.TOMLDecodeError as exc:
        raise PolicyError(f"{name} is not valid TOML: {exc}") from exc
    except msgspec.ValidationError as exc:
        raise PolicyError(f"{name}: {exc}") from exc
    lines = [text.count("\n", 0, header.end()) + 1 for header in _HEADER.finditer(text)]
    if len(lines) != len(document.command):
        raise PolicyError(f"{name}: every rule has to begin with a line [[command]]")
    rules: dict[str, Rule] = {}
    for table, line in zip(document.command, lines, strict=True):
        where = f"{name}, line {line}: rule {table.get('id', 'without id')}"
        rule = _rule(table, document.program, line, where)
        if rule.id in rules:
            raise PolicyError(f"{where}: line {rules[rule.id].line} has a rule of that id already")
        rules[rule.id] = msgspec.structs.replace(rule, program=_find(rule, where, look))
    if unused := document.program.keys() - {rule.argv[0] for rule in rules.values()}:
        raise PolicyError(f"{name}: there is no rule for [program.{min(unused)}]")
    return tuple(rules.values())


def _rule(table: Mapping[str, Any], programs: Mapping[str, _Shared], line: int, where: str) -> Rule:
    try:
        if unknown := _FOUND_OUT & table.keys():
            raise ValueError(f"unknown field `{min(unknown)}`")  # noqa: TRY301 (one way out)
        rule = msgspec.convert(table, Rule, dec_hook=_kind)
        shared = programs.get(rule.argv[0], _Shared())
        rule = msgspec.structs.replace(
            rule,
            exe=rule.exe or shared.exe or tuple(f"{place}/{rule.argv[0]}" for place in _SEARCHED),
            insert=shared.insert + rule.insert,
            env=shared.env | rule.env,
            max_args=rule.max_args if rule.args or rule.heads else 0,
            line=line,
        )
        for word in (*rule.argv, *rule.flags, *rule.options, *rule.insert, *rule.append):
            check_tokens((word,))
    except (ValueError, HostExecError) as exc:  # those of msgspec are ValueErrors too
        raise PolicyError(f"{where}: {exc}") from exc
    for problem in (*_wording(rule), *_contradictions(rule)):
        raise PolicyError(f"{where}: {problem}")
    return rule


def _kind(wanted: type, value: object) -> object:
    if wanted is Kind and isinstance(value, str):
        return parse_kind(value)
    raise ValueError(f"{value!r} is not the name of a kind of value")


def _wording(rule: Rule) -> Iterator[str]:
    """What is wrong with its words."""
    if not _ID.fullmatch(rule.id):
        yield f"its id is not of small letters, digits and dashes: {rule.id!r}"
    if "/" in rule.argv[0]:
        yield f"its argv has to begin with a name without a directory, not {rule.argv[0]!r}"
    for word, times in Counter((*rule.flags, *rule.options)).items():
        if times > 1:
            yield f"its flags and options have {word!r} twice"
        if word == "--":
            yield "-- is neither a flag nor an option: it is put where it belongs"
    for word in rule.options:
        if not word.startswith("-") and not word.endswith("="):
            yield f"its option {word!r} has to begin with - or end with ="
    for key in rule.env:
        if not _VARIABLE.fullmatch(key):
            yield f"its env has no variable of capital letters in {key!r}"


def _contradictions(rule: Rule) -> Iterator[str]:
    """What in it cannot be meant together."""
    touches = {kind.touches for kind in rule.kinds}
    writes = rule.effect == "write"
    if rule.min_args > (rule.max_args if rule.args else 0):
        yield f"it needs {rule.min_args} operands but allows fewer"
    if touches - {""} and not rule.workspace:
        yield "it names files, so it needs workspace = true"
    if "write" in touches and not writes:
        yield 'it has a target, so it needs effect = "write"'
    if writes and rule.ttl_s:
        yield "what it does must not be answered from the cache: ttl_s has to be 0"
    if writes and rule.view == "mounts":
        yield "nothing can be changed through the view of all mounts"


def _find(rule: Rule, where: str, look: Look) -> str:
    """The program of the rule. Raises PolicyError for one that must not be run."""
    for path in rule.exe:
        if not path.startswith("/") or ".." in path.split("/"):
            raise PolicyError(f"{where}: exe {path!r} is not an absolute path")
    there = ((path, program) for path in rule.exe if (program := look(path)) is not None)
    found, program = next(there, ("", Program("")))
    names = {rule.argv[0], Path(program.real).name, *(Path(path).name for path in rule.exe)}
    if not rule.i_understand.strip() and (risky := sorted(filter(runs_others, names))):
        raise PolicyError(
            f"{where}: {risky[0]} runs other programs, whatever its own options are",
            next_step='Take the rule out, or add i_understand = "why it is safe here".',
        )
    if program.problem:
        raise PolicyError(f"{where}: {found} must not be run: {program.problem}")
    return found
