"""Runs an agent for a call."""

import inspect
from collections.abc import Callable, Mapping
from typing import final

from paceline.agents.spec import WANTS, AgentSpec
from paceline.agents.threads import ThreadPool
from paceline.call import Call
from paceline.errors import AgentError, InvalidInputError

__all__ = ["AgentRunner"]


@final
class AgentRunner:
    """Runs async agents on the event loop, synchronous ones in threads."""

    __slots__ = ("_ended", "_threads")

    def __init__(self, threads: ThreadPool, ended: Callable[[Call], None] = lambda _: None) -> None:
        """`ended` is told, from its thread, when a synchronous agent has really ended: that can
        be long after its caller has left."""
        self._threads = threads
        self._ended = ended

    async def run(self, spec: AgentSpec, call: Call) -> object:
        """What the agent returns for the call's query and context.

        The agent gets of the context what it has parameters for, and `call`, `user`, `session`
        and `tenant` of the call where it has a parameter of that name. Time limits are the
        caller's: a cancelled synchronous agent is left behind in its thread.

        Raises what the agent raises, InvalidInputError for a call without a query, and
        AgentError where a synchronous agent raises something that is meant to end a program.
        """
        query, context = _arguments(spec, call)
        if spec.is_async:
            value = spec.run(query, **context)
        else:
            value = await self._threads.run(self._run, spec, call, query, context)
        return await value if inspect.isawaitable(value) else value

    def _run(
        self, spec: AgentSpec, call: Call, query: object, context: Mapping[str, object]
    ) -> object:
        # Holds the spec, and with it the agent's modules, until the thread really ends.
        try:
            return spec.run(query, **context)
        except Exception:
            raise
        except BaseException as exc:
            # On the loop it would cancel the wrong task, or end the program.
            raise AgentError(
                f"{spec.name} raised {type(exc).__name__}", may_have_started=True
            ) from exc
        finally:
            self._ended(call)


def _arguments(spec: AgentSpec, call: Call) -> tuple[object, dict[str, object]]:
    context = dict(call.arguments)
    if "query" not in context:
        raise InvalidInputError(
            f"the call of {spec.name} has no query", next_step='Pass arguments={"query": ...}.'
        )
    query = context.pop("query")
    if not (context or spec.wants):
        return query, context
    if spec.accepts is not None:
        context = {name: value for name, value in context.items() if name in spec.accepts}
    # No caller can pass itself off as another user through the context.
    for name in WANTS:
        context.pop(name, None)
    for name in spec.wants:
        context[name] = call if name == "call" else getattr(call.caller, name)
    return query, context
