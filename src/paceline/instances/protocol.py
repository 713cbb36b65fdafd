"""What does the work of an instance, whatever it is."""

from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

from paceline.call import Call

if TYPE_CHECKING:
    from paceline.balance.lease import Lease

__all__ = ["Target"]


@runtime_checkable
class Target(Protocol):
    """Does calls, several at once. `paceline.testing.target_suite` holds every one to this.

    It is used inside `async with`, which costs next to nothing: connections and processes are made
    when the first call needs them. Leaving ends them all; a second time, nothing happens.
    """

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    async def execute(self, call: Call, lease: "Lease") -> object:
        """The value of the call.

        Says `lease.first_token()` when the answer begins to come and `lease.used(...)` if it says
        what it used; never releases the lease. `call.deadline_ns` is kept. Raises PacelineError:
        with `may_have_started` False only if the work certainly did not begin. Cancelling it leaves
        no connection in use and no work that goes on in a process, at the latest a moment later: who
        cancels does not wait for that.
        """
        ...

    async def probe(self) -> None:
        """Looks whether it is there, at no cost. Raises PacelineError if it is not."""
        ...
