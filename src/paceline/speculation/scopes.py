"""Among whom habits are learnt: the circles that a caller belongs to, by name."""

from typing import Final, Literal, cast
from urllib.parse import quote, unquote

from paceline.call import Caller

__all__ = [
    "EVERYBODY",
    "Share",
    "circle_of",
    "circles_of",
    "is_alone",
    "is_shared",
    "lasting",
    "lasts",
    "said",
    "user_of",
]

Share = Literal["user", "tenant", "all"]

EVERYBODY: Final = ""
"""The circle of all."""
_USER: Final = "user "
_TENANT: Final = "tenant "
_SESSION: Final = "session "


def circle_of(caller: Caller, share: Share) -> str:
    """The circle in which a session of this caller learns.

    A circle that the caller has no name for narrows: a tenant to the user, a user to the session
    alone, of which nothing is worth keeping when it is over. No two circles have one name.
    """
    if share == "all":
        return EVERYBODY
    if share == "tenant" and caller.tenant is not None:
        return _TENANT + _part(caller.tenant)
    if caller.user is not None:
        within = "" if caller.tenant is None else f"{_part(caller.tenant)}/"
        return f"{_USER}{within}{_part(caller.user)}"
    return _SESSION + _part(caller.session or "")


def circles_of(caller: Caller) -> tuple[str, ...]:
    """All circles of a caller, the narrowest first."""
    shares: tuple[Share, ...] = ("user", "tenant", "all")
    return tuple(dict.fromkeys(circle_of(caller, share) for share in shares))


def user_of(circle: str) -> str | None:
    """The user whose circle it is, of whatever tenant; None for one of several people."""
    if not circle.startswith(_USER):
        return None
    return unquote(circle.removeprefix(_USER).rpartition("/")[2])


def is_alone(circle: str) -> bool:
    """Whether it is that of one session."""
    return circle.startswith(_SESSION)


def is_shared(circle: str) -> bool:
    """Whether it is one of several people."""
    return circle == EVERYBODY or circle.startswith(_TENANT)


def lasting(saved: object) -> object:
    """What a predictor saved, without what sessions learnt for themselves alone."""
    parts = cast("dict[str, object]", saved)
    scopes = cast("dict[str, object]", parts["scopes"])
    left = {scope: each for scope, each in scopes.items() if lasts(scope)}
    return {**parts, "scopes": left}


def lasts(circle: str) -> bool:
    """Whether what is learnt there is of use when the session is over."""
    return not is_alone(circle)


def said(circle: str) -> str:
    """What a person calls it."""
    return "everybody" if circle == EVERYBODY else unquote(circle)


def _part(name: str) -> str:
    return quote(name, safe="", errors="surrogatepass")
