"""Host commands as the settings ask for them: what is guarded, and what the agent says of calls."""

import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from paceline.balance.retry import RetryPolicy
from paceline.call import Call, Caller, Effect, EffectKind, Kind, Plan, Scope, ScopeLevel
from paceline.errors import CallTimeoutError, SandboxError
from paceline.home import Home
from paceline.hostexec import setup
from paceline.hostexec.agent import HostExecAgent
from paceline.hostexec.result import CommandResult
from paceline.hostexec.sandbox import workspace as workspace_module
from paceline.hostexec.sandbox.workspace import Workspace
from paceline.hostexec.setup import host_agent, open_workspace
from paceline.redaction import Redactor
from paceline.settings import HostExecSettings
from paceline.testing.virtual_time import VirtualClock
from tests.security.policies import default

OUTSIDE = Home(Path("/nowhere/home"))
TOKEN = "HOST_EXEC_TOKEN"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A workspace with a directory in it that is the current one."""
    (tmp_path / "ws/here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "ws/here")
    return (tmp_path / "ws").resolve()


def _opened(
    place: Path, *, home: Home = OUTSIDE, agents: Sequence[str] = (), **settings: Any
) -> Workspace:
    return open_workspace(
        HostExecSettings(workspace=str(place), **settings),
        home,
        [Path(path) for path in agents],
        [Path("conf/settings.toml")],
    )


def test_what_is_guarded_is_found_from_the_current_directory(place: Path) -> None:
    """Agents, policy, settings, home and token are guarded where everything else finds them: from
    the current directory and not from the workspace. (B-29)"""
    (place / "agents").mkdir()
    workspace = _opened(
        place,
        home=Home(Path("state")),
        agents=["agents", "../more/agents"],
        policy="policy.toml",
        token_file="keys/token",
    )
    assert set(workspace.protected) == {
        *(".git/", "paceline.toml", "here/agents/", "more/agents/", "here/policy.toml"),
        *("here/conf/settings.toml", "here/paceline.toml"),
    }
    assert set(workspace.hidden) == {
        *(".paceline", "here/state", "here/keys/token", "here/.paceline"),
    }


def test_paths_outside_the_workspace_need_no_guard(place: Path) -> None:
    """What lies elsewhere, beside names that begin alike, is not among the guarded. (B-33)"""
    workspace = _opened(place / "here", agents=["../here-too/agents", "/usr"])
    assert set(workspace.protected) == {".git/", "paceline.toml", "conf/settings.toml"}
    assert workspace.hidden == (".paceline",)
    assert workspace.fixed is None


def check_links(place: Path, tmp_path: Path) -> None:
    (place / "deep/agents").mkdir(parents=True)
    (place / "deep/state").mkdir()
    (tmp_path / "way").symlink_to(place)
    (place / "second").symlink_to("deep")
    (place / "first").symlink_to("../ws/second")
    (place / "round").symlink_to("round")
    workspace = _opened(
        place,
        home=Home(tmp_path / "way/deep/state"),
        agents=[str(tmp_path / "way/first/agents"), str(place / "round/x")],
        token_file=str(tmp_path / "way/second/key"),
    )
    guarded = {"deep/agents/", "first", "second"}
    assert guarded <= {
        name if name[-7:] == "agents/" else name.rstrip("/") for name in workspace.protected
    }
    assert {"deep/state", "deep/key", "second"} <= set(workspace.hidden)
    assert set(workspace.present(workspace.hidden)) == {"deep/state"}


def test_links_are_guarded_along_their_way(place: Path, tmp_path: Path) -> None:
    """A guarded path is guarded where it really is, and at each symbolic link inside the workspace
    that leads there. (B-30)"""
    check_links(place, tmp_path)


@pytest.mark.parametrize(
    "places", [list, lambda paths: [Path(os.path.realpath(path)) for path in paths]]
)
def test_guards_of_one_name_are_caught(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: object
) -> None:
    """Guarding only what a path is called, or only where it ends, shows."""
    monkeypatch.setattr(workspace_module, "_places", places)
    with pytest.raises((AssertionError, SandboxError)):
        check_links(place, tmp_path)


def test_state_is_not_kept_in_the_workspace_itself(place: Path, tmp_path: Path) -> None:
    """A home that is the workspace, also by way of a link, is refused with what to do: it could not
    be hidden."""
    (tmp_path / "link").symlink_to(place)
    for path in (place, tmp_path / "link", place / "here/.."):
        with pytest.raises(SandboxError) as caught:
            _opened(place, home=Home(path))
        assert "PACELINE_HOME" in caught.value.next_step


async def test_a_workspace_of_agents_is_only_read(place: Path) -> None:
    """Where the workspace is, or lies in, the directory of agents, no command may write."""
    for agents in (place, place.parent):
        workspace = _opened(place, agents=[str(agents)])
        with pytest.raises(SandboxError, match="no command may change"):
            async with workspace.guarded():
                raise AssertionError
    assert not (place / ".git").exists()


def test_we_ourselves_are_guarded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment and the package that run us are read-only where they lie in the workspace,
    also behind a link."""
    monkeypatch.setattr(sys, "prefix", str(place / ".venv"))
    monkeypatch.setattr(setup, "__file__", str(place / "src/paceline/hostexec/setup.py"))
    assert {".venv/", "src/paceline/"} <= set(_opened(place).protected)
    (place / ".venv").symlink_to("/opt")
    assert ".venv/" in _opened(place).protected


def _agent(place: Path, **settings: Any) -> HostExecAgent:
    return host_agent(
        HostExecSettings(**{"workspace": str(place), **settings}),
        home=OUTSIDE,
        agents=(),
        environ={TOKEN: "correct-horse-battery-staple"},
        clock=VirtualClock(),
        redactor=Redactor(),
        on_warning=lambda _: None,
    )


def test_results_belong_to_where_and_how_they_were_made(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another policy, workspace, sandbox, user or service is another version of the agent, so that
    its results are its own; the same settings are the same version. (X-04)"""
    changes: list[dict[str, Any]] = [
        {},
        {"writes": True},
        {"workspace": str(place / "here")},
        {"sandbox": "limits"},
        {"run_as": 4242},
        {"mode": "service"},
        {"mode": "service", "url": "http://127.0.0.1:9001"},
    ]
    versions = [_agent(place, **change).VERSION for change in changes]
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    versions.append(_agent(place).VERSION)
    assert len(set(versions)) == len(versions)
    assert versions[-1] == _agent(place).VERSION


def test_a_service_may_write_what_our_policy_refuses(place: Path) -> None:
    """In service mode a command is planned for what it would do, allowed here or not; one that this
    policy does not know is taken to change the whole workspace. (S1-53)"""
    here, there = _agent(place), _agent(place, mode="service")
    for agent in (here, there):
        plan = agent.plan("rm here/a")
        assert plan.effect.kind is EffectKind.WRITE
        assert f"node:{place}/here/a" in plan.effect.tags
        assert f"tree:{place}" not in plan.effect.tags
        assert agent.plan("rm 'a") == Plan()
    unknown = there.plan("make install")
    assert (unknown.effect.kind, unknown.cacheable) == (EffectKind.WRITE, False)
    assert f"tree:{place}" in unknown.effect.tags
    assert here.plan("make install") == Plan()


class _Hand:
    """A clock that is moved by hand."""

    now_ns = 10**12

    def monotonic_ns(self) -> int:
        return self.now_ns

    wall_ns = monotonic_ns


class _Host:
    """Keeps the deadline it was given, and gives up after so long."""

    deadline_ns: int | None = None

    def __init__(self, clock: _Hand, takes_s: float) -> None:
        self._clock = clock
        self._takes_s = takes_s

    async def run(self, *_: object, deadline_ns: int | None = None, **__: object) -> CommandResult:
        self.deadline_ns = deadline_ns
        self._clock.now_ns += round(self._takes_s * 1e9)
        raise CallTimeoutError("out of time")


async def _asked(place: Path, left_s: float | None, takes_s: float = 0.0) -> tuple[Any, Any]:
    """Seconds that the host had, and those after which to try again."""
    clock = _Hand()
    host, now = _Host(clock, takes_s), clock.now_ns
    agent = HostExecAgent(host, default(), Workspace(place), clock=clock, version="1")
    call = Call(
        id="1",
        kind=Kind.AGENT,
        name="host_exec",
        arguments={},
        caller=Caller(),
        scope=Scope.of(Caller(), ScopeLevel.GLOBAL),
        plan=Plan(),
        deadline_ns=None if left_s is None else now + round(left_s * 1e9),
    )
    with pytest.raises(CallTimeoutError) as caught:
        await agent.run("uname", call=call)
    had = host.deadline_ns
    return None if had is None else (had - now) / 1e9, caught.value.retry_after_s


@pytest.mark.parametrize(
    ("left_s", "expected_s"), [(None, None), (60.0, 59.9), (2.0, 1.9), (0.5, 0.45), (-1.0, -1.0)]
)
async def test_the_host_speaks_before_the_time_is_up(
    place: Path, left_s: float | None, expected_s: float | None
) -> None:
    """The host's deadline is a tenth of a second, or of what is left, before the caller's: so its
    own account of the time limit arrives. (S1-21)"""
    assert (await _asked(place, left_s))[0] == expected_s


async def test_what_is_left_for_telling_is_no_time_for_another_try(place: Path) -> None:
    """A command that used up its caller's time is not tried again in the rest of it; one that met
    its own limit long before may be. (S1-21)"""
    for left_s, takes_s, again in ((2.0, 1.9, False), (2.0, 0.5, True), (None, 9.0, True)):
        remaining_s = None if left_s is None else left_s - takes_s
        _, after_s = await _asked(place, left_s, takes_s)
        error = CallTimeoutError("", retry_after_s=after_s)
        pause_s = RetryPolicy().pause_s(
            error, Effect.read(), attempt=1, remaining_s=remaining_s, rng=random.Random(1)
        )
        assert (pause_s is not None) == again
