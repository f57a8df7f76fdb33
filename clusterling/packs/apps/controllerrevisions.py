"""ControllerRevisions: what a controller wants to remember of a past state. Upstream: pkg/registry/apps/controllerrevision."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, GoStruct, immutable_field, invalid_value, required
from clusterling.machinery.meta import Object
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.registry.strategy import Context, Strategy


class ControllerRevisionStrategy(Strategy):
    has_generation = False

    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("revision", 0)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        found = _revision_problems(new)
        data = new.get("data")
        if data is None:
            found.append(required("data", "data is mandatory"))
        elif not isinstance(data, dict):
            found.append(required("data", "data must be a valid JSON object"))
        return found

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        found = _revision_problems(new)
        if new.get("data") != old.get("data"):
            data = new.get("data")
            # Told as it was sent, with its fields in that order.
            found.append(immutable_field("data", GoStruct(data) if isinstance(data, dict) else data))
        return found


def _revision_problems(new: Object) -> list[FieldError]:
    if new["revision"] >= 0:
        return []
    return [invalid_value("revision", new["revision"], "must be greater than or equal to 0")]


def _controller(obj: Object, _now: datetime) -> str:
    for owner in obj["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            group = str(owner.get("apiVersion", "")).rpartition("/")[0]
            kind = str(owner.get("kind", "")).lower()
            return f"{kind}.{group}/{owner['name']}" if group else f"{kind}/{owner['name']}"
    return "<none>"


CONTROLLERREVISIONS: Final = builtin.resource(
    "apps",
    "v1",
    "controllerrevisions",
    strategy=ControllerRevisionStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Controller", "string", _controller, "", "Controller of the object"),
        Column("Revision", "string", lambda obj, _: obj.get("revision") or 0),
        builtin.AGE,
    ),
)
