"""CachedStore: a Store that answers from memory, and is no staler than asked.

It stands above a cluster's Keyspace (and Overlay), so its entries carry the cluster's own keys and are handed out
without copying. A *unit* is a collection, the first two segments of a key (`<group>/<resource>/`): loaded at first use,
kept current by a watch of the store below, evicted when nobody watches it and memory is short.

Loading: the watch is in place and buffers; a snapshot is read at S; what the watch brings at or below S is
already in it and is dropped; the rest is applied; then the unit is published. From there on every batch of the
store below is applied synchronously, before the writer is answered, so within one process memory is never behind.

An entry is *finished* once, as it enters: `finish(key, value, revision)` gives the bytes that readers get. The same
Entry is handed out until its key is written again, the same Batch to all watchers of a prefix: what they derive
from either is kept in its `views` and computed once.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, Self

from clusterling.storage.backend import prefix_end, prefixes
from clusterling.storage.feed import Stream, StreamWatch, later, weight
from clusterling.storage.ordered import Ordered, Place
from clusterling.storage.store import (
    Batch,
    Compacted,
    Entry,
    Event,
    Guard,
    Identity,
    Limit,
    Op,
    Page,
    StorageError,
    Store,
    Unavailable,
    Usage,
    Watch,
)

Finish = Callable[[str, bytes, int], bytes]

RING_EVENTS_MAX: Final = 4096
RING_BYTES_MAX: Final = 4 << 20
ENTRY_OVERHEAD_BYTES: Final = 400  # Entry, key, its places in dict and list.
UNIT_OVERHEAD_BYTES: Final = 4096
LOAD_PAGE_ENTRIES: Final = 2000  # Layers below copy a page in one go.
# Finishing so many, or so large ones, takes about a millisecond; then others may run.
SHARED_PAGES_MAX: Final = 4  # Places of a collection whose pages share views.
LOAD_SLICE_ENTRIES: Final = 500
LOAD_SLICE_BYTES: Final = 2 << 20
LOAD_ATTEMPTS_MAX: Final = 4
# History that a watch from before the unit's window holds until its reader has taken it; of one, and of all together.
REPLAY_BYTES_MAX: Final = 16 << 20
REPLAYS_BYTES_MAX: Final = 256 << 20
REPLAY_EVENTS: Final = 100
EVICTION_LOOKS_MAX: Final = (
    64  # Units looked at for one eviction, so that a budget full of watched ones costs no more.
)
GETS_BEFORE_LOAD: Final = 4  # So many single reads of a unit go below before it is worth loading.
GETS_REMEMBERED_MAX: Final = 256
LOADS_MAX: Final = 400  # Kinds whose loads are counted apart.


def as_stored(_key: str, value: bytes, _revision: int) -> bytes:
    """The `finish` that changes nothing."""
    return value


class CacheBudget:
    """Bytes that the units of many caches may take together. The least recently used goes first."""

    def __init__(self, bytes_max: int = 512 << 20) -> None:
        self.bytes_max = bytes_max
        self.bytes = 0
        self.replayed = 0  # Bytes of history that watches hold each for itself.
        # For metrics: reads from memory, reads from below, units let go for others, units loaded by prefix.
        self.hits = self.misses = self.evictions = 0
        self.loads: dict[str, int] = {}
        self._units: OrderedDict[_Unit, None] = OrderedDict()

    def charge(self, unit: _Unit) -> None:
        """Takes account of what the unit has grown to, and makes room for it."""
        self._units.setdefault(unit, None)
        size = unit.size()
        self.bytes += size - unit.charged
        unit.charged = size
        if self.bytes > self.bytes_max:
            self._make_room(unit)

    def loaded(self, prefix: str) -> None:
        """Counts a unit that was loaded; of kinds that are too many, as one of no kind."""
        if len(self.loads) >= LOADS_MAX:
            prefix = prefix if prefix in self.loads else ""
        self.loads[prefix] = self.loads.get(prefix, 0) + 1

    def entries(self) -> dict[str, int]:
        """How many entries are in memory, by the prefix of their units."""
        found: dict[str, int] = {}
        for unit in self._units:
            found[unit.prefix] = found.get(unit.prefix, 0) + len(unit.entries)
        return found

    def __len__(self) -> int:
        """How many units are in memory."""
        return len(self._units)

    def remove(self, unit: _Unit) -> None:
        if unit in self._units:
            del self._units[unit]
            self.bytes -= unit.charged
            unit.charged = 0

    def _make_room(self, keep: _Unit) -> None:
        """Evicts what nobody watches until the budget holds, or nothing is left that may go; never `keep`.

        A unit that was used since it was last looked at gets a second chance, which is as good as an order of
        use and costs a reader one attribute.
        """
        for _ in range(min(2 * len(self._units), EVICTION_LOOKS_MAX)):
            if self.bytes <= self.bytes_max:
                return
            unit = next(iter(self._units))
            if unit is keep or unit.used or unit.watched():
                unit.used = False
                self._units.move_to_end(unit)
            else:
                self.evictions += 1
                unit.cache.evict(unit)


class _Unit:
    """One collection in memory: entries, by key and in order, and the streams of its watchers."""

    __slots__ = (
        "below",
        "bytes",
        "cache",
        "charged",
        "entries",
        "last_change",
        "ordered",
        "pages",
        "place",
        "prefix",
        "snapshot",
        "streams",
        "used",
        "whole",
    )

    def __init__(
        self,
        cache: CachedStore,
        prefix: str,
        place: AbstractAsyncContextManager[Watch],
        below: Watch,
        page: Page,
    ) -> None:
        self.cache = cache
        self.place = place
        self.prefix = prefix
        self.below = below
        self.entries: dict[str, Entry] = {}
        self.ordered = Ordered()
        # The views of pages since the last change, by what was listed.
        self.pages: dict[tuple[str, str, int], dict[object, object]] = {}
        self.last_change = page.last_change
        self.snapshot = page.revision
        self.bytes = UNIT_OVERHEAD_BYTES
        self.charged = 0  # What the budget was last told.
        self.used = False  # Again, since it was loaded or last spared.
        self.whole = self._new_stream(prefix, page.last_change)
        self.streams = {prefix: self.whole}

    def revision(self) -> int:
        return max(self.snapshot, self.below.revision)

    def size(self) -> int:
        return self.bytes + self.whole.bytes

    def watched(self) -> bool:
        return any(stream.watches for stream in self.streams.values())

    async def fill(self, entries: Sequence[Entry]) -> None:
        finish = self.cache.finish
        loaded: list[Entry] = []
        size = 0
        for raw in entries:
            entry = Entry(raw.key, finish(raw.key, raw.value, raw.revision), raw.revision)
            self.entries[raw.key] = entry
            loaded.append(entry)
            size += len(entry.value)
            if len(loaded) == LOAD_SLICE_ENTRIES or size >= LOAD_SLICE_BYTES:
                self._loaded(loaded, size)
                loaded, size = [], 0
                await self.cache.turn()
        self._loaded(loaded, size)

    def _loaded(self, entries: Sequence[Entry], size: int) -> None:
        self.ordered.extend(entries)
        self.bytes += size + len(entries) * ENTRY_OVERHEAD_BYTES

    def follow(self) -> None:
        """Applies what came while the snapshot was read, and from now on what comes, as it comes.

        Raises Compacted if more came than the watch below could hold.
        """
        self._take()
        self.below.notify(self._advance)

    def retire(self, error: StorageError) -> None:
        """Ends the watches. What still comes from below, until that watch is closed, is thrown away."""
        for stream in list(self.streams.values()):
            stream.end(error)
        self.below.notify(self._discard)

    def _advance(self) -> None:
        try:
            touched = self._take()
        except StorageError as error:
            self.cache.lost(self, error)
            return
        self.cache.budget.charge(self)
        for stream in touched:
            stream.wake()

    def _discard(self) -> None:
        try:
            while self.below.take() is not None:
                pass
        except StorageError:
            return

    def _take(self) -> dict[Stream, None]:
        """Applies what the watch below has, and appends it to the streams that see any of it."""
        touched: dict[Stream, None] = {}
        while (batch := self.below.take()) is not None:
            batch = later(batch, self.snapshot)  # A snapshot may be ahead of what is published.
            if batch.events:
                self._publish(Batch([self._apply(event) for event in batch.events], batch.revision), touched)
        return touched

    def views_of(self, place: tuple[str, str, int]) -> dict[object, object]:
        """What is shared by pages of one place: prefix, after, and limit."""
        views = self.pages.get(place)
        if views is None:
            if len(self.pages) >= SHARED_PAGES_MAX:
                self.pages.clear()
            views = self.pages[place] = {}
        return views

    def _apply(self, event: Event) -> Event:
        self.last_change = event.revision
        self.pages.clear()
        key, raw = event.key, event.entry
        if raw is not None:
            entry = Entry(key, self.cache.finish(key, raw.value, raw.revision), raw.revision)
            old = self.entries.get(key)
            self.entries[key] = entry
            self.ordered.put(entry)
            if old is None:
                self.bytes += len(entry.value) + ENTRY_OVERHEAD_BYTES
            else:
                self.bytes += len(entry.value) - len(old.value)
            return Event(event.revision, key, entry, old)
        if event.dropped:
            for gone in self.ordered.remove_between(*self.span(key)):
                del self.entries[gone.key]
                self.bytes -= len(gone.value) + ENTRY_OVERHEAD_BYTES
            return Event(event.revision, key, None, dropped=True)
        old = self.entries.pop(key, None)
        if old is not None:
            self.ordered.remove(key)
            self.bytes -= len(old.value) + ENTRY_OVERHEAD_BYTES
        return Event(event.revision, key, None, old)

    def _publish(self, batch: Batch, touched: dict[Stream, None]) -> None:
        self.whole.append(batch)
        touched[self.whole] = None
        if len(self.streams) == 1:
            return
        if any(event.dropped for event in batch.events):
            narrower = set(self.streams)
        else:
            narrower = {
                prefix for event in batch.events for prefix in prefixes(event.key)
            } & self.streams.keys()
        narrower.discard(self.prefix)
        for prefix in narrower:
            seen = narrowed(batch, prefix)
            if seen.events:
                self.streams[prefix].append(seen)
                touched[self.streams[prefix]] = None

    def span(self, prefix: str) -> tuple[Place, Place]:
        """Where what is under `prefix` begins and ends."""
        ordered = self.ordered
        if prefix == self.prefix:
            return ordered.start(), ordered.end()
        return ordered.before(prefix), ordered.before(prefix_end(prefix))

    def count(self, prefix: str) -> int:
        return self.ordered.count(*self.span(prefix))

    def floor(self, prefix: str) -> int:
        """A watch of `prefix` after this revision, or a later one, needs no history from below."""
        return self.streams.get(prefix, self.whole).floor

    def stream(self, prefix: str) -> Stream:
        """The shared stream of a prefix. A narrower one starts with what the unit's own window has of it."""
        stream = self.streams.get(prefix)
        if stream is None:
            stream = self.streams[prefix] = self._new_stream(prefix, self.whole.floor)
            for batch in self.whole.batches_after(self.whole.floor):
                seen = narrowed(batch, prefix)
                if seen.events:
                    stream.append(seen)
        return stream

    def leave(self, watch: StreamWatch) -> None:
        stream = watch.stream
        watch.close()
        if not stream.watches and stream.prefix != self.prefix:
            self.streams.pop(stream.prefix, None)

    def _new_stream(self, prefix: str, floor: int) -> Stream:
        return Stream(
            prefix,
            self.revision,
            keep=True,
            floor=floor,
            events_max=RING_EVENTS_MAX,
            bytes_max=RING_BYTES_MAX,
        )


def narrowed(batch: Batch, prefix: str) -> Batch:
    """What a watch of `prefix` sees of a batch of a wider one."""
    events: list[Event] = []
    for event in batch.events:
        if event.key.startswith(prefix):
            events.append(event)
        elif event.dropped and prefix.startswith(event.key):
            events.append(Event(event.revision, prefix, None, dropped=True))
    return Batch(events, batch.revision)


def unit_of(key: str) -> str:
    """The unit of a key or prefix, "" where it has none: fewer than two segments, each closed by a slash."""
    first = key.find("/") + 1
    end = key.find("/", first) + 1
    return key[:end] if first < end else ""


# Awaited between two slices of synchronous work: returns when the next may be done.
Turn = Callable[[], Awaitable[None]]


async def give_way() -> None:
    """A turn for who has no turnstile: what else the loop has to do is done first."""
    await asyncio.sleep(0)


class CachedStore:
    """A cache over the store of one cluster. Use as a context, or `close` it, so that its watches below end."""

    def __init__(
        self,
        below: Store,
        *,
        finish: Finish = as_stored,
        budget: CacheBudget | None = None,
        barrier: bool = True,
        turn: Turn = give_way,
    ) -> None:
        """`barrier` False: whoever reads has seen to it that memory is as fresh as it has to be (`fresh()`).

        `turn` is awaited between two slices of loading.
        """
        self.finish = finish
        self.turn = turn
        self._barrier = barrier
        self.budget = CacheBudget() if budget is None else budget
        self._below = below
        self._units: dict[str, _Unit] = {}
        self._loading: dict[str, asyncio.Event] = {}
        self._gets: dict[str, int] = {}
        self._leaving: list[AbstractAsyncContextManager[Watch]] = []
        self._closed = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends every watch (Unavailable) and forgets everything."""
        self.end()
        await self._let_go()

    def end(self) -> None:
        """As `close`, which is still to follow, and from this moment on: no watch sees what is written later."""
        self._closed = True
        for unit in list(self._units.values()):
            self._forget(unit, Unavailable("the cache is closed"))

    # What callers on the fast path use without waiting.

    def peek(self, key: str) -> Entry | None:
        """The entry in memory. None: there is none, or its unit is not loaded (`is_loaded` tells)."""
        unit = self._units.get(unit_of(key))
        if unit is None:
            return None
        unit.used = True
        self.budget.hits += 1
        return unit.entries.get(key)

    def lacks(self, key: str) -> bool:
        """There is no such key: nobody needs to be asked, as its unit is in memory. False says nothing."""
        if self._barrier:
            return False
        unit = self._units.get(unit_of(key))
        if unit is None:
            return False
        unit.used = True
        self.budget.hits += 1
        return key not in unit.entries

    def is_loaded(self, prefix: str) -> bool:
        """Whether the unit of this key or prefix is in memory."""
        return unit_of(prefix) in self._units

    def known_count(self, prefix: str) -> int | None:
        """How many entries are under the prefix; None where its unit is not loaded."""
        unit = self._units.get(unit_of(prefix))
        return None if unit is None else unit.count(prefix)

    def last_change(self, prefix: str) -> int | None:
        """The revision of the last write to the prefix's unit, or a little later; None where it is not loaded."""
        unit = self._units.get(unit_of(prefix))
        return None if unit is None else unit.last_change

    # Store.

    async def get(self, key: str) -> Entry | None:
        if self._barrier:
            await self._below.fresh()
        prefix = unit_of(key)
        unit = self._units.get(prefix)
        if unit is None:
            self.budget.misses += 1
            if not prefix or not self._worth_loading(prefix):
                entry = await self._below.get(key)
                return None if entry is None else self._finished(entry)
            unit = await self._load(prefix)
        else:
            self.budget.hits += 1
            unit.used = True
        return unit.entries.get(key)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        name = unit_of(prefix)
        if not name:
            return self._finished_page(
                await self._below.list(prefix, after=after, limit=limit, revision=revision), None
            )
        if self._barrier and revision == 0:
            await self._below.fresh()
        unit = self._units.get(name)
        if unit is None:
            self.budget.misses += 1
            unit = await self._load(name)
        else:
            self.budget.hits += 1
            unit.used = True
        now = unit.revision()
        at = revision or now
        if not unit.last_change <= at <= now:
            page = await self._below.list(prefix, after=after, limit=limit, revision=revision)
            return self._finished_page(page, unit)
        low, high = unit.span(prefix)
        if after:
            low = min(high, max(low, unit.ordered.after(after)))
        entries = unit.ordered.cut(low, high, limit)
        views = unit.views_of((prefix, after, limit))
        return Page(entries, at, unit.ordered.count(low, high) - len(entries), unit.last_change, views)

    async def count(self, prefix: str) -> int:
        if self._barrier:
            await self._below.fresh()
        unit = self._units.get(unit_of(prefix))
        if unit is None:
            return await self._below.count(prefix)
        return unit.count(prefix)

    async def usage(self, prefix: str) -> Sequence[Usage]:
        return await self._below.usage(prefix)

    def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Coroutine[Any, Any, Sequence[int]]:
        return self._below.write(ops, guards, limits)

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        if unit_of(prefix):
            return _Watching(self, prefix, after)
        return self._watch_below(prefix, after)

    def head(self) -> int:
        return self._below.head()

    def fresh(self) -> Awaitable[int]:
        return self._below.fresh()

    async def compact(self, horizon: int) -> None:
        await self._below.compact(horizon)

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        await self._below.drop(prefix, guards)

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        return [self._finished(entry) for entry in await self._below.expired(now, limit)]

    async def identity(self) -> Identity:
        return await self._below.identity()

    def forget_windows(self) -> None:
        """Lets go of the changes that are kept for those who watch again: they read them from the store."""
        for unit in list(self._units.values()):
            for stream in unit.streams.values():
                stream.forget()
            self.budget.charge(unit)

    # For units and the budget.

    def evict(self, unit: _Unit) -> None:
        """Forgets a unit that nobody watches."""
        self._forget(unit, Compacted(unit.last_change))

    def lost(self, unit: _Unit, error: StorageError) -> None:
        """The watch below failed: the unit is loaded anew at its next use, and its watchers list again."""
        self._forget(unit, error)

    def _forget(self, unit: _Unit, error: StorageError) -> None:
        if self._units.get(unit.prefix) is unit:
            del self._units[unit.prefix]
        self.budget.remove(unit)
        self._leaving.append(unit.place)
        unit.retire(error)

    async def _let_go(self) -> None:
        while self._leaving:
            await self._leaving.pop().__aexit__(None, None, None)

    def _worth_loading(self, prefix: str) -> bool:
        if prefix in self._loading:
            return True
        count = self._gets.get(prefix, 0) + 1
        if count > GETS_BEFORE_LOAD:
            return True
        if len(self._gets) >= GETS_REMEMBERED_MAX:
            self._gets.clear()
        self._gets[prefix] = count
        return False

    async def _load(self, prefix: str) -> _Unit:
        """The unit, loaded by the first who asks; whoever asks meanwhile waits for the same load."""
        while True:
            if self._closed:
                raise Unavailable("the cache is closed")
            unit = self._units.get(prefix)
            if unit is not None:
                return unit
            loading = self._loading.get(prefix)
            if loading is None:
                break
            await loading.wait()
        loading = self._loading[prefix] = asyncio.Event()
        try:
            for _ in range(LOAD_ATTEMPTS_MAX):
                await self._let_go()
                unit = await self._read(prefix)
                if unit is not None:
                    return unit
            raise Unavailable(f"{prefix} changes faster than it can be read")
        finally:
            del self._loading[prefix]
            loading.set()

    async def _read(self, prefix: str) -> _Unit | None:
        """One attempt at loading; None where so much changed meanwhile that history did not reach back to its start."""
        place = self._below.watch(prefix, after=self._below.head())
        below = await place.__aenter__()
        published = False
        try:
            page = await self._below.list(prefix, limit=LOAD_PAGE_ENTRIES)
            unit = _Unit(self, prefix, place, below, page)
            await unit.fill(page.entries)
            try:
                while len(page.entries) == LOAD_PAGE_ENTRIES:
                    page = await self._below.list(
                        prefix, after=page.entries[-1].key, limit=LOAD_PAGE_ENTRIES, revision=unit.snapshot
                    )
                    await unit.fill(page.entries)
                if self._closed:
                    raise Unavailable("the cache is closed")
                # From here on there is no await: nothing is missed between catching up and following.
                unit.follow()
            except Compacted:
                return None
            self.budget.loaded(prefix)
            self._units[prefix] = unit
            self._gets.pop(prefix, None)
            self.budget.charge(unit)
            published = True
            return unit
        finally:
            if not published:
                await place.__aexit__(None, None, None)

    def _finished(self, raw: Entry) -> Entry:
        return Entry(raw.key, self.finish(raw.key, raw.value, raw.revision), raw.revision)

    def _finished_page(self, page: Page, unit: _Unit | None) -> Page:
        entries: list[Entry] = []
        for raw in page.entries:
            kept = unit.entries.get(raw.key) if unit is not None else None
            entries.append(
                kept if kept is not None and kept.revision == raw.revision else self._finished(raw)
            )
        return Page(entries, page.revision, page.remaining, page.last_change)

    def _finished_event(self, event: Event) -> Event:
        def previous() -> Entry | None:
            before = event.previous()
            return None if before is None else self._finished(before)

        entry = None if event.entry is None else self._finished(event.entry)
        return Event(event.revision, event.key, entry, previous, dropped=event.dropped)

    def _finished_batch(self, batch: Batch) -> Batch:
        return Batch([self._finished_event(event) for event in batch.events], batch.revision)

    async def subscribe(self, prefix: str, after: int) -> tuple[_Unit, StreamWatch, int]:
        """A watch that is in place, of which unit, and how many bytes of history it holds for itself. `_Unit.leave` ends it."""
        name = unit_of(prefix)
        while True:
            unit = self._units.get(name) or await self._load(name)
            if after >= unit.floor(prefix):
                unit.used = True
                return unit, unit.stream(prefix).subscribe(after), 0
            replay, through, size = await self._replay(prefix, after)
            if self._units.get(name) is unit and unit.floor(prefix) <= through:
                watch = unit.stream(prefix).subscribe(max(after, through))
                watch.replay_first(replay, after)
                unit.used = True
                return unit, watch, size
            # The unit was read from a store that was ahead of what this process has been told. The rest is on its way.
            await self._below.fresh()
            await asyncio.sleep(0)

    async def _replay(self, prefix: str, after: int) -> tuple[Sequence[Batch], int, int]:
        """Finished batches above `after`, from the history below, how far they reach, and their bytes.

        Raises Compacted for more than a reader may hold for itself: who is that far behind lists again.
        """
        batches: list[Batch] = []
        size = 0
        async with self._below.watch(prefix, after=after) as below:
            while (batch := below.take()) is not None:
                for part in _parts(batch):
                    size += weight(part.events)
                    if size > REPLAY_BYTES_MAX or self.budget.replayed + size > REPLAYS_BYTES_MAX:
                        raise Compacted(batch.revision)
                    batches.append(self._finished_batch(part))
                    await asyncio.sleep(0)
            return batches, below.revision, size

    @asynccontextmanager
    async def _watch_below(self, prefix: str, after: int) -> AsyncIterator[Watch]:
        async with self._below.watch(prefix, after=after) as below:
            yield _FinishedWatch(below, self._finished_batch)


class _Watching:
    """The context of a watch. A class, and a small one: every cluster that is served holds one open."""

    __slots__ = ("_after", "_cache", "_prefix", "_replayed", "_unit", "_watch")

    def __init__(self, cache: CachedStore, prefix: str, after: int) -> None:
        self._cache = cache
        self._prefix = prefix
        self._after = after
        self._unit: _Unit
        self._watch: StreamWatch | None = None
        self._replayed = 0

    async def __aenter__(self) -> Watch:
        self._unit, self._watch, self._replayed = await self._cache.subscribe(self._prefix, self._after)
        self._cache.budget.replayed += self._replayed
        return self._watch

    async def __aexit__(self, *_: object) -> None:
        watch, self._watch = self._watch, None
        if watch is not None:
            self._cache.budget.replayed -= self._replayed
            self._unit.leave(watch)


def _parts(batch: Batch) -> Iterator[Batch]:
    """The batch in pieces that take a millisecond or so each."""
    events = batch.events
    for start in range(0, len(events), REPLAY_EVENTS):
        part = events[start : start + REPLAY_EVENTS]
        last = start + REPLAY_EVENTS >= len(events)
        yield Batch(part, batch.revision if last else part[-1].revision)


class _FinishedWatch:
    """A watch wider than any unit: passed through, its entries finished on the way."""

    def __init__(self, below: Watch, finished: Callable[[Batch], Batch]) -> None:
        self._below = below
        self._finished = finished

    @property
    def revision(self) -> int:
        return self._below.revision

    def take(self) -> Batch | None:
        batch = self._below.take()
        return None if batch is None else self._finished(batch)

    def notify(self, callback: Callable[[], None]) -> None:
        self._below.notify(callback)

    def __aiter__(self) -> AsyncIterator[Batch]:
        return self

    async def __anext__(self) -> Batch:
        return self._finished(await anext(self._below))
