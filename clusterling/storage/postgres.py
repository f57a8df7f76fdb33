"""The backend for several replicas: one PostgreSQL database, any number of processes over it.

A commit is one call of `commit_limited` (in `postgres/*.sql`), whose first statement locks the row with the counter: so
revisions come in commit order without gaps, and compare-and-set sees what was committed before. It is numbered, and
its outcome kept beside it: after a lost reply it is looked up, or made impossible, before anything is answered.

The reply of a commit brings what others wrote between what this replica had seen and the batch: with the batch's own
ops that is the log without a gap, and goes to the sink together. So under load replicas hear of each other by writing.

One task follows the log, `revision > last`, whenever there is another reason to: another replica's NOTIFY while
none of this one's commits is under way, a request that asks how far the store has come (`fresh`; all that wait share
the next question), a timer. NOTIFY goes with a commit, the first at once and then one every few milliseconds: whoever
looks because of it sees all that was committed before it, whoever wrote it.

Rules of this file: the sink gets revisions without gaps or is told of the loss; everything that changes `_head` is
synchronous with what it tells; whatever arrives from an older epoch is below `_head` and so ignored; a store that is
not as far as what was told of it was put back, and is used again only in a new epoch.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import zlib
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from clusterling.storage.backed import BackedStore, serve
from clusterling.storage.backend import Committed, Doubt, Lost, Sink, Transaction, prefix_end, prefixes
from clusterling.storage.postgres_links import (
    CONNECT_S,
    PATIENCE_S,
    QUERY_S,
    READ_S,
    Address,
    Link,
    NotConnected,
    Outage,
    Patience,
    Readers,
    connect,
    parse,
    unopenable,
)
from clusterling.storage.postgres_links import Lost as LostReply
from clusterling.storage.store import (
    Compacted,
    Entry,
    Event,
    FutureRevision,
    Guard,
    GuardFailed,
    Identity,
    KeyExists,
    Limit,
    LimitReached,
    Measure,
    Page,
    RevisionConflict,
    StorageError,
    StoreOpenError,
    TooLarge,
    Unavailable,
    UnknownOutcome,
    Usage,
)

if TYPE_CHECKING:
    from asyncpg import Connection, Record

VERSION_MIN: Final = 14
KEY_BYTES_MAX: Final = 2048  # An index row of PostgreSQL holds 2,704 bytes.

POLL_S: Final = 1.0  # The net under the notifications.
ROUND_EVENTS: Final = 1000
ROUND_BYTES: Final = 8 << 20
NOTIFY_EVERY_S: Final = 0.005
OTHERS_BYTES_MAX: Final = (
    256 << 10
)  # What others wrote comes with a commit's reply up to this size: they wait meanwhile.
# A replica that is busy comes to what a NOTIFY tells of by its own commits and questions; if not within this, it looks.
OVERDUE_S: Final = 0.003
BUSY_S: Final = 0.02
RECENT_BYTES_MAX: Final = 8 << 20
STEP_ROWS: Final = 500  # Compaction gives way to writers after so many.
STEP_PAUSE_S: Final = 0.002
VACUUM_ROWS_MIN: Final = 20_000
MIGRATION_WAIT_S: Final = 60
REMEMBERED_EVENTS: Final = 32  # The last ones told, by which another history is known.
JUMP: Final = 1 << 20  # How far beyond what was seen a new epoch begins: further than replicas are apart.
# Classes of this program's advisory locks ("Clst" and on), whose second part is the schema's.
LOCK_MIGRATE: Final = 0x436C7374
LOCK_COMPACT: Final = 0x436C7375
LOCK_PRESENT: Final = 0x436C7376
JOINED: Final = "joined"  # What a replica says first; all else is a revision.

GREET: Final = (
    "SELECT c.id, c.epoch, c.head, c.horizon, (SELECT max(m.number) FROM migrations m) AS format FROM clock c"
)
COMMIT: Final = f"""
SELECT * FROM commit_limited(
    $1, $2, $3, {OTHERS_BYTES_MAX}, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17
)
"""  # noqa: S608 - what is put in is a constant
# A batch of guards alone locks the counter before it looks at them; the drop is made under the same lock.
DROP: Final = """
SELECT b.refused, CASE WHEN b.refused IS NULL THEN drop_range($9, $10) END
FROM commit_batch('', 1, 0, 0, NULL, $1, $2, $3, $4, $5, $6, $7, $8) b
"""
SETTLE: Final = "SELECT * FROM settle_batch($1, $2)"
TOLD: Final = """
SELECT c.horizon, l.revision, l.key, l.value
FROM clock c LEFT JOIN log l ON l.revision = ANY ($1::bigint[])
"""
BEFORE: Final = "SELECT l.revision, l.value FROM log l WHERE l.revision = ANY ($1::bigint[])"

# How many replicas there are: each holds this lock, shared, over the connection that follows.
JOIN: Final = "SELECT pg_advisory_lock_shared($1, $2)"
PRESENT: Final = """
SELECT count(*) FROM pg_locks
WHERE locktype = 'advisory' AND classid = $1::bigint::oid AND objid = $2::bigint::oid AND objsubid = 2
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""

HEAD: Final = "SELECT c.epoch, c.head FROM clock c"

# The log after $1, up to $2 revisions on; nothing of it where that is more than $3 bytes.
FOLLOW: Final = """
SELECT c.epoch, c.head, r.revision, r.key, r.previous, r.value, r.before
FROM clock c LEFT JOIN LATERAL (
    SELECT l.revision, l.key, l.previous, l.value,
        CASE WHEN l.previous > 0 THEN (SELECT p.value FROM log p WHERE p.revision = l.previous) END AS before
    FROM log l
    WHERE l.revision > $1 AND l.revision <= $1 + $2 AND $3 >= (
        SELECT coalesce(sum(octet_length(b.value)), 0) FROM log b WHERE b.revision > $1 AND b.revision <= $1 + $2
    )
    ORDER BY l.revision
) r ON true
"""

CHANGES: Final = """
SELECT c.horizon, r.revision, r.key, r.previous, r.value, r.before
FROM clock c LEFT JOIN LATERAL (
    SELECT l.revision, l.key, l.previous, l.value, p.value AS before
    FROM log l LEFT JOIN log p ON p.revision = l.previous
    WHERE l.revision > $1 AND l.revision <= $2
        AND (l.key > $3 AND l.key < $4 OR l.value IS NULL AND l.key = ANY ($5::text[]))
    ORDER BY l.revision LIMIT $6
) r ON true
ORDER BY r.revision
"""

# A row of `state` under the prefix $1, which ends before $2, that is a value: not deleted, not dropped.
_THERE: Final = """s.live AND s.revision > (SELECT dropped_at($1))
    AND (NOT EXISTS (SELECT FROM drops d WHERE d.prefix > $1 AND d.prefix < $2) OR s.revision > dropped_at(s.key))"""

GET: Final = """
SELECT s.revision, l.value FROM state s JOIN log l ON l.revision = s.revision
WHERE s.key = $1 AND s.live AND (NOT EXISTS (SELECT FROM drops) OR s.revision > dropped_at(s.key))
"""

COUNT: Final = f"SELECT count(*) FROM state s WHERE s.key > $1 AND s.key < $2 AND {_THERE}"  # noqa: S608

# $3: after which key; $4: how many, NULL for all; $5: whether to count and to look for the last change.
LIST: Final = f"""
SELECT c.head, c.horizon, t.total, t.changed, r.key, r.revision, r.value
FROM clock c
CROSS JOIN LATERAL (
    SELECT count(*) FILTER (WHERE {_THERE}) AS total, greatest(
        max(s.revision), dropped_at($1), (SELECT max(d.revision) FROM drops d WHERE d.prefix > $1 AND d.prefix < $2)
    ) AS changed
    FROM state s WHERE $5 AND s.key > $3 AND s.key < $2
) t
LEFT JOIN LATERAL (
    SELECT s.key, s.revision, l.value FROM state s JOIN log l ON l.revision = s.revision
    WHERE s.key > $3 AND s.key < $2 AND {_THERE}
    ORDER BY s.key LIMIT $4
) r ON true
"""  # noqa: S608 - what is put in is a constant

# Every key of the past still has a place in `state`, so as many places hold at most so many rows. What is reached past
# a drop that has been swept was dropped before any $4 that may still be asked.
PAST: Final = """
WITH RECURSIVE places AS (
    SELECT s.key, s.revision FROM state s WHERE s.key > $1 AND s.key < $2 ORDER BY s.key LIMIT $3
), past (key, revision, detached) AS (
    SELECT key, revision, false FROM places
    UNION ALL
    SELECT p.key, abs(l.previous), l.previous < 0 FROM past p JOIN log l ON l.revision = p.revision
    WHERE p.revision > $4 AND l.previous <> 0
)
SELECT c.head, c.horizon, (SELECT count(*) FROM places) AS places, (SELECT max(key) FROM places) AS through,
    r.key, r.revision, r.value
FROM clock c LEFT JOIN LATERAL (
    SELECT p.key, p.revision, l.value FROM past p JOIN log l ON l.revision = p.revision
    WHERE p.revision <= $4 AND l.value IS NOT NULL AND CASE
        WHEN EXISTS (SELECT FROM drops)
            THEN p.revision > dropped_at(p.key, $4) AND (NOT p.detached OR p.revision < dropped_at(p.key))
        ELSE NOT p.detached
    END
) r ON true
"""

USAGE: Final = """
SELECT u.collection, u.objects, u.bytes FROM usage u
WHERE u.collection >= $1 AND u.collection < $2 AND (u.objects <> 0 OR u.bytes <> 0) ORDER BY u.collection
"""

EXPIRED: Final = """
SELECT s.key, s.revision, l.value FROM state s JOIN log l ON l.revision = s.revision
WHERE s.expires_at <= $1 AND s.expires_at IS NOT NULL AND s.live
    AND (NOT EXISTS (SELECT FROM drops) OR s.revision > dropped_at(s.key))
ORDER BY s.expires_at LIMIT $2
"""

_REFUSALS: Final[dict[int, Callable[[str], StorageError]]] = {
    1: KeyExists,
    2: RevisionConflict,
    3: GuardFailed,
}

_log = logging.getLogger(__name__)


_Row = tuple[int, str, int, bytes | None]  # Of the log: revision, key, previous, value.


class _Batch:
    """Transactions as columns, which is how `commit_limited` takes them."""

    def __init__(self, transactions: Sequence[Transaction]) -> None:
        self.txs: list[int] = []
        self.keys: list[str] = []
        self.values: list[bytes | None] = []
        self.expected: list[int | None] = []
        self.expiries: list[int | None] = []
        self.guard_txs: list[int] = []
        self.guard_keys: list[str] = []
        self.guard_revisions: list[int] = []
        self.limit_txs: list[int] = []
        self.limit_ranges: list[int] = []
        self.limits: list[Limit] = []
        self.ranges: dict[tuple[str, Measure], int] = {}  # Numbered from 1.
        self.refused: dict[int, StorageError] = {}
        for tx, transaction in enumerate(transactions):
            keys = [op.key for op in transaction.ops] + [guard.key for guard in transaction.guards]
            if any(len(key) > KEY_BYTES_MAX // 4 and len(key.encode()) > KEY_BYTES_MAX for key in keys):
                self.refused[tx] = TooLarge(max(keys, key=len))
                continue
            for op in transaction.ops:
                self.txs.append(tx)
                self.keys.append(op.key)
                self.values.append(op.value)
                self.expected.append(op.expected)
                self.expiries.append(op.expires_at)
            for guard in transaction.guards:
                self.guard_txs.append(tx)
                self.guard_keys.append(guard.key)
                self.guard_revisions.append(guard.revision)
            for limit in transaction.limits:
                self.limit_txs.append(tx)
                self.limit_ranges.append(
                    self.ranges.setdefault((limit.prefix, limit.what), len(self.ranges) + 1)
                )
                self.limits.append(limit)

    def columns(self) -> tuple[Sequence[Any], ...]:
        return (
            self.txs,
            self.keys,
            self.values,
            self.expected,
            self.expiries,
            self.guard_txs,
            self.guard_keys,
            self.guard_revisions,
        )

    def limit_columns(self) -> tuple[Sequence[Any], ...]:
        return (
            self.limit_txs,
            self.limit_ranges,
            [limit.most for limit in self.limits],
            [prefix for prefix, _ in self.ranges],
            [what is Measure.BYTES for _, what in self.ranges],
        )

    def refuse(self, refusals: Sequence[Sequence[int]], over: Sequence[Sequence[int]] = ()) -> None:
        """Takes over what the database refused: rows of transaction, why, and which op, guard or limit, from 1.

        `over`: of limits, how much there was and how much more it would have been. After a lost reply nobody knows.
        """
        figures = {which: (used, wanted) for which, used, wanted in over}
        for tx, why, which in refusals:
            if why == 4:
                limit = self.limits[which - 1]
                self.refused[tx] = LimitReached(limit, *figures.get(which, (limit.most, 1)))
                continue
            keys = self.guard_keys if why == 3 else self.keys
            self.refused[tx] = _REFUSALS[why](keys[which - 1])


class PostgresBackend:
    """Made by `start`. A connection writes, one follows, up to four read, and one is there while compaction runs."""

    def __init__(self, address: Address, identity: Identity, head: int) -> None:
        self._address = address
        self._identity = identity
        self._head = head
        self._sink: Sink = lambda _events, _revision: None
        self._lost: Lost = lambda _revision: None
        self._outage = Outage()
        self._writer = self._link()
        self._readers = Readers(self._link, self._outage)
        self._follower = self._link()
        self._compactor = self._link()
        self._compacting = asyncio.Lock()
        self._name = secrets.token_hex(16)  # Of this replica, as a writer.
        self._number = 0  # Of its last batch.
        self._doubt = Doubt()
        self._channel = f"{address.schema}_log"
        self._wake = asyncio.Event()
        self._asked: list[tuple[float, asyncio.Future[None]]] = []
        self._recent: dict[int, bytes] = {}  # Values by revision, the oldest first.
        self._recent_bytes = 0
        self._last: deque[tuple[int, tuple[str, int]]] = deque(maxlen=REMEMBERED_EVENTS)
        self._present = 1  # Replicas, with this one.
        self._recount = False
        self._quiet = False  # Nobody had written when the follower looked last.
        self._told = head  # How far other replicas have been notified, by whomever.
        self._notified_at = 0.0
        self._committer = 0  # The server's process that commits for this replica, while it does.
        self._active_at = 0.0  # When this replica last committed.
        self._written = head
        self._tasks: set[asyncio.Task[None]] = set()
        self._notifying: asyncio.Task[None] | None = None
        self._closed = False

    def begin(self) -> None:
        """Starts to follow."""
        self._spawn(self._follow(), "postgres follower")
        self._tick()

    # Backend.

    def follow(self, sink: Sink, lost: Lost) -> None:
        self._sink = sink
        self._lost = lost

    async def commit(self, transactions: Sequence[Transaction]) -> Sequence[Committed | StorageError]:
        return await self._doubt.settled(self._outcomes(transactions))

    async def _outcomes(self, transactions: Sequence[Transaction]) -> Sequence[Committed | StorageError]:
        batch = _Batch(transactions)
        base = self._head
        if batch.keys:
            seen, reply = await self._put(batch)
            base = reply["base_revision"]
            batch.refuse(reply["refused"] or (), reply.get("over") or ())
        outcomes: list[Committed | StorageError] = []
        last = base
        for tx, transaction in enumerate(transactions):
            refused = batch.refused.get(tx)
            if refused is None:
                outcomes.append(Committed(range(last + 1, last + 1 + len(transaction.ops))))
                last += len(transaction.ops)
            else:
                outcomes.append(refused)
        if last > base:
            self._written = max(self._written, last)
            rows = _told_by(reply, batch, seen)
            if rows:
                await self._publish_rows(seen, rows, reply["in_epoch"])
            if self._head < last:
                await self._catch_up(last)
            self._notify()
        return outcomes

    async def get(self, key: str) -> Entry | None:
        if "\0" in key:  # Which no text of PostgreSQL has.
            return None
        row = await self._readers.call(lambda db: db.fetchrow(GET, key, timeout=QUERY_S))
        return None if row is None else Entry(key, row[1], row[0])

    async def list(self, prefix: str, *, after: str, limit: int, revision: int) -> Page:
        end = prefix_end(prefix)
        position = max(after, prefix)
        rows = await self._fetch(LIST, prefix, end, position, limit or None, not after)
        head, horizon, total, changed = rows[0][:4]
        at = revision or head
        if at > head:
            raise FutureRevision(revision, head)
        if at < horizon:
            raise Compacted(revision)
        if at < head:
            return await self._list_past(position, end, limit, at)
        entries = [Entry(key, value, written) for *_, key, written, value in rows if key is not None]
        entries.sort(key=_key)
        remaining: int | None = 0
        if limit and len(entries) == limit:
            remaining = None if after else total - limit
        return Page(entries, at, remaining, at if after else min(at, max(changed or 0, horizon)))

    async def count(self, prefix: str) -> int:
        [[count]] = await self._fetch(COUNT, prefix, prefix_end(prefix))
        return int(count)

    async def usage(self, prefix: str) -> Sequence[Usage]:
        return [Usage(*row) for row in await self._fetch(USAGE, prefix, prefix_end(prefix))]

    async def changes(self, prefix: str, *, after: int, through: int, limit: int) -> Sequence[Event]:
        above = list(prefixes(prefix))
        rows = await self._fetch(CHANGES, after, through, prefix, prefix_end(prefix), above, limit)
        if after < rows[0]["horizon"] - 1:
            raise Compacted(after)
        return [_event(*row[1:], prefix=prefix) for row in rows if row["revision"] is not None]

    def head(self) -> int:
        return self._head

    async def fresh(self) -> int:
        await self._ask()
        return self._head

    async def compact(self, horizon: int) -> None:
        async with self._compacting:
            try:
                await self._compactor.call(lambda db: self._compact(db, horizon))
            except LostReply as error:
                raise Unavailable(f"the database does not answer: {error}") from error
            finally:
                await self._compactor.close()

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        # Safe to repeat: what happened with a lost reply is then found done.
        batch = _Batch([Transaction((), guards)])
        if batch.refused:
            raise batch.refused[0]
        row = await self._readers.call(
            lambda db: db.fetchrow(DROP, *batch.columns(), prefix, prefix_end(prefix), timeout=QUERY_S)
        )
        assert row is not None, "a function that returns a row gives one"
        refused, revision = row
        if refused is not None:
            batch.refuse(refused)
            raise batch.refused[0]
        if revision is not None:
            self._written = max(self._written, revision)
            self._notify()
        await self._ask()

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        return [
            Entry(key, value, revision) for key, revision, value in await self._fetch(EXPIRED, now, limit)
        ]

    async def identity(self) -> Identity:
        return self._identity

    async def close(self) -> None:
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._refuse_asked(Unavailable("the store is closed"), all_of_them=True)
        await self._writer.close()
        await self._follower.close()
        await self._compactor.close()
        await self._readers.close()

    # Writing.

    async def _put(self, batch: _Batch) -> tuple[int, Any]:
        """How far this replica had seen, and the reply of `commit_limited` to that, or what is known of it.

        Raises Unavailable and UnknownOutcome.
        """
        patience: Patience | None = None
        while True:
            if self._outage.long:
                raise Unavailable("the database does not answer")
            self._number += 1
            number = self._number
            try:
                return await self._writer.call(lambda db, number=number: self._commit(db, number, batch))  # type: ignore[misc]
            except NotConnected as error:
                patience = patience or Patience(self._outage)
                await patience.after(error)
            except LostReply as error:
                settled = await self._settle(number, error)
                if settled["happened"]:
                    return self._head, settled
                # It did not happen and never will: so it may be tried again.
                self._doubt.felt = True
                patience = patience or Patience(self._outage)
                await patience.after(error)

    async def _settle(self, number: int, cause: Exception) -> Any:
        """What became of the batch; from then on that stands. Raises UnknownOutcome."""
        patience = Patience(self._outage)
        error: Exception = cause
        while True:
            try:
                return await self._writer.call(
                    lambda db: db.fetchrow(SETTLE, self._name, number, timeout=QUERY_S)
                )
            except (LostReply, StorageError) as failed:
                error = failed
            try:
                await patience.after(error)
            except Unavailable as given_up:
                raise UnknownOutcome(f"the database went away during the commit: {error}") from given_up

    async def _commit(self, db: Connection[Record], number: int, batch: _Batch) -> tuple[int, Any]:
        seen, now = self._head, asyncio.get_running_loop().time()
        channel = None
        if self._present > 1 and now >= self._notified_at + NOTIFY_EVERY_S:
            self._notified_at = now
            channel = self._channel
        self._committer, self._active_at = db.get_server_pid(), now
        try:
            reply = await db.fetchrow(
                COMMIT,
                self._name,
                number,
                seen,
                channel,
                *batch.columns(),
                *batch.limit_columns(),
                timeout=QUERY_S,
            )
        finally:
            self._committer = 0
        assert reply is not None, "a function that returns a row gives one"
        if channel is not None:
            # Also of what this replica wrote before.
            self._told = max(self._told, self._written, reply["base_revision"] + len(batch.keys))
        return seen, reply

    async def _publish_rows(self, seen: int, rows: Sequence[_Row], epoch: int) -> None:
        """Tells of all that came after `seen`, but for what the follower has told of meanwhile."""
        wanted = [
            previous
            for revision, _, previous, _ in rows
            if 0 < previous <= seen and revision > self._head and previous not in self._recent
        ]
        before: dict[int, bytes] = {}
        if wanted:
            with contextlib.suppress(StorageError):
                found = await self._readers.call(lambda db: db.fetch(BEFORE, wanted, timeout=QUERY_S))
                before = {row[0]: row[1] for row in found}
        if self._identity.epoch != epoch or not seen <= self._head < rows[-1][0]:
            return
        events: list[Event] = []
        for revision, key, previous, value in rows:
            if revision > self._head:
                old = before.get(previous) if previous in before else self._recent.get(previous)
                events.append(_event(revision, key, previous, value, old))
            if value is not None:
                before[revision] = value
        self._publish(events, rows[-1][0])

    # Following.

    async def _follow(self) -> None:
        """Keeps the sink current until cancelled."""
        pause = 0.0
        while True:
            head = self._head
            try:
                await self._follower.call(self._attend)
            except (LostReply, StorageError) as error:
                _log.info("postgres-follower-cut error=%s", error)
                # An answer that says no will not be another one in a moment.
                self._refuse_asked(error, all_of_them=self._outage.long or isinstance(error, StorageError))
            pause = 0.0 if self._head != head else min(max(2 * pause, 0.02), 1.0)
            await asyncio.sleep(pause)

    async def _attend(self, db: Connection[Record]) -> None:
        """Answers every reason to look at the log, over one connection; ends with it."""
        await db.add_listener(self._channel, self._heard)
        db.add_termination_listener(lambda _db: self._wake.set())
        await db.fetchval(JOIN, LOCK_PRESENT, _lock_of(self._address), timeout=QUERY_S)
        await db.fetchval("SELECT pg_notify($1, $2)", self._channel, JOINED, timeout=QUERY_S)
        self._wake.set()  # What was said before the connection listened is found by looking.
        self._recount = True
        while True:
            await self._wake.wait()
            self._wake.clear()
            asked, self._asked = self._asked, []
            try:
                target = await self._round(db)
                while self._head < target:
                    await self._round(db)
            except BaseException:
                self._asked = asked + self._asked
                raise
            self._outage.note_success()
            for _, answer in asked:
                if not answer.done():
                    answer.set_result(None)
            if self._recount:
                await self._count_peers(db)

    async def _count_peers(self, db: Connection[Record]) -> None:
        """Whether anybody wants to be told; one that has just come is told at once."""
        self._recount = False
        present = await db.fetchval(PRESENT, LOCK_PRESENT, _lock_of(self._address), timeout=QUERY_S)
        if present > self._present:
            self._told = min(self._told, self._written - 1)
        self._present = present
        self._notify()

    async def _round(self, db: Connection[Record]) -> int:
        """Publishes some of what is new; returns how far the store was."""
        if self._quiet:
            # Where nothing was new the last time, there seldom is: the question alone is half the work.
            after = self._head
            [(epoch, head)] = await db.fetch(HEAD, timeout=QUERY_S)
            if epoch == self._identity.epoch and after <= head <= self._head:
                return int(head)
        after, events = self._head, ROUND_EVENTS
        while True:
            rows = await db.fetch(FOLLOW, after, events, ROUND_BYTES, timeout=QUERY_S)
            epoch, head = rows[0][0], int(rows[0][1])
            self._quiet = head == after
            if epoch != self._identity.epoch or head < after:
                await self._greet(db)
                return head
            if rows[0][2] is not None:
                break
            if head <= max(after, self._head):
                return head
            if events == 1:
                if self._head == after:
                    self._lose(head)
                return head
            events = max(events // 8, 1)  # They are more bytes than a round should be, or gone.
        last = rows[-1]["revision"]
        if last - after != len(rows):
            # Compaction has passed this replica by: it was out of reach for longer than history is kept.
            self._lose(head)
            return head
        if last > self._head:  # This replica's own writes may have been told of meanwhile.
            seen = self._head
            self._publish([_event(*row[2:]) for row in rows if row[2] > seen], last)
        return head

    def _publish(self, events: Sequence[Event], revision: int) -> None:
        for event in events:
            if event.entry is not None:
                self._remember(event.entry)
        for event in events[-REMEMBERED_EVENTS:]:
            value = None if event.entry is None else event.entry.value
            self._last.append((event.revision, _mark(event.key, value)))
        self._head = revision
        self._sink(events, revision)

    def _remember(self, entry: Entry) -> None:
        """Keeps the value for the event that follows it on its key, which has it as its previous one."""
        self._recent[entry.revision] = entry.value
        self._recent_bytes += len(entry.value)
        while self._recent_bytes > RECENT_BYTES_MAX:
            self._recent_bytes -= len(self._recent.pop(next(iter(self._recent))))

    def _lose(self, head: int) -> None:
        if head > self._head:
            _log.warning("postgres-history-lost seen=%d head=%d", self._head, head)
            self._head = head
            self._last.clear()
            self._lost(head)

    def _begin_anew(self, epoch: int, head: int) -> None:
        """The store was put back to an earlier state: nothing that was seen of it counts any more."""
        if epoch == self._identity.epoch:
            return
        _log.warning("postgres-epoch epoch=%d seen=%d head=%d", epoch, self._head, head)
        self._identity = Identity(self._identity.id, epoch)
        self._recent.clear()
        self._recent_bytes = 0
        self._last.clear()
        self._written = self._told = self._head = max(self._head, head)
        self._lost(self._head)

    async def _greet(self, db: Connection[Record]) -> None:
        """Looks whether a new connection leads to the same store, with what was seen of it. Raises Unavailable."""
        seen, last = self._head, dict(self._last)
        row = await db.fetchrow(GREET, timeout=QUERY_S)
        assert row is not None, "the table has a row, always"
        if row["id"] != self._identity.id:
            _log.error("postgres-another-store address=%s", self._address.shown)
            raise Unavailable(
                f"{self._address.shown} has another store now: restart the server to take it over"
            )
        if row["format"] > newest_migration():
            _log.error("postgres-newer-format format=%d", row["format"])
            raise Unavailable(
                f"{self._address.shown} was taken over by a newer version: this one must be replaced"
            )
        epoch, head = row["epoch"], row["head"]
        known = self._identity.epoch
        # A backup may be older than epochs that were.
        if epoch < known or (epoch == known and not (head >= seen and await self._has(db, last))):
            beyond = max(seen, head) + JUMP
            await db.execute("SELECT raise_epoch($1, $2, $3)", epoch, known, beyond, timeout=QUERY_S)
            row = await db.fetchrow(GREET, timeout=QUERY_S)
            assert row is not None, "the table has a row, always"
            epoch, head = row["epoch"], row["head"]
        if epoch != self._identity.epoch:
            self._begin_anew(epoch, head)

    async def _has(self, db: Connection[Record], last: Mapping[int, tuple[str, int]]) -> bool:
        """Whether the log has these events. If not, it was put back, and others have written past what was seen since."""
        rows = await db.fetch(TOLD, list(last), timeout=QUERY_S)
        horizon = rows[0]["horizon"]  # Compaction may have taken what is not above.
        found = {row[1]: _mark(row[2], row[3]) for row in rows if row[1] is not None}
        return all(
            found[revision] == mark if revision in found else revision <= horizon
            for revision, mark in last.items()
        )

    def _heard(self, _db: object, pid: int, _channel: str, payload: object) -> None:
        """A replica, perhaps this one, says how far the store has come, or that it is there."""
        if payload == JOINED:
            self._recount = True
            self._wake.set()
            return
        revision = int(str(payload)) if str(payload).isdigit() else 0
        loop = asyncio.get_running_loop()
        # Whoever looks now sees what this replica wrote up to there too.
        self._told = max(self._told, min(revision, self._written))
        self._notified_at = max(self._notified_at, loop.time())
        if revision <= self._head or pid == self._committer:
            return
        if self._committer or loop.time() < self._active_at + BUSY_S:
            loop.call_later(OVERDUE_S, self._look_for, revision)
        else:
            self._wake.set()

    def _look_for(self, revision: int) -> None:
        if self._head < revision:
            self._wake.set()

    def _notify(self) -> None:
        """Tells the other replicas of what was written, soon, unless the next commit does."""
        if (
            self._present > 1
            and self._told < self._written
            and (self._notifying is None or self._notifying.done())
        ):
            self._notifying = self._spawn(self._tell(), "postgres notifier")

    async def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        while self._told < self._written:
            # The next commit may tell of this one too; only one that hangs is not waited for.
            due = self._active_at + BUSY_S if self._committer else self._notified_at + NOTIFY_EVERY_S
            pause = due - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
                continue
            self._notified_at, told = loop.time(), self._written
            try:
                await self._readers.call(
                    lambda db, told=told: db.execute(  # type: ignore[misc]
                        "SELECT pg_notify($1, $2)", self._channel, str(told), timeout=QUERY_S
                    )
                )
            except StorageError:
                return  # They look by themselves, only later.
            self._told = max(self._told, told)

    async def _ask(self) -> None:
        """Returns when the sink has had all that was acknowledged before the call. Raises Unavailable."""
        if self._closed:
            raise Unavailable("the store is closed")
        if self._outage.long:
            raise Unavailable("the database does not answer")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[None] = loop.create_future()
        self._asked.append((loop.time(), answer))
        self._wake.set()
        await answer

    async def _catch_up(self, last: int) -> None:
        """Waits until the sink has this replica's own writes, which others' come before."""
        while self._head < last:
            try:
                await self._ask()
            except Unavailable as error:
                # They are committed all the same; who asks for what is fresh is refused until the sink has them.
                _log.info("postgres-behind-own-writes head=%d last=%d error=%s", self._head, last, error)
                return

    def _refuse_asked(self, error: Exception, *, all_of_them: bool) -> None:
        """Nobody waits for longer than `PATIENCE_S` and the attempt under way."""
        before = asyncio.get_running_loop().time() - PATIENCE_S
        waiting, self._asked = self._asked, []
        for asked in waiting:
            since, answer = asked
            if answer.done():
                continue
            if all_of_them or since < before:
                answer.set_exception(Unavailable(f"the database does not answer: {error}"))
            else:
                self._asked.append(asked)

    def _tick(self) -> None:
        if not self._closed:
            self._recount = True
            self._wake.set()
            asyncio.get_running_loop().call_later(POLL_S, self._tick)

    # Compacting.

    async def _compact(self, db: Connection[Record], horizon: int) -> None:
        if not await db.fetchval("SELECT raise_horizon($1)", horizon, timeout=QUERY_S):
            return
        if not await db.fetchval(
            "SELECT pg_try_advisory_lock($1, $2)", LOCK_COMPACT, _lock_of(self._address), timeout=QUERY_S
        ):
            return  # Another replica is at it, and sees the new horizon.
        gone = 0
        while (step := await db.fetchval("SELECT compact_some($1)", STEP_ROWS, timeout=QUERY_S)) is not None:
            gone += step
            await asyncio.sleep(STEP_PAUSE_S)
        if gone >= VACUUM_ROWS_MIN:
            # So that the space is used again at once, and not when autovacuum comes round to it.
            await db.execute("SET statement_timeout = 0")
            await db.execute("VACUUM log, state")
        await db.execute("DELETE FROM writers WHERE at < now() - interval '1 day'", timeout=QUERY_S)

    # Reading.

    async def _fetch(self, sql: str, *values: object) -> Sequence[Record]:
        return await self._readers.call(lambda db: db.fetch(sql, *values, timeout=READ_S))

    async def _list_past(self, position: str, end: str, limit: int, at: int) -> Page:
        entries: list[Entry] = []
        while True:
            wanted = limit - len(entries) if limit else None
            rows = await self._fetch(PAST, position, end, wanted, at)
            if at < rows[0]["horizon"]:
                raise Compacted(at)
            entries += sorted((Entry(row[4], row[6], row[5]) for row in rows if row[4] is not None), key=_key)
            if wanted is None or rows[0]["places"] < wanted:
                return Page(entries, at, 0, at)
            if len(entries) == limit:
                return Page(entries, at, None, at)
            position = rows[0]["through"]

    def _link(self) -> Link:
        return Link(self._address, self._outage, self._greet)

    def _spawn(self, work: Any, name: str) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _lock_of(address: Address) -> int:
    return zlib.crc32(address.schema.encode()) & 0x7FFFFFFF


def _mark(key: str, value: bytes | None) -> tuple[str, int]:
    """By which an event is known again."""
    return key, -1 if value is None else zlib.crc32(value)


def _key(entry: Entry) -> str:
    return entry.key


def _told_by(reply: Any, batch: _Batch, seen: int) -> list[_Row]:
    """All that came after `seen`, the batch last; nothing where the reply does not have all of it."""
    base = reply["base_revision"]
    keys = reply.get("keys")
    if keys is None or len(keys) != base - seen:
        return []  # It is too much, or compaction has been there; or only the outcome of the batch could be found out.
    rows = list(zip(range(seen + 1, base + 1), keys, reply["previous"], reply["contents"], strict=True))
    for tx, key, value, previous in zip(batch.txs, batch.keys, batch.values, reply["was"], strict=True):
        if tx not in batch.refused:
            base += 1
            rows.append((base, key, previous, value))
    return rows


def _event(
    revision: int, key: str, previous: int, value: bytes | None, before: bytes | None, *, prefix: str = ""
) -> Event:
    if value is None and key.endswith("/"):
        return Event(revision, key if key.startswith(prefix) else prefix, None, dropped=True)
    entry = None if value is None else Entry(key, value, revision)
    if previous <= 0:
        return Event(revision, key, entry)
    if before is not None:
        return Event(revision, key, entry, Entry(key, before, previous))
    return Event(revision, key, entry, lambda: _forgotten(previous))


def _forgotten(revision: int) -> Entry | None:
    raise Compacted(revision)


# Opening.


def migrations() -> list[tuple[int, str, str]]:
    """Number, name and text of every migration that this version knows, in order."""
    found = []
    for file in resources.files(__package__).joinpath("postgres").iterdir():
        number, _, name = file.name.removesuffix(".sql").partition("_")
        if file.name.endswith(".sql"):
            found.append((int(number), name, file.read_text(encoding="utf-8")))
    return sorted(found)


_newest: list[int] = []


def newest_migration() -> int:
    if not _newest:
        _newest.append(migrations()[-1][0])
    return _newest[0]


async def _prepare(db: Connection[Record], address: Address) -> None:
    """Brings the schema up to this version, one replica at a time. Raises StoreOpenError and what asyncpg raises."""
    if db.get_server_version().major < VERSION_MIN:
        raise StoreOpenError(
            f"{address.shown} is PostgreSQL {db.get_server_version().major}: {VERSION_MIN} or later is needed"
        )
    if await db.fetchval("SHOW server_encoding") != "UTF8":
        raise StoreOpenError(f"{address.shown} is not in UTF8: create the database with ENCODING 'UTF8'")
    await db.execute(f"SET lock_timeout = '{MIGRATION_WAIT_S}s'")
    await db.fetchval(
        "SELECT pg_advisory_lock($1, $2)", LOCK_MIGRATE, _lock_of(address), timeout=MIGRATION_WAIT_S
    )
    # The lock goes with the connection, which is only for this.
    if not await db.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname = $1", address.schema):
        await db.execute(f"CREATE SCHEMA {address.schema}")
    if await db.fetchval("SELECT to_regclass($1)", f"{address.schema}.migrations") is None:
        if await db.fetchval("SELECT to_regclass($1)", f"{address.schema}.log") is not None:
            raise StoreOpenError(
                f"schema {address.schema} of {address.shown} belongs to something else: name another with ?schema="
            )
        await db.execute(
            "CREATE TABLE migrations (number integer PRIMARY KEY, name text NOT NULL, at timestamptz NOT NULL DEFAULT now())"
        )
    found = await db.fetchval("SELECT coalesce(max(number), 0) FROM migrations")
    if found > newest_migration():
        raise StoreOpenError(
            f"{address.shown} has format {found}, this version reads up to {newest_migration()}: use the newer"
            " Clusterling that migrated it"
        )
    for number, name, text in migrations():
        if number > found:
            async with db.transaction():
                await db.execute(text, timeout=READ_S)
                await db.execute("INSERT INTO migrations (number, name) VALUES ($1, $2)", number, name)
            _log.info("postgres-migrated number=%d name=%s", number, name)


async def start(address: Address) -> PostgresBackend:
    """A backend over the database, whose tables are made where they are missing. Raises StoreOpenError."""
    try:
        db = await connect(address, seconds=2 * CONNECT_S)
        try:
            await _prepare(db, address)
            row = await db.fetchrow(GREET)
            assert row is not None, "the table has a row, always"
        finally:
            await db.close(timeout=CONNECT_S)
    except Exception as error:
        raise unopenable(address, error) from error
    backend = PostgresBackend(address, Identity(row["id"], row["epoch"]), row["head"])
    backend.begin()
    return backend


@asynccontextmanager
async def open(url: str, *, password: str | None = None) -> AsyncIterator[BackedStore]:  # noqa: A001
    """A complete store in the database that `url` names, shared with every other replica that opens it.

    `postgres://USER@HOST:PORT/DATABASE?schema=clusterling&sslmode=verify-full`. Raises StoreOpenError.
    """
    async with serve(await start(parse(url, password))) as store:
        yield store
