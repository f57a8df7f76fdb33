"""The default backend: one SQLite file in WAL mode, synced at every commit.

One thread writes, batch by batch; compare-and-set happens in SQLite's own transaction, so memory can never disagree
with the file. One thread reads lists; single keys are read on the event loop, where a few microseconds from
the page cache cost less than a change of threads. Readers never wait for the writer, nor it for them.

The layout is in `sqlite.sql`: the log has every value once, `state` says where each key's newest row is. A list at
an older revision starts from `state` and follows each key's chain back, so it costs what has changed since.

Rules of this file: apsw's errors leave it only as StorageErrors; what the writer's thread remembers (`_last`,
`_drops`) changes only after a commit; the sink is called on the loop, in the order of the commits.
"""

# ruff: noqa: S608 - what is put together into SQL is question marks; values are bound.

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import queue
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from importlib import resources
from pathlib import Path
from typing import Any, Final, TypeVar

import apsw

from clusterling.storage.backed import BackedStore, serve
from clusterling.storage.backend import (
    Committed,
    Drops,
    Lost,
    Sink,
    Transaction,
    prefix_end,
    prefixes,
    refusal,
)
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
    StoreOpenError,
    Unavailable,
    UnknownOutcome,
)

FORMAT: Final = 1  # Of the tables. Raised when an older version of this file could not work with them.
APPLICATION_ID: Final = 0x436C7374  # "Clst", in the file's header: this file is ours.

STEP_ROWS: Final = 500  # Compaction gives way to writers after so many.
WRITER_CACHE_KIB: Final = 8192
READER_CACHE_KIB: Final = 4096
CHECKPOINT_PAGES: Final = 4000
CHECKED_BYTES_MAX: Final = 8 << 20  # Files up to this size are checked whole when opened: some 20 ms.
VACUUM_FREE_PAGES_MIN: Final = 1024  # So much stays free for the next writes.
VACUUM_STEP_PAGES: Final = 256
BUSY_MS: Final = 2000  # Another process may look into the file (a backup); it may not keep it.
ANY_REVISION: Final = (1 << 63) - 1

VERSION: Final = apsw.sqlite_lib_version()

_log = logging.getLogger(__name__)

T = TypeVar("T")
# revision, key, previous, value
_LogRow = tuple[int, str, int, bytes | None]
# key, revision, whether it is only reached by a negative `previous`, value
_Row = tuple[str, int, int, bytes]
# key, revision, live, expires_at
_StateRow = tuple[str, int, int, int | None]


class _Thread:
    """A thread that does one thing after the other for the event loop it was made on."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    async def call(self, work: Callable[[], T], then: Callable[[T], None] | None = None) -> T:
        """Does `work` in the thread, then `then` on the loop, also when nobody waits for the result any more."""
        done: asyncio.Future[T] = self._loop.create_future()

        def settle(result: T) -> None:
            if then is not None:
                then(result)
            if not done.done():
                done.set_result(result)

        def fail(error: BaseException) -> None:
            if not done.done():
                done.set_exception(error)

        def job() -> None:
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - whatever it is belongs to who waits for it
                self._loop.call_soon_threadsafe(fail, error)
            else:
                self._loop.call_soon_threadsafe(settle, result)

        self._jobs.put(job)
        return await done

    async def stop(self) -> None:
        """Returns when all that was asked before has been done."""
        await self.call(lambda: None)
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class SqliteBackend:
    """Made by `connect`; the parts are `_Writer` and `_Reader`, each used in one thread only."""

    def __init__(
        self,
        lock: _Lock,
        writer: _Writer,
        writing: _Thread,
        listing: _Reader,
        reading: _Thread,
        point: _Reader,
    ) -> None:
        self._lock = lock
        self._writer = writer
        self._writing = writing
        self._listing = listing
        self._reading = reading
        self._point = point
        self._head = writer.last
        self._sink: Sink = lambda _events, _revision: None
        self._compacting = asyncio.Lock()

    def follow(self, sink: Sink, lost: Lost) -> None:
        self._sink = sink

    async def commit(self, transactions: Sequence[Transaction]) -> Sequence[Committed | StorageError]:
        outcomes, _ = await self._writing.call(lambda: self._writer.commit(transactions), self._publish)
        return outcomes

    async def get(self, key: str) -> Entry | None:
        return self._point.get(key)

    async def list(self, prefix: str, *, after: str, limit: int, revision: int) -> Page:
        return await self._reading.call(lambda: self._listing.list(prefix, after, limit, revision))

    async def count(self, prefix: str) -> int:
        return await self._reading.call(lambda: self._listing.count(prefix))

    async def changes(self, prefix: str, *, after: int, through: int, limit: int) -> Sequence[Event]:
        rows = await self._reading.call(lambda: self._listing.changes(prefix, after, through, limit))
        return [self._event(row, prefix) for row in rows]

    def head(self) -> int:
        return self._head

    async def fresh(self) -> int:
        return self._head

    async def compact(self, horizon: int) -> None:
        async with self._compacting:
            if not await self._writing.call(lambda: self._writer.raise_horizon(horizon)):
                return
            while await self._writing.call(self._writer.compact_some):
                pass
            while await self._writing.call(self._writer.vacuum_some):
                pass

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        await self._writing.call(lambda: self._writer.drop(prefix, guards), self._publish_drop)

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        return await self._reading.call(lambda: self._listing.expired(now, limit))

    async def identity(self) -> Identity:
        return self._writer.identity

    async def close(self) -> None:
        await self._reading.stop()
        self._listing.close()
        self._point.close()
        with contextlib.suppress(StorageError):
            await self._writing.call(self._writer.close)
        await self._writing.stop()
        self._lock.release()

    def _publish(self, committed: tuple[Sequence[Committed | StorageError], Sequence[_LogRow]]) -> None:
        rows = committed[1]
        if rows:
            self._head = rows[-1][0]
            self._sink([self._event(row, "") for row in rows], self._head)

    def _publish_drop(self, row: _LogRow | None) -> None:
        if row is not None:
            self._head = row[0]
            self._sink([self._event(row, "")], self._head)

    def _event(self, row: _LogRow, prefix: str) -> Event:
        revision, key, previous, value = row
        if value is None and key.endswith("/"):
            return Event(revision, key if key.startswith(prefix) else prefix, None, dropped=True)
        entry = None if value is None else Entry(key, value, revision)
        if previous <= 0:
            return Event(revision, key, entry)
        return Event(revision, key, entry, lambda: self._point.at(key, previous))


class _Lock:
    """The file `lock` beside the store, held while it is open. The kernel lets go of it when the process dies."""

    def __init__(self, path: Path) -> None:
        directory = path.parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(directory, error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip()
            os.close(self._file)
            if error.errno not in {errno.EWOULDBLOCK, errno.EACCES}:
                raise _unusable(directory, error) from error
            whose = f"process {holder}" if holder else "another process"
            raise StoreOpenError(
                f"{directory} is in use by {whose}: stop that server or choose another data directory"
            ) from error
        with contextlib.suppress(
            OSError
        ):  # Only for the message above: a full disk must not keep a server from reading.
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, str(os.getpid()).encode(), 0)

    def release(self) -> None:
        os.close(self._file)


class _Reader:
    """Reads over a connection of its own. Each method sees one snapshot."""

    def __init__(self, path: Path) -> None:
        with _translated():
            self._db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
            self._db.set_busy_timeout(BUSY_MS)
            self._db.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")

    def close(self) -> None:
        self._db.close()

    def get(self, key: str) -> Entry | None:
        with _translated():
            row = self._db.execute(
                "SELECT log.revision, log.value, EXISTS (SELECT 1 FROM drops) FROM state"
                " CROSS JOIN log ON log.revision = state.revision WHERE state.key = ? AND state.live",
                (key,),
            ).fetchone()
            if row is None:
                return None
            revision, value, drops = row
            if drops and self._drops(key).hides(key, written=revision, at=ANY_REVISION):
                return None
            return Entry(key, value, revision)

    def at(self, key: str, revision: int) -> Entry:
        """The value that the key had from `revision` on. Raises Compacted."""
        with _translated():
            row = self._db.execute("SELECT value FROM log WHERE revision = ?", (revision,)).fetchone()
        if row is None or row[0] is None:
            raise Compacted(revision)
        return Entry(key, row[0], revision)

    def list(self, prefix: str, after: str, limit: int, revision: int) -> Page:
        with _translated(), self._snapshot() as head:
            at = revision or head
            if at > head:
                raise FutureRevision(revision, head)
            horizon = self._horizon()
            if at < horizon:
                raise Compacted(revision)
            drops = self._drops(prefix)
            floor = drops.floor(prefix, at=at)
            partly = drops.within(prefix)
            now = at == head
            entries: list[Entry] = []
            position = max(after, prefix)
            while True:
                wanted = limit - len(entries) if limit else -1
                rows, position = self._rows(position, prefix_end(prefix), floor, None if now else at, wanted)
                entries += _visible(rows, drops, at)
                if not position or len(entries) == limit:
                    break
            remaining: int | None = 0
            if limit and len(entries) == limit:
                remaining = (
                    self._remaining(entries[-1].key, prefix_end(prefix), floor)
                    if now and not partly
                    else None
                )
            last_change = at
            if now and not partly:
                last_change = min(at, max(self._last_change(prefix), floor, horizon))
            return Page(entries, at, remaining, last_change)

    def count(self, prefix: str) -> int:
        with _translated(), self._snapshot() as head:
            drops = self._drops(prefix)
            floor = drops.floor(prefix, at=head)
            if not drops.within(prefix):
                return self._remaining(prefix, prefix_end(prefix), floor)
            rows = self._db.execute(
                "SELECT key, revision FROM state WHERE key > ? AND key < ? AND live AND revision > ?",
                (prefix, prefix_end(prefix), floor),
            )
            return sum(not drops.hides(key, written=revision, at=head) for key, revision in rows)

    def changes(self, prefix: str, after: int, through: int, limit: int) -> Sequence[_LogRow]:
        with _translated(), self._snapshot():
            if after < self._horizon() - 1:
                raise Compacted(after)
            above = list(prefixes(prefix))
            return _fetch(
                self._db,
                "SELECT revision, key, previous, value FROM log WHERE revision > ? AND revision <= ?"
                f" AND (key > ? AND key < ? OR value IS NULL AND key IN ({_marks(len(above))}))"
                " ORDER BY revision LIMIT ?",
                (after, through, prefix, prefix_end(prefix), *above, limit),
            )

    def expired(self, now: int, limit: int) -> Sequence[Entry]:
        with _translated(), self._snapshot() as head:
            drops = self._drops("")
            rows = self._db.execute(
                "SELECT state.key, state.revision, log.value FROM state"
                " CROSS JOIN log ON log.revision = state.revision"
                " WHERE state.expires_at <= ? AND state.expires_at IS NOT NULL AND state.live"
                " ORDER BY state.expires_at",
                (now,),
            )
            found: list[Entry] = []
            for key, revision, value in rows:
                if len(found) == limit:
                    break
                if not drops.hides(key, written=revision, at=head):
                    found.append(Entry(key, value, revision))
            return found

    @contextmanager
    def _snapshot(self) -> Iterator[int]:
        """Several statements that see one state; yields its revision."""
        self._db.execute("BEGIN")
        try:
            [(head,)] = self._db.execute("SELECT max(revision) FROM log")
            yield head or 1
        finally:
            self._db.execute("ROLLBACK")

    def _horizon(self) -> int:
        [(horizon,)] = self._db.execute("SELECT value FROM meta WHERE name = 'horizon'")
        return int(horizon)

    def _drops(self, prefix: str) -> Drops:
        """What has been dropped of the range or around it, and not been swept."""
        drops = Drops()
        above = list(prefixes(prefix))
        for dropped, revision in self._db.execute(
            f"SELECT prefix, revision FROM drops WHERE prefix IN ({_marks(len(above))}) OR prefix > ? AND prefix < ?",
            (*above, prefix, prefix_end(prefix) if prefix.endswith("/") or not prefix else prefix),
        ):
            drops.add(dropped, revision)
        return drops

    def _rows(
        self, after: str, before: str, floor: int, at: int | None, limit: int
    ) -> tuple[Sequence[_Row], str]:
        """Up to `limit` rows in key order (-1: all), and after which key to go on, "" where there is no more.

        `at` None is now. There may be fewer rows than asked for and still more to come.
        """
        if at is None:
            rows = _fetch(
                self._db,
                "SELECT state.key, state.revision, 0, log.value FROM state"
                " CROSS JOIN log ON log.revision = state.revision"
                " WHERE state.key > ? AND state.key < ? AND state.live AND state.revision > ?"
                " ORDER BY state.key LIMIT ?",
                (after, before, floor, limit),
            )
            return rows, rows[-1][0] if len(rows) == limit else ""
        # Every key of the past still has a place in `state`, so as many places hold at most so many rows.
        through = ""
        if limit > 0:
            last = _fetch(
                self._db,
                "SELECT key FROM state WHERE key > ? AND key < ? ORDER BY key LIMIT 1 OFFSET ?",
                (after, before, limit - 1),
            )
            if last:
                through = last[0][0]
                before = through + "\0"  # The next string of all.
        rows = _fetch(
            self._db,
            "WITH RECURSIVE past(key, revision, detached) AS ("
            " SELECT key, revision, 0 FROM state WHERE key > :after AND key < :before"
            " UNION ALL"
            " SELECT past.key, abs(log.previous), log.previous < 0 FROM past"
            " CROSS JOIN log ON log.revision = past.revision WHERE past.revision > :at AND log.previous <> 0)"
            " SELECT past.key, past.revision, past.detached, log.value FROM past"
            " CROSS JOIN log ON log.revision = past.revision"
            " WHERE past.revision <= :at AND past.revision > :floor AND log.value IS NOT NULL",
            {"after": after, "before": before, "at": at, "floor": floor},
        )
        return sorted(rows), through

    def _remaining(self, after: str, before: str, floor: int) -> int:
        [(count,)] = self._db.execute(
            "SELECT count(*) FROM state WHERE key > ? AND key < ? AND live AND revision > ?",
            (after, before, floor),
        )
        return int(count)

    def _last_change(self, prefix: str) -> int:
        [(revision,)] = self._db.execute(
            "SELECT max(revision) FROM state WHERE key > ? AND key < ?", (prefix, prefix_end(prefix))
        )
        return int(revision or 0)


def _visible(rows: Sequence[_Row], drops: Drops, at: int) -> list[Entry]:
    """Rows that no drop hides. One reached past a drop that has been swept was dropped before any `at` still asked."""
    if not drops and not any(detached for _, _, detached, _ in rows):
        return [Entry(key, value, revision) for key, revision, _, value in rows]
    return [
        Entry(key, value, revision)
        for key, revision, detached, value in rows
        if not drops.hides(key, written=revision, at=at)
        and (not detached or drops.hides(key, written=revision, at=ANY_REVISION))
    ]


class _Writer:
    """The one connection that writes."""

    def __init__(self, path: Path, *, bytes_max: int) -> None:
        self._path = path
        try:
            self._db = self._open(bytes_max)
        except apsw.Error as error:
            raise _unopenable(path, error) from error
        try:
            self._owner = secrets.token_hex(8)
            with self._transaction(own=False):
                self._db.execute("UPDATE meta SET value = ? WHERE name = 'owner'", (self._owner,))
            self.identity = Identity(str(self._meta("id")), int(self._meta("epoch")))
            [(last,)] = self._db.execute("SELECT max(revision) FROM log")
            self.last = int(last or 1)
            self._drops = Drops()
            for prefix, revision in self._db.execute("SELECT prefix, revision FROM drops"):
                self._drops.add(prefix, revision)
        except (apsw.Error, StorageError) as error:
            self._db.close()
            raise _unopenable(path, error) from error

    def close(self) -> None:
        with _translated():
            self._db.close()

    def commit(
        self, transactions: Sequence[Transaction]
    ) -> tuple[Sequence[Committed | StorageError], Sequence[_LogRow]]:
        """An outcome for each transaction, and the rows of the log that were added."""
        outcomes: list[Committed | StorageError] = []
        log: list[_LogRow] = []
        state: dict[str, _StateRow] = {}
        last = self.last
        with self._transaction():
            newest = self._newest(transactions)

            def revision_of(key: str) -> int:
                revision = newest.get(key, ABSENT)
                return max(revision, ABSENT)

            for transaction in transactions:
                refused = refusal(transaction, revision_of)
                if refused is not None:
                    outcomes.append(refused)
                    continue
                first = last + 1
                for op in transaction.ops:
                    last += 1
                    log.append((last, op.key, newest.get(op.key, 0), op.value))
                    newest[op.key] = last if op.value is not None else -last
                    state[op.key] = _state_row(op, last)
                outcomes.append(Committed(range(first, last + 1)))
            if log:
                self._insert(log, list(state.values()))
        self.last = last
        return outcomes, log

    def drop(self, prefix: str, guards: Sequence[Guard]) -> _LogRow | None:
        with self._transaction():
            guarding = Transaction((), guards)
            newest = self._newest([guarding])
            refused = refusal(guarding, lambda key: max(newest.get(key, ABSENT), ABSENT))
            if refused is not None:
                raise refused
            floor = self._drops.floor(prefix, at=self.last)
            rows = self._db.execute(
                "SELECT key, revision FROM state WHERE key > ? AND key < ? AND live AND revision > ?",
                (prefix, prefix_end(prefix), floor),
            )
            if all(self._drops.hides(key, written=revision, at=self.last) for key, revision in rows):
                return None
            row: _LogRow = (self.last + 1, prefix, 0, None)
            self._db.execute("INSERT INTO log VALUES (?, ?, ?, ?)", row)
            self._db.execute("INSERT INTO drops VALUES (?, ?)", (prefix, row[0]))
        self.last = row[0]
        self._drops.add(prefix, row[0])
        return row

    def raise_horizon(self, horizon: int) -> bool:
        """Whether there is anything to compact."""
        horizon = min(horizon, self.last)
        with self._transaction():
            if horizon > int(self._meta("horizon")):
                self._set_meta("horizon", horizon)
            return int(self._meta("swept")) < int(self._meta("horizon"))

    def compact_some(self) -> bool:
        """Forgets a bounded part of what is below the horizon; whether there is more."""
        swept_drop: tuple[str, int] | None = None
        with self._transaction():
            horizon = int(self._meta("horizon"))
            rows = _fetch(
                self._db,
                "SELECT revision, key, previous, value IS NULL FROM log"
                " WHERE revision >= ? AND revision < ? ORDER BY revision LIMIT ?",
                (self._meta("swept"), horizon, STEP_ROWS),
            )
            swept = horizon
            superseded: list[int] = []
            for revision, key, previous, gone in rows:
                if gone and key.endswith("/"):
                    # Its range takes steps of its own; the next step goes on from here.
                    swept = revision
                    if not self._sweep_some(key, revision):
                        swept_drop, swept = (key, revision), revision + 1
                        superseded.append(revision)
                    break
                if previous:
                    superseded.append(abs(previous))
                if gone:
                    superseded.append(revision)
                    self._db.execute("DELETE FROM state WHERE key = ? AND revision = ?", (key, revision))
            else:
                if len(rows) == STEP_ROWS:
                    swept = rows[-1][0] + 1
            self._delete_log(superseded)
            self._set_meta("swept", swept)
        if swept_drop is not None:
            self._drops.remove(*swept_drop)
        return swept < horizon

    def vacuum_some(self) -> bool:
        """Gives a bounded number of free pages back to the file system; whether there is more."""
        with _translated():
            [(free,)] = self._db.execute("PRAGMA freelist_count")
            [(pages,)] = self._db.execute("PRAGMA page_count")
            if free < max(VACUUM_FREE_PAGES_MIN, pages // 4) + VACUUM_STEP_PAGES:
                return False
            self._db.execute(f"PRAGMA incremental_vacuum({VACUUM_STEP_PAGES})").fetchall()
            return True

    def _open(self, bytes_max: int) -> apsw.Connection:
        new = not self._path.exists() or self._path.stat().st_size == 0
        if new:
            self._path.touch(mode=0o600)  # SQLite gives its companions the mode of the file.
        db = apsw.Connection(str(self._path), statementcachesize=500)
        try:
            db.set_busy_timeout(BUSY_MS)
            if new:
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")
            _check_ours(db, self._path, new=new)
            [(mode,)] = db.execute("PRAGMA journal_mode = WAL")
            if mode != "wal":
                raise StoreOpenError(
                    f"{self._path} is on a file system without shared memory: use a local disk"
                )
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA temp_store = MEMORY")
            db.execute(f"PRAGMA cache_size = -{WRITER_CACHE_KIB}")
            db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}").fetchall()
            db.execute(f"PRAGMA journal_size_limit = {64 << 20}").fetchall()
            if new:
                _create(db)
            _check_format(db, self._path)
            if bytes_max:
                [(page_bytes,)] = db.execute("PRAGMA page_size")
                db.execute(f"PRAGMA max_page_count = {bytes_max // page_bytes}").fetchall()
        except BaseException:
            db.close()
            raise
        return db

    @contextmanager
    def _transaction(self, *, own: bool = True) -> Iterator[None]:
        """All or nothing, and durable when it ends. Raises Unavailable or UnknownOutcome, nothing else of its own."""
        try:
            with self._unguarded_transaction(own=own):
                yield
        except Unavailable as error:
            if isinstance(error.__cause__, apsw.FullError):
                # What the WAL repeats of the file may be the space that is missing.
                with contextlib.suppress(apsw.Error):
                    self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            raise

    @contextmanager
    def _unguarded_transaction(self, *, own: bool) -> Iterator[None]:
        with _translated():
            self._db.execute("BEGIN IMMEDIATE")
        try:
            with _translated():
                if own and self._meta("owner") != self._owner:
                    raise Unavailable(f"{self._path} has been taken over by another server")
                yield
        except BaseException:
            self._roll_back()
            raise
        try:
            self._db.execute("COMMIT")
        except apsw.Error as error:
            self._roll_back()
            raise self._uncommitted(error) from error

    def _roll_back(self) -> None:
        if self._db.in_transaction:
            with contextlib.suppress(apsw.Error):
                self._db.execute("ROLLBACK")

    def _uncommitted(self, error: apsw.Error) -> StorageError:
        """What a failed COMMIT means.

        When the disk is full or the file busy, the frame that would have committed was not written. After another
        error, such as a failed sync, it may be in the WAL without SQLite counting on it, and come to life after a
        crash; a later commit in its place settles that, and if there can be none, nobody knows.
        """
        if isinstance(error, apsw.FullError | apsw.BusyError):
            return _translate(error)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._set_meta("owner", self._owner)
            self._db.execute("COMMIT")
        except apsw.Error:
            self._roll_back()
            return UnknownOutcome(f"the commit failed: {error}")
        return _translate(error)

    def _newest(self, transactions: Sequence[Transaction]) -> dict[str, int]:
        """Of every key named: its newest revision, negative where that is no value any more."""
        keys = [op.key for transaction in transactions for op in transaction.ops]
        keys += [guard.key for transaction in transactions for guard in transaction.guards]
        keys = list(dict.fromkeys(keys))  # Many writes share a guard.
        newest: dict[str, int] = {}
        for start in range(0, len(keys), 100):
            part = keys[start : start + 100]
            for key, revision, live in self._db.execute(
                f"SELECT key, revision, live FROM state WHERE key IN ({_marks(len(part))})", part
            ):
                alive = live and not self._drops.hides(key, written=revision, at=self.last)
                newest[key] = revision if alive else -revision
        return newest

    def _insert(self, log: Sequence[_LogRow], state: Sequence[_StateRow]) -> None:
        for start in range(0, len(log), 100):
            rows = log[start : start + 100]
            values = ",".join(["(?,?,?,?)"] * len(rows))
            self._db.execute(f"INSERT INTO log VALUES {values}", [column for row in rows for column in row])
        for start in range(0, len(state), 100):
            places = state[start : start + 100]
            values = ",".join(["(?,?,?,?)"] * len(places))
            self._db.execute(
                f"INSERT OR REPLACE INTO state VALUES {values}", [column for row in places for column in row]
            )

    def _sweep_some(self, prefix: str, drop: int) -> bool:
        """Removes some of what a drop has hidden; whether there may be more."""
        rows = _fetch(
            self._db,
            "SELECT key, revision FROM state WHERE key > ? AND key < ? AND revision < ? LIMIT ?",
            (prefix, prefix_end(prefix), drop, STEP_ROWS),
        )
        self._delete_log([revision for _, revision in rows])
        self._db.executemany("DELETE FROM state WHERE key = ?", [(key,) for key, _ in rows])
        if len(rows) < STEP_ROWS:
            self._db.execute("DELETE FROM drops WHERE prefix = ? AND revision = ?", (prefix, drop))
            return False
        return True

    def _delete_log(self, revisions: Sequence[int]) -> None:
        self._db.executemany("DELETE FROM log WHERE revision = ?", [(revision,) for revision in revisions])

    def _meta(self, name: str) -> str | int:
        [(value,)] = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,))
        assert isinstance(value, str | int), "meta holds text and numbers"
        return value

    def _set_meta(self, name: str, value: str | int) -> None:
        self._db.execute("UPDATE meta SET value = ? WHERE name = ?", (value, name))


def _state_row(op: Op, revision: int) -> _StateRow:
    live = op.value is not None
    return op.key, revision, int(live), op.expires_at if live else None


def _marks(count: int) -> str:
    return ",".join("?" * count)


def _fetch(db: apsw.Connection, sql: str, values: apsw.Bindings) -> list[tuple[Any, ...]]:
    """All rows; their types are those of STRICT tables, which the caller knows."""
    return db.execute(sql, values).fetchall()


def _create(db: apsw.Connection) -> None:
    with db:
        db.execute(resources.files(__package__).joinpath("sqlite.sql").read_text())
        db.executemany(
            "INSERT INTO meta VALUES (?, ?)",
            [
                ("format", FORMAT),
                ("id", secrets.token_hex(16)),
                ("epoch", 1),
                ("owner", ""),
                ("horizon", 1),
                ("swept", 1),
            ],
        )
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _check_ours(db: apsw.Connection, path: Path, *, new: bool) -> None:
    """Refuses a file of something else, before anything in it is touched."""
    if new:
        return
    [(application,)] = db.execute("PRAGMA application_id")
    if application != APPLICATION_ID:
        raise StoreOpenError(f"{path} is not a Clusterling store: choose another data directory")


def _check_format(db: apsw.Connection, path: Path) -> None:
    rows = db.execute("SELECT value FROM meta WHERE name = 'format'").fetchall()
    found = rows[0][0] if rows else None
    if not isinstance(found, int) or found < 1:
        raise StoreOpenError(f"{path} is damaged: it names no format; restore it from a backup")
    if found > FORMAT:
        raise StoreOpenError(
            f"{path} has format {found}, this version reads up to {FORMAT}: use the newer Clusterling that wrote it"
        )
    if path.stat().st_size <= CHECKED_BYTES_MAX:
        [(verdict,), *_] = db.execute("PRAGMA quick_check(1)")
        if verdict != "ok":
            raise StoreOpenError(f"{path} is damaged ({verdict.splitlines()[-1]}): restore it from a backup")


def _unusable(directory: Path, error: OSError) -> StoreOpenError:
    return StoreOpenError(
        f"{directory} cannot be used ({error.strerror}): make it a directory that this user may write"
    )


def _unopenable(path: Path, error: Exception) -> StoreOpenError:
    if isinstance(error, StoreOpenError):
        return error
    if isinstance(error.__cause__, apsw.Error):
        error = error.__cause__
    match error:
        case apsw.NotADBError() | apsw.CorruptError():
            return StoreOpenError(f"{path} is damaged ({error}): restore it from a backup")
        case apsw.BusyError():
            return StoreOpenError(f"{path} is locked by another program: close what has it open")
        case apsw.FullError():
            return StoreOpenError(f"there is no space left for {path}: free some, then start again")
        case apsw.CantOpenError() | apsw.ReadOnlyError() | apsw.PermissionsError():
            return StoreOpenError(f"{path} cannot be written ({error}): give this user the right to")
        case _:
            return StoreOpenError(f"{path} cannot be opened: {error}")


def _translate(error: apsw.Error) -> StorageError:
    if isinstance(error, apsw.FullError):
        return Unavailable("the disk is full")
    _log.error("sqlite failed error=%s", error)
    return Unavailable(f"sqlite: {error}")


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise _translate(error) from error


async def connect(path: Path, *, bytes_max: int = 0) -> SqliteBackend:
    """Opens or creates the file. Raises StoreOpenError."""
    async with AsyncExitStack() as undo:
        lock = _Lock(path)
        undo.callback(lock.release)
        writing = _Thread("sqlite writer")
        undo.push_async_callback(writing.stop)
        writer = await writing.call(lambda: _Writer(path, bytes_max=bytes_max))
        undo.push_async_callback(writing.call, writer.close)
        reading = _Thread("sqlite reader")
        undo.push_async_callback(reading.stop)
        try:
            backend = SqliteBackend(lock, writer, writing, _Reader(path), reading, _Reader(path))
        except Unavailable as error:
            raise _unopenable(path, error) from error
        undo.pop_all()
        return backend


@asynccontextmanager
async def open(path: str | Path, *, bytes_max: int = 0) -> AsyncIterator[BackedStore]:  # noqa: A001
    """A complete store in the file at `path`, made if it is not there, held alone while the context lasts.

    `bytes_max` bounds the file (0: the disk does): a store that is full refuses writes and goes on reading.
    Raises StoreOpenError.
    """
    async with serve(await connect(Path(path), bytes_max=bytes_max), shared=False) as store:
        yield store
