"""All settings, with their types, bounds, defaults and meanings; `paceline.config` reads them."""

from datetime import date, datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from paceline.bounds import AtLeastOne, Count, Limit, Rate, Seconds, Share
from paceline.session_settings import (
    ChatSettings,
    McpSettings,
    ModelSettings,
    PredictSettings,
)

__all__ = [
    "HEEDED_BY",
    "SECRET",
    "AgentSettings",
    "AlertSettings",
    "BalanceSettings",
    "BudgetPer",
    "BudgetSettings",
    "BudgetWindow",
    "CacheSettings",
    "ChatSettings",
    "DiscordSettings",
    "FleetSettings",
    "HistorySettings",
    "HostExecSettings",
    "InstanceSettings",
    "McpSettings",
    "MetricsSettings",
    "ModelSettings",
    "ObjectiveSettings",
    "Per",
    "PredictSettings",
    "PriceSettings",
    "RuleSettings",
    "RunSettings",
    "Settings",
    "Severity",
    "SilenceSettings",
    "Window",
]

Name = Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_]*$", max_length=100)]
Window = Literal["1m", "5m", "1h", "24h"]
Per = Literal["agent", "all"]
Severity = Literal["critical", "warning", "info"]
BudgetPer = Literal["all", "user", "agent"]
BudgetWindow = Literal["day", "month", "run"]
Above0 = Annotated[float, Meta(gt=0)]
CommandName = Annotated[str, Meta(pattern=r"^[-_a-z0-9]{1,32}$")]

SECRET: Final = frozenset(
    {"alerts.discord_url", "alerts.slack_url", "alerts.webhook_token", "alerts.webhook_url"}
)
"""Settings whose values are shown nowhere."""


class RunSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The call path. Times in seconds."""

    timeout_s: Limit = 60.0
    """Limit of one execution where the agent sets none. A call that is tried again may take longer;
    its caller's `timeout` is for all of it."""
    max_concurrency: AtLeastOne = 64
    """Calls executing at once, over all agents."""
    max_queue: Count = 1_000
    """Calls waiting for one limit (the runtime, an agent, a fleet); one more is refused as
    overloaded."""
    threads: AtLeastOne = 16
    """Synchronous agents running at once."""
    max_attempts: AtLeastOne = 3
    """Executions of one call at most, where repeating it is safe."""
    drain_s: Seconds = 5.0
    """How long closing waits for calls in flight before it cancels them."""


class BalanceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What holds when things fail or are slow, for all agents. Times in seconds."""

    circuit_failures: Count = 7
    """So many failures of an agent or instance in a row, and it is left alone for a while; 0 for
    never."""
    circuit_wait_s: Limit = 5.0
    """For how long at first; twice as long each time that it still fails."""
    circuit_longest_wait_s: Limit = 120.0
    """For how long at most."""
    retry_share: Share = 0.1
    """Retries of all calls together, as a share of the calls."""
    hedge_share: Share = 0.05
    """Second executions of reads that take longer than the slowest 5 % did, as a share of the calls
    of fleets that hedge."""
    shortest_timeout_s: Limit = 1.0
    """Limits learnt from what executions at instances took are never shorter than this."""
    ageing_s: Limit = 10.0
    """Who has waited in a queue for so long goes before what is one level more urgent."""
    health_interval_s: Limit = 10.0
    """Time between two looks at whether an instance is there."""
    slow_start_s: Seconds = 10.0
    """How long an instance that is back takes to get its full share again."""


HEEDED_BY: Final = {
    "url": ("http", "openai"),
    "model": ("openai",),
    "token_env": ("http", "openai"),
    "function": ("worker",),
    "env": ("worker",),
    "memory_mb": ("worker",),
}
"""Settings of instances that have a meaning for some kinds only."""


class InstanceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `[[fleets.NAME.instances]]`."""

    kind: Literal["local", "worker", "http", "openai"] = "http"
    """local is the agent's own module, worker a process of its own that runs `function`, http an
    agent elsewhere, openai a model behind a server that speaks OpenAI's chat completions."""
    id: Annotated[str, Meta(max_length=100)] = ""
    """Its name among the others; by its kind and place in the list, if left out."""
    url: str = ""
    """Where an http instance takes calls; for openai the base address, such as
    "http://127.0.0.1:8000/v1"."""
    model: str = ""
    """The model that an openai instance is asked for."""
    token_env: str = ""
    """Name of the environment variable with its token, if it wants one."""
    function: str = ""
    """What a worker runs, such as "package.module:function"."""
    env: tuple[str, ...] = ()
    """Names of environment variables that a worker gets, besides PATH, PYTHONPATH and LANG."""
    memory_mb: Count = 1024
    """What the data of a worker may take, in MiB; 0 for no limit. A call beyond it fails."""
    capacity: Count = 10
    """Calls at once; 0 gives it none."""
    weight: Annotated[float, Meta(ge=0, le=1e6)] = 1.0
    """Its share relative to the others; 0 gives it nothing."""
    requests_per_minute: Count = 0
    """Its limit, 0 for none that is known. What its answers say of limits is heeded anyway."""
    tokens_per_minute: Count = 0
    """Input and output together; 0 for no limit that is known."""
    zone: str = ""
    """Where it is; calls can prefer one."""
    version: str = ""
    """Of what it runs, for those who look."""
    labels: dict[str, str] = {}
    """Names and values that calls can ask for."""
    context_window: Count = 0
    """Tokens it can take, 0 for no limit that is known."""
    modalities: tuple[str, ...] = ("text",)
    """What it understands, such as "text" and "image"."""
    input_usd: Rate = 0.0
    """US dollars per million tokens of input."""
    output_usd: Rate = 0.0
    """US dollars per million tokens of output."""

    def named(self, number: int) -> str:
        """Its id, as the one of this place (from 1) in the list."""
        return self.id or f"{self.kind}-{number}"


class FleetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `[fleets.NAME]`: the instances of the agent of this name, how calls are spread over
    them, and what answers when they cannot. Without an agent module of the name, it is an agent
    of its own."""

    instances: tuple[InstanceSettings, ...] = ()
    """The module of the agent alone, if left out."""
    strategy: Literal[
        "auto",
        "round_robin",
        "least_loaded",
        "weighted",
        "random",
        "smooth_weighted",
        "power_of_two",
        "peak_ewma",
        "consistent_hash",
        "prequal",
        "cheapest",
        "cache_aware",
        "learned_work",
    ] = "auto"
    """How an instance is chosen; auto is learned_work where there are models, else least_loaded."""
    concurrency: Literal["fixed", "gradient", "aimd"] = "fixed"
    """Whether the limit of each instance is its capacity, or found below it by its latency
    (gradient) or its failures (aimd)."""
    hedge: bool = False
    """Ask a second instance when a read takes longer than the slowest 5 % did."""
    fallback: tuple[str, ...] = ()
    """What is tried in turn when all instances have failed: "agent NAME", "stale" for a result of
    before, "text ..." for a fixed answer."""
    description: str = ""
    """For those who look; this and what follows is for fleets without an agent module."""
    effect: Literal["pure", "read", "write", "unknown"] = "unknown"
    """What its calls do: what is read or pure can be kept, repeated and asked twice."""
    cache_ttl_s: Seconds | None = None
    """How long a result is valid, if not as long as others."""
    timeout_s: Limit | None = None
    """Limit of one execution, if not that of all agents."""


class CacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Result cache."""

    enabled: bool = True
    hot_entries: Count = 1_000
    """Results kept in memory."""
    hot_bytes: Count = 64 * 1024 * 1024
    """Size limit of the results kept in memory, in bytes; 0 is no limit."""
    policy: Literal["auto", "gdsf", "lirs", "lru", "s3fifo", "w-tinylfu"] = "auto"
    """Which results leave memory first; auto chooses while it runs what would hit most."""
    warm_bytes: Count = 256 * 1024 * 1024
    """Size limit of the cache file, in bytes; 0 turns the warm tier off."""
    warm_start_entries: Count = 0
    """Results brought from the file into memory when Paceline starts, beside the first calls: those
    first that were asked for again."""
    default_ttl_s: Seconds = 300.0
    """How long a result is valid where its agent does not say."""
    jitter: Share = 0.0
    """Lifetimes are shortened at random by up to this share, so that results stored together do
    not expire together; 0 to 1."""
    early_refresh: Annotated[float, Meta(ge=0, le=100)] = 0.0
    """Compute results anew shortly before they expire, the earlier the longer that takes: the
    beta of XFetch, 0 for never, 1 as its authors propose."""
    stale_s: Seconds = 0.0
    """How long an expired result is served while it is computed anew, where its agent does not
    say."""
    stale_if_error_s: Seconds = 0.0
    """How long an expired result is served if computing it anew fails, where its agent does not
    say."""
    lease_wait_s: Seconds = 30.0
    """How long to wait for another process that computes the same result, before computing it
    here; 0 does not wait."""
    shared_url: str = ""
    """Address of the cold tier that machines share, such as "redis://127.0.0.1:6379/0"; empty
    for none. Needs the extra `paceline[redis]`."""
    shared_budget_s: Limit = 0.05
    """How long each request to the cold tier may take, of which a call makes up to five; then it is
    a miss."""
    shared_namespace: Annotated[str, Meta(min_length=1)] = "paceline"
    """Beginning of all names in the cold tier: those who share results use the same."""


class AgentSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Agent modules."""

    dir: Annotated[str, Meta(min_length=1)] = "agents"
    """Directory of agent modules; relative to where Paceline is started. Any other than the
    default has to exist."""
    watch: bool = True
    """Reload a module when its file changes."""
    import_timeout_s: Limit = 10.0
    """Limit for importing one module."""
    legacy_default_cacheable: bool = False
    """Treat modules that declare neither CACHEABLE nor EFFECT as cacheable, as older bots did."""


class HistorySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The record of every call."""

    enabled: bool = True
    retention_days: Limit = 30.0
    """Older records are removed."""
    max_records: AtLeastOne = 1_000_000
    """Beyond this the oldest records are removed."""
    inputs: bool = True
    """Store inputs (redacted). Off, only their hash is stored."""


class HostExecSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Host commands."""

    mode: Literal["embedded", "service", "off"] = "embedded"
    """Run commands in this process, through a host command service, or not at all."""
    sandbox: Literal["auto", "bubblewrap", "landlock", "limits"] = "auto"
    """Isolation level; auto takes the strongest that works here and says which."""
    policy: str = ""
    """Path of a policy file; empty for the read-only default."""
    workspace: str = "."
    """The one directory that commands may name files in."""
    writes: bool = False
    """Allow the policy's rules that change the workspace."""
    run_as: Annotated[int, Meta(ge=0, le=2**31 - 1)] = 61_187
    """User id that commands run as when Paceline runs as root; not 0, which is root."""
    timeout_s: Limit = 15.0
    """First limit of a command; adapts to what its kind of command takes."""
    slow_timeout_s: Limit = 30.0
    """The same for rules marked slow (find, grep)."""
    concurrency: AtLeastOne = 4
    max_queue: Count = 16
    memory_bytes: Annotated[int, Meta(ge=16 * 1024**2)] = 1024**3
    """Address space of each process; at least 16 MiB."""
    output_bytes: Annotated[int, Meta(ge=1024)] = 256 * 1024
    """Kept of each output stream; a command that prints more is stopped. At least 1 KiB."""
    processes: Annotated[int, Meta(ge=2)] = 64
    """Processes of one command at once; at least 2."""
    url: str = "http://127.0.0.1:9000"
    """Address of the service, in mode "service"."""
    token_file: str = ""
    """File with the service's token (mode 0600); empty for the one in the state directory."""


class MetricsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Figures, and who may fetch them or is sent them."""

    max_series: AtLeastOne = 1_000
    """Names and labels with figures of their own; further ones are counted together."""
    listen: str = ""
    """Address at which a running runtime serves `/metrics` for Prometheus, and as JSON `/health`,
    `/performance`, `/performance/AGENT` and `/slow-operations`, such as "127.0.0.1:9464"; empty for
    none. Needs the extra `paceline[prometheus]`."""
    hosts: str = ""
    """Further names by which requests for `/metrics` may call this machine, with commas between
    them; IP addresses, localhost and the host of `listen` always may."""
    names: Literal["native", "sel"] = "native"
    """Names of the metrics; sel gives those of an earlier service as well."""
    otlp_endpoint: str = ""
    """Base address of an OpenTelemetry receiver, such as "http://localhost:4318"; empty for none.
    Headers and times come from OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_HEADERS` and
    so on). Needs the extra `paceline[otel]`."""
    otlp_names: Literal["util-genai-1.3", "genai-main"] = "util-genai-1.3"
    """Which generation of OpenTelemetry's names for generative AI is used."""


class RuleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `[[alerts.rules]]`. A rule with the name of a default rule takes its place."""

    name: Name
    metric: str
    """What is watched; `paceline alerts --metrics` lists what there is."""
    above: float | None = None
    """Fires beyond this; either this or `below`."""
    below: float | None = None
    """Fires under this."""
    resolve: float | None = None
    """Where a firing alert ends: at or below this for `above`, at or over it for `below`. The
    bound it fires at, if left out."""
    window: Window = "5m"
    """The span of time that figures are of."""
    for_s: Seconds = 60.0
    """How long it has to hold before it fires."""
    keep_s: Seconds = 60.0
    """How long it has to be over before it is resolved."""
    min_count: Count = 20
    """Calls in the window below which nothing fires."""
    per: Per = "agent"
    """One alert for each agent, or one for all together."""
    agents: tuple[str, ...] = ()
    """Patterns (`*`, `?`) of the agents it is for; all, if left out."""
    severity: Severity = "warning"
    slower_than_ms: Above0 | None = None
    """The bound of `slow_share`, in milliseconds."""
    labels: dict[str, str] = {}
    """Further labels of its alerts."""
    summary: str = ""
    """A sentence for those who are told; the figures are added."""


class ObjectiveSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `[[alerts.objectives]]`: a service level whose budget of failures is watched."""

    name: Name
    objective: Annotated[float, Meta(gt=0, lt=1)]
    """The share of calls that are to be good, such as 0.99."""
    latency_ms: Above0 | None = None
    """Good is what takes no longer than this; if left out, what succeeds."""
    min_count: Count = 20
    """Calls in the short window below which nothing fires."""
    per: Per = "agent"
    agents: tuple[str, ...] = ()
    labels: dict[str, str] = {}


class SilenceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `[[alerts.silences]]`: alerts that nobody is told of until a time."""

    until: Annotated[datetime, Meta(tz=True)]
    """A date and time with its zone."""
    rule: str = "*"
    """A pattern of rule names."""
    labels: dict[str, str] = {}
    """Patterns of labels; all have to fit."""
    reason: str = ""


class AlertSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Alerts: rules on the figures, and who is told."""

    enabled: bool = True
    """Watch the rules while a runtime is open."""
    defaults: bool = True
    """Watch the default rules as well."""
    interval_s: Annotated[float, Meta(ge=1, le=3600)] = 15.0
    """Time between two looks at the figures."""
    repeat_s: Limit = 14_400.0
    """How long until those who were told of an alert that goes on are told again."""
    log: bool = True
    """Write alerts to the log `paceline`."""
    webhook_url: str = ""
    """Gets alerts in the form of Alertmanager's webhooks (version 4); empty for none. Secret:
    better given as `PACELINE_ALERTS_WEBHOOK_URL`, and so are the other addresses."""
    webhook_token: str = ""
    """Sent to the webhook as a bearer token, if given. Secret."""
    discord_url: str = ""
    """A webhook of Discord; empty for none. Secret."""
    slack_url: str = ""
    """An incoming webhook of Slack; empty for none. Secret."""
    timeout_s: Limit = 10.0
    """How long sending may take before it is tried again."""
    drain_s: Seconds = 5.0
    """How long closing waits for what is still to be sent."""
    rules: tuple[RuleSettings, ...] = ()
    objectives: tuple[ObjectiveSettings, ...] = ()
    silences: tuple[SilenceSettings, ...] = ()


class DiscordSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The Discord bot. Its token is in the environment, as PACELINE_DISCORD_TOKEN. Nobody may use
    what is not allowed here. Ids are Discord's, with commas between them."""

    users: str = ""
    """Ids of users who may use every command, in direct messages too."""
    stats_roles: str = ""
    """Ids of roles that may see the statistics."""
    agents_roles: str = ""
    """Ids of roles that may list the agents."""
    run_roles: str = ""
    """Ids of roles that may run agents."""
    stats_command: CommandName = "sel_agent_stats"
    """Name of the command that shows the statistics."""
    agents_command: CommandName = "agents"
    """Name of the command that lists the agents."""
    run_command: CommandName = "run"
    """Name of the command that runs an agent."""
    timeout_s: Annotated[float, Meta(gt=0, le=840)] = 60.0
    """Limit of one run, waiting included; Discord takes answers for a quarter of an hour."""


class PriceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One price of `[prices."MODEL"]`, in US dollars per million tokens. A model can have several,
    as `[[prices."MODEL"]]`, each from another day. The name can be a pattern (`*`, `?`); the
    longest that fits counts, and one without a pattern fits the model's dated editions too."""

    since: date = msgspec.field(name="from")
    """The first day of this price, in UTC."""
    input: Rate
    output: Rate
    cached_input: Rate | None = None
    """Input read from the provider's cache; 10 % of `input` if left out."""
    cache_write: Rate | None = None
    """Input written to the provider's cache; 125 % of `input` if left out."""
    reasoning: Rate | None = None
    """Output that is not shown; as `output` if left out."""


class BudgetSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of `[budgets.NAME]`: what may be spent. Once it is used up, calls that cost are refused
    until the window is over; what is cached is still served."""

    limit_usd: Annotated[float, Meta(ge=0, le=1e9)] | None = None
    """US dollars, without discounts for cached tokens; this, `limit_tokens`, or both."""
    limit_tokens: Annotated[int, Meta(ge=0)] | None = None
    """Tokens of models, input and output together."""
    window: BudgetWindow = "day"
    """Days and months are those of UTC; a run is a call, or a tracked function around it, with all
    that it calls."""
    per: BudgetPer = "all"
    """One budget for all together, or as much for each user or each agent."""
    agents: tuple[str, ...] = ()
    """Patterns (`*`, `?`) of the agents whose calls count; all, if left out."""
    warn_at: Annotated[float, Meta(gt=0, le=1)] = 0.8
    """The share of the limit at which a warning is logged."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings."""

    run: RunSettings = RunSettings()
    cache: CacheSettings = CacheSettings()
    agents: AgentSettings = AgentSettings()
    history: HistorySettings = HistorySettings()
    hostexec: HostExecSettings = HostExecSettings()
    metrics: MetricsSettings = MetricsSettings()
    alerts: AlertSettings = AlertSettings()
    discord: DiscordSettings = DiscordSettings()
    prices: dict[str, PriceSettings | tuple[PriceSettings, ...]] = {}
    budgets: dict[str, BudgetSettings] = {}
    balance: BalanceSettings = BalanceSettings()
    fleets: dict[str, FleetSettings] = {}
    models: dict[str, ModelSettings] = {}
    mcp: dict[str, McpSettings] = {}
    chat: ChatSettings = ChatSettings()
    predict: PredictSettings = PredictSettings()
