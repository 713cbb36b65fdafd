"""Tools that often fail, and tools that models often call in a wrong way."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Final

from paceline.advise.advice import LEAST, Advice, Number, confidence
from paceline.advise.answers import Answered, Event
from paceline.advise.calls import NS, Callee, failures
from paceline.advise.declared import Known
from paceline.call import Kind
from paceline.errors import Category
from paceline.metrics.figures import Interval, wilson

__all__ = ["failing", "form_of", "misused"]

_LEAST_SHARE: Final = 0.05
"""Of the executions, at the lower end of the interval: fewer are not worth a change."""
_LONGEST: Final = 100
_VARYING: Final = re.compile(
    # The look behind keeps this linear: a word is only looked through from where it begins.
    r"'[^']*'|\"[^\"]*\"|`[^`]*`|(?<![^\s'\"`])(?:\S*[/\\]\S+|\S*\d\S*)"
)
"""What differs between messages that say the same: what is quoted, paths, whatever has digits."""
_MEND: Final = {
    Category.AUTHENTICATION: "give it the credentials that it needs",
    Category.INVALID: "say in its description what it takes",
    Category.NETWORK: "see to what it calls",
    Category.NOT_FOUND: "say in its description what there is",
    Category.POLICY: "allow it what it does",
    Category.RATE_LIMIT: "call less often what it calls",
    Category.TIMEOUT: "make it faster, or its time limit shorter",
    Category.UNAVAILABLE: "see to what it calls",
}


def failing(callee: Callee, _: Known) -> Iterator[Advice]:
    """A tool of which a good part of the executions fail, so that they are waited for in vain. How much
    its results are worth where it succeeds nobody recorded, so that is left to who reads this."""
    ran, failed = failures(callee)
    sure = wilson(len(failed), len(ran))
    if callee.kind is not Kind.TOOL or len(failed) < LEAST or sure is None:
        return
    if sure.low < _LEAST_SHARE:
        return
    vain_s = sum(call.total_ns for call in failed) / NS
    kinds = Counter(call.trouble for call in failed if call.trouble is not None)
    category, most = kinds.most_common(1)[0]
    forms = Counter(form_of(call.message or "") for call in failed if call.trouble is category)
    form, said = forms.most_common(1)[0]
    yield Advice(
        rule="failing",
        agent=callee.name,
        kind=callee.kind,
        what=f"{_MEND.get(category, 'mend it')}, or leave it out of sessions",
        why=f"{len(failed):,} of {len(ran):,} executions failed ({_told(sure)}),"
        f" after {vain_s:.3g} s in all; {most:,} of them {category.value}, {said:,} of those:"
        f" {form or 'no message'}",
        changes=(),
        evidence={
            "executions": len(ran),
            "failed": len(failed),
            "share_low": round(sure.low, 3),
            "share_high": round(sure.high, 3),
            "in_vain_s": vain_s,
            f"failed_{category.value}": most,
        },
        confidence=confidence(len(failed)),
        saved_s=vain_s,
    )


def misused(sessions: Iterable[Iterable[Event]]) -> Iterator[Advice]:
    """Tools of which a good part of the calls were refused for their arguments, and never ran: each
    cost another answer of the model, of which the journals do not say how long it took."""
    asked: Counter[str] = Counter()
    refused: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for session in sessions:
        for event in session:
            for use in event.uses if isinstance(event, Answered) else ():
                asked[use.name] += 1
                if use.refused is not None:
                    refused[use.name][form_of(use.refused)] += 1
    for name, forms in sorted(refused.items()):
        count = forms.total()
        sure = wilson(count, asked[name])
        if count < LEAST or sure is None or sure.low < _LEAST_SHARE:
            continue
        form, said = forms.most_common(1)[0]
        evidence: dict[str, Number] = {
            "asked": asked[name],
            "refused": count,
            "share_low": round(sure.low, 3),
            "share_high": round(sure.high, 3),
        }
        yield Advice(
            rule="misused",
            agent=name,
            kind=Kind.TOOL,
            what="say in its description what arguments it takes",
            why=f"{count:,} of {asked[name]:,} calls in kept sessions were refused for their"
            f" arguments ({_told(sure)}), each at the price"
            f" of another answer of the model; {said:,} of them: {form}",
            changes=(),
            evidence=evidence,
            confidence=confidence(count),
        )


def _told(share: Interval) -> str:
    return f"{share.low:.0%} to {share.high:.0%}, with 95 % confidence"


def form_of(message: str) -> str:
    """What messages have in common that say the same of different things, in a line."""
    text = " ".join(_VARYING.sub("…", message[: 4 * _LONGEST]).split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
