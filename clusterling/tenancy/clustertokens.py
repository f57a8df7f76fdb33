"""The tokens of a logical cluster as the platform sees them: the subresource `tokens` of a LogicalCluster in `root`.

GET lists what was issued, POST issues, PUT puts a new secret in the place of one (rotates it), DELETE `?name=` revokes.
A secret is in the answer of the POST or PUT that made it, and nowhere else: what is kept is a hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final

from clusterling.machinery.errors import (
    FieldError,
    already_exists,
    bad_request,
    invalid,
    invalid_value,
    not_found,
    required,
)
from clusterling.machinery.meta import Object, rfc3339
from clusterling.machinery.names import is_dns1123_label
from clusterling.registry.resource import Subresource, SubresourceCall
from clusterling.registry.strategy import Context
from clusterling.storage.store import KeyExists
from clusterling.tenancy.authentication.tokens import IssuedTokens, Token, is_for_unnamed
from clusterling.tenancy.authorization import MASTERS
from clusterling.tenancy.cluster import GROUP, PLURAL, VERSION

KIND: Final = "ClusterToken"
TOKENS: Final = "clustertokens"

LIFETIME_MIN_S: Final = 10
LIFETIME_MAX_S: Final = 10 * 366 * 86_400
LISTED_MAX: Final = 500  # Tokens in one answer.


def tokens_part(tokens: IssuedTokens) -> Subresource:
    """The subresource, over these tokens."""

    async def call(ctx: Context, call: SubresourceCall) -> Object:
        if call.parent is None:
            raise not_found(PLURAL, GROUP, call.name)
        realm = call.parent["status"]["id"]
        if call.verb == "get":
            return await _list(tokens, realm, call)
        if call.verb == "delete":
            return await _revoke(tokens, realm, call, dry_run=ctx.dry_run)
        name, lifetime_s = _asked(call.body or {}, name_required=call.verb == "update")
        if ctx.dry_run:
            raise bad_request("a token cannot be had in a dry run: it is a new credential")
        if call.verb == "update":
            return await _rotate(tokens, realm, name, lifetime_s)
        return await _issue(ctx, tokens, call, name, lifetime_s)

    return Subresource("tokens", GROUP, VERSION, KIND, ("create", "delete", "get", "update"), call)


async def _list(tokens: IssuedTokens, realm: str, call: SubresourceCall) -> Object:
    text, after = _first(call, "limit") or "0", _first(call, "continue")
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise bad_request("limit is not a number of tokens")
    if not after.isascii() or not (after.isalnum() or not after):
        raise bad_request("continue is not what an earlier answer said")
    limit = min(int(text) or LISTED_MAX, LISTED_MAX)
    found, more = await tokens.issued(realm, after=after, limit=limit)
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": f"{KIND}List",
        "metadata": {"continue": more} if more else {},
        "items": [_shown(one) for one in found],
    }


async def _issue(
    ctx: Context, tokens: IssuedTokens, call: SubresourceCall, name: str, lifetime_s: int | None
) -> Object:
    assert call.parent is not None, "asked before"
    now = ctx.ports.clock.now()
    expires_at = None if lifetime_s is None else int(now.timestamp()) + lifetime_s
    try:
        token, made = await tokens.make(
            call.parent["status"]["id"],
            f"clusterling:admin:{call.name}",
            (MASTERS, "system:authenticated"),
            expires_at=expires_at,
            name=name,
        )
    except KeyExists as error:
        raise already_exists(TOKENS, GROUP, name) from error
    return _shown(made, token)


async def _rotate(tokens: IssuedTokens, realm: str, name: str, lifetime_s: int | None) -> Object:
    rotated = await tokens.rotate(realm, name, lifetime_s=lifetime_s)
    if rotated is None:
        raise not_found(TOKENS, GROUP, name)
    token, made = rotated
    return _shown(made, token)


async def _revoke(tokens: IssuedTokens, realm: str, call: SubresourceCall, *, dry_run: bool) -> Object:
    name = _first(call, "name")
    if not name:
        raise bad_request("say which token is to be revoked: ?name=")
    found = None
    if not is_dns1123_label(name):
        found = await (tokens.named(realm, name) if dry_run else tokens.revoke(realm, name))
    if found is None:
        raise not_found(TOKENS, GROUP, name)
    return _shown(found)


def _first(call: SubresourceCall, parameter: str) -> str:
    return (call.query.get(parameter) or ("",))[0]


def _asked(body: Object, *, name_required: bool) -> tuple[str, int | None]:
    """The name and the lifetime in seconds that a body asks for; "" and None where it does not. Raises ApiError 422."""
    metadata, spec = (body.get(part) or {} for part in ("metadata", "spec"))
    if not isinstance(metadata, dict) or not isinstance(spec, dict):
        raise bad_request("metadata and spec are objects")
    name, seconds = metadata.get("name") or "", spec.get("expirationSeconds")
    wrong = _name_problems(name, required_=name_required)
    wrong += [
        invalid_value(f"spec.{field}", None, "is not a field of a token's spec")
        for field in spec
        if field != "expirationSeconds"
    ][:1]
    if seconds is not None and not _is_lifetime(seconds):
        why = f"must be from {LIFETIME_MIN_S} to {LIFETIME_MAX_S}"
        wrong.append(invalid_value("spec.expirationSeconds", seconds, why))
    if wrong:
        raise invalid(KIND, GROUP, str(name)[:63], wrong)
    return name, seconds


def _name_problems(name: Any, *, required_: bool) -> list[FieldError]:
    if not name:
        return [required("metadata.name", "which token is meant")] if required_ else []
    problems: Sequence[str] = is_dns1123_label(name) if isinstance(name, str) else ("must be a string",)
    if not problems and not required_ and is_for_unnamed(name):
        problems = ("is of the form that tokens without a name are given",)
    return [invalid_value("metadata.name", name, problem) for problem in problems]


def _is_lifetime(seconds: Any) -> bool:
    return type(seconds) is int and LIFETIME_MIN_S <= seconds <= LIFETIME_MAX_S


def _shown(token: Token, secret: str = "") -> Object:
    """A ClusterToken; with its secret where it is new."""
    status: Object = {
        "user": token.user.name,
        "groups": list(token.user.groups),
        "audiences": list(token.audiences),
    }
    if token.expires_at is not None:
        status["expirationTimestamp"] = rfc3339(datetime.fromtimestamp(token.expires_at, UTC))
    if secret:
        status["token"] = secret
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": token.name, "creationTimestamp": token.issued},
        "status": status,
    }
