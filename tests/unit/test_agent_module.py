"""The agent protocol: what an agent may declare, and what is made of it."""

import dataclasses
import functools
import re
from types import ModuleType, SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.agents.module import function_spec, read_spec
from paceline.agents.spec import AgentSpec
from paceline.call import Effect, EffectKind, Plan, ScopeLevel
from paceline.errors import AgentError, AgentLoadError, CommandDeniedError, UsageError


class Answer(msgspec.Struct):
    text: str


@dataclasses.dataclass
class Report:
    lines: list[str]


def echo(query, **context):
    return query


def agent(**attributes: object) -> SimpleNamespace:
    return SimpleNamespace(**{"run": echo, **attributes})


def spec_of(**attributes: object) -> AgentSpec:
    return read_spec("a", agent(**attributes))


def test_what_declares_nothing_is_unknown_and_not_cached() -> None:
    """Undeclared agents have unknown effects and nothing of theirs is cached. (S1-41, X-01,
    E-06)"""
    spec = spec_of()
    assert spec.effect == Effect.unknown()
    assert not spec.cacheable
    assert not spec.plan("q", {}).cacheable


def test_the_migration_switch_caches_what_declares_nothing() -> None:
    """With legacy_default_cacheable undeclared agents are cached as readers. (S1-41)"""
    plan = read_spec("a", agent(), legacy_default_cacheable=True).plan("q", {})
    assert plan.cacheable
    assert plan.effect == Effect.read()
    assert plan.ttl_s is None
    refusing = read_spec("a", agent(CACHEABLE=False), legacy_default_cacheable=True)
    assert not refusing.plan("q", {}).cacheable


def test_cacheable_alone_means_a_reader() -> None:
    """CACHEABLE = True without EFFECT is a reader whose results live as long as the cache says.
    (S1-35)"""
    spec = spec_of(CACHEABLE=True)
    assert spec.effect == Effect.read()
    assert spec.plan("q", {}) == Plan(Effect.read())


def test_cacheable_false_stores_nothing_whatever_the_effect() -> None:
    """CACHEABLE = False is a lifetime of 0 s, and the effect stays. (S1-41)"""
    plan = spec_of(CACHEABLE=False, EFFECT="pure", CACHE_TTL=60).plan("q", {})
    assert plan.ttl_s == 0
    assert not plan.cacheable
    assert plan.effect.repeatable


def test_an_effect_may_be_a_word_or_an_effect() -> None:
    """EFFECT is an Effect with its tags, or one of the four words for one."""
    assert spec_of(EFFECT="pure").plan("q", {}).cacheable
    assert spec_of(EFFECT=Effect.read("disk")).effect.tags == ("disk",)
    assert spec_of(EFFECT="write").effect.kind is EffectKind.WRITE
    assert not spec_of(EFFECT="write").plan("q", {}).cacheable


def test_a_writer_cannot_be_cacheable() -> None:
    """CACHEABLE = True with the effect of a writer is refused, not guessed. (E-06)"""
    with pytest.raises(AgentLoadError, match="CACHEABLE is True, but EFFECT is 'write'"):
        spec_of(CACHEABLE=True, EFFECT="write")


def test_declarations_arrive_in_the_spec() -> None:
    """Every declaration of the protocol is read. (S1-35)"""
    spec = spec_of(
        DESCRIPTION="Says it again.",
        EFFECT="read",
        CACHE_TTL=90,
        SCOPE="tenant",
        TIMEOUT=2,
        MAX_CONCURRENCY=3,
        CAPABILITIES=["network", "files"],
        VERSION="1.4",
    )
    assert spec.description == "Says it again."
    assert spec.max_concurrency == 3
    assert spec.capabilities == ("files", "network")
    assert spec.version.startswith("1.4+")
    assert spec.plan("q", {}) == Plan(
        Effect.read(), ttl_s=90.0, scope=ScopeLevel.TENANT, timeout_s=2.0
    )


WRONG = {
    "DESCRIPTION": (1, b"x"),
    "CACHEABLE": (1, "yes"),
    "CACHE_TTL": (-1, "60", True, float("inf"), float("nan"), 10**400),
    "EFFECT": ("reads", 1, EffectKind),
    "SCOPE": ("world", 3),
    "TIMEOUT": (0, -2.5, "1 s", float("nan")),
    "CAPABILITIES": ("network", [1], 5, {"a": 1}),
    "MAX_CONCURRENCY": (0, 1.5, True, "4"),
    "VERSION": (1.5, ["1"]),
    "TTL_RULES": ("df", [("df",)], [(3, 60)], [("df", -1)], [("", 5)], {re.compile(b"x"): 1}, 7),
    "tools": (3, "search"),
    "plan": ("later",),
}


@pytest.mark.parametrize(("name", "value"), [(n, v) for n, vs in WRONG.items() for v in vs])
def test_a_wrong_value_is_named(name: str, value: object) -> None:
    """A wrong declaration says which it is, what it is, and what it should be. (S1-35)"""
    with pytest.raises(AgentLoadError) as caught:
        spec_of(**{name: value})
    assert re.match(rf"agent a: {name} is .*; it should be ", str(caught.value))
    assert f"Write for example {name} = " in caught.value.next_step


def test_a_property_that_raises_is_named() -> None:
    """A declaration that is code and fails is an error of the agent, with its cause."""

    class Odd:
        def run(self, query):
            return query

        @property
        def TIMEOUT(self) -> float:  # noqa: N802
            raise KeyError("gone")

    with pytest.raises(AgentLoadError, match="reading TIMEOUT failed: KeyError") as caught:
        read_spec("odd", Odd())
    assert isinstance(caught.value.__cause__, KeyError)


RULES = [("df", 60), ("cat /var/log/", 0), (re.compile(r"uname\b"), 3600), ("cat", 10)]


@pytest.mark.parametrize(
    ("query", "ttl_s"),
    [
        ("df", 60),
        ("  df -h ", 60),
        ("dfuse", 5),
        ("df-x", 5),
        ("cat /var/log/syslog", 0),
        ("cat x", 10),
        ("uname -a", 3600),
        ("sudo df", 5),
    ],
)
def test_ttl_rules_first_match_at_whole_words(query: str, ttl_s: float) -> None:
    """The first rule whose prefix or pattern starts the query decides; a prefix that ends in a
    letter matches whole words only. (S1-36, S1-53)"""
    spec = spec_of(EFFECT="read", CACHE_TTL=5, TTL_RULES=RULES)
    assert spec.plan(query, {}).ttl_s == ttl_s


@given(st.text(alphabet="cp -afx", max_size=8))
def test_a_prefix_rule_is_a_whole_word_rule(query: str) -> None:
    """A rule for `cp` applies exactly to queries whose first word is `cp`. (S1-53)"""
    spec = spec_of(EFFECT="read", TTL_RULES={"cp": 7})
    assert (spec.plan(query, {}).ttl_s == 7) == (query.split()[:1] == ["cp"])


def test_context_keywords_are_known_by_name() -> None:
    """A spec knows which context `run` takes, and what of the call itself it wants."""

    def some(query, city, *, units="C", user=None, call=None):
        return query

    spec = read_spec("a", SimpleNamespace(run=some))
    assert spec.accepts == frozenset({"city", "units"})
    assert spec.wants == {"user", "call"}
    assert spec_of().accepts is None
    assert read_spec("a", SimpleNamespace(run=len)).accepts is not None


@pytest.mark.parametrize("run", [lambda: 1, lambda *, query: 1, lambda **query: 1])
def test_run_must_take_a_query(run) -> None:
    """What is run has to have a place for the query. (S1-35)"""
    with pytest.raises(AgentLoadError, match="takes no query"):
        spec_of(run=run)


def test_generators_are_refused() -> None:
    """A generator has no result that could be returned or stored, so it is no agent."""

    def parts(query):
        yield query

    async def stream(query):
        yield query

    for run in (parts, stream):
        with pytest.raises(AgentLoadError, match="generator"):
            spec_of(run=run)


def test_sync_and_async_are_told_apart() -> None:
    """Functions, methods, callable objects and partials are known as async or not. (E-02)"""

    class Callable:
        async def __call__(self, query):
            return query

    async def later(query, more=1):
        return query

    assert spec_of(run=later).is_async
    assert spec_of(run=functools.partial(later, more=2)).is_async
    assert spec_of(run=Callable()).is_async
    assert not spec_of(run=echo).is_async


def test_a_tool_is_run_where_there_is_no_run() -> None:
    """Without `run`, `tool` is run, or the first of `tools`: by run, invoke, or itself. (E-02)"""
    by_run = SimpleNamespace(name="search", run=lambda q: f"run {q}")
    by_invoke = SimpleNamespace(invoke=lambda q: f"invoke {q}")

    def itself(q):
        return f"call {q}"

    for tool, said in ((by_run, "run x"), (by_invoke, "invoke x"), (itself, "call x")):
        assert read_spec("a", SimpleNamespace(tool=tool)).run("x") == said
        assert read_spec("a", SimpleNamespace(tools=[tool, echo])).run("x") == said
    spec = read_spec("a", SimpleNamespace(run=echo, tools=[by_run, itself], tool=itself))
    assert list(spec.tools) == ["search", "itself"]
    assert spec.run("x") == "x"


def test_bad_tools_are_named() -> None:
    """Tools that cannot be called or share a name are refused."""
    with pytest.raises(AgentLoadError, match="tool 'int' cannot be called: it is of type int"):
        spec_of(tools=[3])
    with pytest.raises(AgentLoadError, match="two tools are called 'echo'"):
        spec_of(tools=[echo, functools.wraps(echo)(lambda q: q)])


def test_nothing_to_run_is_an_error() -> None:
    """A module without run, tool or tools says what to define. (E-03)"""
    with pytest.raises(AgentLoadError, match="has nothing to run") as caught:
        read_spec("a", ModuleType("a"))
    assert "def run(query)" in caught.value.next_step
    with pytest.raises(AgentLoadError, match="is the class"):
        read_spec("a", Answer)


def test_declared_result_types_are_found() -> None:
    """A dataclass or Struct in the return annotation is the result type; others are not."""

    def answers(query) -> Answer:
        return Answer(query)

    async def reports(query) -> "Report":
        return Report([query])

    def texts(query: str) -> str:
        return query

    assert spec_of(run=answers).result_type is Answer
    assert spec_of(run=reports).result_type is Report
    assert spec_of(run=texts).result_type is None
    texts.__annotations__["return"] = "Missing"
    spec = spec_of(run=texts)
    assert spec.result_type is None
    assert any("result type cannot be used (NameError" in text for text in spec.warnings)


@pytest.mark.parametrize("name", ["", "_x", "a b", "a.b", "../x", "é", "a" * 101, "a\n"])
def test_names_are_plain_words(name: str) -> None:
    """Names that could not be typed or stored are refused."""
    with pytest.raises(AgentLoadError, match="cannot be the name"):
        read_spec(name, agent())


def test_misspelt_declarations_are_reported() -> None:
    """A declaration that would silently do nothing gives a warning that says what is meant."""
    warnings = spec_of(CACHABLE=True, READ_ONLY=True, LIMIT=3).warnings
    assert [text.split()[0] for text in warnings] == ["CACHABLE", "READ_ONLY"]
    assert warnings[0].endswith("CACHEABLE")
    assert spec_of(CACHE_TTL=3).warnings
    assert not spec_of(EFFECT="read", CACHE_TTL=3).warnings


def test_results_of_a_session_stay_in_it() -> None:
    """Who takes `session` and says nothing of SCOPE shares results within the session only, and
    who shares wider than what it takes is warned. (E-05)"""

    def personal(query, *, session=None, user=None):
        return query

    assert spec_of(run=personal, EFFECT="read").scope is ScopeLevel.SESSION
    shared = spec_of(run=personal, EFFECT="read", SCOPE="global")
    assert shared.scope is ScopeLevel.GLOBAL
    assert len(shared.warnings) == 2
    assert not spec_of(run=personal, EFFECT="write", SCOPE="global").warnings


def test_an_agent_may_plan_by_itself() -> None:
    """`plan` decides per call, is given the context it takes, and keeps CACHEABLE and TIMEOUT."""

    def plan(query, *, fresh=False):
        return Plan(Effect.read(query), ttl_s=1.0 if fresh else 60.0, signature="s")

    spec = spec_of(plan=plan, TIMEOUT=4)
    assert spec.plan("disk", {"fresh": True, "more": 1}) == Plan(
        Effect.read("disk"), ttl_s=1.0, timeout_s=4.0, signature="s"
    )
    assert not spec_of(plan=plan, CACHEABLE=False).plan("disk", {}).cacheable
    assert spec_of(plan=lambda q, **context: Plan(Effect.read(*context))).plan(
        "q", {"a": 1}
    ).effect == Effect.read("a")


def test_trouble_in_a_plan_is_typed() -> None:
    """Our own errors of a planner pass; others and wrong values become AgentError."""

    def denies(query):
        raise CommandDeniedError("no", reason="unknown")

    with pytest.raises(CommandDeniedError):
        spec_of(plan=denies).plan("q", {})
    with pytest.raises(AgentError, match="failed to plan: ZeroDivisionError") as caught:
        spec_of(plan=lambda q: 1 / 0).plan("q", {})
    assert not caught.value.may_have_started
    with pytest.raises(AgentError, match="returned a value of type dict"):
        spec_of(plan=lambda q: {}).plan("q", {})


def test_a_function_is_an_agent() -> None:
    """A decorated function takes name and description from itself, and options in small letters."""

    def double(query, *, times=2):
        """Says it twice.

        And more.
        """
        return query * times

    spec = function_spec(double, effect="pure", cache_ttl=5, timeout=1.5, version=3)
    assert (spec.name, spec.description, spec.source) == ("double", "Says it twice.", "decorator")
    assert spec.plan("q", {}) == Plan(Effect.pure(), ttl_s=5.0, timeout_s=1.5)
    assert spec.version.startswith("3+")
    assert spec.accepts == frozenset({"times"})
    assert function_spec(double, name="twice", description="x").name == "twice"


def test_wrong_options_are_named_as_they_were_written() -> None:
    """An unknown option names the nearest, a wrong value the option."""
    with pytest.raises(UsageError, match="'timeot'") as caught:
        function_spec(echo, timeot=3)
    assert caught.value.next_step.startswith("Did you mean timeout?")
    with pytest.raises(AgentLoadError, match="agent echo: timeout is 0"):
        function_spec(echo, timeout=0)
    with pytest.raises(AgentLoadError, match="cannot be the name"):
        function_spec(lambda query: query)
    with pytest.raises(AgentLoadError, match="is no function"):
        function_spec(Answer)


def test_versions_follow_the_code() -> None:
    """Functions that were typed in have versions by their code, inner functions included."""

    def made(text: str) -> str:
        space: dict[str, Any] = {}
        exec(text, space)  # noqa: S102
        spec = function_spec(space["run"])
        return spec.version

    one = made("def run(q):\n    return (lambda: 1)()")
    assert one == made("def run(q):\n    return (lambda: 1)()")
    assert one != made("def run(q):\n    return (lambda: 2)()")
    assert one != made("def run(q):\n    return (lambda: len)()")
    assert function_spec(echo).version == function_spec(functools.partial(echo), name="e").version
