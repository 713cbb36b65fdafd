"""Chains of what answers when a call has failed."""

import pytest

from paceline.balance.fallback import STALE, Answer, Fallback, fallbacks_of, falls_back
from paceline.call import Effect
from paceline.errors import AgentError, Category, ConfigError

OTHER, TEXT = Fallback(Answer.AGENT, "small"), Fallback(Answer.TEXT, "Later, please.")


def test_a_chain_is_read_in_order() -> None:
    """Steps are other agents, stale results and fixed texts, in the order given. (S0-81)"""
    chain = fallbacks_of("big", ["agent small", " stale ", "text Later, please."])
    assert chain == (OTHER, STALE, TEXT)
    assert [str(step) for step in chain] == ["agent small", "stale", "text Later, please."]


@pytest.mark.parametrize("step", ["", "agent", "stale now", "text ", "model small", "agent big"])
def test_a_step_that_is_none_is_refused(step: str) -> None:
    """A step without a value, of an unknown kind or back to the agent is an error of the
    configuration that names its agent. (S0-81)"""
    with pytest.raises(ConfigError, match=r"fleets\.big\.fallback"):
        fallbacks_of("big", [step])


@pytest.mark.parametrize("category", list(Category))
def test_trouble_of_the_service_falls_back_and_mistakes_do_not(category: Category) -> None:
    """What another could do better goes on to it; what is wrong with the request does not. (S0-81,
    V-31)"""
    error = AgentError("no", category=category)
    mistake = category in {"cancelled", "invalid", "not_found", "policy", "sandbox", "too_long"}
    assert falls_back(error, Effect.pure(), OTHER) is not mistake
    hidden = mistake or category is Category.AUTHENTICATION
    assert falls_back(error, Effect.pure(), TEXT) is not hidden
    assert falls_back(error, Effect.pure(), STALE) is not hidden


def test_what_may_have_been_done_is_not_done_by_another() -> None:
    """A write that may have happened does not go to another agent; one that cannot have does, and
    reads always do. (S1-19, V-32)"""
    maybe = AgentError("cut", category=Category.NETWORK, may_have_started=True)
    never = AgentError("refused", category=Category.NETWORK)
    for effect in (Effect.write("mail"), Effect.unknown()):
        assert not falls_back(maybe, effect, OTHER)
        assert falls_back(never, effect, OTHER)
        assert falls_back(maybe, effect, TEXT)
    assert falls_back(maybe, Effect.read("mail"), OTHER)
