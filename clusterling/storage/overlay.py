"""A cluster's own keys over a lower range that it shares with others and cannot change.

What every cluster has from its first moment (namespaces, bootstrap roles, a template's objects) lives once, in the
lower store, and shows through until the cluster writes the key itself. A write copies up: the upper value hides
the lower one from then on. A delete leaves a *whiteout*, a value of the single byte `WHITEOUT`, which hides the lower
one too. `derive` makes a lower value this cluster's own (uids). Both stores are ranges of one store, so their
revisions compare: a lower entry shows the revision of its lower write.

    upper     lower     shows
    value     any       the upper value
    whiteout  any       nothing
    nothing   value     the lower value, derived

Expected revisions and guards are translated to what the upper key must be, and checked there when the write commits:
of two clients that copy one key up, one wins. The lower range changes rarely and by other hands (an upgrade, a new
template); a write that races with such a change is ordered before it, which is indistinguishable, since it
hides what it races with.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Final, Protocol

from typing_extensions import override

from clusterling.storage.awaited import Awaited
from clusterling.storage.others import OTHERS
from clusterling.storage.store import (
    ABSENT,
    WRITE_OPS_MAX,
    Batch,
    Compacted,
    Entry,
    Event,
    Guard,
    GuardFailed,
    Identity,
    KeyExists,
    Limit,
    Op,
    Page,
    RevisionConflict,
    Store,
    Usage,
    Watch,
)

WHITEOUT: Final = b"\x18"
ATTEMPTS_MAX: Final = 10
COUNT_PAGE_ENTRIES: Final = 1000

_REFUSED: Final = (KeyExists, RevisionConflict, GuardFailed)

# Hidden, where nothing is below that could be: one set for the many collections of which that holds.
_NOTHING: Final[set[str]] = set()

Derive = Callable[[str, bytes], bytes]


class Reads(Protocol):
    """What of a Store answers lookups."""

    async def get(self, key: str) -> Entry | None: ...

    def peek(self, key: str) -> Entry | None:
        """The entry, where that needs no waiting. None: it does, or there is none."""

    def lacks(self, key: str) -> bool:
        """There is none, and to know that needs no waiting."""

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page: ...


class Overlay:
    """`upper` over `lower`, as one store.

    `reads` may be a cache over `lower`, and may hide some of it: it answers lookups, while watches go to `lower` itself, whose events arrive
    together with the upper ones.
    """

    def __init__(self, upper: Store, lower: Store, derive: Derive, *, reads: Reads | None = None) -> None:
        self._upper = upper
        self._lower = lower
        self._derive = derive
        self._reads = lower if reads is None else reads
        self._lacks: Callable[[str], bool] = _unsaid if reads is None else reads.lacks
        self._peek: Callable[[str], Entry | None] = _unseen if reads is None else reads.peek

    async def get(self, key: str) -> Entry | None:
        entry = await self._upper.get(key)
        if entry is None:
            below = await self._reads.get(key)
            return None if below is None else self._derived(below)
        return _shown(entry)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        merged: list[Entry] = []
        at, last_change, complete = revision, 0, False
        while not complete and (limit == 0 or len(merged) < limit):
            upper = await self._upper.list(prefix, after=after, limit=limit, revision=at)
            at = upper.revision
            lower = await self._reads.list(prefix, after=after, limit=limit, revision=at)
            last_change = max(last_change, upper.last_change, lower.last_change)
            # Beyond the last key of a page cut short, nothing is known of that side.
            cuts = [page.entries[-1].key for page in (upper, lower) if limit and len(page.entries) == limit]
            complete = not cuts
            after = min(cuts, default=after)
            merged += self._merged(upper.entries, lower.entries, None if complete else after)
        remaining: int | None = None
        if complete and (limit == 0 or len(merged) <= limit):
            remaining = 0
        elif not lower.entries and upper.remaining is not None:
            # Nothing is below from here on, so nothing hides anything: what the upper store counts is what shows.
            remaining = upper.remaining + max(0, len(merged) - limit)
        return Page(merged[:limit] if limit else merged, at, remaining, min(at, last_change))

    async def count(self, prefix: str) -> int:
        """Reads everything under `prefix`: whiteouts are told from values by looking."""
        count, after, revision = 0, "", 0
        while True:
            page = await self.list(prefix, after=after, limit=COUNT_PAGE_ENTRIES, revision=revision)
            count += len(page.entries)
            if len(page.entries) < COUNT_PAGE_ENTRIES:
                return count
            after, revision = page.entries[-1].key, page.revision

    async def usage(self, prefix: str) -> Sequence[Usage]:
        """Of the cluster's own entries, what hides others included; what is below takes nobody's room."""
        return await self._upper.usage(prefix)

    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        for attempt in range(1, ATTEMPTS_MAX + 1):
            # The first look takes for granted what is nearly always so: nothing hides where nothing is below.
            careful = attempt > 1
            upper_ops, upper_guards = ops, None if careful else self._at_once(ops, guards)
            if upper_guards is None:
                try:
                    upper_guards = [await self._guard(guard, careful=careful) for guard in guards]
                    upper_ops = [await self._op(op, careful=careful) for op in ops]
                except _REFUSED:
                    if careful:
                        raise
                    continue
            try:
                return await self._upper.write(upper_ops, upper_guards, limits)
            except _REFUSED as error:
                # A key has changed since it was looked at: if the write depends on that, the next look refuses it.
                # A key that is not of this write is some wrapper's below, and its refusal is final.
                named = {op.key for op in ops} | {guard.key for guard in guards} - {OTHERS}
                if attempt == ATTEMPTS_MAX or error.args[0] not in named:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        return _MergedWatch(
            self._upper.watch(prefix, after=after),
            self._lower.watch(prefix, after=after),
            partial(self._state, prefix, after),
            self._derived,
        )

    def head(self) -> int:
        return self._upper.head()

    def fresh(self) -> Awaitable[int]:
        return self._upper.fresh()

    async def compact(self, horizon: int) -> None:
        await self._upper.compact(horizon)

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        """As `Store.drop`. What shows through from below is hidden again key by key, in steps, after the drop."""
        if (await self.list(prefix, limit=1)).entries:
            await self._upper.drop(prefix, guards)
        below = await self._reads.list(prefix)
        for start in range(0, len(below.entries), WRITE_OPS_MAX):
            keys = [entry.key for entry in below.entries[start : start + WRITE_OPS_MAX]]
            hiding = [Op(key, WHITEOUT, ABSENT) for key in keys if await self._upper.get(key) is None]
            if hiding:
                await self._upper.write(hiding, guards)

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        """Of the cluster's own entries: what is below does not expire."""
        return await self._upper.expired(now, limit)

    async def identity(self) -> Identity:
        return await self._upper.identity()

    async def _state(self, prefix: str, after: int) -> tuple[dict[str, Entry], set[str]]:
        """What is below, and which of it is hidden, where a watch after that revision starts."""
        if after > self.head():
            return await self._state_at(prefix, 0)
        try:
            return await self._state_at(prefix, after)
        except Compacted:
            # The watch is in place, so it starts right at the horizon, and the event there says what it changed.
            return await self._state_at(prefix, after + 1)

    async def _state_at(self, prefix: str, revision: int) -> tuple[dict[str, Entry], set[str]]:
        lower = await self._reads.list(prefix, revision=revision)
        below = {entry.key: entry for entry in lower.entries}
        if not below:
            return below, _NOTHING
        upper = await self._upper.list(prefix, revision=revision)
        return below, {entry.key for entry in upper.entries if entry.key in below}

    def _at_once(self, ops: Sequence[Op], guards: Sequence[Guard]) -> Sequence[Guard] | None:
        """What `_guard` and `_op` say at first look where they need not wait, and nothing is below what is written: the guards."""
        lacks, peek = self._lacks, self._peek
        for op in ops:
            if (op.value is None and op.expected is None) or op.value == WHITEOUT or not lacks(op.key):
                return None
        found: list[Guard] = []
        for guard in guards:
            if guard.key == OTHERS or lacks(guard.key):
                found.append(guard)
            elif (below := peek(guard.key)) is not None and below.revision == guard.revision:
                found.append(Guard(guard.key, ABSENT))
            else:
                return None
        return found

    async def _guard(self, guard: Guard, *, careful: bool) -> Guard:
        """What the guard asks of the upper key. Raises GuardFailed."""
        if guard.key == OTHERS:
            return guard
        below = await self._reads.get(guard.key)
        if not careful:
            if below is None:
                return guard
            if guard.revision == below.revision:
                # Whoever saw that revision saw what is below, so nothing of the cluster's own lies over it.
                return Guard(guard.key, ABSENT)
        entry = await self._upper.get(guard.key)
        if entry is None:
            shown, upper = below, ABSENT
        else:
            shown, upper = _shown(entry), entry.revision
        if guard.revision != (ABSENT if shown is None else shown.revision):
            raise GuardFailed(guard.key)
        return Guard(guard.key, upper)

    async def _op(self, op: Op, *, careful: bool) -> Op:
        """What the op is on the upper key. Raises KeyExists, RevisionConflict."""
        assert op.value != WHITEOUT, "a whiteout is not a value"
        if op.value is not None and op.expected is None:
            return op
        below = await self._reads.get(op.key)
        if below is None and op.expected is not None and not careful:
            return op
        entry = await self._upper.get(op.key)
        if entry is None:
            shown, upper = below, ABSENT
        else:
            shown, upper = _shown(entry), entry.revision
        if op.expected == ABSENT and shown is not None:
            raise KeyExists(op.key)
        if op.expected is None or op.expected == ABSENT:
            matches = op.value is not None or shown is not None
        else:
            matches = shown is not None and op.expected == shown.revision
        if not matches:
            raise RevisionConflict(op.key)
        value = WHITEOUT if op.value is None and below is not None else op.value
        return Op(op.key, value, upper, None if value == WHITEOUT else op.expires_at)

    def _derived(self, below: Entry) -> Entry:
        return Entry(below.key, self._derive(below.key, below.value), below.revision)

    def _merged(self, upper: Sequence[Entry], lower: Sequence[Entry], through: str | None) -> Sequence[Entry]:
        """What shows of both up to a key, in order."""
        own = {entry.key: entry for entry in upper if through is None or entry.key <= through}
        showing = [
            self._derived(entry)
            for entry in lower
            if entry.key not in own and (through is None or entry.key <= through)
        ]
        own_showing = [entry for entry in own.values() if _shown(entry) is not None]
        if not showing:
            return own_showing
        return sorted(own_showing + showing, key=lambda entry: entry.key)


def _unsaid(_key: str) -> bool:
    return False


def _unseen(_key: str) -> None:
    return None


def _shown(entry: Entry) -> Entry | None:
    return None if entry.value == WHITEOUT else entry


class _MergedWatch(Awaited):
    """The events of both stores as those of the merged one, in order of their revisions; with its context.

    It follows what is below and what of that is hidden, so that it can tell, without asking, whether a change
    below shows. Where it cannot (a key is new below, the lower range is dropped) its readers list again.
    """

    __slots__ = (
        "_below",
        "_derived",
        "_error",
        "_hidden",
        "_lower",
        "_next_lower",
        "_next_upper",
        "_places",
        "_revision",
        "_state",
        "_stirred",
        "_upper",
    )

    def __init__(
        self,
        upper: AbstractAsyncContextManager[Watch],
        lower: AbstractAsyncContextManager[Watch],
        state: Callable[[], Awaitable[tuple[dict[str, Entry], set[str]]]],
        derived: Callable[[Entry], Entry],
    ) -> None:
        super().__init__()
        self._places = (upper, lower)
        self._state = state
        self._derived = derived
        self._upper: Watch
        self._lower: Watch
        self._below: dict[str, Entry] = {}
        self._hidden = _NOTHING
        self._next_upper: Batch | None = None
        self._next_lower: list[Event] = []
        self._revision = 0
        self._error: Compacted | None = None
        self._stirred = False

    async def __aenter__(self) -> Watch:
        async with AsyncExitStack() as undo:
            upper, lower = self._places
            self._upper = await undo.enter_async_context(upper)
            self._lower = await undo.enter_async_context(lower)
            self._revision = min(self._upper.revision, self._lower.revision)
            self._below, self._hidden = await self._state()
            del self._state
            undo.pop_all()
        self._upper.notify(self._stir)
        self._lower.notify(self._stir)
        return self

    async def __aexit__(self, *_: object) -> None:
        for place in self._places:
            await place.__aexit__(None, None, None)

    @property
    def revision(self) -> int:
        if self._next_upper is not None or self._next_lower or self._error is not None:
            return self._revision
        return max(self._revision, min(self._upper.revision, self._lower.revision))

    @override
    def take(self) -> Batch | None:
        if self._error is not None:
            raise self._error
        try:
            while (merged := self._merge()) is not None:
                self._revision = merged.revision
                if merged.events:
                    return merged
        except Compacted as error:
            self._error = error
            raise
        self._stirred = False
        return None

    @override
    def _pending(self) -> bool:
        return self._stirred

    def _stir(self) -> None:
        self._stirred = True
        self.wake()

    def _merge(self) -> Batch | None:
        """The next upper batch with what came below meanwhile, or that alone; None where neither is to be had."""
        while (batch := self._lower.take()) is not None:
            self._next_lower += batch.events
        upper = self._next_upper or self._upper.take()
        self._next_upper = None
        through = self._upper.revision if upper is None else upper.revision
        if through > self._lower.revision:
            # Something below may yet come before it.
            self._next_upper = upper
            through = self._lower.revision
            upper = None
        if upper is None and not self._next_lower:
            return None
        events: list[Event | None] = []
        own = deque(upper.events if upper is not None else ())
        split = bisect_right(self._next_lower, through, key=lambda event: event.revision)
        theirs = deque(self._next_lower[:split])
        del self._next_lower[:split]
        if upper is None and not theirs:
            return None
        while own or theirs:
            if not theirs or (own and own[0].revision < theirs[0].revision):
                events.append(self._upper_event(own.popleft()))
            else:
                events.append(self._lower_event(theirs.popleft()))
        return Batch([event for event in events if event is not None], through)

    def _upper_event(self, event: Event) -> Event | None:
        """What shows of a write to the cluster's own key, None where nothing does."""
        key, entry = event.key, event.entry
        if event.dropped:
            self._hidden.update(known for known in self._below if known.startswith(key))
            return event
        below = self._below.get(key)
        showing = None if below is None or key in self._hidden else below

        def previous() -> Entry | None:
            before = event.previous()
            if before is not None:
                return _shown(before)
            return None if showing is None else self._derived(showing)

        if entry is None and below is not None:
            self._hidden.discard(key)
            return Event(event.revision, key, self._derived(below), previous)
        if below is not None:
            self._hidden.add(key)
        if entry is not None and _shown(entry) is None:
            entry = None
            if showing is None and not _had_value(event):
                return None
        return Event(event.revision, key, entry, previous)

    def _lower_event(self, event: Event) -> Event | None:
        """What shows of a change below. Raises Compacted where that cannot be known here."""
        key = event.key
        below = self._below.get(key)
        if event.dropped or below is None:
            raise Compacted(event.revision)
        if event.entry is None:
            del self._below[key]
        else:
            self._below[key] = event.entry
        if key in self._hidden:
            if event.entry is None:
                self._hidden.discard(key)
            return None
        entry = None if event.entry is None else self._derived(event.entry)
        return Event(event.revision, key, entry, self._derived(below))


def _had_value(event: Event) -> bool:
    """Whether the key had a value of its own before; if history no longer tells, then yes, to be told of it."""
    try:
        before = event.previous()
    except Compacted:
        return True
    return before is not None and _shown(before) is not None
