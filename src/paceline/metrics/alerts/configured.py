"""The rules and silences that the settings ask for. Pure."""

from paceline.errors import ConfigError
from paceline.metrics.alerts.alert import Silence
from paceline.metrics.alerts.defaults import DEFAULT_RULES
from paceline.metrics.alerts.measures import measure
from paceline.metrics.alerts.objectives import Objective
from paceline.metrics.alerts.rules import Condition, Per, Rule, Severity, check
from paceline.settings import (
    AlertSettings,
    ObjectiveSettings,
    RuleSettings,
    SilenceSettings,
)

__all__ = ["rules_of", "silences_of"]


def rules_of(settings: AlertSettings) -> tuple[Rule, ...]:
    """The default rules, those that take their place, and all others.

    Raises ConfigError, which names the rule at fault and says what there is.
    """
    own = [_rule(n, one) for n, one in enumerate(settings.rules, 1)]
    replaced = {rule.name for rule in own}
    defaults = [rule for rule in DEFAULT_RULES if rule.name not in replaced]
    burns = [rule for one in settings.objectives for rule in _objective(one).rules()]
    return check([*(defaults if settings.defaults else []), *own, *burns])


def silences_of(settings: AlertSettings) -> tuple[Silence, ...]:
    """The silences, those that are over included."""
    return tuple(map(_silence, settings.silences))


def _rule(number: int, asked: RuleSettings) -> Rule:
    where = f"alerts.rules, the {_ordinal(number)}, {asked.name}"
    try:
        condition = Condition(
            metric=asked.metric,
            window=asked.window,
            above=asked.above,
            below=asked.below,
            resolve=asked.resolve,
            min_count=asked.min_count if measure(asked.metric).windowed else 0,
            slower_than_ms=asked.slower_than_ms,
        )
        return Rule(
            name=asked.name,
            conditions=(condition,),
            for_s=asked.for_s,
            keep_s=asked.keep_s,
            per=Per.INSTANCE if condition.measure.of_instances else Per(asked.per),
            agents=asked.agents,
            severity=Severity(asked.severity),
            labels=asked.labels,
            summary=asked.summary,
        )
    except ConfigError as exc:
        raise ConfigError(f"{where}: {exc}", next_step=exc.next_step) from exc


def _objective(asked: ObjectiveSettings) -> Objective:
    try:
        return Objective(
            name=asked.name,
            objective=asked.objective,
            latency_ms=asked.latency_ms,
            min_count=asked.min_count,
            per=Per(asked.per),
            agents=asked.agents,
            labels=asked.labels,
        )
    except ConfigError as exc:
        raise ConfigError(f"alerts.objectives: {exc}", next_step=exc.next_step) from exc


def _silence(asked: SilenceSettings) -> Silence:
    return Silence(
        until_ns=round(asked.until.timestamp() * 1e9),
        rule=asked.rule,
        labels=asked.labels,
        reason=asked.reason,
    )


def _ordinal(number: int) -> str:
    return f"{number}{'th' if number > 3 else ('st', 'nd', 'rd')[number - 1]}"  # noqa: PLR2004 (first, second, third)
