"""A whole SQLite store at once. Reading takes no lock: the file is read in one transaction, beside the server on it.

A copy into SQLite is made in a file of its own, `state.db.copying`, and renamed when it is complete.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import unquote, urlsplit

import apsw

from clusterling.storage.backend import Drops, prefix_end
from clusterling.storage.bulk import COPIED_KEY, IN_SQL, PAGE_BYTES, PAGE_RECORDS, Figures, Finding, Record
from clusterling.storage.sqlite import (
    APPLICATION_ID,
    COUNTED,
    COUNTING,
    VACUUM_STEP_PAGES,
    _check_format,
    _check_ours,
    _create,
    _Lock,
    _unopenable,
)
from clusterling.storage.sqlite_reading import ANY_REVISION, BUSY_MS
from clusterling.storage.sqlite_reading import translated as _translated
from clusterling.storage.store import Identity, StorageError, StoreOpenError, Unavailable

T = TypeVar("T")

FINDINGS_MAX: Final = 100  # Of one question: a file that is damaged all over says so often enough.

# What else must give no rows here.
_QUESTIONS: Final = (
    *IN_SQL,
    (
        "log-not-swept",
        "the log keeps a write of it that is neither current nor history",
        "WITH swept (revision) AS (SELECT value FROM meta WHERE name = 'swept')"
        " SELECT l.key FROM log l LEFT JOIN state s ON s.key = l.key AND s.revision = l.revision"
        " WHERE l.revision < (SELECT revision FROM swept) AND s.revision IS NULL AND substr(l.key, -1) <> '/'"
        " AND l.revision NOT IN"
        " (SELECT abs(n.previous) FROM log n WHERE n.revision >= (SELECT revision FROM swept))",
    ),
    (
        "usage",
        "what is counted of it is not what is there",
        f"SELECT coalesce(nullif(collection, ''), '-') FROM ({COUNTED} UNION ALL"  # noqa: S608 - constants
        " SELECT collection, -objects, -bytes FROM usage)"
        " GROUP BY collection HAVING total(objects) <> 0 OR total(bytes) <> 0",
    ),
)


class SqliteSnapshot:
    """One read transaction, used by one caller at a time, in whatever thread."""

    def __init__(self, path: Path, db: apsw.Connection) -> None:
        self.address = f"sqlite://{path}"
        self._path = path
        self._db = db
        self.identity = Identity(str(self._meta("id")), int(self._meta("epoch")))
        self.head = int(self._one("SELECT max(revision) FROM log") or 1)
        self._drops = Drops()
        for prefix, revision in db.execute("SELECT prefix, revision FROM drops"):
            self._drops.add(prefix, revision)

    async def served(self) -> bool | None:
        try:
            lock = os.open(self._path.parent / "lock", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(lock)
        return False

    async def count(self) -> int:
        if self._drops:
            count = 0
            async for page in self._pages("s.key, s.revision, NULL, x''", "s.key", "", ""):
                count += len(page)
            return count
        return int(await self._call(lambda: self._one("SELECT count(*) FROM state WHERE live")))

    def by_key(self, prefix: str = "") -> AsyncIterator[Sequence[Record]]:
        return self._pages("s.key, s.revision, s.expires_at, l.value", "s.key", prefix, prefix)

    def by_revision(self) -> AsyncIterator[Sequence[Record]]:
        return self._pages("s.key, s.revision, s.expires_at, l.value", "l.revision", "", 0)

    async def findings(self) -> AsyncIterator[Finding]:
        for what in await self._call(self._integrity):
            yield Finding(str(self._path), "damaged", what)
        counted = await self._call(lambda: self._one(COUNTING))
        for kind, what, sql in _QUESTIONS:
            if kind == "usage" and not counted:
                continue  # Of an older version, which keeps no totals; the first server that opens it counts.
            rows = await self._call(partial(self._rows, sql))
            for row in rows:
                yield Finding(str(row[0]), kind, what)
        for finding in await self._call(self._counters):
            yield finding

    async def ailing(self) -> None:
        return None

    async def clock(self) -> float | None:
        return None

    async def figures(self) -> Figures:
        def read() -> Figures:
            pages, size = int(self._one("PRAGMA page_count")), int(self._one("PRAGMA page_size"))
            wal = Path(f"{self._path}-wal")
            disk = self._path.stat().st_size + (wal.stat().st_size if wal.exists() else 0)
            free = max(0, int(self._one("PRAGMA freelist_count"))) * size
            rows = int(self._one("SELECT count(*) FROM log"))
            return Figures(int(self._meta("horizon")), rows, max(disk, pages * size), free)

        return await self._call(read)

    async def _pages(
        self, columns: str, order: str, prefix: str, position: str | int
    ) -> AsyncIterator[Sequence[Record]]:
        end = prefix_end(prefix)
        while True:
            page, last = await self._call(partial(self._page, columns, order, position, end))
            if page:
                yield page
            if last is None:
                return
            position = last

    def _page(
        self, columns: str, order: str, position: str | int, end: str
    ) -> tuple[Sequence[Record], str | int | None]:
        """A page of what comes after the position, and where it ends; None: there is no more."""
        tables = "state s CROSS JOIN log l" if order == "s.key" else "log l CROSS JOIN state s"
        bounded = "s.key < :end" if order == "s.key" else "s.key = l.key"
        cursor = self._db.execute(
            f"SELECT {order}, {columns} FROM {tables} ON l.revision = s.revision"  # noqa: S608 - constants
            f" WHERE {order} > :after AND {bounded} AND s.live ORDER BY {order}",
            {"after": position, "end": end} if order == "s.key" else {"after": position},
        )
        page: list[Record] = []
        size = 0
        at: str | int
        for seen, (at, *row) in enumerate(cursor, 1):
            record = Record(*row)
            size += len(record.value)
            if not self._drops.hides(record.key, written=record.revision, at=ANY_REVISION):
                page.append(record)
            if seen == PAGE_RECORDS or size >= PAGE_BYTES:
                cursor.close()
                return page, at
        return page, None

    def _rows(self, sql: str) -> list[tuple[Any, ...]]:
        return self._db.execute(f"{sql} LIMIT {FINDINGS_MAX}").fetchall()

    def _integrity(self) -> list[str]:
        found = [str(text) for (text,) in self._db.execute(f"PRAGMA integrity_check({FINDINGS_MAX})")]
        return [] if found == ["ok"] else found

    def _counters(self) -> list[Finding]:
        horizon, swept = int(self._meta("horizon")), int(self._meta("swept"))
        found = []
        if not 1 <= swept <= horizon <= self.head:
            found.append(
                Finding(
                    "meta", "counters", f"swept {swept}, horizon {horizon} and head {self.head} must not fall"
                )
            )
        kept = int(self._one("SELECT count(*) FROM log WHERE revision > ?", horizon))
        if kept != self.head - horizon:
            found.append(
                Finding(
                    "log",
                    "history-gap",
                    f"{kept} of the {self.head - horizon} writes since the horizon are there",
                )
            )
        return found

    async def _call(self, work: Callable[[], T]) -> T:
        def translated() -> T:
            with _translated():
                return work()

        return await asyncio.to_thread(translated)

    def _one(self, sql: str, *values: int) -> Any:
        [(value,)] = self._db.execute(sql, values)
        return value

    def _meta(self, name: str) -> Any:
        [(value,)] = self._db.execute("SELECT value FROM meta WHERE name = ?", (name,))
        return value


class SqliteVessel:
    """A file beside the place of the store, which it takes in the end."""

    keeps_revisions = True

    def __init__(self, path: Path) -> None:
        self.address = f"sqlite://{path}"
        self._path = path
        self._file = Path(f"{path}.copying")
        self._db: apsw.Connection | None = None
        self._floor = 0

    async def begin(self, floor: int) -> None:
        self._floor = floor
        await self._call(self._create)

    async def put(self, records: Sequence[Record]) -> None:
        await self._call(lambda: self._insert(records))

    async def contents(self) -> AsyncIterator[Sequence[Record]]:
        await self._call(lambda: self._open.execute("COMMIT"))
        position = 0
        while page := await self._call(partial(self._page, position)):
            yield page
            position = page[-1].revision

    async def finish(self, identity: Identity, mark: bytes) -> int:
        return int(await self._call(lambda: self._finish(identity, mark)))

    def close(self) -> None:
        if self._db is not None:
            self._db.close()
            self._db = None
        self.remove()

    def remove(self) -> None:
        for suffix in ("", "-wal", "-shm", "-journal"):
            Path(f"{self._file}{suffix}").unlink(missing_ok=True)

    @property
    def _open(self) -> apsw.Connection:
        assert self._db is not None, "it has begun"
        return self._db

    def _create(self) -> None:
        self._file.touch(mode=0o600)
        self._db = db = apsw.Connection(str(self._file))
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        # Until it is renamed the file is nobody's: a crash costs it, and nothing else.
        db.execute("PRAGMA journal_mode = OFF").fetchall()
        db.execute("PRAGMA synchronous = OFF")
        db.execute("PRAGMA cache_size = -65536")
        _create(db)
        db.execute("BEGIN")

    def _insert(self, records: Sequence[Record]) -> None:
        self._open.executemany(
            "INSERT INTO log VALUES (?, ?, 0, ?)",
            [(record.revision, record.key, record.value) for record in records],
        )
        self._open.executemany(
            "INSERT INTO state VALUES (?, ?, 1, ?)",
            [(record.key, record.revision, record.expires_at) for record in records],
        )

    def _page(self, after: int) -> Sequence[Record]:
        page: list[Record] = []
        size = 0
        for row in self._open.execute(
            "SELECT l.key, l.revision, s.expires_at, l.value FROM log l JOIN state s ON s.key = l.key"
            " AND s.revision = l.revision AND s.live WHERE l.revision > ? ORDER BY l.revision",
            (after,),
        ):
            record = Record(*row)
            page.append(record)
            size += len(record.value)
            if len(page) == PAGE_RECORDS or size >= PAGE_BYTES:
                break
        return page

    def _finish(self, identity: Identity, mark: bytes) -> int:
        db = self._open
        head = self._floor + 1
        with db:
            db.execute("INSERT INTO log VALUES (?, ?, 0, ?)", (head, COPIED_KEY, mark))
            db.execute("INSERT INTO state VALUES (?, ?, 1, NULL)", (COPIED_KEY, head))
            db.executemany(
                "UPDATE meta SET value = ? WHERE name = ?",
                [(identity.id, "id"), (identity.epoch, "epoch"), (head, "horizon"), (head, "swept")],
            )
        assert db.execute("PRAGMA application_id").fetchall() == [(APPLICATION_ID,)], "the file is ours"
        db.close()
        self._db = None
        _sync(self._file)
        for suffix in ("", "-wal", "-shm"):  # Of the empty store that may be there.
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._file.rename(self._path)
        _sync(self._path.parent)
        return head

    async def _call(self, work: Callable[[], T]) -> T:
        def translated() -> T:
            try:
                with _translated():
                    return work()
            except OSError as error:
                raise Unavailable(f"{self._file} cannot be written: {error.strerror}") from error

        return await asyncio.to_thread(translated)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextlib.contextmanager
def _read_only(path: Path) -> Iterator[apsw.Connection]:
    """A transaction that sees the file as it is now. Raises StoreOpenError."""
    if not path.is_file():
        raise StoreOpenError(f"{path} does not exist: name the data directory of a server, or its state.db")
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    except apsw.Error as error:
        raise _unopenable(path, error) from error
    try:
        try:
            db.set_busy_timeout(BUSY_MS)
            _check_ours(db, path, new=False)
            _check_format(db, path)
            db.execute("BEGIN")
            db.execute("SELECT count(*) FROM meta").fetchall()
        except (apsw.Error, StorageError) as error:
            raise _unopenable(path, error) from error
        yield db
    finally:
        db.close()


@asynccontextmanager
async def snapshot(url: str, *, password: str | None = None) -> AsyncIterator[SqliteSnapshot]:
    path = path_of(url)
    with _read_only(path) as db:
        try:
            made = SqliteSnapshot(path, db)
        except (apsw.Error, ValueError) as error:
            raise _unopenable(path, error) from error
        yield made


@asynccontextmanager
async def vessel(url: str, *, password: str | None = None) -> AsyncIterator[SqliteVessel]:
    """The directory is held meanwhile, so that no server can start in it."""
    path = path_of(url)
    lock = _Lock(path)
    try:
        if path.exists() and path.stat().st_size:
            with _read_only(path) as db:
                if SqliteSnapshot(path, db).head > 1:
                    raise StoreOpenError(f"{path} is not empty: choose another place for the copy")
        made = SqliteVessel(path)
        made.remove()
        try:
            yield made
        finally:
            await asyncio.to_thread(made.close)
    finally:
        lock.release()


async def reclaim(url: str, *, password: str | None = None) -> None:
    """Cuts the free pages off the file. Raises StoreOpenError where a server runs on it: it does so itself."""
    path = path_of(url)
    lock = _Lock(path)
    try:
        db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        try:
            with _translated():
                db.set_busy_timeout(BUSY_MS)
                _check_ours(db, path, new=False)
                while True:
                    [(free,)] = db.execute("PRAGMA freelist_count")
                    if not free:
                        break
                    await asyncio.to_thread(
                        lambda: db.execute(f"PRAGMA incremental_vacuum({VACUUM_STEP_PAGES})").fetchall()
                    )
                    [(left,)] = db.execute("PRAGMA freelist_count")
                    if left >= free:
                        break  # A file made without the means for it.
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            db.close()
    finally:
        lock.release()


def path_of(url: str) -> Path:
    """The file that a sqlite: URL names. Raises StoreOpenError."""
    parts = urlsplit(url)
    if parts.netloc or parts.path in ("", "/"):
        raise StoreOpenError(f"{url} names no file: write sqlite:///PATH, three slashes and an absolute path")
    return Path(unquote(parts.path))
