"""What an execution is allowed, where nothing is wrong and where something was."""

from paceline.balance.circuit import Circuit, CircuitPolicy
from paceline.balance.spending import Spending
from paceline.call import Call, Caller, Kind, Outcome, Plan, Priority, Scope
from paceline.errors import AgentError, PacelineError
from paceline.path.job import Execution, Job
from paceline.path.permit import Permit
from paceline.testing.virtual_time import VirtualClock


def test_a_success_between_two_failures_keeps_the_circuit_closed() -> None:
    """A circuit that needs not be told of successes while nothing is wrong hears of those after a
    failure, so that only failures in a row open it (V-26)."""
    clock = VirtualClock()
    circuit = Circuit("agent", clock, CircuitPolicy(failures=2))

    async def nothing(_: object) -> Outcome:
        raise NotImplementedError

    caller = Caller("ada")
    call = Call("1", Kind.AGENT, "agent", {}, caller, Scope.of(caller, None), Plan())
    job = Job(nothing, circuit=circuit)

    def ends(error: PacelineError | None) -> None:
        execution = Execution(nothing, call, job, None, frozenset(), None, Priority.NORMAL)
        Permit(execution, Spending((), clock), None).end(error, None)

    for error in (None, AgentError("broken"), None, AgentError("broken"), None):
        ends(error)
        assert circuit.closed
    ends(AgentError("broken"))
    ends(AgentError("broken"))
    assert not circuit.closed
