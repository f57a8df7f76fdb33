"""Turns: of many who write one object at once, those who lost the race write it one after another.

Without turns each commit makes all the others compute again in vain: n writers cost n² attempts. Whoever is first never
waits; only who lost stands in line, and not for long: a turn is politeness and protects nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

WAIT_S: Final = (
    1.0  # Then who waits goes ahead all the same: whoever has the turn may be waiting for this very write.
)


class Turns:
    """The lines before objects, by key. A line is there as long as somebody stands in it."""

    def __init__(self) -> None:
        self._lines: dict[str, asyncio.Lock] = {}
        self.standing: dict[str, int] = {}  # How many stand in each line, whoever has the turn included.

    @asynccontextmanager
    async def of(self, key: str) -> AsyncIterator[None]:
        """Has the turn, or has waited long enough."""
        line = self._lines.setdefault(key, asyncio.Lock())
        self.standing[key] = self.standing.get(key, 0) + 1
        has_turn = False
        try:
            try:
                async with asyncio.timeout(WAIT_S):
                    has_turn = await line.acquire()
            except TimeoutError:
                pass
            yield
        finally:
            if has_turn:
                line.release()
            self.standing[key] -= 1
            if not self.standing[key]:
                del self.standing[key], self._lines[key]
