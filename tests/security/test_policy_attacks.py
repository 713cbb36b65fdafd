"""What must never be allowed: the corpus of attacks, and the list of cases A-1 to A-26."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import paceline.hostexec.policy.decision as policy_module
from paceline.errors import CommandDeniedError, InvalidInputError, PacelineError, PolicyError
from paceline.hostexec.policy.decision import Policy
from paceline.hostexec.policy.file import PolicyFile
from paceline.hostexec.policy.programs import Program, look
from paceline.hostexec.policy.rule import GrantedCommand, Refusal, Rule, match
from paceline.hostexec.policy.words import MAX_TOKENS, Kind
from tests.security.policies import (
    INVITING,
    attacks,
    default,
    installed,
    load,
    reason,
    unaccounted,
)

DEFAULT = default()
ABUSED = load(INVITING)


def allowed_attacks(policy: Policy) -> list[list[str]]:
    """The lines of the corpus that a policy lets through."""
    return [argv for argv, _ in attacks() if not reason(policy, argv)]


# -- the corpus ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("argv", "line"), attacks(), ids=lambda part: ascii(part)[:40])
def test_every_attack_of_the_corpus_is_refused(argv: list[str], line: str) -> None:
    """No line of the corpus is allowed, word by word or as one line of text, by the default policy
    with all its rules in force. (A-1 to A-20)"""
    assert reason(DEFAULT, argv)
    assert reason(DEFAULT, line)
    assert reason(ABUSED, argv)


def test_the_corpus_is_whole() -> None:
    """All lines of the corpus are read, and those that are lists as lists."""
    corpus = [argv for argv, _ in attacks()]
    assert len(corpus) == 80
    assert [] in corpus
    assert ["git\x00", "status"] in corpus
    assert max(map(len, corpus)) == 101


# -- options, operands, programs ----------------------------------------------------

D = CommandDeniedError
CASES: dict[str, list[tuple[str, str]]] = {
    "A-1": [
        ("git -c core.fsmonitor=x status", "no_rule"),
        ("git -ccore.pager=x status", "no_rule"),
        ("git --config-env=core.fsmonitor=X status", "no_rule"),
    ],
    "A-2": [
        ("git --exec-path=/tmp status", "no_rule"),
        ("git --git-dir=/tmp/evil status", "no_rule"),
        ("git -C /tmp/evil status", "no_rule"),
        ("git --work-tree=/ status", "no_rule"),
        ("git -p status", "no_rule"),
    ],
    "A-3": [
        ("git diff --output=x", "flag_not_allowed"),
        ("git diff --outp=x", "flag_not_allowed"),
        ("git diff --ext-diff", "flag_not_allowed"),
        ("git diff --textconv", "flag_not_allowed"),
    ],
    "A-4": [
        ("git diff --no-index /etc/hostname /etc/passwd", "flag_not_allowed"),
        ("git diff /etc/hostname /etc/passwd", "argument_not_allowed"),
        ("git diff -- /etc/passwd", "argument_not_allowed"),
        ("git diff -- ../../x", "argument_not_allowed"),
    ],
    "A-5": [
        ("git diff --unified=--output", "bad_option_value"),
    ],
    "A-6": [
        ("git grep -Oid x", "no_rule"),
        ("git grep --open-files=id x", "no_rule"),
        ("git ls-remote --upload-pa=id .", "no_rule"),
        ("git fetch ext::sh", "no_rule"),
    ],
    "A-7": [
        ("find . -exec id ';'", "flag_not_allowed"),
        ("find . -fprintf F x", "flag_not_allowed"),
        ("find . -delete", "flag_not_allowed"),
        ("find . -newer /etc/shadow", "bad_option_value"),
    ],
    "A-8": [
        ("tar cf x --checkpoint-act=exec=id a", "no_rule"),
        ("tar xf x --to-com=id", "no_rule"),
        ("tar -I id -cf x a", "no_rule"),
    ],
    "A-9": [
        ("sort -o x a", "no_rule"),
        ("sort --compress-prog=x a", "no_rule"),
        ("wc --files0-from=/etc/shadow", "flag_not_allowed"),
    ],
    "A-10": [("uniq a b", "no_rule")],
    "A-11": [
        ("rg --pre id x", "flag_not_allowed"),
        ("rg -z x", "flag_not_allowed"),
        ("rg --hostname-bin id x", "flag_not_allowed"),
    ],
    "A-12": [
        ("sed 1e a", "no_rule"),
        ("sed -n 'w file' a", "no_rule"),
        ("sed -i s/a/b/ a", "no_rule"),
        ("awk 'BEGIN{system(\"id\")}'", "no_rule"),
    ],
    "A-13": [
        (f"{wrapper} id", "no_rule")
        for wrapper in ("env", "xargs", "nice", "timeout 1", "stdbuf -o0", "python -c", "sh -c")
    ]
    + [("perl -e 1", "no_rule"), ("node -e 1", "no_rule")],
    "A-14": [
        ("/usr/bin/git status", "no_rule"),
        ("./git status", "no_rule"),
        ("GIT status", "no_rule"),
        ("git stat", "no_rule"),
    ],
    "A-18": [
        ("git log -n ٣", "bad_option_value"),
        ("git log -n 1e3", "bad_option_value"),
        ("git log -n +1", "bad_option_value"),
        ("git log -n ' 1'", "bad_option_value"),
        ("git log -n 99999999999", "bad_option_value"),
        ("git log -n ''", "invalid"),
        ("git log -n", "bad_option_value"),
    ],
    "A-19": [
        ("git status -- a", "flag_not_allowed"),
        ("cat -- -n", "argument_not_allowed"),
        ("cat -- -- a", "argument_not_allowed"),
        ("git diff -- -- a", "argument_not_allowed"),
    ],
    "A-20": [
        ("head -n5 a", "flag_not_allowed"),
        ("ls -la1", "flag_not_allowed"),
    ],
}


@pytest.mark.parametrize(
    ("case", "line", "expected"),
    [(case, line, expected) for case, rows in CASES.items() for line, expected in rows],
)
def test_the_default_policy_refuses(case: str, line: str, expected: str) -> None:
    """Each listed attack on a command is refused, for the reason that a person needs to know.
    (A-1 to A-14, A-18 to A-20)"""
    assert reason(DEFAULT, line) == expected, case


ABUSES = {
    "A-5": [
        ("git diff -U --output=x", "bad_option_value"),
        ("git diff --unified=--output", "bad_option_value"),
        ("git diff -U3", "flag_not_allowed"),
    ],
    "A-6": [
        ("git grep -Oid x", "flag_not_allowed"),
        ("git grep --open-files=id x", "flag_not_allowed"),
        ("git grep --open-files-in-pager=id x", "flag_not_allowed"),
    ],
    "A-8": [
        ("tar cf x --checkpoint=1 --checkpoint-action=exec=id a", "flag_not_allowed"),
        ("tar cf x --checkpoint-act=exec=id a", "flag_not_allowed"),
        ("tar cf x --to-com=id a", "flag_not_allowed"),
        ("tar cf x -I id a", "flag_not_allowed"),
        ("tar cf x -- --checkpoint=1", "argument_not_allowed"),
    ],
    "A-9": [
        ("sort -o x a", "flag_not_allowed"),
        ("sort -ox a", "flag_not_allowed"),
        ("sort --outp=x a", "flag_not_allowed"),
        ("sort --compress-prog=x a", "flag_not_allowed"),
        ("sort --files0-from=/etc/shadow", "flag_not_allowed"),
    ],
    "A-10": [("uniq a b", "argument_not_allowed"), ("uniq -c a b", "argument_not_allowed")],
    "A-20": [("git diff -la", "flag_not_allowed"), ("git log -n5", "flag_not_allowed")],
}


@pytest.mark.parametrize(
    ("case", "line", "expected"),
    [(case, line, expected) for case, rows in ABUSES.items() for line, expected in rows],
)
def test_a_rule_in_good_faith_allows_no_abuse(case: str, line: str, expected: str) -> None:
    """Where a rule allows the program, its dangerous options stay out, abbreviated or clustered too.
    (A-5, A-6, A-8 to A-10, A-20)"""
    assert reason(ABUSED, line) == expected, case


@pytest.mark.parametrize("name", ["sh", "python3.11", "env", "xargs", "make", "ssh", "find", "awk"])
def test_what_runs_other_programs_has_to_be_meant(name: str) -> None:
    """A rule for an interpreter or a wrapper is refused without i_understand, by whatever name the
    program goes. (A-13)"""
    rule = f'[[command]]\nid = "x"\nargv = ["{name}"]\n'
    with pytest.raises(PolicyError, match=r"line 2: rule x: .* runs other programs"):
        load(rule)
    assert load(rule + 'i_understand = "a test"\n').rules[0].id == "x"
    other = f'[[command]]\nid = "x"\nargv = ["harmless"]\nexe = ["/usr/bin/{name}"]\n'
    with pytest.raises(PolicyError, match="runs other programs"):
        load(other)
    with pytest.raises(PolicyError, match="runs other programs"):
        load('[[command]]\nid = "x"\nargv = ["y"]\n', look=lambda path: Program(f"/opt/{name}"))
    with pytest.raises(PolicyError, match="runs other programs"):
        load(rule + 'i_understand = "  "\n')


# -- what is no command ------------------------------------------------------------

SHELL = ["git status; id", "git status && id", "git status || id", "git status | sh", "git status &",
         "ls > x", "ls >> x", "cat < x", "ls $(id)", "ls `id`", 'ls "$(id)"', 'echo "$HOME"',
         "echo $HOME", "ls\nid", "(ls)", "ls ;", 'echo "`id`"', "ls|sh", "ls 2>&1"]  # fmt: skip


@pytest.mark.parametrize("line", SHELL)
def test_what_only_a_shell_could_do_is_refused(line: str) -> None:
    """A command line with operators or expansions is refused with the next step, in place of
    running a part of it. (A-15)"""
    with pytest.raises(CommandDeniedError) as caught:
        DEFAULT.decide_line(line)
    assert caught.value.reason == "shell_syntax"
    assert "single quotes" in caught.value.next_step


@pytest.mark.parametrize("word", [";", "&&", "|", ">", "$(id)", "`id`", "*", "a;id", "$HOME", "!"])
def test_the_signs_of_a_shell_are_only_characters(word: str) -> None:
    """As words of a command they are passed on as they are, or refused: never interpreted. (A-15)"""
    found = DEFAULT.decide(["grep", word, "a"])
    assert found.argv == (found.rule.program, "--", word, "a")
    assert DEFAULT.decide_line(f"grep '{word}' a").argv == found.argv
    assert reason(DEFAULT, ["git", "status", word])


@pytest.mark.parametrize(
    "char", ["\0", "\r", "\n", "\t", "\x1b", "\x7f", "\x85", "\u202e", "\u2066", "\u200b", "\ufeff",
             "\u2028", "\u2029", "\ud800", "\U000e0041"]
)  # fmt: skip
def test_characters_that_cannot_be_seen_are_refused(char: str) -> None:
    """No word may have a control or format character or a lone surrogate in it. (A-16)"""
    for argv in (["cat", f"a{char}b"], [f"git{char}", "status"], ["echo", char]):
        assert reason(DEFAULT, argv) == "bad_character"
    with pytest.raises(CommandDeniedError) as caught:
        DEFAULT.decide(["cat", char])
    error = caught.value
    assert char not in error.message + error.detail + error.next_step


@pytest.mark.parametrize(
    "argv",
    [[], [""], "", "git status", b"git", None, 7, {}, [7], [None], [["git"], "status"], ["git", b"x"],
     ["ls"] * (MAX_TOKENS + 1), ["cat", "a" * 5000], ["cat", "€" * 1400], ["cat", "a" * 4_000_000],
     ["git", "status", ""]],
    ids=lambda argv: repr(argv)[:30],
)  # fmt: skip
def test_what_cannot_be_a_command_is_invalid(argv: Any) -> None:
    """Empty, nested, too many, too long, not text: an error of the request, not a crash. (A-17)"""
    with pytest.raises(InvalidInputError):
        DEFAULT.decide(argv)


def test_the_bounds_of_a_command_are_exact() -> None:
    """64 words of 4096 bytes can be a command. (A-17)"""
    assert reason(DEFAULT, ["cat", "a" * 4096]) == ""
    assert reason(DEFAULT, ["echo", *["a"] * 20]) == ""
    assert reason(DEFAULT, ["nosuch"] * MAX_TOKENS) == "no_rule"


# -- the policy file ---------------------------------------------------------------

OK = '[[command]]\nid = "ok"\nargv = ["uname"]\n\n'


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ('id = "x"\nargv = ["a"]\nflgs = ["-a"]', "unknown field `flgs`"),
        ('id = "x"\nargv = ["a"]\nprogram = "/bin/sh"', "unknown field `program`"),
        ('id = "x"\nargv = ["a"]\nargs = ["file"]', "no kind 'file'"),
        ('id = "x"\nargv = ["a"]\nargs = ["path:x"]\nworkspace = true', "nothing after"),
        ('id = "x"\nargv = ["a"]\noptions = { "-n" = "int:5..1" }', "LOW..HIGH"),
        ('id = "x"\nargv = ["a"]\noptions = { "-n" = "enum:a,,b" }', "different words"),
        ('id = "x"\nargv = ["a"]\noptions = { "n" = "text" }', "begin with - or end with ="),
        ('id = "x"\nargv = ["a"]\nargs = [3]', "not the name of a kind"),
        ('id = "ok"\nargv = ["a"]', "a rule of that id already"),
        ('id = "X"\nargv = ["a"]', "small letters"),
        ('id = "x"\nargv = []', "length"),
        ('id = "x"\nargv = ["/bin/ls"]', "without a directory"),
        ('id = "x"\nargv = ["a"]\nexe = ["bin/ls"]', "not an absolute path"),
        ('id = "x"\nargv = ["a"]\nexe = ["/bin/../x"]', "not an absolute path"),
        ('id = "x"\nargv = ["a"]\nflags = ["-a", "-a"]', "'-a' twice"),
        ('id = "x"\nargv = ["a"]\nflags = ["--"]', "neither a flag"),
        ('id = "x"\nargv = ["a"]\nargs = ["path"]', "workspace = true"),
        ('id = "x"\nargv = ["a"]\nargs = ["target"]\nworkspace = true', 'effect = "write"'),
        ('id = "x"\nargv = ["a"]\neffect = "write"\nttl_s = 5', "ttl_s"),
        ('id = "x"\nargv = ["a"]\neffect = "write"\nview = "mounts"', "view of all mounts"),
        ('id = "x"\nargv = ["a"]\nmin_args = 1', "allows fewer"),
        ('id = "x"\nargv = ["a"]\nttl_s = -1', "ttl_s"),
        ('id = "x"\nargv = ["a"]\neffect = "maybe"', "effect"),
        ('id = "x"\nargv = ["a"]\nsuccess = []', "success"),
        ('id = "x"\nargv = ["a"]\nappend = ["a\\u202e"]', "cannot be seen"),
        ('id = "x"\nargv = ["a"]\nenv = { "a=b" = "c" }', "capital letters"),
        ('argv = ["a"]', "id"),
    ],
)
def test_a_wrong_rule_refuses_the_whole_policy(rule: str, problem: str) -> None:
    """Anything unknown or contradictory is an error that names file, line and rule. (A-21)"""
    with pytest.raises(PolicyError) as caught:
        load(f"{OK}[[command]]\n{rule}\n")
    assert problem in caught.value.message
    assert re.match(r"test\.toml, line 6: rule \S", caught.value.message)


@pytest.mark.parametrize(
    "text",
    ["", "version = 2", "version = 1\nverbose = true", "version = 1\n[", "command = []",
     "version = 1\n[program.x]", "version = 1\ncommand = [{id = 'x', argv = ['x']}]",
     "version = 1\n[program.uname]\nflags = []\n" + OK],
)  # fmt: skip
def test_a_text_that_is_no_policy_is_refused(text: str) -> None:
    """No version, another version, unknown keys, torn TOML: an error, not an empty policy. (A-21,
    A-23)"""
    with pytest.raises(PolicyError, match=r"test\.toml"):
        Policy.load(text, name="test.toml", look=installed)


def test_a_program_that_others_can_change_is_refused(tmp_path: Path) -> None:
    """A rule whose program is not root's alone, itself or by a link or a directory on the way, is
    an error. (A-21)"""
    evil = tmp_path / "tool"
    evil.write_text("#!/bin/true\n")
    evil.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(evil)
    for path in (evil, link):
        found = look(str(path))
        assert found is not None
        assert found.problem
        rule = f'[[command]]\nid = "x"\nargv = ["x"]\nexe = ["{path}"]\n'
        with pytest.raises(PolicyError, match=r"line 2: rule x: .* must not be run"):
            load(rule, look=look)
    evil.chmod(0o755)
    tmp_path.chmod(0o777)
    assert look(str(evil)).problem  # type: ignore[union-attr]
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert look(str(loop)).problem  # type: ignore[union-attr]
    assert look(str(tmp_path)) is None
    assert look(str(tmp_path / "no")) is None
    assert look(str(evil / "no")) is None
    assert look("/usr/bin/env").problem == ""  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("key", "example", "problem"),
    [
        ("allow", "uname -x", "has to be allowed, but `uname` is allowed, but not with -x"),
        ("allow", "uname | wc", "has to be allowed, but"),
        ("allow", "ls", "has to be allowed, but no rule allows"),
        ("deny", "uname", "is allowed, by rule ok"),
        ("deny", "uname -a", "is allowed, by rule x"),
    ],
)
def test_an_example_that_fails_refuses_the_policy(key: str, example: str, problem: str) -> None:
    """A policy that does not decide its own examples as they say is not loaded; the error names
    rule and line. (A-22)"""
    rule = (
        f'[[command]]\nid = "x"\nargv = ["uname"]\nflags = ["-a"]\n{key} = [\n  "{example}",\n]\n'
    )
    with pytest.raises(PolicyError) as caught:
        load(OK + rule)
    assert f"line 11: rule x: its example `{example}` {problem}" in caught.value.message


def test_an_example_has_to_be_allowed_by_its_own_rule() -> None:
    """A special rule behind a general one that takes its commands away is found at load. (A-22, X-03)"""
    rule = '[[command]]\nid = "special"\nargv = ["uname"]\nallow = ["uname"]\n'
    with pytest.raises(PolicyError, match="so by rule ok, which stands before it"):
        load(OK + rule)


def test_nothing_listed_is_nothing_allowed(tmp_path: Path) -> None:
    """A policy without rules denies everything, a rule without options allows none, and a missing
    file is an error. (A-23)"""
    empty = load("")
    assert all(reason(empty, argv) for argv in (["uname"], ["ls"], ["true"]))
    bare = load('[[command]]\nid = "x"\nargv = ["ls"]\nflags = []\noptions = {}\nargs = []\n')
    assert reason(bare, "ls") == ""
    assert reason(bare, "ls -l") == "flag_not_allowed"
    assert reason(bare, "ls a") == "argument_not_allowed"
    with pytest.raises(PolicyError, match="cannot be read"):
        PolicyFile(tmp_path / "missing.toml")


def test_a_policy_that_cannot_be_used_leaves_the_last_good_one(tmp_path: Path) -> None:
    """A broken, unreadable or half written file changes nothing but the count of errors; a good one
    is taken up once it has been found the same twice. (A-24, A-21)"""
    path = tmp_path / "policy.toml"
    whole = f"version = 1\n{OK}[[command]]\nid = 'two'\nargv = ['ls']\n"
    path.write_text(f"version = 1\n{OK}")
    file = PolicyFile(path, look=installed)
    first = file.policy
    for cut in range(len(whole) - 1):  # a slow writer, looked at after every byte
        path.write_text(whole[:cut])
        assert not file.refresh()
        assert file.policy is first
    path.write_text("version = ")
    assert [file.refresh(), file.refresh(), file.refresh()] == [False, False, False]
    assert (file.errors, file.policy) == (1, first)
    assert "not valid TOML" in file.problem
    path.unlink()
    assert not file.refresh()
    path.write_text(whole)
    assert not file.refresh()
    assert file.refresh()
    assert not file.refresh()
    assert (file.problem, len(file.policy.rules)) == ("", 2)
    path.write_bytes(b"\xff" + b"#" * 2**20)
    assert not file.refresh()
    assert "larger" in file.problem
    path.write_bytes(b"\xff")
    assert not file.refresh()
    for make in (os.mkfifo, os.mkdir):  # opening a pipe would wait for its other end
        path.unlink()
        make(path)
        assert not file.refresh()
        assert "not a regular file" in file.problem
    assert len(file.policy.rules) == 2


# -- nothing but what the rule says --------------------------------------------------------

SIGNS = ";|&<>$`(){}[]*?!~#'\"\\^=%+,:@/.- \tabx0\n\x00\u202e٣é\ud800"
WORDS = sorted(
    {
        word
        for rule in (*DEFAULT.rules, *ABUSED.rules)
        for word in (*rule.argv, *rule.flags, *rule.options)
    }
)
NEAR = [
    "--output=x", "--outp=x", "-o", "-O", "--", "-", "..", "/etc/shadow", "~root", "a/../b", "--since=x",
    "--author=", "--author=-x", "of=", "of=/x", "of=a", "-exec", "-delete", "--pre=id", "src/a.py", "1", "-1",
    "HEAD~1", "a..b", "a/..", "HEAD:../x", "+%Y", "x", ".", "*.py", "-n5", "-laR", "pid,environ", "pid",
    "int", "$(id)", "`id`", ";", "&&", "|", "\n", "a\0b",
]  # fmt: skip
word = st.one_of(
    st.sampled_from(WORDS),
    st.sampled_from(NEAR),
    st.text(SIGNS, max_size=8),
    st.tuples(st.sampled_from(WORDS), st.text(SIGNS, max_size=4)).map("".join),
)
starts = st.sampled_from([rule.argv for rule in (*DEFAULT.rules, *ABUSED.rules)])
command = st.tuples(starts, st.lists(word, max_size=6)).map(lambda c: [*c[0], *c[1]])


@settings(max_examples=800, deadline=None)
@given(command)
@example(["git", "log", "--author=", "/etc/passwd"])
@example(["dd", "of=", "/etc/passwd"])
@example(["git", "diff", "--", "-U"])
def test_what_is_run_has_only_words_that_the_rule_accounts_for(argv: list[str]) -> None:
    """Every word of what is run is one of the rule's own or of the kind that it asks for there, and
    no word of the request begins with a dash unless it is listed. (A-25)"""
    for policy in (DEFAULT, ABUSED):
        try:
            found = policy.decide(argv)
        except (CommandDeniedError, InvalidInputError):
            continue
        assert unaccounted(found) == []
        for path in (*found.reads, *found.writes):
            assert not path.startswith(("/", "~", "-"))
            assert ".." not in path.split("/")
        behind = found.argv[found.argv.index("--") + 1 :] if "--" in found.argv else ()
        assert not any(operand.startswith("-") for operand in behind)


@settings(max_examples=300, deadline=None)
@given(
    command, st.integers(0, 8), st.sampled_from([";", "&&", "||", "|", ">", "$(id)", "`id`", "&"])
)
def test_a_sign_of_a_shell_widens_nothing(argv: list[str], place: int, sign: str) -> None:
    """Putting such a word into a command changes neither program nor rule's words nor the options
    that it is run with: it is refused or only one more operand. (A-15, A-25)"""
    try:
        before = DEFAULT.decide(argv)
        at = len(before.rule.argv) + place
        after = DEFAULT.decide([*argv[:at], sign, *argv[at:]])
    except (CommandDeniedError, InvalidInputError):
        return
    assert after.argv[0] == before.argv[0]
    assert [word for word in after.argv if word != sign] == [*before.argv] or set(after.argv) <= {
        sign,
        "--",
        *before.argv,
    }


anything = st.recursive(
    st.none() | st.integers() | st.floats() | st.binary(max_size=5) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(anything | st.lists(st.text(), max_size=5) | st.text())
def test_nothing_makes_the_decision_crash(argv: Any) -> None:
    """Whatever is asked, the answer is a command, a refusal or an error of the request, and each has
    a next step. (A-17, A-25, S1-48)"""
    for decide in (DEFAULT.decide, DEFAULT.decide_line):
        if decide == DEFAULT.decide_line and not isinstance(argv, str):
            continue
        try:
            answer: object = decide(argv)
        except (CommandDeniedError, InvalidInputError) as exc:
            answer = exc
        assert isinstance(answer, GrantedCommand) or (answer.message and answer.next_step)  # type: ignore[attr-defined]


# -- patterns ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+", "(?:a*)*b", "a*a*b", "(?:a|aa)+", r"(?:a)\1", "(?=a)b", "a{1,}", "a?", "a{2,3}b", "[", "(?P<x>a)",
     "(?:a", "a{1,5}?", ".*"],
)  # fmt: skip
def test_a_pattern_that_could_take_for_ever_is_refused(pattern: str) -> None:
    """Only patterns whose repetitions give nothing back can be in a policy. (A-26)"""
    rule = f"""[[command]]\nid = "x"\nargv = ["x"]\nargs = ['re:{pattern}']\n"""
    with pytest.raises(PolicyError, match="rule x: re:"):
        load(rule)


@pytest.mark.parametrize(
    "pattern", ["(?:[a-z]++,)*+[a-z]++", "[]a*+?{1,2}]++", "(?:a|aa)++b", "a{3}"]
)
def test_an_allowed_pattern_ends(pattern: str) -> None:
    """The longest values that fail at their very end are judged: backtracking would take longer
    than any test run. (A-26)"""
    policy = load(f"""[[command]]\nid = "x"\nargv = ["x"]\nargs = ['re:{pattern}']\n""")
    for value in ("a" * 4095 + "!", "a," * 2047 + "!", "]" * 4095 + "!"):
        assert reason(policy, ["x", value]) == "argument_not_allowed"


# -- seeded bugs: the suite has to notice each ---------------------------------------------------


def _skipping(rule: Rule, argv: tuple[str, ...]) -> GrantedCommand | Refusal:
    """A matcher that passes on what it does not know."""
    found = match(rule, rule.argv)
    if isinstance(found, Refusal):
        return found
    rest = argv[len(rule.argv) :]
    return GrantedCommand(argv=(*found.argv, *rest), given=argv, rule=rule)


def _abbreviating(rule: Rule, argv: tuple[str, ...]) -> GrantedCommand | Refusal:
    """A matcher by a list of what is denied, which abbreviations pass."""
    denied = {"--output", "--ext-diff", "--textconv", "-o", "-exec", "-delete", "--pre"}
    if any(word.partition("=")[0] in denied for word in argv):
        return match(rule, argv)
    return _skipping(rule, argv)


def _dashes(kind: Kind, value: str) -> bool:
    return value != "" and kind._test(value)


def _anywhere(kind: Kind, value: str) -> bool:
    return not value.startswith("-") and (kind.touches != "" or kind._test(value))


BUGS: dict[str, tuple[object, str, object]] = {
    "unknown words are passed on": (policy_module, "match", _skipping),
    "a list of what is denied": (policy_module, "match", _abbreviating),
    "words are not checked": (policy_module, "check_tokens", tuple),
    "values may begin with a dash": (Kind, "accepts", _dashes),
    "paths may lead anywhere": (Kind, "accepts", _anywhere),
}


@pytest.mark.parametrize("bug", BUGS)
def test_the_corpus_finds_seeded_bugs(bug: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A guard taken out lets lines of the corpus through."""
    assert allowed_attacks(DEFAULT) == []
    monkeypatch.setattr(*BUGS[bug])
    try:
        escaped = allowed_attacks(DEFAULT)
    except (PacelineError, IndexError, TypeError):
        escaped = [["a crash"]]
    assert escaped


def test_the_account_of_words_finds_what_slips_in() -> None:
    """The property has teeth: a word that nobody listed is found in what would be run."""
    rule = next(rule for rule in DEFAULT.rules if rule.id == "git-log")
    for extra in ("--output=x", "--author=-x", "/etc/passwd", "--author="):
        slipped = GrantedCommand(argv=(rule.program, extra), given=(), rule=rule)
        assert unaccounted(slipped) == [extra]
