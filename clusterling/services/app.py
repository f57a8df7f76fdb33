"""App: the API as a function from Request to Response. The filters in their order, then dispatch by verb.

It knows no socket and no store: `server.py` hands in who authenticates, who authorizes and where the clusters are.
`services/http.py` brings requests from the network, `services/client.py` from the same process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakKeyDictionary

from msgspec import Struct

from clusterling.machinery.errors import no_such_resource
from clusterling.machinery.schema import Schema
from clusterling.machinery.steps import Steps
from clusterling.registry.catalog import Catalog
from clusterling.registry.objects import ObjectStore
from clusterling.registry.resource import Resource, Served
from clusterling.registry.strategy import Context, User
from clusterling.services import filters, handlers
from clusterling.services.addresses import Addresses
from clusterling.services.arrivals import Arrivals
from clusterling.services.barrier import Barrier
from clusterling.services.deadlines import Deadlines
from clusterling.services.health import Health
from clusterling.services.kept import Kept
from clusterling.services.metrics.recorder import Recorder
from clusterling.services.metrics.scraping import METRICS_PATHS, NO_PARTS, SLIS_PATH, Metrics, Parts
from clusterling.services.request import BODY_BYTES_MAX, Request, Response, Stream, page_not_found
from clusterling.services.requestinfo import RequestInfo
from clusterling.services.turnstile import Turnstile
from clusterling.services.watch import Streams
from clusterling.services.workers.pool import TooMuch, Workers
from clusterling.tenancy.names import ROOT_ID

if TYPE_CHECKING:
    from clusterling.services.tracing import Tracing


class Cluster(Protocol):
    """A served logical cluster. `await ready()` before `catalog` is read, at each request."""

    @property
    def name(self) -> str: ...

    @property
    def id(self) -> str: ...

    @property
    def catalog(self) -> Catalog: ...

    @property
    def objects(self) -> ObjectStore: ...

    @property
    def access(self) -> str:
        """`SUSPENDED`, `READ_ONLY`, or "" where everything may be done."""

    @property
    def warning(self) -> Callable[[], str] | None:
        """What users are warned of at this moment, "" nothing; None: nothing ever."""

    async def ready(self) -> None: ...

    def context(self, user: User, *, dry_run: bool = False, subresource: str = "") -> Context: ...


class Clusters(Protocol):
    """Where the logical clusters are."""

    async def find(self, name: str) -> Cluster | None:
        """The cluster of that name, if it is there. Must be cheap: nothing is loaded before `ready`."""


class Authenticator(Protocol):
    """Who a request comes from."""

    async def authenticate(self, request: Request) -> User | None:
        """The user, or None where the credential means nobody *on this target*: `request.info.cluster` names it.

        Called only for requests that carry a credential. Takes as long for a cluster that is not there.
        """


class Credentials(Protocol):
    """What streams last no longer than."""

    async def hold(self, request: Request, stream: Stream) -> Callable[[], None]:
        """Stops the stream when the credential ends that its request came with; what is returned is called when it is over."""


class Decision(Struct, frozen=True, gc=False):
    """What an authorizer says. `reason` follows upstream's text in a refusal; it must tell nothing of other tenants."""

    allowed: bool
    reason: str = ""


class Authorizer(Protocol):
    """Who may do what."""

    async def authorize(self, user: User, cluster: Cluster | None, info: RequestInfo) -> Decision:
        """`cluster` None: there is none of that name; only a refusal has an effect then."""


class Seats(Protocol):
    """Requests of one sort in flight."""

    def take(self, tenant: Hashable) -> None:
        """Raises ApiError 429 where there is no seat."""

    def leave(self, tenant: Hashable) -> None: ...


class Limits(Protocol):
    """How many requests of each sort a (realm, cluster) may have in flight."""

    @property
    def requests(self) -> Seats: ...

    @property
    def writes(self) -> Seats: ...

    @property
    def lists(self) -> Seats: ...

    @property
    def leases(self) -> Seats: ...

    @property
    def watches(self) -> Seats: ...

    @property
    def exempt(self) -> Seats: ...


class Rates(Protocol):
    """How much a cluster may do: requests and writes a second, and watches."""

    def admit(
        self, cluster_id: str, name: str, verb: str, *, leads: bool = False
    ) -> Callable[[], None] | None:
        """Raises ApiError 429. What is returned is called when the answer has ended. `leads`: it is of leader election."""


# Answers a path that names no resource (discovery, OpenAPI, version), or None where it is none of its own.
# The catalog is None for what is answered alike for every name, known or not: /version.
# The last does in turns what takes long.
Documents = Callable[
    [Request, Catalog | None, Callable[[Steps[None]], Awaitable[None]]], Awaitable[Response | None]
]

# Told of each request that was answered, after the answer was made. Must not fail and must not wait.
Audit = Callable[[Request, Response], None]


Handler = Callable[[Request], Awaitable[Response]]

REQUEST_TIMEOUT_S: Final = 60.0
DECODING_MAX: Final = (
    2  # Big bodies that are decoded at once, beside the loop; each holds ten times its size.
)
LISTS_BYTES_MAX: Final = (
    32 << 20
)  # Of joined lists, kept for who asks for the same collection before it changes.


_READING: Final = frozenset({"get", "list", "watch"})


class App:
    """Everything between a Request and its Response. Call it: `response = await app(request)`.

    `barrier`: what every request passes that believes what memory says, where there are other replicas.
    `addresses`: the budgets of those who connect; None: with the limits that there are by default.
    `credentials`: what ends open streams with the credential of their request; None: they go on.
    `metrics`: what is told of the rest of the server; None: nothing is counted. `tracing`: what makes spans; None: there are none.
    `workers`: whom writes are given to that would hold the loop for long; None: they are done here.
    `default_cluster` is served at `/`; "" for none. `bound_cluster` instead: only this one, and no `/clusters/` prefix.
    """

    def __init__(
        self,
        *,
        clusters: Clusters,
        authenticator: Authenticator,
        authorizer: Authorizer,
        documents: Documents,
        limits: Limits | None = None,
        rates: Rates | None = None,
        addresses: Addresses | None = None,
        health: Health | None = None,
        audit: Audit | None = None,
        metrics: Parts | None = NO_PARTS,
        metrics_token: str = "",
        barrier: Barrier | None = None,
        credentials: Credentials | None = None,
        default_cluster: str = "",
        bound_cluster: str = "",
        request_timeout_s: float = REQUEST_TIMEOUT_S,
        workers: Workers | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self.clusters = clusters
        self.authenticator = authenticator
        self.authorizer = authorizer
        self.documents = documents
        self.limits = limits
        self.rates = rates
        self.addresses = addresses or Addresses()
        self.health = health or Health()
        self.audit = audit
        self.barrier = barrier
        self.credentials = credentials
        self.default_cluster = default_cluster
        self.bound_cluster = bound_cluster
        self.deadlines = Deadlines(request_timeout_s)
        self.tracing = tracing
        self.errors = 0  # Requests that ended in something unforeseen.
        self.turnstile = Turnstile()
        self.arrivals = Arrivals()
        self.recorder = Recorder()
        self.metrics = (
            None
            if metrics is None
            else Metrics(self.recorder, self.turnstile, metrics, self.health, token=metrics_token)
        )
        self.workers = workers
        self._compiling: WeakKeyDictionary[Schema, asyncio.Lock] = WeakKeyDictionary()
        self._preparing: WeakKeyDictionary[Catalog, asyncio.Lock] = WeakKeyDictionary()
        self.decoding = asyncio.Semaphore(DECODING_MAX)
        self.streams = Streams(
            sent=None if self.metrics is None else self.recorder.sent, turnstile=self.turnstile
        )
        self.lists = Kept(LISTS_BYTES_MAX)
        # Says why controllers are not at work, "" where they are: what they finish waits for them.
        self.controllers: Callable[[], str] = str
        self._handle = self._compose()

    def _compose(self) -> Handler:
        """The filters, outermost first (decision 20)."""
        handle: Handler = self.dispatch
        order: Sequence[filters.Filter] = filters.IN_ORDER
        if self.tracing is not None:
            from clusterling.services import tracing

            order = tracing.among(order)
        for add in reversed(order):
            handle = add(self, handle)
        return handle

    def __call__(self, request: Request) -> Awaitable[Response]:
        """Never raises an ApiError: whatever goes wrong is an answer."""
        return self._handle(request)

    async def dispatch(self, request: Request) -> Response:
        """What stands behind all filters: the verb of a resource, or a document of the cluster."""
        info, cluster = request.info, request.cluster
        assert cluster is not None, "authorization refuses clusters that are not there"
        await cluster.ready()
        catalog = cluster.catalog
        if not info.is_resource:
            return await self._document(request, catalog)
        served = catalog.find(info.group, info.version, info.resource)
        if served is None:
            return _unknown(catalog, info.group)
        request.served = served
        if cluster.access and info.verb not in _READING and served.resource.review is None:
            raise filters.read_only(request, served)
        if served.version.deprecation_warning:
            request.warnings.append(served.version.deprecation_warning)
        misplaced = _placed(served, info)
        if misplaced is not None:
            return misplaced
        if info.explains:
            from clusterling.services import explaining

            return await explaining.respond(self, request, served)
        if not served.version.schema.is_compiled:
            await self._compiled(cluster, served.version.schema)
        verb = handlers.find(served, info, request.method)
        if self.workers is None:
            return await verb(self, request, served)
        if not self.workers.take_unread(request):
            told = len(request.warnings)
            try:
                return await verb(self, request, served)
            except TooMuch:
                # It has found out before it wrote anything, and begins anew elsewhere.
                del request.warnings[told:]
        return await self.workers.respond(request, served, await request.parts(BODY_BYTES_MAX))

    async def _compiled(self, cluster: Cluster, schema: Schema) -> None:
        """Has a large schema compiled, once for all who need it, while others have their turns."""
        async with self._compiling.setdefault(schema, asyncio.Lock()):
            if not schema.is_compiled:
                await self.turnstile.made(cluster.id, schema.compiling())

    async def _prepared(self, request: Request, catalog: Catalog | None, steps: Steps[None]) -> None:
        """Has documents of a catalog made, those of one after the other: what one makes the next will find."""
        assert catalog is not None, "what takes long is made of kinds"
        async with self._preparing.setdefault(catalog, asyncio.Lock()):
            await self.turnstile.made(request.tenant, steps)

    async def _document(self, request: Request, catalog: Catalog) -> Response:
        info = request.info
        if info.path in METRICS_PATHS and self.metrics is not None and request.method in {"GET", "HEAD"}:
            assert request.cluster is not None, "authorization refuses clusters that are not there"
            if request.cluster.id == ROOT_ID or info.path == SLIS_PATH:
                return await self.metrics.everything(request)
            return await self.metrics.of_cluster(request, request.cluster.name, request.cluster.id)
        found = await self.health.respond(info.path, info.query, tells=request.user.realm == ROOT_ID)
        if found is None:
            found = await self.documents(request, catalog, partial(self._prepared, request, catalog))
        return page_not_found() if found is None else found

    async def public(self, request: Request) -> Response | None:
        """The answer to what anybody may ask of any well-formed name: health and version; None for all else."""
        info = request.info
        if info.is_resource or request.method not in {"GET", "HEAD"} or info.path not in PUBLIC_PATHS:
            return None
        found = await self.health.respond(info.path, info.query)
        return (
            await self.documents(request, None, partial(self._prepared, request, None))
            if found is None
            else found
        )


# What upstream's role system:public-info-viewer lets everybody read (bootstrappolicy/policy.go).
PUBLIC_PATHS: Final = frozenset({"/healthz", "/livez", "/readyz", "/version", "/version/"})


def _placed(served: Served, info: RequestInfo) -> Response | None:
    """None where the path fits the kind's scope; else the 404 or 405 that upstream's routing gives."""
    resource = served.resource
    alone = info.verb in {"list", "watch"} or info.in_namespace
    part = resource.subresources.get(info.subresource) if info.beyond else None
    beyond = info.beyond and resource.builtin and (part is None or not part.has_paths)
    if beyond or (info.in_namespace and not resource.namespaced):
        return _absent(resource)
    if resource.builtin and resource.verbs == ("create",) and not info.subresource:
        # Upstream's router has one path for what is never read again.
        if info.name or resource.namespaced is not info.in_namespace:
            return _absent(resource)
    elif resource.namespaced and not alone:
        if resource.builtin and not info.name:
            raise handlers.not_allowed(served, info.verb)
        return _absent(resource)
    return None


def _unknown(catalog: Catalog, group: str) -> Response:
    """Upstream's built-in groups answer with a Status, all other paths with Go's plain page."""
    if any(resource.builtin and resource.group == group for resource in catalog.resources):
        raise no_such_resource()
    return page_not_found()


def _absent(resource: Resource) -> Response:
    if resource.builtin:
        raise no_such_resource()
    return page_not_found()
