"""Charging writes to the ResourceQuotas of their namespace, in the transaction of the write itself.

Upstream checks a quota in admission, writes its status in a transaction before the object's, and has a controller put
right what went wrong between, and release what was deleted. Here the object and each quota's new `status.used` are one
transaction: a quota is never exceeded, by no race and across replicas, and a delete releases at once.

Rules of this file
- A quota is written at the revision it was read at. In one process writers of a namespace take turns; those of other
  replicas find the revision moved, and look again.
- Nothing is counted before the controller has counted what is there (controllers/quota.py), which it writes at the
  revision it began from. A write that finds a quota uncounted rewrites it as it is, so that such a count begins anew.
- What a write found no quota for is tied to the namespace's fence, which a new quota moves (resourcequotas.py).

Texts and order: apiserver pkg/admission/plugin/resourcequota/controller.go, CheckRequest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Final
from weakref import WeakValueDictionary

import orjson
from typing_extensions import override

from clusterling.machinery import errors
from clusterling.machinery.codec import encode_stored
from clusterling.machinery.meta import Object, meta, name_of
from clusterling.packs.core import amounts
from clusterling.packs.core.amounts import ZERO, Amounts
from clusterling.packs.core.usage import Evaluator, Scope, evaluator, scopes_of
from clusterling.registry.admission import Admission
from clusterling.registry.committing import NAMESPACE_FENCE
from clusterling.registry.options import ListOptions
from clusterling.registry.resource import Served
from clusterling.registry.strategy import NO_COMPANIONS, Companions, Context
from clusterling.storage.store import Guard, Op

_EVERYTHING: Final = ListOptions()
# Of a namespace: each may be one more key in every write there (storage.store.WRITE_OPS_MAX).
QUOTAS_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class Quota:
    """A ResourceQuota as charging needs it."""

    obj: Object
    scopes: tuple[Scope, ...]
    hard: Amounts
    used: Amounts
    # What it limits, once it has been counted again.
    wanted: Amounts
    is_counted: bool

    @property
    def namespace(self) -> str:
        return str(meta(self.obj)["namespace"])

    @property
    def names(self) -> frozenset[str]:
        """Everything that it limits by now, or will."""
        return frozenset(self.wanted.keys() | self.hard.keys())

    @classmethod
    def of(cls, obj: Object) -> Quota:
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        wanted, hard = amounts.read(spec.get("hard")), amounts.read(status.get("hard"))
        used = amounts.read(status.get("used"))
        is_counted = wanted == hard and hard.keys() <= used.keys()
        return cls(obj, scopes_of(spec), hard, used, wanted, is_counted)

    def rewritten(self, collection: str, used: Amounts) -> Op:
        """The quota in the store with that used, at the revision it was read at."""
        stored = {**self.obj, "metadata": dict(meta(self.obj))}
        revision = int(stored["metadata"].pop("resourceVersion"))
        if used != self.used:
            stored["status"] = {**(self.obj.get("status") or {}), "used": amounts.written(used)}
        key = f"{collection}{self.namespace}/{name_of(self.obj)}"
        return Op(key, encode_stored(stored), revision)


class QuotaCharges(Admission):
    """The last member of the chain: what a write uses is charged to the quotas of its namespace, or it is refused."""

    def __init__(self) -> None:
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    @override
    def looks_inside(self, ctx: Context) -> bool:
        return False  # Of custom resources only their number counts.

    @override
    def charging(
        self, ctx: Context, served: Served, new: Object | None, old: Object | None
    ) -> AbstractAsyncContextManager[Companions] | None:
        if not served.resource.namespaced:
            return None
        quotas = ctx.catalog.find("", "v1", "resourcequotas")
        if quotas is None:
            return None
        resource = served.resource.storage or served.resource
        how = evaluator(resource.group, resource.names.plural)
        if how is None or not (how.varies or new is None or old is None):
            return None
        obj = old if new is None else new
        assert obj is not None, "a write has an object before or after it"
        namespace = meta(obj).get("namespace", "")
        if (new is None or old is None) and ctx.objects.has_none(quotas, namespace):
            # Nearly always so. A quota that is being made finds this write by the namespace's fence.
            return None
        place = (ctx.cluster_id, namespace)
        turn = self._turns.get(place)
        if turn is None:
            turn = self._turns[place] = asyncio.Lock()
        return _Charge(ctx, served, quotas, how, new, old, turn)


class _Charge:
    """One write's turn: what it adds to the transaction, held until that is done."""

    __slots__ = ("_ctx", "_how", "_new", "_old", "_quotas", "_served", "_turn")

    def __init__(
        self,
        ctx: Context,
        served: Served,
        quotas: Served,
        how: Evaluator,
        new: Object | None,
        old: Object | None,
        turn: asyncio.Lock,
    ) -> None:
        self._ctx = ctx
        self._served = served
        self._quotas = quotas
        self._how = how
        self._new = new
        self._old = old
        self._turn = turn

    async def __aenter__(self) -> Companions:
        await self._turn.acquire()
        try:
            return await self._companions()
        except BaseException:
            self._turn.release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._turn.release()

    async def _companions(self) -> Companions:
        obj = self._old if self._new is None else self._new
        assert obj is not None, "a write has an object before or after it"
        namespace = meta(obj).get("namespace", "")
        listing = await self._ctx.objects.list(self._quotas, namespace, _EVERYTHING)
        if not listing.values:
            return await self._tied(namespace)
        mine = self._quotas.resource.key(namespace, name_of(obj))
        ops = []
        for value in listing.values:
            quota = Quota.of(orjson.loads(value))
            names = self._how.names(quota.names)
            if names:
                used = self._charged(quota, names)
                if used != quota.used or not quota.is_counted:
                    ops.append(quota.rewritten(self._quotas.resource.collection, used))
        if self._served.resource is self._quotas.resource:
            # The quota that is being written itself cannot be written twice; it has been counted by the controller.
            ops = [op for op in ops if op.key != mine]
        return Companions(ops=tuple(ops)) if ops else NO_COMPANIONS

    async def _tied(self, namespace: str) -> Companions:
        """An update has no guard on its namespace of its own, and a quota may be made this very moment."""
        if self._new is None or self._old is None:
            return NO_COMPANIONS
        fence = NAMESPACE_FENCE + namespace
        standing = await self._ctx.objects.fence(fence)
        return Companions(guards=(Guard(fence, standing),)) if standing else NO_COMPANIONS

    def _charged(self, quota: Quota, names: Sequence[str]) -> Amounts:
        """What is used when the write is done. Raises ApiError 403."""
        how, new, old = self._how, self._new, self._old
        tracked = frozenset(names) & quota.hard.keys()
        if not tracked:
            return quota.used
        counts = new is not None and how.counts(quota.scopes, new)
        counted = old is not None and how.counts(quota.scopes, old)
        if counts and old is None:
            assert new is not None, "it counts"
            lacking = how.lacking(sorted(tracked), new)
            if lacking:
                raise self._refused(f"failed quota: {name_of(quota.obj)}: {lacking}")
            if not tracked <= quota.used.keys():
                raise self._refused(
                    f"status unknown for quota: {name_of(quota.obj)}, resources: {','.join(sorted(tracked))}"
                )
        after = how.usage(new) if counts and new is not None else {}
        before = how.usage(old) if counted and old is not None else {}
        change = amounts.only(amounts.difference(after, before), tracked & quota.used.keys())
        if any(amount > ZERO for amount in change.values()):
            self._check(quota, after, change)
        used = dict(quota.used)
        amounts.add(used, change)
        return {name: max(amount, ZERO) for name, amount in used.items()}

    def _check(self, quota: Quota, after: Amounts, change: Amounts) -> None:
        negative = sorted(name for name, amount in after.items() if amount < ZERO)
        if negative:
            raise self._refused(f"quota usage is negative for resource(s): {','.join(negative)}")
        if self._ctx.subresource == "status":
            return
        more = {name: amount for name, amount in change.items() if amount > ZERO}
        exceeded = {name for name, amount in more.items() if quota.used[name] + amount > quota.hard[name]}
        if exceeded:
            requested, used, limited = (
                amounts.listed(amounts.only(one, exceeded)) for one in (more, quota.used, quota.hard)
            )
            raise self._refused(
                f"exceeded quota: {name_of(quota.obj)}, requested: {requested}, used: {used}, limited: {limited}"
            )

    def _refused(self, why: str) -> errors.ApiError:
        assert self._new is not None, "a delete is never refused"
        return errors.forbidden(self._served.plural, self._served.group, name_of(self._new), why)
