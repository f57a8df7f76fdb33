"""Deadlines: ends what takes longer than all may take, with one timer for whatever runs at the same time.

A timer for each request would cost as much as a read does. All are allowed equally long, so whoever began first is the
first to be late: the timer waits for him alone, and finds him gone nearly always.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final


class Deadlines:
    """`with deadlines.begin(): …` raises TimeoutError where the body takes longer than `allowed_s`."""

    def __init__(self, allowed_s: float) -> None:
        self.allowed_s: Final = allowed_s
        self._running: dict[_Running, None] = {}  # In the order in which they began.
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # The timer's.

    def begin(self) -> _Running:
        """What the current task does from here on has the time that is allowed. Use it at once, as a context."""
        return _Running(self)

    def add(self, running: _Running, loop: asyncio.AbstractEventLoop) -> None:
        self._running[running] = None
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._timer = loop.call_at(running.until, self._look, loop)

    def remove(self, running: _Running) -> None:
        self._running.pop(running, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends who is late, and comes back when the next would be."""
        self._timer = None
        now = loop.time()
        for running in list(self._running):
            if running.until > now:
                self._timer = loop.call_at(running.until, self._look, loop)
                return
            del self._running[running]
            running.end()


class _Running:
    """One body under the deadline. What a cancellation by others means is as in asyncio.timeout."""

    __slots__ = ("_cancelling", "_deadlines", "_task", "late", "until")

    def __init__(self, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self.late = False

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task = asyncio.current_task(loop)
        assert task is not None, "requests are served in tasks"
        self._task: asyncio.Task[Any] = task
        self._cancelling = task.cancelling()
        self.until = loop.time() + self._deadlines.allowed_s
        self._deadlines.add(self, loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._deadlines.remove(self)
        if self.late and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def end(self) -> None:
        self.late = True
        self._task.cancel()
