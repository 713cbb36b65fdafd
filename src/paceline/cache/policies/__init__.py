"""Which entry goes first when a cache is full: policies, and a chooser between them."""

from typing import Final

from paceline.cache.policies.chooser import Chooser
from paceline.cache.policies.gdsf import GDSF
from paceline.cache.policies.lirs import LIRS
from paceline.cache.policies.lru import LRU
from paceline.cache.policies.policy import MakePolicy
from paceline.cache.policies.s3fifo import S3Fifo
from paceline.cache.policies.tinylfu import WTinyLFU

__all__ = ["POLICIES"]

POLICIES: Final[dict[str, MakePolicy]] = {
    "auto": Chooser,
    "gdsf": GDSF,
    "lirs": LIRS,
    "lru": LRU,
    "s3fifo": S3Fifo,
    "w-tinylfu": WTinyLFU,
}
"""The policies by the names that settings use."""
