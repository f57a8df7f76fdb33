"""Turnstile: who may use the event loop next. One slice of synchronous work a tick, those who wait in turn.

Synchronous work that may take longer than `WORTH_QUEUEING_S` goes through here instead of running where it stands,
so that a request of another cluster, which arrives meanwhile, waits for one slice and not for all of it (decision 24).
Work that comes as an iterable is cut into slices; work that cannot be cut is one slice, however long.

There is one queue now: jobs take turns in the order they came. Callers say for which cluster they work, so that
a fairer choice needs no change of theirs.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from clusterling.telemetry.spans import part

WORTH_QUEUEING_S: Final = 0.000_3
SLICE_S: Final = 0.001

_T = TypeVar("_T")


class _Job:
    """Work under way. `step` does one slice and says whether that was the last."""

    __slots__ = ("cluster", "done", "step")

    def __init__(self, cluster: str, step: Callable[[], bool], done: asyncio.Future[None]) -> None:
        self.cluster = cluster
        self.step = step
        self.done = done


class Turnstile:
    """One for a server. Holds no task: its ticks are callbacks of the loop, and there are none while nobody waits."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._jobs: deque[_Job] = deque()
        self._ticking = False

    @property
    def waiting(self) -> int:
        """Jobs that are not finished."""
        return len(self._jobs)

    async def run(self, cluster: str, work: Callable[[], _T]) -> _T:
        """Does `work` when its turn has come; returns or raises what it does. `cluster` is the id it is done for."""
        result: list[_T] = []

        def step() -> bool:
            result.append(work())
            return True

        await self._wait(cluster, step)
        return result[0]

    async def slices(self, cluster: str, items: Iterable[_T]) -> list[_T]:
        """Everything `items` yields, drawn in slices of about `SLICE_S`. One item is never cut."""
        drawn: list[_T] = []
        iterator = iter(items)
        await self._wait(cluster, lambda: self._draw(iterator, drawn))
        return drawn

    def _draw(self, iterator: Iterator[_T], drawn: list[_T]) -> bool:
        clock = self._clock
        until = clock() + SLICE_S
        for item in iterator:
            drawn.append(item)
            if clock() >= until:
                return False
        return True

    async def _wait(self, cluster: str, step: Callable[[], bool]) -> None:
        loop = asyncio.get_running_loop()
        job = _Job(cluster, step, loop.create_future())
        self._jobs.append(job)
        if not self._ticking:
            self._ticking = True
            loop.call_soon(self._tick, loop)
        with part("turnstile"):
            await job.done

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Runs one slice of the job in front. A job whose caller has gone (deadline, disconnect) is dropped."""
        while self._jobs and self._jobs[0].done.done():
            self._jobs.popleft()
        if self._jobs:
            job = self._jobs.popleft()
            try:
                finished = job.step()
            except Exception as error:  # noqa: BLE001 - it is the caller's, who is told
                job.done.set_exception(error)
            else:
                if finished:
                    job.done.set_result(None)
                else:
                    self._jobs.append(job)
        if self._jobs:
            loop.call_soon(self._tick, loop)
        else:
            self._ticking = False
