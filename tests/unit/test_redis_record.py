"""Results as they lie in Redis: what is packed comes back, what is damaged never does."""

import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.cache.entry import PLAIN, About
from paceline.cache.redis.record import Found, Unusable, pack, peek, unpack

NOW_NS = 1_800_000_000_000_000_000
HOUR_NS = 3_600_000_000_000
ABOUT = About("lookup", "user:ada", "q=1", ("node:/w",), 12, 0.5)

keys = st.binary(min_size=1, max_size=40)
Unpack = Callable[[bytes, bytes, int], Found | Unusable]


@given(keys, st.binary(max_size=200), st.integers(1, 2**62), st.sampled_from([PLAIN, ABOUT]))
def test_what_is_packed_comes_back(key: bytes, payload: bytes, ttl_ns: int, about: About) -> None:
    """Any value comes back under its own key as it was, a listing shows what it is, and under no
    other key it is served. (D73)"""
    record = pack(key, payload, ttl_ns, about, NOW_NS)
    assert unpack(record, key, NOW_NS) == Found(payload, ttl_ns, about)
    for other in (key + b"x", key[:-1], bytes([key[0] ^ 1]) + key[1:]):
        assert unpack(record, other, NOW_NS) is Unusable.FOREIGN
    kept = peek(record, len(record), NOW_NS)
    assert kept is not None
    assert (kept.key, kept.about, kept.remaining_ns) == (key, about, ttl_ns)


@pytest.mark.parametrize(
    ("moved_ns", "left_ns"),
    [(0, HOUR_NS), (-(10**9), HOUR_NS), (10**9, HOUR_NS - 10**9), (HOUR_NS, 0), (-(10**11), 0)],
)
def test_the_rest_of_a_life(moved_ns: int, left_ns: int) -> None:
    """It is what is left of the lifetime, never more than it was; 0 from a far future. (D90)"""
    found = unpack(pack(b"k", b"v", HOUR_NS, PLAIN, NOW_NS), b"k", NOW_NS + moved_ns)
    assert found == (Found(b"v", left_ns, PLAIN) if left_ns else Unusable.EXPIRED)


def test_what_was_stored_before_a_clearing_has_expired() -> None:
    """A value is served if it was stored at the moment of the clearing or later. (S0-50)"""
    record = pack(b"k", b"v", HOUR_NS, PLAIN, NOW_NS)
    assert unpack(record, b"k", NOW_NS, NOW_NS + 1) is Unusable.EXPIRED
    assert isinstance(unpack(record, b"k", NOW_NS, NOW_NS), Found)


def _misses_damage(unpack: Unpack) -> bool:
    """Whether anything is found in a record of which one bit, or the end, is another."""
    record = pack(b"key", b"payload", HOUR_NS, ABOUT, NOW_NS)
    bad = [record[:end] for end in range(len(record))] + [record + b"\0"]
    for place in range(len(record) * 8):
        flipped = bytearray(record)
        flipped[place // 8] ^= 1 << place % 8
        bad.append(bytes(flipped))
    return any(unpack(data, b"key", NOW_NS) is not Unusable.DAMAGED for data in bad)


def test_all_damage_is_seen() -> None:
    """Every single bit that is flipped, every cut, and a byte too many make it damaged. (D80)"""
    assert not _misses_damage(unpack)


def test_a_reader_that_believes_the_checksum_is_caught() -> None:
    """The check sees a reader that takes any checksum for right. (D80)"""

    def believing(data: bytes, key: bytes, now_ns: int) -> Found | Unusable:
        return unpack(data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little"), key, now_ns)

    assert _misses_damage(believing)
