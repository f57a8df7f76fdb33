"""The process's one upstream of changes: published once, in order, and pulled by any number of watches.

A *stream* is what one prefix sees: shared batches in a bounded window. A watch is a position in a stream and holds
nothing else, so a slow reader costs what the window costs, and one that falls out of it is told so (Compacted).
The cache uses the same streams for its own watchers, with a window that it keeps for those who resume.

Rules of this file: publishing is synchronous and reaches every stream before the first callback runs; a watch's
revision is therefore never ahead of what it can take. Callbacks follow at once, but where thousands watch one stream: some at each
round of the loop, so that nobody else waits for all of them.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final

from typing_extensions import override

from clusterling.storage.awaited import Awaited, Waking
from clusterling.storage.backend import Backend, prefixes
from clusterling.storage.store import Batch, Compacted, Event, StorageError, Unavailable, Watch

WINDOW_EVENTS_MAX: Final = 10_000
WINDOW_BYTES_MAX: Final = 32 << 20
REPLAY_EVENTS_MAX: Final = (
    200_000  # Who is further behind than this, or this many bytes, is quicker with a list.
)
REPLAY_BYTES_MAX: Final = 64 << 20
REPLAY_PAGE_EVENTS: Final = 1000
EVENT_OVERHEAD_BYTES: Final = 300


def weight(events: Iterable[Event]) -> int:
    """Roughly the bytes that keeping the events costs."""
    return sum(EVENT_OVERHEAD_BYTES + (len(event.entry.value) if event.entry else 0) for event in events)


def later(batch: Batch, revision: int) -> Batch:
    """The part of the batch above `revision`; the batch itself where that is all of it."""
    events = batch.events
    if not events or events[0].revision > revision:
        return batch
    return Batch([event for event in events if event.revision > revision], batch.revision)


class Stream:
    """The events under one prefix: a window of shared batches, and the watches that are somewhere in it.

    `progress` tells how far the stream has come where no events say so. With `keep` the window stays for
    watches to come; without, a batch goes when the last watch has taken it.
    """

    __slots__ = (
        "_batches",
        "_bytes",
        "_bytes_max",
        "_events",
        "_events_max",
        "_keep",
        "_progress",
        "_start",
        "_waking",
        "_weights",
        "error",
        "floor",
        "prefix",
        "watches",
    )

    def __init__(
        self,
        prefix: str,
        progress: Callable[[], int],
        *,
        keep: bool,
        floor: int = 0,
        events_max: int = WINDOW_EVENTS_MAX,
        bytes_max: int = WINDOW_BYTES_MAX,
    ) -> None:
        self.prefix = prefix
        self.floor = floor  # The window has every event above this revision.
        self.watches: set[StreamWatch] = set()
        self.error: StorageError | None = None
        self._progress = progress
        self._keep = keep
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._batches: list[Batch] = []
        self._weights: list[int] = []
        self._start = 0  # The number of the first batch in the window.
        self._events = 0
        self._bytes = 0
        self._waking = Waking()

    def append(self, batch: Batch) -> None:
        """Adds a batch; `wake` follows when every stream has had its own."""
        self._batches.append(batch)
        size = weight(batch.events)
        self._weights.append(size)
        self._events += len(batch.events)
        self._bytes += size
        if self._events > self._events_max or self._bytes > self._bytes_max:
            self._shrink()
        elif not self._keep and len(self._batches) % 64 == 0:
            self.release()

    def wake(self) -> None:
        """Calls the callbacks of all watches."""
        self._waking.wake(self.watches)

    def leave(self, watch: StreamWatch) -> None:
        """The watch is woken no more, and holds nothing in the window."""
        self.watches.discard(watch)
        self._waking.spare(watch)

    def end(self, error: StorageError) -> None:
        """Every watch raises `error` from now on, after what it has not taken yet is lost."""
        self.error = error
        self.wake()

    def release(self) -> None:
        """Lets go of batches that every watch has taken."""
        if self._keep or not self._batches:
            # Thousands of clusters watch what all begin with, where nothing ever happens: their leaving costs nothing.
            return
        self.forget()

    def forget(self) -> None:
        """Lets go of the window, as far as every watch has taken it: who comes from before it reads history."""
        taken = min((watch.position for watch in self.watches), default=self._start + len(self._batches))
        if taken > self._start:
            self._cut(taken - self._start)

    def batches_after(self, revision: int) -> Sequence[Batch]:
        return self._batches[self._index_after(revision) :]

    def subscribe(self, after: int) -> StreamWatch:
        """A watch of what the window has above `after`, which is not below `floor`, and of what comes."""
        watch = StreamWatch(self, self._start + self._index_after(after), after)
        self.watches.add(watch)
        return watch

    def at(self, position: int) -> Batch | None:
        """The batch with that number, None where it is still to come. Raises Compacted where it is gone."""
        if self.error is not None:
            raise type(self.error)(*self.error.args)
        index = position - self._start
        if index < 0:
            raise Compacted(self.floor)
        return self._batches[index] if index < len(self._batches) else None

    def reached(self) -> int:
        return self._progress()

    @property
    def bytes(self) -> int:
        return self._bytes

    def _index_after(self, revision: int) -> int:
        return bisect_right(self._batches, revision, key=lambda batch: batch.revision)

    def _shrink(self) -> None:
        """Drops the oldest batches, down to three quarters, so that this is rare; the newest always stays."""
        count, events, size = 0, self._events, self._bytes
        while count < len(self._batches) - 1 and (
            events > self._events_max * 3 // 4 or size > self._bytes_max * 3 // 4
        ):
            events -= len(self._batches[count].events)
            size -= self._weights[count]
            count += 1
        self._cut(count)

    def _cut(self, count: int) -> None:
        if count == 0:
            return
        self.floor = self._batches[count - 1].revision
        self._events -= sum(len(batch.events) for batch in self._batches[:count])
        self._bytes -= sum(self._weights[:count])
        del self._batches[:count]
        del self._weights[:count]
        self._start += count


class StreamWatch(Awaited):
    """A position in a stream, after a replay of its own."""

    __slots__ = ("_error", "_replay", "_revision", "position", "stream")

    def __init__(self, stream: Stream, position: int, after: int) -> None:
        super().__init__()
        self.stream = stream
        self.position = position
        self._revision = after
        self._replay: list[Batch] | None = None
        self._error: StorageError | None = None

    @property
    def revision(self) -> int:
        if self._error is None and not self._replay:
            try:
                if self.stream.at(self.position) is None:
                    return max(self._revision, self.stream.reached())
            except StorageError:
                return self._revision
        return self._revision

    @override
    def take(self) -> Batch | None:
        if self._error is not None:
            raise self._error
        if self._replay:
            batch = self._replay.pop()
            self._revision = max(self._revision, batch.revision)
            return batch
        stream = self.stream
        try:
            while (shared := stream.at(self.position)) is not None:
                self.position += 1
                if len(stream.watches) == 1:
                    stream.release()
                batch = later(shared, self._revision)
                if batch.events:
                    self._revision = batch.revision
                    return batch
        except StorageError as error:
            self._error = error
            raise
        return None

    def replay_first(self, replay: Sequence[Batch], after: int) -> None:
        """Goes back to `after`: gives these batches first, which reach to where the watch is."""
        self._replay = list(reversed(replay))
        self._revision = after

    def level_with(self, other: StreamWatch) -> bool:
        """Whether it has taken all there is, and stands where the other does: from here on both take the same."""
        if self._error is not None or self._replay or other.stream is not self.stream:
            return False
        if self.position != other.position or self._revision > self.stream.reached():
            return False
        return not self._pending()

    def rest(self) -> None:
        """Is not woken, and holds nothing in the window, until it goes on with `follow`."""
        self.stream.leave(self)

    def follow(self, other: StreamWatch) -> None:
        """Goes on from where the other watch of the same stream stands."""
        assert other.stream is self.stream, "positions compare within one stream"
        self.position = other.position
        self._revision = other._revision
        if self._error is None:
            self.stream.watches.add(self)

    def close(self) -> None:
        """Gives up the position; who still waits gets Unavailable."""
        self._callback = None
        self._error = self._error or Unavailable("the watch is closed")
        self.wake()
        self.stream.leave(self)
        self.stream.release()

    @override
    def _pending(self) -> bool:
        if self._error is not None or self._replay:
            return True
        try:
            return self.stream.at(self.position) is not None
        except StorageError:
            return True


class _Subscription:
    """The context of a watch. A class, and a small one: every collection in memory holds one open."""

    __slots__ = ("_after", "_feed", "_prefix", "_watch")

    def __init__(self, feed: Feed, prefix: str, after: int) -> None:
        self._feed = feed
        self._prefix = prefix
        self._after = after
        self._watch: StreamWatch | None = None

    async def __aenter__(self) -> Watch:
        self._watch = await self._feed.subscribe(self._prefix, self._after)
        return self._watch

    async def __aexit__(self, *_: object) -> None:
        if self._watch is not None:
            self._feed.leave(self._watch)


class Feed:
    """One backend's changes, by prefix."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._revision = backend.head()
        self._streams: dict[str, Stream] = {}
        self._closed: StorageError | None = None
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.events = 0  # Published, and
        self.gaps = 0  # how often some were missed.

    @property
    def watches(self) -> int:
        """How many watches there are."""
        return sum(len(stream.watches) for stream in self._streams.values())

    @property
    def revision(self) -> int:
        """How far every watch has come, as far as this process is concerned."""
        return self._revision

    def publish(self, events: Sequence[Event], revision: int) -> None:
        """The sink of the backend."""
        self.events += len(events)
        streams = self._streams
        touched: dict[Stream, list[Event]] = {}
        if streams:
            parent: str | None = None
            above: list[Stream] = []
            for event in events:
                key = event.key
                place = key[: key.rfind("/") + 1]
                if place != parent:
                    # Events come in runs from one place, over which the same watches are.
                    parent = place
                    above = [streams[prefix] for prefix in prefixes(place) if prefix in streams]
                for stream in above:
                    seen = touched.get(stream)
                    if seen is None:
                        touched[stream] = [event]
                    else:
                        seen.append(event)
                if event.dropped:
                    for stream in streams.values():
                        if stream.prefix != event.key and stream.prefix.startswith(event.key):
                            narrowed = Event(event.revision, stream.prefix, None, dropped=True)
                            touched.setdefault(stream, []).append(narrowed)
            for stream, seen in touched.items():
                stream.append(Batch(seen, revision))
        self._revision = revision
        for stream in touched:
            stream.wake()
        if self._waiting:
            self._wake_waiting()

    def lose(self, revision: int) -> None:
        """Ends every watch with Compacted: there is a gap up to `revision`, from where new ones go on."""
        self.gaps += 1
        streams, self._streams = self._streams, {}
        self._revision = max(self._revision, revision)
        for stream in streams.values():
            stream.end(Compacted(revision))
        if self._waiting:
            self._wake_waiting()

    async def reached(self, revision: int) -> None:
        """Returns when every watch has come as far as `revision`."""
        while self._revision < revision:
            if self._closed is not None:
                raise self._closed
            arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((revision, arrived))
            await arrived

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        """As `Store.watch`."""
        return _Subscription(self, prefix, after)

    async def subscribe(self, prefix: str, after: int) -> StreamWatch:
        """A watch that is in place; `leave` it."""
        if self._closed is not None:
            raise self._closed
        stream = self._streams.get(prefix)
        if stream is None:
            stream = Stream(prefix, self.reached_revision, keep=False, floor=self._revision)
            self._streams[prefix] = stream
        # In place from here on; what is older comes from history, without a gap and without an overlap.
        joined = self._revision
        live = stream.subscribe(max(joined, after))
        if after >= joined:
            return live
        try:
            replay = await self._replay(prefix, after, joined)
        except BaseException:
            self.leave(live)
            raise
        live.replay_first(replay, after)
        return live

    def leave(self, watch: StreamWatch) -> None:
        watch.close()
        stream = watch.stream
        if not stream.watches and self._streams.get(stream.prefix) is stream:
            del self._streams[stream.prefix]

    def forget(self) -> None:
        """Lets go of what every watch has taken, which is otherwise done now and then."""
        for stream in self._streams.values():
            stream.forget()

    def reached_revision(self) -> int:
        return self._revision

    async def _replay(self, prefix: str, after: int, through: int) -> list[Batch]:
        replay: list[Batch] = []
        size = count = 0
        while True:
            events = await self._backend.changes(
                prefix, after=after, through=through, limit=REPLAY_PAGE_EVENTS
            )
            complete = len(events) < REPLAY_PAGE_EVENTS
            if events:
                after = events[-1].revision
                replay.append(Batch(events, through if complete else after))
            if complete:
                return replay
            count += len(events)
            size += weight(events)
            if count > REPLAY_EVENTS_MAX or size > REPLAY_BYTES_MAX:
                raise Compacted(after)

    def close(self) -> None:
        """Every watch raises Unavailable from now on."""
        self._closed = Unavailable("the store is closed")
        for stream in list(self._streams.values()):
            stream.end(self._closed)
        self._wake_waiting()

    def _wake_waiting(self) -> None:
        waiting, self._waiting = self._waiting, []
        for revision, arrived in waiting:
            if arrived.done():
                continue
            if revision <= self._revision or self._closed is not None:
                arrived.set_result(None)
            else:
                self._waiting.append((revision, arrived))
