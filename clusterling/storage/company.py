"""How long what many share is kept open: until those whom the last one served, who are on their way again, have come.

A commit, or a question to the store, has its price whatever it holds. If the next one begins as soon as it may, those who
come without a pause fall into two halves, each of which waits for the other's. Who comes alone waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

WAITS_MAX: Final = 4  # After so many waits it closes, even if each has brought somebody.


class Company:
    """Those who share. Where no more than `few` did lately, nobody is waited for."""

    def __init__(self, few: int = 0) -> None:
        self._few = few
        self._lately = 0  # How many came lately.
        self._pause_s = 0.0  # Without anybody new for so long, and it closes.
        self._complete: asyncio.Future[None] | None = None

    def came(self, waiting: int) -> None:
        """Somebody has come, and so many wait now."""
        if waiting == self._lately and self._complete is not None:
            _end(self._complete)

    def served(self, count: int, pause_s: float) -> None:
        """So many have shared the last one or come meanwhile. Somebody new is worth waiting `pause_s` for."""
        self._lately = count
        self._pause_s = pause_s

    def is_here(self, waiting: int) -> bool:
        """Whether nobody is worth waiting for, where so many wait."""
        return waiting >= self._lately or self._lately <= self._few

    async def gather(self, waiting: Callable[[], int]) -> None:
        """Returns when as many wait as came lately, or no more seem to come."""
        for _ in range(WAITS_MAX):
            before = waiting()
            if self.is_here(before):
                return
            # Those who were served just now have their turn first.
            await asyncio.sleep(0)
            if waiting() < self._lately:
                await self._pause()
            if waiting() == before:
                return

    async def _pause(self) -> None:
        loop = asyncio.get_running_loop()
        self._complete = complete = loop.create_future()
        timer = loop.call_later(self._pause_s, _end, complete)
        try:
            await complete
        finally:
            self._complete = None
            timer.cancel()


def _end(waiting: asyncio.Future[None]) -> None:
    if not waiting.done():
        waiting.set_result(None)
