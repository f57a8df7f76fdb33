"""Quotas of logical clusters: what `spec.quota` says, and the store through which a cluster cannot keep more.

What is counted goes with each write as limits (`storage.store.Limit`), which the store holds in the write's own transaction; so
there is never one object too many, whatever else is written and by whichever replica. A write that adds nothing carries
none: deletes, and updates that make something smaller, always pass.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import orjson
from typing_extensions import override

from clusterling.machinery.errors import FieldError, invalid_value
from clusterling.machinery.meta import Object
from clusterling.machinery.quantity import Quantity
from clusterling.storage.guarded import Guarding
from clusterling.storage.store import Guard, Limit, LimitReached, Measure, Op, Store
from clusterling.storage.usage import collection_of, counted
from clusterling.tenancy.names import ROOT_ID

OBJECTS: Final = "objects"
BYTES: Final = "bytes"
OBJECT_BYTES: Final = "objectBytes"
WATCHES: Final = "watches"
REQUESTS: Final = "requestsPerSecond"
WRITES: Final = "writesPerSecond"
COUNT: Final = "count/"  # As in upstream's ResourceQuota: count/deployments.apps.

# Other names for the number of objects of a kind.
_SHORT: Final = {
    "namespaces": "core/namespaces/",
    "customresourcedefinitions": "apiextensions.k8s.io/customresourcedefinitions/",
}
_NAMES: Final = (OBJECTS, BYTES, OBJECT_BYTES, WATCHES, REQUESTS, WRITES, *_SHORT)
_ONLY_HARD: Final = (OBJECT_BYTES, WATCHES, REQUESTS, WRITES)
_QUOTAS_MAX: Final = 1024
DELETION_BYTES_MAX: Final = 2048  # What one step of a deletion may add where there is no room.
TERMINATING_BYTES_MAX: Final = 16_384

QUANTITIES: Final[Object] = {
    "type": "object",
    "maxProperties": 64,
    "additionalProperties": {"x-kubernetes-int-or-string": True},
}
SCHEMA: Final[Object] = {
    "type": "object",
    "description": "The most the cluster may hold and do, where not what the server sets for all. Names: objects, bytes, "
    "namespaces, customresourcedefinitions, count/<resource>.<group>, objectBytes, watches, requestsPerSecond, "
    "writesPerSecond.",
    "properties": {
        "hard": {**QUANTITIES, "description": "What is over one of these is refused."},
        "soft": {**QUANTITIES, "description": "What is over one of these is done, with a warning."},
    },
}


@dataclass(frozen=True, slots=True)
class Quota:
    """The limits of a cluster, by name. Clusters that say the same share one."""

    hard: Mapping[str, int]
    soft: Mapping[str, int]

    def over(self, default: Quota) -> Quota:
        """With the default's for what this one does not name."""
        return Quota({**default.hard, **self.hard}, {**default.soft, **self.soft})


NO_QUOTA: Final = Quota({}, {})


def quota_of(spec: Object) -> Quota | None:
    """What the spec of a LogicalCluster says; None where it says nothing. What is wrong with it counts for nothing."""
    given = spec.get("quota")
    return _parsed(orjson.dumps(given, option=orjson.OPT_SORT_KEYS)) if given else None


@lru_cache(_QUOTAS_MAX)
def _parsed(given: bytes) -> Quota:
    fields = orjson.loads(given)
    return Quota(_figures(fields.get("hard")), _figures(fields.get("soft")))


def _figures(given: Mapping[str, str | int] | None) -> dict[str, int]:
    found = {}
    for name, value in (given or {}).items():
        try:
            found[name] = Quantity.parse(value).rounded_up()
        except ValueError:
            continue
    return found


def parse_quota(text: str) -> Quota:
    """A quota from `objects=1000,bytes=1Gi,soft.objects=800`. Raises ValueError with what is wrong."""
    parts: dict[str, dict[str, str]] = {"hard": {}, "soft": {}}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"{item!r} is not NAME=QUANTITY")
        kind = "soft" if name.startswith("soft.") else "hard"
        parts[kind][name.removeprefix("soft.")] = value
    wrong = quota_problems({"quota": parts})
    if wrong:
        raise ValueError(str(wrong[0]))
    return Quota(_figures(parts["hard"]), _figures(parts["soft"]))


def quota_problems(spec: Object) -> list[FieldError]:
    """What is wrong with `spec.quota`."""
    wrong = []
    for kind, given in (spec.get("quota") or {}).items():
        for name, value in (given or {}).items():
            path = f"spec.quota.{kind}[{name}]"
            if name not in _NAMES and not _kind_of(name):
                known = ", ".join((*_NAMES, f"{COUNT}<resource>.<group>"))
                wrong.append(invalid_value(f"spec.quota.{kind}", name, f"is none of {known}"))
                continue
            if kind == "soft" and name in _ONLY_HARD:
                wrong.append(invalid_value(f"spec.quota.{kind}", name, "can only be a hard limit"))
                continue
            try:
                figure = Quantity.parse(value)
            except ValueError as error:
                wrong.append(invalid_value(path, value, str(error)))
                continue
            if figure < Quantity(0) or figure.rounded_up() >= 1 << 62:
                wrong.append(invalid_value(path, value, "must be greater than or equal to 0"))
    return wrong


def is_kept(name: str) -> bool:
    """Whether the limit of that name is on what is kept, and not on what is done."""
    return name in (OBJECTS, BYTES) or bool(_kind_of(name))


def _kind_of(name: str) -> str:
    """The collection within a cluster that the limit is on; "" for none."""
    if name in _SHORT:
        return _SHORT[name]
    resource, _, group = name.removeprefix(COUNT).partition(".")
    if not name.startswith(COUNT) or not resource or "/" in resource or "/" in group:
        return ""
    return f"{group or 'core'}/{resource}/"


def count_name(collection: str) -> str:
    """What the number of objects in a collection of a cluster is called: `apps/deployments/` is count/deployments.apps."""
    for name, known in _SHORT.items():
        if known == collection:
            return name
    group, _, resource = collection.rstrip("/").partition("/")
    return f"{COUNT}{resource}" if group == "core" else f"{COUNT}{resource}.{group}"


def _is_terminating(value: bytes) -> bool:
    if b'"deletionTimestamp"' not in value:
        return False
    found = orjson.loads(value).get("metadata") or {}
    return bool(found.get("deletionTimestamp"))


def limits_of(figures: Mapping[str, int], cluster_id: str) -> list[tuple[str, Limit]]:
    """The limits that the store holds, each with its name, for the cluster's keys."""
    found = []
    for name, most in figures.items():
        if name in (OBJECTS, BYTES):
            found.append((name, Limit(f"{cluster_id}/", Measure(name), most)))
        elif collection := _kind_of(name):
            found.append((name, Limit(f"{cluster_id}/{collection}", Measure.OBJECTS, most)))
    return found


class Quotas:
    """Which quota a cluster has now."""

    def __init__(self, named: Callable[[str], Quota | None], default: Quota = NO_QUOTA) -> None:
        """`named`: what the cluster of that id says itself. `default`: for what it does not say."""
        self._named = named
        self._default = default
        self._merged: dict[int, tuple[Quota, Quota]] = {}

    def of(self, cluster_id: str) -> Quota:
        """`root` has none: it is the platform's own."""
        if cluster_id == ROOT_ID:
            return NO_QUOTA
        own = self._named(cluster_id)
        if own is None or own is self._default:
            return self._default
        known = self._merged.get(id(own))
        if known is None or known[0] is not own:
            if len(self._merged) >= _QUOTAS_MAX:
                self._merged.clear()
            known = self._merged[id(own)] = own, own.over(self._default)
        return known[1]


class Limited(Guarding):
    """A store that a cluster cannot overfill. It sees the whole server's keys; those written are the cluster's own."""

    def __init__(self, store: Store, name: str, cluster_id: str, quotas: Quotas) -> None:
        super().__init__(store)
        self._name = name
        self._id = cluster_id
        self._quotas = quotas
        self._quota = NO_QUOTA
        self._limits: list[tuple[str, Limit]] = []

    @override
    async def added(self) -> Sequence[Guard]:
        return ()

    @override
    def write(
        self, ops: Sequence[Op], guards: Sequence[Guard] = (), limits: Sequence[Limit] = ()
    ) -> Coroutine[Any, Any, Sequence[int]]:
        quota = self._quotas.of(self._id)
        if not quota.hard or all(counted(op.value) is None for op in ops):
            return self._store.write(ops, guards, limits)
        return self._write_within(quota, ops, guards, limits)

    async def _write_within(
        self, quota: Quota, ops: Sequence[Op], guards: Sequence[Guard], limits: Sequence[Limit]
    ) -> Sequence[int]:
        if quota is not self._quota:
            self._quota, self._limits = quota, limits_of(quota.hard, self._id)
        most = quota.hard.get(OBJECT_BYTES)
        if most is not None:
            await self._check_sizes(ops, most)
        own = self._concerned(ops)
        try:
            return await self._store.write(ops, guards, (*limits, *(limit for _, limit in own)))
        except LimitReached as error:
            if await self._is_deletion(ops, error.args[2]):
                return await self._store.write(ops, guards, limits)
            raise self._explained(error, own) from error

    async def _is_deletion(self, ops: Sequence[Op], wanted: int) -> bool:
        """Whether the write is a step of deleting its object, which notes the time of it, and what it waits for.

        Only the server sets `deletionTimestamp`. An object under deletion may grow by little, and no further than to be small.
        """
        op = ops[0]
        if op.value is None or wanted > DELETION_BYTES_MAX or not _is_terminating(op.value):
            return False
        if len(op.value) <= TERMINATING_BYTES_MAX:
            return True
        before = await self._store.get(op.key)
        return before is not None and not _is_terminating(before.value)

    def _concerned(self, ops: Sequence[Op]) -> list[tuple[str, Limit]]:
        collections = {collection_of(op.key) for op in ops}
        return [
            (name, limit)
            for name, limit in self._limits
            if any(one.startswith(limit.prefix) for one in collections)
        ]

    async def _check_sizes(self, ops: Sequence[Op], most: int) -> None:
        """What was too large already may be written again no larger."""
        for op in ops:
            size = len(op.value or b"")
            if size <= most:
                continue
            before = await self._store.get(op.key)
            if before is None or len(before.value) < size:
                limit = Limit(f"{self._id}/", Measure.BYTES, most)
                why = self._why(OBJECT_BYTES, size, None, most)
                raise LimitReached(limit, 0, size, why)

    def _explained(self, error: LimitReached, own: Sequence[tuple[str, Limit]]) -> LimitReached:
        limit, used, wanted = error.args[:3]
        for name, mine in own:
            if mine == limit:
                return LimitReached(limit, used, wanted, self._why(name, wanted, used, limit.most))
        return error

    def _why(self, name: str, wanted: int, used: int | None, most: int) -> str:
        """In the words of upstream's quota (apiserver/pkg/admission/plugin/resourcequota/controller.go), and who can help."""
        figures = [f"requested: {name}={wanted}"]
        if used is not None:
            figures.append(f"used: {name}={used}")
        figures.append(f"limited: {name}={most}")
        return (
            f"exceeded quota: {self._name}, {', '.join(figures)}"
            f" (whoever runs the platform can raise it: clusterling quota {self._name} set {name}=…)"
        )
