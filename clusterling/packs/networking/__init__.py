"""networking.k8s.io/v1: what leads to services, what may talk to what, and which addresses services have."""

from __future__ import annotations

from typing import Final

from clusterling.packs.networking.ingressclasses import INGRESSCLASSES
from clusterling.packs.networking.ingresses import INGRESSES
from clusterling.packs.networking.ipaddresses import BOOTSTRAP_ADDRESS, IPADDRESSES
from clusterling.packs.networking.networkpolicies import NETWORKPOLICIES
from clusterling.packs.networking.servicecidrs import BOOTSTRAP_RANGE, SERVICECIDRS
from clusterling.registry.pack import Pack

PACK: Final = Pack(
    "networking",
    (INGRESSES, INGRESSCLASSES, NETWORKPOLICIES, SERVICECIDRS, IPADDRESSES),
    bootstrap=(BOOTSTRAP_RANGE, BOOTSTRAP_ADDRESS),
)
