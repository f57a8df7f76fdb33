"""What registry and packs need from above, as Protocols that `tenancy` implements and `server.py` hands down."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from clusterling.machinery.meta import Object


class Clock(Protocol):
    """The server's one source of time, so that tests may turn it."""

    def now(self) -> datetime:
        """The wall clock, aware, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""


class TokenIssuer(Protocol):
    """Makes credentials for one logical cluster."""

    async def issue(self, cluster_id: str, user: str, groups: tuple[str, ...]) -> str:
        """A bearer token that authenticates as that user in that cluster, stored hashed. Shown this once."""


class KubeconfigMaker(Protocol):
    """Knows how clients reach this server."""

    def kubeconfig(self, cluster: str, token: str) -> Object:
        """A kubeconfig document for the logical cluster, with the server's CA embedded."""

    def url(self, cluster: str) -> str:
        """Where clients reach the logical cluster, or "" where no socket serves it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything from above, in one value. Tests and embedders may put their own in."""

    clock: Clock
    tokens: TokenIssuer
    kubeconfigs: KubeconfigMaker
