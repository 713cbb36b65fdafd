"""The bounds of numbers in settings."""

from typing import Annotated

from msgspec import Meta

__all__ = ["AtLeastOne", "Count", "Limit", "Rate", "Seconds", "Share"]

Count = Annotated[int, Meta(ge=0)]
AtLeastOne = Annotated[int, Meta(ge=1)]
# The bound also keeps out infinity, which clocks and timers cannot count.
Seconds = Annotated[float, Meta(ge=0, le=1e9)]
Limit = Annotated[float, Meta(gt=0, le=1e9)]
Share = Annotated[float, Meta(ge=0, le=1)]
Rate = Annotated[float, Meta(ge=0, le=1e6)]
