"""A store in one append-only file: a line of JSON for each commit, synced before anybody is told, read at the start.

Only the `Backend` is here: what is durable, and when. Its reads are those of the backend in memory, to which the
lines are done again. `serve` adds the batcher (writes that come together share one sync) and the feed (every watcher
gets every event, once and in order); with them it is a `Store`.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from clusterling.storage.backed import BackedStore, serve
from clusterling.storage.backend import Committed, Transaction
from clusterling.storage.memory import MemoryBackend
from clusterling.storage.store import Guard, Identity, Op, StorageError, Unavailable


class Line(msgspec.Struct, omit_defaults=True):
    ops: list[Op] = []
    drop: str | None = None
    compact: int = 0
    id: str = ""  # The store's, on the first line.


class LogfileBackend:
    def __init__(self, path: Path) -> None:
        self._path, self._id, self._writing = path, "", asyncio.Lock()
        self._memory = memory = MemoryBackend()
        self.get, self.list, self.count, self.expired = memory.get, memory.list, memory.count, memory.expired
        self.follow, self.changes, self.close = memory.follow, memory.changes, memory.close
        self.head, self.fresh, self.usage = memory.head, memory.fresh, memory.usage

    async def load(self) -> None:
        """Does again what the file says was done; so every write gets the revision that it had."""
        self._path.touch(mode=0o600)
        *lines, _ = self._path.read_bytes().split(b"\n")  # Nobody was told of a line that is cut short.
        os.truncate(self._path, sum(len(line) + 1 for line in lines))
        for line in (msgspec.json.decode(text, type=Line) for text in lines):
            self._id = self._id or line.id
            if line.drop is not None:
                await self._memory.drop(line.drop)
            await self._memory.compact(line.compact)
            await self._memory.commit([Transaction(line.ops)])
        if not self._id:
            self._id = secrets.token_hex(16)
            await asyncio.to_thread(self._append, Line(id=self._id))

    async def commit(self, transactions: Sequence[Transaction]) -> Sequence[Committed | StorageError]:
        async with self._writing:
            refusals = self._memory.refusals(transactions)
            accepted = [each for each, no in zip(transactions, refusals, strict=True) if no is None]
            if accepted:
                await asyncio.to_thread(self._append, Line(ops=[op for each in accepted for op in each.ops]))
            outcomes = iter(await self._memory.commit(accepted))
            return [refused or next(outcomes) for refused in refusals]

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        async with self._writing:
            [refused] = self._memory.refusals([Transaction((), guards)])
            if refused:
                raise refused
            await asyncio.to_thread(self._append, Line(drop=prefix))
            await self._memory.drop(prefix)

    async def compact(self, horizon: int) -> None:
        async with self._writing:
            await asyncio.to_thread(self._append, Line(compact=horizon))
            await self._memory.compact(horizon)

    async def identity(self) -> Identity:
        return Identity(self._id, epoch=1)

    def _append(self, line: Line) -> None:
        size = self._path.stat().st_size
        try:
            with self._path.open("ab") as file:
                file.write(msgspec.json.encode(line) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            os.truncate(self._path, size)
            raise Unavailable(f"{self._path} cannot be written: {error.strerror}") from error


@asynccontextmanager
async def open_logfile(path: Path) -> AsyncIterator[BackedStore]:
    """A complete store in the file, which one process at a time may open."""
    backend = LogfileBackend(path)
    await backend.load()
    async with serve(backend, shared=False) as store:
        yield store
