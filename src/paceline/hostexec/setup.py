"""Host command execution as the settings ask for it: policy, workspace, host, agent."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from paceline.clock import Clock
from paceline.config import HostExecSettings
from paceline.home import Home
from paceline.hostexec.agent import CommandHost, HostExecAgent
from paceline.hostexec.audit import AuditLog
from paceline.hostexec.embedded import EmbeddedHost
from paceline.hostexec.policy.decision import Policy
from paceline.hostexec.policy.file import PolicyFile
from paceline.hostexec.sandbox.workspace import Workspace
from paceline.redaction import Redactor, Secret

__all__ = [
    "embedded_host",
    "host_agent",
    "load_policy",
    "open_workspace",
    "service_client",
    "token_file",
]


def load_policy(settings: HostExecSettings) -> Policy:
    """The policy file of the settings, else the read-only default. Raises PolicyError."""
    if not settings.policy:
        return Policy.default(writes=settings.writes)
    return PolicyFile(Path(settings.policy), writes=settings.writes).policy


def open_workspace(settings: HostExecSettings, home: Home, agents: Sequence[Path]) -> Workspace:
    """The workspace, in which commands can change neither agents nor policy, nor see our state.

    Raises SandboxError where it cannot be used.
    """
    policy = [Path(settings.policy)] if settings.policy else []
    return Workspace.guarding(
        Path(settings.workspace), read_only=[*agents, *policy], unseen=[home.path]
    )


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
) -> HostExecAgent:
    """The built-in agent, with commands run here or, in mode "service", by the service.

    Raises PolicyError and SandboxError where policy or workspace cannot be used.
    """
    policy = load_policy(settings)
    workspace = open_workspace(settings, home, agents)
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
    return HostExecAgent(host, policy, workspace)
