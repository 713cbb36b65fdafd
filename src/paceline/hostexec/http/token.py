"""The token of the host command service: made once, kept in a file that only its owner reads."""

import fcntl
import hmac
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Final

from paceline.errors import ConfigError
from paceline.redaction import Secret

__all__ = ["checked", "matches", "read_or_create_token", "read_token"]

_BYTES: Final = 32
_LONGEST: Final = 1024
# What a header carries unchanged, and long enough not to be guessed.
_USABLE: Final = re.compile(r"[!-~]{16,1024}")
_MAKE_ONE: Final = "Remove it: a new token is made at the next start."


def read_or_create_token(path: Path) -> Secret:
    """The token in this file; where there is none yet, a new one of 32 random bytes.

    Of several processes that start at once all get the same token. Raises ConfigError as
    `read_token`, and when the file cannot be made.
    """
    try:
        if _stands_in(path):
            _fill(path)
        elif not os.path.lexists(path):
            _create(path)
    except OSError as exc:
        raise ConfigError(
            f"the token file {path} cannot be made: {exc.strerror}",
            next_step="Correct the permissions of its directory, or set hostexec.token_file.",
        ) from exc
    return read_token(path)


def read_token(path: Path) -> Secret:
    """The token in this file.

    Raises ConfigError when there is none, when anybody but its owner may read or change the
    file, when it is not the file of this user, or a link, and when its content is no token.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        file = os.open(path, flags)
    except FileNotFoundError as exc:
        raise ConfigError(
            f"there is no token file {path}",
            next_step="Start the service once with `paceline hostexec serve`: it makes one.",
        ) from exc
    except OSError as exc:
        why = "it is a link" if path.is_symlink() else exc.strerror
        raise ConfigError(
            f"the token file {path} cannot be used: {why}",
            next_step="Set hostexec.token_file to a file of your own with mode 0600.",
        ) from exc
    try:
        _check_owner(path, os.fstat(file))
        data = os.read(file, _LONGEST + 2)
    finally:
        os.close(file)
    try:
        text = data.decode("ascii").removesuffix("\n")
    except UnicodeDecodeError as exc:
        raise ConfigError(f"the token in {path} is not ASCII", next_step=_MAKE_ONE) from exc
    return checked(Secret(text), f"the token in {path}")


def checked(token: Secret, name: str = "the token") -> Secret:
    """The token, if it is one: 16 to 1024 printable ASCII characters. Raises ConfigError."""
    if not token:
        raise ConfigError(f"{name} is empty", next_step=_MAKE_ONE)
    if not _USABLE.fullmatch(token.reveal()):
        raise ConfigError(
            f"{name} is not 16 to {_LONGEST} printable ASCII characters without spaces",
            next_step=_MAKE_ONE,
        )
    return token


def matches(given: str, token: Secret) -> bool:
    """Whether a header's value is the token; how long it takes tells nothing of its characters."""
    return hmac.compare_digest(
        given.encode("utf-8", "surrogateescape"), token.reveal().encode("ascii")
    )


def _check_owner(path: Path, status: os.stat_result) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"the token file {path} is not a regular file", next_step=_MAKE_ONE)
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"the token file {path} belongs to another user",
            next_step="Set hostexec.token_file to a file of your own with mode 0600.",
        )
    if mode & 0o077:
        raise ConfigError(
            f"the token file {path} is open to others (mode {mode:04o})",
            next_step=f"Others may know the token. Remove {path}; the next start makes a new one.",
        )


def _stands_in(path: Path) -> bool:
    """Whether it is one of the empty files that keep commands from making one here."""
    try:
        state = path.lstat()
    except FileNotFoundError:
        return False
    ours = stat.S_ISREG(state.st_mode) and state.st_uid == os.geteuid()
    return ours and state.st_size == 0 and bool(state.st_mode & stat.S_ISVTX)


def _fill(path: Path) -> None:
    """Makes a stand-in the token file. In place: a running sandbox has it mounted over."""
    file = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_size == 0:  # nobody was first
            os.fchmod(file, 0o600)
            os.write(file, secrets.token_hex(_BYTES).encode() + b"\n")
            os.fsync(file)
    finally:
        os.close(file)


def _create(path: Path) -> None:
    """Puts a complete file in place at once, unless another process was first."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    made = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    file = os.open(made, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(file, secrets.token_hex(_BYTES).encode() + b"\n")
            os.fsync(file)
        finally:
            os.close(file)
        # A link, unlike a rename, never replaces a token that is in use.
        os.link(made, path, follow_symlinks=False)
    except FileExistsError:
        return  # the other one's is as good
    finally:
        made.unlink()
