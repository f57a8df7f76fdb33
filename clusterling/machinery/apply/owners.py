"""Owners: who owns which fields of an object, and what an update or an applied configuration makes of that.

    update(live, new, owners, owner, …) → owners
    apply(live, applied, owners, owner, …, force) → the object, or None if nothing changed; owners

Each owner's fields are those of one version of the kind; `Versions` knows the types and converts. What is here knows
nothing of metadata, times or the form in which owners are stored: see `managed`.

Upstream: structured-merge-diff v6, merge (update.go, conflict.go).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple, Protocol

from clusterling.machinery.apply.fieldset import (
    FieldSet,
    Steps,
    covers,
    difference,
    intersection,
    paths,
    union,
)
from clusterling.machinery.apply.types import MapType, TypedError, same
from clusterling.machinery.meta import Object


class Owner(NamedTuple):
    """Who writes: the name of a field manager, how it writes, and what tells its entries apart.

    `api_version` is that of an update; one that applies has one entry, whatever version it applies.
    """

    manager: str
    operation: str
    api_version: str
    subresource: str


class Owned(NamedTuple):
    fields: FieldSet
    api_version: str
    applied: bool


Owners = dict[Owner, Owned]

_COMMON: Final = frozenset({"apiVersion", "kind", "metadata"})


class Versions(Protocol):
    """The versions of one kind."""

    @property
    def settled(self) -> bool:
        """Their schemas are what they were when anything was owned."""

    @property
    def certain(self) -> bool:
        """Every object is of the type of its version: no other version of the kind could let something else in."""

    def type(self, api_version: str) -> MapType | None:
        """None for a version that is not there any more: what was owned in it is forgotten."""

    def convert(self, obj: Object, api_version: str) -> Object:
        """The object in another version that `type` knows; itself if it is in that version."""

    def kept(self, fields: FieldSet, api_version: str) -> FieldSet:
        """Of these fields those that a write of this kind can change: the others it does not come to own."""


class Comparison(NamedTuple):
    added: FieldSet
    modified: FieldSet
    removed: FieldSet


class Conflict(NamedTuple):
    owner: Owner
    path: Steps


class Misfit(TypedError):
    """An object that is none of the type of another version, in which somebody owns fields."""


class Conflicts(Exception):
    """Others own fields that an applied configuration would change."""

    def __init__(self, conflicts: list[Conflict]) -> None:
        super().__init__(f"{len(conflicts)} conflicts")
        self.conflicts = conflicts


def compare(kind: MapType, old: Object, new: Object) -> Comparison:
    added, modified, removed = kind.compare(old, new)
    return Comparison(added or {}, modified or {}, removed or {})


def changes(versions: Versions, old: Object, new: Object, api_version: str) -> Comparison:
    """What a write changed of the fields that it can change.

    Raises TypedError for an object whose fields cannot be told from each other, or that is none of its type.
    """
    kind = _known(versions, api_version)
    if not versions.certain:
        for obj in (new, old):
            _check(kind, own_fields(obj), duplicates=True)
    return _kept(versions, compare(kind, old, new), api_version)


def claimed(versions: Versions, empty: Object, new: Object, api_version: str) -> FieldSet:
    """What a new object has beyond its kind's empty one: what `changes` says was added or modified. Raises TypedError as that does."""
    kind = _known(versions, api_version)
    if not versions.certain:
        for obj in (new, empty):
            _check(kind, own_fields(obj), duplicates=True)
    fields = kind.gained(empty, new)
    return fields and versions.kept(fields, api_version)


def own_fields(obj: Object) -> Object:
    """What of a stored object may not be of its type: what all objects have has been read by Go's types."""
    return {name: value for name, value in obj.items() if name not in _COMMON}


def update(
    versions: Versions,
    live: Object,
    new: Object,
    api_version: str,
    owners: Owners,
    owner: Owner,
    changed: Comparison | None = None,
) -> Owners:
    """What `owner` changed from `live` to `new` is its own from now on, and what went is nobody's.

    `changed` is what `changes` says of the two, where it has been asked. Raises TypedError as that does.
    """
    if changed is None:
        changed = changes(versions, live, new, api_version)
    owners = _reconciled(versions, owners)
    owners = _taken(versions, live, new, changed, api_version, owners, owner, force=True)
    before = owners[owner].fields if owner in owners else {}
    fields = union(union(difference(before, changed.removed), changed.modified), changed.added)
    fields = versions.kept(fields, api_version)
    owners.pop(owner, None)
    if fields:
        owners[owner] = Owned(fields, api_version, applied=False)
    return owners


def apply(
    versions: Versions,
    live: Object,
    applied: Object,
    api_version: str,
    owners: Owners,
    owner: Owner,
    *,
    force: bool,
) -> tuple[Object | None, Owners]:
    """Lays `applied` over `live`; takes away what `owner` applied before, applies no more, and nobody else owns.

    Raises Conflicts, unless `force`; TypedError.
    """
    kind = _known(versions, api_version)
    owners = _reconciled(versions, owners)
    merged = kind.merge(live, applied)
    assert isinstance(merged, dict), "an object merges to an object"
    last = owners.get(owner)
    fields = versions.kept(kind.field_set(applied) or {}, api_version)
    owners[owner] = Owned(fields, api_version, applied=True)
    merged = _pruned(versions, merged, owners, owner, last)
    changed = _kept(versions, compare(kind, live, merged), api_version)
    owners = _taken(versions, live, merged, changed, api_version, owners, owner, force=force)
    return (None if merged == live and same(merged, live) else merged), owners


def _check(kind: MapType, obj: Object, *, duplicates: bool) -> Object:
    for text in kind.validate(obj, "", duplicates=duplicates):
        raise Misfit(text)
    return obj


def _known(versions: Versions, api_version: str) -> MapType:
    kind = versions.type(api_version)
    assert kind is not None, "what is written is of a version that is served"
    return kind


def _kept(versions: Versions, found: Comparison, api_version: str) -> Comparison:
    added, modified, removed = found
    return Comparison(
        added and versions.kept(added, api_version),
        modified and versions.kept(modified, api_version),
        removed and versions.kept(removed, api_version),
    )


def _reconciled(versions: Versions, owners: Owners) -> Owners:
    """The owners of versions that there still are, where a schema has become atomic owning the whole."""
    made: Owners = {}
    for owner, owned in owners.items():
        kind = versions.type(owned.api_version)
        if kind is None:
            continue
        if versions.settled:
            made[owner] = owned
        else:
            fields = kind.reconciled(owned.fields)
            made[owner] = owned if fields is owned.fields else owned._replace(fields=fields)
    return made


def _taken(
    versions: Versions,
    old: Object,
    new: Object,
    changed: Comparison,
    api_version: str,
    owners: Owners,
    owner: Owner,
    *,
    force: bool,
) -> Owners:
    """Takes what changed from all others. Raises Conflicts if others own something of it and `force` is not set."""
    # With what was touched at all, as each owner is asked.
    by_version = {api_version: (changed, union(changed.modified, changed.added))}
    conflicts: list[Conflict] = []
    left: Owners = {}
    for other, owned in owners.items():
        if other == owner:
            left[other] = owned
            continue
        found = by_version.get(owned.api_version)
        if found is None:
            kind = versions.type(owned.api_version)
            if kind is None:
                continue
            # Upstream reads what it converted anew, and as strictly as what is applied.
            one, two = (
                _check(kind, versions.convert(obj, owned.api_version), duplicates=False) for obj in (old, new)
            )
            change = _kept(versions, compare(kind, one, two), owned.api_version)
            found = by_version[owned.api_version] = change, union(change.modified, change.added)
        change, touched = found
        clash = intersection(owned.fields, touched)
        if clash and not force:
            conflicts += [Conflict(other, path) for path in paths(clash)]
        fields = difference(difference(owned.fields, clash), change.removed)
        if fields:
            left[other] = owned if fields is owned.fields else owned._replace(fields=fields)
    if conflicts:
        raise Conflicts(conflicts)
    if owner in left and not left[owner].fields:
        del left[owner]
    return left


def _pruned(versions: Versions, merged: Object, owners: Owners, owner: Owner, last: Owned | None) -> Object:
    """The merged object less what the owner had applied, has not now, and nobody else owns."""
    if last is None or not last.fields:
        return merged
    now = owners[owner]
    if last.api_version == now.api_version and covers(now.fields, last.fields):
        return merged  # All that it had applied it applies again, which is most of what is ever applied.
    kind = versions.type(last.api_version)
    if kind is None:
        return merged
    whole = versions.convert(merged, last.api_version)
    was = kind.named(last.fields)
    pruned = _without(kind, whole, was)
    pruned = _with_owned(versions, whole, pruned, last.api_version, owners)
    # What is not owned by anybody and was not applied by this owner stays, too.
    in_last = versions.convert(pruned, last.api_version)
    gone = difference(kind.named(kind.field_set(whole) or {}), kind.named(kind.field_set(in_last) or {}))
    pruned = _without(kind, whole, intersection(gone, was))
    return versions.convert(pruned, owners[owner].api_version)


def _with_owned(
    versions: Versions, merged: Object, pruned: Object, first: str, owners: Mapping[Owner, Owned]
) -> Object:
    """What was pruned and has an owner, in whatever version, comes back: first in the version it was pruned in."""
    managed: dict[str, FieldSet] = {first: {}}
    for owned in owners.values():
        managed[owned.api_version] = union(managed.get(owned.api_version, {}), owned.fields)
    for version, fields in managed.items():
        kind = versions.type(version)
        if kind is None:
            continue
        merged, pruned = versions.convert(merged, version), versions.convert(pruned, version)
        there = kind.named(kind.field_set(merged) or {})
        kept = union(kind.named(kind.field_set(pruned) or {}), kind.named(fields))
        pruned = _without(kind, merged, difference(there, kept))
    return pruned


def _without(kind: MapType, obj: Object, fields: FieldSet) -> Object:
    left = kind.remove(obj, fields)
    return left if isinstance(left, dict) else {}
