"""Hints of results: they narrow what was declared, and what is not understood is not kept."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.cache.hints import SILENT, Hints, may_share, mcp_hints, narrow
from paceline.call import ScopeLevel

GLOBAL, TENANT, USER, SESSION = (
    ScopeLevel.GLOBAL,
    ScopeLevel.TENANT,
    ScopeLevel.USER,
    ScopeLevel.SESSION,
)
_LIST = {"resultType": "complete", "tools": []}
_TTL = st.one_of(st.none(), st.floats(0, 1e9))
_HINTS = st.builds(
    Hints,
    ttl_s=st.one_of(st.none(), st.floats(0, 1e9)),
    scope=st.sampled_from([None, *ScopeLevel]),
    storable=st.booleans(),
)


def test_the_protocols_own_fields_are_read() -> None:
    """`ttlMs` becomes seconds, `cacheScope` a level; without them nothing is said. (S0-78)"""
    assert mcp_hints({**_LIST, "ttlMs": 300_000, "cacheScope": "public"}) == Hints(300, GLOBAL)
    assert mcp_hints({**_LIST, "ttlMs": 1, "cacheScope": "private"}) == Hints(0.001, USER)
    assert mcp_hints(_LIST) == mcp_hints({"tools": []}) == SILENT
    assert mcp_hints({**_LIST, "ttlMs": 5_000}) == Hints(5)
    assert (
        mcp_hints({**_LIST, "_meta": {"ttlMs": "what is in there is not the protocol's"}}) == SILENT
    )


@pytest.mark.parametrize("ttl_ms", [0, -1, -(10**400), 0.0, -0.0, -5.5])
def test_no_time_left_is_not_kept(ttl_ms: float) -> None:
    """0 is stale at once, and so is a negative time."""
    hints = mcp_hints({**_LIST, "ttlMs": ttl_ms})
    assert hints.ttl_s == 0
    assert narrow(300, USER, hints) == 0


@pytest.mark.parametrize("ttl_ms", [10**400, 1e300, 2**63, 10**15])
def test_endless_times_are_cut(ttl_ms: float) -> None:
    """A time of any size is a number of seconds that moments can be computed with."""
    hints = mcp_hints({**_LIST, "ttlMs": ttl_ms})
    assert hints.ttl_s is not None
    assert 0 < hints.ttl_s * 1e9 < 2**62


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttlMs": "300000"},
        {"ttlMs": True},
        {"ttlMs": None},
        {"ttlMs": math.nan},
        {"ttlMs": math.inf},
        {"ttlMs": [1]},
        {"cacheScope": "shared"},
        {"cacheScope": "Public"},
        {"cacheScope": None},
        {"cacheScope": ["public"]},
        {"ttlMs": 300_000, "cacheScope": ""},
    ],
)
def test_what_is_not_understood_is_not_kept(wrong: dict[str, object]) -> None:
    """A hint of another type, or a word the protocol does not have, forbids keeping the result."""
    hints = mcp_hints({**_LIST, **wrong})
    assert not hints.storable
    assert narrow(300, SESSION, hints) == 0


@pytest.mark.parametrize(
    ("result", "params"),
    [
        ({"resultType": "input_required", "inputRequests": {}, "ttlMs": 9}, None),
        ({"resultType": "what comes later", "ttlMs": 9}, None),
        ({"resultType": None}, None),
        ({**_LIST, "ttlMs": 9}, {"inputResponses": {"id": 1}}),
        ({**_LIST, "ttlMs": 9}, {"uri": "a", "requestState": "s"}),
        ({"content": [], "isError": True, "ttlMs": 9}, None),
        ({"content": [], "isError": "false"}, None),
    ],
)
def test_interim_results_and_errors_are_never_kept(
    result: dict[str, object], params: dict[str, object] | None
) -> None:
    """Not kept are results that ask for input, that depend on answers given outside the key, and
    a tool's errors. (T15)"""
    assert not mcp_hints(result, params).storable


def test_private_stays_within_its_authorization() -> None:
    """A private result is neither kept under a key of more than one user nor given to those who
    wait under one; a public one is both. (S1-10, S1-54)"""
    private, public = Hints(60, USER), Hints(60, GLOBAL)
    for wide in (GLOBAL, TENANT):
        assert narrow(300, wide, private) == 0
        assert not may_share(wide, private)
        assert narrow(300, wide, public) == 60
    for own in (USER, SESSION):
        assert narrow(300, own, private) == 60
        assert may_share(own, private)


@given(_TTL, st.sampled_from(ScopeLevel), _HINTS)
def test_hints_never_widen(ttl_s: float | None, scope: ScopeLevel, hints: Hints) -> None:
    """Whatever a result says, it is kept no longer than declared and, if it forbids it, not at
    all; one that says nothing changes nothing."""
    kept_s = narrow(ttl_s, scope, hints)
    limit_s = math.inf if ttl_s is None else ttl_s
    assert (math.inf if kept_s is None else kept_s) <= limit_s
    assert hints.storable or kept_s == 0
    assert may_share(scope, hints) or kept_s == 0
    assert narrow(ttl_s, scope, SILENT) == ttl_s
    if kept_s and hints.ttl_s is not None:
        assert kept_s <= hints.ttl_s


@given(
    st.dictionaries(
        st.sampled_from(["ttlMs", "cacheScope", "resultType", "isError"]),
        st.one_of(
            st.none(),
            st.booleans(),
            st.integers(),
            st.floats(),
            st.text(max_size=9),
            st.sampled_from(["public", "private", "complete"]),
            st.lists(st.integers(), max_size=1),
        ),
    )
)
def test_any_result_can_be_asked(result: dict[str, object]) -> None:
    """No result makes reading its hints fail, and what comes of it is a time or nothing."""
    kept_s = narrow(300, USER, mcp_hints(result))
    assert kept_s is not None
    assert 0 <= kept_s <= 300
