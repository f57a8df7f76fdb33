"""The store without a disk: for tests, for embedding, and as the plainest reading of what a backend does.

Every key leads to its newest record, a deletion being a record too; every record leads to the one before. So any
revision back to the horizon can be listed, and compaction cuts the chains.
"""

from __future__ import annotations

import asyncio
import secrets
from bisect import bisect_left, insort
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from typing import Final

from clusterling.storage.backed import BackedStore, serve
from clusterling.storage.backend import Committed, Drops, Lost, Sink, Transaction, prefix_end, refusal
from clusterling.storage.sorted_keys import SortedKeys
from clusterling.storage.store import (
    ABSENT,
    Compacted,
    Entry,
    Event,
    FutureRevision,
    Guard,
    Identity,
    Op,
    Page,
    StorageError,
    Usage,
)
from clusterling.storage.usage import Tally, Totals, counted

STEP_RECORDS: Final = 1000  # Compaction lets the loop go on after so many.


class _Record:
    """One write. `entry` None: a deletion, or a drop of the range under `key`."""

    __slots__ = ("dropped", "entry", "expires_at", "key", "previous", "revision")

    def __init__(
        self,
        revision: int,
        key: str,
        entry: Entry | None,
        previous: _Record | None,
        *,
        expires_at: int | None = None,
        dropped: bool = False,
    ) -> None:
        self.revision = revision
        self.key = key
        self.entry = entry
        self.previous = previous
        self.expires_at = expires_at
        self.dropped = dropped


class MemoryBackend:
    def __init__(self) -> None:
        self._identity = Identity(secrets.token_hex(16), epoch=1)
        self._newest: dict[str, _Record] = {}
        self._keys = SortedKeys()  # The keys of _newest.
        self._log: list[_Record] = []  # Without gaps: _log[i] has revision _log_start + i.
        self._log_start = 2
        self._head = 1
        self._horizon = 1
        self._drops = Drops()
        self._totals = Totals()
        self._expiries: list[tuple[int, str]] = []
        self._sink: Sink = lambda _events, _revision: None

    def follow(self, sink: Sink, lost: Lost) -> None:
        self._sink = sink

    async def commit(self, transactions: Sequence[Transaction]) -> Sequence[Committed | StorageError]:
        outcomes: list[Committed | StorageError] = []
        events: list[Event] = []
        for transaction in transactions:
            refused = refusal(transaction, self._revision_of)
            if refused is None and transaction.limits:
                refused = Tally(self._totals.used, self._length_of).refusal(
                    transaction.ops, transaction.limits
                )
            if refused is not None:
                outcomes.append(refused)
                continue
            first = self._head + 1
            events += [self._put(op.key, op.value, op.expires_at) for op in transaction.ops]
            outcomes.append(Committed(range(first, self._head + 1)))
        if events:
            self._sink(events, self._head)
        return outcomes

    def refusals(self, transactions: Sequence[Transaction]) -> Sequence[StorageError | None]:
        """Why each transaction of a batch cannot happen, None where it can: for backends that write elsewhere first."""
        tally = Tally(self._totals.used, self._length_of)
        return [refusal(one, self._revision_of) or tally.refusal(one.ops, one.limits) for one in transactions]

    async def get(self, key: str) -> Entry | None:
        return self._live(self._newest.get(key))

    async def list(self, prefix: str, *, after: str, limit: int, revision: int) -> Page:
        at = revision or self._head
        if at > self._head:
            raise FutureRevision(revision, self._head)
        if at < self._horizon:
            raise Compacted(revision)
        entries: list[Entry] = []
        last_change = self._drops.floor(prefix, at=at)
        for key in self._keys.between(max(after, prefix), prefix_end(prefix)):
            record: _Record | None = self._newest[key]
            while record is not None and record.revision > at:
                record = record.previous
            if record is not None:
                last_change = max(last_change, record.revision)
                if record.entry is not None and not self._drops.hides(key, written=record.revision, at=at):
                    entries.append(record.entry)
        if after or self._drops.within(prefix):
            last_change = at
        remaining = max(0, len(entries) - limit) if limit else 0
        if remaining:
            del entries[limit:]
        # Deletions below the horizon have left no record, so nothing older can be vouched for.
        return Page(entries, at, remaining, min(at, max(last_change, self._horizon)))

    async def count(self, prefix: str) -> int:
        keys = self._keys.between(prefix, prefix_end(prefix))
        return sum(self._live(self._newest[key]) is not None for key in keys)

    async def usage(self, prefix: str) -> Sequence[Usage]:
        return self._totals.under(prefix)

    async def changes(self, prefix: str, *, after: int, through: int, limit: int) -> Sequence[Event]:
        if after < self._horizon - 1:
            raise Compacted(after)
        first = max(0, after + 1 - self._log_start)
        found = (self._seen(record, prefix) for record in self._log[first : through + 1 - self._log_start])
        return list(islice((event for event in found if event is not None), limit))

    def head(self) -> int:
        return self._head

    async def fresh(self) -> int:
        return self._head

    async def compact(self, horizon: int) -> None:
        horizon = min(horizon, self._head)
        if horizon <= self._horizon:
            return
        self._horizon = horizon
        while self._log_start < horizon:
            step = self._log[: min(STEP_RECORDS, horizon - self._log_start)]
            del self._log[: len(step)]
            self._log_start += len(step)
            for record in step:
                record.previous = None
                if record.dropped:
                    await self._sweep(record)
                elif record.entry is None and self._newest.get(record.key) is record:
                    self._remove(record)
            await asyncio.sleep(0)

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        if refused := refusal(Transaction((), guards), self._revision_of):
            raise refused
        gone = [
            entry
            for key in self._keys.between(prefix, prefix_end(prefix))
            if (entry := self._live(self._newest[key])) is not None
        ]
        if not gone:
            return
        for entry in gone:
            self._totals.change(entry.key, counted(entry.value), None)
        self._head += 1
        record = _Record(self._head, prefix, None, None, dropped=True)
        self._log.append(record)
        self._drops.add(prefix, record.revision)
        self._sink([Event(record.revision, prefix, None, dropped=True)], self._head)

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        due = self._expiries[: bisect_left(self._expiries, (now + 1, ""))]
        entries = (self._live(self._newest[key]) for _, key in due)
        return list(islice((entry for entry in entries if entry is not None), limit))

    async def identity(self) -> Identity:
        return self._identity

    async def close(self) -> None:
        pass

    def _put(self, key: str, value: bytes | None, expires_at: int | None) -> Event:
        self._head += 1
        revision = self._head
        before = self._newest.get(key)
        if before is None:
            self._keys.add(key)
        elif before.expires_at is not None:
            self._unschedule(before)
        entry = None if value is None else Entry(key, value, revision)
        record = _Record(revision, key, entry, before, expires_at=expires_at if entry else None)
        previous = self._live(before)
        self._totals.change(key, counted(previous.value) if previous else None, counted(value))
        self._newest[key] = record
        self._log.append(record)
        if record.expires_at is not None:
            insort(self._expiries, (record.expires_at, key))
        return Event(revision, key, entry, previous)

    async def _sweep(self, drop: _Record) -> None:
        """Removes what a drop has hidden, now that no list can ask for it."""
        for count, key in enumerate(list(self._keys.between(drop.key, prefix_end(drop.key)))):
            record = self._newest.get(key)
            if record is not None and record.revision < drop.revision:
                self._remove(record)
            if count % STEP_RECORDS == STEP_RECORDS - 1:
                await asyncio.sleep(0)
        for record in self._log:
            # A key written again after the drop leads back to what was dropped.
            before = record.previous
            if before is not None and before.revision < drop.revision and record.key.startswith(drop.key):
                record.previous = None
        self._drops.remove(drop.key, drop.revision)

    def _remove(self, record: _Record) -> None:
        del self._newest[record.key]
        self._keys.remove(record.key)
        if record.expires_at is not None:
            self._unschedule(record)

    def _unschedule(self, record: _Record) -> None:
        assert record.expires_at is not None, "only what expires is scheduled"
        del self._expiries[bisect_left(self._expiries, (record.expires_at, record.key))]

    def _length_of(self, op: Op) -> int | None:
        entry = self._live(self._newest.get(op.key))
        return counted(entry.value) if entry is not None else None

    def _revision_of(self, key: str) -> int:
        entry = self._live(self._newest.get(key))
        return ABSENT if entry is None else entry.revision

    def _live(self, record: _Record | None) -> Entry | None:
        if record is None or record.entry is None:
            return None
        if self._drops.hides(record.key, written=record.revision, at=self._head):
            return None
        return record.entry

    def _seen(self, record: _Record, prefix: str) -> Event | None:
        """The record as an event for a watch of `prefix`, if it is one."""
        if record.dropped:
            if record.key.startswith(prefix):
                return Event(record.revision, record.key, None, dropped=True)
            if prefix.startswith(record.key):
                return Event(record.revision, prefix, None, dropped=True)
            return None
        if not record.key.startswith(prefix):
            return None
        before = record.previous
        if before is not None and self._drops.hides(record.key, written=before.revision, at=record.revision):
            before = None
        return Event(record.revision, record.key, record.entry, before.entry if before else None)


@asynccontextmanager
async def open() -> AsyncIterator[BackedStore]:  # noqa: A001 - `memory.open()` reads as it should
    """A complete store in memory, gone when the context ends."""
    async with serve(MemoryBackend(), shared=False) as store:
        yield store
