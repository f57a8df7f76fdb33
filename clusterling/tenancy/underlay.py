"""The underlay: the objects that every logical cluster has from the start, kept once for all (decision 16).

Packs name them; a server writes those of the kinds that it serves, under an id of their own, before the first answer of a
cluster that serves them; each cluster sees them through its overlay as if they were its own, with uids and creation times
derived from the cluster's.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Final

import orjson

from clusterling.machinery.codec import encode_stored
from clusterling.machinery.meta import Object
from clusterling.registry.catalog import Catalog
from clusterling.registry.committing import ACTIVE_FENCE, NAMESPACE_FENCE
from clusterling.registry.pack import Pack
from clusterling.registry.ports import ROOT_CA
from clusterling.storage.overlay import Reads
from clusterling.storage.store import ABSENT, Entry, KeyExists, Op, Page, RevisionConflict, Store

UNDERLAY_ID: Final = "~base"

_CONFIGMAPS: Final = "core/configmaps/"
_NAMESPACES: Final = "core/namespaces/"
_KUBE_SYSTEM: Final = f"{_NAMESPACES}-/kube-system"
_APISERVICES: Final = "apiregistration.k8s.io/apiservices/"
_OPS_AT_ONCE: Final = 50
_ATTEMPTS_MAX: Final = 10
_COLLECTION_SLASHES: Final = 2  # `<group>/<resource>/`


def rows(packs: Sequence[Pack], root_ca: str = "") -> dict[str, bytes]:
    """The underlay's keys and values, as the packs' bootstrap objects make them. `root_ca` as `Ports` has it."""
    catalog = Catalog(resource for pack in packs for resource in pack.resources)
    found: dict[str, bytes] = {}
    for pack in packs:
        for obj in pack.bootstrap:
            group, _, version = obj["apiVersion"].rpartition("/")
            served = catalog.by_kind(group, version, obj["kind"])
            assert served is not None, (
                f"pack {pack.name} starts with an object of a kind that it does not have"
            )
            metadata = obj["metadata"]
            place = f"{metadata.get('namespace') or '-'}/{metadata['name']}"
            if served.resource.collection == _CONFIGMAPS and metadata["name"] == ROOT_CA:
                obj = {**obj, "data": {"ca.crt": root_ca}}  # noqa: PLW2901 - a pack cannot know it
            found[served.resource.collection + place] = encode_stored(obj)
            if served.resource.collection == _NAMESPACES:
                found[NAMESPACE_FENCE + metadata["name"]] = ACTIVE_FENCE
    return found


class Underlay:
    """What of the underlay is known to be as this server's packs have it. `store` is the underlay's keyspace."""

    def __init__(self, store: Store, root_ca: str = "") -> None:
        """`root_ca` as `Ports` has it."""
        self.store = store
        self._root_ca = root_ca
        self._installed: set[str] = set()
        self._installing = asyncio.Lock()

    async def install(self, packs: Sequence[Pack]) -> None:
        """Returns when the packs' kinds begin with what the packs say, also for who reads what is remembered of the store.

        Nearly free where that is so already. Of these kinds, what the packs do not name is removed; others are let be: they may
        be of packs that another replica serves, or this one did before it was started again. Raises StorageError.
        """
        if self._missing(packs):
            async with self._installing:
                missing = self._missing(packs)
                if missing:
                    await _install(self.store, rows(packs, self._root_ca), missing)
                    self._installed |= missing

    def _missing(self, packs: Sequence[Pack]) -> set[str]:
        return {kind.collection for pack in packs for kind in pack.kinds} - self._installed


async def _install(store: Store, wanted: Mapping[str, bytes], collections: Set[str]) -> None:
    """Writes what is new or different in these collections, removes what is not wanted.

    Several replicas may be at it: each write stands on what was read, so what one has written is not written again.
    """
    for attempt in range(1, _ATTEMPTS_MAX + 1):
        mine = {
            entry.key: entry for entry in (await store.list("")).entries if _place(entry.key) in collections
        }
        ops = [
            Op(key, value, mine[key].revision if key in mine else ABSENT)
            for key, value in wanted.items()
            if _place(key) in collections and (key not in mine or mine[key].value != value)
        ]
        ops += [Op(key, None, entry.revision) for key, entry in mine.items() if key not in wanted]
        try:
            for batch in _chunks(ops):
                await store.write(batch)
        except (KeyExists, RevisionConflict):
            if attempt == _ATTEMPTS_MAX:
                raise
            continue
        if ops:
            # What was written is seen by whoever is let in from here on.
            await store.fresh()
        return


def _place(key: str) -> str:
    """The collection that a row belongs to. The fences are those of namespaces."""
    return _NAMESPACES if key.startswith(NAMESPACE_FENCE) else key[: key.find("/", key.find("/") + 1) + 1]


def _chunks(ops: Sequence[Op]) -> Iterable[Sequence[Op]]:
    return (ops[start : start + _OPS_AT_ONCE] for start in range(0, len(ops), _OPS_AT_ONCE))


class Showing:
    """The underlay as a cluster may see it: only what is of a kind that its packs have, and tells of groups that they have."""

    def __init__(self, store: Reads, collections: Set[str], groups: Set[str]) -> None:
        self._store = store
        self._collections = collections
        self._groups = groups

    async def get(self, key: str) -> Entry | None:
        return await self._store.get(key) if self._shows(key) else None

    def peek(self, key: str) -> Entry | None:
        return self._store.peek(key) if self._shows(key) else None

    def lacks(self, key: str) -> bool:
        return self._store.lacks(key) or not self._shows(key)

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        if prefix.count("/") >= _COLLECTION_SLASHES and not prefix.startswith(_APISERVICES):
            shows = self._shows(prefix)
            page = await self._store.list(prefix, after=after, limit=limit, revision=revision)
            return page if shows else Page((), page.revision, 0, 0)
        # Some of it may be hidden: few hundred entries where it spans collections, and that is nobody's request.
        page = await self._store.list(prefix, after=after, revision=revision)
        shown = [entry for entry in page.entries if self._shows(entry.key)]
        return Page(shown[:limit] if limit else shown, page.revision, None, page.last_change)

    def _shows(self, key: str) -> bool:
        if key.startswith(_APISERVICES):
            # An APIService is named `<version>.<group>`.
            told = key.rpartition("/")[2].partition(".")[2]
            return _APISERVICES in self._collections and told in self._groups
        return key.startswith("~") or "/".join(key.split("/", 2)[:2]) + "/" in self._collections


def derived(key: str, value: bytes, *, uid: str, created_at: str) -> bytes:
    """A row of the underlay as one cluster sees it, with conditions as old as the cluster. kube-system's uid is the cluster's: tools take it for its identity."""
    if key.startswith("~"):
        return value
    obj: Object = orjson.loads(value)
    mine = uid if key == _KUBE_SYSTEM else str(uuid.uuid5(uuid.UUID(uid), key))
    obj["metadata"].update(uid=mine, creationTimestamp=created_at)
    for condition in (obj.get("status") or {}).get("conditions") or ():
        condition.setdefault("lastTransitionTime", created_at)
    return encode_stored(obj)
