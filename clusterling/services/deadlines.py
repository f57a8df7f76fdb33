"""Deadlines: ends what takes longer than all may take, with one timer for whatever runs at the same time.

A timer for each request would cost as much as a read does. All are allowed equally long, so whoever began first is the
first to be late: the timer waits for him alone, and finds him gone nearly always.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any, Final


class Deadlines:
    """The time that is allowed, and who has it running: `with Deadline(deadlines): …`."""

    def __init__(self, allowed_s: float) -> None:
        self.allowed_s: Final = allowed_s
        self.running: dict[Deadline, None] = {}  # In the order in which they began.
        self._timer: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None  # The timer's.

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Has the timer wait for the first of those who run, unless it waits for an earlier one."""
        if self._timer is None or self._loop is not loop:
            self._loop = loop
            self._timer = loop.call_at(next(iter(self.running)).until, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Ends who is late, and comes back when the next would be."""
        self._timer = None
        now = loop.time()
        for deadline in list(self.running):
            if deadline.until > now:
                self.watch(loop)
                return
            del self.running[deadline]
            deadline.end()


class Deadline:
    """What the current task does in this context has the time that is allowed, then a TimeoutError.

    What a cancellation by others means is as in asyncio.timeout.
    """

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
        deadlines = self._deadlines
        self.until = loop.time() + deadlines.allowed_s
        deadlines.running[self] = None
        deadlines.watch(loop)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self.late:
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error
        else:
            del self._deadlines.running[self]

    def end(self) -> None:
        self.late = True
        self._task.cancel()
