"""Admission: what may change or refuse a write, between the kind's own rules and the store.

Members run in order: all `mutate`s before validation, all `validate`s after it. Quota comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from typing_extensions import override

from clusterling.machinery.meta import Object
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context

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
