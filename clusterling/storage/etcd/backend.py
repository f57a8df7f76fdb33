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

Rules of this file: what is known (`Known`) changes only in `_take` (what the watch says), `_begin_anew` (a gap) and where
a read shows that nothing has happened; there is no await inside any of them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from clusterling.storage.backend import Committed, Doubt, Lost, Sink, Transaction, refusal
from clusterling.storage.etcd import writing
from clusterling.storage.etcd.following import Decoder, Step, watch_request
from clusterling.storage.etcd.lately import NOTHING_TOLD, Told
from clusterling.storage.etcd.layout import (
    BatchRecord,
    Layout,
    State,
)
from clusterling.storage.etcd.ledger import Bounds, Ledger
from clusterling.storage.etcd.messages import rpc
from clusterling.storage.etcd.reading import Answer, Known, Reads, head_request, hidden
from clusterling.storage.etcd.wire import Address, Denied, Full, NotSent, Unsure, Wire
from clusterling.storage.etcd.writing import Footing
from clusterling.storage.others import OTHERS
from clusterling.storage.store import (
    ABSENT,
    Event,
    Guard,
    GuardFailed,
    Identity,
    RevisionConflict,
    StorageError,
    StoreOpenError,
    Unavailable,
    UnknownOutcome,
    Usage,
)

logger = logging.getLogger(__name__)

PAGE_ENTRIES: Final = 1000  # Of one answer; fewer where values are large.
PAGE_BYTES: Final = 4 << 20
ATTEMPTS_MAX: Final = 10  # Of a write whose footing moved under it,
ATTEMPTS_AT_LIMIT_MAX: Final = (
    50  # and of one for which there is so little room that others must not write meanwhile.
)
SEND_S: Final = 3.0  # How long an endpoint is looked for that takes a batch.
SETTLE_S: Final = 10.0  # How long a batch whose answer was lost is asked about.
ARRIVE_S: Final = 10.0  # How long a batch may take to come back in the watch.
NET_S: Final = 2.0  # A watch that is this far behind what a read has seen is made anew.
PAUSE_MAX_S: Final = 1.0  # Between attempts to watch.
SWEEP_KEYS: Final = 500  # Deleted in one step.
REMEMBERED_BATCHES: Final = 256
EXPIRED_PAGE: Final = 200
COPY_JUMP: Final = 1 << 30  # Revisions that nobody can have seen where a backup of unknown age came back,
EPOCH_JUMP: Final = 1 << 20  # and where it is known what this process had seen: others saw a little more.


class EtcdBackend:
    """Made by `connect`."""

    def __init__(self, wire: Wire, layout: Layout, answer: Answer) -> None:
        self._wire = wire
        self._layout = layout
        self._known = Known(answer.state, answer.revision, answer.batch_mod, answer.name, answer.last)
        self._reads = reads = Reads(wire, layout, self._known, self._step_back)
        self._writer = layout.writer(secrets.token_hex(8))
        self._writer_mod = 0
        self._unsettled: bytes | None = None
        self._doubt = Doubt()
        self._sent = ""  # The name of the last batch of this process's own.
        self._others = 1  # How often others were seen to write.
        self._told = Told()
        self._ledger = Ledger(reads)
        self._together = True  # Until a batch has a write that is refused, and after one that has none.
        self._sink: Sink = lambda _events, _revision: None
        self._lost: Lost = lambda _revision: None
        self._recent: OrderedDict[int, frozenset[int]] = OrderedDict()  # Revisions told, by etcd's.
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._listening: asyncio.Task[None] | None = None
        self._streaming = False
        self._sweeping = asyncio.Lock()
        self._dropped = asyncio.Event()
        if answer.state.drops:
            self._dropped.set()
        self.get = reads.get
        self.list = reads.list
        self.count = reads.count
        self.changes = reads.changes
        self.expired = reads.expired
        self.fresh = reads.fresh
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
        return self._known.head

    async def identity(self) -> Identity:
        return self._known.state.identity

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

    async def usage(self, prefix: str) -> Sequence[Usage]:
        await self._come(await self._reads.latest())
        return await self._ledger.usage(prefix)

    # Writing.

    def others(self) -> int:
        """As in `others.py`. What cannot be told from writes of others counts as some: drops, gaps, epochs."""
        return self._others

    async def commit(self, transactions: Sequence[Transaction]) -> Sequence[Committed | StorageError]:
        outcomes: list[Committed | StorageError] = []
        told = self._told.among(transactions)
        for group in writing.groups(transactions, told):
            part = [transactions[position] for position in group]
            try:
                outcomes += await self._doubt.settled(self._commit(part, told))
            except StorageError as error:
                if not outcomes:
                    raise
                outcomes += [type(error)(*error.args)] * (len(transactions) - len(outcomes))
                break
        return outcomes

    async def _commit(
        self, whole: Sequence[Transaction], told: Mapping[str, int]
    ) -> Sequence[Committed | StorageError]:
        """Of transactions that fit, or of one that does not."""
        part, counts = zip(*map(writing.parted, whole), strict=True)
        bounds = Bounds(self._ledger, self._reads, part) if any(one.limits for one in part) else None
        for _ in range(ATTEMPTS_MAX if bounds is None else ATTEMPTS_AT_LIMIT_MAX):
            if bounds is not None:
                await bounds.prepare(self._come)
            footing = await self._footing(told)
            # What others have written is looked at here; that they write nothing until the commit is compared in it.
            if any(count and count != self._others for count in counts):
                stands = [count in {0, self._others} for count in counts]
                return await self._commit_rest(
                    whole, [None if holds else GuardFailed(OTHERS) for holds in stands], told
                )
            if bounds is not None:
                if not bounds.judge():
                    continue
                if any(bounds.refusals):
                    return await self._commit_rest(whole, bounds.refusals, told)
                footing = replace(footing, within=bounds.batches)
            if any(counts):
                footing = replace(footing, alone=True)
            if not writing.fits(part[0], told):
                return [await self._commit_exactly(part[0], counts[0])]
            together = len(part) > 1 and self._together
            batch = (writing.together if together else writing.apart)(self._layout, footing, part)
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
                if together and footing.holds(response):
                    self._together = False
                else:
                    await self._regain(footing, response)
                if bounds is not None:
                    bounds.disturbed()
                continue
            if together:
                await self._written(footing, mod_revision)
                return [
                    _committed(transaction, footing.state, mod_revision, start)
                    for transaction, start in zip(part, batch.starts, strict=True)
                ]
            return await self._outcomes(footing, batch, response, part, counts)
        raise Unavailable("the etcd store changes too fast to write to")

    async def _outcomes(
        self,
        footing: Footing,
        batch: writing.Batch,
        response: Any,
        part: Sequence[Transaction],
        counts: Sequence[int],
    ) -> Sequence[Committed | StorageError]:
        """What became of each transaction of a batch that was tried apart."""
        mod_revision: int = response.header.revision
        nested = [answer.response_txn for answer in response.responses[-len(part) :]]
        if any(answer.succeeded for answer in nested) or len(part) > 1:
            await self._written(footing, mod_revision)
        outcomes: list[Committed | StorageError] = []
        for transaction, count, answer, start, asked in zip(
            part, counts, nested, batch.starts, batch.questions, strict=True
        ):
            if answer.succeeded:
                outcomes.append(_committed(transaction, footing.state, mod_revision, start))
                continue
            refused = writing.refused_by(
                self._layout, footing.state, transaction, asked, writing.mods_found(answer)
            )
            outcomes.append(refused or await self._commit_exactly(transaction, count))
        self._together = all(answer.succeeded for answer in nested)
        return outcomes

    async def _commit_rest(
        self,
        whole: Sequence[Transaction],
        refusals: Sequence[StorageError | None],
        told: Mapping[str, int],
    ) -> Sequence[Committed | StorageError]:
        """Commits those that are not refused."""
        rest = [one for one, refused in zip(whole, refusals, strict=True) if refused is None]
        outcomes = iter(await self._commit(rest, told) if rest else ())
        return [next(outcomes) if refused is None else refused for refused in refusals]

    async def _commit_exactly(self, transaction: Transaction, count: int) -> Committed | StorageError:
        """Looks at everything that the transaction depends on, then writes if no batch came in between.

        What depends on a count of others' writes is refused: it is rare, and looks again.
        """
        if count:
            return GuardFailed(OTHERS)
        keys = list(
            dict.fromkeys([*(op.key for op in transaction.ops), *(g.key for g in transaction.guards)])
        )
        for _ in range(ATTEMPTS_MAX):
            footing = await self._footing()
            answer = await self._reads.latest()
            revisions = await self._reads.revisions(keys, answer)
            refused = refusal(transaction, lambda key, at=revisions: at.get(key, ABSENT))  # type: ignore[misc]
            if refused is not None:
                return refused
            if transaction.limits:
                bounds = Bounds(self._ledger, self._reads, (transaction,), exact=True)
                await bounds.prepare(self._come)
                await self._come(answer)
                if not bounds.judge() or self._known.batch != answer.batch_mod:
                    continue
                if bounds.refusals[0] is not None:
                    return bounds.refusals[0]
            if answer.state.mod_revision != footing.state.mod_revision:
                await self._arrived(answer.state.mod_revision)
                continue
            batch = writing.exact(self._layout, footing, transaction, answer.batch_mod)
            sent = await self._send(batch)
            if sent is None:
                continue
            mod_revision, response = sent
            if response is None or response.succeeded:
                await self._written(footing, mod_revision)
                return _committed(transaction, footing.state, mod_revision, 0)
            await self._regain(footing, response)
        raise Unavailable("the etcd store changes too fast for a large write")

    async def _written(self, footing: Footing, mod_revision: int) -> None:
        """Returns when the watch has brought the batch. Raises UnknownOutcome where that was in a new epoch, in which what
        was written has another revision."""
        self._writer_mod = mod_revision
        await self._arrived(mod_revision)
        if self._known.state.epoch != footing.state.epoch:
            raise UnknownOutcome("written while the etcd store was found to have gone back")

    async def _footing(self, told: Mapping[str, int] = NOTHING_TOLD) -> Footing:
        if self._unsettled is not None:
            await self._settle(self._unsettled)
        return Footing(self._known.state, self._writer, self._writer_mod, self._known.batch, told=told)

    async def _send(self, batch: writing.Batch) -> tuple[int, Any] | None:
        """etcd's revision and its answer; no answer where it was lost, but the batch happened; None where it did not.

        What certainly never left is sent again; nothing else ever is.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + SEND_S
        self._sent = batch.name.hex()
        while True:
            try:
                response = await self._wire.write(batch.request)
            except NotSent:
                if loop.time() > deadline:
                    raise
                await asyncio.sleep(0.1)
            except Unsure as unsure:
                return await self._found(batch, unsure)
            except Full as full:
                return await self._found_full(batch, full)
            except asyncio.CancelledError:
                self._unsettled = batch.name
                raise
            else:
                return response.header.revision, response

    async def _found(self, batch: writing.Batch, unsure: Unsure) -> tuple[int, None] | None:
        """What became of a batch whose answer was lost. Raises UnknownOutcome where that cannot be learnt."""
        logger.warning("etcd-answer-lost error=%s", unsure)
        self._unsettled = batch.name
        mod_revision = await self._settle(batch.name)
        if mod_revision is None:
            self._doubt.felt = True
            return None
        await self._arrived(mod_revision)
        return mod_revision, None

    async def _found_full(self, batch: writing.Batch, full: Full) -> tuple[int, None]:
        """A batch that etcd answered with having no space has happened or never will: its record says which."""
        request = rpc.TxnRequest(success=[writing.get(self._writer)])
        try:
            kvs = (await self._wire.read(request)).responses[0].response_range.kvs
        except StorageError as error:
            self._unsettled = batch.name
            raise UnknownOutcome(f"etcd is out of space, and asking again failed: {error}") from error
        if not kvs or kvs[0].value != batch.name:
            raise full
        self._writer_mod = kvs[0].mod_revision
        await self._arrived(self._writer_mod)
        return self._writer_mod, None

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
        answer = await self._reads.latest()
        keys = [*(op.key for op in transaction.ops), *(guard.key for guard in transaction.guards)]
        revisions = await self._reads.revisions(list(dict.fromkeys(keys)), answer)
        refused = refusal(transaction, lambda key: revisions.get(key, ABSENT))
        return refused or RevisionConflict(transaction.ops[0].key)

    async def _regain(self, footing: Footing, response: Any) -> None:
        """Learns what was not as believed, so that the next attempt stands on it. Nothing was written."""
        own, writer, batch = (answer.response_range.kvs for answer in response.responses)
        if not batch or not own or batch[0].mod_revision < footing.seen:
            self._step_back(response.header.revision)
        self._reads.stated(own)
        self._writer_mod = writer[0].mod_revision if writer else 0
        # Who must be alone looks again when what others have written has been told.
        last = footing.alone or footing.within is not None
        await self._arrived(max(own[0].mod_revision, batch[0].mod_revision if last else 0))

    async def _come(self, answer: Answer) -> None:
        """Returns when the watch has come as far as what was read. Raises Unavailable."""
        try:
            await self._arrived(answer.batch_mod)
        except UnknownOutcome as error:
            raise Unavailable("the etcd store's watch is behind") from error

    async def _arrived(self, mod_revision: int) -> None:
        """Returns when the watch has come as far as etcd's revision."""
        if self._known.seen >= mod_revision:
            return
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

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        layout = self._layout
        guarding = Transaction((), guards)
        for _ in range(ATTEMPTS_MAX):
            footing = await self._footing()
            if guards:
                # What they are at is told apart here; that they still are is compared in the change itself.
                answer = await self._reads.latest()
                revisions = await self._reads.revisions([guard.key for guard in guards], answer)
                if refused := refusal(guarding, lambda key, at=revisions: at.get(key, ABSENT)):  # type: ignore[misc]
                    raise refused
            if not await self._any(prefix):
                return
            record = BatchRecord(secrets.token_hex(8), 1, dropped=prefix)
            changed = footing.state.with_drop(prefix)
            outcome = await self._change_state(
                footing.state,
                changed,
                [writing.put(layout.batch, record.encoded())],
                writing.Terms(layout, footing.state, NOTHING_TOLD).of(guarding)[0],
            )
            if outcome is not None:
                self._dropped.set()
                await self._arrived(outcome)
                return
        raise Unavailable("the etcd store changes too fast to drop a range")

    async def compact(self, horizon: int) -> None:
        for _ in range(ATTEMPTS_MAX):
            state = (await self._footing()).state
            horizon = min(horizon, self._known.head)
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
        state = await self._reads.record()
        oldest = state.mod_of(state.horizon) - 1
        if oldest > 0:
            await self._forget_writers(oldest)
            try:
                await self._wire.compact(oldest)
            except Denied as error:
                # Nobody can ask for that history any more; only its space stays.
                logger.warning("etcd-compaction-denied error=%s", error)

    async def _change_state(
        self, state: State, changed: State, operations: Sequence[Any] = (), conditions: Sequence[Any] = ()
    ) -> int | None:
        """Rewrites the store's own record if it is what it was; etcd's revision, or None if it was not."""
        request = rpc.TxnRequest(
            compare=[
                writing.mod_is(self._layout.state, state.mod_revision),
                *conditions,
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
            page = await self._reads.range(prefix, after, limit=PAGE_ENTRIES, keys_only=True, at=at)
            drops = page.state.dropping()
            names = [self._layout.named(kv.key) for kv in page.kvs]
            if any(not hidden(drops, name, kv) for name, kv in zip(names, page.kvs, strict=True)):
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
            state = await self._reads.record()
            for prefix, at in state.drops:
                await self._sweep_range(prefix, at)
            swept = state.drops
            while any(drop in swept for drop in state.drops):
                outcome = await self._change_state(state, state.without(swept))
                if outcome is not None:
                    await self._arrived(outcome)
                    return
                state = await self._reads.record()

    async def _sweep_range(self, prefix: str, dropped_at: int) -> None:
        """Deletes keys in steps; one written after the drop stays, whenever it comes."""
        after = ""
        while True:
            page = await self._reads.range(prefix, after, limit=SWEEP_KEYS, keys_only=True)
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
        for kv in (await self._reads.ask(request)).responses[0].response_range.kvs:
            if kv.mod_revision < oldest and kv.key != self._writer:
                await self._write_quietly([writing.mod_is(kv.key, kv.mod_revision)], [writing.delete(kv.key)])

    # Following.

    async def _follow(self) -> None:
        """Keeps watching until cancelled. Each watch is a task of its own: cancelling that is what always ends it."""
        pause = 0.0
        while True:
            before = self._known.seen
            listening = self._listening = asyncio.get_running_loop().create_task(
                self._listen(), name="etcd stream"
            )
            try:
                await asyncio.wait({listening})
            finally:
                listening.cancel()
                await asyncio.wait({listening})
            error = None if listening.cancelled() else listening.exception()
            if isinstance(error, StorageError | Unsure):
                logger.warning("etcd-watch-later error=%s", error)
            elif error is not None:
                logger.warning("etcd-watch-broken error=%r", error)
            pause = 0.0 if self._known.seen > before else min(max(pause * 2, 0.05), PAUSE_MAX_S)
            await asyncio.sleep(pause)

    async def _listen(self) -> None:
        """Watches from where the last watch ended until something breaks."""
        await self._compare()
        watch = await self._wire.watch(watch_request(self._layout, self._known.seen + 1))
        self._streaming = True
        try:
            decoder = Decoder(self._layout, self._known.state)
            while (response := await watch.read()) is not None:
                if response.compact_revision:
                    await self._leap()
                    return
                if response.canceled:
                    logger.warning("etcd-watch-cancelled reason=%s", response.cancel_reason)
                    return
                self._take([*decoder.feed(response)])
        finally:
            self._streaming = False
            watch.cancel()
            self._wire.broken(watch)

    def _take(self, steps: Sequence[Step]) -> None:
        """Tells what happened."""
        events: list[Event] = []
        for step in steps:
            if step.state is not None:
                if step.state.epoch != self._known.state.epoch:
                    self._known.state = step.state
                    self._restart(step.mod_revision, step.mod_revision, step.name, step.revision)
                    events.clear()
                    continue
                self._known.state = step.state
            self._known.seen = step.mod_revision
            if step.revision:
                if step.name != self._sent:
                    self._others += 1
                events += step.events
                self._told.hear(step.events)
                self._ledger.hear(step.events)
                self._known.batch = step.mod_revision
                self._known.name = step.name
                self._known.head = step.revision
                self._recent[step.mod_revision] = frozenset(event.revision for event in step.events)
                if len(self._recent) > REMEMBERED_BATCHES:
                    self._recent.popitem(last=False)
        if steps and self._known.head:
            self._sink(events, self._known.head)
        self._wake()

    def _restart(self, seen: int, batch: int, name: str, head: int) -> None:
        """Goes on at a later point, or in a later epoch: what was in between, nobody can tell."""
        known = self._known
        known.seen, known.batch, known.name, known.head = seen, batch, name, max(known.head, head)
        self._others += 1
        self._told.forget()
        self._ledger.forget()
        logger.warning("etcd-gap revision=%d epoch=%d", known.head, known.state.epoch)
        self._lost(known.head)

    async def _leap(self) -> None:
        """History has been compacted beyond what was seen. If nothing was written in between, nothing is lost."""
        answer = await self._reads.latest()
        if answer.batch_mod <= self._known.seen:
            self._known.seen = answer.revision
            self._wake()
        else:
            self._begin_anew(answer)

    async def _compare(self) -> None:
        """Whether the store that answers has the history that was seen; if not, goes on with the one it has."""
        known = self._known
        for _ in range(ATTEMPTS_MAX):
            answer = await self._reads.first_answer()
            if answer.state.epoch > known.state.epoch:
                self._begin_anew(answer)  # Another replica saw that it had gone back.
                return
            if answer.revision >= known.seen and await self._reads.has_seen_batch():
                return
            if await self._raise_epoch(answer):
                self._begin_anew(await self._reads.first_answer())
                return
        raise Unavailable("the etcd store has gone back, and another replica sees to it")

    async def _raise_epoch(self, answer: Answer) -> bool:
        """The store was restored from a backup. Its revisions are made to rise above all that were given out.

        False: the answer is no longer what the store would say, or was given before it was put back.
        """
        known = self._known
        newest = known.state.offset + known.seen
        offset = max(answer.state.offset, newest - answer.revision) + EPOCH_JUMP
        # The backup may be older than epochs that were: none is given twice.
        epoch = max(answer.state.epoch, known.state.epoch) + 1
        raised = raised_epoch(answer.state, epoch, offset, answer.cluster, answer.batch_mod)
        response = await self._wire.write(state_request(self._layout, answer.state, raised, answer.batch_mod))
        if response.succeeded:
            logger.error("etcd-went-back epoch=%d seen=%d now=%d", epoch, known.seen, answer.revision)
            known.state = replace(raised, mod_revision=int(response.header.revision))
        return bool(response.succeeded)

    def _begin_anew(self, answer: Answer) -> None:
        known = self._known
        known.state = answer.state
        self._recent.clear()
        self._restart(answer.revision, answer.batch_mod, answer.name, answer.last)
        self._wake()

    def _step_back(self, revision: int) -> None:
        """Ends the watch, whose next beginning compares; what was read or written on the way counts for nothing."""
        self._sever()
        raise Unavailable(f"the etcd store has gone back from revision {self._known.seen} to {revision}")

    def _sever(self) -> None:
        """Ends the watch, but not what comes before it: a comparison that is under way is what is wanted."""
        if self._listening is not None and self._streaming:
            self._listening.cancel()

    async def _net(self) -> None:
        """Makes the watch anew where it has gone silent although there is something to tell."""
        while True:
            await asyncio.sleep(NET_S)
            listening = self._listening
            try:
                answer = await self._reads.latest()
            except StorageError:
                continue
            await asyncio.sleep(NET_S)
            if listening is self._listening and self._known.seen < answer.batch_mod:
                logger.warning("etcd-watch-silent seen=%d head=%d", self._known.seen, answer.batch_mod)
                self._sever()

    def _wake(self, *, closing: bool = False) -> None:
        for arrived, mod_revision in list(self._waiting.items()):
            if arrived.done():
                continue
            if closing:
                arrived.set_exception(Unavailable("the store is closed"))
            elif self._known.seen >= mod_revision:
                arrived.set_result(None)


def _committed(transaction: Transaction, state: State, mod_revision: int, start: int) -> Committed:
    first = state.revision(mod_revision, start)
    return Committed(range(first, first + len(transaction.ops)))


def raised_epoch(state: State, epoch: int, offset: int, cluster: int, batch_mod: int) -> State:
    """The record of a new epoch, after the batch at that revision of etcd's. Nothing before it is history."""
    raised = replace(state, epoch=epoch, offset=offset, etcd=cluster)
    return replace(raised, horizon=raised.revision(batch_mod + 1, 0))


def state_request(layout: Layout, state: State, changed: State, batch_mod: int) -> Any:
    """Rewrites the record, as a batch of no writes, if it is what it was, and so is the last batch.

    The record alone does not tell a backup from what was there before it.
    """
    record = BatchRecord(secrets.token_hex(8), 1)
    return rpc.TxnRequest(
        compare=[writing.mod_is(layout.state, state.mod_revision), writing.mod_is(layout.batch, batch_mod)],
        success=[
            writing.put(layout.state, changed.encoded()),
            writing.put(layout.batch, record.encoded()),
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


async def _opened(wire: Wire, layout: Layout) -> Answer:
    for _ in range(ATTEMPTS_MAX):
        response = await wire.read(head_request(layout))
        found, batch, own = (answer.response_range for answer in response.responses)
        cluster, revision = response.header.cluster_id, response.header.revision
        if batch.kvs and own.kvs:
            state = State.decoded(own.kvs[0].value, own.kvs[0].mod_revision)
            if state.etcd == cluster:
                return Answer(response, revision, state, batch.kvs[0], found)
            # A copy, or a backup, in another etcd: nobody knows how much newer revisions were given out.
            batch_mod = batch.kvs[0].mod_revision
            changed = raised_epoch(state, state.epoch + 1, state.offset + COPY_JUMP, cluster, batch_mod)
        elif batch.kvs or own.kvs:
            raise StoreOpenError(f"{wire.address.shown} is damaged: restore it from a backup")
        else:
            state = State(secrets.token_hex(16), epoch=1, offset=0, horizon=0, etcd=cluster)
            batch_mod = 0
            changed = replace(state, horizon=state.revision(revision + 1, 0))
            begun = rpc.TxnRequest(success=[writing.get(layout.copying)])
            if (await wire.read(begun)).responses[0].response_range.kvs:
                raise StoreOpenError(
                    f"{wire.address.shown} holds a copy that has not ended: wait for it, or make it again"
                )
        request = state_request(layout, state, changed, batch_mod)
        request.compare.append(writing.mod_is(layout.copying, 0))
        made = await wire.write(request)
        if not made.succeeded:
            await asyncio.sleep(0.05)
    raise Unavailable("other replicas open it again and again")
