"""authentication.k8s.io/v1: whose a token is, and who asks. Questions that are answered, and not kept.

Upstream: kubernetes pkg/registry/authentication.
"""

from __future__ import annotations

from typing import Final

from clusterling.machinery.errors import bad_request
from clusterling.machinery.meta import Object, rfc3339
from clusterling.packs import builtin
from clusterling.registry.pack import Pack
from clusterling.registry.ports import API_AUDIENCE
from clusterling.registry.strategy import Context, User

GROUP: Final = "authentication.k8s.io"


def user_info(user: User) -> Object:
    """A user as a UserInfo; what is empty is left out."""
    info = {
        "username": user.name,
        "uid": user.uid,
        "groups": list(user.groups),
        "extra": {key: list(values) for key, values in user.extra},
    }
    return {field: value for field, value in info.items() if value}


async def _whose(ctx: Context, review: Object, _namespace: str) -> Object:
    spec = review.get("spec") or {}
    token, audiences = spec.get("token"), tuple(spec.get("audiences") or (API_AUDIENCE,))
    if not token:
        raise bad_request("token is required for TokenReview in authentication")
    user = await ctx.ports.reader.authenticate_token(token, ctx.cluster_id, audiences)
    if user is None:
        status: Object = {"user": {}, "error": "invalid bearer token"}
    else:
        # Of those asked about, which the token is for is known only where one was.
        status = {"authenticated": True, "user": user_info(user)}
        if len(audiences) == 1:
            status["audiences"] = list(audiences)
    return {**review, "spec": spec, "status": status}


async def _who(ctx: Context, review: Object, _namespace: str) -> Object:
    return {
        "kind": review["kind"],
        "apiVersion": review["apiVersion"],
        "metadata": {"creationTimestamp": rfc3339(ctx.ports.clock.now())},
        "status": {"userInfo": user_info(ctx.user)},
    }


TOKENREVIEWS: Final = builtin.resource(GROUP, "v1", "tokenreviews", review=_whose)
SELFSUBJECTREVIEWS: Final = builtin.resource(GROUP, "v1", "selfsubjectreviews", review=_who)

PACK: Final = Pack("authentication", (SELFSUBJECTREVIEWS, TOKENREVIEWS))
