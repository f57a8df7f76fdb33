"""The core group of a cluster without nodes: namespaces, configmaps, secrets, serviceaccounts, events."""

from __future__ import annotations

from typing import Final

from clusterling.packs.core.configmaps import CONFIGMAPS
from clusterling.packs.core.events import EVENTS
from clusterling.packs.core.namespaces import BOOTSTRAP, NAMESPACES
from clusterling.packs.core.secrets import SECRETS
from clusterling.packs.core.serviceaccounts import SERVICEACCOUNTS
from clusterling.registry.pack import Pack

PACK: Final = Pack("core", (CONFIGMAPS, EVENTS, NAMESPACES, SECRETS, SERVICEACCOUNTS), bootstrap=BOOTSTRAP)
