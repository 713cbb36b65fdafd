"""What those who are told can take: the limits of chats, text of any kind."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import hypothesis.strategies as st
import msgspec
import pytest
from hypothesis import example, given, settings

from paceline.metrics.alerts import forms
from paceline.metrics.alerts.alert import Alert, Status
from tests.alert_figures import EPOCH_NS

TEXT = st.one_of(
    st.text(max_size=50),
    st.builds(
        lambda c, n: c * n,
        st.sampled_from(["a", "é", "😀", "&", "<", "\ud800"]),
        st.integers(0, 7_000),
    ),
)
LABELS = st.dictionaries(TEXT, TEXT, max_size=30)
ALERTS = st.lists(
    st.builds(
        lambda rule, labels, summary, description, status: Alert(
            rule=rule.replace("\ud800", "?"),
            severity="warning",
            status=status,
            labels=labels,
            annotations={"summary": summary, "description": description},
            value=None,
            starts_ns=EPOCH_NS,
        ),
        TEXT,
        LABELS,
        TEXT,
        TEXT,
        st.sampled_from(Status),
    ),
    max_size=6,
)


def plain(number: int, length: int = 0) -> Alert:
    """One of many, with so long a label."""
    return Alert(
        rule=f"Rule{number}",
        severity="info",
        status=Status.FIRING,
        labels={"agent": "a" * length or "a"},
        annotations={"summary": "slow"},
        value=1.0,
        starts_ns=EPOCH_NS,
    )


MANY: Final = [plain(n) for n in range(130)]
LONG: Final = [plain(n, 5_000) for n in range(30)]


def units(text: str) -> int:
    """Its length in UTF-16."""
    return len(text.encode("utf-16-le")) // 2


def check_discord(form: forms.Form, alerts: Sequence[Alert]) -> None:
    """What Discord's documentation of webhooks and embeds allows."""
    embeds: list[Any] = []
    for body in form(alerts):
        assert msgspec.json.encode(body)
        assert 1 <= len(body["embeds"]) <= 10
        assert body["allowed_mentions"] == {"parse": []}
        whole = 0
        for embed in body["embeds"]:
            assert 1 <= units(embed["title"]) <= 256
            assert units(embed["description"]) <= 4096
            assert len(embed["fields"]) <= 25
            whole += units(embed["title"]) + units(embed["description"])
            for field in embed["fields"]:
                assert units(field["name"]) <= 256
                assert 1 <= units(field["value"]) <= 1024
                whole += units(field["name"]) + units(field["value"])
        assert whole <= 6000
        embeds += body["embeds"]
    assert len(embeds) == len(alerts)


def check_slack(form: forms.Form, alerts: Sequence[Alert]) -> None:
    """What Slack's documentation of messages and blocks allows."""
    blocks: list[Any] = []
    for body in form(alerts):
        assert msgspec.json.encode(body)
        assert 1 <= len(body["blocks"]) <= 50
        assert 1 <= units(body["text"]) <= 4000
        texts = [block["text"]["text"] for block in body["blocks"]]
        assert all(1 <= units(text) <= 3000 for text in texts)
        assert sum(map(units, texts)) <= 13_000
        assert not any(c in "".join(texts) for c in "<>")
        for text in texts:
            rest = text.replace("&amp;", "").replace("&lt;", "").replace("&gt;", "")
            assert "&" not in rest
        blocks += body["blocks"]
    assert len(blocks) == len(alerts)


@settings(max_examples=60)
@given(ALERTS)
@example(MANY)
@example(LONG)
def test_limits(alerts: list[Alert]) -> None:
    """However many alerts and however long their texts, each is sent, once, in messages that
    Discord and Slack take. (S0-73)"""
    check_discord(forms.discord, alerts)
    check_slack(forms.slack, alerts)


@settings(max_examples=60)
@given(ALERTS)
def test_alertmanagers_form_of_anything(alerts: list[Alert]) -> None:
    """Alertmanager's form holds every alert once, each with those of its rule. (S0-73)"""
    bodies = forms.alertmanager(alerts)
    assert msgspec.json.encode(bodies)
    sent = [one for body in bodies for one in body["alerts"]]
    assert sorted(a.fingerprint for a in alerts) == sorted(one["fingerprint"] for one in sent)
    assert len(bodies) == len({a.rule for a in alerts})


def test_many_of_one_rule_are_parted() -> None:
    """Very many alerts of one rule are sent in several requests. (S0-73)"""
    alerts = [msgspec.structs.replace(plain(n), rule="One") for n in range(450)]
    assert [len(body["alerts"]) for body in forms.alertmanager(alerts)] == [200, 200, 50]


@pytest.mark.parametrize(
    ("check", "form", "alerts", "limit"),
    [
        (check_discord, forms.discord, MANY, "_EMBEDS"),
        (check_discord, forms.discord, LONG, "_EMBEDS_IN_ALL"),
        (check_discord, forms.discord, LONG, "_FIELD_VALUE"),
        (check_slack, forms.slack, MANY, "_BLOCKS"),
        (check_slack, forms.slack, LONG, "_SLACK_IN_ALL"),
        (check_slack, forms.slack, LONG, "_SECTION"),
    ],
)
def test_seeded_bugs_in_limits_are_caught(
    check: Callable[[forms.Form, Sequence[Alert]], None],
    form: forms.Form,
    alerts: list[Alert],
    limit: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The checks fail where one of the limits is not kept. (S0-73)"""
    check(form, alerts)
    monkeypatch.setattr(forms, limit, 10**6)
    with pytest.raises(AssertionError):
        check(form, alerts)
