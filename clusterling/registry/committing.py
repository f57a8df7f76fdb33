"""Commits: how a write that was computed becomes one transaction, and when it is computed again.

What a write was computed from is named in its transaction: the object's revision, and guards for what lies below it, its
kind's schema and its namespace. Who moved in between is told apart by what did not hold: the object (`Again`, with the
conflict that a client is told who tied its write to a resourceVersion), what it depends on (`Again`), the ground that the
request was dispatched on (`GroundMoved`, which only a new dispatch mends), an account that it is charged to (charged anew, and
nothing else).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Final, TypeVar

from clusterling.machinery import errors
from clusterling.machinery.errors import ApiError
from clusterling.machinery.meta import Object, name_of
from clusterling.registry import owners
from clusterling.registry.admission import Admission
from clusterling.registry.refusing import refuse, translated
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Companions, Context
from clusterling.registry.turns import Turns
from clusterling.storage.cache import CachedStore
from clusterling.storage.store import (
    Guard,
    GuardFailed,
    KeyExists,
    LimitReached,
    Op,
    RevisionConflict,
    StorageError,
    UnknownOutcome,
)

TRIES: Final = 5  # Of a write whose ground moved.
# Of a write of an object that others write, unless the client tied it to a resourceVersion. Each time one of them got
# through; upstream goes on until the request's time is up (etcd3/store.go, GuaranteedUpdate), which comes first here, too.
CONFLICTS_MAX: Final = 1000
CHARGE_TRIES: Final = (
    50  # Of a write whose accounts other replicas charge at the same time: each time one of them got through.
)

NAMESPACE_FENCE: Final = "~fence/namespaces/-/"
ACTIVE_FENCE: Final = b'{"phase":"Active"}'

_T = TypeVar("_T")


class GroundMoved(ApiError):
    """What the write was computed by is no more: its kind's schema, or its cluster. To be answered anew from the start."""

    def __init__(self) -> None:
        super().__init__(
            503,
            "ServiceUnavailable",
            "what the write depends on keeps changing; try again",
            {"retryAfterSeconds": 1},
            {"Retry-After": "1"},
        )


class Again(Exception):
    """The write was computed from something that has changed meanwhile: compute it again.

    `conflict`: what the client is told if it was the object itself that changed, and trying again is not ours to do.
    """

    def __init__(self, conflict: ApiError | None = None) -> None:
        super().__init__()
        self.conflict = conflict


class Commits:
    """The transactions of one logical cluster. Everything raises ApiError, and `Again` where an attempt is to be made anew."""

    def __init__(self, store: CachedStore, admission: Admission) -> None:
        self._store = store
        self._admission = admission
        self._turns = Turns()

    async def guards(self, ctx: Context, served: Served, namespace: str, name: str) -> tuple[Guard, ...]:
        """What the write depends on: the kind's schema and, for new content, its namespace (decision 4)."""
        guards: tuple[Guard, ...] = ()
        if served.resource.guard_key:
            guards = (Guard(served.resource.guard_key, served.resource.schema_revision),)
        if namespace and ctx.catalog.find("", "v1", "namespaces") is not None:
            guards = (*guards, await self._namespace_guard(served, namespace, name))
        return guards

    async def _namespace_guard(self, served: Served, namespace: str, name: str) -> Guard:
        """Upstream: apiserver pkg/admission/plugin/namespace/lifecycle."""
        key = NAMESPACE_FENCE + namespace
        fence = self._store.peek(key) or await translated(self._store.get(key))
        if fence is None:
            await translated(self._store.fresh())
            fence = await translated(self._store.get(key))
        if fence is None:
            raise errors.not_found("namespaces", "", namespace)
        if fence.value != ACTIVE_FENCE:
            error = errors.forbidden(
                served.plural,
                served.group,
                name,
                f"unable to create new content in namespace {namespace} because it is being terminated",
            )
            assert error.details is not None, "forbidden names what it forbids"
            error.details["causes"] = [
                {
                    "reason": "NamespaceTerminating",
                    "message": f"namespace {namespace} is being terminated",
                    "field": "metadata.namespace",
                }
            ]
            raise error
        return Guard(key, fence.revision)

    async def companions(
        self, ctx: Context, served: Served, new: Object | None, old: Object | None
    ) -> Companions:
        """What the kind adds to the transaction, and the index of dependents. In a dry run the last word is said here."""
        companions = await served.resource.strategy.companions(ctx, new, old)
        index = owners.changes(served.resource, new, old)
        if ctx.dry_run:
            charge = self._admission.charging(ctx, served, new, old)
            async with charge or nullcontext():
                pass
        return replace(companions, ops=(*companions.ops, *index)) if index else companions

    async def write(
        self,
        ctx: Context,
        served: Served,
        op: Op,
        companions: Companions,
        guards: Sequence[Guard],
        *,
        new: Object | None,
        old: Object | None,
    ) -> int:
        """Commits with what the write is charged with; the revision of `op`. Raises Again where it must be computed anew."""
        obj = old if new is None else new
        assert obj is not None, "a write has an object before or after it"
        name = name_of(obj)
        for tried in range(1, CHARGE_TRIES + 1):
            charge = self._admission.charging(ctx, served, new, old)
            if charge is None:
                return await self._commit(ctx, served, name, op, companions, guards)
            async with charge as more:
                ops, all_guards = (*companions.ops, *more.ops), (*companions.guards, *more.guards)
                try:
                    return await self._commit(ctx, served, name, op, Companions(ops, all_guards), guards)
                except Again as again:
                    # Other replicas charge the same account: it is the account alone that is looked at again.
                    if tried == CHARGE_TRIES or not _of_charge(again, more):
                        raise
            await translated(self._store.fresh())
        raise AssertionError("the loop returns or raises")

    async def _commit(
        self,
        ctx: Context,
        served: Served,
        name: str,
        op: Op,
        companions: Companions,
        guards: Sequence[Guard],
    ) -> int:
        standing = ctx.standing
        more = standing.guards() if standing is not None else ()
        try:
            revisions = await self._store.write((op, *companions.ops), (*guards, *companions.guards, *more))
        except KeyExists as error:
            if error.args[0] == op.key:
                raise errors.already_exists(served.plural, served.group, name) from error
            raise Again from error
        except RevisionConflict as error:
            mine = error.args[0] == op.key
            raise Again(errors.conflict(served.plural, served.group, name) if mine else None) from error
        except GuardFailed as error:
            own = {guard.key for guard in (*guards, *companions.guards)} - {served.resource.guard_key}
            if error.args[0] in own:
                raise Again from error
            # What stands below the object itself: no attempt that starts from here can succeed.
            raise GroundMoved from error
        except LimitReached as error:
            why = error.args[3] if len(error.args) > 3 else "exceeded quota"
            raise errors.forbidden(served.plural, served.group, name, why) from error
        except StorageError as error:
            if standing is not None and isinstance(error, UnknownOutcome):
                standing.settled = True
            refuse(error)
        if standing is not None:
            standing.settled = True
        return revisions[0]

    async def retried(
        self,
        attempt: Callable[[], Awaitable[_T]],
        *,
        of: str = "",
        conflicts: bool | Callable[[], bool] = True,
    ) -> _T:
        """Runs an attempt until it was computed from what was current when it committed.

        `of`: the key of the object, before which who lost a race waits for a turn. `conflicts` False: a conflict on
        the object itself goes to the client, who named a resourceVersion.
        """
        moved = lost = 0

        async def once_more(again: Again) -> None:
            nonlocal moved, lost
            if again.conflict is None:
                moved += 1
            else:
                lost += 1
                mine = conflicts() if callable(conflicts) else conflicts
                if not mine or lost == CONFLICTS_MAX:
                    raise again.conflict from again
            if moved == TRIES:
                raise errors.service_unavailable("what the write depends on keeps changing; try again")
            await translated(self._store.fresh())

        try:
            return await attempt()
        except Again as again:
            await once_more(again)
        async with self._turns.of(of) if of else nullcontext():
            while True:
                try:
                    return await attempt()
                except Again as again:
                    await once_more(again)


def _of_charge(again: Again, charged: Companions) -> bool:
    """What did not stand where it was seen is of the charge."""
    cause = again.__cause__
    return isinstance(cause, RevisionConflict) and any(op.key == cause.args[0] for op in charged.ops)
