"""What an answer says it used: told to the lease, for limits, and to the meter, for money."""

from typing import TYPE_CHECKING

from paceline.call import Tokens
from paceline.usage import report_usage

if TYPE_CHECKING:
    from paceline.balance.lease import Lease

__all__ = ["used"]


def used(lease: "Lease | None", model: str, tokens: Tokens, cost_usd: float | None = None) -> None:
    """Notes what a call of `model` used, and cost where the answer says that."""
    if lease is not None:
        lease.used(tokens)
    report_usage(
        model,
        input=tokens.input,
        output=tokens.output,
        cached_input=tokens.cached_input,
        cache_write=tokens.cache_write,
        reasoning=tokens.reasoning,
        cost_usd=cost_usd,
    )
