"""The loop that all controllers share: one stream of every cluster's events, a queue of keys, some workers.

A controller says which keys an event is about (`keys`) and brings one key into order (`reconcile`). It is told of a
key at least once after each change, never for two workers at a time, and again with growing delay after a failure.
One instance serves all logical clusters; a cluster without events costs nothing.

Rules of this file
- The stream is resumed where it was left (a durable cursor in the store), so a restart neither misses nor rescans.
  The cursor is written only up to events whose keys are done, or wait and are written down beside it (an owner that
  waits for ever holds up nothing but itself); where history is gone, `walk` names all keys anew.
- A reconcile that fails is logged and retried, and so is whatever the store refuses: only cancellation ends a loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Iterable, Iterator, Mapping
from typing import Any, Final, Protocol, TypeVar

import orjson

from clusterling.machinery.errors import ApiError
from clusterling.registry.ports import Clock
from clusterling.storage.backoff import Backoff
from clusterling.storage.histogram import Histogram
from clusterling.storage.store import Compacted, Event, Op, StorageError, Store
from clusterling.telemetry.spans import Span, Value, as_part

logger = logging.getLogger(__name__)

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 60.0
CURSOR_EVERY_S: Final = 10.0
LAST_SAVE_S: Final = 1.0  # How long a run that ends may take to say how far it came.
CURSOR_KEY: Final = "~controllers/cursor/-/main"
PARKED_MAX: Final = 250  # Keys that are written down beside the cursor; where more wait it stays where it is.


K = TypeVar("K", bound=Hashable)


class Controller(Protocol[K]):
    """What brings one kind of thing into order."""

    name: str
    workers: int

    def keys(self, event: Event) -> Iterable[K]:
        """The keys that a change anywhere in the store concerns. Called for every event: be quick to say none."""

    def walk(self) -> AsyncIterator[K]:
        """Every key there is, for when the stream of events has a gap. May be slow."""

    async def reconcile(self, key: K) -> float | None:
        """Brings one key into order. Returns seconds after which to look again, or None. Safe to repeat."""

    def entry_of(self, key: K) -> str:
        """The store's key of an object from which, as it is then, `keys` names this key again; "": there is none."""
        return ""


class QueueFigures:
    """What a controller's queues did, for metrics: they outlive each."""

    def __init__(self) -> None:
        self.adds = 0
        self.retries = 0
        self.waits = Histogram()  # Seconds from when a key was ready to when a worker took it.
        self.works = Histogram()  # Seconds that a worker had it.


class WorkQueue:
    """Keys to work on: each once, however often added; not again while worked on; later after a failure."""

    def __init__(self, clock: Clock, figures: QueueFigures | None = None) -> None:
        self._clock = clock
        self.figures = figures or QueueFigures()
        self._ready: dict[Hashable, float] = {}  # And since when.
        self._working: set[Hashable] = set()
        self._again: set[Hashable] = set()
        self._failures: dict[Hashable, int] = {}
        # A key waits for one time, the earliest it was put off to; what the heap has besides is passed over when due.
        self._due: dict[Hashable, float] = {}
        self._later: list[tuple[float, int, Hashable]] = []
        self._sequence = 0
        self._wake = asyncio.Event()

    def __len__(self) -> int:
        """Keys ready or being worked on; those that wait for their time do not count."""
        return len(self._ready) + len(self._working)

    @property
    def waiting(self) -> Collection[Hashable]:
        """The keys that wait to be looked at again: a restart must find them anew."""
        return self._due.keys()

    def add(self, key: Hashable) -> None:
        if key in self._working:
            self._again.add(key)
        elif key not in self._ready:
            self.figures.adds += 1
            self._ready[key] = self._clock.monotonic()
            self._wake.set()

    def add_after(self, key: Hashable, delay_s: float) -> None:
        """Adds the key when so much time has passed, or before, where it waits for an earlier time already."""
        due = self._clock.monotonic() + delay_s
        if self._due.get(key, due) < due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._later, (due, self._sequence, key))
        self._wake.set()

    async def get(self) -> Hashable:
        """The next key. `done` or `failed` must follow."""
        while True:
            timeout = self._promote()
            if self._ready:
                key = next(iter(self._ready))
                self.figures.waits.observe(self._clock.monotonic() - self._ready.pop(key))
                self._working.add(key)
                return key
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def done(self, key: Hashable) -> None:
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: Hashable) -> float:
        """Puts the key off; returns for how long, in seconds."""
        self.figures.retries += 1
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(BACKOFF_FIRST_S * float(2 ** min(count - 1, 20)), BACKOFF_MAX_S)
        self._release(key)
        self.add_after(key, delay)
        return delay

    def _release(self, key: Hashable) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)

    def _promote(self) -> float | None:
        """Moves what is due to the ready ones; seconds until the next, None where nothing waits."""
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self.add(key)
        return self._later[0][0] - now if self._later else None


class Runtime:
    """Runs controllers over a store that sees all clusters, one `run` at a time, until cancelled.

    Where there are replicas, it is the leader's work: `store`, and those that the controllers write through, should
    then stand on a `Led` one, so that what a deposed leader writes is refused. `traced` makes the span of a
    reconciliation by its name and attributes, or None where it is not to be recorded.
    """

    def __init__(
        self,
        store: Store,
        controllers: Iterable[Controller[Any]],
        clock: Clock,
        traced: Callable[[str, Mapping[str, Value]], Span | None] | None = None,
    ) -> None:
        self._store = store
        self._queues = [(controller, WorkQueue(clock)) for controller in controllers]
        self._clock = clock
        self._traced = traced
        self._seen = 0
        self._saved = 0

    def queues(self) -> Iterator[tuple[str, int, QueueFigures]]:
        """Of each controller its name, how many keys it has to look at, and its figures."""
        for controller, queue in self._queues:
            yield controller.name, len(queue), queue.figures

    @property
    def idle(self) -> bool:
        """Everything known up to now is done (what waits for a later time aside)."""
        return self._seen >= self._store.head() and not any(len(queue) for _, queue in self._queues)

    async def run(self) -> None:
        # What an earlier run left undone is behind its cursor, and comes again from there.
        self._queues = [
            (controller, WorkQueue(self._clock, queue.figures)) for controller, queue in self._queues
        ]
        self._seen = self._saved = 0
        try:
            async with asyncio.TaskGroup() as group:
                for controller, queue in self._queues:
                    for _ in range(controller.workers):
                        group.create_task(self._work(controller, queue), name=f"controller-{controller.name}")
                group.create_task(self._save_cursor(), name="controllers-cursor")
                group.create_task(self._follow(), name="controllers-follow")
        finally:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_SAVE_S):
                    await self._save()

    async def _follow(self) -> None:
        """Reads every event from the cursor on; where some are gone, names all keys anew."""
        position = -1
        gap = False
        backoff = Backoff()
        while True:
            try:
                if position < 0:
                    position = self._seen = await self._resume()
                if gap:
                    head = self._store.head()
                    logger.info("controllers-walk reason=history-compacted revision=%d", head)
                    await self._walk()
                    position, gap = head, False
                async with self._store.watch("", after=position) as watch:
                    self._seen = max(self._seen, position)
                    async for batch in watch:
                        for event in batch.events:
                            self._dispatch(event)
                        position = self._seen = batch.revision
                        backoff.success()
            except Compacted:
                gap = True
            except (ApiError, StorageError) as error:
                logger.info("controllers-put-off error=%s", error)
            await backoff.wait()

    def _dispatch(self, event: Event) -> None:
        for controller, queue in self._queues:
            for key in controller.keys(event):
                queue.add(key)

    async def _walk(self) -> None:
        for controller, queue in self._queues:
            async for key in controller.walk():
                queue.add(key)

    async def _work(self, controller: Controller[Any], queue: WorkQueue) -> None:
        while True:
            key = await queue.get()
            began = self._clock.monotonic()
            try:
                with as_part(self._span(controller.name, key)):
                    again = await controller.reconcile(key)
            except (ApiError, StorageError) as error:
                delay = queue.failed(key)
                logger.info(
                    "reconcile-retry controller=%s key=%s in_s=%.2f error=%s",
                    controller.name,
                    key,
                    delay,
                    error,
                )
            except Exception:
                delay = queue.failed(key)
                logger.exception(
                    "reconcile-failed controller=%s key=%s in_s=%.2f", controller.name, key, delay
                )
            else:
                queue.done(key)
                if again is not None:
                    queue.add_after(key, again)
            finally:
                queue.figures.works.observe(self._clock.monotonic() - began)

    def _span(self, name: str, key: object) -> Span | None:
        return None if self._traced is None else self._traced(f"reconcile {name}", {"key": str(key)})

    async def _resume(self) -> int:
        """Names what an earlier run left waiting; the revision up to which all else is done."""
        entry = await self._store.get(CURSOR_KEY)
        if entry is None:
            return 0
        record = orjson.loads(entry.value)
        for key in record.get("parked", ()):
            parked = await self._store.get(key)
            if parked is not None:
                self._dispatch(Event(parked.revision, key, parked))
        self._saved = int(record["revision"])
        return self._saved

    async def _save_cursor(self) -> None:
        while True:
            await asyncio.sleep(CURSOR_EVERY_S)
            await self._save()

    async def _save(self) -> None:
        try:
            await self.save()
        except StorageError as error:
            # The next one says more; and whoever leads by then goes on a little further back.
            logger.info("controllers-cursor-put-off error=%s", error)

    async def save(self) -> None:
        """Writes down how far everything is done. Its own write is not worth another. Raises StorageError."""
        seen = self._seen
        if seen <= self._saved + 1 or any(len(queue) for _, queue in self._queues):
            return
        if sum(len(queue.waiting) for _, queue in self._queues) > PARKED_MAX:
            return
        parked = {controller.entry_of(key) for controller, queue in self._queues for key in queue.waiting}
        if "" in parked:
            return
        record = {"revision": seen, "parked": sorted(parked)} if parked else {"revision": seen}
        revisions = await self._store.write([Op(CURSOR_KEY, orjson.dumps(record))])
        self._saved = max(seen, revisions[-1])
