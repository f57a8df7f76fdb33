"""The underlay: the objects that every logical cluster has from the start, kept once for all (decision 16).

Packs name them; the server writes them at start under an id of their own; each cluster sees them through its
overlay as if they were its own, with uids and creation times derived from the cluster's.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from typing import Final

import orjson

from clusterling.machinery.codec import encode_stored
from clusterling.machinery.meta import Object
from clusterling.registry.catalog import Catalog
from clusterling.registry.objects import ACTIVE_FENCE, NAMESPACE_FENCE
from clusterling.registry.pack import Pack
from clusterling.storage.overlay import Reads
from clusterling.storage.store import Entry, Op, Page, Store

UNDERLAY_ID: Final = "~base"

_KUBE_SYSTEM: Final = "core/namespaces/-/kube-system"
_OPS_AT_ONCE: Final = 50
_COLLECTION_SLASHES: Final = 2  # `<group>/<resource>/`


def rows(packs: Sequence[Pack]) -> dict[str, bytes]:
    """The underlay's keys and values, as the packs' bootstrap objects make them."""
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
            found[served.resource.collection + place] = encode_stored(obj)
            if served.resource.collection == "core/namespaces/":
                found[NAMESPACE_FENCE + metadata["name"]] = ACTIVE_FENCE
    return found


async def install(store: Store, wanted: dict[str, bytes]) -> None:
    """Makes the underlay what the packs say: writes what is new or different, removes what they no longer name.

    `store` is the underlay's keyspace. Safe to repeat, and by several replicas at once.
    """
    present = {entry.key: entry for entry in (await store.list("")).entries}
    ops: list[Op] = [
        Op(key, value) for key, value in wanted.items() if key not in present or present[key].value != value
    ]
    ops += [Op(key, None, entry.revision) for key, entry in present.items() if key not in wanted]
    for batch in _chunks(ops):
        await store.write(batch)


def _chunks(ops: Sequence[Op]) -> Iterable[Sequence[Op]]:
    return (ops[start : start + _OPS_AT_ONCE] for start in range(0, len(ops), _OPS_AT_ONCE))


class Showing:
    """The underlay as a cluster may see it: only what is of a kind that its packs have."""

    def __init__(self, store: Reads, catalog: Catalog) -> None:
        self._store = store
        self._collections = frozenset(resource.collection for resource in catalog.resources)

    async def get(self, key: str) -> Entry | None:
        return await self._store.get(key) if self._shows(key) else None

    async def list(self, prefix: str, *, after: str = "", limit: int = 0, revision: int = 0) -> Page:
        if prefix.count("/") >= _COLLECTION_SLASHES:
            shows = self._shows(prefix)
            page = await self._store.list(prefix, after=after, limit=limit, revision=revision)
            return page if shows else Page((), page.revision, 0, 0)
        # It spans collections, of which some may be hidden: few hundred entries, and nobody's request.
        page = await self._store.list(prefix, after=after, revision=revision)
        shown = [entry for entry in page.entries if self._shows(entry.key)]
        return Page(shown[:limit] if limit else shown, page.revision, None, page.last_change)

    def _shows(self, key: str) -> bool:
        return key.startswith("~") or "/".join(key.split("/", 2)[:2]) + "/" in self._collections


def derived(key: str, value: bytes, *, uid: str, created_at: str) -> bytes:
    """A row of the underlay as one cluster sees it. kube-system's uid is the cluster's: tools take it for its identity."""
    if key.startswith("~"):
        return value
    obj: Object = orjson.loads(value)
    mine = uid if key == _KUBE_SYSTEM else str(uuid.uuid5(uuid.UUID(uid), key))
    obj["metadata"].update(uid=mine, creationTimestamp=created_at)
    return encode_stored(obj)
