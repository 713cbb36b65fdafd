"""Addresses of HTTP servers, and the tokens sent to them."""

import re
from typing import Final
from urllib.parse import urljoin, urlsplit

from paceline.config import shown_address
from paceline.errors import ConfigError
from paceline.redaction import MASK, Secret

__all__ = ["address", "below", "led_to", "place", "secrets_of", "usable"]

_QUERY: Final = re.compile(r"([?#]).*", re.DOTALL)

_LONG: Final = 8
"""Parts of an address that are shorter are ordinary words."""


def address(url: str) -> str:
    """An address with http or https, without what stands after a `#`.

    Raises ConfigError, which shows nothing of it that may be a secret.
    """
    try:
        parts = urlsplit(url)
        sound = bool(parts.scheme in {"http", "https"} and parts.hostname and parts.port != 0)
    except ValueError:
        sound, parts = False, urlsplit("")
    if not sound or not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(
            f"the address of an instance is {_shown(url)}, which is no http://host:port/path",
            next_step="Correct its url; it begins with http:// or https://.",
        )
    if "@" in parts.netloc:
        raise ConfigError(
            "the address of an instance has a user or a password in it",
            next_step="Give it a token instead, by the name of an environment variable.",
        )
    return parts._replace(fragment="").geturl()


def below(url: str, path: str) -> str:
    """The address of something below this one."""
    parts = urlsplit(url)
    return parts._replace(path=f"{parts.path.rstrip('/')}/{path}").geturl()


def led_to(url: str, location: str) -> str:
    """Where the answer to a request of `url` leads, without what may be secret in it; nothing if
    that is no address."""
    try:
        parts = urlsplit(urljoin(url, location))
    except ValueError:
        return ""
    if not location or not parts.hostname:
        return ""
    netloc = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=netloc, query="", fragment="").geturl()


def place(url: str) -> str:
    """The host and port of an address, for messages."""
    return urlsplit(url).netloc


def secrets_of(url: str, token: Secret | None) -> list[Secret]:
    """What no message may repeat: the token, and what follows a `?`."""
    query = urlsplit(url).query
    values = [part.partition("=")[2] for part in query.split("&")]
    secrets = [Secret(value) for value in (query, *values) if len(value) >= _LONG]
    return [*secrets, token] if token else secrets


def usable(token: Secret | None) -> Secret | None:
    """The token, or None for an empty one. Raises ConfigError if it cannot be sent."""
    text = token.reveal() if token is not None else ""
    if not (text.isascii() and text.isprintable()) or " " in text:
        raise ConfigError(
            "the token of an instance has a character in it that cannot be sent",
            next_step="Look for a space or a line break at its end.",
        )
    return token if text else None


def _shown(url: str) -> str:
    return repr(_QUERY.sub(rf"\g<1>{MASK}", shown_address(url)))
