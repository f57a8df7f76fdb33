"""ObjectWatch: a storage watch as the events of one kind, at one version, through one selection.

Pulled by the response: `take` turns what came since into frames, joined and ready for the socket. Frames are made
once per (batch, version, selection, codec) and kept on the batch, so a thousand equal watchers share them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import chain, islice
from time import perf_counter
from typing import Final, Protocol

import orjson

from clusterling.machinery.errors import expired
from clusterling.registry.resource import Served
from clusterling.registry.views import Selection, at_revision, document
from clusterling.storage.feed import StreamWatch
from clusterling.storage.store import Batch, Compacted, Entry, Event, Page, Unavailable, Watch

# What a take sends of the initial state, so that a big one can drain between: entries, or bytes, whatever is first.
INITIAL_CHUNK: Final = 500
INITIAL_BYTES: Final = 256 * 1024

# How long a take looks at what is not selected before it lets others have the loop.
SLICE_S: Final = 0.001

# Different views of one batch that are kept for the next watcher: batches stay for those who resume, and every
# selector is another view.
SHARED_FRAMES_MAX: Final = 4

# Likewise of what was selected of a collection, until it changes; and how many entries are looked at in one go.
SHARED_PICKS_MAX: Final = 4
LOOKED_AT: Final = 16

INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"


class FrameCodec(Protocol):
    """How watch events are written for one media type. Frames are shared by all watchers with an equal `key`."""

    @property
    def key(self) -> Hashable: ...

    @property
    def following(self) -> FrameCodec:
        """What writes the events after the first; itself, where they are written alike."""

    def frame(self, event_type: str, value: bytes) -> bytes:
        """One event. `event_type` is ADDED, MODIFIED, DELETED or BOOKMARK; `value` the object's JSON document."""

    def join(self, frames: Sequence[bytes]) -> bytes:
        """What goes to the socket for one batch (transfer framing included)."""


class WatchEnded(Exception):
    """The watch is over without an error: its kind is gone or changed, or its cluster is. Clients watch again."""


def _nobody() -> None:
    """Stands for the callback until there is one."""


class _Picked:
    """What a selection picks of some entries, looked for once for all who ask."""

    def __init__(self, entries: Sequence[Entry], selection: Selection) -> None:
        self._left: Iterator[Entry] = iter(entries)
        self._selection = selection
        self._found: list[Entry] = []

    def each(self) -> Iterator[Entry | None]:
        """None: some were looked at, go on if there is time."""
        told = 0
        while True:
            while told < len(self._found):
                told += 1
                yield self._found[told - 1]
            part = list(islice(self._left, LOOKED_AT))
            if not part:
                return
            try:
                self._found += [entry for entry in part if self._selection.matches(entry)]
            except BaseException:
                self._left = chain(part, self._left)  # The others shall not miss them.
                raise
            yield None


def picked(page: Page, served: Served, selection: Selection) -> Iterator[Entry | None]:
    """The entries that a watch begins with; None now and then, for who has no more time.

    Watches that begin alike, before anything changes, share what was found: thousands come back together.
    """
    if selection.everything:
        return iter(page.entries)
    views = {} if page.views is None else page.views
    key = served.resource, served.version.name, selection.key
    found = views.get(key)
    if not isinstance(found, _Picked):
        if len(views) >= SHARED_PICKS_MAX:
            views.clear()
        found = views[key] = _Picked(page.entries, selection)
    return found.each()


class ObjectWatch:
    """The events of one watch request. `begun_at` is the revision that the client is told it begins with."""

    def __init__(
        self,
        watch: Watch,
        served: Served,
        selection: Selection,
        codec: FrameCodec,
        *,
        begun_at: int,
        initial: Iterator[Entry | None] | None,
        marks_initial_end: bool,
        bookmarks: bool,
        is_current: Callable[[], bool],
    ) -> None:
        self._watch = watch
        self._served = served
        self.framed = 0  # Events that were taken; whoever counts them puts it back.
        self._selection = selection
        self._initial = initial
        self._marks_initial_end = marks_initial_end
        self._bookmarks = bookmarks
        self._is_current = is_current
        self.wake: Callable[[], None] = _nobody
        # How far the collection has come, not the store: a tenant shall not read the others' write rate off its
        # bookmarks, and may resume anywhere from here on (decision 10).
        self._moved = self._bookmarked = begun_at
        self._use(codec)

    @property
    def served(self) -> Served:
        """The kind that is watched."""
        return self._served

    def _use(self, codec: FrameCodec) -> None:
        self._codec = codec
        self._key = (self._served.resource, self._served.version.name, self._selection.key, codec.key)

    def _frame(self, event_type: str, value: bytes) -> bytes:
        frame = self._codec.frame(event_type, value)
        self._go_on()
        return frame

    def _go_on(self) -> None:
        """An event is out: the next is written as those after it are."""
        following = self._codec.following
        if following is not self._codec:
            self._use(following)

    def notify(self, callback: Callable[[], None]) -> None:
        """Sets what is called, synchronously, when `take` may have something."""
        self.wake = callback
        self._watch.notify(callback)

    def take(self) -> bytes | None:
        """Joined frames since the last take, or None. Empty: nothing yet, but take again, after others had a turn.

        Raises ApiError (410 Expired), WatchEnded.
        """
        if not self._is_current():
            raise WatchEnded
        if self._initial is not None:
            return self._take_initial(self._initial)
        until = 0.0
        try:
            while (batch := self._watch.take()) is not None:
                if batch.events:
                    self._moved = max(self._moved, batch.events[-1].revision)
                data = self._frames(batch)
                if data:
                    # Of selections that let little through, more than went out.
                    self.framed += len(batch.events)
                    return data
                until = until or perf_counter() + SLICE_S
                if perf_counter() >= until:
                    return b""
        except Compacted as error:
            raise expired(f"too old resource version: {self._watch.revision} ({error.args[-1]})") from error
        except Unavailable as error:
            raise WatchEnded from error
        return None

    @property
    def course(self) -> Hashable | None:
        """What it follows: equal for watches that take the same frames once they are level. None: it goes alone."""
        if self._initial is not None or self._codec.following is not self._codec:
            return None
        if not isinstance(self._watch, StreamWatch):
            return None
        return self._watch.stream, self._key

    def level_with(self, other: ObjectWatch) -> bool:
        """Whether it has taken all there is, and this one of the same course stands where the other does."""
        mine, theirs = self._watch, other._watch
        assert isinstance(mine, StreamWatch), "it has a course"
        assert isinstance(theirs, StreamWatch), "so has the other"
        return mine.level_with(theirs)

    def rest(self) -> None:
        """Another of the same course takes for it; it is not woken until it goes on with `follow`."""
        assert isinstance(self._watch, StreamWatch), "it has a course"
        self._watch.rest()

    def heard(self, other: ObjectWatch) -> None:
        """Its client was given all that the other took."""
        self._moved = other._moved

    def follow(self, other: ObjectWatch) -> None:
        """Takes for itself again, from where the other of the same course stands."""
        mine, theirs = self._watch, other._watch
        assert isinstance(mine, StreamWatch), "it has a course"
        assert isinstance(theirs, StreamWatch), "so has the other"
        self.heard(other)
        mine.follow(theirs)

    def bookmark(self) -> bytes | None:
        """A bookmark at the collection's last change, or None where the client takes none or nothing moved since."""
        revision = self._moved
        if not self._bookmarks or self._initial is not None or revision <= self._bookmarked:
            return None
        self._bookmarked = revision
        return self._codec.join([self._bookmark(revision, {})])

    def _take_initial(self, entries: Iterator[Entry | None]) -> bytes | None:
        frames: list[bytes] = []
        size, until = 0, perf_counter() + SLICE_S
        for entry in entries:
            if entry is not None:
                frame = self._frame("ADDED", document(entry, self._served))
                frames.append(frame)
                size += len(frame)
            if len(frames) == INITIAL_CHUNK or size >= INITIAL_BYTES or perf_counter() >= until:
                self.framed += len(frames)
                return self._codec.join(frames) if frames else b""
        self._initial = None
        self.framed += len(frames)
        if self._marks_initial_end:
            frames.append(self._bookmark(self._moved, {INITIAL_EVENTS_END: "true"}))
            self._bookmarked = self._moved
        return self._codec.join(frames) if frames else self.take()

    def _bookmark(self, revision: int, annotations: dict[str, str]) -> bytes:
        """The object of a bookmark has a type and a revision, nothing else (semantics: C8)."""
        metadata: dict[str, object] = {"resourceVersion": str(revision)}
        if annotations:
            metadata["annotations"] = annotations
        value = orjson.dumps(
            {"apiVersion": str(self._served.group_version), "kind": self._served.kind, "metadata": metadata}
        )
        return self._frame("BOOKMARK", value)

    def _frames(self, batch: Batch) -> bytes:
        views = batch.views
        if views is None:
            views = batch.views = {}
        key = self._key
        known = views.get(key)
        if known is None:
            frames = [frame for event in batch.events for frame in self._event(event)]
            if len(views) >= SHARED_FRAMES_MAX:
                views.clear()
            known = views[key] = self._codec.join(frames) if frames else b""
        elif known:
            self._go_on()
        assert isinstance(known, bytes), "joined frames are kept as bytes"
        return known

    def _event(self, event: Event) -> Iterator[bytes]:
        """The frames of one write: none, or one (KEP-365: leaving a selection is DELETED, entering is ADDED)."""
        if event.dropped:
            raise WatchEnded
        entry, previous = event.entry, event.previous()
        now = entry is not None and self._selection.matches(entry)
        before = previous is not None and self._selection.matches(previous)
        if now:
            assert entry is not None, "what matches now exists"
            yield self._frame("MODIFIED" if before else "ADDED", document(entry, self._served))
        elif before:
            assert previous is not None, "what matched before existed"
            value = at_revision(document(previous, self._served), event.revision)
            yield self._frame("DELETED", value)
