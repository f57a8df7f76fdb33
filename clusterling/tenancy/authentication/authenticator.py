"""From a credential and its target to a User: the union of all who may know a token, and the rule of realms.

A token is looked up in the realm of the logical cluster it is used on, then in `root`'s, and nowhere else: so a
user's realm is the target's or root's by construction (decision 21).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from clusterling.registry.ports import API_AUDIENCE
from clusterling.registry.strategy import User
from clusterling.tenancy.authentication.tokens import TOKEN_CHARACTERS_MAX, token_hash
from clusterling.tenancy.names import ROOT_ID

# The realm of names that mean no cluster. No id has this form, so nothing is ever found here; asking anyway makes
# a cluster that is not there cost what one that is does (decision 22).
NOWHERE: Final = "-"


class TokenSource(Protocol):
    """Someone who knows tokens."""

    async def find(
        self, digest: str, realms: Sequence[str], audiences: tuple[str, ...] = (API_AUDIENCE,)
    ) -> User | None:
        """The user whose token has this hash in the first of these realms that knows it, with that realm.

        None too where the token is meant for none of these audiences.
        """


def bearer_token(authorization: str | None) -> str | None:
    """The token of an Authorization header, or None where it carries none (upstream: bearertoken.go).

    The scheme is compared without case; what follows the token after a space is ignored.
    """
    if not authorization:
        return None
    parts = authorization.strip().split(" ", 2)
    if len(parts) < 2 or parts[0].lower() != "bearer":
        return None
    return parts[1] or None


class Tokens:
    """Authenticates bearer tokens by several sources, in order; the first who knows the token decides."""

    def __init__(self, sources: Sequence[TokenSource]) -> None:
        self._sources = tuple(sources)

    async def authenticate_token(
        self,
        token: str,
        cluster_id: str | None,
        audiences: tuple[str, ...] = (API_AUDIENCE,),
        *,
        digest: str = "",
    ) -> User | None:
        """The user whose token this is on that cluster; `cluster_id` None: the request's name means no cluster.

        `digest`: the token's hash, where that is known. Implements `registry.ports.TokenReader`.
        """
        if len(token) > TOKEN_CHARACTERS_MAX:
            return None
        realms = (ROOT_ID,) if cluster_id == ROOT_ID else (cluster_id or NOWHERE, ROOT_ID)
        digest = digest or token_hash(token)
        for source in self._sources:
            user = await source.find(digest, realms, audiences)
            if user is not None and may_enter(user, cluster_id):
                return user
        return None


def may_enter(user: User, cluster_id: str | None) -> bool:
    """Whether an identity of that realm may be used on that cluster at all: its own, or root's (decision 21)."""
    return user.realm in (ROOT_ID, cluster_id)
