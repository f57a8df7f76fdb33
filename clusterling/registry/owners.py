"""The index of dependents: who names whom as owner, kept in the store beside the objects themselves.

An object with owner references has one record for each, written and removed in the object's own transaction:
`~owners/<owner uid>/<namespace or "-">/<group>|<resource>|<name>`. So the garbage collector finds the dependents
of a deleted object by one range read, holds no graph in memory, and an idle cluster costs it nothing.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Final

from clusterling.machinery.errors import FieldError, FieldErrorType
from clusterling.machinery.meta import Object
from clusterling.registry.resource import Resource
from clusterling.storage.store import Op

OWNERS: Final = "~owners/"
OWNERS_MAX: Final = 64  # References of one object: each is a record in its transaction.

_UID = re.compile(r"[A-Za-z0-9][-A-Za-z0-9]{0,63}")


@dataclass(frozen=True, slots=True)
class Dependent:
    """An object that names an owner, by where it is."""

    group: str
    plural: str
    namespace: str
    name: str


def prefix(uid: str) -> str:
    """Where the dependents of that uid are listed. A uid is the client's text, so it is never trusted as a key."""
    segment = uid if _UID.fullmatch(uid) else "~" + hashlib.blake2b(uid.encode(), digest_size=16).hexdigest()
    return f"{OWNERS}{segment}/"


def parse(key: str) -> Dependent:
    """The dependent that an index key, relative to its cluster, stands for."""
    _, _, namespace, rest = key.split("/", 3)
    group, plural, name = rest.split("|", 2)
    return Dependent(group, plural, "" if namespace == "-" else namespace, name)


def changes(resource: Resource, new: Object | None, old: Object | None) -> tuple[Op, ...]:
    """What a write does to the index: records of owners gained, removals of owners lost."""
    after, before = _keys(resource, new), _keys(resource, old)
    if after == before:
        return ()
    gained = (Op(key, b"{}") for key in sorted(after - before))
    lost = (Op(key, None) for key in sorted(before - after))
    return (*gained, *lost)


def problems(new: Object) -> list[FieldError]:
    references = new["metadata"].get("ownerReferences") or []
    if len(references) <= OWNERS_MAX:
        return []
    detail = f"must have at most {OWNERS_MAX} items"
    return [FieldError(FieldErrorType.TOO_MANY, "metadata.ownerReferences", len(references), detail)]


def _keys(resource: Resource, obj: Object | None) -> frozenset[str]:
    references = obj["metadata"].get("ownerReferences") if obj is not None else None
    if not references or obj is None:
        return frozenset()
    metadata = obj["metadata"]
    place = f"{metadata.get('namespace') or '-'}/{resource.group}|{resource.names.plural}|{metadata['name']}"
    return frozenset(prefix(reference["uid"]) + place for reference in references)
