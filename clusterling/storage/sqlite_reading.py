"""Reading the SQLite file, and what its errors mean. Each method of a Reader sees one snapshot; `sqlite.sql` has the tables."""

# ruff: noqa: S608 - what is put together into SQL is question marks; values are bound.

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import apsw

from clusterling.storage.backend import Drops, prefix_end, prefixes
from clusterling.storage.store import (
    Compacted,
    Entry,
    FutureRevision,
    Page,
    StorageError,
    Unavailable,
    Usage,
)

READER_CACHE_KIB: Final = 4096
BUSY_MS: Final = 2000  # Another process may look into the file (a backup); it may not keep it.
ANY_REVISION: Final = (1 << 63) - 1
COUNTED_MAX: Final = 1000  # What follows a later page is counted up to so many.

_log = logging.getLogger(__name__)

# revision, key, previous, value
LogRow = tuple[int, str, int, bytes | None]
# key, revision, whether it is only reached by a negative `previous`, value
_Row = tuple[str, int, int, bytes]

# The keys of a range as they were at :at, from the last write of each back; only those written after :since.
_PAST: Final = (
    "past(key, revision, detached) AS ("
    " SELECT key, revision, 0 FROM state WHERE key > :after AND key < :before AND revision > :since"
    " UNION ALL"
    " SELECT past.key, abs(log.previous), log.previous < 0 FROM past"
    " CROSS JOIN log ON log.revision = past.revision WHERE past.revision > :at AND log.previous <> 0)"
)
_OF_PAST: Final = (
    " FROM past CROSS JOIN log ON log.revision = past.revision"
    " WHERE past.revision <= :at AND past.revision > :floor AND log.value IS NOT NULL"
)


class Reader:
    """Reads over a connection of its own."""

    def __init__(self, path: Path) -> None:
        with translated():
            self._db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
            self._db.set_busy_timeout(BUSY_MS)
            self._db.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")

    def close(self) -> None:
        self._db.close()

    def get(self, key: str) -> Entry | None:
        with translated():
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
        with translated():
            row = self._db.execute("SELECT value FROM log WHERE revision = ?", (revision,)).fetchone()
        if row is None or row[0] is None:
            raise Compacted(revision)
        return Entry(key, row[0], revision)

    def list(self, prefix: str, after: str, limit: int, revision: int) -> Page:
        with translated(), self._snapshot() as head:
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
                rest = (entries[-1].key, prefix_end(prefix), floor)
                if partly or (after and self._exceed(*rest[:2])):
                    remaining = None
                else:
                    remaining = self._remaining(*rest) if now else self._remained(*rest, at)
            last_change = at
            if now and not partly and not after:
                last_change = min(at, max(self._last_change(prefix), floor, horizon))
            return Page(entries, at, remaining, last_change)

    def count(self, prefix: str) -> int:
        with translated(), self._snapshot() as head:
            drops = self._drops(prefix)
            floor = drops.floor(prefix, at=head)
            if not drops.within(prefix):
                return self._remaining(prefix, prefix_end(prefix), floor)
            rows = self._db.execute(
                "SELECT key, revision FROM state WHERE key > ? AND key < ? AND live AND revision > ?",
                (prefix, prefix_end(prefix), floor),
            )
            return sum(not drops.hides(key, written=revision, at=head) for key, revision in rows)

    def usage(self, prefix: str) -> Sequence[Usage]:
        with translated():
            rows = fetch(
                self._db,
                "SELECT collection, objects, bytes FROM usage WHERE collection >= ? AND collection < ?"
                " AND (objects OR bytes) ORDER BY collection",
                (prefix, prefix_end(prefix)),
            )
        return [Usage(*row) for row in rows]

    def changes(self, prefix: str, after: int, through: int, limit: int) -> Sequence[LogRow]:
        with translated(), self._snapshot():
            if after < self._horizon() - 1:
                raise Compacted(after)
            above = list(prefixes(prefix))
            return fetch(
                self._db,
                "SELECT revision, key, previous, value FROM log WHERE revision > ? AND revision <= ?"
                f" AND (key > ? AND key < ? OR value IS NULL AND key IN ({marks(len(above))}))"
                " ORDER BY revision LIMIT ?",
                (after, through, prefix, prefix_end(prefix), *above, limit),
            )

    def expired(self, now: int, limit: int) -> Sequence[Entry]:
        with translated(), self._snapshot() as head:
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
            f"SELECT prefix, revision FROM drops WHERE prefix IN ({marks(len(above))}) OR prefix > ? AND prefix < ?",
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
            rows = fetch(
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
            last = fetch(
                self._db,
                "SELECT key FROM state WHERE key > ? AND key < ? ORDER BY key LIMIT 1 OFFSET ?",
                (after, before, limit - 1),
            )
            if last:
                through = last[0][0]
                before = through + "\0"  # The next string of all.
        rows = fetch(
            self._db,
            f"WITH RECURSIVE {_PAST} SELECT past.key, past.revision, past.detached, log.value{_OF_PAST}",
            {"after": after, "before": before, "at": at, "floor": floor, "since": 0},
        )
        return sorted(rows), through

    def _exceed(self, after: str, before: str) -> bool:
        """Whether there are so many keys that to count them anew with every page would cost more than the pages."""
        [(some,)] = self._db.execute(
            "SELECT count(*) FROM (SELECT 1 FROM state WHERE key > ? AND key < ? LIMIT ?)",
            (after, before, COUNTED_MAX + 1),
        )
        return int(some) > COUNTED_MAX

    def _remaining(self, after: str, before: str, floor: int) -> int:
        [(count,)] = self._db.execute(
            "SELECT count(*) FROM state WHERE key > ? AND key < ? AND live AND revision > ?",
            (after, before, floor),
        )
        return int(count)

    def _remained(self, after: str, before: str, floor: int, at: int) -> int | None:
        """How many there were, what has not been written since counted as it stands. None: some may have been dropped."""
        [(kept,)] = self._db.execute(
            "SELECT count(*) FROM state WHERE key > ? AND key < ? AND live AND revision > ? AND revision <= ?",
            (after, before, floor, at),
        )
        [(changed, detached)] = self._db.execute(
            f"WITH RECURSIVE {_PAST} SELECT count(*), total(past.detached){_OF_PAST}",
            {"after": after, "before": before, "at": at, "floor": floor, "since": at},
        )
        return None if detached else int(kept) + int(changed)

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


def marks(count: int) -> str:
    return ",".join("?" * count)


def fetch(db: apsw.Connection, sql: str, values: apsw.Bindings) -> list[tuple[Any, ...]]:
    """All rows; their types are those of STRICT tables, which the caller knows."""
    return db.execute(sql, values).fetchall()


def translate(error: apsw.Error) -> StorageError:
    if isinstance(error, apsw.FullError):
        return Unavailable("the disk is full")
    _log.error("sqlite-failed error=%s", error)
    return Unavailable(f"sqlite: {error}")


@contextmanager
def translated() -> Iterator[None]:
    try:
        yield
    except apsw.Error as error:
        raise translate(error) from error
