"""What one execution is allowed besides its places: to ask what may be failing, and to cost."""

from typing import cast, final

from paceline.balance.circuit import Circuit
from paceline.balance.lease import Lease
from paceline.balance.spending import Admission, Spending
from paceline.errors import CallCancelledError, PacelineError
from paceline.path.job import Execution
from paceline.usage import Meter

__all__ = ["Permit", "unused"]


@final
class Permit:
    """All of it, or none: taken when an execution begins, given back when it has ended."""

    __slots__ = ("_admission", "_circuit", "_execution", "_passed", "lease")

    def __init__(self, execution: Execution, spending: Spending, lease: Lease | None) -> None:
        """With the place at an instance, where there are several. Raises OverloadedError or
        BudgetExceededError; the lease is over then."""
        self.lease = lease
        circuit = self._circuit = execution.job.circuit
        self._execution = execution
        self._passed = 0 if circuit is None else circuit.standing or self._enter(circuit)
        self._admission: Admission | None = None
        if not spending.limited:
            return
        try:
            self._admission = spending.admit(execution.call)
        except PacelineError as exc:
            if lease is not None:
                unused(lease)
            self.end(exc, None)
            raise

    def _enter(self, circuit: Circuit) -> int:
        if self._execution.speculative and not circuit.closed:
            raise circuit.refusal()  # to try whether it is back is for who needs it
        return circuit.enter()

    def pass_on(self) -> Lease:
        """The lease, which there is: its end is up to whoever takes it from now on."""
        lease, self.lease = self.lease, None
        return cast("Lease", lease)

    def end(self, error: PacelineError | None, meter: Meter | None) -> None:
        """How the execution ended, and what measured its cost. What fails for a guess, may do so
        because it was a wrong one: that says nothing of who was asked."""
        if error is not None and self._execution.speculative:
            error = CallCancelledError(error.message)
        if self.lease is not None and not self.lease.ended_ns:
            self.lease.release(error, abandoned=error is not None)
        circuit = self._circuit
        if circuit is not None and (error is not None or circuit.standing != self._passed):
            circuit.leave(self._passed, error)
        if self._admission is not None:
            spent = None if meter is None else meter.spent
            self._admission.settle(measured=spent is not None and spent.cost_usd is not None)


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
