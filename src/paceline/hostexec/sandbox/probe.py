"""Whether the sandbox holds: a canary inside tries what no command may, and reports.

The canary is a shell script of ours, started past the policy; no policy can name it.
"""

import asyncio
from typing import Final

import msgspec

from paceline.errors import SandboxError
from paceline.hostexec.sandbox.command import Command
from paceline.hostexec.sandbox.level import Sandbox, launch_failure
from paceline.hostexec.sandbox.limits import Limits
from paceline.hostexec.sandbox.process import run
from paceline.hostexec.sandbox.workspace import Workspace

__all__ = ["Finding", "probe"]

_TIMEOUT_S: Final = 10.0
_MOST_PIDS: Final = 4
_FORBIDDEN_PATHS: Final = ("/etc/shadow", "/root", "/home")
_ENVIRONMENT: Final = frozenset({"PATH", "LANG", "HOME", "PWD", "OLDPWD", "SHLVL", "_"})

# Prints `name=value` lines. What a level hides from it simply stays unsaid.
_CANARY: Final = r"""
say() { printf '%s=%s\n' "$1" "$2"; }
while read -r key value rest; do
  case $key in
    Uid:) say uid "$value" ;;
    Cap*:) say "$key" "$value" ;;
    NoNewPrivs:) say new_privileges "$value" ;;
  esac
done </proc/self/status
read -r _ _ _ _ _ session _ </proc/self/stat && say session "$session"
names() { tr '\0' '\n' <"$1" | sed 's/=.*//' | tr '\n' ' '; }
say environment "$(names /proc/self/environ)"
say environment_of_first "$(names /proc/1/environ)"
set -- /proc/[0-9]*; say pids $#
say descriptors "$(ls /proc/self/fd | tr '\n' ' ')"
for path in /etc/shadow /root /home; do
  [ -e "$path" ] && say exists "$path"
  { [ -d "$path" ] && ls "$path" >/dev/null; } || head -c 1 "$path" >/dev/null && say opens "$path"
done
command -v unshare >/dev/null && {
  if unshare -U true; then say user_namespace open; else say user_namespace refused; fi
}
if command -v bash >/dev/null; then bash -c "exec 3<>/dev/tcp/127.0.0.1/$PORT"; say tcp tried
elif command -v perl >/dev/null; then
  perl -MIO::Socket::INET -e "IO::Socket::INET->new('127.0.0.1:$PORT')"; say tcp tried
elif command -v python3 >/dev/null; then
  python3 -c "import socket; socket.create_connection(('127.0.0.1', $PORT))"; say tcp tried
fi
say end reached
"""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing tried."""

    name: str
    ok: bool
    """It was refused, as it should be."""
    required: bool
    """The level promises so; where it does not, `ok` is only for information."""
    detail: str
    """What was seen."""


async def probe(sandbox: Sandbox, workspace: Workspace) -> tuple[Finding, ...]:
    """Runs the canary and judges what it saw. Raises SandboxError if it cannot be run at all."""
    connections = 0

    def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        port = int(server.sockets[0].getsockname()[1])
        seen = await _canary(sandbox, workspace, port)
    finally:
        server.close()
        await server.wait_closed()
    return _judge(seen, connections, sandbox.level)


async def _canary(sandbox: Sandbox, workspace: Workspace, port: int) -> dict[str, str]:
    bubblewrap = sandbox.level == "bubblewrap"
    command = Command(
        argv=("/usr/bin/sh", "-c", _CANARY.replace("$PORT", str(port))),
        # the weaker levels show a process nothing of itself but with the list of processes
        view="none" if bubblewrap else "processes",
    )
    limits = Limits()
    ended = await run(
        sandbox.launch(command, limits, workspace),
        timeout_s=_TIMEOUT_S,
        output_bytes=limits.output_bytes,
        drain_s=limits.drain_s,
    )
    seen: dict[str, str] = {}
    for line in ended.stdout.decode(errors="replace").splitlines():
        name, _, value = line.partition("=")
        seen[name] = f"{seen[name]} {value}" if name in seen else value
    if "end" not in seen:
        raise SandboxError(
            f"the canary did not get to its end: {launch_failure(ended) or ended.stopped or ended.code}"
        )
    return seen


def _judge(seen: dict[str, str], connections: int, level: str) -> tuple[Finding, ...]:
    strong, some = level == "bubblewrap", level != "limits"
    # The weaker levels leave the bounding set as it is: no new privileges makes it void.
    wanted = ("CapEff:", "CapPrm:", "CapInh:", "CapAmb:", *(("CapBnd:",) if strong else ()))
    capabilities = [seen.get(name, "unknown") for name in wanted]
    names = {*seen.get("environment", "").split(), *seen.get("environment_of_first", "").split()}
    strangers = sorted(names - _ENVIRONMENT)
    paths = seen.get("exists" if level == "bubblewrap" else "opens", "")
    pids = int(seen.get("pids", "0"))
    namespace = seen.get("user_namespace", "not tried: there is no unshare")
    tcp = f"{connections} connections" if "tcp" in seen else "not tried: no program for it"
    rows: tuple[tuple[str, bool, bool, str], ...] = (
        ("not root", seen.get("uid", "0") != "0", True, f"uid {seen.get('uid')}"),
        (
            "no capabilities",
            all(value.strip("0") == "" for value in capabilities),
            True,
            " ".join(sorted(set(capabilities))),
        ),
        ("no new privileges", seen.get("new_privileges") == "1", True, "NoNewPrivs"),
        ("clean environment", not strangers, True, " ".join(strangers) or "only ours"),
        ("own session", seen.get("session", "0") not in {"", "0"}, True, "session id"),
        (
            "no inherited files",
            set(seen.get("descriptors", "x").split()) <= {"0", "1", "2", "3"},
            True,
            seen.get("descriptors", ""),
        ),
        ("host files absent", not paths, some, paths or ", ".join(_FORBIDDEN_PATHS)),
        ("host processes absent", 0 < pids <= _MOST_PIDS, strong, f"{pids} process ids"),
        ("no connection to the host", tcp == "0 connections", some, tcp),
        ("no nested user namespaces", namespace == "refused", strong, namespace),
    )
    return tuple(
        Finding(name=name, ok=ok, required=required, detail=detail)
        for name, ok, required, detail in rows
    )
