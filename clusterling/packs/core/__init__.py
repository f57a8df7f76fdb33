"""The core group: what a cluster without nodes needs (packs.DEFAULT names it), and the kinds of one that has some."""

from __future__ import annotations

from typing import Final

from clusterling.packs.core.bindings import BINDINGS
from clusterling.packs.core.componentstatuses import COMPONENTS, COMPONENTSTATUSES
from clusterling.packs.core.configmaps import CONFIGMAPS
from clusterling.packs.core.endpoints import ENDPOINTS
from clusterling.packs.core.events import EVENTS
from clusterling.packs.core.limitranger import LimitRanger
from clusterling.packs.core.limitranges import LIMITRANGES
from clusterling.packs.core.namespaces import BOOTSTRAP, NAMESPACES
from clusterling.packs.core.nodes import NODES
from clusterling.packs.core.persistentvolumeclaims import PERSISTENTVOLUMECLAIMS
from clusterling.packs.core.persistentvolumes import PERSISTENTVOLUMES
from clusterling.packs.core.pods import PODS
from clusterling.packs.core.podtemplates import PODTEMPLATES
from clusterling.packs.core.quota import QuotaCharges
from clusterling.packs.core.replicationcontrollers import REPLICATIONCONTROLLERS
from clusterling.packs.core.resourcequotas import RESOURCEQUOTAS
from clusterling.packs.core.secrets import SECRETS
from clusterling.packs.core.serviceaccounts import SERVICEACCOUNTS
from clusterling.packs.core.services import SERVER, SERVICES
from clusterling.registry.pack import Pack

PACK: Final = Pack(
    "core",
    (
        BINDINGS,
        COMPONENTSTATUSES,
        CONFIGMAPS,
        ENDPOINTS,
        EVENTS,
        LIMITRANGES,
        NAMESPACES,
        NODES,
        PERSISTENTVOLUMECLAIMS,
        PERSISTENTVOLUMES,
        PODS,
        PODTEMPLATES,
        REPLICATIONCONTROLLERS,
        RESOURCEQUOTAS,
        SECRETS,
        SERVICEACCOUNTS,
        SERVICES,
    ),
    bootstrap=(*BOOTSTRAP, *COMPONENTS, SERVER),
    admission=(LimitRanger(), QuotaCharges()),
)
