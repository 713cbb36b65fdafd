"""What every cache backend promises, as one call that any implementation can be put to."""

import tempfile
from pathlib import Path
from typing import Final

import msgspec

from paceline.errors import UsageError
from paceline.testing.cache_backend import Factory, Manners, Subject
from paceline.testing.cache_checks import (
    CHECKS,
    Check,
    a_lifetime_is_kept_to_the_nanosecond,
    what_is_written_outlives_closing,
)

__all__ = ["BrokenPromisesError", "Conformance", "check_cache_backend"]

_MODEL: Final = "any_sequence_of_steps"
_MODEL_PROMISE: Final = "Any sequence of steps finds what a dictionary with expiry would hold."


class Conformance(msgspec.Struct, frozen=True):
    """What a backend was seen to keep, and what was not tried and why, by name of the check."""

    kept: tuple[str, ...]
    left_out: dict[str, str]


class BrokenPromisesError(AssertionError):
    """A backend breaks promises: `broken` has what was seen, by name of the check."""

    def __init__(self, broken: dict[str, str], promises: dict[str, str]) -> None:
        self.broken = broken
        told = "".join(f"\n\n{name}: {promises[name]}\n  {seen}" for name, seen in broken.items())
        super().__init__(f"{len(broken)} broken promises{told}")


def check_cache_backend(
    factory: Factory,
    *,
    eventual: bool = False,
    persistent: bool = False,
    real_time: bool = False,
    examples: int = 100,
    derandomize: bool = True,
) -> Conformance:
    """Puts a cache backend to all checks; returns what it kept.

    `factory(directory, clock)` makes a new backend (see `Backend`, `AsyncBackend`; the factory
    of an async one may be async too) with its files, or its names on a server, in a fresh
    directory. It needs room for 100 values of 1,000 bytes and for one of 100,000; with no more
    room than that, the checks see what an update does when it is full.

    `eventual`: what is put can be read only after `flush()`, which must be there. `persistent`:
    a second backend on the same directory finds what was written. `real_time`: the backend goes
    by the time of a server, so checks wait for short lifetimes, and what needs a virtual clock
    is left out. `examples` sequences of steps are tried in the model check, 0 leaves it out;
    they are the same in each run unless `derandomize` is False.

    To be called where no event loop runs. Raises BrokenPromisesError, an AssertionError, and
    UsageError if hypothesis, which the model check needs, is not installed.
    """
    manners = Manners(eventual=eventual, persistent=persistent, real_time=real_time)
    left_out = _left_out(manners, examples)
    kept: list[str] = []
    broken: dict[str, str] = {}
    promises = {check.__name__: _promise(check) for check in CHECKS}
    for check in CHECKS:
        if check.__name__ in left_out:
            continue
        seen = _run(check, factory, manners)
        if seen is None:
            kept.append(check.__name__)
        else:
            broken[check.__name__] = seen
    if examples:
        seen = _run_model(factory, manners, examples, derandomize=derandomize)
        if seen is None:
            kept.append(_MODEL)
        else:
            broken[_MODEL] = seen
    if broken:
        raise BrokenPromisesError(broken, {**promises, _MODEL: _MODEL_PROMISE})
    return Conformance(tuple(kept), left_out)


def _left_out(manners: Manners, examples: int) -> dict[str, str]:
    found: dict[str, str] = {}
    if manners.real_time:
        found[a_lifetime_is_kept_to_the_nanosecond.__name__] = "needs a virtual clock"
    if not manners.persistent:
        found[what_is_written_outlives_closing.__name__] = "is not said to be persistent"
    if not examples:
        found[_MODEL] = "no examples asked for"
    return found


def _promise(check: Check) -> str:
    return " ".join((check.__doc__ or "").split())


def _run(check: Check, factory: Factory, manners: Manners) -> str | None:
    """What was seen of a broken promise, or None."""
    with tempfile.TemporaryDirectory() as directory:
        try:
            subject = Subject(factory, Path(directory), manners)
            try:
                check(subject)
            finally:
                subject.close()
        except Exception as exc:  # noqa: BLE001 (no check lets a backend raise anything)
            return _seen(exc)
    return None


def _run_model(
    factory: Factory, manners: Manners, examples: int, *, derandomize: bool
) -> str | None:
    try:
        from paceline.testing.cache_model import check_model  # noqa: PLC0415 (hypothesis is extra)
    except ModuleNotFoundError as exc:
        raise UsageError(
            "the model check needs hypothesis, which is not installed",
            next_step="Install hypothesis, or pass examples=0 to leave this check out.",
        ) from exc
    try:
        check_model(factory, manners, examples=examples, derandomize=derandomize)
    except Exception as exc:  # noqa: BLE001 (no check lets a backend raise anything)
        return _seen(exc)
    return None


def _seen(error: Exception) -> str:
    """The error in words, and the steps that led to it where they are known."""
    what = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
    return "\n  ".join("\n".join([what, *getattr(error, "__notes__", ())]).splitlines())
