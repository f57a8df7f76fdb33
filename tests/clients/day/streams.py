"""What every watch was told, and what it was not: an event that one watch of a kind got belongs in every other that went past it."""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.clients.day.users import LABEL

INITIAL_END: Final = "k8s.io/initial-events-end"
BEGUN: Final = 1 << 62

Json = dict[str, Any]


@dataclass
class Stream:
    """One watch, from the revision that it began after to the last that it was told."""

    kind: str
    who: str
    began: int
    ended: int = 0
    seen: set[int] = field(default_factory=set)
    error: Json = field(default_factory=dict)
    """The last event's object, where it was an ERROR."""
    wrong: list[str] = field(default_factory=list)
    _buffer: bytes = b""

    def read(self, chunk: bytes) -> Iterator[Json]:
        """Takes the next bytes, and gives the objects of the events that they complete."""
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["type"] == "ERROR":
                self.error = event["object"]
                return
            self._take(event["type"], event["object"])
            if event["type"] != "BOOKMARK":
                yield event["object"]

    def _take(self, told: str, item: Json) -> None:
        metadata = item["metadata"]
        revision = int(metadata["resourceVersion"])
        if INITIAL_END in metadata.get("annotations", {}):
            self.began = self.ended = revision
        elif self.began == BEGUN:
            return  # What was there already; it is told by name, not in the order of revisions.
        elif revision <= self.ended and told != "BOOKMARK":
            self.wrong.append(f"{self.who} was told {revision} of {self.kind} after {self.ended}")
        elif told != "BOOKMARK" and (self.kind != "configmaps" or LABEL in metadata.get("labels", {})):
            self.seen.add(revision)
        self.ended = max(self.ended, revision)


@dataclass
class Streams:
    """All watches of the day, by kind."""

    of: defaultdict[str, list[Stream]] = field(default_factory=lambda: defaultdict(list))

    def begin(self, who: str, path: str, query: Mapping[str, str]) -> Stream:
        """A watch that is asked for."""
        kind = path.rpartition("/")[2]
        began = BEGUN if query.get("sendInitialEvents") == "true" else int(query.get("resourceVersion") or 0)
        stream = Stream(kind, who, began, 0 if began == BEGUN else began)
        self.of[kind].append(stream)
        return stream

    def events(self) -> int:
        return sum(len(one.seen) for streams in self.of.values() for one in streams)

    def wrong(self) -> Iterator[str]:
        """What was told out of order, or to some and not to others."""
        for kind, streams in self.of.items():
            known = sorted(set().union(*(one.seen for one in streams)))
            for one in streams:
                yield from one.wrong
                if one.began == BEGUN:
                    continue  # It broke before it had begun.
                due = known[bisect_right(known, one.began) : bisect_right(known, one.ended)]
                for revision in due:
                    if revision not in one.seen:
                        span = f"watched {kind} from {one.began} to {one.ended}"
                        yield f"{one.who} {span}, and was not told {revision}"
