"""What one execution is allowed besides its places: to ask what may be failing, and to cost."""

from typing import final

from paceline.balance.lease import Lease
from paceline.balance.spending import Admission, Spending
from paceline.errors import PacelineError
from paceline.path.job import Execution

__all__ = ["Permit"]


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
            self.end(exc, measured=False)
            raise

    def end(self, error: PacelineError | None, *, measured: bool) -> None:
        """How the execution ended, and whether it was measured what it cost."""
        if self.lease is not None and not self.lease.ended_ns:
            self.lease.release(error, abandoned=error is not None)
        if self._circuit is not None:
            self._circuit.leave(self._passed, error)
        if self._admission is not None:
            self._admission.settle(measured=measured)
