"""Packs: the built-in kinds, by API group, as values to hand to a server; `choose` reads what `--packs` says.

from clusterling import packs
ApiServer(store, packs=[packs.core.only("namespaces", "secrets"), packs.coordination])
"""

from __future__ import annotations

from typing import Final

from clusterling.packs.admissionregistration import PACK as admissionregistration  # noqa: N811 - how embedders name it
from clusterling.packs.apiextensions import PACK as apiextensions  # noqa: N811 - how embedders name it
from clusterling.packs.apiregistration import PACK as apiregistration  # noqa: N811 - how embedders name it
from clusterling.packs.apps import PACK as apps  # noqa: N811 - how embedders name it
from clusterling.packs.authentication import PACK as authentication  # noqa: N811 - how embedders name it
from clusterling.packs.authorization import PACK as authorization  # noqa: N811 - how embedders name it
from clusterling.packs.autoscaling import PACK as autoscaling  # noqa: N811 - how embedders name it
from clusterling.packs.batch import PACK as batch  # noqa: N811 - how embedders name it
from clusterling.packs.certificates import PACK as certificates  # noqa: N811 - how embedders name it
from clusterling.packs.coordination import PACK as coordination  # noqa: N811 - how embedders name it
from clusterling.packs.core import PACK as core  # noqa: N811 - how embedders name it
from clusterling.packs.discovery import PACK as discovery  # noqa: N811 - how embedders name it
from clusterling.packs.events import PACK as events  # noqa: N811 - how embedders name it
from clusterling.packs.flowcontrol import PACK as flowcontrol  # noqa: N811 - how embedders name it
from clusterling.packs.networking import PACK as networking  # noqa: N811 - how embedders name it
from clusterling.packs.node import PACK as node  # noqa: N811 - how embedders name it
from clusterling.packs.policy import PACK as policy  # noqa: N811 - how embedders name it
from clusterling.packs.rbac import PACK as rbac  # noqa: N811 - how embedders name it
from clusterling.packs.resource import PACK as resource  # noqa: N811 - how embedders name it
from clusterling.packs.scheduling import PACK as scheduling  # noqa: N811 - how embedders name it
from clusterling.packs.storage import PACK as storage  # noqa: N811 - how embedders name it
from clusterling.packs.storagemigration import PACK as storagemigration  # noqa: N811 - how embedders name it
from clusterling.registry.choice import Offer
from clusterling.registry.pack import Pack

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
# What a cluster without nodes needs.
DEFAULT: Final[tuple[Pack, ...]] = (
    core.only("configmaps", "events", "namespaces", "secrets", "serviceaccounts"),
    events,
    coordination,
    apiextensions,
)


# What there is to choose from. `none` still serves the kind that makes kinds.
OFFER: Final = Offer(ALL, DEFAULT, none=(apiextensions,))


def choose(text: str) -> tuple[Pack, ...]:
    """The packs that a `--packs` text names, as `Offer.choose` reads it. Raises ValueError."""
    return OFFER.choose(text)
