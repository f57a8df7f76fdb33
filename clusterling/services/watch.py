"""The watch response: frames from an ObjectWatch to a sink, thousands at a time.

Theory of operation
-------------------
A watch has no task of its own work and no queue. A commit calls each watch's callback, which only puts the stream
on the list of those with something to take. One callback of the loop walks that list: it takes what each has, already
framed and shared between equal watchers, and hands it to the transport in one write. A stream whose peer does
not read is left out of the list until its transport has drained; what it misses meanwhile stays in the store's window,
and if it falls out of that, the next take says 410 and the client lists again.

The coroutine that answers the request sleeps on one future until the watch is over.

Upstream: apiserver/pkg/endpoints/handlers/{get,watch}.go, apiserver/pkg/storage/cacher/cache_watcher.go.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final, TypeVar

import orjson
from typing_extensions import override

from clusterling.machinery.errors import ApiError, internal_error
from clusterling.registry.objects import ObjectStore
from clusterling.registry.options import WatchOptions
from clusterling.registry.resource import Served
from clusterling.registry.watching import ObjectWatch, WatchEnded
from clusterling.services.negotiation import Frames
from clusterling.services.request import Sink, Stream
from clusterling.storage.store import StorageError

_S = TypeVar("_S", bound=Stream)

_log = logging.getLogger(__name__)

# A watch without timeoutSeconds lives this long, times a random number between 1 and 2 (upstream: min-request-timeout).
WATCH_MIN_S: Final = 1800.0
WATCH_MAX_S: Final = 7 * 86_400.0  # However long a client asks for.

BUFFERED_BYTES_MAX: Final = 1024 * 1024  # Unread bytes of one peer, above which its watch takes no more.
WRITE_BYTES: Final = 256 * 1024  # About how much one stream writes before others have their turn.
SLICE_S: Final = 0.001
BOOKMARK_TICK_S: Final = 1.0
BOOKMARK_TICKS: Final = 60  # A watch gets a bookmark on one tick in so many.


class Streams:
    """All watches of a server. One for an App; it owns the loop's callbacks that serve them."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._open: set[WatchStream] = set()
        self._ready: deque[WatchStream] = deque()
        self._ticking = False
        self._parts: list[bytes] = []
        self._joined = b""
        self._stopping = False
        self._bookmarked: list[set[WatchStream]] = [set() for _ in range(BOOKMARK_TICKS)]
        self._bookmark_tick = 0
        self._bookmark_timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: WatchStream, *, bookmarks: bool) -> None:
        """Serves the stream from now on."""
        self._open.add(stream)
        if bookmarks:
            stream.bucket = random.choice(self._bookmarked)
            stream.bucket.add(stream)
            if self._bookmark_timer is None:
                self._later(asyncio.get_running_loop())
        if self._stopping:
            stream.stop()

    def discard(self, stream: WatchStream) -> None:
        """Forgets the stream. Safe to repeat."""
        self._open.discard(stream)
        if stream.bucket is not None:
            stream.bucket.discard(stream)

    def wake(self, stream: WatchStream) -> None:
        """Has the stream's `step` called soon. The stream sees to it that it is listed once."""
        self._ready.append(stream)
        if not self._ticking:
            self._ticking = True
            loop = asyncio.get_running_loop()
            loop.call_soon(self._tick, loop)

    def joined(self, parts: list[bytes]) -> bytes:
        """The parts as one. Equal watches that are served one after the other have the same parts, and share the copy."""
        if len(parts) == 1:
            return parts[0]
        if parts != self._parts:
            self._parts, self._joined = parts, b"".join(parts)
        return self._joined

    async def stop(self, within_s: float = 0.0) -> None:
        """Ends all watches cleanly, and each that begins from now on; over `within_s`, so that not all come back at once."""
        self._stopping = True
        if self._bookmark_timer is not None:
            self._bookmark_timer.cancel()
            self._bookmark_timer = None
        await stop_spread(list(self._open), within_s)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serves those that are ready, for about `SLICE_S`, then lets others have the loop."""
        ready, clock = self._ready, self.clock
        until = clock() + SLICE_S
        while ready:
            ready.popleft().step()
            if clock() >= until:
                break
        if ready:
            loop.call_soon(self._tick, loop)
        else:
            self._ticking = False
            self._parts, self._joined = [], b""

    def _later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._bookmark_timer = loop.call_later(BOOKMARK_TICK_S, self._send_bookmarks, loop)

    def _send_bookmarks(self, loop: asyncio.AbstractEventLoop) -> None:
        self._bookmark_timer = None
        self._bookmark_tick = (self._bookmark_tick + 1) % BOOKMARK_TICKS
        for stream in self._bookmarked[self._bookmark_tick]:
            stream.send_bookmark()
        if any(self._bookmarked):
            self._later(loop)


async def stop_spread(streams: list[_S], within_s: float) -> None:
    """Asks the streams to end, in random order over `within_s`."""
    random.shuffle(streams)
    steps = min(len(streams), max(1, int(within_s / 0.02)))
    for step in range(steps):
        for stream in streams[step::steps]:
            stream.stop()
        if step + 1 < steps:
            await asyncio.sleep(within_s / steps)


class WatchStream(Stream):
    """One client's watch. Made by `open_watch`."""

    def __init__(
        self,
        streams: Streams,
        watch: ObjectWatch,
        codec: Frames,
        resources: AsyncExitStack,
        *,
        timeout_s: float,
        bookmarks: bool,
    ) -> None:
        self._streams = streams
        self._watch = watch
        self._codec = codec
        self._resources = resources
        self._timeout_s = timeout_s
        self._bookmarks = bookmarks
        self._sink: Sink | None = None
        self._over: asyncio.Future[None] | None = None
        self._stopped = False
        self._listed = False
        self._full = False
        self.bucket: set[WatchStream] | None = None

    @override
    async def run(self, sink: Sink) -> None:
        if self._stopped:
            return
        loop = asyncio.get_running_loop()
        self._sink = sink
        self._over = loop.create_future()
        timer = loop.call_later(self._timeout_s, self._expire)
        sink.on_drain(self._drained)
        self._watch.notify(self.wake)
        self._streams.add(self, bookmarks=self._bookmarks)
        self.wake()
        try:
            await self._over
        finally:
            timer.cancel()
            self._streams.discard(self)

    @override
    def stop(self) -> None:
        self._stopped = True
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    @override
    async def close(self) -> None:
        self.stop()
        await self._resources.aclose()

    def wake(self) -> None:
        """There may be something to take."""
        if not (self._listed or self._full or self._stopped):
            self._listed = True
            self._streams.wake(self)

    def step(self) -> None:
        """Takes and writes what there is, up to `WRITE_BYTES`; comes again where there may be more."""
        self._listed = False
        if self._stopped or self._full:
            return
        assert self._sink is not None, "woken only while it runs"
        parts: list[bytes] = []
        size, more, clock = 0, False, self._streams.clock
        until = clock() + SLICE_S
        try:
            while not more and (data := self._watch.take()) is not None:
                if data:
                    parts.append(data)
                    size += len(data)
                more = size >= WRITE_BYTES or clock() >= until or not data
        except (WatchEnded, StorageError):
            # The kind, the cluster or the store is no longer what it was: clients watch again and are told then.
            self._write(parts)
            self.stop()
            return
        except ApiError as error:
            self._write([*parts, error_frame(self._codec, error)])
            self.stop()
            return
        except Exception:  # noqa: BLE001 - nobody stands above a callback of the loop
            _log.exception("watch failed")
            self._write([*parts, error_frame(self._codec, internal_error("the watch could not go on"))])
            self.stop()
            return
        if parts:
            self._write(parts)
            self._full = self._sink.buffered > BUFFERED_BYTES_MAX
        if more:
            self.wake()

    def send_bookmark(self) -> None:
        """Tells the client how far the watch has come, if it may be told and has not heard."""
        if self._stopped or self._full or self._listed or self._sink is None:
            return
        data = self._watch.bookmark()
        if data is not None:
            self._sink.write(data)

    def _write(self, parts: list[bytes]) -> None:
        assert self._sink is not None, "writes only while it runs"
        if parts:
            self._sink.write(self._streams.joined(parts))

    def _drained(self) -> None:
        if self._full:
            self._full = False
            self.wake()

    def _expire(self) -> None:
        """The time is over. A last bookmark lets the client go on where it stands."""
        self.send_bookmark()
        self.stop()


class ErrorStream(Stream):
    """A watch that is over before it began: 200, one ERROR event, and the end."""

    def __init__(self, frame: bytes) -> None:
        self._frame = frame

    @override
    async def run(self, sink: Sink) -> None:
        sink.write(self._frame)

    @override
    def stop(self) -> None:
        """Nothing to end: it ends by itself."""

    @override
    async def close(self) -> None:
        """Nothing to give back."""


def error_frame(codec: Frames, error: ApiError) -> bytes:
    """The error as an ERROR event."""
    return codec.join([codec.frame("ERROR", orjson.dumps(error.status()))])


async def open_watch(
    streams: Streams,
    objects: ObjectStore,
    served: Served,
    namespace: str,
    options: WatchOptions,
    codec: Frames,
    *,
    timeout_s: float | None,
) -> Stream:
    """Begins a watch; its events are kept from here on. `timeout_s` None: the server's choice.

    History that is gone or has not come is told in the stream, as upstream's watch cache tells it; any other ApiError is raised.
    """
    resources = AsyncExitStack()
    try:
        watch = await resources.enter_async_context(objects.watch(served, namespace, options, codec))
    except ApiError as error:
        await resources.aclose()
        if error.code not in {410, 504}:
            raise
        return ErrorStream(error_frame(codec, error))
    return WatchStream(
        streams,
        watch,
        codec,
        resources,
        timeout_s=WATCH_MIN_S * (1 + random.random()) if timeout_s is None else min(timeout_s, WATCH_MAX_S),
        bookmarks=options.bookmarks,
    )
