"""Bytes with revisions: the one interface that every backend and every wrapper implements.

The model is etcd's (https://etcd.io/docs/v3.6/learning/api_guarantees/) with one difference: every *write* takes
a revision of its own, also inside a transaction, because clients store the revision of each event they
saw and resume there; two events with one revision could be cut in two.

- One counter for the whole store, strictly rising in commit order. A key's revision is that of its last write.
  A fresh store's head is 1, so 0 never names a state: it is "now" in a read and "absent" in a write.
- Keys are paths without a leading slash, `<cluster id>/<group>/<resource>/<namespace or "-">/<name>`, ordered by
  code point (which is the order of their UTF-8 bytes). A *prefix* ends in a slash, or is empty for everything.
- A value's first byte says its format: `{` is plain JSON, anything below 0x20 an envelope of some wrapper.

    StorageError
    ├── KeyExists           the key was to be created
    ├── RevisionConflict    the key is not where the writer saw it
    ├── GuardFailed         something that the write depends on has changed
    ├── LimitReached        there would be more than may be
    ├── Compacted           the history asked for is gone: list again
    ├── FutureRevision      the revision asked for is not there yet
    ├── TooLarge            the value is over `VALUE_BYTES_MAX`
    ├── UnknownOutcome      the write may or may not have happened
    ├── Unavailable         the store cannot answer now; nothing was written
    │   └── Crowded         too many writes of the cluster wait already
    └── StoreOpenError      the store cannot be opened; the message says what to do
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple, Protocol, runtime_checkable

from msgspec import Struct
from typing_extensions import override

VALUE_BYTES_MAX: Final = (
    1_572_864 - 16_384
)  # etcd's request limit less room for the envelope, in every backend alike.

WRITE_OPS_MAX: Final = (
    100  # Ops and guards of one write, each: what the tightest backend takes in one transaction.
)

ABSENT: Final = 0  # As an expected revision: the key must not exist.


class StorageError(Exception):
    """What a caller can act on. Driver errors never leave a backend in any other form."""


class KeyExists(StorageError):
    """The key was expected to be absent."""


class RevisionConflict(StorageError):
    """The key is not at the expected revision: it was rewritten, deleted, or never there."""


class GuardFailed(StorageError):
    """A guard's key is not at its revision. `args[0]` is that key. The caller looks again, then retries or refuses."""


class LimitReached(StorageError):
    """There would be more than a limit allows. `args` are the `Limit`, how much there is, and how much was to be added;
    then, where somebody knows, what to tell the writer."""


class Compacted(StorageError):
    """History before the asked revision is gone. The caller lists again (HTTP 410, Expired)."""


class FutureRevision(StorageError):
    """The revision asked for has not happened yet. `args` are (asked, current)."""


class TooLarge(StorageError):
    """The value is larger than any backend keeps (HTTP 413)."""


class UnknownOutcome(StorageError):
    """The store went away during the commit and could not be asked afterwards (HTTP 504)."""


class Unavailable(StorageError):
    """The store cannot serve this now: closed, full, or out of reach. Nothing was written (HTTP 503)."""


class Crowded(Unavailable):
    """So many writes of the cluster wait already that no more may; the message says how many. Try again later."""


class StoreOpenError(StorageError):
    """The store cannot be opened. The message is one line for an operator: what is wrong, where, and what to do."""


class Entry(Struct, gc=False):
    """A key's current value. Identity matters: a cache hands out the same Entry until the key is written again.

    `views` is a place for what readers derive from the value (another version, decoded labels, a frame):
    computed once, shared by all, gone with the entry. Storage never looks inside. Nothing in it may lead back to an entry:
    the garbage collector does not look at entries, of which there may be millions.
    """

    key: str
    value: bytes
    revision: int
    views: dict[object, object] | None = None

    @override
    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Entry):
            return NotImplemented
        return (self.key, self.value, self.revision) == (other.key, other.value, other.revision)

    @override
    def __hash__(self) -> int:
        return hash((self.key, self.revision))

    @override
    def __repr__(self) -> str:
        return f"Entry({self.key!r}, {self.value[:60]!r}, revision={self.revision})"


class Page(Struct, frozen=True):
    """Entries in key order, as they were at `revision`.

    `remaining` counts the entries after this page; None means "not counted". `last_change` is the revision of
    the last write under the listed prefix's collection, never above `revision`, or `revision` itself where the
    store does not know better: it is what a client may be told, so that one tenant's answers do not
    show another's write rate (decision 10).

    `views`: where there is one, what readers derive from these very entries, shared by all pages of the same place until the
    collection changes. Whoever puts something there bounds it.
    """

    entries: Sequence[Entry]
    revision: int
    remaining: int | None
    last_change: int
    views: dict[object, object] | None = None


class Event:
    """One write that happened. `entry` None: the key was deleted. `dropped`: the whole range under `key` went at once.

    A drop's key is a prefix, narrowed to the watch's own where more than the watch sees was dropped.

    `previous()` may cost a read in a backend, so it is asked for only where someone needs it; it raises
    Compacted once history no longer has it. None: the key was created.
    """

    __slots__ = ("_previous", "dropped", "entry", "key", "revision")

    def __init__(
        self,
        revision: int,
        key: str,
        entry: Entry | None,
        previous: Callable[[], Entry | None] | Entry | None = None,
        *,
        dropped: bool = False,
    ) -> None:
        self.revision = revision
        self.key = key
        self.entry = entry
        self.dropped = dropped
        self._previous = previous

    def previous(self) -> Entry | None:
        if callable(self._previous):
            self._previous = self._previous()
        return self._previous

    @override
    def __repr__(self) -> str:
        what = "dropped" if self.dropped else "deleted" if self.entry is None else "written"
        return f"Event({self.revision}, {self.key!r}, {what})"


class Batch:
    """Events that became visible together, in revision order, and how far the watch has come.

    `events` is empty when only `revision` moved (progress: nothing under the prefix up to there).
    A batch is shared by all watches of the same prefix; `views` keeps what they derive from it (frames).
    """

    __slots__ = ("events", "revision", "views")

    def __init__(self, events: Sequence[Event], revision: int) -> None:
        self.events = events
        self.revision = revision
        self.views: dict[object, object] | None = None


class Op(Struct, frozen=True, gc=False):
    """One change of one key. `value` None deletes.

    `expected`: a revision the key must be at; `ABSENT` (0) it must not exist; None anything goes.
    Deleting a key that is absent with `expected=None` is a RevisionConflict: there is nothing to delete.
    `expires_at`: whole seconds since the epoch, after which `expired()` names the key; None never.
    """

    key: str
    value: bytes | None
    expected: int | None = None
    expires_at: int | None = None


class Guard(Struct, frozen=True, gc=False):
    """The write happens only if `key` is at `revision` (`ABSENT`: does not exist) when it commits."""

    key: str
    revision: int


class Measure(Enum):
    """What a limit counts: keys, or the bytes of their values."""

    OBJECTS = "objects"
    BYTES = "bytes"


class Limit(Struct, frozen=True, gc=False):
    """The write happens only if there are no more than `most` under `prefix` after it, or it adds nothing there.

    `prefix` has one to three parts, as in `<cluster id>/` and `<cluster id>/<group>/<resource>/`. What is directly under it
    in a part that begins with `~` is no object but a record about some: of records, the bytes count alone.
    """

    prefix: str
    what: Measure
    most: int


class Usage(NamedTuple):
    """What is kept in a collection, `<cluster id>/<group>/<resource>/`: keys, and the bytes of their values."""

    collection: str
    objects: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Identity:
    """Which store this is. A copy or a restored backup has the same id and a higher epoch."""

    id: str
    epoch: int


class Watch(Protocol):
    """A position in a stream of events; pulled, never pushed, so a slow reader holds no queue.

    Either `async for batch in watch`, or `notify(callback)` and `take()` from the callback's side: the
    callback is called (synchronously, on the event loop) when `take()` may have something.
    """

    @property
    def revision(self) -> int:
        """How far the watch has come: everything at or below was taken, or was not under its prefix."""

    def take(self) -> Batch | None:
        """The next batch, or None when there is none yet; so called again until it is None.

        Raises Compacted when the reader fell out of the window, Unavailable when the store has closed.
        Once it has raised, it raises the same again.
        """

    def notify(self, callback: Callable[[], None]) -> None:
        """Sets the one callback, and calls it at once if there is something to take. It must not raise or block."""

    def __aiter__(self) -> AsyncIterator[Batch]: ...

    async def __anext__(self) -> Batch:
        """The next batch, waiting for it. Raises what `take` raises; Unavailable when the store closes."""


def is_shared(store: object) -> bool:
    """Whether other processes may write to the same store while this one does: what does not say is taken to be shared.

    A store that is one process's alone says `shared = False`, and is spared what replicas owe each other.
    """
    return bool(getattr(store, "shared", True))


@runtime_checkable
class Store(Protocol):
    """All that the rest of the server knows of storage. Any method may raise Unavailable."""

    async def get(self, key: str) -> Entry | None:
        """The key's value, at least as new as the last write acknowledged before the call."""

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        """Entries under `prefix` in key order, all as of one revision.

        `after` skips keys up to and including it; `limit` 0 is no limit; `revision` 0 is now, at least as new
        as the last acknowledged write. Raises Compacted, FutureRevision.
        """

    async def count(self, prefix: str) -> int:
        """How many keys there are under `prefix` now."""

    async def usage(self, prefix: str) -> Sequence[Usage]:
        """What is kept in every collection under `prefix`, which has at most three parts; those that are empty may be left out."""

    async def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Sequence[int]:
        """Does all of `ops` or none, if every guard and limit holds; returns a revision for each op, rising.

        When it returns, the write is durable, and every watch and cache of this process has it.
        Ops of one call name distinct keys; at most `WRITE_OPS_MAX` ops and as many guards. All guards are
        looked at before any op. Limits hold exactly, whoever else writes. Cancelled, it may or may not have happened.
        Raises KeyExists, RevisionConflict, GuardFailed, LimitReached, TooLarge, UnknownOutcome; nothing else was written then (UnknownOutcome: nobody knows).
        """

    def watch(self, prefix: str, *, after: int) -> AbstractAsyncContextManager[Watch]:
        """Every event under `prefix` with a revision above `after`: in order, none lost, none twice.

        The watch is in place once the context is entered. Raises Compacted there, or on a later take.
        A revision above `head()` is allowed: the watch waits for it.
        """

    def head(self) -> int:
        """The last revision this process has seen. Never goes back."""

    def fresh(self) -> Awaitable[int]:
        """A revision at or above every write acknowledged, by any replica, before the call.

        When it returns, every watch and cache of this process has come that far: who then reads memory reads
        fresh.
        """

    async def compact(self, horizon: int) -> None:
        """Forgets history below `horizon`, in bounded steps. The current value of every key stays.

        Lists at `horizon` and watches after `horizon - 1` are still served; what is older raises Compacted.
        A horizon above `head()` counts as `head()`; one below an earlier horizon does nothing.
        """

    async def drop(self, prefix: str, guards: Sequence[Guard] = ()) -> None:
        """Removes every key under `prefix` at once, whatever their number, with one event: `dropped`, on the prefix.

        If every guard holds, looked at in the same commit; else raises GuardFailed. History keeps what was there (or raises Compacted); the space comes back in bounded steps, at the latest
        when `compact` passes the drop. Where nothing is under the prefix, nothing is written. Safe to repeat.
        """

    async def expired(self, now: int, limit: int) -> Sequence[Entry]:
        """Up to `limit` entries whose `expires_at` is at or before `now`. Deleting them is the caller's act."""

    async def identity(self) -> Identity: ...
