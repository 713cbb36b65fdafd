"""What one execution is allowed besides its places: to ask what may be failing, and to cost."""

from typing import final

from paceline.balance.lease import Lease
from paceline.balance.spending import Admission, Spending
from paceline.errors import PacelineError
from paceline.path.job import Execution

__all__ = ["Permit", "unused"]


@final
class Permit:
    """All of it, or none: taken when an execution begins, given back when it has ended."""

    __slots__ = ("_admission", "_circuit", "_passed", "lease")

    def __init__(self, execution: Execution, spending: Spending, lease: Lease | None) -> None:
        """With the place at an instance, where there are several. Raises OverloadedError or
        BudgetExceededError; the lease is over then."""
        self.lease = lease
        self._circuit = execution.job.circuit
        self._passed = self._circuit.enter() if self._circuit is not None else 0
        self._admission: Admission | None = None
        try:
            self._admission = spending.admit(execution.call)
        except PacelineError as exc:
            if lease is not None:
                unused(lease)
            self.end(exc, measured=False)
            raise

    def pass_on(self) -> Lease | None:
        """The lease, if there is one: its end is up to whoever takes it from now on."""
        lease, self.lease = self.lease, None
        return lease

    def end(self, error: PacelineError | None, *, measured: bool) -> None:
        """How the execution ended, and whether it was measured what it cost."""
        if self.lease is not None and not self.lease.ended_ns:
            self.lease.release(error, abandoned=error is not None)
        if self._circuit is not None:
            self._circuit.leave(self._passed, error)
        if self._admission is not None:
            self._admission.settle(measured=measured)


def unused(lease: Lease) -> None:
    """Ends a lease whose work was never sent: what the guards of its instance gave is given back,
    unless it has ended already."""
    if lease.ended_ns:
        return
    sent_ns, lease.started_ns = lease.started_ns, 0  # which says so to the guards
    for guard, permit in lease.permits:
        guard.ended(permit, lease)
    lease.permits, lease.started_ns = (), sent_ns
    lease.release(abandoned=True)
