"""What went wrong in the code of others, as an error of ours."""

from paceline.errors import AgentError, CallTimeoutError, Category, PacelineError

__all__ = ["raised", "timed_out"]


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
