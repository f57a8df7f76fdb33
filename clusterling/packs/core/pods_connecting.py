"""Subresources that reach into a running container or a node's kubelet: here there are none to reach.

What is wrong with the question itself is answered as upstream does (pkg/registry/core/pod/strategy.go: LogLocation,
streamLocation, validateContainer); whoever asks well is told that there are no nodes, with a 400: what clients show to
people as it is, and never ask again (some do after a 5xx; a 404 they take for the pod being gone).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from clusterling.machinery import errors
from clusterling.machinery.errors import ApiError, FieldError, invalid_value
from clusterling.machinery.meta import Object
from clusterling.packs import builtin
from clusterling.registry.resource import Subresource, SubresourceCall, SubresourceFunction
from clusterling.registry.strategy import Context

NO_NODES: Final = "this cluster has no nodes"

_LOG_MINIMA: Final = (("tailLines", 0), ("limitBytes", 1), ("sinceSeconds", 1))


def no_nodes() -> ApiError:
    return errors.bad_request(NO_NODES)


def connecting(
    group: str, version: str, plural: str, name: str, function: SubresourceFunction
) -> Subresource:
    """Such a subresource, from upstream's facts."""
    parts = builtin.facts(group, version, plural)["subresources"]
    found = next(one for one in parts if one["name"] == name)
    return Subresource(
        name,
        group,
        version,
        found["kind"],
        tuple(found["verbs"]),
        function,
        connects=True,
        has_paths=name == "proxy",
    )


async def pod_log(ctx: Context, call: SubresourceCall) -> Object:
    wrong = [problem for field, least in _LOG_MINIMA for problem in _log_problems(call, field, least)]
    if wrong:
        raise errors.invalid("PodLogOptions", "", call.name, wrong)
    _check_container(call)
    raise no_nodes()


async def pod_container(ctx: Context, call: SubresourceCall) -> Object:
    """`exec` and `attach`."""
    _check_container(call)
    raise no_nodes()


async def pod_itself(ctx: Context, call: SubresourceCall) -> Object:
    """`portforward`."""
    _pod(call)
    raise no_nodes()


async def pod_proxy(ctx: Context, call: SubresourceCall) -> Object:
    """`proxy`, whose name may be `<scheme>:<name>:<port>`."""
    await _proxied(ctx, call, "pods")
    raise no_nodes()


async def node_proxy(ctx: Context, call: SubresourceCall) -> Object:
    await _proxied(ctx, call, "nodes")
    raise no_nodes()


async def _proxied(ctx: Context, call: SubresourceCall, plural: str) -> None:
    parts = call.name.split(":")
    name = parts[1] if len(parts) == 3 else parts[0]
    if len(parts) > 3 or not name or (len(parts) == 3 and parts[0] not in ("", "http", "https")):
        raise errors.bad_request(f"invalid {plural[:-1]} request {errors.go_quote(call.name)}")
    served = ctx.catalog.find("", "v1", plural)
    assert served is not None, "this is a subresource of theirs"
    if call.parent is None and await ctx.objects.read(served, call.namespace, name) is None:
        raise errors.not_found(plural, "", name)


def _pod(call: SubresourceCall) -> Object:
    if call.parent is None:
        raise errors.not_found("pods", "", call.name)
    return call.parent


def _names(spec: Object, *fields: str) -> list[str]:
    return [one.get("name", "") for field in fields for one in spec.get(field) or ()]


def _check_container(call: SubresourceCall) -> None:
    """A container is named that the pod has, or the pod has but one. Raises ApiError 404, 400."""
    spec = _pod(call)["spec"]
    wanted = _first(call.query.get("container"))
    known = _names(spec, "initContainers", "containers", "ephemeralContainers")
    if wanted:
        if wanted not in known:
            raise errors.bad_request(f"container {wanted} is not valid for pod {call.name}")
    elif len(spec.get("containers") or ()) > 1:
        choice = f"choose one of: [{' '.join(known)}]"
        raise errors.bad_request(f"a container name must be specified for pod {call.name}, {choice}")


def _first(values: Sequence[str] | None) -> str:
    return values[0] if values else ""


def _log_problems(call: SubresourceCall, field: str, least: int) -> list[FieldError]:
    text = _first(call.query.get(field))
    if not text:
        return []
    try:
        value: Any = int(text[:20])
    except ValueError:
        why = f"strconv.ParseInt: parsing {errors.go_quote(text)}: invalid syntax"
        raise errors.bad_request(why) from None
    if value >= least:
        return []
    why = "must be greater than or equal to 0" if least == 0 else "must be greater than 0"
    return [invalid_value(field, value, why)]
