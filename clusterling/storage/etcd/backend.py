"""The backend: reads that a quorum answers, batches as one transaction, one watch that everything is told from.

Theory of operation. Nothing is told to the feed but what the watch brings, also of this process's own writes: so all
replicas have the same events in the same order with the same revisions. `commit` returns when the watch has come
past its batch.

Every write stands on a footing (`writing.Footing`): the store's own record and the last batch are what this process
believes, and the process's own record is as it left it. The last makes a lost answer harmless: to settle a batch,
its own record is rewritten if it still is what it was before the batch. Either that succeeds, and the batch can never
happen any more, or the record has the batch's name, and it has happened.

A drop is one batch that adds the range to the store's own record; every read asks for that record in the same
transaction, and every write stands on it. The keys are deleted afterwards in bounded steps, then the range leaves
the record.

Rules of this file: `_state` and `_seen` change only in `_take` (what the watch says) and `_restart` (a gap), and
there is no await inside either.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import grpc.aio
import orjson

from clusterling.storage.backend import Committed, Drops, Lost, Sink, Transaction, refusal
from clusterling.storage.etcd import writing
from clusterling.storage.etcd.following import Decoder, Step, watch_request
from clusterling.storage.etcd.layout import (
    INDEX_MAX,
    BatchRecord,
    Layout,
    State,
    expiry_of,
    index_of,
    unwrapped,
)
from clusterling.storage.etcd.wire import Address, Future, NotSent, Unsure, Wire, rpc
from clusterling.storage.etcd.writing import Footing
from clusterling.storage.store import (
    ABSENT,
    Compacted,
    Entry,
    Event,
    FutureRevision,
    Identity,
    Page,
    RevisionConflict,
    StorageError,
    StoreOpenError,
    Unavailable,
    UnknownOutcome,
)

logger = logging.getLogger(__name__)

PAGE_ENTRIES: Final = 1000  # Of one answer; fewer where values are large.
PAGE_BYTES: Final = 4 << 20
ATTEMPTS_MAX: Final = 10  # Of a write whose footing moved under it.
SETTLE_S: Final = 10.0  # How long a batch whose answer was lost is asked about.
ARRIVE_S: Final = 10.0  # How long a batch may take to come back in the watch.
NET_S: Final = 2.0  # A watch that is this far behind what a read has seen is made anew.
PAUSE_MAX_S: Final = 1.0  # Between attempts to watch.
SWEEP_KEYS: Final = 500  # Deleted in one step.
REMEMBERED_BATCHES: Final = 256
EXPIRED_PAGE: Final = 200
NEW_EPOCH_JUMP: Final = 1 << 30  # Revisions nobody can have seen, when a backup of unknown age came back.


class _Answer:
    """A range that was read, with the store's own record and last batch, all at one revision of etcd's."""

    __slots__ = ("batch_mod", "kvs", "last", "more", "revision", "state", "total")

    def __init__(self, revision: int, state: State, batch: Any, found: Any) -> None:
        self.revision = revision
        self.state = state
        self.batch_mod = batch.mod_revision
        self.last = state.revision(batch.mod_revision, BatchRecord.decoded(batch.value).count - 1)
        self.kvs: Sequence[Any] = found.kvs
        self.more: bool = found.more
        self.total: int = found.count


class EtcdBackend:
    """Made by `connect`."""

    def __init__(self, wire: Wire, layout: Layout, answer: _Answer) -> None:
        state = answer.state
        self._wire = wire
        self._layout = layout
        self._state = state
        self._seen = answer.revision  # etcd's revision that the watch has come to,
        self._seen_batch = answer.batch_mod  # and of the last batch told.
        self._head = answer.last
        self._writer = layout.writer(secrets.token_hex(8))
        self._writer_mod = 0
        self._unsettled: bytes | None = None
        self._sink: Sink = lambda _events, _revision: None
        self._lost: Lost = lambda _revision: None
        self._recent: OrderedDict[int, frozenset[int]] = OrderedDict()  # Revisions told, by etcd's.
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._asking: _Shared | None = None
        self._failed: StorageError | None = None
        self._stream: Any = None
        self._sweeping = asyncio.Lock()
        self._dropped = asyncio.Event()
        if state.drops:
            self._dropped.set()
        loop = asyncio.get_running_loop()
        self._tasks = [
            loop.create_task(self._follow(), name="etcd watch"),
            loop.create_task(self._net(), name="etcd net"),
            loop.create_task(self._sweeper(), name="etcd sweeper"),
        ]

    def follow(self, sink: Sink, lost: Lost) -> None:
        self._sink = sink
        self._lost = lost

    def head(self) -> int:
        return self._head

    async def identity(self) -> Identity:
        return self._state.identity

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self._wake(closing=True)
        try:
            async with asyncio.timeout(1.0):
                await self._wire.write(rpc.TxnRequest(success=[writing.delete(self._writer)]))
        except (StorageError, Unsure, TimeoutError):
            pass  # Compaction removes it.
        await self._wire.close()

    # Reading.

    async def get(self, key: str) -> Entry | None:
        layout = self._layout
        request = rpc.TxnRequest(success=[writing.get(layout.key(key)), writing.get(layout.state)])
        response = await self._ask(request)
        found, own = (answer.response_range.kvs for answer in response.responses)
        state = self._stated(own)
        if not found:
            return None
        entry = _entry(layout, state, found[0])
        if _hidden(state.dropping(), entry.key, found[0]):
            return None
        return entry

    async def list(self, prefix: str, *, after: str, limit: int, revision: int) -> Page:
        if revision:
            return await self._list_then(prefix, after, limit, revision)
        return await self._list_at(prefix, after, limit, 0)

    async def count(self, prefix: str) -> int:
        answer = await self._range(prefix, "", count_only=True)
        drops = answer.state.dropping()
        if not _touched(drops, prefix):
            return answer.total
        count, after, at = 0, "", answer.revision
        while True:
            page = await self._range(prefix, after, limit=PAGE_ENTRIES, keys_only=True, at=at)
            names = [self._layout.named(kv.key) for kv in page.kvs]
            count += sum(not _hidden(drops, name, kv) for name, kv in zip(names, page.kvs, strict=True))
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
            records = (await self._ask(request)).responses[0].response_range
            for record in records.kvs:
                entries = await self._due(orjson.loads(record.value), now)
                if not entries:
                    # All were written again, deleted or dropped since.
                    await self._write_quietly(
                        [writing.mod_is(record.key, record.mod_revision)], [writing.delete(record.key)]
                    )
                for entry in entries:
                    found[entry.key] = entry
                    if len(found) >= limit:
                        return [*found.values()]
            if not records.more:
                return [*found.values()]
            start = records.kvs[-1].key + b"\0"

    async def changes(self, prefix: str, *, after: int, through: int, limit: int) -> Sequence[Event]:
        now = await self._record()
        if after < now.horizon - 1:
            raise Compacted(after)
        # A batch that `after` lies in is looked at again from its start.
        mod_revision = max(1, now.mod_of(after))
        start = mod_revision + 1 if index_of(after) == INDEX_MAX else mod_revision
        before = await self._record(mod_revision)
        decoder = Decoder(self._layout, replace(before, offset=now.offset))
        found: list[Event] = []
        stream = self._wire.watch()
        try:
            await stream.write(watch_request(self._layout, start))
            async with asyncio.timeout(60):
                while (response := await stream.read()) is not grpc.aio.EOF:
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
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            raise Unavailable(f"etcd: {error}") from error
        except TimeoutError as error:
            raise Unavailable("etcd does not tell its history") from error
        finally:
            stream.cancel()

    async def fresh(self) -> int:
        """One read serves all who asked before it began."""
        while True:
            asking = self._asking
            if asking is None:
                asking = self._asking = _Shared()
                return await self._read_head(asking)
            if not asking.begun:
                return await asyncio.shield(asking.result)
            await asyncio.wait([asking.result])

    async def _read_head(self, asking: _Shared) -> int:
        # Whoever asks in this turn of the loop shares the read.
        await asyncio.sleep(0)
        asking.begun = True
        try:
            head = await self._latest()
        except BaseException as error:
            if not asking.result.done():
                shared = error if isinstance(error, StorageError) else Unavailable("nobody waited")
                asking.result.set_exception(shared)
                asking.result.exception()
            raise
        else:
            asking.result.set_result(head)
            return head
        finally:
            if self._asking is asking:
                self._asking = None

    async def _latest(self) -> int:
        answer = await self._range("", "", limit=1, keys_only=True, narrow=True)
        return answer.last

    async def _list_at(self, prefix: str, after: str, limit: int, at: int) -> Page:
        """Entries as they were at etcd's revision `at`; 0 is now."""
        entries: list[Entry] = []
        remaining: int | None = 0
        size = min(limit, PAGE_ENTRIES) if limit else PAGE_ENTRIES
        first: _Answer | None = None
        while True:
            page = await self._range(prefix, after, limit=size, at=at or (first.revision if first else 0))
            first = first or page
            drops = first.state.dropping()
            bulk = 0
            taken = 0
            for kv in page.kvs:
                taken += 1
                entry = _entry(self._layout, page.state, kv)
                bulk += len(entry.value)
                if not _hidden(drops, entry.key, kv):
                    entries.append(entry)
                    if len(entries) == limit:
                        break
            left = page.total - taken
            if len(entries) == limit or not page.more:
                remaining = left if not left or not _touched(drops, prefix) else None
                break
            after = self._layout.named(page.kvs[-1].key)
            size = max(10, min(PAGE_ENTRIES, len(page.kvs) * PAGE_BYTES // max(bulk, 1)))
            if limit:
                size = min(size, max(10, limit - len(entries)))
        return Page(entries, first.last, remaining, first.last)

    async def _list_then(self, prefix: str, after: str, limit: int, revision: int) -> Page:
        now = await self._record()
        if revision < now.horizon:
            raise Compacted(revision)
        at = now.mod_of(revision)
        try:
            batch = await self._batch_at(at)
        except Future:
            raise FutureRevision(revision, await self._latest()) from None
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
        changed = await self._range(prefix, after, at=at, changed_at=at)
        merged: dict[str, Entry] = {entry.key: entry for entry in before.entries}
        for kv in changed.kvs:
            entry = _entry(layout, changed.state, kv)
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
        return not (await self._ask(request)).responses[0].response_range.kvs

    async def _batch_at(self, at: int) -> BatchRecord | None:
        """The batch that etcd's revision `at` is, if it is one."""
        request = rpc.TxnRequest(success=[writing.get(self._layout.batch, revision=at)])
        [record] = (await self._ask(request)).responses[0].response_range.kvs or [None]
        if record is None or record.mod_revision != at:
            return None
        return BatchRecord.decoded(record.value)

    async def _record(self, at: int = 0) -> State:
        """The store's own record. Raises Compacted where `at` is too old."""
        request = rpc.TxnRequest(success=[writing.get(self._layout.state, revision=at)])
        return self._stated((await self._ask(request)).responses[0].response_range.kvs)

    async def _range(
        self,
        prefix: str,
        after: str,
        *,
        limit: int = 0,
        at: int = 0,
        changed_at: int = 0,
        keys_only: bool = False,
        count_only: bool = False,
        narrow: bool = False,
    ) -> _Answer:
        """Part of a range, as of etcd's revision `at` (0: now). `narrow`: nothing of it, only what comes with it."""
        layout = self._layout
        start, end = layout.range(prefix, after)
        if narrow:
            start, end = layout.batch, b""
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
        response = await self._ask(request)
        found, batch, own = (answer.response_range for answer in response.responses)
        if not batch.kvs:
            raise Compacted(at) if at else self._gone()
        return _Answer(at or response.header.revision, self._stated(own.kvs, at), batch.kvs[0], found)

    def _stated(self, kvs: Sequence[Any], at: int = 0) -> State:
        """The record that was read beside something else. One of the past counts as one does now."""
        if not kvs:
            raise Compacted(at) if at else self._gone()
        state = State.decoded(kvs[0].value, kvs[0].mod_revision)
        if state.id != self._state.id:
            raise self._gone()
        if state.epoch != self._state.epoch and state.mod_revision < self._state.mod_revision:
            return replace(state, offset=self._state.offset)
        return state

    async def _ask(self, request: Any) -> Any:
        """Reads; a store that has gone back is noticed."""
        if self._failed is not None:
            raise self._failed
        seen = self._seen
        response = await self._wire.read(request)
        if response.header.revision < seen:
            self._step_back(response.header.revision)
        return response

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
            own, *found = (answer.response_range.kvs for answer in (await self._ask(request)).responses)
            state = self._stated(own)
            drops = state.dropping()
            for kvs in found:
                for kv in kvs:
                    at = expiry_of(kv.value)
                    entry = _entry(layout, state, kv)
                    if at is not None and at <= now and not _hidden(drops, entry.key, kv):
                        entries.append(entry)
        return entries

    # Writing.

    async def commit(self, transactions: Sequence[Transaction]) -> Sequence[Committed | StorageError]:
        outcomes: list[Committed | StorageError] = []
        for group in writing.groups(transactions):
            part = [transactions[position] for position in group]
            try:
                outcomes += await self._commit(part)
            except StorageError as error:
                if not outcomes:
                    raise
                outcomes += [type(error)(*error.args)] * (len(transactions) - len(outcomes))
                break
        return outcomes

    async def _commit(self, part: Sequence[Transaction]) -> Sequence[Committed | StorageError]:
        if not writing.fits(part[0]):
            return [await self._commit_exactly(part[0])]
        for _ in range(ATTEMPTS_MAX):
            footing = await self._footing()
            batch = writing.batch(self._layout, footing, part)
            sent = await self._send(batch)
            if sent is None:
                continue
            mod_revision, response = sent
            if response is None:
                return [
                    await self._recalled(transaction, footing.state, mod_revision, start)
                    for transaction, start in zip(part, batch.starts, strict=True)
                ]
            if not response.succeeded:
                await self._regain(footing, response)
                continue
            nested = [answer.response_txn for answer in response.responses[-len(part) :]]
            if any(answer.succeeded for answer in nested) or len(part) > 1:
                self._writer_mod = mod_revision
                await self._arrived(mod_revision)
            outcomes: list[Committed | StorageError] = []
            for transaction, answer, start, asked in zip(
                part, nested, batch.starts, batch.questions, strict=True
            ):
                if answer.succeeded:
                    outcomes.append(_committed(transaction, footing.state, mod_revision, start))
                    continue
                refused = writing.refused_by(
                    self._layout, footing.state, transaction, asked, writing.mods_found(answer)
                )
                outcomes.append(refused or await self._commit_exactly(transaction))
            return outcomes
        raise Unavailable("the etcd store changes too fast to write to")

    async def _commit_exactly(self, transaction: Transaction) -> Committed | StorageError:
        """Looks at everything that the transaction depends on, then writes if no batch came in between."""
        keys = list(
            dict.fromkeys([*(op.key for op in transaction.ops), *(g.key for g in transaction.guards)])
        )
        for _ in range(ATTEMPTS_MAX):
            footing = await self._footing()
            answer = await self._range("", "", limit=1, narrow=True)
            revisions = await self._revisions(keys, answer)
            refused = refusal(transaction, lambda key, at=revisions: at.get(key, ABSENT))  # type: ignore[misc]
            if refused is not None:
                return refused
            if answer.state.mod_revision != footing.state.mod_revision:
                await self._arrived(answer.state.mod_revision)
                continue
            batch = writing.exact(self._layout, footing, transaction, answer.batch_mod)
            sent = await self._send(batch)
            if sent is None:
                continue
            mod_revision, response = sent
            if response is None or response.succeeded:
                self._writer_mod = mod_revision
                await self._arrived(mod_revision)
                return _committed(transaction, footing.state, mod_revision, 0)
            await self._regain(footing, response)
        raise Unavailable("the etcd store changes too fast for a large write")

    async def _revisions(self, keys: Sequence[str], answer: _Answer) -> dict[str, int]:
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
            for found in (await self._ask(request)).responses:
                for kv in found.response_range.kvs:
                    entry = _entry(layout, answer.state, kv)
                    if not _hidden(drops, entry.key, kv):
                        revisions[entry.key] = entry.revision
        return revisions

    async def _footing(self) -> Footing:
        if self._failed is not None:
            raise self._failed
        if self._unsettled is not None:
            await self._settle(self._unsettled)
        return Footing(self._state, self._writer, self._writer_mod, self._seen_batch)

    async def _send(self, batch: writing.Batch) -> tuple[int, Any] | None:
        """etcd's revision and its answer; no answer where it was lost, but the batch happened; None where it did not."""
        try:
            response = await self._wire.write(batch.request)
        except NotSent as error:
            logger.info("etcd-write-not-sent error=%s", error)
            await asyncio.sleep(0.05)
            response = await self._resend(batch)
        except Unsure as unsure:
            return await self._found(batch, unsure)
        except asyncio.CancelledError:
            self._unsettled = batch.name
            raise
        return None if response is None else (response.header.revision, response)

    async def _resend(self, batch: writing.Batch) -> Any:
        """Once more what certainly was not done; nothing but this is ever sent twice."""
        for _ in range(len(self._wire.address.endpoints)):
            try:
                return await self._wire.write(batch.request)
            except NotSent:
                await asyncio.sleep(0.1)
            except Unsure as unsure:
                found = await self._found(batch, unsure)
                if found is None:
                    return None
                raise UnknownOutcome("etcd's answer was lost") from unsure
        raise Unavailable("no etcd endpoint can be reached")

    async def _found(self, batch: writing.Batch, unsure: Unsure) -> tuple[int, None] | None:
        """What became of a batch whose answer was lost. Raises UnknownOutcome where that cannot be learnt."""
        logger.warning("etcd-answer-lost error=%s", unsure)
        self._unsettled = batch.name
        mod_revision = await self._settle(batch.name)
        if mod_revision is None:
            return None
        await self._arrived(mod_revision)
        return mod_revision, None

    async def _settle(self, name: bytes) -> int | None:
        """etcd's revision of the batch of that name, or None: then it has not happened and never will."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLE_S
        fence = secrets.token_bytes(9)
        while loop.time() < deadline:
            request = rpc.TxnRequest(
                compare=[writing.mod_is(self._writer, self._writer_mod)],
                success=[writing.put(self._writer, fence)],
                failure=[writing.get(self._writer)],
            )
            try:
                response = await self._wire.write(request)
            except (Unsure, NotSent):
                await asyncio.sleep(0.1)
                continue
            except StorageError as error:
                raise UnknownOutcome(f"etcd's answer was lost, and asking again failed: {error}") from error
            if response.succeeded:
                self._writer_mod = response.header.revision
                self._unsettled = None
                return None
            kvs = response.responses[0].response_range.kvs
            self._writer_mod = kvs[0].mod_revision if kvs else 0
            self._unsettled = None
            return kvs[0].mod_revision if kvs and kvs[0].value == name else None
        raise UnknownOutcome("etcd's answer was lost, and etcd cannot be asked")

    async def _recalled(
        self, transaction: Transaction, state: State, mod_revision: int, start: int
    ) -> Committed | StorageError:
        """The outcome of one transaction of a batch whose answer was lost, from what the watch has told."""
        revision = state.revision(mod_revision, start)
        told = self._recent.get(mod_revision)
        if told is None:
            return UnknownOutcome("etcd's answer was lost, and so was its event")
        if revision in told:
            return _committed(transaction, state, mod_revision, start)
        answer = await self._range("", "", limit=1, narrow=True)
        keys = [*(op.key for op in transaction.ops), *(guard.key for guard in transaction.guards)]
        revisions = await self._revisions(list(dict.fromkeys(keys)), answer)
        refused = refusal(transaction, lambda key: revisions.get(key, ABSENT))
        return refused or RevisionConflict(transaction.ops[0].key)

    async def _regain(self, footing: Footing, response: Any) -> None:
        """Learns what was not as believed, so that the next attempt stands on it. Nothing was written."""
        own, writer, batch = (answer.response_range.kvs for answer in response.responses)
        if not batch or not own or batch[0].mod_revision < footing.seen:
            self._step_back(response.header.revision)
        self._stated(own)
        self._writer_mod = writer[0].mod_revision if writer else 0
        await self._arrived(max(own[0].mod_revision, self._seen))

    async def _arrived(self, mod_revision: int) -> None:
        """Returns when the watch has come as far as etcd's revision."""
        if self._seen >= mod_revision:
            return
        if self._failed is not None:
            raise self._failed
        arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[arrived] = mod_revision
        try:
            async with asyncio.timeout(ARRIVE_S):
                await arrived
        except TimeoutError:
            raise UnknownOutcome("written, but the watch does not bring it") from None
        finally:
            self._waiting.pop(arrived, None)

    async def _write_quietly(self, compare: Sequence[Any], success: Sequence[Any]) -> bool:
        """A write that may as well not happen, such as tidying up."""
        try:
            response = await self._wire.write(rpc.TxnRequest(compare=compare, success=success))
        except (Unsure, NotSent):
            return False
        return bool(response.succeeded)

    # Forgetting.

    async def drop(self, prefix: str) -> None:
        layout = self._layout
        for _ in range(ATTEMPTS_MAX):
            footing = await self._footing()
            if not await self._any(prefix):
                return
            record = BatchRecord(1, dropped=prefix)
            changed = footing.state.with_drop(prefix)
            outcome = await self._change_state(
                footing.state, changed, [writing.put(layout.batch, record.encoded())]
            )
            if outcome is not None:
                self._dropped.set()
                await self._arrived(outcome)
                return
        raise Unavailable("the etcd store changes too fast to drop a range")

    async def compact(self, horizon: int) -> None:
        for _ in range(ATTEMPTS_MAX):
            state = (await self._footing()).state
            horizon = min(horizon, self._head)
            if horizon <= state.horizon:
                break
            outcome = await self._change_state(state, replace(state, horizon=horizon))
            if outcome is not None:
                await self._arrived(outcome)
                break
        else:
            raise Unavailable("the etcd store changes too fast to compact it")
        await self._sweep()
        # Events at the horizon's own revision, and what was there before them, stay.
        state = await self._record()
        oldest = state.mod_of(state.horizon) - 1
        if oldest > 0:
            await self._forget_writers(oldest)
            await self._wire.compact(oldest)

    async def _change_state(self, state: State, changed: State, operations: Sequence[Any] = ()) -> int | None:
        """Rewrites the store's own record if it is what it was; etcd's revision, or None if it was not."""
        request = rpc.TxnRequest(
            compare=[
                writing.mod_is(self._layout.state, state.mod_revision),
            ],
            success=[writing.put(self._layout.state, changed.encoded()), *operations],
            failure=[writing.get(self._layout.state)],
        )
        try:
            response = await self._wire.write(request)
        except Unsure:
            # The next attempt rewrites the record, or finds that this one has done so.
            return None
        if response.succeeded:
            return int(response.header.revision)
        await self._arrived(response.responses[0].response_range.kvs[0].mod_revision)
        return None

    async def _any(self, prefix: str) -> bool:
        """Whether there is anything under the prefix."""
        after, at = "", 0
        while True:
            page = await self._range(prefix, after, limit=PAGE_ENTRIES, keys_only=True, at=at)
            drops = page.state.dropping()
            names = [self._layout.named(kv.key) for kv in page.kvs]
            if any(not _hidden(drops, name, kv) for name, kv in zip(names, page.kvs, strict=True)):
                return True
            if not page.more:
                return False
            after, at = names[-1], page.revision

    async def _sweeper(self) -> None:
        while True:
            await self._dropped.wait()
            self._dropped.clear()
            try:
                await self._sweep()
            except StorageError as error:
                logger.info("etcd-sweep-later error=%s", error)
                await asyncio.sleep(5.0)
                self._dropped.set()

    async def _sweep(self) -> None:
        """Deletes what has been dropped, then takes the drops out of the record."""
        async with self._sweeping:
            state = await self._record()
            for prefix, at in state.drops:
                await self._sweep_range(prefix, at)
            swept = state.drops
            while any(drop in swept for drop in state.drops):
                outcome = await self._change_state(state, state.without(swept))
                if outcome is not None:
                    await self._arrived(outcome)
                    return
                state = await self._record()

    async def _sweep_range(self, prefix: str, dropped_at: int) -> None:
        """Deletes keys in steps; one written after the drop stays, whenever it comes."""
        after = ""
        while True:
            page = await self._range(prefix, after, limit=SWEEP_KEYS, keys_only=True)
            runs: list[list[bytes]] = [[]]
            for kv in page.kvs:
                if kv.mod_revision <= dropped_at:
                    runs[-1].append(kv.key)
                elif runs[-1]:
                    runs.append([])
            clean = True
            for run in runs:
                if run:
                    end = run[-1] + b"\0"
                    clean &= await self._write_quietly(
                        [writing.mod_below(run[0], dropped_at + 1, end)], [writing.delete(run[0], end)]
                    )
            if clean:
                if not page.more:
                    return
                after = self._layout.named(page.kvs[-1].key)
            else:
                await asyncio.sleep(0.05)

    async def _forget_writers(self, oldest: int) -> None:
        """Removes the records of processes that have written nothing within history."""
        start = self._layout.writers
        request = rpc.TxnRequest(
            success=[
                rpc.RequestOp(
                    request_range=rpc.RangeRequest(
                        key=start, range_end=start[:-1] + b"0", keys_only=True, limit=PAGE_ENTRIES
                    )
                )
            ]
        )
        for kv in (await self._ask(request)).responses[0].response_range.kvs:
            if kv.mod_revision < oldest and kv.key != self._writer:
                await self._write_quietly([writing.mod_is(kv.key, kv.mod_revision)], [writing.delete(kv.key)])

    # Following.

    async def _follow(self) -> None:
        pause = 0.0
        while True:
            before = self._seen
            try:
                await self._listen()
            except StorageError as error:
                logger.warning("etcd-watch-later error=%s", error)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                logger.warning("etcd-watch-broken error=%s", getattr(error, "details", str)())
            finally:
                if self._stream is not None:
                    self._stream.cancel()
                    self._wire.broken(self._stream)
                    self._stream = None
            pause = 0.0 if self._seen > before else min(max(pause * 2, 0.05), PAUSE_MAX_S)
            await asyncio.sleep(pause)

    async def _listen(self) -> None:
        """Watches from where the last watch ended until something breaks."""
        await self._compare()
        stream = self._stream = self._wire.watch()
        decoder = Decoder(self._layout, self._state)
        await stream.write(watch_request(self._layout, self._seen + 1))
        while (response := await stream.read()) is not grpc.aio.EOF:
            if response.compact_revision:
                await self._leap()
                return
            if response.canceled:
                logger.warning("etcd-watch-cancelled reason=%s", response.cancel_reason)
                return
            self._take([*decoder.feed(response)])

    def _take(self, steps: Sequence[Step]) -> None:
        """Tells what happened."""
        events: list[Event] = []
        for step in steps:
            if step.state is not None:
                if step.state.epoch != self._state.epoch:
                    self._state = step.state
                    self._restart(step.mod_revision, step.mod_revision, step.revision)
                    events.clear()
                    continue
                self._state = step.state
            self._seen = step.mod_revision
            if step.revision:
                events += step.events
                self._seen_batch = step.mod_revision
                self._head = step.revision
                self._recent[step.mod_revision] = frozenset(event.revision for event in step.events)
                if len(self._recent) > REMEMBERED_BATCHES:
                    self._recent.popitem(last=False)
        if steps and self._head:
            self._sink(events, self._head)
        self._wake()

    def _restart(self, seen: int, batch: int, head: int) -> None:
        """Goes on at a later point, or in a later epoch: what was in between, nobody can tell."""
        self._seen = seen
        self._seen_batch = batch
        self._head = max(self._head, head)
        logger.warning("etcd-gap revision=%d epoch=%d", self._head, self._state.epoch)
        self._lost(self._head)

    async def _leap(self) -> None:
        """History has been compacted beyond what was seen. If nothing was written in between, nothing is lost."""
        answer = await self._range("", "", limit=1, narrow=True)
        if answer.batch_mod <= self._seen:
            self._seen = answer.revision
        else:
            self._state = answer.state
            self._restart(answer.revision, answer.batch_mod, answer.last)
        self._wake()

    async def _compare(self) -> None:
        """Whether the store that answers is still the one that was seen, and no older."""
        response = await self._wire.read(
            rpc.TxnRequest(success=[writing.get(self._layout.batch), writing.get(self._layout.state)])
        )
        batch, own = (answer.response_range.kvs for answer in response.responses)
        state = State.decoded(own[0].value, own[0].mod_revision) if own and batch else None
        if state is None or state.id != self._state.id:
            raise self._gone()
        if response.header.revision >= self._seen and state.mod_revision >= self._state.mod_revision:
            return
        await self._raise_epoch(state, response.header)

    async def _raise_epoch(self, state: State, header: Any) -> None:
        """The store is older than what was seen: it was restored. Its revisions are made to rise again."""
        if state.epoch > self._state.epoch:
            raised = state  # Another replica was here first.
        else:
            seen = self._state.offset + self._seen
            offset = max(state.offset, seen - header.revision) + (1 << 20)
            raised = _raised(state, offset, header)
            response = await self._wire.write(_state_request(self._layout, state, raised))
            if not response.succeeded:
                raise Unavailable("the etcd store has gone back, and another replica sees to it")
            raised = replace(raised, mod_revision=int(response.header.revision))
        logger.error("etcd-went-back epoch=%d seen=%d now=%d", raised.epoch, self._seen, header.revision)
        self._state = raised
        self._writer_mod = 0
        self._unsettled = None
        self._recent.clear()
        at = raised.mod_revision
        self._restart(at, at, raised.revision(at, 0))
        self._wake()

    def _step_back(self, revision: int) -> None:
        """Ends the watch, whose next beginning compares; what was read or written on the way counts for nothing."""
        if self._stream is not None:
            self._stream.cancel()
        raise Unavailable(f"the etcd store has gone back from revision {self._seen} to {revision}")

    def _gone(self) -> StorageError:
        return Unavailable(f"{self._wire.address.shown} is not the store that was opened")

    async def _net(self) -> None:
        """Makes the watch anew where it has gone silent although there is something to tell."""
        while True:
            await asyncio.sleep(NET_S)
            stream = self._stream
            try:
                answer = await self._range("", "", limit=1, narrow=True)
            except StorageError:
                continue
            await asyncio.sleep(NET_S)
            if stream is not None and stream is self._stream and self._seen < answer.batch_mod:
                logger.warning("etcd-watch-silent seen=%d head=%d", self._seen, answer.batch_mod)
                stream.cancel()

    def _wake(self, *, closing: bool = False) -> None:
        for arrived, mod_revision in list(self._waiting.items()):
            if arrived.done():
                continue
            if closing:
                arrived.set_exception(Unavailable("the store is closed"))
            elif self._seen >= mod_revision:
                arrived.set_result(None)


class _Shared:
    """A read that several wait for. Who comes after it has begun waits for the next one."""

    __slots__ = ("begun", "result")

    def __init__(self) -> None:
        self.begun = False
        self.result: asyncio.Future[int] = asyncio.get_running_loop().create_future()


def _committed(transaction: Transaction, state: State, mod_revision: int, start: int) -> Committed:
    first = state.revision(mod_revision, start)
    return Committed(range(first, first + len(transaction.ops)))


def _entry(layout: Layout, state: State, kv: Any) -> Entry:
    value, index = unwrapped(kv.value)
    return Entry(layout.named(kv.key), value, state.revision(kv.mod_revision, index))


def _hidden(drops: Drops, key: str, kv: Any) -> bool:
    return bool(drops) and drops.hides(key, written=kv.mod_revision, at=1 << 62)


def _touched(drops: Drops, prefix: str) -> bool:
    """Whether some drop is about the prefix."""
    return bool(drops) and (drops.within(prefix) or drops.floor(prefix, at=1 << 62) > 0)


def _narrowed(event: Event, prefix: str) -> Event | None:
    """The event as a watch of the prefix sees it, if it does."""
    if event.key.startswith(prefix):
        return event
    if event.dropped and prefix.startswith(event.key):
        return Event(event.revision, prefix, None, dropped=True)
    return None


def _raised(state: State, offset: int, header: Any) -> State:
    """The record of a new epoch. Nothing before it is history."""
    raised = replace(state, epoch=state.epoch + 1, offset=offset, etcd=header.cluster_id)
    return replace(raised, horizon=raised.revision(header.revision + 1, 0))


def _state_request(layout: Layout, state: State, changed: State) -> Any:
    return rpc.TxnRequest(
        compare=[writing.mod_is(layout.state, state.mod_revision)],
        success=[
            writing.put(layout.state, changed.encoded()),
            writing.put(layout.batch, BatchRecord(1).encoded()),
        ],
    )


async def connect(address: Address) -> EtcdBackend:
    """Opens the store, or makes it where there is none. Raises StoreOpenError."""
    wire = Wire(address)
    try:
        layout = Layout(address.root)
        try:
            answer = await _opened(wire, layout)
        except StoreOpenError:
            raise
        except (StorageError, Unsure) as error:
            raise StoreOpenError(f"{address.shown} cannot be opened: {error}") from error
        return EtcdBackend(wire, layout, answer)
    except BaseException:
        await wire.close()
        raise


async def _opened(wire: Wire, layout: Layout) -> _Answer:
    request = rpc.TxnRequest(
        success=[writing.get(layout.batch), writing.get(layout.batch), writing.get(layout.state)]
    )
    for _ in range(ATTEMPTS_MAX):
        response = await wire.read(request)
        found, batch, own = (answer.response_range for answer in response.responses)
        header = response.header
        if batch.kvs and own.kvs:
            state = State.decoded(own.kvs[0].value, own.kvs[0].mod_revision)
            if state.etcd == header.cluster_id:
                return _Answer(header.revision, state, batch.kvs[0], found)
            # A copy, or a backup, in another etcd: nobody knows how much newer revisions were given out.
            raised = _raised(state, state.offset + NEW_EPOCH_JUMP, header)
            made = await wire.write(_state_request(layout, state, raised))
        elif batch.kvs or own.kvs:
            raise StoreOpenError(f"{wire.address.shown} is damaged: restore it from a backup")
        else:
            new = State(secrets.token_hex(16), epoch=1, offset=0, horizon=0, etcd=header.cluster_id)
            new = replace(new, horizon=new.revision(header.revision + 1, 0))
            made = await wire.write(_state_request(layout, new, new))
        if not made.succeeded:
            await asyncio.sleep(0.05)
    raise Unavailable("other replicas open it again and again")
