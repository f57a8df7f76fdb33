"""The garbage collector: objects whose owners are gone go too; owners wait for, or let go of, their dependents.

Three things bring an object here: it was deleted (its dependents are looked at), it is being deleted with `orphan` or
`foregroundDeletion` among its finalizers, or it was written with owner references (its owners are looked for).
Dependents are found by the index in the store (registry/owners.py), so there is no graph to build or to hold.

Rules of this file
- An owner with many dependents is worked through in slices, so that other clusters' deletions get their turns between,
  and in each slice several at once, which then share the store's commits.
- An owner that waits is looked at again when something that blocked it changes, and no more often than looking costs.
- What is not decided today, for an owner's kind is not served, is decided when a kind of that name is.

Upstream: pkg/controller/garbagecollector/{garbagecollector,graph_builder}.go.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import orjson
from typing_extensions import override

from clusterling.controllers import misplaced
from clusterling.controllers.reach import (
    Clusters,
    Place,
    context,
    ended,
    key_of,
    look_again_s,
    of_other_packs,
    place,
    stored,
)
from clusterling.controllers.runtime import Controller
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object
from clusterling.registry import owners
from clusterling.registry.cluster import CRDS, Cluster
from clusterling.registry.crd import decoded
from clusterling.registry.deleting import FOREGROUND, ORPHAN
from clusterling.registry.options import DeleteOptions, Propagation
from clusterling.registry.owners import Dependent
from clusterling.registry.ownership import (
    UNDECIDED,
    Fate,
    Identity,
    blocks,
    fate,
    is_ignored,
    references,
    waits,
)
from clusterling.registry.resource import Served
from clusterling.storage.store import Event, StorageError

logger = logging.getLogger(__name__)

SLICE: Final = 500  # Dependents that are worked through before others get their turn.
TOGETHER: Final = 32  # Dependents that are written at once.
LOOK_AGAIN_S: Final = 30.0  # What was missed, for the process was started anew, is found by then.
REST_S_A_DEPENDENT: Final = 100e-6  # Between two looks at an owner that waits: five times what a look costs.


@dataclass(frozen=True, slots=True)
class Gone:
    """An object was removed: whoever named it as owner is to be looked at."""

    cluster: str
    identity: Identity


@dataclass(frozen=True, slots=True)
class Present:
    """An object is there and may have owners to check, or dependents to let go of before it goes."""

    cluster: str
    object: Dependent


@dataclass(frozen=True, slots=True)
class Learned:
    """The cluster serves a kind that it did not: who names an owner of it can be judged. "" for any kind."""

    cluster: str
    kind: str


Key = Gone | Present | Learned


@dataclass(slots=True)
class _Pass:
    """How far the dependents of one key have been worked through. `of`: what for, and of which owner."""

    of: tuple[str, str]
    after: str = ""
    at_end: bool = False
    failed: dict[Dependent, None] = field(default_factory=dict)
    seen: int = 0
    blocking: int = 0


@dataclass(slots=True)
class _Wait:
    """An owner that waits for its dependents, and the time (monotonic) before which it is not worth another look.

    `begins`: they have not all been told yet. `touched`: one of them changed since the look began.
    """

    owner: Dependent
    not_before: float = 0.0
    begins: bool = True
    touched: bool = False


# What is done with one dependent.
_Act = Callable[[Dependent], Awaitable[None]]


class GarbageCollector(Controller[Key]):
    name = "garbage"
    workers = 4

    def __init__(self, clusters: Clusters) -> None:
        self._clusters = clusters
        # Most clusters never see an owner reference: there a deletion concerns nobody, and costs one look at a set.
        # A cluster is in `_owning` from its first index record on, whatever was found before.
        self._owning: set[str] = set()
        self._ownerless: set[str] = set()
        # Cluster → uid → the owner that waits. Lost in a restart; then it is looked at when its time comes.
        self._waiting: dict[str, dict[str, _Wait]] = {}
        self._passes: dict[Key, _Pass] = {}

    # ------------------------------------------------------------------ what a change concerns

    @override
    def keys(self, event: Event) -> Iterable[Key]:
        if event.entry is not None and not self._waiting and "~" not in event.key:
            # Nearly all changes there are, told from the others in passing.
            told = _concerns(event.entry.value) or CRDS in event.key
            if not told and of_other_packs(event) is None:
                return ()
        where = place(event.key)
        if where is None or event.dropped:
            self._note(event)
            return ()
        waiting = self._waiting.get(where.cluster)
        ownerless = where.cluster in self._ownerless and where.cluster not in self._owning
        if event.entry is None:
            return () if ownerless else self._removed(where.cluster, event, waiting)
        found: list[Key] = []
        value = event.entry.value
        if _concerns(value):
            dependent = Dependent(where.group, where.plural, where.namespace, where.name)
            if not is_ignored(dependent):
                found.append(Present(where.cluster, dependent))
        if waiting:
            found += _unblocked(where.cluster, event, waiting)
        if CRDS in event.key:
            if not ownerless and b'"deletionTimestamp"' not in value:
                found.append(Learned(where.cluster, decoded(value)["spec"]["names"]["kind"]))
        elif (changed := of_other_packs(event)) is not None:
            found.append(Learned(changed, ""))
        return found

    def _removed(self, cluster: str, event: Event, waiting: dict[str, _Wait] | None) -> list[Key]:
        previous = event.previous()
        if previous is None:
            return []
        obj = orjson.loads(previous.value)
        metadata = obj["metadata"]
        uid = metadata.get("uid")
        if not uid:
            return []
        identity = Identity(
            uid,
            obj["apiVersion"].rpartition("/")[0],
            obj["kind"],
            metadata.get("namespace", ""),
            metadata["name"],
        )
        found: list[Key] = [Gone(cluster, identity)]
        if waiting:
            waiting.pop(uid, None)
            found += _owners_of(cluster, {one["uid"] for one in references(obj)}, waiting)
        return found

    def _note(self, event: Event) -> None:
        gone = ended(event)
        if gone is not None:
            self._forget(gone)
            return
        cluster, _, rest = event.key.partition("/")
        if event.entry is not None and rest.startswith(owners.OWNERS):
            self._owning.add(cluster)

    def _forget(self, cluster: str) -> None:
        self._owning.discard(cluster)
        self._ownerless.discard(cluster)
        self._waiting.pop(cluster, None)

    @override
    async def walk(self, cluster: str = "") -> AsyncIterator[Key]:
        async for cluster_id in self._clusters.ids("", of=cluster):
            async for entry in self._clusters.rows(cluster_id):
                where = place(f"{cluster_id}/{entry.key}")
                if where is None or not _concerns(entry.value):
                    continue
                dependent = Dependent(where.group, where.plural, where.namespace, where.name)
                if not is_ignored(dependent):
                    yield Present(cluster_id, dependent)

    @override
    def entry_of(self, key: Key) -> str:
        if not isinstance(key, Present):
            return ""  # What is gone, or was learned, no object tells of.
        where = key.object
        return key_of(Place(key.cluster, where.group, where.plural, where.namespace, where.name))

    # ------------------------------------------------------------------ one key

    @override
    async def reconcile(self, key: Key) -> float | None:
        cluster = await self._clusters.by_id(key.cluster)
        if cluster is None:
            self._passes.pop(key, None)
            self._forget(key.cluster)
            return None
        if isinstance(key, Present):
            return await self._look_at(cluster, key)
        if key.cluster not in self._owning and not await cluster.objects.has_dependents():
            self._ownerless.add(key.cluster)
            return None
        if isinstance(key, Learned):
            kind = key.kind
            return await self._through(key, cluster, "learn", "", lambda one: _learn(cluster, one, kind))
        gone = key.identity
        return await self._through(key, cluster, "gone", gone.uid, lambda one: _bereave(cluster, one, gone))

    def _pass(self, key: Key, what: str, uid: str) -> _Pass:
        """The pass that is under way for this, or a new one."""
        progress = self._passes.get(key)
        if progress is None or progress.of != (what, uid):
            progress = self._passes[key] = _Pass((what, uid))
        return progress

    async def _through(self, key: Key, cluster: Cluster, what: str, uid: str, act: _Act) -> float | None:
        """Does so with each dependent of the uid, or of any owner: a slice, and the rest in further calls for the same key."""
        if await _slice(cluster, uid, self._pass(key, what, uid), act):
            return 0.0
        del self._passes[key]
        return None

    async def _look_at(self, cluster: Cluster, key: Present) -> float | None:
        """Brings one object into order; seconds until it should be looked at again, or None."""
        read = await _read(cluster, key.object)
        if read is not None:
            served, obj = read
            finalizers = obj["metadata"].get("finalizers") or ()
            if "deletionTimestamp" not in obj["metadata"]:
                await _check_owners(cluster, served, obj, prompted=False)
            elif ORPHAN in finalizers:
                return await self._orphan(cluster, served, obj, key)
            elif FOREGROUND in finalizers:
                return await self._foreground(cluster, served, obj, key)
        self._passes.pop(key, None)
        return None

    async def _orphan(self, cluster: Cluster, served: Served, owner: Object, key: Present) -> float | None:
        """Takes the owner out of its dependents' references, then lets it go."""
        uid = owner["metadata"]["uid"]
        again = await self._through(key, cluster, ORPHAN, uid, lambda one: _let_go(cluster, one, {uid}))
        if again is None:
            await _without(cluster, served, owner, ORPHAN)
        return again

    async def _foreground(
        self, cluster: Cluster, served: Served, owner: Object, key: Present
    ) -> float | None:
        """Deletes the dependents; lets the owner go when none is left that blocks it."""
        uid = owner["metadata"]["uid"]
        clock = cluster.ports.clock
        waiting = self._waiting.setdefault(cluster.id, {})
        wait = waiting.setdefault(uid, _Wait(key.object))
        if key not in self._passes:
            rest_s = wait.not_before - clock.monotonic()
            if rest_s > 0:
                return rest_s
            wait.touched = False
        progress = self._pass(key, FOREGROUND, uid)

        async def act(where: Dependent) -> None:
            read = await _read(cluster, where)
            if read is None:
                return
            blocking = blocks(references(read[1]), uid)
            progress.blocking += blocking
            # At first all are told; from then on those that came later only once they are in the way.
            if (wait.begins or blocking) and "deletionTimestamp" not in read[1]["metadata"]:
                await _check_owners(cluster, *read, prompted=True)

        if await _slice(cluster, uid, progress, act):
            return 0.0
        del self._passes[key]
        wait.begins = False
        if progress.blocking:
            rest_s = progress.seen * REST_S_A_DEPENDENT
            wait.not_before = clock.monotonic() + rest_s
            return rest_s if wait.touched else max(look_again_s(progress.seen), LOOK_AGAIN_S)
        waiting.pop(uid, None)
        await _without(cluster, served, owner, FOREGROUND)
        return None


def _concerns(value: bytes) -> bool:
    return b'"ownerReferences"' in value or (
        b'"deletionTimestamp"' in value and (b'"orphan"' in value or b'"foregroundDeletion"' in value)
    )


def _unblocked(cluster: str, event: Event, waiting: dict[str, _Wait]) -> list[Key]:
    """The owners that wait, and that this write does not keep from going any more."""
    previous = event.previous()
    if previous is None or b'"blockOwnerDeletion":true' not in previous.value:
        return []
    assert event.entry is not None, "a removal is looked at elsewhere"
    now, before = orjson.loads(event.entry.value), orjson.loads(previous.value)
    return _owners_of(cluster, _blocked(before) - _blocked(now), waiting)


def _blocked(obj: Object) -> set[str]:
    return {one["uid"] for one in references(obj) if one.get("blockOwnerDeletion")}


def _owners_of(cluster: str, uids: Iterable[str], waiting: dict[str, _Wait]) -> list[Key]:
    found: list[Key] = []
    for uid in uids:
        wait = waiting.get(uid)
        if wait is not None:
            wait.touched = True
            found.append(Present(cluster, wait.owner))
    return found


# ---------------------------------------------------------------------- many dependents


async def _slice(cluster: Cluster, uid: str, progress: _Pass, act: _Act) -> bool:
    """Does so with some dependents; True while there are more. Raises where some failed, once all others are done."""
    if progress.at_end:
        batch = list(progress.failed)[:SLICE]
    else:
        batch, progress.after = await cluster.objects.some_dependents(uid, progress.after, SLICE)
        progress.at_end = not progress.after
        progress.seen += len(batch)
    left = iter([one for one in batch if not is_ignored(one)])
    errors: list[ApiError | StorageError] = []

    async def worker() -> None:
        for one in left:
            try:
                await act(one)
            except (ApiError, StorageError) as error:
                progress.failed[one] = None
                errors.append(error)
            else:
                progress.failed.pop(one, None)
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group:
        for _ in range(min(TOGETHER, len(batch))):
            group.create_task(worker())
    if not progress.at_end:
        return True
    if errors:
        raise errors[0]
    return bool(progress.failed)


async def _read(cluster: Cluster, where: Dependent) -> tuple[Served, Object] | None:
    served = stored(cluster, where.group, where.plural)
    obj = await cluster.objects.outline(served, where.namespace, where.name) if served else None
    return None if served is None or obj is None else (served, obj)


async def _bereave(cluster: Cluster, where: Dependent, gone: Identity) -> None:
    """Looks at an object whose owner is known to be gone."""
    read = await _read(cluster, where)
    if read is not None and "deletionTimestamp" not in read[1]["metadata"]:
        await _check_owners(cluster, *read, prompted=True, gone=gone)


async def _learn(cluster: Cluster, where: Dependent, kind: str) -> None:
    """Looks at an object that may name an owner of a kind which is served now."""
    read = await _read(cluster, where)
    if read is None or "deletionTimestamp" in read[1]["metadata"]:
        return
    if not kind or any(one["kind"] == kind for one in references(read[1])):
        await _check_owners(cluster, *read, prompted=False)


async def _let_go(cluster: Cluster, where: Dependent, uids: set[str]) -> None:
    """Takes owners out of the references of a dependent, whatever else the references to them say."""
    read = await _read(cluster, where)
    if read is not None:
        await _drop(cluster, *read, uids)


async def _drop(cluster: Cluster, served: Served, obj: Object, uids: set[str]) -> None:
    kept = [one for one in references(obj) if one["uid"] not in uids]
    if kept:
        obj["metadata"]["ownerReferences"] = kept
    else:
        obj["metadata"].pop("ownerReferences", None)
    await _edited(cluster, served, obj)


# ---------------------------------------------------------------------- one dependent


async def _check_owners(
    cluster: Cluster, served: Served, obj: Object, *, prompted: bool, gone: Identity | None = None
) -> None:
    """Deletes an object whose owners are all gone; drops dangling references where one is left.

    `prompted`: an owner is gone or waits. Else the object was written, and only an owner that is not there is a reason to act.
    """
    found = references(obj)
    if not found:
        return
    namespace = obj["metadata"].get("namespace", "")
    fates = [(one, await fate(cluster, one, namespace, gone)) for one in found]
    if not prompted:
        lost = [reference for reference, one in fates if one in (Fate.ABSENT, Fate.OUT_OF_REACH)]
        await misplaced.tell(cluster, obj, lost)
    judged = {one for _, one in fates}
    if judged & UNDECIDED or (not prompted and Fate.ABSENT not in judged):
        return
    if Fate.SOLID in judged:
        uids = {reference["uid"] for reference, one in fates if one is not Fate.SOLID}
        if uids:
            await _drop(cluster, served, obj, uids)
        return
    if Fate.WAITING not in judged or not await _has_dependents(cluster, obj):
        await _deleted(cluster, served, obj, _propagation(obj))
    elif blocks(found) and await _has_waiting_dependents(cluster, obj):
        # It may be in a circle of owners, each waiting for the next: this one blocks nobody any more, and then it goes.
        obj["metadata"]["ownerReferences"] = [_unblocking(one, served) for one in found]
        await _edited(cluster, served, obj)
        read = await _read(
            cluster, Dependent(served.group, served.plural, namespace, obj["metadata"]["name"])
        )
        if read is not None and read[1]["metadata"]["uid"] == obj["metadata"]["uid"]:
            await _deleted(cluster, *read, "Foreground")
    else:
        await _deleted(cluster, served, obj, "Foreground")


def _unblocking(reference: Object, served: Served) -> Object:
    """Of custom resources upstream writes what blocks nothing, too."""
    if served.resource.builtin and not reference.get("blockOwnerDeletion"):
        return reference
    return {**reference, "blockOwnerDeletion": False}


def _propagation(obj: Object) -> Propagation:
    """What the object's finalizers ask for, or background: the default of a kind is for its users."""
    finalizers = obj["metadata"].get("finalizers") or ()
    if ORPHAN in finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in finalizers else "Background"


async def _has_dependents(cluster: Cluster, obj: Object) -> bool:
    async for where in cluster.objects.dependents(obj["metadata"]["uid"]):
        if not is_ignored(where):
            return True
    return False


async def _has_waiting_dependents(cluster: Cluster, obj: Object) -> bool:
    """A dependent of the object is itself waiting for its dependents to go."""
    async for where in cluster.objects.dependents(obj["metadata"]["uid"]):
        read = await _read(cluster, where)
        if read is not None and waits(read[1]):
            return True
    return False


async def _without(cluster: Cluster, served: Served, owner: Object, finalizer: str) -> None:
    owner["metadata"]["finalizers"].remove(finalizer)
    await _edited(cluster, served, owner)


async def _edited(cluster: Cluster, served: Served, obj: Object) -> None:
    try:
        await cluster.objects.amend(context(cluster), served, obj["metadata"].get("namespace", ""), obj)
    except ApiError as error:
        if error.reason != "NotFound":
            raise


async def _deleted(cluster: Cluster, served: Served, obj: Object, propagation: Propagation) -> None:
    """Deletes exactly the object that was judged: this uid, with these owners."""
    metadata = obj["metadata"]
    namespace, name, uid = metadata.get("namespace", ""), metadata["name"], metadata["uid"]
    seen = metadata["resourceVersion"]
    while True:
        options = DeleteOptions(uid=uid, resource_version=seen, propagation=propagation)
        try:
            await cluster.objects.delete(context(cluster), served, namespace, name, options)
        except ApiError as error:
            if error.reason == "NotFound":
                return
            if error.reason != "Conflict" or not seen:
                raise
            now = await cluster.objects.outline(served, namespace, name)
            if now is None or now["metadata"]["uid"] != uid:
                return
            if references(now) != references(obj):
                raise
            # Whatever else changes it, and however often, is no reason to keep it.
            seen = ""
        else:
            return
