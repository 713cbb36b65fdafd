"""Settings: defaults, overridden by a file, by the environment, by arguments; typed and checked.

`load` is the one loader. It is handed the environment and the file's text, and reads nothing by
itself. A key nobody knows is an error that names the nearest one there is.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import (
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

from paceline.errors import ConfigError
from paceline.redaction import MASK, Redactor, Secret
from paceline.served_models import with_served_models
from paceline.settings import HEEDED_BY, SECRET, InstanceSettings, Settings

__all__ = [
    "PRESETS",
    "Given",
    "given",
    "load",
    "secrets_of",
    "shown_address",
]

PREFIX: Final = "PACELINE_"
_HOST_EXEC: Final = "host_exec"
_STEP: Final = re.compile(r"\w+")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*)`")
_PRESET: Final = "PACELINE_PRESET"
_RESERVED: Final = frozenset(
    {"PACELINE_HOME", "PACELINE_CONFIG", "PACELINE_DISCORD_TOKEN", _PRESET}
)
PRESETS: Final[Mapping[str, Mapping[str, Mapping[str, object]]]] = {
    "development": {"chat": {"max_memory_mb": 512, "max_concurrent_tools": 2}},
    "production": {
        "chat": {
            "max_memory_mb": 2_048,
            "max_execution_s": 600.0,
            "max_concurrent_tools": 8,
            "tool_timeout_s": 300.0,
        }
    },
}
"""Other defaults, by the name of what they are for."""


def load(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
    preset: str | None = None,
) -> Settings:
    """Settings from a preset, then a TOML file, then `PACELINE_<SECTION>_<KEY>` variables, then
    overrides.

    `overrides` are `{section: {key: value}}`. The preset is one of `PRESETS`; if it is not given it
    is that of `PACELINE_PRESET`, else `preset` of the file, if any. Raises ConfigError naming the place of the
    unknown key or wrong value.
    """
    found = given(file=file, environ=environ, overrides=overrides, preset=preset)
    tree: dict[str, dict[str, object]] = {}
    for place, setting in found.items():
        section, _, key = place.partition(".")
        tree.setdefault(section, {})[key] = setting.value
    try:
        settings = msgspec.convert(tree, Settings, strict=False)
    except msgspec.ValidationError as exc:
        raise _refusal(str(exc), found) from exc
    for refused in _without_effect(settings):
        raise refused
    return with_served_models(settings)


class Given(NamedTuple):
    """A value that overrides a default, unchecked, and where it is from."""

    value: object
    source: str


def given(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
    preset: str | None = None,
) -> dict[str, Given]:
    """What is not left at its default, by `section.key`; the last source of `load` counts.

    Raises ConfigError for an unknown key and for a file that cannot be used.
    """
    found: dict[str, Given] = {}
    told: dict[str, Any] = _read(file) if file else {}
    named = told.pop("preset", None)
    chosen = preset or (environ or {}).get(_PRESET) or named
    for source, values in (
        (f"the preset {chosen}", {} if chosen is None else _preset(chosen)),
        (str(file) if file else "", told),
        ("the environment", _from_environment(environ or {})),
        ("arguments", {k: dict(v) for k, v in (overrides or {}).items()}),
    ):
        for section, keys in values.items():
            _check_keys(section, keys, source)
            found.update({f"{section}.{key}": Given(keys[key], source) for key in keys})
    return found


def _preset(name: object) -> Mapping[str, Mapping[str, object]]:
    preset = PRESETS.get(name) if isinstance(name, str) else None
    if preset is None:
        raise ConfigError(f"there is no preset {name!r}", next_step=_near(str(name), PRESETS))
    return preset


def _read(file: Path) -> dict[str, Any]:
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
    if get_origin(sections[section]) is dict:  # its keys are names of the user's own
        return
    known: tuple[str, ...] = sections[section].__struct_fields__
    for key in cast("Mapping[str, object]", keys):
        if key not in known:
            raise ConfigError(
                f"unknown setting {section}.{key} in {source}", next_step=_near(key, known)
            )


def _refusal(said: str, found: Mapping[str, Given]) -> ConfigError:
    """What msgspec said, with the setting, what was given, and what there is to choose from."""
    expected, place = _parted_refusal(said)
    section, in_a_table, _ = place.partition("[...]")
    if in_a_table:
        return _refusal_in(section, found)
    if place not in found:
        return ConfigError(f"{place or 'settings'}: {expected}")
    value, source = found[place]
    shown = MASK if place in SECRET else Redactor().text(repr(value))
    given = f"{place}: {shown}"
    choices = _choices(_kind_within(Settings, place.split(".")))
    if not choices:
        wanted = expected[:1].lower() + expected[1:]
        return ConfigError(f"{given} is refused: {wanted} (from {source})")
    return _none_of(given, str(value), choices, source)


def _parted_refusal(said: str) -> tuple[str, str]:
    """What msgspec expected, and where."""
    expected, _, place = said.partition(" - at `$.")
    return expected, place.removesuffix("`")


def _none_of(given: str, value: str, choices: tuple[str, ...], source: str) -> ConfigError:
    quoted = [f'"{choice}"' for choice in choices]
    close = difflib.get_close_matches(value, choices, 1)
    return ConfigError(
        f"{given} is none of {', '.join(quoted)} (from {source})",
        next_step=f'Did you mean "{close[0]}"?' if close else "Choose one of these.",
    )


def _refusal_in(section: str, found: Mapping[str, Given]) -> ConfigError:
    """The same for one of the tables that have names of the user's own: msgspec does not say which
    of them it refuses."""
    kind = get_args(get_type_hints(Settings)[section])[1]
    for place, (value, source) in found.items():
        if not place.startswith(f"{section}."):
            continue
        try:
            msgspec.convert(value, kind, strict=False)
        except msgspec.ValidationError as exc:
            return _refusal_of_table(place, str(exc), kind, value, source)
    return ConfigError(f"{section}: a table is refused")  # the names are at fault


def _refusal_of_table(
    place: str, said: str, kind: object, value: object, source: str
) -> ConfigError:
    expected, inner = _parted_refusal(said)
    path = _STEP.findall(inner)
    at = f"{place}.{inner}" if inner else place
    kind = _kind_within(kind, path)
    unknown = _UNKNOWN.fullmatch(expected)
    fields: tuple[str, ...] = getattr(kind, "__struct_fields__", ())
    if unknown is not None and fields:
        return ConfigError(
            f"unknown setting {at}.{unknown[1]} in {source}", next_step=_near(unknown[1], fields)
        )
    choices = _choices(kind)
    if not choices:
        wanted = expected[:1].lower() + expected[1:]
        return ConfigError(f"{at} is refused: {wanted} (from {source})")
    given = str(_within(value, path))
    return _none_of(f"{at}: {Redactor().text(repr(given))}", given, choices, source)


def _without_effect(settings: Settings) -> Iterator[ConfigError]:
    """Settings that nothing would heed: who gave them means something else."""
    plain = InstanceSettings()
    for name, fleet in settings.fleets.items():
        if fleet.instances and name == _HOST_EXEC and settings.hostexec.mode != "off":
            yield ConfigError(
                f"fleets.{name} has instances, and {name} is done on this host, by its policy",
                next_step="For another machine name a fleet as you like; for a service of this one "
                'set hostexec.mode to "service".',
            )
        for number, one in enumerate(fleet.instances):
            for key, kinds in HEEDED_BY.items():
                if one.kind in kinds or getattr(one, key) == getattr(plain, key):
                    continue
                wanted = " or ".join([f'"{kind}"' for kind in kinds])
                yield ConfigError(
                    f"fleets.{name}.instances[{number}].{key} has no effect on an instance of the "
                    f"kind {one.kind}",
                    next_step=f"Set kind = {wanted} for it, or leave {key} out.",
                )


def _kind_within(kind: object, path: Iterable[str]) -> object:
    """The type at a path of fields and places in lists; None where it is none that a path leads
    into."""
    for step in path:
        if step.isdecimal():
            kind = next(iter(get_args(kind)), None)
        elif isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            kind = get_type_hints(kind).get(step)
        else:
            return None
    return kind


def _within(value: Any, path: Iterable[str]) -> object:
    for step in path:
        value = value[int(step) if step.isdecimal() else step]
    return value


def _choices(kind: object) -> tuple[str, ...]:
    """The values of a setting that has only a few."""
    return get_args(kind) if get_origin(kind) is Literal else ()


def secrets_of(settings: Settings) -> list[Secret]:
    """The settings' values that are shown nowhere."""
    found = [getattr(getattr(settings, section), key) for section, key in map(_parted, SECRET)]
    return [Secret(value) for value in found if value]


def _parted(place: str) -> tuple[str, str]:
    section, _, key = place.partition(".")
    return section, key


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
