"""Arrivals: which requests are begun in this round of the loop, where more have come than it has time for.

A request is run right where it arrives, and most are answered there. A tenant who sends hundreds at once would so make one round of
the loop last for all of them, and whoever comes next wait for it. So a round begins requests for `ROUND_S`; what is beyond that
waits, and tenants take turns (`turnstile.py`) until nobody waits. A tenant who is alone is never asked to: whom should he wait for?

Nobody knows yet whose request it is. It counts for whom the connection's last one was for, and a connection's first for its address.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from time import perf_counter
from typing import Final

from clusterling.services.turnstile import Turnstile

ROUND_S: Final = 0.002
ALONE_S: Final = 1.0  # Without a request of anybody else, and a tenant is alone.


class Arrivals:
    """One for a server."""

    def __init__(self, clock: Callable[[], float] = perf_counter) -> None:
        self._clock = clock
        self._turnstile = Turnstile(clock, rounds=1, slice_s=ROUND_S)
        self._last: Hashable = None
        self._mixed_until = 0.0
        self._until = 0.0  # Of this round; 0 where it has begun none.

    @property
    def waiting(self) -> int:
        """Requests that have not been begun."""
        return self._turnstile.waiting

    def at_once(self, tenant: Hashable) -> bool:
        """Whether a request may be begun where it is; else it goes to `later`."""
        now = self._clock()
        if tenant != self._last:
            self._last = tenant
            self._mixed_until = now + ALONE_S
        elif now > self._mixed_until:
            return not self._turnstile.busy
        if self._turnstile.busy:
            return False
        if not self._until:
            self._until = now + ROUND_S
            asyncio.get_running_loop().call_soon(self._next_round)
        return now < self._until

    def later(self, tenant: Hashable, begin: Callable[[], None]) -> None:
        """Has the request begun when it is the tenant's turn."""

        def step(until: float) -> bool:
            begin()
            return True

        self._turnstile.add(tenant, step)

    def _next_round(self) -> None:
        self._until = 0.0
