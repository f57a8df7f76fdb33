"""Reads, each answered by a quorum and with the store's own record beside it, as of one revision.

What has been dropped is hidden from the moment of the drop, long before it is deleted; so a range and the record
are asked for in one transaction, of the past too. A revision of ours may lie within a batch, in which
case the batch is taken apart (`_list_within`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson

from clusterling.storage.backend import Drops
from clusterling.storage.etcd import writing
from clusterling.storage.etcd.following import Decoder, watch_request
from clusterling.storage.etcd.layout import (
    INDEX_MAX,
    BatchRecord,
    Layout,
    State,
    expiry_of,
    index_of,
    unwrapped,
)
from clusterling.storage.etcd.messages import rpc
from clusterling.storage.etcd.wire import Future, Unsure, Wire
from clusterling.storage.store import (
    Compacted,
    Entry,
    Event,
    FutureRevision,
    Page,
    StorageError,
    Unavailable,
)

PAGE_ENTRIES: Final = 1000  # Of one answer; fewer where values are large.
PAGE_BYTES: Final = 4 << 20
EXPIRED_PAGE: Final = 200
HISTORY_S: Final = 60.0  # How long a page of history may take.


@dataclass(slots=True)
class Known:
    """What this process has been told by the watch."""

    state: State
    seen: int  # etcd's revision that the watch has come to,
    batch: int  # that of the last batch told,
    name: str  # that batch's name,
    head: int  # and its last revision.


class Answer:
    """A range that was read, with the store's own record and last batch, all at one revision of etcd's."""

    __slots__ = ("batch_mod", "cluster", "kvs", "last", "more", "name", "revision", "state", "total")

    def __init__(self, response: Any, revision: int, state: State, batch: Any, found: Any) -> None:
        self.cluster: int = response.header.cluster_id
        self.revision = revision
        self.state = state
        self.batch_mod = batch.mod_revision
        record = BatchRecord.decoded(batch.value)
        self.name = record.name
        self.last = state.revision(batch.mod_revision, record.count - 1)
        self.kvs: Sequence[Any] = found.kvs
        self.more: bool = found.more
        self.total: int = found.count


class Reads:
    """`went_back` is called, and raises, when an answer is older than what is known."""

    def __init__(self, wire: Wire, layout: Layout, known: Known, went_back: Callable[[int], None]) -> None:
        self._wire = wire
        self._layout = layout
        self._known = known
        self._went_back = went_back
        self._ends = ends_request(layout)
        self._verified: tuple[bytes, State] | None = None  # The store's own record, as it was last decoded.

    async def get(self, key: str) -> Entry | None:
        layout = self._layout
        request = rpc.TxnRequest(success=[writing.get(layout.key(key)), writing.get(layout.state)])
        response = await self.ask(request)
        found, own = (answer.response_range.kvs for answer in response.responses)
        state = self.stated(own)
        if not found:
            return None
        entry = entry_of(layout, state, found[0])
        if hidden(state.dropping(), entry.key, found[0]):
            return None
        return entry

    async def count(self, prefix: str) -> int:
        answer = await self.range(prefix, "", count_only=True)
        drops = answer.state.dropping()
        if not touched(drops, prefix):
            return answer.total
        count, after, at = 0, "", answer.revision
        while True:
            page = await self.range(prefix, after, limit=PAGE_ENTRIES, keys_only=True, at=at)
            names = [self._layout.named(kv.key) for kv in page.kvs]
            count += sum(not hidden(drops, name, kv) for name, kv in zip(names, page.kvs, strict=True))
            if not page.more:
                return count
            after = names[-1]

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        found: dict[str, Entry] = {}
        start, end = self._layout.expired(now)
        while True:
            request = rpc.TxnRequest(
                success=[
                    rpc.RequestOp(
                        request_range=rpc.RangeRequest(key=start, range_end=end, limit=EXPIRED_PAGE)
                    )
                ]
            )
            records = (await self.ask(request)).responses[0].response_range
            for record in records.kvs:
                entries = await self._due(orjson.loads(record.value), now)
                if not entries:
                    # All were written again, deleted or dropped since.
                    await self._tidy(record)
                for entry in entries:
                    found[entry.key] = entry
                    if len(found) >= limit:
                        return [*found.values()]
            if not records.more:
                return [*found.values()]
            start = records.kvs[-1].key + b"\0"

    async def changes(self, prefix: str, *, after: int, through: int, limit: int) -> Sequence[Event]:
        now = await self.record()
        if after < now.horizon - 1:
            raise Compacted(after)
        # A batch that `after` lies in is looked at again from its start.
        mod_revision = max(1, now.mod_of(after))
        start = mod_revision + 1 if index_of(after) == INDEX_MAX else mod_revision
        decoder = Decoder(self._layout, await self.record(mod_revision))
        found: list[Event] = []
        watch = await self._wire.watch(watch_request(self._layout, start))
        try:
            async with asyncio.timeout(HISTORY_S):
                while (response := await watch.read()) is not None:
                    if response.compact_revision:
                        raise Compacted(after)
                    if response.canceled:
                        break
                    for step in decoder.feed(response):
                        for event in step.events:
                            if after < event.revision <= through:
                                seen = _narrowed(event, prefix)
                                if seen is not None:
                                    found.append(seen)
                                    if len(found) == limit:
                                        return found
                        if step.revision >= through:
                            return found
            raise Unavailable("etcd ended the watch")
        except TimeoutError as error:
            raise Unavailable("etcd does not tell its history") from error
        finally:
            watch.cancel()

    async def fresh(self) -> int:
        """As `latest`, for the one question that every request asks: what is as it was known is not decoded again."""
        known, seen = self._known, self._known.seen
        response = await self._wire.range(self._ends)
        if response.header.revision < seen:
            self._went_back(response.header.revision)
        if len(response.kvs) != 2:
            raise gone(self._wire)
        batch, own = response.kvs
        if (
            self._verified is None
            or self._verified[0] != own.value
            or own.mod_revision != self._verified[1].mod_revision
        ):
            self._verified = own.value, self.stated([own])
        state = self._verified[1]
        if batch.mod_revision == known.batch and own.mod_revision == known.state.mod_revision:
            known.seen = max(known.seen, response.header.revision)
            return known.head
        return state.revision(batch.mod_revision, BatchRecord.decoded(batch.value).count - 1)

    async def _tidy(self, record: Any) -> None:
        """Removes a record, if it can be done now; it may as well stay."""
        request = rpc.TxnRequest(
            compare=[writing.mod_is(record.key, record.mod_revision)], success=[writing.delete(record.key)]
        )
        with contextlib.suppress(Unsure, StorageError):
            await self._wire.write(request)

    async def latest(self) -> Answer:
        """How far the store has come, as a quorum knows it."""
        return self._advanced(self._answered(await self.ask(head_request(self._layout)), 0))

    async def first_answer(self) -> Answer:
        """As `latest`, whatever was seen before. Raises Unavailable where another store answers."""
        return self._advanced(self._answered(await self._wire.read(head_request(self._layout)), 0))

    def _advanced(self, answer: Answer) -> Answer:
        """Where nothing of ours has happened up to an answer, the watch need not begin before it (history may be gone)."""
        known = self._known
        if answer.batch_mod == known.batch and answer.state.mod_revision == known.state.mod_revision:
            known.seen = max(known.seen, answer.revision)
        return answer

    async def has_seen_batch(self) -> bool:
        """Whether the last batch that was seen is in this store's history, as far as that reaches."""
        at = self._known.batch
        request = rpc.TxnRequest(success=[writing.get(self._layout.batch, revision=at)])
        try:
            kvs = (await self._wire.read(request)).responses[0].response_range.kvs
        except Compacted:
            return True
        except Future:
            return False
        return any(
            kv.mod_revision == at and BatchRecord.decoded(kv.value).name == self._known.name for kv in kvs
        )

    async def _list_at(self, prefix: str, after: str, limit: int, at: int) -> Page:
        """Entries as they were at etcd's revision `at`; 0 is now."""
        entries: list[Entry] = []
        remaining: int | None = 0
        size = min(limit, PAGE_ENTRIES) if limit else PAGE_ENTRIES
        first: Answer | None = None
        while True:
            page = await self.range(prefix, after, limit=size, at=at or (first.revision if first else 0))
            first = first or page
            drops = first.state.dropping()
            bulk = 0
            taken = 0
            for kv in page.kvs:
                taken += 1
                entry = entry_of(self._layout, page.state, kv)
                bulk += len(entry.value)
                if not hidden(drops, entry.key, kv):
                    entries.append(entry)
                    if len(entries) == limit:
                        break
            left = page.total - taken
            if len(entries) == limit or not page.more:
                remaining = left if not left or not touched(drops, prefix) else None
                break
            after = self._layout.named(page.kvs[-1].key)
            size = max(10, min(PAGE_ENTRIES, len(page.kvs) * PAGE_BYTES // max(bulk, 1)))
            if limit:
                size = min(size, max(10, limit - len(entries)))
        return Page(entries, first.last, remaining, first.last)

    async def _list_then(self, prefix: str, after: str, limit: int, revision: int) -> Page:
        now = await self.record()
        if revision < now.horizon:
            raise Compacted(revision)
        at = now.mod_of(revision)
        try:
            batch = await self._batch_at(at)
        except Future:
            raise FutureRevision(revision, (await self.latest()).last) from None
        if batch is not None and index_of(revision) < batch.count - 1:
            page = await self._list_within(prefix, after, limit, at, index_of(revision), batch)
        else:
            page = await self._list_at(prefix, after, limit, at)
        return Page(page.entries, revision, page.remaining, revision)

    async def _list_within(
        self, prefix: str, after: str, limit: int, at: int, index: int, batch: BatchRecord
    ) -> Page:
        """A list in the middle of a batch: as it was before, and the part of the batch up to `index`."""
        layout = self._layout
        wanted = limit + len(batch.deletes) if limit else 0
        before = await self._list_at(prefix, after, wanted, at - 1)
        complete = not wanted or len(before.entries) < wanted
        last = None if complete else before.entries[-1].key
        changed = await self.range(prefix, after, at=at, changed_at=at)
        merged: dict[str, Entry] = {entry.key: entry for entry in before.entries}
        for kv in changed.kvs:
            entry = entry_of(layout, changed.state, kv)
            if index_of(entry.revision) <= index and (last is None or entry.key <= last):
                merged[entry.key] = entry
        for key, place in batch.deletes.items():
            if place <= index and key in merged and await self._absent(key, at):
                del merged[key]
        entries = [merged[key] for key in sorted(merged)]
        cut = entries[:limit] if limit else entries
        return Page(cut, 0, None if limit and (not complete or len(entries) > limit) else 0, 0)

    async def _absent(self, key: str, at: int) -> bool:
        request = rpc.TxnRequest(success=[writing.get(self._layout.key(key), keys_only=True, revision=at)])
        return not (await self.ask(request)).responses[0].response_range.kvs

    async def _batch_at(self, at: int) -> BatchRecord | None:
        """The batch that etcd's revision `at` is, if it is one."""
        request = rpc.TxnRequest(success=[writing.get(self._layout.batch, revision=at)])
        [record] = (await self.ask(request)).responses[0].response_range.kvs or [None]
        if record is None or record.mod_revision != at:
            return None
        return BatchRecord.decoded(record.value)

    async def record(self, at: int = 0) -> State:
        """The store's own record. Raises Compacted where `at` is too old."""
        request = rpc.TxnRequest(success=[writing.get(self._layout.state, revision=at)])
        kvs = (await self.ask(request)).responses[0].response_range.kvs
        if at and not kvs:
            return replace(
                self._known.state, drops=()
            )  # Before the store was made: there was nothing to drop.
        return self.stated(kvs, at)

    async def _due(self, keys: Sequence[str], now: int) -> list[Entry]:
        layout = self._layout
        entries: list[Entry] = []
        for start in range(0, len(keys), 100):
            request = rpc.TxnRequest(
                success=[
                    writing.get(layout.state),
                    *(writing.get(layout.key(key)) for key in keys[start : start + 100]),
                ]
            )
            own, *found = (answer.response_range.kvs for answer in (await self.ask(request)).responses)
            state = self.stated(own)
            drops = state.dropping()
            for kvs in found:
                for kv in kvs:
                    at = expiry_of(kv.value)
                    entry = entry_of(layout, state, kv)
                    if at is not None and at <= now and not hidden(drops, entry.key, kv):
                        entries.append(entry)
        return entries

    async def revisions(self, keys: Sequence[str], answer: Answer) -> dict[str, int]:
        """The revisions of those keys that are there, as of the answer."""
        layout = self._layout
        drops = answer.state.dropping()
        revisions: dict[str, int] = {}
        for start in range(0, len(keys), 100):
            request = rpc.TxnRequest(
                success=[
                    writing.get(layout.key(key), revision=answer.revision)
                    for key in keys[start : start + 100]
                ]
            )
            for found in (await self.ask(request)).responses:
                for kv in found.response_range.kvs:
                    entry = entry_of(layout, answer.state, kv)
                    if not hidden(drops, entry.key, kv):
                        revisions[entry.key] = entry.revision
        return revisions

    async def range(
        self,
        prefix: str,
        after: str,
        *,
        limit: int = 0,
        at: int = 0,
        changed_at: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
    ) -> Answer:
        """Part of a range, as of etcd's revision `at` (0: now)."""
        layout = self._layout
        start, end = layout.range(prefix, after)
        part = rpc.RequestOp(
            request_range=rpc.RangeRequest(
                key=start,
                range_end=end,
                limit=limit,
                revision=at,
                keys_only=keys_only,
                count_only=count_only,
                min_mod_revision=changed_at,
                max_mod_revision=changed_at,
            )
        )
        request = rpc.TxnRequest(
            success=[part, writing.get(layout.batch, revision=at), writing.get(layout.state, revision=at)]
        )
        return self._answered(await self.ask(request), at)

    def _answered(self, response: Any, at: int) -> Answer:
        found, batch, own = (answer.response_range for answer in response.responses)
        if not batch.kvs:
            raise Compacted(at) if at else gone(self._wire)
        state = self.stated(own.kvs, at)
        return Answer(response, at or response.header.revision, state, batch.kvs[0], found)

    def stated(self, kvs: Sequence[Any], at: int = 0) -> State:
        """The record that was read beside something else. One of the past counts as one does now."""
        if not kvs:
            raise Compacted(at) if at else gone(self._wire)
        state = State.decoded(kvs[0].value, kvs[0].mod_revision)
        if state.id != self._known.state.id:
            raise gone(self._wire)
        # Only epochs tell which is older: a record that was restored has an older revision of etcd's than one that is lost.
        if state.epoch < self._known.state.epoch:
            return replace(state, offset=self._known.state.offset)
        return state

    async def ask(self, request: Any) -> Any:
        """Reads; a store that has gone back is noticed."""
        seen = self._known.seen
        response = await self._wire.read(request)
        if response.header.revision < seen:
            self._went_back(response.header.revision)
        return response

    async def list(self, prefix: str, *, after: str, limit: int, revision: int) -> Page:
        if revision:
            return await self._list_then(prefix, after, limit, revision)
        return await self._list_at(prefix, after, limit, 0)


def entry_of(layout: Layout, state: State, kv: Any) -> Entry:
    value, index = unwrapped(kv.value)
    return Entry(layout.named(kv.key), value, state.revision(kv.mod_revision, index))


def hidden(drops: Drops, key: str, kv: Any) -> bool:
    return bool(drops) and drops.hides(key, written=kv.mod_revision, at=1 << 62)


def touched(drops: Drops, prefix: str) -> bool:
    """Whether some drop is about the prefix."""
    return bool(drops) and (drops.within(prefix) or drops.floor(prefix, at=1 << 62) > 0)


def _narrowed(event: Event, prefix: str) -> Event | None:
    """The event as a watch of the prefix sees it, if it does."""
    if event.key.startswith(prefix):
        return event
    if event.dropped and prefix.startswith(event.key):
        return Event(event.revision, prefix, None, dropped=True)
    return None


def head_request(layout: Layout) -> Any:
    """Asks for the last batch and the store's own record; the first answer stands for a range of nothing."""
    return rpc.TxnRequest(
        success=[
            writing.get(layout.batch, keys_only=True),
            writing.get(layout.batch),
            writing.get(layout.state),
        ]
    )


def ends_request(layout: Layout) -> Any:
    """Asks for the last batch and the store's own record alone, which lie beside each other."""
    return rpc.RangeRequest(key=layout.batch, range_end=layout.state + b"\0")


def gone(wire: Wire) -> StorageError:
    return Unavailable(f"{wire.address.shown} is not the store that was opened")
