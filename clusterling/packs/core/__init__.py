"""The core group: what a cluster without nodes needs (packs.DEFAULT names it), and the kinds of one that has some.

Each kind is loaded by itself: its module has its name, and the kind in it its name in capitals.
"""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Final

from clusterling.registry.pack import GroupResource, Pack
from clusterling.registry.resource import Resource

_KINDS: Final = (
    "bindings",
    "componentstatuses",
    "configmaps",
    "endpoints",
    "events",
    "limitranges",
    "namespaces",
    "nodes",
    "persistentvolumeclaims",
    "persistentvolumes",
    "pods",
    "podtemplates",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "serviceaccounts",
    "services",
)


def _loaded(plural: str) -> Pack:
    """One kind with what comes with it."""
    resource: Resource = getattr(import_module(f"{__name__}.{plural}"), plural.upper())
    match plural:
        case "componentstatuses":
            from clusterling.packs.core.componentstatuses import COMPONENTS

            return Pack("core", (resource,), COMPONENTS)
        case "configmaps":
            from clusterling.packs.core import provisions

            return Pack("core", (resource,), (provisions.certificates(one, "") for one in provisions.FIRST))
        case "limitranges":
            from clusterling.packs.core.limitranger import LimitRanger

            return Pack("core", (resource,), admission=(LimitRanger(),))
        case "namespaces":
            from clusterling.packs.core.namespaces import BOOTSTRAP

            return Pack("core", (resource,), BOOTSTRAP)
        case "resourcequotas":
            from clusterling.packs.core.quota import QuotaCharges

            return Pack("core", (resource,), admission=(QuotaCharges(),))
        case "serviceaccounts":
            from clusterling.packs.core import provisions

            return Pack("core", (resource,), map(provisions.account, provisions.FIRST))
        case "services":
            from clusterling.packs.core.services import SERVER

            return Pack("core", (resource,), (SERVER,))
        case _:
            return Pack("core", (resource,))


PACK: Final = Pack("core").joined(
    *(Pack.later("core", (GroupResource("", plural),), partial(_loaded, plural)) for plural in _KINDS)
)
