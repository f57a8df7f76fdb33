"""Group commit: what arrives while a commit is under way shares the next one.

No time is waited for company where there is none: an idle store commits a lone write at once. Where writers come in
numbers, a batch stays open for those whom the last one answered (`company.py`): a commit has its price whatever it
holds, a round trip, a disk's flush, the processor's time here and in the database. Where they are many, it closes with
`BATCH_ENOUGH`: some are then computed while others are committed.

Where more wait than one batch holds, clusters take turns (`lines.py`): one that has thousands queued makes another wait for
no more than the batch that is under way and the next. What a cluster may have queued is bounded.

A large write goes alone, and takes a disk as long as dozens of small ones. Those that wait beside it go first, every other time:
who writes little waits for one large write at most.

The transactions of a batch touch distinct keys, and none guards a key that an earlier one of the
batch writes; so executing them one after the other, or guards first, or all in one statement is the same thing.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from time import monotonic
from typing import Final

from clusterling.storage.backend import Backend, CommitsBeside, Committed, Transaction
from clusterling.storage.company import Company
from clusterling.storage.histogram import Histogram
from clusterling.storage.lines import Choice, Lines
from clusterling.storage.others import OTHERS
from clusterling.storage.store import (
    VALUE_BYTES_MAX,
    WRITE_OPS_MAX,
    Crowded,
    Guard,
    Limit,
    Op,
    StorageError,
    TooLarge,
    Unavailable,
    UnknownOutcome,
)
from clusterling.telemetry.spans import Span, as_part, current

BATCH_OPS_MAX: Final = WRITE_OPS_MAX
BATCH_BYTES_MAX: Final = 1 << 20
# So many are not kept waiting for more: the price of a commit is divided well, and what comes meanwhile is computed while it is
# under way.
BATCH_ENOUGH: Final = 32
LARGE_BYTES: Final = 128 << 10  # Of a write's values.
GATHER_MAX_S: Final = 0.003  # Without a writer, and a batch closes; sooner where the last commit took less.
BATCH_WRITES: Final = (1, 2, 5, 10, 20, 50, 100, 200)
WAITING_MAX: Final = 5_000  # Of one cluster, writes that wait for a batch,
WAITING_BYTES_MAX: Final = 64 << 20  # and their values.


class _Waiting:
    """A transaction on its way, and the writer that waits for it."""

    __slots__ = ("outcome", "size", "span", "transaction")

    def __init__(self, transaction: Transaction, outcome: asyncio.Future[Sequence[int]], size: int) -> None:
        self.transaction = transaction
        self.outcome = outcome
        self.size = size
        self.span: Span | None = None


class Batcher:
    """`write` for everybody, over a backend's `commit`; `run` is the one loop that commits."""

    def __init__(self, backend: Backend, *, few: int = 0) -> None:
        """So `few` writers are not worth waiting for each other: a commit costs little."""
        self._backend = backend
        self._queue: deque[_Waiting] = deque()  # All who wait, while they are no more than a batch holds.
        self._queued_bytes = 0
        self._lines: Lines[_Waiting] | None = None  # While they are more.
        self._kept_waiting = False  # Large writes, by the last batch.
        self._arrived = asyncio.Event()
        self._company = Company(few)
        self._beside = backend if isinstance(backend, CommitsBeside) else None
        self._under_way: Sequence[_Waiting] = ()
        self._began = 0.0  # The commit of these;
        self._span: Span | None = None  # as a part of traces.
        self._gathering = False
        self._broken: BaseException | None = None  # What was unforeseen.
        self._closed = False
        # For metrics: seconds that commits took, writes of each, commits that failed, bytes of values that came.
        self.commits = Histogram()
        self.batches = Histogram(BATCH_WRITES)
        self.failures = 0
        self.value_bytes = 0
        self.crowded = 0  # Writes that were refused, as too many of their cluster's waited.

    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        """As `Store.write`."""
        size = 0
        for op in ops:
            if op.value is not None:
                length = len(op.value)
                if length > VALUE_BYTES_MAX:
                    raise TooLarge(op.key)
                size += length
        assert len(ops) <= WRITE_OPS_MAX and len(guards) <= WRITE_OPS_MAX, (
            "a write fits one transaction of any backend"
        )
        assert len(ops) == 1 or len({op.key for op in ops}) == len(ops), "ops of one write name distinct keys"
        if self._closed:
            raise Unavailable("the store is closed")
        outcome: asyncio.Future[Sequence[int]] = asyncio.get_running_loop().create_future()
        writing = _Waiting(Transaction(ops, guards, limits), outcome, size)
        if (
            self._lines is None
            and len(self._queue) < BATCH_OPS_MAX
            and (self._queued_bytes < BATCH_BYTES_MAX or not self._queue)
        ):
            self._queue.append(writing)
            self._queued_bytes += size
        else:
            self._line_up(writing)
        self.value_bytes += size
        above = current()
        if above is not None:
            writing.span = above.child("store write", {"ops": len(ops), "bytes": size})
        waiting = self.waiting
        self._company.came(waiting)
        if waiting == 1:
            self._go_on()
        span = writing.span
        try:
            if span is None:
                return await outcome
            with as_part(span):
                return await outcome
        finally:
            # A refusal knows this frame by its traceback, and is known by these.
            del outcome, writing

    @property
    def waiting(self) -> int:
        """Writes that wait for a batch."""
        return len(self._queue) if self._lines is None else len(self._lines)

    def _line_up(self, last: _Waiting) -> None:
        """Has those who wait stand in lines, and one more. Raises Crowded."""
        lines = self._lines
        if lines is None:
            lines = Lines()
            for waiting in self._queue:
                lines.add(_cluster_of(waiting), waiting, waiting.size)
        cluster = _cluster_of(last)
        count, size = lines.of(cluster)
        if count >= WAITING_MAX or (count and size + last.size > WAITING_BYTES_MAX):
            self.crowded += 1
            raise Crowded(
                f"{count:,} writes of this logical cluster wait for the store, {size >> 20} MiB together; "
                f"no more than {WAITING_MAX:,} and {WAITING_BYTES_MAX >> 20} MiB may"
            )
        self._lines = lines
        self._queue.clear()
        self._queued_bytes = 0
        lines.add(cluster, last, last.size)

    async def run(self) -> None:
        """Commits batches until `close`, but for those that `_go_on` begins."""
        try:
            while not self._closed:
                if self._under_way or not self.waiting:
                    await self._woken()
                    continue
                self._gathering = True
                await self._company.gather(self._count)
                self._gathering = False
                batch = self._take()
                if batch:
                    await self._commit(batch)
            while self._under_way:
                await self._woken()
            if self._broken is not None:
                raise self._broken
        finally:
            self.close()

    async def _woken(self) -> None:
        self._arrived.clear()
        await self._arrived.wait()

    def _go_on(self) -> None:
        """Has what waits committed: at once, where that is beside the loop, nothing is under way and nobody is waited for."""
        beside = None if self._under_way or self._gathering or self._closed else self._beside
        if beside is None or not self._company.is_here(self.waiting):
            self._arrived.set()
        elif batch := self._take():
            self._begin(beside, batch)

    def close(self) -> None:
        """Refuses what waits and what comes; a commit that is under way is seen through."""
        self._closed = True
        self._arrived.set()
        left = [*self._queue, *(self._lines or ())]
        self._queue.clear()
        self._queued_bytes, self._lines = 0, None
        for waiting in left:
            _fail(waiting, Unavailable("the store is closed"))

    def _count(self) -> int:
        return self.waiting

    def _take(self) -> list[_Waiting]:
        """The next batch, first come first served for every key, small before large every other time. A writer that has left
        writes nothing.
        """
        if not self._kept_waiting:
            batch, self._kept_waiting = self._chosen(LARGE_BYTES)
            if batch:
                return batch
        batch, _ = self._chosen(VALUE_BYTES_MAX * WRITE_OPS_MAX)
        self._kept_waiting = all(waiting.size <= LARGE_BYTES for waiting in batch)
        return batch

    def _chosen(self, size_max: int) -> tuple[list[_Waiting], bool]:
        """The next batch of those who write no more than that, and whether others were passed over."""
        if self._lines is not None:
            chosen = _chosen(self._lines, size_max)
            if not self._lines:
                self._lines = None
            return chosen
        larger = False
        batch: list[_Waiting] = []
        passed: list[_Waiting] = []
        written: set[str] = set()  # By the batch.
        held: set[str] = set()  # By those passed over: nobody overtakes them on their keys.
        ops = size = 0
        queue = self._queue
        for _ in range(len(queue)):
            waiting = queue.popleft()
            self._queued_bytes -= waiting.size
            if waiting.outcome.done():
                continue
            transaction = waiting.transaction
            count = len(transaction.ops)
            if waiting.size > size_max:
                larger = True
                passed.append(waiting)
                _hold(transaction, held)
                continue
            if batch and (ops + count > BATCH_OPS_MAX or size + waiting.size > BATCH_BYTES_MAX):
                queue.appendleft(waiting)
                self._queued_bytes += waiting.size
                break
            if _free(transaction, written, held):
                batch.append(waiting)
                for op in transaction.ops:
                    written.add(op.key)
                ops += count
                size += waiting.size
            else:
                passed.append(waiting)
                _hold(transaction, held)
        queue.extendleft(reversed(passed))
        self._queued_bytes += sum(waiting.size for waiting in passed)
        return batch, larger

    async def _commit(self, batch: Sequence[_Waiting]) -> None:
        if self._beside is not None:
            self._begin(self._beside, batch)
            return
        transactions = self._starts(batch)
        try:
            with as_part(self._span):
                outcomes = await self._backend.commit(transactions)
        except StorageError as error:
            self._done(error)
        except BaseException as error:
            self._done(error)
            raise
        else:
            self._done(outcomes)

    def _begin(self, beside: CommitsBeside, batch: Sequence[_Waiting]) -> None:
        transactions = self._starts(batch)
        with as_part(self._span):
            beside.begin_commit(transactions, self._done)

    def _starts(self, batch: Sequence[_Waiting]) -> Sequence[Transaction]:
        self._under_way, self._span, self._began = batch, _span(batch), monotonic()
        return [waiting.transaction for waiting in batch]

    def _done(self, result: Sequence[Committed | StorageError] | BaseException) -> None:
        """Tells the writers of the batch that was under way what became of theirs, and goes on."""
        batch, self._under_way = self._under_way, ()
        took = monotonic() - self._began
        if self._span is not None:
            self._span.end()
        if isinstance(result, BaseException):
            self._failed(batch, result)
        else:
            for waiting, outcome in zip(batch, result, strict=True):
                if isinstance(outcome, Committed):
                    if not waiting.outcome.done():
                        waiting.outcome.set_result(outcome.revisions)
                else:
                    _fail(waiting, outcome)
        self._company.served(min(len(batch) + self.waiting, BATCH_ENOUGH), min(took, GATHER_MAX_S))
        self.commits.observe(took)
        self.batches.observe(len(batch))
        if self.waiting or self._closed:
            self._go_on()

    def _failed(self, batch: Sequence[_Waiting], error: BaseException) -> None:
        self.failures += 1
        if not isinstance(error, StorageError):
            self._broken, self._closed = error, True
        for waiting in batch:
            if isinstance(error, StorageError):
                _fail(waiting, type(error)(*error.args), cause=error)
            else:
                _fail(waiting, UnknownOutcome("the store failed during the commit"), cause=error)


def _span(batch: Sequence[_Waiting]) -> Span | None:
    """The commit as a part of the first write in it that is traced; the others and it are linked to each other."""
    commit: Span | None = None
    for waiting in batch:
        if waiting.span is None:
            continue
        if commit is None:
            commit = waiting.span.child("store commit", {"writes": len(batch)})
        else:
            commit.link(waiting.span)
            waiting.span.link(commit)
    return commit


def _cluster_of(waiting: _Waiting) -> str:
    """Whose write it is: keys begin with the id of their cluster."""
    return waiting.transaction.ops[0].key.partition("/")[0]


def _chosen(lines: Lines[_Waiting], size_max: int) -> tuple[list[_Waiting], bool]:
    """As `Batcher._chosen`, of those who stand in lines."""
    batch: list[_Waiting] = []
    written: set[str] = set()
    held: set[str] = set()
    ops = size = 0
    larger = False

    def consider(waiting: _Waiting) -> Choice:
        nonlocal ops, size, larger
        if waiting.outcome.done():
            return Choice.GONE
        transaction = waiting.transaction
        if waiting.size > size_max:
            larger = True
            _hold(transaction, held)
            return Choice.PASSED
        count = len(transaction.ops)
        if batch and (ops + count > BATCH_OPS_MAX or size + waiting.size > BATCH_BYTES_MAX):
            return Choice.NO_ROOM
        if not _free(transaction, written, held):
            _hold(transaction, held)
            return Choice.PASSED
        batch.append(waiting)
        written.update(op.key for op in transaction.ops)
        ops += count
        size += waiting.size
        return Choice.TAKEN

    lines.choose(consider)
    return batch, larger


def _hold(transaction: Transaction, held: set[str]) -> None:
    """Has nobody overtake one that was passed over, on its keys."""
    held.update(op.key for op in transaction.ops)
    held.update(guard.key for guard in transaction.guards if guard.key != OTHERS)


def _free(transaction: Transaction, written: set[str], held: set[str]) -> bool:
    """Whether a batch that writes these keys can take the transaction, past those that hold theirs."""
    for op in transaction.ops:
        if op.key in written or op.key in held:
            return False
    for guard in transaction.guards:  # noqa: SIM110 - a generator for each writer costs as much as all the rest here
        if guard.key in written or guard.key in held:
            return False
    return True


def _fail(waiting: _Waiting, error: StorageError, *, cause: BaseException | None = None) -> None:
    if waiting.outcome.done():
        return
    error.__cause__ = cause
    waiting.outcome.set_exception(error)
