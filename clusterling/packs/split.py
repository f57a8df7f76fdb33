"""What kinds with a spec and a status share: each is written by its own part.

Whoever writes the object leaves its status as it is; whoever writes `status` leaves its spec.
"""

from __future__ import annotations

from typing_extensions import override

from clusterling.machinery.meta import Object
from clusterling.registry.strategy import Context, Strategy


class SplitStrategy(Strategy):
    def complete(self, ctx: Context, new: Object) -> None:
        """Defaults what the writer of the object may leave out."""

    def complete_status(self, new: Object) -> None:
        """Defaults what the writer of the status may leave out. A new object has the status that this makes of none."""
        new.setdefault("status", {})

    @override
    def read(self, ctx: Context, new: Object) -> None:
        if ctx.subresource == "status":
            self.complete_status(new)
        else:
            self.complete(ctx, new)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        new.pop("status", None)
        self.complete_status(new)

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new["spec"] = old["spec"]
        else:
            new["status"] = old.get("status") or {}
