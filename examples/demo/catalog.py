"""An HTTP service on loopback, and the agent that asks it: facts about installed packages."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import metadata
from pathlib import Path

import aiohttp
from aiohttp import web

from paceline import Effect, Runtime
from paceline.errors import AgentError, Category

__all__ = ["packages", "register", "serving"]


def packages() -> list[str]:
    """Names of what is installed here."""
    return sorted({found.metadata["Name"] for found in metadata.distributions()})


def _facts(name: str) -> dict[str, object]:
    """Size and age of a package, by looking at each of its files."""
    found = metadata.distribution(name)
    paths = [Path(str(found.locate_file(file))) for file in found.files or ()]
    sizes = [path.stat().st_size for path in paths if path.is_file()]
    return {
        "name": found.metadata["Name"],
        "version": found.version,
        "files": len(sizes),
        "bytes": sum(sizes),
    }


async def _answer(request: web.Request) -> web.Response:
    try:
        return web.json_response(await asyncio.to_thread(_facts, request.match_info["name"]))
    except metadata.PackageNotFoundError:
        return web.json_response({"error": "no such package"}, status=404)


@asynccontextmanager
async def serving() -> AsyncIterator[str]:
    """Serves on a free port of loopback; yields the address."""
    app = web.Application()
    app.router.add_get("/packages/{name}", _answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def register(runtime: Runtime, url: str, session: aiohttp.ClientSession) -> None:
    """Registers the agent `catalog`: the decorator form, with a connection that it shares."""

    @runtime.agent(
        description="Facts about an installed package, from the catalog service.",
        effect=Effect.read(),
        scope="global",
        cache_ttl=120,
        timeout=10,
        max_concurrency=8,
        capabilities=["network"],
    )
    async def catalog(query: str) -> object:
        async with session.get(f"{url}/packages/{query.strip()}") as reply:
            if reply.status == 404:  # noqa: PLR2004
                raise AgentError(
                    f"the catalog has no package {query!r}",
                    category=Category.NOT_FOUND,
                    next_step="Ask for one that `pip list` shows.",
                )
            reply.raise_for_status()
            facts: object = await reply.json()
            return facts
