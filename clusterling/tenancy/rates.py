"""How much a logical cluster may do: requests and writes a second, and watches, as its quota says, in each replica.

A bucket holds a second's worth, and fills as fast. Clusters without such a limit have none, and one that has not
been asked anything for a while loses its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from clusterling.machinery.errors import ApiError, too_many_requests
from clusterling.tenancy.quota import REQUESTS, WATCHES, WRITES, Quotas

BUCKETS_MAX: Final = 20_000

_WRITING: Final = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class Rates:
    """Buckets and open watches by a cluster's id. `now`: monotonic seconds."""

    def __init__(self, quotas: Quotas, now: Callable[[], float]) -> None:
        self._quotas = quotas
        self._now = now
        self._buckets: OrderedDict[tuple[str, str], tuple[float, float]] = OrderedDict()
        self._watches: dict[str, int] = {}
        self._asked: set[str] = set()

    def take_asked(self) -> set[str]:
        """The clusters whose users asked something since the last call."""
        asked, self._asked = self._asked, set()
        return asked

    def watches(self, cluster_id: str) -> int:
        """Open now, in this replica; those of clusters without a limit are not counted."""
        return self._watches.get(cluster_id, 0)

    def admit(self, cluster_id: str, name: str, verb: str) -> Callable[[], None] | None:
        """Takes what the request uses. Raises ApiError 429. What is returned is called when its answer has ended."""
        self._asked.add(cluster_id)
        hard = self._quotas.of(cluster_id).hard
        if not hard:
            return None
        if verb in _WRITING:
            self._draw(cluster_id, name, WRITES, hard.get(WRITES))
        self._draw(cluster_id, name, REQUESTS, hard.get(REQUESTS))
        most = hard.get(WATCHES)
        if verb != "watch" or most is None:
            return None
        open_now = self._watches.get(cluster_id, 0)
        if open_now >= most:
            raise _refused(name, WATCHES, f"used: {WATCHES}={open_now}, limited: {WATCHES}={most}")
        self._watches[cluster_id] = open_now + 1
        return lambda: self._leave(cluster_id)

    def _leave(self, cluster_id: str) -> None:
        left = self._watches[cluster_id] - 1
        if left:
            self._watches[cluster_id] = left
        else:
            del self._watches[cluster_id]

    def _draw(self, cluster_id: str, name: str, what: str, rate: int | None) -> None:
        if rate is None:
            return
        place, now = (cluster_id, what), self._now()
        size = max(rate, 1) if rate else 0
        held, since = self._buckets.get(place, (size, now))
        held = min(size, held + (now - since) * rate)
        if held < 1:
            self._buckets[place] = held, now
            raise _refused(name, what, f"limited: {what}={rate}")
        self._buckets[place] = held - 1, now
        self._buckets.move_to_end(place)
        if len(self._buckets) > BUCKETS_MAX:
            self._buckets.popitem(last=False)


def _refused(name: str, what: str, figures: str) -> ApiError:
    return too_many_requests(
        f"exceeded quota: {name}, {figures}"
        f" (whoever runs the platform can raise it: clusterling quota {name} set {what}=…)"
    )
