"""Policies to try: the default one as if everything were installed, and rules that invite abuse."""

import ast
import shlex
from pathlib import Path
from typing import Any

from paceline.errors import CommandDeniedError, InvalidInputError
from paceline.hostexec.policy.decision import Policy
from paceline.hostexec.policy.loader import Look
from paceline.hostexec.policy.programs import Program
from paceline.hostexec.policy.rule import GrantedCommand

ATTACKS = Path(__file__).parent.parent / "data" / "hostexec" / "attacks.txt"


def installed(path: str) -> Program:
    """Every program is there, and safe."""
    return Program(path)


def default(*, writes: bool = True) -> Policy:
    """The default policy on a host that has everything."""
    return Policy.default(writes=writes, look=installed)


def load(
    text: str, *, writes: bool = True, look: Look = installed, name: str = "test.toml"
) -> Policy:
    """A policy of these rules."""
    return Policy.load(f"version = 1\n{text}", name=name, writes=writes, look=look)


def reason(policy: Policy, argv: Any) -> str:
    """Why a command is refused; empty if it is not."""
    try:
        found = policy.decide_line(argv) if isinstance(argv, str) else policy.decide(argv)
    except CommandDeniedError as exc:
        return exc.reason
    except InvalidInputError:
        return "invalid"
    assert isinstance(found, GrantedCommand)
    return ""


def attacks() -> list[tuple[list[str], str]]:
    """The corpus, as words and as a line of text."""
    lines = ATTACKS.read_text("utf-8").splitlines()
    return [_words(line) for line in lines if line]


def _words(line: str) -> tuple[list[str], str]:
    if not line.startswith("["):
        return line.split(" "), line
    argv: list[str] = _value(line)
    return argv, shlex.join(argv)


def _value(line: str) -> Any:
    def of(node: ast.AST) -> Any:
        match node:
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return of(left) + of(right)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                return of(left) * of(right)
            case ast.List(elts=elements):
                return [of(element) for element in elements]
            case ast.Constant(value=value):
                return value
            case _:
                raise AssertionError(f"not understood: {line}")

    return of(ast.parse(line, mode="eval").body)


def unaccounted(found: GrantedCommand) -> list[str]:
    """Words of what would be run that are neither the rule's own nor of a kind it asks for."""
    rule = found.rule
    literal = {
        *(rule.program, "--", *rule.argv, *rule.flags, *rule.insert, *rule.append),
        *(option for option in rule.options if option[-1] != "="),
    }
    operands = (*rule.heads, *rule.args, *(k for o, k in rule.options.items() if o[-1] != "="))
    attached = {o: k for o, k in rule.options.items() if o[-1] == "="}

    def known(word: str) -> bool:
        name, _, value = word.partition("=")
        kind = attached.get(f"{name}=")
        if kind is not None and kind.accepts(value) and value[0] != "-":
            return True
        return word[0] != "-" and any(kind.accepts(word) for kind in operands)

    return [word for word in found.argv if word not in literal and not known(word)]


INVITING = """
[[command]]
id = "git-diff"
argv = ["git", "diff"]
flags = ["--stat", "-l", "-a"]
options = { "-U" = "int:0..50", "--unified=" = "int:0..50" }
args = ["path"]
workspace = true

[[command]]
id = "git-status"
argv = ["git", "status"]

[[command]]
id = "git-log"
argv = ["git", "log"]
options = { "-n" = "int:1..1000" }

[[command]]
id = "git-grep"
argv = ["git", "grep"]
flags = ["-n"]
args = ["text", "path"]
workspace = true

[[command]]
id = "tar"
argv = ["tar", "cf"]
i_understand = "a test"
flags = ["-v"]
args = ["target", "path"]
workspace = true
effect = "write"

[[command]]
id = "sort"
argv = ["sort"]
flags = ["-n", "-r"]
args = ["path"]
workspace = true

[[command]]
id = "uniq"
argv = ["uniq"]
flags = ["-c"]
args = ["path"]
max_args = 1
workspace = true
"""
"""Rules for programs that are easily abused, with what somebody would list in good faith."""
