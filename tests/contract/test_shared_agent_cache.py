"""`AgentCache` on a real server."""

from paceline.agents.result_cache import AgentCache
from paceline.call import Source
from paceline.clock import SystemClock
from tests.redis_server import RedisServer
from tests.redis_tiers import Told, open_tier, until


async def test_two_processes_share_results(server: RedisServer) -> None:
    """A result put by one is found by the other, a removal by one is heard by the other, and
    without the server each goes on alone. (S1-51, E-08, T17)"""
    told = Told()
    async with open_tier(server.url) as first, open_tier(server.url, told=told) as second:
        one, other = AgentCache(shared=first), AgentCache(shared=second)
        await one.put("host_exec", "df", {"free": [1, None]}, user="ada")
        await one.put("host", "df", "kept", user="ada")
        hit = await other.lookup("host_exec", "df", user="ada")
        assert hit is not None
        assert (hit.value, hit.source) == ({"free": [1, None]}, Source.COLD)
        assert await other.get("host_exec", "df", user="bob") is None
        assert await one.clear_agent("host_exec") == 1
        await until(lambda: told.keys)
        for key in told.keys:
            other.forget(key)
        assert await other.get("host_exec", "df", user="ada") is None
        assert await other.get("host", "df", user="ada") == "kept"
    alone = AgentCache(shared=first, clock=SystemClock())
    await alone.put("a", "x", 1)
    assert await alone.get("a", "x") == 1
