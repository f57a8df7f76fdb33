"""Bindings by themselves: the old way to say on which node a pod runs. What one does is in pods_binding.py."""

from __future__ import annotations

from typing import Final

from clusterling.packs import builtin
from clusterling.packs.core.pods_binding import bind_by_body
from clusterling.registry.resource import Served

BINDINGS: Final = builtin.resource("", "v1", "bindings", review=bind_by_body)
BINDING: Final = Served(BINDINGS, BINDINGS.versions[0])
