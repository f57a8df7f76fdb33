"""The loop that all controllers share: one stream of every cluster's events, a queue of keys, some workers.

A controller says which keys an event is about (`keys`) and brings one key into order (`reconcile`). It is told of a
key at least once after each change, never for two workers at a time, and again with growing delay after a failure.
One instance serves all logical clusters; a cluster without events costs nothing.

Clusters take turns (storage/lines.py): one with thousands of keys makes another's wait for a few. Of one cluster no more than
`KEYS_MAX` are queued; it is walked for those beyond, as there is room.

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
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Hashable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from collections.abc import Set as AbstractSet
from typing import Any, Final, Protocol, TypeVar

import orjson

from clusterling.machinery.errors import ApiError
from clusterling.registry.ports import Clock
from clusterling.storage.backoff import Backoff
from clusterling.storage.histogram import Histogram
from clusterling.storage.lines import Lines
from clusterling.storage.store import Compacted, Event, Op, StorageError, Store
from clusterling.telemetry.spans import Span, Value, as_part

logger = logging.getLogger(__name__)

BACKOFF_FIRST_S: Final = 0.05
BACKOFF_MAX_S: Final = 60.0
CURSOR_EVERY_S: Final = 10.0
LAST_SAVE_S: Final = 1.0  # How long a run that ends may take to say how far it came.
CURSOR_KEY: Final = "~controllers/cursor/-/main"
KEYS_MAX: Final = 20_000  # Of one cluster, that wait in a controller's queue: some ten megabytes.
ROOM: Final = KEYS_MAX // 2  # Where fewer wait, a walk goes on.
WALK_AGAIN_S: Final = 5.0  # After a failure.
COLLECTIONS_MAX: Final = 1000  # Of which it is remembered whom something there concerns.
PARKED_MAX: Final = 250  # Keys that are written down beside the cursor; where more wait it stays where it is.


class OfCluster(Hashable, Protocol):
    """A key that says whose it is."""

    @property
    def cluster(self) -> str: ...


Key = str | OfCluster  # A text is the id of a cluster, of which there is no more than that to say.

K = TypeVar("K", bound=Key)


def cluster_of(key: Key) -> str:
    """The id of the cluster whose key it is."""
    return key if isinstance(key, str) else key.cluster


class Controller(Protocol[K]):
    """What brings one kind of thing into order."""

    name: str
    workers: int
    # `<group>/<resource>` of the store's keys, where `keys` names something of changes there alone; None: of any.
    collections: AbstractSet[str] | None = None

    def keys(self, event: Event) -> Iterable[K]:
        """The keys that a change anywhere in the store concerns. Called for every event: be quick to say none."""

    def walk(self, cluster: str = "") -> AsyncIterator[K]:
        """Every key there is, or every one of a cluster, for when some were missed. May be slow."""

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
        self._ready: dict[Key, float] = {}  # And since when.
        self._lines: Lines[Key] = Lines()  # The same, in the order of their turns.
        self._working: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        # A key waits for one time, the earliest it was put off to; what the heap has besides is passed over when due.
        self._due: dict[Key, float] = {}
        self._later: list[tuple[float, int, Key]] = []
        self._sequence = 0
        self._wake = asyncio.Event()
        # Clusters of which keys were not taken, and those that are walked for that; who walks waits there for room.
        self._left_out: set[str] = set()
        self._walked: dict[str, asyncio.Event] = {}
        self._behind = asyncio.Event()

    def __len__(self) -> int:
        """Keys ready or being worked on, and clusters to be walked; those that wait for their time do not count."""
        return len(self._ready) + len(self._working) + len(self._left_out | self._walked.keys())

    @property
    def has_ready(self) -> bool:
        """`get` would return at once."""
        return bool(self._ready)

    @property
    def waiting(self) -> Collection[Key]:
        """The keys that wait to be looked at again: a restart must find them anew."""
        return self._due.keys()

    def add(self, key: Key) -> None:
        """Adds the key, or has its cluster walked when there is room, where as many of its keys wait as may."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._ready:
            cluster = cluster_of(key)
            if self._lines.of(cluster)[0] < KEYS_MAX:
                self._put(cluster, key)
            else:
                self._left_out.add(cluster)
                self._behind.set()

    def _put(self, cluster: str, key: Key) -> None:
        self.figures.adds += 1
        self._ready[key] = self._clock.monotonic()
        self._lines.add(cluster, key)
        self._wake.set()

    def add_after(self, key: Key, delay_s: float) -> None:
        """Adds the key when so much time has passed, or before, where it waits for an earlier time already."""
        due = self._clock.monotonic() + delay_s
        if self._due.get(key, due) < due:
            return
        self._due[key] = due
        self._sequence += 1
        heapq.heappush(self._later, (due, self._sequence, key))
        self._wake.set()

    async def get(self) -> Key:
        """The next key, of the cluster whose turn it is. `done` or `failed` must follow."""
        while True:
            timeout = self._promote()
            if self._ready:
                key = self._lines.take()
                self.figures.waits.observe(self._clock.monotonic() - self._ready.pop(key))
                self._working.add(key)
                if self._walked:
                    self._tell_of_room(cluster_of(key))
                return key
            self._wake.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def done(self, key: Key) -> None:
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: Key) -> float:
        """Puts the key off; returns for how long, in seconds."""
        self.figures.retries += 1
        count = self._failures[key] = self._failures.get(key, 0) + 1
        delay = min(BACKOFF_FIRST_S * float(2 ** min(count - 1, 20)), BACKOFF_MAX_S)
        self._release(key)
        self.add_after(key, delay)
        return delay

    # ------------------------------------------------------------------ more of a cluster than may wait

    async def left_out(self) -> str:
        """A cluster of which keys were not taken, to be walked until `walked`. Keys left out from now on are so anew."""
        while True:
            for cluster in self._left_out:
                if cluster not in self._walked:
                    self._left_out.discard(cluster)
                    self._walked[cluster] = asyncio.Event()
                    return cluster
            self._behind.clear()
            await self._behind.wait()

    async def room(self, cluster: str) -> None:
        """Waits until there is room for keys of a cluster that is walked."""
        while self._lines.of(cluster)[0] >= ROOM:
            self._walked[cluster].clear()
            await self._walked[cluster].wait()

    def walked(self, cluster: str, *, whole: bool) -> None:
        """The walk has ended; it is to be done again where it was not whole, or keys have been left out meanwhile."""
        del self._walked[cluster]
        if not whole:
            self._left_out.add(cluster)
        self._behind.set()

    def _tell_of_room(self, cluster: str) -> None:
        walked = self._walked.get(cluster)
        if walked is not None and self._lines.of(cluster)[0] < ROOM:
            walked.set()

    def _release(self, key: Key) -> None:
        self._working.discard(key)
        if key in self._again:
            self._again.discard(key)
            self._readmit(key)

    def _promote(self) -> float | None:
        """Moves what is due to the ready ones; seconds until the next, None where nothing waits."""
        now = self._clock.monotonic()
        while self._later and self._later[0][0] <= now:
            due, _, key = heapq.heappop(self._later)
            if self._due.get(key) == due:
                del self._due[key]
                self._readmit(key)
        return self._later[0][0] - now if self._later else None

    def _readmit(self, key: Key) -> None:
        """Adds a key that was taken before, room or none: a controller may hold something for it."""
        if key in self._working:
            self._again.add(key)
        elif key not in self._ready:
            self._put(cluster_of(key), key)


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
        self._listeners: dict[str, Sequence[tuple[Controller[Any], WorkQueue]]] = {}
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
        self._listeners.clear()
        self._seen = self._saved = 0
        try:
            async with asyncio.TaskGroup() as group:
                for controller, queue in self._queues:
                    group.create_task(self._attend(controller, queue), name=f"controller-{controller.name}")
                    group.create_task(self._catch_up(controller, queue), name=f"walks-{controller.name}")
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
        for controller, queue in self._queues if event.dropped else self._listening(event.key):
            for key in controller.keys(event):
                queue.add(key)

    def _listening(self, key: str) -> Sequence[tuple[Controller[Any], WorkQueue]]:
        """Those whom something can concern that happens at a key: of most kinds there is one."""
        begin = key.find("/") + 1
        collection = key[begin : key.find("/", key.find("/", begin) + 1)]
        found = self._listeners.get(collection)
        if found is None:
            if len(self._listeners) >= COLLECTIONS_MAX:
                self._listeners.clear()
            found = self._listeners[collection] = [
                (controller, queue)
                for controller, queue in self._queues
                if controller.collections is None or collection in controller.collections
            ]
        return found

    async def _walk(self) -> None:
        for controller, queue in self._queues:
            async for key in controller.walk():
                queue.add(key)

    async def _catch_up(self, controller: Controller[Any], queue: WorkQueue) -> None:
        """Walks each cluster of which keys were left out."""
        async with asyncio.TaskGroup() as walks:
            while True:
                cluster = await queue.left_out()
                logger.info(
                    "controllers-walk reason=keys-left-out controller=%s id=%s", controller.name, cluster
                )
                walks.create_task(self._walk_one(controller, queue, cluster))

    async def _walk_one(self, controller: Controller[Any], queue: WorkQueue, cluster: str) -> None:
        whole = False
        try:
            await queue.room(cluster)
            async for key in controller.walk(cluster):
                await queue.room(cluster)
                queue.add(key)
            whole = True
        except (ApiError, StorageError) as error:
            logger.info("controllers-put-off error=%s", error)
            await asyncio.sleep(WALK_AGAIN_S)
        finally:
            queue.walked(cluster, whole=whole)

    async def _attend(self, controller: Controller[Any], queue: WorkQueue) -> None:
        """Gives keys to workers, as many as there is work for, up to the controller's number.

        Who finds nothing more to do ends: dozens that wait, where thousands of clusters have just gone, would each keep a
        piece of memory from being given back.
        """
        free = asyncio.Semaphore(controller.workers)
        async with asyncio.TaskGroup() as workers:
            while True:
                await free.acquire()
                key = await queue.get()
                work = self._work(controller, queue, key, free)
                workers.create_task(work, name=f"worker-{controller.name}")

    async def _work(
        self, controller: Controller[Any], queue: WorkQueue, key: Key, free: asyncio.Semaphore
    ) -> None:
        try:
            await self._reconcile(controller, queue, key)
            while queue.has_ready:
                await self._reconcile(controller, queue, await queue.get())
        finally:
            free.release()

    async def _reconcile(self, controller: Controller[Any], queue: WorkQueue, key: Key) -> None:
        began = self._clock.monotonic()
        try:
            with as_part(self._span(controller.name, key)):
                again = await controller.reconcile(key)
        except (ApiError, StorageError) as error:
            delay = queue.failed(key)
            logger.info(
                "reconcile-retry controller=%s key=%s in_s=%.2f error=%s", controller.name, key, delay, error
            )
        except Exception:
            delay = queue.failed(key)
            logger.exception("reconcile-failed controller=%s key=%s in_s=%.2f", controller.name, key, delay)
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
