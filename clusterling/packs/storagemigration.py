"""storagemigration.k8s.io/v1: wishes that a kind be stored anew in its current version. Kept for whoever migrates.

Upstream: kubernetes pkg/registry/storagemigration, pkg/apis/storagemigration/validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import FieldError, immutable_field, invalid_value, qualified, required
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1035_label, is_dns1123_subdomain
from clusterling.machinery.table import NAME_DESCRIPTION, Column
from clusterling.packs import builtin
from clusterling.packs.conditions import complete_conditions, condition_problems
from clusterling.packs.split import SplitStrategy
from clusterling.registry.pack import Pack
from clusterling.registry.strategy import RESETS_METADATA, Context

GROUP: Final = "storagemigration.k8s.io"

_STATES: Final = ("Running", "Failed", "Succeeded")


class MigrationStrategy(SplitStrategy):
    resets = RESETS_METADATA
    has_generation = False
    allow_unconditional_update = False

    @override
    def complete(self, ctx: Context, new: Object) -> None:
        _default(new)

    @override
    def complete_status(self, new: Object) -> None:
        complete_conditions(new, new.setdefault("status", {}))

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        about, path = new["spec"]["resource"], "spec.resource"
        plural, group, found = about["resource"], about.get("group") or "", []
        if not plural:
            found.append(required(f"{path}.resource", "resource is required to be set"))
        elif wrong := is_dns1035_label(plural):
            found.append(invalid_value(f"{path}.resource", plural, ",".join(wrong)))
        if group and (wrong := is_dns1123_subdomain(group)):
            found.append(invalid_value(f"{path}.group", group, ",".join(wrong)))
        return found

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource == "status":
            return _status_problems(new["status"], old.get("status") or {})
        found = list(self.validate(ctx, new))
        return found if new["spec"] == old["spec"] else [*found, immutable_field("spec", new["spec"])]


def _default(new: Object) -> None:
    about = new.setdefault("spec", {}).setdefault("resource", {})
    for field in ("group", "resource"):
        about.setdefault(field, "")


def _status_problems(status: Object, before: Object) -> list[FieldError]:
    found, version, was = [], status.get("resourceVersion") or "", before.get("resourceVersion") or ""
    if version and not (version.isascii() and version.isdigit()):
        why = f"resource version is not well formed: {version}"
        found.append(invalid_value("status.resourceVersion", version, why))
    if was and was != version:
        found.append(immutable_field("status.resourceVersion", version))
    conditions, path = status.get("conditions") or [], "status.conditions"
    found += condition_problems(status)
    if _is_true(status, "Succeeded") and _is_true(status, "Failed"):
        why = "Both success and failed conditions cannot be true at the same time"
        found.append(invalid_value(path, conditions, why))
    for kind, word in (("Succeeded", "Success"), ("Failed", "Failed")):
        if _is_true(before, kind) and not _is_true(status, kind):
            why = f"{word} condition cannot be set to false once it is true"
            found.append(invalid_value(path, conditions, why))
    return found


def _is_true(status: Object, kind: str) -> bool:
    conditions = status.get("conditions") or ()
    return any(one.get("type") == kind and one.get("status") == "True" for one in conditions)


def _resource(obj: Object, _now: datetime) -> str:
    about = obj["spec"].get("resource") or {}
    return qualified(about.get("resource") or "", about.get("group") or "")


def _state(obj: Object, _now: datetime) -> str:
    found = [state for state in _STATES if _is_true(obj.get("status") or {}, state)]
    return found[-1] if found else "Unknown"


PACK: Final = Pack(
    "storagemigration",
    (
        builtin.resource(
            GROUP,
            "v1",
            "storageversionmigrations",
            strategy=MigrationStrategy(),
            columns=(
                Column("Name", "string", builtin.at("metadata", "name"), "", NAME_DESCRIPTION),
                Column("Resource", "string", _resource),
                Column("Status", "string", _state),
            ),
        ),
    ),
)
