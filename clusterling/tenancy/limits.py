"""Seats: how many requests of one tenant may be in flight, so that one tenant's flood is its own problem.

A seat belongs to (realm of the credential, cluster). Only requests authenticated *for* a cluster take its seats
(decision 20): whoever has no credential cannot fill them. Watches are counted apart: they stay for minutes.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

from clusterling.machinery.errors import too_many_requests

# Upstream's defaults for a whole server are 400 reading and 200 writing (server/options/server_run_options.go).
REQUESTS_OF_ALL_MAX: Final = 4_000
REQUESTS_OF_ONE_MAX: Final = 600
WATCHES_OF_ALL_MAX: Final = 50_000
WATCHES_OF_ONE_MAX: Final = 10_000

# What kubectl and client-go show and obey (upstream: filters/maxinflight.go).
_BUSY: Final = "the server has received too many requests and has asked us to try again later"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most requests in flight, by all and by one (realm, cluster); 0 is no limit."""

    of_all: int
    of_one: int


class Seats:
    """Requests in flight, of one sort. Not fair among those who wait, because nobody waits: a full house answers 429."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._taken: dict[Hashable, int] = {}
        self.total = 0

    def taken(self, tenant: Hashable) -> int:
        """How many seats that tenant holds now."""
        return self._taken.get(tenant, 0)

    def take(self, tenant: Hashable) -> None:
        """Takes a seat, to be given back by `leave`. Raises ApiError 429."""
        mine = self._taken.get(tenant, 0)
        bounds = self._bounds
        if (bounds.of_one and mine >= bounds.of_one) or (bounds.of_all and self.total >= bounds.of_all):
            raise too_many_requests(_BUSY)
        self._taken[tenant] = mine + 1
        self.total += 1

    def leave(self, tenant: Hashable) -> None:
        """Gives one seat back."""
        mine = self._taken[tenant] - 1
        if mine:
            self._taken[tenant] = mine
        else:
            del self._taken[tenant]
        self.total -= 1


class Limits:
    """The seats of a server: short requests and watches, apart."""

    def __init__(
        self,
        requests: Bounds = Bounds(REQUESTS_OF_ALL_MAX, REQUESTS_OF_ONE_MAX),
        watches: Bounds = Bounds(WATCHES_OF_ALL_MAX, WATCHES_OF_ONE_MAX),
    ) -> None:
        self.requests = Seats(requests)
        self.watches = Seats(watches)
