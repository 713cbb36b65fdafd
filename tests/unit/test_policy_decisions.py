"""What the policy allows, how it is run, and what a refusal says."""

import tomllib
from importlib import resources

import pytest

from paceline.errors import CommandDeniedError
from paceline.hostexec.granted import CommandPolicy, Granted
from paceline.hostexec.policy.decision import Policy
from tests.security.policies import default, installed, load, reason

POLICY = default()


def _denied(line: str, policy: Policy = POLICY) -> CommandDeniedError:
    with pytest.raises(CommandDeniedError) as caught:
        policy.decide_line(line)
    return caught.value


def test_a_policy_is_what_the_host_asks_for() -> None:
    """A policy decides for the host, and its decision has all that the host reads."""

    def asked(policy: CommandPolicy) -> Granted:
        return policy.decide(("grep", "-n", "x", "a"))

    found = asked(POLICY)
    assert found.given == ("grep", "-n", "x", "a")
    assert found.argv == ("/usr/bin/grep", "-n", "--", "x", "a")
    rule = found.rule
    assert (rule.id, rule.workspace, rule.effect, rule.view, rule.network, rule.slow) == (
        "grep", True, "read", "none", False, True,
    )  # fmt: skip
    assert rule.success == (0, 1)
    assert dict(rule.env) == {}


@pytest.mark.parametrize(
    ("line", "argv"),
    [
        ("uname -a", "/usr/bin/uname -a"),
        ("cat a", "/usr/bin/cat -- a"),
        ("cat -- a", "/usr/bin/cat -- a"),
        ("cat a -n", "/usr/bin/cat -n -- a"),
        ("ls", "/usr/bin/ls"),
        ("find src -name x", "/usr/bin/find src -name x"),
        ("find -name x src", "/usr/bin/find src -name x"),
        ("echo a b", "/usr/bin/echo a b"),
        ("top -n 1", "/usr/bin/top -b -n 1 -n 1"),
        ("whoami", "/usr/bin/id -u"),
        ("rg x", "/usr/bin/rg --no-config --color=never -- x"),
        ("dd if=a of=b bs=1k", "/usr/bin/dd if=a of=b bs=1k"),
        ("cp a b", "/usr/bin/cp -- a b"),
    ],
)
def test_words_are_put_where_the_program_expects_them(line: str, argv: str) -> None:
    """Options first, then our own, then `--` and the operands, unless the program wants otherwise."""
    assert " ".join(POLICY.decide_line(line).argv) == argv


@pytest.mark.parametrize(
    ("line", "end"),
    [
        ("git diff", ()),
        ("git diff HEAD", ("HEAD",)),
        ("git diff HEAD -- a", ("HEAD", "--", "a")),
        ("git diff -- a", ("--", "a")),
        ("git diff HEAD --", ("HEAD", "--")),
    ],
)
def test_revisions_and_files_keep_apart(line: str, end: tuple[str, ...]) -> None:
    """What stands before a given `--` stays before it. Git runs with its own safeguards."""
    found = POLICY.decide_line(line)
    assert found.argv[-3 - len(end) :] == (
        "--no-ext-diff", "--no-textconv", "--ignore-submodules=all", *end
    )  # fmt: skip
    assert found.argv[:4] == ("/usr/bin/git", "--no-pager", "-c", "core.fsmonitor=false")
    assert found.rule.env["GIT_CONFIG_GLOBAL"] == "/dev/null"


def test_every_rule_of_a_program_has_its_safeguards() -> None:
    """What is said of a program holds for each of its rules."""
    safe = [rule for rule in POLICY.rules if rule.argv[0] == "git"]
    assert len(safe) == 5
    assert len({(rule.insert, tuple(rule.env.items())) for rule in safe}) == 1


def test_the_special_rule_comes_before_the_general() -> None:
    """The first rule that allows a command decides. (S1-36, X-03)"""
    rules = {line: POLICY.decide_line(line).rule.id for line in (
        "cat /etc/os-release", "cat /proc/loadavg", "cat a", "rg --files", "rg x",
    )}  # fmt: skip
    assert list(rules.values()) == ["cat-system", "cat-live", "cat", "rg-files", "rg"]


def test_every_rule_of_the_default_policy_has_examples() -> None:
    """Each rule shows what it allows and what it does not, and all of it was tried. (A-22)"""
    for rule in POLICY.rules:
        assert rule.allow, rule.id
        assert rule.deny, rule.id


def test_the_default_policy_comes_with_the_package() -> None:
    """It is data of the package, it loads on this host, and it is read-only unless told."""
    text = resources.files("paceline.hostexec.policy").joinpath("default.toml").read_text("utf-8")
    here = Policy.default()
    assert len(here.rules) == len(tomllib.loads(text)["command"])
    assert here.writes is False


def test_changes_need_to_be_switched_on() -> None:
    """A rule that changes the workspace is refused unless writes are on, and says how."""
    off = default(writes=False)
    for line in ("touch a", "rm -rf a", "cp a b", "mv a b", "mkdir a", "dd if=a of=b", "tee a"):
        assert reason(off, line) == "writes_off"
        assert reason(POLICY, line) == ""
    assert "hostexec.writes = true" in _denied("touch a", off).next_step
    assert reason(off, "touch /etc/a") == "argument_not_allowed"


@pytest.mark.parametrize(
    "line",
    [
        "cp a vendor/foo/.git/hooks/post-checkout",
        "mv a vendor/.git",
        "touch ./vendor/.GIT/config",
        "rm -rf .git",
        "mkdir -p a/.git/hooks",
        "dd if=a of=b/.git/config",
        "tee -a b/.git/config",
    ],
)
def test_no_repository_is_changed(line: str) -> None:
    """No command writes into a `.git`, that of the workspace or of any repository below it, however
    it is spelled; names that are only similar can be written. (B-28, B-29)"""
    assert reason(POLICY, line) in {"argument_not_allowed", "bad_option_value"}
    assert reason(POLICY, line.replace(".git", ".github").replace(".GIT", ".gitx")) == ""


def test_what_is_switched_off_is_understood_all_the_same() -> None:
    """What a command would do is known also where it may not run here."""
    off = default(writes=False)
    assert off.understand(["rm", "a"]).writes == ("a",)
    with pytest.raises(CommandDeniedError):
        off.understand(["rm", "/a"])


def test_what_is_not_installed_is_told_as_that() -> None:
    """An allowed command whose program is missing is refused with the places that were tried."""
    text = '[[command]]\nid = "x"\nargv = ["tool"]\nexe = ["/opt/a/tool", "/opt/b/tool"]\n'
    policy = load(text, look=lambda path: None)
    error = _denied("tool", policy)
    assert error.reason == "not_installed"
    assert "/opt/a/tool and no /opt/b/tool" in error.message
    assert reason(policy, "tool x") == "argument_not_allowed"
    second = load(text, look=lambda path: installed(path) if "/b/" in path else None)
    assert second.decide_line("tool").argv == ("/opt/b/tool",)


def test_the_digest_names_text_and_mode() -> None:
    """The same text in the same mode has the same digest on every host; others have others."""
    text = '[[command]]\nid = "x"\nargv = ["tool"]\n'
    digests = [
        load(text).digest,
        load(text, look=lambda path: None).digest,
        load(text, name="other.toml").digest,
    ]
    assert len(set(digests)) == 1
    assert len({digests[0], load(text, writes=False).digest, load(text + "\n").digest}) == 3


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("git push", "There are: git branch, git diff, git log, git show, git status."),
        ("/usr/bin/git status", "Name the program without a directory: git."),
        ("grpe x", "Did you mean grep?"),
        ("nosuchthing", "There are rules for: cat, cp,"),
        ("wc -x a", "With `wc` there are, exactly so: -l, -w,"),
        ("git log -n 0", "It has to be a whole number from 1 to 10000."),
        ("find . -type x", "It has to be one of d, f, l."),
        ("ps -o environ", "It has to be some of %cpu,"),
        ("cat /etc/passwd", "It has to be a path inside the workspace,"),
        ("uniq-nosuch", "There are rules for:"),
        ("nproc x", "With `nproc` there are, exactly so: --all."),
        ("pwd x", "With `pwd` there are"),
        ("grep", "Add text."),
        ("mv a", "Add a path inside the workspace"),
        ("whoami x", "Run `whoami` without options."),
    ],
)
def test_a_refusal_names_what_would_be_allowed(line: str, told: str) -> None:
    """Every refusal says which words would do instead. (S1-48)"""
    assert told in _denied(line).next_step


def test_a_refusal_names_the_word_at_fault() -> None:
    """Of several rules, the one that understood most of the command explains."""
    error = _denied("rg --files --pre id")
    assert (error.reason, error.detail) == ("flag_not_allowed", "--pre")
    assert "`rg --files`" in error.message
    assert _denied("cat a b ../c").detail == "../c"


def test_operands_have_a_bound() -> None:
    """A rule takes no more operands than it says."""
    policy = load(
        '[[command]]\nid = "x"\nargv = ["x"]\nargs = ["int:1..9", "text"]\nmin_args = 2\nmax_args = 3\n'
    )
    assert [reason(policy, ["x", *words]) for words in (["1"], ["1", "a"], ["1", "a", "b"])] == [
        "argument_missing", "", "",
    ]  # fmt: skip
    assert reason(policy, ["x", "1", "a", "b", "c"]) == "argument_not_allowed"
    assert reason(policy, ["x", "0", "a"]) == "argument_not_allowed"
    assert "at most 3" in _denied("x 1 a b c", policy).next_step


def test_a_line_and_its_words_are_decided_alike() -> None:
    """A text query is split, then decided like any list of words."""
    assert POLICY.split("git log --oneline") == ("git", "log", "--oneline")
    assert POLICY.decide_line("git log --oneline").argv == POLICY.decide(
        ["git", "log", "--oneline"]
    ).argv  # fmt: skip


def test_a_rule_can_be_shown() -> None:
    """Kinds of values are shown as the policy writes them."""
    rule = POLICY.decide_line("git log").rule
    assert str(rule.options["-n"]) == "int:1..10000"
    assert [str(kind) for kind in (*rule.heads, *rule.args)] == ["rev", "path"]
