"""apps/v1: deployments, replica sets, stateful sets, daemon sets, and the revisions they keep."""

from __future__ import annotations

from typing import Final

from clusterling.packs.apps.controllerrevisions import CONTROLLERREVISIONS
from clusterling.packs.apps.daemonsets import DAEMONSETS
from clusterling.packs.apps.deployments import DEPLOYMENTS
from clusterling.packs.apps.replicasets import REPLICASETS
from clusterling.packs.apps.statefulsets import STATEFULSETS
from clusterling.registry.pack import Pack

PACK: Final = Pack("apps", (CONTROLLERREVISIONS, DAEMONSETS, DEPLOYMENTS, REPLICASETS, STATEFULSETS))
