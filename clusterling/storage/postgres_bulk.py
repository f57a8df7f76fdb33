"""A whole store in PostgreSQL at once.

Reading is one transaction that sees one state; writing a copy is one transaction too, which holds the counter's row:
until it is committed nobody sees any of it, and nobody else can write.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final

from clusterling.storage.backend import Drops, prefix_end
from clusterling.storage.bulk import COPIED_KEY, IN_SQL, PAGE_BYTES, PAGE_RECORDS, Figures, Finding, Record
from clusterling.storage.postgres import (
    GREET,
    LOCK_PRESENT,
    PRESENT,
    _lock_of,
    _prepare,
    newest_migration,
)
from clusterling.storage.postgres_links import CONNECT_S, Address, connect, parse, translated, unopenable
from clusterling.storage.store import Identity, StoreOpenError, Unavailable

if TYPE_CHECKING:
    from asyncpg import Connection
    from asyncpg import Record as Row

FINDINGS_MAX: Final = 100  # Of one question.
EVER: Final = 1 << 62
LEAVING_S: Final = 1.0  # A database sees a moment later that a server has gone.

# What is after $1, up to so many rows of so many bytes together and one more. The rows are chosen before they are
# joined: a planner that knows nothing of new tables yet would join everything first, for each page. By revision, rows
# that are only history come along, without a value, so that the next page begins after them.
_BY_KEY: Final = """
SELECT r.key, r.revision, r.expires_at, r.value FROM (
    SELECT s.*, l.value, sum(octet_length(l.value)) OVER (ORDER BY s.key) - octet_length(l.value) AS bytes
    FROM (
        SELECT * FROM state p WHERE p.key > $1 AND p.key < $2 AND p.live ORDER BY p.key LIMIT $3
    ) s JOIN log l ON l.revision = s.revision
) r WHERE r.bytes < $4 ORDER BY r.key
"""
_BY_REVISION: Final = """
SELECT r.key, r.revision, r.expires_at, CASE WHEN r.current THEN r.value END AS value FROM (
    SELECT l.*, s.expires_at, s.key IS NOT NULL AS current,
        sum(coalesce(octet_length(l.value), 0)) OVER (ORDER BY l.revision) - coalesce(octet_length(l.value), 0) AS bytes
    FROM (
        SELECT * FROM log p WHERE p.revision > $1 ORDER BY p.revision LIMIT $2
    ) l LEFT JOIN state s ON s.key = l.key AND s.revision = l.revision AND s.live
) r WHERE r.bytes < $3 ORDER BY r.revision
"""

_QUESTIONS: Final = (
    *IN_SQL,
    (
        "log-not-swept",
        "the log keeps a write of it that is neither current nor history",
        "SELECT l.key FROM log l LEFT JOIN state s ON s.key = l.key AND s.revision = l.revision"
        " LEFT JOIN (SELECT abs(h.previous) AS revision FROM log h WHERE h.revision >= (SELECT swept FROM compaction)) n"
        " ON n.revision = l.revision"
        " WHERE l.revision < (SELECT swept FROM compaction) AND s.revision IS NULL AND n.revision IS NULL"
        " AND right(l.key, 1) <> '/'",
    ),
    (
        "log-ahead",
        "a write of it is beyond the store's counter",
        "SELECT key FROM log WHERE revision > (SELECT head FROM clock)",
    ),
    (
        "usage",
        "what is counted of it is not what is there",
        "SELECT coalesce(nullif(collection, ''), '-') FROM (SELECT * FROM count_usage() UNION ALL"
        " SELECT collection, -objects, -bytes FROM usage) d"
        " GROUP BY collection HAVING sum(objects) <> 0 OR sum(bytes) <> 0",
    ),
)

# What questions about everything need, and those by index must not use (`postgres_links.connect`).
_BY_SCANNING: Final = ("enable_seqscan", "enable_hashjoin", "enable_mergejoin")

_COUNTERS: Final = """
SELECT c.head, c.horizon, c.drops, p.swept, (SELECT count(*) FROM drops) AS found_drops,
    (SELECT count(*) FROM log l WHERE l.revision > c.horizon) AS kept
FROM clock c, compaction p
"""


class PostgresSnapshot:
    """One transaction, used by one caller at a time."""

    def __init__(self, address: Address, db: Connection[Row], row: Row, drops: Drops) -> None:
        self.address = address.shown
        self._address = address
        self._db = db
        self._drops = drops
        self.identity = Identity(row["id"], row["epoch"])
        self.head: int = row["head"]

    async def served(self) -> bool | None:
        [row] = await self._fetch(PRESENT, LOCK_PRESENT, _lock_of(self._address))
        return bool(row[0])

    async def count(self) -> int:
        if not self._drops:
            [row] = await self._fetch("SELECT count(*) FROM state WHERE live")
            return int(row[0])
        [row] = await self._fetch(
            "SELECT count(*) FROM state s WHERE s.live AND s.revision > dropped_at(s.key)"
        )
        return int(row[0])

    async def by_key(self, prefix: str = "") -> AsyncIterator[Sequence[Record]]:
        position, end = prefix, prefix_end(prefix)
        while rows := await self._fetch(_BY_KEY, position, end, PAGE_RECORDS, PAGE_BYTES):
            position = rows[-1]["key"]
            if page := self._there(rows):
                yield page

    async def by_revision(self) -> AsyncIterator[Sequence[Record]]:
        position = 0
        while rows := await self._fetch(_BY_REVISION, position, PAGE_RECORDS, PAGE_BYTES):
            position = rows[-1]["revision"]
            if page := self._there(rows):
                yield page

    async def findings(self) -> AsyncIterator[Finding]:
        for setting in _BY_SCANNING:
            await self._fetch(f"SET {setting} = on")
        counted = await self._fetch("SELECT to_regclass($1)", f"{self._address.schema}.usage")
        for kind, what, sql in _QUESTIONS:
            if kind == "usage" and counted[0][0] is None:
                continue  # Of an older version, which keeps no totals; the first server that opens it counts.
            for row in await self._fetch(f"{sql} LIMIT {FINDINGS_MAX}"):
                yield Finding(row[0], kind, what)
        [row] = await self._fetch(_COUNTERS)
        for setting in _BY_SCANNING:
            await self._fetch(f"SET {setting} = off")
        if not 1 <= row["swept"] <= row["horizon"] <= row["head"]:
            what = f"swept {row['swept']}, horizon {row['horizon']} and head {row['head']} must not fall"
            yield Finding("clock", "counters", what)
        if row["drops"] != row["found_drops"]:
            what = f"{row['drops']} drops are counted, and {row['found_drops']} are there"
            yield Finding("clock", "counters", what)
        if row["kept"] != row["head"] - row["horizon"]:
            what = f"{row['kept']} of the {row['head'] - row['horizon']} writes since the horizon are there"
            yield Finding("log", "history-gap", what)

    async def ailing(self) -> None:
        return None

    async def clock(self) -> float | None:
        [row] = await self._fetch("SELECT extract(epoch FROM clock_timestamp())::float8")
        return float(row[0])

    async def figures(self) -> Figures:
        [row] = await self._fetch(
            "SELECT c.horizon, (SELECT count(*) FROM log) AS log_rows,"
            " (SELECT sum(pg_total_relation_size(t.oid)) FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace"
            " WHERE n.nspname = $1 AND t.relkind = 'r') AS bytes FROM clock c",
            self._address.schema,
        )
        return Figures(row["horizon"], row["log_rows"], int(row["bytes"]), None)

    def _there(self, rows: Sequence[Row]) -> list[Record]:
        records = [Record(*row) for row in rows if row["value"] is not None]
        if not self._drops:
            return records
        return [one for one in records if not self._drops.hides(one.key, written=one.revision, at=EVER)]

    async def _fetch(self, sql: str, *values: object) -> Sequence[Row]:
        with _translated(self.address):
            return await self._db.fetch(sql, *values)


class PostgresVessel:
    """Tables that are there and empty, filled in one transaction."""

    keeps_revisions = True

    def __init__(self, address: Address, db: Connection[Row]) -> None:
        self.address = address.shown
        self._db = db
        self._floor = 0
        self._transaction: Any = None

    async def begin(self, floor: int) -> None:
        self._floor = floor
        with _translated(self.address):
            self._transaction = self._db.transaction()
            await self._transaction.start()
            await self._db.execute("SELECT FROM clock FOR UPDATE")
            await _check_empty(self._db, self.address)

    async def put(self, records: Sequence[Record]) -> None:
        with _translated(self.address):
            await self._db.copy_records_to_table(
                "log",
                columns=["revision", "previous", "key", "value"],
                records=[(one.revision, 0, one.key, one.value) for one in records],
            )
            await self._db.copy_records_to_table(
                "state",
                columns=["key", "revision", "live", "expires_at"],
                records=[(one.key, one.revision, True, one.expires_at) for one in records],
            )

    async def contents(self) -> AsyncIterator[Sequence[Record]]:
        position = 0
        while True:
            with _translated(self.address):
                rows = await self._db.fetch(_BY_REVISION, position, PAGE_RECORDS, PAGE_BYTES)
            if not rows:
                return
            position = rows[-1]["revision"]
            yield [Record(*row) for row in rows]

    async def finish(self, identity: Identity, mark: bytes) -> int:
        head = self._floor + 1
        await self.put([Record(COPIED_KEY, head, None, mark)])
        with _translated(self.address):
            await self._db.execute(
                "UPDATE clock SET id = $1, epoch = $2, head = $3, horizon = $3",
                identity.id,
                identity.epoch,
                head,
            )
            await self._db.execute("UPDATE compaction SET swept = $1", head)
            await self._transaction.commit()
        self._transaction = None
        with _translated(self.address):
            await self._db.execute("ANALYZE log, state")
        return head


async def _check_empty(db: Connection[Row], shown: str) -> None:
    row = await db.fetchrow("SELECT c.head, EXISTS (SELECT FROM log) AS written FROM clock c")
    if row is None or row["head"] != 1 or row["written"]:
        raise StoreOpenError(
            f"{shown} is not empty: choose another database, or another schema with ?schema="
        )


@contextmanager
def _translated(shown: str) -> Iterator[None]:
    """The driver's errors as StorageErrors: with one connection and one transaction, all of them end it."""
    import asyncpg

    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise translated(error) or Unavailable(f"{shown} has gone away: {reason}") from error


async def _opened(address: Address) -> Connection[Row]:
    """A connection for long questions. Raises StoreOpenError."""
    try:
        db = await connect(address, seconds=2 * CONNECT_S)
    except Exception as error:
        raise unopenable(address, error) from error
    try:
        for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
            await db.execute(f"SET {setting} = 0")
    except Exception as error:
        db.terminate()
        raise unopenable(address, error) from error
    return db


async def _leave(db: Connection[Row]) -> None:
    try:
        await db.close(timeout=CONNECT_S)
    except Exception:  # noqa: BLE001 - it is gone, one way or the other
        db.terminate()


@asynccontextmanager
async def snapshot(url: str, *, password: str | None = None) -> AsyncIterator[PostgresSnapshot]:
    address = parse(url, password)
    db = await _opened(address)
    try:
        with _translated(address.shown):
            if await db.fetchval("SELECT to_regclass($1)", f"{address.schema}.migrations") is None:
                raise StoreOpenError(f"{address.shown} has no store in the schema {address.schema}")
            await db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            row = await db.fetchrow(GREET)
            assert row is not None, "the table has a row, always"
            if row["format"] > newest_migration():
                raise StoreOpenError(
                    f"{address.shown} has format {row['format']}, this version reads up to {newest_migration()}:"
                    " use the newer Clusterling that migrated it"
                )
            drops = Drops()
            for prefix, revision in await db.fetch("SELECT prefix, revision FROM drops"):
                drops.add(prefix, revision)
        yield PostgresSnapshot(address, db, row, drops)
    finally:
        await _leave(db)


@asynccontextmanager
async def vessel(url: str, *, password: str | None = None) -> AsyncIterator[PostgresVessel]:
    address = parse(url, password)
    db = await _opened(address)
    try:
        try:
            await _prepare(db, address)
            await db.execute("SET lock_timeout = 0")
            await db.execute("SELECT pg_advisory_unlock_all()")
            await _check_empty(db, address.shown)
        except Exception as error:
            raise unopenable(address, error) from error
        yield PostgresVessel(address, db)
    finally:
        # What has not been committed is gone with the connection.
        await _leave(db)


async def reclaim(url: str, *, password: str | None = None) -> None:
    """VACUUM: dead rows become space for new ones, and free pages at a table's end go back to the disk.

    Where no server is at work the tables are written anew (VACUUM FULL), which gives back all of it and locks them.
    """
    address = parse(url, password)
    db = await _opened(address)
    try:
        with _translated(address.shown):
            until = time.monotonic() + LEAVING_S
            while present := await db.fetchval(PRESENT, LOCK_PRESENT, _lock_of(address)):
                if time.monotonic() > until:
                    break
                await asyncio.sleep(0.05)
            how = "ANALYZE" if present else "FULL, ANALYZE"
            await db.execute(f"VACUUM ({how}) log, state, usage, drops, clock, compaction, writers")
    finally:
        await _leave(db)
