"""The cold tier over TLS: a server that is who it says is used, and no other."""

import asyncio
import contextlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.redis_server import RedisServer
from tests.redis_tiers import HOUR_NS, Told, key, open_tier, until


class Identity(NamedTuple):
    """A certificate that is its own authority, and its key."""

    certificate: Path
    key: Path


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Identity]:
    """Makes identities, each for one name (`IP:127.0.0.1`, `DNS:example.test`)."""
    folder = tmp_path_factory.mktemp("tls")

    def make(name: str) -> Identity:
        made = Identity(folder / f"{name}.pem", folder / f"{name}.key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "1", "-subj", "/CN=paceline test", "-addext",
             f"subjectAltName={name}", "-keyout", made.key, "-out", made.certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        return made

    return make


@contextlib.asynccontextmanager
async def _encrypted(server: RedisServer, shown: Identity) -> AsyncIterator[str]:
    """The place of a door to the server that speaks TLS, and wants the same of its callers."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(shown.certificate))
    context.load_cert_chain(shown.certificate, shown.key)
    context.verify_mode = ssl.CERT_REQUIRED

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65_536):
                writer.write(data)
        writer.close()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind = await asyncio.open_connection("127.0.0.1", server.port)
        with contextlib.suppress(asyncio.CancelledError):  # the test is over
            await asyncio.gather(carry(reader, behind[1]), carry(behind[0], writer))

    door = await asyncio.start_server(pass_on, "127.0.0.1", 0, ssl=context)
    async with door:
        yield f"127.0.0.1:{door.sockets[0].getsockname()[1]}"


def _url(place: str, own: Identity) -> str:
    return (
        f"rediss://{place}/0?ssl_ca_certs={own.certificate}"
        f"&ssl_certfile={own.certificate}&ssl_keyfile={own.key}"
    )


async def test_values_travel_encrypted(
    server: RedisServer, identity: Callable[[str], Identity]
) -> None:
    """Over TLS, with certificates of both sides, a value of any size comes back, reads at once
    travel together, and what another process changes is told. (S1-51)"""
    known = identity("IP:127.0.0.1")
    told = Told()
    async with (
        _encrypted(server, known) as place,
        open_tier(_url(place, known), told=told) as tier,
        open_tier(server.url) as other,
    ):
        await until(lambda: tier.connected)
        assert await tier.put(key(1), b"x" * 3_000_000, HOUR_NS)
        assert await other.put(key(2), b"v", HOUR_NS)
        await until(lambda: key(2) in told.keys)
        first, second = await asyncio.gather(tier.get(key(1)), tier.get(key(2)))
        assert first is not None
        assert second is not None
        assert (len(first.value), second.value) == (3_000_000, b"v")
        assert told.troubles == []


@pytest.mark.parametrize(
    ("shown", "trusted", "said"),
    [
        ("IP:127.0.0.1", "DNS:example.test", "certificate verify failed"),
        ("DNS:example.test", "DNS:example.test", "not valid for '127.0.0.1'"),
        ("IP:127.0.0.1", "", "/no/such.key: No such file"),
    ],
)
async def test_a_server_with_a_wrong_certificate_is_not_used(
    server: RedisServer,
    identity: Callable[[str], Identity],
    shown: str,
    trusted: str,
    said: str,
) -> None:
    """A certificate of another authority or for another name is a trouble that says so, as are
    files that are not there, which it names; nothing is stored and nothing raised. (D80)"""
    told = Told()
    own = identity(trusted) if trusted else Identity(Path("/no/such.pem"), Path("/no/such.key"))
    async with (
        _encrypted(server, identity(shown)) as place,
        open_tier(_url(place, own), told=told, budget_s=0.1) as tier,
    ):
        await until(lambda: told.troubles)
        assert not tier.connected
        assert not await tier.put(key(1), b"v", HOUR_NS)
        assert await tier.get(key(1)) is None
    assert said in str(told.troubles[0])
    assert place in str(told.troubles[0])
    assert len(told.troubles) == 1


def _locked(known: Identity) -> Identity:
    """The same, with a password on its key."""
    locked = known.key.with_suffix(".locked")
    subprocess.run(
        ["openssl", "pkey", "-in", known.key, "-aes256", "-passout", "pass:s3cret-word",
         "-out", locked],
        check=True, capture_output=True,
    )  # fmt: skip
    return Identity(known.certificate, locked)


async def test_a_locked_key_is_refused(
    server: RedisServer, identity: Callable[[str], Identity]
) -> None:
    """A key file that needs a password is a trouble; nobody is asked for it at a terminal."""
    known, told = identity("IP:127.0.0.1"), Told()
    locked = _locked(known)
    async with (
        _encrypted(server, known) as place,
        open_tier(_url(place, locked), told=told, budget_s=0.1) as tier,
    ):
        await until(lambda: told.troubles)
        assert not tier.connected
    assert f"cannot use the certificates in {known.certificate}" in str(told.troubles[0])
