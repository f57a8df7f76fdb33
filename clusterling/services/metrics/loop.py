"""Whoever waits for the event loop waits alike: so how late it is, is looked at once a second, while anybody scrapes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from clusterling.storage.histogram import Histogram

EVERY_S: Final = 1.0
UNASKED_S: Final = 600.0  # Without a scrape, and nobody looks any more: an idle server has no timer of ours.


class LoopLag:
    """`late` has by how many seconds. `tick` is called each time, too."""

    def __init__(self, tick: Callable[[], None]) -> None:
        self.late = Histogram()
        self._tick = tick
        self._until = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Somebody scrapes: looks from now on, for a while."""
        loop = asyncio.get_running_loop()
        self._until = loop.time() + UNASKED_S
        if self._timer is None:
            self._next(loop)

    def stop(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_at(due := loop.time() + EVERY_S, self._came, loop, due)

    def _came(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        now = loop.time()
        self.late.observe(max(0.0, now - due))
        self._tick()
        if now < self._until:
            self._next(loop)
        else:
            self._timer = None
