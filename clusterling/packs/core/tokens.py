"""serviceaccounts/token: a token with which someone is that account, for a while.

Ours are random, not signed: they are looked up where upstream's are verified, so nobody reads anything out of them.
Upstream: kubernetes pkg/registry/core/serviceaccount/storage/token.go, pkg/apis/authentication/validation.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery.errors import (
    FieldError,
    bad_request,
    conflict,
    invalid,
    invalid_value,
    not_found,
)
from clusterling.machinery.meta import GroupVersion, Object, meta, rfc3339
from clusterling.packs import builtin
from clusterling.registry.ports import API_AUDIENCE
from clusterling.registry.resource import Names, Resource, Served, Subresource, SubresourceCall, Version
from clusterling.registry.strategy import Context, Strategy

GROUP: Final = "authentication.k8s.io"
KIND: Final = "TokenRequest"

SECONDS_MIN: Final = 600
SECONDS_MAX: Final = 1 << 32
SECONDS: Final = 3600
# What a token may live at most, however long is asked for: each is a row in the store until then.
LIFETIME_MAX_S: Final = 366 * 24 * 3600

# What a token may be bound to: it must be there when the token is made.
_BINDABLE: Final = {"Pod": "pods", "Node": "nodes", "Secret": "secrets"}


async def request_token(ctx: Context, call: SubresourceCall) -> Object:
    """Answers a TokenRequest. Raises ApiError."""
    request = call.body or {}
    metadata, spec = request.get("metadata") or {}, dict(request.get("spec") or {})
    for field, own in (("name", call.name), ("namespace", call.namespace)):
        given = metadata.get(field)
        if given and given != own:
            why = f"must match the service account {field} if specified"
            raise invalid(KIND, GROUP, call.name, [invalid_value(f"metadata.{field}", given, why)])
    if call.parent is None:
        raise not_found("serviceaccounts", "", call.name)
    uid = meta(call.parent)["uid"]
    if metadata.get("uid") not in (None, "", uid):
        why = f"the UID in the token request ({metadata['uid']}) does not match the UID of the service account ({uid})"
        raise conflict(KIND, GROUP, call.name, why)
    spec["audiences"] = spec.get("audiences") or [API_AUDIENCE]
    if spec.get("expirationSeconds") is None:
        spec["expirationSeconds"] = SECONDS
    spec.setdefault("boundObjectRef", None)
    wrong = _problems(spec)
    if wrong:
        raise invalid(KIND, GROUP, "", wrong)
    await _check_bound(ctx, call, spec["boundObjectRef"])
    return await _issued(ctx, call, request, spec, uid)


async def _issued(ctx: Context, call: SubresourceCall, request: Object, spec: Object, uid: str) -> Object:
    seconds = spec["expirationSeconds"]
    if seconds > LIFETIME_MAX_S:
        ctx.warn(f"requested expiration of {seconds} seconds shortened to {LIFETIME_MAX_S} seconds")
        spec["expirationSeconds"] = seconds = LIFETIME_MAX_S
    now = ctx.ports.clock.now()
    expires_at = int(now.timestamp()) + seconds
    token = ""
    if not ctx.dry_run:
        token = await ctx.ports.tokens.issue(
            ctx.cluster_id,
            f"system:serviceaccount:{call.namespace}:{call.name}",
            (
                "system:serviceaccounts",
                f"system:serviceaccounts:{call.namespace}",
                "system:authenticated",
            ),
            uid=uid,
            audiences=tuple(spec["audiences"]),
            expires_at=expires_at,
        )
    return {
        "kind": KIND,
        "apiVersion": f"{GROUP}/v1",
        "metadata": {
            **(request.get("metadata") or {}),
            "name": call.name,
            "namespace": call.namespace,
            "uid": uid,
            "creationTimestamp": rfc3339(now),
        },
        "spec": spec,
        "status": {
            "token": token,
            "expirationTimestamp": rfc3339(now.fromtimestamp(expires_at, now.tzinfo)),
        },
    }


def _problems(spec: Object) -> list[FieldError]:
    seconds, attestations = spec["expirationSeconds"], spec.get("attestations")
    if attestations:
        why = "attestations may only be specified with a webhook bound object reference"
        return [invalid_value("spec.attestations", attestations, why)]
    if seconds < SECONDS_MIN:
        why = "may not specify a duration less than 10 minutes"
    elif seconds > SECONDS_MAX:
        why = "may not specify a duration larger than 2^32 seconds"
    else:
        return []
    return [invalid_value("spec.expirationSeconds", seconds, why)]


async def _check_bound(ctx: Context, call: SubresourceCall, bound: Object | None) -> None:
    if bound is None:
        return
    kind, name = bound.get("kind") or "", bound.get("name") or ""
    group_version = GroupVersion.parse(bound.get("apiVersion") or "")
    if group_version.group or kind not in _BINDABLE:
        where = f"{group_version.group}/{group_version.version}"
        raise bad_request(f"cannot bind token to object of type {where}, Kind={kind}")
    plural = _BINDABLE[kind]
    served = ctx.catalog.find("", "v1", plural)
    namespace = "" if kind == "Node" else call.namespace
    found = None if served is None else await ctx.objects.read(served, namespace, name)
    if found is None:
        raise not_found(plural, "", name)
    if kind == "Pod" and (found.get("spec") or {}).get("serviceAccountName") != call.name:
        raise bad_request(
            f'cannot bind token for serviceaccount "{call.name}" to pod running with different serviceaccount name.'
        )
    if bound.get("uid") and bound["uid"] != meta(found)["uid"]:
        why = (
            f"the UID in the bound object reference ({bound['uid']}) does not match the UID in record. "
            "The object might have been deleted and then recreated"
        )
        raise conflict(kind, "", name, why)


# Never served by itself: how the body of the subresource is read.
_REQUESTS: Final = Resource(
    group=GROUP,
    names=Names("tokenrequests", "tokenrequest", KIND, f"{KIND}List"),
    namespaced=True,
    versions=(Version("v1", builtin.schema_of(GROUP, "v1", KIND)),),
    storage_version="v1",
    strategy=Strategy(),
)

TOKEN: Final = Subresource(
    "token",
    GROUP,
    "v1",
    KIND,
    ("create",),
    request_token,
    bodies=(Served(_REQUESTS, _REQUESTS.versions[0]),),
)
