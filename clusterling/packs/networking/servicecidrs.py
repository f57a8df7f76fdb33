"""ServiceCIDRs: the ranges that services get their addresses from. Upstream: kubernetes pkg/registry/networking/servicecidr.

A range can be used as soon as it is there, as a CustomResourceDefinition is established when its POST returns: it is
Ready in the write that creates it, where upstream's controller says so a moment later.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from ipaddress import ip_address
from typing import Final

from typing_extensions import override

from clusterling.machinery.addresses import canonical_cidr_problems, parse_cidr, problems_at
from clusterling.machinery.errors import FieldError, immutable_field, invalid_value, required
from clusterling.machinery.meta import Object, rfc3339
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.registry.strategy import RESETS_METADATA, Context, Strategy

NAME: Final = "kubernetes"
# Of every cluster: upstream's server is told by a flag, and takes this where it is told nothing.
CIDR: Final = "10.0.0.0/24"
# The `kubernetes` service's: the first that a service can have.
SERVER_ADDRESS: Final = ip_address("10.0.0.1")

_CIDRS: Final = "spec.cidrs"


class ServiceCIDRStrategy(Strategy):
    resets = RESETS_METADATA
    has_generation = False

    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("spec", {})
        if ctx.subresource == "status" and not new.setdefault("status", {}).get("conditions"):
            new["status"].pop("conditions", None)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        moment = rfc3339(ctx.ports.clock.now())
        new["status"] = {"conditions": [_ready(moment, "Kubernetes Service CIDR is ready")]}

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new["spec"] = old["spec"]
            new["metadata"] = old["metadata"] | {
                key: new["metadata"][key] for key in ("resourceVersion",) if key in new["metadata"]
            }
        else:
            new["status"] = old.get("status", {})

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return _range_problems(cidrs_of(new))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        after, before = cidrs_of(new), cidrs_of(old)
        if ctx.subresource == "status":
            return ()
        grows = len(before) == 1 and len(after) == 2
        if len(after) != len(before) and not grows:
            return [immutable_field(_CIDRS, list(after) or None)]
        changed = [
            immutable_field(f"{_CIDRS}[{index}]", after[index])
            for index, cidr in enumerate(before)
            if cidr != after[index]
        ]
        return [*changed, *_range_problems(after)] if grows else changed


def cidrs_of(obj: Object) -> Sequence[str]:
    """The ranges that a ServiceCIDR names, at most one of each family."""
    found: Sequence[str] = (obj.get("spec") or {}).get("cidrs") or ()
    return found


def is_ready(obj: Object) -> bool:
    """Services may be given addresses of it."""
    conditions = (obj.get("status") or {}).get("conditions") or ()
    ready = any(one.get("type") == "Ready" and one.get("status") == "True" for one in conditions)
    return ready and "deletionTimestamp" not in obj["metadata"]


def _range_problems(cidrs: Sequence[str]) -> list[FieldError]:
    if not cidrs:
        return [required(_CIDRS, "at least one CIDR required")]
    if len(cidrs) > 2:
        return [invalid_value(_CIDRS, {"CIDRs": list(cidrs)}, "may only hold up to 2 values")]
    found = [
        error
        for index, cidr in enumerate(cidrs)
        for error in problems_at(f"{_CIDRS}[{index}]", cidr, canonical_cidr_problems(cidr))
    ]
    ranges = [one for one in map(parse_cidr, cidrs) if one is not None]
    if len(ranges) == 2 and ranges[0].version == ranges[1].version:
        why = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
        found.append(invalid_value(_CIDRS, list(cidrs), why))
    return found


def _ready(moment: str, message: str) -> Object:
    return {
        "type": "Ready",
        "status": "True",
        "lastTransitionTime": moment,
        "reason": "",
        "message": message,
    }


def _cidrs(obj: Object, _now: datetime) -> str:
    return ",".join(cidrs_of(obj))


SERVICECIDRS: Final = builtin.resource(
    "networking.k8s.io",
    "v1",
    "servicecidrs",
    strategy=ServiceCIDRStrategy(),
    columns=(NAME_COLUMN, Column("CIDRs", "string", _cidrs), builtin.AGE),
)

# The underlay is one for all clusters, so this has no time of its own to tell.
BOOTSTRAP_RANGE: Final[Object] = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "ServiceCIDR",
    "metadata": {"name": NAME},
    "spec": {"cidrs": [CIDR]},
    "status": {"conditions": [_ready("2020-01-01T00:00:00Z", "Kubernetes default Service CIDR is ready")]},
}
