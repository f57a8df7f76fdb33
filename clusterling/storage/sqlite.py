"""The default backend: one SQLite file in WAL mode, synced at every commit.

One thread writes, batch by batch. A batch is one SQL statement, so that this thread asks for the interpreter, which
the event loop holds, once and not for every step. Compare-and-set happens in that statement: what memory
believes of a key is only a guess, and a batch with a wrong one is done again with what the file says. One thread copies
what was written from the WAL to the file. One reads lists; single keys are read on the event loop, where a few microseconds
from the page cache cost less than a change of threads. Readers never wait for the writer, nor it for them.

The layout is in `sqlite.sql`: the log has every value once, `state` says where each key's newest row is. A list at
an older revision starts from `state` and follows each key's chain back, so it costs what has changed since.

Rules of this file: apsw's errors leave it only as StorageErrors; what the writer's thread remembers (`last`,
`_drops`, `_places`) changes only after a commit; the sink is called on the loop, in the order of the commits.
"""

# ruff: noqa: S608 - what is put together into SQL is question marks; values are bound.

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import queue
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from functools import cache
from importlib import resources
from itertools import islice
from pathlib import Path
from typing import Final, TypeVar

import apsw

from clusterling.storage.backed import BackedStore, serve
from clusterling.storage.backend import (
    Committed,
    Done,
    Drops,
    Lost,
    Sink,
    Transaction,
    prefix_end,
    refusal,
)
from clusterling.storage.sqlite_reading import (
    BUSY_MS,
    LogRow,
    Reader,
    fetch,
    marks,
    translate,
    translated,
)
from clusterling.storage.store import (
    ABSENT,
    Entry,
    Event,
    Guard,
    Identity,
    Measure,
    Page,
    StorageError,
    StoreOpenError,
    Unavailable,
    UnknownOutcome,
    Usage,
)
from clusterling.storage.usage import RECORDS, Tally

FORMAT: Final = 1  # Of the tables. Raised when an older version of this file could not work with them.
APPLICATION_ID: Final = 0x436C7374  # "Clst", in the file's header: this file is ours.

STEP_ROWS: Final = 500  # Compaction gives way to writers after so many.
WRITER_CACHE_KIB: Final = 8192
CHECKPOINT_PAGES: Final = 1000
# The writer copies what the WAL holds itself, and keeps a commit waiting for the disk meanwhile, only where it holds so much more.
BEHIND_MAX: Final = 16
PASSES: Final = 2
PLACES_MAX: Final = 10_000  # Keys whose newest revision the writer remembers.
FRAME_HEADER_BYTES: Final = 24
WAL_STEP_BYTES_MIN: Final = 64 << 10
WAL_STEP_BYTES_MAX: Final = 1 << 20
CHECKED_BYTES_MAX: Final = 8 << 20  # Files up to this size are checked whole when opened: some 20 ms.
VACUUM_FREE_PAGES_MIN: Final = 1024  # So much stays free for the next writes.
VACUUM_STEP_PAGES: Final = 256

VERSION: Final = apsw.sqlite_lib_version()

T = TypeVar("T")

_NOT_OWNED: Final = "not owned"
_MOVED: Final = "moved"
# Where the writer's connection, and no other, puts its rows: each goes to the log and to the state, if its key is where
# `previous` says and the file is still this opening's; else none of the statement does.
_WRITES: Final = f"""
CREATE TEMP VIEW writes (revision, key, previous, value, expires_at) AS SELECT NULL, NULL, NULL, NULL, NULL;
CREATE TEMP TRIGGER written INSTEAD OF INSERT ON writes BEGIN
    SELECT RAISE(ABORT, '{_NOT_OWNED}')
        WHERE (SELECT value FROM main.meta WHERE name = 'owner') IS NOT '{{owner}}';
    SELECT RAISE(ABORT, '{_MOVED}')
        WHERE abs(NEW.previous) <> coalesce((
            SELECT iif(live OR NEW.previous < 0, revision, -1) FROM main.state WHERE key = NEW.key
        ), 0);
    INSERT INTO log VALUES (NEW.revision, NEW.key, NEW.previous, NEW.value);
    INSERT OR REPLACE INTO state VALUES (NEW.key, NEW.revision, NEW.value IS NOT NULL, NEW.expires_at);
END;
"""


COUNTING: Final = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = 'usage'"
# What totals must be: as `usage.collection_of` and `usage.counted` have it.
COUNTED: Final = """
SELECT substr(k.key, 1, k.first + k.second + instr(substr(k.key, k.first + k.second + 1), '/')) AS collection,
    count(*) AS objects, sum(k.bytes) AS bytes
FROM (
    SELECT s.key, length(l.value) AS bytes, instr(s.key, '/') AS first,
        instr(substr(s.key, instr(s.key, '/') + 1), '/') AS second
    FROM state s JOIN log l ON l.revision = s.revision
    WHERE s.live AND length(l.value) > 1 AND NOT EXISTS (
        SELECT 1 FROM drops d WHERE d.revision > s.revision AND substr(s.key, 1, length(d.prefix)) = d.prefix
    )
) k GROUP BY 1
"""


class _Thread:
    """A thread that does one thing after the other for the event loop it was made on."""

    def __init__(self, name: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def begin(
        self,
        work: Callable[[], T],
        then: Callable[[T], None],
        failed: Callable[[Exception], None],
        *,
        after: Callable[[], None] | None = None,
    ) -> None:
        """Does `work` in the thread, then `then` or `failed` on the loop.

        `after` is done in the thread too, once the result is on its way; it must not raise.
        """

        def job() -> None:
            try:
                result = work()
            except Exception as error:  # noqa: BLE001 - whatever it is belongs to who waits for it
                self._loop.call_soon_threadsafe(failed, error)
            else:
                self._loop.call_soon_threadsafe(then, result)
            if after is not None:
                after()

        self._jobs.put(job)

    async def call(self, work: Callable[[], T], then: Callable[[T], None] | None = None) -> T:
        """Does `work` in the thread, then `then` on the loop, also when nobody waits for the result any more."""
        done: asyncio.Future[T] = self._loop.create_future()

        def settle(result: T) -> None:
            if then is not None:
                then(result)
            if not done.done():
                done.set_result(result)

        def fail(error: Exception) -> None:
            if not done.done():
                done.set_exception(error)

        self.begin(work, settle, fail)
        return await done

    def send(self, work: Callable[[], None]) -> None:
        """Has `work` done in the thread, which nobody is told of. From any thread; it must not raise."""
        self._jobs.put(work)

    async def stop(self) -> None:
        """Returns when all that was asked before has been done."""
        await self.call(lambda: None)
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()


class SqliteBackend:
    """Made by `connect`; the parts are `_Writer`, `_Checkpoints` and `Reader`, each used in one thread only."""

    def __init__(
        self,
        lock: _Lock,
        writer: _Writer,
        writing: _Thread,
        checkpoints: _Checkpoints,
        copying: _Thread,
        listing: Reader,
        reading: _Thread,
        point: Reader,
    ) -> None:
        self._lock = lock
        self._writer = writer
        self._writing = writing
        self._checkpoints = checkpoints
        self._copying = copying
        self._listing = listing
        self._reading = reading
        self._point = point
        self._head = writer.last
        self._sink: Sink = lambda _events, _revision: None
        self._compacting = asyncio.Lock()

    def follow(self, sink: Sink, lost: Lost) -> None:
        self._sink = sink

    def begin_commit(self, transactions: Sequence[Transaction], done: Done) -> None:
        def publish(committed: tuple[Sequence[Committed | StorageError], Sequence[LogRow]]) -> None:
            outcomes, rows = committed
            if rows:
                self._head = rows[-1][0]
                self._sink([self._event(row, "") for row in rows], self._head)
            done(outcomes)

        self._writing.begin(
            lambda: self._writer.commit(transactions), publish, done, after=self._after_commit
        )

    async def commit(self, transactions: Sequence[Transaction]) -> Sequence[Committed | StorageError]:
        over: asyncio.Future[Sequence[Committed | StorageError] | Exception]
        over = asyncio.get_running_loop().create_future()
        self.begin_commit(transactions, lambda result: None if over.done() else over.set_result(result))
        result = await over
        if isinstance(result, Exception):
            raise result
        return result

    def _after_commit(self) -> None:
        written = self._writer.written
        self._writer.make_room(written)
        if self._checkpoints.wants(written):
            self._copying.send(self._checkpoints.make)
        if self._checkpoints.has_little_left:
            self._checkpoints.has_little_left = False
            self._writer.checkpoint()

    async def get(self, key: str) -> Entry | None:
        return self._point.get(key)

    async def list(self, prefix: str, *, after: str, limit: int, revision: int) -> Page:
        return await self._reading.call(lambda: self._listing.list(prefix, after, limit, revision))

    async def count(self, prefix: str) -> int:
        return await self._reading.call(lambda: self._listing.count(prefix))

    async def usage(self, prefix: str) -> Sequence[Usage]:
        return await self._reading.call(lambda: self._listing.usage(prefix))

    async def changes(self, prefix: str, *, after: int, through: int, limit: int) -> Sequence[Event]:
        rows = await self._reading.call(lambda: self._listing.changes(prefix, after, through, limit))
        return [self._event(row, prefix) for row in rows]

    def head(self) -> int:
        return self._head

    async def fresh(self) -> int:
        return self._head

    async def forget(self) -> None:
        """Lets go of what is remembered only to be quicker."""
        await self._writing.call(self._writer.forget)

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
        await self._copying.call(self._checkpoints.close)
        await self._copying.stop()
        with contextlib.suppress(StorageError):
            await self._writing.call(self._writer.close)
        await self._writing.stop()
        self._lock.release()

    def _publish_drop(self, row: LogRow | None) -> None:
        if row is not None:
            self._head = row[0]
            self._sink([self._event(row, "")], self._head)

    def _event(self, row: LogRow, prefix: str) -> Event:
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


class _Wal:
    """The space of the WAL, taken ahead of need: zeros at its end, which SQLite reads as the end of what was written.

    Syncing a file that has grown costs the file system a commit of its own: measured on ext4, 50 µs of the processor
    and nearly half of the time of a small commit. SQLite itself keeps a WAL at its size once it has grown.
    """

    def __init__(self, path: Path, page_bytes: int) -> None:
        self._path = path.with_name(path.name + "-wal")
        self._frame_bytes = page_bytes + FRAME_HEADER_BYTES
        self._bytes_max = CHECKPOINT_PAGES * self._frame_bytes
        self._used = 0  # At most: SQLite starts over at the front from time to time.
        self._size = 0
        self._file = -1

    def wants(self, frames: int) -> bool:
        """Whether there is too little space left, now that so many frames have been written since opening."""
        self._used = frames * self._frame_bytes
        return self._used + WAL_STEP_BYTES_MIN > self._size and self._size < self._bytes_max

    def extend(self) -> None:
        """Doubles the space, in steps of bounded size. Raises OSError, then tries no more."""
        size, self._size = self._size, self._bytes_max
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CLOEXEC)
        size = max(size, os.fstat(self._file).st_size)
        step = min(max(size, WAL_STEP_BYTES_MIN), WAL_STEP_BYTES_MAX)
        self._size = size + os.pwrite(self._file, bytes(step), size)

    def close(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class _Checkpoints:
    """Copies what the WAL holds to the file, beside the writer.

    SQLite would have the writer do it, in the middle of a commit, for which everybody waits. And it is done often: while 16 MB are copied, 50 to
    100 ms, a commit beside it waits for the same disk.
    What is written meanwhile is copied in a second pass, and what is written during that by the writer itself, for the WAL
    begins anew only where nothing is left.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: apsw.Connection | None = None
        self._asked_at = 0
        self.has_little_left = False  # Set in one thread, unset in the other.

    def wants(self, frames: int) -> bool:
        """Whether enough was written since it last said so, now that so many frames have been written since opening."""
        if frames - self._asked_at < CHECKPOINT_PAGES:
            return False
        self._asked_at = frames
        return True

    def make(self) -> None:
        with contextlib.suppress(apsw.Error):
            if self._db is None:
                self._db = apsw.Connection(str(self._path))
                self._db.execute("PRAGMA synchronous = FULL")
            for _ in range(PASSES):
                self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            self.has_little_left = True

    def close(self) -> None:
        if self._db is not None:
            with contextlib.suppress(apsw.Error):
                self._db.close()
            self._db = None


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
            [(page_bytes,)] = self._db.execute("PRAGMA page_size")
            [(last,)] = self._db.execute("SELECT max(revision) FROM log")
            self.last = int(last or 1)
            self._places: dict[str, int] = {}
            self._wal = _Wal(path, int(page_bytes))
            self._drops = Drops()
            for prefix, revision in self._db.execute("SELECT prefix, revision FROM drops"):
                self._drops.add(prefix, revision)
            self._db.execute(_WRITES.format(owner=self._owner))
        except (apsw.Error, StorageError) as error:
            self._db.close()
            raise _unopenable(path, error) from error

    def close(self) -> None:
        self._wal.close()
        with translated():
            self._db.close()

    @property
    def written(self) -> int:
        """Frames that were written to the WAL since it was opened."""
        frames, _ = self._db.status(apsw.SQLITE_DBSTATUS_CACHE_WRITE)
        return frames

    def make_room(self, written: int) -> None:
        """Has the next commits find space in the WAL, so that syncing them need not change the size of the file."""
        if not self._wal.wants(written):
            return
        with contextlib.suppress(apsw.Error, OSError):
            self._db.execute("BEGIN IMMEDIATE")  # Nobody, be it another program, writes there meanwhile.
            try:
                self._wal.extend()
            finally:
                self._db.execute("ROLLBACK")

    def checkpoint(self) -> None:
        """Copies what little of the WAL is not in the file yet."""
        with contextlib.suppress(apsw.Error):
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def commit(
        self, transactions: Sequence[Transaction]
    ) -> tuple[Sequence[Committed | StorageError], Sequence[LogRow]]:
        """An outcome for each transaction, and the rows of the log that were added."""
        places, guessed = self._places_of(transactions)
        looked_up = False
        while True:
            outcomes, log, values = self._planned(transactions, places, self._tally(transactions, places))
            if not log:
                return outcomes, log
            if self._insert(len(log), values):
                self.last = log[-1][0]
                for _, key, _, _ in log:
                    guessed.discard(key)
                for key in guessed:  # Refused for another reason: nobody has confirmed these.
                    del places[key]
                self._remember(places)
                return outcomes, log
            if looked_up:
                raise Unavailable(f"{self._path} has been written by another program")
            places, guessed, looked_up = self._look_up(_keys(transactions)), set(), True
            self._remember(places)

    def forget(self) -> None:
        """Remembers no key's place: what is named next is looked up."""
        self._places = {}

    def _places_of(self, transactions: Sequence[Transaction]) -> tuple[dict[str, int], set[str]]:
        """Of every key named: its newest revision, negative where that is no value any more, 0 where there is none.

        What is not remembered is looked up, but for a key that is named once, by an op that expects it somewhere:
        it is taken to be there, which the statement that writes it confirms. The second result has these keys.
        Nothing is taken so where it decides whether there would be too much.
        """
        known, last, drops = self._places, self.last, self._drops
        limited = any(transaction.limits for transaction in transactions)
        places: dict[str, int] = {}
        guessed: set[str] = set()
        unknown: list[str] = []
        for transaction in transactions:
            for op in transaction.ops:
                key = op.key
                place = known.get(key)
                if place is not None:
                    places[key] = place
                elif op.expected is None or not 0 <= op.expected <= last or key in places or limited:
                    unknown.append(key)
                else:
                    hidden = drops.hides(key, written=op.expected, at=last)
                    places[key] = -op.expected if hidden else op.expected
                    guessed.add(key)
            for guard in transaction.guards:
                place = known.get(guard.key)
                if place is not None:
                    places[guard.key] = place
                else:
                    unknown.append(guard.key)
        if unknown:
            places |= self._look_up(unknown)
            guessed.difference_update(unknown)
        return places, guessed

    def _tally(self, transactions: Sequence[Transaction], places: dict[str, int]) -> Tally | None:
        """None where no transaction has limits: then nothing is looked up for it."""
        if not any(transaction.limits for transaction in transactions):
            return None
        there = [place for place in places.values() if place > 0]
        lengths: dict[int, int] = {}
        with translated():
            for start in range(0, len(there), 100):
                part = there[start : start + 100]
                lengths.update(
                    self._db.execute(
                        f"SELECT revision, length(value) FROM log WHERE revision IN ({marks(len(part))})"
                        " AND length(value) > 1",
                        part,
                    )
                )
        return Tally(self._used, lambda op: lengths.get(places[op.key]))

    def _used(self, prefix: str, what: Measure) -> int:
        with translated():
            [(used,)] = self._db.execute(
                f"SELECT total({what.value}) FROM usage WHERE collection >= ? AND collection < ?",
                (prefix, prefix + RECORDS if what is Measure.OBJECTS else prefix_end(prefix)),
            )
        return int(used)

    def _planned(
        self, transactions: Sequence[Transaction], places: dict[str, int], tally: Tally | None
    ) -> tuple[list[Committed | StorageError], list[LogRow], list[str | int | bytes | None]]:
        """What becomes of the transactions: outcomes, rows for the log, and the values of the statement.

        Brings `places` up to what will be so then.
        """
        outcomes: list[Committed | StorageError] = []
        log: list[LogRow] = []
        values: list[str | int | bytes | None] = []
        last = self.last

        def revision_of(key: str) -> int:
            return max(places[key], ABSENT)

        for transaction in transactions:
            refused = refusal(transaction, revision_of)
            if refused is None and tally is not None:
                refused = tally.refusal(transaction.ops, transaction.limits)
            if refused is not None:
                outcomes.append(refused)
                continue
            first = last + 1
            for op in transaction.ops:
                last += 1
                key, value, previous = op.key, op.value, places[op.key]
                log.append((last, key, previous, value))
                if value is None:
                    values += (last, key, previous, None, None)
                    places[key] = -last
                else:
                    values += (last, key, previous, value, op.expires_at)
                    places[key] = last
            outcomes.append(Committed(range(first, last + 1)))
        return outcomes, log, values

    def drop(self, prefix: str, guards: Sequence[Guard]) -> LogRow | None:
        with self._transaction():
            guarding = Transaction((), guards)
            newest = self._look_up(_keys([guarding]))
            refused = refusal(guarding, lambda key: max(newest[key], ABSENT))
            if refused is not None:
                raise refused
            floor = self._drops.floor(prefix, at=self.last)
            rows = self._db.execute(
                "SELECT key, revision FROM state WHERE key > ? AND key < ? AND live AND revision > ?",
                (prefix, prefix_end(prefix), floor),
            )
            if all(self._drops.hides(key, written=revision, at=self.last) for key, revision in rows):
                return None
            row: LogRow = (self.last + 1, prefix, 0, None)
            self._db.execute("INSERT INTO log VALUES (?, ?, ?, ?)", row)
            self._db.execute("INSERT INTO drops VALUES (?, ?)", (prefix, row[0]))
        self.last = row[0]
        self._drops.add(prefix, row[0])
        for key in self._places:
            if key.startswith(prefix):
                self._places[key] = -abs(self._places[key])
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
            rows = fetch(
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
        with translated():
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
            db.execute(f"PRAGMA wal_autocheckpoint = {BEHIND_MAX * CHECKPOINT_PAGES}").fetchall()
            db.execute(f"PRAGMA journal_size_limit = {64 << 20}").fetchall()
            if new:
                _create(db)
            _check_format(db, self._path)
            _count(db)
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
            self._free_space(error.__cause__)
            raise

    @contextmanager
    def _unguarded_transaction(self, *, own: bool) -> Iterator[None]:
        with translated():
            self._db.execute("BEGIN IMMEDIATE")
        try:
            with translated():
                if own and self._meta("owner") != self._owner:
                    raise self._taken_over()
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
            return translate(error)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            self._set_meta("owner", self._owner)
            self._db.execute("COMMIT")
        except apsw.Error:
            self._roll_back()
            return UnknownOutcome(f"the commit failed: {error}")
        return translate(error)

    def _look_up(self, keys: Sequence[str]) -> dict[str, int]:
        """The keys' places, as the file has them."""
        places = dict.fromkeys(keys, 0)  # Many writes share a guard.
        distinct = list(places)
        with translated():
            for start in range(0, len(distinct), 100):
                part = distinct[start : start + 100]
                for key, revision, live in self._db.execute(
                    f"SELECT key, revision, live FROM state WHERE key IN ({marks(len(part))})", part
                ):
                    alive = live and not self._drops.hides(key, written=revision, at=self.last)
                    places[key] = revision if alive else -revision
        return places

    def _remember(self, places: dict[str, int]) -> None:
        known = self._places
        known.update(places)
        if len(known) > 2 * PLACES_MAX:
            self._places = dict(islice(known.items(), len(known) - PLACES_MAX, None))

    def _insert(self, rows: int, values: Sequence[str | int | bytes | None]) -> bool:
        """Whether every key was where its row says; if not, or if this raises Unavailable, nothing was written."""
        try:
            self._db.execute(_insertion(rows), values)
        except apsw.ConstraintError as error:
            if str(error) == _MOVED:
                return False
            if str(error) == _NOT_OWNED:
                raise self._taken_over() from error
            raise translate(error) from error
        except apsw.Error as error:
            failure = self._uncommitted(error)
            self._free_space(error)
            raise failure from error
        return True

    def _taken_over(self) -> Unavailable:
        return Unavailable(f"{self._path} has been taken over by another server")

    def _free_space(self, error: BaseException | None) -> None:
        """After a disk was full: what the WAL repeats of the file may be the space that is missing."""
        if isinstance(error, apsw.FullError):
            with contextlib.suppress(apsw.Error):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _sweep_some(self, prefix: str, drop: int) -> bool:
        """Removes some of what a drop has hidden; whether there may be more."""
        rows = fetch(
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


def _keys(transactions: Sequence[Transaction]) -> list[str]:
    keys = [op.key for transaction in transactions for op in transaction.ops]
    keys += [guard.key for transaction in transactions for guard in transaction.guards]
    return keys


@cache
def _insertion(rows: int) -> str:
    return "INSERT INTO writes VALUES " + ",".join(["(?,?,?,?,?)"] * rows)


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
    _count(db)


def _count(db: apsw.Connection) -> None:
    """Has the file keep totals; one of an older version is counted."""
    [(counting,)] = db.execute(COUNTING)
    if not counting:
        with db:
            db.execute(resources.files(__package__).joinpath("sqlite_usage.sql").read_text())
            db.execute(f"INSERT INTO usage {COUNTED}")


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


async def connect(path: Path, *, bytes_max: int = 0) -> SqliteBackend:
    """Opens or creates the file. Raises StoreOpenError."""
    async with AsyncExitStack() as undo:
        lock = _Lock(path)
        undo.callback(lock.release)
        writing = _Thread("sqlite writer")
        undo.push_async_callback(writing.stop)
        writer = await writing.call(lambda: _Writer(path, bytes_max=bytes_max))
        undo.push_async_callback(writing.call, writer.close)
        copying = _Thread("sqlite checkpoints")
        undo.push_async_callback(copying.stop)
        reading = _Thread("sqlite reader")
        undo.push_async_callback(reading.stop)
        try:
            backend = SqliteBackend(
                lock, writer, writing, _Checkpoints(path), copying, Reader(path), reading, Reader(path)
            )
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
