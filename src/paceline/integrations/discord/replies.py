"""What the bot says: figures, agents, results, errors. Pure."""

import re
from collections.abc import Sequence
from typing import Final

from paceline.agents.spec import AgentSpec
from paceline.call import Outcome
from paceline.cli.execute import value_text
from paceline.errors import CallTimeoutError, PacelineError, UnknownAgentError
from paceline.hostexec.text import error_text
from paceline.integrations.discord.pages import Reply, blocks_reply, text_reply
from paceline.metrics.figures import Snapshot
from paceline.metrics.report import Sort, blocks
from paceline.redaction import Redactor

__all__ = ["agents_reply", "problem_reply", "result_reply", "statistics_reply"]

_MARKUP: Final = re.compile(r"([\\*_~`|<>\[\]()#:@-])")
_MORE_TIME: Final = "Ask for less. Who runs this bot can allow more time: `discord.timeout_s`, TIMEOUT in the agent."
_NOTHING: Final = "(nothing)"


def statistics_reply(snapshot: Snapshot, *, agent: str | None, sort: Sort) -> Reply:
    """The text of `paceline stats`, byte for byte; of one agent, or of all in this order.

    Raises UnknownAgentError for an agent that was never called.
    """
    if agent is not None and agent not in snapshot.agents:
        raise UnknownAgentError(
            f"no call of {agent!r} is recorded", next_step="Leave the agent out to see all of them."
        )
    only = None if agent is None else (agent,)
    return blocks_reply(blocks(snapshot, sort=sort, agents=only), file_name="statistics.txt")


def agents_reply(agents: Sequence[AgentSpec], *, broken: int) -> Reply:
    """A line for each agent; `broken` is how many modules cannot be used."""
    lines = [_agent_line(spec) for spec in sorted(agents, key=lambda spec: spec.name)]
    if broken:
        lines.append(
            f"{broken} more cannot be used; `paceline agents` says why, where this bot runs."
        )
    listed = "\n".join(lines) or "There are none."
    return blocks_reply(["**Agents**", listed], file_name="agents.txt")


def _agent_line(spec: AgentSpec) -> str:
    about = " ".join(spec.description.split())
    return f"**{_plain(spec.name)}**" + (f": {_plain(about)}" if about else "")


def _plain(text: str) -> str:
    """Without a meaning for what Discord takes for markup, a link or a mention."""
    return _MARKUP.sub(r"\\\1", text)


def result_reply(outcome: Outcome, *, redactor: Redactor, file_bytes: int) -> Reply:
    """The value, with secrets masked, as a text that cannot be taken for ours."""
    text = "" if outcome.value is None else redactor.text(value_text(outcome.value))
    return text_reply(
        text if text.strip() else _NOTHING,
        file_name=f"{outcome.name}.txt",
        file_bytes=file_bytes,
    )


def problem_reply(
    error: PacelineError, text: str, *, redactor: Redactor, file_bytes: int, agents_command: str
) -> Reply:
    """What went wrong with the input `text`, and what to do about it."""
    shown = error_text(_advised(error, agents_command), text, redactor=redactor)
    return text_reply(shown, file_name="error.txt", file_bytes=file_bytes)


def _advised(error: PacelineError, agents_command: str) -> PacelineError:
    """With advice for those who have no command line, where ours is not for them."""
    if isinstance(error, CallTimeoutError):
        return CallTimeoutError(error.message, next_step=_MORE_TIME)
    if isinstance(error, UnknownAgentError) and error.next_step == error.advice:
        listed = f"/{agents_command} lists what there is."
        return UnknownAgentError(error.message, next_step=listed)
    return error
