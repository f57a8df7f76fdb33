"""Says in the status of each logical cluster what it keeps, how much of its quota that is, and when it was last used.

Theory of operation
-------------------
A cluster of which something is to be told is marked: by the replica that let its users' requests in, and by the one
that leads for every change in the store. What is marked waits half a minute the first time, so that what is made,
used and deleted costs nothing, and later as long as its last telling is not `EVERY_S` ago; some are looked at together, so
that their writes share commits, and no more than `BATCH` in `TICK_S`, however many there are. Who finds nothing to tell writes
nothing; and a cluster that nobody uses and that does not change is not marked, and not so much as thought of.

Marks are in memory. Who takes the lead over marks again what the last minutes changed, which history still has; where it has
not, all clusters, of which most have nothing to tell.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from clusterling.controllers import history
from clusterling.controllers.reach import QUIET, Clusters, context, reach
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import rfc3339
from clusterling.registry.ports import Clock
from clusterling.storage.backoff import Backoff
from clusterling.storage.keyspace import Keyspace
from clusterling.storage.store import Compacted, StorageError, Store
from clusterling.tenancy.cluster import GROUP, PLURAL
from clusterling.tenancy.directory import Directory, Record
from clusterling.tenancy.names import ROOT_ID
from clusterling.tenancy.quota import Quotas
from clusterling.tenancy.reports import use_of
from clusterling.tenancy.usage import used_of

logger = logging.getLogger(__name__)

TICK_S: Final = 5.0
BEGIN_S: Final = 5.0  # A server that starts has more urgent things to read than the last minutes.
FIRST_S: Final = 30.0
EVERY_S: Final = 240.0  # Less than history is kept, by as much as its times are noted late.
AGAIN_S: Final = 5.0  # After a failure.
BATCH: Final = 250
AT_ONCE: Final = 25
SPARE: Final = 16  # So many entries may stand in line whose cluster is gone, besides as many as have not.


@dataclass(slots=True)
class _Mark:
    """What there is to tell. `asked_at`: seconds since the epoch, 0 where nobody asked here. `due`: monotonic seconds."""

    due: float
    asked_at: int = 0
    changed: bool = False


class Reporting:
    """The clusters with something to tell. `run` is every replica's work, `follow` that of the one that leads."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        clusters: Clusters,
        quotas: Quotas,
        take_asked: Callable[[], set[str]],
        clock: Clock,
    ) -> None:
        """`store` sees the whole server. `take_asked`: ids of the clusters whose users asked something since the last call."""
        self._store = store
        self._directory = directory
        self._clusters = clusters
        self._quotas = quotas
        self._take_asked = take_asked
        self._clock = clock
        self._marks: dict[str, _Mark] = {}
        self._heap: list[tuple[float, str]] = []
        self._told: dict[str, float] = {}  # When, of those told of in the last `EVERY_S`.
        self._telling: deque[tuple[float, str]] = deque()
        self._follows = False
        directory.listen(self._heard)

    def __len__(self) -> int:
        """Clusters with something to tell."""
        return len(self._marks)

    def _mark(self, cluster_id: str) -> _Mark:
        mark = self._marks.get(cluster_id)
        if mark is None:
            due = self._clock.monotonic() + FIRST_S
            told = self._told.get(cluster_id)
            if told is not None:
                due = max(due, told + EVERY_S)
            mark = self._marks[cluster_id] = _Mark(due)
            heapq.heappush(self._heap, (due, cluster_id))
        return mark

    def _heard(self, old: Record | None, new: Record | None) -> None:
        """What a cluster may hold is told of as well; of one that is gone, nothing."""
        if old is None:
            return
        if new is None or new.id != old.id:
            self._forget(old.id)
        elif self._follows and old.quota != new.quota:
            self._mark(new.id).changed = True

    def _forget(self, cluster_id: str) -> None:
        """Lets go of what there was to tell. Thousands may be deleted at once: what waits for its time does not wait for theirs."""
        if self._marks.pop(cluster_id, None) is not None and len(self._heap) > 2 * len(self._marks) + SPARE:
            self._heap = [(mark.due, marked) for marked, mark in self._marks.items()]
            heapq.heapify(self._heap)
        if self._told.pop(cluster_id, None) is not None and len(self._telling) > 2 * len(self._told) + SPARE:
            self._telling = deque(entry for entry in self._telling if self._told.get(entry[1]) == entry[0])

    def changed(self, key: str) -> None:
        """Something happened at this key of the store."""
        cluster_id = key.partition("/")[0]
        if cluster_id == ROOT_ID or cluster_id.startswith("~"):
            return
        # The end of a deleted cluster's data is nothing to tell.
        if self._directory.by_id(cluster_id) is not None or not self._directory.is_current:
            self._mark(cluster_id).changed = True

    async def follow(self) -> None:
        """Marks what changes, until cancelled."""
        backoff = Backoff()
        position = -1
        self._follows = True
        try:
            await asyncio.sleep(BEGIN_S)
            while True:
                try:
                    if position < 0:
                        position = await history.revision_before(self._store, EVERY_S)
                    async with self._store.watch("", after=position) as watch:
                        async for batch in watch:
                            for event in batch.events:
                                self.changed(event.key)
                            position = batch.revision
                            backoff.success()
                except Compacted:
                    position = self._store.head()
                    for record in self._directory.records():
                        if record.id != ROOT_ID:
                            self._mark(record.id).changed = True
                except StorageError as error:
                    logger.info("reporting-put-off error=%s", error)
                await backoff.wait()
        finally:
            self._follows = False

    async def run(self) -> None:
        """Tells what is due every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            await self.step()

    async def step(self) -> None:
        """Takes over who was asked, and tells of what is due."""
        now = int(self._clock.now().timestamp())
        for cluster_id in self._take_asked():
            if cluster_id != ROOT_ID:
                self._mark(cluster_id).asked_at = now
        taken = self._due()
        for first in range(0, len(taken), AT_ONCE):
            async with asyncio.TaskGroup() as group:
                for cluster_id, mark in taken[first : first + AT_ONCE]:
                    group.create_task(self._tell(cluster_id, mark))

    def _due(self) -> list[tuple[str, _Mark]]:
        now = self._clock.monotonic()
        while self._telling and self._telling[0][0] <= now - EVERY_S:
            at, cluster_id = self._telling.popleft()
            if self._told.get(cluster_id) == at:
                del self._told[cluster_id]
        taken: list[tuple[str, _Mark]] = []
        while self._heap and self._heap[0][0] <= now and len(taken) < BATCH:
            due, cluster_id = heapq.heappop(self._heap)
            mark = self._marks.get(cluster_id)
            if mark is not None and mark.due == due:
                del self._marks[cluster_id]
                taken.append((cluster_id, mark))
        return taken

    async def _tell(self, cluster_id: str, mark: _Mark) -> None:
        record = self._directory.by_id(cluster_id)
        if record is None:
            return
        now = self._clock.monotonic()
        try:
            await self._write(record, mark)
        except (ApiError, StorageError) as error:
            logger.info("report-put-off cluster=%s error=%s", record.name, error)
            # Over the mark that it may have got meanwhile.
            again = self._marks.get(cluster_id, mark)
            mark.asked_at, mark.changed = max(mark.asked_at, again.asked_at), mark.changed or again.changed
            mark.due = now + AGAIN_S
            self._marks[cluster_id] = mark
            heapq.heappush(self._heap, (mark.due, cluster_id))
            return
        self._told[cluster_id] = now
        self._telling.append((now, cluster_id))

    async def _write(self, record: Record, mark: _Mark) -> None:
        """Brings the status up to date, where it is not."""
        reached = await reach(self._clusters, ROOT_ID, GROUP, PLURAL)
        obj = await reached[0].objects.read(reached[1], "", record.name) if reached else None
        if reached is None or obj is None or obj["metadata"]["uid"] != record.uid:
            return
        if "deletionTimestamp" in obj["metadata"]:
            return
        status = obj["status"]
        if mark.asked_at and mark.asked_at - _seconds(status.get("lastActivity")) >= EVERY_S:
            status = {**status, "lastActivity": rfc3339(datetime.fromtimestamp(mark.asked_at, UTC))}
        if mark.changed:
            used = used_of(await Keyspace(self._store, record.id).usage(""))
            now = rfc3339(self._clock.now())
            status = use_of({**obj, "status": status}, used, self._quotas.of(record.id), now)
        if status != obj["status"]:
            cluster, served = reached
            new = {**obj, "status": status}
            await cluster.objects.update(context(cluster, "status"), served, "", record.name, new, QUIET)


def _seconds(time: str | None) -> float:
    """Since the epoch; 0 where there is none, or what is no time was put there."""
    try:
        return datetime.fromisoformat(time or "").timestamp()
    except ValueError:
        return 0.0
