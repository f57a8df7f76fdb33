"""What lies where in etcd, and how revisions are counted there. Pure: bytes in, bytes out.

etcd gives one revision to a whole transaction, and a batch of writes is one transaction. A write's revision is
therefore `(offset + mod_revision) << 7 | index in the batch`: unique, rising in commit order, the same for
every replica. A value carries its index in an envelope; a batch record says the index of each deletion and how
many there are. `offset` grows when the store was restored from a backup, so that revisions go on rising.

Under the store's root, in this order, because three of them, from `b` on, are watched as one range:

    a             there while a copy is being made: this is no store yet
    b             the batch record: rewritten by every batch, so its history is the list of batches
    c             the state: identity, epoch, offset, horizon, drops that are being swept
    d/<key>       the values, each behind an envelope
    w/<writer>    the last batch of each process, by which a lost answer is found again
    x/<time>/<n>  which keys expire when; looked through lazily, and only true where the value agrees
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from clusterling.storage.backend import Drops, prefix_end
from clusterling.storage.store import Identity, StoreOpenError

FORMAT: Final = 1  # Raised when an older version could not work with what a newer one writes.
INDEX_BITS: Final = 7
INDEX_MAX: Final = (1 << INDEX_BITS) - 1

_ENVELOPE: Final = 0x05
_PLAIN: Final = 0
_EXPIRES: Final = 1  # Eight bytes with the time of expiry follow.
_HEADER: Final = 3


def wrapped(value: bytes, index: int, expires_at: int | None) -> bytes:
    """The value as it is kept: the envelope's mark, the index, whether it expires, and then the value."""
    if expires_at is None:
        return bytes((_ENVELOPE, index, _PLAIN)) + value
    return bytes((_ENVELOPE, index, _EXPIRES)) + expires_at.to_bytes(8, "big") + value


def unwrapped(kept: bytes) -> tuple[bytes, int]:
    """The value and its index."""
    return kept[_HEADER if kept[2] == _PLAIN else _HEADER + 8 :], kept[1]


def expiry_of(kept: bytes) -> int | None:
    return None if kept[2] == _PLAIN else int.from_bytes(kept[_HEADER : _HEADER + 8], "big")


def bounds(index: int) -> tuple[bytes, bytes]:
    """What is kept with this index is above the first and below the second."""
    return bytes((_ENVELOPE, index)), bytes((_ENVELOPE, index + 1))


class Layout:
    """The keys under one root."""

    def __init__(self, root: str) -> None:
        assert root.endswith("/"), "a root is a prefix"
        self.root = root.encode()
        self.copying = self.root + b"a"
        self.batch = self.root + b"b"
        self.state = self.root + b"c"
        self.data = self.root + b"d/"
        self.writers = self.root + b"w/"
        self.expiries = self.root + b"x/"
        self.watched = self.batch, self.root + b"d0"
        self._cut = len(self.data)

    def key(self, key: str) -> bytes:
        return self.data + key.encode()

    def named(self, key: bytes) -> str:
        return key[self._cut :].decode()

    def range(self, prefix: str, after: str = "") -> tuple[bytes, bytes]:
        """First key and end of what lies under `prefix`, above `after`."""
        end = self.data + prefix_end(prefix).encode() if prefix else self.watched[1]
        # A prefix is no key itself; the zero byte makes the first string above it.
        return self.data + max(prefix, after).encode() + (b"\0" if after or prefix else b""), end

    def writer(self, name: str) -> bytes:
        return self.writers + name.encode()

    def expiry(self, at: int, name: str) -> bytes:
        return self.expiries + b"%016x/" % at + name.encode()

    def expired(self, now: int) -> tuple[bytes, bytes]:
        return self.expiries, self.expiries + b"%016x/" % (max(now, -1) + 1)


@dataclass(frozen=True, slots=True)
class BatchRecord:
    """What cannot be read from the values: how many numbers the batch took, its deletions, or the range it dropped.

    `name` is random: the same batch at the same revision means the same history.
    """

    name: str
    count: int
    deletes: Mapping[str, int] = field(default_factory=dict)
    dropped: str | None = None

    def encoded(self) -> bytes:
        fields: dict[str, Any] = {"i": self.name, "n": self.count}
        if self.deletes:
            fields["d"] = dict(self.deletes)
        if self.dropped is not None:
            fields["p"] = self.dropped
        return orjson.dumps(fields)

    @staticmethod
    def decoded(value: bytes) -> BatchRecord:
        fields = orjson.loads(value)
        return BatchRecord(fields["i"], fields["n"], fields.get("d") or {}, fields.get("p"))


@dataclass(frozen=True, slots=True)
class State:
    """The store's own record, at `mod_revision`. A write depends on it: whoever writes knows it as it is.

    `drops` are pairs of a prefix and etcd's revision of the drop. `horizon` is a revision of ours.
    `etcd` is the id of etcd's cluster, by which a copy in another one is noticed.
    """

    id: str
    epoch: int
    offset: int
    horizon: int
    etcd: int
    drops: tuple[tuple[str, int], ...] = ()
    mod_revision: int = 0

    def encoded(self) -> bytes:
        return orjson.dumps(
            {
                "format": FORMAT,
                "id": self.id,
                "epoch": self.epoch,
                "offset": self.offset,
                "horizon": self.horizon,
                "etcd": str(self.etcd),
                "drops": [list(drop) for drop in self.drops],
            }
        )

    @staticmethod
    def decoded(value: bytes, mod_revision: int) -> State:
        """A drop that came with this record has 0, as its writer could not know: it is the record's own revision.

        Raises StoreOpenError.
        """
        try:
            fields = orjson.loads(value)
            found = fields["format"]
            if not isinstance(found, int) or found > FORMAT:
                raise StoreOpenError(
                    f"the etcd store has format {found}, this version reads up to {FORMAT}:"
                    " use the newer Clusterling that wrote it"
                )
            drops = tuple((prefix, at or mod_revision) for prefix, at in fields["drops"])
            return State(
                fields["id"],
                fields["epoch"],
                fields["offset"],
                fields["horizon"],
                int(fields["etcd"]),
                drops,
                mod_revision,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StoreOpenError(
                f"the etcd store's own record is damaged ({error}): restore it from a backup"
            ) from error

    @property
    def identity(self) -> Identity:
        return Identity(self.id, self.epoch)

    def dropping(self) -> Drops:
        """The drops, by etcd's revisions."""
        drops = Drops()
        for prefix, at in self.drops:
            drops.add(prefix, at)
        return drops

    def with_drop(self, prefix: str) -> State:
        return replace(self, drops=(*self.drops, (prefix, 0)))

    def without(self, swept: Sequence[tuple[str, int]]) -> State:
        return replace(self, drops=tuple(drop for drop in self.drops if drop not in swept))

    # Counting.

    def revision(self, mod_revision: int, index: int) -> int:
        return (self.offset + mod_revision) << INDEX_BITS | index

    def mod_of(self, revision: int) -> int:
        """etcd's revision; not above 0 where it is from before this epoch."""
        return (revision >> INDEX_BITS) - self.offset


def index_of(revision: int) -> int:
    return revision & INDEX_MAX
