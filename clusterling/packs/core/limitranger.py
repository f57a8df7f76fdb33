"""What LimitRanges do to writes: containers get default requests and limits, and what is out of bounds is refused.

Upstream: kubernetes plugin/pkg/admission/limitranger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import orjson
from typing_extensions import override

from clusterling.machinery import errors
from clusterling.machinery.meta import Object, meta, name_of
from clusterling.machinery.quantity import Quantity
from clusterling.packs.core import amounts
from clusterling.packs.core.amounts import ZERO, Amounts
from clusterling.packs.core.limitranges import quotient
from clusterling.packs.core.pods_defaults import default_pod
from clusterling.registry.admission import Admission, Operation
from clusterling.registry.options import ListOptions
from clusterling.registry.resource import Served
from clusterling.registry.strategy import Context

_EVERYTHING: Final = ListOptions()
_ANNOTATION: Final = "kubernetes.io/limit-ranger"


class LimitRanger(Admission):
    """Defaults pods, and holds pods and claims to the bounds of their namespace."""

    @override
    async def mutate(
        self, ctx: Context, served: Served, operation: Operation, new: Object, old: Object | None
    ) -> None:
        if served.plural == "pods" and _concerns(ctx, served, operation, old):
            found = await _limits_of(ctx, new)
            if found:
                # A request that follows from its limit goes before the namespace's: decoding gave it upstream.
                default_pod(new)
            for limits in found:
                _default_containers(new, limits)

    @override
    async def validate(
        self, ctx: Context, served: Served, operation: Operation, new: Object | None, old: Object | None
    ) -> None:
        if new is None or not _concerns(ctx, served, operation, old):
            return
        check = _pod_problems if served.plural == "pods" else _claim_problems
        for limits in await _limits_of(ctx, new):
            found = list(dict.fromkeys(check(new, limits)))
            if found:
                why = found[0] if len(found) == 1 else f"[{', '.join(found)}]"
                raise errors.forbidden(served.plural, "", name_of(new), why)

    @override
    def looks_inside(self, ctx: Context) -> bool:
        return False  # Pods and claims are given whole.


def _concerns(ctx: Context, served: Served, operation: Operation, old: Object | None) -> bool:
    """Pods when they are made or resized; claims at every write of theirs."""
    if served.group or served.plural not in ("pods", "persistentvolumeclaims") or operation == "DELETE":
        return False
    if old is not None and meta(old).get("deletionTimestamp"):
        return False
    if served.plural == "pods":
        return ctx.subresource == ("" if operation == "CREATE" else "resize")
    return not ctx.subresource


async def _limits_of(ctx: Context, obj: Object) -> Sequence[Sequence[Object]]:
    """The limits of each LimitRange of the namespace."""
    served = ctx.catalog.find("", "v1", "limitranges")
    if served is None:
        return ()
    listing = await ctx.objects.list(served, meta(obj)["namespace"], _EVERYTHING)
    return [(orjson.loads(value).get("spec") or {}).get("limits") or () for value in listing.values]


def _default_containers(pod: Object, limits: Sequence[Object]) -> None:
    """Upstream: mergePodResourceRequirements. What was set is told in an annotation."""
    defaults: dict[str, dict[str, str]] = {"limits": {}, "requests": {}}
    for item in limits:
        if item.get("type") == "Container":
            defaults["limits"].update(item.get("default") or {})
            defaults["requests"].update(item.get("defaultRequest") or {})
    if not any(defaults.values()):
        return
    told = []
    spec = pod.get("spec") or {}
    for field, what in (("containers", "container"), ("initContainers", "init container")):
        for container in spec.get(field) or ():
            for kind, word in (("requests", "request"), ("limits", "limit")):
                new = _merged(container, kind, defaults[kind])
                if new:
                    told.append(f"{', '.join(sorted(new))} {word} for {what} {container.get('name', '')}")
    if told:
        annotations = {**(meta(pod).get("annotations") or {})}
        annotations[_ANNOTATION] = f"LimitRanger plugin set: {'; '.join(told)}"
        meta(pod)["annotations"] = annotations


def _merged(container: Object, kind: str, defaults: Mapping[str, str]) -> Sequence[str]:
    """The names that the container had nothing for, and has now."""
    resources = container.get("resources") or {}
    given = resources.get(kind) or {}
    new = [name for name in defaults if name not in given]
    if new:
        container["resources"] = {**resources, kind: {**given, **{name: defaults[name] for name in new}}}
    return new


def _pod_problems(pod: Object, limits: Sequence[Object]) -> Iterator[str]:
    spec = pod["spec"]
    containers = (*(spec.get("containers") or ()), *(spec.get("initContainers") or ()))
    for item in limits:
        if item["type"] == "Container":
            for one in containers:
                resources = one.get("resources") or {}
                asked, most = (amounts.read(resources.get(kind)) for kind in ("requests", "limits"))
                yield from _problems(item, asked, most)
        elif item["type"] == "Pod":
            asked = amounts.pod_requests(pod, with_status=False)
            yield from _problems(item, asked, amounts.pod_limits(pod, with_status=False))


def _claim_problems(claim: Object, limits: Sequence[Object]) -> Iterator[str]:
    asked = amounts.read(((claim.get("spec") or {}).get("resources") or {}).get("requests"))
    for item in limits:
        if item["type"] == "PersistentVolumeClaim":
            for name, least in sorted(amounts.read(item.get("min")).items()):
                yield from _below(item["type"], name, least, asked, {})
            for name, most in sorted(amounts.read(item.get("max")).items()):
                bound = f"maximum {name} usage per {item['type']} is {most}"
                if name not in asked:
                    yield f"{bound}.  No request is specified"
                elif asked[name] > most:
                    yield f"{bound}, but request is {asked[name]}"


def _problems(item: Object, asked: Amounts, most: Amounts) -> Iterator[str]:
    kind = item["type"]
    for name, bound in sorted(amounts.read(item.get("min")).items()):
        yield from _below(kind, name, bound, asked, most)
    for name, bound in sorted(amounts.read(item.get("max")).items()):
        yield from _above(kind, name, bound, asked, most)
    for name, bound in sorted(amounts.read(item.get("maxLimitRequestRatio")).items()):
        yield from _too_far_apart(kind, name, bound, asked, most)


def _below(kind: str, name: str, bound: Quantity, asked: Amounts, most: Amounts) -> Iterator[str]:
    told = f"minimum {name} usage per {kind} is {bound}"
    if name not in asked:
        yield f"{told}.  No request is specified"
    elif asked[name] < bound:
        yield f"{told}, but request is {asked[name]}"
    elif name in most and most[name] < bound:
        yield f"{told}, but limit is {most[name]}"


def _above(kind: str, name: str, bound: Quantity, asked: Amounts, most: Amounts) -> Iterator[str]:
    told = f"maximum {name} usage per {kind} is {bound}"
    if name not in most:
        yield f"{told}.  No limit is specified"
    elif most[name] > bound:
        yield f"{told}, but limit is {most[name]}"
    elif name in asked and asked[name] > bound:
        yield f"{told}, but request is {asked[name]}"


def _too_far_apart(kind: str, name: str, bound: Quantity, asked: Amounts, most: Amounts) -> Iterator[str]:
    told = f"{name} max limit to request ratio per {kind} is {bound}"
    if asked.get(name, ZERO) == ZERO:
        yield f"{told}, but no request is specified or request is 0"
    elif most.get(name, ZERO) == ZERO:
        yield f"{told}, but no limit is specified or limit is 0"
    else:
        ratio = quotient(most[name], asked[name])
        if ratio > quotient(bound, amounts.ONE):
            yield f"{told}, but provided ratio is {ratio:f}"
