"""IPAddresses: who has which address; the object's being there is what allocates it. Upstream: pkg/registry/networking/ipaddress.

A service's addresses are written in the transaction that writes the service (packs/core/services_claims.py), and a
tenant's own objects keep an address from all services.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.addresses import Address, canonical_ip_problems, family
from clusterling.machinery.errors import (
    FieldError,
    immutable_field,
    invalid_value,
    qualified,
    required,
    too_many,
)
from clusterling.machinery.meta import Object, meta
from clusterling.machinery.names import is_dns1123_subdomain, is_path_segment_name
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.networking.servicecidrs import SERVER_ADDRESS
from clusterling.registry.strategy import Context, Strategy

FAMILY_LABEL: Final = "ipaddress.kubernetes.io/ip-family"
MANAGED_BY_LABEL: Final = "ipaddress.kubernetes.io/managed-by"
ALLOCATOR: Final = "ipallocator.k8s.io"

# Each is a key in the transaction that lets go of a service's address.
OWNERS_MAX: Final = 4

_PARENT: Final = "spec.parentRef"
_FIELDS: Final = ("group", "resource", "name", "namespace")
_REQUIRED: Final = ("resource", "name")


class IPAddressStrategy(Strategy):
    has_generation = False
    generates_names = False
    name_problems = staticmethod(canonical_ip_problems)

    @override
    def read(self, ctx: Context, new: Object) -> None:
        spec = new.setdefault("spec", {})
        parent = spec.get("parentRef")
        if parent is not None:
            spec["parentRef"] = {key: value for key, value in parent.items() if value}

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        owned_by = meta(new).get("ownerReferences") or ()
        if len(owned_by) > OWNERS_MAX:
            return [too_many("metadata.ownerReferences", len(owned_by), OWNERS_MAX)]
        parent = new["spec"].get("parentRef")
        if parent is None:
            return [required(_PARENT)]
        found = [
            invalid_value(f"{_PARENT}.{field}", parent[field], problem)
            for field in _FIELDS
            if parent.get(field)
            for problem in (is_dns1123_subdomain if field == "group" else is_path_segment_name)(parent[field])
        ]
        # Upstream's declarative rules come after those that are code.
        return found + [required(f"{_PARENT}.{field}") for field in _REQUIRED if not parent.get(field)]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        found = list(self.validate(ctx, new))
        if new["spec"].get("parentRef") != old["spec"].get("parentRef"):
            found.append(immutable_field(_PARENT, None))
        return found


def of_service(address: Address, namespace: str, name: str) -> Object:
    """The object that says a service has the address; without what every object gets when it is created."""
    labels = {FAMILY_LABEL: family(address), MANAGED_BY_LABEL: ALLOCATOR}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IPAddress",
        "metadata": {"name": str(address), "labels": labels},
        "spec": {"parentRef": {"resource": "services", "namespace": namespace, "name": name}},
    }


def is_of_service(obj: Object, namespace: str, name: str) -> bool:
    """The address is that service's."""
    parent: Object = obj["spec"].get("parentRef") or {}
    wanted = {"resource": "services", "namespace": namespace, "name": name}
    return {key: value for key, value in parent.items() if value} == wanted


def _parent(obj: Object, _now: datetime) -> str:
    parent = (obj.get("spec") or {}).get("parentRef")
    if parent is None:
        return "<none>"
    kind = qualified(parent.get("resource", ""), parent.get("group", "")).lower()
    return "/".join(part for part in (kind, parent.get("namespace"), parent.get("name", "")) if part)


# Upstream fills a third cell, the age, for which it declares no column.
IPADDRESSES: Final = builtin.resource(
    "networking.k8s.io",
    "v1",
    "ipaddresses",
    strategy=IPAddressStrategy(),
    columns=(NAME_COLUMN, Column("ParentRef", "string", _parent)),
)

BOOTSTRAP_ADDRESS: Final = of_service(SERVER_ADDRESS, "default", "kubernetes")
