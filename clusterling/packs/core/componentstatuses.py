"""ComponentStatuses: what the old API says of a control plane's parts. Here three are always there, and none can be written.

Upstream asks each when it is asked: pkg/registry/core/componentstatus. No scheduler runs here, and what upstream says
of one that does not is said of it; this server stands for the other two.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from clusterling.machinery.meta import Object
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin


def _component(name: str, *, healthy: bool, message: str) -> Object:
    condition = {"type": "Healthy", "status": "True" if healthy else "False", "message": message}
    return {
        "apiVersion": "v1",
        "kind": "ComponentStatus",
        "metadata": {"name": name},
        "conditions": [condition],
    }


COMPONENTS: Final = (
    _component("controller-manager", healthy=True, message="ok"),
    _component("etcd-0", healthy=True, message="ok"),
    _component("scheduler", healthy=False, message="this cluster has no scheduler"),
)


def _condition(obj: Object) -> Object:
    found: Object = (obj.get("conditions") or ({},))[0]
    return found


def _status_cell(obj: Object, _now: datetime) -> str:
    return "Healthy" if _condition(obj).get("status") == "True" else "Unhealthy"


_PLAIN: Final = builtin.resource(
    "",
    "v1",
    "componentstatuses",
    columns=(
        NAME_COLUMN,
        Column("Status", "string", _status_cell),
        Column("Message", "string", lambda obj, _: _condition(obj).get("message") or ""),
        Column("Error", "string", lambda obj, _: _condition(obj).get("error") or ""),
    ),
)
COMPONENTSTATUSES: Final = replace(
    _PLAIN,
    versions=tuple(
        replace(one, deprecation_warning="v1 ComponentStatus is deprecated in v1.19+")
        for one in _PLAIN.versions
    ),
)
