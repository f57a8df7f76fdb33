"""What happened in a round, as clients saw it: every request, and every stream of a watch.

Times are seconds of the harness's monotonic clock: it alone talks to all replicas, so one clock orders everything.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

ABSENT: Final = 0


class Outcome(StrEnum):
    DONE = "done"  # Acknowledged.
    REFUSED = "refused"  # Answered with an error that says that nothing was done.
    UNKNOWN = "unknown"  # It may have happened, or may still.


class Key(NamedTuple):
    collection: str  # `<cluster>/<resource>`
    name: str


@dataclass(slots=True)
class Write:
    """One attempt. `value` is of this attempt alone; `end` is infinite where the outcome is unknown."""

    key: Key
    verb: str  # create, update, patch or delete
    replica: str
    start: float
    value: str = ""
    expected: int = 0  # The resourceVersion that the write was on condition of.
    end: float = inf
    outcome: Outcome = Outcome.UNKNOWN
    code: int = 0
    reason: str = ""
    revision: int = 0
    uid: str = ""


@dataclass(slots=True)
class State:
    """An object as it was answered; revision ABSENT where there was none."""

    revision: int
    value: str = ""
    uid: str = ""


NOTHING: Final = State(ABSENT)


@dataclass(slots=True)
class Read:
    """A GET that was answered. `weak`: with resourceVersion=0, which may be old."""

    key: Key
    replica: str
    reader: str
    start: float
    end: float
    state: State
    weak: bool = False


@dataclass(slots=True)
class Listing:
    """A LIST that was answered: what the collection was at `revision`."""

    collection: str
    replica: str
    start: float
    end: float
    revision: int
    items: Mapping[str, State]
    weak: bool = False


@dataclass(slots=True)
class Told:
    """One event of a watch."""

    type: str
    name: str
    state: State
    at: float
    replica: str


@dataclass(slots=True)
class Stream:
    """What a watcher was told between a list and the next, through any number of connections.

    It has been told everything above `start` and up to `reached`, or so the server says.
    """

    watcher: str
    collection: str
    start: int
    reached: int
    events: list[Told] = field(default_factory=list)


@dataclass
class History:
    writes: list[Write] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    lists: list[Listing] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)  # What was seen to be wrong on the spot.

    def of(self, key: Key) -> Iterator[str]:
        """Everything about one key, by time, a line each."""
        lines = [
            (write.start, f"{_until(write.end)} {_shown_write(write)}")
            for write in self.writes
            if write.key == key
        ]
        lines += [
            (read.start, f"{_until(read.end)} get{_weak(read)} via {read.replica}: {_shown(read.state)}")
            for read in self.reads
            if read.key == key
        ]
        lines += [
            (
                one.start,
                f"{_until(one.end)} list{_weak(one)} at {one.revision} via {one.replica}:"
                f" {_shown(one.items.get(key.name, NOTHING))}",
            )
            for one in self.lists
            if one.collection == key.collection
        ]
        lines += [
            (told.at, f"{'':9} {told.type} to {stream.watcher} via {told.replica}: {_shown(told.state)}")
            for stream in self.streams
            if stream.collection == key.collection
            for told in stream.events
            if told.name == key.name
        ]
        return (f"{at:9.3f} {line}" for at, line in sorted(lines))

    def save(self, path: Path) -> None:
        """As JSON, a record a line."""
        with path.open("w") as file:
            for kind in ("writes", "reads", "lists", "streams"):
                for record in getattr(self, kind):
                    file.write(json.dumps({"kind": kind} | asdict(record), default=str) + "\n")


def _weak(read: Read | Listing) -> str:
    return " (rv=0)" if read.weak else ""


def _until(end: float) -> str:
    return "  unknown" if end == inf else f"{end:9.3f}"


def _shown(state: State) -> str:
    return f"{state.value} at {state.revision} uid {state.uid[:8]}" if state.revision else "nothing"


def _shown_write(write: Write) -> str:
    condition = f" on {write.expected}" if write.expected else ""
    outcome = f"{write.outcome} {write.code} {write.reason}".strip()
    revision = f" at {write.revision}" if write.revision else ""
    return f"{write.verb} {write.value}{condition} via {write.replica}: {outcome}{revision} {write.uid[:8]}"
