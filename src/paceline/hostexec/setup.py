"""Host command execution as the settings ask for it: policy, workspace, host, agent."""

import hashlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from paceline.clock import Clock
from paceline.home import Home
from paceline.hostexec.agent import CommandHost, HostExecAgent
from paceline.hostexec.audit import AuditLog
from paceline.hostexec.embedded import EmbeddedHost
from paceline.hostexec.policy.decision import Policy
from paceline.hostexec.policy.file import PolicyFile
from paceline.hostexec.sandbox.workspace import Workspace
from paceline.redaction import Redactor, Secret
from paceline.settings import HostExecSettings

__all__ = [
    "embedded_host",
    "host_agent",
    "load_policy",
    "open_workspace",
    "policy_file",
    "service_client",
    "token_file",
]


def policy_file(settings: HostExecSettings) -> PolicyFile | None:
    """The policy file of the settings; None where they name none. Raises PolicyError."""
    return PolicyFile(Path(settings.policy), writes=settings.writes) if settings.policy else None


def load_policy(settings: HostExecSettings) -> Policy:
    """The policy file of the settings, else the read-only default. Raises PolicyError."""
    file = policy_file(settings)
    return file.policy if file else Policy.default(writes=settings.writes)


def open_workspace(
    settings: HostExecSettings,
    home: Home,
    agents: Sequence[Path],
    guarded: Sequence[Path] = (),
) -> Workspace:
    """The workspace, in which commands can change neither agents, policy, settings nor Paceline
    itself, and see nothing of our state.

    Relative paths start at the current directory. `guarded` are further files that commands may
    not change: the settings file in use, where it is not `./paceline.toml`. Raises SandboxError
    where the workspace cannot be used.
    """
    place = Path(os.path.realpath(settings.workspace))
    policy = [Path(settings.policy)] if settings.policy else []
    read_only = [*agents, *policy, *guarded, Path("paceline.toml"), *_ourselves(place)]
    unseen = [home.path, token_file(settings, home), Path(".paceline")]
    return Workspace.guarding(
        place,
        read_only=[path.absolute() for path in read_only],
        unseen=[path.absolute() for path in unseen],
    )


def _ourselves(workspace: Path) -> Iterator[Path]:
    """The programs that run us, as far as they lie in the workspace or it in them."""
    package = Path(__file__).resolve().parents[1]
    if workspace.resolve().is_relative_to(package):
        yield package
    for path in (Path(sys.prefix), Path(__file__).parents[1]):
        if any(place.is_relative_to(workspace) for place in (path, Path(os.path.realpath(path)))):
            yield path


def embedded_host(
    settings: HostExecSettings,
    *,
    policy: Policy,
    workspace: Workspace,
    home: Home,
    clock: Clock,
    redactor: Redactor,
    on_warning: Callable[[str], None],
) -> EmbeddedHost:
    """Commands in this process, with the audit log of this home."""
    return EmbeddedHost(
        settings,
        policy=policy,
        workspace=workspace,
        audit=AuditLog(home.audit, clock=clock, redactor=redactor),
        clock=clock,
        on_warning=on_warning,
    )


def service_client(
    settings: HostExecSettings, *, home: Home, environ: Mapping[str, str], clock: Clock
) -> CommandHost:
    """Commands through the service, with `$HOST_EXEC_TOKEN` or else the token file.

    Raises ConfigError where address or token cannot be used.
    """
    # Only who uses the service loads an HTTP client.
    from paceline.hostexec.http.client import HostExecClient  # noqa: PLC0415
    from paceline.hostexec.http.token import read_token  # noqa: PLC0415

    given = environ.get("HOST_EXEC_TOKEN")
    token = Secret(given) if given else read_token(token_file(settings, home))
    return HostExecClient(settings.url, token, clock=clock)


def token_file(settings: HostExecSettings, home: Home) -> Path:
    """Where the token of the service is kept."""
    return Path(settings.token_file) if settings.token_file else home.token


def host_agent(
    settings: HostExecSettings,
    *,
    home: Home,
    agents: Sequence[Path],
    environ: Mapping[str, str],
    clock: Clock,
    redactor: Redactor,
    on_warning: Callable[[str], None],
    guarded: Sequence[Path] = (),
) -> HostExecAgent:
    """The built-in agent, with commands run here or, in mode "service", by the service.

    `guarded` as for `open_workspace`. Raises PolicyError and SandboxError where policy or
    workspace cannot be used.
    """
    policy = load_policy(settings)
    workspace = open_workspace(settings, home, agents, guarded)
    host: CommandHost
    if settings.mode == "service":
        host = service_client(settings, home=home, environ=environ, clock=clock)
    else:
        host = embedded_host(
            settings,
            policy=policy,
            workspace=workspace,
            home=home,
            clock=clock,
            redactor=redactor,
            on_warning=on_warning,
        )
    return HostExecAgent(
        host,
        policy,
        workspace,
        clock=clock,
        version=_version(settings, policy, workspace),
        elsewhere=settings.mode == "service",
    )


def _version(settings: HostExecSettings, policy: Policy, workspace: Workspace) -> str:
    """A digest of what the result of a command depends on beside its words."""
    told = (
        policy.digest,
        settings.sandbox,
        settings.run_as,
        settings.mode,
        settings.url if settings.mode == "service" else "",
        os.geteuid(),
        str(workspace.path),
    )
    return hashlib.sha256(repr(told).encode()).hexdigest()
