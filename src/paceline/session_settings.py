"""Settings of sessions: the models they ask, where their tools come from, what a turn may take, and
what is called ahead of it."""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from paceline.bounds import AtLeastOne, Count, Limit, Rate, Seconds, Share

__all__ = ["ChatSettings", "McpSettings", "ModelSettings", "PredictSettings"]


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `[models.NAME]`: a model that sessions ask by this name. A fleet whose instances are of
    kind openai is a model too, and needs no entry here but for what differs."""

    kind: Literal["", "openai", "pydantic_ai", "embedded", "replay"] = ""
    """openai is a server that speaks OpenAI's chat completions, pydantic_ai any provider of that
    package, embedded a small model that runs here, replay what was recorded; "" a fleet."""
    url: str = ""
    """The base address of an openai server, such as "http://127.0.0.1:8000/v1"."""
    model: str = ""
    """The model that the server is asked for; for pydantic_ai with its provider, such as
    "anthropic:claude-sonnet-4-5"; for embedded its file, if not the one that is installed."""
    token_env: str = ""
    """Name of the environment variable with its token, if it wants one."""
    path: str = ""
    """The file of a replay."""
    temperature: Annotated[float, Meta(ge=0, le=10)] | None = None
    """How much answers vary; its own, if left out."""
    max_tokens: AtLeastOne | None = None
    """Of one answer."""
    seed: int | None = None
    cache: bool | None = None
    """Whether answers are kept for the same request; if left out, those of temperature 0 are."""
    cache_ttl_s: Seconds = 300.0
    """For how long."""
    timeout_s: Limit | None = None
    """Limit of one answer; if left out, that of a fleet, else 120 seconds."""
    max_concurrency: AtLeastOne = 64
    """Answers at once, of a model that is no server."""
    fallback: tuple[str, ...] = ()
    """Models that are asked in turn when this one cannot answer."""


class McpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `[mcp.NAME]`: a server of the Model Context Protocol whose tools sessions may use."""

    command: tuple[str, ...] = ()
    """What starts it, with its arguments; it is spoken to by its standard input and output."""
    url: str = ""
    """Where it is, in place of a command."""
    env: tuple[str, ...] = ()
    """Names of environment variables that it gets, besides PATH, HOME and LANG."""
    token_env: str = ""
    """Name of the environment variable with the token for its url, if it wants one."""
    timeout_s: Limit = 60.0
    """Limit of one call."""
    tools: tuple[str, ...] = ("*",)
    """Patterns (`*`, `?`) of its tools that are used."""
    approve: Literal["destructive", "all", "none"] = "destructive"
    """Which calls a person is asked about first: those that may destroy something, by what the
    server says of its tools, all that may change anything, or none."""
    trust: bool = True
    """Whether what it says of the effects of its tools is believed. If not, nothing is known."""
    ttl_s: Seconds = 0.0
    """How long results of tools that only read are kept; by default not at all."""


class ChatSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Sessions. 0 is no limit, but for the first three."""

    model: str = ""
    """The model of a session that names none; if left out, the only one there is, else the
    embedded one."""
    system: str = ""
    """What the model is told before everything else."""
    tools: tuple[str, ...] = ("*",)
    """Patterns (`*`, `?`) of the tools and agents that a session gets in `paceline chat`."""
    approve: tuple[str, ...] = ()
    """Patterns of tools and agents that a person is asked about before each run, besides those that
    say so themselves."""
    keep: bool = True
    """Whether sessions are kept, so that they can be gone on with."""
    max_concurrent_tools: AtLeastOne = 4
    max_memory_mb: Count = 1024
    """Of this process: beyond it caches are emptied, and fewer tools run at once."""
    max_execution_s: Limit = 300.0
    """One turn, with all that it calls."""
    max_tool_retries: Count = 3
    """After the first attempt, where trying again does no harm."""
    tool_timeout_s: Limit = 60.0
    """One execution of a tool that has no limit of its own."""
    max_steps: AtLeastOne = 50
    """Answers of the model in one turn."""
    max_tool_calls: Count = 0
    """Of one turn."""
    max_fan_out: AtLeastOne = 64
    """Tools that one answer may ask for; the model is told that the others were not run."""
    max_turn_tokens: Count = 0
    max_turn_usd: Rate = 0.0
    max_session_tokens: Count = 0
    """Of all turns of a session together; once they are used up no message is answered."""
    max_session_usd: Rate = 0.0
    max_turns_kept: AtLeastOne = 100
    """Turns that the model still sees."""
    max_context_tokens: Count = 0
    """Of what the model sees, by estimate."""
    compact: Literal["digest", "model"] = "digest"
    """What stands for turns that the model no longer sees: a line for each, or a summary that it is
    asked for between turns."""
    approval_timeout_s: Seconds = 0.0
    """How long a turn waits for a person."""


class PredictSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Prediction: what sessions are likely to call next is learnt, and what only reads is called ahead,
    so that its result is there when it is asked for. A limit of 0 calls nothing ahead."""

    learn: bool = True
    """Whether anything is learnt of sessions."""
    speculate: bool = True
    """Whether anything is called ahead. Off, predictions are only scored."""
    outside: bool = False
    """Whether tools that reach outside may be called ahead: it tells others what a user may be about to
    ask."""
    models: bool = False
    """Whether models may be asked ahead."""
    share: Literal["user", "tenant", "all"] = "user"
    """Among whom habits are learnt; without a user that is known, of the session alone."""
    extra_calls: Share = 0.3
    """Calls ahead that nobody uses, for one real call that reads."""
    launches_per_minute: Count = 60
    """Calls ahead in all."""
    tool_launches_per_minute: Count = 20
    """Of one tool."""
    session_launches_per_minute: Count = 30
    """In one session."""
    work_s_per_minute: Seconds = 60.0
    """What all calls ahead take together, in seconds; those of one tool, or of one session, no more than
    half of it at once."""
    usd_a_day: Rate = 0.0
    """What all calls ahead may cost, in US dollars in any 24 hours, half of it at once, and a quarter
    those of one tool, model or session; 0 for those that cost nothing."""
    at_once: Count = 3
    """Calls ahead at one moment of a session."""
    usd_an_hour: Rate = 20.0
    """What an hour of somebody's waiting is worth, in US dollars: what it may cost to save one."""
    patterns: AtLeastOne = 10_000
    """Habits that are remembered of all together; of one user a tenth."""
    scopes: AtLeastOne = 100
    """Users, or tenants, of whom habits are remembered."""
