"""scheduling.k8s.io/v1: PriorityClasses, two of them in every cluster. Upstream: kubernetes pkg/registry/scheduling/priorityclass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from typing_extensions import override

from clusterling.machinery import errors
from clusterling.machinery.errors import FieldError, forbidden_field, immutable_field, not_supported
from clusterling.machinery.meta import Object, name_of
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core.pods_admission import default_priority_class
from clusterling.registry.pack import Pack
from clusterling.registry.strategy import Context, Strategy

GROUP: Final = "scheduling.k8s.io"
USER_PRIORITY_MAX: Final = 1_000_000_000

_SYSTEM_PREFIX: Final = "system-"
_POLICIES: Final = ("PreemptLowerPriority", "Never")


def _system(name: str, value: int, description: str) -> Object:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name, "generation": 1},
        "value": value,
        "description": description,
        "preemptionPolicy": "PreemptLowerPriority",
    }


BOOTSTRAP: Final = (
    _system(
        "system-cluster-critical",
        2 * USER_PRIORITY_MAX,
        "Used for system critical pods that must run in the cluster, but can be moved to another node if necessary.",
    ),
    _system(
        "system-node-critical",
        2 * USER_PRIORITY_MAX + 1000,
        "Used for system critical pods that must not be moved from their current node.",
    ),
)
_SYSTEM_VALUES: Final = {name_of(one): one["value"] for one in BOOTSTRAP}


class PriorityClassStrategy(Strategy):
    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("value", 0)
        if new.get("preemptionPolicy") is None:
            new["preemptionPolicy"] = "PreemptLowerPriority"
        for field in ("globalDefault", "description"):
            if not new.get(field):
                new.pop(field, None)

    @override
    def raises_generation(self, ctx: Context, new: Object, old: Object) -> bool | None:
        return False

    @override
    async def admit(self, ctx: Context, new: Object, old: Object | None) -> None:
        if not new.get("globalDefault"):
            return
        known = await default_priority_class(ctx)
        if known is not None and (old is None or name_of(known) != name_of(new)):
            why = f"PriorityClass {name_of(known)} is already marked as default. Only one default can exist"
            raise errors.forbidden("priorityclasses", GROUP, name_of(new), why)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        found = []
        name, value, policy = name_of(new), new["value"], new["preemptionPolicy"]
        if name.startswith(_SYSTEM_PREFIX):
            wrong = _system_problem(name, value, is_default=bool(new.get("globalDefault")))
            if wrong:
                reserved = (
                    "priority class names with 'system-' prefix are reserved for system use only. error: "
                )
                found.append(forbidden_field("metadata.name", reserved + wrong))
        elif value > USER_PRIORITY_MAX:
            why = f"maximum allowed value of a user defined priority is {USER_PRIORITY_MAX}"
            found.append(forbidden_field("value", why))
        if policy not in _POLICIES:
            found.append(not_supported("preemptionPolicy", policy, _POLICIES))
        return found

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        found = []
        if new["value"] != old["value"]:
            found.append(forbidden_field("value", "may not be changed in an update."))
        if new["preemptionPolicy"] != old["preemptionPolicy"]:
            found.append(immutable_field("preemptionPolicy", new["preemptionPolicy"]))
        return found

    @override
    def may_delete(self, ctx: Context, old: Object) -> None:
        if name_of(old) in _SYSTEM_VALUES:
            why = "this is a system priority class and cannot be deleted"
            raise errors.forbidden("priorityclasses", GROUP, name_of(old), why)


def _system_problem(name: str, value: int, *, is_default: bool) -> str:
    if name not in _SYSTEM_VALUES:
        return f"{name} is not a known system priority class"
    if value != _SYSTEM_VALUES[name]:
        return f"value of {name} PriorityClass must be {_SYSTEM_VALUES[name]}"
    return f"globalDefault of {name} PriorityClass must be false" if is_default else ""


PRIORITYCLASSES: Final = builtin.resource(
    GROUP,
    "v1",
    "priorityclasses",
    strategy=PriorityClassStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Value", "integer", lambda obj, _: obj.get("value", 0)),
        Column("Global-Default", "boolean", lambda obj, _: bool(obj.get("globalDefault"))),
        builtin.AGE,
        Column("PreemptionPolicy", "string", lambda obj, _: obj.get("preemptionPolicy") or ""),
    ),
)

PACK: Final = Pack("scheduling", (PRIORITYCLASSES,), bootstrap=BOOTSTRAP)
