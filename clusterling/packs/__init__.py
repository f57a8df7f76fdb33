"""Packs: the built-in kinds, by API group, as values to hand to a server; `choose` reads what `--packs` says.

from clusterling import packs
ApiServer(store, packs=[packs.core.only("namespaces", "secrets"), packs.coordination])

Each has a module of its name, which is imported when something of it is first needed: what is not served costs nothing.
"""

from __future__ import annotations

import sys
from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Final

from typing_extensions import override

from clusterling.packs.core import PACK as core  # noqa: N811 - how embedders name it
from clusterling.registry.choice import Offer
from clusterling.registry.pack import GroupResource, Pack

__all__ = [
    "ALL",
    "DEFAULT",
    "OFFER",
    "admissionregistration",
    "apiextensions",
    "apiregistration",
    "apps",
    "authentication",
    "authorization",
    "autoscaling",
    "batch",
    "certificates",
    "choose",
    "coordination",
    "core",
    "discovery",
    "events",
    "flowcontrol",
    "networking",
    "node",
    "policy",
    "rbac",
    "resource",
    "scheduling",
    "storage",
    "storagemigration",
]


def _loaded(name: str) -> Pack:
    pack: Pack = import_module(f"{__name__}.{name}").PACK
    return pack


def _later(name: str, group: str, *plurals: str, shows: GroupResource | None = None) -> Pack:
    return Pack.later(
        name, (GroupResource(group, plural, shows) for plural in plurals), partial(_loaded, name)
    )


admissionregistration: Final = _later(
    "admissionregistration",
    "admissionregistration.k8s.io",
    "mutatingadmissionpolicies",
    "mutatingadmissionpolicybindings",
    "mutatingwebhookconfigurations",
    "validatingadmissionpolicies",
    "validatingadmissionpolicybindings",
    "validatingwebhookconfigurations",
)
apiextensions: Final = _later("apiextensions", "apiextensions.k8s.io", "customresourcedefinitions")
apiregistration: Final = _later("apiregistration", "apiregistration.k8s.io", "apiservices")
apps: Final = _later(
    "apps", "apps", "controllerrevisions", "daemonsets", "deployments", "replicasets", "statefulsets"
)
authentication: Final = _later(
    "authentication", "authentication.k8s.io", "selfsubjectreviews", "tokenreviews"
)
authorization: Final = _later(
    "authorization",
    "authorization.k8s.io",
    "localsubjectaccessreviews",
    "selfsubjectaccessreviews",
    "selfsubjectrulesreviews",
    "subjectaccessreviews",
)
autoscaling: Final = _later("autoscaling", "autoscaling", "horizontalpodautoscalers")
batch: Final = _later("batch", "batch", "cronjobs", "jobs")
certificates: Final = _later(
    "certificates",
    "certificates.k8s.io",
    "certificatesigningrequests",
    "clustertrustbundles",
    "podcertificaterequests",
)
coordination: Final = _later("coordination", "coordination.k8s.io", "leases")
discovery: Final = _later("discovery", "discovery.k8s.io", "endpointslices")
events: Final = _later("events", "events.k8s.io", "events", shows=GroupResource("", "events"))
flowcontrol: Final = _later(
    "flowcontrol", "flowcontrol.apiserver.k8s.io", "flowschemas", "prioritylevelconfigurations"
)
networking: Final = _later(
    "networking",
    "networking.k8s.io",
    "ingresses",
    "ingressclasses",
    "networkpolicies",
    "servicecidrs",
    "ipaddresses",
)
node: Final = _later("node", "node.k8s.io", "runtimeclasses")
policy: Final = _later("policy", "policy", "poddisruptionbudgets")
rbac: Final = _later(
    "rbac", "rbac.authorization.k8s.io", "clusterrolebindings", "clusterroles", "rolebindings", "roles"
)
resource: Final = _later(
    "resource",
    "resource.k8s.io",
    "deviceclasses",
    "devicetaintrules",
    "resourceclaims",
    "resourceclaimtemplates",
    "resourceslices",
)
scheduling: Final = _later("scheduling", "scheduling.k8s.io", "priorityclasses")
storage: Final = _later(
    "storage",
    "storage.k8s.io",
    "csidrivers",
    "csinodes",
    "csistoragecapacities",
    "storageclasses",
    "volumeattachments",
    "volumeattributesclasses",
)
storagemigration: Final = _later("storagemigration", "storagemigration.k8s.io", "storageversionmigrations")

ALL: Final[tuple[Pack, ...]] = (
    core,
    events,
    coordination,
    apiextensions,
    rbac,
    storage,
    storagemigration,
    resource,
    admissionregistration,
    flowcontrol,
    apiregistration,
    certificates,
    authorization,
    authentication,
    networking,
    apps,
    batch,
    autoscaling,
    policy,
    scheduling,
    node,
    discovery,
)
# What a cluster without nodes needs, and what charts of operators bring along. What would be kept and not acted on is left out.
DEFAULT: Final[tuple[Pack, ...]] = (
    core.only("configmaps", "events", "namespaces", "secrets", "serviceaccounts"),
    events,
    coordination,
    apiextensions,
    rbac,
    authentication,
    authorization,
)


# What there is to choose from. `none` still serves the kind that makes kinds.
OFFER: Final = Offer(ALL, DEFAULT, none=(apiextensions,))


def choose(text: str) -> tuple[Pack, ...]:
    """The packs that a `--packs` text names, as `Offer.choose` reads it. Raises ValueError."""
    return OFFER.choose(text)


class _Packs(ModuleType):
    """This module, whose attributes stay packs when modules of the same names are imported."""

    @override
    def __setattr__(self, name: str, value: object) -> None:
        if not (isinstance(value, ModuleType) and isinstance(self.__dict__.get(name), Pack)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Packs
