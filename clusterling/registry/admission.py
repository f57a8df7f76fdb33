"""Admission: what may change or refuse a write, between the kind's own rules and the store.

Members run in order: all `mutate`s before validation, all `validate`s after it, then what they charge the write with. Quota
comes last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Literal

from typing_extensions import override

from clusterling.machinery.meta import Object
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Companions, Context

Operation = Literal["CREATE", "UPDATE", "DELETE"]


class Admission:
    """One admission plugin. Override what it needs; both hooks refuse by raising ApiError.

    `new` is None on DELETE, `old` is None on CREATE. ctx.subresource says which part is written.
    """

    async def mutate(
        self, ctx: Context, served: Served, operation: Operation, new: Object, old: Object | None
    ) -> None:
        """Changes `new` in place."""

    async def validate(
        self, ctx: Context, served: Served, operation: Operation, new: Object | None, old: Object | None
    ) -> None:
        """Looks at the write as it will be stored."""

    def looks_inside(self, ctx: Context) -> bool:
        """Whether it may look at more than metadata and status of what the server itself amends, or of what is deleted.

        False: of large custom resources and CRDs the rest need not be decoded for it (`Strategy.outline`).
        """
        return True

    def charging(
        self, ctx: Context, served: Served, new: Object | None, old: Object | None
    ) -> AbstractAsyncContextManager[Companions] | None:
        """What goes into the transaction of the write besides, of any kind (quotas); None: nothing, without waiting to know.

        Entered when all else has agreed, before the write or in its place in a dry run, and left when it is done;
        entering refuses by raising ApiError. Of a conflict on its keys another turn is made of it, not of the write.
        """
        return None


class AdmissionChain(Admission):
    """Several plugins as one."""

    def __init__(self, plugins: Sequence[Admission] = ()) -> None:
        self._plugins = tuple(plugins)

    @override
    async def mutate(
        self, ctx: Context, served: Served, operation: Operation, new: Object, old: Object | None
    ) -> None:
        for plugin in self._plugins:
            await plugin.mutate(ctx, served, operation, new, old)

    @override
    async def validate(
        self, ctx: Context, served: Served, operation: Operation, new: Object | None, old: Object | None
    ) -> None:
        for plugin in self._plugins:
            await plugin.validate(ctx, served, operation, new, old)

    @override
    def looks_inside(self, ctx: Context) -> bool:
        return any(plugin.looks_inside(ctx) for plugin in self._plugins)

    @override
    def charging(
        self, ctx: Context, served: Served, new: Object | None, old: Object | None
    ) -> AbstractAsyncContextManager[Companions] | None:
        return _charging(self._plugins, ctx, served, new, old)


class CatalogAdmission(Admission):
    """What the packs have a say with that the cluster serves."""

    @override
    async def mutate(
        self, ctx: Context, served: Served, operation: Operation, new: Object, old: Object | None
    ) -> None:
        for one in ctx.catalog.admission:
            await one.mutate(ctx, served, operation, new, old)

    @override
    async def validate(
        self, ctx: Context, served: Served, operation: Operation, new: Object | None, old: Object | None
    ) -> None:
        for one in ctx.catalog.admission:
            await one.validate(ctx, served, operation, new, old)

    @override
    def looks_inside(self, ctx: Context) -> bool:
        return any(one.looks_inside(ctx) for one in ctx.catalog.admission)

    @override
    def charging(
        self, ctx: Context, served: Served, new: Object | None, old: Object | None
    ) -> AbstractAsyncContextManager[Companions] | None:
        return _charging(ctx.catalog.admission, ctx, served, new, old)


def _charging(
    plugins: Sequence[Admission], ctx: Context, served: Served, new: Object | None, old: Object | None
) -> AbstractAsyncContextManager[Companions] | None:
    found = [one for plugin in plugins if (one := plugin.charging(ctx, served, new, old))]
    return found[0] if len(found) == 1 else _together(found) if found else None


@asynccontextmanager
async def _together(charges: Sequence[AbstractAsyncContextManager[Companions]]) -> AsyncIterator[Companions]:
    async with AsyncExitStack() as stack:
        found = [await stack.enter_async_context(one) for one in charges]
        yield Companions(
            tuple(op for one in found for op in one.ops),
            tuple(guard for one in found for guard in one.guards),
        )
