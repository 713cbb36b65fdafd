"""Settings: defaults, overridden by a file, by the environment, by arguments; typed and checked.

`load` is the one loader. It is handed the environment and the file's text, and reads nothing by
itself. A key nobody knows is an error that names the nearest one there is.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

import msgspec
from msgspec import Meta

from paceline.errors import ConfigError
from paceline.redaction import MASK, Redactor

__all__ = [
    "AgentSettings",
    "CacheSettings",
    "Given",
    "HistorySettings",
    "HostExecSettings",
    "RunSettings",
    "Settings",
    "given",
    "load",
    "shown_address",
]

Count = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
# The bound also keeps out infinity, which clocks and timers cannot count.
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Limit = Annotated[float, Meta(gt=0, le=1e9)]
Share = Annotated[float, Meta(ge=0, le=1)]


class RunSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The call path. Times in seconds."""

    timeout_s: Limit = 60.0
    """Limit of one call where neither the caller nor the agent sets one."""
    max_concurrency: AtLeastOne = 64
    """Calls executing at once, over all agents."""
    max_queue: Count = 1_000
    """Calls waiting for capacity; one more is refused as overloaded."""
    threads: AtLeastOne = 16
    """Synchronous agents running at once."""
    max_attempts: AtLeastOne = 3
    """Executions of one call at most, where repeating it is safe."""
    drain_s: Seconds = 5.0
    """How long closing waits for calls in flight before it cancels them."""


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
    """How long each request to the cold tier may take, of which a call makes up to four; then it is
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


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All settings."""

    run: RunSettings = RunSettings()
    cache: CacheSettings = CacheSettings()
    agents: AgentSettings = AgentSettings()
    history: HistorySettings = HistorySettings()
    hostexec: HostExecSettings = HostExecSettings()


PREFIX: Final = "PACELINE_"
_RESERVED: Final = frozenset({"PACELINE_HOME", "PACELINE_CONFIG"})


def load(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> Settings:
    """Settings from a TOML file, then `PACELINE_<SECTION>_<KEY>` variables, then overrides.

    `overrides` are `{section: {key: value}}`. Raises ConfigError naming the place of the
    unknown key or wrong value.
    """
    found = given(file=file, environ=environ, overrides=overrides)
    tree: dict[str, dict[str, object]] = {}
    for place, setting in found.items():
        section, _, key = place.partition(".")
        tree.setdefault(section, {})[key] = setting.value
    try:
        return msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as exc:
        raise _refusal(str(exc), found) from exc


class Given(NamedTuple):
    """A value that overrides a default, unchecked, and where it is from."""

    value: object
    source: str


def given(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> dict[str, Given]:
    """What is not left at its default, by `section.key`; the last source of `load` counts.

    Raises ConfigError for an unknown key and for a file that cannot be used.
    """
    found: dict[str, Given] = {}
    for source, values in (
        (str(file) if file else "", _read(file) if file else {}),
        ("the environment", _from_environment(environ or {})),
        ("arguments", {k: dict(v) for k, v in (overrides or {}).items()}),
    ):
        for section, keys in values.items():
            _check_keys(section, keys, source)
            found.update({f"{section}.{key}": Given(keys[key], source) for key in keys})
    return found


def _read(file: Path) -> dict[str, dict[str, Any]]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise ConfigError(f"there is no configuration file {file}") from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError(f"{file} cannot be read: {exc}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{file} is not valid TOML: {exc}") from exc


def _from_environment(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = {}
    for name in sorted(environ):
        if not name.startswith(PREFIX) or name in _RESERVED:
            continue
        section, _, key = name.removeprefix(PREFIX).lower().partition("_")
        tree.setdefault(section, {})[key] = environ[name]
    return tree


def _check_keys(section: str, keys: object, source: str) -> None:
    sections = get_type_hints(Settings)
    if section not in sections:
        raise ConfigError(
            f"unknown section [{section}] in {source}", next_step=_near(section, sections)
        )
    if not isinstance(keys, Mapping):
        raise ConfigError(f"[{section}] in {source} is not a table of keys")
    known: tuple[str, ...] = sections[section].__struct_fields__
    for key in cast("Mapping[str, object]", keys):
        if key not in known:
            raise ConfigError(
                f"unknown setting {section}.{key} in {source}", next_step=_near(key, known)
            )


def _refusal(said: str, found: Mapping[str, Given]) -> ConfigError:
    """What msgspec said, with the setting, what was given, and what there is to choose from."""
    expected, _, place = said.rstrip("`").partition(" - at `$.")
    if place not in found:
        return ConfigError(f"{place or 'settings'}: {expected}")
    value, source = found[place]
    given = f"{place}: {Redactor().text(repr(value))}"
    choices = _choices(place)
    if not choices:
        wanted = expected[:1].lower() + expected[1:]
        return ConfigError(f"{given} is refused: {wanted} (from {source})")
    quoted = [f'"{choice}"' for choice in choices]
    close = difflib.get_close_matches(str(value), choices, 1)
    return ConfigError(
        f"{given} is none of {', '.join(quoted)} (from {source})",
        next_step=f'Did you mean "{close[0]}"?' if close else "Choose one of these.",
    )


def _choices(place: str) -> tuple[str, ...]:
    """The values of a setting that has only a few."""
    section, _, key = place.partition(".")
    kind: object = get_type_hints(get_type_hints(Settings)[section])[key]
    return get_args(kind) if get_origin(kind) is Literal else ()


_PASSWORD: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*[:/].*@", re.DOTALL)
_NO_PORT: Final = re.compile(
    r"(?<=://):.*|:(?!//)(?![^\[]*\])(?![0-9]{1,5}(?:[/?#]|$)).*", re.DOTALL
)


def shown_address(address: str) -> str:
    """The address of a server as it may be shown: with nothing that may be its password, however
    it was mistyped."""
    text = _PASSWORD.sub(rf"\g<1>{MASK}@", address)
    return Redactor().text(_NO_PORT.sub(f":{MASK}", text))


def _near(word: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(word, known, 1)
    hint = f"Did you mean {close[0]}? " if close else ""
    return f"{hint}There are: {', '.join(known)}."
