"""autoscaling/v1 and v2: horizontal pod autoscalers, stored as v2."""

from __future__ import annotations

from typing import Final

from clusterling.packs.autoscaling.autoscalers import HORIZONTALPODAUTOSCALERS
from clusterling.registry.pack import Pack

PACK: Final = Pack("autoscaling", (HORIZONTALPODAUTOSCALERS,))
