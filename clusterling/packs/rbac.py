"""rbac.authorization.k8s.io/v1: roles and bindings, validated and kept; every cluster begins with upstream's own.

Rules of aggregated ones: rbac_aggregation.py.

Upstream: kubernetes pkg/apis/rbac (validation, defaults), pkg/registry/rbac, plugin/pkg/auth/authorizer/rbac/bootstrappolicy.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Final

from typing_extensions import override

from clusterling.machinery.errors import (
    FieldError,
    immutable_field,
    invalid_value,
    not_supported,
    required,
)
from clusterling.machinery.labelselector import label_selector_problems
from clusterling.machinery.meta import Object
from clusterling.machinery.names import is_dns1123_subdomain, is_path_segment_name
from clusterling.machinery.table import CREATED_DESCRIPTION, NAME_COLUMN, Column
from clusterling.packs import builtin
from clusterling.packs.rbac_aggregation import settled
from clusterling.registry.pack import Pack
from clusterling.registry.strategy import Context, Strategy

GROUP: Final = "rbac.authorization.k8s.io"

_SUBJECT_KINDS: Final = ("ServiceAccount", "User", "Group")
_REFERENCE_FIELDS: Final = {"apiGroup": "APIGroup", "kind": "Kind", "name": "Name"}


class RoleStrategy(Strategy):
    """Roles and cluster roles: lists of rules."""

    has_generation = False
    name_problems = staticmethod(is_path_segment_name)

    def __init__(self, *, namespaced: bool) -> None:
        self._namespaced = namespaced

    @override
    def read(self, ctx: Context, new: Object) -> None:
        new.setdefault("rules", None)

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        rules: Sequence[Object] = new["rules"] or ()
        found = [
            error
            for index, rule in enumerate(rules)
            for error in _rule_problems(rule, f"rules[{index}]", namespaced=self._namespaced)
        ]
        found += _aggregation_problems(new.get("aggregationRule"))
        # What upstream declares beside its types it tells after the rest.
        found += [
            required(f"rules[{index}].verbs") for index, rule in enumerate(rules) if not rule.get("verbs")
        ]
        return found


def _rule_problems(rule: Object, path: str, *, namespaced: bool) -> list[FieldError]:
    urls = rule.get("nonResourceURLs")
    if urls:
        where = f"{path}.nonResourceURLs"
        found = []
        if namespaced:
            found.append(invalid_value(where, urls, "namespaced rules cannot apply to non-resource URLs"))
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            why = "rules cannot apply to both regular resources and non-resource URLs"
            found.append(invalid_value(where, urls, why))
        return found
    found = []
    if not rule.get("apiGroups"):
        found.append(required(f"{path}.apiGroups", "resource rules must supply at least one api group"))
    if not rule.get("resources"):
        found.append(required(f"{path}.resources", "resource rules must supply at least one resource"))
    return found


def _aggregation_problems(rule: Object | None) -> list[FieldError]:
    if rule is None:
        return []
    path = "aggregationRule.clusterRoleSelectors"
    selectors = rule.get("clusterRoleSelectors")
    if not selectors:
        return [required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil")]
    found: list[FieldError] = []
    for index, selector in enumerate(selectors):
        wrong = label_selector_problems(selector, f"{path}[{index}]")
        found += wrong
        if wrong:
            found.append(invalid_value(f"{path}[{index}]", None, "invalid label selector."))
    return found


class BindingStrategy(Strategy):
    """Role bindings and cluster role bindings: whom a role is given to. Which role, never changes."""

    has_generation = False
    name_problems = staticmethod(is_path_segment_name)

    def __init__(self, *kinds: str) -> None:
        """`kinds` are those of the roles that may be bound. A binding in a namespace may leave out an account's."""
        self._kinds = kinds
        self._namespaced = "Role" in kinds

    @override
    def read(self, ctx: Context, new: Object) -> None:
        role = new.setdefault("roleRef", {})
        new["roleRef"] = {field: role.get(field) or "" for field in _REFERENCE_FIELDS}
        new["roleRef"]["apiGroup"] = new["roleRef"]["apiGroup"] or GROUP
        for subject in new.get("subjects") or ():
            if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
                subject["apiGroup"] = GROUP

    @override
    def validate(self, ctx: Context, new: Object) -> Sequence[FieldError]:
        found, declared = self._problems(new)
        return [*found, *declared]

    @override
    def validate_update(self, ctx: Context, new: Object, old: Object) -> Sequence[FieldError]:
        found, declared = self._problems(new)
        role = new["roleRef"]
        if role != old["roleRef"]:
            shown = {name: role[field] for field, name in _REFERENCE_FIELDS.items()}
            found.append(immutable_field("roleRef", shown))
        return [*found, *declared]

    def _problems(self, new: Object) -> tuple[list[FieldError], list[FieldError]]:
        """What is wrong, and of that what upstream declares beside its types and tells after the rest."""
        role, subjects = new["roleRef"], new.get("subjects") or ()
        found, declared = [], []
        if role["apiGroup"] != GROUP:
            found.append(not_supported("roleRef.apiGroup", role["apiGroup"], [GROUP]))
        if role["kind"] not in self._kinds:
            found.append(not_supported("roleRef.kind", role["kind"], self._kinds))
        if not role["name"]:
            declared.append(required("roleRef.name"))
        found += [
            invalid_value("roleRef.name", role["name"], problem)
            for problem in is_path_segment_name(role["name"])
        ]
        for index, subject in enumerate(subjects):
            path = f"subjects[{index}]"
            if not subject.get("name"):
                declared.append(required(f"{path}.name"))
            found += _subject_problems(subject, path, namespaced=self._namespaced)
        return found, declared


def _subject_problems(subject: Object, path: str, *, namespaced: bool) -> list[FieldError]:
    kind, name, group = (subject.get(field) or "" for field in ("kind", "name", "apiGroup"))
    if kind not in _SUBJECT_KINDS:
        return [not_supported(f"{path}.kind", kind, _SUBJECT_KINDS)]
    if kind != "ServiceAccount":
        return [] if group == GROUP else [not_supported(f"{path}.apiGroup", group, [GROUP])]
    found = [invalid_value(f"{path}.name", name, problem) for problem in is_dns1123_subdomain(name) if name]
    if group:
        found.append(not_supported(f"{path}.apiGroup", group, [""]))
    if not namespaced and not subject.get("namespace"):
        found.append(required(f"{path}.namespace"))
    return found


def _role_of(obj: Object, _now: datetime) -> str:
    role = obj.get("roleRef") or {}
    return f"{role.get('kind', '')}/{role.get('name', '')}"


def _names_of(kind: str, obj: Object, _now: datetime) -> str:
    subjects = [one for one in obj.get("subjects") or () if one.get("kind") == kind]
    if kind == "ServiceAccount":
        return ", ".join(f"{one.get('namespace', '')}/{one.get('name', '')}" for one in subjects)
    return ", ".join(one.get("name", "") for one in subjects)


def _created(obj: Object, _now: datetime) -> str:
    return str(obj["metadata"].get("creationTimestamp") or "")


_ROLE_COLUMNS: Final = (
    NAME_COLUMN,
    Column("Created At", "date", _created, description=CREATED_DESCRIPTION),
)
_BINDING_COLUMNS: Final = (
    NAME_COLUMN,
    Column("Role", "string", _role_of),
    builtin.AGE,
    Column("Users", "string", partial(_names_of, "User"), priority=1),
    Column("Groups", "string", partial(_names_of, "Group"), priority=1),
    Column("ServiceAccounts", "string", partial(_names_of, "ServiceAccount"), priority=1),
)


ROLES: Final = builtin.resource(
    GROUP, "v1", "roles", strategy=RoleStrategy(namespaced=True), columns=_ROLE_COLUMNS
)
CLUSTERROLES: Final = builtin.resource(
    GROUP, "v1", "clusterroles", strategy=RoleStrategy(namespaced=False), columns=_ROLE_COLUMNS
)
ROLEBINDINGS: Final = builtin.resource(
    GROUP, "v1", "rolebindings", strategy=BindingStrategy("Role", "ClusterRole"), columns=_BINDING_COLUMNS
)
CLUSTERROLEBINDINGS: Final = builtin.resource(
    GROUP, "v1", "clusterrolebindings", strategy=BindingStrategy("ClusterRole"), columns=_BINDING_COLUMNS
)

PACK: Final = Pack(
    "rbac",
    (CLUSTERROLEBINDINGS, CLUSTERROLES, ROLEBINDINGS, ROLES),
    bootstrap=settled(builtin.read("rbac.zlib")),
)
