"""What commands mean to the cache."""

from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.call import EffectKind, Plan, ScopeLevel
from paceline.hostexec import effects
from paceline.hostexec.effects import plan
from paceline.hostexec.sandbox.workspace import Workspace
from paceline.tags import file_writes
from tests.security.policies import default, load

POLICY = default()
SPACE = Workspace(Path("/usr"))


def _plan(line: str) -> Plan:
    return plan(POLICY.decide_line(line), SPACE, resolve=str)


def _stale(read: str, write: str) -> bool:
    return not set(_plan(read).effect.tags).isdisjoint(_plan(write).effect.tags)


TTLS = {
    3600: ["uname -a", "cat /etc/os-release", "nproc", "lscpu", "hostname"],
    300: ["fastfetch"],
    60: ["df -h", "ps aux", "top", "uptime", "free -m"],
    0: ["cat README.md", "ls", "ls -la", "head a", "wc -l a", "find .", "grep -rn x .", "rg x", "date", "du -sh src",
        "git status", "git log", "cat /proc/loadavg", "echo x", "pwd", "stat a"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("ttl_s", "line"), [(t, line) for t, lines in TTLS.items() for line in lines]
)
def test_results_stay_valid_as_long_as_what_they_tell(ttl_s: float, line: str) -> None:
    """An hour for the system, five minutes for a picture of it, a minute for disks and processes,
    never for files; the most specific rule decides. (S1-05,
    S1-36 to S1-39, S1-58, X-02, X-03)"""
    found = _plan(line)
    assert found.ttl_s == ttl_s
    assert found.cacheable == (ttl_s > 0)
    assert found.effect.kind is EffectKind.READ
    assert found.timeout_s is None
    assert found.signature == POLICY.decide_line(line).rule.id


def test_network_commands_are_never_cached() -> None:
    """A rule that reaches the network and does not say otherwise is never cached. (S1-40)"""
    policy = load('[[command]]\nid = "dig"\nargv = ["dig"]\nnetwork = true\nargs = ["text"]\n')
    found = plan(policy.decide_line("dig example.org"), SPACE)
    assert (found.ttl_s, found.cacheable, found.effect.tags) == (0, False, ())


def test_facts_of_the_system_are_shared_and_those_of_files_are_not() -> None:
    """The rule says who shares a result. (S1-10, X-04)"""
    assert _plan("uname").scope is ScopeLevel.GLOBAL
    assert _plan("cat a").scope is None
    shared = [rule for rule in POLICY.rules if rule.scope is ScopeLevel.GLOBAL]
    assert shared
    assert not [rule.id for rule in shared if rule.workspace or rule.reads == "all"]
    assert not [rule.id for rule in POLICY.rules if rule.workspace and rule.ttl_s]


NEARNESS = [
    ("cat a", "touch a", True),
    ("cat a", "touch b", False),
    ("cat a", "touch ab", False),
    ("cat dir/a", "rm -rf dir", True),
    ("ls", "touch dir/a", True),
    ("ls dir", "touch dir/a", True),
    ("ls dir", "mkdir other", False),
    ("wc -l a b", "mv b c", True),
    ("cat c", "mv b c", True),
    ("cat b", "cp b c", False),
    ("cat c", "cp b c", True),
    ("cat c/b", "cp b c", True),
    ("cat ./a", "tee a", True),
    ("cat dir//a", "tee dir/a", True),
    ("head a", "dd if=b of=a", True),
    ("head b", "dd if=b of=a", False),
    ("grep -rn x .", "touch a", True),
    ("grep x a", "touch b", False),
    ("rg x", "touch a", True),
    ("find src", "touch src/a", True),
    ("find src", "touch a", False),
    ("du -sh", "rm -rf src", True),
    ("git status", "touch a", True),
    ("git diff -- b", "touch a", True),
    ("uname -a", "rm -rf x", False),
    ("df -h", "rm -rf x", False),
]
"""A read, a write, and whether the read is stale after it."""


@pytest.mark.parametrize(("read", "write", "stale"), NEARNESS)
def test_a_write_makes_stale_what_depends_on_it_and_nothing_else(
    read: str, write: str, stale: bool
) -> None:
    """Files are told apart by their paths: what names them, or lies above or below. (S1-53)"""
    assert _plan(write).effect.kind is EffectKind.WRITE
    assert not _plan(write).cacheable
    assert _stale(read, write) is stale


@pytest.mark.parametrize(
    ("name", "bug"),
    [
        ("file_writes", lambda *paths: ()),
        ("file_writes", lambda *paths: tuple(f"node:{path}" for path in paths)),
        ("file_writes", lambda *paths: file_writes("/usr")),
        ("file_reads", lambda *paths: tuple(f"node:{path}" for path in paths)),
        ("_places", lambda rule, names, workspace, resolve: [workspace.path]),
    ],
    ids=["no tags", "no lineage", "all is stale", "no tree", "no names"],
)
def test_the_table_finds_seeded_bugs(
    name: str, bug: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invalidating too little or too much shows in the table."""
    monkeypatch.setattr(effects, name, bug)
    assert any(_stale(read, write) is not stale for read, write, stale in NEARNESS)


def test_words_that_only_look_like_writes_are_none() -> None:
    """The program decides, not the first letters of the line. (S1-53)"""
    assert _plan("rmdir x").effect.kind is EffectKind.WRITE
    for line in ("date", "df", "ddate", "cpufreq-info"):
        kinds = {rule.effect for rule in POLICY.rules if rule.argv[0] == line}
        assert "write" not in kinds


def test_a_link_counts_for_where_it_leads(tmp_path: Path) -> None:
    """What is read or written through a symbolic link has the tags of both. (S1-53)"""
    (tmp_path / "real").write_text("")
    (tmp_path / "link").symlink_to("real")
    space = Workspace(tmp_path)

    def tags(line: str) -> set[str]:
        return set(plan(POLICY.decide_line(line), space).effect.tags)

    assert tags("cat link") & tags("touch real")
    assert tags("cat real") & tags("touch link")
    assert f"node:{space.path}/link" in tags("touch link")


names = st.lists(st.sampled_from(["a", "b", "."]), min_size=1, max_size=4).map("/".join)


@given(names, names)
def test_staleness_is_nearness_of_paths(read: str, written: str) -> None:
    """A read is stale exactly if one of the two paths contains the other. (S1-53)"""
    one, other = (PurePosixPath("/usr") / path for path in (read, written))
    near = one == other or one in other.parents or other in one.parents
    assert _stale(f"cat {read}", f"touch {written}") is near


def test_a_write_that_names_nothing_changes_everything() -> None:
    """Where a changing command names no file, the whole workspace counts as changed. (S1-53)"""
    assert "tree:/usr" in _plan("dd").effect.tags


def test_slow_commands_have_the_longer_limit() -> None:
    """Those that walk directories are marked slow; the limit itself is left to the host. (S1-20)"""
    slow = {rule.argv[0] for rule in POLICY.rules if rule.slow}
    assert slow == {"find", "grep", "rg", "du"}
