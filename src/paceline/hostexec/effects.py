"""What running an allowed command means to the cache: its effect on files, and how long its result
stays true.

The rule says how long: an hour for what only changes with the machine, a minute for disks and
processes, and 0, never, for files, for the network and for anything that changes something.
"""

import os
from collections.abc import Callable
from pathlib import PurePosixPath

from paceline.call import Effect, Plan
from paceline.hostexec.policy.rule import GrantedCommand, Rule
from paceline.hostexec.sandbox.workspace import Workspace
from paceline.tags import file_reads, file_writes

__all__ = ["plan"]


def plan(
    granted: GrantedCommand,
    workspace: Workspace,
    *,
    resolve: Callable[[PurePosixPath], str] = os.path.realpath,
) -> Plan:
    """How a call that runs this command is to be treated.

    Its tags are those of the files it names in `workspace`, each also where its symbolic links
    lead (`resolve`); those of the whole workspace where it names none. Commands that do not see
    the workspace have no tags. The time limit is left to the host, which learns it.
    """
    rule = granted.rule
    if rule.effect == "write":
        effect = Effect.write(*file_writes(*_places(rule, granted.writes, workspace, resolve)))
    else:
        named = granted.reads if rule.reads == "named" else ()
        effect = Effect.read(*file_reads(*_places(rule, named, workspace, resolve)))
    return Plan(effect=effect, ttl_s=rule.ttl_s, scope=rule.scope, signature=rule.id)


def _places(
    rule: Rule,
    names: tuple[str, ...],
    workspace: Workspace,
    resolve: Callable[[PurePosixPath], str],
) -> list[PurePosixPath]:
    if not rule.workspace:
        return []
    root = PurePosixPath(workspace.path)
    paths = [root / name for name in names] or [root]
    return [*paths, *(PurePosixPath(resolve(path)) for path in paths)]
