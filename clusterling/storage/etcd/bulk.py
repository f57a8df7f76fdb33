"""A whole store in etcd at once.

Reading is at one revision of etcd's, which a compaction by those who serve the store may end after some minutes. etcd
gives revisions out by itself, so a copy's records get new ones, in the order of the old; `offset` puts them above all
that the source has given. While a copy is being made there is the key `a` and no record of the store's own; each step is
one transaction that holds only while `a` is as the step before left it: so a step whose answer was lost happens once,
and of two copies into one place the later one wins.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import orjson

from clusterling.storage.bulk import (
    COPIED_KEY,
    PAGE_BYTES,
    PAGE_RECORDS,
    Ailment,
    Figures,
    Finding,
    Record,
    Sorter,
)
from clusterling.storage.etcd import writing
from clusterling.storage.etcd.layout import (
    INDEX_BITS,
    BatchRecord,
    Layout,
    State,
    expiry_of,
    unwrapped,
    wrapped,
)
from clusterling.storage.etcd.messages import rpc
from clusterling.storage.etcd.reading import head_request, hidden
from clusterling.storage.etcd.wire import Address, NotSent, Unsure, Wire
from clusterling.storage.store import Compacted, Identity, Op, StorageError, StoreOpenError, Unavailable

STEP_OPERATIONS: Final = 120  # Of etcd's 128, with those that each step has of its own.
STEP_BYTES: Final = 1 << 20
SWEEP_KEYS: Final = 500
SETTLE_S: Final = 30.0
SPACE_PART_MAX: Final = 0.8  # Of etcd's own quota.
DEFRAGMENT_S: Final = 600.0  # For one member.
DELETED_S: Final = 60.0  # What a compaction leaves to the members to delete, at most.
POLL_S: Final = 0.1  # They delete a thousand keys at a time, and tell what they use about as often.
QUIET_POLLS: Final = 5

_NUMBERS: Final = struct.Struct(">QQB")  # Revision, when it expires, whether it does.


class EtcdSnapshot:
    """etcd at one revision."""

    def __init__(self, wire: Wire, layout: Layout, response: Any) -> None:
        _, batch, own = (answer.response_range.kvs for answer in response.responses)
        if not batch or not own:
            raise StoreOpenError(f"{wire.address.shown} has no store")
        self.address = wire.address.shown
        self._wire = wire
        self._layout = layout
        self._at: int = response.header.revision
        self._state = State.decoded(own[0].value, own[0].mod_revision)
        self._drops = self._state.dropping()
        self.identity = self._state.identity
        record = BatchRecord.decoded(batch[0].value)
        self.head = self._state.revision(batch[0].mod_revision, record.count - 1)

    async def served(self) -> bool | None:
        return None

    async def count(self) -> int:
        if not self._drops:
            start, end = self._layout.range("")
            found = await self._range(start, end, count_only=True)
            return int(found.count)
        count = 0
        async for page in self.by_key():
            count += len(page)
        return count

    async def by_key(self, prefix: str = "") -> AsyncIterator[Sequence[Record]]:
        start, end = self._layout.range(prefix)
        async with aclosing(self._kvs(start, end)) as pages:
            async for kvs in pages:
                page = [self._record(kv) for kv in kvs if _sound(kv) and not self._hidden(kv)]
                if page:
                    yield page

    async def by_revision(self) -> AsyncIterator[Sequence[Record]]:
        sorter = Sorter()
        try:
            async for page in self.by_key():
                for record in page:
                    sorter.add(_packed(record))
            kept: list[Record] = []
            size = 0
            for item in sorter:
                record = _unpacked(item)
                kept.append(record)
                size += len(record.value)
                if len(kept) == PAGE_RECORDS or size >= PAGE_BYTES:
                    yield kept
                    kept, size = [], 0
            if kept:
                yield kept
        finally:
            sorter.close()

    async def findings(self) -> AsyncIterator[Finding]:
        state = self._state
        if state.horizon > self.head + (1 << INDEX_BITS):
            yield Finding("c", "counters", f"the horizon {state.horizon} is beyond the head {self.head}")
        async for finding in self._strangers():
            yield finding
        revisions, filed, expiring = Sorter(), Sorter(), Sorter()
        try:
            start, end = self._layout.range("")
            async with aclosing(self._kvs(start, end)) as pages:
                async for kvs in pages:
                    for kv in kvs:
                        if not _sound(kv):
                            name = kv.key[len(self._layout.data) :].decode("utf-8", "backslashreplace")
                            yield Finding(name, "envelope", "key or value are not as this store writes them")
                        elif not self._hidden(kv):
                            record = self._record(kv)
                            revisions.add(record.revision.to_bytes(8, "big"))
                            if record.expires_at is not None:
                                expiring.add(_due(record.expires_at, record.key))
            async for at, key in self._filed():
                filed.add(_due(at, key))
            last = b""
            for revision in revisions:
                if revision == last:
                    number = int.from_bytes(revision, "big")
                    yield Finding(str(number), "revision-twice", "two keys have this revision")
                last = revision
            for missing in _missing(expiring, filed):
                yield Finding(
                    missing[8:].decode(), "expiry-not-filed", "it expires, and nobody would look for it"
                )
        finally:
            for sorter in (revisions, filed, expiring):
                sorter.close()

    async def clock(self) -> float | None:
        return None

    async def figures(self) -> Figures:
        statuses = (await self._wire.statuses()).values()
        if not statuses:
            raise Unavailable(f"{self.address} does not answer")
        disk = max(int(status.dbSize) for status in statuses)
        used = max(int(status.dbSizeInUse) for status in statuses)
        return Figures(self._state.horizon, None, disk, max(0, disk - used))

    async def ailing(self) -> Sequence[Ailment]:
        statuses = await self._wire.statuses()
        silent = [one for one in self._wire.address.endpoints if one not in statuses]
        found = [Ailment(f"{one} does not answer", stops_writes=False) for one in silent]
        for endpoint, status in statuses.items():
            found += [
                Ailment(f"{endpoint}: {error}", stops_writes="NOSPACE" in error) for error in status.errors
            ]
            quota = int(status.dbSizeQuota)  # Of etcd 3.6 and later.
            if quota and status.dbSize > SPACE_PART_MAX * quota:
                part = f"{100 * status.dbSize / quota:.0f} % of the {quota >> 20} MiB that it may have"
                found.append(Ailment(f"{endpoint} has used {part}", stops_writes=False))
        return found

    async def _strangers(self) -> AsyncIterator[Finding]:
        """What is under the root and nothing of ours."""
        layout = self._layout
        ours = (layout.copying, layout.batch, layout.state)
        after, last = layout.root, b""
        for prefix in (*ours, layout.data, layout.writers, layout.expiries):
            found = await self._range(after, prefix, limit=PAGE_RECORDS, keys_only=True)
            for kv in found.kvs:
                if kv.key != last:
                    yield Finding(
                        kv.key.decode("utf-8", "backslashreplace"), "stranger", "no key of this store's"
                    )
            last = prefix
            after = prefix + b"\0" if prefix in ours else prefix[:-1] + b"0"
        found = await self._range(after, layout.root[:-1] + b"0", limit=PAGE_RECORDS, keys_only=True)
        for kv in found.kvs:
            yield Finding(kv.key.decode("utf-8", "backslashreplace"), "stranger", "no key of this store's")

    async def _filed(self) -> AsyncIterator[tuple[int, str]]:
        """The keys on record as expiring, and when."""
        start = self._layout.expiries
        async with aclosing(self._kvs(start, start[:-1] + b"0")) as pages:
            async for kvs in pages:
                for kv in kvs:
                    at = int(kv.key[len(start) :].partition(b"/")[0], 16)
                    for key in orjson.loads(kv.value):
                        yield at, key

    def _record(self, kv: Any) -> Record:
        value, index = unwrapped(kv.value)
        revision = self._state.revision(kv.mod_revision, index)
        return Record(self._layout.named(kv.key), revision, expiry_of(kv.value), value)

    def _hidden(self, kv: Any) -> bool:
        return hidden(self._drops, self._layout.named(kv.key), kv)

    async def _kvs(self, start: bytes, end: bytes) -> AsyncGenerator[Sequence[Any], None]:
        size = 100
        while True:
            found = await self._range(start, end, limit=size)
            if found.kvs:
                yield found.kvs
            if not found.more:
                return
            bulk = sum(len(kv.value) for kv in found.kvs)
            size = max(10, min(PAGE_RECORDS, len(found.kvs) * PAGE_BYTES // max(bulk, 1)))
            start = found.kvs[-1].key + b"\0"

    async def _range(self, start: bytes, end: bytes, **options: Any) -> Any:
        asked = rpc.RangeRequest(key=start, range_end=end, revision=self._at, **options)
        request = rpc.TxnRequest(success=[rpc.RequestOp(request_range=asked)])
        try:
            return (await self._wire.read(request)).responses[0].response_range
        except Compacted as error:
            raise Unavailable(
                f"{self.address} has forgotten the state that was being read: stop its servers, or begin again"
            ) from error


class EtcdVessel:
    """A root under which there is no store."""

    keeps_revisions = False

    def __init__(self, wire: Wire, layout: Layout) -> None:
        self.address = wire.address.shown
        self._wire = wire
        self._layout = layout
        self._token = secrets.token_hex(8)
        self._step = 0
        self._mod = 0  # etcd's revision at which `a` is as this copy left it.
        self._offset = 0
        self._cluster = 0

    async def begin(self, floor: int) -> None:
        layout = self._layout
        await self._take_over()
        for first, end in ((layout.data, b"d0"), (layout.writers, b"w0"), (layout.expiries, b"x0")):
            await self._clear(first, layout.root + end)
        self._offset = max(0, (floor >> INDEX_BITS) + 1 - self._mod)

    async def put(self, records: Sequence[Record]) -> None:
        ops: list[Op] = []
        size = 0
        times: set[int] = set()
        for record in records:
            weight = len(record.key) + len(record.value) + 32
            expiring = times | ({record.expires_at} if record.expires_at is not None else set())
            if ops and (size + weight > STEP_BYTES or len(ops) + len(expiring) >= STEP_OPERATIONS):
                await self._put(ops)
                ops, size = [], 0
                expiring = {record.expires_at} if record.expires_at is not None else set()
            times = expiring
            size += weight
            ops.append(Op(record.key, record.value, None, record.expires_at))
        if ops:
            await self._put(ops)

    async def contents(self) -> AsyncIterator[Sequence[Record]]:
        start, end = self._layout.range("")
        size = 100
        while True:
            asked = rpc.RangeRequest(key=start, range_end=end, limit=size, revision=self._mod)
            request = rpc.TxnRequest(success=[rpc.RequestOp(request_range=asked)])
            found = (await self._wire.read(request)).responses[0].response_range
            page = []
            for kv in found.kvs:
                value, _ = unwrapped(kv.value)
                page.append(Record(self._layout.named(kv.key), 0, expiry_of(kv.value), value))
            if page:
                yield page
            if not found.more:
                return
            bulk = sum(len(record.value) for record in page)
            size = max(10, min(PAGE_RECORDS, len(page) * PAGE_BYTES // max(bulk, 1)))
            start = found.kvs[-1].key + b"\0"

    async def finish(self, identity: Identity, mark: bytes) -> int:
        layout = self._layout
        state = State(identity.id, identity.epoch, self._offset, 0, self._cluster)
        state = replace(state, horizon=state.revision(self._mod + 1, 0))
        mod_revision = await self._do(
            [
                writing.put(layout.state, state.encoded()),
                writing.put(layout.batch, BatchRecord(secrets.token_hex(8), 1).encoded()),
                writing.put(layout.key(COPIED_KEY), wrapped(mark, 0, None)),
            ],
            last=True,
        )
        return state.revision(mod_revision, 0)

    async def _put(self, ops: Sequence[Op]) -> None:
        await self._do(writing.changes(self._layout, ops, 0, f"{self._token}-{self._step:x}"))

    async def _take_over(self) -> None:
        """Marks the root as being copied into, whoever has left it so before. Raises StoreOpenError."""
        layout = self._layout
        request = rpc.TxnRequest(
            compare=[writing.mod_is(layout.state, 0), writing.mod_is(layout.batch, 0)],
            success=[writing.put(layout.copying, self._mark())],
        )
        # Where an answer was lost this is done again; what then comes late ends this copy, as another's would.
        response = await self._answer(request)
        if not response.succeeded:
            raise StoreOpenError(f"{self.address} is not empty: choose another root, as in …/another")
        self._mod, self._cluster = response.header.revision, response.header.cluster_id

    async def _clear(self, first: bytes, end: bytes) -> None:
        while True:
            asked = rpc.RangeRequest(key=first, range_end=end, limit=SWEEP_KEYS, keys_only=True)
            request = rpc.TxnRequest(success=[rpc.RequestOp(request_range=asked)])
            found = (await self._wire.read(request)).responses[0].response_range
            if not found.kvs:
                return
            await self._do([writing.delete(found.kvs[0].key, found.kvs[-1].key + b"\0")])

    async def _do(self, operations: Sequence[Any], *, last: bool = False) -> int:
        """One step; etcd's revision. What was lost on the way is asked after, and sent again where it did not happen."""
        layout = self._layout
        self._step += 1
        mark = self._mark()
        own = writing.delete(layout.copying) if last else writing.put(layout.copying, mark)
        request = rpc.TxnRequest(
            compare=[writing.mod_is(layout.copying, self._mod), writing.mod_is(layout.state, 0)],
            success=[own, *operations],
            failure=[writing.get(layout.copying), writing.get(layout.state)],
        )
        response = await self._answer(request)
        if response.succeeded:
            self._mod = int(response.header.revision)
            return self._mod
        found, state = (answer.response_range.kvs for answer in response.responses)
        if found and found[0].value == mark:  # It had happened, and its answer was lost.
            self._mod = int(found[0].mod_revision)
            return self._mod
        if last and not found and state and state[0].value == operations[0].request_put.value:
            return int(state[0].mod_revision)
        raise Unavailable(f"{self.address} is being filled by somebody else: this copy is given up")

    async def _answer(self, request: Any) -> Any:
        """Sends until there is an answer: the request must be one that may arrive more than once."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SETTLE_S
        while True:
            try:
                return await self._wire.write(request)
            except (Unsure, NotSent) as error:
                if loop.time() > deadline:
                    raise Unavailable(f"{self.address} does not answer: make the copy again") from error
                await asyncio.sleep(0.1)

    def _mark(self) -> bytes:
        return f"{self._token} {self._step}".encode()


def _sound(kv: Any) -> bool:
    """Whether the key is a text, and the value has an envelope of this store's."""
    kept = kv.value
    try:
        kv.key.decode()
    except UnicodeDecodeError:
        return False
    return len(kept) >= 3 and kept[0] == 0x05 and (kept[2] == 0 or (kept[2] == 1 and len(kept) >= 11))


def _due(at: int, key: str) -> bytes:
    return at.to_bytes(8, "big") + key.encode()


def _missing(wanted: Sorter, there: Sorter) -> Sequence[bytes]:
    """What is in the first and not in the second; a few of them."""
    found: list[bytes] = []
    second = iter(there)
    at = next(second, None)
    for item in wanted:
        while at is not None and at < item:
            at = next(second, None)
        if at != item:
            found.append(item)
            if len(found) == 100:
                break
    return found


def _packed(record: Record) -> bytes:
    key = record.key.encode()
    numbers = _NUMBERS.pack(record.revision, record.expires_at or 0, record.expires_at is not None)
    return numbers + len(key).to_bytes(4, "big") + key + record.value


def _unpacked(item: bytes) -> Record:
    revision, expires_at, expires = _NUMBERS.unpack_from(item)
    start = _NUMBERS.size + 4
    end = start + int.from_bytes(item[start - 4 : start], "big")
    return Record(item[start:end].decode(), revision, expires_at if expires else None, item[end:])


@asynccontextmanager
async def snapshot(url: str, *, password: str | None = None) -> AsyncIterator[EtcdSnapshot]:
    wire, layout = _wire(url, password)
    try:
        try:
            made = EtcdSnapshot(wire, layout, await wire.read(head_request(layout)))
        except StoreOpenError:
            raise
        except StorageError as error:
            raise StoreOpenError(f"{wire.address.shown} cannot be read: {error}") from error
        yield made
    finally:
        await wire.close()


@asynccontextmanager
async def vessel(url: str, *, password: str | None = None) -> AsyncIterator[EtcdVessel]:
    wire, layout = _wire(url, password)
    try:
        try:
            response = await wire.read(head_request(layout))
        except StorageError as error:
            raise StoreOpenError(f"{wire.address.shown} cannot be opened: {error}") from error
        _, batch, own = (answer.response_range.kvs for answer in response.responses)
        if batch or own:
            raise StoreOpenError(f"{wire.address.shown} is not empty: choose another root, as in …/another")
        yield EtcdVessel(wire, layout)
    finally:
        await wire.close()


async def reclaim(url: str, *, password: str | None = None) -> None:
    """Defragments one member after the other, once they have deleted what was compacted: they answer before that."""
    wire, _ = _wire(url, password)
    try:
        await _deleted(wire)
        await wire.defragment(DEFRAGMENT_S)
    finally:
        await wire.close()


async def _deleted(wire: Wire) -> None:
    """Returns when no member's use has fallen for `QUIET_POLLS` looks in a row, or it has taken too long."""
    loop = asyncio.get_running_loop()
    until = loop.time() + DELETED_S
    used: dict[str, int] = {}
    quiet = 0
    while quiet < QUIET_POLLS and loop.time() < until:
        now = {endpoint: int(status.dbSizeInUse) for endpoint, status in (await wire.statuses()).items()}
        fell = any(size < used.get(endpoint, size) for endpoint, size in now.items())
        quiet = 0 if fell else quiet + 1
        used |= now
        await asyncio.sleep(POLL_S)


def _wire(url: str, password: str | None) -> tuple[Wire, Layout]:
    address = Address.parsed(url, password=password)
    return Wire(address), Layout(address.root)
