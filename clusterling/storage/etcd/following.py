"""The stream of changes: etcd's watch events, batch by batch, as events with revisions of ours.

The stream is resumed after the last revision of etcd's *whose events have been seen*, never after the one in a header:
a header may be ahead of the events. All events of one etcd revision are one batch: they are held until it is
complete, put in the order of their indexes, and told together.

What is deleted without a batch record naming it is swept from under a drop: nobody sees that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clusterling.storage.etcd.layout import BatchRecord, Layout, State, unwrapped
from clusterling.storage.etcd.messages import rpc
from clusterling.storage.store import Compacted, Entry, Event

_PUT = 0


@dataclass(frozen=True, slots=True)
class Step:
    """What became of the store at one revision of etcd's. `state` is set where the store's own record changed."""

    mod_revision: int
    revision: int  # The last number of the batch; 0 where there was none.
    events: Sequence[Event]
    state: State | None
    name: str = ""


class Decoder:
    """Makes steps of watch responses. `state` is the store's record as it is where the stream has come to."""

    def __init__(self, layout: Layout, state: State) -> None:
        self._layout = layout
        self.state = state
        self._drops = state.dropping()
        self._held: list[Any] = []

    def feed(self, response: Any) -> Iterator[Step]:
        """Complete steps; what may go on in the next response (`fragment`) is held until then."""
        held = self._held
        held.extend(response.events)
        start = 0
        for position in range(1, len(held)):
            if held[position].kv.mod_revision != held[start].kv.mod_revision:
                yield self._step(held[start:position])
                start = position
        if response.fragment:
            self._held = held[start:]
            return
        self._held = []
        if start < len(held):
            yield self._step(held[start:])

    def _step(self, raw: Sequence[Any]) -> Step:
        layout = self._layout
        mod_revision = raw[0].kv.mod_revision
        record: BatchRecord | None = None
        state: State | None = None
        changed: list[Any] = []
        for event in raw:
            key = event.kv.key
            if key == layout.batch:
                record = BatchRecord.decoded(event.kv.value) if event.type == _PUT else None
            elif key == layout.state:
                state = State.decoded(event.kv.value, mod_revision)
                self.state = state
                self._drops = state.dropping()
            else:
                changed.append(event)
        if record is None:
            return Step(mod_revision, 0, (), state)
        first = self.state.revision(mod_revision, 0)
        revision = first + record.count - 1
        if record.dropped is not None:
            return Step(
                mod_revision,
                revision,
                (Event(first, record.dropped, None, dropped=True),),
                state,
                record.name,
            )
        events = [found for event in changed if (found := self._event(event, first, record)) is not None]
        events.sort(key=_revision_of)
        return Step(mod_revision, revision, events, state, record.name)

    def _event(self, raw: Any, first: int, record: BatchRecord) -> Event | None:
        """`first` is the revision of the batch's index 0."""
        kv = raw.kv
        key = self._layout.named(kv.key)
        if raw.type == _PUT:
            value, index = unwrapped(kv.value)
            revision = first + index
            entry: Entry | None = Entry(key, value, revision)
            created = kv.version == 1
        else:
            deleted = record.deletes.get(key)
            if deleted is None:
                return None
            revision, entry, created = first + deleted, None, False
        if created:
            return Event(revision, key, entry)
        if not raw.HasField("prev_kv"):
            return Event(revision, key, entry, _forgotten)
        before = raw.prev_kv
        if self._drops.hides(key, written=before.mod_revision, at=kv.mod_revision):
            return Event(revision, key, entry)
        old, index = unwrapped(before.value)
        previous = Entry(key, old, self.state.revision(before.mod_revision, index))
        return Event(revision, key, entry, previous)


def _revision_of(event: Event) -> int:
    return event.revision


def _forgotten() -> Entry | None:
    raise Compacted("the value before has been compacted")


def watch_request(layout: Layout, start: int) -> Any:
    """A watch of all that matters, from etcd's revision `start` on."""
    first, end = layout.watched
    return rpc.WatchRequest(
        create_request=rpc.WatchCreateRequest(
            key=first, range_end=end, start_revision=start, prev_kv=True, fragment=True
        )
    )
