"""Where a Redis or Valkey server is, from its address, and how it is spoken of without secrets."""

import re
import ssl
from typing import Final, final
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from paceline.errors import ConfigError
from paceline.redaction import Secret

__all__ = ["RedisAddress"]

_OPTIONS: Final = frozenset({"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"})
_SCHEMES: Final = frozenset({"redis", "rediss", "unix"})
_FORMS: Final = "redis://HOST:PORT/DB, rediss:// for TLS, or unix:///path/to/socket?db=N"
_PORT: Final = 6379


@final
class RedisAddress(msgspec.Struct, frozen=True):
    """`str()` of it names the server and no secret."""

    host: str
    port: int
    path: str = ""  # of a socket in the file system, instead of host and port
    db: int = 0
    user: str = ""
    password: Secret = Secret("")
    tls: bool = False
    ca_file: str | None = None
    certificate: str | None = None
    key_file: str | None = None

    @classmethod
    def parse(cls, url: str) -> "RedisAddress":
        """Of `redis://[[user]:password@]host[:port][/db]`, `rediss://` (TLS; the options
        `ssl_ca_certs`, `ssl_certfile` and `ssl_keyfile` name files) or `unix:///path?db=N`.

        Raises ConfigError, which repeats nothing of the address.
        """
        try:
            parts = urlsplit(url)
            options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            place = parts.path if parts.scheme == "unix" else parts.hostname
            db = options.get("db") or ("0" if parts.scheme == "unix" else parts.path.strip("/"))
            port, number = parts.port or _PORT, int(db or 0)
        except ValueError:
            raise _refusal() from None
        if parts.scheme not in _SCHEMES or not place or number < 0 or set(options) - _OPTIONS:
            raise _refusal()
        return cls(
            host=parts.hostname or "",
            port=port,
            path=unquote(parts.path) if parts.scheme == "unix" else "",
            db=number,
            user=unquote(parts.username or ""),
            password=Secret(unquote(parts.password or "")),
            tls=parts.scheme == "rediss",
            ca_file=options.get("ssl_ca_certs"),
            certificate=options.get("ssl_certfile"),
            key_file=options.get("ssl_keyfile"),
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.path or f"{host}:{self.port}"

    def tls_context(self) -> ssl.SSLContext | None:
        """How to encrypt, or None. The server's name and certificate are always verified.

        Raises ConfigError if a file of the certificates cannot be used.
        """
        if not self.tls:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
            if self.certificate is not None:
                # No password, so that a locked key is refused and not asked for at a terminal.
                context.load_cert_chain(self.certificate, self.key_file, password="")
        except OSError as exc:
            files = ", ".join(filter(None, (self.ca_file, self.certificate, self.key_file)))
            raise ConfigError(f"cannot use the certificates in {files}: {exc.strerror}") from exc
        return context

    def hello(self) -> tuple[str, ...]:
        """The first command: the protocol with pushes, and who we are."""
        command: tuple[str, ...] = ("HELLO", "3")
        if self.password:
            command += ("AUTH", self.user or "default", self.password.reveal())
        return command

    def without_secrets(self, text: str) -> str:
        """The text of a server or library, should it repeat what it was told."""
        secret = self.password.reveal()
        return re.sub(re.escape(secret), "[redacted]", text) if secret else text


def _refusal() -> ConfigError:
    """Not even the host is shown: a mistyped address may have its password there."""
    return ConfigError("this is no address of a Redis server", next_step=f"Give {_FORMS}.")
