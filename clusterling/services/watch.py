"""The watch response: frames from an ObjectWatch to a sink, thousands at a time.

Theory of operation
-------------------
A watch has no task of its own work and no queue. A commit calls each watch's callback, which only puts the stream
on the list of those of its tenant with something to take. The turnstile has such a list walked, a slice of time at a turn.

Equal watches that have taken all there is make a *cohort*: one of them, the leader, takes for all, and a round writes
the same bytes to each; the others rest, so a commit costs what the writes to their sockets cost. Who is not level yet
(it is given its initial state, or history) and who has fallen behind (its peer does not read) goes alone, on its own
position, and joins when it is level. What the slow miss stays in the store's window; if one falls out of
that, its next take says 410 and the client lists again. Who reads nothing at all for `STALLED_S` loses the connection.

A round over a thousand sockets takes long enough for more to be written meanwhile. So after a long one the cohort
lets about as long pass, `PAUSE_S_MAX` at most, before it begins the next: under load a write to a socket then holds
more events, which costs little more than one (a sixth of the CPU, measured); a lone event never waits.

The coroutine that answers the request sleeps on one future until the watch is over.

Upstream: apiserver/pkg/endpoints/handlers/{get,watch}.go, apiserver/pkg/storage/cacher/cache_watcher.go.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import AsyncExitStack
from functools import partial
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
from clusterling.services.turnstile import SLICE_S, Turnstile
from clusterling.storage.store import StorageError

_S = TypeVar("_S", bound=Stream)

_log = logging.getLogger(__name__)

# A watch without timeoutSeconds lives this long, times a random number between 1 and 2 (upstream: min-request-timeout).
WATCH_MIN_S: Final = 1800.0
WATCH_MAX_S: Final = 7 * 86_400.0  # However long a client asks for.

BUFFERED_BYTES_MAX: Final = 1024 * 1024  # Unread bytes of one peer, above which its watch takes no more.
STALLED_S: Final = 60.0  # In which a peer with so much unread must have read something.
LOOK_BYTES: Final = 64 * 1024  # A cohort looks at its members' buffers once in about so many bytes to each.
WRITE_BYTES: Final = 256 * 1024  # About how much one stream writes before others have their turn.
PAUSE_S_MAX: Final = 0.010  # Between the end of a cohort's long round and its next.
BOOKMARK_TICK_S: Final = 1.0
BOOKMARK_TICKS: Final = 60  # A watch gets a bookmark on one tick in so many.


def _nobody() -> None:
    """Whom a watch wakes whose stream is over."""


class Streams:
    """All watches of a server. One for an App; it owns the loop's callbacks that serve them."""

    def __init__(
        self,
        clock: Callable[[], float] = time.perf_counter,
        sent: Callable[[Served, int, int], None] | None = None,
        turnstile: Turnstile | None = None,
    ) -> None:
        """`sent` is told of a kind, of how many events were written to its watches, and of their bytes."""
        self.clock = clock
        self.sent = sent
        self._open: set[WatchStream] = set()
        self._turnstile = turnstile or Turnstile(clock)
        self._ready: dict[Hashable, deque[WatchStream | _Cohort]] = {}  # By tenant.
        self._cohorts: dict[Hashable, _Cohort] = {}
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
        if stream.cohort is not None:
            stream.cohort.leave(stream)
        if stream.waiting is not None:
            stream.waiting.forget(stream)
        if stream.bucket is not None:
            stream.bucket.discard(stream)
            stream.bucket = None

    def join(self, stream: WatchStream, course: Hashable) -> None:
        """Has a stream that has taken all there is served with its equals, if it is level with them."""
        cohort = self._cohorts.get(course)
        if cohort is None:
            cohort = self._cohorts[course] = _Cohort(self, course, stream.tenant)
        cohort.admit(stream)

    def dissolve(self, course: Hashable) -> None:
        """Forgets the cohort, which has no members any more."""
        del self._cohorts[course]

    def wake(self, one: WatchStream | _Cohort) -> None:
        """Has its `step` called soon. It sees to it that it is listed once."""
        ready = self._ready.get(one.tenant)
        if ready is None:
            ready = self._ready[one.tenant] = deque()
            self._turnstile.add(one.tenant, partial(self._serve, one.tenant))
        ready.append(one)

    async def stop(self, within_s: float = 0.0) -> None:
        """Ends all watches cleanly, and each that begins from now on; over `within_s`, so that not all come back at once."""
        self._stopping = True
        if self._bookmark_timer is not None:
            self._bookmark_timer.cancel()
            self._bookmark_timer = None
        await stop_spread(list(self._open), within_s)

    def _serve(self, tenant: Hashable, until: float) -> bool:
        """Serves those of the tenant that are ready; what is left is work that comes anew, beside the tenant's other."""
        ready, clock = self._ready[tenant], self.clock
        while ready:
            ready.popleft().step(until)
            if clock() >= until:
                break
        if ready:
            self._turnstile.add(tenant, partial(self._serve, tenant))
        else:
            del self._ready[tenant]
        return True

    def _later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._bookmark_timer = loop.call_later(BOOKMARK_TICK_S, self._send_bookmarks, loop)

    def _send_bookmarks(self, loop: asyncio.AbstractEventLoop) -> None:
        self._bookmark_timer = None
        self._bookmark_tick = (self._bookmark_tick + 1) % BOOKMARK_TICKS
        due = iter(tuple(self._bookmarked[self._bookmark_tick]))
        self._turnstile.add(None, partial(self._bookmark, due))
        if any(self._bookmarked):
            self._later(loop)

    def _bookmark(self, due: Iterator[WatchStream], until: float) -> bool:
        for stream in due:
            if stream.bucket is not None:
                stream.send_bookmark()
            if self.clock() >= until:
                return False
        return True


async def stop_spread(streams: list[_S], within_s: float) -> None:
    """Asks the streams to end, in random order over `within_s`."""
    random.shuffle(streams)
    steps = min(len(streams), max(1, int(within_s / 0.02)))
    for step in range(steps):
        for stream in streams[step::steps]:
            stream.stop()
        if step + 1 < steps:
            await asyncio.sleep(within_s / steps)


class _Cohort:
    """Equal watches at one place: what comes is taken and framed once, and written to each in a round.

    A member has been written all that the leader has taken, but for what the round that is under way has to write.
    """

    def __init__(self, streams: Streams, course: Hashable, tenant: Hashable) -> None:
        self._streams = streams
        self.tenant = tenant
        self._course = course
        self._members: dict[WatchStream, None] = {}
        self._leader: WatchStream | None = None
        self._waiting: set[WatchStream] = set()  # For the leader to come to where they are.
        self._left: list[WatchStream] = []  # To be written to in this round.
        self._data = b""
        # Bytes that each member was written since its buffer was looked at. The first round looks.
        self._unlooked = LOOK_BYTES
        self._looks = False
        self._afterwards: list[Callable[[], None]] = []
        self._error: Exception | None = None
        self._more = False
        self._listed = False
        self._began = 0.0
        self._not_before = 0.0

    def admit(self, stream: WatchStream) -> None:
        """Makes the stream a member if it is level with the others; else it is asked again when they have moved."""
        leader = self._leader
        if leader is None:
            self._leader = stream
        elif stream.watch.level_with(leader.watch):
            stream.watch.rest()
        else:
            self._waiting.add(stream)
            stream.waiting = self
            return
        self._waiting.discard(stream)
        stream.waiting = None
        self._members[stream] = None
        stream.cohort = self

    def forget(self, stream: WatchStream) -> None:
        """The stream waits no longer."""
        self._waiting.discard(stream)
        stream.waiting = None

    def leave(self, stream: WatchStream) -> None:
        """The stream goes alone from here on, from where its writes have come."""
        del self._members[stream]
        stream.cohort = None
        leader = self._leader
        assert leader is not None, "a cohort with members has a leader"
        if stream is not leader:
            stream.watch.follow(leader.watch)
        elif self._members:
            self._leader = next(iter(self._members))
            self._leader.watch.follow(leader.watch)
        else:
            self._leader = None
            for waiting in tuple(self._waiting):
                self.forget(waiting)
            self._streams.dissolve(self._course)

    def wake(self) -> None:
        """There may be something to take."""
        if self._left:
            self._more = True
        elif not self._listed:
            self._list()

    def _list(self) -> None:
        self._listed = True
        pause = self._not_before - self._streams.clock()
        if pause > 0:
            asyncio.get_running_loop().call_later(pause, self._streams.wake, self)
        else:
            self._streams.wake(self)

    def inform(self, stream: WatchStream) -> None:
        """Lets a member know how far it has come. Only between rounds."""
        assert self._leader is not None, "a cohort with members has a leader"
        stream.watch.heard(self._leader.watch)

    def after_round(self, callback: Callable[[], None]) -> bool:
        """Has it called when every member has been written what was taken. False: that is so now."""
        if self._left:
            self._afterwards.append(callback)
            return True
        return False

    def step(self, until: float) -> None:
        """Writes what the leader took to members until that time; takes first, where no round is under way."""
        clock, left = self._streams.clock, self._left
        if not left and not self._begin(clock()):
            return
        data, left, looks = self._data, self._left, self._looks
        while left:
            stream = left.pop()
            if stream.cohort is self and not stream.stopped:
                stream.write(data)
                if looks:
                    stream.look()
            if clock() >= until:
                break
        if left:
            self._streams.wake(self)
        else:
            self._end(clock())

    def _begin(self, now: float) -> bool:
        """Takes what there is. False: nothing to write."""
        self._listed = False
        leader = self._leader
        if leader is None:
            return False
        parts, self._more, self._error = leader.collect()
        # Who joins now is level with the leader, and not in this round.
        self._left = list(self._members) if parts else []
        self._data = parts[0] if len(parts) == 1 else b"".join(parts)
        leader.tell(len(self._data), len(self._left))
        self._began = now
        self._unlooked += len(self._data)
        self._looks = self._unlooked >= LOOK_BYTES
        if self._looks:
            self._unlooked = 0
        for stream in tuple(self._waiting):
            self.admit(stream)
        if not parts:
            self._end(now)
        return bool(parts)

    def _end(self, now: float) -> None:
        took = now - self._began
        self._not_before = now + min(took, PAUSE_S_MAX) if took > SLICE_S else 0.0
        self._data = b""
        error, self._error = self._error, None
        if error is not None:
            for stream in tuple(self._members):
                stream.fail(error)
        elif self._more and self._members:
            self._list()
        afterwards, self._afterwards = self._afterwards, []
        for callback in afterwards:
            callback()


class WatchStream(Stream):
    """One client's watch. Made by `open_watch`."""

    __slots__ = (
        "_bookmarks",
        "_codec",
        "_full",
        "_listed",
        "_over",
        "_patience",
        "_resources",
        "_sink",
        "_streams",
        "_timeout_s",
        "_unread",
        "bucket",
        "cohort",
        "stopped",
        "tenant",
        "waiting",
        "watch",
        "write",
    )

    def __init__(
        self,
        streams: Streams,
        watch: ObjectWatch,
        codec: Frames,
        resources: AsyncExitStack,
        *,
        timeout_s: float,
        bookmarks: bool,
        tenant: Hashable,
    ) -> None:
        self._streams = streams
        self.tenant = tenant
        self.watch = watch
        self._codec = codec
        self._resources = resources
        self._timeout_s = timeout_s
        self._bookmarks = bookmarks
        self._sink: Sink | None = None
        self._over: asyncio.Future[None] | None = None
        self.stopped = False
        self._listed = False
        self._full = False
        self._unread = 0  # Bytes, when it was last looked whether the peer reads.
        self._patience: asyncio.TimerHandle | None = None  # While it is full.
        self.bucket: set[WatchStream] | None = None
        self.cohort: _Cohort | None = None  # Which serves it.
        self.waiting: _Cohort | None = None  # Which it is to join.

    @override
    async def run(self, sink: Sink) -> None:
        """Raises ConnectionAbortedError where the peer has stopped reading."""
        if self.stopped:
            return
        loop = asyncio.get_running_loop()
        self._sink = sink
        self.write = sink.write
        self._over = loop.create_future()
        timer = loop.call_later(self._timeout_s, self._expire)
        sink.on_drain(self._drained)
        self.watch.notify(self.wake)
        self._streams.add(self, bookmarks=self._bookmarks)
        self.wake()
        try:
            await self._over
        finally:
            timer.cancel()
            self._read_again()
            self._streams.discard(self)
            # The watch knew this stream, and this the connection: none of them shall wait for Python to look for garbage.
            self.stopped = True
            self.watch.notify(_nobody)
            self._sink = None
            del self.write

    @override
    def stop(self) -> None:
        self.stopped = True
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    @override
    async def close(self) -> None:
        self.stop()
        await self._resources.aclose()

    def wake(self) -> None:
        """There may be something to take."""
        if self.cohort is not None:
            self.cohort.wake()
        elif not (self._listed or self._full or self.stopped):
            self._listed = True
            self._streams.wake(self)

    def step(self, until: float) -> None:
        """Takes and writes what there is, up to `WRITE_BYTES`; comes again where there may be more."""
        self._listed = False
        if self.stopped or self._full or self.cohort is not None:
            return
        parts, more, error = self.collect()
        if parts:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            self.write(data)
            self.tell(len(data), 1)
        room = self.look()
        if error is not None:
            self.fail(error)
        elif more:
            self.wake()
        elif room and self.waiting is None and (course := self.watch.course) is not None:
            self._streams.join(self, course)

    def collect(self) -> tuple[list[bytes], bool, Exception | None]:
        """Frames to write; whether there may be more to take at once; the error that the watch is to end with."""
        parts: list[bytes] = []
        size, clock, take = 0, self._streams.clock, self.watch.take
        until = clock() + SLICE_S
        try:
            while (data := take()) is not None:
                if data:
                    parts.append(data)
                    size += len(data)
                if size >= WRITE_BYTES or clock() >= until or not data:
                    return parts, True, None
        except Exception as error:  # noqa: BLE001 - nobody stands above a callback of the loop
            if not isinstance(error, (WatchEnded, StorageError, ApiError)):
                _log.exception("watch-failed")
            return parts, False, error
        return parts, False, None

    def tell(self, size: int, readers: int) -> None:
        """Has it counted what was taken last: so many bytes, for so many watches."""
        events, self.watch.framed = self.watch.framed, 0
        if events and readers and self._streams.sent is not None:
            self._streams.sent(self.watch.served, events * readers, size * readers)

    def look(self) -> bool:
        """Looks at what the peer has not read. False: too much, so the stream goes alone, and takes no more until it has."""
        assert self._sink is not None, "writes only while it runs"
        if not self._full and self._sink.buffered > BUFFERED_BYTES_MAX:
            self._full = True
            self._wait_for_peer()
            if self.cohort is not None:
                self.cohort.leave(self)
        return not self._full

    def fail(self, error: Exception) -> None:
        """Ends the stream with what its client is to be told of the error."""
        if self.stopped:
            return
        if not isinstance(error, (WatchEnded, StorageError)):
            # Those say that the kind, the cluster or the store is no longer what it was: clients watch again, and are told then.
            told = error if isinstance(error, ApiError) else internal_error("the watch could not go on")
            self.write(error_frame(self._codec, told))
        self.stop()

    def send_bookmark(self) -> None:
        """Tells the client how far the watch has come, if it may be told and has not heard."""
        if self.stopped or self._full or self._listed or self._sink is None:
            return
        if self.cohort is not None:
            if self.cohort.after_round(self.send_bookmark):
                return
            self.cohort.inform(self)
        data = self.watch.bookmark()
        if data is not None:
            self.write(data)

    def _wait_for_peer(self) -> None:
        assert self._sink is not None, "writes only while it runs"
        self._unread = self._sink.buffered
        self._patience = asyncio.get_running_loop().call_later(STALLED_S, self._lose_patience)

    def _lose_patience(self) -> None:
        """Gives up on a peer that has read nothing since it was last looked."""
        assert self._sink is not None and self._over is not None, "waits only while it runs"
        if self._sink.buffered < self._unread:
            self._wait_for_peer()
        elif not self._over.done():
            self.stopped = True
            self._over.set_exception(ConnectionAbortedError("the client does not read"))

    def _read_again(self) -> None:
        self._full = False
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _drained(self) -> None:
        if self._full:
            self._read_again()
            self.wake()

    def _expire(self) -> None:
        """The time is over. A last bookmark lets the client go on where it stands."""
        if self.cohort is not None and self.cohort.after_round(self._expire):
            return
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
    tenant: Hashable = None,
) -> Stream:
    """Begins a watch; its events are kept from here on. `timeout_s` None: the server's choice. `tenant`: whose turns it takes.

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
        tenant=tenant,
    )
