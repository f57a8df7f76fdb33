"""Histogram: counts by bucket in plain lists, cheap enough for every request; whoever exports metrics reads them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

# From half a millisecond, for what takes a round trip or less.
SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


class Histogram:
    """`counts[n]` values were at most `bounds[n]` and above the bound before; the last count has what is above all.

    `bounds` rise, and may be shared.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def observe_many(self, value: float, times: int) -> None:
        """Counts one value so many times."""
        self.counts[bisect_left(self.bounds, value)] += times
        self.total += value * times

    @property
    def count(self) -> int:
        return sum(self.counts)
