"""What all watches have in common: who takes may wait, by `async for` or by a callback, for there to be something to take."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection
from itertools import islice
from typing import Final, Protocol

from clusterling.storage.store import Batch

WOKEN_AT_ONCE: Final = 128  # Of many; a callback takes 2 µs.


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


class Wakes(Protocol):
    """What can be woken."""

    @property
    def wake(self) -> Callable[[], None]: ...


class Waking:
    """Wakes some at each round of the loop where they are thousands, so that nobody else waits for all of them."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left: dict[Wakes, None] | None = None  # Who are still to be woken.

    def wake(self, ones: Collection[Wakes]) -> None:
        """Wakes each, at once where they are few."""
        if len(ones) <= WOKEN_AT_ONCE:
            for one in tuple(ones):
                one.wake()
        elif self._left is None:
            self._left = dict.fromkeys(ones)
            self._wake_some(self._left, asyncio.get_running_loop())
        else:
            self._left.update(dict.fromkeys(ones))

    def spare(self, one: Wakes) -> None:
        """Has one not be woken that was still to be."""
        if self._left is not None:
            self._left.pop(one, None)

    def _wake_some(self, left: dict[Wakes, None], loop: asyncio.AbstractEventLoop) -> None:
        for one in tuple(islice(left, WOKEN_AT_ONCE)):
            if one in left:  # Else another's callback has ended it.
                del left[one]
                one.wake()
        if left:
            loop.call_soon(self._wake_some, left, loop)
        else:
            self._left = None
