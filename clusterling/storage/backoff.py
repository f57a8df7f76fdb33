"""How long to wait before the next attempt at something that a store in trouble refused."""

from __future__ import annotations

import asyncio
import random
from typing import Final

FIRST_S: Final = 0.05
MAX_S: Final = 2.0


class Backoff:
    """Waits between attempts: twice as long each time, up to a bound, from the first again after a `success`.

    The times are spread, so that replicas that lost one store together do not come back to it together.
    """

    def __init__(self) -> None:
        self._next_s = FIRST_S

    def success(self) -> None:
        """Things work: the next trouble is a new one."""
        self._next_s = FIRST_S

    async def wait(self) -> None:
        pause_s, self._next_s = self._next_s, min(self._next_s * 2, MAX_S)
        await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
