"""Settings: each source overrides the one before, and nothing misspelt is ignored."""

from pathlib import Path
from typing import Any, get_origin, get_type_hints

import msgspec
import pytest

from paceline.config import PRESETS, Given, given, load, shown_address
from paceline.errors import ConfigError
from paceline.redaction import Redactor
from paceline.settings import Settings

SECTIONS = get_type_hints(Settings)
EVERY_KEY = [
    (section, key, getattr(kind(), key))
    for section, kind in SECTIONS.items()
    if get_origin(kind) is not dict
    for key in kind.__struct_fields__
    if not isinstance(getattr(kind(), key), tuple)  # tables have no form in the environment
]


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_defaults_need_nothing() -> None:
    """Without file, environment and overrides all settings have their defaults."""
    assert load() == Settings()


def test_later_sources_win(tmp_path: Path) -> None:
    """File over defaults, environment over file, arguments over environment."""
    file = write(
        tmp_path / "paceline.toml",
        "[run]\ntimeout_s = 1\nthreads = 1\nmax_queue = 1\n[cache]\nenabled = false\n",
    )
    settings = load(
        file=file,
        environ={"PACELINE_RUN_THREADS": "2", "PACELINE_RUN_MAX_QUEUE": "2", "OTHER": "x"},
        overrides={"run": {"max_queue": 3}},
    )
    assert (settings.run.timeout_s, settings.run.threads, settings.run.max_queue) == (1, 2, 3)
    assert settings.cache.enabled is False
    assert settings.run.max_concurrency == Settings().run.max_concurrency


@pytest.mark.parametrize(("section", "key", "default"), EVERY_KEY)
def test_every_setting_can_come_from_each_source(
    section: str, key: str, default: Any, tmp_path: Path
) -> None:
    """Every key is read from the file, the environment and arguments."""
    other = _another(section, key, default)
    shown = str(other).lower() if isinstance(other, bool) else str(other)
    toml = f'"{other}"' if isinstance(other, str) else shown
    file = write(tmp_path / "paceline.toml", f"[{section}]\n{key} = {toml}\n")
    for settings in (
        load(file=file),
        load(environ={f"PACELINE_{section}_{key}".upper(): shown}),
        load(overrides={section: {key: other}}),
    ):
        assert getattr(getattr(settings, section), key) == other != default


def _another(section: str, key: str, default: Any) -> object:
    choices = {
        "compact": "model",
        "mode": "off",
        "names": "sel",
        "otlp_names": "genai-main",
        "policy": "lru",
        "sandbox": "limits",
        "share": "all",
    }
    if isinstance(default, bool):
        return not default
    if isinstance(default, (int, float)):
        return 0.5 if 0 < default < 1 else default + 1
    return choices.get(key, "elsewhere")


@pytest.mark.parametrize("by", ["argument", "environment", "file"])
def test_a_preset_has_other_defaults(by: str, tmp_path: Path) -> None:
    """A preset chosen in any way has other defaults than those of prior art, which are ours, and
    everything that is set counts more. (V-15, V-16)"""
    file = tmp_path / "paceline.toml"
    chat = "[chat]\nmax_execution_s = 50\n"
    write(file, f'preset = "production"\n{chat}' if by == "file" else chat)
    environ = {"PACELINE_CHAT_MAX_STEPS": "7"}
    if by == "environment":
        environ["PACELINE_PRESET"] = "production"
    preset = "production" if by == "argument" else None
    settings = load(file=file, environ=environ, preset=preset).chat
    assert (settings.max_memory_mb, settings.max_concurrent_tools) == (2048, 8)
    assert (settings.max_execution_s, settings.max_steps) == (50, 7)
    assert settings.tool_timeout_s == 300


def test_presets_are_chosen_by_name() -> None:
    """Arguments choose before the environment, an unknown preset is refused with the names there are,
    and who looks sees where a value is from. (V-15, V-16)"""
    settings = load(preset="development", environ={"PACELINE_PRESET": "production"}).chat
    assert (settings.max_memory_mb, settings.max_concurrent_tools) == (512, 2)
    assert settings.max_execution_s == load().chat.max_execution_s == 300
    with pytest.raises(ConfigError, match="no preset 'produktion'") as caught:
        load(preset="produktion")
    assert "production" in caught.value.next_step
    found = given(preset="production")
    assert found["chat.max_memory_mb"] == Given(2048, "the preset production")
    for name in PRESETS:
        load(preset=name)


@pytest.mark.parametrize(
    ("overrides", "unknown", "meant"),
    [
        ({"run": {"timeot_s": 1}}, "run.timeot_s", "timeout_s"),
        ({"cach": {}}, "[cach]", "cache"),
        ({"history": {"retention": 1}}, "history.retention", "retention_days"),
    ],
)
def test_an_unknown_key_names_the_nearest(
    overrides: dict[str, dict[str, object]], unknown: str, meant: str
) -> None:
    """A misspelt key is an error that says which one there is."""
    with pytest.raises(ConfigError) as caught:
        load(overrides=overrides)
    assert unknown in str(caught.value)
    assert "arguments" in str(caught.value)
    assert caught.value.next_step.startswith(f"Did you mean {meant}? There are: ")


def test_a_key_like_no_other_lists_all() -> None:
    """A key that resembles none is an error that lists those there are."""
    with pytest.raises(ConfigError) as caught:
        load(environ={"PACELINE_HISTORY_ZZZZZZ": "1"})
    assert caught.value.next_step == "There are: enabled, retention_days, max_records, inputs."
    assert "the environment" in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("run", "timeout_s", 0),
        ("run", "threads", 0),
        ("run", "max_attempts", "many"),
        ("cache", "hot_entries", -1),
        ("hostexec", "mode", "remote"),
        ("history", "retention_days", -1),
        ("run", "timeout_s", float("inf")),
        ("run", "drain_s", float("nan")),
        ("cache", "default_ttl_s", 1e300),
        ("hostexec", "run_as", 2**32),
        ("hostexec", "memory_bytes", 1024**2),
        ("hostexec", "output_bytes", 1),
        ("hostexec", "processes", 1),
        ("predict", "extra_calls", 1.5),
        ("predict", "launches_per_minute", -1),
        ("predict", "work_s_per_minute", float("inf")),
        ("predict", "usd_a_day", float("nan")),
        ("predict", "patterns", 0),
    ],
)
def test_a_wrong_value_says_where_it_is_from(
    section: str, key: str, value: object, tmp_path: Path
) -> None:
    """A value out of range or of the wrong type is an error with its place and source."""
    toml = f'"{value}"' if isinstance(value, str) else value
    file = write(tmp_path / "paceline.toml", f"[{section}]\n{key} = {toml}\n")
    for source, options in (
        (str(file), {"file": file}),
        ("the environment", {"environ": {f"PACELINE_{section}_{key}".upper(): str(value)}}),
        ("arguments", {"overrides": {section: {key: value}}}),
    ):
        with pytest.raises(ConfigError) as caught:
            load(**options)
        assert str(caught.value).startswith(f"{section}.{key}: ")
        assert str(caught.value).endswith(f"(from {source})")


@pytest.mark.parametrize(
    ("place", "allowed"),
    [
        ("cache.policy", ("auto", "gdsf", "lirs", "lru", "s3fifo", "w-tinylfu")),
        ("hostexec.mode", ("embedded", "service", "off")),
        ("hostexec.sandbox", ("auto", "bubblewrap", "landlock", "limits")),
        ("predict.share", ("user", "tenant", "all")),
    ],
)
@pytest.mark.parametrize("value", ["of", "password=hunter22", 5, None])
def test_a_choice_lists_what_there_is(place: str, allowed: tuple[str, ...], value: object) -> None:
    """A wrong value of a setting with few values is told with what was given, what there is, and
    the nearest; nothing that may be a secret is repeated."""
    section, key = place.split(".")
    with pytest.raises(ConfigError) as caught:
        load(overrides={section: {key: value}})
    said = str(caught.value)
    assert said.startswith(f"{place}: {Redactor().text(repr(value))} is none of ")
    assert all(f'"{choice}"' in said for choice in allowed)
    assert "hunter22" not in said
    if (place, value) == ("hostexec.mode", "of"):
        assert caught.value.next_step == 'Did you mean "off"?'


def test_a_wrong_value_says_what_was_given() -> None:
    """What was given is repeated beside what was expected."""
    with pytest.raises(ConfigError, match=r"run\.threads: 'many' is refused: expected `int`"):
        load(environ={"PACELINE_RUN_THREADS": "many"})
    with pytest.raises(ConfigError, match=r"run\.timeout_s: 0 is refused: expected `float` > 0"):
        load(overrides={"run": {"timeout_s": 0}})


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://ada:hunter22@h:6379", "redis://[redacted]@h:6379"),
        ("redis://:hun/ter22@h", "redis://[redacted]@h"),
        ("redis://:hun@ter22@h", "redis://[redacted]@h"),
        ("redis://hunter22@h", "[redacted]@h"),
        ("redis:/hunter22@h", "[redacted]@h"),
        ("ada:hunter22@h", "[redacted]@h"),
        ("redis://:hunter22", "redis://:[redacted]"),
        ("redis://h:hunter22/0", "redis://h:[redacted]"),
        ("redis://:12345", "redis://:[redacted]"),
        ("redis://h:123456", "redis://h:[redacted]"),
        ("unix:///run/redis.sock?db=2", "unix:///run/redis.sock?db=2"),
        ("unix:///s?password=hunter22", "unix:///s?password=[redacted]"),
        ("hunter22", "hunter22"),  # this could be a host
    ],
)
def test_an_address_is_shown_without_its_password(address: str, text: str) -> None:
    """However an address is mistyped, what may be its password is not shown; the rest is."""
    assert shown_address(address) == text


def test_it_can_be_asked_where_values_are_from(tmp_path: Path) -> None:
    """What overrides a default is told with its value and source, be the value right or not."""
    file = write(tmp_path / "paceline.toml", "[run]\nthreads = 1\nmax_queue = 'many'\n")
    found = given(file=file, environ={"PACELINE_RUN_THREADS": "2", "PACELINE_HOME": "/x"})
    assert found == {
        "run.threads": Given("2", "the environment"),
        "run.max_queue": Given("many", str(file)),
    }


@pytest.mark.parametrize("text", ["run = 5", "[run", "\x00", "[[run]]\nthreads = 1"])
def test_a_file_of_the_wrong_form_is_an_error(text: str, tmp_path: Path) -> None:
    """A file that is no TOML, or has something else where a table belongs, is an error."""
    with pytest.raises(ConfigError):
        load(file=write(tmp_path / "paceline.toml", text))


def test_a_file_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    """A missing file, a directory and bytes that are no text are errors of ours."""
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    for file in (tmp_path / "missing", tmp_path, tmp_path / "binary"):
        with pytest.raises(ConfigError):
            load(file=file)


def test_places_are_no_settings() -> None:
    """PACELINE_HOME and PACELINE_CONFIG say where things are and are not read as settings."""
    assert load(environ={"PACELINE_HOME": "/x", "PACELINE_CONFIG": "/y"}) == Settings()


def test_settings_do_not_change() -> None:
    """Settings are frozen."""
    with pytest.raises(AttributeError):
        Settings().run.threads = 1  # type: ignore[misc]
    assert msgspec.structs.replace(Settings().run, threads=1).threads == 1


@pytest.mark.parametrize(
    ("text", "said", "next_step"),
    [
        ('[fleets.a]\n[fleets.far]\nstrategy = "best"', "fleets.far.strategy: 'best' is none of \"auto\",", ""),
        ("[fleets.far]\nfallbak = []", "unknown setting fleets.far.fallbak in", "Did you mean fallback?"),
        ('[[fleets.far.instances]]\nkind = "htp"', "fleets.far.instances[0].kind: 'htp' is none", '"http"?'),
        ('[[fleets.far.instances]]\nurll = ""', "setting fleets.far.instances[0].urll in", "mean url?"),
        ("[[fleets.far.instances]]\ncapacity = -3", "fleets.far.instances[0].capacity is refused: expected `int` >= 0 (from", ""),
        ("[fleets]\nfar = 3", "fleets.far is refused: expected `object`, got `int` (from", ""),
        ("[[fleets.far.instances]]\nlabels = {a = 3}", "fleets.far.instances[0].labels[...] is refused:", ""),
        ('[budgets.b]\nwindow = "dya"', "budgets.b.window: 'dya' is none of", '"day"?'),
        ("[prices.m]\ninputt = 3", "prices.m is refused: object contains unknown field `inputt`", ""),
    ],
)  # fmt: skip
def test_a_table_of_yours_is_named_when_it_is_refused(
    text: str, said: str, next_step: str, tmp_path: Path
) -> None:
    """What is wrong in a fleet, a budget or a price is one sentence with its name, the key and the
    file; for a word that is nearly right, with the right one. (S0-83)"""
    file = write(tmp_path / "paceline.toml", text)
    with pytest.raises(ConfigError) as caught:
        load(file=file)
    assert said in caught.value.message
    assert str(file) in caught.value.message
    assert next_step in caught.value.next_step


@pytest.mark.parametrize(
    ("text", "said", "next_step"),
    [
        ('model = "small"', "fleets.far.instances[1].model has no effect", 'Set kind = "openai"'),
        ('function = "m:f"', "fleets.far.instances[1].function has no", 'Set kind = "worker"'),
        ('kind = "openai"\nmemory_mb = 3', "instances[1].memory_mb has no", 'Set kind = "worker"'),
        ('kind = "local"\nurl = "http://h"', "instances[1].url has", 'Set kind = "http" or "openai"'),
        ('kind = "worker"\ntoken_env = "T"', "instances[1].token_env has no effect", '"openai"'),
    ],
)  # fmt: skip
def test_a_setting_that_the_kind_of_an_instance_has_not_is_refused(
    text: str, said: str, next_step: str, tmp_path: Path
) -> None:
    """What an instance of its kind does not heed is an error that names it, the kind and the kinds
    that do. (S0-83)"""
    whole = f'[[fleets.far.instances]]\nkind = "local"\n[[fleets.far.instances]]\n{text}'
    with pytest.raises(ConfigError) as caught:
        load(file=write(tmp_path / "paceline.toml", whole))
    assert said in caught.value.message
    assert "of the kind" in caught.value.message
    assert next_step in caught.value.next_step


def test_the_host_executor_has_no_instances(tmp_path: Path) -> None:
    """Instances would take host commands elsewhere, past the policy: they are refused for as long
    as host commands are done here. (S0-83)"""
    text = '[[fleets.host_exec.instances]]\nurl = "http://127.0.0.1:1/"\n'
    with pytest.raises(ConfigError, match=r"fleets\.host_exec has instances") as caught:
        load(file=write(tmp_path / "paceline.toml", text))
    assert "hostexec.mode" in caught.value.next_step
    off = write(tmp_path / "paceline.toml", f'{text}[hostexec]\nmode = "off"')
    assert load(file=off).fleets["host_exec"].instances
    stale = write(tmp_path / "paceline.toml", '[fleets.host_exec]\nfallback = ["stale"]')
    assert load(file=stale).fleets["host_exec"].fallback == ("stale",)
