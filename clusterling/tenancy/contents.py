"""What the keys of a whole store mean: looked through for what must not be, and counted by cluster and kind.

Works on a snapshot, in key order: one cluster after the other, with little more in memory than the clusters' ids.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

from clusterling.registry import owners
from clusterling.storage.bulk import Finding, Record, Snapshot, Sorter
from clusterling.storage.overlay import WHITEOUT
from clusterling.storage.store import VALUE_BYTES_MAX
from clusterling.tenancy.authentication.tokens import PREFIX as TOKENS
from clusterling.tenancy.directory import COLLECTION
from clusterling.tenancy.names import ROOT, ROOT_ID, fence_key
from clusterling.tenancy.underlay import UNDERLAY_ID

# Told how many records have been looked at, and of how many.
Progress = Callable[[int, int], None]

LOGICAL_CLUSTERS: Final = f"{ROOT_ID}/{COLLECTION}-/"
FENCES: Final = f"{ROOT_ID}/{fence_key('')}"

_BAD_KEY: Final = re.compile("(?:^|/)\\.{0,2}(?:/|$)|[\x00\ud800-\udfff]")


@dataclass(slots=True)
class Tally:
    """Of one cluster, or one kind: how many objects, and how many bytes with all that belongs to them."""

    name: str
    id: str = ""
    objects: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """`clusters` are the largest of `cluster_count`; `records` counts everything, also what is no object."""

    records: int
    objects: int
    bytes: int
    cluster_count: int
    clusters: list[Tally]
    kinds: list[Tally]


class _Owned:
    """One cluster's owner references, as its objects have them and as its index of dependents has them."""

    def __init__(self, cluster: str) -> None:
        self._cluster = cluster
        self._wanted = Sorter()
        self._there = Sorter()

    def note_object(self, parts: list[str], obj: dict[str, Any]) -> None:
        _, _, plural, namespace, name = parts
        for reference in obj["metadata"].get("ownerReferences") or ():
            segment = owners.prefix(str(reference["uid"])).removeprefix(owners.OWNERS)
            self._wanted.add(f"{segment}{namespace}/{plural}|{name}".encode())

    def note_record(self, key: str) -> None:
        """`key` is relative to the cluster. An API group is left out: kinds that two groups serve are stored once."""
        _, segment, namespace, rest = key.split("/", 3)
        _, plural, name = rest.split("|", 2)
        self._there.add(f"{segment}/{namespace}/{plural}|{name}".encode())

    def findings(self) -> Iterator[Finding]:
        wanted, there = _once(self._wanted), _once(self._there)
        one, other = next(wanted, None), next(there, None)
        while one is not None or other is not None:
            if other is None or (one is not None and one < other):
                assert one is not None, "one of them is there"
                yield self._finding(
                    one, "owner-not-indexed", "names an owner, and would not be found as its dependent"
                )
                one = next(wanted, None)
            elif one is None or other < one:
                yield self._finding(
                    other, "owner-stray", "is indexed as a dependent of an owner that it does not name"
                )
                other = next(there, None)
            else:
                one, other = next(wanted, None), next(there, None)

    def close(self) -> None:
        self._wanted.close()
        self._there.close()

    def _finding(self, item: bytes, kind: str, what: str) -> Finding:
        uid, namespace, rest = item.decode().split("/", 2)
        plural, _, name = rest.partition("|")
        return Finding(f"{self._cluster}/{plural}/{namespace}/{name}", kind, f"{what} (uid {uid})")


def _once(sorter: Sorter) -> Iterator[bytes]:
    last = None
    for item in sorter:
        if item != last:
            yield item
        last = item


async def check(snapshot: Snapshot, progress: Progress) -> AsyncGenerator[Finding, None]:
    """Everything that is wrong, of the store itself and of what is in it. Raises StorageError."""
    async for finding in snapshot.findings():
        yield finding
    ids: dict[str, bool] = {}  # Whether the cluster is being deleted.
    async for page in snapshot.by_key(LOGICAL_CLUSTERS):
        for record in page:
            found = _cluster_of(record)
            if found is not None:
                ids[found[0]] = found[1]
    async for finding in _check_fences(snapshot, ids):
        yield finding
    total, done, last = await snapshot.count(), 0, ""
    cluster = ""
    owned = _Owned("")
    orphan = Tally("")
    try:
        async for page in snapshot.by_key():
            for record in page:
                parts = record.key.split("/")
                if parts[0] != cluster:
                    for finding in (*owned.findings(), *_orphaned(orphan)):
                        yield finding
                    owned.close()
                    cluster = parts[0]
                    owned, orphan = _Owned(cluster), Tally(cluster)
                for finding in _check_record(record, parts, snapshot.head, last, owned):
                    yield finding
                last = record.key
                realm = parts[1] if record.key.startswith(TOKENS) and len(parts) > 1 else cluster
                if not realm.startswith("~") and realm != ROOT_ID and realm not in ids:
                    if orphan.name != realm:
                        for finding in _orphaned(orphan):
                            yield finding
                        orphan = Tally(realm)
                    orphan.objects += 1
                    orphan.bytes += len(record.value)
            done += len(page)
            progress(done, total)
        for finding in (*owned.findings(), *_orphaned(orphan)):
            yield finding
    finally:
        owned.close()
    if done != total:
        yield Finding("count", "counters", f"{total} keys are counted, and {done} are there")


def _cluster_of(record: Record) -> tuple[str, bool] | None:
    """The id of a LogicalCluster, and whether it is being deleted. What does not decode is found elsewhere."""
    try:
        obj = orjson.loads(record.value)
        return str(obj["status"]["id"]), "deletionTimestamp" in obj["metadata"]
    except (ValueError, KeyError, TypeError):
        return None


async def _check_fences(snapshot: Snapshot, ids: dict[str, bool]) -> AsyncIterator[Finding]:
    missing = {one for one, deleted in ids.items() if not deleted and one != ROOT_ID}
    async for page in snapshot.by_key(FENCES):
        for record in page:
            fenced = record.key.removeprefix(FENCES)
            missing.discard(fenced)
            if fenced not in ids:
                yield Finding(record.key, "fence-stray", "lets a cluster write that is not there")
            elif ids[fenced]:
                yield Finding(record.key, "fence-stray", "lets a cluster write that is being deleted")
    for one in sorted(missing):
        yield Finding(one, "fence-missing", "this cluster refuses every write: it has no fence")


def _orphaned(orphan: Tally) -> Iterator[Finding]:
    if orphan.objects:
        what = f"{orphan.objects} records of {orphan.bytes} bytes belong to no cluster that is there"
        yield Finding(orphan.name, "orphan", what)


def _check_record(record: Record, parts: list[str], head: int, last: str, owned: _Owned) -> Iterator[Finding]:
    if record.key <= last:
        yield Finding(record.key, "order", "comes after a key that it should come before")
    if not 0 < record.revision <= head:
        yield Finding(
            record.key, "revision", f"has revision {record.revision}, and the store's head is {head}"
        )
    if len(record.value) > VALUE_BYTES_MAX:
        yield Finding(record.key, "size", f"has {len(record.value)} bytes, more than any store takes")
    if len(parts) < 4 or _BAD_KEY.search(record.key):
        yield Finding(record.key, "key", "is no key that a server writes")
        return
    if parts[0] != UNDERLAY_ID and parts[0].startswith("~"):
        return
    if parts[1].startswith("~"):
        if parts[1] + "/" == owners.OWNERS:
            if len(parts) == 5 and record.key.count("|") >= 2:
                owned.note_record("/".join(parts[1:]))
            else:
                yield Finding(record.key, "key", "is no key of the index of dependents")
        return
    if len(parts) != 5:
        yield Finding(record.key, "key", "is no key of an object")
        return
    yield from _check_object(record, parts, owned)


def _check_object(record: Record, parts: list[str], owned: _Owned) -> Iterator[Finding]:
    if record.value == WHITEOUT:
        return
    try:
        obj = orjson.loads(record.value)
        metadata = obj["metadata"]
        place = metadata.get("namespace") or "-", metadata["name"]
        if not (isinstance(obj["kind"], str) and isinstance(obj["apiVersion"], str)):
            raise TypeError("kind and apiVersion are texts")
        owned.note_object(parts, obj)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        yield Finding(record.key, "value", f"is no object ({type(error).__name__}: {error})")
        return
    if place != (parts[3], parts[4]):
        yield Finding(record.key, "value", f"says of itself that it is {place[0]}/{place[1]}")


async def summarize(snapshot: Snapshot, largest: int, progress: Progress) -> Summary:
    """Counts everything; names the `largest` clusters by bytes, and every kind."""
    total, done = await snapshot.count(), 0
    everything = Tally("")
    kinds: dict[str, Tally] = {}
    top: list[tuple[int, str, Tally]] = []
    current = Tally("")
    clusters = 0

    def close() -> None:
        if current.id and not (current.id.startswith("~") and not current.objects):
            heapq.heappush(top, (current.bytes, current.id, current))
            if len(top) > largest:
                heapq.heappop(top)

    async for page in snapshot.by_key():
        for record in page:
            parts = record.key.split("/")
            if parts[0] != current.id:
                close()
                current = Tally("", parts[0])
            clusters += record.key.startswith(LOGICAL_CLUSTERS)
            size = len(record.value)
            own = _is_object(parts)
            kind = (
                f"{parts[1]}/{parts[2]}"
                if own
                else next(one for one in parts if one.startswith("~") or one == parts[-1])
            )
            tally = kinds.setdefault(kind, Tally(kind))
            for one in (everything, current, tally):
                one.objects += own or one is tally
                one.bytes += size
        done += len(page)
        progress(done, total)
    close()
    largest_first = [one for _, _, one in sorted(top, reverse=True)]
    await _name(snapshot, largest_first)
    by_size = sorted(kinds.values(), key=lambda one: (-one.bytes, one.name))
    return Summary(done, everything.objects, everything.bytes, clusters, largest_first, by_size)


def _is_object(parts: list[str]) -> bool:
    return len(parts) == 5 and not parts[1].startswith("~") and not parts[0].startswith("~")


async def _name(snapshot: Snapshot, clusters: list[Tally]) -> None:
    """Gives the clusters the names that people know them by."""
    by_id = {one.id: one for one in clusters}
    if ROOT_ID in by_id:
        by_id[ROOT_ID].name = ROOT
    async for page in snapshot.by_key(LOGICAL_CLUSTERS):
        for record in page:
            found = _cluster_of(record)
            if found is not None and found[0] in by_id:
                by_id[found[0]].name = record.key.removeprefix(LOGICAL_CLUSTERS)
