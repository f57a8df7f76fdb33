"""authorization.k8s.io/v1: who may do what, answered by what authorizes requests, and not kept.

Upstream: kubernetes pkg/registry/authorization, pkg/apis/authorization/validation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from clusterling.machinery.errors import (
    ApiError,
    FieldError,
    bad_request,
    invalid,
    invalid_value,
    required,
)
from clusterling.machinery.labelselector import label_requirement_problems, operator_problems
from clusterling.machinery.meta import Object
from clusterling.packs import builtin
from clusterling.registry.pack import Pack
from clusterling.registry.ports import Attributes
from clusterling.registry.strategy import Context, User

GROUP: Final = "authorization.k8s.io"

_EITHER: Final = "exactly one of nonResourceAttributes or resourceAttributes must be specified"


async def _may_i(ctx: Context, review: Object, _namespace: str) -> Object:
    spec = review.get("spec") or {}
    _check([*_attribute_problems(spec), *_metadata_problems(review)])
    return await _answer(ctx, review, spec, ctx.user)


async def _may_they(ctx: Context, review: Object, _namespace: str) -> Object:
    spec = review.get("spec") or {}
    _check([*_subject_problems(spec), *_metadata_problems(review)])
    return await _answer(ctx, review, spec, _subject(ctx, spec))


async def _may_they_here(ctx: Context, review: Object, namespace: str) -> Object:
    spec = review.get("spec") or {}
    wrong = [*_subject_problems(spec), *_metadata_problems(review, "namespace")]
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    if resource is not None and (resource.get("namespace") or "") != namespace:
        where = "spec.resourceAttributes.namespace"
        wrong.append(invalid_value(where, resource.get("namespace") or "", "must match metadata.namespace"))
    if other is not None:
        why = "disallowed on this kind of request"
        wrong.append(invalid_value("spec.nonResourceAttributes", _shown(other), why))
    _check(wrong)
    return await _answer(ctx, review, spec, _subject(ctx, spec))


async def _what_may_i(ctx: Context, review: Object, _namespace: str) -> Object:
    """Everything, where the user may do everything in that namespace. Of lesser rights the parts are not known."""
    namespace = (review.get("spec") or {}).get("namespace")
    if not namespace:
        raise bad_request("no namespace on request")
    everything = Attributes("*", "*", "*", "*", namespace=namespace)
    anywhere = Attributes("*", path="*")
    resources, _ = await ctx.ports.access.allows(ctx.user, ctx.cluster, everything)
    others, _ = await ctx.ports.access.allows(ctx.user, ctx.cluster, anywhere)
    status: Object = {
        "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}] if resources else [],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}] if others else [],
        "incomplete": not (resources and others),
    }
    head = {field: review[field] for field in ("kind", "apiVersion")}
    return {**head, "metadata": {}, "spec": {}, "status": status}


async def _answer(ctx: Context, review: Object, spec: Object, user: User) -> Object:
    allowed, reason = await ctx.ports.access.allows(user, ctx.cluster, _attributes(spec))
    status: Object = {"allowed": allowed}
    if reason:
        status["reason"] = reason
    return {**review, "spec": spec, "status": status}


def _subject(ctx: Context, spec: Object) -> User:
    """Whom the review is about: one of this cluster, whatever name and groups they have elsewhere."""
    extra = tuple((key, tuple(values or ())) for key, values in (spec.get("extra") or {}).items())
    groups = tuple(spec.get("groups") or ())
    return User(spec.get("user") or "", groups, spec.get("uid") or "", ctx.cluster_id, extra)


def _attributes(spec: Object) -> Attributes:
    given = spec.get("resourceAttributes")
    if given is None:
        other = spec["nonResourceAttributes"]
        return Attributes(other.get("verb") or "", path=other.get("path") or "/")
    fields = ("verb", "group", "version", "resource", "subresource", "namespace", "name")
    return Attributes(**{field: given.get(field) or "" for field in fields})


def _check(wrong: Sequence[FieldError]) -> None:
    if wrong:
        raise _refused(wrong)


def _refused(wrong: Sequence[FieldError]) -> ApiError:
    # Upstream takes the kind from an object that has lost it on the way.
    return invalid("", GROUP, "", wrong)


def _subject_problems(spec: Object) -> list[FieldError]:
    found = _either_problems(spec)
    if not spec.get("user") and not spec.get("groups"):
        found.append(
            invalid_value(
                "spec.user", spec.get("user") or "", "at least one of user or group must be specified"
            )
        )
    return found + _selection_problems(spec)


def _attribute_problems(spec: Object) -> list[FieldError]:
    return _either_problems(spec) + _selection_problems(spec)


def _either_problems(spec: Object) -> list[FieldError]:
    other = spec.get("nonResourceAttributes")
    if (spec.get("resourceAttributes") is None) is (other is None):
        return [invalid_value("spec", None if other is None else _shown(other), _EITHER)]
    return []


def _shown(other: Object) -> Object:
    """Non-resource attributes as upstream's own type is printed."""
    return {"Path": other.get("path") or "", "Verb": other.get("verb") or ""}


def _selection_problems(spec: Object) -> list[FieldError]:
    attributes = spec.get("resourceAttributes") or {}
    found: list[FieldError] = []
    for which in ("fieldSelector", "labelSelector"):
        selector, path = attributes.get(which), f"spec.resourceAttributes.{which}"
        if selector is None:
            continue
        raw, requirements = selector.get("rawSelector"), selector.get("requirements")
        if raw and requirements:
            why = "may not specified at the same time as requirements"
            found.append(invalid_value(f"{path}.rawSelector", raw, why))
        if not raw and not requirements:
            why = f"when {path} is specified, requirements or rawSelector is required"
            found.append(required(f"{path}.requirements", why))
        judge = _field_problems if which == "fieldSelector" else _label_problems
        for index, one in enumerate(requirements or ()):
            found += judge(one, f"{path}.requirements[{index}]")
    return found


def _label_problems(requirement: Object, path: str) -> list[FieldError]:
    return label_requirement_problems(requirement, path, any_operator=True)


def _field_problems(requirement: Object, path: str) -> list[FieldError]:
    found = [] if requirement.get("key") else [required(f"{path}.key", "must be specified")]
    return found + operator_problems(requirement, path, any_operator=True)


def _metadata_problems(review: Object, *allowed: str) -> list[FieldError]:
    metadata = {field: value for field, value in review["metadata"].items() if value and field not in allowed}
    if not metadata:
        return []
    why = "must be empty except for namespace" if allowed else "must be empty"
    return [invalid_value("metadata", review["metadata"], why)]


PACK: Final = Pack(
    "authorization",
    (
        builtin.resource(GROUP, "v1", "localsubjectaccessreviews", review=_may_they_here),
        builtin.resource(GROUP, "v1", "selfsubjectaccessreviews", review=_may_i),
        builtin.resource(GROUP, "v1", "selfsubjectrulesreviews", review=_what_may_i),
        builtin.resource(GROUP, "v1", "subjectaccessreviews", review=_may_they),
    ),
)
