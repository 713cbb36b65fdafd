"""What the documents say is true."""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import paceline
from paceline.agents.declared import ATTRIBUTES
from paceline.balance.fallback import fallbacks_of
from paceline.config import load
from paceline.hostexec.policy.decision import Policy
from paceline.predict.readers import trajectories
from paceline.settings import (
    BudgetSettings,
    FleetSettings,
    InstanceSettings,
    McpSettings,
    ModelSettings,
    ObjectiveSettings,
    PriceSettings,
    RuleSettings,
    Settings,
    SilenceSettings,
)

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def blocks(name: str, language: str) -> list[str]:
    return [code for found, code in BLOCK.findall(text(name)) if found == language]


@pytest.mark.parametrize(
    "code",
    [
        code
        for name in (
            "README.md",
            "docs/cache.md",
            "docs/balance.md",
            "docs/sessions.md",
            "docs/prediction.md",
            "docs/recipes.md",
        )
        for code in blocks(name, "python")
    ],
)
def test_every_example_runs(code: str, tmp_path: Path) -> None:
    """Each Python example of the README, of docs/cache.md, docs/balance.md, docs/sessions.md,
    docs/prediction.md and docs/recipes.md runs as it stands, in an empty directory."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        env={"PACELINE_HOME": str(tmp_path / "state"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("code", blocks("docs/hostexec.md", "toml"))
def test_the_example_policy_loads(code: str) -> None:
    """The policy in the documents is one that Paceline accepts."""
    assert Policy.load(code, name="docs/hostexec.md").decide(["git", "diff", "--stat"]).argv


@pytest.mark.parametrize("code", blocks("docs/balance.md", "toml"))
def test_the_example_of_fleets_loads(code: str, tmp_path: Path) -> None:
    """The fleets in the documents are settings that Paceline accepts. (S0-83)"""
    file = tmp_path / "paceline.toml"
    file.write_text(code)
    for name, fleet in load(file=file).fleets.items():
        assert fallbacks_of(name, fleet.fallback)


@pytest.mark.parametrize("code", blocks("docs/sessions.md", "toml"))
def test_the_examples_of_models_and_servers_load(code: str, tmp_path: Path) -> None:
    """The models and MCP servers in the documents are settings that Paceline accepts. (S2-41)"""
    file = tmp_path / "paceline.toml"
    file.write_text(code)
    found = load(file=file)
    assert found.models or found.mcp


@pytest.mark.parametrize("line", blocks("docs/prediction.md", "json"))
def test_the_example_of_a_recorded_session_is_read(line: str) -> None:
    """The session in the documents is one that `paceline predict eval` reads. (S2-51)"""
    (found,) = trajectories([line])
    assert (found.scope, len(found.events)) == ("ada", 3)


def test_every_setting_is_documented_with_its_default() -> None:
    """docs/settings.md has a row for each setting, in its section, with the true default."""
    parts = re.split(r"^## \[", text("docs/settings.md"), flags=re.MULTILINE)[1:]
    sections = dict(part.split("]", 1) for part in parts)
    defaults = msgspec.to_builtins(Settings())
    assert set(sections) == set(defaults)
    for section in (
        "prices",
        "budgets",
        "fleets",
        "models",
        "mcp",
    ):  # whose keys are names of the user's own
        del defaults[section]
    for section, keys in defaults.items():
        body = sections[section].partition("\n### ")[0]
        rows = dict(re.findall(r"^\| `(\w+)` \| `(.*?)` \|", body, re.MULTILINE))
        shown = {
            key: str(value).lower() if isinstance(value, bool) else value
            for key, value in keys.items()
        }
        assert set(rows) == set(shown)
        for key, value in shown.items():
            said = rows[key].strip('"')
            plain = json.dumps(value) if isinstance(value, (tuple, list)) else value
            assert said == (f"{plain:g}" if isinstance(plain, float) else str(plain)), key


def test_every_declaration_of_agents_is_documented() -> None:
    """docs/agents.md has a row for each attribute an agent can declare."""
    rows = re.findall(r"^\| `([A-Z_]+)` \|", text("docs/agents.md"), re.MULTILINE)
    assert sorted(rows) == sorted(ATTRIBUTES)


def test_every_public_name_is_in_the_changelog() -> None:
    """A public name has a line in the changelog and a test of its types."""
    changes, typed = text("CHANGELOG.md"), text("tests/typing/api.py")
    for name in paceline.__all__:
        assert f"`{name}`" in changes, name
        assert re.search(rf"\b{name}\b", typed), name


def test_documents_name_files_that_exist() -> None:
    """Every path in backticks that looks like one of the repository's is there."""
    for name in ("README.md", *(str(p.relative_to(ROOT)) for p in ROOT.glob("docs/*.md"))):
        for path in re.findall(r"`((?:docs|tests|src|bench|examples)/[\w./-]+)`", text(name)):
            assert (ROOT / path).exists(), f"{name}: {path}"


def test_no_gain_is_claimed_that_was_not_measured() -> None:
    """Nothing promises so many per cent less time: what a cache saves is printed from what was
    measured on the spot. (X-08, S1-01)"""
    for path in (ROOT / "README.md", *ROOT.glob("docs/*.md")):
        claims = re.findall(r"\d ?% (?:faster|less|reduction|improvement)", path.read_text())
        assert not claims, path.name


def test_every_key_of_tables_of_settings_is_documented() -> None:
    """docs/settings.md has a row for each key of a rule, an objective, a silence, a price, a
    budget, a fleet, an instance, a model and an MCP server."""
    said = set(re.findall(r"^\| `(\w+)` \|", text("docs/settings.md"), re.MULTILINE))
    for kind in (
        RuleSettings, ObjectiveSettings, SilenceSettings, PriceSettings, BudgetSettings,
        FleetSettings, InstanceSettings, ModelSettings, McpSettings,
    ):  # fmt: skip
        assert set(kind.__struct_encode_fields__) <= said, kind
