"""A real server for the tests of the shared cache."""

from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def redis_process() -> Iterator[RedisServer]:
    """A server for all tests of this process."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def server(redis_process: RedisServer) -> RedisServer:
    """The server, empty."""
    redis_process.flush()
    return redis_process
