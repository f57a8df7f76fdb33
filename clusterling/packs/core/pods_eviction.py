"""Eviction: a delete that asks the pod's disruption budget first.

The budget is counted down in one write of its status, decided from what that status is when it commits: two evictions
never share the last disruption allowed. Upstream: kubernetes pkg/registry/core/pod/storage/eviction.go.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final, cast

import msgspec
import orjson

from clusterling.machinery import errors
from clusterling.machinery.errors import ApiError, invalid_value
from clusterling.machinery.meta import Object, meta, name_of, namespace_of, rfc3339
from clusterling.machinery.selectors import LabelSelector
from clusterling.packs import builtin
from clusterling.packs.core.pods_binding import DONE
from clusterling.packs.core.pods_defaults import is_ready, set_condition
from clusterling.registry.options import DeleteOptions, ListOptions, Propagation, WriteOptions
from clusterling.registry.resource import Names, Resource, Served, SubresourceCall, Version
from clusterling.registry.strategy import Context, Strategy

TRIES: Final = 20  # Upstream: EvictionsRetry.
DISRUPTED_PODS_MAX: Final = 2000
RETRY_AFTER_S: Final = 10

_REFUSED: Final = "Cannot evict pod as it would violate the pod's disruption budget."


def _kind(version: str) -> Served:
    """Eviction is a kind without a collection; v1beta1 is published no more, and is the same."""
    schema = builtin.schema_of("policy", "v1", "Eviction")
    resource = Resource(
        group="policy",
        names=Names("evictions", "eviction", "Eviction", "EvictionList"),
        namespaced=True,
        versions=(Version(version, schema),),
        storage_version=version,
        strategy=Strategy(),
        verbs=(),
    )
    return Served(resource, resource.versions[0])


EVICTIONS: Final = (_kind("v1"), _kind("v1beta1"))


async def evict(ctx: Context, call: SubresourceCall) -> Object:
    """`pods/eviction`."""
    eviction = call.body
    assert eviction is not None, "an eviction is made by a create"
    if name_of(eviction) != call.name:
        raise errors.bad_request("name in URL does not match name in Eviction object")
    asked: Object = eviction.get("deleteOptions") or {}
    field = "ignoreStoreReadErrorWithClusterBreakingPotential"
    if asked.get(field):
        why = "can not be set for pod eviction, try after removing the option"
        raise errors.invalid(
            "Eviction", "policy", call.name, [invalid_value(f"deleteOptions.{field}", True, why)]
        )
    options = _options(asked)
    if options.dry_run:
        ctx = msgspec.structs.replace(ctx, dry_run=True)
    served = ctx.catalog.find("", "v1", "pods")
    assert served is not None, "this is a subresource of theirs"
    for _ in range(TRIES):
        pod = await ctx.objects.read(served, call.namespace, call.name)
        if pod is None:
            raise errors.not_found("pods", "", call.name)
        if not _ignores_budgets(pod):
            break
        try:
            await _remove(ctx, served, pod, options, exactly=_must_be_the_same(pod))
        except ApiError as error:
            if error.reason != "Conflict" or options.resource_version:
                raise
        else:
            return DONE
    else:
        raise errors.conflict("pods", "", call.name)
    return await _within_budget(ctx, served, pod, options)


def _options(asked: Object) -> DeleteOptions:
    conditions = asked.get("preconditions") or {}
    policy = asked.get("propagationPolicy") or ""
    if asked.get("orphanDependents") is not None:
        policy = "Orphan" if asked["orphanDependents"] else "Background"
    return DeleteOptions(
        dry_run=bool(asked.get("dryRun")),
        uid=conditions.get("uid") or "",
        resource_version=conditions.get("resourceVersion") or "",
        propagation=cast(Propagation, policy),
        grace_period_s=asked.get("gracePeriodSeconds"),
    )


def _phase(pod: Object) -> str:
    return str((pod.get("status") or {}).get("phase") or "")


def _ignores_budgets(pod: Object) -> bool:
    """A pod that does not run, or is on its way, is no further disruption."""
    return _phase(pod) in ("Succeeded", "Failed", "Pending") or "deletionTimestamp" in meta(pod)


def _must_be_the_same(pod: Object) -> bool:
    """A pending pod may have become ready meanwhile, and so one that a budget counts."""
    return _phase(pod) not in ("Succeeded", "Failed") and "deletionTimestamp" not in meta(pod)


async def _within_budget(ctx: Context, served: Served, pod: Object, options: DeleteOptions) -> Object:
    budgets = await _budgets_of(ctx, pod)
    if len(budgets) > 1:
        why = (
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
        raise ApiError(500, "", why)
    if not budgets:
        await _remove(ctx, served, pod, options)
        return DONE
    if _is_no_disruption(pod, budgets[0]):
        try:
            await _remove(ctx, served, pod, options, exactly=True)
        except ApiError as error:
            if error.reason == "Conflict" and not options.resource_version:
                raise _still_processed(name_of(budgets[0])) from error
            raise
        return DONE
    await _count_down(ctx, budgets[0], pod)
    await _remove(ctx, served, pod, options)
    return DONE


async def _budgets_of(ctx: Context, pod: Object) -> list[Object]:
    served = ctx.catalog.find("policy", "v1", "poddisruptionbudgets")
    if served is None:
        return []
    listing = await ctx.objects.list(served, namespace_of(pod), ListOptions())
    labels = meta(pod).get("labels") or {}
    return [one for one in map(orjson.loads, listing.values) if _selects(one, labels)]


def _selects(budget: Object, labels: dict[str, str]) -> bool:
    selector = (budget.get("spec") or {}).get("selector")
    if selector is None:
        return False
    try:
        return LabelSelector.from_object(selector).matches(labels)
    except ValueError:
        return False


def _is_no_disruption(pod: Object, budget: Object) -> bool:
    """A pod that is not ready may go where the budget says so, or where enough others are healthy."""
    if is_ready(pod):
        return False
    status = budget.get("status") or {}
    wanted = status.get("desiredHealthy") or 0
    always = (budget.get("spec") or {}).get("unhealthyPodEvictionPolicy") == "AlwaysAllow"
    return always or (wanted > 0 and (status.get("currentHealthy") or 0) >= wanted)


async def _count_down(ctx: Context, budget: Object, pod: Object) -> None:
    """Takes one disruption of the budget, or raises ApiError: 429, 403."""
    now = rfc3339(ctx.ports.clock.now())

    def counted(current: Object) -> Object:
        status = current.setdefault("status", {})
        _check_budget(current, status)
        status["disruptionsAllowed"] -= 1
        if not status["disruptionsAllowed"]:
            _tell_insufficient(current, status, now)
        status["disruptedPods"] = {**(status.get("disruptedPods") or {}), name_of(pod): now}
        return current

    if ctx.dry_run:
        counted(budget)
        return
    served = ctx.catalog.find("policy", "v1", "poddisruptionbudgets")
    assert served is not None, "it has just been listed"
    within = msgspec.structs.replace(ctx, subresource="status")
    await ctx.objects.patch(within, served, namespace_of(budget), name_of(budget), counted, WriteOptions())


def _check_budget(budget: Object, status: Object) -> None:
    name, allowed = name_of(budget), status.get("disruptionsAllowed") or 0
    if (status.get("observedGeneration") or 0) < (meta(budget).get("generation") or 0):
        raise _still_processed(name)
    if allowed < 0:
        raise _forbidden(name, "pdb disruptions allowed is negative", "pdb disruptions allowed is negative")
    if len(status.get("disruptedPods") or ()) > DISRUPTED_PODS_MAX:
        why = "too many pending evictions not confirmed by PDB controller"
        raise _forbidden(
            name, "DisruptedPods map too big - too many evictions not confirmed by PDB controller", why
        )
    if not allowed:
        causes = [{"reason": "DisruptionBudget", "message": _why_none(name, status)}]
        raise ApiError(429, "TooManyRequests", _REFUSED, {"causes": causes})


def _why_none(name: str, status: Object) -> str:
    found = [one for one in status.get("conditions") or () if one.get("type") == "DisruptionAllowed"]
    condition = found[0] if found else {}
    message = condition.get("message") or ""
    told = condition.get("status") == "False" and bool(message)
    refused = f"The disruption budget {name} does not allow evicting pods currently"
    if told and condition.get("reason") == "SyncFailed":
        return f"{refused} because it failed sync: {message}"
    wanted, healthy = status.get("desiredHealthy") or 0, status.get("currentHealthy") or 0
    if healthy <= wanted:
        return f"The disruption budget {name} needs {wanted} healthy pods and has {healthy} currently"
    return f"{refused} ({condition.get('reason', '')}): {message}" if told else refused


def _forbidden(name: str, why: str, cause: str) -> ApiError:
    error = errors.forbidden("poddisruptionbudget", "policy", name, why)
    assert error.details is not None, "forbidden names what it forbids"
    text = f"The disruption budget {name} does not allow evicting pods currently: {cause}"
    error.details["causes"] = [{"reason": "DisruptionBudget", "message": text}]
    return error


def _still_processed(name: str) -> ApiError:
    text = f"The disruption budget {name} is still being processed by the server."
    error = errors.too_many_requests(_REFUSED, RETRY_AFTER_S)
    assert error.details is not None, "it tells when to come again"
    error.details["causes"] = [{"reason": "DisruptionBudget", "message": text}]
    return error


def _tell_insufficient(budget: Object, status: Object, now: str) -> None:
    """Upstream: component-helpers/apps/poddisruptionbudget, UpdateDisruptionAllowedCondition."""
    made = {
        "type": "DisruptionAllowed",
        "status": "False",
        "observedGeneration": status.get("observedGeneration") or 0,
        "lastTransitionTime": now,
        "reason": "InsufficientPods",
        "message": "",
    }
    kept = []
    for one in status.get("conditions") or ():
        if one.get("type") != "DisruptionAllowed":
            kept.append(one)
        elif one.get("status") == "False":
            made["lastTransitionTime"] = one.get("lastTransitionTime", now)
    status["conditions"] = [*kept, made]


async def _remove(
    ctx: Context, served: Served, pod: Object, options: DeleteOptions, *, exactly: bool = False
) -> None:
    """Says on the pod why it goes, and deletes it. `exactly`: only as it was seen."""
    name, namespace = name_of(pod), namespace_of(pod)
    if exactly and not options.resource_version:
        options = replace(options, resource_version=meta(pod)["resourceVersion"])
    if not ctx.dry_run:

        def told(current: Object) -> Object:
            _check_preconditions(current, options)
            now = ctx.ports.clock.now()
            set_condition(
                current, now, "DisruptionTarget", "True", "EvictionByEvictionAPI", "Eviction API: evicting"
            )
            return current

        value = await ctx.objects.patch(ctx, served, namespace, name, told, WriteOptions())
        if options.resource_version:
            options = replace(options, resource_version=orjson.loads(value)["metadata"]["resourceVersion"])
    await ctx.objects.delete(ctx, served, namespace, name, options)


def _check_preconditions(pod: Object, options: DeleteOptions) -> None:
    metadata = meta(pod)
    if options.uid and options.uid != metadata["uid"]:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({metadata['uid']}). "
            "The object might have been deleted and then recreated"
        )
        raise errors.conflict("Pod", "", name_of(pod), why)
    if options.resource_version and options.resource_version != metadata["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the "
            f"ResourceVersion in record ({metadata['resourceVersion']}). The object might have been modified"
        )
        raise errors.conflict("Pod", "", name_of(pod), why)
