"""Whether a history can have come from one copy of the data, changed one write at a time.

Finding an order that explains a history is hard in general; here the store says which order it claims: revisions.
So the checker only has to see that this order is one, and that it agrees with time:

1. *Versions.* Whatever shows an object (an acknowledgement, a read, a list, an event) names a revision and a value.
   Values are written once, by one attempt: a revision with two values, a value at two revisions, or the value of an
   attempt that was refused are faults. All versions of a key, by revision, are what became of it. A deletion has
   the revision of its event; where nobody saw that one, it lies between the versions around it.
2. *Steps.* Each version follows from the one before it: a create from nothing, an update on condition of revision
   r from exactly r, any update from the same object (uid).
3. *Time.* Each version i needs a moment t(i), rising with i, at which it took effect: after its write began, before
   its write was acknowledged, before the end of any read that saw it or a later one, after the start of any
   consistent read that still saw the one before. The earliest such moments, in order, are found in one pass; they
   exist if and only if the key's history is linearizable in the order of revisions (a write of unknown outcome that
   was seen has no latest moment; one that was never seen has not happened as far as anybody can tell).
   An answer that says only "nothing" or "something" names no version: it is checked for being possible at all.
   Reads with resourceVersion=0 may be old: only what they cannot foresee is asked of them, and no way back on one
   replica.
4. *Lists.* A list at revision r has, for each key, the last version at or below r, so it is a read of every key.
5. *Commit order.* Over all keys: a write that began when another had been acknowledged has the higher revision.
6. *Watches.* Between its list and what it has reached, each watcher was told of exactly the versions of its
   collection, once, in order, as ADDED, MODIFIED and DELETED as they follow from the version before.
7. *Refusals.* A conflict is only answered where there was one, and "exists" and "not found" where they were true.

The cost is that of sorting.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import inf

from typing_extensions import override

from tests.faults.history import History, Key, Listing, Outcome, Read, State, Stream, Write


@dataclass(frozen=True, slots=True)
class Violation:
    """What is wrong, and with which key (None: with no single one)."""

    text: str
    key: Key | None = None


@dataclass(slots=True)
class _Version:
    """A state of a key. `place` orders; its second part is 1 where the revision is not known, but follows the first."""

    place: tuple[int, int]
    value: str  # "" for a deletion.
    uid: str
    start: float = 0.0  # Of its write.
    end: float = inf
    expected: int = 0
    verb: str = ""
    earliest: float = 0.0
    latest: float = inf
    after: float = 0.0  # A consistent read that began then still saw the version before.

    @property
    def gone(self) -> bool:
        return not self.value

    @override
    def __str__(self) -> str:
        return f"{'deletion' if self.gone else self.value} at {self.place[0]}{'+' if self.place[1] else ''}"


@dataclass(slots=True)
class _Register:
    """One key."""

    key: Key
    versions: dict[int, State] = field(default_factory=dict)
    deletions: dict[int, str] = field(default_factory=dict)  # Revision to uid.
    writes: list[Write] = field(default_factory=list)
    reads: list[tuple[str, float, float, State, bool]] = field(default_factory=list)
    order: list[_Version] = field(default_factory=list)
    places: list[tuple[int, int]] = field(default_factory=list)


def check(history: History) -> list[Violation]:
    """All that is wrong with the history, nothing where it is as it must be."""
    return _Checker(history).run()


class _Checker:
    def __init__(self, history: History) -> None:
        self.history = history
        self.found: list[Violation] = [Violation(text) for text in history.complaints]
        self.registers: dict[Key, _Register] = {}
        self.keys: dict[str, list[Key]] = defaultdict(list)
        self.lists: dict[str, list[Listing]] = defaultdict(list)
        for listing in history.lists:
            self.lists[listing.collection].append(listing)
        self.streams: dict[str, list[Stream]] = defaultdict(list)
        for stream in history.streams:
            self.streams[stream.collection].append(stream)

    def run(self) -> list[Violation]:
        self._gather()
        for register in self.registers.values():
            self._arrange(register)
        for collection, listings in self.lists.items():
            for listing in listings:
                self._place_list(collection, listing)
        for register in self.registers.values():
            self._check_steps(register)
            self._check_time(register)
            self._check_refusals(register)
            self._check_weak_order(register)
        self._check_commit_order()
        for stream in self.history.streams:
            self._check_stream(stream)
        return self.found

    def _wrong(self, text: str, key: Key | None = None) -> None:
        self.found.append(Violation(text, key))

    def _register(self, key: Key) -> _Register:
        register = self.registers.get(key)
        if register is None:
            register = self.registers[key] = _Register(key)
            self.keys[key.collection].append(key)
        return register

    # Versions.

    def _gather(self) -> None:
        at: dict[int, tuple[Key, str]] = {}
        where: dict[str, int] = {}

        def saw(key: Key, state: State, by: str) -> None:
            register = self._register(key)
            known = register.versions.get(state.revision)
            if known is None:
                register.versions[state.revision] = state
                other = at.setdefault(state.revision, (key, state.value))
                if other != (key, state.value):
                    self._wrong(f"revision {state.revision} is {other} and {(key, state.value)} ({by})", key)
                revision = where.setdefault(state.value, state.revision)
                if revision != state.revision:
                    self._wrong(f"{state.value} is at {revision} and at {state.revision} ({by})", key)
            elif (known.value, known.uid) != (state.value, state.uid):
                self._wrong(f"revision {state.revision} is {known} and {state} ({by})", key)

        for write in self.history.writes:
            register = self._register(write.key)
            register.writes.append(write)
            if write.outcome is Outcome.DONE and write.verb != "delete":
                saw(write.key, State(write.revision, write.value, write.uid), "acknowledged")
        for read in self.history.reads:
            self._register(read.key)
            if read.state.revision:
                saw(read.key, read.state, "read")
        for listing in self.history.lists:
            for name, state in listing.items.items():
                saw(Key(listing.collection, name), state, "listed")
        for stream in self.history.streams:
            for told in stream.events:
                key = Key(stream.collection, told.name)
                if told.type != "DELETED":
                    saw(key, told.state, f"told to {stream.watcher}")
                    continue
                register = self._register(key)
                other = at.setdefault(told.state.revision, (key, ""))
                if other != (key, ""):
                    self._wrong(f"revision {told.state.revision} is {other} and a deletion", key)
                register.deletions[told.state.revision] = told.state.uid

    def _arrange(self, register: _Register) -> None:
        """The order of the key's versions, each with its write."""
        by_value = {write.value: write for write in register.writes if write.value}
        order: list[_Version] = []
        for revision, state in register.versions.items():
            version = _Version((revision, 0), state.value, state.uid)
            write = by_value.get(state.value)
            if write is None:
                self._wrong(f"nobody wrote {state.value}, which is at {revision}", register.key)
            else:
                if write.outcome is Outcome.REFUSED:
                    self._wrong(
                        f"{state.value} was refused with {write.code}, and is at {revision}", register.key
                    )
                version.start, version.expected, version.verb = write.start, write.expected, write.verb
                version.end = write.end if write.outcome is Outcome.DONE else inf
            order.append(version)
        for revision, uid in register.deletions.items():
            order.append(self._deletion(register, (revision, 0), uid))
        order.sort(key=lambda version: version.place)
        register.order = self._with_unseen(register, order)
        register.places = [version.place for version in register.order]

    def _with_unseen(self, register: _Register, order: Sequence[_Version]) -> list[_Version]:
        """The order with the deletions that nobody saw."""
        complete: list[_Version] = []
        acknowledged = {
            write.uid for write in register.writes if write.verb == "delete" and write.outcome is Outcome.DONE
        }
        deleted = set(register.deletions.values())
        for version in order:
            before = complete[-1] if complete else None
            if before is not None and not before.gone and version.uid != before.uid:
                complete.append(self._deletion(register, (before.place[0], 1), before.uid))
            complete.append(version)
        last = complete[-1] if complete else None
        if last is None or last.gone or last.uid in deleted:
            return complete
        if last.uid in acknowledged or self._final_absence(register.key, last.place[0]):
            complete.append(self._deletion(register, (last.place[0], 1), last.uid))
        return complete

    def _final_absence(self, key: Key, revision: int) -> bool:
        """Whether a list at or above the revision does not have the key."""
        return any(
            listing.revision >= revision and key.name not in listing.items
            for listing in self.lists[key.collection]
        )

    def _deletion(self, register: _Register, place: tuple[int, int], uid: str) -> _Version:
        version = _Version(place, "", uid, verb="delete")
        deletes = [write for write in register.writes if write.verb == "delete"]
        done = [write for write in deletes if write.outcome is Outcome.DONE and write.uid == uid]
        if len(done) > 1:
            self._wrong(f"{uid} was deleted {len(done)} times", register.key)
        if done:
            version.start, version.end, version.expected = done[0].start, done[0].end, done[0].expected
            return version
        unknown = [write.start for write in deletes if write.outcome is Outcome.UNKNOWN]
        if unknown:
            version.start = min(unknown)
        else:
            self._wrong(
                f"nobody deleted {uid}, which is gone at {place[0]}{'+' if place[1] else ''}", register.key
            )
        return version

    # Lists.

    def _place_list(self, collection: str, listing: Listing) -> None:
        at = (listing.revision, 0)
        for name, state in listing.items.items():
            if state.revision > listing.revision:
                self._wrong(
                    f"a list at {listing.revision} has {name} at {state.revision}", Key(collection, name)
                )
        for key in self.keys[collection]:
            register = self.registers[key]
            position = bisect_right(register.places, at) - 1
            said = listing.items.get(key.name)
            version = register.order[position] if position >= 0 else None
            if (
                said is not None
                and position > 0
                and version is not None
                and version.gone
                and version.place[1]
            ):
                # A deletion that nobody saw came at its place or later: so says this list, and time has to agree.
                position -= 1
                version = register.order[position]
            if said is None:
                following = register.order[position + 1] if position + 1 < len(register.order) else None
                unseen = following is not None and following.gone and following.place[1]
                if version is not None and not version.gone and not unseen:
                    self._wrong(f"a list at {listing.revision} via {listing.replica} lacks {version}", key)
                    continue
                if unseen and following is not None and version is not None and not version.gone:
                    self._note(following, listing.start, listing.end, listing.weak)
                    self._bound_next(register, position + 1, listing.start, listing.weak)
                    continue
            elif version is None or version.place != (said.revision, 0):
                self._wrong(
                    f"a list at {listing.revision} via {listing.replica} has {said.value} at {said.revision}"
                    f" instead of {version}",
                    key,
                )
                continue
            if version is not None:
                self._note(version, listing.start, listing.end, listing.weak)
            self._bound_next(register, position, listing.start, listing.weak)

    def _note(self, version: _Version, start: float, end: float, weak: bool) -> None:
        """Somebody saw the version."""
        version.latest = min(version.latest, end)

    def _bound_next(self, register: _Register, position: int, start: float, weak: bool) -> None:
        """Somebody who began at `start` saw the version at `position` and not the next."""
        if not weak and position + 1 < len(register.order):
            following = register.order[position + 1]
            following.after = max(following.after, start)

    # Steps and time.

    def _check_steps(self, register: _Register) -> None:
        before: _Version | None = None
        for version in register.order:
            absent = before is None or before.gone
            if version.gone:
                if absent:
                    self._wrong(f"{version} follows nothing", register.key)
                elif before is not None and before.uid != version.uid:
                    self._wrong(f"{version} is of {version.uid} and follows {before}", register.key)
            elif version.verb == "create":
                if not absent:
                    self._wrong(f"{version} was created over {before}", register.key)
            elif version.verb and (absent or before is None or before.uid != version.uid):
                self._wrong(f"{version} is an update, and follows {before}", register.key)
            if version.expected and before is not None and before.place != (version.expected, 0):
                self._wrong(
                    f"{version} was on condition of {version.expected}, and follows {before}", register.key
                )
            before = version

    def _check_time(self, register: _Register) -> None:
        order = register.order
        absences: list[tuple[float, float]] = []
        for read in self._reads_of(register.key):
            if not read.state.revision:
                if not read.weak:
                    absences.append((read.start, read.end))
                continue
            position = bisect_right(register.places, (read.state.revision, 0)) - 1
            self._note(order[position], read.start, read.end, read.weak)
            self._bound_next(register, position, read.start, read.weak)
        latest = inf
        for version in reversed(order):
            latest = version.latest = min(latest, version.latest, version.end)
        moment = 0.0
        for version in order:
            moment = version.earliest = max(moment, version.start, version.after)
            if moment > version.latest:
                self._wrong(
                    f"{version} took effect no earlier than {moment:.3f}, and no later than {version.latest:.3f}",
                    register.key,
                )
                moment = version.earliest = version.latest  # One fault is told once.
        for start, end in absences:
            if not self._possible(order, start, end, absent=True):
                self._wrong(f"nothing was found between {start:.3f} and {end:.3f}", register.key)

    def _reads_of(self, key: Key) -> Iterable[Read]:
        if not hasattr(self, "_reads"):
            self._reads: dict[Key, list[Read]] = defaultdict(list)
            for read in self.history.reads:
                self._reads[read.key].append(read)
        return self._reads.get(key, ())

    def _possible(self, order: Sequence[_Version], start: float, end: float, *, absent: bool) -> bool:
        """Whether there can have been a moment between `start` and `end` at which there was nothing, or something."""
        if absent and (not order or order[0].latest >= start):
            return True
        for position, version in enumerate(order):
            until = order[position + 1].latest if position + 1 < len(order) else inf
            if version.gone is absent and version.earliest <= end and until >= start:
                return True
        return False

    def _check_refusals(self, register: _Register) -> None:
        order = register.order
        for write in register.writes:
            if write.outcome is not Outcome.REFUSED:
                continue
            if write.code == 409 and write.verb == "create":
                if not self._possible(order, write.start, write.end, absent=False):
                    self._wrong(f"{write.value} was refused as existing, and nothing was there", register.key)
            elif write.code == 404:
                if not self._possible(order, write.start, write.end, absent=True):
                    self._wrong(
                        f"{write.verb} {write.value} was told 404, and there was something", register.key
                    )
            elif write.code == 409 and write.expected:
                position = bisect_right(register.places, (write.expected, 0))
                if position == len(order) or order[position].earliest > write.end:
                    self._wrong(
                        f"{write.verb} {write.value} on {write.expected} was told of a conflict that there was not",
                        register.key,
                    )

    def _check_weak_order(self, register: _Register) -> None:
        """One replica, asked by one reader, does not go back, not even where it may be old."""
        seen: dict[tuple[str, str], int] = {}
        for read in self._reads_of(register.key):
            if read.weak and read.state.revision:
                who = read.replica, read.reader
                if read.state.revision < seen.get(who, 0):
                    self._wrong(
                        f"{read.reader} saw {seen[who]}, then {read.state.revision} via {read.replica}",
                        register.key,
                    )
                seen[who] = read.state.revision

    def _check_commit_order(self) -> None:
        done = [
            write for write in self.history.writes if write.outcome is Outcome.DONE and write.verb != "delete"
        ]
        done.sort(key=lambda write: write.revision)
        latest: Write | None = None
        for write in done:
            if latest is not None and latest.start > write.end:
                self._wrong(
                    f"{latest.value} at {latest.revision} began after {write.value} at {write.revision}"
                    " was acknowledged",
                    write.key,
                )
            if latest is None or write.start > latest.start:
                latest = write

    # Watches.

    def _check_stream(self, stream: Stream) -> None:
        reached = stream.start
        expected: dict[int, tuple[Key, str]] = {}
        types: dict[int, str] = {}
        for key in self.keys[stream.collection]:
            before: _Version | None = None
            for version in self.registers[key].order:
                revision, unseen = version.place
                if not unseen and stream.start < revision <= stream.reached:
                    expected[revision] = (key, version.value)
                    if version.gone:
                        types[revision] = "DELETED"
                    else:
                        types[revision] = "ADDED" if before is None or before.gone else "MODIFIED"
                elif unseen:
                    self._check_unseen(stream, key, version)
                before = version
        told_of: set[int] = set()
        for told in stream.events:
            key, revision = Key(stream.collection, told.name), told.state.revision
            if revision <= reached:
                self._wrong(f"{stream.watcher} was told of {revision} after {reached}", key)
            reached = max(reached, revision)
            if revision in told_of:
                self._wrong(f"{stream.watcher} was told of {revision} twice", key)
            told_of.add(revision)
            if types.get(revision) != told.type:
                self._wrong(
                    f"{stream.watcher} was told {told.type} of {revision}, which is {types.get(revision)}",
                    key,
                )
        for revision in sorted(expected.keys() - told_of):
            key, value = expected[revision]
            self._wrong(
                f"{stream.watcher} was not told of {value or 'the deletion'} at {revision},"
                f" between {stream.start} and {stream.reached}",
                key,
            )

    def _check_unseen(self, stream: Stream, key: Key, deletion: _Version) -> None:
        """Whether the watcher should have seen a deletion that nobody saw."""
        register = self.registers[key]
        position = bisect_right(register.places, deletion.place)
        if position < len(register.order):
            until = register.order[position].place[0]
        else:
            until = min(
                (
                    listing.revision
                    for listing in self.lists[key.collection]
                    if listing.revision > deletion.place[0] and key.name not in listing.items
                ),
                default=0,
            )
        if until and stream.start <= deletion.place[0] and stream.reached >= until:
            self._wrong(
                f"{stream.watcher} was not told of a deletion between {deletion.place[0]} and {until}", key
            )
