"""coordination.k8s.io/v1: leases, by which controllers elect a leader. Upstream: kubernetes pkg/registry/coordination/lease."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, invalid_value
from clusterling.machinery.meta import Object
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.times import read_micro_time
from clusterling.registry.pack import Pack
from clusterling.registry.strategy import Context, Strategy


class LeaseStrategy(Strategy):
    has_generation = False
    allow_create_on_update = True
    allow_unconditional_update = False

    @override
    def read(self, ctx: Context, new: Object) -> None:
        spec = new.setdefault("spec", {})
        for field in ("acquireTime", "renewTime"):
            read_micro_time(new, spec, field)
        # Upstream drops both while its feature gate CoordinatedLeaderElection is off, which is its default.
        spec.pop("strategy", None)
        spec.pop("preferredHolder", None)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        spec = new["spec"]
        found = []
        seconds, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
        if seconds is not None and seconds <= 0:
            found.append(invalid_value("spec.leaseDurationSeconds", seconds, "must be greater than 0"))
        if transitions is not None and transitions < 0:
            found.append(
                invalid_value("spec.leaseTransitions", transitions, "must be greater than or equal to 0")
            )
        return found


def _holder(obj: Object, _now: datetime) -> str:
    return str((obj.get("spec") or {}).get("holderIdentity") or "")


LEASES: Final = builtin.resource(
    "coordination.k8s.io",
    "v1",
    "leases",
    strategy=LeaseStrategy(),
    columns=(NAME_COLUMN, Column("Holder", "string", _holder), builtin.AGE),
)

PACK: Final = Pack("coordination", (LEASES,))
