"""The sessions of an open runtime: what they are given, and those that are open."""

import asyncio
import contextlib
import fnmatch
import functools
import logging
import reprlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Unpack, final

import msgspec

from paceline.agents.spec import AgentSpec
from paceline.call import Caller, Kind, Priority, current_call
from paceline.engine.conversation import Conversation
from paceline.engine.pipeline import ToolPipeline
from paceline.engine.protocols import Foresight
from paceline.engine.scene import Means
from paceline.engine.session import Session
from paceline.engine.states import AgentState, ExecutionContext, ResourceLimits
from paceline.engine.watchdog import Alarm, Stuck, Watchdog
from paceline.errors import InvalidInputError, RuntimeClosedError, UsageError
from paceline.history.sessions import SessionStore, SessionSummary
from paceline.pricing import PriceList
from paceline.sessions.around import Around
from paceline.sessions.asking import ModelCalls
from paceline.sessions.catalogue import Catalogue
from paceline.sessions.jobs import SessionJobs
from paceline.sessions.kept import KeptJournal
from paceline.sessions.killable import KillableTools
from paceline.sessions.known import KnownModels
from paceline.sessions.memory import ProcessMemory
from paceline.sessions.opening import OpeningSession, SessionOptions, check_options
from paceline.sessions.servers import McpTools, ServedTools
from paceline.sessions.summary import ModelSummary
from paceline.sessions.talk import Talk
from paceline.sessions.toolbox import Toolbox, unknown_tool
from paceline.sessions.turns import TurnRecord
from paceline.settings import ChatSettings
from paceline.tools.function import function_tool
from paceline.tools.runner import ToolRunner
from paceline.tools.spec import ToolSpec

if TYPE_CHECKING:
    from paceline.models.model import Model

__all__ = ["SessionOptions", "Sessions", "limits_of"]

_log = logging.getLogger("paceline")
Tool = ToolSpec | AgentSpec
_LONGEST: Final = 200


@final
class Sessions:
    """Opens sessions, and ends them with the runtime."""

    def __init__(self, catalogue: Catalogue, around: Around) -> None:
        """Opens nothing yet."""
        self._catalogue = catalogue
        self._around = around
        settings, clock = around.settings, around.clock
        self._workers = KillableTools(clock=clock, rng=around.rng, environ=around.environ)
        self._jobs = SessionJobs(
            ToolRunner(around.pool, clock=clock, workers=self._workers, ended=around.ended),
            around.pool.gate,
            settings,
            clock=clock,
            agent=around.agent_job,
            gate=around.gate,
        )
        self._models = KnownModels(catalogue, around, self._jobs)
        self._prices = PriceList(around.settings.prices)
        self._servers = McpTools(around)
        self._limits = limits_of(settings.chat)
        self._pipeline = ToolPipeline(self._toolbox((), Caller()), clock=clock, limits=self._limits)
        self._memory = ProcessMemory(clock)
        self._parts = contextlib.AsyncExitStack()
        self._parts.push_async_callback(self._models.close)
        self._parts.push_async_callback(self._servers.close)
        self._parts.push_async_exit(self._workers.__aexit__)
        self._parts.push_async_callback(self._pipeline.aclose)
        self._store: SessionStore | None = None
        self._opening = asyncio.Lock()
        self._sessions: dict[str, _Held] = {}
        """Those that are open, and those that are being opened."""
        self._closed = False

    def open(
        self, session_id: str | None = None, **options: Unpack[SessionOptions]
    ) -> OpeningSession:
        """A session, which is shut down when it is left. Its id is made up if not given.

        Raises InvalidInputError for options and names that cannot be. Entering it raises ConfigError
        for a model that is not there or cannot be used, UnknownAgentError for a tool, UsageError for
        a session that is open already or cannot be gone on with, StorageError where it cannot be
        kept, RuntimeClosedError. That the id is one of a session that is kept is known at the first
        message, which raises UsageError then.
        """
        check_options(session_id, options)
        return OpeningSession(self, session_id, options)

    async def enter(self, session_id: str | None, options: SessionOptions) -> Session:
        """See `open`."""
        self._check_open()
        caller = _caller(session_id or secrets.token_hex(6), options)
        number = str(caller.session)
        if number in self._sessions:
            raise UsageError(f"the session {number} is open already", next_step="Use that one.")
        held = self._sessions[number] = _Held()
        try:
            session = await self._made(caller, options, held)
            self._check_open()  # closing has not seen it
            held.session = session
            if held.kept:
                await session.__aenter__()
        except BaseException:
            await self._let_go(number, held, drain=False)
            raise
        return session

    async def leave(self, session: Session, *, drain: bool) -> None:
        """Shuts it down, and gives back what it took."""
        await self._let_go(session.id, self._sessions[session.id], drain=drain)

    async def _let_go(self, number: str, held: "_Held", *, drain: bool) -> None:
        try:
            if held.session is not None:
                await held.session.shutdown(drain=drain)
        finally:
            if held.watchdog is not None:
                held.watchdog.stop()
            if held.kept and self._store is not None:
                self._store.release(number)
            try:
                if held.foreseen is not None:
                    held.foreseen()
                if held.model is not None:
                    await self._models.give_back(held.model)
            finally:
                del self._sessions[number]

    async def tools(self) -> Mapping[str, Tool]:
        """All tools and agents that a session can be given, by name."""
        registered, agents = self._catalogue.tools, self._agents()
        return {**agents, **await self._servers.read(self._own()), **registered}

    def models(self) -> list[str]:
        """The names of the models there are."""
        return self._models.names()

    def default_model(self) -> str:
        """The model of a session that names none. Raises ConfigError where there are several, and none
        is the default one."""
        return self._models.default()

    async def stored(self, *, user: str | None = None, limit: int = 50) -> list[SessionSummary]:
        """The sessions that can be gone on with, of one user or of all, those of late first. Raises
        StorageError."""
        store = await self._open_store()
        return [] if store is None else await store.listed(user=user, limit=limit)

    async def close(self, drain_s: float) -> None:
        """Ends all sessions; turns that run may end within so many seconds."""
        self._closed = True
        ending = [
            held.session.shutdown(drain=drain_s > 0, timeout_s=drain_s)
            for held in self._sessions.values()
            if held.session is not None
        ]
        try:
            await asyncio.gather(*ending)
            for held in self._sessions.values():
                if held.foreseen is not None:
                    held.foreseen()
        finally:
            await self._parts.aclose()

    def _agents(self) -> Mapping[str, Tool]:
        """Those that are tools, if no other has the name."""
        registered = self._catalogue.tools
        return {
            name: spec
            for name, spec in self._around.agents().items()
            if spec.kind is not Kind.MODEL and name not in registered
        }

    def _own(self) -> Mapping[str, str]:
        """The names that no server's tool can have, and what has them."""
        registered = dict.fromkeys(self._catalogue.tools, "a tool")
        return {**dict.fromkeys(self._agents(), "an agent"), **registered}

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeClosedError("the runtime is not open")

    async def _made(self, caller: Caller, options: SessionOptions, held: "_Held") -> Session:
        """A session that is not entered yet; what has to be given back is in `held`."""
        around, pipeline = self._around, options.get("pipeline")
        system, limits = options.get("system"), options.get("limits")
        given, approve = options.get("tools"), options.get("approve")
        if pipeline is not None and not given is approve is None:
            raise UsageError(
                "a pipeline has tools of its own, and takes no others",
                next_step="Give tools= and approve= without pipeline=.",
            )
        models = await self._asked(caller, options, held)
        chat = around.settings.chat
        tools = None
        if pipeline is None:
            approve = chat.approve if approve is None else approve
            wanted = await self._wanted(given)
            tools = self._toolbox(wanted, caller, limits, approve, self._served(wanted, given))
        record = TurnRecord(caller, around.observe)
        journal = await self._journal(caller, options, held)
        limits = self._limits if limits is None else limits
        system = chat.system if system is None else system
        workspace = options.get("workspace", "")
        session = Session(
            str(caller.session),
            Means(
                models=models,
                pipeline=pipeline or self._pipeline,
                clock=around.clock,
                rng=around.rng,
                tools=tools,
                journal=journal,
                run=around.calls.next_id() if journal is None else "",
                memory=self._memory,
                relieve=around.relieve,
                ended=record.ended,
                foresight=await self._foresight(tools, models, caller, workspace, held),
            ),
            limits=limits,
            system=system,
            caller=caller,
            conversation=_summed_up(system, limits, models, record, caller)
            if (options.get("compact") or chat.compact) == "model"
            else None,
            workspace=workspace,
        )
        watchdog = held.watchdog = Watchdog(
            session.machine,
            functools.partial(_warn, session.id),
            clock=around.clock,
            counting=False,
        )
        watchdog.start()
        return session

    async def _foresight(
        self,
        tools: Toolbox | None,
        models: ModelCalls,
        caller: Caller,
        workspace: str,
        held: "_Held",
    ) -> Foresight | None:
        """Who looks ahead; nobody where the tools are those of others, or nothing may be run ahead."""
        foresee, models_too = self._around.foresee, self._around.settings.predict.models
        if foresee is None or tools is None or not (tools.reads or models_too):
            return None
        context = ExecutionContext(
            str(caller.session), caller.user, caller.tenant, workspace=workspace
        )
        talk = Talk(models, lambda: held.session, clock=self._around.clock)
        foresight, held.foreseen = await foresee(tools, context, talk)
        return foresight

    async def _asked(self, caller: Caller, options: SessionOptions, held: "_Held") -> ModelCalls:
        """The models that the session asks, opened."""
        given, fallback = options.get("model"), options.get("fallback")
        if given is None or isinstance(given, str):
            name = given or self._models.default()
            first = await self._models.get(name)
            others = self._models.fallback(name) if fallback is None else fallback
        else:
            first = await self._models.borrow(given)
            held.model = given
            others = fallback or ()
        around = self._around
        return ModelCalls(
            [first, *[await self._models.get(other) for other in others]],
            run=around.run,
            calls=around.calls,
            caller=caller,
            clock=around.clock,
            prices=self._prices,
        )

    async def _wanted(
        self, given: Sequence[str | Callable[..., object] | ToolSpec] | None
    ) -> list[Tool]:
        """The tools that are meant, each once, in the order in which they were named."""
        if given is not None and not any(isinstance(one, str) for one in given):
            there: Mapping[str, Tool] = {}
        else:
            there = await self.tools()
        if given is None:
            return [tool for tool in there.values() if isinstance(tool, ToolSpec)]
        found: dict[str, Tool] = {}
        for one in given:
            if isinstance(one, ToolSpec):
                found[one.name] = one
            elif isinstance(one, str):
                names = fnmatch.filter(there, one)
                if not names and one != "*":
                    raise unknown_tool(one, there)
                found.update({name: there[name] for name in names})
            else:
                spec = function_tool(one)
                found[spec.name] = spec
        return list(found.values())

    def _served(
        self,
        tools: Sequence[Tool],
        given: Sequence[str | Callable[..., object] | ToolSpec] | None,
    ) -> ServedTools | None:
        """What follows the servers, where the session may have tools of theirs."""
        patterns = ["*"] if given is None else [one for one in given if isinstance(one, str)]
        if not patterns or not self._around.settings.mcp:
            return None

        def choose(there: Mapping[str, ToolSpec]) -> list[str]:
            return [name for name in there if any(fnmatch.fnmatch(name, one) for one in patterns)]

        return ServedTools(self._servers, self._own(), tools, choose)

    async def _journal(
        self, caller: Caller, options: SessionOptions, held: "_Held"
    ) -> KeptJournal | None:
        keep, resume = options.get("keep"), options.get("resume", False)
        wanted = self._around.settings.chat.keep if keep is None else keep
        store = await self._open_store() if wanted or resume else None
        if store is None:
            if resume:
                raise UsageError(
                    "sessions are not kept here", next_step="Open the runtime with persist=True."
                )
            return None
        held.kept = True
        return KeptJournal(store, caller, resume=resume)

    async def _open_store(self) -> SessionStore | None:
        around = self._around
        if around.store is None:
            return None
        async with self._opening:
            if self._store is None:
                self._store = await asyncio.to_thread(self._opened_store, around.store)
                self._parts.callback(self._store.close)
                self._parts.callback(around.hourly(functools.partial(self._prune, self._store)))
        return self._store

    def _opened_store(self, path: Path) -> SessionStore:
        """The file of sessions, without those that are older than the history may be."""
        around = self._around
        store = SessionStore(path, clock=around.clock, redactor=around.redactor)
        try:
            self._prune(store)
        except BaseException:
            store.close()
            raise
        return store

    def _prune(self, store: SessionStore) -> None:
        store.prune(self._around.settings.history.retention_days * 86_400)

    def _toolbox(
        self,
        tools: Sequence[Tool],
        caller: Caller,
        limits: ResourceLimits | None = None,
        approve: Sequence[str] = (),
        served: ServedTools | None = None,
    ) -> Toolbox:
        around, jobs = self._around, self._jobs
        return Toolbox(
            tools,
            run=around.run,
            jobs=jobs if limits is None else jobs.retrying(limits.max_tool_retries),
            calls=around.calls,
            caller=caller,
            clock=around.clock,
            approve=approve,
            changing=served,
        )


def _caller(number: str, options: SessionOptions) -> Caller:
    """On whose behalf the session of this id is; in the course of a call that is its caller, if
    nobody is named. Raises InvalidInputError."""
    user, tenant = options.get("user") or None, options.get("tenant") or None
    around = current_call.get()
    if around is not None and user is None and tenant is None:
        user, tenant = around.caller.user, around.caller.tenant
    for what, value in (("a session", number), ("a user", user), ("a tenant", tenant)):
        if value is not None and not (value.isprintable() and len(value) <= _LONGEST):
            raise InvalidInputError(
                f"{what} cannot be called {reprlib.repr(value)}",
                next_step=f"Use {_LONGEST} characters at most, all of them printable.",
            )
    return Caller(user, number, tenant)


@final
class _Held(msgspec.Struct, eq=False):
    """A session, once it is there, and what it takes that has to be given back."""

    session: Session | None = None
    watchdog: Watchdog | None = None
    foreseen: Callable[[], object] | None = None
    model: "Model | None" = None
    kept: bool = False


def _summed_up(
    system: str, limits: ResourceLimits, models: ModelCalls, record: TurnRecord, caller: Caller
) -> Conversation:
    """A conversation of which the model sums up what it is no longer shown."""
    context = ExecutionContext(str(caller.session), caller.user, caller.tenant)
    return Conversation(
        system,
        max_turns=limits.max_turns_kept,
        max_tokens=limits.max_context_tokens,
        summarise=ModelSummary(models.at(Priority.LOW), context, lambda: record.latest),
    )


def _warn(session_id: str, alarm: Alarm) -> None:
    """Tells the log, and does no more: the turn's own limits end what lasts too long."""
    if isinstance(alarm, Stuck):
        _log.warning(
            "the session %s is in state %s for %g seconds",
            session_id,
            alarm.state.value,
            alarm.limit_s,
        )
        return
    _log.warning(
        "the session %s went into state %s %d times within %g seconds",
        session_id,
        AgentState.ERROR.value,
        alarm.count,
        alarm.within_s,
    )


def limits_of(chat: ChatSettings) -> ResourceLimits:
    """What a turn may take, by the settings."""
    return ResourceLimits(
        **{
            name: getattr(chat, name)
            for name in ResourceLimits.__struct_fields__
            if hasattr(chat, name)
        }
    )
