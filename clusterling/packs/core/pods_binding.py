"""Binding: a scheduler's word that a pod runs on a node, once and for all. Upstream: kubernetes
pkg/registry/core/pod/storage (BindingREST).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from clusterling.machinery import errors
from clusterling.machinery.errors import ApiError, FieldError, invalid_value, not_supported, required
from clusterling.machinery.meta import Object, meta, name_of
from clusterling.machinery.names import is_dns1123_subdomain
from clusterling.packs.core.pods_admission import copy_topology
from clusterling.packs.core.pods_defaults import set_condition
from clusterling.registry.options import WriteOptions
from clusterling.registry.resource import SubresourceCall
from clusterling.registry.strategy import Context

# What the strategy of pods is told is written: nothing that it has to restore.
PART: Final = "binding"
DONE: Final[Object] = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Success",
    "code": 201,
}


async def bind(ctx: Context, call: SubresourceCall) -> Object:
    """`pods/binding`."""
    assert call.body is not None, "a binding is made by a create"
    if name_of(call.body) != call.name:
        raise errors.bad_request("name in URL does not match name in Binding object")
    return await _assign(ctx, call.body, call.namespace)


async def bind_by_body(ctx: Context, binding: Object, namespace: str) -> Object:
    """`bindings`, the old way: the pod is the one that the body names."""
    return await _assign(msgspec.structs.replace(ctx, subresource=PART), binding, namespace)


async def _assign(ctx: Context, binding: Object, namespace: str) -> Object:
    wrong = _problems(binding.get("target") or {})
    if wrong:
        # Upstream does not make a Status of these.
        texts = ", ".join(map(str, wrong))
        raise ApiError(500, "", texts if len(wrong) == 1 else f"[{texts}]")
    served = ctx.catalog.find("", "v1", "pods")
    if served is None:
        raise errors.no_such_resource()
    target = binding["target"]
    if target.get("kind") == "Node":
        await copy_topology(ctx, binding, target["name"])

    def assigned(pod: Object) -> Object:
        _check(pod, meta(binding))
        pod["spec"]["nodeName"] = target["name"]
        pod["status"].pop("nominatedNodeName", None)
        for field in ("annotations", "labels"):
            added: dict[str, Any] = meta(binding).get(field) or {}
            if added:
                meta(pod)[field] = {**(meta(pod).get(field) or {}), **added}
        set_condition(pod, ctx.ports.clock.now(), "PodScheduled", "True")
        return pod

    await ctx.objects.patch(ctx, served, namespace, name_of(binding), assigned, WriteOptions())
    return DONE


def _problems(target: Object) -> list[FieldError]:
    kind, name = target.get("kind") or "", target.get("name") or ""
    found = []
    if kind not in ("", "Node"):
        found.append(not_supported("target.kind", kind, ["Node", "<empty>"]))
    if not name:
        found.append(required("target.name"))
    elif kind in ("", "Node"):
        found += [invalid_value("target.name", name, problem) for problem in is_dns1123_subdomain(name)]
    return found


def _check(pod: Object, wanted: Object) -> None:
    """Raises ApiError 409 where it is another pod, or one that cannot be bound."""
    name, metadata = name_of(pod), meta(pod)
    for field, word in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        if wanted.get(field) and wanted[field] != metadata[field]:
            key = f"/registry/pods/{metadata['namespace']}/{name}"
            why = (
                f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: "
                f"Precondition failed: {word} in precondition: {wanted[field]}, {word} in object meta: {metadata[field]}"
            )
            raise errors.conflict("pods", "", name, why)
    why = ""
    if "deletionTimestamp" in metadata:
        why = f"pod {name} is being deleted, cannot be assigned to a host"
    elif pod["spec"].get("nodeName"):
        why = f"pod {name} is already assigned to node {errors.go_quote(pod['spec']['nodeName'])}"
    elif pod["spec"].get("schedulingGates"):
        why = f"pod {name} has non-empty .spec.schedulingGates"
    if why:
        raise errors.conflict("pods/binding", "", name, why)
