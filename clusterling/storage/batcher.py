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

from clusterling.storage.backend import Backend, Committed, TellsOutcomes, Transaction
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
        self._under_way: Sequence[_Waiting] = ()  # Whose writers have not been told yet.
        self._span: Span | None = None  # Of its commit.
        if isinstance(backend, TellsOutcomes):
            backend.tell_outcomes(self._answer)
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
        waiting = self.waiting
        if waiting == 1:
            self._arrived.set()
        self._company.came(waiting)
        above = current()
        if above is None:
            return await outcome
        writing.span = above.child("store write", {"ops": len(ops), "bytes": size})
        with as_part(writing.span):
            return await outcome

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
        """Commits batches until `close`."""
        try:
            while not self._closed:
                if not self.waiting:
                    self._arrived.clear()
                    await self._arrived.wait()
                await self._company.gather(self._count)
                batch = self._take()
                if batch:
                    began = monotonic()
                    await self._commit(batch)
                    came = min(len(batch) + self.waiting, BATCH_ENOUGH)
                    took = monotonic() - began
                    self._company.served(came, min(took, GATHER_MAX_S))
                    self.commits.observe(took)
                    self.batches.observe(len(batch))
        finally:
            self.close()

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
        self._under_way, self._span = batch, _span(batch)
        try:
            with as_part(self._span):
                outcomes = await self._backend.commit([waiting.transaction for waiting in batch])
        except StorageError as error:
            self.failures += 1
            for waiting in batch:
                _fail(waiting, type(error)(*error.args), cause=error)
            return
        except BaseException as error:
            for waiting in batch:
                _fail(waiting, UnknownOutcome("the store failed during the commit"), cause=error)
            raise
        self._answer(outcomes)

    def _answer(self, outcomes: Sequence[Committed | StorageError]) -> None:
        """Tells the writers of the batch that is under way what became of theirs, unless they have been told."""
        batch, self._under_way = self._under_way, ()
        if not batch:
            return
        if self._span is not None:
            self._span.end()
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, Committed):
                if not waiting.outcome.done():
                    waiting.outcome.set_result(outcome.revisions)
            else:
                _fail(waiting, outcome)


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
