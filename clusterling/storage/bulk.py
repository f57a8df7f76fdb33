"""A whole store at once: what copying, checking and counting need of a backend, beside `Store`.

A `Snapshot` looks at one state of a store without opening it: nothing is locked, migrated or written, and whoever
serves the store goes on. A `Vessel` takes the contents of another store; until `finish` returns it is no store, so
that nobody can ever serve half of a copy.

Each page is bounded, by entries and by bytes: whatever a store holds, little of it is in memory.
"""

from __future__ import annotations

import hashlib
import heapq
import struct
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import IO, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from clusterling.storage.opening import load
from clusterling.storage.store import Identity

PAGE_RECORDS: Final = 1000
PAGE_BYTES: Final = 8 << 20
RUN_BYTES: Final = 32 << 20  # What `Sorter` holds in memory.

# What a copy leaves in its target, as its last write: where the contents are from.
COPIED_KEY: Final = "~store/copied/-/main"

# A copy begins so far above what it was made of: nobody has been given a revision beyond, though the source was
# served for a while longer.
HEAD_JUMP: Final = 1 << 30
# And so many revisions are set aside for each second since 1970, more than any store can give out in one: two copies
# of one backup, made at different times, have none in common. Clients that count in doubles have room until 2240.
SECOND_BITS: Final = 20

_LENGTH: Final = struct.Struct("<I")

# Of a store in tables `state`, `log` and `drops`: what must give no rows, and what it means if it does. The first column
# says where.
IN_SQL: Final = (
    (
        "state-without-log",
        "its newest write is not in the log",
        "SELECT s.key FROM state s LEFT JOIN log l ON l.revision = s.revision WHERE l.revision IS NULL",
    ),
    (
        "state-against-log",
        "state and log do not agree on it",
        "SELECT s.key FROM state s JOIN log l ON l.revision = s.revision"
        " WHERE l.key <> s.key OR s.live <> (l.value IS NOT NULL) OR NOT s.live AND s.expires_at IS NOT NULL",
    ),
    (
        "log-without-state",
        "the log has a write of it that state does not know",
        "SELECT l.key FROM log l LEFT JOIN state s ON s.key = l.key"
        " WHERE l.key NOT LIKE '%/' AND (s.revision IS NULL OR s.revision < l.revision)",
    ),
    (
        "log-chain",
        "a write of it follows one that is not older",
        "SELECT key FROM log WHERE abs(previous) >= revision",
    ),
    (
        "drop-without-log",
        "is noted as dropped, and the log does not know of it",
        "SELECT d.prefix FROM drops d LEFT JOIN log l ON l.revision = d.revision AND l.key = d.prefix AND l.value IS NULL"
        " WHERE l.revision IS NULL",
    ),
)


class Record(NamedTuple):
    """A key that is there, with all that is kept of it."""

    key: str
    revision: int
    expires_at: int | None
    value: bytes


class Finding(NamedTuple):
    """Something that is not as it must be: where, in a word that programs can tell apart, and what."""

    where: str
    kind: str
    what: str


class Ailment(NamedTuple):
    """Something that is wrong with a member of the store. `stops_writes`: with all of it, then."""

    what: str
    stops_writes: bool


@dataclass(frozen=True, slots=True)
class Figures:
    """How large a store is. None where this kind of store cannot tell.

    `log_rows`: writes that are kept, current ones included. `free_bytes`: of `disk_bytes`, what is there for new writes.
    """

    oldest: int
    log_rows: int | None
    disk_bytes: int | None
    free_bytes: int | None


class Snapshot(Protocol):
    """One state of a store. Raises Unavailable, and Compacted where the store has forgotten that state meanwhile."""

    @property
    def address(self) -> str:
        """For messages, without a password."""

    @property
    def identity(self) -> Identity: ...

    @property
    def head(self) -> int:
        """The revision of the state; nothing in it is newer."""

    async def served(self) -> bool | None:
        """Whether a server is at work on the store; None: that cannot be known."""

    async def count(self) -> int: ...

    def by_key(self, prefix: str = "") -> AsyncIterator[Sequence[Record]]:
        """What is under the prefix, in key order."""

    def by_revision(self) -> AsyncIterator[Sequence[Record]]:
        """Everything, the least recently written first."""

    def findings(self) -> AsyncIterator[Finding]:
        """What is wrong with the store's own tables, indexes and counters."""

    async def figures(self) -> Figures: ...

    async def ailing(self) -> Sequence[Ailment] | None:
        """What is wrong with the members that keep the store together; None where it has none."""

    async def clock(self) -> float | None:
        """What time it is there, in seconds since the epoch; None where it keeps none, or it is this machine's."""


class Vessel(Protocol):
    """An empty place that becomes a store. Left without `finish`, it can be filled anew by another copy."""

    @property
    def address(self) -> str: ...

    @property
    def keeps_revisions(self) -> bool:
        """Whether every record keeps its revision; if not, all get new ones above `floor`, in the same order."""

    async def begin(self, floor: int) -> None:
        """Makes ready for records. `floor`: a revision that the store's own shall go on above."""

    async def put(self, records: Sequence[Record]) -> None:
        """Adds records, which come in the order of their revisions, from call to call as well."""

    def contents(self) -> AsyncIterator[Sequence[Record]]:
        """What has been put, read back, in some order."""

    async def finish(self, identity: Identity, mark: bytes) -> int:
        """Makes a store of it: that of the given identity, with `mark` under COPIED_KEY as its last write.

        Returns its head, which is above `floor`. There is no history before it.
        """


class Digest:
    """Of records in whatever order: how many, how long, and a sum of their hashes."""

    def __init__(self, *, with_revisions: bool) -> None:
        self._with_revisions = with_revisions
        self.records = 0
        self.bytes = 0
        self._sum = 0

    def add(self, records: Sequence[Record]) -> None:
        for key, revision, expires_at, value in records:
            what = f"{key}\0{'' if expires_at is None else expires_at}\0{revision if self._with_revisions else ''}\0"
            hashed = hashlib.blake2b(value, digest_size=16, key=_key(what)).digest()
            self._sum = (self._sum + int.from_bytes(hashed, "big")) & ((1 << 128) - 1)
            self.records += 1
            self.bytes += len(value)

    @property
    def hex(self) -> str:
        return f"{self._sum:032x}"


def _key(what: str) -> bytes:
    return hashlib.blake2b(what.encode("utf-8", "surrogatepass"), digest_size=32).digest()


class Sorter:
    """Puts any number of byte strings in order, with a bounded part of them in memory and the rest in temporary files."""

    def __init__(self, run_bytes: int = RUN_BYTES) -> None:
        self._run_bytes = run_bytes
        self._items: list[bytes] = []
        self._held = 0
        self._runs: list[IO[bytes]] = []

    def add(self, item: bytes) -> None:
        self._items.append(item)
        self._held += len(item) + 64
        if self._held > self._run_bytes:
            self._spill()

    def __iter__(self) -> Iterator[bytes]:
        """Everything that was added, in order; may be asked for again."""
        self._items.sort()
        return heapq.merge(*(_read(run) for run in self._runs), iter(self._items))

    def close(self) -> None:
        for run in self._runs:
            run.close()
        self._runs.clear()
        self._items.clear()

    def _spill(self) -> None:
        run = tempfile.TemporaryFile(prefix="clusterling-")  # noqa: SIM115 - it is closed in `close`
        self._runs.append(run)
        for item in sorted(self._items):
            run.write(_LENGTH.pack(len(item)))
            run.write(item)
        run.flush()
        self._items.clear()
        self._held = 0


def _read(run: IO[bytes]) -> Iterator[bytes]:
    position = 0
    while True:
        # Several readers may share the file: each knows its own place.
        run.seek(position)
        block = run.read(1 << 18)
        start = 0
        while start + 4 <= len(block):
            (length,) = _LENGTH.unpack_from(block, start)
            if start + 4 + length > len(block):
                if start == 0:
                    block += run.read(4 + length - len(block))
                    continue
                break
            yield block[start + 4 : start + 4 + length]
            start += 4 + length
        if start == 0:
            return
        position += start


def snapshot(url: str, *, password: str | None = None) -> AbstractAsyncContextManager[Snapshot]:
    """The store that `url` names (`opening.open_store`), as it is now. Entering raises StoreOpenError."""
    found: AbstractAsyncContextManager[Snapshot] = _module(url).snapshot(url, password=password)
    return found


def vessel(url: str, *, password: str | None = None) -> AbstractAsyncContextManager[Vessel]:
    """The place that `url` names, which must hold nothing. Entering raises StoreOpenError."""
    found: AbstractAsyncContextManager[Vessel] = _module(url).vessel(url, password=password)
    return found


async def reclaim(url: str, *, password: str | None = None) -> None:
    """Gives the space that compaction has freed back to the disk, as far as this kind of store can. Raises Unavailable."""
    await _module(url).reclaim(url, password=password)


def _module(url: str) -> ModuleType:
    scheme = urlsplit(url).scheme
    if scheme == "sqlite":
        return import_module("clusterling.storage.sqlite_bulk")
    return load(scheme, "bulk")
