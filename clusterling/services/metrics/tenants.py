"""What each logical cluster used, and which of them have series of their own.

Theory of operation
-------------------
Every cluster that is used has a tally, and all of it is one small list. Only `NAMED_MAX` clusters are named in what
scrapers get, or a server of thousands would make more series than anybody can keep; the others are one, `~other`,
which no cluster can be named. A counter must not fall, though clusters change sides. So the others' is the sum of the unnamed and a correction: whoever
is named adds what it had to the correction, whoever is named no longer takes what it has by then out of it.

Who is named: those in most use lately. A newcomer takes a place that is free, or that of somebody with less than half
of its use, so that names do not come and go. Whoever was not used for `STALE_S` and has no watch is forgotten, and
so is a cluster that was deleted.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from heapq import nlargest
from time import monotonic
from typing import Final

NAMED_MAX: Final = 80  # With `SERIES_EACH`, and `other`, below 2,000 series.
LIMITS_EACH: Final = 5  # Of a quota's limits, those nearest to being reached.
SERIES_EACH: Final = 19 + LIMITS_EACH
STALE_S: Final = 3600.0
RANKED_EVERY_S: Final = 60.0
KNOWN_MAX: Final = 20_000  # Clusters with a tally: about 10 MB.
OTHER: Final = "~other"

BOUNDS: Final = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0)

# Places in a tally; the histogram's counts follow the last.
READS, WRITES, WATCHES, REFUSED, FAILED, THROTTLED, SENT, SECONDS, COUNTS = range(9)
_LENGTH: Final = COUNTS + len(BOUNDS) + 1

Tally = list[float]


class Tenant:
    """One logical cluster. `objects` and `bytes` None: not looked at yet.

    `limits`: the part of each that is used, the highest first.
    """

    __slots__ = ("at", "bytes", "id", "limits", "looked_s", "name", "objects", "score", "tally", "watches")

    def __init__(self, name: str, cluster_id: str) -> None:
        self.name = name
        self.id = cluster_id
        self.tally: Tally = [0] * _LENGTH
        self.watches = 0
        self.score = 0.0  # Requests lately.
        self.at = 0.0  # How many there had been when that was last looked at.
        self.objects: int | None = None
        self.bytes: int | None = None
        self.limits: Mapping[str, float] = {}
        self.looked_s = float("-inf")

    def answered(self, status: int, seconds: float, size: int, *, writes: bool) -> None:
        """Counts a request that was not a watch."""
        tally = self.tally
        tally[WRITES if writes else READS] += 1
        tally[SECONDS] += seconds
        tally[SENT] += size
        tally[COUNTS + bisect_left(BOUNDS, seconds)] += 1
        if status >= 400:
            self.refused(status)

    def refused(self, status: int) -> None:
        self.tally[FAILED if status >= 500 else REFUSED] += 1
        if status == 429:
            self.tally[THROTTLED] += 1

    @property
    def used(self) -> float:
        return self.tally[READS] + self.tally[WRITES] + self.tally[WATCHES]


class Tenants:
    """The tallies by cluster's name."""

    def __init__(
        self,
        clock: Callable[[], float] = monotonic,
        *,
        named_max: int = NAMED_MAX,
        known_max: int = KNOWN_MAX,
    ) -> None:
        self._clock = clock
        self._named_max = named_max
        self._known_max = known_max
        self.known: dict[str, Tenant] = {}
        self.named: dict[str, Tenant] = {}
        self._correction: Tally = [0] * _LENGTH
        self._unknown = Tenant(OTHER, "")  # Of those that there was no room for.
        self._ranked_s = float("-inf")
        self._used_s: dict[str, float] = {}  # When a ranking last found the cluster used.

    def of(self, name: str, cluster_id: str) -> Tenant:
        """The tenant of a cluster that is there."""
        tenant = self.known.get(name)
        if tenant is None:
            if len(self.known) >= self._known_max:
                return self._unknown
            tenant = self.known[name] = Tenant(name, cluster_id)
            if len(self.named) < self._named_max:
                self.named[name] = tenant
        return tenant

    def forget(self, name: str) -> None:
        """The cluster is gone: its series end. What it used while it had no name stays with the others."""
        tenant = self.known.pop(name, None)
        self._used_s.pop(name, None)
        if tenant is not None and self.named.pop(name, None) is None:
            _add(self._correction, tenant.tally)

    def rank(self) -> None:
        """Looks who is in use, at most once in `RANKED_EVERY_S`."""
        now = self._clock()
        if now - self._ranked_s < RANKED_EVERY_S:
            return
        self._ranked_s = now
        for name, tenant in list(self.known.items()):
            used = tenant.used
            tenant.score = tenant.score / 2 + (used - tenant.at)
            if used != tenant.at or tenant.watches:
                self._used_s[name] = now
            elif now - self._used_s.setdefault(name, now) >= STALE_S:
                self.forget(name)
            tenant.at = used
        self._name()

    def _name(self) -> None:
        """Gives the places to those in most use."""
        newcomers = nlargest(
            self._named_max,
            (tenant for name, tenant in self.known.items() if name not in self.named),
            key=lambda tenant: tenant.score,
        )
        least = sorted(self.named.values(), key=lambda tenant: tenant.score, reverse=True)
        for newcomer in newcomers:
            if len(self.named) >= self._named_max:
                if not least or newcomer.score <= 2 * least[-1].score:
                    return
                leaving = least.pop()
                del self.named[leaving.name]
                _add(self._correction, leaving.tally, sign=-1)
            self.named[newcomer.name] = newcomer
            _add(self._correction, newcomer.tally)

    def other(self) -> Tenant:
        """All that have no name, as one."""
        other = Tenant(OTHER, "")
        _add(other.tally, self._correction)
        for tenant in [self._unknown, *self.known.values()]:
            if tenant.name not in self.named:
                _add(other.tally, tenant.tally)
                other.watches += tenant.watches
        return other


def _add(to: Tally, what: Tally, *, sign: int = 1) -> None:
    for at, value in enumerate(what):
        to[at] += sign * value
