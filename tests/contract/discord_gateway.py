"""As much of Discord as a bot needs, on a free loopback port: the HTTP API and the gateway.

It behaves as the real one where that matters: a token is asked for, messages have a limit, a
deferred answer keeps the visibility it was deferred with.
"""

import asyncio
import itertools
import json
from typing import Any, Final, Self

import pytest
from aiohttp import WSMsgType, web

__all__ = ["APPLICATION", "GUILD", "ROLE", "STRANGER", "TOKEN", "USER", "Asked", "FakeDiscord"]

TOKEN: Final = "MTAw.canary-Gw1Xz0.the-bot-token-that-nobody-may-see"
APPLICATION, GUILD, CHANNEL, ROLE, USER, STRANGER = 100, 200, 300, 400, 500, 501
_BOT: Final = {"id": str(APPLICATION), "username": "pacer", "discriminator": "0", "avatar": None}
_PATIENCE_S: Final = 60.0
_EPHEMERAL: Final = 64
_MB: Final = 1024 * 1024


class Asked:
    """A command that somebody used, and what Discord was told about it."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.callback: dict[str, Any] | None = None
        self.messages: list[dict[str, Any]] = []
        """As they are seen: each with content, ephemeral, files and allowed_mentions."""
        self.deleted = 0
        self._changed = asyncio.Condition()

    @property
    def texts(self) -> list[str]:
        return [message["content"] for message in self.messages]

    @property
    def thinking(self) -> bool:
        """Whether an answer was announced and is not there."""
        return any(message["content"] is None for message in self.messages)

    async def changed(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def until(self, number: int = 1) -> list[dict[str, Any]]:
        """The messages, as soon as there are so many and none is only announced."""
        async with asyncio.timeout(_PATIENCE_S), self._changed:
            await self._changed.wait_for(
                lambda: self.callback and len(self.messages) >= number and not self.thinking
            )
        return self.messages

    async def called_back(self) -> dict[str, Any]:
        """The first that Discord was told."""
        async with asyncio.timeout(_PATIENCE_S), self._changed:
            await self._changed.wait_for(lambda: self.callback is not None)
        assert self.callback is not None
        return self.callback


class FakeDiscord:
    """Runs from `async with` to its end. Tests look at what it was told."""

    def __init__(self, *, token: str = TOKEN) -> None:
        self.token = token
        self.commands: list[dict[str, Any]] = []
        self.identified: list[dict[str, Any]] = []
        self.resumed: list[dict[str, Any]] = []
        self.attempts = 0
        self.refused_connections = 0
        """How many of the next connections to the gateway are refused."""
        self.forget_sessions = False
        self.broken_answers = 0
        """How many of the next answers are refused, as those to a command that is over."""
        self.requests: list[tuple[str, str]] = []
        self._asked: dict[str, Asked] = {}
        self._numbers = itertools.count(1_000)
        self._sequence = itertools.count(1)
        self._socket: web.WebSocketResponse | None = None
        self._sessions = 0
        self._session = asyncio.Condition()

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=32 * _MB)
        app.router.add_get("/gateway", self._gateway)
        app.router.add_get("/api/users/@me", self._me)
        app.router.add_get("/api/oauth2/applications/@me", self._application)
        app.router.add_put("/api/applications/{id}/commands", self._register)
        app.router.add_post("/api/interactions/{id}/{token}/callback", self._callback)
        original = "/api/webhooks/{id}/{token}/messages/@original"
        app.router.add_patch(original, self._edit)
        app.router.add_delete(original, self._delete)
        app.router.add_post("/api/webhooks/{id}/{token}", self._follow)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.port = self._runner.addresses[0][1]
        self.base = f"http://127.0.0.1:{self.port}/api"
        self.gateway = f"ws://127.0.0.1:{self.port}/gateway"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._socket is not None:
            await self._socket.close()
        await self._runner.cleanup()

    def stand_in(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Makes discord.py, in this process, take it for Discord."""
        import discord
        import yarl

        monkeypatch.setattr(discord.http.Route, "BASE", self.base)
        gateway = discord.gateway.DiscordWebSocket
        monkeypatch.setattr(gateway, "DEFAULT_GATEWAY", yarl.URL(self.gateway))

    # -- what tests do ---------------------------------------------------------------------------

    async def session(self, number: int = 1) -> None:
        """Waits until so many sessions were begun or resumed."""
        async with asyncio.timeout(_PATIENCE_S), self._session:
            await self._session.wait_for(lambda: self._sessions >= number)

    async def ask(
        self,
        name: str,
        *,
        user: int = USER,
        roles: tuple[int, ...] = (),
        guild: int | None = GUILD,
        kind: int = 2,
        file_bytes: int = 10 * _MB,
        focused: str | None = None,
        **options: object,
    ) -> Asked:
        """Somebody uses a command; `kind` 4 is somebody typing its option `focused`."""
        number = next(self._numbers)
        asked = self._asked[f"token{number}"] = Asked(f"token{number}")
        person = {"id": str(user), "username": f"user{user}", "discriminator": "0", "avatar": None}
        data: dict[str, Any] = {
            "id": str(number),
            "application_id": str(APPLICATION),
            "type": kind,
            "token": asked.token,
            "version": 1,
            "locale": "en-US",
            "app_permissions": "0",
            "entitlements": [],
            "authorizing_integration_owners": {},
            "attachment_size_limit": file_bytes,
            "data": {
                "id": "1",
                "name": name,
                "type": 1,
                "options": [_option(key, value, focused) for key, value in options.items()],
            },
        }
        if guild is None:
            data |= {"user": person, "channel": _direct(person)}
        else:
            member = {"user": person, "roles": [str(role) for role in roles], "joined_at": _TIME}
            data |= {
                "guild_id": str(guild),
                "guild": {"id": str(guild), "features": [], "locale": "en-US"},
                "channel": _channel(),
                "member": member | {"deaf": False, "mute": False, "flags": 0, "permissions": "0"},
            }
        await self._dispatch("INTERACTION_CREATE", data)
        return asked

    async def drop(self, code: int = 4000) -> None:
        """Ends the connection to the gateway."""
        assert self._socket is not None
        await self._socket.close(code=code)

    def cut(self) -> None:
        """Ends the connection to the gateway as a broken network does."""
        assert self._socket is not None
        transport = self._socket._req.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.abort()

    # -- the gateway -------------------------------------------------------------------------------

    async def _gateway(self, request: web.Request) -> web.StreamResponse:
        self.attempts += 1
        if self.refused_connections:
            self.refused_connections -= 1
            return web.Response(status=503)
        socket = self._socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 60_000}})
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                told = json.loads(message.data)
                await self._told(socket, told["op"], told.get("d"))
        return socket

    async def _told(self, socket: web.WebSocketResponse, op: int, data: Any) -> None:
        if op == 1:
            await socket.send_json({"op": 11})
        elif op in (2, 6) and data["token"] != self.token:
            await socket.close(code=4004)
        elif op == 2:
            self.identified.append(data)
            await self._dispatch("READY", self._ready())
            await self._dispatch("GUILD_CREATE", _guild())
            await self._begun()
        elif op == 6 and self.forget_sessions:
            self.forget_sessions = False
            await socket.send_json({"op": 9, "d": False})
        elif op == 6:
            self.resumed.append(data)
            await self._dispatch("RESUMED", {})
            await self._begun()

    async def _begun(self) -> None:
        async with self._session:
            self._sessions += 1
            self._session.notify_all()

    async def _dispatch(self, event: str, data: dict[str, Any]) -> None:
        assert self._socket is not None
        await self._socket.send_json(
            {"op": 0, "t": event, "s": next(self._sequence), "d": data}, dumps=json.dumps
        )

    def _ready(self) -> dict[str, Any]:
        return {
            "v": 10,
            "user": _BOT,
            "guilds": [{"id": str(GUILD), "unavailable": True}],
            "session_id": "session-canary",
            "resume_gateway_url": self.gateway,
            "application": {"id": str(APPLICATION), "flags": 0},
        }

    # -- the HTTP API ------------------------------------------------------------------------------

    def _known(self, request: web.Request) -> bool:
        self.requests.append((request.method, request.path))
        return request.headers.get("Authorization") == f"Bot {self.token}"

    async def _me(self, request: web.Request) -> web.Response:
        if not self._known(request):
            return _json({"message": "401: Unauthorized", "code": 0}, status=401)
        return _json(_BOT)

    async def _application(self, request: web.Request) -> web.Response:
        assert self._known(request)
        about = {"id": str(APPLICATION), "name": "pacer", "description": "", "verify_key": ""}
        more = {"summary": "", "bot_public": True, "bot_require_code_grant": False, "owner": _BOT}
        return _json(about | more | {"team": None, "icon": None})

    async def _register(self, request: web.Request) -> web.Response:
        assert self._known(request)
        self.commands = await request.json()
        given = {"application_id": str(APPLICATION), "version": "1"}
        return _json(
            [command | given | {"id": str(n)} for n, command in enumerate(self.commands, 1)]
        )

    async def _callback(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path))
        if refused := self._over():
            return refused
        asked = self._asked[request.match_info["token"]]
        told = await _payload(request)
        assert asked.callback is None, "a command is called back once"
        asked.callback = told
        data = told.get("data") or {}
        if told["type"] == 4:
            if refused := _refused(data):
                return refused
            asked.messages.append(_message(data, []))
        elif told["type"] == 5:
            asked.messages.append({"content": None, "ephemeral": data.get("flags") == _EPHEMERAL})
        await asked.changed()
        known = {"id": request.match_info["id"], "type": 2}
        return _json({"interaction": known})

    async def _edit(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path))
        if refused := self._over():
            return refused
        asked = self._asked[request.match_info["token"]]
        data, files = await _multipart(request)
        if refused := _refused(data):
            return refused
        ephemeral = asked.messages[0]["ephemeral"]
        asked.messages[0] = _message(data, files) | {"ephemeral": ephemeral}
        await asked.changed()
        return _json(_sent(data["content"]))

    async def _delete(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path))
        asked = self._asked[request.match_info["token"]]
        del asked.messages[0]
        asked.deleted += 1
        await asked.changed()
        return web.Response(status=204)

    async def _follow(self, request: web.Request) -> web.Response:
        self.requests.append((request.method, request.path))
        asked = self._asked[request.match_info["token"]]
        data, files = await _multipart(request)
        if refused := _refused(data):
            return refused
        message = _message(data, files)
        if asked.thinking:  # the first one takes the place of what was announced, as it was
            asked.messages[0] = message | {"ephemeral": asked.messages[0]["ephemeral"]}
        else:
            asked.messages.append(message)
        await asked.changed()
        return _json(_sent(data["content"]))

    def _over(self) -> web.Response | None:
        if not self.broken_answers:
            return None
        self.broken_answers -= 1
        return _json({"message": "Unknown interaction", "code": 10062}, status=404)


_TIME: Final = "2024-01-01T00:00:00+00:00"


def _json(data: Any, *, status: int = 200) -> web.Response:
    # discord.py reads it only if no character set is named beside the type.
    kind = {"Content-Type": "application/json"}
    return web.Response(body=json.dumps(data).encode(), status=status, headers=kind)


def _option(name: str, value: object, focused: str | None) -> dict[str, Any]:
    kind = 5 if isinstance(value, bool) else 3
    return {"name": name, "type": kind, "value": value, "focused": name == focused}


def _refused(data: dict[str, Any]) -> web.Response | None:
    """As Discord refuses what is no message."""
    if not 0 < len(data.get("content") or "") <= 2_000:
        return _json({"message": "Invalid Form Body", "code": 50035}, status=400)
    return None


async def _payload(request: web.Request) -> dict[str, Any]:
    return (await _multipart(request))[0]


async def _multipart(request: web.Request) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    if not request.content_type.startswith("multipart/"):
        return await request.json(), []
    form = await request.post()
    files = [
        (part.filename, part.file.read())
        for part in form.values()
        if isinstance(part, web.FileField)
    ]
    return json.loads(str(form["payload_json"])), files


def _message(data: dict[str, Any], files: list[tuple[str, bytes]]) -> dict[str, Any]:
    return {
        "content": data["content"],
        "ephemeral": bool(data.get("flags", 0) & _EPHEMERAL),
        "files": files,
        "allowed_mentions": data.get("allowed_mentions"),
    }


def _sent(content: str) -> dict[str, Any]:
    lists = ("mentions", "mention_roles", "attachments", "embeds", "components")
    return {
        "id": "900",
        "type": 0,
        "channel_id": str(CHANNEL),
        "author": _BOT,
        "content": content,
        "timestamp": _TIME,
        "edited_timestamp": None,
        "tts": False,
        "mention_everyone": False,
        "pinned": False,
        "flags": 0,
        "webhook_id": str(APPLICATION),
    } | {name: [] for name in lists}


def _channel() -> dict[str, Any]:
    place = {"id": str(CHANNEL), "type": 0, "name": "general", "position": 0, "parent_id": None}
    return place | {"guild_id": str(GUILD), "permission_overwrites": [], "nsfw": False}


def _direct(person: dict[str, Any]) -> dict[str, Any]:
    return {"id": str(CHANNEL + 1), "type": 1, "recipients": [person]}


def _role(number: int, name: str) -> dict[str, Any]:
    shown = {"color": 0, "colors": {"primary_color": 0}, "hoist": False, "mentionable": False}
    return {"id": str(number), "name": name, "position": 0, "permissions": "0", **shown} | {
        "managed": False,
        "flags": 0,
    }


def _guild() -> dict[str, Any]:
    lists = ("emojis", "stickers", "features", "members", "threads", "presences", "voice_states")
    numbers = ("verification_level", "default_message_notifications", "explicit_content_filter")
    levels = ("mfa_level", "nsfw_level", "premium_tier", "system_channel_flags", "afk_timeout")
    return (
        {
            "id": str(GUILD),
            "name": "a server",
            "owner_id": "1",
            "unavailable": False,
            "member_count": 2,
            "preferred_locale": "en-US",
            "premium_progress_bar_enabled": False,
            "roles": [_role(GUILD, "@everyone"), _role(ROLE, "runners"), _role(ROLE + 1, "others")],
            "channels": [_channel()],
            "stage_instances": [],
            "guild_scheduled_events": [],
            "soundboard_sounds": [],
        }
        | {name: [] for name in lists}
        | dict.fromkeys((*numbers, *levels), 0)
    )
