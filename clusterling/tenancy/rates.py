"""How much a logical cluster may do: requests and writes a second, and watches, as its quota says, in each replica.

A bucket holds a second's worth, and fills as fast. Clusters without such a limit have none, and one that has not
been asked anything for a while loses its own. Leader election draws from a bucket of its own first: whoever leads
must not lose that to what others of the cluster ask for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from math import ceil, inf
from typing import Final

from clusterling.machinery.errors import ApiError
from clusterling.tenancy.limits import too_many
from clusterling.tenancy.quota import REQUESTS, WATCHES, WRITES, Quotas

BUCKETS_MAX: Final = 20_000
LEASES_PER_S: Final = (
    10  # Requests for Leases that no rate of a quota counts; for five who lead, and some who would.
)
RETRY_AFTER_MAX_S: Final = 60

_WRITING: Final = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class Buckets:
    """Token buckets by whom they are for; the ones longest unused are forgotten, which are full. `now`: monotonic seconds."""

    def __init__(self, now: Callable[[], float], buckets_max: int = BUCKETS_MAX) -> None:
        self._now = now
        self._buckets_max = buckets_max
        self._held: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def draw(self, of: Hashable, rate: float, size: float) -> float:
        """Takes one; 0 where there was one, else the seconds until there is, which is infinite where none ever comes.

        `rate`: how many come a second; `size`: the most that are held.
        """
        now = self._now()
        held, since = self._held.get(of, (size, now))
        held = min(size, held + (now - since) * rate)
        drawn = held >= 1
        self._held[of] = held - drawn, now
        self._held.move_to_end(of)
        if len(self._held) > self._buckets_max:
            self._held.popitem(last=False)
        if drawn:
            return 0.0
        return (1 - held) / rate if rate else inf


class Rates:
    """Buckets and open watches by a cluster's id. `now`: monotonic seconds."""

    def __init__(self, quotas: Quotas, now: Callable[[], float]) -> None:
        self._quotas = quotas
        self._buckets = Buckets(now)
        self._watches: dict[str, int] = {}
        self._asked: set[str] = set()
        self.refused = {REQUESTS: 0, WRITES: 0, WATCHES: 0}

    def take_asked(self) -> set[str]:
        """The clusters whose users asked something since the last call."""
        asked, self._asked = self._asked, set()
        return asked

    def watches(self, cluster_id: str) -> int:
        """Open now, in this replica; those of clusters without a limit are not counted."""
        return self._watches.get(cluster_id, 0)

    def admit(
        self, cluster_id: str, name: str, verb: str, *, leads: bool = False
    ) -> Callable[[], None] | None:
        """Takes what the request uses. Raises ApiError 429. What is returned is called when its answer has ended.

        `leads`: it is one of leader election.
        """
        self._asked.add(cluster_id)
        hard = self._quotas.of(cluster_id).hard
        if not hard:
            return None
        if leads and self._leads(cluster_id, hard):
            return None
        if verb in _WRITING:
            self._draw(cluster_id, name, WRITES, hard.get(WRITES))
        self._draw(cluster_id, name, REQUESTS, hard.get(REQUESTS))
        most = hard.get(WATCHES)
        if verb != "watch" or most is None:
            return None
        open_now = self._watches.get(cluster_id, 0)
        if open_now >= most:
            raise self._refused(name, WATCHES, f"used: {WATCHES}={open_now}, limited: {WATCHES}={most}", 1)
        self._watches[cluster_id] = open_now + 1
        return lambda: self._leave(cluster_id)

    def _leads(self, cluster_id: str, hard: Mapping[str, int]) -> bool:
        """Whether leader election has something left of its own; not where all requests, or writes, are forbidden."""
        if 0 in (hard.get(REQUESTS), hard.get(WRITES)):
            return False
        return not self._buckets.draw((cluster_id, "leases"), LEASES_PER_S, LEASES_PER_S)

    def _leave(self, cluster_id: str) -> None:
        left = self._watches[cluster_id] - 1
        if left:
            self._watches[cluster_id] = left
        else:
            del self._watches[cluster_id]

    def _draw(self, cluster_id: str, name: str, what: str, rate: int | None) -> None:
        if rate is None:
            return
        wait_s = self._buckets.draw((cluster_id, what), rate, rate)
        if wait_s:
            raise self._refused(name, what, f"limited: {what}={rate}", wait_s)

    def _refused(self, name: str, what: str, figures: str, wait_s: float) -> ApiError:
        self.refused[what] += 1
        why = (
            f"exceeded quota: {name}, {figures}"
            f" (whoever runs the platform can raise it: clusterling quota {name} set {what}=…)"
        )
        return too_many(why, "QuotaExceeded", what, ceil(min(max(wait_s, 1), RETRY_AFTER_MAX_S)))
