"""ResourceQuotas: how much the objects of a namespace may use in all; quota.py charges, controllers/quota.py counts.

Upstream: kubernetes pkg/registry/core/resourcequota, pkg/apis/core/validation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

from typing_extensions import override

from clusterling.machinery import errors
from clusterling.machinery.codec import same_json
from clusterling.machinery.errors import FieldError, GoStruct, immutable_field, invalid_value, required
from clusterling.machinery.meta import Object, meta, name_of
from clusterling.machinery.names import is_qualified_name
from clusterling.machinery.table import NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.core import amounts
from clusterling.packs.core.podspec.defaults import read_resources, reading
from clusterling.packs.core.podspec.resources import HUGE_PAGES, quantity_problems
from clusterling.packs.core.quota import QUOTAS_MAX
from clusterling.registry.committing import ACTIVE_FENCE, NAMESPACE_FENCE
from clusterling.registry.options import ListOptions
from clusterling.registry.strategy import NO_COMPANIONS, Companions, Context, Strategy
from clusterling.storage.store import Op

_COUNTED: Final = frozenset(
    (
        "pods", "resourcequotas", "services", "replicationcontrollers", "secrets", "configmaps",
        "persistentvolumeclaims", "services.nodeports", "services.loadbalancers",
    )
)  # fmt: skip
_COMPUTE: Final = frozenset(
    f"{kind}{name}"
    for kind in ("", "requests.", "limits.")
    for name in ("cpu", "memory", "ephemeral-storage")
)
_QUOTABLE: Final = _COUNTED | _COMPUTE | {"requests.storage"}
_STANDARD: Final = _QUOTABLE | {"storage"}

_BY_PODS: Final = frozenset(("pods", *(name for name in _COMPUTE if "storage" not in name)))
# Scope → which of the quotable names it goes with.
_SCOPES: Final = {
    "Terminating": _BY_PODS,
    "NotTerminating": _BY_PODS,
    "NotBestEffort": _BY_PODS,
    "PriorityClass": _BY_PODS,
    "CrossNamespacePodAffinity": _BY_PODS,
    "BestEffort": frozenset(("pods",)),
    "VolumeAttributesClass": frozenset(("persistentvolumeclaims", "requests.storage")),
}
_EXISTING: Final = (
    "BestEffort",
    "NotBestEffort",
    "Terminating",
    "NotTerminating",
    "CrossNamespacePodAffinity",
)
_EXISTS: Final = (
    "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, "
    "ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"
)
_CONFLICTING: Final = (("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating"))

# Of what a quota's requests should stay below their limits; the first two may go by their bare names.
_WARNED: Final = ("cpu", "memory", "storage", "ephemeral-storage")


class ResourceQuotaStrategy(Strategy):
    has_generation = False
    returns_deleted_object = True

    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("spec", {})
        new.setdefault("status", {})
        _read(new)

    @override
    def prepare_for_create(self, ctx: Context, new: Object) -> None:
        new["status"] = {}

    @override
    def prepare_for_update(self, ctx: Context, new: Object, old: Object) -> None:
        if ctx.subresource == "status":
            new["spec"] = old.get("spec", {})
        else:
            new["status"] = old.get("status", {})

    @override
    async def admit(self, ctx: Context, new: Object, old: Object | None) -> None:
        """Each quota of a namespace may be one more key in every write there."""
        quotas = ctx.catalog.find("", "v1", "resourcequotas")
        if old is not None or quotas is None:
            return
        there = await ctx.objects.list(quotas, meta(new)["namespace"], ListOptions(limit=QUOTAS_MAX))
        if len(there.values) >= QUOTAS_MAX:
            why = f"a namespace has {QUOTAS_MAX} resource quotas at most"
            raise errors.forbidden("resourcequotas", "", name_of(new), why)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        return list(_spec_problems(new["spec"]))

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        if ctx.subresource == "status":
            status = new["status"]
            return [*_hard_problems(status, "status", "hard"), *_hard_problems(status, "status", "used")]
        found = list(_spec_problems(new["spec"]))
        scopes = new["spec"].get("scopes") or []
        if set(scopes) != set((old.get("spec") or {}).get("scopes") or ()):
            found.append(immutable_field("spec.scopes", scopes))
        return found

    @override
    async def companions(self, ctx: Context, new: Object | None, old: Object | None) -> Companions:
        """A new limit moves the namespace's fence: who is about to write there and saw no limit looks again."""
        if new is None or ctx.catalog.find("", "v1", "namespaces") is None:
            return NO_COMPANIONS
        if old is not None and same_json(old.get("spec") or {}, new["spec"]):
            return NO_COMPANIONS
        namespace = meta(new)["namespace"]
        standing = await ctx.objects.active_fence(namespace)
        if not standing:
            return NO_COMPANIONS
        return Companions(ops=(Op(NAMESPACE_FENCE + namespace, ACTIVE_FENCE, standing),))

    @override
    def warnings(self, ctx: Context, new: Object, old: Object | None = None) -> Sequence[str]:
        return [] if old is not None else list(_request_warnings(new["spec"]))


def _read(obj: Object) -> None:
    """Quantities in their one form."""
    with reading(obj):
        read_resources(obj["spec"], "hard")
        read_resources(obj["status"], "hard")
        read_resources(obj["status"], "used")


def _request_warnings(spec: Object) -> Iterator[str]:
    hard = amounts.read(spec.get("hard"))
    for name in _WARNED:
        asked = f"requests.{name}"
        if asked not in hard and name in ("cpu", "memory"):
            asked = name
        limited = f"limits.{name}"
        if asked in hard and limited in hard and hard[asked] > hard[limited]:
            yield (
                f"ResourceQuota {asked} ({hard[asked].canonical}) should be less than "
                f"{limited} ({hard[limited].canonical})"
            )


# ---------------------------------------------------------------------- validation


def _spec_problems(spec: Object) -> Iterator[FieldError]:
    yield from _hard_problems(spec, "spec", "hard")
    yield from _scope_problems(spec)
    if spec.get("scopeSelector") is not None:
        yield from _selector_problems(spec)


def _hard_problems(part: Object, path: str, field: str) -> Iterator[FieldError]:
    for name, amount in sorted(amounts.read(part.get(field)).items()):
        here = f"{path}.{field}[{name}]"
        yield from _name_problems(name, here)
        yield from quantity_problems(name, amount, here)


def resource_name_problems(name: str, path: str) -> Iterator[FieldError]:
    """Upstream: validateResourceName."""
    wrong = is_qualified_name(name)
    for problem in wrong:
        yield invalid_value(path, name, problem)
    if not wrong and "/" not in name and name not in _STANDARD and not _is_huge_pages(name):
        yield invalid_value(path, name, "must be a standard resource type or fully qualified")


def _name_problems(name: str, path: str) -> Iterator[FieldError]:
    yield from resource_name_problems(name, path)
    if "/" not in name and not _is_quotable(name):
        yield invalid_value(path, name, "must be a standard resource for quota")


def _is_huge_pages(name: str) -> bool:
    return name.startswith((HUGE_PAGES, f"requests.{HUGE_PAGES}"))


def _is_quotable(name: str) -> bool:
    return name in _QUOTABLE or _is_huge_pages(name)


def _does_not_apply(scope: str, names: Sequence[str]) -> Iterator[str]:
    """The names a scope does not go with."""
    return (name for name in names if _is_quotable(name) and scope in _SCOPES and name not in _SCOPES[scope])


def _scope_problems(spec: Object) -> Iterator[FieldError]:
    scopes, names, path = spec.get("scopes") or [], sorted(spec.get("hard") or ()), "spec.scopes"
    for scope in scopes:
        if scope not in _SCOPES:
            yield invalid_value(path, scopes, "unsupported scope")
        for _ in _does_not_apply(scope, names):
            yield invalid_value(path, scopes, "unsupported scope applied to resource")
    yield from _conflicts(scopes, scopes)


def _selector_problems(spec: Object) -> Iterator[FieldError]:
    path, names = "spec.scopeSelector.matchExpressions", sorted(spec.get("hard") or ())
    found = []
    for one in spec["scopeSelector"].get("matchExpressions") or ():
        scope, operator, values = one.get("scopeName", ""), one.get("operator", ""), one.get("values")
        found.append(scope)
        if scope not in _SCOPES:
            yield invalid_value(f"{path}.scopeName", scope, "unsupported scope")
        for _ in _does_not_apply(scope, names):
            yield invalid_value(
                path, _internal(spec["scopeSelector"]), "unsupported scope applied to resource"
            )
        if scope in _EXISTING and operator != "Exists":
            yield invalid_value(f"{path}.operator", operator, _EXISTS)
        if operator in ("In", "NotIn"):
            if not values:
                why = "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector"
                yield required(f"{path}.values", why)
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                why = "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"
                yield invalid_value(f"{path}.values", values, why)
        else:
            yield invalid_value(f"{path}.operator", operator, "not a valid selector operator")
    yield from _conflicts(found, spec.get("scopes"))


def _internal(selector: Object) -> GoStruct:
    """The selector as upstream's errors show it: its own type, whose fields have no JSON names."""
    told = [
        {
            "ScopeName": one.get("scopeName", ""),
            "Operator": one.get("operator", ""),
            "Values": one.get("values"),
        }
        for one in selector.get("matchExpressions") or ()
    ]
    return GoStruct(MatchExpressions=told)


def _conflicts(found: Sequence[str], shown: object) -> Iterator[FieldError]:
    for pair in _CONFLICTING:
        if set(pair) <= set(found):
            yield invalid_value("spec.scopes", shown, "conflicting scopes")


# ---------------------------------------------------------------------- the kind


def _cell(obj: Object, *, limits: bool) -> str:
    status = obj.get("status") or {}
    hard, used = status.get("hard") or {}, status.get("used") or {}
    return ", ".join(
        f"{name}: {used.get(name, '0')}/{hard[name]}"
        for name in sorted(hard)
        if name.startswith("limits.") is limits
    )


def _requests(obj: Object, _now: datetime) -> str:
    return _cell(obj, limits=False)


def _limits(obj: Object, _now: datetime) -> str:
    return _cell(obj, limits=True)


RESOURCEQUOTAS: Final = builtin.resource(
    "",
    "v1",
    "resourcequotas",
    strategy=ResourceQuotaStrategy(),
    columns=(
        NAME_COLUMN,
        Column("Request", "string", _requests, "", "The least that the objects counted here may use."),
        Column("Limit", "string", _limits, "", "The most that the objects counted here may use."),
        builtin.AGE,
    ),
)
