"""What went wrong in the code of others, as an error of ours."""

import contextlib
from collections.abc import Generator
from typing import TYPE_CHECKING

from paceline.errors import AgentError, CallTimeoutError, Category, PacelineError

if TYPE_CHECKING:
    from paceline.balance.lease import Lease

__all__ = ["at_instance", "raised", "timed_out"]


@contextlib.contextmanager
def at_instance(lease: "Lease") -> Generator[None]:
    """Errors of ours say at which instance it was, by the id that it has everywhere else."""
    try:
        yield
    except PacelineError as exc:
        exc.message = f"instance {lease.instance.id}: {exc.message}"
        exc.args = (exc.message, *exc.args[1:])
        raise


def raised(name: str, exc: BaseException) -> PacelineError:
    """The error for an exception of the code of `name`; `exc` is to be its cause. An error of ours
    is itself."""
    if isinstance(exc, PacelineError):
        return exc
    what = f"{type(exc).__qualname__}: {exc}" if str(exc) else type(exc).__qualname__
    return AgentError(f"{name} failed: {what}", category=_category(exc), may_have_started=True)


def timed_out(name: str, limit_s: float) -> CallTimeoutError:
    """An execution was stopped at its limit."""
    return CallTimeoutError(f"{name} timed out after {limit_s:g} s", may_have_started=True)


def _category(exc: BaseException) -> Category:
    if isinstance(exc, TimeoutError):
        return Category.TIMEOUT
    if isinstance(exc, MemoryError):
        return Category.EXHAUSTED
    return Category.NETWORK if isinstance(exc, ConnectionError) else Category.EXECUTION
