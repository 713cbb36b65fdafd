"""`paceline agents` and `paceline doctor` on the instances of agents, with a real server."""

import json
import os
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest
from aiohttp import web

from paceline.cli.doctor import doctor
from paceline.cli.doctor_fleets import examine_fleets
from paceline.cli.finding import Finding
from paceline.cli.listing import list_agents
from paceline.cli.place import Place

TOKEN = "tok-4f9a8b7c6d5e4f3a"


class Server:
    """Takes questions of all kinds, and notes them."""

    def __init__(self, port: int, asked: list[tuple[str, str, str | None]]) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.asked = asked


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    asked: list[tuple[str, str, str | None]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.method, request.path, request.headers.get("Authorization")))
        return web.json_response({"data": []})

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield Server(runner.addresses[0][1], asked)
    await runner.cleanup()


def a_place(directory: Path, text: str, environ: dict[str, str] | None = None) -> Place:
    """Where commands find these settings."""
    (directory / "paceline.toml").write_text(text)
    return Place(environ or {}, directory, home=directory / "state")


async def examined(place: Place, there: Collection[str] | None) -> dict[str, Finding]:
    return {found.what: found for found in await examine_fleets(place.settings(), place, there)}


async def test_the_doctor_asks_each_instance(server: Server, tmp_path: Path) -> None:
    """Each instance is asked whether it is there, with its token and at no cost: no agent and no
    model gets work. (S0-79)"""
    place = a_place(
        tmp_path,
        f"""
[[fleets.far.instances]]
url = "{server.url}/run"
token_env = "FAR_TOKEN"
[[fleets.far.instances]]
kind = "openai"
url = "{server.url}/v1"
model = "small"
[[fleets.far.instances]]
kind = "local"
[[fleets.near.instances]]
kind = "worker"
function = "json:loads"
""",
        {**os.environ, "FAR_TOKEN": TOKEN},
    )
    found = await examined(place, {"far"})
    assert {what: one.state for what, one in found.items()} == {
        "instance far/http-1": "ok",
        "instance far/openai-2": "ok",
        "instance far/local-3": "ok",
        "instance near/worker-1": "ok",
    }
    details = [one.detail for one in found.values()]
    assert details[0].startswith(f"{server.url}/run: answers in ")
    assert details[0].endswith(" ms, with the token of FAR_TOKEN")
    assert details[1].startswith(f"small at {server.url}/v1: answers in ")
    assert TOKEN not in repr(found)
    assert sorted(server.asked) == [
        ("GET", "/v1/models", None),
        ("HEAD", "/run", f"Bearer {TOKEN}"),
    ]


async def test_the_doctor_finds_what_is_wrong(server: Server, tmp_path: Path) -> None:
    """A token that is not set, a server that is not there, settings that lack something or name the
    same twice, and a fallback that leads back are found, each by itself. (S0-79, S0-81, S0-83)"""
    place = a_place(
        tmp_path,
        f"""
[fleets.far]
fallback = ["agent far"]
[[fleets.far.instances]]
url = "{server.url}/run"
token_env = "FAR_TOKEN"
[[fleets.far.instances]]
id = "twin"
url = "http://127.0.0.1:1/run"
[[fleets.far.instances]]
id = "twin"
kind = "openai"
url = "{server.url}/v1"
[[fleets.far.instances]]
url = "{server.url}/run"
[[fleets.far.instances]]
kind = "worker"
function = "no_such_module:run"
""",
    )
    found = await examine_fleets(place.settings(), place, ())
    said = [(one.what, one.state, one.detail) for one in found]
    assert [(what, state) for what, state, _ in said] == [
        ("fleet far", "broken"),
        ("fleet far", "broken"),
        ("instance far/http-1", "broken"),
        ("instance far/twin", "broken"),
        ("instance far/twin", "broken"),
        ("instance far/http-4", "ok"),
        ("instance far/worker-5", "broken"),
    ]
    parts = [
        "two instances with the id twin",
        "leads back to far",
        "the environment variable FAR_TOKEN is not set",
        "cannot be reached",
        "of the kind openai and has no model",
        "answers in",
        "no_such_module",
    ]
    for part, (_, _, detail) in zip(parts, said, strict=True):
        assert part in detail
    assert "Set it to the token" in found[2].next_step
    assert server.asked == [("HEAD", "/run", None)]


def test_agents_are_listed_with_their_instances(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An agent that is nothing but its instances is listed as a fleet, and each agent with how many
    instances of which kinds it has; without fleets the list says nothing of them. (S0-66)"""
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "echo.py").write_text("async def run(query): return query\n")
    place = a_place(tmp_path, '[hostexec]\nmode = "off"\n')
    list_agents(place, [tmp_path / "agents"], as_json=False)
    assert "INSTANCES" not in capsys.readouterr().out
    place = a_place(
        tmp_path,
        """
[hostexec]
mode = "off"
[fleets.far]
description = "Something elsewhere"
[[fleets.far.instances]]
url = "http://127.0.0.1:1/run"
[[fleets.far.instances]]
url = "http://127.0.0.1:2/run"
[[fleets.far.instances]]
kind = "openai"
url = "http://127.0.0.1:3/v1"
model = "small"
id = "model"
""",
    )
    list_agents(place, [tmp_path / "agents"], as_json=False)
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["AGENT", "CACHED", "SOURCE", "INSTANCES", "DESCRIPTION"]
    assert rows[1] == ["echo", "no", "module", "-"]
    assert rows[2] == ["far", "no", "fleet", "2", "http,", "1", "openai", "Something", "elsewhere"]
    list_agents(place, [tmp_path / "agents"], as_json=True)
    echo, far = json.loads(capsys.readouterr().out)["agents"]
    assert (echo["instances"], far["source"]) == ([], "fleet")
    assert far["instances"] == [
        {"id": "http-1", "kind": "http"},
        {"id": "http-2", "kind": "http"},
        {"id": "model", "kind": "openai"},
    ]


async def test_the_doctor_knows_which_agents_there_are(tmp_path: Path) -> None:
    """A local instance without a module, a fallback to an agent that is not there, and settings of
    fleets that nothing heeds are found, each with what to do. (S0-66, S0-83)"""
    place = a_place(
        tmp_path,
        """
[fleets.far]
fallback = ["agent gone", "agent near", "agent echo", "stale"]
[[fleets.far.instances]]
kind = "local"
[fleets.near]
effect = "read"
[[fleets.near.instances]]
kind = "local"
[fleets.idle]
fallback = ["agent gone"]
[fleets.echo]
fallback = ["stale"]
strategy = "random"
hedge = true
""",
    )
    found = await examine_fleets(place.settings(), place, {"near", "echo"})
    assert [(one.what, one.state, one.detail.partition(":")[0]) for one in found] == [
        ("fleet far", "warning", 'its fallback is "agent gone", and there is no agent gone'),
        ("fleet near", "warning", "effect has no effect"),
        ("fleet idle", "warning", "it has no instances, and there is no agent idle"),
        ("fleet echo", "warning", "strategy, hedge have no effect"),
        (
            "instance far/local-1",
            "warning",
            "it is of the kind local, and there is no agent far to do it",
        ),
        ("instance near/local-1", "ok", "done here"),
    ]
    assert "module far" in found[4].next_step
    assert "[[fleets.idle.instances]]" in found[2].next_step
    # Where nobody knows which there are, as their directory is wrong, none is missed.
    found = await examine_fleets(place.settings(), place, None)
    assert {one.state for one in found} == {"ok"}


def test_the_doctor_names_the_keys_of_a_fleet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A fleet is listed by its keys, whether it has instances or not. (S0-83)"""
    place = a_place(
        tmp_path,
        """
[hostexec]
mode = "off"
[fleets.echo]
fallback = ["stale"]
hedge = true
""",
    )
    doctor(place, None, as_json=True)
    found = json.loads(capsys.readouterr().out)["findings"]
    [echo] = [one for one in found if one["what"] == "fleets.echo"]
    assert echo["detail"].startswith("fallback, hedge (from ")
