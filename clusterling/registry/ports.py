"""What registry and packs need from above, as Protocols that `tenancy` implements and `server.py` hands down."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

from clusterling.machinery.meta import Object
from clusterling.storage.cache import Turn, give_way

if TYPE_CHECKING:
    from clusterling.registry.strategy import User

# The audience of a token that is meant for the API itself, as clients ask for one by default.
API_AUDIENCE: Final = "https://kubernetes.default.svc"

# The ConfigMap of every namespace that says whom clients of this server trust.
ROOT_CA: Final = "kube-root-ca.crt"


class Clock(Protocol):
    """The server's one source of time, so that tests may turn it."""

    def now(self) -> datetime:
        """The wall clock, aware, UTC."""

    def monotonic(self) -> float:
        """Seconds that never go back; only differences mean anything."""


class TokenIssuer(Protocol):
    """Makes credentials for one logical cluster."""

    async def issue(
        self,
        cluster_id: str,
        user: str,
        groups: tuple[str, ...],
        *,
        uid: str = "",
        audiences: tuple[str, ...] = (API_AUDIENCE,),
        expires_at: int | None = None,
    ) -> str:
        """A bearer token that authenticates as that user in that cluster, stored hashed. Shown this once.

        It means nothing to others than those `audiences`, nor at `expires_at` (whole seconds since the epoch) and later.
        """


class TokenReader(Protocol):
    """Knows whose tokens are."""

    async def authenticate_token(
        self, token: str, cluster_id: str | None, audiences: tuple[str, ...] = (API_AUDIENCE,)
    ) -> User | None:
        """The user whose token this is on that cluster, for one of these audiences. None: nobody's."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What someone would do: a verb on a resource, or with `path` on what is no resource. Empty fields name all there are."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""


class Access(Protocol):
    """Who may do what, by the rules that requests are authorized by."""

    async def allows(self, user: User, cluster: str, asked: Attributes) -> tuple[bool, str]:
        """Whether the user may do that in the logical cluster of that name, and why."""


class Nobody:
    """Knows no token and allows nothing: where reviews are not served."""

    async def authenticate_token(
        self, token: str, cluster_id: str | None, audiences: tuple[str, ...] = (API_AUDIENCE,)
    ) -> User | None:
        return None

    async def allows(self, user: User, cluster: str, asked: Attributes) -> tuple[bool, str]:
        return False, ""


_NOBODY: Final = Nobody()


class KubeconfigMaker(Protocol):
    """Knows how clients reach this server."""

    def kubeconfig(self, cluster: str, token: str) -> Object:
        """A kubeconfig document for the logical cluster, with the server's CA embedded."""

    def url(self, cluster: str) -> str:
        """Where clients reach the logical cluster, or "" where no socket serves it."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything from above, in one value. Tests and embedders may put their own in.

    `root_ca`: the certificates that clients of this server trust, PEM; "" those that their system does. `turns`: of the logical
    cluster with that id, for its own long work, which is no request's.
    """

    clock: Clock
    tokens: TokenIssuer
    kubeconfigs: KubeconfigMaker
    reader: TokenReader = _NOBODY
    access: Access = _NOBODY
    root_ca: str = ""
    turns: Callable[[str], Turn] = lambda _cluster_id: give_way
