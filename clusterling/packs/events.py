"""events.k8s.io/v1: the events of the core group, in their newer form (packs/core/events.py)."""

from __future__ import annotations

from typing import Final

from clusterling.packs.core.events import NEW_EVENTS
from clusterling.registry.pack import Pack

PACK: Final = Pack("events", (NEW_EVENTS,))
