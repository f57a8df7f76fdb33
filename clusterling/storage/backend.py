"""What a backend file implements: transactions, reads, and a stream of changes. Everything else is shared.

A backend knows nothing of group commit, subscribers or caches: `batcher.py` decides which transactions share a
commit, `feed.py` who hears of the changes, and `backed.py` puts the three together into a `Store`.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, Protocol, runtime_checkable

from msgspec import Struct

from clusterling.storage.store import (
    ABSENT,
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
    StorageError,
    UnknownOutcome,
    Usage,
)

LOST: Final = "an answer of the store was lost"


class Transaction(Struct, frozen=True):
    """Ops that happen together if every guard and limit holds, or not at all."""

    ops: Sequence[Op]
    guards: Sequence[Guard] = ()
    limits: Sequence[Limit] = ()


class Committed(Struct, frozen=True):
    """What became of a transaction that happened: a revision for each op, rising."""

    revisions: Sequence[int]


# Takes events in revision order and how far the store has come with them. Called on the event loop.
Sink = Callable[[Sequence[Event], int], None]
# Told when events up to a revision can not be had any more (a store restored from a backup, history compacted
# while it was out of reach): whoever follows must list again. The sink goes on above that revision.
Lost = Callable[[int], None]


class Backend(Protocol):
    """Reads are as in `Store`. One commit is under way at a time; reads may run beside it."""

    def follow(self, sink: Sink, lost: Lost) -> None:
        """Sets the one receiver of changes: from now on it gets every event, in order, none twice, or is told of a gap."""

    async def commit(self, transactions: Sequence[Transaction]) -> Sequence[Committed | StorageError]:
        """Executes the transactions one after the other, in one durable commit; one outcome for each.

        One that is refused leaves no trace and does not disturb its neighbours. Before this returns, the sink
        has had the events. Raises Unavailable or UnknownOutcome for all of them together.
        """

    async def get(self, key: str) -> Entry | None: ...

    async def list(self, prefix: str, *, after: str, limit: int, revision: int) -> Page: ...

    async def count(self, prefix: str) -> int: ...

    async def usage(self, prefix: str) -> Sequence[Usage]: ...

    async def changes(self, prefix: str, *, after: int, through: int, limit: int) -> Sequence[Event]:
        """The first `limit` events under `prefix` with `after < revision <= through`. Raises Compacted."""

    def head(self) -> int:
        """The revision that the sink was last told, or at opening the store's own."""

    async def fresh(self) -> int:
        """Some revision at or above every acknowledged write; the sink may not have had it yet.

        Not called again before it has returned.
        """

    async def compact(self, horizon: int) -> None: ...

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None: ...

    async def expired(self, now: int, limit: int) -> Sequence[Entry]: ...

    async def identity(self) -> Identity: ...

    async def close(self) -> None:
        """Waits for what is under way, then lets go of files and threads."""


Done = Callable[[Sequence[Committed | StorageError] | Exception], None]


@runtime_checkable
class CommitsBeside(Protocol):
    """A backend whose commits happen beside the loop. Nobody need be woken to begin one or to hear of its end: on a busy loop
    each of these takes a round more.
    """

    def begin_commit(self, transactions: Sequence[Transaction], done: Done) -> None:
        """Begins a commit, as `commit` has it. `done` is called on the loop with what that returns or raises, once the sink has had
        the events. Not called again before that.
        """


class Doubt:
    """What is made of an answer that was lost: a batch that was looked for and not found is tried again.

    That it was not found may also be because the store was put back to a backup meanwhile, after the batch had happened and
    others had seen it. So after that only success is certain.
    """

    def __init__(self) -> None:
        self.felt = False  # Since the commit began.

    async def settled(
        self, commit: Awaitable[Sequence[Committed | StorageError]]
    ) -> Sequence[Committed | StorageError]:
        """The commit's outcomes. Raises what it raises, or UnknownOutcome."""
        self.felt = False
        try:
            outcomes = await commit
        except StorageError as error:
            if self.felt:
                raise UnknownOutcome(f"{LOST}, and then: {error}") from error
            raise
        if not self.felt:
            return outcomes
        return [one if isinstance(one, Committed) else UnknownOutcome(LOST) for one in outcomes]


def refusal(transaction: Transaction, revision_of: Callable[[str], int]) -> StorageError | None:
    """Why the transaction cannot happen, if so. `revision_of` gives a key's revision now, `ABSENT` for none."""
    for guard in transaction.guards:
        if revision_of(guard.key) != guard.revision:
            return GuardFailed(guard.key)
    for op in transaction.ops:
        current = revision_of(op.key)
        if op.expected == ABSENT and current != ABSENT:
            return KeyExists(op.key)
        if op.value is None and current == ABSENT:
            return RevisionConflict(op.key)
        if op.expected is not None and op.expected != current:
            return RevisionConflict(op.key)
    return None


def prefix_end(prefix: str) -> str:
    """The first string after all that start with `prefix`, which ends in a slash or is empty."""
    return prefix[:-1] + "0" if prefix else "\U0010ffff"  # "0" is the code point after "/".


def prefixes(key: str) -> Iterator[str]:
    """Every prefix that `key` lies under, the empty one first, `key` itself where it is a prefix."""
    yield ""
    position = key.find("/") + 1
    while position:
        yield key[:position]
        position = key.find("/", position) + 1


class Drops:
    """Which ranges were dropped at which revision, until compaction has swept them away.

    A drop hides at one stroke what was there before it; the rows go later, so that history stays whole.
    """

    def __init__(self) -> None:
        self._revisions: dict[str, list[int]] = {}

    def __bool__(self) -> bool:
        return bool(self._revisions)

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for prefix, revisions in self._revisions.items():
            for revision in revisions:
                yield prefix, revision

    def add(self, prefix: str, revision: int) -> None:
        insort(self._revisions.setdefault(prefix, []), revision)

    def remove(self, prefix: str, revision: int) -> None:
        revisions = self._revisions[prefix]
        revisions.remove(revision)
        if not revisions:
            del self._revisions[prefix]

    def hides(self, key: str, *, written: int, at: int) -> bool:
        """Whether what was written to `key` at `written` had been dropped by revision `at`."""
        if not self._revisions:
            return False
        for prefix in prefixes(key):
            if any(written < revision <= at for revision in self._revisions.get(prefix, ())):
                return True
        return False

    def floor(self, prefix: str, *, at: int) -> int:
        """What was written under `prefix` at or below this revision had been dropped by revision `at`."""
        floor = 0
        if self._revisions:
            for above in prefixes(prefix):
                for revision in self._revisions.get(above, ()):
                    if floor < revision <= at:
                        floor = revision
        return floor

    def within(self, prefix: str) -> bool:
        """Whether some of the range below `prefix`, but not all, has been dropped."""
        return any(key.startswith(prefix) and key != prefix for key in self._revisions)
