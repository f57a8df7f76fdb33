"""What all watches have in common: who takes may wait, by `async for` or by a callback, for there to be something to take."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable

from clusterling.storage.store import Batch


class Awaited(ABC):
    """Says `wake` whenever there may be something to take. Of its readers one may wait at a time."""

    __slots__ = ("_callback", "_waiter")

    def __init__(self) -> None:
        self._callback: Callable[[], None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    @abstractmethod
    def take(self) -> Batch | None:
        """What comes next, None where there is nothing now. Raises StorageError."""

    @abstractmethod
    def _pending(self) -> bool:
        """There may be something to take now."""

    def notify(self, callback: Callable[[], None]) -> None:
        """Has it called whenever there may be something to take: at once, where there may be now."""
        self._callback = callback
        if self._pending():
            callback()

    def wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        if self._callback is not None:
            self._callback()

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        while True:
            batch = self.take()
            if batch is not None:
                return batch
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
